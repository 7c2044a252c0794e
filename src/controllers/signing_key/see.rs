//! Gathers what there is to see of a ring.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;

use super::look::Reads;
use super::{Elsewhere, Injected, SecretSeen, Seen};
use crate::api::v1alpha1::{KeyStatus, SigningKey, SigningKeySpec};
use crate::controllers::Error;
use crate::crypto::key_pair::KeyPair;
use crate::crypto::key_pair::import::import;
use crate::domain::names;
use crate::objects::{injected, jwks_map, ownership};
use crate::stores::Stores;

/// A greater number than any ring comes to, in status or in a Secret's name, is nobody's.
const MOST_KEYS: i64 = 1_000_000_000;

/// How many Secrets beyond those that are known are looked for.
const MOST_PROBES: usize = 100;

/// How far a look goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What the watches have shown, and what they have not is asked for.
    Watched,
    /// All of it is asked of the API server.
    Live,
}

/// Looks at a ring. That something is missing is acted upon only when the API server says so
/// itself, since a watch may lag.
pub async fn see(
    reads: &impl Reads,
    ring: Option<Arc<SigningKey>>,
    name: &str,
    depth: Depth,
) -> Result<Seen, Error> {
    let mut seen = Seen {
        ring: ring.clone(),
        name: name.to_owned(),
        secrets: Vec::new(),
        ring_map: config_map(reads, &names::ring_jwks(name), depth).await?,
        issuer_map: config_map(reads, names::ISSUER_JWKS, depth).await?,
        others: reads.others(name),
        elsewhere: Elsewhere::default(),
        copies: reads.copies(name, ring.as_deref()).await?,
        peers: ring
            .as_deref()
            .map_or_else(Vec::new, |ring| reads.peers(ring)),
        injected: None,
    };
    let Some(ring) = ring else { return Ok(seen) };

    let listed = match depth {
        Depth::Watched => reads.secrets(),
        Depth::Live => reads.live_secrets(name).await?,
    };
    let mut secrets: BTreeMap<i64, Arc<Secret>> = listed
        .into_iter()
        .filter_map(|s| Some((sequence_of(name, &s)?, s)))
        .collect();
    let known = known(&seen, &ring);
    let missing: Vec<i64> = known
        .iter()
        .filter(|s| !secrets.contains_key(s))
        .copied()
        .collect();
    for sequence in missing {
        let secret = reads
            .live_secret(&names::key_secret(name, sequence))
            .await?;
        secrets.extend(secret.map(|secret| (sequence, secret)));
    }
    let uid = ring.uid().unwrap_or_default();
    let algorithm = ring.spec.algorithm;
    let look = |(sequence, secret): (i64, Arc<Secret>)| SecretSeen {
        sequence,
        ownership: ownership(&secret.metadata, &uid),
        key: reads.key_of(&secret, algorithm),
        secret,
    };
    seen.secrets = secrets.into_iter().map(look).collect();

    if !seen.secrets.iter().any(|s| s.usable().is_some()) {
        // A restore may have stripped their labels, and all else that tells of them.
        let stripped = reads.live_key_pairs().await?;
        let places = stripped
            .into_iter()
            .filter_map(|s| Some((sequence_of(name, &s)?, s)));
        for (sequence, secret) in places {
            if !seen.secrets.iter().any(|s| s.sequence == sequence) {
                seen.secrets.push(look((sequence, secret)));
            }
        }
        seen.secrets.sort_by_key(|s| s.sequence);
    }

    // Before a ring's first key is made, or where all that is known is gone, the places where keys
    // could be are looked at.
    let sequences = seen.secrets.iter().map(|s| s.sequence);
    let mut next = sequences.chain(known).max().unwrap_or(0).saturating_add(1);
    for _ in 0..MOST_PROBES {
        if depth == Depth::Watched && seen.secrets.iter().any(|s| s.usable().is_some()) {
            break;
        }
        let Some(secret) = reads.live_secret(&names::key_secret(name, next)).await? else {
            break;
        };
        seen.secrets.push(look((next, secret)));
        next = next.saturating_add(1);
    }
    if let Some(reference) = &ring.spec.private_key {
        let secret = reads.live_secret(&reference.secret_ref.name).await?;
        seen.injected = Some(read_injected(secret.as_deref(), &ring.spec));
    }
    // With all else live, so is this, once the issuer's map was read again.
    if depth == Depth::Watched && seen.asks_others() {
        seen.elsewhere = reads.elsewhere(name);
    }
    Ok(seen)
}

/// The number in the name of a key pair's Secret, if it is one that a ring comes to.
fn sequence_of(ring: &str, secret: &Secret) -> Option<i64> {
    let sequence = names::key_sequence(ring, &secret.name_any())?;
    (sequence <= MOST_KEYS).then_some(sequence)
}

/// The numbers of the keys that status and JWKS speak of.
fn known(seen: &Seen, ring: &SigningKey) -> BTreeSet<i64> {
    let remembered = ring.status.as_ref().map_or(&[][..], |s| &s.keys);
    let sane = |sequence: &i64| (1..=MOST_KEYS).contains(sequence);
    let mut known: BTreeSet<i64> = remembered
        .iter()
        .map(|k: &KeyStatus| k.sequence)
        .filter(sane)
        .collect();
    let share = seen
        .issuer_map
        .as_deref()
        .and_then(|m| jwks_map::shares(m).remove(&seen.name));
    let listed = share.iter().flat_map(|share| &share.keys);
    known.extend(listed.map(|e| e.sequence).filter(sane));
    known
}

async fn config_map(
    reads: &impl Reads,
    name: &str,
    depth: Depth,
) -> Result<Option<Arc<ConfigMap>>, Error> {
    match reads.config_map(name).filter(|_| depth == Depth::Watched) {
        Some(map) => Ok(Some(map)),
        None => reads.live_config_map(name).await,
    }
}

/// The rings whose key pair a person injects by a Secret of that name.
pub fn brought_from(stores: &Stores, secret: &str) -> Vec<String> {
    let rings = stores.signing_keys.state();
    let rings = rings.iter().filter_map(|ring| ring.0.as_ref().ok());
    rings
        .filter(|ring| {
            let key = ring.spec.private_key.as_ref();
            key.is_some_and(|key| key.secret_ref.name == secret)
        })
        .map(ResourceExt::name_any)
        .collect()
}

/// The key pair that a person injects, or a sentence that says why there is none.
fn read_injected(secret: Option<&Secret>, spec: &SigningKeySpec) -> Result<Injected, String> {
    let reference = spec.private_key.as_ref().map(|p| &p.secret_ref);
    let name = reference.map_or("", |r| r.name.as_str());
    let secret = secret.ok_or_else(|| {
        format!("Secret {name}, which spec.privateKey.secretRef names, is not there: make it in the operator's namespace.")
    })?;
    let key = reference.and_then(|r| r.key.as_deref());
    let text = injected::tls_or_named(secret, key)?;
    let told = |why: &dyn std::fmt::Display| format!("Secret {name} can not be used: {why}");
    let pem = import(spec.algorithm, spec.rsa_size().bits(), text).map_err(|e| told(&e))?;
    let pair = KeyPair::from_pem(spec.algorithm, &pem).map_err(|e| told(&e))?;
    Ok(Injected {
        jwk: pair.public_jwk().clone(),
        pem,
    })
}
