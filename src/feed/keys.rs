//! The rings' key pairs as their Secrets hold them, parsed once.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Resource, ResourceExt};
use tracing::warn;

use crate::api::v1alpha1::{KeyStatus, SigningKey};
use crate::crypto::key_pair::KeyPair;
use crate::domain::algorithm::Algorithm;
use crate::domain::jwk::{JwkSet, PublicJwk};
use crate::domain::names;
use crate::objects::key_secret::{self, Written};
use crate::objects::{Ownership, jwks_map, label, ownership};
use crate::stores::{Guarded, Stores};

/// A living key Secret of a living ring.
pub struct RingKey {
    /// The ring's name.
    pub ring: String,
    /// The number in its name.
    pub sequence: i64,
    /// What is noted of it.
    pub written: Written,
    /// Whether the ring owns it; else nobody does, as after a restore.
    pub owned: bool,
    /// The key pair, if it can be used.
    pub pair: Option<Arc<KeyPair>>,
}

impl RingKey {
    fn is(&self, kid: &str) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.key_id() == kid)
    }
}

/// Parsed keys by the UID and resourceVersion of their Secrets.
#[derive(Default)]
pub struct ParsedPairs(HashMap<(String, String), Option<Arc<KeyPair>>>);

impl ParsedPairs {
    /// The keys of all rings in the stores.
    pub fn of(&mut self, stores: &Stores) -> Vec<RingKey> {
        let rings = stores.signing_keys.state();
        // Also those that this version can not read.
        let living = |ring: &&Arc<Guarded<SigningKey>>| ring.meta().deletion_timestamp.is_none();
        let living = rings.iter().filter(living);
        let rings: HashMap<String, &Guarded<SigningKey>> =
            living.map(|ring| (ring.name_any(), &**ring)).collect();
        let mut parsed = HashMap::new();
        let mut keys = Vec::new();
        for secret in stores.secrets.state() {
            let ring = label(&secret.metadata, names::RING_LABEL).and_then(|r| rings.get(r));
            let Some(key) = ring.and_then(|ring| self.key(ring, &secret, &mut parsed)) else {
                continue;
            };
            keys.push(key);
        }
        self.0 = parsed;
        keys
    }

    fn key(
        &self,
        ring: &Guarded<SigningKey>,
        secret: &Secret,
        parsed: &mut HashMap<(String, String), Option<Arc<KeyPair>>>,
    ) -> Option<RingKey> {
        let name = ring.name_any();
        let sequence = names::key_sequence(&name, &secret.name_any())?;
        let ownership = ownership(&secret.metadata, &ring.uid()?);
        if ownership == Ownership::Anothers || secret.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let id = (secret.uid()?, secret.resource_version()?);
        let spec = ring.0.as_ref().ok().map(|ring| &ring.spec);
        let algorithm = spec.map_or(Algorithm::RS256, |spec| spec.algorithm);
        let pair = self.0.get(&id).cloned().unwrap_or_else(|| {
            match key_secret::key_pair(secret, algorithm) {
                Ok(pair) => Some(Arc::new(pair)),
                Err(error) => {
                    warn!(secret = %secret.name_any(), %error, "a key pair can not be used");
                    None
                }
            }
        });
        parsed.insert(id, pair.clone());
        Some(RingKey {
            ring: name,
            sequence,
            written: key_secret::read(secret),
            owned: ownership == Ownership::Ours,
            pair,
        })
    }
}

/// What is to be made of a JWKS that stands in the issuer's ConfigMap.
pub enum Verdict {
    /// The operator wrote it.
    Sound,
    /// Somebody else seems to have altered it: these keys are served, and this is said.
    Amended(JwkSet, String),
    /// It can not be told yet whether its keys are a ring's.
    Doubtful(String),
}

