//! Which of several rings for one audience signs: the one with the highest priority, then the first
//! by name; but a key that signs before its publish lead is over (a ring's first, or the one that comes
//! in an emergency) gives way, until then, to a ring whose key verifiers have known for longer.

use jiff::{SignedDuration, Timestamp};

use super::rotation::{Window, later};

/// What decides when a ring that has a key goes before others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// When it may sign.
    pub window: Window,
    /// Since when its key stands in the JWKS.
    pub published: Option<Timestamp>,
    /// From when on verifiers know its key, as its publish lead is over: until then another ring goes
    /// first whose key was published before, if one can sign.
    pub known_from: Option<Timestamp>,
}

impl Standing {
    /// Of a ring with this lead and a key that was published then.
    pub fn of(window: Window, published: Option<Timestamp>, lead: SignedDuration) -> Self {
        Self {
            window,
            published,
            known_from: published.map(|at| later(at, lead)),
        }
    }

    fn in_lead(&self, now: Timestamp) -> bool {
        self.known_from.is_some_and(|from| now < from)
    }
}

/// The rings that may sign now, the preferred one first. `ranked`: by priority, then by name.
pub fn in_order<T>(
    ranked: &[T],
    standing: impl Fn(&T) -> &Standing + Copy,
    now: Timestamp,
) -> impl Iterator<Item = &T> {
    let open = move |ring: &&T| standing(ring).window.contains(now);
    // To one that was published later nobody defers, however short its lead is: verifiers know this
    // one for longer.
    let older = move |than: &T| {
        let mut known = ranked
            .iter()
            .filter(open)
            .filter(|r| !standing(r).in_lead(now));
        known.any(|other| standing(other).published < standing(than).published)
    };
    let defers = move |ring: &&T| standing(ring).in_lead(now) && older(ring);
    let first = ranked.iter().filter(open).filter(move |r| !defers(r));
    first.chain(ranked.iter().filter(open).filter(defers))
}
