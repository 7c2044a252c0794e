//! The world and its scheduler.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chancery::api::v1alpha1::{
    Invalidated, SigningKey, SigningKeySpec, SigningKeyStatus, all_crds,
};
use chancery::clock::Clock;
use chancery::controllers::{Outcome, PlanFn};
use chancery::domain::algorithm::Algorithm;
use chancery::domain::period::Period;
use chancery::domain::settings::Settings;
use chancery::domain::staleness::Limits;
use chancery::embedded::{ApiServer, Ids, Options};
use chancery::objects::{jwks_map, key_secret};
use chancery::stores::Guarded;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::dice::Dice;
use super::fate::Fate;
use super::gate::{Told, Verdict};
use super::replica::{Found, HandClock, Making, Replica, ring};
use super::verifiers::{HABITS, Jwks, Verifier};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 2026-01-01.
const START: i64 = 1_767_225_600_000;
const NAMESPACE: &str = "chancery-system";
/// How long a token of the simulation lives, which is the longest that the release allows.
const TTL: i64 = HOUR;

/// A rotation takes some dozens, and an hour with conflicts and repairs some hundreds.
const MOST_CALLS_AN_HOUR: u64 = 10_000;

#[derive(Default)]
pub struct Report {
    pub trace: Vec<String>,
    pub rotations: u64,
    pub tokens: u64,
    pub verified: u64,
    pub faults: u64,
    pub kills: u64,
    pub calls: u64,
    pub excused: u64,
}

impl Report {
    pub fn add(&mut self, other: &Self) {
        self.rotations += other.rotations;
        self.tokens += other.tokens;
        self.verified += other.verified;
        self.faults += other.faults;
        self.kills += other.kills;
        self.calls += other.calls;
        self.excused += other.excused;
    }

    pub fn told(&self) -> String {
        format!(
            "{} keys began to sign, {} calls with {} faults, {} kills, {} tokens, {} verifications, {} of them excused by an emergency",
            self.rotations,
            self.calls,
            self.faults,
            self.kills,
            self.tokens,
            self.verified,
            self.excused
        )
    }

    /// The end of the trace.
    pub fn tail(&self) -> String {
        let from = self.trace.len().saturating_sub(60);
        self.trace[from..].join("\n")
    }
}

/// A token to be shown to a verifier.
struct Showing {
    at: i64,
    verifier: usize,
    kid: String,
    issued: i64,
    by: usize,
}

/// What is known of a key by its Secret, with true times.
#[derive(Clone)]
struct Known {
    in_jwks_since: Option<i64>,
    activated: Option<Timestamp>,
    /// Until when its tokens may be refused by caches: it signed at once in an emergency.
    excused_until: i64,
    withdrawn: bool,
    /// Its Secret is gone, so that status alone remembers it.
    lost: bool,
}

pub struct World {
    dice: Dice,
    plan: PlanFn,
    truth: Arc<AtomicI64>,
    end: i64,
    api: ApiServer,
    admin: Client,
    settings: Arc<Settings>,
    limits: Limits,
    lead: i64,
    desk: mpsc::UnboundedSender<Told>,
    told: mpsc::UnboundedReceiver<Told>,
    replicas: Vec<Replica>,
    /// Cut-off times of each replica: from, until.
    away: Vec<Vec<(i64, i64)>>,
    written: Vec<(i64, Arc<Vec<String>>)>,
    version: u64,
    known: BTreeMap<String, Known>,
    verifiers: Vec<Verifier>,
    showings: Vec<Showing>,
    next_token: i64,
    next_fate: i64,
    later: VecDeque<(i64, Later)>,
    silent_since: Option<i64>,
    emergency_until: i64,
    faulty: i64,
    /// When the hour began, and how many calls there had been.
    hour: (i64, u64),
    report: Report,
}

#[derive(Clone, Copy)]
enum Later {
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

    fn now(&self) -> i64 {
        self.truth.load(Ordering::Relaxed)
    }

