//! Gathers what there is to see of a technical user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use zeroize::Zeroizing;

use super::{
    Companionship, DeliverySeen, MadeSeen, Seen, Workload, adoption, companion, service_account,
    supplied,
};
use crate::api::v1alpha1::{KeyAudience, TechnicalUser};
use crate::controllers::operator::Context;
use crate::controllers::{Error, Key};
use crate::crypto::hash;
use crate::domain::client::StoredCredential;
use crate::domain::names;
use crate::objects::{Ownership, credentials, delivery, ownership};
use crate::stores::Stores;

/// Where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// At what the watches have shown: enough to tell whether there is anything to do.
    Watched,
    /// At the API server itself: whatever is written is decided on that. A watch may lag, and a secret
    /// made needlessly, or a hash taken for undelivered, is an outage.
    Live,
}

/// Looks at a technical user.
pub async fn see(
    cx: &Context,
    user: Option<Arc<TechnicalUser>>,
    of: &Key,
    sight: Sight,
) -> Result<Seen, Error> {
    let (namespace, name) = (of.namespace.as_str(), of.name.as_str());
    let operator_namespace = cx.settings.operator_namespace.as_str();
    let hashes_name = names::credentials_secret(namespace, name);
    let mut seen = Seen {
        user: user.clone(),
        tenancy: cx.tenancy(),
        rings: signing_rings(&cx.stores),
        hashes: Stores::get(&cx.stores.secrets, operator_namespace, &hashes_name),
        deliveries: Vec::new(),
        made: None,
        supplied: Vec::new(),
        others_wait: None,
        workload: Workload::default(),
        companionship: Companionship::default(),
    };
    let environment = seen.tenancy.environments.get(namespace);
    if user.is_some() && environment.is_some_and(|other| *other != cx.settings.environment) {
        // Another release's: nothing of it is ours to look at.
        return Ok(seen);
    }
    if sight == Sight::Live || seen.hashes.is_none() {
        // Before the deliveries: what is delivered was stored before. Without its labels the store would
        // not show it, and nobody would ever sweep it.
        let live = cx.get::<Secret>(operator_namespace, &hashes_name).await?;
        seen.hashes = live.map(Arc::new);
    }
    let Some(user) = user else {
        cx.made.forget(of);
        cx.hashing.forget(of);
        cx.paces.forget(of);
        return Ok(seen);
    };
    // A companion's device after its own hashes: what those do not say of a revocation is known then.
    seen.companionship = companion::see(cx, &user, namespace, sight).await?;
    if let Some(credential) = &user.spec.credential.service_account {
        seen.workload = service_account::see(cx, namespace, credential);
    }
    let key = user.secret_keys().client_secret;
    let key = key.as_str();
    let uid = user.uid().unwrap_or_default();
    let target = user.delivers_in();
    let mut secrets: Vec<Arc<Secret>> = cx.stores.deliveries.state_filter(|s| {
        let wanted = target.as_ref() == Some(&s.name_any());
        s.namespace().as_deref() == Some(namespace)
            && (wanted || ownership(&s.metadata, &uid) == Ownership::Ours)
    });
    secrets.sort_by_key(|s| s.name_any());
    if sight == Sight::Live {
        let mut live = Vec::new();
        let others = secrets.iter().map(|s| s.name_any());
        let others = others.filter(|name| Some(name) != target.as_ref());
        for name in target.clone().into_iter().chain(others) {
            live.extend(cx.get::<Secret>(namespace, &name).await?.map(Arc::new));
        }
        secrets = live;
    }
    let ours = |h: &&Secret| credentials::are_of_uid(h, Some(&uid));
    let hashes = seen.hashes.as_deref().filter(ours);
    seen.supplied = supplied::look(cx, of, &user, hashes, sight).await?;
    // Also those of a technical user of this name that had another UID: it may have been restored.
    let restored = |h: &&Secret| adoption::are_of(h, &user);
    let hashes = seen.hashes.as_deref().filter(restored);
    seen.deliveries = prove(cx, &uid, key, hashes, secrets).await?;
    seen.made = made(cx, of, seen.hashes.as_deref()).filter(|made| {
        let mut proven = seen.deliveries.iter().filter_map(DeliverySeen::proves);
        let delivered = proven.any(|(_, id)| id == made.id);
        if delivered {
            cx.made.forget(of);
        }
        !delivered
    });
    seen.others_wait = undelivered(&seen, &uid).map(|hash| {
        let waited = cx.made.others_wait(of, &hash);
        SignedDuration::try_from(waited).unwrap_or(SignedDuration::MAX)
    });
    Ok(seen)
}

/// How long what this process has made may still be delivered, well within the time that others leave it.
const DELIVERED_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// The hash of a secret that was never delivered, as far as can be seen, and that another process has
/// made.
fn undelivered(seen: &Seen, uid: &str) -> Option<String> {
    let ours = |h: &&Secret| credentials::are_of_uid(h, Some(uid));
    let stored = credentials::read(seen.hashes.as_deref().filter(ours)?);
    let mut waiting = stored.into_iter().filter(|s| {
        let proven = |d: &DeliverySeen| d.proves().is_some_and(|(_, id)| id == s.credential.id);
        let own = seen
            .made
            .as_ref()
            .is_some_and(|m| m.hash == s.credential.hash);
        let known = s.known.delivered_at.is_some() || s.known.activated_at.is_some();
        !own && !known && !seen.deliveries.iter().any(proven)
    });
    waiting.next().map(|s| s.credential.hash)
}

