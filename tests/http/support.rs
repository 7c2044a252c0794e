//! Hand-made snapshots and a client without a network.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chancery::clock::{Clock, SharedClock};
use chancery::crypto::key_pair::KeyPair;
use chancery::crypto::{hash, secret};
use chancery::domain::algorithm::{Algorithm, RsaKeySize};
use chancery::domain::client::{Client, Family, StoredCredential};
use chancery::domain::enrolment::Newcomer;
use chancery::domain::jwk::JwkSet;
use chancery::domain::settings::{Settings, ThrottleSettings};
use chancery::domain::subscription::{Allowed, SubscriptionFacts};
use chancery::serve::app::{App, Parts};
use chancery::serve::enrol::Enrolments;
use chancery::serve::metrics::Metrics;
use chancery::serve::outside_token::KeysWanted;
use chancery::serve::readiness::Readiness;
use chancery::serve::replay::ReplayLimits;
use chancery::serve::revoke::{Note, Outbox, Unnoted};
use chancery::serve::secrets::{HashLimits, Secrets};
use chancery::serve::snapshot::{PublishedJwks, Ring, Snapshot, SnapshotStore};
use chancery::serve::trust::OutsideProvider;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use prometheus_client::registry::Registry;

pub const ISSUER: &str = "https://id.example.com";
pub const NOW: i64 = 1_800_000_000;

/// A clock that stands still until it is set; negative: it panics.
#[derive(Debug)]
pub struct TestClock(pub AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let second = self.0.load(Ordering::Relaxed);
        assert!(second >= 0, "the clock is broken on purpose");
        Timestamp::from_second(second).expect("a time")
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(
            self.0
                .load(Ordering::Relaxed)
                .try_into()
                .unwrap_or_default(),
        )
    }
}

/// An outbox that remembers what it was given, and answers as it was told to.
#[derive(Default)]
pub struct TestOutbox {
    pub notes: Mutex<Vec<Note>>,
    pub refuses: Mutex<Option<Unnoted>>,
}

impl Outbox for TestOutbox {
    fn note(&self, note: Note) -> BoxFuture<'static, Result<(), Unnoted>> {
        let refuses = *self.refuses.lock().expect("a lock");
        if refuses.is_none() {
            self.notes.lock().expect("a lock").push(note);
        }
        async move { refuses.map_or(Ok(()), Err) }.boxed()
    }
}

/// Remembers whose keys were wanted.
#[derive(Default)]
pub struct Wanted(pub Mutex<Vec<String>>);

impl KeysWanted for Wanted {
    fn want(&self, provider: &OutsideProvider) {
        let mut all = self.0.lock().expect("a lock");
        all.push(provider.provider.id());
    }
}

/// The same for people who are new.
#[derive(Default)]
pub struct TestEnrolments {
    pub notes: Mutex<Vec<Newcomer>>,
    pub refuses: Mutex<Option<Unnoted>>,
}

impl Enrolments for TestEnrolments {
    fn note(&self, newcomer: Newcomer) -> BoxFuture<'static, Result<(), Unnoted>> {
        let refuses = *self.refuses.lock().expect("a lock");
        if refuses.is_none() {
            self.notes.lock().expect("a lock").push(newcomer);
        }
        async move { refuses.map_or(Ok(()), Err) }.boxed()
    }
}

/// A server with everything that feeds it.
pub struct World {
    pub outbox: Arc<TestOutbox>,
    pub wanted: Arc<Wanted>,
    pub enrolments: Arc<TestEnrolments>,
    pub app: Arc<App>,
    pub store: Arc<SnapshotStore>,
    pub clock: Arc<TestClock>,
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    pub registry: Arc<Registry>,
}

