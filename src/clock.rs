//! The only place that asks what time it is. Everything else is given the time, or a [`Clock`],
//! so that tests and simulations can move it; clippy's `disallowed-methods` holds this.
#![allow(clippy::disallowed_methods)]

mod guard;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;

pub use guard::ClockGuard;

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock's time now, as this process believes it. It may jump.
    fn now(&self) -> Timestamp;

    /// Monotonic time since some start: it never jumps, and may stand still while the machine is
    /// suspended.
    fn elapsed(&self) -> Duration;
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

    fn elapsed(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

/// The machine's own clock, ready to be shared.
#[must_use]
pub fn system() -> SharedClock {
    Arc::new(SystemClock)
}
