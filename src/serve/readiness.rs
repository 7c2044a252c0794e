//! Whether this replica should get requests, and if not, why.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ready as long as no part of the program has a reason against it. Clones share one state.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ready: AtomicBool,
    reasons: Mutex<BTreeMap<&'static str, String>>,
}

impl Readiness {
    /// Not ready while any of these parts has not called [`Readiness::ready`]: each with a
    /// sentence.
    pub fn waiting_for<const N: usize>(parts: [(&'static str, &str); N]) -> Self {
        let reasons: BTreeMap<_, _> = parts.into_iter().map(|(p, s)| (p, s.to_owned())).collect();
        Self(Arc::new(Inner {
            ready: AtomicBool::new(reasons.is_empty()),
            reasons: Mutex::new(reasons),
        }))
    }

    /// A part of the program has no reason against being ready any more.
    pub fn ready(&self, part: &'static str) {
        let mut reasons = self.lock();
        reasons.remove(part);
        self.0.ready.store(reasons.is_empty(), Ordering::Release);
    }

    /// A part of the program says, in a sentence, why this replica is not ready.
    pub fn not_ready(&self, part: &'static str, sentence: impl Into<String>) {
        let mut reasons = self.lock();
        reasons.insert(part, sentence.into());
        self.0.ready.store(false, Ordering::Release);
    }

    /// Whether nothing is against it.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Acquire)
    }

    /// Every reason against it: the part, and its sentence.
    pub fn reasons(&self) -> Vec<(&'static str, String)> {
        self.lock()
            .iter()
            .map(|(part, sentence)| (*part, sentence.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0
            .reasons
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_every_part_is() {
        let readiness = Readiness::waiting_for([("feed", "No data yet."), ("clock", "Unchecked.")]);
        readiness.ready("clock");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.reasons(), [("feed", "No data yet.".to_owned())]);
        readiness.ready("feed");
        assert!(readiness.is_ready() && readiness.reasons().is_empty());
        readiness.clone().not_ready("shutdown", "Going.");
        assert!(!readiness.is_ready());
    }
}
