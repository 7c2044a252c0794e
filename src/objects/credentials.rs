//! A technical user's hashes in the operator namespace, and the Secret that delivers the plain
//! secret in the tenant's.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use zeroize::Zeroizing;

use super::{annotation, label, labels, owner, time_annotation, write_time};
use crate::api::v1alpha1::{RevokedStatus, TechnicalUser};
use crate::domain::client::StoredCredential;
use crate::domain::names::{
    self, PART_CREDENTIALS, PART_DELIVERY, TENANT_NAME_LABEL, TENANT_NAMESPACE_LABEL, UID_LABEL,
};
use crate::domain::settings::Settings;

/// On a Secret with hashes: when another way to authenticate took the place of the client secrets.
const EXCHANGED_AT: &str = "chancery.dev/exchanged-at";
/// On a Secret with hashes: when they therefore cease to work.
const WORKS_UNTIL: &str = "chancery.dev/works-until";

/// The type of the Secret with the hashes.
pub const HASHES_TYPE: &str = "chancery.dev/credentials";
/// The key with the list of hashes, as JSON.
pub const HASHES: &str = "credentials.json";
/// On a delivered Secret: the operator namespace of the release that delivered it.
const DELIVERED_FROM: &str = "chancery.dev/operator-namespace";
/// On a delivered Secret: which credential it holds.
const CREDENTIAL_ID: &str = "chancery.dev/credential-id";

/// The Secret with a technical user's hashes, still without them.
pub fn hashes_template(user: &TechnicalUser, settings: &Settings) -> Secret {
    let (namespace, name) = (user.namespace().unwrap_or_default(), user.name_any());
    let mut all_labels = labels(&settings.environment, PART_CREDENTIALS);
    all_labels.insert(UID_LABEL.into(), user.uid().unwrap_or_default());
    all_labels.insert(TENANT_NAMESPACE_LABEL.into(), namespace.clone());
    all_labels.insert(TENANT_NAME_LABEL.into(), name.clone());
    Secret {
        metadata: ObjectMeta {
            name: Some(names::credentials_secret(&namespace, &name)),
            namespace: Some(settings.operator_namespace.clone()),
            labels: Some(all_labels),
            ..ObjectMeta::default()
        },
        type_: Some(HASHES_TYPE.into()),
        ..Secret::default()
    }
}

/// Whose hashes these are: namespace, name and UID of the technical user.
pub fn hashes_of(secret: &Secret) -> Option<(&str, &str, &str)> {
    let meta = &secret.metadata;
    if secret.type_.as_deref() != Some(HASHES_TYPE) {
        return None;
    }
    Some((
        label(meta, TENANT_NAMESPACE_LABEL)?,
        label(meta, TENANT_NAME_LABEL)?,
        label(meta, UID_LABEL)?,
    ))
}

/// On a Secret with hashes: that its technical user was revoked, as JSON.
const REVOKED: &str = "chancery.dev/revoked";

/// That a technical user was revoked: its hashes are gone, and no new secret is made until the
/// annotation `chancery.dev/rotate` asks for one anew.
pub fn revoked(hashes: &Secret) -> Option<RevokedStatus> {
    serde_json::from_str(annotation(&hashes.metadata, REVOKED)?).ok()
}

/// Notes that, and takes the hashes away; or takes the note back.
pub fn set_revoked(hashes: &mut Secret, revoked: Option<&RevokedStatus>) {
    let annotations = hashes.metadata.annotations.get_or_insert_default();
    match revoked {
        Some(revoked) => {
            let json = serde_json::to_string(revoked).unwrap_or_default();
            annotations.insert(REVOKED.into(), json);
            write_hashes(hashes, &[]);
        }
        None => {
            annotations.remove(REVOKED);
        }
    }
}

/// The hashes in a Secret; none if it holds something else.
pub fn read_hashes(secret: &Secret) -> Option<Vec<StoredCredential>> {
    serde_json::from_slice(&secret.data.as_ref()?.get(HASHES)?.0).ok()
}

