//! Looks at the Secrets in which a person supplies client secrets. They are read, and never written.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use zeroize::Zeroizing;

use crate::api::v1alpha1::{SuppliedRef, TechnicalUser};
use crate::controllers::Error;
use crate::controllers::operator::Context;
use crate::controllers::technical_user::Sight;
use crate::crypto::{hash, supplied};
use crate::domain::names::{PART_DELIVERY, PART_LABEL};
use crate::domain::settings::SecretSettings;
use crate::objects::credentials::{self, SourceOf, Stored};
use crate::objects::label;
use crate::stores::Stores;

/// One place where a client secret is supplied.
pub struct SuppliedSeen {
    /// As the spec names it.
    pub place: SuppliedRef,
    /// What stands there.
    pub found: Found,
}

/// What stands where a client secret is supplied.
pub enum Found {
    /// The stored credential with this id, as it was read from there.
    Stored(String, SourceOf),
    /// One that is not stored, or with another cost than is wanted now: then with its id.
    New(Offered, SourceOf, Option<String>),
    /// Nothing: the Secret or its key is not there. A sentence that says so.
    Missing(String),
    /// What can not be used. A sentence that says why.
    Refused(String),
}

/// A client secret that a person supplies.
#[derive(Clone, PartialEq, Eq)]
pub enum Offered {
    /// Itself.
    Plain(Zeroizing<String>),
    /// Its bcrypt hash.
    Hash(String),
}

/// Which contents of Secrets were compared with which hashes, so that bcrypt runs once for each version
/// of a Secret and not once a visit.
#[derive(Debug, Default)]
pub struct Comparisons(Mutex<HashMap<Compared, Option<String>>>);

/// Where it was read, and the hashes that it was compared with.
type Compared = (SourceOf, String);

/// More than this many are forgotten, and found again when they are wanted.
const MOST_COMPARISONS: usize = 100_000;

/// Looks at all places that a technical user names.
pub async fn look(
    cx: &Context,
    user: &TechnicalUser,
    hashes: Option<&Secret>,
    sight: Sight,
) -> Result<Vec<SuppliedSeen>, Error> {
    let stored = hashes.map(credentials::read).unwrap_or_default();
    let spec = user.secret_credential().filter(|s| s.is_supplied());
    let namespace = user.namespace().unwrap_or_default();
    let mut seen = Vec::new();
    for place in spec.iter().flat_map(|s| &s.secret_refs) {
        let known = known(cx, &namespace, place, &stored).filter(|_| sight == Sight::Watched);
        let found = match known {
            Some(known) => known,
            None => read(cx, &namespace, place, &stored).await?,
        };
        seen.push(SuppliedSeen {
            place: place.clone(),
            found,
        });
    }
    Ok(seen)
}

/// The credential that was read there, if the watch shows the very Secret that it was read from: then
/// nothing has to be read.
fn known(cx: &Context, namespace: &str, place: &SuppliedRef, stored: &[Stored]) -> Option<Found> {
    let meta = Stores::get(&cx.stores.named_secrets, namespace, &place.name)?;
    let source = SourceOf {
        secret: place.name.clone(),
        key: place.key().to_owned(),
        hashed: place.is_hashed(),
        uid: meta.uid()?,
        resource_version: meta.resource_version()?,
    };
    let same = |s: &&Stored| s.known.source.as_ref() == Some(&source);
    let stored = stored.iter().find(same)?;
    let wanted = has_wanted_cost(&stored.credential.hash, cx.settings.secrets);
    wanted.then(|| Found::Stored(stored.credential.id.clone(), source))
}

/// Whether a hash is of a cost that the release wants.
fn has_wanted_cost(stored: &str, settings: SecretSettings) -> bool {
    let cost = hash::cost_of(stored);
    cost.is_some_and(|cost| cost == wanted_cost(cost, settings))
}

fn wanted_cost(cost: u32, settings: SecretSettings) -> u32 {
    if hash::is_of_generated(cost) {
        settings.generated_cost
    } else {
        settings.supplied_cost
    }
}

