//! A replica that is cut off from the API server: past `serving.maxStaleness` it signs no more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chancery::clock::Clock as _;
use chancery::domain::staleness::Contact;

use crate::support::*;

const HOUR: i64 = 3600;

fn contact(world: &World) -> Contact {
    Contact {
        wall: world.clock.now(),
        elapsed: world.clock.elapsed(),
    }
}

/// What it would call wrong may be a secret of the time when it was stopped.
#[tokio::test]
async fn a_replica_that_was_stopped_calls_nothing_wrong_at_first() {
    let (client, secret) = robot();
    let world = World::serving(client);
    let status = async |secret: &str| world.token("acme.robot", secret, "").await.status.as_u16();
    let at = |second| world.clock.0.store(NOW + second, Ordering::Relaxed);
    world.app.pulse.beat();
    assert_eq!(status("wrong").await, 401);
    at(30);
    assert_eq!(status("wrong").await, 503, "before it has beaten again");
    let answer = world.token("acme.nobody", &secret, "").await;
    assert_eq!(answer.error(), "temporarily_unavailable");
    assert_ne!(answer.header("retry-after"), "");
    assert_eq!(status(&secret).await, 200, "what it knows it knows");
    world.app.pulse.beat();
    at(31);
    world.app.pulse.beat();
    assert_eq!(status("wrong").await, 503, "its watches catch up");
    at(32);
    world.app.pulse.beat();
    at(33);
    world.app.pulse.beat();
    assert_eq!(status("wrong").await, 401);
}

#[tokio::test]
async fn past_max_staleness_nothing_is_signed() {
    let (client, secret) = robot();
    let world = World::serving(client);
    let set = |second| world.clock.0.store(second, Ordering::Relaxed);
    let status = async || world.token("acme.robot", &secret, "").await.status.as_u16();
    let get = async |path: &str| world.get(path).await.status.as_u16();
    assert_eq!(status().await, 200);
    set(NOW + HOUR);
    assert_eq!(status().await, 200, "to the last second");

    set(NOW + HOUR + 1);
    for secret in [secret.as_str(), "wrong"] {
        // Nor is anything said of the secret, which may have been changed since.
        let answer = world.token("acme.robot", secret, "").await;
        assert_eq!(answer.status.as_u16(), 503);
        assert_eq!(answer.error(), "temporarily_unavailable");
        assert_ne!(answer.header("retry-after"), "");
        assert_eq!(answer.header("cache-control"), "no-store");
        let said = answer.json()["error_description"].to_string();
        assert!(
            said.contains("for 1h1s") && said.contains("serving.maxStaleness"),
            "{said}"
        );
    }
    assert_eq!(get("/.well-known/jwks.json").await, 200);
    assert_eq!(get("/.well-known/openid-configuration").await, 200);
    world.app.refresh_gauges();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &world.registry).expect("text");
    assert!(
        text.contains("chancery_contact_age_seconds 3601.0"),
        "{text}"
    );

    // A change that came through proves nothing of the rest.
    let snapshot = || {
        let view = world.store.load();
        chancery::serve::snapshot::Snapshot {
            jwks: view.snapshot.jwks.clone(),
            client_rings: view.snapshot.client_rings.clone(),
            clients: view.snapshot.clients.clone(),
            ..chancery::serve::snapshot::Snapshot::default()
        }
    };
    world.store.publish(snapshot());
    assert_eq!(status().await, 503);

    let before = world.store.load();
    world.store.publish_proven(snapshot(), contact(&world));
    assert_eq!(status().await, 200);
    // A request that has begun before goes by what it began with.
    let clock = Arc::clone(&world.clock);
    assert!(before.contact_age(&*clock) > Duration::from_hours(1));
    set(NOW + 2 * HOUR + 1);
    assert_eq!(status().await, 200);
    set(NOW + 2 * HOUR + 2);
    assert_eq!(status().await, 503);
}
