//! What is watched: one reflector a kind, and a stream that tells what has changed. Controllers
//! and feed both read here; neither asks the API server for what it can find in a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::Api;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher::Config};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use crate::api::v1alpha1::{SigningKey, Subscription, TechnicalUser};
use crate::domain::names::{
    ENVIRONMENT_LABEL, MANAGED_BY, MANAGED_BY_LABEL, PART_DELIVERY, PART_LABEL, PART_PUBLISHED,
    RING_LABEL, is_object_name,
};
use crate::domain::settings::Settings;

// A custom resource as it is watched: one that does not parse is an error of its own, and holds
// up no other (CVE-2022-39272 is what happens otherwise).
pub use kube::core::DeserializeGuard as Guarded;

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Watched {
    /// `SigningKey`s of the operator namespace.
    SigningKeys,
    /// Subscriptions everywhere.
    Subscriptions,
    /// Technical users everywhere.
    TechnicalUsers,
    /// Our Secrets in the operator namespace: key pairs and hashes.
    Secrets,
    /// Our ConfigMaps in the operator namespace.
    ConfigMaps,
    /// Delivered Secrets everywhere; only the operator watches them.
    Deliveries,
    /// Published JWKS everywhere; only the operator watches them.
    Published,
    /// Namespaces; only the operator watches them.
    Namespaces,
}

/// Something that was made, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Of which kind.
    pub kind: Watched,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it points at: labels and owner names, which are gone with a deleted object.
    pub hints: Vec<String>,
    /// Whether more than its status may have changed.
    pub spec: bool,
}

/// The reflectors' stores.
#[derive(Clone)]
pub struct Stores {
    /// `SigningKey`s of the operator namespace.
    pub signing_keys: Store<Guarded<SigningKey>>,
    /// Subscriptions everywhere.
    pub subscriptions: Store<Guarded<Subscription>>,
    /// Technical users everywhere.
    pub technical_users: Store<Guarded<TechnicalUser>>,
    /// Our Secrets in the operator namespace.
    pub secrets: Store<Secret>,
    /// Our ConfigMaps in the operator namespace.
    pub config_maps: Store<ConfigMap>,
    /// Delivered Secrets everywhere; empty where they are not watched.
    pub deliveries: Store<Secret>,
    /// `ConfigMap`s with a JWKS in other namespaces; empty where they are not watched.
    pub published: Store<ConfigMap>,
    /// Namespaces; empty where they are not watched.
    pub namespaces: Store<Namespace>,
    progress: Arc<Progress>,
}

/// How far the watches have come.
struct Progress {
    waiting: watch::Sender<BTreeSet<Watched>>,
    /// Counts changes of Subscriptions' and technical users' specs.
    tenancy: AtomicU64,
}

/// Whether delivered Secrets are watched too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that the operator needs.
    Operator,
    /// Only what the server may read.
    Server,
}

