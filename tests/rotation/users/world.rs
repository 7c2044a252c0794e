//! The world of a technical user, and its scheduler.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chancery::api::v1alpha1::{Subscription, TechnicalUser, all_crds};
use chancery::controllers::Outcome;
use chancery::domain::settings::Settings;
use chancery::embedded::{ApiServer, Ids, Options};
use chancery::objects::credentials;
use chancery::stores::Guarded;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

use super::deeds::Later;
use super::judge::Judge;
use super::replica::{Found, Replica, TENANT, USER};
use crate::simulation::dice::Dice;
use crate::simulation::gate::{FAULTS, Told, Verdict};
use crate::simulation::replica::HandClock;
use crate::simulation::world::{DAY, HOUR, MINUTE, SECOND, without_rules};

/// 2026-01-01.
const START: i64 = 1_767_225_600_000;
const NAMESPACE: &str = "chancery-system";
/// How long it is quiet at the end.
const QUIET: i64 = 4 * DAY;
/// A rotation takes some dozens, and an hour with conflicts and repairs some hundreds.
const MOST_CALLS_AN_HOUR: u64 = 10_000;

/// What happened in a world.
#[derive(Default)]
pub struct Report {
    pub trace: Vec<String>,
    pub delivered: u64,
    pub judged: u64,
    pub calls: u64,
    pub faults: u64,
    pub kills: u64,
}

impl Report {
    pub fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.judged += other.judged;
        self.calls += other.calls;
        self.faults += other.faults;
        self.kills += other.kills;
    }

    pub fn told(&self) -> String {
        let Self {
            delivered,
            judged,
            calls,
            faults,
            kills,
            ..
        } = self;
        format!(
            "{delivered} client secrets delivered, {judged} times judged, {calls} calls with {faults} faults, {kills} kills"
        )
    }

    /// The end of the trace.
    pub fn tail(&self) -> String {
        let from = self.trace.len().saturating_sub(60);
        self.trace[from..].join("\n")
    }
}

pub struct World {
    pub dice: Dice,
    truth: Arc<AtomicI64>,
    end: i64,
    pub api: ApiServer,
    pub admin: Client,
    pub settings: Arc<Settings>,
    pub desk: mpsc::UnboundedSender<Told>,
    told: mpsc::UnboundedReceiver<Told>,
    pub replicas: Vec<Replica>,
    version: u64,
    next_fate: i64,
    pub later: Vec<(i64, Later)>,
    faulty: i64,
    /// In minutes.
    pub grace: i64,
    pub judge: Judge,
    /// When the hour began, and how many calls there had been.
    hour: (i64, u64),
    /// How many calls there had been when a rest was last noted.
    rested: u64,
    /// Whether there are faults after which kube asks again by itself, after a pause of a random length.
    pub asks_again: bool,
    pub report: Report,
}

