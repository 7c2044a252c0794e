//! Whether this replica should get requests, and if not, why.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ready as long as no part of the program has a reason against it. Clones share one state.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ready: AtomicBool,
    reasons: Mutex<BTreeMap<&'static str, Reason>>,
}

/// A sentence, or who has it.
#[derive(Clone)]
enum Reason {
    Said(String),
    Asked(Arc<dyn Fn() -> String + Send + Sync>),
}

impl Reason {
    fn sentence(&self) -> String {
        match self {
            Self::Said(sentence) => sentence.clone(),
            Self::Asked(ask) => ask(),
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Said(sentence) => sentence,
            Self::Asked(_) => "to be asked for",
        })
    }
}

impl Readiness {
    /// Not ready while any of these parts has not called [`Readiness::ready`]: each with a
    /// sentence.
    pub fn waiting_for<const N: usize>(parts: [(&'static str, &str); N]) -> Self {
        let said = |(part, sentence): (_, &str)| (part, Reason::Said(sentence.to_owned()));
        let reasons: BTreeMap<_, _> = parts.into_iter().map(said).collect();
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
        reasons.insert(part, Reason::Said(sentence.into()));
        self.0.ready.store(false, Ordering::Release);
    }

    /// Has a part that is not ready say why anew each time that somebody asks.
    pub fn explain(
        &self,
        part: &'static str,
        sentence: impl Fn() -> String + Send + Sync + 'static,
    ) {
        if let Some(reason) = self.lock().get_mut(part) {
            *reason = Reason::Asked(Arc::new(sentence));
        }
    }

    /// Whether nothing is against it.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Acquire)
    }

    /// Every reason against it: the part, and its sentence.
    pub fn reasons(&self) -> Vec<(&'static str, String)> {
        // Whoever is asked may take its time, or ask here.
        let reasons = self.lock().clone();
        let each = reasons.iter();
        each.map(|(part, reason)| (*part, reason.sentence()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Reason>> {
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

    #[test]
    fn a_part_is_asked_each_time_until_it_is_ready() {
        let readiness = Readiness::waiting_for([("feed", "No data yet.")]);
        let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = asked.clone();
        let explain = move || count.fetch_add(1, Ordering::SeqCst).to_string();
        readiness.explain("feed", explain.clone());
        assert_eq!(readiness.reasons(), [("feed", "0".to_owned())]);
        assert_eq!(readiness.reasons(), [("feed", "1".to_owned())]);
        readiness.ready("feed");
        readiness.explain("feed", explain);
        assert!(readiness.is_ready() && readiness.reasons().is_empty());
    }
}
