//! A replica's look, and when it need not be gone on with.

use std::rc::Rc;

use chancery::controllers::{Decision, Looked, Write};

use super::reads::{Answer, Call, Progress, play};
use super::shelf::Objects;
use super::state::{Doing, Next, Replica, Rules, State, Step, again, timestamp};

impl Rules {
    /// The call that a replica's look waits for.
    pub(super) fn asks(&mut self, replica: &Replica) -> Option<Call> {
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

    /// A look goes on: by an answer, where one was asked for; what ends it is done at once.
    pub(super) fn look_on(&mut self, state: &mut State, n: usize, answer: bool) {
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

    pub(super) fn wake_of(&self, decision: usize) -> Option<i64> {
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

    /// Of two replicas that could both read now, the search lets the first go on in one path, and the
    /// second in another; there the first sleeps.
    pub(super) fn lay_to_sleep(&mut self, state: &mut State, step: Step) {
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
    pub(super) fn wake(&mut self, state: &mut State, step: Step) {
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
    pub(super) fn give_up(state: &mut State) {
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
}
