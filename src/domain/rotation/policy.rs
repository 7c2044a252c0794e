//! What bounds a ring's steps: what its spec asks for, and what the release allows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{KeyFacts, MOST_PUBLISHED, MOST_SECRETS, Public};
use crate::domain::moment::Moment;

/// When a ring may sign at all; a hard window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Window {
    /// No signature before.
    pub from: Option<Timestamp>,
    /// No signature from then on, and nothing that was signed verifies past it.
    pub to: Option<Timestamp>,
}

impl Window {
    /// Whether it has begun and not ended.
    pub fn contains(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && self.to.is_none_or(|to| now < to)
    }
}

/// Where a ring's next key comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Source {
    /// It is generated.
    #[default]
    Generate,
    /// A person injects it: the key with this kid.
    Inject(String),
    /// There is none now: the ring goes on with the keys that it has.
    Hold,
}

/// What it is that rotates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rotated {
    /// Key pairs: verifiers cache what is published of them, and learn of a new one in its lead.
    #[default]
    KeyPairs,
    /// Client secrets, whose plain text is known for only a moment: what is published is the delivered
    /// Secret, which its holder reads; a new one is used at once, and one that was lost before it was
    /// delivered is made again.
    Secrets,
}

/// What bounds a ring's steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What it is that rotates.
    pub rotated: Rotated,
    /// How long a key signs; none: until a person says so.
    pub interval: Option<SignedDuration>,
    /// Where this ring lies among others, from 0 to 65535: by so much of a tenth of the interval
    /// (of a day at most) it rotates earlier.
    pub jitter: u16,
    /// How long a key is in the JWKS before it signs.
    pub publish_lead: SignedDuration,
    /// How long verifiers may cache the JWKS; the lead is longer in any case.
    pub max_age: SignedDuration,
    /// How long a key verifies after it ceased to sign, where that is longer than is safe anyway.
    pub grace: SignedDuration,
    /// The longest token life that the release allows now.
    pub max_ttl: SignedDuration,
    /// What a token's life is not all of: clock leeway, the JWKS's `max-age`, and for how long a
    /// replica that is cut off may go on signing.
    pub margin: SignedDuration,
    /// For how long a verifier may hold a JWKS from before a key was taken out: `max-age`, and
    /// for how long a replica that is cut off may serve it.
    pub cached_for: SignedDuration,
    /// How long a Secret is kept after its key left the JWKS.
    pub retention: SignedDuration,
    /// When the ring may sign at all.
    pub window: Window,
    /// Keys that a person withdraws, each with its grace; none: the ring's own.
    pub withdrawals: BTreeMap<String, Option<SignedDuration>>,
    /// The key that a person has sign.
    pub sign_with: Option<String>,
    /// The value of the rotate annotation.
    pub rotate: Option<String>,
    /// The last value of it that was handled, as status remembers it.
    pub handled: Option<String>,
    /// Where the next key comes from.
    pub source: Source,
    /// What is remembered of keys that are gone.
    pub history: History,
}

/// What is remembered of a ring's keys that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The highest number that any had.
    pub highest: i64,
    /// Their kids: a person can not inject them again.
    pub spent: BTreeSet<String>,
    /// Those of them that never signed and were not withdrawn: other rings may use them.
    pub unused: BTreeSet<String>,
    /// The editions in which they went, where that was not the first.
    pub editions: BTreeMap<String, i64>,
}

impl History {
    /// Whether a key of that edition is gone for good: one that came back by the withdrawal being taken
    /// back is of a later edition.
    pub fn is_spent(&self, kid: &str, edition: i64) -> bool {
        let gone = self.editions.get(kid).copied().unwrap_or(0);
        self.spent.contains(kid) && edition <= gone
    }

    /// Kids that no ring may use any more.
    pub fn burned(&self) -> impl Iterator<Item = &String> {
        self.spent.difference(&self.unused)
    }
}

/// A tenth of an interval, but no more than this, is what rotations of rings are spread over.
const MOST_JITTER: SignedDuration = SignedDuration::from_hours(24);

impl Policy {
    /// How long a key must be published before it signs: longer than verifiers cache.
    pub fn lead(&self) -> SignedDuration {
        match self.rotated {
            Rotated::KeyPairs => effective_lead(self.publish_lead, self.max_age),
            // Nobody caches it.
            Rotated::Secrets => self.publish_lead,
        }
    }

    /// How many may be published at once.
    pub fn most(&self) -> usize {
        match self.rotated {
            Rotated::KeyPairs => MOST_PUBLISHED,
            Rotated::Secrets => MOST_SECRETS,
        }
    }

