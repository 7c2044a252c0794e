//! The operator on the embedded API server, killed at every write: before it, after it, and with
//! the answer lost. Whatever happens, what is there in the end is one key, one secret, no orphan,
//! and a token.

#[path = "converge/companion.rs"]
mod companion;
#[path = "converge/credentials.rs"]
mod credentials;
#[path = "converge/enrolments.rs"]
mod enrolments;
#[path = "converge/exchange.rs"]
mod exchange;
#[path = "converge/flapping.rs"]
mod flapping;
#[path = "converge/jwks.rs"]
mod jwks;
#[path = "converge/obstacles.rs"]
mod obstacles;
#[path = "converge/one_time.rs"]
mod one_time;
#[path = "converge/provider.rs"]
mod provider;
#[path = "converge/revoked.rs"]
mod revoked;
#[path = "converge/scene.rs"]
mod scene;
#[path = "converge/street.rs"]
mod street;
#[path = "converge/tampered.rs"]
mod tampered;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use chancery::api::v1alpha1::{SigningKey, Subscription, TechnicalUser, all_crds};
use chancery::clock::{self, ClockGuard};
use chancery::controllers::Operator;
use chancery::domain::settings::Settings;
use chancery::embedded::{ApiServer, Ids, Options, Service};
use chancery::feed::Feed;
use chancery::leader::Leadership;
use chancery::objects::delivery;
use chancery::serve::readiness::Readiness;
use chancery::serve::snapshot::SnapshotStore;
use chancery::stores::{Scope, Stores};
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::client::Body;
use kube::{Client, ResourceExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

const OPERATOR: &str = "chancery-system";
const TENANT: &str = "acme";
const LIMIT: Duration = Duration::from_mins(3);

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        issuer: "http://127.0.0.1:8080".into(),
        ..Settings::default()
    })
}

/// Where a write meets its fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The process dies before the write is done.
    KillBefore,
    /// The process dies after the write was done, before it hears of it.
    KillAfter,
    /// The write is done, and its answer says 504; kube's client then tries again.
    AnswerLost,
    /// The write is not done, and the answer is 500.
    Refused,
}

/// Counts the operator's writes, and lets the n-th meet its fate.
#[derive(Clone)]
struct Faulty {
    inner: Arc<std::sync::Mutex<Service>>,
    writes: Arc<AtomicU64>,
    left: Arc<AtomicI64>,
    fault: Fault,
    killed: mpsc::UnboundedSender<()>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl tower::Service<Request<Body>> for Faulty {
    type Response = <Service as tower::Service<Request<Body>>>::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let event = request.uri().path().contains("/events");
        let write = !event
            && [Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
                .contains(request.method());
        let mut hit = false;
        if write {
            self.writes.fetch_add(1, Ordering::SeqCst);
            hit = self.left.fetch_sub(1, Ordering::SeqCst) == 1;
        }
        let (fault, killed) = (self.fault, self.killed.clone());
        let call = {
            let inner = self.inner.clone();
            move || inner.lock().expect("no panic").call(request)
        };
        Box::pin(async move {
            if !hit {
                return call().await;
            }
            match fault {
                Fault::KillBefore => {
                    let _ = killed.send(());
                    std::future::pending().await
                }
                Fault::KillAfter => {
                    let _ = call().await;
                    let _ = killed.send(());
                    std::future::pending().await
                }
                Fault::AnswerLost => {
                    let answer = call().await?;
                    let (mut parts, body) = answer.into_parts();
                    parts.status = http::StatusCode::GATEWAY_TIMEOUT;
                    Ok(Response::from_parts(parts, body))
                }
                Fault::Refused => Err("the connection broke".into()),
            }
        })
    }
}

/// An operator that runs until it is dropped (as a kill) or stopped.
struct Running {
    stores: Stores,
    _watches: JoinSet<()>,
    operator: tokio::task::JoinHandle<()>,
    _stop: oneshot::Sender<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.operator.abort();
    }
}

fn operator(client: Client) -> Running {
    operator_with(client, settings())
}

