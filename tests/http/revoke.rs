//! `POST /oauth/revoke` (RFC 7009), rule by rule.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chancery::domain::client::{Client, Family};
use chancery::domain::rate::Rate;
use chancery::domain::revocation::{Index, OfClient, Revocations};
use chancery::domain::settings::ThrottleSettings;
use chancery::serve::revoke::{Unnoted, What};
use chancery::serve::secrets::HashLimits;
use jiff::Timestamp;
use serde_json::Value;

use crate::support::*;

fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).expect("claims");
    let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64");
    serde_json::from_slice(&claims).expect("JSON")
}

async fn token(world: &World, id: &str, secret: &str) -> String {
    let answer = world.token(id, secret, "").await;
    let token = answer.json()["access_token"].as_str().map(str::to_owned);
    token.expect("a token")
}

/// Two clients with one secret.
fn two() -> (World, String) {
    let (robot, secret) = robot();
    let other = Client {
        id: "acme.other".into(),
        ..robot.clone()
    };
    let world = World::new();
    world
        .store
        .publish(snapshot([ring("main", &es256())], [robot, other]));
    (world, secret)
}

fn noted(world: &World) -> usize {
    world.outbox.notes.lock().expect("a lock").len()
}

#[tokio::test]
async fn a_client_revokes_its_own_token() {
    let (world, secret) = two();
    let token = token(&world, "acme.robot", &secret).await;
    let answer = world.send(revocation("acme.robot", &secret, &token)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body.len(), 0);
    assert_eq!(answer.header("cache-control"), "no-store");
    let notes = world.outbox.notes.lock().expect("a lock").clone();
    let [note] = notes.as_slice() else {
        panic!("{notes:?}");
    };
    assert_eq!((&*note.namespace, &*note.client_id), ("acme", "acme.robot"));
    let claims = claims(&token);
    let What::Token(revoked) = &note.what else {
        panic!("{note:?}");
    };
    assert_eq!(revoked.id, claims["jti"]);
    assert_eq!(revoked.issued_at, claims["iat"]);
    assert_eq!(revoked.expires_at, claims["exp"]);
}

#[tokio::test]
async fn what_is_not_its_own_or_lives_no_more_is_answered_and_not_noted() {
    let (world, secret) = two();
    let own = token(&world, "acme.robot", &secret).await;
    let others = token(&world, "acme.other", &secret).await;
    let (rest, _) = own.rsplit_once('.').expect("three parts");
    let long = "a".repeat(60_000);
    let many_dots = ".".repeat(60_000);
    let forged = format!("{rest}.{}", "A".repeat(86));
    for odd in [&others, "x", "a.b.c", &forged, &long, &many_dots, "%00"] {
        let answer = world.send(revocation("acme.robot", &secret, odd)).await;
        assert_eq!(answer.status, 200, "{}", &odd[..odd.len().min(40)]);
    }
    // Expired; but as long as somebody's clock may be behind, it still counts.
    world.clock.0.fetch_add(300, Ordering::Relaxed);
    assert_eq!(noted(&world), 0);
    let answer = world.send(revocation("acme.robot", &secret, &own)).await;
    assert_eq!((answer.status.as_u16(), noted(&world)), (200, 1));
    world.clock.0.fetch_add(60, Ordering::Relaxed);
    let answer = world.send(revocation("acme.robot", &secret, &own)).await;
    assert_eq!((answer.status.as_u16(), noted(&world)), (200, 1));
}

#[tokio::test]
async fn a_token_of_another_issuer_with_our_key_is_none_of_ours() {
    let (robot, secret) = robot();
    let elsewhere = World::with("https://other.example.com", HashLimits::default());
    let here = World::new();
    for world in [&elsewhere, &here] {
        world
            .store
            .publish(snapshot([ring("main", &es256())], [robot.clone()]));
    }
    let foreign = token(&elsewhere, "acme.robot", &secret).await;
    let answer = here.send(revocation("acme.robot", &secret, &foreign)).await;
    assert_eq!((answer.status.as_u16(), noted(&here)), (200, 0));
}

