//! What the metrics tell of each outside provider: from its `OidcProvider`'s status, at the time of the
//! scrape.

use std::fmt;

use jiff::Timestamp;
use kube::ResourceExt;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::api::v1alpha1::{
    ISSUER_VALIDATED, OidcProvider, OidcProviderStatus, REACHABLE, READY, STALLED,
};
use crate::clock::SharedClock;
use crate::stores::Stores;

/// The gauges of all providers that this release has said something of.
pub struct ProviderMetrics {
    stores: Stores,
    environment: String,
    clock: SharedClock,
}

impl ProviderMetrics {
    /// Of the providers in these stores that are this environment's.
    pub fn new(stores: Stores, environment: String, clock: SharedClock) -> Self {
        Self {
            stores,
            environment,
            clock,
        }
    }
}

impl fmt::Debug for ProviderMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderMetrics").finish_non_exhaustive()
    }
}

impl Collector for ProviderMetrics {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let all = self.stores.oidc_providers.state();
        let mut all: Vec<_> = all.iter().filter_map(|p| p.0.as_ref().ok()).collect();
        all.sort_by_key(|provider| (provider.namespace(), provider.name_any()));
        encode(&all, &self.environment, self.clock.now(), encoder)
    }
}

fn encode(
    all: &[&OidcProvider],
    environment: &str,
    now: Timestamp,
    mut encoder: DescriptorEncoder,
) -> fmt::Result {
    let told = |provider: &&&OidcProvider| {
        let status = provider.status.as_ref();
        status.is_some_and(|status| status.environment.as_deref() == Some(environment))
    };
    let ours: Vec<_> = all.iter().filter(told).collect();
    let mut conditions = encoder.encode_descriptor(
        "chancery_oidc_provider_condition",
        "1 while the provider has that condition, 0 while it has not",
        None,
        MetricType::Gauge,
    )?;
    for provider in &ours {
        for condition in [READY, REACHABLE, ISSUER_VALIDATED, STALLED] {
            // Nobody asks one whose keys stand in its spec.
            let Some(holds) = holds(provider.status.as_ref(), condition) else {
                continue;
            };
            let labels = [
                ("namespace", provider.namespace().unwrap_or_default()),
                ("oidc_provider", provider.name_any()),
                ("condition", condition.to_owned()),
            ];
            let value = if holds { 1.0 } else { 0.0 };
            conditions.encode_family(&labels)?.encode_gauge(&value)?;
        }
    }
    let mut ages = encoder.encode_descriptor(
        "chancery_oidc_provider_keys_age_seconds",
        "Time since the provider's keys were read",
        None,
        MetricType::Gauge,
    )?;
    for provider in &ours {
        let refreshed = provider
            .status
            .as_ref()
            .and_then(|s| s.last_refresh.as_ref());
        if let Some(refreshed) = refreshed {
            let labels = [
                ("namespace", provider.namespace().unwrap_or_default()),
                ("oidc_provider", provider.name_any()),
            ];
            let age = now.duration_since(refreshed.0).as_secs_f64();
            ages.encode_family(&labels)?.encode_gauge(&age)?;
        }
    }
    Ok(())
}

/// Whether it has a condition; none, where that one does not apply to it.
fn holds(status: Option<&OidcProviderStatus>, condition: &str) -> Option<bool> {
    let found = status?.conditions.iter().find(|c| c.type_ == condition);
    match found {
        Some(found) => Some(found.status == "True"),
        // It is there while it holds.
        None if condition == STALLED => Some(false),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;
    use serde_json::json;

    #[derive(Debug)]
    struct Fixed(OidcProvider, Timestamp);

    impl Collector for Fixed {
        fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
            encode(&[&self.0], "default", self.1, encoder)
        }
    }

    #[test]
    fn a_providers_conditions_and_the_age_of_its_keys_are_told() {
        let text = |environment: &str| {
            let condition = |kind: &str, status: &str| {
                json!({"type": kind, "status": status, "reason": "R", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            };
            let provider = json!({
                "apiVersion": "chancery.dev/v1alpha1", "kind": "OidcProvider",
                "metadata": {"name": "corp", "namespace": "acme"},
                "spec": {"audiences": ["a"]},
                "status": {
                    "environment": environment, "lastRefresh": "2026-01-01T00:00:00Z",
                    "conditions": [condition("Ready", "True"), condition("IssuerValidated", "False")],
                },
            });
            let provider = serde_json::from_value(provider).expect("a provider");
            let now = "2026-01-01T01:00:00Z".parse().expect("a time");
            let mut registry = Registry::default();
            registry.register_collector(Box::new(Fixed(provider, now)));
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
            text
        };
        let of = |condition: &str| {
            let labels = r#"{namespace="acme",oidc_provider="corp",condition=""#;
            format!("chancery_oidc_provider_condition{labels}{condition}\"}} ")
        };
        let told = text("default");
        for line in [
            of("Ready") + "1.0",
            of("IssuerValidated") + "0.0",
            of("Stalled") + "0.0",
            r#"chancery_oidc_provider_keys_age_seconds{namespace="acme",oidc_provider="corp"} 3600.0"#.to_owned(),
        ] {
            assert!(told.contains(&line), "{line} in\n{told}");
        }
        assert!(!told.contains("Reachable"), "nobody asks it");
        assert!(!text("other").contains("corp"));
    }
}
