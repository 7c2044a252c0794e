//! Weeks of a technical user's life on the embedded API server, as `simulation` has months of a ring's:
//! two replicas of the operator's and the feed's real code, neither of which knows of the other, clocks
//! that are off and jump, calls that fail before and after, views that lag, kills, people who edit and
//! vandals who delete. No client secret may be refused that stands where its holder finds it, or has
//! stood there less than a grace ago.
//!
//! `USER_SEEDS=5000 cargo test --test rotation client_secret` plays more seeds, `USER_SEED=17` one.

#[path = "users/deeds.rs"]
mod deeds;
#[path = "users/judge.rs"]
mod judge;
#[path = "users/replica.rs"]
mod replica;
#[path = "users/world.rs"]
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use world::{Report, World};

/// Plays one seed; what went wrong is a sentence.
fn play(seed: u64) -> (Report, Result<(), String>) {
    played(seed, true)
}

fn played(seed: u64, asks_again: bool) -> (Report, Result<(), String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let played = runtime.block_on(async {
        let mut world = World::new(seed).await;
        world.asks_again = asks_again;
        let result = world.play().await;
        (world.report, result)
    });
    runtime.shutdown_background();
    played
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_holder_of_a_client_secret_notices_a_rotation() {
    let (first, count) = match number("USER_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("USER_SEEDS").unwrap_or(150)),
    };
    let (next, begun) = (AtomicU64::new(first), Instant::now());
    let work = || {
        let mut sum = Report::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return sum;
            }
            let (report, result) = play(seed);
            if let Err(why) = result {
                panic!(
                    "{}\nseed {seed}: {why}\nplay it again: USER_SEED={seed} cargo test --test rotation client_secret",
                    report.tail()
                );
            }
            sum.add(&report);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let sum = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut sum = Report::default();
        for worker in workers {
            let report = worker.join();
            sum.add(&report.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        sum
    });
    println!(
        "{count} seeds in {:.0} s: {}",
        begun.elapsed().as_secs_f64(),
        sum.told()
    );
    assert!(sum.delivered > count && sum.judged > 0 && sum.faults > 0);
}

#[test]
fn the_same_seed_is_the_same_story_of_a_user() {
    // A pause whose length is kube's to choose would be another one each time.
    let (one, _) = played(3, false);
    let (two, _) = played(3, false);
    assert!(one.trace.len() > 100);
    let differ = one.trace.iter().zip(&two.trace).position(|(a, b)| a != b);
    let told = differ.map(|at| (&one.trace[at], &two.trace[at]));
    assert_eq!((told, one.trace.len()), (None, two.trace.len()));
}
