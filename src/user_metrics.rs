//! What the metrics tell of each technical user: from its status, at the time of the scrape. As many series
//! as there are technical users, times a handful; those of one that goes, go with it.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::api::v1alpha1::{READY, ROTATION_PAUSED, STALLED, TechnicalUser, TechnicalUserStatus};
use crate::domain::settings::Settings;
use crate::stores::{Guarded, Stores};
use crate::tenancy::TenancyCache;

/// The conditions that are told, each of which somebody may want to be woken by.
const CONDITIONS: [&str; 3] = [READY, STALLED, ROTATION_PAUSED];

/// The gauges of all technical users that the release serves, read from the stores whenever they are asked
/// for.
pub struct UserMetrics {
    stores: Stores,
    settings: Arc<Settings>,
    tenancy: TenancyCache,
}

impl UserMetrics {
    /// Of the technical users in these stores.
    pub fn new(stores: Stores, settings: Arc<Settings>) -> Self {
        Self {
            stores,
            settings,
            tenancy: TenancyCache::default(),
        }
    }
}

impl fmt::Debug for UserMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserMetrics").finish_non_exhaustive()
    }
}

impl Collector for UserMetrics {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let tenancy = self.tenancy.get(&self.stores, &self.settings);
        let users = self.stores.technical_users.state();
        // Another release tells of those that it serves.
        let ours = |user: &&Arc<Guarded<TechnicalUser>>| {
            let environment = tenancy
                .environments
                .get(&user.namespace().unwrap_or_default());
            environment.is_none_or(|environment| *environment == self.settings.environment)
        };
        let users = users.iter().filter(ours);
        let mut users: Vec<_> = users.filter_map(|u| u.0.as_ref().ok()).collect();
        users.sort_by_key(|user| (user.namespace(), user.name_any()));
        encode(&users, encoder)
    }
}

/// What a gauge says of a technical user; nothing, where it does not apply.
type Value = fn(&TechnicalUserStatus) -> Option<f64>;

/// Name, help and value of each gauge.
const GAUGES: [(&str, &str, Value); 2] = [
    (
        "chancery_technical_user_next_rotation_timestamp_seconds",
        "When the next client secret is made by the clock, in seconds since 1970; in the past: it is overdue",
        |status| Some(seconds(status.next_rotation.as_ref()?)),
    ),
    (
        "chancery_technical_user_credential_expiration_timestamp_seconds",
        "When the first of the client secrets that work ceases to, in seconds since 1970, where one does",
        |status| {
            let ends = status
                .credentials
                .iter()
                .filter_map(|c| c.expires_at.as_ref());
            ends.min().map(seconds)
        },
    ),
];

fn encode(users: &[&TechnicalUser], mut encoder: DescriptorEncoder) -> fmt::Result {
    let unvisited = TechnicalUserStatus::default();
    let labels = |user: &TechnicalUser| {
        [
            ("namespace", user.namespace().unwrap_or_default()),
            ("technical_user", user.name_any()),
        ]
    };
    let mut conditions = encoder.encode_descriptor(
        "chancery_technical_user_condition",
        "1 while the technical user has that condition, 0 while it has not",
        None,
        MetricType::Gauge,
    )?;
    for user in users {
        let status = user.status.as_ref().unwrap_or(&unvisited);
        for condition in CONDITIONS {
            let [namespace, name] = labels(user);
            let labels = [namespace, name, ("condition", condition.to_owned())];
            let value = flag(holds(status, condition));
            conditions.encode_family(&labels)?.encode_gauge(&value)?;
        }
    }
    let mut suspended = encoder.encode_descriptor(
        "chancery_technical_user_suspended",
        "1 while spec.suspended of the technical user is set",
        None,
        MetricType::Gauge,
    )?;
    for user in users {
        let value = flag(user.spec.suspended);
        suspended
            .encode_family(&labels(user))?
            .encode_gauge(&value)?;
    }
    for (name, help, value) in GAUGES {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for user in users {
            let status = user.status.as_ref().unwrap_or(&unvisited);
            if let Some(value) = value(status) {
                metric.encode_family(&labels(user))?.encode_gauge(&value)?;
            }
        }
    }
    Ok(())
}

fn holds(status: &TechnicalUserStatus, condition: &str) -> bool {
    let holds = |c: &Condition| c.type_ == condition && c.status == "True";
    status.conditions.iter().any(holds)
}

#[allow(clippy::cast_precision_loss)] // Exact until the year 285 million.
fn seconds(time: &Time) -> f64 {
    time.0.as_second() as f64
}

fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    #[derive(Debug)]
    struct Fixed(Vec<TechnicalUser>);

    impl Collector for Fixed {
        fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
            encode(&self.0.iter().collect::<Vec<_>>(), encoder)
        }
    }

    fn text(users: &[TechnicalUser]) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Fixed(users.to_vec())));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        text
    }

    #[test]
    fn each_is_told_of_and_what_is_gone_is_not() {
        let secret = |id: &str, expires: Option<&str>| {
            let mut secret = serde_json::json!({"id": id, "createdAt": "2026-01-01T00:00:00Z"});
            if let Some(at) = expires {
                secret["expiresAt"] = at.into();
            }
            secret
        };
        let user = |name: &str, status: serde_json::Value| -> TechnicalUser {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
                "metadata": { "name": name, "namespace": "acme" },
                "spec": { "audiences": ["a"], "suspended": name == "one", "credential": { "secret": {} } },
                "status": status,
            }))
            .expect("a technical user")
        };
        let holds = |kind: &str| {
            serde_json::json!({ "type": kind, "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z" })
        };
        let busy = user(
            "one",
            serde_json::json!({
                "conditions": [holds("Ready"), holds("Stalled")],
                "nextRotation": "1970-01-01T00:01:40Z",
                "credentials": [
                    secret("1", Some("1970-01-01T00:00:30Z")),
                    secret("2", Some("1970-01-01T00:00:20Z")),
                    secret("3", None),
                ],
            }),
        );
        let told = text(&[busy, user("two", serde_json::json!({}))]);
        let one = "{namespace=\"acme\",technical_user=\"one\"";
        let two = "{namespace=\"acme\",technical_user=\"two\"";
        let condition = "chancery_technical_user_condition";
        for line in [
            format!("{condition}{one},condition=\"Ready\"}} 1.0"),
            format!("{condition}{one},condition=\"Stalled\"}} 1.0"),
            format!("{condition}{one},condition=\"RotationPaused\"}} 0.0"),
            format!("{condition}{two},condition=\"Ready\"}} 0.0"),
            format!("{condition}{two},condition=\"Stalled\"}} 0.0"),
            format!("chancery_technical_user_suspended{one}}} 1.0"),
            format!("chancery_technical_user_suspended{two}}} 0.0"),
            format!("chancery_technical_user_next_rotation_timestamp_seconds{one}}} 100.0"),
            format!("chancery_technical_user_credential_expiration_timestamp_seconds{one}}} 20.0"),
        ] {
            assert!(told.contains(&line), "{line} in\n{told}");
        }
        // What does not apply is no 0, which would be a time.
        assert_eq!(told.matches(&format!("_seconds{two}")).count(), 0, "{told}");
        assert!(!text(&[]).contains("acme"));
    }
}
