//! One replica: the operator's visits, the feed and the snapshot, with views that the scheduler
//! brings up to date when it pleases.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chancery::api::v1alpha1::SigningKey;
use chancery::clock::{Clock, ClockGuard};
use chancery::controllers::{Key, Kind, Operator, PlanFn};
use chancery::domain::clock_trust;
use chancery::domain::settings::Settings;
use chancery::domain::staleness::{Contact, Limits};
use chancery::embedded::Service;
use chancery::feed::Feed;
use chancery::leader::Leadership;
use chancery::serve::readiness::Readiness;
use chancery::serve::snapshot::SnapshotStore;
use chancery::stores::{Guarded, Hands, Stores};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::client::retry::RetryPolicy;
use kube::runtime::watcher::Event;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tower::ServiceBuilder;
use tower::retry::RetryLayer;

use super::gate::{Gate, Told, Verdict};

/// True time in milliseconds, and a replica's error.
pub struct HandClock {
    pub truth: Arc<AtomicI64>,
    pub offset: AtomicI64,
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        let now = self.truth.load(Ordering::Relaxed) + self.offset.load(Ordering::Relaxed);
        Timestamp::from_millisecond(now).expect("a time")
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.truth.load(Ordering::Relaxed).unsigned_abs())
    }
}

/// A visit under way.
pub struct Visit {
    pub task: JoinHandle<()>,
    /// The call that waits for its verdict.
    pub waiting: Option<(String, oneshot::Sender<Verdict>)>,
}

impl Visit {
    /// Begins one, whose end the desk hears of.
    pub fn begin(
        (replica, life): (usize, u64),
        operator: &Arc<Operator>,
        key: Key,
        desk: &mpsc::UnboundedSender<Told>,
    ) -> Self {
        let (operator, desk) = (operator.clone(), desk.clone());
        let task = tokio::spawn(async move {
            let outcome = operator.visit(&key).await.map_err(|e| e.to_string());
            let _ = desk.send(Told::Done {
                replica,
                life,
                outcome,
            });
        });
        Self {
            task,
            waiting: None,
        }
    }
}

pub struct Replica {
    pub number: usize,
    /// Counts its lives: what an earlier one still says is not heard.
    pub life: u64,
    pub clock: Arc<HandClock>,
    pub guard: ClockGuard,
    pub operator: Arc<Operator>,
    pub hands: Hands,
    pub feed: Feed,
    pub snapshots: Arc<SnapshotStore>,
    pub visit: Option<Visit>,
    /// When it visits the ring next.
    pub due: i64,
    /// When each kind is looked at next, and the version of the world that was seen last.
    pub looks: [(i64, u64); 3],
    /// When it is cut off from the API server until.
    pub cut_until: i64,
    /// Which kids its JWKS held from when on.
    pub served: Vec<(i64, Arc<Vec<String>>)>,
    /// Since when and until when it was out of contact for too long to be ready.
    pub limits: Limits,
}

pub struct Making<'a> {
    pub service: &'a Service,
    pub settings: &'a Arc<Settings>,
    pub desk: &'a mpsc::UnboundedSender<Told>,
    pub plan: PlanFn,
    pub limits: Limits,
}

impl Replica {
    pub fn new(number: usize, life: u64, clock: Arc<HandClock>, make: &Making<'_>) -> Self {
        let gate = Gate {
            inner: Arc::new(Mutex::new(make.service.clone())),
            desk: make.desk.clone(),
            replica: number,
            life,
        };
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryPolicy::server_retry()))
            .service(gate);
        let client = Client::new(service, "default");
        let guard = ClockGuard::new(clock.clone(), clock_trust::Limits::default());
        let (stores, hands) = Stores::by_hand();
        let (_, changes) = mpsc::unbounded_channel();
        let operator = Operator::new(
            client,
            make.settings.clone(),
            guard.clone(),
            stores.clone(),
            Leadership::always(),
            changes,
        )
        .with_plan(make.plan);
        let now = clock.truth.load(Ordering::Relaxed);
        Self {
            number,
            life,
            guard,
            operator: Arc::new(operator),
            hands,
            feed: Feed::new(
                stores,
                make.settings.clone(),
                clock.clone(),
                Readiness::waiting_for([]),
            ),
            snapshots: SnapshotStore::new(clock.clone()),
            clock,
            visit: None,
            due: now,
            looks: [(now, 0); 3],
            cut_until: 0,
            served: Vec::new(),
            limits: make.limits,
        }
    }

    /// Begins a visit to the ring.
    pub fn begin(&mut self, ring: &Key, desk: &mpsc::UnboundedSender<Told>) {
        let of = (self.number, self.life);
        self.visit = Some(Visit::begin(of, &self.operator, ring.clone(), desk));
    }

    /// Brings one kind of its view up to date.
    pub fn see(&mut self, kind: usize, found: Found) {
        match (kind, found) {
            (0, Found::Rings(rings)) => fill(&mut self.hands.signing_keys, rings),
            (1, Found::Secrets(secrets)) => fill(&mut self.hands.secrets, secrets),
            (_, Found::Maps(maps)) => fill(&mut self.hands.config_maps, maps),
            _ => {}
        }
    }

    /// Serves what its view holds now; `contact`: the API server knows no more.
    pub fn serve(&mut self, now: i64) {
        let snapshot = {
            let before = self.snapshots.load();
            self.feed.build(before.snapshot.jwks.as_ref())
        };
        let kids: Vec<String> = snapshot
            .jwks
            .iter()
            .flat_map(|j| j.keys.keys.iter().map(|k| k.kid.clone()))
            .collect();
        if self
            .served
            .last()
            .is_none_or(|(_, before)| **before != kids)
        {
            self.served.push((now, Arc::new(kids)));
        }
        let contact = Contact {
            wall: self.clock.now(),
            elapsed: self.clock.elapsed(),
        };
        self.snapshots.publish_proven(snapshot, contact);
    }

    /// Whether it has seen all kinds at least once.
    pub fn has_seen(&self) -> bool {
        self.looks.iter().all(|(_, version)| *version > 0)
    }
}

pub enum Found {
    Rings(Vec<Guarded<SigningKey>>),
    Secrets(Vec<Secret>),
    Maps(Vec<ConfigMap>),
}

pub fn fill<K>(writer: &mut kube::runtime::reflector::store::Writer<K>, objects: Vec<K>)
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
}

/// The only ring.
pub fn ring() -> Key {
    Key {
        kind: Kind::SigningKey,
        namespace: "chancery-system".into(),
        name: "main".into(),
    }
}
