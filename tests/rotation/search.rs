//! An exhaustive search of small worlds: two replicas that both believe that they lead, one ring,
//! up to three generations. The operator's own look, decision and list of writes are driven call by
//! call, in every interleaving of the two, with up to two faults a run placed everywhere.
//!
//! What is left out leads to states that are in: a read that fails, or a kill amid reads, leaves the
//! world as it was before the visit began; a conflict or a refused write leaves it as a kill before
//! the write does; and a lost answer as a kill after it. Reads at the API server are never stale
//! (etcd answers them); what the watches have shown may be.
//!
//! `SEARCH_FAULTS=3 cargo test --test rotation search` goes further than CI does.

#[path = "search/looks.rs"]
mod looks;
#[path = "search/onlooker.rs"]
mod onlooker;
#[path = "search/reads.rs"]
mod reads;
#[path = "search/scenario.rs"]
mod scenario;
#[path = "search/server.rs"]
mod server;
#[path = "search/shelf.rs"]
mod shelf;
#[path = "search/state.rs"]
mod state;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

use chancery::controllers::{Decision, PlanFn};
use chancery::domain::rotation;
use tokio::time::Instant;

pub use scenario::SCENARIOS;
use scenario::Scenario;
use state::{Rules, State, Step};

/// What a search found.
#[derive(Default)]
pub struct Found {
    pub states: usize,
    pub settled: usize,
    pub steps: usize,
    /// What does not hold, and the steps that lead there.
    pub broken: Option<String>,
}

/// 128 bits, so that two states of a million do not pass for one; and the same if the two replicas
/// change places.
fn fingerprint(state: &State) -> u128 {
    let half = |state: &State, salt: u64| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        state.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    let mut mirrored = state.clone();
    mirrored.replicas.swap(0, 1);
    let of = |state: &State| half(state, 1) << 64 | half(state, 2);
    of(state).min(of(&mirrored))
}

struct Frame {
    state: State,
    steps: Vec<Step>,
    next: usize,
}

/// Visits every state of a scenario that can be reached, depth first, unless there are more than that.
pub fn search(
    scenario: &'static Scenario,
    plan: PlanFn,
    tamper: fn(&mut Decision),
    faults: usize,
    most_states: usize,
) -> Found {
    let mut rules = Rules::new(scenario, plan, tamper, faults);
    let start = scenario.start(&mut rules.things);
    let mut found = Found::default();
    let mut known = HashSet::new();
    let mut path = Vec::new();
    visit(&mut rules, start, &mut found, &mut known, &mut path);
    while let Some(frame) = path.last_mut() {
        if found.broken.is_some() {
            return found;
        }
        let Some(step) = frame.steps.get(frame.next).copied() else {
            path.pop();
            continue;
        };
        if found.states >= most_states {
            found.broken = Some("it does not come to an end".into());
            return found;
        }
        frame.next += 1;
        found.steps += 1;
        let before = frame.state.clone();
        if let Some(state) = rules.take(&before, step) {
            visit(&mut rules, state, &mut found, &mut known, &mut path);
        }
    }
    found
}

fn visit(
    rules: &mut Rules,
    state: State,
    found: &mut Found,
    known: &mut HashSet<u128>,
    path: &mut Vec<Frame>,
) {
    if !known.insert(fingerprint(&state)) {
        return;
    }
    found.states += 1;
    let mut broken = state.seen.broken;
    if broken.is_none() && Rules::settled(&state) {
        found.settled += 1;
        let unsound = onlooker::unsound(&rules.things, &state.objects, &state.seen);
        broken = unsound.or_else(|| (rules.scenario.settled)(&rules.things, &state));
    }
    if let Some(why) = broken {
        let steps: Vec<String> = path
            .iter()
            .map(|frame| {
                let at = frame.state.now - path[0].state.now;
                let step = rules.told(&frame.state, frame.steps[frame.next - 1]);
                format!("{at:>8} {step}")
            })
            .collect();
        found.broken = Some(format!("{why}, after\n{}", steps.join("\n")));
    }
    let steps = rules.steps(&state);
    path.push(Frame {
        state,
        steps,
        next: 0,
    });
}

#[test]
fn every_interleaving_of_two_replicas() {
    let faults: Option<usize> = std::env::var("SEARCH_FAULTS")
        .ok()
        .and_then(|n| n.parse().ok());
    let only = std::env::var("SEARCH_ONLY").unwrap_or_default();
    let wanted = SCENARIOS.iter().filter(|s| s.name.contains(&only));
    let next = Mutex::new(wanted);
    let work = || {
        let mut all = 0;
        loop {
            let Some(scenario) = next.lock().expect("no panic").next() else {
                return all;
            };
            let (begun, faults) = (Instant::now(), faults.unwrap_or(scenario.faults));
            let found = search(scenario, rotation::plan, |_| {}, faults, usize::MAX);
            println!(
                "{}: {} states, {} steps, {} states with nothing left to do, up to {faults} faults, {:.1} s",
                scenario.name,
                found.states,
                found.steps,
                found.settled,
                begun.elapsed().as_secs_f64()
            );
            if let Some(broken) = found.broken {
                panic!("{}: {broken}", scenario.name);
            }
            let settled = found.settled > 0;
            assert!(settled, "{}: it never comes to rest", scenario.name);
            all += found.states;
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let all: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        done.map(|states| states.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .sum()
    });
    println!("{all} states in all");
}
