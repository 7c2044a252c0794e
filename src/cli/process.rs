//! Puts the parts together: the same for `dev`, `run`, `operator` and `serve`.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::info;

use crate::clock::{ClockGuard, SharedClock};
use crate::contact::{self, CONTACT, Seeker, clock::CLOCK};
use crate::controllers::Operator;
use crate::domain::clock_trust;
use crate::domain::settings::Settings;
use crate::feed::{self, Feed};
use crate::leader::{Elector, Leadership};
use crate::outbox;
use crate::provider_metrics::ProviderMetrics;
use crate::ring_metrics::RingMetrics;
use crate::serve::admin::Admin;
use crate::serve::app::{App, Parts};
use crate::serve::body;
use crate::serve::listener;
use crate::serve::metrics::Metrics;
use crate::serve::readiness::Readiness;
use crate::serve::replay::ReplayLimits;
use crate::serve::run::{DEADLINE, Public, Serving};
use crate::serve::secrets::HashLimits;
use crate::serve::snapshot::SnapshotStore;
use crate::serve::tls::Tls;
use crate::stores::{Change, Scope, Stores};
use crate::user_metrics::UserMetrics;
use crate::wanted_keys;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Operator and server.
    Both,
    /// The operator alone.
    Operator,
    /// The server alone.
    Server,
}

/// Where the public side listens.
#[derive(Debug)]
pub struct Listen {
    /// The address.
    pub address: SocketAddr,
    /// A socket that listens there already, for whoever has to know the port beforehand.
    pub bound: Option<TcpListener>,
    /// The files with certificate and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// A proxy terminates TLS.
    pub behind_proxy: bool,
    /// How long to go on accepting at the end.
    pub drain_delay: Duration,
}

/// A process that is to start.
pub struct Process {
    /// What it does.
    pub role: Role,
    /// Whether other operators may run beside it, so that they elect one.
    pub elects: bool,
    /// The release's settings, which have no problems.
    pub settings: Arc<Settings>,
    /// The way to the API server.
    pub client: Client,
    /// The time.
    pub clock: SharedClock,
    /// The public side; none for the operator alone.
    pub listen: Option<Listen>,
    /// The admin port.
    pub admin_listen: SocketAddr,
}

/// What writes what servers note.
type Writers = (
    outbox::Writer<outbox::Revocations>,
    outbox::Writer<outbox::Enrolments>,
    wanted_keys::Writer,
);

/// A process whose ports are bound and whose watches have begun.
pub struct Started {
    /// What is watched.
    pub stores: Stores,
    /// Where the public side listens, with the port that a 0 became.
    pub public_address: Option<SocketAddr>,
    /// Where the admin port listens.
    pub admin_address: SocketAddr,
    watches: JoinSet<()>,
    operator: Option<(Operator, Option<Elector>)>,
    feed: Option<(BoxFuture<'static, ()>, Seeker, Writers)>,
    clock_check: BoxFuture<'static, ()>,
    serving: Serving,
    readiness: Readiness,
    changes: mpsc::UnboundedReceiver<Change>,
}

impl Process {
    /// Binds the ports and begins to watch. An error is a sentence, and comes before anything
    /// was done.
    pub async fn start(self) -> Result<Started, String> {
        let Self {
            role,
            elects,
            settings,
            client,
            clock,
            listen,
            admin_listen,
        } = self;
        let readiness = match role {
            Role::Operator => Readiness::waiting_for([
                (feed::STORES, WAITING_FOR_STORES),
                (CLOCK, WAITING_FOR_CLOCK),
            ]),
            Role::Both | Role::Server => Readiness::waiting_for([
                (feed::STORES, WAITING_FOR_STORES),
                (CLOCK, WAITING_FOR_CLOCK),
                (
                    CONTACT,
                    "What is served has not been compared with the API server yet.",
                ),
                (
                    feed::JWKS,
                    "There is no JWKS to serve yet: a SigningKey makes one.",
                ),
            ]),
        };
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::register(&mut registry));
        let snapshots = SnapshotStore::new(clock.clone());
        let drain_delay = listen.as_ref().map_or(Duration::ZERO, |l| l.drain_delay);
        let behind_proxy = listen.as_ref().is_some_and(|l| l.behind_proxy);
        if behind_proxy && settings.throttle.forwarded_header.is_none() {
            info!(
                "Behind a proxy the clients' addresses are not known: failed authentications are \
                 counted by client id alone. If the proxy tells the addresses, set \
                 throttle.forwardedHeader."
            );
        }
        let public = match listen {
            None => None,
            Some(listen) => Some(bind_public(listen).await?),
        };
        let admin_listener = bind(admin_listen, "--admin-listen").await?;
        let admin_address = admin_listener.local_addr().map_err(|e| e.to_string())?;
        let public_address = public
            .as_ref()
            .and_then(|(listener, _)| listener.local_addr().ok());

