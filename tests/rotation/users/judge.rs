//! What is demanded: which client secrets work where, and for how long.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chancery::crypto::hash;
use chancery::domain::client::StoredCredential;
use chancery::domain::rotation::{Cause, MOST_SECRETS};
use chancery::objects::credentials::Stored;
use jiff::Timestamp;

use super::replica::Replica;
use crate::simulation::world::{HOUR, MINUTE, SECOND};

/// Within that a replica that has contact knows what was written.
const FOLLOWS: i64 = 2 * SECOND;

/// Two replicas' clocks may be so far apart, and each is still believed: so much earlier may a grace be
/// over that begins by one and ends by the other.
const SKEW: i64 = 11 * MINUTE;

/// A secret that stood where its holder finds it.
struct Held {
    /// Since when.
    since: i64,
    /// Since when all replicas that have contact have to take it: one that nobody waited for may stand
    /// there before they know of it.
    known: i64,
    /// When another one took its place, and until when it has to work therefore.
    promised: Option<(i64, i64)>,
    /// Until when it may work, with the longest grace that has held since.
    at_most: i64,
}

/// An onlooker with a true clock, in milliseconds.
pub struct Judge {
    held: BTreeMap<String, Held>,
    /// What stands there now.
    stands: Option<String>,
    /// The grace that holds.
    grace: i64,
    asked: BTreeSet<String>,
    /// When another secret was last asked for.
    asked_at: i64,
    /// When each was first delivered.
    first: HashMap<String, i64>,
    /// The credentials that were delivered because somebody asked for them.
    by_request: BTreeSet<String>,
    /// Until then nothing is said of what ought to have ended.
    pub troubled_until: i64,
    /// A person has deleted or altered what was delivered, and it is not mended yet.
    pub tampered: bool,
    verified: HashMap<(String, String), bool>,
    pub judged: u64,
    pub delivered: u64,
}

impl Judge {
    pub fn new(grace: i64) -> Self {
        Self {
            held: BTreeMap::new(),
            stands: None,
            grace,
            asked: BTreeSet::new(),
            asked_at: 0,
            first: HashMap::new(),
            by_request: BTreeSet::new(),
            troubled_until: 0,
            tampered: false,
            verified: HashMap::new(),
            judged: 0,
            delivered: 0,
        }
    }

    /// Somebody asks for another secret.
    pub fn asks(&mut self, now: i64, value: String) {
        self.asked.insert(value);
        self.asked_at = now;
    }

    /// Another grace: a shorter one holds at once.
    pub fn grace(&mut self, grace: i64) {
        self.grace = grace;
        for held in self.held.values_mut() {
            let shorter = |(since, until): (i64, i64)| (since, until.min(since + grace));
            held.promised = held.promised.map(shorter);
            if let Some((since, _)) = held.promised {
                held.at_most = held.at_most.max(since + grace);
            }
        }
    }

    fn proves(&mut self, plain: &str, credential: &StoredCredential) -> bool {
        let key = (plain.to_owned(), credential.hash.clone());
        let known = self.verified.entry(key);
        *known.or_insert_with(|| hash::verify(plain, &credential.hash))
    }

