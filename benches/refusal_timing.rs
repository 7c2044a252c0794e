//! Whether the time of a refusal tells what exists: Welch's t-test between a known client with a
//! wrong secret, an unknown client, and a suspended client with its right secret, each with 20,000
//! samples (of supplied secrets a hundredth) in random order. |t| below 4.5 is what a test of leakage calls even (ISO 17825).
//!
//! `cargo bench --bench refusal_timing`; it takes some 7 minutes. That it can fail is seen with
//! `cargo bench --bench refusal_timing -- --without-dummies`, which takes the equal-cost step out.
//! `REFUSAL_SAMPLES` sets another number of samples.
// A benchmark is about the machine's own time.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chancery::crypto::random;
use chancery::domain::client::Client;
use chancery::domain::rate::Rate;
use chancery::domain::settings::{Settings, ThrottleSettings};
use chancery::serve::secrets::HashLimits;
use http_body_util::Full;

#[allow(dead_code)]
#[path = "../tests/http/support.rs"]
mod support;

use support::{ISSUER, World, basic, es256, new_secret, post, ring, robot, snapshot, supplied};

/// The most that |t| may be.
const LIMIT: f64 = 4.5;
/// A client secret that a person supplied.
const CHOSEN: &str = "correct horse battery staple";

/// What is presented.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Generated,
    Supplied,
    None,
}

const CLASSES: [&str; 3] = ["known, wrong secret", "unknown", "suspended, right secret"];

fn main() -> ExitCode {
    let without_dummies = std::env::args().any(|a| a == "--without-dummies");
    let samples = std::env::var("REFUSAL_SAMPLES").ok();
    let samples: usize = samples.map_or(20_000, |n| n.parse().expect("a number"));
    let unbounded = Rate::per_second(999_999);
    let settings = Settings {
        issuer: ISSUER.into(),
        // What is measured lies beyond the throttle.
        throttle: ThrottleSettings {
            failures_per_client: unbounded,
            ..ThrottleSettings::default()
        },
        ..Settings::default()
    };
    let limit = Duration::from_mins(1);
    let world = World::made(settings, HashLimits::default(), limit, |secrets| {
        if without_dummies {
            secrets.without_dummies()
        } else {
            secrets
        }
    });
    let (known, right) = robot();
    let suspended = Client {
        id: "acme.gone1".into(),
        suspended: true,
        ..known.clone()
    };
    let publish = |clients| {
        let ring = ring("main", &es256());
        world.store.publish(snapshot([ring], clients));
    };
    publish([known.clone(), suspended.clone()]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");

    println!("{samples} samples each, in random order; |t| has to be below {LIMIT}");
    let mut even = true;
    for (shape, of) in [
        ("of the shape of a generated one", Shape::Generated),
        ("of no shape", Shape::None),
        ("of the shape of a supplied one", Shape::Supplied),
    ] {
        // One comparison takes as long as thirty of the others.
        let samples = if of == Shape::Supplied {
            publish([known.clone(), suspended.clone()].map(|client| Client {
                credentials: vec![supplied("1", CHOSEN, 10)],
                ..client
            }));
            samples.div_ceil(100)
        } else {
            samples
        };
        let right = match of {
            Shape::Generated => right.clone(),
            Shape::Supplied => CHOSEN.to_owned(),
            Shape::None => "x".repeat(10),
        };
        let wrong = || match of {
            Shape::Generated => new_secret(),
            Shape::Supplied => "another one that somebody chose".to_owned(),
            Shape::None => "x".repeat(10),
        };
        let mut times: [Vec<f64>; 3] = Default::default();
        let mut order: Vec<usize> = (0..3 * samples).map(|n| n % 3).collect();
        shuffle(&mut order);
        let warm_up = [0, 1, 2].repeat(samples.min(20));
        for (n, class) in warm_up.iter().chain(&order).copied().enumerate() {
            let (id, secret) = match class {
                0 => ("acme.robot", wrong()),
                1 => ("acme.none1", wrong()),
                _ => ("acme.gone1", right.clone()),
            };
            let headers = [("authorization", &*basic(id, &secret))];
            let request = post(&headers, "grant_type=client_credentials");
            let request = request.map(|body| -> Full<_> { body });
            let app = Arc::clone(&world.app);
            let began = Instant::now();
            let answer = runtime.block_on(app.respond(request));
            let took = began.elapsed();
            assert_eq!(answer.status(), 401);
            if n >= warm_up.len() {
                times[class].push(took.as_secs_f64() * 1e6);
            }
        }
        println!("a secret {shape}:");
        for (name, times) in CLASSES.iter().zip(&times) {
            let (mean, variance) = moments(times);
            println!(
                "  {name:24} mean {mean:9.2} us, deviation {:9.2} us",
                variance.sqrt()
            );
        }
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let t = welch(&times[a], &times[b]);
            let verdict = if t.abs() < LIMIT { "even" } else { "UNEVEN" };
            println!(
                "  t = {t:+8.2}  {verdict}  ({} / {})",
                CLASSES[a], CLASSES[b]
            );
            even &= t.abs() < LIMIT;
        }
    }
    if even {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Welch's t: the difference of the means over its standard error.
fn welch(a: &[f64], b: &[f64]) -> f64 {
    let ((mean_a, variance_a), (mean_b, variance_b)) = (moments(a), moments(b));
    (mean_a - mean_b) / (variance_a / count(a) + variance_b / count(b)).sqrt()
}

fn moments(samples: &[f64]) -> (f64, f64) {
    let mean = samples.iter().sum::<f64>() / count(samples);
    let squares = samples.iter().map(|s| (s - mean).powi(2)).sum::<f64>();
    (mean, squares / (count(samples) - 1.0))
}

#[allow(clippy::cast_precision_loss)]
fn count(samples: &[f64]) -> f64 {
    samples.len() as f64
}

/// Fisher and Yates.
fn shuffle(order: &mut [usize]) {
    for last in (1..order.len()).rev() {
        let number = u64::from_le_bytes(random::bytes());
        let other = usize::try_from(number % (last as u64 + 1)).expect("below the length");
        order.swap(last, other);
    }
}
