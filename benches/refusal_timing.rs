//! Whether the time of a refusal tells what exists: Welch's t-test between a known client with a
//! wrong secret, an unknown client, and a suspended client with its right secret, each with 20,000
//! samples (of supplied secrets a hundredth) in random order; and the same for client assertions. |t|
//! below 4.5 is what a test of leakage calls even (ISO 17825).
//!
//! `cargo bench --bench refusal_timing`; it takes some 7 minutes. That it can fail is seen with
//! `cargo bench --bench refusal_timing -- --without-dummies`, which takes the equal-cost step out.
//! `REFUSAL_SAMPLES` sets another number of samples.
// A benchmark is about the machine's own time.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chancery::crypto::random;
use chancery::domain::algorithm::Algorithm;
use chancery::domain::client::Client;
use chancery::domain::rate::Rate;
use chancery::domain::settings::{Settings, ThrottleSettings};
use chancery::serve::secrets::HashLimits;
use chancery::serve::trust::{Keys, Trusted};
use http::Request;
use http_body_util::Full;
use serde_json::json;

#[allow(dead_code)]
#[path = "../tests/http/jwt.rs"]
mod jwt;
#[allow(dead_code)]
#[path = "../tests/http/support.rs"]
mod support;

use jwt::{body, public, sign, unique};
use support::{
    ISSUER, NOW, World, basic, es256, key, new_secret, post, ring, robot, snapshot, supplied,
};

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

const CLASSES: [&str; 3] = ["known, wrong", "unknown", "suspended, right"];

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
        let request = |class| {
            let (id, secret) = match class {
                0 => ("acme.robot", wrong()),
                1 => ("acme.none1", wrong()),
                _ => ("acme.gone1", right.clone()),
            };
            let headers = [("authorization", &*basic(id, &secret))];
            post(&headers, "grant_type=client_credentials")
        };
        println!("a secret {shape}:");
        even &= measured(&world, samples, request);
    }
    if !without_dummies {
        for algorithm in [Algorithm::ES256, Algorithm::RS256] {
            let (own, others) = (key(algorithm), key(algorithm));
            let trust = Arc::new(Trusted::PublicKey(Keys(vec![public(&own, Some("k1"))])));
            let mut all = snapshot([ring("main", &es256())], [known.clone(), suspended.clone()]);
            for client in [&known, &suspended] {
                all.trusted.insert(client.id.clone(), Arc::clone(&trust));
            }
            world.store.publish(all);
            let request = |class| {
                let (id, key) = match class {
                    0 => ("acme.robot", &others),
                    1 => ("acme.none1", &others),
                    _ => ("acme.gone1", &own),
                };
                let header = json!({"alg": algorithm.name(), "kid": "k1"});
                let claims =
                    json!({"iss": id, "sub": id, "aud": ISSUER, "exp": NOW + 60, "jti": unique()});
                post(&[], body(&sign(key, &header, &claims), ""))
            };
            println!("an assertion, {}:", algorithm.name());
            even &= measured(&world, samples, request);
        }
    }
    if even {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether refusals of the three classes take equally long.
fn measured(
    world: &World,
    samples: usize,
    request: impl Fn(usize) -> Request<Full<Bytes>>,
) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut times: [Vec<f64>; 3] = Default::default();
    let mut order: Vec<usize> = (0..3 * samples).map(|n| n % 3).collect();
    shuffle(&mut order);
    let warm_up = [0, 1, 2].repeat(20);
    for (n, class) in warm_up.iter().chain(&order).copied().enumerate() {
        let request = request(class);
        let app = Arc::clone(&world.app);
        let began = Instant::now();
        let answer = runtime.block_on(app.respond(request));
        let took = began.elapsed();
        assert_eq!(answer.status(), 401);
        if n >= warm_up.len() {
            times[class].push(took.as_secs_f64() * 1e6);
        }
    }
    for (name, times) in CLASSES.iter().zip(&times) {
        let (mean, variance) = moments(times);
        println!(
            "  {name:24} mean {mean:9.2} us, deviation {:9.2} us",
            variance.sqrt()
        );
    }
    let mut even = true;
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        let t = welch(&times[a], &times[b]);
        let verdict = if t.abs() < LIMIT { "even" } else { "UNEVEN" };
        println!(
            "  t = {t:+8.2}  {verdict}  ({} / {})",
            CLASSES[a], CLASSES[b]
        );
        even &= t.abs() < LIMIT;
    }
    even
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
