//! What is asked, or fails, too often: who is turned away and who never.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::Algorithm;
use chancery::domain::client::Client;
use chancery::domain::rate::Rate;
use chancery::domain::settings::{ForwardedHeader, ThrottleSettings};
use chancery::serve::metrics::ThrottledBy;
use chancery::serve::secrets::HashLimits;
use chancery::serve::source::Peer;
use chancery::serve::trust::{Keys, Trusted};
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::jwt::{body, public, sign, unique};
use crate::support::*;

fn few() -> ThrottleSettings {
    ThrottleSettings {
        failures_per_client: Rate::per_minute(3),
        failures_per_source: Rate::per_minute(5),
        ..ThrottleSettings::default()
    }
}

fn world(throttle: ThrottleSettings, clients: &[Client]) -> World {
    let world = World::throttled(throttle, HashLimits::default());
    let mut all = snapshot([ring("main", &es256())], []);
    for client in clients {
        all.clients
            .insert(client.id.clone(), Arc::new(client.clone()));
    }
    world.store.publish(all);
    world
}

fn from(peer: &str, client_id: &str, secret: &str) -> Request<Full<Bytes>> {
    let headers = [("authorization", &*basic(client_id, secret))];
    let mut request = post(&headers, "grant_type=client_credentials");
    let peer = peer.parse().expect("an address");
    request.extensions_mut().insert(Peer(peer));
    request
}

#[tokio::test]
async fn a_flood_of_wrong_secrets_ends_in_429_for_whoever_is_named() {
    let (robot, _) = robot();
    let suspended = Client {
        id: "acme.suspended".into(),
        suspended: true,
        ..robot.clone()
    };
    let world = world(few(), &[robot, suspended]);
    let shapes: [fn() -> String; 2] = [new_secret, || "guess".into()];
    let mut told = Vec::new();
    for wrong in shapes {
        for id in ["acme.robot", "acme.suspended", "acme.unknown"] {
            for _ in 0..3 {
                assert_eq!(world.token(id, &wrong(), "").await.status, 401);
            }
            let before = world.metrics.comparisons.get();
            for _ in 0..5 {
                let answer = world.token(id, &wrong(), "").await;
                assert_eq!(answer.status, 429);
                assert_eq!(answer.error(), "slow_down");
                assert_eq!(answer.header("retry-after"), "20");
                assert_eq!(answer.header("cache-control"), "no-store");
                told.push(answer.body);
            }
            assert_eq!(world.metrics.comparisons.get(), before, "bcrypt was spent");
        }
        // One comes back every 20 seconds; and here all of them.
        world.clock.0.fetch_add(60, Ordering::Relaxed);
    }
    told.dedup();
    assert_eq!(told.len(), 1, "the answers differ: {told:?}");
    assert_eq!(world.metrics.throttled_so_far(ThrottledBy::Client), 30);
}

#[tokio::test]
async fn a_remembered_secret_is_not_throttled_by_others() {
    let (client, secret) = robot();
    let world = world(few(), &[client]);
    assert_eq!(world.token("acme.robot", &secret, "").await.status, 200);
    for n in 0..20 {
        let source = format!("192.0.2.{}", n % 7);
        world.send(from(&source, "acme.robot", &new_secret())).await;
        // From an address that is throttled too.
        let right = world.send(from(&source, "acme.robot", &secret)).await;
        assert_eq!(right.status, 200, "after {n} wrong ones");
    }
    assert_eq!(world.token("acme.robot", "wrong", "").await.status, 429);
}

#[tokio::test]
async fn the_right_secret_counts_for_nothing_however_often_it_comes() {
    let (client, secret) = robot();
    let world = Arc::new(world(few(), &[client]));
    let requests = (0..16).map(|_| world.token("acme.robot", &secret, ""));
    for answer in futures::future::join_all(requests).await {
        assert_eq!(answer.status, 200);
    }
    for status in [401, 401, 401, 429] {
        assert_eq!(world.token("acme.robot", "wrong", "").await.status, status);
    }
}

#[tokio::test]
async fn a_source_is_throttled_whatever_client_it_names() {
    let world = world(few(), &[]);
    for n in 0..5 {
        let request = from(&format!("2001:db8::{n}"), &format!("a.{n}"), "wrong");
        assert_eq!(world.send(request).await.status, 401);
    }
    let answer = world.send(from("2001:db8::ffff", "a.9", "wrong")).await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.error()),
        (429, "slow_down")
    );
    assert_eq!(answer.header("retry-after"), "12");
    assert_eq!(world.metrics.throttled_so_far(ThrottledBy::Source), 1);
    let elsewhere = world.send(from("2001:db8:0:1::1", "a.9", "wrong")).await;
    assert_eq!(elsewhere.status, 401);
}