/// Puts hashes into their Secret.
pub fn write_hashes(secret: &mut Secret, credentials: &[StoredCredential]) {
    let json = serde_json::to_vec(credentials).unwrap_or_default();
    secret.data = Some(BTreeMap::from([(HASHES.to_owned(), ByteString(json))]));
}

/// Since when another way to authenticate has taken the place of the hashes' secrets.
pub fn exchanged_at(hashes: &Secret) -> Option<Timestamp> {
    time_annotation(&hashes.metadata, EXCHANGED_AT)
}

/// Until when the hashes' secrets work, where something else has taken their place.
pub fn works_until(hashes: &Secret) -> Option<Timestamp> {
    time_annotation(&hashes.metadata, WORKS_UNTIL)
}

/// Writes that something else has taken the place of the hashes' secrets.
pub fn exchange(hashes: &mut Secret, at: Timestamp, until: Timestamp) {
    hashes.metadata.annotations.get_or_insert_default().extend([
        (EXCHANGED_AT.to_owned(), write_time(at)),
        (WORKS_UNTIL.to_owned(), write_time(until)),
    ]);
}

/// Takes that back.
pub fn keep(hashes: &mut Secret) {
    if let Some(annotations) = &mut hashes.metadata.annotations {
        annotations.retain(|name, _| name != EXCHANGED_AT && name != WORKS_UNTIL);
    }
}

/// As people read times.
pub fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// What a delivered Secret should be, over what is there; the plain secret itself is filled in
/// by the caller.
pub fn delivery(
    user: &TechnicalUser,
    settings: &Settings,
    credential_id: &str,
    before: Option<&Secret>,
) -> Secret {
    let keys = user.secret_keys();
    let text = |value: &str| ByteString(value.as_bytes().to_vec());
    let mut secret = before.cloned().unwrap_or_default();
    secret.metadata.name = Some(user.secret_name());
    secret.metadata.namespace = user.namespace();
    secret.metadata.owner_references = owner(user);
    let all_labels = secret.metadata.labels.get_or_insert_default();
    all_labels.extend(labels(&settings.environment, PART_DELIVERY));
    secret.metadata.annotations.get_or_insert_default().extend([
        (CREDENTIAL_ID.into(), credential_id.into()),
        (DELIVERED_FROM.into(), settings.operator_namespace.clone()),
    ]);
    secret.type_ = Some("Opaque".into());
    secret.data = Some(BTreeMap::from([
        (keys.client_id.clone(), text(&user.client_id())),
        (keys.token_url.clone(), text(&settings.token_url())),
        (keys.issuer.clone(), text(&settings.issuer)),
    ]));
    secret
}

/// Puts the plain secret into a delivered Secret.
pub fn fill_delivery(secret: &mut Secret, key: &str, plain: &str) {
    secret
        .data
        .get_or_insert_default()
        .insert(key.to_owned(), ByteString(plain.as_bytes().to_vec()));
}

/// The operator namespace of the release that delivered a Secret.
pub fn delivered_from(secret: &Secret) -> Option<&str> {
    annotation(&secret.metadata, DELIVERED_FROM)
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
    data.get(key)
        .into_iter()
        .chain(others)
        .filter_map(|v| std::str::from_utf8(&v.0).ok())
        .filter(|v| crate::crypto::secret::shape(v).is_some())
        .map(|v| Zeroizing::new(v.to_owned()))
        .take(MOST_CANDIDATES)
        .collect()
}

/// Whether two delivered Secrets hold the same, whatever the API server has added.
pub fn same_delivery(a: &Secret, b: &Secret) -> bool {
    a.data == b.data
        && a.type_ == b.type_
        && a.metadata.labels == b.metadata.labels
        && a.metadata.annotations == b.metadata.annotations
        && a.metadata.owner_references == b.metadata.owner_references
}
