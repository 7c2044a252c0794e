//! A state of the small world, and every step that can follow it.

use std::collections::HashMap;
use std::rc::Rc;

use chancery::api::v1alpha1::SigningKey;
use chancery::controllers::{Decision, Fill, Looked, Object, PlanFn, Write};
use chancery::domain::names;
use chancery::domain::settings::Settings;
use chancery::objects::{jwks_map, key_secret};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::onlooker::Onlooker;
use super::reads::{Answer, Call, Progress, RING, play};
use super::shelf::{Held, Id, MOST_KEYS, Objects, SLOTS, Shelf};

/// What one replica's operator is doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Doing {
    /// Nothing. `again`: its last visit did not come to its end.
    Rests { wake: Option<i64>, again: bool },
    /// It looks, since then, had its last answer at that time, and has had these.
    Looks {
        since: i64,
        last: i64,
        answers: Vec<(Call, Answer)>,
    },
    /// It writes: this decision, from this write on.
    Writes { decision: usize, at: usize },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    pub doing: Doing,
    /// What its watches had shown when its last visit began.
    pub view: Objects,
    /// It is stopped (SIGSTOP, or a slow machine): time goes on without it.
    pub stopped: bool,
    /// What its next step would have seen when another took a step instead: until that changes, to
    /// take it is as if it had been taken before, which is another path of the search ("sleep sets").
    pub asleep: Option<Objects>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// Milliseconds.
    pub now: i64,
    pub objects: Objects,
    /// How many key pairs were made.
    pub made: usize,
    pub replicas: [Replica; 2],
    pub faults: usize,
    /// How many of the scenario's edits were made.
    pub edits: usize,
    /// The next edit could have been made before, and nothing that has to do with it was done since.
    pub edit_asleep: bool,
    pub seen: Onlooker,
}

/// A step from one state to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A replica begins a visit.
    Begins(usize),
    /// The same, on watches that lag: it sees what it saw the last time. A fault.
    BeginsStale(usize),
    /// A read is answered.
    Reads(usize),
    /// A write is carried out, or meets a conflict.
    Writes(usize),
    /// The process dies before the write, or the write is refused. A fault.
    FailsBefore(usize),
    /// The write is carried out, and the process dies or its answer is lost. A fault.
    FailsAfter(usize),
    /// A replica is stopped. A fault.
    Stops(usize),
    /// It goes on.
    Resumes(usize),
    /// All rest: on to the next wake-up.
    Time,
    /// A person, or a vandal, does the scenario's next deed.
    Edit,
}

/// What holds for all states of one search.
pub struct Rules {
    pub things: Shelf,
    pub settings: Settings,
    pub plan: PlanFn,
    /// What is done to each decision before it is carried out: nothing, but for broken operators.
    pub tamper: fn(&mut Decision),
    pub scenario: &'static super::scenario::Scenario,
    pub most_faults: usize,
    decisions: Vec<Rc<Decision>>,
    by_content: HashMap<String, usize>,
    looks: HashMap<Look, Next>,
}

/// What decides how a look goes on: what the clock says first and last, what the watches have shown,
/// and the answers.
type Look = ((i64, i64), Objects, Vec<(Call, Answer)>);

#[derive(Clone, Copy)]
enum Next {
    Calls(Call),
    Decides(usize),
    Moved,
}

pub fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).expect("a time")
}

impl Rules {
    pub fn new(
        scenario: &'static super::scenario::Scenario,
        plan: PlanFn,
        tamper: fn(&mut Decision),
        most_faults: usize,
    ) -> Self {
        Self {
            things: Shelf::new(),
            settings: super::scenario::settings(),
            plan,
            tamper,
            scenario,
            most_faults,
            decisions: Vec::new(),
            by_content: HashMap::new(),
            looks: HashMap::new(),
        }
    }

