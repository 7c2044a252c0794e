//! The Secret that delivers a client secret in the tenant's namespace.
//!
//! What is renamed or moved stays under its old name for a grace: a pod that is started again with an
//! old manifest still finds what it mounts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{annotation, label, labels, owner, time_annotation, write_time};
use crate::api::v1alpha1::{SecretCredential, SecretKeys, SecretValue, TechnicalUser};
use crate::domain::names::PART_DELIVERY;
use crate::domain::rotation::later;
use crate::domain::settings::Settings;

/// The operator namespace of the release that delivered it.
const DELIVERED_FROM: &str = "chancery.dev/operator-namespace";
/// Which credential it holds.
const CREDENTIAL_ID: &str = "chancery.dev/credential-id";
/// What its keys are called, as JSON.
const KEYS: &str = "chancery.dev/keys";
/// What they were called before, and until when they are there, as JSON.
const FORMER_KEYS: &str = "chancery.dev/former-keys";
/// Of a Secret that another one has taken the place of: since when.
const SUPERSEDED_AT: &str = "chancery.dev/superseded-at";
/// And until when it is there, for whoever looks at it.
const SUPERSEDED_UNTIL: &str = "chancery.dev/superseded-until";
/// The labels and annotations of the person's choosing that it has, as JSON.
const CHOSEN: &str = "chancery.dev/chosen";

/// As many renamed keys are kept at most: each writing of the annotation by a tenant costs no more.
const MOST_FORMER_KEYS: usize = 16;

/// A key's name from before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Former {
    is: SecretValue,
    until: Timestamp,
}

/// The names of labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Chosen {
    labels: Vec<String>,
    annotations: Vec<String>,
}

/// What a delivered Secret should be.
pub struct Delivery {
    /// It, but for the client secret.
    pub secret: Secret,
    /// Under which keys the client secret stands.
    pub under: Vec<String>,
    /// When a key's former name goes.
    pub wake_at: Option<Timestamp>,
}

/// What a delivered Secret should be, over what is there.
pub fn delivery(
    user: &TechnicalUser,
    settings: &Settings,
    credential_id: &str,
    before: Option<&Secret>,
    now: Timestamp,
) -> Delivery {
    let spec = user.secret_credential().cloned().unwrap_or_default();
    let former = former_keys(before, &spec, now);
    let value = |what: SecretValue| match what {
        SecretValue::ClientId => Some(user.client_id()),
        SecretValue::TokenUrl => Some(settings.token_url()),
        SecretValue::Issuer => Some(settings.issuer.clone()),
        SecretValue::ClientSecret => None,
    };
    let named = spec.keys.named();
    let all = former.iter().map(|(name, f)| (name.as_str(), f.is));
    let all: BTreeMap<&str, SecretValue> = all.chain(named).collect();
    let data = all.iter().filter_map(|(name, what)| {
        let value = value(*what)?;
        Some(((*name).to_owned(), ByteString(value.into_bytes())))
    });
    let plain = all
        .iter()
        .filter(|(_, is)| **is == SecretValue::ClientSecret);
    let under = plain.map(|(name, _)| (*name).to_owned()).collect();
    let mut secret = before.cloned().unwrap_or_default();
    secret.metadata.name = Some(user.secret_name());
    secret.metadata.namespace = user.namespace();
    secret.metadata.owner_references = owner(user);
    secret.type_ = Some("Opaque".into());
    secret.data = Some(data.collect());
    put_chosen(&mut secret, &spec);
    let all_labels = secret.metadata.labels.get_or_insert_default();
    all_labels.extend(labels(&settings.environment, PART_DELIVERY));
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.remove(SUPERSEDED_AT);
    annotations.remove(SUPERSEDED_UNTIL);
    annotations.extend([
        (CREDENTIAL_ID.into(), credential_id.into()),
        (DELIVERED_FROM.into(), settings.operator_namespace.clone()),
        (KEYS.into(), json(&spec.keys)),
    ]);
    let wake_at = former.values().map(|f| f.until).min();
    if former.is_empty() {
        annotations.remove(FORMER_KEYS);
    } else {
        annotations.insert(FORMER_KEYS.into(), json(&former));
    }
    Delivery {
        secret,
        under,
        wake_at,
    }
}

/// What keys were called before, and are called still.
fn former_keys(
    before: Option<&Secret>,
    spec: &SecretCredential,
    now: Timestamp,
) -> BTreeMap<String, Former> {
    let Some(before) = before else {
        return BTreeMap::new();
    };
    let noted = |name| annotation(&before.metadata, name);
    let mut former: BTreeMap<String, Former> = noted(FORMER_KEYS)
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default();
    let grace = spec.grace_period().as_duration();
    let until = later(now, grace);
    let keys: Option<SecretKeys> = noted(KEYS).and_then(|json| serde_json::from_str(json).ok());
    for (name, is) in keys.iter().flat_map(SecretKeys::named) {
        let before = Former { is, until };
        former.entry(name.to_owned()).or_insert(before);
    }
    let named = spec.keys.named();
    former.retain(|name, key| {
        // A shorter grace than before holds at once.
        key.until = key.until.min(until);
        key.until > now && is_data_key(name) && named.iter().all(|(now, _)| now != name)
    });
    former.into_iter().take(MOST_FORMER_KEYS).collect()
}

