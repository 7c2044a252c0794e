//! Gathers what there is to see of a ring.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;

use super::publish::Copies;
use super::{Injected, SecretSeen, Seen};
use crate::api::v1alpha1::{KeyStatus, SigningKey, SigningKeySpec};
use crate::controllers::Error;
use crate::crypto::key_pair::KeyPair;
use crate::crypto::key_pair::import::import;
use crate::domain::jwk::PublicJwk;
use crate::domain::names;
use crate::objects::{injected, jwks_map, key_secret, ownership};
use crate::stores::Stores;

/// A greater number in status than any ring comes to is nobody's.
const MOST_KEYS: i64 = 1_000_000_000;

/// Where a visit reads: what the watches have shown, and the API server itself. The search in
/// `tests/` puts a small world of its own here.
#[allow(async_fn_in_trait)] // Its callers are ours, and none needs to send its futures.
pub trait Reads {
    /// A Secret of the operator's namespace, as the API server shows it.
    async fn live_secret(&self, name: &str) -> Result<Option<Arc<Secret>>, Error>;
    /// A `ConfigMap` of the operator's namespace, as the API server shows it.
    async fn live_config_map(&self, name: &str) -> Result<Option<Arc<ConfigMap>>, Error>;
    /// The Secrets of our making, as the watches have shown them.
    fn secrets(&self) -> Vec<Arc<Secret>>;
    /// A `ConfigMap` of our making, as the watches have shown it.
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>>;
    /// What the other rings' own `ConfigMap`s hold, for those rings that are there.
    fn others(&self, ring: &str) -> BTreeMap<String, Vec<PublicJwk>>;
    /// The kids that have left other rings, which those remember.
    fn spent_elsewhere(&self, _ring: &str) -> BTreeSet<String> {
        BTreeSet::new()
    }
    /// All Secrets that say of themselves that they are key pairs, as the API server shows them,
    /// whatever became of their labels.
    async fn live_key_pairs(&self) -> Result<Vec<Arc<Secret>>, Error> {
        Ok(Vec::new())
    }
}

/// Looks at a ring. What the watches have not shown is asked for: that something is missing is
/// acted upon only when the API server says so itself, since a watch may lag. `fresh`: everything
/// is asked for.
pub async fn see(
    reads: &impl Reads,
    ring: Option<Arc<SigningKey>>,
    name: &str,
    fresh: bool,
) -> Result<Seen, Error> {
    let mut seen = Seen {
        ring: ring.clone(),
        name: name.to_owned(),
        secrets: Vec::new(),
        ring_map: config_map(reads, &names::ring_jwks(name), fresh).await?,
        issuer_map: config_map(reads, names::ISSUER_JWKS, fresh).await?,
        others: reads.others(name),
        spent_elsewhere: reads.spent_elsewhere(name),
        copies: Copies::default(),
        injected: None,
        fresh,
    };
    let Some(ring) = ring else { return Ok(seen) };

    let mut secrets: BTreeMap<i64, Arc<Secret>> = reads
        .secrets()
        .into_iter()
        .filter_map(|s| Some((names::key_sequence(name, &s.name_any())?, s)))
        .collect();
    let known = known(&seen, &ring);
    let ask: BTreeSet<i64> = if fresh {
        known.iter().chain(secrets.keys()).copied().collect()
    } else {
        let missing = known.iter().filter(|s| !secrets.contains_key(s));
        missing.copied().collect()
    };
    for sequence in ask {
        match reads
            .live_secret(&names::key_secret(name, sequence))
            .await?
        {
            Some(secret) => secrets.insert(sequence, secret),
            None => secrets.remove(&sequence),
        };
    }
    let uid = ring.uid().unwrap_or_default();
    let algorithm = ring.spec.algorithm;
    let look = |(sequence, secret): (i64, Arc<Secret>)| SecretSeen {
        sequence,
        ownership: ownership(&secret.metadata, &uid),
        key: key_secret::key_of(&secret, algorithm),
        secret,
    };
    seen.secrets = secrets.into_iter().map(look).collect();

    if !seen.secrets.iter().any(|s| s.usable().is_some()) {
        // A restore may have stripped their labels, and all else that tells of them.
        let stripped = reads.live_key_pairs().await?;
        let places = stripped
            .into_iter()
            .filter_map(|s| Some((names::key_sequence(name, &s.name_any())?, s)));
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
    while fresh || !seen.secrets.iter().any(|s| s.usable().is_some()) {
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
    Ok(seen)
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
    known.extend(share.iter().flatten().map(|e| e.sequence).filter(sane));
    known
}

async fn config_map(
    reads: &impl Reads,
    name: &str,
    fresh: bool,
) -> Result<Option<Arc<ConfigMap>>, Error> {
    match reads.config_map(name).filter(|_| !fresh) {
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