fn operator_with(client: Client, settings: Arc<Settings>) -> Running {
    let (sender, changes) = mpsc::unbounded_channel();
    let (stores, watches) = Stores::start(&client, &settings, Scope::Operator, vec![sender]);
    let operator = Operator::new(
        client,
        settings,
        ClockGuard::trusting(clock::system()),
        stores.clone(),
        Leadership::always(),
        changes,
    );
    let (stop, stopped) = oneshot::channel::<()>();
    let operator = tokio::spawn(operator.run(async move {
        let _ = stopped.await;
    }));
    Running {
        stores,
        _watches: watches,
        operator,
        _stop: stop,
    }
}

async fn world() -> (ApiServer, Client) {
    let (api, client) = empty_world().await;
    apply_all(&client).await;
    (api, client)
}

async fn empty_world() -> (ApiServer, Client) {
    let api = ApiServer::open(Options {
        crds: all_crds(),
        state_dir: None,
        clock: clock::system(),
        ids: Ids::Seeded(7),
    })
    .expect("an API server in memory");
    let client = api.client("default");
    for name in [OPERATOR, TENANT] {
        let namespace: Namespace =
            serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).expect("valid");
        let api: Api<Namespace> = Api::all(client.clone());
        api.create(&PostParams::default(), &namespace)
            .await
            .expect("created");
    }
    (api, client)
}

async fn apply_all(client: &Client) {
    let params = PostParams::default();
    let object = |json: serde_json::Value| json;
    let ring = object(serde_json::json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "SigningKey", "metadata": {"name": "main"},
        "spec": {"audience": "client", "algorithm": "ES256", "publish": [{"namespaces": [TENANT]}]}
    }));
    let subscription = object(serde_json::json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "Subscription", "metadata": {"name": "acme"},
        "spec": {"legalEntity": {"id": "acme", "name": "Acme"}, "tier": "Free", "allowed": {"audiences": ["*"]}}
    }));
    let user = object(serde_json::json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser", "metadata": {"name": "orders"},
        "spec": {"audiences": ["https://a.example"], "credential": {"secret": {}}}
    }));
    let rings: Api<SigningKey> = Api::namespaced(client.clone(), OPERATOR);
    let subscriptions: Api<Subscription> = Api::namespaced(client.clone(), TENANT);
    let users: Api<TechnicalUser> = Api::namespaced(client.clone(), TENANT);
    rings
        .create(&params, &serde_json::from_value(ring).expect("valid"))
        .await
        .expect("created");
    subscriptions
        .create(
            &params,
            &serde_json::from_value(subscription).expect("valid"),
        )
        .await
        .expect("created");
    users
        .create(&params, &serde_json::from_value(user).expect("valid"))
        .await
        .expect("created");
}