impl World {
    pub async fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5ec7);
        let truth = Arc::new(AtomicI64::new(START));
        let clock = |offset: i64| {
            Arc::new(HandClock {
                truth: truth.clone(),
                offset: AtomicI64::new(offset),
            })
        };
        let api = ApiServer::open(Options {
            crds: all_crds().iter().map(without_rules).collect(),
            state_dir: None,
            clock: clock(0),
            ids: Ids::Seeded(seed),
        })
        .expect("an API server");
        let admin = api.client(NAMESPACE);
        let settings = Arc::new(Settings {
            issuer: "http://127.0.0.1:8080".into(),
            ..Settings::default()
        });
        let grace = dice.within(10, 40 * 60);
        furnish(&admin, grace, dice.within(42, 200)).await;
        let (desk, told) = mpsc::unbounded_channel();
        let service = api.service();
        let replicas = (0..2).map(|n| {
            let clock = clock(dice.within(-4 * MINUTE, 4 * MINUTE));
            Replica::new((n, 0), clock, &service, &settings, &desk)
        });
        let replicas = replicas.collect();
        let faulty = dice.within(15, 60);
        Self {
            end: START + dice.within(8, 20) * DAY,
            next_fate: START + dice.within(HOUR, DAY),
            dice,
            truth,
            api,
            admin,
            settings,
            desk,
            told,
            replicas,
            version: 0,
            later: Vec::new(),
            faulty,
            grace,
            judge: Judge::new(grace * MINUTE),
            hour: (START, 0),
            rested: 0,
            asks_again: true,
            report: Report::default(),
        }
    }

    pub fn now(&self) -> i64 {
        self.truth.load(Ordering::Relaxed)
    }

    pub fn write(&mut self, line: &str) {
        let at = self.now() - START;
        self.report.trace.push(format!("{at:>12} {line}"));
    }

    /// Plays until the end, and on until all is quiet.
    pub async fn play(&mut self) -> Result<(), String> {
        while self.now() < self.end + QUIET {
            self.hear().await;
            self.observe().await?;
            self.look().await;
            for replica in &self.replicas {
                let now = self.truth.load(Ordering::Relaxed);
                if replica.has_seen() && replica.cut_until + 2 * SECOND < now {
                    self.judge.judge(now, replica)?;
                }
            }
            if self.decide().await {
                continue;
            }
            self.wait().await;
            self.events().await;
        }
        self.report.delivered = self.judge.delivered;
        self.report.judged = self.judge.judged;
        let stored = self.stored().await;
        self.judge.at_rest(self.now(), &stored)
    }

    pub async fn user(&self) -> TechnicalUser {
        users(&self.admin).get(USER).await.expect("the user")
    }

    async fn stored(&self) -> Vec<credentials::Stored> {
        let all = secrets(&self.admin, NAMESPACE).list(&ours()).await;
        let mut stored = all.expect("Secrets").items.into_iter();
        stored
            .find(|s| credentials::hashes_of(s).is_some())
            .map(|s| credentials::read(&s))
            .unwrap_or_default()
    }

    async fn hear(&mut self) {
        let mut ended: Vec<(usize, Result<Outcome, String>)> = Vec::new();
        loop {
            let done = |r: &Replica| ended.iter().any(|(n, ..)| *n == r.number);
            let thinking = |r: &Replica| r.visit.as_ref().is_some_and(|v| v.waiting.is_none());
            if !self.replicas.iter().any(|r| thinking(r) && !done(r)) {
                break;
            }
            match self.told.recv().await.expect("the desk stays open") {
                Told::Call {
                    replica,
                    life,
                    line,
                    verdict,
                } => {
                    let replica = &mut self.replicas[replica];
                    if replica.life == life
                        && let Some(visit) = &mut replica.visit
                    {
                        visit.waiting = Some((line, verdict));
                    }
                }
                Told::Done {
                    replica,
                    life,
                    outcome,
                } if self.replicas[replica].life == life => ended.push((replica, outcome)),
                Told::Done { .. } => {}
            }
        }
        // Whichever thread was faster.
        ended.sort_by_key(|(replica, _)| *replica);
        for (replica, outcome) in ended {
            self.done(replica, &outcome);
        }
    }

    fn done(&mut self, replica: usize, outcome: &Result<Outcome, String>) {
        let now = self.now();
        let pause = self.dice.within(1, 60) * SECOND;
        let replica = &mut self.replicas[replica];
        replica.visit = None;
        let its_now = replica.guard.moment().now;
        let in_time = |at: Timestamp| {
            let wait = at.duration_since(its_now).as_millis();
            now + i64::try_from(wait).unwrap_or(DAY).clamp(50, HOUR)
        };
        replica.due = match outcome {
            Ok(Outcome::Settled(at)) => at.map_or(now + HOUR, in_time),
            Ok(Outcome::LookAgain) => now + 250,
            Ok(Outcome::Refused(_)) | Err(_) => now + pause,
        };
        let line = format!("{} rests for {} ms", replica.number, replica.due - now);
        if self.report.calls > self.rested {
            self.rested = self.report.calls;
            self.write(&line);
        }
    }

    /// Time passes, for those who measure it as well.
    async fn pass(&self, millis: i64) {
        self.truth.fetch_add(millis, Ordering::Relaxed);
        tokio::time::advance(Duration::from_millis(millis.unsigned_abs())).await;
    }

    /// Gives one waiting call its verdict.
    async fn decide(&mut self) -> bool {
        let waits = |r: &Replica| r.visit.as_ref().is_some_and(|v| v.waiting.is_some());
        let waiting: Vec<usize> = (0..self.replicas.len())
            .filter(|n| waits(&self.replicas[*n]))
            .collect();
        if waiting.is_empty() {
            return false;
        }
        let n = *self.dice.pick(&waiting);
        let pause = if self.dice.once_in(20) {
            self.dice.within(0, 4 * SECOND)
        } else {
            self.dice.within(1, 50)
        };
        self.pass(pause).await;
        let cut = self.replicas[n].cut_until > self.now();
        let fault = self.now() < self.end && self.dice.once_in(self.faulty);
        let verdict = match (cut, fault) {
            (true, _) => Verdict::Broken,
            (_, false) => Verdict::Go,
            (_, true) => *self.dice.pick(&FAULTS),
        };
        let verdict = match verdict {
            Verdict::Refused(_) if !self.asks_again => Verdict::Refused(500),
            Verdict::AnswerLost(_) if !self.asks_again => Verdict::AnswerLost(500),
            verdict => verdict,
        };
        let replica = &mut self.replicas[n];
        let Some((line, decided)) = replica.visit.as_mut().and_then(|v| v.waiting.take()) else {
            return true;
        };
        self.report.calls += 1;
        self.report.faults += u64::from(verdict != Verdict::Go);
        self.write(&format!("{n} {line}: {verdict:?}"));
        let _ = decided.send(verdict);
        true
    }

    /// What is true now, judged.
    async fn observe(&mut self) -> Result<(), String> {
        let now = self.now();
        if now - self.hour.0 > HOUR {
            self.hour = (now, self.report.calls);
        }
        if self.report.calls - self.hour.1 > MOST_CALLS_AN_HOUR {
            return Err("a hot loop: the replicas never rest".into());
        }
        let version = self.api.resource_version();
        if version == self.version {
            return Ok(());
        }
        self.version = version;
        let (user, stored) = (self.user().await, self.stored().await);
        let target = secrets(&self.admin, TENANT);
        let target = target.get_opt(&user.secret_name()).await.expect("a Secret");
        let plain = target.and_then(|s| {
            let value = s.data?.remove(&user.secret_keys().client_secret)?;
            String::from_utf8(value.0).ok()
        });
        let plain = plain.filter(|p| p.starts_with("sk-"));
        self.judge.look(now, &stored, plain.as_deref())
    }

    /// Replicas look at kinds whose time has come, each kind by itself: so views lag.
    async fn look(&mut self) {
        let now = self.now();
        for n in 0..self.replicas.len() {
            if self.replicas[n].cut_until > now {
                continue;
            }
            let mut news = false;
            for kind in 0..3 {
                let (due, seen) = self.replicas[n].looks[kind];
                if due > now || seen == self.version && seen > 0 {
                    continue;
                }
                let everything = ListParams::default();
                let found = match kind {
                    0 => {
                        let users: Api<Guarded<TechnicalUser>> = Api::all(self.admin.clone());
                        let subscriptions: Api<Guarded<Subscription>> =
                            Api::all(self.admin.clone());
                        Found::Users(
                            users.list(&everything).await.expect("users").items,
                            subscriptions.list(&everything).await.expect("them").items,
                        )
                    }
                    1 => {
                        let all = secrets(&self.admin, NAMESPACE).list(&ours()).await;
                        Found::Hashes(all.expect("Secrets").items)
                    }
                    _ => {
                        let all = secrets(&self.admin, TENANT).list(&ours()).await;
                        Found::Deliveries(all.expect("Secrets").items)
                    }
                };
                // Servers have contact if they follow within two seconds; what operators see of
                // deliveries may be older.
                let lag = match (kind, self.dice.once_in(25)) {
                    (_, false) => self.dice.within(0, 400),
                    (2, true) => self.dice.within(0, 2 * MINUTE),
                    (_, true) => self.dice.within(0, 1500),
                };
                let version = self.version.max(1);
                let replica = &mut self.replicas[n];
                replica.see(found);
                replica.looks[kind] = (now + lag, version);
                news = true;
            }
            let replica = &mut self.replicas[n];
            if news && replica.has_seen() {
                replica.serve();
                if replica.visit.is_none() {
                    replica.due = replica.due.min(now + 5);
                }
            }
        }
    }

    /// Nobody waits: on to whatever comes next.
    async fn wait(&mut self) {
        let mut next = self.end + QUIET;
        if self.next_fate < self.end {
            next = next.min(self.next_fate);
        }
        next = self.later.iter().map(|(at, _)| *at).fold(next, i64::min);
        for replica in &self.replicas {
            if replica.visit.is_none() {
                next = next.min(replica.due.max(replica.cut_until));
            }
            for (due, seen) in replica.looks {
                if seen != self.version || seen == 0 {
                    next = next.min(due.max(replica.cut_until));
                }
            }
        }
        let millis = next.max(self.now() + 1) - self.now();
        self.pass(millis).await;
    }

    async fn events(&mut self) {
        let now = self.now();
        let date = Timestamp::from_millisecond(now / SECOND * SECOND).expect("a time");
        for replica in &mut self.replicas {
            // As the real task does, once a second or when it wakes.
            if replica.cut_until <= now && replica.guard.begin_check() {
                replica.guard.compared(date);
            }
            if replica.visit.is_none() && replica.due <= now && replica.has_seen() {
                replica.begin(&self.desk);
            } else if replica.due <= now {
                replica.due = now + SECOND;
            }
        }
        while let Some(at) = self.later.iter().position(|(at, _)| *at <= now) {
            let (_, what) = self.later.remove(at);
            self.undo(what).await;
        }
        if self.next_fate <= now && now < self.end {
            self.next_fate = now + self.dice.within(HOUR, 3 * DAY);
            let fate = self.draw();
            self.befall(fate).await;
            // Often when something is under way, which it mostly is not.
            if self.dice.once_in(3) {
                self.next_fate = now + self.dice.within(1, 5 * SECOND);
            }
        }
    }
}

