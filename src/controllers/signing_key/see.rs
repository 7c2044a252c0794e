//! Gathers what there is to see of a ring.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;

use super::{SecretSeen, Seen, copies};
use crate::api::v1alpha1::{KeyStatus, SigningKey};
use crate::controllers::Error;
use crate::controllers::operator::Context;
use crate::domain::jwk::PublicJwk;
use crate::domain::names::{self, RING_LABEL};
use crate::objects::{jwks_map, key_secret, label, ownership};
use crate::stores::Stores;

/// A greater number in status than any ring comes to is nobody's.
const MOST_KEYS: i64 = 1_000_000_000;

/// Looks at a ring. What the stores do not show is asked for: that something is missing is acted
/// upon only when the API server says so itself, since a watch may lag.
pub async fn see(cx: &Context, ring: Option<Arc<SigningKey>>, name: &str) -> Result<Seen, Error> {
    let namespace = cx.settings.operator_namespace.as_str();
    let mut seen = Seen {
        ring: ring.clone(),
        name: name.to_owned(),
        secrets: Vec::new(),
        ring_map: config_map(cx, namespace, &names::ring_jwks(name)).await?,
        issuer_map: config_map(cx, namespace, names::ISSUER_JWKS).await?,
        others: others(cx, name),
        copies: copies::see(cx, name, ring.as_deref()).await?,
    };
    let Some(ring) = ring else { return Ok(seen) };

    let mut secrets: BTreeMap<i64, Arc<Secret>> = cx
        .stores
        .secrets
        .state()
        .into_iter()
        .filter_map(|s| Some((names::key_sequence(name, &s.name_any())?, s)))
        .collect();
    let remembered = ring.status.as_ref().map_or(&[][..], |s| &s.keys);
    let sane = |k: &&KeyStatus| (1..=MOST_KEYS).contains(&k.sequence);
    let remembered: Vec<&KeyStatus> = remembered.iter().filter(sane).collect();
    let mut missing: BTreeSet<i64> = remembered.iter().map(|k| k.sequence).collect();
    missing.retain(|s| !secrets.contains_key(s));
    for sequence in missing {
        let secret = cx
            .get::<Secret>(namespace, &names::key_secret(name, sequence))
            .await?;
        secrets.extend(secret.map(|s| (sequence, Arc::new(s))));
    }
    let look = |(sequence, secret): (i64, Arc<Secret>)| SecretSeen {
        sequence,
        ownership: ownership(&secret.metadata, &ring.uid().unwrap_or_default()),
        key: key_secret::key_of(&secret, &ring.spec),
        secret,
    };
    seen.secrets = secrets.into_iter().map(look).collect();

    // Before a key is made, the place where it will go is looked at, and those behind it.
    let sequences = seen.secrets.iter().map(|s| s.sequence);
    let sequences = sequences.chain(remembered.iter().map(|k| k.sequence));
    let mut next = sequences.max().unwrap_or(0).saturating_add(1);
    while !seen.secrets.iter().any(|s| s.usable().is_some()) {
        let Some(secret) = cx
            .get::<Secret>(namespace, &names::key_secret(name, next))
            .await?
        else {
            break;
        };
        seen.secrets.push(look((next, Arc::new(secret))));
        next = next.saturating_add(1);
    }
    Ok(seen)
}

async fn config_map(
    cx: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<Arc<ConfigMap>>, Error> {
    match Stores::get(&cx.stores.config_maps, namespace, name) {
        Some(map) => Ok(Some(map)),
        None => Ok(cx.get::<ConfigMap>(namespace, name).await?.map(Arc::new)),
    }
}

/// What the other rings' own `ConfigMap`s hold, for those rings that are there.
fn others(cx: &Context, ring: &str) -> BTreeMap<String, Vec<PublicJwk>> {
    let namespace = cx.settings.operator_namespace.as_str();
    let maps = cx.stores.config_maps.state();
    maps.iter()
        .filter_map(|map| {
            let other = label(&map.metadata, RING_LABEL).filter(|other| *other != ring)?;
            let owner = Stores::get(&cx.stores.signing_keys, namespace, other)?;
            let owner = owner.0.as_ref().ok()?;
            let uid = owner.uid()?;
            let dying = owner.metadata.deletion_timestamp.is_some();
            let theirs = !dying && jwks_map::is_ring_map(map, other, &uid);
            theirs.then(|| Some((other.to_owned(), jwks_map::read(map)?.keys)))?
        })
        .collect()
}