/// What a client read.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |v| v.to_str().expect("a text"))
    }

    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(ISSUER, HashLimits::default())
    }

    pub fn with(issuer: &str, hash_limits: HashLimits) -> Self {
        Self::with_body_timeout(issuer, hash_limits, Duration::from_mins(1))
    }

    /// One that remembers no more assertions than that.
    pub fn with_replay(replay_limits: ReplayLimits) -> Self {
        Self::with_all(
            ISSUER,
            HashLimits::default(),
            Duration::from_mins(1),
            replay_limits,
        )
    }

    pub fn with_body_timeout(
        issuer: &str,
        hash_limits: HashLimits,
        body_timeout: Duration,
    ) -> Self {
        Self::with_all(issuer, hash_limits, body_timeout, ReplayLimits::default())
    }

    fn with_all(
        issuer: &str,
        hash_limits: HashLimits,
        body_timeout: Duration,
        replay_limits: ReplayLimits,
    ) -> Self {
        let settings = Settings {
            issuer: issuer.into(),
            ..Settings::default()
        };
        Self::of(settings, hash_limits, body_timeout, replay_limits, |s| s)
    }

    pub fn with_settings(settings: Settings) -> Self {
        Self::made(
            settings,
            HashLimits::default(),
            Duration::from_mins(1),
            |s| s,
        )
    }

    /// One that is throttled as these settings say.
    pub fn throttled(throttle: ThrottleSettings, hash_limits: HashLimits) -> Self {
        let settings = Settings {
            issuer: ISSUER.into(),
            throttle,
            ..Settings::default()
        };
        Self::made(settings, hash_limits, Duration::from_mins(1), |s| s)
    }

    /// One with these settings and this checker of secrets.
    pub fn made(
        settings: Settings,
        hash_limits: HashLimits,
        body_timeout: Duration,
        prepare: impl FnOnce(Secrets) -> Secrets,
    ) -> Self {
        let replay_limits = ReplayLimits::default();
        Self::of(settings, hash_limits, body_timeout, replay_limits, prepare)
    }

    fn of(
        settings: Settings,
        hash_limits: HashLimits,
        body_timeout: Duration,
        replay_limits: ReplayLimits,
        prepare: impl FnOnce(Secrets) -> Secrets,
    ) -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(NOW)));
        let store = SnapshotStore::new(Arc::clone(&clock) as SharedClock);
        let readiness = Readiness::waiting_for([]);
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::register(&mut registry));
        assert_eq!(settings.problems(), Vec::<String>::new());
        let outbox = Arc::<TestOutbox>::default();
        let wanted = Arc::<Wanted>::default();
        let enrolments = Arc::<TestEnrolments>::default();
        let parts = Parts {
            settings: Arc::new(settings),
            snapshots: Arc::clone(&store),
            clock: Arc::clone(&clock) as SharedClock,
            readiness: readiness.clone(),
            metrics: Arc::clone(&metrics),
            hash_limits,
            replay_limits,
            body_timeout,
            outbox: Arc::clone(&outbox) as Arc<dyn Outbox>,
            keys_wanted: Arc::clone(&wanted) as Arc<dyn KeysWanted>,
            enrolments: Arc::clone(&enrolments) as Arc<dyn Enrolments>,
        };
        let app = App::with_secrets(parts, prepare);
        Self {
            outbox,
            wanted,
            enrolments,
            app,
            store,
            clock,
            readiness,
            metrics,
            registry: Arc::new(registry),
        }
    }

    /// One that serves `client` with an ES256 key.
    pub fn serving(client: Client) -> Self {
        let world = Self::new();
        world
            .store
            .publish(snapshot([ring("main", &es256())], [client]));
        world
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (head, body) = self.app.respond(request).await.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Full::default()).expect("a request"))
            .await
    }

    /// Posts a form with Basic credentials.
    pub async fn token(&self, client_id: &str, secret: &str, more: &str) -> Answer {
        let body = format!("grant_type=client_credentials{more}");
        self.send(post(&[("authorization", &basic(client_id, secret))], body))
            .await
    }
}

/// A request to revoke a token, with Basic credentials.
pub fn revocation(client_id: &str, secret: &str, token: &str) -> Request<Full<Bytes>> {
    let mut request = post(
        &[("authorization", &basic(client_id, secret))],
        format!("token={token}&token_type_hint=access_token"),
    );
    *request.uri_mut() = "/oauth/revoke".parse().expect("a path");
    request
}

/// A request to introspect a token, with Basic credentials.
pub fn introspection(client_id: &str, secret: &str, token: &str) -> Request<Full<Bytes>> {
    let mut request = post(
        &[("authorization", &basic(client_id, secret))],
        format!("token={token}&token_type_hint=access_token"),
    );
    *request.uri_mut() = "/oauth/introspect".parse().expect("a path");
    request
}

/// A token request with these headers and a form's Content-Type unless one is given.
pub fn post(headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::post("/oauth/token");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/x-www-form-urlencoded");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).expect("a request")
}

