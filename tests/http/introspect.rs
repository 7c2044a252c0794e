//! `POST /oauth/introspect` (RFC 7662, RFC 9701), rule by rule.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chancery::crypto::{jws, own_token};
use chancery::domain::algorithm::Algorithm;
use chancery::domain::client::Client;
use chancery::domain::jwk::JwkSet;
use chancery::domain::rate::Rate;
use chancery::domain::revocation::{Index, OfClient, Revocations};
use chancery::domain::settings::ThrottleSettings;
use chancery::domain::subscription::SubscriptionFacts;
use chancery::serve::secrets::HashLimits;
use chancery::serve::snapshot::Snapshot;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::*;

const JWT: &str = "application/token-introspection+jwt";

async fn token(world: &World, id: &str, secret: &str) -> String {
    let answer = world.token(id, secret, "").await;
    let token = answer.json()["access_token"].as_str().map(str::to_owned);
    token.unwrap_or_else(|| panic!("{answer:?}"))
}

/// `acme.robot`, `acme.api` that may introspect, and `globex.api` that may too, for another tenant:
/// all with one secret.
fn three() -> ([Client; 3], String) {
    let (robot, secret) = robot();
    let of_globex = SubscriptionFacts {
        namespace: "globex".into(),
        legal_entity_id: "le-globex".into(),
        ..robot.subscriptions[0].clone()
    };
    let api = Client {
        id: "acme.api".into(),
        introspect: true,
        ..robot.clone()
    };
    let globex = Client {
        id: "globex.api".into(),
        namespace: "globex".into(),
        subscriptions: Arc::new(vec![of_globex]),
        ..api.clone()
    };
    ([robot, api, globex], secret)
}

fn served() -> (World, String) {
    let (clients, secret) = three();
    let world = World::new();
    world
        .store
        .publish(snapshot([ring("main", &es256())], clients));
    (world, secret)
}

