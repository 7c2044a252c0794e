//! Which of several rings for one audience signs: the one with the highest priority, then the first
//! by name; but a key that signs before its publish lead is over (a ring's first, or the one that comes
//! in an emergency) gives way, until then, to a ring whose key verifiers have known for longer.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::rotation::{Window, later};

/// A ring that has a key to sign with.
pub trait Candidate {
    /// When it may sign.
    fn window(&self) -> Window;
    /// Since when its key stands in the JWKS.
    fn published(&self) -> Option<Timestamp>;
    /// From when on verifiers know its key: its publish lead is over.
    fn known_from(&self) -> Option<Timestamp>;
}

impl<C: Candidate> Candidate for Arc<C> {
    fn window(&self) -> Window {
        (**self).window()
    }
    fn published(&self) -> Option<Timestamp> {
        (**self).published()
    }
    fn known_from(&self) -> Option<Timestamp> {
        (**self).known_from()
    }
}

/// From when on verifiers know a key with this lead.
pub fn known_from(published: Option<Timestamp>, lead: SignedDuration) -> Option<Timestamp> {
    published.map(|at| later(at, lead))
}

/// The rings that may sign now, the preferred one first. `ranked`: by priority, then by name.
pub fn in_order<C: Candidate>(ranked: &[C], now: Timestamp) -> impl Iterator<Item = &C> {
    let open = move |ring: &&C| ring.window().contains(now);
    let in_lead = move |ring: &C| ring.known_from().is_some_and(|until| now < until);
    // To one that was published later nobody defers, however short its lead is: verifiers know this
    // one for longer.
    let older = move |than: &C| {
        let mut others = ranked.iter().filter(open).filter(|r| !in_lead(r));
        others.any(|other| other.published() < than.published())
    };
    let defers = move |ring: &&C| in_lead(ring) && older(ring);
    let first = ranked.iter().filter(open).filter(move |r| !defers(r));
    first.chain(ranked.iter().filter(open).filter(defers))
}
