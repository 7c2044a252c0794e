//! How soon a watch that failed is tried again.

use std::time::Duration;

use kube::runtime::utils::Backoff;

const FIRST: Duration = Duration::from_millis(200);
/// After an outage of the API server a replica must not serve an old JWKS for the half minute that
/// kube's own backoff may take.
const LONGEST: Duration = Duration::from_secs(2);

/// Waits that double up to a bound, each up to half as long again, so that watches which failed
/// together do not come back together.
#[derive(Clone, Debug)]
pub struct Reconnect(Duration);

impl Default for Reconnect {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Iterator for Reconnect {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST);
        let jitter = f64::from(crate::crypto::random::bytes::<1>()[0]) / 255.0;
        Some(wait.mul_f64(1.0 + 0.5 * jitter))
    }
}

impl Backoff for Reconnect {
    fn reset(&mut self) {
        self.0 = FIRST;
    }
}