    /// The steps that can follow.
    pub fn steps(&self, state: &State) -> Vec<Step> {
        let mut steps = Vec::new();
        let may_fail = state.faults < self.most_faults;
        for (n, replica) in state.replicas.iter().enumerate() {
            if replica.stopped {
                steps.push(Step::Resumes(n));
                continue;
            }
            if replica.asleep.is_some() {
                continue;
            }
            match &replica.doing {
                Doing::Rests { wake, again } => {
                    let due = *again || wake.is_some_and(|at| at <= state.now);
                    let news = replica.view != state.objects;
                    if due || news {
                        steps.push(Step::Begins(n));
                    }
                    if due && news && may_fail {
                        steps.push(Step::BeginsStale(n));
                    }
                }
                // That it dies amid a look is as if it had not begun.
                Doing::Looks { .. } => {
                    steps.push(Step::Reads(n));
                    if may_fail && self.scenario.stops {
                        steps.push(Step::Stops(n));
                    }
                }
                Doing::Writes { .. } => {
                    steps.push(Step::Writes(n));
                    if may_fail {
                        steps.extend([Step::FailsBefore(n), Step::FailsAfter(n)]);
                        steps.extend(self.scenario.stops.then_some(Step::Stops(n)));
                    }
                }
            }
        }
        if self.may_edit(state) && !state.edit_asleep {
            steps.push(Step::Edit);
        }
        let at_rest = |r: &Replica| {
            r.stopped
                || matches!(r.doing, Doing::Rests { again: false, .. }) && r.view == state.objects
        };
        let next = Self::next_wake(state);
        if state.replicas.iter().all(at_rest)
            && next.is_some_and(|at| at > state.now && at <= self.scenario.until)
            && !state.replicas.iter().all(|r| r.stopped)
        {
            steps.push(Step::Time);
        }
        steps
    }

    fn may_edit(&self, state: &State) -> bool {
        let next = self.scenario.edits.get(state.edits);
        next.is_some_and(|edit| (edit.when)(&self.things, state))
    }

    fn next_wake(state: &State) -> Option<i64> {
        let resting = state.replicas.iter().filter(|r| !r.stopped);
        let wakes = resting.filter_map(|r| match r.doing {
            Doing::Rests { wake, .. } => wake,
            _ => None,
        });
        wakes.min()
    }

    /// Whether nothing happens any more but by the clock, or a person's hand.
    pub fn settled(state: &State) -> bool {
        state.replicas.iter().all(|r| {
            let waits = |wake: Option<i64>| wake.is_none_or(|at| at > state.now);
            !r.stopped
                && r.view == state.objects
                && matches!(r.doing, Doing::Rests { again: false, wake } if waits(wake))
        })
    }

    /// A step for a person to read.
    pub fn told(&mut self, state: &State, step: Step) -> String {
        match step {
            Step::Reads(n) => match self.asks(&state.replicas[n]) {
                Some(call) => format!("{n} reads {call:?}"),
                None => unreachable!("it waits for an answer"),
            },
            Step::Writes(n) | Step::FailsBefore(n) | Step::FailsAfter(n) => {
                let Doing::Writes { decision, at } = state.replicas[n].doing else {
                    unreachable!("it writes");
                };
                let write = &self.decisions[decision].writes[at];
                format!("{step:?}: {}", self.told_write(write))
            }
            other => format!("{other:?}"),
        }
    }

    fn told_write(&self, write: &Write) -> String {
        match write {
            Write::Create(Object::Secret(s), _) => format!("creates {}", s.name_any()),
            Write::Delete(Object::Secret(s)) => format!("deletes {}", s.name_any()),
            Write::Replace(Object::Secret(s), _) => {
                format!("{} {:?}", s.name_any(), key_secret::read(s).life)
            }
            Write::Create(Object::ConfigMap(m), _) | Write::Replace(Object::ConfigMap(m), _) => {
                let set = jwks_map::read(m).unwrap_or_default();
                let pair = |kid: &str| self.things.pair_named(kid);
                let pairs: Vec<_> = set.keys.iter().map(|k| pair(&k.kid)).collect();
                format!("{} {pairs:?}", m.name_any())
            }
            Write::Status { .. } => "status".to_owned(),
            other => format!("{other:?}"),
        }
    }

