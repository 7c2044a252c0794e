//! The ConfigMaps with a JWKS: one for each ring, one for the whole issuer.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use super::{Ownership, annotation, label, labels, owner, ownership};
use crate::api::v1alpha1::SigningKey;
use crate::domain::jwk::{JwkSet, PublicJwk};
use crate::domain::names::{
    self, ENVIRONMENT_LABEL, ISSUER_JWKS, PART_JWKS, PART_LABEL, RING_LABEL,
};
use crate::domain::rotation::History;

/// The key that a mounted volume shows as a file.
pub const JWKS_JSON: &str = "jwks.json";
/// The key that Envoy Gateway's `localJWKS` reads.
pub const JWKS: &str = "jwks";
/// On the issuer's ConfigMap: which ring has which keys, as JSON.
const RINGS: &str = "chancery.dev/rings";
/// On a ring's ConfigMap: what is remembered of keys that are gone, as JSON.
const HISTORY: &str = "chancery.dev/history";

/// The most kids that are remembered of keys that are gone.
const MOST_REMEMBERED: usize = 256;

/// A ring's key as the issuer's ConfigMap lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The public key.
    pub jwk: PublicJwk,
    /// How often it came back after it was removed: a write that was decided before that is told by
    /// it from one that was decided after.
    pub edition: i64,
    /// The number of its Secret.
    pub sequence: i64,
}

/// What a ring has in the issuer's ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Its keys.
    pub keys: Vec<Entry>,
    /// Keys that are out of it, and of which it was known when it was written. So a removal changes
    /// the ConfigMap also where the key never stood there: a write that was decided before, and that
    /// would publish the key, meets a conflict. Until then its Secret is not deleted.
    pub gone: Vec<Gone>,
}

/// A key that was removed, in that edition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Which key.
    pub kid: String,
    /// As [`Entry::edition`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub edition: i64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct ListedShare {
    keys: Vec<Listed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gone: Vec<Gone>,
}