/// As the API server sees the keys of a Secret; who writes the annotation is the tenant.
fn is_data_key(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (1..=253).contains(&name.len())
        && name.bytes().all(allowed)
        && name != "."
        && !name.starts_with("..")
}

/// Puts the labels and annotations of the person's choosing on a Secret, and takes those away that
/// were chosen before. What others have put there stays.
fn put_chosen(secret: &mut Secret, spec: &SecretCredential) {
    let names = |map: &BTreeMap<String, String>| map.keys().cloned().collect();
    let now = Chosen {
        labels: names(&spec.labels),
        annotations: names(&spec.annotations),
    };
    let before = annotation(&secret.metadata, CHOSEN);
    let before: Chosen = before
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default();
    let all_labels = secret.metadata.labels.get_or_insert_default();
    all_labels.retain(|name, _| !before.labels.contains(name));
    all_labels.extend(spec.labels.clone());
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.retain(|name, _| !before.annotations.contains(name));
    annotations.extend(spec.annotations.clone());
    if now == Chosen::default() {
        annotations.remove(CHOSEN);
    } else {
        annotations.insert(CHOSEN.into(), json(&now));
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Puts the plain secret into a delivered Secret.
pub fn fill(secret: &mut Secret, under: &[String], plain: &str) {
    let data = secret.data.get_or_insert_default();
    for key in under {
        data.insert(key.clone(), ByteString(plain.as_bytes().to_vec()));
    }
}

/// Since when another Secret has taken the place of a delivered one; none: that is not written down yet.
pub fn superseded_at(secret: &Secret) -> Option<Timestamp> {
    time_annotation(&secret.metadata, SUPERSEDED_AT)
}

/// Until when it is there, as it says.
pub fn superseded_until(secret: &Secret) -> Option<Timestamp> {
    time_annotation(&secret.metadata, SUPERSEDED_UNTIL)
}

/// Writes both down; whether that changes anything.
pub fn supersede(secret: &mut Secret, at: Timestamp, until: Timestamp) -> bool {
    let annotations = secret.metadata.annotations.get_or_insert_default();
    let mut note = |name: &str, time| {
        let time = write_time(time);
        let before = annotations.insert(name.to_owned(), time.clone());
        before != Some(time)
    };
    // Both, whatever the first one says.
    note(SUPERSEDED_AT, at) | note(SUPERSEDED_UNTIL, until)
}

/// The operator namespace of the release that delivered a Secret.
pub fn delivered_from(secret: &Secret) -> Option<&str> {
    annotation(&secret.metadata, DELIVERED_FROM)
}

/// Whether it says that this release delivered it: by its labels and where it came from. Tenants can
/// write that too.
pub fn was_delivered(secret: &Secret, settings: &Settings) -> bool {
    let all = labels(&settings.environment, PART_DELIVERY);
    let has =
        |(name, value): (&String, &String)| label(&secret.metadata, name) == Some(value.as_str());
    all.iter().all(has) && delivered_from(secret) == Some(&settings.operator_namespace)
}

/// Which credential a delivered Secret says that it holds.
pub fn credential_id(secret: &Secret) -> Option<&str> {
    annotation(&secret.metadata, CREDENTIAL_ID)
}

/// How many values of a delivered Secret are looked at: what a tenant puts there costs no more.
const MOST_CANDIDATES: usize = 4;

/// The generated secrets in a delivered Secret, by their shape: first the one under the key that it
/// should have, then others, since keys can be renamed.
pub fn plain_secrets(secret: &Secret, key: &str) -> Vec<Zeroizing<String>> {
    let Some(data) = &secret.data else {
        return Vec::new();
    };
    let others = data.iter().filter(|(name, _)| *name != key).map(|(_, v)| v);
    let mut found: Vec<Zeroizing<String>> = Vec::new();
    for value in data.get(key).into_iter().chain(others) {
        let text = std::str::from_utf8(&value.0).ok();
        let shaped = text.filter(|v| crate::crypto::secret::shape(v).is_some());
        // Under two names it is one.
        let new = shaped.filter(|v| found.iter().all(|f| f.as_str() != *v));
        found.extend(new.map(|v| Zeroizing::new(v.to_owned())));
        if found.len() == MOST_CANDIDATES {
            break;
        }
    }
    found
}

/// Whether a delivered Secret is to be another one since the spec names keys, labels or annotations
/// otherwise than when it was written, or since the grace of a key's former name is over.
pub fn follows(before: &Secret, after: &Secret) -> bool {
    [KEYS, FORMER_KEYS, CHOSEN].into_iter().any(|name| {
        let noted = annotation(&before.metadata, name);
        // Without it somebody has taken it away.
        noted.is_some() && noted != annotation(&after.metadata, name)
    })
}

/// Whether two delivered Secrets hold the same, whatever the API server has added.
pub fn same(a: &Secret, b: &Secret) -> bool {
    a.data == b.data
        && a.type_ == b.type_
        && a.metadata.labels == b.metadata.labels
        && a.metadata.annotations == b.metadata.annotations
        && a.metadata.owner_references == b.metadata.owner_references
}

#[cfg(test)]
mod tests;
