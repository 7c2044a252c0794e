//! Whether to believe the wall clock. It is compared with the monotonic clock, which shows a jump
//! at once, and now and then with the API server's `Date`, which shows what is slowly wrong.
//!
//! ```text
//! unchecked ──agrees──▶ sure ──jump──▶ in doubt ──agrees twice, a minute apart──▶ sure
//!                        ▲ └──more than 5 minutes off──▶ off ──agrees──┐
//!                        └─────────────────────────────────────────────┘
//! ```

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

#[cfg(test)]
mod tests;

/// What counts as wrong, and how often to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// By more than this the wall clock has jumped beside the monotonic one.
    pub jump: Duration,
    /// The most that the clock may be off from the API server's.
    pub most_off: Duration,
    /// How far apart the two comparisons must be that confirm a jump.
    pub between: Duration,
    /// How often to compare while all is well.
    pub every: Duration,
    /// How soon to compare again where the clock is off or the API server did not answer.
    pub retry: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            jump: Duration::from_secs(10),
            most_off: Duration::from_mins(5),
            between: Duration::from_mins(1),
            every: Duration::from_mins(5),
            retry: Duration::from_secs(5),
        }
    }
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The wall clock.
    pub now: Timestamp,
    /// The monotonic clock.
    pub elapsed: Duration,
}

/// What is known of the clock.
#[derive(Clone, Debug)]
pub struct ClockTrust {
    limits: Limits,
    last: Option<Look>,
    /// The API server's time at a monotonic time.
    reference: Option<(Timestamp, Duration)>,
    doubt: Option<Doubt>,
    tried: Option<Duration>,
    /// The API server is being asked, and the clock has not jumped since it was.
    asking: bool,
    offset: Option<SignedDuration>,
}

/// Clocks that differ by no more than this are taken for equal.
const WIRE: Duration = Duration::from_secs(2);

/// A jump that is not confirmed yet.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// The first comparison since it that agreed, with none after it that did not.
    agreed: Option<Duration>,
}

/// Why a replica with this clock should get no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The API server has not been asked yet.
    Unchecked,
    /// One of the two clocks is wrong.
    Off {
        /// What this machine's clock says.
        here: Timestamp,
        /// What the API server's says.
        there: Timestamp,
        /// The most that they may be apart.
        most: Duration,
    },
}

impl ClockTrust {
    /// A clock that nothing is known of.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            last: None,
            reference: None,
            doubt: None,
            tried: None,
            asking: false,
            offset: None,
        }
    }

    /// A look at both clocks. By how much the wall clock has jumped since the last one, if it has.
    pub fn look(&mut self, look: Look) -> Option<SignedDuration> {
        let last = self.last.replace(look)?;
        let jump = look.now.duration_since(last.now) - span(look.elapsed, last.elapsed);
        if jump.unsigned_abs() <= self.limits.jump {
            return None;
        }
        self.doubt = Some(Doubt { agreed: None });
        // An answer on its way would compare what was before with what is now.
        self.asking = false;
        // Asked at once, whenever the last try was.
        self.tried = None;
        Some(jump)
    }

    /// Whether what can not be taken back may be done at the time of the last look.
    #[must_use]
    pub fn sure(&self) -> bool {
        self.doubt.is_none() && self.problem().is_none()
    }

    /// What is against the clock as it was at the last look. What the API server said counts until
    /// it says otherwise: its time goes on with the monotonic clock.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        let (Some((date, at)), Some(look)) = (self.reference, self.last) else {
            return Some(Problem::Unchecked);
        };
        let there = date
            .checked_add(span(look.elapsed, at))
            .unwrap_or(Timestamp::MAX);
        let most = self.limits.most_off;
        let off = look.now.duration_since(there).unsigned_abs() > most;
        off.then_some(Problem::Off {
            here: look.now,
            there,
            most,
        })
    }

    /// The time to go by at the last look: that of the API server where the clock is off from it,
    /// so that replicas agree on it whatever their clocks say.
    #[must_use]
    pub fn time(&self, look: Look) -> Timestamp {
        let Some((date, at)) = self.reference.filter(|_| self.sure()) else {
            return look.now;
        };
        let there = date
            .checked_add(span(look.elapsed, at))
            .unwrap_or(Timestamp::MAX);
        // Date has whole seconds, and came over a wire.
        let close = look.now.duration_since(there).unsigned_abs() <= WIRE;
        if close { look.now } else { there }
    }

    /// By how much the clock was ahead of the API server's at the last comparison.
    #[must_use]
    pub fn offset(&self) -> Option<SignedDuration> {
        self.offset
    }

    /// Whether to ask the API server for its time now.
    #[must_use]
    pub fn check_due(&self, elapsed: Duration) -> bool {
        let since = |then: Duration| elapsed.saturating_sub(then);
        if self.tried.is_some_and(|at| since(at) < self.limits.retry) {
            return false;
        }
        match (self.reference, self.doubt) {
            (None, _) => true,
            (_, Some(doubt)) => doubt
                .agreed
                .is_none_or(|at| since(at) >= self.limits.between),
            (Some((_, at)), None) => self.problem().is_some() || since(at) >= self.limits.every,
        }
    }

    /// The API server is being asked.
    pub fn check_begins(&mut self, elapsed: Duration) {
        self.tried = Some(elapsed);
        self.asking = true;
    }

    /// The API server's `Date`, asked for since [`Self::check_begins`] and there at `look`. It does
    /// not count if the clock jumped, or the machine slept, meanwhile.
    pub fn compared(&mut self, date: Timestamp, look: Look) {
        self.look(look);
        if !std::mem::take(&mut self.asking) {
            return;
        }
        let offset = look.now.duration_since(date);
        self.offset = Some(offset);
        self.reference = Some((date, look.elapsed));
        let agrees = offset.unsigned_abs() <= self.limits.most_off;
        if let Some(doubt) = &mut self.doubt {
            match doubt.agreed {
                _ if !agrees => doubt.agreed = None,
                None => doubt.agreed = Some(look.elapsed),
                Some(first) if look.elapsed.saturating_sub(first) >= self.limits.between => {
                    self.doubt = None;
                }
                Some(_) => {}
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchecked => f.write_str(
                "This machine's clock has not been compared with the API server's yet: GET \
                 /version has to be answered with a Date.",
            ),
            Self::Off { here, there, most } => {
                let second = |t: &Timestamp| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                write!(
                    f,
                    "This machine's clock says {}, the API server's {}, which is more than {} \
                     minutes apart: set the one that is wrong right (is NTP running on this node, \
                     and on those of the control plane?).",
                    second(here),
                    second(there),
                    most.as_secs() / 60
                )
            }
        }
    }
}

/// From one monotonic time to a later one.
fn span(later: Duration, earlier: Duration) -> SignedDuration {
    SignedDuration::try_from(later.saturating_sub(earlier)).unwrap_or(SignedDuration::MAX)
}
