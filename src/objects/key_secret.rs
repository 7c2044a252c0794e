//! A key pair's Secret: immutable, with the private key as PEM, and the facts of its life as
//! annotations, so that everything can be rebuilt from the Secrets alone.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{annotation, labels, owner, time_annotation, write_time};
use crate::api::v1alpha1::{SigningKey, SigningKeySpec};
use crate::crypto::key_pair::{KeyError, KeyPair};
use crate::domain::algorithm::Algorithm;
use crate::domain::jwk::{KeyMembers, PublicJwk};
use crate::domain::names::{self, PART_KEY, RING_LABEL};
use crate::domain::period::Period;
use crate::domain::rotation::{Cause, KeyFacts, Life, Window};

/// The Secret's type, by which a key pair is recognised even when its labels are stripped.
pub const TYPE: &str = "chancery.dev/key-pair";
/// The private key: PKCS#8 in PEM.
pub const PRIVATE_KEY: &str = "private-key.pem";

const ALGORITHM: &str = "chancery.dev/algorithm";
const CREATED_AT: &str = "chancery.dev/created-at";
const PUBLISHED_AT: &str = "chancery.dev/published-at";
const ACTIVATED_AT: &str = "chancery.dev/activated-at";
const RETIRED_AT: &str = "chancery.dev/retired-at";
const WITHDRAWN_AT: &str = "chancery.dev/withdrawn-at";
const REMOVED_AT: &str = "chancery.dev/removed-at";
const VALID_FROM: &str = "chancery.dev/valid-from";
const VALID_TO: &str = "chancery.dev/valid-to";
const CAUSE: &str = "chancery.dev/cause";
const HANDLED_ROTATION: &str = "chancery.dev/handled-rotation";
const EDITION: &str = "chancery.dev/edition";
const MAX_TOKEN_TTL: &str = "chancery.dev/max-token-ttl";

/// What a key's Secret holds of its key besides the key itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The times of its life.
    pub life: Life,
    /// Why it was made.
    pub cause: Cause,
    /// The value of the rotate annotation that had been handled.
    pub handled: Option<String>,
    /// How often it came back after it was removed.
    pub edition: i64,
    /// The longest token life that was allowed while it signed.
    pub max_ttl: Option<SignedDuration>,
    /// The window that was accepted for it.
    pub window: Window,
}

impl Written {
    /// What is written of a key.
    pub fn of(key: &KeyFacts) -> Self {
        Self {
            life: key.life,
            cause: key.cause,
            handled: key.handled.clone(),
            edition: key.edition,
            max_ttl: key.max_ttl,
            window: key.window,
        }
    }
}

/// A new key pair's Secret, without the key.
pub fn template(
    ring: &SigningKey,
    environment: &str,
    sequence: i64,
    algorithm: Algorithm,
) -> Secret {
    let name = ring.name_any();
    let mut all_labels = labels(environment, PART_KEY);
    all_labels.insert(RING_LABEL.into(), name.clone());
    let annotations = BTreeMap::from([(ALGORITHM.into(), algorithm.name().into())]);
    Secret {
        metadata: ObjectMeta {
            name: Some(names::key_secret(&name, sequence)),
            namespace: ring.namespace(),
            labels: Some(all_labels),
            annotations: Some(annotations),
            owner_references: owner(ring),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.into()),
        immutable: Some(true),
        ..Secret::default()
    }
}

/// Writes into a Secret what is known of its key, and nothing else of ours.
pub fn stamp(secret: &mut Secret, algorithm: Algorithm, written: &Written) {
    let annotations = secret.metadata.annotations.get_or_insert_default();
    let Written {
        life,
        cause,
        handled,
        edition,
        max_ttl,
        window,
    } = written;
    let time = |time: Option<Timestamp>| time.map(write_time);
    let seconds = max_ttl.map(|ttl| Period::from_secs(ttl.as_secs()).to_string());
    for (name, value) in [
        (ALGORITHM, Some(algorithm.name().to_owned())),
        (CREATED_AT, time(life.created)),
        (PUBLISHED_AT, time(life.published)),
        (ACTIVATED_AT, time(life.activated)),
        (RETIRED_AT, time(life.retired)),
        (WITHDRAWN_AT, time(life.withdrawn)),
        (REMOVED_AT, time(life.removed)),
        (VALID_FROM, time(window.from)),
        (VALID_TO, time(window.to)),
        (CAUSE, Some(cause.name().to_owned())),
        (HANDLED_ROTATION, handled.clone()),
        (EDITION, (*edition > 0).then(|| edition.to_string())),
        (MAX_TOKEN_TTL, seconds),
    ] {
        match value {
            Some(value) => annotations.insert(name.into(), value),
            None => annotations.remove(name),
        };
    }
}

/// Whether a Secret says anything of its key's life: one whose annotations were stripped does not.
pub fn is_written(secret: &Secret) -> bool {
    annotation(&secret.metadata, CREATED_AT).is_some()
}

/// Reads what a Secret holds of its key.
pub fn read(secret: &Secret) -> Written {
    let meta = &secret.metadata;
    let text = |name| annotation(meta, name);
    Written {
        life: Life {
            created: time_annotation(meta, CREATED_AT)
                .or_else(|| meta.creation_timestamp.as_ref().map(|t| t.0)),
            published: time_annotation(meta, PUBLISHED_AT),
            activated: time_annotation(meta, ACTIVATED_AT),
            retired: time_annotation(meta, RETIRED_AT),
            withdrawn: time_annotation(meta, WITHDRAWN_AT),
            removed: time_annotation(meta, REMOVED_AT),
        },
        cause: text(CAUSE).and_then(Cause::from_name).unwrap_or_default(),
        handled: text(HANDLED_ROTATION).map(str::to_owned),
        edition: text(EDITION).and_then(|e| e.parse().ok()).unwrap_or(0),
        max_ttl: text(MAX_TOKEN_TTL)
            .and_then(|ttl| ttl.parse::<Period>().ok())
            .map(Period::as_duration),
        window: Window {
            from: time_annotation(meta, VALID_FROM),
            to: time_annotation(meta, VALID_TO),
        },
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

/// The public half of the key pair in a Secret; else why there is none. `algorithm`: of the ring,
/// for a Secret that does not name its own.
pub fn key_of(secret: &Secret, algorithm: Algorithm) -> Result<PublicJwk, String> {
    let pair = key_pair(secret, algorithm).map_err(|e| e.to_string())?;
    Ok(pair.public_jwk().clone())
}

/// Whether a key is what its ring wants now. An injected RSA key may be larger.
pub fn fits(jwk: &PublicJwk, cause: Cause, ring: &SigningKeySpec) -> bool {
    let size = match &jwk.key {
        KeyMembers::Rsa { n, .. } => {
            // Six bits a base64url character; a modulus has no leading zero octet
            // (RFC 7518 section 6.3.1.1).
            let bits = i32::try_from(n.len() * 6 / 8 * 8).unwrap_or(i32::MAX);
            let wanted = ring.rsa_size().bits();
            bits == wanted || cause == Cause::Injected && bits > wanted
        }
        _ => true,
    };
    jwk.alg == ring.algorithm && size
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
