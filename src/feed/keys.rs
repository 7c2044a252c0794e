//! The rings' key pairs as their Secrets hold them, parsed once.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};
use tracing::warn;

use crate::api::v1alpha1::{KeyStatus, SigningKey};
use crate::crypto::key_pair::KeyPair;
use crate::domain::algorithm::Algorithm;
use crate::domain::jwk::{JwkSet, PublicJwk};
use crate::domain::names;
use crate::objects::key_secret::{self, Written};
use crate::objects::{Ownership, label, ownership};
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

/// What is wrong with a JWKS that follows another: a sentence, if somebody else than the operator
/// seems to have written it.
pub fn altered(
    before: Option<&JwkSet>,
    now: &JwkSet,
    keys: &[RingKey],
    stores: &Stores,
) -> Option<String> {
    // The operator notes on a key's Secret that it is removed, before it takes it out.
    let dropped = keys.iter().find(|key| {
        let Some(pair) = &key.pair else { return false };
        let (kid, life) = (pair.key_id(), &key.written.life);
        let stood = match before {
            Some(before) => before.contains(kid),
            None => life.published.is_some(),
        };
        key.owned && life.removed.is_none() && stood && !now.contains(kid)
    });
    if let Some(pair) = dropped.and_then(|key| key.pair.as_ref()) {
        let kid = pair.key_id();
        return Some(format!("lacks key {kid}, which nobody has removed"));
    }
    // It makes a key's Secret before it publishes the key; where that was lost, status knows the key,
    // unless this version can not read it.
    let rings = stores.signing_keys.state();
    if rings.iter().any(|ring| ring.0.is_err()) {
        return None;
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
    let foreign = now.keys.iter().find(|jwk| !known(jwk))?;
    Some(format!("holds key {}, which is no ring's", foreign.kid))
}
