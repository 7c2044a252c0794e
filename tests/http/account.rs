//! `GET /account` and `GET /account/subscriptions`, rule by rule.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use chancery::domain::client::Client;
use chancery::domain::settings::ClaimNames;
use chancery::domain::settings::Settings;
use chancery::domain::subscription::SubscriptionFacts;
use chancery::domain::tier::{EntitlementId, Entitlements, Limit};
use http::Request;
use http_body_util::Full;
use jiff::Timestamp;
use serde_json::json;

use crate::support::*;

const PATHS: [&str; 2] = ["/account", "/account/subscriptions"];

fn request(path: &str, authorization: &[&str]) -> Request<Full<Bytes>> {
    let mut request = Request::get(path);
    for line in authorization {
        request = request.header("authorization", *line);
    }
    request.body(Full::default()).expect("a request")
}

async fn token(world: &World, id: &str, secret: &str) -> String {
    let answer = world.token(id, secret, "").await;
    let token = answer.json()["access_token"].as_str().map(str::to_owned);
    token.unwrap_or_else(|| panic!("{answer:?}"))
}

async fn ask(world: &World, path: &str, token: &str) -> Answer {
    world
        .send(request(path, &[&format!("Bearer {token}")]))
        .await
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

/// `acme.robot` whose tenant has four subscriptions.
fn subscribed() -> (Client, String) {
    let (robot, secret) = robot();
    let facts = robot.subscriptions[0].clone();
    let of = |name: &str, tier: &str, from: Option<i64>, to: Option<i64>| SubscriptionFacts {
        name: name.into(),
        tier: tier.into(),
        period_from: from.map(at),
        period_to: to.map(at),
        ..facts.clone()
    };
    let mut upgraded = of("upgraded", "Free", Some(NOW - 100), Some(NOW + 1000));
    upgraded.entitlements = Entitlements::from([(EntitlementId::NumModels, Limit::of(7))]);
    let all = vec![
        of("next", "Enterprise", Some(NOW + 1000), None),
        of("first", "Free", None, None),
        of("trial", "Free", Some(NOW - 200), Some(NOW)),
        upgraded,
    ];
    let robot = Client {
        subscriptions: Arc::new(all),
        ..robot
    };
    (robot, secret)
}

#[tokio::test]
async fn who_it_is_and_what_its_tenant_has_now() {
    let (robot, secret) = subscribed();
    let world = World::serving(robot);
    let token = token(&world, "acme.robot", &secret).await;
    let answer = ask(&world, "/account", &token).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let mut json = answer.json();
    let current = json["userAccountInfo"]["currentSubscription"].take();
    assert_eq!(
        json,
        json!({"userAccountInfo": {
            "userId": "acme.robot", "userName": "robot",
            "legalEntity": {"id": "le-acme", "name": "Acme"},
            "roles": [{"id": "READER"}], "currentSubscription": null,
        }})
    );
    assert_eq!(current["id"], "upgraded");
    assert_eq!(current["status"], "ACTIVE");
    // HEAD says as much, without saying it.
    let head = Request::head("/account").header("authorization", format!("Bearer {token}"));
    let head = world
        .send(head.body(Full::default()).expect("a request"))
        .await;
    assert_eq!(head.status, 200);
    assert!(head.body.is_empty());
    assert_eq!(head.header("content-length"), answer.body.len().to_string());
}

#[tokio::test]
async fn all_subscriptions_of_the_legal_entity() {
    let (robot, secret) = subscribed();
    let world = World::serving(robot);
    let token = token(&world, "acme.robot", &secret).await;
    let answer = ask(&world, "/account/subscriptions", &token).await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    let all = json["subscriptions"].as_array().expect("a list");
    let told: Vec<_> = all
        .iter()
        .map(|s| [&s["id"], &s["status"], &s["tierName"]].map(|v| v.as_str().expect("text")))
        .collect();
    assert_eq!(
        told,
        [
            ["first", "ACTIVE", "Free"],
            ["trial", "EXPIRED", "Free"],
            ["upgraded", "ACTIVE", "Free"],
            ["next", "SCHEDULED", "Enterprise"],
        ]
    );
    let upgraded = &all[2];
    assert_eq!(upgraded["legalEntityId"], "le-acme");
    assert_eq!(upgraded["periodFrom"], at(NOW - 100).to_string());
    assert_eq!(upgraded["periodTo"], at(NOW + 1000).to_string());
    assert!(all[0].get("periodFrom").is_none() && all[3].get("periodTo").is_none());
    let limits = upgraded["limits"].as_array().expect("a list");
    assert_eq!(limits.len(), 8);
    let limit = |id: &str| limits.iter().find(|l| l["entitlementId"] == id);
    assert_eq!(
        limit("NUM_MODELS"),
        Some(
            &json!({"entitlementId": "NUM_MODELS", "limit": 7, "unlimited": false, "cumulative": false})
        )
    );
    assert_eq!(
        limit("API_REQUEST"),
        Some(&json!({
            "entitlementId": "API_REQUEST", "limit": 300, "unlimited": false, "cumulative": false,
            "timeIntervalBound": "MINUTES",
        }))
    );
    assert_eq!(
        limit("DISK_USAGE").map(|l| l["cumulative"].clone()),
        Some(true.into())
    );
    assert_eq!(
        all[3]["limits"][0],
        json!({"entitlementId": "NUM_MODEL_FIELDS", "unlimited": true, "cumulative": false})
    );
}

#[tokio::test]
async fn what_is_presented_by_the_table() {
    let (robot, secret) = robot();
    let world = World::serving(robot);
    let token = token(&world, "acme.robot", &secret).await;
    let own = format!("Bearer {token}");
    let (rest, _) = token.rsplit_once('.').expect("three parts");
    let forged = format!("Bearer {rest}.{}", "A".repeat(86));
    let basic = basic("acme.robot", &secret);
    let long = format!("Bearer {}", "a".repeat(60_000));
    for path in PATHS {
        for (lines, status, error) in [
            (&[&*own][..], 200, None),
            (&[&format!("bearer  {token}")], 200, None),
            (&[], 401, Some("")),
            (&[&basic], 401, Some("")),
            (&["Digest x"], 401, Some("")),
            (&["Bearer"], 400, Some("invalid_request")),
            (&["Bearer "], 400, Some("invalid_request")),
            (&["Bearer a b"], 400, Some("invalid_request")),
            (&[&own, &own], 400, Some("invalid_request")),
            (&["Bearer x"], 401, Some("invalid_token")),
            (&[&forged], 401, Some("invalid_token")),
            (&[&long], 401, Some("invalid_token")),
        ] {
            let answer = world.send(request(path, lines)).await;
            let what = format!("{path} {lines:.40?}");
            assert_eq!(answer.status, status, "{what}");
            let challenge = answer.header("www-authenticate");
            assert_eq!(answer.header("cache-control"), "no-store");
            let Some(error) = error else {
                assert_eq!(challenge, "", "{what}");
                continue;
            };
            let realm = format!("Bearer realm=\"{ISSUER}\"");
            assert!(challenge.starts_with(&realm), "{what}: {challenge}");
            assert_eq!(
                challenge.contains("error="),
                !error.is_empty(),
                "{what}: {challenge}"
            );
            assert!(challenge.contains(error), "{what}: {challenge}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert_eq!(answer.json()["status"], status);
        }
        let in_url = format!("{path}?access_token={token}");
        assert_eq!(world.get(&in_url).await.status, 400);
        let post = Request::post(path).body(Full::default());
        let answer = world.send(post.expect("a request")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("allow")),
            (405, "GET, HEAD")
        );
    }
}

#[tokio::test]
async fn a_token_that_holds_no_more_tells_nothing() {
    let (robot, secret) = robot();
    let world = World::new();
    let publish = |robot: Client| {
        let served = snapshot([ring("main", &es256())], [robot]);
        world.store.publish(served);
    };
    for path in PATHS {
        assert_eq!(
            ask(&world, path, "x").await.status,
            503,
            "nothing is known yet"
        );
    }
    publish(robot.clone());
    let token = token(&world, "acme.robot", &secret).await;
    let mut bodies = std::collections::BTreeSet::new();
    for path in PATHS {
        assert_eq!(ask(&world, path, &token).await.status, 200);
        publish(Client {
            suspended: true,
            ..robot.clone()
        });
        let suspended = ask(&world, path, &token).await;
        assert_eq!(suspended.status, 401);
        bodies.insert(suspended.body);
        publish(Client {
            subscriptions: Arc::default(),
            ..robot.clone()
        });
        let ended = ask(&world, path, &token).await;
        assert_eq!(ended.status, 401);
        bodies.insert(ended.body);
        bodies.insert(ask(&world, path, "x").await.body);
        publish(robot.clone());
    }
    assert_eq!(bodies.len(), 1, "one answer for all: {bodies:?}");
    world.clock.0.fetch_add(300, Ordering::Relaxed);
    assert_eq!(ask(&world, PATHS[0], &token).await.status, 401, "expired");
    world.clock.0.fetch_add(3600, Ordering::Relaxed);
    let stale = ask(&world, PATHS[0], &token).await;
    assert_eq!(stale.status, 503);
    assert_ne!(stale.header("retry-after"), "");
}

#[tokio::test]
async fn claims_of_other_names_and_an_issuer_with_a_path() {
    let (robot, secret) = robot();
    let settings = Settings {
        issuer: "https://id.example.com/tenant".into(),
        claims: ClaimNames {
            roles: "https://x/roles".into(),
            legal_entity: "https://x/tenant".into(),
            ..ClaimNames::default()
        },
        ..Settings::default()
    };
    let world = World::with_settings(settings);
    world
        .store
        .publish(snapshot([ring("main", &es256())], [robot]));
    let mut request = post(
        &[("authorization", &basic("acme.robot", &secret))],
        "grant_type=client_credentials",
    );
    *request.uri_mut() = "/tenant/oauth/token".parse().expect("a path");
    let token = world.send(request).await.json()["access_token"].clone();
    let token = token.as_str().expect("a token");
    let answer = ask(&world, "/tenant/account", token).await;
    assert_eq!(
        answer.json()["userAccountInfo"]["roles"],
        json!([{"id": "READER"}])
    );
    assert_eq!(ask(&world, "/account", token).await.status, 404);
}
