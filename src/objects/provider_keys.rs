//! The keys of an outside provider, as the operator has fetched them and hands them to the servers: one
//! ConfigMap in its namespace for each, so that every replica trusts the same.
#![allow(clippy::doc_markdown)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::json;

use super::{label, labels, owner, write_time};
use crate::api::v1alpha1::OidcProvider;
use crate::domain::client_key::GivenJwk;
use crate::domain::names::{
    PART_LABEL, PART_PROVIDER, PROVIDER_LABEL, PROVIDER_NAMESPACE_LABEL, PROVIDER_UID_LABEL,
    provider_keys,
};
use crate::domain::settings::Settings;

/// The key with the issuer, as the provider's metadata has it.
const ISSUER: &str = "issuer";
/// The key with where the JWKS is.
const JWKS_URI: &str = "jwksUri";
/// The key with where the metadata is: what was fetched elsewhere is another provider's.
const SOURCE: &str = "wellKnownUri";
/// The key with when it was fetched.
const REFRESHED: &str = "refreshed";
/// The key with the JWKS.
const JWKS: &str = "jwks.json";

/// What a provider answered, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Where its metadata is.
    pub well_known_uri: String,
    /// What that calls it.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_uri: String,
    /// When it was fetched.
    pub refreshed: Timestamp,
    /// Its keys; none: they were dropped, as the provider could not be asked for too long.
    pub keys: Vec<GivenJwk>,
}

impl Known {
    /// Whether this is of a provider as its resource is now: found where it says, and with an issuer that it
    /// lists.
    pub fn is_of(&self, provider: &OidcProvider) -> bool {
        let spec = &provider.spec;
        spec.well_known_uri.as_ref() == Some(&self.well_known_uri)
            && (spec.issuers.is_empty() || spec.issuers.contains(&self.issuer))
    }

    /// Until when the keys are trusted.
    pub fn good_until(&self, settings: &Settings) -> Timestamp {
        let staleness = settings.providers.max_staleness.as_duration();
        self.refreshed
            .saturating_add(staleness)
            .unwrap_or(Timestamp::MAX)
    }

    /// The same with its keys dropped.
    #[must_use]
    pub fn without_keys(mut self) -> Self {
        self.keys.clear();
        self
    }
}

/// The name of a provider's ConfigMap.
pub fn name_of(namespace: &str, name: &str, settings: &Settings) -> String {
    let tenant = (namespace != settings.operator_namespace).then_some(namespace);
    provider_keys(tenant, name)
}