    /// Takes a step. None: it leads out of the small world (a key too many).
    pub fn take(&mut self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        self.lay_to_sleep(&mut state, step);
        match step {
            Step::Begins(n) | Step::BeginsStale(n) => {
                let objects = state.objects;
                let replica = &mut state.replicas[n];
                if step == Step::Begins(n) {
                    replica.view = objects;
                } else {
                    state.faults += 1;
                }
                replica.doing = Doing::Looks {
                    since: state.now,
                    last: state.now,
                    answers: Vec::new(),
                };
                self.look_on(&mut state, n, false);
            }
            Step::Reads(n) => self.look_on(&mut state, n, true),
            Step::Writes(n) => {
                let (done, more) = self.write(&mut state, n)?;
                let replica = &mut state.replicas[n];
                match (&mut replica.doing, done) {
                    (Doing::Writes { at, .. }, true) if more => *at += 1,
                    (doing, true) => {
                        let decision = match doing {
                            Doing::Writes { decision, .. } => *decision,
                            _ => unreachable!("it writes"),
                        };
                        let wake = self.wake_of(decision);
                        replica.doing = Doing::Rests { wake, again: false };
                    }
                    (doing, false) => *doing = again(),
                }
            }
            Step::FailsBefore(n) => {
                state.faults += 1;
                state.replicas[n].doing = again();
            }
            Step::FailsAfter(n) => {
                state.faults += 1;
                self.write(&mut state, n)?;
                state.replicas[n].doing = again();
            }
            Step::Stops(n) => {
                state.faults += 1;
                state.replicas[n].stopped = true;
            }
            Step::Resumes(n) => state.replicas[n].stopped = false,
            Step::Time => {
                let next = Self::next_wake(&state).expect("a wake-up");
                state.seen.time_passes(next);
                state.now = next;
            }
            Step::Edit => {
                let edit = &self.scenario.edits[state.edits];
                state.edits += 1;
                (edit.act)(self, &mut state);
            }
        }
        self.wake(&mut state, step);
        Self::give_up(&mut state);
        if state.faults >= self.most_faults {
            // No watch lags any more: what they showed before is of no account.
            for replica in &mut state.replicas {
                let resting = matches!(replica.doing, Doing::Rests { .. });
                if resting && replica.view != state.objects {
                    replica.view = Objects::default();
                }
            }
        }
        Some(state)
    }

    /// The call that a replica's look waits for.
    fn asks(&mut self, replica: &Replica) -> Option<Call> {
        let Doing::Looks {
            since,
            last,
            answers,
        } = &replica.doing
        else {
            return None;
        };
        match self.next((*since, *last), replica.view, answers) {
            Next::Calls(call) => Some(call),
            _ => None,
        }
    }

    /// Of two replicas that could both read now, the search lets the first go on in one path, and the
    /// second in another; there the first sleeps.
    fn lay_to_sleep(&mut self, state: &mut State, step: Step) {
        let objects = state.objects;
        state.edit_asleep = match step {
            Step::Reads(n) if self.may_edit(state) => {
                let touches = self.scenario.edits[state.edits].touches;
                self.asks(&state.replicas[n]) != Some(touches)
            }
            _ => false,
        };
        if let Step::Begins(1) | Step::Reads(1) = step {
            let first = &mut state.replicas[0];
            let writes = matches!(first.doing, Doing::Writes { .. });
            if !writes && !first.stopped && first.asleep.is_none() {
                first.asleep = Some(objects);
            }
        }
    }

    /// Wakes whoever would see something else now.
    fn wake(&mut self, state: &mut State, step: Step) {
        for n in 0..2 {
            let replica = &state.replicas[n];
            let Some(before) = replica.asleep else {
                continue;
            };
            let news = match &replica.doing {
                Doing::Rests { .. } => before != state.objects,
                Doing::Looks { .. } => {
                    let asks = self.asks(&state.replicas[n]);
                    asks.is_none_or(|call| call.answer(&before) != call.answer(&state.objects))
                }
                Doing::Writes { .. } => true,
            };
            if news || step == Step::Time {
                state.replicas[n].asleep = None;
            }
        }
    }

    /// A look that will find the ring or a `ConfigMap` changed, and so end without a write, ends at
    /// once: what it would still read is of no account.
    fn give_up(state: &mut State) {
        let objects = state.objects;
        for replica in &mut state.replicas {
            let Doing::Looks { answers, .. } = &replica.doing else {
                continue;
            };
            let live = answers.iter().skip_while(|(call, _)| *call != Call::Ring);
            let live: Vec<_> = live.collect();
            let fenced = [Call::Ring, Call::RingMap, Call::IssuerMap];
            let moved = fenced.iter().any(|fence| {
                let mut of = live.iter().filter(|(call, _)| call == fence);
                match (of.next(), of.next()) {
                    (Some((call, answer)), None) => call.answer(&objects) != *answer,
                    _ => false,
                }
            });
            if moved {
                replica.doing = again();
                replica.asleep = None;
            }
        }
    }

