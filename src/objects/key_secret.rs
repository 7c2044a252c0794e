//! A key pair's Secret: immutable, with the private key as PEM, and the facts of its life as
//! annotations, so that everything can be rebuilt from the Secrets alone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{annotation, labels, owner, time_annotation, write_time};
use crate::api::v1alpha1::{SigningKey, SigningKeySpec};
use crate::crypto::key_pair::{KeyError, KeyPair};
use crate::domain::algorithm::Algorithm;
use crate::domain::jwk::{KeyMembers, PublicJwk};
use crate::domain::names::{self, PART_KEY, RING_LABEL};

/// The Secret's type, by which a key pair is recognised even when its labels are stripped.
pub const TYPE: &str = "chancery.dev/key-pair";
/// The private key: PKCS#8 in PEM.
pub const PRIVATE_KEY: &str = "private-key.pem";

const ALGORITHM: &str = "chancery.dev/algorithm";
const CREATED_AT: &str = "chancery.dev/created-at";
const PUBLISHED_AT: &str = "chancery.dev/published-at";
const ACTIVATED_AT: &str = "chancery.dev/activated-at";
const RETIRED_AT: &str = "chancery.dev/retired-at";

/// The facts of a key's life that its Secret holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When it was first seen in the issuer's JWKS.
    pub published: Option<Timestamp>,
    /// When it began to sign.
    pub activated: Option<Timestamp>,
    /// When it ceased to sign.
    pub retired: Option<Timestamp>,
}

/// A new key pair's Secret, without the key.
pub fn template(ring: &SigningKey, environment: &str, sequence: i64, now: Timestamp) -> Secret {
    let name = ring.name_any();
    let mut all_labels = labels(environment, PART_KEY);
    all_labels.insert(RING_LABEL.into(), name.clone());
    Secret {
        metadata: ObjectMeta {
            name: Some(names::key_secret(&name, sequence)),
            namespace: ring.namespace(),
            labels: Some(all_labels),
            annotations: Some(BTreeMap::from([
                (ALGORITHM.into(), ring.spec.algorithm.name().into()),
                (CREATED_AT.into(), write_time(now)),
            ])),
            owner_references: owner(ring),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.into()),
        immutable: Some(true),
        ..Secret::default()
    }
}

/// Writes into a Secret what is known of its key's life.
pub fn stamp(secret: &mut Secret, life: Life) {
    let annotations = secret.metadata.annotations.get_or_insert_default();
    for (name, time) in [
        (CREATED_AT, life.created),
        (PUBLISHED_AT, life.published),
        (ACTIVATED_AT, life.activated),
        (RETIRED_AT, life.retired),
    ] {
        if let Some(time) = time {
            annotations.insert(name.into(), write_time(time));
        }
    }
}

/// Reads what a Secret holds of its key's life.
pub fn life(secret: &Secret) -> Life {
    let meta = &secret.metadata;
    Life {
        created: time_annotation(meta, CREATED_AT)
            .or_else(|| meta.creation_timestamp.as_ref().map(|t| t.0)),
        published: time_annotation(meta, PUBLISHED_AT),
        activated: time_annotation(meta, ACTIVATED_AT),
        retired: time_annotation(meta, RETIRED_AT),
    }
}

/// Why a Secret gives no key pair.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is of another type.
    #[error("it is of type {0:?}, not {TYPE}")]
    WrongType(String),
    /// The private key is missing.
    #[error("it has no key {PRIVATE_KEY:?}")]
    NoPrivateKey,
    /// The private key is no text.
    #[error("its {PRIVATE_KEY} is not PEM")]
    NotText,
    /// The private key does not parse, or does not fit the algorithm.
    #[error("its {PRIVATE_KEY} can not be used: {0}")]
    Key(#[from] KeyError),
}

/// Whether a Secret says of itself that it holds a key pair of ours.
pub fn is_key_secret(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE)
}

/// The public half of the key pair in a Secret, if it is one that the ring may use; else why not.
pub fn key_of(secret: &Secret, ring: &SigningKeySpec) -> Result<PublicJwk, String> {
    let pair = key_pair(secret, ring.algorithm).map_err(|e| e.to_string())?;
    if pair.algorithm() != ring.algorithm {
        return Err(format!(
            "its key is for {}, and the ring's algorithm is {}",
            pair.algorithm(),
            ring.algorithm
        ));
    }
    let jwk = pair.public_jwk().clone();
    if let KeyMembers::Rsa { n, .. } = &jwk.key {
        // Six bits a base64url character; a modulus has no leading zero octet (RFC 7518 §6.3.1.1).
        let bits = i32::try_from(n.len() * 6 / 8 * 8).unwrap_or(i32::MAX);
        if bits < ring.rsa_size().bits() {
            return Err(format!(
                "its RSA key has {bits} bits, and the ring's keys have {}",
                ring.rsa_size().bits()
            ));
        }
    }
    Ok(jwk)
}

/// Parses the key pair in a Secret, for the algorithm that the Secret names or else this one.
pub fn key_pair(secret: &Secret, algorithm: Algorithm) -> Result<KeyPair, Unreadable> {
    if !is_key_secret(secret) {
        return Err(Unreadable::WrongType(
            secret.type_.clone().unwrap_or_default(),
        ));
    }
    let pem = secret
        .data
        .as_ref()
        .and_then(|d| d.get(PRIVATE_KEY))
        .ok_or(Unreadable::NoPrivateKey)?;
    let pem = std::str::from_utf8(&pem.0).map_err(|_| Unreadable::NotText)?;
    let named = annotation(&secret.metadata, ALGORITHM).and_then(|a| a.parse().ok());
    Ok(KeyPair::from_pem(named.unwrap_or(algorithm), pem)?)
}
