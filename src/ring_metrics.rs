//! What the metrics tell of each ring: from its `SigningKey`'s status, at the time of the scrape.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::api::v1alpha1::{
    EXPIRES_SOON, KeyStatus, PUBLISHED, RING_CONDITIONS, SigningKey, SigningKeyStatus,
};
use crate::clock::SharedClock;
use crate::stores::Stores;

/// By so many seconds a transition may be late: a visit takes a moment, a retry some.
const LATE: f64 = 60.0;

/// The gauges of all rings, read from the stores whenever they are asked for.
pub struct RingMetrics {
    stores: Stores,
    clock: SharedClock,
}

impl RingMetrics {
    /// Of the rings in these stores.
    pub fn new(stores: Stores, clock: SharedClock) -> Self {
        Self { stores, clock }
    }
}

impl fmt::Debug for RingMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingMetrics").finish_non_exhaustive()
    }
}

impl Collector for RingMetrics {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let rings = self.stores.signing_keys.state();
        let mut rings: Vec<_> = rings.iter().filter_map(|r| r.0.as_ref().ok()).collect();
        rings.sort_by_key(|ring| ring.name_any());
        encode(&rings, self.clock.now(), encoder)
    }
}

/// What a gauge says of a ring; nothing, where it does not apply.
type Value = fn(&SigningKey, &SigningKeyStatus, Timestamp) -> Option<f64>;

/// Name, help and value of each gauge. Times are in seconds.
const GAUGES: [(&str, &str, Value); 5] = [
    (
        "chancery_signing_key_active_age_seconds",
        "For how long the ring's active key has signed",
        |_, status, now| {
            let key = active(status)?;
            Some(-until(key.activated_at.as_ref()?, now))
        },
    ),
    (
        "chancery_signing_key_next_transition_seconds",
        "Time until something happens to the ring by the clock, negative when that is overdue",
        |_, status, now| next(status, now),
    ),
    (
        "chancery_signing_key_overdue",
        "1 while the ring's next transition is more than a minute overdue",
        |_, status, now| Some(flag(next(status, now).is_some_and(|next| next < -LATE))),
    ),
    (
        "chancery_signing_key_expires_seconds",
        "Time until the ring's validTo, where it has one",
        |ring, status, now| {
            // The spec may ask for what is refused: what holds is noted of the keys.
            let held = match active(status) {
                Some(key) => key.valid_to.as_ref(),
                None => ring.spec.valid_to.as_ref(),
            };
            Some(until(held?, now))
        },
    ),
    (
        "chancery_signing_key_expires_soon",
        "1 while the ring has the condition ExpiresSoon",
        |_, status, _| Some(flag(holds(status, EXPIRES_SOON))),
    ),
];

fn encode(rings: &[&SigningKey], now: Timestamp, mut encoder: DescriptorEncoder) -> fmt::Result {
    let unvisited = SigningKeyStatus::default();
    let mut conditions = encoder.encode_descriptor(
        "chancery_signing_key_condition",
        "1 while the ring has that condition, 0 while it has not",
        None,
        MetricType::Gauge,
    )?;
    for ring in rings {
        let status = ring.status.as_ref().unwrap_or(&unvisited);
        // Published is there where the ring publishes in other namespaces.
        let publishes = !ring.spec.publish.is_empty();
        for condition in RING_CONDITIONS {
            if condition != PUBLISHED || publishes {
                let labels = [
                    ("signing_key", ring.name_any()),
                    ("condition", condition.to_owned()),
                ];
                let value = flag(holds(status, condition));
                conditions.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
    }
    for (name, help, value) in GAUGES {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for ring in rings {
            let status = ring.status.as_ref().unwrap_or(&unvisited);
            if let Some(value) = value(ring, status, now) {
                let labels = [("signing_key", ring.name_any())];
                metric.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
    }
    Ok(())
}

fn active(status: &SigningKeyStatus) -> Option<&KeyStatus> {
    let active = status.active_key_id.as_ref()?;
    status.keys.iter().find(|k| k.key_id == *active)
}

fn holds(status: &SigningKeyStatus, condition: &str) -> bool {
    let holds = |c: &Condition| c.type_ == condition && c.status == "True";
    status.conditions.iter().any(holds)
}

fn until(at: &Time, now: Timestamp) -> f64 {
    at.0.duration_since(now).as_secs_f64()
}

fn next(status: &SigningKeyStatus, now: Timestamp) -> Option<f64> {
    Some(until(&status.next_transition.as_ref()?.at, now))
}

fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    #[derive(Debug)]
    struct Fixed(Vec<SigningKey>, Timestamp);

    impl Collector for Fixed {
        fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
            encode(&self.0.iter().collect::<Vec<_>>(), self.1, encoder)
        }
    }

    #[test]
    fn what_is_overdue_is_told_and_what_is_gone_is_not() {
        let ring = |next: &str| -> SigningKey {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "chancery.dev/v1alpha1", "kind": "SigningKey",
                "metadata": { "name": "main" },
                "spec": { "audience": "client", "algorithm": "ES256", "validTo": "2025-01-02T00:00:00Z" },
                "status": {
                    "activeKeyId": "a",
                    "keys": [{ "keyId": "a", "sequence": 1, "state": "Active", "activatedAt": "2026-01-01T00:00:00Z",
                        "validTo": "2026-01-02T00:00:00Z" }],
                    "nextTransition": { "at": next, "what": "Publish" },
                    "conditions": [{ "type": "ExpiresSoon", "status": "True", "reason": "R", "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z" }],
                },
            }))
            .expect("a ring")
        };
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("a time");
        let text = |rings: &[SigningKey]| {
            let mut registry = Registry::default();
            registry.register_collector(Box::new(Fixed(rings.to_vec(), now)));
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
            text
        };
        let due = text(&[ring("2026-01-01T00:59:30Z")]);
        for line in [
            "chancery_signing_key_active_age_seconds{signing_key=\"main\"} 3600.0",
            "chancery_signing_key_next_transition_seconds{signing_key=\"main\"} -30.0",
            "chancery_signing_key_overdue{signing_key=\"main\"} 0.0",
            "chancery_signing_key_expires_seconds{signing_key=\"main\"} 82800.0",
            "chancery_signing_key_expires_soon{signing_key=\"main\"} 1.0",
            "chancery_signing_key_condition{signing_key=\"main\",condition=\"ExpiresSoon\"} 1.0",
            "chancery_signing_key_condition{signing_key=\"main\",condition=\"Ready\"} 0.0",
            "chancery_signing_key_condition{signing_key=\"main\",condition=\"Stalled\"} 0.0",
        ] {
            assert!(due.contains(line), "{line} in\n{due}");
        }
        let overdue = text(&[ring("2026-01-01T00:58:59Z")]);
        assert!(overdue.contains("chancery_signing_key_overdue{signing_key=\"main\"} 1.0"));
        assert!(!text(&[]).contains("main"));
    }
}