    /// A look goes on: by an answer, where one was asked for; what ends it is done at once.
    fn look_on(&mut self, state: &mut State, n: usize, answer: bool) {
        let (objects, now) = (state.objects, state.now);
        let replica = &mut state.replicas[n];
        let Doing::Looks {
            since,
            last,
            answers,
        } = &mut replica.doing
        else {
            unreachable!("it looks");
        };
        let (view, since) = (replica.view, *since);
        if answer {
            let Next::Calls(call) = self.next((since, *last), view, answers) else {
                unreachable!("it waits for an answer");
            };
            answers.push((call, call.answer(&objects)));
            *last = now;
        }
        match self.next((since, *last), view, answers) {
            Next::Calls(_) => {}
            Next::Moved => replica.doing = again(),
            Next::Decides(decision) if self.decisions[decision].writes.is_empty() => {
                let wake = self.wake_of(decision);
                replica.doing = Doing::Rests { wake, again: false };
            }
            Next::Decides(decision) => replica.doing = Doing::Writes { decision, at: 0 },
        }
    }

    fn wake_of(&self, decision: usize) -> Option<i64> {
        // Fractions of a millisecond do not matter.
        let wake = self.decisions[decision].wake_at?;
        Some(wake.as_millisecond() + 1)
    }

    fn next(&mut self, times: (i64, i64), view: Objects, answers: &[(Call, Answer)]) -> Next {
        let id = (times, view, answers.to_vec());
        if let Some(next) = self.looks.get(&id) {
            return *next;
        }
        let by = (&self.settings, self.plan);
        let times = (timestamp(times.0), timestamp(times.1));
        let next = match play(&self.things, view, answers, times, by) {
            Progress::Calls(call) => Next::Calls(call),
            Progress::Ends(Looked::Moved) => Next::Moved,
            Progress::Ends(Looked::Decided(decision, _)) => Next::Decides(self.keep(decision)),
            Progress::Ends(Looked::Unreadable(why)) => panic!("{}", why.error),
        };
        self.looks.insert(id, next);
        next
    }

    fn keep(&mut self, mut decision: Decision) -> usize {
        (self.tamper)(&mut decision);
        decision.writes.retain(|w| !matches!(w, Write::Event(_)));
        let content = format!("{decision:?}");
        if let Some(known) = self.by_content.get(&content) {
            return *known;
        }
        let number = self.decisions.len();
        self.decisions.push(Rc::new(decision));
        self.by_content.insert(content, number);
        number
    }

    /// Carries out the write that a replica is at: whether the API server took it, and whether
    /// another follows. None: it leads out of the small world.
    fn write(&mut self, state: &mut State, n: usize) -> Option<(bool, bool)> {
        let Doing::Writes { decision, at } = state.replicas[n].doing else {
            unreachable!("it writes");
        };
        let decision = self.decisions[decision].clone();
        let done = self.apply(state, &decision.writes[at])?;
        if done {
            state.seen.look(&self.things, state.now, &state.objects);
        }
        Some((done, at + 1 < decision.writes.len()))
    }

    /// What is held of versions of an object that is about to be written.
    fn held(&self, state: &State, current: Id) -> Held {
        let mut others = Vec::new();
        for replica in &state.replicas {
            match &replica.doing {
                Doing::Rests { .. } => {}
                Doing::Looks { answers, .. } => {
                    for (_, answer) in answers {
                        match answer {
                            Answer::One(id) => others.push(*id),
                            Answer::Many(ids) => others.extend(ids),
                        }
                    }
                }
                Doing::Writes { decision, at } => {
                    let writes = &self.decisions[*decision].writes[*at..];
                    others.extend(writes.iter().filter_map(decided_on));
                }
            }
        }
        Held { current, others }
    }

    /// A person edits the ring.
    pub fn edit(&mut self, state: &mut State, change: impl FnOnce(&mut SigningKey)) {
        let held = self.held(state, state.objects.ring);
        let ring = self.things.ring(state.objects.ring).expect("the ring");
        let mut ring = (**ring).clone();
        change(&mut ring);
        ring.metadata.generation = ring.metadata.generation.map(|g| g + 1);
        state.objects.ring = self.things.put_ring(ring, &held);
    }

