//! The only place that asks what time it is. Everything else is given the time, or a [`Clock`],
//! so that tests and simulations can move it; clippy's `disallowed-methods` holds this.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;

use jiff::Timestamp;

/// Where the wall clock's time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The time now, as this process believes it.
    fn now(&self) -> Timestamp;
}

/// A clock that parts of the program share.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The machine's own clock, ready to be shared.
#[must_use]
pub fn system() -> SharedClock {
    Arc::new(SystemClock)
}