/// Waits until all is as it should be and stays quiet, and proves it.
async fn converged(client: &Client, running: &Running, what: &str) {
    let users: Api<TechnicalUser> = Api::namespaced(client.clone(), TENANT);
    let rings: Api<SigningKey> = Api::namespaced(client.clone(), OPERATOR);
    let ready = async {
        loop {
            let user = users.get("orders").await.expect("the user");
            let ring = rings.get("main").await.expect("the ring");
            let holds = |c: &[Condition], kind: &str| {
                c.iter().any(|c| c.type_ == kind && c.status == "True")
            };
            if user
                .status
                .as_ref()
                .is_some_and(|s| holds(&s.conditions, "Ready") && s.secret_name.is_some())
                && ring.status.as_ref().is_some_and(|s| {
                    holds(&s.conditions, "Ready") && holds(&s.conditions, "Published")
                })
            {
                return (user, ring);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (user, ring) = tokio::time::timeout(LIMIT, ready)
        .await
        .unwrap_or_else(|_| panic!("{what}: it converges"));

    let of = async |namespace: &str| {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        secrets
            .list(&ListParams::default())
            .await
            .expect("a list")
            .items
    };
    let operators: BTreeSet<String> = of(OPERATOR)
        .await
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    let wanted: BTreeSet<String> =
        ["acme.orders-credentials".to_owned(), "main-1".to_owned()].into();
    assert_eq!(
        operators, wanted,
        "{what}: one key, one Secret of hashes, no orphan"
    );
    let tenants = of(TENANT).await;
    assert_eq!(tenants.len(), 1, "{what}: one delivered Secret");
    assert_eq!(
        ring.status.as_ref().map(|s| s.keys.len()),
        Some(1),
        "{what}: one key"
    );

    let data = async |namespace: &str| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        maps.get("main-jwks").await.expect("a ConfigMap").data
    };
    assert_eq!(data(TENANT).await, data(OPERATOR).await, "{what}: the copy");

    // The delivered secret is the one whose hash is kept, and the snapshot signs.
    let secret = &tenants[0];
    let plain = delivery::plain_secrets(secret, "client_secret")
        .pop()
        .expect("a client secret");
    let snapshots = SnapshotStore::new(clock::system());
    let mut feed = Feed::new(
        running.stores.clone(),
        settings(),
        clock::system(),
        Readiness::waiting_for([]),
    );
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let snapshot = feed.build(None);
        let stored = snapshot
            .clients
            .get(&user.client_id())
            .map(|c| c.credentials.clone())
            .unwrap_or_default();
        let works = stored.len() == 1 && chancery::crypto::hash::verify(&plain, &stored[0].hash);
        let signs = snapshot.client_rings.len() == 1;
        snapshots.publish(snapshot);
        if works && signs {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what}: works {works}, signs {signs}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many writes the way from nothing to a token takes, undisturbed.
async fn undisturbed() -> u64 {
    let (api, client) = world().await;
    let (faulty, _) = faulty(&api, i64::MAX, Fault::Refused);
    let writes = faulty.writes.clone();
    let running = operator(Client::new(faulty, "default"));
    converged(&client, &running, "undisturbed").await;
    writes.load(Ordering::SeqCst)
}

fn faulty(api: &ApiServer, n: i64, fault: Fault) -> (Faulty, mpsc::UnboundedReceiver<()>) {
    let (killed, dead) = mpsc::unbounded_channel();
    let faulty = Faulty {
        inner: Arc::new(std::sync::Mutex::new(api.service())),
        writes: Arc::default(),
        left: Arc::new(AtomicI64::new(n)),
        fault,
        killed,
    };
    (faulty, dead)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_at_every_write_of_the_first_work() {
    let writes = undisturbed().await;
    assert!(
        writes >= 8,
        "there is something to disturb: {writes} writes"
    );
    println!("undisturbed: {writes} writes");
    let mut runs = 0;
    for fault in [
        Fault::KillBefore,
        Fault::KillAfter,
        Fault::AnswerLost,
        Fault::Refused,
    ] {
        for n in 1..=writes {
            let (api, client) = world().await;
            let (faulty, mut dead) = faulty(&api, n.cast_signed(), fault);
            let what = format!("{fault:?} at write {n}");
            let first = operator(Client::new(faulty, "default"));
            let survivor = if matches!(fault, Fault::KillBefore | Fault::KillAfter) {
                // Visits run beside each other, so that a run may need fewer writes than another.
                let died = tokio::time::timeout(Duration::from_secs(3), dead.recv())
                    .await
                    .is_ok();
                if !died {
                    println!("{what}: there was no such write this time");
                }
                drop(first);
                operator(api.client("default"))
            } else {
                first
            };
            converged(&client, &survivor, &what).await;
            runs += 1;
        }
    }
    println!("{runs} runs, each with one fault");
}

/// What is deleted goes whole: the ring's share of the issuer's JWKS, the user's hashes.
#[tokio::test(flavor = "multi_thread")]
async fn deletion_leaves_nothing() {
    let (api, client) = world().await;
    let running = operator(api.client("default"));
    converged(&client, &running, "before").await;
    let users: Api<TechnicalUser> = Api::namespaced(client.clone(), TENANT);
    let rings: Api<SigningKey> = Api::namespaced(client.clone(), OPERATOR);
    users
        .delete("orders", &DeleteParams::default())
        .await
        .expect("deleted");
    rings
        .delete("main", &DeleteParams::default())
        .await
        .expect("deleted");
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let mut left = Vec::new();
        for namespace in [OPERATOR, TENANT] {
            let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
            let list = secrets.list(&ListParams::default()).await.expect("a list");
            left.extend(list.iter().map(ResourceExt::name_any));
        }
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), TENANT);
        let list = maps.list(&ListParams::default()).await.expect("a list");
        left.extend(list.iter().map(ResourceExt::name_any));
        if left.is_empty() {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "left behind: {left:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
