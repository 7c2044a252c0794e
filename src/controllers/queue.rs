//! What to visit, and when: each object stands in it at most once, and is visited by one worker
//! at a time. Whose time has come is visited in turns, so that no tenant holds up another
//! (docs/decisions/2026-11-27-turns-among-tenants.md).

mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{Key, Kind};
use turns::Turns;

/// The first wait after a failure; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// The longest wait after a failure.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);

/// How long before an urgent one is due the others of its kind begin to wait.
const HELD_FOR: Duration = Duration::from_millis(150);

/// Objects to visit, each with its time.
#[derive(Debug, Default)]
pub struct Queue {
    due: BTreeMap<Key, Instant>,
    /// Those of `due` that are neither under visit nor in `turns`, in the order of their times.
    order: BTreeSet<(Instant, Key)>,
    /// Those whose time has come.
    turns: Turns,
    visited_now: BTreeSet<Key>,
    failures: BTreeMap<Key, Failures>,
    /// Those that go before all others that are due.
    urgent: BTreeSet<Key>,
}

/// What is remembered of an object whose visits fail.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    /// Whatever changes, and a failed visit may itself have changed something: not before then.
    not_before: Instant,
}

impl Queue {
    /// Visit it at that time, or earlier if it is wanted earlier already.
    pub fn add(&mut self, key: Key, at: Instant) {
        let at = self.failures.get(&key).map_or(at, |f| f.not_before.max(at));
        let before = self.due.get(&key).copied();
        if before.is_some_and(|before| before <= at) {
            return;
        }
        self.due.insert(key.clone(), at);
        if !self.visited_now.contains(&key) {
            if let Some(before) = before {
                self.take_out(before, &key);
            }
            self.order.insert((at, key));
        }
    }

    fn take_out(&mut self, at: Instant, key: &Key) {
        if !self.order.remove(&(at, key.clone())) {
            self.turns.remove(at, key);
        }
    }

    /// A person changed it: what failed before may be well now, and is not to be waited for.
    pub fn forgive(&mut self, key: &Key) {
        self.failures.remove(key);
    }

    /// Whether it goes before all others that are due: a person waits for it, or tokens do.
    pub fn set_urgent(&mut self, key: Key, urgent: bool) {
        if urgent {
            self.urgent.insert(key);
        } else {
            self.urgent.remove(&key);
        }
    }

    /// Visit it by then, although its visits fail.
    pub fn at_the_latest(&mut self, key: Key, at: Instant) {
        if let Some(failures) = self.failures.get_mut(&key) {
            failures.not_before = failures.not_before.min(at);
        }
        self.add(key, at);
    }

    /// Whether it goes before all others that are due.
    pub fn is_urgent(&self, key: &Key) -> bool {
        self.urgent.contains(key)
    }

    /// The kinds of which an urgent one is under visit or about to be: the others of such a kind wait,
    /// since they write what it writes, and each of them that is first makes it look again.
    fn held(&self, now: Instant) -> BTreeSet<Kind> {
        let at_work = |key: &&Key| {
            let due = self.due.get(*key);
            self.visited_now.contains(*key) || due.is_some_and(|due| *due <= now + HELD_FOR)
        };
        let urgent = self.urgent.iter().filter(at_work);
        urgent.map(|key| key.kind).collect()
    }

    /// The next object that may be visited now; it is then under visit until [`Self::done`].
    pub fn take(&mut self, now: Instant) -> Option<Key> {
        while self.order.first().is_some_and(|(at, _)| *at <= now) {
            let (at, key) = self.order.pop_first()?;
            self.turns.add(at, key);
        }
        let waiting = self.urgent.iter();
        let waiting = waiting.filter(|key| !self.visited_now.contains(*key));
        let due = waiting.filter_map(|key| Some((*self.due.get(key)?, key.clone())));
        let urgent = due.filter(|(at, _)| *at <= now).min();
        let key = if let Some((at, key)) = urgent {
            self.take_out(at, &key);
            key
        } else {
            let held = self.held(now);
            self.turns.take(&held)?
        };
        self.due.remove(&key);
        self.visited_now.insert(key.clone());
        Some(key)
    }