impl Stores {
    /// Starts the watches, which tell their changes to all of `listeners`. They end with the
    /// returned set.
    pub fn start(
        client: &Client,
        settings: &Settings,
        scope: Scope,
        listeners: Vec<mpsc::UnboundedSender<Change>>,
    ) -> (Self, tokio::task::JoinSet<()>) {
        let mut kinds = BTreeSet::from([
            Watched::SigningKeys,
            Watched::Subscriptions,
            Watched::TechnicalUsers,
            Watched::Secrets,
            Watched::ConfigMaps,
        ]);
        if scope == Scope::Operator {
            kinds.extend([Watched::Deliveries, Watched::Published, Watched::Namespaces]);
        }
        let progress = Arc::new(Progress {
            waiting: watch::Sender::new(kinds),
            tenancy: AtomicU64::new(0),
        });

        let namespace = &settings.operator_namespace;
        let ours = format!(
            "{MANAGED_BY_LABEL}={MANAGED_BY},{ENVIRONMENT_LABEL}={}",
            settings.environment
        );
        let mine = Config::default().labels(&ours);
        let part = |part| Config::default().labels(&format!("{ours},{PART_LABEL}={part}"));

        let mut starter = Starter {
            tasks: tokio::task::JoinSet::new(),
            listeners,
            progress: progress.clone(),
        };
        let all = Config::default;
        let stores = Self {
            signing_keys: starter.go(
                Watched::SigningKeys,
                Api::namespaced(client.clone(), namespace),
                all(),
                hints_of_custom_resource,
            ),
            subscriptions: starter.go(
                Watched::Subscriptions,
                Api::all(client.clone()),
                all(),
                |s: &Guarded<Subscription>| match &s.0 {
                    Ok(s) => vec![s.spec.legal_entity.id.clone()],
                    Err(_) => Vec::new(),
                },
            ),
            technical_users: starter.go(
                Watched::TechnicalUsers,
                Api::all(client.clone()),
                all(),
                |u: &Guarded<TechnicalUser>| match &u.0 {
                    Ok(u) => vec![u.client_id()],
                    Err(_) => Vec::new(),
                },
            ),
            secrets: starter.go(
                Watched::Secrets,
                Api::namespaced(client.clone(), namespace),
                mine.clone(),
                hints_of_secret,
            ),
            config_maps: starter.go(
                Watched::ConfigMaps,
                Api::namespaced(client.clone(), namespace),
                mine,
                hints_of_map,
            ),
            deliveries: if scope == Scope::Operator {
                starter.go(
                    Watched::Deliveries,
                    Api::all(client.clone()),
                    part(PART_DELIVERY),
                    |secret: &Secret| owning_user(secret).into_iter().collect(),
                )
            } else {
                reflector::store().0
            },
            published: if scope == Scope::Operator {
                let api = Api::all(client.clone());
                starter.go(Watched::Published, api, part(PART_PUBLISHED), hints_of_map)
            } else {
                reflector::store().0
            },
            namespaces: if scope == Scope::Operator {
                let api = Api::<Namespace>::all(client.clone());
                starter.go(Watched::Namespaces, api, all(), |_| Vec::new())
            } else {
                reflector::store().0
            },
            progress,
        };
        (stores, starter.tasks)
    }

    /// Returns when every store has seen the whole of its kind once.
    pub async fn synced(&self) {
        let mut waiting = self.progress.waiting.subscribe();
        // The sender lives as long as `self`.
        let _ = waiting.wait_for(BTreeSet::is_empty).await;
    }

    /// The kinds that have not been seen whole yet.
    pub fn waiting_for(&self) -> BTreeSet<Watched> {
        self.progress.waiting.borrow().clone()
    }

    /// A number that grows when a Subscription or a technical user is made, deleted, or has its
    /// spec changed.
    pub fn tenancy_version(&self) -> u64 {
        self.progress.tenancy.load(Ordering::Acquire)
    }

    /// The object of that name in a store.
    pub fn get<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        store.get(&ObjectRef::new(name).within(namespace))
    }
}

fn hints_of_custom_resource<K>(_: &Guarded<K>) -> Vec<String> {
    Vec::new()
}

/// The technical user that controls a Secret. Tenants write owner references as they please: what
/// could be no technical user's name goes no further.
fn owning_user(secret: &Secret) -> Option<String> {
    let owners = secret.owner_references().iter();
    let mut ours = owners.filter(|o| {
        o.controller == Some(true)
            && o.kind == "TechnicalUser"
            && o.api_version.starts_with("chancery.dev/")
            && is_object_name(&o.name)
    });
    ours.next().map(|o| o.name.clone())
}

fn hints_of_map(map: &ConfigMap) -> Vec<String> {
    map.labels().get(RING_LABEL).cloned().into_iter().collect()
}

fn hints_of_secret(secret: &Secret) -> Vec<String> {
    match crate::objects::credentials::hashes_of(secret) {
        Some((namespace, name, _)) => vec![namespace.to_owned(), name.to_owned()],
        None => secret
            .labels()
            .get(RING_LABEL)
            .cloned()
            .into_iter()
            .collect(),
    }
}

struct Starter {
    tasks: tokio::task::JoinSet<()>,
    listeners: Vec<mpsc::UnboundedSender<Change>>,
    progress: Arc<Progress>,
}

