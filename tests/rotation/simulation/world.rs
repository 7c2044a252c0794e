//! The world and its scheduler.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chancery::api::v1alpha1::{SigningKey, SigningKeySpec, all_crds};
use chancery::controllers::{Outcome, PlanFn};
use chancery::domain::algorithm::Algorithm;
use chancery::domain::period::Period;
use chancery::domain::settings::Settings;
use chancery::domain::staleness::Limits;
use chancery::embedded::{ApiServer, Ids, Options};
use chancery::objects::key_secret;
use chancery::stores::Guarded;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::dice::Dice;
use super::fate::Fate;
use super::gate::{FAULTS, Told, Verdict};
use super::replica::{Found, HandClock, Making, Replica, ring};
use super::report::Report;
use super::verifiers::{HABITS, Verifier};

pub const SECOND: i64 = 1000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;
/// 2026-01-01.
const START: i64 = 1_767_225_600_000;
const NAMESPACE: &str = "chancery-system";
/// How long a token of the simulation lives, which is the longest that the release allows.
pub const TTL: i64 = HOUR;

/// A token to be shown to a verifier.
pub struct Showing {
    pub at: i64,
    pub verifier: usize,
    pub kid: String,
    pub issued: i64,
    pub by: usize,
}

/// What is known of a key by its Secret, with true times.
#[derive(Clone)]
pub struct Known {
    pub in_jwks_since: Option<i64>,
    pub activated: Option<Timestamp>,
    /// Until when its tokens may be refused by caches: it signed at once in an emergency.
    pub excused_until: i64,
    pub withdrawn: bool,
    /// Its Secret is gone, so that status alone remembers it.
    pub lost: bool,
}

pub struct World {
    pub(super) dice: Dice,
    pub(super) plan: PlanFn,
    pub(super) truth: Arc<AtomicI64>,
    pub(super) end: i64,
    pub(super) api: ApiServer,
    pub(super) admin: Client,
    pub(super) settings: Arc<Settings>,
    pub(super) limits: Limits,
    pub(super) lead: i64,
    pub(super) desk: mpsc::UnboundedSender<Told>,
    pub(super) told: mpsc::UnboundedReceiver<Told>,
    pub(super) replicas: Vec<Replica>,
    /// Cut-off times of each replica: from, until.
    pub(super) away: Vec<Vec<(i64, i64)>>,
    pub(super) written: Vec<(i64, Arc<Vec<String>>)>,
    pub(super) version: u64,
    pub(super) known: BTreeMap<String, Known>,
    pub(super) verifiers: Vec<Verifier>,
    pub(super) showings: Vec<Showing>,
    pub(super) next_token: i64,
    pub(super) next_fate: i64,
    pub(super) later: VecDeque<(i64, Later)>,
    pub(super) silent_since: Option<i64>,
    pub(super) emergency_until: i64,
    pub(super) faulty: i64,
    /// When the hour began, and how many calls there had been.
    pub(super) hour: (i64, u64),
    pub(super) report: Report,
}

#[derive(Clone, Copy)]
pub enum Later {
    ClockRight(usize),
    TakeBack,
    SignAsBefore,
}

