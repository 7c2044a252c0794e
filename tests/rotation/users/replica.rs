//! One replica: the operator's visits, and the feed, with views that the scheduler brings up to date
//! when it pleases.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use chancery::api::v1alpha1::{Subscription, TechnicalUser};
use chancery::clock::ClockGuard;
use chancery::controllers::{Key, Kind, Operator};
use chancery::domain::client::StoredCredential;
use chancery::domain::clock_trust;
use chancery::domain::settings::Settings;
use chancery::embedded::Service;
use chancery::feed::Feed;
use chancery::leader::Leadership;
use chancery::serve::readiness::Readiness;
use chancery::stores::{Guarded, Hands, Stores};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::client::retry::RetryPolicy;
use tokio::sync::mpsc;
use tower::ServiceBuilder;
use tower::retry::RetryLayer;

use crate::simulation::gate::{Gate, Told};
use crate::simulation::replica::{HandClock, Visit, fill};

pub const TENANT: &str = "acme";
pub const USER: &str = "user";

pub struct Replica {
    pub number: usize,
    /// Counts its lives: what an earlier one still says is not heard.
    pub life: u64,
    pub clock: Arc<HandClock>,
    pub guard: ClockGuard,
    operator: Arc<Operator>,
    hands: Hands,
    feed: Feed,
    pub visit: Option<Visit>,
    /// When it visits the technical user next.
    pub due: i64,
    /// When each kind is looked at next, and the version of the world that was seen last.
    pub looks: [(i64, u64); 3],
    /// Until when it is cut off from the API server, or down.
    pub cut_until: i64,
    /// What its server takes for right.
    pub accepts: Vec<StoredCredential>,
}

/// What a look finds.
pub enum Found {
    Users(Vec<Guarded<TechnicalUser>>, Vec<Guarded<Subscription>>),
    Hashes(Vec<Secret>),
    Deliveries(Vec<Secret>),
}

impl Replica {
    pub fn new(
        (number, life): (usize, u64),
        clock: Arc<HandClock>,
        service: &Service,
        settings: &Arc<Settings>,
        desk: &mpsc::UnboundedSender<Told>,
    ) -> Self {
        let gate = Gate {
            inner: Arc::new(Mutex::new(service.clone())),
            desk: desk.clone(),
            replica: number,
            life,
        };
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryPolicy::server_retry()))
            .service(gate);
        let guard = ClockGuard::new(clock.clone(), clock_trust::Limits::default());
        let (stores, hands) = Stores::by_hand();
        let (_, changes) = mpsc::unbounded_channel();
        let operator = Operator::new(
            Client::new(service, "default"),
            settings.clone(),
            guard.clone(),
            stores.clone(),
            Leadership::always(),
            changes,
        );
        let now = clock.truth.load(Ordering::Relaxed);
        let nothing = Readiness::waiting_for([]);
        Self {
            number,
            life,
            guard,
            operator: Arc::new(operator),
            hands,
            feed: Feed::new(stores, settings.clone(), clock.clone(), nothing),
            clock,
            visit: None,
            due: now,
            looks: [(now, 0); 3],
            cut_until: 0,
            accepts: Vec::new(),
        }
    }

    /// Begins a visit.
    pub fn begin(&mut self, desk: &mpsc::UnboundedSender<Told>) {
        let key = Key {
            kind: Kind::TechnicalUser,
            namespace: TENANT.into(),
            name: USER.into(),
        };
        let of = (self.number, self.life);
        self.visit = Some(Visit::begin(of, &self.operator, key, desk));
    }

    /// Brings one kind of its view up to date.
    pub fn see(&mut self, found: Found) {
        match found {
            Found::Users(users, subscriptions) => {
                fill(&mut self.hands.subscriptions, subscriptions);
                fill(&mut self.hands.technical_users, users);
            }
            Found::Hashes(secrets) => fill(&mut self.hands.secrets, secrets),
            Found::Deliveries(secrets) => fill(&mut self.hands.deliveries, secrets),
        }
    }

    /// Serves what its view holds now.
    pub fn serve(&mut self) {
        let snapshot = self.feed.build(None);
        let client = snapshot.clients.get(&format!("{TENANT}.{USER}"));
        self.accepts = client.map(|c| c.credentials.clone()).unwrap_or_default();
    }

    /// Whether it has seen all kinds at least once.
    pub fn has_seen(&self) -> bool {
        self.looks.iter().all(|(_, version)| *version > 0)
    }
}