        let operates = role != Role::Server;
        let elector = (elects && operates)
            .then(|| Elector::new(client.clone(), clock.clone(), &settings.operator_namespace));
        let leadership = elector
            .as_ref()
            .map_or_else(Leadership::always, Elector::leadership);
        let refresh_leader = operates.then(|| leadership.gauge(&mut registry));

        let (notes, taken) = outbox::channel();
        let (keys_wanted, keys_taken) = wanted_keys::channel();
        let (newcomers, newcomers_taken) = outbox::channel();
        let app = App::new(Parts {
            settings: settings.clone(),
            snapshots: snapshots.clone(),
            clock: clock.clone(),
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            hash_limits: HashLimits::default(),
            replay_limits: ReplayLimits::default(),
            body_timeout: body::BODY_TIMEOUT,
            outbox: Arc::new(notes),
            keys_wanted: Arc::new(keys_wanted),
            enrolments: Arc::new(newcomers),
        });
        let (to_operator, operator_changes) = mpsc::unbounded_channel();
        let (to_feed, feed_changes) = mpsc::unbounded_channel();
        let (to_others, changes) = mpsc::unbounded_channel();
        let (scope, listeners) = match role {
            Role::Both => (Scope::Operator, vec![to_operator, to_feed, to_others]),
            Role::Operator => (Scope::Operator, vec![to_operator]),
            Role::Server => (Scope::Server, vec![to_feed]),
        };
        let (stores, watches) = Stores::start(&client, &settings, scope, listeners);
        let followed = stores.clone();
        readiness.explain(feed::STORES, move || followed.told());
        let rings = RingMetrics::new(stores.clone(), clock.clone());
        registry.register_collector(Box::new(rings));
        if operates {
            let users = UserMetrics::new(stores.clone(), settings.clone());
            registry.register_collector(Box::new(users));
        }
        let environment = settings.environment.clone();
        let providers = ProviderMetrics::new(stores.clone(), environment, clock.clone());
        registry.register_collector(Box::new(providers));
        let gauges = app.clone();
        let guard = ClockGuard::new(clock.clone(), clock_trust::Limits::default());
        let guarded = guard.clone();
        let mut admin = Admin::new(readiness.clone(), Arc::new(registry))
            .before_scrape(move || gauges.refresh_gauges())
            .before_scrape(move || {
                let offset = guarded.offset().map(|o| o.as_secs_f64());
                metrics.clock(guarded.moment().sure, offset);
            })
            .before_scrape(move || refresh_leader.iter().for_each(|refresh| refresh()));
        if role != Role::Operator {
            let (served, clock) = (snapshots.clone(), clock.clone());
            admin = admin.telling(move || contact::told(served.load().contact_age(&*clock)));
        }
        let serving = Serving {
            public: public.map(|(listener, tls)| Public {
                listener,
                tls,
                behind_proxy,
                app,
            }),
            admin: (admin_listener, Arc::new(admin)),
            readiness: readiness.clone(),
            drain_delay,
            deadline: DEADLINE,
        };

        let clock_check = contact::clock::follow(client.clone(), guard.clone(), readiness.clone());
        let writing = client.clone();
        let operator = operates.then(|| {
            let operator = Operator::new(
                client,
                settings.clone(),
                guard,
                stores.clone(),
                leadership,
                operator_changes,
            );
            (operator, elector)
        });
        let feed = (role != Role::Operator).then(|| {
            let feed = Feed::new(
                stores.clone(),
                settings.clone(),
                clock.clone(),
                readiness.clone(),
            );
            let of_keys =
                wanted_keys::Writer::new(writing.clone(), &settings, clock.clone(), keys_taken);
            let revocations = outbox::Revocations {
                settings: settings.clone(),
                clock: clock.clone(),
                stores: stores.clone(),
            };
            let namespace = &settings.operator_namespace;
            let writers = (
                outbox::Writer::new(writing.clone(), namespace, revocations, taken),
                outbox::Writer::new(writing, namespace, outbox::Enrolments, newcomers_taken),
                of_keys,
            );
            let (proofs, proved) = watch::channel(None);
            let seeker = Seeker {
                stores: stores.clone(),
                snapshots: snapshots.clone(),
                proofs,
                clock,
                settings,
                readiness: readiness.clone(),
            };
            let feed = feed.run(feed_changes, proved, snapshots).boxed();
            (feed, seeker, writers)
        });
        Ok(Started {
            stores,
            public_address,
            admin_address,
            watches,
            operator,
            feed,
            clock_check: clock_check.boxed(),
            serving,
            readiness,
            changes,
        })
    }
}

