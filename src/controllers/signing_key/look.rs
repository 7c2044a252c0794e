//! A look at a ring, up to what is to be done with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::error_boundary::InvalidObject;
use kube::{Resource, ResourceExt as _};

use super::see::{self, Depth};
use super::{Copies, Elsewhere, Peer, PlanFn, decide};
use crate::api::v1alpha1::SigningKey;
use crate::controllers::{Decision, Error};
use crate::domain::algorithm::Algorithm;
use crate::domain::jwk::PublicJwk;
use crate::domain::moment::Moment;
use crate::domain::names;
use crate::domain::settings::Settings;
use crate::objects::{jwks_map, key_secret};
use crate::stores::Guarded;

/// Where a visit reads: what the watches have shown, and the API server itself. The search in
/// `tests/` puts a small world of its own here.
#[allow(async_fn_in_trait)] // Its callers are ours, and none needs to send its futures.
pub trait Reads {
    /// The time now, and whether to believe it.
    fn moment(&self) -> Moment;
    /// The ring, as the API server shows it.
    async fn live_ring(&self, name: &str) -> Result<Option<Guarded<SigningKey>>, Error>;
    /// A Secret of the operator's namespace, as the API server shows it.
    async fn live_secret(&self, name: &str) -> Result<Option<Arc<Secret>>, Error>;
    /// The Secrets that are labelled as the ring's, as the API server shows them.
    async fn live_secrets(&self, ring: &str) -> Result<Vec<Arc<Secret>>, Error>;
    /// A `ConfigMap` of the operator's namespace, as the API server shows it.
    async fn live_config_map(&self, name: &str) -> Result<Option<Arc<ConfigMap>>, Error>;
    /// The Secrets of our making, as the watches have shown them.
    fn secrets(&self) -> Vec<Arc<Secret>>;
    /// A `ConfigMap` of our making, as the watches have shown it.
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>>;
    /// What the other rings' own `ConfigMap`s hold, for those rings that are there.
    fn others(&self, ring: &str) -> BTreeMap<String, Vec<PublicJwk>>;
    /// What the other rings' own `ConfigMap`s say of their keys, as the watches have shown it.
    fn elsewhere(&self, _ring: &str) -> Elsewhere {
        Elsewhere::default()
    }
    /// The same, as the API server shows it.
    async fn live_elsewhere(&self, _ring: &str) -> Result<Elsewhere, Error> {
        Ok(Elsewhere::default())
    }
    /// All Secrets that say of themselves that they are key pairs, as the API server shows them,
    /// whatever became of their labels.
    async fn live_key_pairs(&self) -> Result<Vec<Arc<Secret>>, Error> {
        Ok(Vec::new())
    }
    /// The public half of the key pair in a Secret; else why there is none.
    fn key_of(&self, secret: &Secret, algorithm: Algorithm) -> Result<PublicJwk, String> {
        key_secret::key_of(secret, algorithm)
    }
    /// The other rings of its audience that have a key to sign with, as the watches have shown them.
    fn peers(&self, _ring: &SigningKey) -> Vec<Peer> {
        Vec::new()
    }
    /// The ring's JWKS in other namespaces.
    async fn copies(&self, _name: &str, _ring: Option<&SigningKey>) -> Result<Copies, Error> {
        Ok(Copies::default())
    }
}

/// What came of a look.
#[allow(clippy::large_enum_variant)] // It lives for a moment, on the stack.
pub enum Looked {
    /// What is to be done, and the UID of the ring that it was decided for.
    Decided(Decision, Option<String>),
    /// The ring was changed meanwhile: look again.
    Moved,
    /// This version can not read the ring.
    Unreadable(InvalidObject),
}