/// Judges a JWKS that follows another. One key that is in doubt holds up no other: a key that nobody has
/// removed stays, and one that is no ring's does not come in.
pub fn judge(
    before: Option<&JwkSet>,
    (map, now): (&ConfigMap, &JwkSet),
    keys: &[RingKey],
    stores: &Stores,
) -> Verdict {
    let dropped = dropped(before, now, keys, stores);
    let foreign = foreign(before, now, keys, stores);
    let rings = stores.signing_keys.state();
    let there = |name: &String| rings.iter().any(|ring| ring.name_any() == *name);
    let shares = jwks_map::shares(map);
    let listed = |jwk: &PublicJwk| {
        let mut shares = shares.iter().filter(|(name, _)| there(name));
        let ring = shares.find(|(_, share)| share.keys.iter().any(|e| e.jwk == *jwk));
        ring.map(|(name, _)| name.clone())
    };
    // A server that begins knows of nothing yet: what a ring may have is not to be left out.
    let doubtful = foreign.iter().find_map(|jwk| Some((jwk, listed(jwk)?)));
    if let (None, Some((jwk, ring))) = (before, doubtful) {
        return Verdict::Doubtful(format!(
            "holds key {} of SigningKey {ring}, whose Secret is not to be seen",
            jwk.kid
        ));
    }
    let told = match (dropped.first(), foreign.first()) {
        (Some(jwk), _) => format!("lacks key {}, which nobody has removed", jwk.kid),
        (None, Some(jwk)) => format!("holds key {}, which is no ring's", jwk.kid),
        (None, None) => return Verdict::Sound,
    };
    let stands = now.keys.iter().filter(|jwk| !foreign.contains(jwk));
    let mut keys: Vec<PublicJwk> = stands.cloned().chain(dropped).collect();
    // In the order in which they were served: the same keys are the same document.
    let place = |jwk: &PublicJwk| before?.keys.iter().position(|b| b.kid == jwk.kid);
    keys.sort_by_key(|jwk| place(jwk).unwrap_or(usize::MAX));
    Verdict::Amended(JwkSet { keys }, told)
}

/// The keys that the operator would have noted on their Secrets as removed before it took them out.
fn dropped(
    before: Option<&JwkSet>,
    now: &JwkSet,
    keys: &[RingKey],
    stores: &Stores,
) -> Vec<PublicJwk> {
    let mut dropped = Vec::new();
    for key in keys {
        let Some(pair) = &key.pair else { continue };
        let (kid, life) = (pair.key_id(), &key.written.life);
        let stood = match before {
            Some(before) => before.contains(kid),
            None => life.published.is_some(),
        };
        if !key.owned || !stood || life.removed.is_some() || now.contains(kid) {
            continue;
        }
        // One key has one life, whoever copied its Secret: that with the lowest number.
        let first = |other: &RingKey| {
            other.ring == key.ring && other.is(kid) && other.sequence < key.sequence
        };
        if !keys.iter().any(first) && !spent(stores, &key.ring, kid) {
            dropped.push(pair.public_jwk().clone());
        }
    }
    dropped
}

/// Whether the ring's own `ConfigMap` says that a key is gone for good.
fn spent(stores: &Stores, ring: &str, kid: &str) -> bool {
    let maps = stores.config_maps.state();
    let map = maps
        .iter()
        .find(|map| map.name_any() == names::ring_jwks(ring));
    map.is_some_and(|map| jwks_map::history(map).spent.contains(kid))
}

/// The keys that no ring has. The operator makes a key's Secret before it publishes the key; where that
/// was lost, status knows the key, unless this version can not read it.
fn foreign(
    before: Option<&JwkSet>,
    now: &JwkSet,
    keys: &[RingKey],
    stores: &Stores,
) -> Vec<PublicJwk> {
    let rings = stores.signing_keys.state();
    if rings.iter().any(|ring| ring.0.is_err()) {
        return Vec::new();
    }
    let statuses = rings
        .iter()
        .filter_map(|r| r.0.as_ref().ok()?.status.as_ref());
    let remembered: Vec<PublicJwk> = statuses
        .flat_map(|status| &status.keys)
        .filter_map(KeyStatus::jwk)
        .collect();
    let known = |jwk: &PublicJwk| {
        before.is_some_and(|before| before.keys.contains(jwk))
            || keys.iter().any(|key| key.is(&jwk.kid))
            || remembered.contains(jwk)
    };
    now.keys.iter().filter(|jwk| !known(jwk)).cloned().collect()
}
