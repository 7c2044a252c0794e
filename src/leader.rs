//! Which replica writes: the one that holds the Lease `chancery-leader` of the operator namespace.
//! All others serve, and stand by. What is decided is in [`crate::domain::lease`]; here it is read,
//! written and told.
//!
//! That no key is lost or doubled does not rest on it: every write names what it was decided on
//! (a resourceVersion, or a name that can be taken once). The lease makes it quiet, and keeps a
//! process from acting on what it knew before it was stopped.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::clock::SharedClock;
use crate::crypto::random;
use crate::domain::lease::{Candidate, DURATION, FAITH, LOOK_EVERY, RENEW_EVERY, Record, Step};
use crate::domain::names::{LEADER_LEASE, MANAGED_BY, MANAGED_BY_LABEL};

/// How long one call may take. kube's client tries again by itself for longer.
const CALL_LIMIT: Duration = Duration::from_secs(3);
/// How long the end of the process may wait for the lease to be given up.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);
/// When to look again after somebody else wrote at the same time.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Whether this process leads. Clones share one state.
#[derive(Clone, Debug)]
pub struct Leadership(Option<Arc<watch::Sender<Option<Instant>>>>);

impl Leadership {
    /// That of a process which has no other beside it.
    pub fn always() -> Self {
        Self(None)
    }

    /// Whether it leads now. Asked of the clock each time: a process that was stopped for longer
    /// than its lease holds knows at once.
    pub fn leads(&self) -> bool {
        match &self.0 {
            None => true,
            Some(until) => until.borrow().is_some_and(|until| Instant::now() < until),
        }
    }

    /// Returns once [`Self::leads`] is `wanted`.
    pub async fn becomes(&self, wanted: bool) {
        let Some(until) = &self.0 else {
            if !wanted {
                std::future::pending::<()>().await;
            }
            return;
        };
        let mut changes = until.subscribe();
        loop {
            let until = *changes.borrow_and_update();
            let leads = until.is_some_and(|until| Instant::now() < until);
            if leads == wanted {
                return;
            }
            let lost = async {
                match until.filter(|_| leads) {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            // The sender lives as long as `self`.
            tokio::select! {
                _ = changes.changed() => {}
                () = lost => {}
            }
        }
    }

    /// Goes on with a call only while this process leads; none if it ceased to. The call is not
    /// begun then, or not tried again; what of it is under way may still arrive.
    pub async fn while_leading<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let mut call = pin!(call);
        std::future::poll_fn(|cx| {
            if self.leads() {
                call.as_mut().poll(cx).map(Some)
            } else {
                Poll::Ready(None)
            }
        })
        .await
    }

    /// Registers the gauge `chancery_leader`, and gives what brings it up to date.
    pub fn gauge(&self, registry: &mut Registry) -> impl Fn() + Send + Sync + use<> {
        let gauge: Gauge = Gauge::default();
        registry.register(
            "chancery_leader",
            "1 while this replica makes the changes, 0 while it stands by",
            gauge.clone(),
        );
        let leadership = self.clone();
        move || {
            gauge.set(i64::from(leadership.leads()));
        }
    }
}

/// Takes part in the election.
pub struct Elector {
    api: Api<Lease>,
    namespace: String,
    clock: SharedClock,
    candidate: Candidate,
    /// What the candidate's times count from.
    origin: Instant,
    until: Arc<watch::Sender<Option<Instant>>>,
    told: Leader,
    failing: bool,
}

/// Who leads, as far as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Leader {
    Nobody,
    Me,
    Other(String),
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no answer from the API server within 3 s")]
    Timeout,
    #[error("{0}")]
    Api(#[from] kube::Error),
}

impl Elector {
    /// A candidate for the operator namespace, with a name that no other process has.
    pub fn new(client: Client, clock: SharedClock, namespace: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            clock,
            candidate: Candidate::new(identity()),
            origin: Instant::now(),
            until: Arc::new(watch::Sender::new(None)),
            told: Leader::Nobody,
            failing: false,
        }
    }

    /// What tells whether this process leads.
    pub fn leadership(&self) -> Leadership {
        Leadership(Some(self.until.clone()))
    }

    /// Does the work, and takes part in the election from when it could be done until it has
    /// ended. Then the lease is given up, so that another can take over at once.
    pub async fn run(
        self,
        ready: impl Future<Output = ()> + Send + 'static,
        work: impl Future<Output = ()>,
    ) {
        // In a task of its own: what the work computes holds up no renewal. If the work panics,
        // the sender is dropped, and the lease given up too.
        let (ending, ended) = oneshot::channel();
        let mut electing = tokio::spawn(self.elect(ready, ended));
        tokio::select! {
            () = work => {}
            // It ends before the work by a bug alone: the caller sees that this ended.
            _ = &mut electing => return,
        }
        drop(ending);
        let _ = electing.await;
    }

    async fn elect(mut self, ready: impl Future<Output = ()>, ended: oneshot::Receiver<()>) {
        let mut ended = pin!(ended);
        // Who can not do the work leaves the lease to others.
        tokio::select! {
            () = ready => {}
            _ = &mut ended => return,
        }
        loop {
            let step = async {
                let pause = self.step().await;
                sleep(pause).await;
            };
            tokio::select! {
                () = step => {}
                _ = &mut ended => break,
            }
        }
        self.release().await;
    }

    fn leads(&self) -> bool {
        self.leadership().leads()
    }

