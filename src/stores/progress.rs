//! How far the watches have come, and what stands against those that fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Watched;

/// How far the watches have come.
#[derive(Default)]
pub struct Progress {
    waiting: watch::Sender<BTreeSet<Watched>>,
    /// Counts changes of Subscriptions' and technical users' specs.
    tenancy: AtomicU64,
    /// Counts changes of Users' specs.
    people: AtomicU64,
    failing: Mutex<Failing>,
}

#[derive(Default)]
struct Failing {
    /// The sentence of each watch that fails, with its place in the order of failures.
    errors: BTreeMap<Watched, (u64, String)>,
    count: u64,
}

impl Progress {
    /// A kind is watched from now on.
    pub fn begins(&self, kind: Watched) {
        self.waiting.send_modify(|waiting| {
            waiting.insert(kind);
        });
    }

    /// All of a kind was seen.
    pub fn seen(&self, kind: Watched) {
        self.waiting
            .send_if_modified(|waiting| waiting.remove(&kind));
    }

    /// A watch failed, with a sentence that tells no secret.
    pub fn failed(&self, kind: Watched, sentence: String) {
        let mut failing = self.failing();
        failing.count += 1;
        let count = failing.count;
        failing.errors.insert(kind, (count, sentence));
    }

    /// A watch delivered.
    pub fn well(&self, kind: Watched) {
        self.failing().errors.remove(&kind);
    }

    /// Returns when all was seen.
    pub async fn complete(&self) {
        let mut waiting = self.waiting.subscribe();
        // The sender lives as long as `self`.
        let _ = waiting.wait_for(BTreeSet::is_empty).await;
    }

    /// The kinds that have not been seen whole yet.
    pub fn waiting(&self) -> BTreeSet<Watched> {
        self.waiting.borrow().clone()
    }

    /// What is waited for, and the last error that stands against it.
    pub fn told(&self) -> String {
        let waiting = self.waiting();
        if waiting.is_empty() {
            return "The API server has been seen whole: what is served is being built.".into();
        }
        let kinds: Vec<String> = waiting.iter().map(ToString::to_string).collect();
        let kinds = kinds.join(", ");
        let failing = self.failing();
        let errors = failing.errors.iter();
        let last = errors
            .filter(|(kind, _)| waiting.contains(kind))
            .max_by_key(|(_, (count, _))| count);
        match last {
            Some((kind, (_, error))) => format!(
                "The API server has not been seen whole yet: {kinds} are not listed. The last \
                 error, of {kind}: {error}. Are the CRDs installed, and may this account list and \
                 watch them?"
            ),
            None => format!(
                "The API server has not been seen whole yet: {kinds} are not listed; it was asked \
                 for them and has not refused."
            ),
        }
    }

    /// A Subscription's or technical user's spec was changed.
    pub fn tenancy_changed(&self) {
        self.tenancy.fetch_add(1, Ordering::AcqRel);
    }

    /// How often [`Self::tenancy_changed`] was called.
    pub fn tenancy(&self) -> u64 {
        self.tenancy.load(Ordering::Acquire)
    }

    /// A User's spec was changed.
    pub fn people_changed(&self) {
        self.people.fetch_add(1, Ordering::AcqRel);
    }

    /// How often [`Self::people_changed`] was called.
    pub fn people(&self) -> u64 {
        self.people.load(Ordering::Acquire)
    }

    fn failing(&self) -> MutexGuard<'_, Failing> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_what_is_still_waited_for_is_told() {
        let progress = Progress::default();
        for kind in [Watched::SigningKeys, Watched::Secrets, Watched::ConfigMaps] {
            progress.begins(kind);
        }
        assert!(progress.told().contains("has not refused"));
        progress.failed(Watched::Secrets, "Secrets are forbidden".into());
        progress.failed(Watched::ConfigMaps, "ConfigMaps are forbidden".into());
        let told = progress.told();
        assert!(
            told.contains(
                "SigningKeys, Secrets of key pairs and hashes, ConfigMaps are not listed"
            ),
            "{told}"
        );
        assert!(
            told.contains("of ConfigMaps: ConfigMaps are forbidden."),
            "{told}"
        );
        // Listed by now: what it failed with before does not matter any more.
        progress.seen(Watched::ConfigMaps);
        let told = progress.told();
        assert!(told.contains(": Secrets are forbidden."), "{told}");
        assert!(!told.contains("ConfigMaps"), "{told}");
        progress.well(Watched::Secrets);
        assert!(progress.told().contains("has not refused"));
        progress.seen(Watched::Secrets);
        progress.seen(Watched::SigningKeys);
        assert!(progress.told().contains("seen whole: "));
    }
}