/// The ConfigMap that says so, over the one that is there.
pub fn write(
    known: &Known,
    provider: &OidcProvider,
    settings: &Settings,
    before: Option<&ConfigMap>,
) -> ConfigMap {
    let (namespace, name) = (
        provider.namespace().unwrap_or_default(),
        provider.name_any(),
    );
    let mut map = before.cloned().unwrap_or_else(|| ConfigMap {
        metadata: ObjectMeta {
            name: Some(name_of(&namespace, &name, settings)),
            namespace: Some(settings.operator_namespace.clone()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    });
    let all = map.metadata.labels.get_or_insert_default();
    all.extend(labels(&settings.environment, PART_PROVIDER));
    all.insert(
        PROVIDER_UID_LABEL.into(),
        provider.uid().unwrap_or_default(),
    );
    all.insert(PROVIDER_NAMESPACE_LABEL.into(), namespace.clone());
    all.insert(PROVIDER_LABEL.into(), name);
    // An owner in another namespace would be none.
    if namespace == settings.operator_namespace {
        map.metadata.owner_references = owner(provider);
    }
    map.binary_data = None;
    map.data = Some(BTreeMap::from([
        (SOURCE.to_owned(), known.well_known_uri.clone()),
        (ISSUER.to_owned(), known.issuer.clone()),
        (JWKS_URI.to_owned(), known.jwks_uri.clone()),
        (
            REFRESHED.to_owned(),
            write_time(whole_second(known.refreshed)),
        ),
        (JWKS.to_owned(), json!({ "keys": known.keys }).to_string()),
    ]));
    map
}

/// As statuses have it.
pub fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The provider whose keys a ConfigMap of ours holds: its namespace, name and UID.
pub fn keys_of(map: &ConfigMap) -> Option<(&str, &str, &str)> {
    let meta = &map.metadata;
    let ours = label(meta, PART_LABEL) == Some(PART_PROVIDER);
    let get = |name| label(meta, name).filter(|_| ours);
    Some((
        get(PROVIDER_NAMESPACE_LABEL)?,
        get(PROVIDER_LABEL)?,
        get(PROVIDER_UID_LABEL)?,
    ))
}

/// What a ConfigMap says of that very provider; none if it is another one, or says nothing sound.
pub fn read(map: &ConfigMap, provider: &OidcProvider) -> Option<Known> {
    #[derive(serde::Deserialize)]
    struct Document {
        keys: Vec<GivenJwk>,
    }
    let of = (
        provider.namespace().unwrap_or_default(),
        provider.name_any(),
        provider.uid().unwrap_or_default(),
    );
    keys_of(map).filter(|found| *found == (of.0.as_str(), of.1.as_str(), of.2.as_str()))?;
    let data = map.data.as_ref()?;
    let text = |key: &str| data.get(key).filter(|text| !text.is_empty()).cloned();
    let document: Document = serde_json::from_str(data.get(JWKS)?).ok()?;
    Some(Known {
        well_known_uri: text(SOURCE)?,
        issuer: text(ISSUER)?,
        jwks_uri: text(JWKS_URI)?,
        refreshed: text(REFRESHED)?.parse().ok()?,
        keys: document.keys,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::needless_pass_by_value)]
    fn provider(namespace: &str, spec: serde_json::Value) -> OidcProvider {
        let provider = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "OidcProvider",
            "metadata": {"name": "corp", "namespace": namespace, "uid": "uid-1"},
            "spec": spec,
        });
        serde_json::from_value(provider).expect("a provider")
    }

    #[test]
    fn what_is_written_reads_back_for_that_very_provider() {
        let spec = json!({"wellKnownUri": "https://a/.well-known/x", "issuers": ["https://a"], "audiences": ["b"]});
        let settings = Settings::default();
        let known = Known {
            well_known_uri: "https://a/.well-known/x".into(),
            issuer: "https://a".into(),
            jwks_uri: "https://a/jwks".into(),
            refreshed: Timestamp::from_second(1000).expect("a time"),
            keys: vec![GivenJwk {
                kty: "EC".into(),
                crv: Some("P-256".into()),
                ..GivenJwk::default()
            }],
        };
        for (namespace, name) in [
            ("acme", "chancery-provider.acme.corp-keys"),
            ("chancery-system", "chancery-provider-corp-keys"),
        ] {
            let of = provider(namespace, spec.clone());
            let map = write(&known, &of, &settings, None);
            assert_eq!(map.name_any(), name);
            assert_eq!(map.namespace().as_deref(), Some("chancery-system"));
            let owned = map.metadata.owner_references.is_some();
            assert_eq!(owned, namespace == "chancery-system");
            assert_eq!(read(&map, &of), Some(known.clone()));
            assert_eq!(write(&known, &of, &settings, Some(&map)), map);
            assert!(known.is_of(&of));
            let mut again = of.clone();
            again.metadata.uid = Some("uid-2".into());
            assert_eq!(read(&map, &again), None, "another one of that name");
            assert_eq!(read(&map, &provider("other", spec.clone())), None);
            let dropped = write(&known.clone().without_keys(), &of, &settings, Some(&map));
            assert_eq!(read(&dropped, &of).expect("read").keys, []);
        }
        let moved = json!({"wellKnownUri": "https://b/.well-known/x", "issuers": ["https://a"], "audiences": ["b"]});
        assert!(!known.is_of(&provider("acme", moved)));
        let other = json!({"wellKnownUri": "https://a/.well-known/x", "issuers": ["https://b"], "audiences": ["b"]});
        assert!(!known.is_of(&provider("acme", other)));
    }
}
