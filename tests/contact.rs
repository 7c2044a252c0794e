//! The clock and the stores compared with an API server in memory, in virtual time: what is seen
//! when a clock jumps, a connection breaks, or a watch goes deaf.

#[path = "contact/rights.rs"]
mod rights;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use chancery::api::v1alpha1::all_crds;
use chancery::clock::{Clock, ClockGuard, SharedClock};
use chancery::contact::clock::{CLOCK, follow};
use chancery::contact::{CONTACT, Seeker};
use chancery::domain::clock_trust::Limits;
use chancery::domain::period::Period;
use chancery::domain::settings::Settings;
use chancery::embedded::{ApiServer, Ids, Options, Service};
use chancery::feed::Feed;
use chancery::serve::readiness::Readiness;
use chancery::serve::snapshot::SnapshotStore;
use chancery::stores::{Scope, Stores};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, PostParams};
use kube::client::Body;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

const NAMESPACE: &str = "chancery-system";

/// A clock in virtual time, that can be set wrong.
struct Hand {
    start: Instant,
    ahead: AtomicI64,
}

impl Hand {
    fn new(start: Instant) -> Arc<Self> {
        let ahead = AtomicI64::new(0);
        Arc::new(Self { start, ahead })
    }

    fn set_ahead(&self, seconds: i64) {
        self.ahead.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_secs(self.ahead.load(Ordering::SeqCst));
        let start = Timestamp::from_second(1_800_000_000).expect("a time");
        start + SignedDuration::try_from(self.elapsed()).expect("short") + ahead
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The way to the API server.
#[derive(Clone)]
struct Line {
    service: Service,
    cut: Arc<AtomicBool>,
    /// While true, nothing comes through the watches.
    deaf: watch::Sender<bool>,
}

impl tower::Service<Request<Body>> for Line {
    type Response = Response<UnsyncBoxBody<bytes::Bytes, std::convert::Infallible>>;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.cut.load(Ordering::SeqCst) {
            return Box::pin(async { Err("the line is cut".into()) });
        }
        let watches = request
            .uri()
            .query()
            .is_some_and(|q| q.contains("watch=true"));
        let answer = self.service.call(request);
        let deaf = self.deaf.subscribe();
        Box::pin(async move {
            let answer = answer.await?;
            if !watches {
                return Ok(answer);
            }
            Ok(answer.map(|body| {
                let heard = body.into_data_stream().then(move |chunk| {
                    let mut deaf = deaf.clone();
                    async move {
                        let _ = deaf.wait_for(|deaf| !*deaf).await;
                        chunk.map(Frame::data)
                    }
                });
                StreamBody::new(heard).boxed_unsync()
            }))
        })
    }
}

struct World {
    clock: Arc<Hand>,
    line: Line,
    client: Client,
    /// Whoever is at the API server itself.
    admin: Client,
    readiness: Readiness,
}

/// `server_clock`: none: process and API server share one.
async fn world(server_clock: Option<Arc<Hand>>) -> World {
    let clock = Hand::new(Instant::now());
    let api = ApiServer::open(Options {
        crds: all_crds(),
        state_dir: None,
        clock: server_clock.unwrap_or_else(|| clock.clone()) as SharedClock,
        ids: Ids::Seeded(7),
    })
    .expect("an API server in memory");
    let line = Line {
        service: api.service(),
        cut: Arc::default(),
        deaf: watch::Sender::new(false),
    };
    let admin = api.client("default");
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).expect("valid");
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .expect("created");
    World {
        clock,
        client: Client::new(line.clone(), "default"),
        line,
        admin,
        readiness: Readiness::waiting_for([(CLOCK, "?"), (CONTACT, "?")]),
    }
}

/// The sentence of a part that is not ready.
fn reason(readiness: &Readiness, part: &str) -> Option<String> {
    let reasons = readiness.reasons();
    reasons
        .into_iter()
        .find(|(p, _)| *p == part)
        .map(|(_, s)| s)
}

/// How many virtual seconds pass until it holds; a panic after `most`.
async fn seconds_until(what: &str, most: u64, holds: impl Fn() -> bool) -> f64 {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(most),
            "not in {most} s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = began.elapsed().as_secs_f64();
    println!("{what}: after {took:.1} s");
    took
}

