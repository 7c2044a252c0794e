//! Months of a ring's life on the embedded API server, in virtual time and with a scheduler of its
//! own: two replicas of the operator's and the server's real code, clocks that are off and jump,
//! calls that fail before and after, views that lag, kills, people who edit and vandals who
//! delete; and verifiers that cache as real ones do. No token may be refused before it expires.
//!
//! `SIMULATION_SEEDS=5000 cargo test --test simulation` plays more seeds, `SIMULATION_SEED=17` one.

#[path = "simulation/dice.rs"]
mod dice;
#[path = "simulation/fate.rs"]
mod fate;
#[path = "simulation/gate.rs"]
mod gate;
#[path = "simulation/replica.rs"]
mod replica;
#[path = "simulation/verifiers.rs"]
mod verifiers;
#[path = "simulation/world.rs"]
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use chancery::controllers::PlanFn;
use chancery::domain::moment::Moment;
use chancery::domain::rotation::{self, KeyFacts};
use jiff::SignedDuration;
use tokio::time::Instant;

use world::{Report, World};

/// Plays one seed with this engine; what went wrong is a sentence.
fn play(seed: u64, plan: PlanFn) -> (Report, Result<(), String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let (report, result) = runtime.block_on(async {
        let mut world = World::new(seed, plan).await;
        let result = world.play().await;
        (world.report(), result)
    });
    runtime.shutdown_background();
    (report, result)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_verifier_notices_a_rotation() {
    let (first, count) = match number("SIMULATION_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SIMULATION_SEEDS").unwrap_or(1000)),
    };
    let (next, begun) = (AtomicU64::new(first), Instant::now());
    let reports = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let work = || {
            let mut sum = Report::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    return sum;
                }
                let (report, result) = play(seed, rotation::plan);
                if let Err(why) = result {
                    panic!(
                        "seed {seed}: {why}\nplay it again: SIMULATION_SEED={seed} cargo test --test simulation no_verifier\n{}",
                        report.tail()
                    );
                }
                sum.add(&report);
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect::<Vec<_>>()
    });
    let mut sum = Report::default();
    for report in reports {
        sum.add(&report.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    }
    println!(
        "{count} seeds in {:.0} s: {}",
        begun.elapsed().as_secs_f64(),
        sum.told()
    );
    assert!(sum.rotations > count && sum.verified > 0 && sum.faults > 0);
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in [1, 7] {
        let (one, _) = play(seed, rotation::plan);
        let (two, _) = play(seed, rotation::plan);
        assert!(one.trace.len() > 100);
        let differ = one.trace.iter().zip(&two.trace).position(|(a, b)| a != b);
        assert_eq!((differ, one.trace.len()), (None, two.trace.len()));
    }
}

/// Engines that are broken on purpose, each in one way that the peers were seen to be.
const BROKEN: [(&str, PlanFn); 3] = [
    ("signs at once", |keys, policy, moment| {
        let mut policy = policy.clone();
        policy.publish_lead = SignedDuration::ZERO;
        policy.max_age = SignedDuration::ZERO;
        rotation::plan(keys, &policy, moment)
    }),
    ("drops at retirement", |keys, policy, moment| {
        let mut policy = policy.clone();
        policy.grace = SignedDuration::ZERO;
        policy.margin = SignedDuration::ZERO;
        policy.max_ttl = SignedDuration::ZERO;
        let mut keys: Vec<KeyFacts> = keys.to_vec();
        for key in &mut keys {
            key.max_ttl = None;
        }
        rotation::plan(&keys, &policy, moment)
    }),
    ("trusts a jumped clock", |keys, policy, moment| {
        let moment = Moment {
            sure: true,
            ..moment
        };
        rotation::plan(keys, policy, moment)
    }),
];

#[test]
fn broken_engines_are_caught() {
    for (name, plan) in BROKEN {
        let caught = (0..60).find_map(|seed| Some((seed, play(seed, plan).1.err()?)));
        let (seed, why) =
            caught.unwrap_or_else(|| panic!("nothing catches the engine that {name}"));
        println!("an engine that {name} is caught by seed {seed}: {why}");
    }
}
