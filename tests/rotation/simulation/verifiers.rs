//! Verifiers as they are met in the field: what they hold of the JWKS at a time.

use std::sync::Arc;

/// How a verifier comes by the JWKS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Fetches it for each token.
    NoCache,
    /// Honours `max-age`.
    MaxAge,
    /// Fetches every 5 minutes, and not on an unknown kid (Envoy's `remoteJwks`).
    Envoy,
    /// Fetches every 20 minutes, and not on an unknown kid (Istio).
    Istio,
    /// Mounts the ConfigMap, which the kubelet brings up to date within 2 minutes.
    Mounted,
    /// Fetches once, and again for a kid that it does not know.
    OnMiss,
}

pub const HABITS: [Habit; 6] = [
    Habit::NoCache,
    Habit::MaxAge,
    Habit::Envoy,
    Habit::Istio,
    Habit::Mounted,
    Habit::OnMiss,
];

const MINUTE: i64 = 60_000;

/// What is asked of the world: the JWKS as some replica served it at that time, and as the
/// ConfigMap had it.
pub trait Jwks {
    fn served_at(&mut self, time: i64) -> Option<Arc<Vec<String>>>;
    fn written_at(&self, time: i64) -> Option<Arc<Vec<String>>>;
}

pub struct Verifier {
    pub habit: Habit,
    /// Where in its period it polls.
    pub phase: i64,
    held: Option<(i64, Arc<Vec<String>>)>,
}

impl Verifier {
    pub fn new(habit: Habit, phase: i64) -> Self {
        Self {
            habit,
            phase,
            held: None,
        }
    }

    /// Whether it accepts a token of this kid now.
    pub fn accepts(&mut self, kid: &str, now: i64, jwks: &mut impl Jwks) -> bool {
        let has = |held: &Option<Arc<Vec<String>>>| {
            held.as_ref()
                .is_some_and(|kids| kids.iter().any(|k| k == kid))
        };
        match self.habit {
            Habit::NoCache => has(&jwks.served_at(now)),
            Habit::MaxAge => {
                if self
                    .held
                    .as_ref()
                    .is_none_or(|(at, _)| now - at >= 5 * MINUTE)
                {
                    self.held = jwks.served_at(now).map(|kids| (now, kids));
                }
                has(&self.held.as_ref().map(|(_, kids)| kids.clone()))
            }
            Habit::Envoy => has(&self.polled(5 * MINUTE, now, jwks)),
            Habit::Istio => has(&self.polled(20 * MINUTE, now, jwks)),
            Habit::Mounted => has(&jwks.written_at(now - 2 * MINUTE)),
            Habit::OnMiss => {
                let known = has(&self.held.as_ref().map(|(_, kids)| kids.clone()));
                if !known {
                    self.held = jwks.served_at(now).map(|kids| (now, kids));
                }
                has(&self.held.as_ref().map(|(_, kids)| kids.clone()))
            }
        }
    }

    /// What it fetched at its last poll; the same for all tokens until the next.
    fn polled(&mut self, period: i64, now: i64, jwks: &mut impl Jwks) -> Option<Arc<Vec<String>>> {
        let poll = now - (now - self.phase).rem_euclid(period);
        if self.held.as_ref().is_none_or(|(at, _)| *at < poll) {
            // A poll that fails leaves what there is.
            if let Some(kids) = jwks.served_at(poll) {
                self.held = Some((poll, kids));
            }
        }
        self.held.as_ref().map(|(_, kids)| kids.clone())
    }
}