/// Looks at a ring and decides. `stored`: what the watches have shown of it.
///
/// Watches lag, and another process may be at work. So they only tell whether there is anything to
/// do; if there is, all of it is looked at again, at the API server itself: the ring and the
/// `ConfigMap`s, then the Secrets, and then the former once more. If these are unchanged, all of it
/// was so at one moment, and the resourceVersions of what is written fence off whoever decided on
/// another. The time is taken after that: that a key signs no more is so dated after its last
/// signature, however long the look took.
pub async fn look(
    reads: &impl Reads,
    stored: Option<Arc<SigningKey>>,
    name: &str,
    (settings, plan): (&Settings, PlanFn),
) -> Result<Looked, Error> {
    let uid = |ring: &Option<Arc<SigningKey>>| ring.as_ref().and_then(|r| r.uid());
    let seen = see::see(reads, stored.clone(), name, Depth::Watched).await?;
    let decision = decide(&seen, settings, reads.moment(), plan);
    if decision.writes.is_empty() {
        return Ok(Looked::Decided(decision, uid(&stored)));
    }
    let ring = match reads.live_ring(name).await? {
        Some(Guarded(Err(invalid))) => return Ok(Looked::Unreadable(invalid)),
        Some(Guarded(Ok(ring))) => Some(Arc::new(ring)),
        None => None,
    };
    let mut seen = see::see(reads, ring.clone(), name, Depth::Live).await?;
    // What other rings have in it changes all the time, and is theirs.
    let own = |map: &Option<Arc<ConfigMap>>| {
        let map = map.as_deref()?;
        let of_issuer = jwks_map::is_issuer_map(map, &settings.environment);
        Some((of_issuer, jwks_map::shares(map).remove(name)))
    };
    let issuer_map = reads.live_config_map(names::ISSUER_JWKS).await?;
    if own(&issuer_map) != own(&seen.issuer_map) {
        return Ok(Looked::Moved);
    }
    seen.issuer_map = issuer_map;
    if seen.asks_others() {
        // After the issuer's map: a key that has left that stands in its ring's own until that says that
        // it is spent.
        seen.elsewhere = reads.live_elsewhere(name).await?;
    }
    let ring_map = reads.live_config_map(&names::ring_jwks(name)).await?;
    if version(ring_map.as_deref()) != version(seen.ring_map.as_deref()) {
        return Ok(Looked::Moved);
    }
    let after = match reads.live_ring(name).await? {
        Some(Guarded(Err(invalid))) => return Ok(Looked::Unreadable(invalid)),
        Some(Guarded(Ok(ring))) => Some(ring),
        None => None,
    };
    if version(after.as_ref()) != version(ring.as_deref()) {
        return Ok(Looked::Moved);
    }
    let decision = decide(&seen, settings, reads.moment(), plan);
    Ok(Looked::Decided(decision, uid(&ring)))
}

fn version<K: Resource>(object: Option<&K>) -> Option<(Option<String>, Option<String>)> {
    let meta = object?.meta();
    Some((meta.uid.clone(), meta.resource_version.clone()))
}

/// The most keys that are remembered: beyond it all are parsed again.
const MOST_PARSED: usize = 4096;

/// Public halves by the UID and resourceVersion of their Secrets: to parse a private key takes
/// longer than all else of a visit, and for RSA milliseconds.
#[derive(Default)]
pub struct ParsedKeys(Mutex<HashMap<(String, String), PublicJwk>>);

impl ParsedKeys {
    /// As [`key_secret::key_of`] says. What can not be read is tried again each time: it may be
    /// readable for another algorithm of its ring.
    pub fn key_of(&self, secret: &Secret, algorithm: Algorithm) -> Result<PublicJwk, String> {
        let id = secret.uid().zip(secret.resource_version());
        let all = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = id.as_ref().and_then(|id| all().get(id).cloned()) {
            return Ok(known);
        }
        let key = key_secret::key_of(secret, algorithm)?;
        if let Some(id) = id {
            let mut all = all();
            if all.len() >= MOST_PARSED {
                all.clear();
            }
            all.insert(id, key.clone());
        }
        Ok(key)
    }
}
