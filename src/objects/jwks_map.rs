//! The ConfigMaps with a JWKS: one for each ring, one for the whole issuer.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{Ownership, annotation, label, labels, owner, ownership};
use crate::api::v1alpha1::SigningKey;
use crate::domain::jwk::{JwkSet, PublicJwk};
use crate::domain::names::{
    self, ENVIRONMENT_LABEL, ISSUER_JWKS, PART_JWKS, PART_LABEL, RING_LABEL,
};

/// The key that a mounted volume shows as a file.
pub const JWKS_JSON: &str = "jwks.json";
/// The key that Envoy Gateway's `localJWKS` reads.
pub const JWKS: &str = "jwks";
/// On the issuer's ConfigMap: which ring has which kids, as JSON.
const RINGS: &str = "chancery.dev/rings";

fn data(set: &JwkSet) -> BTreeMap<String, String> {
    let document = set.to_document();
    BTreeMap::from([
        (JWKS_JSON.to_owned(), document.clone()),
        (JWKS.to_owned(), document),
    ])
}

/// The document in a ConfigMap, if it is one.
pub fn read(map: &ConfigMap) -> Option<JwkSet> {
    JwkSet::from_document(map.data.as_ref()?.get(JWKS_JSON)?).ok()
}

/// What a ring's ConfigMap should be, over what is there.
pub fn of_ring(
    ring: &SigningKey,
    environment: &str,
    keys: &[PublicJwk],
    before: Option<&ConfigMap>,
) -> ConfigMap {
    let name = ring.name_any();
    let mut map = before.cloned().unwrap_or_default();
    map.metadata.name = Some(names::ring_jwks(&name));
    map.metadata.namespace = ring.namespace();
    map.metadata.owner_references = owner(ring);
    let all_labels = map.metadata.labels.get_or_insert_default();
    all_labels.extend(labels(environment, PART_JWKS));
    all_labels.insert(RING_LABEL.into(), name);
    map.data = Some(data(&JwkSet {
        keys: keys.to_vec(),
    }));
    map.binary_data = None;
    map
}

/// Whether a ring may write this ConfigMap: it owns it, or nobody does and our labels are on it.
pub fn is_ring_map(map: &ConfigMap, ring: &str, uid: &str) -> bool {
    match ownership(&map.metadata, uid) {
        Ownership::Ours => true,
        Ownership::Nobodys => label(&map.metadata, RING_LABEL) == Some(ring),
        Ownership::Anothers => false,
    }
}

/// Whether this is our issuer's ConfigMap rather than somebody else's of that name.
pub fn is_issuer_map(map: &ConfigMap, environment: &str) -> bool {
    map.metadata.name.as_deref() == Some(ISSUER_JWKS)
        && label(&map.metadata, PART_LABEL) == Some(PART_JWKS)
        && label(&map.metadata, ENVIRONMENT_LABEL) == Some(environment)
        && map
            .metadata
            .owner_references
            .as_ref()
            .is_none_or(Vec::is_empty)
}

/// Which ring has which keys in the issuer's ConfigMap.
pub fn shares(map: &ConfigMap) -> BTreeMap<String, Vec<PublicJwk>> {
    let listed: BTreeMap<String, Vec<String>> = annotation(&map.metadata, RINGS)
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default();
    let set = read(map).unwrap_or_default();
    let find = |kid: &String| set.keys.iter().find(|k| k.kid == *kid).cloned();
    listed
        .into_iter()
        .map(|(ring, kids)| (ring, kids.iter().filter_map(find).collect()))
        .collect()
}

/// The issuer's ConfigMap with one ring's share replaced, or taken out if it is empty. The other
/// rings' shares stay as they are: whoever writes knows only its own ring for certain.
/// `others` are the rings' own ConfigMaps, from which a share that was lost by hand is restored.
pub fn of_issuer(
    ring: &str,
    keys: &[PublicJwk],
    before: Option<&ConfigMap>,
    others: &BTreeMap<String, Vec<PublicJwk>>,
    namespace: &str,
    environment: &str,
) -> ConfigMap {
    let mut all = before.map(shares).unwrap_or_default();
    for (other, share) in others {
        let known = all.entry(other.clone()).or_default();
        if known.is_empty() {
            known.clone_from(share);
        }
    }
    all.insert(ring.to_owned(), keys.to_vec());
    all.retain(|_, share| !share.is_empty());
    let kids: BTreeMap<&str, Vec<&str>> = all
        .iter()
        .map(|(name, share)| {
            (
                name.as_str(),
                share.iter().map(|k| k.kid.as_str()).collect(),
            )
        })
        .collect();
    let mut map = before.cloned().unwrap_or_else(|| ConfigMap {
        metadata: ObjectMeta {
            name: Some(ISSUER_JWKS.into()),
            namespace: Some(namespace.into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    });
    map.metadata
        .labels
        .get_or_insert_default()
        .extend(labels(environment, PART_JWKS));
    map.metadata.annotations.get_or_insert_default().insert(
        RINGS.into(),
        serde_json::to_string(&kids).unwrap_or_default(),
    );
    map.data = Some(data(&JwkSet {
        keys: all.values().flatten().cloned().collect(),
    }));
    map.binary_data = None;
    map
}

/// Whether two ConfigMaps say the same, whatever the API server has added.
pub fn same(a: &ConfigMap, b: &ConfigMap) -> bool {
    a.data == b.data
        && a.binary_data == b.binary_data
        && a.metadata.labels == b.metadata.labels
        && a.metadata.annotations == b.metadata.annotations
        && a.metadata.owner_references == b.metadata.owner_references
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::algorithm::Algorithm;
    use crate::domain::jwk::{KeyMembers, Usage};

    fn jwk(kid: &str) -> PublicJwk {
        PublicJwk {
            key: KeyMembers::Okp {
                crv: "Ed25519".into(),
                x: kid.into(),
            },
            kid: kid.into(),
            alg: Algorithm::EdDSA,
            usage: Usage::Signature,
        }
    }

    fn kids(map: &ConfigMap) -> Vec<String> {
        read(map)
            .expect("a JWKS")
            .keys
            .into_iter()
            .map(|k| k.kid)
            .collect()
    }

    #[test]
    fn a_ring_touches_only_its_own_share() {
        let none = BTreeMap::new();
        let write = |ring, keys: &[PublicJwk], before: Option<&ConfigMap>| {
            of_issuer(ring, keys, before, &none, "chancery-system", "default")
        };
        let one = write("b", &[jwk("b1")], None);
        let two = write("a", &[jwk("a1"), jwk("a2")], Some(&one));
        assert_eq!(kids(&two), ["a1", "a2", "b1"]);
        assert!(is_issuer_map(&two, "default") && !is_issuer_map(&two, "other"));
        let three = write("a", &[], Some(&two));
        assert_eq!(kids(&three), ["b1"]);
        assert!(same(&three, &one));
    }

    #[test]
    fn a_share_lost_by_hand_comes_back_from_the_rings_own_map() {
        let others = BTreeMap::from([("b".to_owned(), vec![jwk("b1")])]);
        let broken = ConfigMap {
            data: Some(BTreeMap::from([(JWKS_JSON.to_owned(), "{".to_owned())])),
            ..ConfigMap::default()
        };
        let map = of_issuer("a", &[jwk("a1")], Some(&broken), &others, "ns", "default");
        assert_eq!(kids(&map), ["a1", "b1"]);
    }
}