/// The secret that is made and not delivered. One whose hash is not stored any more, as another process
/// has made another, is forgotten.
fn made(cx: &Context, of: &Key, hashes: Option<&Secret>) -> Option<MadeSeen> {
    let made = cx.made.get(of)?;
    let stored = hashes.map(credentials::read).unwrap_or_default();
    let stands = stored
        .iter()
        .any(|s| s.credential.id == made.id && s.credential.hash == made.hash);
    let age = SignedDuration::try_from(made.since.elapsed()).unwrap_or(SignedDuration::MAX);
    if !stands {
        // The watch may not have shown it yet.
        if age > FORGOTTEN_AFTER {
            cx.made.forget(of);
        }
        return None;
    }
    if age > DELIVERED_WITHIN {
        // It was cut off meanwhile. Another process may be about to strike it off: that of it and the
        // delivery are two writes, and to deliver late is to deliver what does not work.
        cx.made.forget(of);
        return None;
    }
    Some(MadeSeen {
        id: made.id,
        hash: made.hash,
        age,
    })
}

/// The rings with audience `client` that have a key that signs.
pub fn signing_rings(stores: &Stores) -> Vec<String> {
    let mut rings: Vec<String> = stores
        .signing_keys
        .state()
        .iter()
        .filter_map(|ring| ring.0.as_ref().ok())
        .filter(|ring| ring.spec.audience == KeyAudience::Client)
        .filter(|ring| {
            ring.status
                .as_ref()
                .is_some_and(|s| s.active_key_id.is_some())
        })
        .map(ResourceExt::name_any)
        .collect();
    rings.sort();
    rings
}

/// Which delivered Secrets were found to prove which hashes, so that bcrypt runs once for each
/// version of a Secret and not once a visit.
#[derive(Debug, Default)]
pub struct Proofs(Mutex<HashMap<ProofOf, Option<Proof>>>);

/// UID and resourceVersion of a delivered Secret, and a digest of the hashes.
type ProofOf = (String, String, String);

/// The place of the secret among the Secret's values, and the credential's id.
type Proof = (usize, String);

/// After that a secret that nobody waits for is forgotten.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// More than this many are forgotten, and found again when they are wanted.
const MOST_PROOFS: usize = 100_000;

async fn prove(
    cx: &Context,
    uid: &str,
    key: &str,
    hashes: Option<&Secret>,
    secrets: Vec<Arc<Secret>>,
) -> Result<Vec<DeliverySeen>, Error> {
    let mut stored = hashes
        .and_then(credentials::read_hashes)
        .unwrap_or_default();
    // What a person supplies is of a cost that would take long, and delivers nothing.
    stored.retain(|c| hash::cost_of(&c.hash).is_some_and(hash::is_of_generated));
    let mut seen = Vec::with_capacity(secrets.len());
    for secret in secrets {
        let ownership = ownership(&secret.metadata, uid);
        // Only what is ours is read, or was before a restore; a stranger's Secret is none of our business.
        let read = match ownership {
            Ownership::Ours => true,
            Ownership::Nobodys => delivery::was_delivered(&secret, &cx.settings),
            Ownership::Anothers => false,
        };
        let mut candidates = if read {
            delivery::plain_secrets(&secret, key)
        } else {
            Vec::new()
        };
        let proof = proof(cx, &secret, &candidates, &stored).await?;
        let plain = match proof {
            Some((index, id)) => Some((candidates.swap_remove(index), Some(id))),
            None => candidates.into_iter().next().map(|plain| (plain, None)),
        };
        seen.push(DeliverySeen {
            secret,
            ownership,
            plain,
        });
    }
    Ok(seen)
}

/// Which of the secrets in a delivered Secret is stored, and as which credential.
async fn proof(
    cx: &Context,
    secret: &Secret,
    candidates: &[Zeroizing<String>],
    stored: &[StoredCredential],
) -> Result<Option<Proof>, Error> {
    let of = (
        secret.uid().unwrap_or_default(),
        secret.resource_version().unwrap_or_default(),
        stored
            .iter()
            .map(|c| c.hash.as_str())
            .collect::<Vec<_>>()
            .join(" "),
    );
    let lock = || cx.proofs.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = lock().get(&of) {
        return Ok(known.clone());
    }
    let (candidates, stored) = (candidates.to_vec(), stored.to_vec());
    let found = tokio::task::spawn_blocking(move || {
        candidates.iter().enumerate().find_map(|(index, plain)| {
            let hit = stored.iter().find(|c| hash::verify(plain, &c.hash))?;
            Some((index, hit.id.clone()))
        })
    })
    .await
    .map_err(|e| Error::Material(e.to_string()))?;
    let mut proofs = lock();
    if proofs.len() >= MOST_PROOFS {
        proofs.clear();
    }
    proofs.insert(of, found.clone());
    Ok(found)
}
