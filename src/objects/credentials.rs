//! A technical user's hashes in the operator namespace, with the lives of the secrets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use super::{annotation, label, labels, time_annotation, write_time};
use crate::api::v1alpha1::{RevokedStatus, SealedStatus, SuppliedRef, TechnicalUser};
use crate::domain::client::StoredCredential;
use crate::domain::names::{
    self, PART_CREDENTIALS, TENANT_NAME_LABEL, TENANT_NAMESPACE_LABEL, UID_LABEL,
};
use crate::domain::rotation::{Cause, Life};
use crate::domain::settings::Settings;

/// On a Secret with hashes: when another way to authenticate took the place of the client secrets.
const EXCHANGED_AT: &str = "chancery.dev/exchanged-at";
/// On a Secret with hashes: when they therefore cease to work.
const WORKS_UNTIL: &str = "chancery.dev/works-until";

/// The type of the Secret with the hashes.
pub const HASHES_TYPE: &str = "chancery.dev/credentials";
/// The key with the list of hashes, as JSON.
pub const HASHES: &str = "credentials.json";
/// The key with what the operator knows of their lives, as JSON. Servers need none of it.
pub const LIVES: &str = "lives.json";

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

/// Whether these are the hashes of the technical user with that UID.
pub fn are_of_uid(secret: &Secret, uid: Option<&str>) -> bool {
    hashes_of(secret).is_some_and(|(_, _, of)| Some(of) == uid)
}

/// On a Secret with hashes: that its technical user was revoked, as JSON.
const REVOKED: &str = "chancery.dev/revoked";

/// On a Secret with hashes: when its technical user was last revoked, where that is over.
const REVOKED_BEFORE: &str = "chancery.dev/revoked-before";

/// When a technical user was last revoked, whether that is over or not.
pub fn last_revocation(hashes: &Secret) -> Option<Timestamp> {
    let now = revoked(hashes).map(|revoked| revoked.at.0);
    now.or_else(|| time_annotation(&hashes.metadata, REVOKED_BEFORE))
}

/// Writes down when it was, where that is over.
pub fn set_last_revocation(hashes: &mut Secret, at: Timestamp) {
    let annotations = hashes.metadata.annotations.get_or_insert_default();
    annotations.insert(REVOKED_BEFORE.into(), write_time(at));
}

/// That a technical user was revoked: its hashes are gone, and no new secret is made until the
/// annotation `chancery.dev/rotate` asks for one anew.
pub fn revoked(hashes: &Secret) -> Option<RevokedStatus> {
    serde_json::from_str(annotation(&hashes.metadata, REVOKED)?).ok()
}

/// Notes that, and takes the hashes away; or takes the note back, which leaves when it was.
pub fn set_revoked(hashes: &mut Secret, revoked: Option<&RevokedStatus>) {
    let last = last_revocation(hashes);
    let annotations = hashes.metadata.annotations.get_or_insert_default();
    if let Some(revoked) = revoked {
        let json = serde_json::to_string(revoked).unwrap_or_default();
        annotations.insert(REVOKED.into(), json);
        annotations.remove(REVOKED_BEFORE);
        write(hashes, &[]);
    } else if annotations.remove(REVOKED).is_some()
        && let Some(last) = last
    {
        set_last_revocation(hashes, last);
    }
}

/// On a Secret with hashes: the last value of the claim annotation that was looked at. It outlasts the
/// hashes: a claim counts for one client secret alone.
const HANDLED_CLAIM: &str = "chancery.dev/handled-claim";

/// The last claim that was looked at.
pub fn handled_claim(hashes: &Secret) -> Option<&str> {
    annotation(&hashes.metadata, HANDLED_CLAIM)
}

/// Writes that a claim was looked at.
pub fn set_handled_claim(hashes: &mut Secret, claim: &str) {
    let annotations = hashes.metadata.annotations.get_or_insert_default();
    annotations.insert(HANDLED_CLAIM.into(), claim.into());
}

/// The hashes in a Secret; none if it holds something else.
pub fn read_hashes(secret: &Secret) -> Option<Vec<StoredCredential>> {
    serde_json::from_slice(&secret.data.as_ref()?.get(HASHES)?.0).ok()
}

/// A client secret as the operator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What servers know of it.
    pub credential: StoredCredential,
    /// What else is known of it.
    pub known: Known,
}

/// What the operator knows of a client secret besides its hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Known {
    /// When it was seen where its holder finds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
    /// Since when it is the newest that was delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<Timestamp>,
    /// When another one was delivered, or when it was lost or given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Timestamp>,
    /// When its grace is over: holds on where something else takes the place of secrets, and with them
    /// of the grace that the spec gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// Why it was made, as [`Cause::name`] says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The value of the rotate annotation that had been handled when it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handled: Option<String>,
    /// It, sealed to whoever claimed it, where it is delivered once. Status shows this; here it is written
    /// together with the hash, so that no crash and no loss of a status loses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedStatus>,
    /// Where a person supplies it; none: it was generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceOf>,
}