const WAITING_FOR_CLOCK: &str =
    "This machine's clock has not been compared with the API server's yet.";
const WAITING_FOR_STORES: &str = "The API server has not been seen whole yet: are the CRDs installed, and may this account list them?";

impl Started {
    /// The changes as a further listener sees them: `dev`, which tells of them. Once.
    pub fn take_changes(&mut self) -> mpsc::UnboundedReceiver<Change> {
        std::mem::replace(&mut self.changes, mpsc::unbounded_channel().1)
    }

    /// Runs until `stop` completes, then ends: the operator ends what it has begun, the server
    /// answers what it has taken.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), String> {
        let Self {
            stores,
            watches,
            operator,
            feed,
            clock_check,
            serving,
            readiness,
            ..
        } = self;
        let (ending, ended) = watch::channel(false);
        let until_end = |mut ended: watch::Receiver<bool>| async move {
            let _ = ended.wait_for(|e| *e).await;
        };
        if let Some(address) = self.public_address {
            info!(%address, "serving tokens and the JWKS");
        }
        info!(address = %self.admin_address, "serving health and metrics");
        // A part that ends before it was asked to has met a bug: better to start anew than to go on
        // as half a program that looks alive.
        let (died, mut deaths) = mpsc::unbounded_channel();
        let operator = operator.map(|(operator, elector)| {
            let work = operator.run(until_end(ended.clone()));
            let stores = stores.clone();
            let run = match elector {
                Some(elector) => elector
                    .run(async move { stores.synced().await }, work)
                    .boxed(),
                None => work.boxed(),
            };
            tokio::spawn(watched("the operator", run, ended.clone(), died.clone()))
        });
        let mut others = JoinSet::new();
        let mut go = |part, run| others.spawn(watched(part, run, ended.clone(), died.clone()));
        go("the clock's check", clock_check);
        match feed {
            Some((feed, seeker, (revocations, enrolments, of_keys))) => {
                go("the feed", feed);
                go("the outbox", revocations.run().boxed());
                go("the notes of people", enrolments.run().boxed());
                go("the notes of wanted keys", of_keys.run().boxed());
                go("the contact's check", seeker.run().boxed());
            }
            None => {
                others.spawn(async move {
                    stores.synced().await;
                    readiness.ready(feed::STORES);
                });
            }
        }
        let mut dead = None;
        let stop = async {
            tokio::select! {
                () = stop => {}
                part = deaths.recv() => dead = part,
            }
            ending.send_replace(true);
        };
        let served = serving.run(stop).await;
        // Also where serving ended for another reason.
        ending.send_replace(true);
        if let Some(operator) = operator {
            let _ = operator.await;
        }
        drop(others);
        drop(watches);
        match dead {
            Some(part) => Err(format!(
                "{part} has ended by a bug, which the log tells of; the process ends so that it can be started anew"
            )),
            None => served,
        }
    }
}

/// Runs a part, and tells if it ends or panics before the end was asked for.
async fn watched(
    part: &'static str,
    run: impl Future<Output = ()>,
    ended: watch::Receiver<bool>,
    died: mpsc::UnboundedSender<&'static str>,
) {
    let _ = AssertUnwindSafe(run).catch_unwind().await;
    if !*ended.borrow() {
        let _ = died.send(part);
    }
}

async fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|e| not_bound(flag, address, &e))
}

/// Why an address can not be listened at, and which flag chooses another.
pub fn not_bound(flag: &str, address: SocketAddr, why: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let advice = match why.kind() {
        ErrorKind::AddrInUse => {
            format!(
                "Stop what listens there, or choose another port with {flag}: port 0 takes any that is free"
            )
        }
        ErrorKind::PermissionDenied => {
            format!(
                "Choose a port from 1024 on with {flag}, or run with the right to bind that one"
            )
        }
        ErrorKind::AddrNotAvailable => {
            format!(
                "Choose an address of this machine with {flag}, such as 127.0.0.1:{}",
                address.port()
            )
        }
        _ => format!("Choose another address with {flag}"),
    };
    format!("{flag} {address} can not be bound: {why}. {advice}")
}

async fn bind_public(listen: Listen) -> Result<(TcpListener, Option<Arc<Tls>>), String> {
    listener::check(listen.address, listen.tls.is_some(), listen.behind_proxy)?;
    let tls = match &listen.tls {
        Some((certificate, key)) => Some(Tls::load(certificate, key)?),
        None => None,
    };
    let listener = match listen.bound {
        Some(listener) => listener,
        None => bind(listen.address, "--listen").await?,
    };
    Ok((listener, tls))
}
