//! The two ConfigMaps of revoked tokens: the outbox, in which servers note what they were asked
//! for, and the list, to which the operator brings it home. In both a tenant's share stands under
//! its namespace, as JSON.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::labels;
use crate::domain::names::{OUTBOX, PART_OUTBOX, PART_REVOCATIONS, REVOCATIONS};
use crate::domain::revocation::{OfTenant, Revocations};
use crate::domain::settings::Settings;

/// The outbox, empty.
pub fn outbox(settings: &Settings) -> ConfigMap {
    template(settings, OUTBOX, PART_OUTBOX)
}

/// The list, empty.
pub fn list(settings: &Settings) -> ConfigMap {
    template(settings, REVOCATIONS, PART_REVOCATIONS)
}

fn template(settings: &Settings, name: &str, part: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(settings.operator_namespace.clone()),
            labels: Some(labels(&settings.environment, part)),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

/// What stands in either of them, as it stands.
pub fn noted(map: &ConfigMap) -> BTreeMap<String, String> {
    map.data.clone().unwrap_or_default()
}

/// What stands in the list, and the tenants whose share can not be read.
pub fn read(map: &ConfigMap) -> (Revocations, Vec<String>) {
    let (mut all, mut broken) = (Revocations::default(), Vec::new());
    for (tenant, text) in map.data.iter().flatten() {
        match serde_json::from_str::<OfTenant>(text) {
            Ok(clients) => all.join_tenant(tenant, &clients),
            Err(_) => broken.push(tenant.clone()),
        }
    }
    (all, broken)
}

/// The shares as they are written.
pub fn write(all: &Revocations) -> Option<BTreeMap<String, String>> {
    let shares: BTreeMap<_, _> = all
        .0
        .iter()
        .map(|(tenant, of)| {
            (
                tenant.clone(),
                serde_json::to_string(of).unwrap_or_default(),
            )
        })
        .collect();
    (!shares.is_empty()).then_some(shares)
}