impl World {
    pub async fn new(seed: u64, plan: PlanFn) -> Self {
        let mut dice = Dice::new(seed);
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
        let namespace = Namespace {
            metadata: kube::core::ObjectMeta {
                name: Some(NAMESPACE.into()),
                ..Default::default()
            },
            ..Namespace::default()
        };
        let namespaces: Api<Namespace> = Api::all(admin.clone());
        let made = namespaces.create(&PostParams::default(), &namespace).await;
        made.expect("a namespace");
        let lead = *dice.pick(&["30m", "45m", "2h"]);
        let spec = json!({
            "audience": "client", "algorithm": "EdDSA",
            "rotation": {
                "interval": format!("{}h", dice.within(72, 240)),
                "publishLead": lead,
                "gracePeriod": format!("{}m", dice.within(0, 400)),
                "retention": dice.pick(&["0s", "36h"]),
            },
        });
        let spec: SigningKeySpec = serde_json::from_value(spec).expect("a spec");
        let lead: Period = lead.parse().expect("a period");
        let made = rings(&admin)
            .create(&PostParams::default(), &SigningKey::new("main", spec))
            .await;
        made.expect("a ring");
        let max_age = settings.jwks.max_age;
        let limits = Limits::new(settings.serving.max_staleness, Some(lead), max_age);
        let (desk, told) = mpsc::unbounded_channel();
        let service = api.service();
        let making = Making {
            service: &service,
            settings: &settings,
            desk: &desk,
            plan,
            limits,
        };
        let replicas: Vec<Replica> = (0..2)
            .map(|n| Replica::new(n, 0, clock(dice.within(-4 * MINUTE, 4 * MINUTE)), &making))
            .collect();
        let verifiers = HABITS
            .iter()
            .map(|habit| Verifier::new(*habit, dice.within(0, HOUR)));
        let verifiers = verifiers.collect();
        let faulty = dice.within(15, 60);
        Self {
            end: START + dice.within(28, 45) * DAY,
            next_fate: START + dice.within(HOUR, 2 * DAY),
            dice,
            plan,
            truth,
            api,
            admin,
            settings,
            limits,
            lead: lead.as_secs() * SECOND,
            desk,
            told,
            replicas,
            away: vec![Vec::new(); 2],
            written: Vec::new(),
            version: 0,
            known: BTreeMap::new(),
            verifiers,
            showings: Vec::new(),
            next_token: START + HOUR,
            later: VecDeque::new(),
            silent_since: None,
            emergency_until: 0,
            faulty,
            hour: (START, 0),
            report: Report::default(),
        }
    }

    pub fn report(self) -> Report {
        self.report
    }

    pub(super) fn now(&self) -> i64 {
        self.truth.load(Ordering::Relaxed)
    }

    pub(super) fn write(&mut self, line: &str) {
        let at = self.now() - START;
        self.report.trace.push(format!("{at:>12} {line}"));
    }

    /// Plays until the end.
    pub async fn play(&mut self) -> Result<(), String> {
        while self.now() < self.end {
            self.hear().await;
            self.observe().await?;
            self.look().await;
            if self.decide() {
                continue;
            }
            self.wait();
            self.events().await?;
        }
        Ok(())
    }

