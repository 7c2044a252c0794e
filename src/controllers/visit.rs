//! One visit to one object: see, decide, apply; and what is told where that is not possible.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, ListParams};
use kube::core::error_boundary::InvalidObject;
use kube::core::{DynamicObject, NamespaceResourceScope};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tracing::debug;

use super::apply::{Applied, Applier};
use super::operator::{Context, Outcome, READ_LIMIT};
use super::{Decision, Error, Key, Kind, Write, signing_key, status, subscription, technical_user};
use crate::api::v1alpha1::{Conditions, Observed, SigningKey, TechnicalUser};
use crate::domain::jwk::PublicJwk;
use crate::domain::moment::Moment;
use crate::domain::names::RING_LABEL;
use crate::domain::reasons as r;
use crate::objects::{jwks_map, key_secret, label};
use crate::stores::{Guarded, Stores};

/// One visit: see, decide, apply.
pub(super) async fn visit(cx: &Context, key: &Key) -> Result<Outcome, Error> {
    let moment = cx.clock_guard.moment();
    let now = moment.now;
    let (decision, uid) = look(cx, key, moment).await?;
    debug!(?key, writes = decision.writes.len(), wake_at = ?decision.wake_at, "visited");
    let mut applier = Applier::new(&cx.client, &cx.leadership, key);
    let mut aside = Vec::new();
    for write in decision.writes {
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
        match applier.apply(write).await {
            Ok(Applied::Done) => {}
            Ok(Applied::LookAgain) => return Ok(Outcome::LookAgain),
            Err(error) => {
                if let Error::Refused { .. } = &error {
                    tell_refusal(cx, key, &error, now).await;
                }
                return Err(error);
            }
        }
    }
    if !signing_key::write_copies(cx, key, aside).await {
        return Ok(Outcome::LookAgain);
    }
    Ok(Outcome::Settled(decision.wake_at))
}