async fn ask(world: &World, id: &str, secret: &str, token: &str) -> Value {
    let answer = world.send(introspection(id, secret, token)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.json()
}

fn inactive() -> Value {
    json!({"active": false})
}

#[tokio::test]
async fn what_stands_in_a_token_that_holds() {
    let (world, secret) = served();
    let token = token(&world, "acme.robot", &secret).await;
    let keys = jwks([&es256()]).keys;
    let mut claims = own_token::read(&token, &keys).expect("it is ours").claims;
    assert_eq!(claims["sub"], "acme.robot");
    claims.insert("active".into(), true.into());
    claims.insert("token_type".into(), "Bearer".into());
    let answer = ask(&world, "acme.api", &secret, &token).await;
    assert_eq!(answer, Value::Object(claims));
    assert_eq!(answer["caas_org_id"], "le-acme");
    assert_eq!(answer["scope"], "read write");
    // Its own token too.
    let own = self::token(&world, "acme.api", &secret).await;
    assert_eq!(ask(&world, "acme.api", &secret, &own).await["active"], true);
}

#[tokio::test]
async fn another_tenants_token_and_none_at_all_are_the_same_answer() {
    let (world, secret) = served();
    let of_acme = token(&world, "acme.robot", &secret).await;
    let of_globex = token(&world, "globex.api", &secret).await;
    let (rest, _) = of_acme.rsplit_once('.').expect("three parts");
    let forged = format!("{rest}.{}", "A".repeat(86));
    let long = "a".repeat(60_000);
    let mut bodies = std::collections::BTreeSet::new();
    for odd in [&*of_globex, "x", "a.b.c", &forged, &long, "%00"] {
        let answer = world.send(introspection("acme.api", &secret, odd)).await;
        let head = (answer.status, answer.headers.len());
        bodies.insert((format!("{head:?}"), answer.body));
    }
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert_eq!(
        ask(&world, "globex.api", &secret, &of_acme).await,
        inactive()
    );
    assert_eq!(
        ask(&world, "globex.api", &secret, &of_globex).await["active"],
        true
    );
}

#[tokio::test]
async fn each_reason_that_a_token_holds_no_more() {
    let (clients, secret) = three();
    let [robot, api, _] = clients.clone();
    let world = World::new();
    let served = || snapshot([ring("main", &es256())], clients.clone());
    world.store.publish(served());
    let token = token(&world, "acme.robot", &secret).await;
    let claims = own_token::read(&token, &jwks([&es256()]).keys).expect("ours");
    let with = |robot: Client| snapshot([ring("main", &es256())], [robot, api.clone()]);
    let subscription = |change: &dyn Fn(&mut SubscriptionFacts)| {
        let mut facts = robot.subscriptions[0].clone();
        change(&mut facts);
        with(Client {
            subscriptions: Arc::new(vec![facts]),
            ..robot.clone()
        })
    };
    let revoked = || {
        let of = OfClient {
            tokens: BTreeMap::from([(claims.id.clone(), (NOW, NOW + 360))]),
            ..OfClient::default()
        };
        let mut all = Revocations::default();
        all.join_tenant("acme", &BTreeMap::from([("acme.robot".to_owned(), of)]));
        Snapshot {
            revoked: Arc::new(Index::of(&all)),
            ..served()
        }
    };
    let at = |second| Timestamp::from_second(second).expect("a time");
    let cases: Vec<(&str, Snapshot)> = vec![
        ("revoked", revoked()),
        (
            "suspended",
            with(Client {
                suspended: true,
                ..robot.clone()
            }),
        ),
        ("deleted", snapshot([ring("main", &es256())], [api.clone()])),
        (
            "made again under its id",
            with(Client {
                created_at: Some(at(NOW + 61)),
                ..robot.clone()
            }),
        ),
        (
            "its Subscription has ended",
            subscription(&|s| s.period_to = Some(at(NOW))),
        ),
        (
            "its Subscription has not begun",
            subscription(&|s| s.period_from = Some(at(NOW + 1))),
        ),
        (
            "it has no Subscription",
            with(Client {
                subscriptions: Arc::default(),
                ..robot.clone()
            }),
        ),
        (
            "its namespace is another tenant's by now",
            subscription(&|s| s.legal_entity_id = "le-other".into()),
        ),
        (
            "its key is withdrawn",
            snapshot([ring("main", &key(Algorithm::ES256))], clients.clone()),
        ),
        (
            "the JWKS is empty",
            Snapshot {
                jwks: Some(chancery::serve::snapshot::PublishedJwks {
                    keys: JwkSet::default(),
                    ..jwks([&es256()])
                }),
                ..served()
            },
        ),
    ];
    for (why, snapshot) in cases {
        assert_eq!(
            ask(&world, "acme.api", &secret, &token).await["active"],
            true,
            "before: {why}"
        );
        world.store.publish(snapshot);
        assert_eq!(
            ask(&world, "acme.api", &secret, &token).await,
            inactive(),
            "{why}"
        );
        world.store.publish(served());
    }
    // Made before, as far as clocks may be apart.
    world.store.publish(with(Client {
        created_at: Some(at(NOW + 60)),
        ..robot.clone()
    }));
    assert_eq!(
        ask(&world, "acme.api", &secret, &token).await["active"],
        true
    );
    world.clock.0.fetch_add(299, Ordering::Relaxed);
    assert_eq!(
        ask(&world, "acme.api", &secret, &token).await["active"],
        true
    );
    world.clock.0.fetch_add(1, Ordering::Relaxed);
    assert_eq!(
        ask(&world, "acme.api", &secret, &token).await,
        inactive(),
        "expired"
    );
}

#[tokio::test]
async fn what_this_key_signed_and_is_no_token_of_this_issuer() {
    let (world, secret) = served();
    let token = token(&world, "acme.robot", &secret).await;
    let claims = own_token::read(&token, &jwks([&es256()]).keys).expect("ours");
    let foreign = jws::sign_token(
        &es256(),
        &jwt_with(&claims.claims, "iss", "https://other.example.com".into()),
    );
    let for_another = jws::sign_token(
        &es256(),
        &jwt_with(&claims.claims, "sub", "somebody".into()),
    );
    // A signed answer of this endpoint has another typ.
    let typ = jws::sign(&es256(), "token-introspection+jwt", &claims.claims);
    for odd in [foreign, for_another, typ] {
        let odd = odd.expect("signed");
        assert_eq!(ask(&world, "acme.api", &secret, &odd).await, inactive());
    }
}

fn jwt_with(claims: &serde_json::Map<String, Value>, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims.insert(name.into(), value);
    Value::Object(claims)
}

#[tokio::test]
async fn only_who_may_asks() {
    let (world, secret) = served();
    let token = token(&world, "acme.robot", &secret).await;
    let refused = async |request, status: u16, error: &str| {
        let answer = world.send(request).await;
        assert_eq!((answer.status.as_u16(), &*answer.error()), (status, error));
        assert_eq!(answer.header("cache-control"), "no-store");
    };
    refused(
        introspection("acme.robot", &secret, &token),
        403,
        "unauthorized_client",
    )
    .await;
    refused(
        introspection("acme.api", &new_secret(), &token),
        401,
        "invalid_client",
    )
    .await;
    refused(
        introspection("acme.none", &secret, &token),
        401,
        "invalid_client",
    )
    .await;
    refused(
        introspection("acme.api", &secret, ""),
        400,
        "invalid_request",
    )
    .await;
    let mut nobody = post(&[], format!("token={token}"));
    *nobody.uri_mut() = "/oauth/introspect".parse().expect("a path");
    refused(nobody, 400, "invalid_client").await;
    // A token is no credential here.
    let mut bearer = post(
        &[("authorization", &format!("Bearer {token}"))],
        format!("token={token}"),
    );
    *bearer.uri_mut() = "/oauth/introspect".parse().expect("a path");
    refused(bearer, 401, "invalid_client").await;
    assert_eq!(world.get("/oauth/introspect").await.status, 405);
    let (mut clients, _) = three();
    clients[1].suspended = true;
    world
        .store
        .publish(snapshot([ring("main", &es256())], clients));
    refused(
        introspection("acme.api", &secret, &token),
        401,
        "invalid_client",
    )
    .await;
}

#[tokio::test]
async fn it_counts_as_tokens_do_and_is_counted() {
    let (clients, secret) = three();
    let throttle = ThrottleSettings {
        token_rate: Rate::per_minute(3),
        ..ThrottleSettings::default()
    };
    let world = World::throttled(throttle, HashLimits::default());
    world
        .store
        .publish(snapshot([ring("main", &es256())], clients));
    let token = token(&world, "acme.robot", &secret).await;
    for (presented, status) in [(&*token, 200), (&*token, 200), ("x", 200), ("x", 429)] {
        let answer = world
            .send(introspection("acme.api", &secret, presented))
            .await;
        assert_eq!(answer.status, status);
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &world.registry).expect("text");
    for line in [
        "chancery_introspection_requests_total{result=\"active\"} 2",
        "chancery_introspection_requests_total{result=\"inactive\"} 1",
        "chancery_introspection_requests_total{result=\"refused\"} 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn a_replica_without_contact_does_not_say_that_a_token_holds() {
    let (world, secret) = served();
    let token = token(&world, "acme.robot", &secret).await;
    let unavailable = async |world: &World| {
        let answer = world.send(introspection("acme.api", &secret, &token)).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.error()),
            (503, "temporarily_unavailable")
        );
    };
    unavailable(&World::new()).await;
    world.clock.0.fetch_add(3601, Ordering::Relaxed);
    unavailable(&world).await;
    world.store.publish(Snapshot {
        jwks: None,
        ..snapshot([ring("main", &es256())], three().0)
    });
    unavailable(&world).await;
}