pub fn basic(client_id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{client_id}:{secret}")))
}

pub fn key(algorithm: Algorithm) -> Arc<KeyPair> {
    let pem = KeyPair::generate_pem(algorithm, RsaKeySize::Bits2048).expect("a key");
    Arc::new(KeyPair::from_pem(algorithm, &pem).expect("a key pair"))
}

/// One key for all tests that do not care.
pub fn es256() -> Arc<KeyPair> {
    static KEY: OnceLock<Arc<KeyPair>> = OnceLock::new();
    Arc::clone(KEY.get_or_init(|| key(Algorithm::ES256)))
}

pub fn ring(name: &str, active: &Arc<KeyPair>) -> Arc<Ring> {
    Arc::new(Ring {
        name: name.into(),
        active: Arc::clone(active),
        standing: chancery::domain::preference::Standing::default(),
    })
}

pub fn jwks<'a>(keys: impl IntoIterator<Item = &'a Arc<KeyPair>>) -> PublishedJwks {
    let keys = JwkSet {
        keys: keys.into_iter().map(|k| k.public_jwk().clone()).collect(),
    };
    PublishedJwks {
        document: keys.to_document().into(),
        etag: "\"tag\"".into(),
        keys,
    }
}

pub fn snapshot<const R: usize, const C: usize>(
    rings: [Arc<Ring>; R],
    clients: [Client; C],
) -> Snapshot {
    let tenants = clients.iter();
    let tenants = tenants.map(|c| (c.namespace.clone(), Arc::clone(&c.subscriptions)));
    Snapshot {
        tenants: tenants.collect(),
        jwks: Some(jwks(rings.iter().map(|r| &r.active))),
        client_rings: rings.into(),
        human_rings: Vec::new(),
        human_keys: HashSet::new(),
        providers: Vec::new(),
        people: Arc::default(),
        inactive_providers: HashSet::new(),
        legal_entities: HashSet::new(),
        clients: HashMap::from(clients.map(|c| (c.id.clone(), Arc::new(c)))),
        trusted: HashMap::new(),
        shortest_publish_lead: None,
        revoked: Arc::default(),
    }
}

pub fn credential(id: &str, secret: &str, created: i64) -> StoredCredential {
    StoredCredential {
        id: id.into(),
        hash: hash::hash(secret, hash::GENERATED_COST).expect("hashed"),
        created_at: Timestamp::from_second(created).expect("a time"),
        expires_at: None,
    }
}

/// One that a person supplies, of the least cost that it can have.
pub fn supplied(id: &str, secret: &str, cost: u32) -> StoredCredential {
    StoredCredential {
        hash: hash::hash(secret, cost).expect("hashed"),
        ..credential(id, secret, 1)
    }
}

pub fn new_secret() -> String {
    secret::generate(Family::Integration).as_str().to_owned()
}

/// The technical user `acme.robot` with one secret.
pub fn robot() -> (Client, String) {
    let secret = new_secret();
    let subscription = SubscriptionFacts {
        namespace: "acme".into(),
        name: "main".into(),
        created: Timestamp::UNIX_EPOCH,
        uid: "uid".into(),
        environment: "default".into(),
        legal_entity_id: "le-acme".into(),
        legal_entity_name: "Acme".into(),
        tier: "Free".into(),
        allowed: Allowed {
            scopes: vec!["*".into()],
            roles: vec!["*".into()],
            audiences: vec!["*".into()],
            client_ids: Vec::new(),
        },
        entitlements: std::collections::BTreeMap::default(),
        period_from: None,
        period_to: None,
    };
    let client = Client {
        id: "acme.robot".into(),
        family: Family::Integration,
        namespace: "acme".into(),
        name: "robot".into(),
        suspended: false,
        created_at: None,
        last_revocation: None,
        introspect: false,
        on_behalf_of: false,
        roles: vec!["READER".into()],
        scopes: vec!["read".into(), "write".into()],
        audiences: vec!["https://api.example.com".into(), "reports".into()],
        token_ttl: None,
        token_rate: None,
        signing_key: None,
        credentials: vec![credential("c1", &secret, 1)],
        companion: None,
        subscriptions: Arc::new(vec![subscription]),
    };
    (client, secret)
}

/// Waits until a condition holds; it fails the test if that takes absurdly long.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap_or_else(|_| panic!("never happened: {what}"));
}
