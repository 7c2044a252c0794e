//! Sees a ring's copies in other namespaces, and writes them: beside all else, so that what another
//! namespace's admission, quota or webhook does is told, tried again later, and holds up nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::ResourceExt;
use tokio::time::Instant;

use super::publish::{self, Copies, Place, Refused, Target};
use crate::api::v1alpha1::SigningKey;
use crate::controllers::apply::{Applied, Applier};
use crate::controllers::operator::Context;
use crate::controllers::{Error, Key, Object, Write};
use crate::objects::published::Publisher;
use crate::stores::Stores;

/// How many writes are under way at once.
const CONCURRENCY: usize = 8;
/// How long all of a visit's writes may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a refused write waits first; twice as long each time.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(5);
/// How long it waits at most.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(10);

/// What is remembered of writes that were not carried out: each ring's, by target.
#[derive(Default)]
pub struct Troubles(Mutex<BTreeMap<String, BTreeMap<Target, Trouble>>>);

#[derive(Clone, Debug)]
enum Trouble {
    /// Something is not as the store shows it: it is to be looked at.
    Changed,
    /// With the wait that it has come to.
    Refused(Refused, SignedDuration),
}

impl Troubles {
    fn of<T>(&self, ring: &str, with: impl FnOnce(&mut BTreeMap<Target, Trouble>) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_ring = all.entry(ring.to_owned()).or_default();
        let result = with(of_ring);
        if of_ring.is_empty() {
            all.remove(ring);
        }
        result
    }
}

/// Looks at a ring's copies; one that is gone has none that is wanted.
pub async fn see(cx: &Context, name: &str, ring: Option<&SigningKey>) -> Result<Copies, Error> {
    let settings = &cx.settings;
    let publisher = Publisher {
        environment: &settings.environment,
        operator_namespace: &settings.operator_namespace,
        ring: name,
    };
    let mut copies = Copies::default();
    for map in cx.stores.published.state() {
        if publisher.made(&map) {
            copies.maps.insert(target(&map), map);
        }
    }
    let publishing = ring.is_some_and(|ring| !ring.spec.publish.is_empty());
    if publishing || !copies.maps.is_empty() {
        copies.namespaces = cx.stores.namespaces.state().iter().map(place).collect();
    }
    if let Some(ring) = ring.filter(|_| publishing) {
        let rival = |other: &&SigningKey| {
            let going = other.metadata.deletion_timestamp.is_some();
            !going && !other.spec.publish.is_empty() && other.name_any() != name
        };
        let rings = cx.stores.signing_keys.state();
        let rings = rings.iter().filter_map(|ring| ring.0.as_ref().ok());
        copies.rivals = rings.filter(rival).cloned().map(Arc::new).collect();
        let own = &settings.operator_namespace;
        for target in publish::targets(ring, &copies.namespaces, own).into_keys() {
            if copies.maps.contains_key(&target) {
                continue;
            }
            let (namespace, name_of_map) = &target;
            let stored = Stores::get(&cx.stores.published, namespace, name_of_map);
            let changed = |t: &mut BTreeMap<_, _>| matches!(t.get(&target), Some(Trouble::Changed));
            let map = if stored.is_none() && cx.troubles.of(name, changed) {
                // A create met something that no watch shows.
                let live = cx.get::<ConfigMap>(namespace, name_of_map).await?;
                live.map(Arc::new)
            } else {
                stored
            };
            copies.maps.extend(map.map(|map| (target, map)));
        }
    }
    copies.refused = cx.troubles.of(name, |troubles| {
        let there = |place: &str| copies.namespaces.iter().any(|p| p.name == place);
        troubles.retain(|(namespace, _), _| there(namespace));
        let refused = troubles
            .iter()
            .filter_map(|(target, trouble)| match trouble {
                Trouble::Refused(refused, _) => Some((target.clone(), refused.clone())),
                Trouble::Changed => None,
            });
        refused.collect()
    });
    Ok(copies)
}

/// The rings that publish; with a name, those that may publish a `ConfigMap` of that name.
pub fn publishing(stores: &Stores, config_map: Option<&str>) -> Vec<String> {
    let rings = stores.signing_keys.state();
    let rings = rings.iter().filter_map(|ring| ring.0.as_ref().ok());
    rings
        .filter(|ring| match config_map {
            Some(name) => publish::publishes_as(ring, name),
            None => !ring.spec.publish.is_empty(),
        })
        .map(ResourceExt::name_any)
        .collect()
}

/// Carries out a visit's writes aside, as long as this process leads; whether the world is as it
/// was seen.
pub async fn write(cx: &Context, key: &Key, writes: Vec<Write>) -> bool {
    let deadline = Instant::now() + LIMIT;
    let writes = writes.into_iter().filter_map(|write| {
        let map = match &write {
            Write::Create(Object::ConfigMap(map), _)
            | Write::Replace(Object::ConfigMap(map), _)
            | Write::Delete(Object::ConfigMap(map)) => target(map),
            _ => return None,
        };
        Some(async move {
            if Instant::now() >= deadline {
                return false;
            }
            let mut applier = Applier::new(cx, key);
            let call = tokio::time::timeout_at(deadline, applier.apply(write));
            // What is left to another process is no trouble.
            let Some(done) = cx.leadership.while_leading(call).await else {
                return false;
            };
            let done = done.unwrap_or_else(|_| Err(Error::Timeout("writing it".into())));
            note(cx, key, map, done)
        })
    });
    let outcomes: Vec<bool> = futures::stream::iter(writes)
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    outcomes.into_iter().all(|done| done)
}

/// Remembers what became of a write; whether it was carried out.
fn note(cx: &Context, key: &Key, target: Target, outcome: Result<Applied, Error>) -> bool {
    let now = cx.clock_guard.moment().now;
    cx.troubles.of(&key.name, |troubles| {
        let trouble = match outcome {
            Ok(Applied::Done) => {
                troubles.remove(&target);
                return true;
            }
            Ok(Applied::LookAgain) => Trouble::Changed,
            Err(error) => {
                tracing::warn!(ring = %key.name, ?target, %error, "publishing failed; trying again");
                let message = match error {
                    Error::Refused { message, .. } => message,
                    other => other.to_string(),
                };
                let wait = match troubles.get(&target) {
                    Some(Trouble::Refused(_, before)) => (*before * 2).min(LONGEST_WAIT),
                    _ => FIRST_WAIT,
                };
                let until = now.saturating_add(wait).unwrap_or(now);
                Trouble::Refused(Refused { message, until }, wait)
            }
        };
        troubles.insert(target, trouble);
        false
    })
}

fn target(map: &ConfigMap) -> Target {
    (map.namespace().unwrap_or_default(), map.name_any())
}

fn place(namespace: &Arc<Namespace>) -> Place {
    Place {
        name: namespace.name_any(),
        labels: namespace.labels().clone(),
        terminating: namespace.metadata.deletion_timestamp.is_some(),
    }
}
