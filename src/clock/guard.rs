//! The clock, and whether to believe it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::SharedClock;
use crate::domain::clock_trust::{ClockTrust, Limits, Look};
use crate::domain::moment::Moment;

/// Looks at the clock and says whether it can be believed ([`ClockTrust`]). Clones share what they
/// know.
#[derive(Clone)]
pub struct ClockGuard(Arc<Inner>);

struct Inner {
    clock: SharedClock,
    /// None: it believes whatever the clock says.
    trust: Option<Mutex<ClockTrust>>,
}

impl ClockGuard {
    /// A guard that is sure of nothing until the clock was compared with the API server's, which
    /// somebody has to do: [`crate::contact::clock::follow`].
    #[must_use]
    pub fn new(clock: SharedClock, limits: Limits) -> Self {
        let trust = Some(Mutex::new(ClockTrust::new(limits)));
        Self(Arc::new(Inner { clock, trust }))
    }

    /// A guard that believes this clock whatever it says: for tests and simulations that are not
    /// about clocks.
    #[must_use]
    pub fn trusting(clock: SharedClock) -> Self {
        Self(Arc::new(Inner { clock, trust: None }))
    }

    /// A look at the clock. The time is the API server's where this machine's is off from it.
    #[must_use]
    pub fn moment(&self) -> Moment {
        match self.looked() {
            Some((trust, look)) => Moment {
                now: trust.time(look),
                sure: trust.sure(),
            },
            None => Moment {
                now: self.0.clock.now(),
                sure: true,
            },
        }
    }

    /// The clock itself.
    #[must_use]
    pub fn clock(&self) -> SharedClock {
        self.0.clock.clone()
    }

    /// Whether it is time to compare the clock with the API server's, which the caller then does.
    #[must_use]
    pub fn begin_check(&self) -> bool {
        let Some((mut trust, look)) = self.looked() else {
            return false;
        };
        let due = trust.check_due(look.elapsed);
        if due {
            trust.check_begins(look.elapsed);
        }
        due
    }

    /// The `Date` that the API server answered with after [`Self::begin_check`].
    pub fn compared(&self, date: Timestamp) {
        if let Some((mut trust, look)) = self.looked() {
            trust.compared(date, look);
        }
    }

    /// A sentence on what is wrong with the clock, for which the replica should get no requests.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let (trust, _) = self.looked()?;
        trust.problem().map(|problem| problem.to_string())
    }

    /// By how much the clock was ahead of the API server's at the last comparison.
    #[must_use]
    pub fn offset(&self) -> Option<SignedDuration> {
        self.looked()?.0.offset()
    }

    /// Reads the clocks while nobody else does, so that looks follow one another.
    fn looked(&self) -> Option<(MutexGuard<'_, ClockTrust>, Look)> {
        let Inner { clock, trust } = &*self.0;
        let mut trust = trust
            .as_ref()?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let look = Look {
            now: clock.now(),
            elapsed: clock.elapsed(),
        };
        if let Some(jump) = trust.look(look) {
            tracing::warn!(
                jump_seconds = jump.as_secs_f64(),
                now = %look.now,
                "The clock has jumped: nothing that can not be taken back is done until the API server's clock has agreed with it twice, a minute apart."
            );
        }
        Some((trust, look))
    }
}