#[tokio::test]
async fn a_header_counts_only_where_the_release_says_so() {
    let send = async |world: &World, n: usize, told: &str| {
        let mut request = from("10.0.0.1", &format!("a.{n}"), "wrong");
        let value = told.parse().expect("a value");
        request.headers_mut().insert("x-forwarded-for", value);
        world.send(request).await.status.as_u16()
    };
    // Untold: the peer counts, whatever it claims.
    let plain = world(few(), &[]);
    for n in 0..6 {
        let status = send(&plain, n, &format!("192.0.2.{n}")).await;
        assert_eq!(status, if n < 5 { 401 } else { 429 });
    }
    let trusting = world(
        ThrottleSettings {
            forwarded_header: Some(ForwardedHeader::XForwardedFor),
            ..few()
        },
        &[],
    );
    for n in 0..9 {
        assert_eq!(send(&trusting, n, &format!("192.0.2.{n}")).await, 401);
    }
    // What the client itself wrote there is further left, and does not count.
    for n in 0..6 {
        let status = send(&trusting, n, &format!("198.51.100.{n}, 203.0.113.1")).await;
        assert_eq!(status, if n < 5 { 401 } else { 429 });
    }
}

#[tokio::test]
async fn a_client_gets_tokens_at_its_rate_and_no_other_notices() {
    let (robot, secret) = robot();
    let mut slow = robot.clone();
    slow.id = "acme.slow".into();
    slow.token_rate = Some(Rate::per_minute(2));
    let mut greedy = robot.clone();
    greedy.id = "acme.greedy".into();
    greedy.token_rate = Some(Rate::per_second(1000));
    let settings = ThrottleSettings {
        token_rate: Rate::per_minute(3),
        max_token_rate: Rate::per_minute(4),
        ..few()
    };
    let world = world(settings, &[robot, slow, greedy]);
    for (id, most, wait) in [
        ("acme.slow", 2, "30"),
        ("acme.robot", 3, "20"),
        ("acme.greedy", 4, "15"),
    ] {
        for n in 0..6 {
            let answer = world.token(id, &secret, "").await;
            if n < most {
                assert_eq!(answer.status, 200, "{id} {n}");
                continue;
            }
            assert_eq!(answer.status, 429, "{id} {n}");
            assert_eq!(answer.error(), "slow_down");
            assert_eq!(answer.header("retry-after"), wait);
            let told = answer.json()["error_description"].to_string();
            assert!(told.contains(&format!("{most}/m")), "{told}");
        }
    }
    // Failures do not use a client's tokens up, nor tokens its failures.
    assert_eq!(world.token("acme.slow", "wrong", "").await.status, 401);
    world.clock.0.fetch_add(30, Ordering::Relaxed);
    assert_eq!(world.token("acme.slow", &secret, "").await.status, 200);
    assert_eq!(world.metrics.throttled_so_far(ThrottledBy::TokenRate), 9);
}

/// A wrong assertion counts like a wrong secret; a right one is never turned away for others' failures.
#[tokio::test]
async fn assertions_that_prove_nothing_are_counted_and_right_ones_pass() {
    let (robot, _) = robot();
    let world = world(few(), std::slice::from_ref(&robot));
    let (right, wrong) = (es256(), key(Algorithm::ES256));
    let trusted = Trusted::PublicKey(Keys(vec![public(&right, Some("k1"))]));
    let mut all = snapshot([ring("main", &es256())], [robot]);
    all.trusted = HashMap::from([("acme.robot".to_owned(), Arc::new(trusted))]);
    world.store.publish(all);
    let assertion = |key: &KeyPair, id: &str| {
        let header = json!({"alg": "ES256", "kid": "k1"});
        let claims = json!({"iss": id, "sub": id, "aud": ISSUER, "exp": NOW + 60, "jti": unique()});
        sign(key, &header, &claims)
    };
    let ask = async |source: &str, text: &str| {
        let mut request = post(&[], body(text, ""));
        let peer = source.parse().expect("an address");
        request.extensions_mut().insert(Peer(peer));
        world.send(request).await
    };
    // By client, known or not: three, and then one every 20 s.
    let mut told = Vec::new();
    for id in ["acme.robot", "acme.nobody"] {
        for n in 0..6 {
            let answer = ask(&format!("192.0.2.{n}"), &assertion(&wrong, id)).await;
            assert_eq!(answer.status, if n < 3 { 401 } else { 429 }, "{id} {n}");
            if n >= 3 {
                assert_eq!(answer.header("retry-after"), "20");
                told.push(answer.body);
            }
        }
    }
    told.dedup();
    assert_eq!(told.len(), 1, "the answers differ: {told:?}");
    let passes = ask("192.0.2.1", &assertion(&right, "acme.robot")).await;
    assert_eq!(passes.status, 200);
    // By source, also what is no assertion at all; and the right one passes from there too.
    for n in 0..7 {
        let answer = ask("198.51.100.1", "no.assertion.").await;
        assert_eq!(answer.status, if n < 5 { 401 } else { 429 }, "{n}");
    }
    let passes = ask("198.51.100.1", &assertion(&right, "acme.robot")).await;
    assert_eq!(passes.status, 200);
}