    /// Looks, does what is to be done, and tells when to look again.
    async fn step(&mut self) -> Duration {
        let pause = match self.attempt().await {
            Ok(pause) => {
                self.failing = false;
                pause
            }
            Err(error) => {
                // Once an outage, not once a try.
                if !self.failing {
                    let namespace = &self.namespace;
                    warn!(%error, "the Lease {namespace}/{LEADER_LEASE} could not be read or written; trying again");
                }
                self.failing = true;
                jittered(LOOK_EVERY)
            }
        };
        self.tell();
        pause
    }

    async fn attempt(&mut self) -> Result<Duration, Error> {
        let found = limited(self.api.get_opt(LEADER_LEASE)).await?;
        let record = found.as_ref().map(record_of);
        let (leads, now) = (self.leads(), self.origin.elapsed());
        let step = self.candidate.look(record.as_ref(), leads, now);
        if step == Step::Wait {
            // Somebody else holds it, whatever we believed.
            self.until.send_if_modified(|until| until.take().is_some());
            return Ok(jittered(LOOK_EVERY));
        }
        let lease = self.mine(found, step);
        let params = PostParams {
            field_manager: Some(MANAGED_BY.into()),
            ..PostParams::default()
        };
        let made = lease.metadata.resource_version.is_none();
        // Faith counts from before the request: nobody can have seen the renewal earlier.
        let start = Instant::now();
        let written = if made {
            limited(self.api.create(&params, &lease)).await
        } else {
            limited(self.api.replace(LEADER_LEASE, &params, &lease)).await
        };
        match written {
            Ok(lease) => {
                self.until.send_replace(Some(start + FAITH));
                let now = self.origin.elapsed();
                self.candidate.look(Some(&record_of(&lease)), true, now);
                Ok(RENEW_EVERY.saturating_sub(start.elapsed()))
            }
            Err(Error::Api(kube::Error::Api(status)))
                if status.code == 409 || (status.code == 404 && !made) =>
            {
                debug!(reason = %status.reason, "the lease has changed meanwhile: looking again");
                Ok(jittered(LOOK_AGAIN))
            }
            Err(error) => Err(error),
        }
    }

    /// The lease as it is to be, with all that is not ours left as it was found.
    fn mine(&self, found: Option<Lease>, step: Step) -> Lease {
        let now = Some(MicroTime(self.clock.now()));
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(LEADER_LEASE.into()),
                namespace: Some(self.namespace.clone()),
                labels: Some([(MANAGED_BY_LABEL.into(), MANAGED_BY.into())].into()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let made = lease.metadata.resource_version.is_none();
        let spec = lease.spec.get_or_insert_default();
        if step == Step::Acquire {
            let before = spec.lease_transitions.unwrap_or(0);
            spec.lease_transitions = Some(if made { 0 } else { before.saturating_add(1) });
            spec.acquire_time.clone_from(&now);
        }
        spec.holder_identity = Some(self.candidate.name().to_owned());
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = now;
        lease
    }

    /// Says who leads, when that has changed.
    fn tell(&mut self) {
        let me = self.candidate.name();
        let leader = match self.candidate.holder() {
            _ if self.leads() => Leader::Me,
            Some(holder) if holder != me => Leader::Other(holder.to_owned()),
            _ => Leader::Nobody,
        };
        if leader == self.told {
            return;
        }
        match &leader {
            Leader::Me => info!(leader = me, "this process leads: it makes the changes"),
            Leader::Other(leader) => info!(%leader, "another process leads; this one stands by"),
            Leader::Nobody if self.told == Leader::Me => {
                warn!("this process leads no more: it could not renew the lease in time");
            }
            Leader::Nobody => {}
        }
        self.told = leader;
    }

    /// Gives the lease up, if it is ours.
    async fn release(mut self) {
        self.until.send_replace(None);
        match timeout(RELEASE_LIMIT, self.give_up()).await {
            Ok(Ok(true)) => info!("the lease is given up: another process may lead"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                warn!(%error, "the lease could not be given up; it expires by itself");
            }
            Err(_) => warn!("the lease could not be given up in time; it expires by itself"),
        }
    }

    async fn give_up(&mut self) -> Result<bool, Error> {
        loop {
            let Some(mut lease) = self.api.get_opt(LEADER_LEASE).await? else {
                return Ok(false);
            };
            if record_of(&lease).holder() != Some(self.candidate.name()) {
                return Ok(false);
            }
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(self.clock.now()));
            let params = PostParams {
                field_manager: Some(MANAGED_BY.into()),
                ..PostParams::default()
            };
            match self.api.replace(LEADER_LEASE, &params, &lease).await {
                Ok(_) => return Ok(true),
                // A renewal that was under way has arrived.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn record_of(lease: &Lease) -> Record {
    let Some(spec) = &lease.spec else {
        return Record::default();
    };
    let LeaseSpec {
        holder_identity,
        renew_time,
        lease_transitions,
        lease_duration_seconds,
        ..
    } = spec;
    Record {
        holder: holder_identity.clone(),
        renewed: renew_time.as_ref().map(|time| time.0),
        transitions: lease_transitions.unwrap_or(0),
        seconds: *lease_duration_seconds,
    }
}

async fn limited<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match timeout(CALL_LIMIT, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::Timeout),
    }
}

/// Up to a tenth more or less, so that several do not look in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * random::fraction())
}

/// The machine or the pod, for people; and what makes it this process alone.
fn identity() -> String {
    let host = ["POD_NAME", "HOSTNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let host = host.as_deref().map_or("", str::trim);
    let host = if host.is_empty() { "chancery" } else { host };
    format!("{host}_{}", random::random_id())
}
