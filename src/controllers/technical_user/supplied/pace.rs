//! How often a technical user's Secrets are looked at that change: one that changes all the time is not to
//! keep the operator at work.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::controllers::Key;
use crate::objects::credentials::SourceOf;

/// How long the next change waits after a look at one. It doubles with each that comes soon.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest that a change waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// So many pauses without a change are rest: the next one is looked at as the first was.
const REST: u32 = 4;
/// With more than that those at rest are forgotten.
const MANY: usize = 10_000;

/// When each technical user's Secrets were looked at.
#[derive(Debug, Default)]
pub struct Paces(Mutex<HashMap<Key, Pace>>);

#[derive(Debug)]
struct Pace {
    looked: Instant,
    pause: Duration,
    /// What was looked at then.
    versions: Vec<SourceOf>,
}

impl Pace {
    fn next(&self) -> Instant {
        self.looked + self.pause
    }

    fn rests(&self, now: Instant) -> bool {
        now > self.looked + self.pause * REST
    }
}

impl Paces {
    /// How long this version of a Secret still has to wait; none: it may be looked at, and counts as looked
    /// at. `now` is the time of the whole look, so that two that changed together are seen together.
    pub fn wait(&self, of: &Key, version: &SourceOf, now: Instant) -> Option<Duration> {
        let mut all = self.lock();
        if all.len() > MANY {
            all.retain(|_, pace| !pace.rests(now));
        }
        let pause = match all.get_mut(of) {
            Some(pace) if pace.versions.contains(version) => return None,
            Some(pace) if pace.looked == now => {
                pace.versions.push(version.clone());
                return None;
            }
            Some(pace) if now < pace.next() => return Some(pace.next() - now),
            Some(pace) if !pace.rests(now) => (pace.pause * 2).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        let pace = Pace {
            looked: now,
            pause,
            versions: vec![version.clone()],
        };
        all.insert(of.clone(), pace);
        None
    }

    /// Before when no change of its Secrets is looked at.
    pub fn not_before(&self, of: &Key) -> Option<Instant> {
        self.lock().get(of).map(Pace::next)
    }

    /// The technical user is gone.
    pub fn forget(&self, of: &Key) {
        self.lock().remove(of);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Pace>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::Kind;

    fn version(of: &str, n: u32) -> SourceOf {
        SourceOf {
            secret: of.into(),
            resource_version: n.to_string(),
            ..SourceOf::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_all_the_time_is_looked_at_ever_less_often() {
        let (paces, begin) = (Paces::default(), Instant::now());
        let of = Key {
            kind: Kind::TechnicalUser,
            namespace: "acme".into(),
            name: "orders".into(),
        };
        let mut looked = Vec::new();
        for n in 0..600 {
            let now = begin + Duration::from_millis(200) * n;
            if paces.wait(&of, &version("a", n), now).is_none() {
                looked.push((now - begin).as_secs());
                // Once more, and another one at the same moment.
                let soon = now + Duration::from_millis(50);
                assert_eq!(paces.wait(&of, &version("a", n), soon), None);
                assert_eq!(paces.wait(&of, &version("b", n), now), None);
                let wait = paces.wait(&of, &version("b", n + 1), soon);
                assert_eq!(wait.map(|w| soon + w), paces.not_before(&of));
            }
        }
        assert_eq!(looked, [0, 2, 6, 14, 30, 60, 90]);
        // At rest.
        let rest = begin + Duration::from_secs(400);
        assert_eq!(paces.wait(&of, &version("a", 1000), rest), None);
        assert_eq!(paces.not_before(&of), Some(rest + FIRST_PAUSE));
        // Nobody else waits for it.
        let other = Key {
            name: "other".into(),
            ..of.clone()
        };
        assert_eq!(paces.wait(&other, &version("a", 1), rest), None);
        paces.forget(&of);
        assert_eq!(paces.not_before(&of), None);
    }
}