    fn apply(&mut self, state: &mut State, write: &Write) -> Option<bool> {
        let fresh = |meta: &ObjectMeta, id: Id| {
            id != 0 && meta.resource_version.as_deref() == Some(&id.to_string())
        };
        let done = match write {
            Write::Create(Object::ConfigMap(map), _) => {
                let name = map.name_any();
                let current = *place_of(&mut state.objects, &name);
                if current == 0 {
                    let mut map = (**map).clone();
                    map.metadata.uid = Some(name.clone());
                    let held = self.held(state, current);
                    let id = self.things.put_map(map, &held);
                    *place_of(&mut state.objects, &name) = id;
                }
                current == 0
            }
            Write::Replace(Object::ConfigMap(map), _) => {
                let name = map.name_any();
                let current = *place_of(&mut state.objects, &name);
                let fresh = fresh(&map.metadata, current);
                if fresh {
                    let held = self.held(state, current);
                    let id = self.things.put_map((**map).clone(), &held);
                    *place_of(&mut state.objects, &name) = id;
                }
                fresh
            }
            Write::Create(Object::Secret(secret), Fill::KeyPair(..)) => {
                let slot = slot_of(&secret.name_any());
                if slot >= SLOTS || slot >= self.scenario.most_keys || state.made >= MOST_KEYS {
                    return None;
                }
                let current = state.objects.secrets[slot];
                if current == 0 {
                    let mut secret = (**secret).clone();
                    let pem = ByteString(self.things.pairs[state.made].pem.clone());
                    let data = secret.data.get_or_insert_default();
                    data.insert(key_secret::PRIVATE_KEY.into(), pem);
                    secret.metadata.uid = Some(format!("pair-{}", state.made));
                    let held = self.held(state, current);
                    state.objects.secrets[slot] = self.things.put_secret(secret, &held);
                    state.seen.makes(state.made, slot);
                    state.made += 1;
                }
                current == 0
            }
            Write::Replace(Object::Secret(secret), _) => {
                let slot = slot_of(&secret.name_any());
                let current = state.objects.secrets[slot];
                let fresh = fresh(&secret.metadata, current);
                if fresh {
                    let held = self.held(state, current);
                    state.objects.secrets[slot] = self.things.put_secret((**secret).clone(), &held);
                }
                fresh
            }
            Write::Delete(Object::Secret(secret)) => {
                let place = &mut state.objects.secrets[slot_of(&secret.name_any())];
                let fresh = fresh(&secret.metadata, *place);
                if fresh {
                    *place = 0;
                }
                fresh
            }
            Write::Status {
                resource_version,
                status,
            } => {
                let current = state.objects.ring;
                let fresh = *resource_version == current.to_string();
                if fresh {
                    let ring = self.things.ring(current).expect("the ring");
                    let mut ring = (**ring).clone();
                    let status = serde_json::from_value(status.clone());
                    ring.status = Some(status.expect("a status"));
                    let held = self.held(state, current);
                    state.objects.ring = self.things.put_ring(ring, &held);
                }
                fresh
            }
            other => panic!("the search knows no {other:?}"),
        };
        Some(done)
    }
}

/// The version that a write is decided on.
fn decided_on(write: &Write) -> Option<Id> {
    let version = match write {
        Write::Replace(Object::ConfigMap(m), _) => m.metadata.resource_version.clone(),
        Write::Replace(Object::Secret(s), _) | Write::Delete(Object::Secret(s)) => {
            s.metadata.resource_version.clone()
        }
        Write::Status {
            resource_version, ..
        } => Some(resource_version.clone()),
        _ => None,
    };
    version?.parse().ok()
}

fn again() -> Doing {
    Doing::Rests {
        wake: None,
        again: true,
    }
}

fn place_of<'a>(objects: &'a mut Objects, name: &str) -> &'a mut Id {
    if name == names::ISSUER_JWKS {
        &mut objects.issuer_map
    } else {
        &mut objects.ring_map
    }
}

fn slot_of(name: &str) -> usize {
    let sequence = names::key_sequence(RING, name).expect("a key pair's name");
    usize::try_from(sequence - 1).expect("a number")
}