    fn found<'s>(&mut self, plain: &str, stored: &'s [Stored]) -> Option<&'s Stored> {
        let mut stored = stored.iter();
        stored.find(|s| self.proves(plain, &s.credential))
    }

    /// After each write: what is stored, and what stands where its holder finds it.
    pub fn look(
        &mut self,
        now: i64,
        stored: &[Stored],
        stands: Option<&str>,
    ) -> Result<(), String> {
        if stored.len() > MOST_SECRETS {
            return Err(format!("{} secrets work at once", stored.len()));
        }
        if stands.is_none() {
            self.stands = None;
        }
        if let Some(plain) = stands.filter(|plain| self.stands.as_deref() != Some(*plain)) {
            let of = self.found(plain, stored);
            if of.is_none() && !self.tampered {
                return Err("a secret is delivered that does not work".into());
            }
            if let Some(of) = of {
                self.tampered = false;
                self.takes_the_place(now, plain, of)?;
            }
        }
        let full = stored.len() == MOST_SECRETS;
        let gone: Vec<String> = self.held.keys().cloned().collect();
        let gone: Vec<String> = gone
            .into_iter()
            .filter(|plain| self.found(plain, stored).is_none())
            .collect();
        let ends = |held: &Held| held.promised.map_or(i64::MAX, |(_, until)| until);
        let stay = self.held.iter().filter(|(plain, _)| !gone.contains(plain));
        let earliest = stay.map(|(_, held)| ends(held)).min().unwrap_or(i64::MAX);
        for plain in gone {
            let held = &self.held[&plain];
            let early = ends(held).saturating_sub(SKEW) > now;
            // With every secret that may work taken, those that would end first make room.
            if early && !(full && ends(held) <= earliest) && !self.tampered {
                let (since, left) = (now - held.since, ends(held).saturating_sub(now));
                return Err(format!(
                    "a secret was struck off {since} ms after it was delivered and {left} ms before its end"
                ));
            }
            self.held.remove(&plain);
        }
        Ok(())
    }

    fn takes_the_place(&mut self, now: i64, plain: &str, of: &Stored) -> Result<(), String> {
        let grace = self.grace;
        let before = self.stands.replace(plain.to_owned());
        let at_once = grace == 0 || before.is_none();
        for (other, held) in &mut self.held {
            if other != plain && held.promised.is_none() {
                held.promised = Some((now, now + grace));
            }
            if other != plain && held.at_most == i64::MAX {
                // A clock that is wrong for two hours writes times that are put right after.
                let late = if now < self.troubled_until {
                    4 * HOUR
                } else {
                    0
                };
                held.at_most = now + grace + late;
            }
        }
        let new = Held {
            since: now,
            known: now + if at_once { FOLLOWS } else { 0 },
            promised: None,
            at_most: i64::MAX,
        };
        self.first.entry(plain.to_owned()).or_insert(now);
        self.delivered += u64::from(!self.held.contains_key(plain));
        match self.held.get_mut(plain) {
            // Moved back to a Secret that still shows one from before: it ends when it was to, at the
            // earliest.
            Some(held) if held.promised.is_some() => held.at_most = i64::MAX,
            _ => {
                self.held.insert(plain.to_owned(), new);
            }
        }
        if of.cause() == Cause::Request {
            self.by_request.insert(of.credential.id.clone());
        }
        if self.by_request.len() > self.asked.len() {
            let (made, wanted) = (&self.by_request, &self.asked);
            return Err(format!("delivered for {wanted:?}: {made:?}"));
        }
        Ok(())
    }

    /// Until then nothing is said of what ought to have ended, and what ends later does so that much later at
    /// most.
    pub fn troubled(&mut self, until: i64, late: i64) {
        self.troubled_until = self.troubled_until.max(until);
        for held in self.held.values_mut() {
            held.at_most = held.at_most.saturating_add(late);
        }
    }

    /// What a replica that has contact takes for right.
    pub fn judge(&mut self, now: i64, replica: &Replica) -> Result<(), String> {
        let wall = Timestamp::from_millisecond(now).expect("a time");
        let promised = |held: &Held| held.promised.is_none_or(|(_, until)| now < until - SKEW);
        let held = self.held.iter().filter(|(_, h)| h.known <= now);
        let held = held.filter(|(_, held)| promised(held));
        let held: Vec<(String, i64)> = held.map(|(p, h)| (p.clone(), h.since)).collect();
        for (plain, since) in held {
            self.judged += 1;
            let works: Vec<_> = replica
                .accepts
                .iter()
                .filter(|c| c.works_at(wall))
                .collect();
            if !works.iter().any(|c| self.proves(&plain, c)) && !self.tampered {
                return Err(format!(
                    "replica {} refuses a secret that was delivered {} ms ago",
                    replica.number,
                    now - since
                ));
            }
        }
        let over = self.held.iter().filter(|(_, held)| {
            held.at_most.saturating_add(HOUR) < now && self.troubled_until < now
        });
        match over.count() {
            0 => Ok(()),
            n => Err(format!("{n} secrets work an hour after their grace")),
        }
    }

    /// When nothing has happened for days: what stands there works, and beside it only what has stood
    /// there before, or is about to.
    pub fn at_rest(&mut self, now: i64, stored: &[Stored]) -> Result<(), String> {
        let stands = self.stands.clone().unwrap_or_default();
        if self.found(&stands, stored).is_none() {
            return Err("at rest, what stands there does not work".into());
        }
        if self.first[&stands] < self.asked_at {
            return Err("what stands there was there before somebody asked for another one".into());
        }
        let held: Vec<String> = self.held.keys().cloned().collect();
        for s in stored {
            let made = s.credential.created_at.as_millisecond();
            let known = held.iter().any(|plain| self.proves(plain, &s.credential));
            if !known && now - made > HOUR {
                let id = &s.credential.id;
                return Err(format!("at rest, {id} is stored, and nobody ever had it"));
            }
        }
        Ok(())
    }
}
