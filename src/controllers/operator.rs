//! The loop that drives every kind: changes come in from the watches, objects are visited, and
//! each visit says when to come back.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use super::events::Events;
use super::queue::Queue;
use super::signing_key::PlanFn;
use super::visit::visit;
use super::{Error, Key, Kind, cluster_keys, signing_key, technical_user};
use crate::clock::ClockGuard;
use crate::crypto::random;
use crate::domain::settings::Settings;
use crate::domain::{names, rotation};
use crate::leader::Leadership;
use crate::objects::jwks_map::{self, Share};
use crate::stores::{Change, Stores, Watched};
use crate::tenancy::{Tenancy, TenancyCache};

/// How many visits are under way at once.
const CONCURRENCY: usize = 8;
/// How soon to look again when the world was not as it was seen; its watch usually wakes us first.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How soon at the earliest to try again what was refused, where something is due by the clock.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// The longest sleep: a wake-up further off is looked at again in between.
const LONGEST_SLEEP: Duration = Duration::from_hours(1);

/// How long one read may take.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(10);

/// What every visit needs.
pub struct Context {
    /// The way to the API server.
    pub client: Client,
    /// The release's settings.
    pub settings: Arc<Settings>,
    /// The time, and whether to believe it.
    pub clock_guard: ClockGuard,
    /// What is watched.
    pub stores: Stores,
    /// Whether this process may write.
    pub leadership: Leadership,
    pub(super) events: Events,
    pub(super) tenancy: TenancyCache,
    pub(super) proofs: technical_user::Proofs,
    pub(super) made: technical_user::Made,
    pub(super) troubles: signing_key::Troubles,
    pub(super) parsed_keys: signing_key::ParsedKeys,
    pub(super) cluster_keys: cluster_keys::Followed,
    pub(super) plan: PlanFn,
}

impl Context {
    /// Asks the API server for an object; none if it says that there is none.
    pub(super) async fn get<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let what = || format!("reading {} {namespace}/{name}", K::kind(&()));
        if !names::is_object_name(name) || !names::is_object_name(namespace) {
            // It could be no object, and must not become part of a path.
            return Ok(None);
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        match tokio::time::timeout(READ_LIMIT, api.get_opt(name)).await {
            Err(_) => Err(Error::Timeout(what())),
            Ok(result) => result.map_err(|source| Error::Api {
                what: what(),
                source: Box::new(source),
            }),
        }
    }

    pub(super) fn tenancy(&self) -> Arc<Tenancy> {
        self.tenancy.get(&self.stores, &self.settings)
    }
}

/// How a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All was done; come back at that time, if any.
    Settled(Option<Timestamp>),
    /// The API server refused a write: try again, and come back at that time at the latest, if any.
    Refused(Option<Timestamp>),
    /// The world was not as it was seen.
    LookAgain,
}

/// The operator's loop.
pub struct Operator {
    cx: Arc<Context>,
    changes: mpsc::UnboundedReceiver<Change>,
    signing_rings: Vec<String>,
    /// What was last seen of each ring that others have to know: whether it has an active key, and is
    /// the one that signs.
    standings: Vec<(String, bool, bool)>,
    /// What the issuer's ConfigMap was last seen to hold, by ring.
    shares: BTreeMap<String, Share>,
}

impl Operator {
    /// An operator on these stores, which it need not have seen synced.
    pub fn new(
        client: Client,
        settings: Arc<Settings>,
        clock_guard: ClockGuard,
        stores: Stores,
        leadership: Leadership,
        changes: mpsc::UnboundedReceiver<Change>,
    ) -> Self {
        let cx = Context {
            events: Events::new(client.clone()),
            client,
            settings,
            clock_guard,
            stores,
            leadership,
            tenancy: TenancyCache::default(),
            proofs: technical_user::Proofs::default(),
            made: technical_user::Made::default(),
            troubles: signing_key::Troubles::default(),
            parsed_keys: signing_key::ParsedKeys::default(),
            cluster_keys: cluster_keys::Followed::default(),
            plan: rotation::plan,
        };
        Self {
            cx: Arc::new(cx),
            changes,
            signing_rings: Vec::new(),
            standings: Vec::new(),
            shares: BTreeMap::new(),
        }
    }

    /// One visit, as the loop makes it: for simulations, which have a loop of their own.
    #[doc(hidden)]
    pub async fn visit(&self, key: &Key) -> Result<Outcome, Error> {
        visit(&self.cx, key).await
    }

    /// With another engine: a broken one, to see that it would be caught.
    #[doc(hidden)]
    #[must_use]
    pub fn with_plan(mut self, plan: PlanFn) -> Self {
        if let Some(cx) = Arc::get_mut(&mut self.cx) {
            cx.plan = plan;
        }
        self
    }

