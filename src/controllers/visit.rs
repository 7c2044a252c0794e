//! One visit to one object: see, decide, apply; and what is told where that is not possible.

mod reads;
mod refusal;

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::Api;
use kube::core::error_boundary::InvalidObject;
use kube::core::{DynamicObject, NamespaceResourceScope};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tracing::debug;

use self::refusal::{HangsOn, tell_refusal};
use super::apply::{Applied, Applier};
use super::operator::{Context, Outcome, READ_LIMIT};
use super::signing_key::Looked;
use super::technical_user::Sight;
use super::{
    Decision, Error, Key, Kind, Object, Write, enrolments, oidc_provider, outbox, signing_key,
    status, subscription, technical_user, user, wanted_keys,
};
use crate::api::v1alpha1::{Conditions, Observed, OidcProvider, SigningKey, TechnicalUser, User};
use crate::domain::names::OUTBOX;
use crate::domain::reasons as r;
use crate::stores::{Guarded, Stores};

/// One visit: see, decide, apply.
pub(super) async fn visit(cx: &Context, key: &Key) -> Result<Outcome, Error> {
    let now = cx.clock_guard.moment().now;
    let Some((decision, uid)) = look(cx, key, now).await? else {
        return Ok(Outcome::LookAgain);
    };
    debug!(?key, writes = decision.writes.len(), wake_at = ?decision.wake_at, "visited");
    let mut applier = Applier::new(cx, key);
    let (mut aside, mut progress, mut held) = (Vec::new(), false, false);
    let mut writes = decision.writes.into_iter();
    while let Some(write) = writes.next() {
        if let Write::Aside(write) = write {
            aside.push(*write);
            continue;
        }
        if let Write::Event(note) = write {
            if !cx.leadership.leads() {
                return Ok(Outcome::LookAgain);
            }
            let told = cx.events.tell(key, uid.clone(), note);
            cx.leadership.while_leading(told).await;
            continue;
        }
        if held
            && matches!(&write, Write::Replace(Object::ConfigMap(map), _) if map.name_any() == OUTBOX)
        {
            // It holds what is not home yet.
            continue;
        }
        // One device's hashes hold up no other's, nor tokens.
        let held_alone = key.kind == Kind::Outbox
            && matches!(
                write,
                Write::Create(Object::Secret(_), _) | Write::Replace(Object::Secret(_), _)
            );
        let newcomers = key.kind == Kind::Enrolments && !matches!(write, Write::Replace(..));
        // The status that follows tells of keys as their Secrets say, which were written before.
        let hangs_on = match &write {
            // A device is what it is, whatever becomes of its companion.
            Write::Create(Object::TechnicalUser(_), _)
            | Write::Replace(Object::TechnicalUser(_), _)
            | Write::Delete(Object::TechnicalUser(_)) => HangsOn::Nothing,
            Write::Create(..) | Write::Replace(Object::ConfigMap(_), _) => HangsOn::WhatIsWritten,
            _ => HangsOn::This,
        };
        match applier.apply(write).await {
            Ok(Applied::Done) => progress = true,
            Ok(Applied::LookAgain) => return Ok(Outcome::LookAgain),
            Err(error @ Error::Refused { .. }) if held_alone => {
                tracing::error!(?key, %error, "a device that revoked itself is refused by servers, and its hashes could not be destroyed; trying again");
                held = true;
            }
            Err(error @ Error::Refused { .. }) if newcomers => {
                // A quota, a namespace that goes: it holds up no other tenant's people, and whoever it is
                // is noted again when they come again.
                enrolments::tell_refused(cx, key, uid.clone(), &error).await;
            }
            Err(error) => {
                if let Error::Refused { .. } = &error {
                    // It speaks of what is there, and not yet of what was to be made.
                    let status = writes.find(|w| matches!(w, Write::Status { .. }));
                    tell_refusal(cx, key, &error, (status, hangs_on), now).await;
                    if progress {
                        // What comes after what was done is not to wait for what is refused.
                        debug!(?key, %error, "refused");
                        return Ok(Outcome::LookAgain);
                    }
                    tracing::warn!(?key, %error, "a write was refused; trying again");
                    return Ok(Outcome::Refused(decision.wake_at));
                }
                return Err(error);
            }
        }
    }
    if held {
        return Ok(Outcome::Refused(decision.wake_at));
    }
    if !signing_key::write_copies(cx, key, aside).await {
        return Ok(Outcome::LookAgain);
    }
    Ok(Outcome::Settled(decision.wake_at))
}

/// The object as it is now, whatever is in it.
async fn live(cx: &Context, key: &Key) -> Result<Option<DynamicObject>, Error> {
    let resource = super::apply::api_resource(key.kind);
    let api: Api<DynamicObject> =
        Api::namespaced_with(cx.client.clone(), &key.namespace, &resource);
    let what = || format!("reading {} {}/{}", key.kind.name(), key.namespace, key.name);
    match tokio::time::timeout(READ_LIMIT, api.get_opt(&key.name)).await {
        Err(_) => Err(Error::Timeout(what())),
        Ok(live) => live.map_err(|source| Error::Api {
            what: what(),
            source: Box::new(source),
        }),
    }
}

/// What to do, and the UID of the object that it was decided for.
type Look = (Decision, Option<String>);

