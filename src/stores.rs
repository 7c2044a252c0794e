//! What is watched: one reflector a kind, and a stream that tells what has changed. Controllers
//! and feed both read here; neither asks the API server for what it can find in a store.

mod hints;
mod mirror;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
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
    ENVIRONMENT_LABEL, MANAGED_BY, MANAGED_BY_LABEL, PART_DELIVERY, PART_LABEL,
};
use crate::domain::settings::Settings;

// A custom resource as it is watched: one that does not parse is an error of its own, and holds
// up no other (CVE-2022-39272 is what happens otherwise).
pub use kube::core::DeserializeGuard as Guarded;
pub use mirror::{Listed, Mirror};

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
    /// Each of these with the way to compare it with the API server.
    pub mirrors: Arc<[Mirror]>,
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
            kinds.insert(Watched::Deliveries);
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
        let delivered = Config::default().labels(&format!("{ours},{PART_LABEL}={PART_DELIVERY}"));

        let mut starter = Starter {
            tasks: tokio::task::JoinSet::new(),
            listeners,
            progress: progress.clone(),
            mirrors: Vec::new(),
        };
        let all = Config::default;
        let mut stores = Self {
            mirrors: Arc::new([]),
            signing_keys: starter.go(
                Watched::SigningKeys,
                Api::namespaced(client.clone(), namespace),
                all(),
                hints::of_custom_resource,
            ),
            subscriptions: starter.go(
                Watched::Subscriptions,
                Api::all(client.clone()),
                all(),
                hints::of_subscription,
            ),
            technical_users: starter.go(
                Watched::TechnicalUsers,
                Api::all(client.clone()),
                all(),
                hints::of_technical_user,
            ),
            secrets: starter.go(
                Watched::Secrets,
                Api::namespaced(client.clone(), namespace),
                mine.clone(),
                hints::of_secret,
            ),
            config_maps: starter.go(
                Watched::ConfigMaps,
                Api::namespaced(client.clone(), namespace),
                mine,
                hints::ring_of,
            ),
            deliveries: if scope == Scope::Operator {
                starter.go(
                    Watched::Deliveries,
                    Api::all(client.clone()),
                    delivered,
                    hints::of_delivery,
                )
            } else {
                reflector::store().0
            },
            progress,
        };
        stores.mirrors = starter.mirrors.into();
        (stores, starter.tasks)
    }

    /// Stores that are filled by hand rather than by watches: for simulations.
    #[doc(hidden)]
    pub fn by_hand() -> (Self, Hands) {
        let (signing_keys, of_signing_keys) = reflector::store();
        let (secrets, of_secrets) = reflector::store();
        let (config_maps, of_config_maps) = reflector::store();
        let stores = Self {
            signing_keys,
            subscriptions: reflector::store().0,
            technical_users: reflector::store().0,
            secrets,
            config_maps,
            deliveries: reflector::store().0,
            mirrors: Arc::new([]),
            progress: Arc::new(Progress {
                waiting: watch::Sender::new(BTreeSet::new()),
                tenancy: AtomicU64::new(0),
            }),
        };
        let hands = Hands {
            signing_keys: of_signing_keys,
            secrets: of_secrets,
            config_maps: of_config_maps,
        };
        (stores, hands)
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

    /// Everything that is there, as if it had just been made.
    pub fn everything(&self) -> Vec<Change> {
        use Watched::{
            ConfigMaps, Deliveries, Secrets, SigningKeys, Subscriptions, TechnicalUsers,
        };
        all_of(SigningKeys, &self.signing_keys, hints::of_custom_resource)
            .chain(all_of(
                Subscriptions,
                &self.subscriptions,
                hints::of_subscription,
            ))
            .chain(all_of(
                TechnicalUsers,
                &self.technical_users,
                hints::of_technical_user,
            ))
            .chain(all_of(Secrets, &self.secrets, hints::of_secret))
            .chain(all_of(ConfigMaps, &self.config_maps, hints::ring_of))
            .chain(all_of(Deliveries, &self.deliveries, hints::of_delivery))
            .collect()
    }

    /// The object of that name in a store.
    pub fn get<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        store.get(&ObjectRef::new(name).within(namespace))
    }
}

/// All that a store holds, as changes.
fn all_of<'a, K>(
    kind: Watched,
    store: &Store<K>,
    hints: impl Fn(&K) -> Vec<String> + 'a,
) -> impl Iterator<Item = Change> + 'a
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state().into_iter().map(move |object| Change {
        kind,
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        hints: hints(&object),
        spec: true,
    })
}

/// What fills [`Stores::by_hand`].
#[doc(hidden)]
pub struct Hands {
    /// `SigningKey`s of the operator namespace.
    pub signing_keys: reflector::store::Writer<Guarded<SigningKey>>,
    /// Our Secrets in the operator namespace.
    pub secrets: reflector::store::Writer<Secret>,
    /// Our ConfigMaps in the operator namespace.
    pub config_maps: reflector::store::Writer<ConfigMap>,
}

struct Starter {
    mirrors: Vec<Mirror>,
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
        self.mirrors
            .push(Mirror::new(kind, api.clone(), &config, store.clone()));
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