    /// Visits everything once the stores are synced and this process leads, and then whatever
    /// changes, until `stop` completes. Visits under way are ended first.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        tokio::select! {
            () = self.cx.stores.synced() => {}
            () = &mut stop => return,
        }
        let mut queue = Queue::default();
        let mut visits = FuturesUnordered::new();
        let leadership = self.cx.leadership.clone();
        let followed = self.cx.clone();
        let follow = cluster_keys::follow(&followed);
        tokio::pin!(follow);
        let mut led = false;
        loop {
            let leads = leadership.leads();
            if leads && !led {
                for change in self.cx.stores.everything() {
                    self.enqueue(&change, &mut queue);
                }
                // Whether it is there or not.
                queue.add(self.outbox(), Instant::now());
            } else if !leads && visits.is_empty() {
                // The stores remember what is there. A queue that nobody works off would grow.
                queue = Queue::default();
            }
            led = leads;
            while let Ok(change) = self.changes.try_recv() {
                self.enqueue(&change, &mut queue);
            }
            while leads
                && visits.len() < CONCURRENCY
                && let Some(key) = queue.take(Instant::now())
            {
                let cx = self.cx.clone();
                visits.push(async move {
                    // A bug in one visit is a failed visit, and not the end of them all.
                    let outcome = AssertUnwindSafe(visit(&cx, &key)).catch_unwind().await;
                    let outcome = outcome.unwrap_or(Err(Error::Panicked));
                    (key, outcome)
                });
            }
            let idle = visits.len() >= CONCURRENCY;
            let due = queue.next_due().filter(|_| leads && !idle);
            tokio::select! {
                () = &mut stop => break,
                () = &mut follow => {}
                () = followed.cluster_keys.changed() => self.with_service_accounts(&mut queue, None),
                () = leadership.becomes(!leads) => {}
                change = self.changes.recv() => match change {
                    Some(change) => self.enqueue(&change, &mut queue),
                    None => break,
                },
                Some((key, outcome)) = visits.next(), if !visits.is_empty() => {
                    self.settle(key, outcome, &mut queue);
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
        // What was begun is ended: a list of writes is short, and each has its limit.
        while visits.next().await.is_some() {}
    }

    fn settle(&self, key: Key, outcome: Result<Outcome, Error>, queue: &mut Queue) {
        let now = Instant::now();
        match outcome {
            Ok(Outcome::Settled(wake_at)) => {
                queue.done(&key);
                if let Some(at) = wake_at {
                    // A wake-up in the past would be a hot loop; a second is soon enough.
                    let wait = self.wait(at).max(Duration::from_millis(50));
                    queue.add(key, now + wait.min(LONGEST_SLEEP));
                }
            }
            Ok(Outcome::LookAgain) => {
                queue.done(&key);
                queue.add(key, now + LOOK_AGAIN);
            }
            Ok(Outcome::Refused(wake_at)) => {
                queue.failed(key.clone(), now, random::fraction());
                if let Some(at) = wake_at {
                    // What comes by the clock does not wait for what is refused.
                    queue.at_the_latest(key, now + self.wait(at).max(LEAST_PAUSE));
                }
            }
            Err(error) => {
                let (kind, namespace, name) =
                    (key.kind.name(), key.namespace.clone(), key.name.clone());
                let wait = queue.failed(key, now, random::fraction());
                warn!(kind, ?namespace, ?name, %error, wait_ms = wait.as_millis(), "a visit failed; trying again");
            }
        }
    }

    fn outbox(&self) -> Key {
        Key {
            kind: Kind::Outbox,
            namespace: self.cx.settings.operator_namespace.clone(),
            name: names::OUTBOX.to_owned(),
        }
    }

    /// The technical users that authenticate with a `ServiceAccount`, or with that one.
    fn with_service_accounts(&self, queue: &mut Queue, which: Option<(&str, &str)>) {
        for user in self.cx.stores.technical_users.state() {
            let Ok(user) = &user.0 else { continue };
            let Some(credential) = &user.spec.credential.service_account else {
                continue;
            };
            let of = user.namespace().unwrap_or_default();
            let account = (
                credential.namespace.as_deref().unwrap_or(&of),
                credential.name.as_str(),
            );
            if which.is_none_or(|which| which == account) {
                let key = Key {
                    kind: Kind::TechnicalUser,
                    namespace: of.clone(),
                    name: user.name_any(),
                };
                queue.add(key, Instant::now());
            }
        }
    }

    /// How long it is until then; nothing if that has passed.
    fn wait(&self, at: Timestamp) -> Duration {
        let wait = at.duration_since(self.cx.clock_guard.moment().now);
        Duration::try_from(wait).unwrap_or_default()
    }

    /// Whom a change concerns.
    fn enqueue(&mut self, change: &Change, queue: &mut Queue) {
        let now = Instant::now();
        let Change {
            kind,
            namespace,
            name,
            hints,
            spec,
        } = change;
        if *kind == Watched::SigningKeys {
            let key = Key {
                kind: Kind::SigningKey,
                namespace: namespace.clone(),
                name: name.clone(),
            };
            if *spec {
                // An emergency is not to wait for what failed before.
                queue.forgive(&key);
            }
            let rings = &self.cx.stores.signing_keys;
            let ring = Stores::get(rings, namespace, name);
            let ring = ring.as_ref().and_then(|ring| ring.0.as_ref().ok());
            queue.set_urgent(key, ring.is_some_and(signing_key::is_urgent));
        }
        let mut add = |kind, namespace: &str, name: &str| {
            queue.add(
                Key {
                    kind,
                    namespace: namespace.into(),
                    name: name.into(),
                },
                now,
            );
        };
        let operator_namespace = self.cx.settings.operator_namespace.as_str();
        match kind {
            Watched::SigningKeys => {
                add(Kind::SigningKey, namespace, name);
                let rings = technical_user::signing_rings(&self.cx.stores);
                let others_sign = rings != self.signing_rings;
                let standings = signing_key::standings(&self.cx.stores);
                if *spec || standings != self.standings {
                    self.standings = standings;
                    // What it publishes no more may be another's now, and another one may sign.
                    for ring in self.cx.stores.signing_keys.state() {
                        add(Kind::SigningKey, operator_namespace, &ring.name_any());
                    }
                }
                if others_sign {
                    self.signing_rings = rings;
                    for user in self.cx.stores.technical_users.state() {
                        add(
                            Kind::TechnicalUser,
                            &user.namespace().unwrap_or_default(),
                            &user.name_any(),
                        );
                    }
                }
            }
            Watched::Subscriptions => {
                add(Kind::Subscription, namespace, name);
                if *spec {
                    // Its namespace, and whoever names the same legal entity.
                    for other in self.cx.stores.subscriptions.state() {
                        let Ok(other) = &other.0 else { continue };
                        let (of, id) = (
                            other.namespace().unwrap_or_default(),
                            &other.spec.legal_entity.id,
                        );
                        if of == *namespace || hints.contains(id) {
                            add(Kind::Subscription, &of, &other.name_any());
                        }
                    }
                    for user in self.cx.stores.technical_users.state() {
                        let of = user.namespace().unwrap_or_default();
                        if of == *namespace {
                            add(Kind::TechnicalUser, &of, &user.name_any());
                        }
                    }
                }
            }
            Watched::TechnicalUsers => {
                add(Kind::TechnicalUser, namespace, name);
                if *spec {
                    let tenancy = self.cx.tenancy();
                    for claim in hints
                        .iter()
                        .filter_map(|id| tenancy.claims.get(id))
                        .flatten()
                    {
                        add(Kind::TechnicalUser, &claim.namespace, &claim.name);
                    }
                }
            }
            Watched::Secrets => match hints.as_slice() {
                [ring] => add(Kind::SigningKey, operator_namespace, ring),
                [namespace, name] => add(Kind::TechnicalUser, namespace, name),
                _ => {}
            },
            Watched::ConfigMaps if name == names::ISSUER_JWKS => {
                let map = Stores::get(&self.cx.stores.config_maps, namespace, name);
                let environment = &self.cx.settings.environment;
                let ours = map.filter(|map| jwks_map::is_issuer_map(map, environment));
                let shares = ours.as_deref().map(jwks_map::shares).unwrap_or_default();
                let whole = ours.is_some_and(|map| jwks_map::is_whole(&map, &shares));
                let before = std::mem::replace(&mut self.shares, shares);
                let changed = |ring: &str| !whole || before.get(ring) != self.shares.get(ring);
                for ring in self.cx.stores.signing_keys.state() {
                    let ring_name = ring.name_any();
                    // One that brings its key may wait for another ring to give that up.
                    let waits = ring
                        .0
                        .as_ref()
                        .is_ok_and(|ring| ring.spec.private_key.is_some());
                    if waits || changed(&ring_name) {
                        add(Kind::SigningKey, operator_namespace, &ring_name);
                    }
                }
                // A ring that is gone may still have its share.
                for ring in self.shares.keys().filter(|ring| changed(ring)) {
                    add(Kind::SigningKey, operator_namespace, ring);
                }
            }
            Watched::ConfigMaps if [names::OUTBOX, names::REVOCATIONS].contains(&name.as_str()) => {
                add(Kind::Outbox, operator_namespace, names::OUTBOX);
            }
            Watched::ConfigMaps if name == names::CLUSTER_KEYS => {
                self.cx.cluster_keys.stir();
                self.with_service_accounts(queue, None);
            }
            Watched::ServiceAccounts => {
                self.with_service_accounts(queue, Some((namespace, name)));
            }
            Watched::ConfigMaps => {
                for ring in hints {
                    add(Kind::SigningKey, operator_namespace, ring);
                }
            }
            Watched::Namespaces => {
                if name == operator_namespace {
                    add(Kind::Outbox, operator_namespace, names::OUTBOX);
                }
                for ring in signing_key::publishing(&self.cx.stores, None) {
                    add(Kind::SigningKey, operator_namespace, &ring);
                }
            }
            Watched::Published => {
                let others = signing_key::publishing(&self.cx.stores, Some(name));
                for ring in hints.iter().chain(&others) {
                    add(Kind::SigningKey, operator_namespace, ring);
                }
            }
            Watched::NamedSecrets => {
                for ring in signing_key::brought_from(&self.cx.stores, name) {
                    add(Kind::SigningKey, operator_namespace, &ring);
                }
            }
            Watched::Deliveries => {
                for owner in hints {
                    add(Kind::TechnicalUser, namespace, owner);
                }
            }
        }
    }
}