    fn write(&mut self, line: &str) {
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
            Err(_) => now + pause,
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
            (_, true) => *self.dice.pick(&[
                Verdict::Refused(429),
                Verdict::Refused(503),
                Verdict::AnswerLost(504),
                Verdict::Broken,
                Verdict::BrokenAfter,
            ]),
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

    /// Looks at what is true now, and judges it.
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
        let map = maps(&self.admin)
            .get_opt("chancery-issuer")
            .await
            .expect("the map");
        let kids: Vec<String> = map
            .as_ref()
            .and_then(jwks_map::read)
            .map(|set| set.keys.into_iter().map(|k| k.kid).collect())
            .unwrap_or_default();
        if self
            .written
            .last()
            .is_none_or(|(_, before)| **before != kids)
        {
            self.written.push((now, Arc::new(kids.clone())));
        }
        let secrets = secrets(&self.admin)
            .list(&ListParams::default())
            .await
            .expect("Secrets");
        let first = self.known.values().all(|k| k.activated.is_none());
        for secret in &secrets.items {
            let Ok(jwk) = key_secret::key_of(secret, Algorithm::EdDSA) else {
                continue;
            };
            let life = key_secret::read(secret).life;
            let stands = kids.contains(&jwk.kid);
            let lead = self.lead;
            let known = self.known.entry(jwk.kid.clone()).or_insert(Known {
                in_jwks_since: None,
                activated: None,
                excused_until: 0,
                withdrawn: false,
                lost: false,
            });
            known.in_jwks_since = stands.then(|| known.in_jwks_since.unwrap_or(now));
            if life.activated.is_some() && life.activated != known.activated {
                let again = known.activated.is_some();
                known.activated = life.activated;
                self.report.rotations += 1;
                if self.dice.once_in(3) {
                    // What befalls a ring amid a rotation is what matters.
                    self.next_fate = now + self.dice.within(SECOND, 90 * MINUTE);
                }
                let lead_over = known
                    .in_jwks_since
                    .is_some_and(|since| now - since >= lead - 10 * SECOND);
                if !lead_over && !first && !again {
                    if now > self.emergency_until {
                        return Err(format!(
                            "key {} signs {} s after it was published, and its lead is {} s",
                            jwk.kid,
                            known.in_jwks_since.map_or(0, |s| now - s) / SECOND,
                            lead / SECOND
                        ));
                    }
                    known.excused_until = now + 2 * HOUR;
                }
            }
        }
        Ok(())
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

    /// One replica that load balancers have gives a token.
    fn issue(&mut self) -> Result<(), String> {
        let now = self.now();
        let candidates: Vec<usize> = (0..2).filter(|n| self.is_ready(*n, now)).collect();
        let all: Vec<usize> = (0..2).collect();
        let of = if candidates.is_empty() {
            &all
        } else {
            &candidates
        };
        let n = *self.dice.pick(of);
        let replica = &self.replicas[n];
        let view = replica.snapshots.load();
        let signs =
            view.contact_age(&*replica.clock) <= replica.limits.signing || replica.cut_until <= now;
        let signer = view.rings(replica.clock.now()).next().filter(|_| signs);
        let Some(signer) = signer else {
            let since = *self.silent_since.get_or_insert(now);
            let excused = now < self.emergency_until || candidates.is_empty();
            if now - since > 3 * HOUR && !excused {
                return Err(format!(
                    "nothing has signed for {} minutes",
                    (now - since) / MINUTE
                ));
            }
            return Ok(());
        };
        self.silent_since = None;
        self.report.tokens += 1;
        let kid = signer.active.key_id().to_owned();
        for _ in 0..2 {
            let after = self.dice.within(0, TTL);
            self.showings.push(Showing {
                at: now + after,
                verifier: self.dice.index(HABITS.len()),
                kid: kid.clone(),
                issued: now,
                by: n,
            });
        }
        Ok(())
    }

    fn show(&mut self) -> Result<(), String> {
        let now = self.now();
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.showings)
            .into_iter()
            .partition(|s| s.at <= now);
        self.showings = rest;
        for showing in due {
            let mut verifiers = std::mem::take(&mut self.verifiers);
            let accepts = verifiers[showing.verifier].accepts(&showing.kid, now, self);
            self.verifiers = verifiers;
            self.report.verified += 1;
            if accepts {
                continue;
            }
            let known = self.known.get(&showing.kid);
            let excused = known.is_none_or(|k| k.withdrawn || now < k.excused_until);
            if !excused {
                return Err(format!(
                    "a token of {} that replica {} issued {} s ago is refused by a verifier that is {:?}; the JWKS has {:?}",
                    showing.kid,
                    showing.by,
                    (now - showing.issued) / SECOND,
                    HABITS[showing.verifier],
                    self.written.last().map(|(_, kids)| kids.clone())
                ));
            }
            self.report.excused += 1;
        }
        Ok(())
    }

    fn is_ready(&self, n: usize, at: i64) -> bool {
        let limit = i64::try_from(self.limits.readiness.as_millis()).unwrap_or(0);
        let away = self.away[n]
            .iter()
            .any(|(from, to)| from + limit < at && at < *to);
        let replica = &self.replicas[n];
        !away && replica.served.iter().any(|(since, _)| *since <= at)
    }