#[derive(Serialize, Deserialize)]
struct Listed {
    kid: String,
    sequence: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    edition: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Remembered {
    highest: i64,
    spent: Vec<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    unused: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    editions: BTreeMap<String, i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gone: Vec<Gone>,
}

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

/// What a ring's ConfigMap remembers of keys that are gone.
pub fn history(map: &ConfigMap) -> History {
    let remembered: Remembered = annotation(&map.metadata, HISTORY)
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default();
    History {
        highest: remembered.highest,
        spent: remembered.spent.into_iter().collect(),
        unused: remembered.unused,
        editions: remembered.editions,
    }
}

/// As [`Share::gone`], of a ring's own ConfigMap.
pub fn gone(map: &ConfigMap) -> Vec<Gone> {
    let remembered = annotation(&map.metadata, HISTORY)
        .and_then(|json| serde_json::from_str::<Remembered>(json).ok());
    remembered.map(|r| r.gone).unwrap_or_default()
}

/// What a ring's ConfigMap should be, over what is there.
pub fn of_ring(
    ring: &SigningKey,
    environment: &str,
    share: &Share,
    history: &History,
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
    // In the order in which they went, so that the oldest are forgotten first.
    let known = annotation(&map.metadata, HISTORY)
        .and_then(|json| serde_json::from_str::<Remembered>(json).ok())
        .unwrap_or_default();
    let mut spent: Vec<String> = known.spent;
    spent.retain(|kid| history.spent.contains(kid));
    let new = history.spent.iter().filter(|kid| !spent.contains(kid));
    let new: Vec<String> = new.cloned().collect();
    spent.extend(new);
    spent.drain(..spent.len().saturating_sub(MOST_REMEMBERED));
    let editions = history.editions.iter();
    let editions = editions.filter(|(kid, _)| spent.contains(kid));
    let unused = history.unused.iter().filter(|kid| spent.contains(kid));
    let remembered = Remembered {
        highest: history.highest,
        unused: unused.cloned().collect(),
        editions: editions.map(|(kid, e)| (kid.clone(), *e)).collect(),
        spent,
        gone: share.gone.clone(),
    };
    map.metadata.annotations.get_or_insert_default().insert(
        HISTORY.into(),
        serde_json::to_string(&remembered).unwrap_or_default(),
    );
    map.data = Some(data(&JwkSet {
        keys: share.keys.iter().map(|e| e.jwk.clone()).collect(),
    }));
    map.binary_data = None;
    map
}

/// Whether a ring may write this ConfigMap: it owns it, or nobody does and our labels are on it. A
/// restore may have stripped these; what we noted there is still ours.
pub fn is_ring_map(map: &ConfigMap, ring: &str, uid: &str) -> bool {
    match ownership(&map.metadata, uid) {
        Ownership::Ours => true,
        Ownership::Nobodys => match label(&map.metadata, RING_LABEL) {
            Some(label) => label == ring,
            None => {
                annotation(&map.metadata, HISTORY).is_some()
                    && map.metadata.name == Some(names::ring_jwks(ring))
            }
        },
        Ownership::Anothers => false,
    }
}

/// Whether this is our issuer's ConfigMap rather than somebody else's of that name; also where a
/// restore has stripped its labels.
pub fn is_issuer_map(map: &ConfigMap, environment: &str) -> bool {
    let part = label(&map.metadata, PART_LABEL);
    let of = label(&map.metadata, ENVIRONMENT_LABEL);
    let labelled = part == Some(PART_JWKS) && of == Some(environment);
    let stripped = part.is_none() && of.is_none() && annotation(&map.metadata, RINGS).is_some();
    map.metadata.name.as_deref() == Some(ISSUER_JWKS)
        && (labelled || stripped)
        && map
            .metadata
            .owner_references
            .as_ref()
            .is_none_or(Vec::is_empty)
}

/// Which ring has what in the issuer's ConfigMap.
pub fn shares(map: &ConfigMap) -> BTreeMap<String, Share> {
    let listed: BTreeMap<String, ListedShare> = annotation(&map.metadata, RINGS)
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default();
    let set = read(map).unwrap_or_default();
    let find = |of: &Listed| {
        let jwk = set.keys.iter().find(|k| k.kid == of.kid)?.clone();
        let (edition, sequence) = (of.edition, of.sequence);
        Some(Entry {
            jwk,
            edition,
            sequence,
        })
    };
    let share = |listed: ListedShare| Share {
        keys: listed.keys.iter().filter_map(find).collect(),
        gone: listed.gone,
    };
    let each = listed.into_iter();
    each.map(|(ring, listed)| (ring, share(listed))).collect()
}

/// The issuer's ConfigMap with one ring's share replaced, or taken out if there is nothing in it. The
/// other rings' shares stay as they are: whoever writes knows only its own ring for certain.
/// `others` are the rings' own ConfigMaps, from which a share that was lost by hand is restored.
pub fn of_issuer(
    ring: &str,
    share: &Share,
    before: Option<&ConfigMap>,
    others: &BTreeMap<String, Vec<PublicJwk>>,
    namespace: &str,
    environment: &str,
) -> ConfigMap {
    let mut all = before.map(shares).unwrap_or_default();
    all.insert(ring.to_owned(), share.clone());
    for (other, keys) in others.iter().filter(|(other, _)| *other != ring) {
        if all.get(other).is_none_or(|known| known.keys.is_empty()) {
            // A key that two rings were given at the same moment is the first one's.
            let taken = all.values().flat_map(|share| &share.keys);
            let taken: BTreeSet<String> = taken.map(|e| e.jwk.kid.clone()).collect();
            let free = keys.iter().filter(|jwk| !taken.contains(&jwk.kid));
            // Their own visits put the numbers right.
            let entries = free.cloned().map(|jwk| Entry {
                jwk,
                edition: 0,
                sequence: 0,
            });
            all.entry(other.clone()).or_default().keys.extend(entries);
        }
    }
    all.retain(|_, share| *share != Share::default());
    let listed: BTreeMap<&str, ListedShare> = all
        .iter()
        .map(|(name, share)| (name.as_str(), list(share)))
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
        serde_json::to_string(&listed).unwrap_or_default(),
    );
    map.data = Some(data(&JwkSet {
        keys: all
            .values()
            .flat_map(|share| &share.keys)
            .map(|e| e.jwk.clone())
            .collect(),
    }));
    map.binary_data = None;
    map
}

