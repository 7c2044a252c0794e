//! Which of several rings for one audience signs: the one with the highest priority, then the first
//! by name; but a ring's first key gives way, through its publish lead, to a ring that verifiers know
//! for longer.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::rotation::{Cause, Window, later};

/// A ring that has a key to sign with.
pub trait Candidate {
    /// When it may sign.
    fn window(&self) -> Window;
    /// Since when its key stands in the JWKS.
    fn published(&self) -> Option<Timestamp>;
    /// Until when it gives way to a ring whose key was published before.
    fn defers_until(&self) -> Option<Timestamp>;
}

impl<C: Candidate> Candidate for Arc<C> {
    fn window(&self) -> Window {
        (**self).window()
    }
    fn published(&self) -> Option<Timestamp> {
        (**self).published()
    }
    fn defers_until(&self) -> Option<Timestamp> {
        (**self).defers_until()
    }
}

/// Until when a key with this lead gives way: a ring's first, which signs before its lead is over.
pub fn defers_until(
    cause: Cause,
    published: Option<Timestamp>,
    lead: SignedDuration,
) -> Option<Timestamp> {
    let known_from = published.map(|at| later(at, lead));
    known_from.filter(|_| cause == Cause::First)
}

/// The rings that may sign now, the preferred one first. `ranked`: by priority, then by name.
pub fn in_order<C: Candidate>(ranked: &[C], now: Timestamp) -> impl Iterator<Item = &C> {
    let open = move |ring: &&C| ring.window().contains(now);
    let in_lead = move |ring: &C| ring.defers_until().is_some_and(|until| now < until);
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
