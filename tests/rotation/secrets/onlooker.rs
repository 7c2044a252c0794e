//! Who holds which client secret, and what may be expected of it.

use std::collections::{BTreeMap, BTreeSet};

use chancery::controllers::secrets::SERVERS_FOLLOW;
use chancery::domain::rotation::{Cause, MOST_SECRETS};
use chancery::objects::credentials::Stored;

/// A secret that was made.
#[derive(Clone, Debug)]
struct Held {
    /// Since when its hash is stored.
    stored: Option<i64>,
    /// When it last stood where its holder finds it.
    delivered: Option<i64>,
    /// When another one was delivered, and until when it has to work therefore.
    promised: Option<(i64, i64)>,
}

/// An onlooker with a true clock, in seconds.
pub struct Onlooker {
    held: BTreeMap<String, Held>,
    /// The grace that holds.
    pub grace: i64,
    /// Values of the annotation.
    pub asked: BTreeSet<&'static str>,
    /// The ids of the secrets that were delivered for them.
    by_request: BTreeSet<String>,
    /// What was delivered at the last look.
    stood: Option<String>,
    /// A person has altered or deleted something, and that is not mended yet.
    pub tampered: bool,
}

/// The hash of a secret in this world, where nobody guesses.
pub fn hash_of(plain: &str) -> String {
    format!("hash of {plain}")
}

impl Onlooker {
    pub fn new(grace: i64) -> Self {
        Self {
            held: BTreeMap::new(),
            grace,
            asked: BTreeSet::new(),
            by_request: BTreeSet::new(),
            stood: None,
            tampered: false,
        }
    }

    /// A shorter grace than before holds at once.
    pub fn grace(&mut self, grace: i64) {
        self.grace = grace;
        for held in self.held.values_mut() {
            let shorter = |(since, until): (i64, i64)| (since, until.min(since + grace));
            held.promised = held.promised.map(shorter);
        }
    }

    pub fn made(&mut self, plain: &str) {
        let held = Held {
            stored: None,
            delivered: None,
            promised: None,
        };
        self.held.insert(plain.to_owned(), held);
    }

    /// After a write: what is stored, and what stands where its holder finds it.
    pub fn look(
        &mut self,
        now: i64,
        stored: &[Stored],
        delivered: Option<&str>,
    ) -> Result<(), String> {
        let works = |plain: &str| stored.iter().any(|s| s.credential.hash == hash_of(plain));
        if stored.len() > MOST_SECRETS {
            return Err(format!("{} secrets work at once", stored.len()));
        }
        for (plain, held) in &mut self.held {
            held.stored = works(plain).then(|| held.stored.unwrap_or(now));
        }
        let before: Vec<String> = self.delivered_before(delivered);
        if let Some(plain) = delivered {
            let accepted = works(plain);
            if !accepted && !self.tampered {
                return Err(format!("{plain} is delivered and does not work"));
            }
            let servers = SERVERS_FOLLOW.as_secs();
            let known = self.held.get(plain).and_then(|h| h.stored);
            let new = self.held.get(plain).is_some_and(|h| h.delivered.is_none());
            let late = known.is_none_or(|since| now - since < servers);
            // Where there was none to find, nobody waits for servers.
            let others = self.stood.as_deref().is_some_and(works);
            if new && late && others && self.grace > 0 && !self.tampered {
                return Err(format!(
                    "{plain} is delivered before all servers know of it"
                ));
            }
            if let Some(held) = self.held.get_mut(plain) {
                held.delivered = Some(now);
                held.promised = None;
            }
            let of = stored.iter().find(|s| s.credential.hash == hash_of(plain));
            let asked = of.filter(|s| s.cause() == Cause::Request);
            self.by_request
                .extend(asked.map(|s| s.credential.id.clone()));
            let (made, wanted) = (&self.by_request, self.asked.len());
            if made.len() > wanted {
                return Err(format!(
                    "{wanted} rotations were asked for, and made: {made:?}"
                ));
            }
        }
        self.stood = delivered.map(str::to_owned);
        // With every secret that may work taken, the one that would end first makes room.
        let full = stored.len() == MOST_SECRETS;
        for plain in before {
            let held = self.held.get_mut(&plain).expect("held");
            let (_, until) = *held.promised.get_or_insert((now, now + self.grace));
            if !works(&plain) && now < until && !full {
                return Err(format!(
                    "{plain} was to work until {until}, and ended at {now}"
                ));
            }
        }
        Ok(())
    }

    /// Secrets that were delivered and are not now.
    fn delivered_before(&self, delivered: Option<&str>) -> Vec<String> {
        let before = self
            .held
            .iter()
            .filter(|(plain, held)| held.delivered.is_some() && delivered != Some(plain.as_str()));
        before.map(|(plain, _)| plain.clone()).collect()
    }

    /// When nothing is left to do: one secret works, and those whose grace is not over.
    pub fn at_rest(
        &self,
        now: i64,
        stored: &[Stored],
        delivered: Option<&str>,
    ) -> Result<(), String> {
        let Some(delivered) = delivered else {
            return Err("nothing is delivered".into());
        };
        for s in stored {
            let plain = self.held.keys().find(|p| hash_of(p) == s.credential.hash);
            let Some(plain) = plain else { continue };
            let over = self.held[plain]
                .promised
                .is_none_or(|(_, until)| until < now - 60);
            if plain != delivered && over {
                return Err(format!("{plain} works although its grace is over"));
            }
        }
        Ok(())
    }
}
