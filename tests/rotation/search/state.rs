//! A state of the small world, and every step that can follow it.

use std::collections::HashMap;
use std::rc::Rc;

use chancery::controllers::{Decision, PlanFn};
use chancery::domain::settings::Settings;
use jiff::Timestamp;

use super::onlooker::Onlooker;
use super::reads::{Answer, Call};
use super::shelf::{Objects, Shelf};

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
    pub(super) decisions: Vec<Rc<Decision>>,
    pub(super) by_content: HashMap<String, usize>,
    pub(super) looks: HashMap<Look, Next>,
}

/// What decides how a look goes on: what the clock says first and last, what the watches have shown,
/// and the answers.
pub(super) type Look = ((i64, i64), Objects, Vec<(Call, Answer)>);

#[derive(Clone, Copy)]
pub(super) enum Next {
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

    pub(super) fn may_edit(&self, state: &State) -> bool {
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
}

pub(super) fn again() -> Doing {
    Doing::Rests {
        wake: None,
        again: true,
    }
}