#[tokio::test]
async fn the_signed_answer_is_the_callers_own() {
    let (world, secret) = served();
    let token = token(&world, "acme.robot", &secret).await;
    for (presented, active) in [(&*token, true), ("x", false)] {
        let mut request = introspection("acme.api", &secret, presented);
        request
            .headers_mut()
            .insert("accept", JWT.parse().expect("a value"));
        let answer = world.send(request).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), JWT);
        assert_eq!(answer.header("cache-control"), "no-store");
        let jwt = std::str::from_utf8(&answer.body).expect("text");
        // An independent library verifies it, as a resource server would.
        let header = jsonwebtoken::decode_header(jwt).expect("a header");
        assert_eq!(header.typ.as_deref(), Some("token-introspection+jwt"));
        assert_eq!(header.kid.as_deref(), Some(es256().key_id()));
        let jwk = serde_json::to_value(es256().public_jwk()).expect("JSON");
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(jwk).expect("a JWK");
        let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).expect("a key");
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
        validation.set_audience(&["acme.api"]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["iss", "aud"]);
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Value>(jwt, &key, &validation)
            .expect("it verifies")
            .claims;
        assert_eq!(claims["iat"], NOW);
        assert_eq!(claims["token_introspection"]["active"], active);
        let members = claims.as_object().expect("an object").len();
        assert_eq!(members, 4, "neither sub nor exp: {claims}");
        let said = ask(&world, "acme.api", &secret, presented).await;
        assert_eq!(claims["token_introspection"], said);
        // Nobody takes it for a token.
        assert_eq!(ask(&world, "acme.api", &secret, jwt).await, inactive());
    }
}