    async fn befall(&mut self, fate: Fate) {
        self.write(&format!("FATE {fate:?}"));
        let now = self.now();
        let n = self.dice.index(2);
        match fate {
            Fate::Kill => self.kill(n),
            Fate::CutOff(minutes) => self.cut(n, minutes),
            Fate::Outage(minutes) => (0..2).for_each(|n| self.cut(n, minutes)),
            Fate::Jump(seconds) => {
                self.replicas[n]
                    .clock
                    .offset
                    .fetch_add(seconds * SECOND, Ordering::Relaxed);
                let _ = self.replicas[n].guard.moment();
                self.later.push_back((now + 2 * HOUR, Later::ClockRight(n)));
            }
            Fate::Request => {
                let value = format!("{now}");
                self.edit(move |ring| {
                    ring.annotations_mut()
                        .insert("chancery.dev/rotate".into(), value);
                })
                .await;
            }
            Fate::Interval(hours) => {
                self.edit(move |ring| {
                    let rotation = ring.spec.rotation.get_or_insert_default();
                    rotation.interval = Some(Period::from_hours(hours));
                })
                .await;
            }
            Fate::Algorithm => {
                self.edit(|ring| {
                    ring.spec.algorithm = match ring.spec.algorithm {
                        Algorithm::EdDSA => Algorithm::ES256,
                        _ => Algorithm::EdDSA,
                    };
                })
                .await;
            }
            Fate::WithdrawRetired(minutes) => {
                let found = self.find(|life, active| {
                    !active && life.retired.is_some() && life.removed.is_none()
                });
                if let Some(secret) = found.await {
                    self.withdraw(&secret, Some(Period::from_mins(minutes)))
                        .await;
                    self.later.push_back((now + DAY, Later::TakeBack));
                }
            }
            Fate::WithdrawActive(at_once) => {
                if let Some(secret) = self.find(|_, active| active).await {
                    self.emergency_until = now + 2 * HOUR;
                    let grace = if at_once {
                        Period::from_secs(0)
                    } else {
                        Period::from_hours(1)
                    };
                    self.withdraw(&secret, Some(grace)).await;
                }
            }
            Fate::SignWith => {
                let found = self.find(|life, active| {
                    !active
                        && life.retired.is_some()
                        && life.activated.is_some()
                        && life.removed.is_none()
                        && life.withdrawn.is_none()
                });
                if let Some(secret) = found.await {
                    let kid = kid_of(&secret);
                    self.edit(move |ring| {
                        if !ring.spec.invalidated.iter().any(|i| i.key_id == kid) {
                            ring.spec.sign_with = Some(kid);
                        }
                    })
                    .await;
                    self.later.push_back((now + DAY, Later::SignAsBefore));
                }
            }
            Fate::LoseIssuerMap => self.lose_map("chancery-issuer").await,
            Fate::LoseRingMap => self.lose_map("main-jwks").await,
            Fate::LoseStatus => {
                // Where a Secret was lost too, nothing is left that tells of its key.
                for known in self.known.values_mut().filter(|k| k.lost) {
                    known.withdrawn = true;
                }
                let mut ring = rings(&self.admin).get("main").await.expect("the ring");
                ring.status = Some(SigningKeyStatus::default());
                let rings = rings(&self.admin);
                let _ = rings
                    .replace_status("main", &PostParams::default(), &ring)
                    .await;
            }
            Fate::LoseIdleSecret => {
                if let Some(secret) = self
                    .find(|life, active| !active && life.removed.is_none())
                    .await
                {
                    self.lose(&secret).await;
                }
            }
            Fate::LoseActiveSecret => {
                if let Some(secret) = self.find(|_, active| active).await {
                    self.emergency_until = now + 2 * HOUR;
                    self.lose(&secret).await;
                }
            }
        }
    }

    async fn undo(&mut self, what: Later) {
        match what {
            Later::ClockRight(n) => {
                let offset = self.dice.within(-4 * MINUTE, 4 * MINUTE);
                self.replicas[n]
                    .clock
                    .offset
                    .store(offset, Ordering::Relaxed);
                let _ = self.replicas[n].guard.moment();
            }
            Later::TakeBack => self.edit(|ring| ring.spec.invalidated.clear()).await,
            Later::SignAsBefore => self.edit(|ring| ring.spec.sign_with = None).await,
        }
    }