/// Where a client secret stands that a person supplies, as it was when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceOf {
    /// The Secret's name.
    pub secret: String,
    /// The key in it.
    pub key: String,
    /// Whether its hash stands there, and not itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hashed: bool,
    /// The Secret's UID and resourceVersion: while they are the same, so is what stands there.
    pub uid: String,
    /// See `uid`.
    pub resource_version: String,
}

impl SourceOf {
    /// Whether it is the place that a spec names.
    pub fn is(&self, place: &SuppliedRef) -> bool {
        self.secret == place.name && self.key == place.key()
    }
}

impl Stored {
    /// A secret that was just made.
    pub fn new(credential: StoredCredential, cause: Cause, handled: Option<String>) -> Self {
        let known = Known {
            cause: Some(cause.name().to_owned()),
            handled,
            ..Known::default()
        };
        Self { credential, known }
    }

    /// The times of its life.
    pub fn life(&self) -> Life {
        Life {
            created: Some(self.credential.created_at),
            published: self.known.delivered_at,
            activated: self.known.activated_at,
            retired: self.known.retired_at,
            ..Life::default()
        }
    }

    /// Why it was made.
    pub fn cause(&self) -> Cause {
        let name = self.known.cause.as_deref();
        name.and_then(Cause::from_name).unwrap_or_default()
    }

    /// Writes down what has become of it.
    pub fn set(&mut self, life: &Life, cause: Cause, handled: Option<String>) {
        self.credential.created_at = life.created.unwrap_or(self.credential.created_at);
        self.known = Known {
            delivered_at: life.published,
            activated_at: life.activated,
            retired_at: life.retired,
            ends_at: self.known.ends_at,
            cause: Some(cause.name().to_owned()),
            handled,
            sealed: self.known.sealed.take(),
            source: self.known.source.take(),
        };
    }
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

/// The hashes in a Secret with what else is known of them.
pub fn read(secret: &Secret) -> Vec<Stored> {
    let lives = secret.data.as_ref().and_then(|d| d.get(LIVES));
    let lives: Option<BTreeMap<String, Known>> =
        lives.and_then(|json| serde_json::from_slice(&json.0).ok());
    let mut lives = lives.unwrap_or_default();
    let hashes = read_hashes(secret).unwrap_or_default().into_iter();
    hashes
        .map(|credential| Stored {
            known: lives.remove(&credential.id).unwrap_or_default(),
            credential,
        })
        .collect()
}

/// Puts hashes, and what else is known of them, into their Secret.
pub fn write(secret: &mut Secret, stored: &[Stored]) {
    let hashes: Vec<_> = stored.iter().map(|s| &s.credential).collect();
    let lives: BTreeMap<_, _> = stored
        .iter()
        .map(|s| (&s.credential.id, &s.known))
        .collect();
    let json = |value: Result<Vec<u8>, _>| ByteString(value.unwrap_or_default());
    secret.data = Some(BTreeMap::from([
        (HASHES.to_owned(), json(serde_json::to_vec(&hashes))),
        (LIVES.to_owned(), json(serde_json::to_vec(&lives))),
    ]));
}

/// Puts a new hash to the others, in the place of one of the same id.
pub fn put(secret: &mut Secret, new: Stored) {
    let mut all = read(secret);
    all.retain(|s| s.credential.id != new.credential.id);
    all.push(new);
    write(secret, &all);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(id: &str, second: i64) -> Stored {
        let created_at = Timestamp::from_second(second).expect("a time");
        let credential = StoredCredential {
            id: id.into(),
            hash: format!("hash of {id}"),
            created_at,
            expires_at: None,
        };
        Stored::new(credential, Cause::Request, Some("now".into()))
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut secret = Secret::default();
        let mut first = stored("1", 1000);
        let mut life = first.life();
        life.activated =
            Some(Timestamp::from_nanosecond(1_000_000_000_123_456_789).expect("a time"));
        first.set(&life, Cause::First, None);
        write(&mut secret, &[first.clone()]);
        put(&mut secret, stored("2", 2000));
        assert_eq!(read(&secret), [first.clone(), stored("2", 2000)]);
        assert_eq!(read(&secret)[0].life(), life);
        // One of the same id takes the other's place.
        put(&mut secret, stored("2", 3000));
        assert_eq!(read(&secret), [first, stored("2", 3000)]);
    }

    /// A server of an earlier version reads the hashes, and this one what that wrote.
    #[test]
    fn hashes_stand_by_themselves() {
        let mut secret = Secret::default();
        write(&mut secret, &[stored("1", 1000)]);
        let data = secret.data.as_mut().expect("data");
        let json = String::from_utf8(data[HASHES].0.clone()).expect("text");
        assert_eq!(
            json,
            r#"[{"id":"1","hash":"hash of 1","createdAt":"1970-01-01T00:16:40Z"}]"#
        );
        data.remove(LIVES);
        let read = read(&secret);
        assert_eq!(read[0].credential, stored("1", 1000).credential);
        assert_eq!(read[0].known, Known::default());
        assert_eq!(read[0].cause(), Cause::First);
    }
}