/// A write that the API server refuses (a quota, an admission policy, a missing right) is for a
/// person to mend: status says so, beside the log.
async fn tell_refusal(cx: &Context, key: &Key, error: &Error, now: Timestamp) {
    let Ok(Some(live)) = live(cx, key).await else {
        return;
    };
    let message = format!("The API server refused what this needs: {error}. It is tried again.");
    let observed = Observed {
        generation: live.metadata.generation.unwrap_or(0),
        now,
    };
    let conditions = match (key.kind, status::ready_as_before(&live)) {
        // A ring that signs goes on signing.
        (Kind::SigningKey, Some(before)) => {
            Conditions::ready_but_stalled((r::SUCCEEDED, before), (r::WRITE_REFUSED, message))
        }
        _ => Conditions::stalled(r::WRITE_REFUSED, message),
    };
    if let Some(write) = status::conditions_only(&live, &conditions, observed)
        && let Err(error) = Applier::new(&cx.client, &cx.leadership, key)
            .apply(write)
            .await
    {
        debug!(?key, %error, "the refusal could not be told in status either");
    }
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

/// Sees and decides. An object that does not parse gets a status that says so.
async fn look(
    cx: &Context,
    key: &Key,
    moment: Moment,
) -> Result<(Decision, Option<String>), Error> {
    let now = moment.now;
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
                    let uid = ring.as_ref().and_then(|r| r.uid());
                    let copies = signing_key::see_copies(cx, name, ring.as_deref()).await?;
                    let mut seen = signing_key::see(cx, ring, name, false).await?;
                    seen.copies = copies;
                    let (settings, plan) = (&cx.settings, cx.plan);
                    if let Some(decision) = signing_key::decide(&seen, settings, moment, plan) {
                        return Ok((decision, uid));
                    }
                    // What can not be taken back is decided on what is there now.
                    let live = cx.get::<Guarded<SigningKey>>(namespace, name).await?;
                    let ring = match live {
                        Some(Guarded(Err(invalid))) => {
                            return unreadable(cx, key, &invalid, now).await;
                        }
                        Some(Guarded(Ok(ring))) => Some(Arc::new(ring)),
                        None => None,
                    };
                    let copies = signing_key::see_copies(cx, name, ring.as_deref()).await?;
                    let mut seen = signing_key::see(cx, ring, name, true).await?;
                    seen.copies = copies;
                    let decision = signing_key::decide(&seen, settings, moment, plan);
                    Ok((decision.unwrap_or_default(), uid))
                }
            }
        }
        Kind::Subscription => {
            let found = Stores::get(&cx.stores.subscriptions, namespace, name);
            match found.as_deref() {
                None => Ok((Decision::default(), None)),
                Some(Guarded(Err(invalid))) => unreadable(cx, key, invalid, now).await,
                Some(Guarded(Ok(subscription))) => {
                    let uid = subscription.uid();
                    let seen = subscription::Seen {
                        subscription: Arc::new(subscription.clone()),
                        tenancy: cx.tenancy(),
                    };
                    Ok((subscription::decide(&seen, &cx.settings, now), uid))
                }
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
                    let seen = technical_user::see(cx, user, namespace, name).await?;
                    Ok((technical_user::decide(&seen, &cx.settings, now), uid))
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
) -> Result<(Decision, Option<String>), Error> {
    let Some(live) = live(cx, key).await? else {
        return Ok((Decision::default(), None));
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
    let writes = status::conditions_only(&live, &conditions, observed)
        .into_iter()
        .collect();
    Ok((
        Decision {
            writes,
            wake_at: None,
        },
        live.metadata.uid,
    ))
}

impl signing_key::Reads for Context {
    async fn live_secret(&self, name: &str) -> Result<Option<Arc<Secret>>, Error> {
        let namespace = &self.settings.operator_namespace;
        Ok(self.get::<Secret>(namespace, name).await?.map(Arc::new))
    }

    async fn live_config_map(&self, name: &str) -> Result<Option<Arc<ConfigMap>>, Error> {
        let namespace = &self.settings.operator_namespace;
        Ok(self.get::<ConfigMap>(namespace, name).await?.map(Arc::new))
    }

    fn secrets(&self) -> Vec<Arc<Secret>> {
        self.stores.secrets.state()
    }

    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        Stores::get(
            &self.stores.config_maps,
            &self.settings.operator_namespace,
            name,
        )
    }

    fn others(&self, ring: &str) -> BTreeMap<String, Vec<PublicJwk>> {
        self.other_maps(ring)
            .filter_map(|(other, map)| Some((other, jwks_map::read(&map)?.keys)))
            .collect()
    }

    async fn live_key_pairs(&self) -> Result<Vec<Arc<Secret>>, Error> {
        let namespace = &self.settings.operator_namespace;
        let what = || format!("listing the key pairs of {namespace}");
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().fields(&format!("type={}", key_secret::TYPE));
        match tokio::time::timeout(READ_LIMIT, api.list(&params)).await {
            Err(_) => Err(Error::Timeout(what())),
            Ok(list) => match list {
                Ok(list) => Ok(list.items.into_iter().map(Arc::new).collect()),
                Err(source) => Err(Error::Api {
                    what: what(),
                    source: Box::new(source),
                }),
            },
        }
    }

    fn spent_elsewhere(&self, ring: &str) -> BTreeSet<String> {
        self.other_maps(ring)
            .flat_map(|(_, map)| jwks_map::history(&map).spent)
            .collect()
    }
}

impl Context {
    /// The other rings' own `ConfigMap`s, for those rings that are there.
    fn other_maps(&self, ring: &str) -> impl Iterator<Item = (String, Arc<ConfigMap>)> {
        let namespace = self.settings.operator_namespace.as_str();
        let maps = self.stores.config_maps.state();
        maps.into_iter().filter_map(move |map| {
            let other = label(&map.metadata, RING_LABEL).filter(|other| *other != ring)?;
            let owner = Stores::get(&self.stores.signing_keys, namespace, other)?;
            let owner = owner.0.as_ref().ok()?;
            let uid = owner.uid()?;
            let dying = owner.metadata.deletion_timestamp.is_some();
            let theirs = !dying && jwks_map::is_ring_map(&map, other, &uid);
            theirs.then(|| (other.to_owned(), map.clone()))
        })
    }
}