    /// The grace below which a token of this key could outlive the key.
    pub fn safe_grace<P>(&self, key: &KeyFacts<P>) -> SignedDuration {
        let ttl = key.max_ttl.unwrap_or(self.max_ttl);
        ttl.saturating_add(self.margin)
    }

    /// How long this key verifies after it ceased to sign.
    pub fn grace_of<P>(&self, key: &KeyFacts<P>) -> SignedDuration {
        self.grace.max(self.safe_grace(key))
    }

    /// When the successor of an active key is to sign, if there is a schedule.
    pub fn due<P>(&self, active: &KeyFacts<P>) -> Option<Timestamp> {
        let since = active.life.activated?;
        let since = self.window.from.map_or(since, |from| from.max(since));
        let interval = self.interval?;
        Some(later(since, interval.saturating_sub(self.early(interval))))
    }

    fn early(&self, interval: SignedDuration) -> SignedDuration {
        let span = (interval / 10).min(MOST_JITTER).as_millis();
        let part = span * i128::from(self.jitter) / (i128::from(u16::MAX) + 1);
        SignedDuration::from_millis(i64::try_from(part).unwrap_or(0))
    }

    /// When a key leaves the JWKS, if that is settled. `superseded`: another key signs.
    pub fn end<P: Public>(&self, key: &KeyFacts<P>, superseded: bool) -> Option<Timestamp> {
        let life = &key.life;
        let order = self.withdrawals.get(key.kid());
        let natural = life.retired.map(|retired| {
            if life.activated.is_none() {
                // It never signed: nothing can be lost with it.
                retired
            } else {
                later(retired, self.grace_of(key))
            }
        });
        let ordered = match (life.withdrawn, order) {
            (Some(at), Some(grace)) => {
                let end = later(at, grace.unwrap_or_else(|| self.grace_of(key)));
                // Until its successor is published, but no longer than one can wait.
                let signs = life.retired.is_none() && life.activated.is_some() && key.has_material;
                Some(if signs && !superseded {
                    end.max(later(at, super::PATIENCE))
                } else {
                    end
                })
            }
            _ => None,
        };
        // Of a key that had ceased to sign before, a withdrawal lengthens nothing.
        let before = life
            .retired
            .is_some_and(|at| life.withdrawn.is_some_and(|w| at < w));
        let end = match (ordered, natural) {
            (Some(ordered), Some(natural)) if before => Some(ordered.min(natural)),
            _ => ordered.or(natural),
        };
        match (end, self.window.to) {
            (Some(end), Some(to)) => Some(end.min(to)),
            (end, to) => end.or(to),
        }
    }

    /// How long the Secret of a removed key is kept.
    pub fn kept_for<P: Public>(&self, key: &KeyFacts<P>) -> SignedDuration {
        let ordered_at_once = self.withdrawals.get(key.kid()) == Some(&Some(SignedDuration::ZERO));
        if ordered_at_once || key.life.activated.is_none() && key.life.withdrawn.is_none() {
            SignedDuration::ZERO
        } else {
            self.retention
        }
    }
}

/// A `validTo` that had passed before it was ever seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRefused;

/// The window that holds for a ring: what its spec says, unless that ends in the past and was
/// never in force, which is a slip of the pen rather than an order; then the one before. A ring
/// whose keys have all left the JWKS has nothing to protect: it stays ended.
pub fn accept_window(
    wanted: Window,
    keys: &[KeyFacts],
    moment: Moment,
) -> (Window, Option<WindowRefused>) {
    let standing = || keys.iter().filter(|k| k.life.removed.is_none());
    let known = |to| standing().any(|k| k.window.to == Some(to));
    let over = !keys.is_empty() && standing().next().is_none();
    match wanted.to {
        Some(to) if to <= moment.now && !known(to) && !over => {
            let newest = standing().max_by_key(|k| k.sequence);
            (
                newest.map(|k| k.window).unwrap_or_default(),
                Some(WindowRefused),
            )
        }
        _ => (wanted, None),
    }
}

/// The lead that holds: a second longer than verifiers may cache, at least.
pub fn effective_lead(publish_lead: SignedDuration, max_age: SignedDuration) -> SignedDuration {
    publish_lead.max(max_age.saturating_add(SignedDuration::from_secs(1)))
}

/// Where a ring lies among others ([`Policy::jitter`]): a number that follows from its UID.
pub fn jitter(uid: &str) -> u16 {
    // FNV-1a: spread is all that is asked of it.
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    u16::try_from(hash >> 48).unwrap_or(0)
}

/// That much later, or the end of time.
pub fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}
