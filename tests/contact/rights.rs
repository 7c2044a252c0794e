//! Watches that the API server refuses, and watches that do not reach it.

use std::cell::RefCell;
use std::io;
use std::sync::Mutex;

use chancery::feed;

use super::*;

/// The API server, with one resource of the operator's namespace that may be refused.
#[derive(Clone)]
struct Guarded {
    line: Line,
    /// The status that lists of ConfigMaps are answered with.
    refusal: watch::Sender<Option<u16>>,
    /// When such a list was asked for.
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl tower::Service<Request<Body>> for Guarded {
    type Response = <Line as tower::Service<Request<Body>>>::Response;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.line.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let refusal = *self.refusal.borrow();
        if !request.uri().path().ends_with("/configmaps") {
            return self.line.call(request);
        }
        self.asked.lock().expect("no panic").push(Instant::now());
        let Some(code) = refusal else {
            return self.line.call(request);
        };
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
            "message": format!("configmaps is refused with {code}"), "reason": "Forbidden",
        });
        let body = http_body_util::Full::new(bytes::Bytes::from(status.to_string()));
        let answer = Response::builder().status(code).body(body.boxed_unsync());
        Box::pin(async move { answer.map_err(Into::into) })
    }
}

thread_local! {
    /// What was logged on this thread, which is a test's own with all its tasks.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How many lines of the log speak of ConfigMaps and say this.
fn log_says(what: &str) -> usize {
    let log = LOG.with_borrow(|log| String::from_utf8(log.clone()).expect("text"));
    let lines = log.lines().filter(|l| l.contains("kind=ConfigMaps"));
    lines.filter(|line| line.contains(what)).count()
}

struct ToLog;

impl io::Write for ToLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For the whole program: one of a thread alone is missed where another thread came first.
fn keep_a_log() {
    let log = tracing_subscriber::fmt().with_ansi(false);
    log.with_writer(|| ToLog).init();
}

struct Trial {
    world: World,
    guarded: Guarded,
    stores: Stores,
    _watches: tokio::task::JoinSet<()>,
}

impl Trial {
    async fn start(refusal: Option<u16>, cut: bool) -> Self {
        let world = world(None).await;
        world.line.cut.store(cut, Ordering::SeqCst);
        let guarded = Guarded {
            line: world.line.clone(),
            refusal: watch::Sender::new(refusal),
            asked: Arc::default(),
        };
        let settings = Settings {
            operator_namespace: NAMESPACE.into(),
            ..Settings::default()
        };
        let client = Client::new(guarded.clone(), "default");
        let (stores, watches) = Stores::start(&client, &settings, Scope::Server, Vec::new());
        Self {
            world,
            guarded,
            stores,
            _watches: watches,
        }
    }

    /// When ConfigMaps were asked for, in seconds from that time on.
    fn asked(&self, since: Instant) -> Vec<f64> {
        let asked = self.guarded.asked.lock().expect("no panic");
        let later = asked.iter().filter(|at| **at >= since);
        later.map(|at| (*at - since).as_secs_f64()).collect()
    }

    fn synced(&self) -> bool {
        self.stores.waiting_for().is_empty()
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_rights_is_tried_ever_more_rarely_and_told_once() {
    keep_a_log();
    let start = Instant::now();
    let trial = Trial::start(Some(403), false).await;
    let readiness = Readiness::waiting_for([(feed::STORES, "?")]);
    let stores = trial.stores.clone();
    readiness.explain(feed::STORES, move || stores.told());
    seconds(540).await;
    let asked = trial.asked(start);
    println!("asked after {asked:?} s");
    // 200 ms and twice as long each time, up to 30 s, each shorter by up to half.
    assert!((18..=48).contains(&asked.len()), "{}", asked.len());
    let waits: Vec<f64> = asked.windows(2).map(|w| w[1] - w[0]).collect();
    let late = &waits[10..];
    assert!(late.iter().all(|w| (14.9..30.1).contains(w)), "{waits:?}");
    let differ = late.windows(2).any(|w| (w[0] - w[1]).abs() > 0.01);
    assert!(differ, "they are spread: {waits:?}");
    assert_eq!(log_says("a watch failed"), 1);
    // Who asks whether this replica is ready is told.
    let said = reason(&readiness, feed::STORES).expect("not ready");
    for part in [
        "yet: ConfigMaps are not listed",
        "of ConfigMaps: configmaps is refused with 403",
        "may this account list and watch them?",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // It is not forgotten, and what changes is told at once.
    seconds(120).await;
    assert_eq!(log_says("a watch failed"), 2);
    trial.guarded.refusal.send_replace(Some(401));
    seconds(31).await;
    assert_eq!(log_says("a watch failed"), 3);
    assert_eq!(log_says("is refused with 401 (401)"), 1);

    trial.guarded.refusal.send_replace(None);
    seconds_until("seen whole", 31, || trial.synced()).await;
    assert_eq!(log_says("the watch works again"), 1);
    assert!(trial.stores.told().contains("seen whole: "));
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_a_watch_is_back_within_a_second() {
    let start = Instant::now();
    let trial = Trial::start(None, true).await;
    seconds(60).await;
    let asked = trial.asked(start);
    let waits = asked.windows(2).map(|w| w[1] - w[0]);
    assert!(asked.len() > 60, "{asked:?}");
    assert!(waits.clone().all(|w| w < 1.1), "{asked:?}");
    assert!(waits.skip(5).all(|w| w > 0.4), "and no storm: {asked:?}");
    let said = trial.stores.told();
    assert!(
        said.contains("the API server can not be reached (the line is cut)"),
        "{said}"
    );
    trial.world.line.cut.store(false, Ordering::SeqCst);
    let took = seconds_until("seen whole", 2, || trial.synced()).await;
    assert!(took < 1.2, "{took}");
}