    fn kill(&mut self, n: usize) {
        self.report.kills += 1;
        let old = &mut self.replicas[n];
        if let Some(visit) = old.visit.take() {
            visit.task.abort();
        }
        let service = self.api.service();
        let making = Making {
            service: &service,
            settings: &self.settings,
            desk: &self.desk,
            plan: self.plan,
            limits: self.limits,
        };
        let mut new = Replica::new(n, old.life + 1, old.clock.clone(), &making);
        new.cut_until = old.cut_until;
        // Load balancers know what it served before; it is not among them until it serves again.
        new.served = std::mem::take(&mut old.served);
        let now = self.now();
        let back = now + self.dice.within(SECOND, 5 * MINUTE);
        new.looks = [(back, 0); 3];
        new.due = back;
        self.away[n].push((now - 2 * HOUR, back + SECOND));
        self.replicas[n] = new;
    }

    fn cut(&mut self, n: usize, minutes: i64) {
        let now = self.now();
        let replica = &mut self.replicas[n];
        // Up to here it knew all, or its views would have told.
        if replica.has_seen() {
            replica.serve(now);
        }
        replica.cut_until = now + minutes * MINUTE;
        self.away[n].push((now, replica.cut_until));
    }

    async fn edit(&mut self, change: impl FnOnce(&mut SigningKey)) {
        let mut ring = rings(&self.admin).get("main").await.expect("the ring");
        change(&mut ring);
        let done = rings(&self.admin)
            .replace("main", &PostParams::default(), &ring)
            .await;
        if let Err(error) = done {
            panic!("an edit is refused: {error}");
        }
    }

    async fn withdraw(&mut self, secret: &Secret, grace_period: Option<Period>) {
        let kid = kid_of(secret);
        if let Some(known) = self.known.get_mut(&kid) {
            known.withdrawn = true;
        }
        let entry = Invalidated {
            key_id: kid.clone(),
            grace_period,
        };
        self.edit(move |ring| {
            if ring.spec.sign_with.as_ref() == Some(&kid) {
                ring.spec.sign_with = None;
            }
            ring.spec.invalidated.retain(|i| i.key_id != kid);
            ring.spec.invalidated.push(entry);
        })
        .await;
    }

    /// A key Secret of which this holds; `active`: it is the one that signs.
    async fn find(
        &mut self,
        which: impl Fn(chancery::domain::rotation::Life, bool) -> bool,
    ) -> Option<Secret> {
        let all = secrets(&self.admin)
            .list(&ListParams::default())
            .await
            .expect("Secrets")
            .items;
        let mine: Vec<Secret> = all.into_iter().filter(key_secret::is_key_secret).collect();
        let may_sign = |s: &&Secret| key_secret::read(s).life.may_sign();
        let active = mine
            .iter()
            .filter(may_sign)
            .max_by_key(|s| key_secret::read(s).life.activated);
        let active = active.map(ResourceExt::name_any);
        let found = mine
            .iter()
            .find(|s| which(key_secret::read(s).life, active == Some(s.name_any())));
        found.cloned()
    }

    async fn lose(&mut self, secret: &Secret) {
        if let Some(known) = self.known.get_mut(&kid_of(secret)) {
            known.lost = true;
        }
        let secrets = secrets(&self.admin);
        let _ = secrets
            .delete(&secret.name_any(), &DeleteParams::default())
            .await;
    }

    async fn lose_map(&mut self, name: &str) {
        let _ = maps(&self.admin)
            .delete(name, &DeleteParams::default())
            .await;
    }
}

impl Jwks for World {
    fn served_at(&mut self, time: i64) -> Option<Arc<Vec<String>>> {
        let ready: Vec<usize> = (0..2).filter(|n| self.is_ready(*n, time)).collect();
        let of = if ready.is_empty() { vec![0, 1] } else { ready };
        let n = *self.dice.pick(&of);
        at(&self.replicas[n].served, time)
    }

    fn written_at(&self, time: i64) -> Option<Arc<Vec<String>>> {
        // A ConfigMap that is gone leaves the mounted files as they are.
        let full: Vec<_> = self
            .written
            .iter()
            .filter(|(_, kids)| !kids.is_empty())
            .cloned()
            .collect();
        at(&full, time)
    }
}

fn at(history: &[(i64, Arc<Vec<String>>)], time: i64) -> Option<Arc<Vec<String>>> {
    let found = history.iter().rev().find(|(since, _)| *since <= time);
    found.map(|(_, kids)| kids.clone())
}

fn kid_of(secret: &Secret) -> String {
    key_secret::key_of(secret, Algorithm::EdDSA)
        .map(|jwk| jwk.kid)
        .unwrap_or_default()
}

/// The CRD without its CEL rules, which are tried elsewhere: they take most of the time.
fn without_rules(crd: &CustomResourceDefinition) -> CustomResourceDefinition {
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

fn rings(client: &Client) -> Api<SigningKey> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}
