//! What the server counts. No label holds a client id or anything else without bound, and every
//! counter is looked up once, at start.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::grants::Grant;
use crate::domain::algorithm::Algorithm;
use crate::domain::oauth_error::ErrorCode;

mod outcomes;

pub use outcomes::{
    AssertionCheck, Enrolment, Introspection, Revocation, SecretCheck, ThrottledBy,
};

type Labels = Vec<(&'static str, String)>;

/// Counts in a gauge for as long as it is there.
struct Counted(Gauge);

impl Counted {
    fn of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The server's counters, gauges and histograms.
#[derive(Debug)]
pub struct Metrics {
    issued: [[Counter; Algorithm::ALL.len()]; Grant::ALL.len()],
    refused: [Counter; ErrorCode::ALL.len()],
    checks: [Counter; SecretCheck::ALL.len()],
    throttled: [Counter; ThrottledBy::ALL.len()],
    revocations: [Counter; Revocation::ALL.len()],
    introspections: [Counter; Introspection::ALL.len()],
    enrolments: [Counter; Enrolment::ALL.len()],
    users: Gauge,
    suspended_people: Gauge,
    revoked_tokens: Gauge,
    revoked_clients: Gauge,
    assertions: [Counter; AssertionCheck::ALL.len()],
    duration: Histogram,
    /// Handlers that panicked.
    pub panics: Counter,
    /// Token requests under way.
    pub in_flight: Gauge,
    /// Connections to the public port that are open.
    pub connections: Gauge,
    /// bcrypt comparisons, those with dummies included.
    pub comparisons: Counter,
    /// bcrypt checks under way.
    pub hashing: Gauge,
    /// bcrypt checks that wait for their turn.
    pub hash_queue: Gauge,
    pub(super) snapshot_age: Gauge,
    pub(super) snapshot_generation: Gauge,
    pub(super) clients: Gauge,
    pub(super) remembered: Gauge,
    pub(super) active_keys: Family<Labels, Gauge>,
    pub(super) ready: Gauge,
    pub(super) contact_age: Gauge<f64, AtomicU64>,
    clock_sure: Gauge,
    clock_offset: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Makes and registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let issued = Family::<Labels, Counter>::default();
        registry.register(
            "chancery_tokens_issued",
            "Access tokens issued",
            issued.clone(),
        );
        let refused = Family::<Labels, Counter>::default();
        registry.register(
            "chancery_token_requests_refused",
            "Token requests refused, by OAuth error code",
            refused.clone(),
        );
        let checks = Family::<Labels, Counter>::default();
        registry.register(
            "chancery_secret_checks",
            "Client secrets checked, by what became of it",
            checks.clone(),
        );
        let throttled = Family::<Labels, Counter>::default();
        registry.register(
            "chancery_requests_throttled",
            "Requests answered 429, by what was too often: failures of a client id, failures from a source, tokens of a client",
            throttled.clone(),
        );
        let revocations = Family::<Labels, Counter>::default();
        registry.register(
            "chancery_revocation_requests",
            "Requests to revoke a token, by what became of it",
            revocations.clone(),
        );
        let introspections = Family::<Labels, Counter>::default();
        registry.register(
            "chancery_introspection_requests",
            "Requests to introspect a token, by what became of it",
            introspections.clone(),
        );
        let enrolments = Family::<Labels, Counter>::default();
        registry.register(
            "chancery_enrolment_notes",
            "People, and legal entities, that were new, by what became of the note",
            enrolments.clone(),
        );
        let assertions = Family::<Labels, Counter>::default();
        registry.register(
            "chancery_assertion_checks",
            "Client assertions checked, by what became of it",
            assertions.clone(),
        );
        // From 50 microseconds to 1.6 seconds.
        let bounds = (0..16).map(|i| 0.000_05 * f64::from(1 << i));
        let duration = Histogram::new(bounds);
        registry.register_with_unit(
            "chancery_token_request_duration",
            "Time from the head of a token request to its answer",
            Unit::Seconds,
            duration.clone(),
        );
        let build = Family::<Labels, Gauge>::default();
        registry.register(
            "chancery_build_info",
            "The version of this program",
            build.clone(),
        );
        build
            .get_or_create(&vec![("version", env!("CARGO_PKG_VERSION").to_owned())])
            .set(1);
        let gauge = |registry: &mut Registry, name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let panics = Counter::default();
        registry.register(
            "chancery_handler_panics",
            "Requests that panicked",
            panics.clone(),
        );
        let comparisons = Counter::default();
        registry.register(
            "chancery_hash_comparisons",
            "bcrypt comparisons, those with dummies included",
            comparisons.clone(),
        );
        let active_keys = Family::<Labels, Gauge>::default();
        registry.register(
            "chancery_active_keys",
            "The keys that sign",
            active_keys.clone(),
        );
        let snapshot_age = Gauge::default();
        registry.register_with_unit(
            "chancery_snapshot_age",
            "Time since the served data was last built, -1 before the first",
            Unit::Seconds,
            snapshot_age.clone(),
        );
        let contact_age = Gauge::<f64, AtomicU64>::default();
        registry.register_with_unit(
            "chancery_contact_age",
            "Time since the served data was proved to be all that the API server knew",
            Unit::Seconds,
            contact_age.clone(),
        );
        let clock_offset = Gauge::<f64, AtomicU64>::default();
        registry.register_with_unit(
            "chancery_clock_offset",
            "By how much this clock was ahead of the API server's when they were last compared",
            Unit::Seconds,
            clock_offset.clone(),
        );
        Self {
            issued: Grant::ALL.map(|(_, grant)| {
                Algorithm::ALL.map(|a| {
                    let grant = ("grant", grant.to_owned());
                    issued.get_or_create_owned(&vec![grant, ("alg", a.name().to_owned())])
                })
            }),
            refused: ErrorCode::ALL
                .map(|c| refused.get_or_create_owned(&vec![("error", c.as_str().to_owned())])),
            checks: SecretCheck::ALL
                .map(|(_, r)| checks.get_or_create_owned(&vec![("result", r.to_owned())])),
            throttled: ThrottledBy::ALL
                .map(|(_, by)| throttled.get_or_create_owned(&vec![("by", by.to_owned())])),
            revocations: Revocation::ALL
                .map(|(_, r)| revocations.get_or_create_owned(&vec![("result", r.to_owned())])),
            introspections: Introspection::ALL
                .map(|(_, r)| introspections.get_or_create_owned(&vec![("result", r.to_owned())])),
            enrolments: Enrolment::ALL
                .map(|(_, r)| enrolments.get_or_create_owned(&vec![("result", r.to_owned())])),
            users: gauge(registry, "chancery_users", "Users, in all namespaces"),
            suspended_people: gauge(
                registry,
                "chancery_suspended_people",
                "People whom Users keep out",
            ),
            revoked_tokens: gauge(
                registry,
                "chancery_revoked_tokens",
                "Single access tokens that are revoked and have not expired",
            ),
            revoked_clients: gauge(
                registry,
                "chancery_revoked_clients",
                "Technical users of which all tokens that were issued until a time are revoked",
            ),
            assertions: AssertionCheck::ALL
                .map(|(_, r)| assertions.get_or_create_owned(&vec![("result", r.to_owned())])),
            duration,
            panics,
            in_flight: gauge(
                registry,
                "chancery_token_requests_in_flight",
                "Token requests under way",
            ),
            connections: gauge(
                registry,
                "chancery_connections_open",
                "Connections to the public port that are open",
            ),
            comparisons,
            hashing: gauge(
                registry,
                "chancery_hash_checks_running",
                "bcrypt checks under way",
            ),
            hash_queue: gauge(
                registry,
                "chancery_hash_checks_waiting",
                "bcrypt checks waiting",
            ),
            snapshot_age,
            snapshot_generation: gauge(
                registry,
                "chancery_snapshot_generation",
                "How often the served data was built",
            ),
            remembered: gauge(
                registry,
                "chancery_secrets_remembered",
                "Client secrets remembered as verified",
            ),
            clients: gauge(registry, "chancery_clients", "Technical users known"),
            active_keys,
            ready: gauge(registry, "chancery_ready", "1 while this replica is ready"),
            contact_age,
            clock_sure: gauge(
                registry,
                "chancery_clock_sure",
                "1 while the clock is believed: it has not jumped, and agrees with the API server's",
            ),
            clock_offset,
        }
    }

    /// What is held of the clock: whether it is believed, and its offset if it was compared.
    pub fn clock(&self, sure: bool, offset_seconds: Option<f64>) {
        self.clock_sure.set(sure.into());
        self.clock_offset.set(offset_seconds.unwrap_or(0.0));
    }

    /// A token was issued.
    pub fn issued(&self, grant: Grant, algorithm: Algorithm) {
        // The discriminants are the places in `ALL`; a test holds that.
        self.issued[grant as usize][algorithm as usize].inc();
    }

    /// A token request was refused.
    pub fn refused(&self, code: ErrorCode) {
        self.refused[code as usize].inc();
    }

    /// A secret was checked.
    pub fn checked(&self, check: SecretCheck) {
        self.checks[check as usize].inc();
    }

    /// How often a check ended so.
    pub fn checks(&self, check: SecretCheck) -> u64 {
        self.checks[check as usize].get()
    }

    /// A request came too often.
    pub fn throttled(&self, by: ThrottledBy) {
        self.throttled[by as usize].inc();
    }

    /// How often requests came too often by this.
    pub fn throttled_so_far(&self, by: ThrottledBy) -> u64 {
        self.throttled[by as usize].get()
    }

    /// A request to revoke a token was answered.
    pub fn revocation(&self, outcome: Revocation) {
        self.revocations[outcome as usize].inc();
    }

    /// A request to introspect a token was answered.
    pub fn introspection(&self, outcome: Introspection) {
        self.introspections[outcome as usize].inc();
    }

    /// Somebody was new.
    pub fn enrolment(&self, outcome: Enrolment) {
        self.enrolments[outcome as usize].inc();
    }

    /// How many Users there are, and how many people they keep out.
    pub fn people(&self, users: usize, suspended: usize) {
        let number = |count: usize| count.try_into().unwrap_or(i64::MAX);
        self.users.set(number(users));
        self.suspended_people.set(number(suspended));
    }

    /// How many single tokens, and how many clients' tokens as a whole, are revoked.
    pub fn revoked(&self, tokens: usize, clients: usize) {
        self.revoked_tokens
            .set(tokens.try_into().unwrap_or(i64::MAX));
        self.revoked_clients
            .set(clients.try_into().unwrap_or(i64::MAX));
    }

    /// A client assertion was checked.
    pub fn asserted(&self, check: AssertionCheck) {
        self.assertions[check as usize].inc();
    }

    /// How often a check of a client assertion ended so.
    pub fn assertions(&self, check: AssertionCheck) -> u64 {
        self.assertions[check as usize].get()
    }

    /// A token request is under way until what this returns is dropped.
    pub fn under_way(&self) -> impl Drop + use<> {
        Counted::of(&self.in_flight)
    }

    /// A connection is open until what this returns is dropped.
    pub fn connection(&self) -> impl Drop + use<> {
        Counted::of(&self.connections)
    }

    /// A token request was answered after so long.
    pub fn answered(&self, after: Duration) {
        self.duration.observe(after.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_stands_at_its_place() {
        assert!(
            Algorithm::ALL
                .iter()
                .enumerate()
                .all(|(i, a)| i == *a as usize)
        );
        assert!(
            ErrorCode::ALL
                .iter()
                .enumerate()
                .all(|(i, c)| i == *c as usize)
        );
        assert!(
            SecretCheck::ALL
                .iter()
                .enumerate()
                .all(|(i, (c, _))| i == *c as usize)
        );
        assert!(
            AssertionCheck::ALL
                .iter()
                .enumerate()
                .all(|(i, (c, _))| i == *c as usize)
        );
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        assert!(
            Grant::ALL
                .iter()
                .enumerate()
                .all(|(i, (g, _))| i == *g as usize)
        );
        metrics.issued(Grant::ClientCredentials, Algorithm::EdDSA);
        metrics.refused(ErrorCode::InvalidScope);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        assert!(text.contains(
            "chancery_tokens_issued_total{grant=\"client_credentials\",alg=\"EdDSA\"} 1"
        ));
        assert!(text.contains("chancery_token_requests_refused_total{error=\"invalid_scope\"} 1"));
    }
}
