//! Looks at the Secrets in which a person supplies client secrets. They are read, and never written.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::hashing::{Judged, Question};
use crate::api::v1alpha1::{SuppliedRef, TechnicalUser};
use crate::controllers::operator::Context;
use crate::controllers::technical_user::Sight;
use crate::controllers::{Error, Key};
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
    /// One whose hash is not stored, or with another cost than is wanted now: then with its id.
    New(String, SourceOf, Option<String>),
    /// One of which nothing is known yet. Whether it is looked at again after that time, as it changes all
    /// the time, or once it is hashed.
    Pending(Option<SignedDuration>),
    /// Nothing: the Secret or its key is not there. A sentence that says so.
    Missing(String),
    /// What can not be used. A sentence that says why.
    Refused(String),
}

/// Looks at all places that a technical user names.
pub async fn look(
    cx: &Context,
    of: &Key,
    user: &TechnicalUser,
    hashes: Option<&Secret>,
    sight: Sight,
) -> Result<Vec<SuppliedSeen>, Error> {
    let spec = user.secret_credential().filter(|s| s.is_supplied());
    let Some(spec) = spec else {
        cx.hashing.forget(of);
        return Ok(Vec::new());
    };
    let stored = hashes.map(credentials::read).unwrap_or_default();
    let look = Look {
        cx,
        of,
        stored: &stored,
        now: Instant::now(),
    };
    let mut seen = Vec::new();
    for place in &spec.secret_refs {
        let shown = look.shown(place);
        let known = shown.as_ref().and_then(|source| look.known(source));
        let found = match known.filter(|_| sight == Sight::Watched) {
            Some(known) => known,
            None => match shown.and_then(|source| look.wait(&source)) {
                Some(waits) => waits,
                None => look.read(place).await?,
            },
        };
        seen.push(SuppliedSeen {
            place: place.clone(),
            found,
        });
    }
    Ok(seen)
}

/// One look at a technical user's places.
struct Look<'a> {
    cx: &'a Context,
    of: &'a Key,
    stored: &'a [Stored],
    now: Instant,
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

impl Look<'_> {
    /// What the watch shows of a place.
    fn shown(&self, place: &SuppliedRef) -> Option<SourceOf> {
        let secrets = &self.cx.stores.named_secrets;
        let meta = Stores::get(secrets, &self.of.namespace, &place.name)?;
        Some(SourceOf {
            secret: place.name.clone(),
            key: place.key().to_owned(),
            hashed: place.is_hashed(),
            uid: meta.uid()?,
            resource_version: meta.resource_version()?,
        })
    }

    /// The credential that was read from the very Secret that the watch shows: then nothing has to be read.
    fn known(&self, source: &SourceOf) -> Option<Found> {
        let same = |s: &&Stored| s.known.source.as_ref() == Some(source);
        let stored = self.stored.iter().find(same)?;
        let wanted = has_wanted_cost(&stored.credential.hash, self.cx.settings.secrets);
        wanted.then(|| Found::Stored(stored.credential.id.clone(), source.clone()))
    }

    /// Whether this version of a Secret still has to wait, as it changes all the time.
    fn wait(&self, source: &SourceOf) -> Option<Found> {
        let wait = self.cx.paces.wait(self.of, source, self.now)?;
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        Some(Found::Pending(Some(wait)))
    }

    async fn read(&self, place: &SuppliedRef) -> Result<Found, Error> {
        let (name, key) = (&place.name, place.key());
        let Some(secret) = self.cx.get::<Secret>(&self.of.namespace, name).await? else {
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
        let source = SourceOf {
            secret: name.clone(),
            key: key.to_owned(),
            hashed: place.is_hashed(),
            uid: secret.uid().unwrap_or_default(),
            resource_version: secret.resource_version().unwrap_or_default(),
        };
        // The watch may lag behind it.
        if let Some(waits) = self.wait(&source) {
            return Ok(waits);
        }
        let refused =
            |fault| Found::Refused(format!("What Secret {name} holds under {key} {fault}"));
        if place.is_hashed() {
            return Ok(match supplied::hashed(&value.0, self.cx.settings.secrets) {
                Ok(hash) => self.offered(hash, source),
                Err(fault) => refused(fault),
            });
        }
        match supplied::plain(&value.0) {
            Ok(plain) => self.compared(&Zeroizing::new(plain.to_owned()), source),
            Err(fault) => Ok(refused(fault)),
        }
    }

    /// A hash that is supplied.
    fn offered(&self, hash: &str, source: SourceOf) -> Found {
        match self.id_of(hash) {
            Some(id) => Found::Stored(id, source),
            None => Found::New(hash.to_owned(), source, None),
        }
    }

    fn id_of(&self, hash: &str) -> Option<String> {
        let same = self.stored.iter().find(|s| s.credential.hash == hash);
        same.map(|s| s.credential.id.clone())
    }

    /// A client secret that is supplied itself.
    fn compared(&self, plain: &Zeroizing<String>, source: SourceOf) -> Result<Found, Error> {
        let cost = supplied::cost(plain, self.cx.settings.secrets);
        // A hash of the other shape's cost can not be its own.
        let of_shape = |hash: &&String| {
            let of = hash::cost_of(hash);
            of.is_some_and(|of| hash::is_of_generated(of) == hash::is_of_generated(cost))
        };
        let hashes = self.stored.iter().map(|s| &s.credential.hash);
        let hashes: Vec<String> = hashes.filter(of_shape).cloned().collect();
        let question = Question {
            of: self.of,
            place: (&source.secret, &source.key),
            plain,
            stored: &hashes,
            cost,
        };
        Ok(match self.cx.hashing.judge(&question)? {
            Judged::Pending => Found::Pending(None),
            Judged::Same(hash) => self.offered(&hash, source),
            Judged::New { hash, instead_of } => {
                let id = instead_of.and_then(|stored| self.id_of(&stored));
                Found::New(hash, source, id)
            }
        })
    }
}

/// Whether the operator made it: a technical user's own secret, which goes when the operator says so.
fn is_delivered(secret: &Secret) -> bool {
    let mut owners = secret.owner_references().iter();
    let owned = owners.any(|o| o.kind == "TechnicalUser" && o.controller == Some(true));
    owned && label(&secret.metadata, PART_LABEL) == Some(PART_DELIVERY)
}