async fn seconds(n: u64) {
    tokio::time::sleep(Duration::from_secs(n)).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_is_not_believed() {
    for jump in [300, 86_400, 365 * 86_400]
        .into_iter()
        .flat_map(|s| [s, -s])
    {
        let world = world(Some(Hand::new(Instant::now()))).await;
        let World {
            clock, readiness, ..
        } = &world;
        let guard = ClockGuard::new(clock.clone(), Limits::default());
        assert!(!guard.moment().sure, "nothing is known at start");
        let task = tokio::spawn(follow(
            world.client.clone(),
            guard.clone(),
            readiness.clone(),
        ));
        seconds_until("sure at start", 2, || guard.moment().sure).await;
        assert_eq!(reason(readiness, CLOCK), None);
        seconds(900).await;
        assert!(guard.moment().sure);

        clock.set_ahead(jump);
        assert!(!guard.moment().sure, "{jump}: at the very next look");
        seconds(600).await;
        // Five minutes are let be, once they are known to be no more.
        if jump.abs() > 300 {
            assert!(!guard.moment().sure, "{jump}: and as long as it is off");
            let said = reason(readiness, CLOCK).expect("not ready");
            assert!(
                said.contains("the API server's 2027-01-15T") && said.contains("NTP"),
                "{said}"
            );
        }
        let offset = guard.offset().expect("compared").as_secs();
        assert!((offset - jump).abs() <= 1, "{offset} of {jump}");

        // Set right: that is a jump too, and two comparisons confirm it.
        clock.set_ahead(0);
        seconds_until("ready", 7, || reason(readiness, CLOCK).is_none()).await;
        let took = seconds_until("sure after a jump", 70, || guard.moment().sure).await;
        assert!(took > 50.0);
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_shared_is_believed_after_two_comparisons() {
    let world = world(None).await;
    let guard = ClockGuard::new(world.clock.clone(), Limits::default());
    let limits = Limits {
        between: Duration::from_secs(7),
        ..Limits::default()
    };
    let quick = ClockGuard::new(world.clock.clone(), limits);
    for guard in [&guard, &quick] {
        tokio::spawn(follow(
            world.client.clone(),
            guard.clone(),
            world.readiness.clone(),
        ));
        seconds_until("sure", 2, || guard.moment().sure).await;
    }
    world.clock.set_ahead(86_400);
    assert!(!guard.moment().sure && !quick.moment().sure);
    let took = seconds_until("sure where 7 s are enough", 10, || quick.moment().sure).await;
    assert!(took >= 6.9);
    let took = took + seconds_until("sure", 60, || guard.moment().sure).await;
    assert!((59.9..63.0).contains(&took));
    assert_eq!(reason(&world.readiness, CLOCK), None);
}

#[tokio::test(start_paused = true)]
async fn without_an_api_server_the_clock_is_held_for_what_it_was() {
    let world = world(Some(Hand::new(Instant::now()))).await;
    let cut = |cut| world.line.cut.store(cut, Ordering::SeqCst);
    cut(true);
    let guard = ClockGuard::new(world.clock.clone(), Limits::default());
    tokio::spawn(follow(
        world.client.clone(),
        guard.clone(),
        world.readiness.clone(),
    ));
    seconds(600).await;
    assert!(!guard.moment().sure, "never compared");
    let said = reason(&world.readiness, CLOCK).expect("not ready");
    assert!(said.contains("not been compared"), "{said}");
    cut(false);
    seconds_until("sure", 7, || guard.moment().sure).await;
    cut(true);
    seconds(7200).await;
    assert!(guard.moment().sure && reason(&world.readiness, CLOCK).is_none());
    // A jump is seen without anybody's help.
    world.clock.set_ahead(-3600);
    assert!(!guard.moment().sure);
    seconds(2).await;
    assert!(reason(&world.readiness, CLOCK).is_some());
}

async fn put(world: &World, name: &str) {
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {
        "name": name,
        "labels": {"app.kubernetes.io/managed-by": "chancery", "chancery.dev/environment": "default"},
    }}))
    .expect("valid");
    let maps: Api<ConfigMap> = Api::namespaced(world.admin.clone(), NAMESPACE);
    let made = maps
        .create(&PostParams::default(), &map)
        .await
        .expect("created");
    assert_eq!(made.name_any(), name);
}