    /// Hears what the replicas say until each waits for a verdict, or rests.
    async fn hear(&mut self) {
        loop {
            let thinking = |r: &Replica| r.visit.as_ref().is_some_and(|v| v.waiting.is_none());
            if !self.replicas.iter().any(thinking) {
                return;
            }
            let told = self.told.recv().await.expect("the desk stays open");
            match told {
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
                } => self.done(replica, life, &outcome),
            }
        }
    }

    fn done(&mut self, replica: usize, life: u64, outcome: &Result<Outcome, String>) {
        let now = self.now();
        let pause = self.dice.within(1, 60) * SECOND;
        let replica = &mut self.replicas[replica];
        if replica.life != life {
            return;
        }
        replica.visit = None;
        let its_now = replica.guard.moment().now;
        let in_time = |at: Timestamp| {
            let wait = at.duration_since(its_now).as_millis();
            now + i64::try_from(wait).unwrap_or(DAY).clamp(50, DAY)
        };
        let due = match outcome {
            Ok(Outcome::Settled(at)) => at.map_or(now + DAY, in_time),
            Ok(Outcome::LookAgain) => now + 250,
            Ok(Outcome::Refused(_)) | Err(_) => now + pause,
        };
        replica.due = due;
        let (number, due) = (replica.number, due - now);
        self.write(&format!("{number} rests for {due} ms"));
    }

    /// Gives one waiting call its verdict.
    fn decide(&mut self) -> bool {
        let waiting: Vec<usize> = (0..self.replicas.len())
            .filter(|n| {
                self.replicas[*n]
                    .visit
                    .as_ref()
                    .is_some_and(|v| v.waiting.is_some())
            })
            .collect();
        if waiting.is_empty() {
            return false;
        }
        let n = *self.dice.pick(&waiting);
        let pause = if self.dice.once_in(20) {
            self.dice.within(0, 8 * SECOND)
        } else {
            self.dice.within(1, 50)
        };
        self.truth.fetch_add(pause, Ordering::Relaxed);
        let cut = self.replicas[n].cut_until > self.now();
        let fault = self.dice.once_in(self.faulty);
        let verdict = match (cut, fault) {
            (true, _) => Verdict::Broken,
            (_, false) => Verdict::Go,
            (_, true) => *self.dice.pick(&FAULTS),
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
                let found = match kind {
                    0 => {
                        let all: Api<Guarded<SigningKey>> =
                            Api::namespaced(self.admin.clone(), NAMESPACE);
                        let all = all.list(&ListParams::default()).await;
                        Found::Rings(all.expect("rings").items)
                    }
                    1 => Found::Secrets(
                        secrets(&self.admin)
                            .list(&ours())
                            .await
                            .expect("Secrets")
                            .items,
                    ),
                    _ => Found::Maps(maps(&self.admin).list(&ours()).await.expect("maps").items),
                };
                let lag = if self.dice.once_in(25) {
                    self.dice.within(0, 2 * MINUTE)
                } else {
                    self.dice.within(0, 400)
                };
                let version = self.version.max(1);
                let replica = &mut self.replicas[n];
                replica.see(kind, found);
                replica.looks[kind] = (now + lag, version);
                news = true;
            }
            let replica = &mut self.replicas[n];
            if news && replica.has_seen() {
                replica.serve(now);
                if replica.visit.is_none() {
                    replica.due = replica.due.min(now + 5);
                }
            }
        }
    }

    /// Nobody waits: on to whatever comes next.
    fn wait(&mut self) {
        let mut next = self.next_token.min(self.next_fate).min(self.end);
        next = self.showings.iter().map(|s| s.at).fold(next, i64::min);
        next = self.later.iter().map(|(at, _)| *at).fold(next, i64::min);
        for replica in &self.replicas {
            if replica.visit.is_none() {
                next = next.min(replica.due);
            }
            for (due, seen) in replica.looks {
                if seen != self.version || seen == 0 {
                    next = next.min(due.max(replica.cut_until));
                }
            }
        }
        let next = next.max(self.now() + 1);
        self.truth.store(next, Ordering::Relaxed);
    }

    async fn events(&mut self) -> Result<(), String> {
        let now = self.now();
        self.check_clocks();
        for n in 0..self.replicas.len() {
            let replica = &mut self.replicas[n];
            if replica.visit.is_none() && replica.due <= now && replica.has_seen() {
                replica.begin(&ring(), &self.desk);
            } else if replica.due <= now {
                replica.due = now + SECOND;
            }
        }
        while let Some(at) = self.later.iter().position(|(at, _)| *at <= now) {
            if let Some((_, what)) = self.later.remove(at) {
                self.undo(what).await;
            }
        }
        if self.next_fate <= now {
            self.next_fate = now + self.dice.within(2 * HOUR, 4 * DAY);
            let fate = Fate::drawn(&mut self.dice);
            self.befall(fate).await;
        }
        if self.next_token <= now {
            self.next_token = now + self.dice.within(2 * MINUTE, 3 * HOUR);
            self.issue()?;
        }
        self.show()
    }

    /// Each replica compares its clock as the real task does, once a second or when it wakes.
    fn check_clocks(&mut self) {
        let date = Timestamp::from_millisecond(self.now() / SECOND * SECOND).expect("a time");
        for replica in &mut self.replicas {
            if replica.cut_until <= self.truth.load(Ordering::Relaxed)
                && replica.guard.begin_check()
            {
                replica.guard.compared(date);
            }
        }
    }
}

pub fn kid_of(secret: &Secret) -> String {
    key_secret::key_of(secret, Algorithm::EdDSA)
        .map(|jwk| jwk.kid)
        .unwrap_or_default()
}

/// The CRD without its CEL rules, which are tried elsewhere: they take most of the time.
pub fn without_rules(crd: &CustomResourceDefinition) -> CustomResourceDefinition {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("x-kubernetes-validations");
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(crd).expect("JSON");
    strip(&mut value);
    serde_json::from_value(value).expect("a CRD")
}

fn ours() -> ListParams {
    ListParams::default().labels("app.kubernetes.io/managed-by=chancery")
}

pub fn rings(client: &Client) -> Api<SigningKey> {
    Api::namespaced(client.clone(), NAMESPACE)
}

pub fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), NAMESPACE)
}

pub fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}
