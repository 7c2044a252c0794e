//! The keys that sign the cluster's own ServiceAccount tokens, as the operator hands them to the
//! servers: one ConfigMap in its namespace.
#![allow(clippy::doc_markdown)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::json;

use super::{label, labels};
use crate::domain::client_key::GivenJwk;
use crate::domain::names::{CLUSTER_KEYS, PART_CLUSTER_KEYS, PART_LABEL};
use crate::domain::settings::Settings;

/// The key with the issuer of the tokens.
const ISSUER: &str = "issuer";
/// The key with the JWKS.
const JWKS: &str = "jwks.json";

/// Who issues a cluster's tokens, and which keys sign them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterKeys {
    /// `iss` in the tokens.
    pub issuer: String,
    /// The keys; never none.
    pub keys: Vec<GivenJwk>,
}

/// The ConfigMap that says so, over the one that is there.
pub fn write(keys: &ClusterKeys, settings: &Settings, before: Option<&ConfigMap>) -> ConfigMap {
    let mut map = before.cloned().unwrap_or_else(|| ConfigMap {
        metadata: ObjectMeta {
            name: Some(CLUSTER_KEYS.into()),
            namespace: Some(settings.operator_namespace.clone()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    });
    let all_labels = map.metadata.labels.get_or_insert_default();
    all_labels.extend(labels(&settings.environment, PART_CLUSTER_KEYS));
    map.data = Some(BTreeMap::from([
        (ISSUER.to_owned(), keys.issuer.clone()),
        (JWKS.to_owned(), json!({ "keys": keys.keys }).to_string()),
    ]));
    map
}

/// What a ConfigMap says; none if it is another one, or says nothing sound.
pub fn read(map: &ConfigMap) -> Option<ClusterKeys> {
    let ours = map.name_any() == CLUSTER_KEYS
        && label(&map.metadata, PART_LABEL) == Some(PART_CLUSTER_KEYS);
    let data = map.data.as_ref().filter(|_| ours)?;
    let keys = parse(data.get(JWKS)?)?;
    let issuer = data.get(ISSUER).filter(|issuer| !issuer.is_empty())?;
    Some(ClusterKeys {
        issuer: issuer.clone(),
        keys,
    })
}

/// The keys of a JWKS document, whatever else is in it; none if there is none.
pub fn parse(document: &str) -> Option<Vec<GivenJwk>> {
    #[derive(serde::Deserialize)]
    struct Document {
        keys: Vec<serde_json::Value>,
    }
    let document: Document = serde_json::from_str(document).ok()?;
    let keys = document.keys.into_iter();
    let keys: Vec<_> = keys
        .filter_map(|key| serde_json::from_value(key).ok())
        .collect();
    (!keys.is_empty()).then_some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_what_is_not_ours_does_not() {
        let document = r#"{"keys":[{"kty":"RSA","kid":"a","alg":"RS256","use":"sig","n":"AQ","e":"AQAB","x5t":"z"},{"no":1}]}"#;
        let keys = ClusterKeys {
            issuer: "https://cluster".into(),
            keys: parse(document).expect("one key"),
        };
        assert_eq!(keys.keys.len(), 1, "what is no key is left out");
        let map = write(&keys, &Settings::default(), None);
        assert_eq!(read(&map), Some(keys.clone()));
        assert_eq!(write(&keys, &Settings::default(), Some(&map)), map);
        let mut stranger = map.clone();
        stranger.metadata.labels = None;
        assert_eq!(read(&stranger), None);
        for bad in [r#"{"keys":[]}"#, "{}", "", r#"{"keys":{}}"#] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