/// Sees and decides; none if the object was changed meanwhile. One that does not parse gets a
/// status that says so.
async fn look(cx: &Context, key: &Key, now: Timestamp) -> Result<Option<Look>, Error> {
    let Key {
        namespace, name, ..
    } = key;
    match key.kind {
        Kind::SigningKey => {
            let found = find::<SigningKey>(
                cx,
                Stores::get(&cx.stores.signing_keys, namespace, name),
                key,
            )
            .await?;
            match found {
                Found::Unreadable(invalid) => unreadable(cx, key, &invalid, now).await,
                Found::Gone | Found::Readable(_) => {
                    let ring = found.readable();
                    match signing_key::look(cx, ring, name, (&cx.settings, cx.plan)).await? {
                        Looked::Decided(decision, uid) => Ok(Some((decision, uid))),
                        Looked::Moved => Ok(None),
                        Looked::Unreadable(invalid) => unreadable(cx, key, &invalid, now).await,
                    }
                }
            }
        }
        Kind::Outbox => {
            let Some(seen) = outbox::see(cx).await? else {
                return Ok(Some(Look::default()));
            };
            let uid = seen.outbox.as_ref().and_then(ResourceExt::uid);
            Ok(Some((outbox::decide(&seen, &cx.settings, now), uid)))
        }
        Kind::WantedKeys => Ok(Some((wanted_keys::look(cx).await?, None))),
        Kind::Enrolments => enrolments::look(cx, now).await.map(Some),
        Kind::User => {
            let stored = Stores::get(&cx.stores.users, namespace, name);
            match find::<User>(cx, stored, key).await? {
                Found::Gone => Ok(Some(Look::default())),
                Found::Unreadable(invalid) => unreadable(cx, key, &invalid, now).await,
                Found::Readable(found) => {
                    let uid = found.uid();
                    let seen = user::Seen {
                        user: found,
                        tenancy: cx.tenancy(),
                        people: cx.people.get(&cx.stores),
                    };
                    Ok(Some((user::decide(&seen, &cx.settings, now), uid)))
                }
            }
        }
        Kind::Subscription => {
            let found = Stores::get(&cx.stores.subscriptions, namespace, name);
            match found.as_deref() {
                None => Ok(Some(Look::default())),
                Some(Guarded(Err(invalid))) => unreadable(cx, key, invalid, now).await,
                Some(Guarded(Ok(subscription))) => {
                    let uid = subscription.uid();
                    let seen = subscription::Seen {
                        subscription: Arc::new(subscription.clone()),
                        tenancy: cx.tenancy(),
                    };
                    Ok(Some((subscription::decide(&seen, &cx.settings, now), uid)))
                }
            }
        }
        Kind::OidcProvider => {
            let stored = Stores::get(&cx.stores.oidc_providers, namespace, name);
            match find::<OidcProvider>(cx, stored, key).await? {
                Found::Unreadable(invalid) => unreadable(cx, key, &invalid, now).await,
                found => oidc_provider::look(cx, key, found.readable())
                    .await
                    .map(Some),
            }
        }
        Kind::TechnicalUser => {
            let found = find::<TechnicalUser>(
                cx,
                Stores::get(&cx.stores.technical_users, namespace, name),
                key,
            )
            .await?;
            match found {
                Found::Unreadable(invalid) => unreadable(cx, key, &invalid, now).await,
                Found::Gone | Found::Readable(_) => {
                    let user = found.readable();
                    let uid = user.as_ref().and_then(|u| u.uid());
                    let mut decision = Decision::default();
                    for sight in [Sight::Watched, Sight::Live] {
                        let seen = technical_user::see(cx, user.clone(), key, sight).await?;
                        let moment = cx.clock_guard.moment();
                        decision = technical_user::decide(&seen, &cx.settings, moment);
                        let only_told =
                            |w: &Write| matches!(w, Write::Status { .. } | Write::Event(_));
                        if decision.writes.iter().all(only_told) {
                            break;
                        }
                    }
                    Ok(Some((decision, uid)))
                }
            }
        }
    }
}

#[allow(clippy::large_enum_variant)] // It lives for a moment, on the stack.
enum Found<K> {
    Readable(Arc<K>),
    Unreadable(InvalidObject),
    Gone,
}

impl<K> Found<K> {
    fn readable(self) -> Option<Arc<K>> {
        match self {
            Self::Readable(object) => Some(object),
            _ => None,
        }
    }
}

/// The object from its store; that it is gone is believed only when the API server says so.
async fn find<K>(
    cx: &Context,
    stored: Option<Arc<Guarded<K>>>,
    key: &Key,
) -> Result<Found<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let guarded = match stored {
        Some(stored) => (*stored).clone(),
        None => match cx.get::<Guarded<K>>(&key.namespace, &key.name).await? {
            Some(live) => live,
            None => return Ok(Found::Gone),
        },
    };
    Ok(match guarded.0 {
        Ok(object) => Found::Readable(Arc::new(object)),
        Err(invalid) => Found::Unreadable(invalid),
    })
}

/// Says of an object that this version can not read it, and leaves all that belongs to it alone.
async fn unreadable(
    cx: &Context,
    key: &Key,
    invalid: &InvalidObject,
    now: Timestamp,
) -> Result<Option<Look>, Error> {
    let Some(live) = live(cx, key).await? else {
        return Ok(Some(Look::default()));
    };
    let message = format!(
        "This version of Chancery can not read the object: {}. Mend it, or run a version that knows it.",
        invalid.error
    );
    let observed = Observed {
        generation: live.metadata.generation.unwrap_or(0),
        now,
    };
    let conditions = Conditions::stalled(r::INVALID_SPEC, message);
    let decision = Decision {
        writes: status::with_conditions(&live, None, &conditions, observed),
        wake_at: None,
    };
    Ok(Some((decision, live.metadata.uid)))
}
