//! The election on the embedded API server, in virtual time: who leads, and for how long nobody
//! does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chancery::api::v1alpha1::all_crds;
use chancery::clock;
use chancery::domain::lease::FAITH;
use chancery::domain::names::LEADER_LEASE;
use chancery::embedded::{ApiServer, Ids, Options, Service};
use chancery::leader::{Elector, Leadership};
use futures::future::BoxFuture;
use http::Request;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use kube::client::Body;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep, timeout};

const NAMESPACE: &str = "chancery-system";

/// A way to the API server that can be cut: then nothing is answered.
#[derive(Clone)]
struct Line {
    inner: Arc<std::sync::Mutex<Service>>,
    cut: Arc<AtomicBool>,
}

impl tower::Service<Request<Body>> for Line {
    type Response = <Service as tower::Service<Request<Body>>>::Response;
    type Error = <Service as tower::Service<Request<Body>>>::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.cut.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        Box::pin(self.inner.lock().expect("no panic").call(request))
    }
}

/// A replica, whose work is to wait for its end.
struct Replica {
    leadership: Leadership,
    cut: Arc<AtomicBool>,
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Replica {
    fn start(api: &ApiServer) -> Self {
        let cut = Arc::new(AtomicBool::new(false));
        let line = Line {
            inner: Arc::new(std::sync::Mutex::new(api.service())),
            cut: cut.clone(),
        };
        let elector = Elector::new(Client::new(line, "default"), clock::system(), NAMESPACE);
        let leadership = elector.leadership();
        let (end, ended) = oneshot::channel::<()>();
        let task = tokio::spawn(elector.run(std::future::ready(()), async move {
            let _ = ended.await;
        }));
        Self {
            leadership,
            cut,
            end: Some(end),
            task,
        }
    }

    /// Ends it as SIGTERM does.
    async fn end(mut self) {
        drop(self.end.take());
        self.task.await.expect("no panic");
        assert!(!self.leadership.leads());
    }

    async fn leads_within(&self, limit: Duration) -> Duration {
        let start = Instant::now();
        timeout(limit, self.leadership.becomes(true))
            .await
            .expect("it leads in time");
        start.elapsed()
    }
}

async fn world() -> (ApiServer, Api<Lease>) {
    let api = ApiServer::open(Options {
        crds: all_crds(),
        state_dir: None,
        clock: clock::system(),
        ids: Ids::Random,
    })
    .expect("an API server");
    let client = api.client("default");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": NAMESPACE}}));
    let namespace: Namespace = namespace.expect("a namespace");
    let params = PostParams::default();
    if namespaces
        .get_opt(NAMESPACE)
        .await
        .expect("an answer")
        .is_none()
    {
        namespaces.create(&params, &namespace).await.expect("made");
    }
    (api, Api::namespaced(client, NAMESPACE))
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_hands_over() {
    let (api, leases) = world().await;
    let first = Replica::start(&api);
    assert!(first.leads_within(seconds(1)).await < Duration::from_millis(100));
    let second = Replica::start(&api);
    for _ in 0..120 {
        sleep(seconds(1)).await;
        assert!(first.leadership.leads() && !second.leadership.leads());
    }
    let lease = leases.get(LEADER_LEASE).await.expect("a lease");
    let spec = lease.spec.expect("a spec");
    assert_eq!(
        (spec.lease_duration_seconds, spec.lease_transitions),
        (Some(15), Some(0))
    );
    assert!(spec.acquire_time < spec.renew_time);

    let kept = first.leadership.clone();
    first.end().await;
    let lease = leases.get(LEADER_LEASE).await.expect("a lease");
    assert_eq!(lease.spec.expect("a spec").holder_identity, None);
    second.leads_within(Duration::from_millis(1_200)).await;
    let lease = leases.get(LEADER_LEASE).await.expect("a lease");
    assert_eq!(lease.spec.expect("a spec").lease_transitions, Some(1));
    assert!(!kept.leads());
    second.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_loses_faith_before_another_takes_over() {
    let (api, _) = world().await;
    let first = Replica::start(&api);
    first.leads_within(seconds(1)).await;
    let second = Replica::start(&api);
    sleep(seconds(7)).await;
    first.cut.store(true, Ordering::SeqCst);
    let start = Instant::now();
    first.leadership.becomes(false).await;
    // Its last renewal was up to 5 s ago.
    let faith = start.elapsed();
    let least = FAITH.saturating_sub(seconds(5));
    assert!((least..=FAITH).contains(&faith), "{faith:?}");
    assert!(!second.leadership.leads());
    second.leads_within(seconds(17)).await;
    assert!(start.elapsed() < seconds(20), "{:?}", start.elapsed());
    // The way is there again: it sees who leads, and stands by.
    first.cut.store(false, Ordering::SeqCst);
    sleep(seconds(60)).await;
    assert!(!first.leadership.leads() && second.leadership.leads());
    // It ends with nobody answering: not for ever.
    second.cut.store(true, Ordering::SeqCst);
    let start = Instant::now();
    second.end().await;
    assert!(start.elapsed() <= seconds(4));
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_costs_nothing() {
    let (api, _) = world().await;
    let only = Replica::start(&api);
    only.leads_within(seconds(1)).await;
    for _ in 0..10 {
        only.cut.store(true, Ordering::SeqCst);
        sleep(seconds(4)).await;
        only.cut.store(false, Ordering::SeqCst);
        for _ in 0..10 {
            sleep(seconds(1)).await;
            assert!(only.leadership.leads());
        }
    }
}

/// By hand, or with the namespace's other objects.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_deleted_or_taken_away() {
    let (api, leases) = world().await;
    let first = Replica::start(&api);
    first.leads_within(seconds(1)).await;
    let second = Replica::start(&api);
    sleep(seconds(3)).await;
    let gone = DeleteParams::default();
    leases.delete(LEADER_LEASE, &gone).await.expect("deleted");
    for _ in 0..600 {
        sleep(Duration::from_millis(50)).await;
        assert!(first.leadership.leads() && !second.leadership.leads());
    }
    let mut lease = leases.get(LEADER_LEASE).await.expect("it is there again");
    lease.spec.as_mut().expect("a spec").holder_identity = Some("a person".into());
    let params = PostParams::default();
    leases
        .replace(LEADER_LEASE, &params, &lease)
        .await
        .expect("written");
    timeout(seconds(6), first.leadership.becomes(false))
        .await
        .expect("it sees that");
    sleep(seconds(20)).await;
    assert!(first.leadership.leads() ^ second.leadership.leads());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_or_gone_on_with_without_the_lead() {
    let (api, _) = world().await;
    let only = Replica::start(&api);
    let begun = AtomicBool::new(false);
    let call = async {
        begun.store(true, Ordering::SeqCst);
    };
    assert_eq!(only.leadership.while_leading(call).await, None);
    assert!(!begun.load(Ordering::SeqCst));
    only.leads_within(seconds(1)).await;
    assert_eq!(only.leadership.while_leading(async { 7 }).await, Some(7));

    // As after a SIGSTOP: time has gone by, and nothing else could run. The call was waiting.
    let call = only.leadership.while_leading(sleep(seconds(2)));
    tokio::pin!(call);
    assert!(futures::poll!(&mut call).is_pending());
    only.cut.store(true, Ordering::SeqCst);
    advance(seconds(60)).await;
    assert!(!only.leadership.leads());
    assert_eq!(call.await, None);

    let always = Leadership::always();
    assert_eq!(always.while_leading(async { 7 }).await, Some(7));
    assert!(timeout(seconds(99), always.becomes(false)).await.is_err());
}
