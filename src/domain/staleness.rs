//! How long a replica may go on with what it last heard from the API server.

use std::time::Duration;

use jiff::Timestamp;

use super::period::Period;

#[cfg(test)]
mod tests;

/// When a replica last knew all that the API server knew, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// By the wall clock, which goes on while the machine is suspended.
    pub wall: Timestamp,
    /// By the monotonic clock, which nobody sets back.
    pub elapsed: Duration,
}

impl Contact {
    /// How long ago it was: what the clock says that counts more.
    #[must_use]
    pub fn age(&self, now: Timestamp, elapsed: Duration) -> Duration {
        let by_wall = now.duration_since(self.wall);
        let by_wall = Duration::try_from(by_wall).unwrap_or_default();
        elapsed.saturating_sub(self.elapsed).max(by_wall)
    }
}

/// How old the contact may be, as follows from the release's settings and its rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Beyond this a replica signs nothing.
    pub signing: Duration,
    /// Beyond this it is not ready: sooner, so that load balancers have taken it out before its
    /// old JWKS lacks a key that signs elsewhere.
    pub readiness: Duration,
    /// How often to seek contact: several times within the shorter of the two.
    pub interval: Duration,
}

/// What a ring that sets no publish lead has.
pub const DEFAULT_PUBLISH_LEAD: Period = Period::from_mins(30);

/// Below this, readiness would come and go with every slow answer.
const SHORTEST_READINESS: Duration = Duration::from_secs(2);
/// Contact is sought at least so often.
const LONGEST_INTERVAL: Duration = Duration::from_mins(5);
/// And no more often, whatever is set.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(150);

impl Limits {
    /// `shortest_lead`: the shortest publish lead of the rings; none: the default.
    #[must_use]
    pub fn new(max_staleness: Period, shortest_lead: Option<Period>, max_age: Period) -> Self {
        let seconds = |period: Period| Duration::from_secs(period.as_secs().unsigned_abs());
        let signing = seconds(max_staleness);
        let lead = seconds(shortest_lead.unwrap_or(DEFAULT_PUBLISH_LEAD));
        // A verifier that fetched the JWKS here, just before, caches it for max-age.
        let spare = lead.saturating_sub(seconds(max_age)) / 2;
        let readiness = spare.max(SHORTEST_READINESS).min(signing);
        let interval = (signing / 6).min(readiness / 3);
        Self {
            signing,
            readiness,
            interval: interval.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL),
        }
    }
}