fn list(share: &Share) -> ListedShare {
    let entry = |entry: &Entry| Listed {
        kid: entry.jwk.kid.clone(),
        sequence: entry.sequence,
        edition: entry.edition,
    };
    ListedShare {
        keys: share.keys.iter().map(entry).collect(),
        gone: share.gone.clone(),
    }
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

    fn jwk(kid: &str) -> PublicJwk {
        PublicJwk::stand_in(kid)
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
        let entry = |kid: &str| Entry {
            jwk: jwk(kid),
            edition: 1,
            sequence: 2,
        };
        let write = |ring, keys: &[Entry], before: Option<&ConfigMap>| {
            let share = Share {
                keys: keys.to_vec(),
                gone: Vec::new(),
            };
            of_issuer(ring, &share, before, &none, "chancery-system", "default")
        };
        let one = write("b", &[entry("b1")], None);
        let two = write("a", &[entry("a1"), entry("a2")], Some(&one));
        assert_eq!(kids(&two), ["a1", "a2", "b1"]);
        assert_eq!(shares(&two)["b"].keys, [entry("b1")]);
        assert!(is_issuer_map(&two, "default") && !is_issuer_map(&two, "other"));
        let mut stripped = two.clone();
        stripped.metadata.labels = None;
        assert!(is_issuer_map(&stripped, "default"));
        stripped.metadata.annotations = None;
        assert!(!is_issuer_map(&stripped, "default"), "anybody's");
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
        let mine = Entry {
            jwk: jwk("a1"),
            edition: 0,
            sequence: 1,
        };
        let mine = Share {
            keys: vec![mine],
            gone: Vec::new(),
        };
        let map = of_issuer("a", &mine, Some(&broken), &others, "ns", "default");
        assert_eq!(kids(&map), ["a1", "b1"]);

        // A key that both were given at the same moment is whose share it stands in.
        let others = BTreeMap::from([("b".to_owned(), vec![jwk("b1"), jwk("a1")])]);
        let map = of_issuer("a", &mine, Some(&broken), &others, "ns", "default");
        assert_eq!(kids(&map), ["a1", "b1"]);
    }

    #[test]
    fn the_kids_that_went_first_are_forgotten_first() {
        let ring = serde_json::from_value(serde_json::json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "SigningKey",
            "metadata": {"name": "main", "namespace": "ns", "uid": "u"},
            "spec": {"audience": "client", "algorithm": "EdDSA"},
        }));
        let ring: SigningKey = ring.expect("valid");
        let write = |spent: &std::collections::BTreeSet<String>, before: Option<&ConfigMap>| {
            let history = History {
                highest: 1,
                spent: spent.clone(),
                ..History::default()
            };
            of_ring(&ring, "default", &Share::default(), &history, before)
        };
        // The order of kids has nothing to do with that in which they go.
        let mut map = write(&std::collections::BTreeSet::from(["a".to_owned()]), None);
        let later = (0..MOST_REMEMBERED).rev().map(|n| format!("b{n:03}"));
        for kid in later.chain(["0".to_owned()]) {
            let mut spent = history(&map).spent;
            spent.insert(kid);
            map = write(&spent, Some(&map));
        }
        let left = history(&map).spent;
        assert_eq!(left.len(), MOST_REMEMBERED);
        assert!(left.contains("0") && left.contains("b000"), "the last");
        assert!(!left.contains("a") && !left.contains("b255"), "the first");
        // One that is remembered no more (it came back, say) makes room.
        let fewer = left.iter().filter(|kid| *kid != "b100").cloned().collect();
        let map = write(&fewer, Some(&map));
        assert_eq!(history(&map).spent, fewer);
    }
}
