//! Who leads: a lease that candidates take and renew.
//!
//! Whether a lease has expired is judged by what the candidate observed itself: for how long, on
//! its own monotonic clock, the record has not changed. No wall clock is compared with another,
//! so a wrong one harms nobody (client-go judges so too).
//!
//! Two never believe in the lease at once, as a holder loses faith earlier than anybody may take
//! the lease from it: a holder counts from the start of its request, the others from when they saw
//! what became of it. (A lease that a person deletes is the exception: a process that starts just
//! then has nothing to wait for.)

use std::time::Duration;

use jiff::Timestamp;

/// How long a lease holds without being renewed.
pub const DURATION: Duration = Duration::from_secs(15);
/// How much earlier than that its holder loses faith: for clocks that run fast or slow.
const MARGIN: Duration = Duration::from_secs(3);
/// For how long a holder believes in its lease, from the start of the request that renewed it.
pub const FAITH: Duration = DURATION.saturating_sub(MARGIN);
/// How often a holder renews it.
pub const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How often the others look.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest duration that is believed: a slip of a person's hand must not stop everything.
const LONGEST: Duration = Duration::from_mins(1);

/// What a Lease says of its holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it. Nobody after it was released; an empty name is nobody.
    pub holder: Option<String>,
    /// The holder's wall clock at its last renewal. Only that it changes means something.
    pub renewed: Option<Timestamp>,
    /// How often the holder has changed.
    pub transitions: i32,
    /// For how many seconds it holds.
    pub seconds: Option<i32>,
}

impl Record {
    /// Who holds it, if anybody does.
    pub fn holder(&self) -> Option<&str> {
        self.holder.as_deref().filter(|holder| !holder.is_empty())
    }

    fn duration(&self) -> Duration {
        let seconds = self.seconds.and_then(|s| u64::try_from(s).ok());
        match seconds.map(Duration::from_secs) {
            Some(given) if !given.is_zero() => given.min(LONGEST),
            _ => DURATION,
        }
    }
}

/// What to do with the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take it: nobody holds it, or its holder has not renewed it in time.
    Acquire,
    /// Renew it: it is ours.
    Renew,
    /// Leave it: somebody else holds it.
    Wait,
}

/// What a candidate remembers. Its times are those of a monotonic clock of its own: the time since
/// any moment, as long as that stays the same.
#[derive(Clone, Debug)]
pub struct Candidate {
    me: String,
    seen: Option<Seen>,
}

/// What was seen last. No record: there was no lease.
#[derive(Clone, Debug)]
struct Seen {
    record: Option<Record>,
    /// Since when it has not changed.
    since: Duration,
    /// How long it has to stay so until the lease may be taken.
    patience: Duration,
}

impl Candidate {
    /// A candidate of that name, which no other has.
    pub fn new(me: impl Into<String>) -> Self {
        Self {
            me: me.into(),
            seen: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.me
    }

    /// Who held the lease when it was looked at last.
    pub fn holder(&self) -> Option<&str> {
        self.seen.as_ref()?.record.as_ref()?.holder()
    }

    /// Takes in the lease as it was read, and says what to do with it. `leads`: whether this
    /// candidate still believes in its own last renewal.
    ///
    /// Whatever is done has to name the version that was read, so that of two only one succeeds.
    pub fn look(&mut self, found: Option<&Record>, leads: bool, now: Duration) -> Step {
        let first = self.seen.is_none();
        if self.seen.as_ref().map(|seen| seen.record.as_ref()) != Some(found) {
            let before = self.seen.take();
            let patience = match (found, before) {
                (Some(record), _) => record.duration(),
                // It was deleted. Its holder may believe in it for as long as it would have held.
                (None, Some(before)) if before.held() => before.patience,
                (None, _) => Duration::ZERO,
            };
            self.seen = Some(Seen {
                record: found.cloned(),
                since: now,
                patience,
            });
        }
        let waited = self.seen.as_ref().is_some_and(|seen| seen.is_over(now));
        match found {
            None if first || leads || waited => Step::Acquire,
            None => Step::Wait,
            Some(record) => match record.holder() {
                None => Step::Acquire,
                Some(holder) if holder == self.me => Step::Renew,
                Some(_) if waited => Step::Acquire,
                Some(_) => Step::Wait,
            },
        }
    }
}

impl Seen {
    fn held(&self) -> bool {
        self.record.as_ref().is_some_and(|r| r.holder().is_some())
    }

    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= self.patience
    }
}

#[cfg(test)]
mod tests;