#[tokio::test(start_paused = true)]
async fn what_is_served_is_proved_again_and_again() {
    let world = world(None).await;
    let settings = Settings {
        issuer: "https://id.example.com".into(),
        operator_namespace: NAMESPACE.into(),
        serving: chancery::domain::settings::ServingSettings {
            max_staleness: Period::from_mins(60),
            ..chancery::domain::settings::ServingSettings::default()
        },
        ..Settings::default()
    };
    let settings = Arc::new(settings);
    let snapshots = SnapshotStore::new(world.clock.clone());
    let (sender, changes) = mpsc::unbounded_channel();
    let (stores, _watches) = Stores::start(&world.client, &settings, Scope::Server, vec![sender]);
    let (proofs, proved) = watch::channel(None);
    let feed = Feed::new(
        stores.clone(),
        settings.clone(),
        world.clock.clone(),
        Readiness::waiting_for([]),
    );
    tokio::spawn(feed.run(changes, proved, snapshots.clone()));
    let seeker = Seeker {
        stores: stores.clone(),
        snapshots: snapshots.clone(),
        proofs,
        clock: world.clock.clone(),
        settings,
        readiness: world.readiness.clone(),
    };
    tokio::spawn(seeker.run());
    let age = || snapshots.load().contact_age(&*world.clock).as_secs_f64();
    let ready = || reason(&world.readiness, CONTACT).is_none();
    seconds_until("in contact", 1, || {
        ready() && snapshots.load().generation > 1
    })
    .await;

    // Half of 25 minutes, by thirds, is 250 s.
    let mut oldest = 0.0_f64;
    for _ in 0..2000 {
        seconds(1).await;
        oldest = oldest.max(age());
        assert!(ready());
    }
    println!("oldest contact while all is well: {oldest:.1} s");
    assert!((240.0..260.0).contains(&oldest));

    // The watches go deaf: as long as nothing has changed, there is nothing to miss.
    world.line.deaf.send_replace(true);
    seconds(600).await;
    assert!(age() < 260.0 && ready());
    put(&world, "missed").await;
    let took = seconds_until("not ready with a deaf watch", 900, || !ready()).await;
    assert!(took > 400.0);
    let said = reason(&world.readiness, CONTACT).expect("not ready");
    for part in [
        "12m30s",
        "may lack a key",
        "1h (serving.maxStaleness)",
        "Can this pod",
    ] {
        assert!(said.contains(part), "{said}");
    }
    seconds(3600).await;
    let said = reason(&world.readiness, CONTACT).expect("not ready");
    assert!(
        said.contains("it signs nothing") && age() > 3600.0,
        "{said}"
    );
    world.line.deaf.send_replace(false);
    seconds_until("in contact again", 60, || ready() && age() < 60.0).await;

    // What was deleted unheard counts as well.
    world.line.deaf.send_replace(true);
    let maps: Api<ConfigMap> = Api::namespaced(world.admin.clone(), NAMESPACE);
    maps.delete("missed", &DeleteParams::default())
        .await
        .expect("deleted");
    seconds_until("not ready after an unheard deletion", 1100, || !ready()).await;
    world.line.deaf.send_replace(false);
    seconds_until("in contact again", 60, || ready() && age() < 60.0).await;

    // The line is cut, and mended.
    world.line.cut.store(true, Ordering::SeqCst);
    seconds_until("not ready without a line", 1100, || !ready()).await;
    world.line.cut.store(false, Ordering::SeqCst);
    seconds_until("in contact again", 60, || ready() && age() < 60.0).await;

    // The machine was suspended for two hours, of which the monotonic clock knows nothing.
    world.clock.set_ahead(7200);
    assert!(age() > 7200.0, "stale at once");
    seconds_until("in contact again", 2, || ready() && age() < 3.0).await;
    assert!(snapshots.load().contact.wall > world.clock.now() - SignedDuration::from_secs(3));
}
