//! Which assertions were used, so that none is used twice on this replica.
//!
//! Nothing is forgotten before it has expired: where the memory is full, what is new is turned away
//! until something expires. No tenant can fill it for the others. What it does not hold is written in
//! `docs/decisions/2026-11-26-client-assertions.md`: it is this replica's alone, and ends with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;

use crate::domain::assertion::LEEWAY;

/// How many assertions are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLimits {
    /// In all. Each takes less than 200 bytes.
    pub total: usize,
    /// Of one tenant's namespace.
    pub of_tenant: usize,
}

impl Default for ReplayLimits {
    /// 50 MB at most. Of one tenant 100 a second, each with the longest life of 5 minutes: one that
    /// uses its access tokens until they expire needs one in that time.
    fn default() -> Self {
        Self {
            total: 250_000,
            of_tenant: 33_000,
        }
    }
}

/// Why an assertion is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was used before.
    Replayed,
    /// There is no room to remember it.
    Full,
}

/// What one assertion is remembered by: a digest, so that all are small.
type Tag = [u8; 32];

/// The memory.
#[derive(Debug)]
pub struct Replay {
    limits: ReplayLimits,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tags: HashSet<Tag>,
    of_tenants: HashMap<String, usize>,
    /// By the second in which it expires; with the elapsed time before which it is not forgotten,
    /// whatever the clock says.
    expiring: BTreeMap<i64, Vec<(Tag, Duration, String)>>,
}

/// The time by the clock, in seconds since the epoch, and since the process began.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// By the clock, which may be set.
    pub wall: i64,
    /// Never set.
    pub elapsed: Duration,
}

impl Replay {
    /// An empty one.
    pub fn new(limits: ReplayLimits) -> Self {
        Self {
            limits,
            inner: Mutex::default(),
        }
    }

    /// Takes an assertion that is otherwise sound, once. `expires` is its `exp`.
    pub fn take(
        &self,
        tenant: &str,
        client_id: &str,
        jti: &str,
        expires: i64,
        now: Now,
    ) -> Result<(), Refused> {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(client_id.as_bytes());
        // No client id has it.
        context.update(&[0]);
        context.update(jti.as_bytes());
        let mut tag = [0; 32];
        tag.copy_from_slice(context.finish().as_ref());

        // It is taken until its leeway is over, and a moment beyond.
        let forget = expires.saturating_add(LEEWAY + 1);
        let life = forget.saturating_sub(now.wall).max(0).unsigned_abs();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.forget(now);
        if inner.tags.contains(&tag) {
            return Err(Refused::Replayed);
        }
        let of_tenant = inner.of_tenants.get(tenant).copied().unwrap_or(0);
        if inner.tags.len() >= self.limits.total || of_tenant >= self.limits.of_tenant {
            return Err(Refused::Full);
        }
        inner.tags.insert(tag);
        inner.of_tenants.insert(tenant.to_owned(), of_tenant + 1);
        let until = now.elapsed + Duration::from_secs(life);
        let expiring = inner.expiring.entry(forget).or_default();
        expiring.push((tag, until, tenant.to_owned()));
        Ok(())
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.tags.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn forget(&mut self, now: Now) {
        // In the order in which they expire: what has not is not looked at.
        while let Some(entry) = self.expiring.first_entry() {
            if *entry.key() >= now.wall {
                return;
            }
            let (second, all) = entry.remove_entry();
            let (kept, gone): (Vec<_>, Vec<_>) = all
                .into_iter()
                .partition(|(_, until, _)| *until > now.elapsed);
            for (tag, _, tenant) in gone {
                self.tags.remove(&tag);
                if let Some(count) = self.of_tenants.get_mut(&tenant) {
                    *count -= 1;
                    if *count == 0 {
                        self.of_tenants.remove(&tenant);
                    }
                }
            }
            if !kept.is_empty() {
                // The clock was set ahead; it may be set back.
                self.expiring.insert(second, kept);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Now {
        Now {
            wall: seconds,
            elapsed: Duration::from_secs(seconds.unsigned_abs()),
        }
    }

    #[test]
    fn each_is_taken_once_while_it_lives() {
        let replay = Replay::new(ReplayLimits::default());
        assert_eq!(replay.take("t", "a", "1", 100, at(50)), Ok(()));
        for now in [50, 99, 100, 130] {
            let again = replay.take("t", "a", "1", 100, at(now));
            assert_eq!(again, Err(Refused::Replayed), "{now}");
        }
        // Another client's is another one, also where the parts run together.
        assert_eq!(replay.take("t", "b", "1", 100, at(50)), Ok(()));
        assert_eq!(replay.take("t", "a1", "", 100, at(50)), Ok(()));
        assert_eq!(replay.len(), 3);
        assert_eq!(replay.take("t", "c", "1", 200, at(132)), Ok(()));
        assert_eq!(replay.len(), 1, "what has expired is forgotten");
    }

    #[test]
    fn full_means_refused_and_nothing_is_forgotten_early() {
        let limits = ReplayLimits {
            total: 3,
            of_tenant: 2,
        };
        let replay = Replay::new(limits);
        assert_eq!(replay.take("t", "a", "1", 100, at(50)), Ok(()));
        assert_eq!(replay.take("t", "a", "2", 300, at(50)), Ok(()));
        let full = replay.take("t", "b", "3", 100, at(50));
        assert_eq!(full, Err(Refused::Full), "the tenant's share is used");
        assert_eq!(
            replay.take("u", "c", "1", 100, at(50)),
            Ok(()),
            "not another's"
        );
        assert_eq!(replay.take("v", "d", "1", 100, at(50)), Err(Refused::Full));
        let again = replay.take("t", "a", "1", 100, at(50));
        assert_eq!(again, Err(Refused::Replayed), "also while it is full");
        assert_eq!(replay.take("t", "b", "3", 200, at(132)), Ok(()));
        assert_eq!(
            replay.take("t", "a", "2", 300, at(132)),
            Err(Refused::Replayed)
        );
    }

    #[test]
    fn a_clock_that_is_set_makes_nothing_forgotten() {
        let replay = Replay::new(ReplayLimits::default());
        assert_eq!(replay.take("t", "a", "1", 100, at(50)), Ok(()));
        let set = |wall, elapsed| Now {
            wall,
            elapsed: Duration::from_secs(elapsed),
        };
        // Ahead, and back again.
        assert_eq!(replay.take("t", "a", "2", 5_000, set(4_990, 51)), Ok(()));
        let again = replay.take("t", "a", "1", 100, set(52, 52));
        assert_eq!(again, Err(Refused::Replayed));
        assert_eq!(replay.len(), 2);
    }
}
