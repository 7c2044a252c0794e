//! Whether this process has just gone on after it was stopped (SIGSTOP, a frozen container, a suspended
//! machine). It then knows for a moment only what was true before, and must not call a new secret wrong.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::SharedClock;
use crate::domain::staleness::Contact;

/// How often it beats.
pub const PERIOD: Duration = Duration::from_millis(100);
/// A pulse that stays away for longer was stopped.
const STOPPED: Duration = Duration::from_secs(1);
/// How long the watches need at most to bring what has changed meanwhile.
const CATCHES_UP: Duration = Duration::from_secs(2);

/// A process's pulse; one that never beats tells nothing.
pub struct Pulse {
    clock: SharedClock,
    beats: Mutex<Beats>,
}

#[derive(Default)]
struct Beats {
    /// The last one.
    last: Option<Contact>,
    /// The first one after it had stayed away.
    first: Option<Contact>,
}

impl Pulse {
    /// A pulse by that clock.
    pub fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            beats: Mutex::default(),
        }
    }

    /// Beats; call it every [`PERIOD`].
    pub fn beat(&self) {
        let now = self.now();
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        if beats.last.is_some_and(|last| after(last, now) > STOPPED) {
            beats.first = Some(now);
        }
        beats.last = Some(now);
    }

    /// Whether the process was stopped until just now.
    pub fn has_just_returned(&self) -> bool {
        let now = self.now();
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.last.is_some_and(|last| after(last, now) > STOPPED)
            || beats
                .first
                .is_some_and(|first| after(first, now) <= CATCHES_UP)
    }

    fn now(&self) -> Contact {
        Contact {
            wall: self.clock.now(),
            elapsed: self.clock.elapsed(),
        }
    }
}

/// How long after the one the other was, by the clock that says more: one stands still with the machine.
fn after(one: Contact, other: Contact) -> Duration {
    one.age(other.wall, other.elapsed)
}