/// The tenant with its technical user.
async fn furnish(admin: &Client, grace: i64, interval: i64) {
    let params = PostParams::default();
    for name in [NAMESPACE, TENANT] {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let namespace: Namespace = serde_json::from_value(namespace).expect("a namespace");
        let namespaces: Api<Namespace> = Api::all(admin.clone());
        namespaces.create(&params, &namespace).await.expect("made");
    }
    let subscription = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "Subscription",
        "metadata": {"name": "acme", "namespace": TENANT},
        "spec": {
            "legalEntity": {"id": "acme", "name": "Acme"}, "tier": "Free",
            "periodFrom": "2025-01-01T00:00:00Z", "allowed": {"audiences": ["a"]},
        },
    });
    let subscription: Subscription = serde_json::from_value(subscription).expect("one");
    let subscriptions: Api<Subscription> = Api::namespaced(admin.clone(), TENANT);
    let made = subscriptions.create(&params, &subscription).await;
    made.expect("a Subscription");
    let rotation = json!({"interval": format!("{interval}h"), "gracePeriod": format!("{grace}m")});
    let user = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
        "metadata": {"name": USER, "namespace": TENANT},
        "spec": {"audiences": ["a"], "credential": {"secret": {"rotation": rotation}}},
    });
    let user: TechnicalUser = serde_json::from_value(user).expect("a user");
    let made = users(admin).create(&params, &user).await;
    made.expect("a technical user");
}

fn ours() -> ListParams {
    ListParams::default().labels("app.kubernetes.io/managed-by=chancery")
}

pub fn users(client: &Client) -> Api<TechnicalUser> {
    Api::namespaced(client.clone(), TENANT)
}

pub fn secrets(client: &Client, namespace: &str) -> Api<Secret> {
    Api::namespaced(client.clone(), namespace)
}