async fn read(
    cx: &Context,
    namespace: &str,
    place: &SuppliedRef,
    stored: &[Stored],
) -> Result<Found, Error> {
    let (name, key) = (&place.name, place.key());
    let Some(secret) = cx.get::<Secret>(namespace, name).await? else {
        return Ok(Found::Missing(format!(
            "Secret {name}, which spec.credential.secret.secretRefs names, is not there."
        )));
    };
    if is_delivered(&secret) {
        return Ok(Found::Refused(format!(
            "Secret {name} is one that Chancery delivers, and spec.credential.secret.secretRefs names Secrets that you supply: make one of your own."
        )));
    }
    let Some(value) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Ok(Found::Missing(format!(
            "Secret {name}, which spec.credential.secret.secretRefs names, has no key {key}."
        )));
    };
    let settings = cx.settings.secrets;
    let offered = if place.is_hashed() {
        supplied::hashed(&value.0, settings).map(|hash| Offered::Hash(hash.to_owned()))
    } else {
        let plain = supplied::plain(&value.0);
        plain.map(|plain| Offered::Plain(Zeroizing::new(plain.to_owned())))
    };
    let offered = match offered {
        Ok(offered) => offered,
        Err(fault) => {
            return Ok(Found::Refused(format!(
                "What Secret {name} holds under {key} {fault}"
            )));
        }
    };
    let source = SourceOf {
        secret: name.clone(),
        key: key.to_owned(),
        hashed: place.is_hashed(),
        uid: secret.uid().unwrap_or_default(),
        resource_version: secret.resource_version().unwrap_or_default(),
    };
    let id = match &offered {
        Offered::Hash(hash) => {
            let same = stored.iter().find(|s| s.credential.hash == *hash);
            same.map(|s| s.credential.id.clone())
        }
        Offered::Plain(plain) => compare(cx, plain, &source, stored).await?,
    };
    let Some(id) = id else {
        return Ok(Found::New(offered, source, None));
    };
    let same = stored.iter().find(|s| s.credential.id == id);
    let wanted = same.is_some_and(|s| has_wanted_cost(&s.credential.hash, settings));
    Ok(if wanted {
        Found::Stored(id, source)
    } else {
        Found::New(offered, source, Some(id))
    })
}

/// Whether the operator made it: a technical user's own secret, which goes when the operator says so.
fn is_delivered(secret: &Secret) -> bool {
    let mut owners = secret.owner_references().iter();
    let owned = owners.any(|o| o.kind == "TechnicalUser" && o.controller == Some(true));
    owned && label(&secret.metadata, PART_LABEL) == Some(PART_DELIVERY)
}

/// Which stored credential a client secret is.
async fn compare(
    cx: &Context,
    plain: &Zeroizing<String>,
    source: &SourceOf,
    stored: &[Stored],
) -> Result<Option<String>, Error> {
    // A hash of the other shape's cost can not be its own.
    let wanted = supplied::cost(plain, cx.settings.secrets);
    let candidates = stored.iter().filter(|s| {
        let cost = hash::cost_of(&s.credential.hash);
        cost.is_some_and(|c| hash::is_of_generated(c) == hash::is_of_generated(wanted))
    });
    let candidates: Vec<_> = candidates
        .map(|s| (s.credential.id.clone(), s.credential.hash.clone()))
        .collect();
    let all: Vec<&str> = candidates.iter().map(|(_, hash)| hash.as_str()).collect();
    let of = (source.clone(), all.join(" "));
    let lock = || {
        let map = &cx.compared.0;
        map.lock().unwrap_or_else(PoisonError::into_inner)
    };
    if let Some(known) = lock().get(&of) {
        return Ok(known.clone());
    }
    let plain = plain.clone();
    let found = tokio::task::spawn_blocking(move || {
        let mut candidates = candidates.into_iter();
        candidates.find_map(|(id, stored)| hash::verify(&plain, &stored).then_some(id))
    });
    let found = found.await.map_err(|e| Error::Material(e.to_string()))?;
    let mut compared = lock();
    if compared.len() >= MOST_COMPARISONS {
        compared.clear();
    }
    compared.insert(of, found.clone());
    Ok(found)
}
