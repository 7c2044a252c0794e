//! The clock, and whether to believe it.

use std::sync::Arc;

use super::SharedClock;
use crate::domain::moment::Moment;

/// Looks at the clock and says whether it can be believed. Clones share what they know.
#[derive(Clone)]
pub struct ClockGuard(Arc<Inner>);

struct Inner {
    clock: SharedClock,
}

impl ClockGuard {
    /// A guard that believes this clock whatever it says: for tests and simulations that are not
    /// about clocks.
    #[must_use]
    pub fn trusting(clock: SharedClock) -> Self {
        Self(Arc::new(Inner { clock }))
    }

    /// A look at the clock.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment {
            now: self.0.clock.now(),
            sure: true,
        }
    }

    /// The clock itself.
    #[must_use]
    pub fn clock(&self) -> SharedClock {
        self.0.clock.clone()
    }
}