    /// When the next object is due that is not under visit, and waits for no urgent one.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let held = self.held(now);
        if self.turns.any(&held) {
            return Some(now);
        }
        let free = |key: &Key| !held.contains(&key.kind) || self.is_urgent(key);
        let mut ahead = self.order.iter().filter(|(_, key)| free(key));
        ahead.next().map(|(at, _)| *at)
    }

    fn leave(&mut self, key: &Key) {
        self.visited_now.remove(key);
        if let Some(at) = self.due.get(key) {
            self.order.insert((*at, key.clone()));
        }
    }

    /// A visit ended well.
    pub fn done(&mut self, key: &Key) {
        self.leave(key);
        self.failures.remove(key);
    }

    /// A visit failed: it is due again after a backoff. `jitter` is between 0 and 1, so that many
    /// that failed together do not come back together.
    pub fn failed(&mut self, key: Key, now: Instant, jitter: f64) -> Duration {
        let count = self.failures.get(&key).map_or(0, |f| f.count);
        let wait = FIRST_BACKOFF
            .saturating_mul(2_u32.saturating_pow(count.min(16)))
            .min(LONGEST_BACKOFF)
            .mul_f64(1.0 + 0.5 * jitter);
        let failures = Failures {
            count: count.saturating_add(1),
            not_before: now + wait,
        };
        self.failures.insert(key.clone(), failures);
        // What changed during the visit waits too.
        self.due.remove(&key);
        self.leave(&key);
        self.add(key, now + wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key {
            kind: Kind::SigningKey,
            namespace: "ns".into(),
            name: name.into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_visited_once_at_a_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(key("a"), now + Duration::from_secs(5));
        queue.add(key("a"), now);
        queue.add(key("b"), now + Duration::from_secs(1));
        assert_eq!(queue.take(now), Some(key("a")));
        queue.add(key("a"), now);
        assert_eq!(queue.take(now), None, "a is under visit, b is not due");
        assert_eq!(queue.next_due(now), Some(now + Duration::from_secs(1)));
        queue.done(&key("a"));
        assert_eq!(queue.take(now), Some(key("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn an_urgent_one_is_not_disturbed() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let user = Key {
            kind: Kind::TechnicalUser,
            ..key("user")
        };
        for key in [key("a"), key("b"), key("c"), user.clone()] {
            queue.add(key, now);
        }
        queue.set_urgent(key("c"), true);
        assert_eq!(queue.take(now), Some(key("c")), "it goes first");
        assert_eq!(queue.take(now), Some(user), "another kind does not wait");
        assert_eq!((queue.take(now), queue.next_due(now)), (None, None));
        queue.done(&key("c"));
        let soon = now + Duration::from_millis(100);
        queue.add(key("c"), soon);
        assert_eq!((queue.take(now), queue.next_due(now)), (None, Some(soon)));
        queue.add(key("c"), now);
        assert_eq!(queue.take(now), Some(key("c")));
        queue.failed(key("c"), now, 0.0);
        assert_eq!(
            queue.take(now),
            Some(key("a")),
            "a failed one holds nobody up"
        );
        queue.set_urgent(key("c"), false);
        assert_eq!(queue.take(now), Some(key("b")));
    }

    fn user(namespace: &str, n: u32) -> Key {
        Key {
            kind: Kind::TechnicalUser,
            namespace: namespace.into(),
            name: format!("user-{n:03}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_with_many_holds_up_no_other() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for n in 0..150 {
            queue.add(user("acme", n), now);
        }
        assert_eq!(queue.take(now), Some(user("acme", 0)));
        let later = now + Duration::from_secs(1);
        for key in [user("globex", 1), user("globex", 2), user("initech", 1)] {
            queue.add(key, later);
        }
        queue.add(key("ring"), later);
        let taken: Vec<_> = (0..7).filter_map(|_| queue.take(later)).collect();
        let turns = [
            key("ring"),
            user("acme", 1),
            user("globex", 1),
            user("initech", 1),
            user("acme", 2),
            user("globex", 2),
            user("acme", 3),
        ];
        assert_eq!(taken, turns);
        // One that comes back at once takes its turn behind those of others.
        queue.done(&user("acme", 1));
        queue.add(user("acme", 1), later);
        queue.add(user("globex", 3), later);
        let taken: Vec<_> = (0..3).filter_map(|_| queue.take(later)).collect();
        assert_eq!(taken, [user("acme", 4), user("globex", 3), user("acme", 5)]);
        let rest = std::iter::from_fn(|| queue.take(later)).count();
        assert_eq!((rest, queue.next_due(later)), (145, None), "none is lost");
    }

    #[tokio::test(start_paused = true)]
    async fn an_urgent_one_does_not_wait_for_its_turn() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for key in [key("a"), key("b"), key("c"), user("acme", 1)] {
            queue.add(key, now);
        }
        assert_eq!(queue.take(now), Some(key("a")));
        queue.set_urgent(key("c"), true);
        assert_eq!(queue.take(now), Some(key("c")));
        queue.done(&key("c"));
        queue.set_urgent(key("c"), false);
        let rest: Vec<_> = std::iter::from_fn(|| queue.take(now)).collect();
        assert_eq!(rest, [user("acme", 1), key("b")], "each once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_does_not_cut_a_backoff_short() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(key("a"), now);
        queue.take(now);
        queue.add(key("a"), now);
        let wait = queue.failed(key("a"), now, 0.0);
        queue.add(key("a"), now);
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.next_due(now), Some(now + wait));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_up_to_a_bound() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let waits: Vec<_> = (0..20).map(|_| queue.failed(key("a"), now, 0.0)).collect();
        assert!(waits.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!((waits[0], waits[19]), (FIRST_BACKOFF, LONGEST_BACKOFF));
        queue.done(&key("a"));
        assert_eq!(queue.failed(key("a"), now, 0.0), FIRST_BACKOFF);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_by_a_person_forgives() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for name in ["a", "b"] {
            queue.add(key(name), now);
            queue.take(now);
            for _ in 0..5 {
                queue.failed(key(name), now, 0.0);
            }
            queue.add(key(name), now);
        }
        assert_eq!(queue.take(now), None, "both wait");
        queue.forgive(&key("a"));
        queue.add(key("a"), now);
        assert_eq!(queue.take(now), Some(key("a")));
        assert_eq!(queue.failed(key("a"), now, 0.0), FIRST_BACKOFF, "as if new");
        assert_eq!(queue.take(now), None, "b goes on waiting");
    }
}