#[tokio::test]
async fn what_is_revoked_already_is_not_noted_again() {
    let (world, secret) = two();
    let token = token(&world, "acme.robot", &secret).await;
    let claims = claims(&token);
    let (id, issued) = (claims["jti"].as_str().expect("jti"), claims["iat"].as_i64());
    let issued = issued.expect("iat");
    let of = OfClient {
        tokens: BTreeMap::from([(id.to_owned(), (issued, issued + 360))]),
        ..OfClient::default()
    };
    let mut all = Revocations::default();
    let of = BTreeMap::from([("acme.robot".to_owned(), of)]);
    all.join_tenant("acme", &of);
    let (robot, _) = robot();
    let mut known = snapshot([ring("main", &es256())], [robot.clone()]);
    known.revoked = Arc::new(Index::of(&all));
    assert!(known.is_revoked(id, "acme.robot", issued));
    assert!(!known.is_revoked(id, "acme.other", issued));
    assert!(!known.is_revoked("other", "acme.robot", issued));
    known.clients = world.store.load().snapshot.clients.clone();
    world.store.publish(known);
    let answer = world.send(revocation("acme.robot", &secret, &token)).await;
    assert_eq!((answer.status.as_u16(), noted(&world)), (200, 0));
    world.app.refresh_gauges();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &world.registry).expect("text");
    for line in [
        "chancery_revoked_tokens 1",
        "chancery_revoked_clients 0",
        "chancery_revocation_requests_total{result=\"nothing\"} 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn who_is_not_authenticated_revokes_nothing() {
    let (world, secret) = two();
    let own = token(&world, "acme.robot", &secret).await;
    for (id, presented) in [
        ("acme.robot", new_secret()),
        ("acme.unknown", new_secret()),
        ("acme.robot", "x".into()),
    ] {
        let answer = world.send(revocation(id, &presented, &own)).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.error()),
            (401, "invalid_client")
        );
        assert_ne!(answer.header("www-authenticate"), "");
    }
    let mut nobody = post(&[], format!("token={own}"));
    *nobody.uri_mut() = "/oauth/revoke".parse().expect("a path");
    assert_eq!(world.send(nobody).await.status, 401);
    let mut empty = post(&[("authorization", &basic("acme.robot", &secret))], "a=b");
    *empty.uri_mut() = "/oauth/revoke".parse().expect("a path");
    let answer = world.send(empty).await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.error()),
        (400, "invalid_request")
    );
    let mut twice = revocation("acme.robot", &secret, &format!("{own}&token={own}"));
    *twice.uri_mut() = "/oauth/revoke".parse().expect("a path");
    assert_eq!(world.send(twice).await.error(), "invalid_request");
    assert_eq!(world.get("/oauth/revoke").await.status, 405);
    assert_eq!(noted(&world), 0);
}

#[tokio::test]
async fn what_can_not_be_noted_is_not_answered_200() {
    let (world, secret) = two();
    let own = token(&world, "acme.robot", &secret).await;
    for why in [Unnoted::Full, Unnoted::Unreachable] {
        *world.outbox.refuses.lock().expect("a lock") = Some(why);
        let answer = world.send(revocation("acme.robot", &secret, &own)).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.error(), "temporarily_unavailable");
        assert_ne!(answer.header("retry-after"), "");
    }
}

#[tokio::test]
async fn revocations_count_as_tokens_do() {
    let (robot, secret) = robot();
    let throttle = ThrottleSettings {
        token_rate: Rate::per_minute(3),
        ..ThrottleSettings::default()
    };
    let world = World::throttled(throttle, HashLimits::default());
    world
        .store
        .publish(snapshot([ring("main", &es256())], [robot]));
    let own = token(&world, "acme.robot", &secret).await;
    for status in [200, 200, 429] {
        let answer = world.send(revocation("acme.robot", &secret, &own)).await;
        assert_eq!(answer.status, status);
    }
}

#[tokio::test]
async fn only_a_device_revokes_itself_and_only_with_its_own_credential() {
    let (robot, secret) = robot();
    let of = |name: &str, family| Client {
        id: format!("acme.{name}"),
        family,
        ..robot.clone()
    };
    let world = World::new();
    world.store.publish(snapshot(
        [ring("main", &es256())],
        [
            robot.clone(),
            of("device", Family::Device),
            Client {
                companion: Some("acme.agent".into()),
                last_revocation: Timestamp::from_second(NOW + 30).ok(),
                ..of("phone", Family::Device)
            },
            of("agent", Family::Agent),
        ],
    ));
    let send = async |id: &str, secret: &str| {
        let mut request = post(&[("authorization", &basic(id, secret))], "");
        *request.uri_mut() = "/auth/device/revoke".parse().expect("a path");
        world.send(request).await
    };
    for id in ["acme.robot", "acme.agent"] {
        let answer = send(id, &secret).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.error()),
            (403, "unauthorized_client")
        );
    }
    assert_eq!(send("acme.device", &new_secret()).await.status, 401);
    assert_eq!(send("acme.none", &secret).await.status, 401);
    assert_eq!(noted(&world), 0);
    assert_eq!(send("acme.device", &secret).await.status, 200);
    let notes = world.outbox.notes.lock().expect("a lock").clone();
    assert_eq!(notes.len(), 1);
    assert_eq!(
        (&*notes[0].client_id, &notes[0].what),
        (
            "acme.device",
            &What::Device {
                companion: None,
                from: 0
            }
        )
    );
    // With its companion in one note.
    assert_eq!(send("acme.phone", &secret).await.status, 200);
    let notes = world.outbox.notes.lock().expect("a lock").clone();
    assert_eq!(notes.len(), 2);
    let companion = Some("acme.agent".to_owned());
    // It was back, and this clock is behind.
    let from = NOW + 31;
    assert_eq!(notes[1].what, What::Device { companion, from });
    *world.outbox.refuses.lock().expect("a lock") = Some(Unnoted::Unreachable);
    assert_eq!(send("acme.device", &secret).await.status, 503);
    assert_eq!(world.get("/auth/device/revoke").await.status, 405);
}
