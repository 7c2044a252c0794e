//! The loop that drives every kind: changes come in from the watches, objects are visited, and
//! each visit says when to come back.

mod concerns;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use self::concerns::with_providers;
use super::events::Events;
use super::queue::Queue;
use super::signing_key::PlanFn;
use super::visit::visit;
use super::{
    Error, Key, cluster_keys, enrolments, oidc_provider, outbox, signing_key, technical_user,
};
use crate::clock::ClockGuard;
use crate::crypto::random;
use crate::domain::settings::Settings;
use crate::domain::{names, rotation};
use crate::leader::Leadership;
use crate::objects::jwks_map::Share;
use crate::stores::{Change, Stores};
use crate::tenancy::{PeopleCache, Tenancy, TenancyCache};

/// How many visits are under way at once.
const CONCURRENCY: usize = 8;
/// How soon to look again when the world was not as it was seen; its watch usually wakes us first.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The same where somebody waits for it.
const LOOK_AGAIN_URGENTLY: Duration = Duration::from_millis(100);
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
    pub(super) people: PeopleCache,
    pub(super) enrolled: enrolments::Lately,
    pub(super) proofs: technical_user::Proofs,
    pub(super) hashing: technical_user::Hashing,
    pub(super) paces: technical_user::Paces,
    pub(super) made: technical_user::Made,
    pub(super) troubles: signing_key::Troubles,
    pub(super) parsed_keys: signing_key::ParsedKeys,
    pub(super) cluster_keys: cluster_keys::Followed,
    pub(super) revocations: outbox::Remembered,
    pub(super) providers: oidc_provider::Fetches,
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
    /// What was last seen of the rings that others have to know.
    told: Vec<signing_key::Told>,
    /// What the issuer's ConfigMap was last seen to hold, by ring.
    shares: BTreeMap<String, Share>,
    /// Which technical users name which Secrets.
    supplied: technical_user::Index,
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
            people: PeopleCache::default(),
            enrolled: enrolments::Lately::default(),
            proofs: technical_user::Proofs::default(),
            hashing: technical_user::Hashing::default(),
            paces: technical_user::Paces::default(),
            made: technical_user::Made::default(),
            troubles: signing_key::Troubles::default(),
            parsed_keys: signing_key::ParsedKeys::default(),
            cluster_keys: cluster_keys::Followed::default(),
            revocations: outbox::Remembered::default(),
            providers: oidc_provider::Fetches::default(),
            plan: rotation::plan,
        };
        Self {
            cx: Arc::new(cx),
            changes,
            signing_rings: Vec::new(),
            told: Vec::new(),
            shares: BTreeMap::new(),
            supplied: technical_user::Index::default(),
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
        let fetch = oidc_provider::follow(&followed);
        tokio::pin!(follow, fetch);
        let mut led = false;
        loop {
            let leads = leadership.leads();
            if leads && !led {
                for change in self.cx.stores.everything() {
                    self.enqueue(&change, &mut queue);
                }
                // Whether it is there or not.
                queue.add(self.outbox(), Instant::now());
                queue.add(self.wanted_keys(), Instant::now());
                queue.add(self.enrolments(), Instant::now());
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
            let due = queue.next_due(Instant::now()).filter(|_| leads && !idle);
            tokio::select! {
                () = &mut stop => break,
                () = &mut follow => {}
                () = &mut fetch => {}
                answered = followed.providers.answered() => with_providers(&mut queue, answered),
                () = followed.cluster_keys.changed() => self.with_service_accounts(&mut queue, None),
                hashed = followed.hashing.finished() => {
                    for key in hashed {
                        queue.add(key, Instant::now());
                    }
                }
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
                let wait = if queue.is_urgent(&key) {
                    LOOK_AGAIN_URGENTLY
                } else {
                    LOOK_AGAIN
                };
                queue.add(key, now + wait);
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

    /// How long it is until then; nothing if that has passed.
    fn wait(&self, at: Timestamp) -> Duration {
        let wait = at.duration_since(self.cx.clock_guard.moment().now);
        Duration::try_from(wait).unwrap_or_default()
    }
}
