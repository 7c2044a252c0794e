//! Months of a ring's life on the embedded API server, in virtual time and with a scheduler of its
//! own: two replicas of the operator's and the server's real code, clocks that are off and jump,
//! calls that fail before and after, views that lag, kills, people who edit and vandals who
//! delete; and verifiers that cache as real ones do. No token may be refused before it expires.
//!
//! `SIMULATION_SEEDS=5000 cargo test --test rotation` plays more seeds, `SIMULATION_SEED=17` one.

#[path = "simulation/deeds.rs"]
mod deeds;
#[path = "simulation/dice.rs"]
pub mod dice;
#[path = "simulation/fate.rs"]
pub mod fate;
#[path = "simulation/gate.rs"]
pub mod gate;
#[path = "simulation/judge.rs"]
mod judge;
#[path = "simulation/replica.rs"]
pub mod replica;
#[path = "simulation/report.rs"]
mod report;
#[path = "simulation/verifiers.rs"]
mod verifiers;
#[path = "simulation/world.rs"]
pub mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use chancery::controllers::PlanFn;
use chancery::domain::rotation;
use tokio::time::Instant;

use report::Report;
use world::World;

/// Plays one seed with this engine; what went wrong is a sentence.
pub fn play(seed: u64, plan: PlanFn) -> (Report, Result<(), String>) {
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
                        "seed {seed}: {why}\nplay it again: SIMULATION_SEED={seed} cargo test --test rotation no_verifier\n{}",
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