impl Starter {
    fn go<K>(
        &mut self,
        kind: Watched,
        api: Api<K>,
        config: Config,
        hints: fn(&K) -> Vec<String>,
    ) -> Store<K>
    where
        K: Resource<DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let (store, writer) = reflector::store();
        let (listeners, progress) = (self.listeners.clone(), self.progress.clone());
        self.tasks.spawn(async move {
            let stream = watcher::watcher(api, config)
                .default_backoff()
                .modify(|object| {
                    object.meta_mut().managed_fields = None;
                    object
                        .annotations_mut()
                        .remove("kubectl.kubernetes.io/last-applied-configuration");
                })
                .reflect(writer);
            pin_mut!(stream);
            let mut known = Known {
                kind,
                hints,
                objects: BTreeMap::new(),
                listed: BTreeMap::new(),
            };
            let mut failing = false;
            while let Some(event) = stream.next().await {
                match event {
                    Ok(event) => {
                        failing = false;
                        let done = matches!(event, Event::InitDone);
                        let changes = known.take(&event);
                        let tenancy =
                            matches!(kind, Watched::Subscriptions | Watched::TechnicalUsers);
                        if tenancy && changes.iter().any(|c| c.spec) {
                            progress.tenancy.fetch_add(1, Ordering::AcqRel);
                        }
                        for change in &changes {
                            for listener in &listeners {
                                // One that has ended hears no more; the others do.
                                let _ = listener.send(change.clone());
                            }
                        }
                        if done {
                            progress
                                .waiting
                                .send_if_modified(|waiting| waiting.remove(&kind));
                        }
                    }
                    Err(error) => {
                        // Once an outage, not once a retry.
                        if !failing {
                            warn!(?kind, error = %explain(&error), "a watch failed; trying again");
                        }
                        failing = true;
                    }
                }
            }
        });
        store
    }
}

/// What a person can do about a watch that fails.
fn explain(error: &watcher::Error) -> String {
    let text = error.to_string();
    if text.contains("404") || text.contains("NotFound") {
        format!("{text} (are the CRDs installed? kubectl apply -f crds/)")
    } else {
        text
    }
}

/// Remembers what was there, so that what vanished between two lists is noticed.
struct Known<K> {
    kind: Watched,
    hints: fn(&K) -> Vec<String>,
    objects: BTreeMap<(String, String), Memory>,
    listed: BTreeMap<(String, String), Memory>,
}

#[derive(Clone, PartialEq, Eq)]
struct Memory {
    hints: Vec<String>,
    /// What changes with the spec, and not with the status.
    identity: (Option<String>, Option<i64>, bool),
}

impl<K: Resource> Known<K> {
    fn take(&mut self, event: &Event<K>) -> Vec<Change> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                // The store shows it from InitDone on.
                let (name, memory) = self.remember(object);
                self.listed.insert(name, memory);
                Vec::new()
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut self.objects, std::mem::take(&mut self.listed));
                let mut all = before;
                all.extend(self.objects.clone());
                all.into_iter()
                    .map(|(name, memory)| self.change(name, memory.hints, true))
                    .collect()
            }
            Event::Apply(object) => {
                let (name, memory) = self.remember(object);
                let before = self.objects.insert(name.clone(), memory.clone());
                let spec = before.is_none_or(|before| before != memory);
                vec![self.change(name, memory.hints, spec)]
            }
            Event::Delete(object) => {
                let (name, memory) = self.remember(object);
                self.objects.remove(&name);
                vec![self.change(name, memory.hints, true)]
            }
        }
    }

    fn remember(&self, object: &K) -> ((String, String), Memory) {
        let meta = object.meta();
        let identity = (
            meta.uid.clone(),
            meta.generation,
            meta.deletion_timestamp.is_some(),
        );
        let name = (object.namespace().unwrap_or_default(), object.name_any());
        (
            name,
            Memory {
                hints: (self.hints)(object),
                identity,
            },
        )
    }

    fn change(
        &self,
        (namespace, name): (String, String),
        hints: Vec<String>,
        spec: bool,
    ) -> Change {
        Change {
            kind: self.kind,
            namespace,
            name,
            hints,
            spec,
        }
    }
}
