//! The memory of verified secrets and the bcrypt pool, seen through their counters.

use std::sync::Arc;

use chancery::crypto::hash;
use chancery::domain::client::Client;
use chancery::serve::metrics::SecretCheck::{Misshapen, Remembered, Shed, Verified, Wrong};
use chancery::serve::secrets::HashLimits;

use crate::support::*;

fn publish(world: &World, client: &Client) {
    world
        .store
        .publish(snapshot([ring("main", &es256())], [client.clone()]));
}

fn counts(world: &World) -> [u64; 5] {
    [Remembered, Verified, Wrong, Misshapen, Shed].map(|c| world.metrics.checks(c))
}

#[tokio::test]
async fn a_secret_is_hashed_once_and_then_remembered() {
    let (client, secret) = robot();
    let world = World::serving(client.clone());
    for _ in 0..3 {
        assert_eq!(world.token("acme.robot", &secret, "").await.status, 200);
    }
    assert_eq!(counts(&world), [2, 1, 0, 0, 0]);
    // A snapshot that changes nothing about it changes nothing.
    publish(&world, &client);
    assert_eq!(world.token("acme.robot", &secret, "").await.status, 200);
    assert_eq!(counts(&world), [3, 1, 0, 0, 0]);
    assert_eq!(
        world.token("acme.robot", &new_secret(), "").await.status,
        401
    );
    assert_eq!(world.token("acme.robot", "guess", "").await.status, 401);
    assert_eq!(counts(&world), [3, 1, 1, 1, 0]);
}

#[tokio::test]
async fn what_is_remembered_ends_with_its_hash_its_client_and_its_suspension() {
    let (client, secret) = robot();
    let rotated = Client {
        credentials: vec![credential("c1", &new_secret(), 2)],
        ..client.clone()
    };
    let suspended = Client {
        suspended: true,
        ..client.clone()
    };
    let world = World::serving(client.clone());
    for gone in [rotated, suspended] {
        publish(&world, &client);
        assert_eq!(world.token("acme.robot", &secret, "").await.status, 200);
        publish(&world, &gone);
        assert_eq!(world.token("acme.robot", &secret, "").await.status, 401);
    }
    assert_eq!(counts(&world), [0, 2, 2, 0, 0]);
    // Back again, it is looked at anew.
    publish(&world, &client);
    assert_eq!(world.token("acme.robot", &secret, "").await.status, 200);
    assert_eq!(counts(&world), [0, 3, 2, 0, 0]);
    world.store.publish(snapshot([ring("main", &es256())], []));
    assert_eq!(world.token("acme.robot", &secret, "").await.status, 401);
}

#[tokio::test]
async fn three_work_and_a_fourth_does_not() {
    let (mut client, second) = robot();
    let (oldest, third, newest) = (new_secret(), new_secret(), new_secret());
    // One that a person has supplied takes no other's place.
    let mut costly = credential("c4", &new_secret(), 9);
    costly.hash = hash::hash("correct horse battery staple", 10).expect("hashed");
    client.credentials = vec![
        credential("c0", &oldest, 0),
        credential("c1", &second, 1),
        credential("c2", &third, 2),
        credential("c3", &newest, 3),
        costly,
    ];
    let world = World::serving(client);
    for (secret, status) in [
        (&newest, 200),
        (&third, 200),
        (&second, 200),
        (&oldest, 401),
    ] {
        assert_eq!(world.token("acme.robot", secret, "").await.status, status);
        assert_eq!(world.token("acme.robot", secret, "").await.status, status);
    }
    assert_eq!(counts(&world), [3, 3, 2, 0, 0]);
}

#[tokio::test]
async fn a_full_pool_turns_away_and_says_when_to_come_again() {
    let (client, secret) = robot();
    // None runs and one may wait, so that the state is sure.
    let world = Arc::new(World::with(
        ISSUER,
        HashLimits {
            running: 0,
            waiting: 1,
        },
    ));
    publish(&world, &client);
    let waiting = tokio::spawn({
        let (world, secret) = (Arc::clone(&world), secret.clone());
        async move { world.token("acme.robot", &secret, "").await }
    });
    eventually("the first one waits", || {
        world.metrics.hash_queue.get() == 1
    })
    .await;
    for (id, presented) in [("acme.robot", new_secret()), ("acme.unknown", new_secret())] {
        let answer = world.token(id, &presented, "").await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.error(), "temporarily_unavailable");
        assert_ne!(answer.header("retry-after"), "");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    // What needs no hash is answered all the same.
    assert_eq!(world.token("acme.robot", "guess", "").await.status, 401);
    // The same secret again shares the check and takes no place of its own.
    let sharing = tokio::spawn({
        let (world, secret) = (Arc::clone(&world), secret.clone());
        async move { world.token("acme.robot", &secret, "").await }
    });
    tokio::task::yield_now().await;
    assert!(!sharing.is_finished());
    assert_eq!(world.metrics.hash_queue.get(), 1);
    // A client that hangs up gives its place back.
    waiting.abort();
    sharing.abort();
    eventually("the queue is empty", || world.metrics.hash_queue.get() == 0).await;
}

/// Snapshots follow each other faster than bcrypt runs, where much goes on in a cluster.
#[tokio::test]
async fn a_check_is_shared_across_snapshots_until_nobody_waits_for_it() {
    let (mut client, _) = robot();
    let secret = "correct horse battery staple";
    client.credentials = vec![supplied("c1", secret, 10)];
    let world = Arc::new(World::with(
        ISSUER,
        HashLimits {
            running: 0,
            waiting: 1,
        },
    ));
    let ask = || {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.token("acme.robot", secret, "").await })
    };
    let mut asked = Vec::new();
    for _ in 0..3 {
        publish(&world, &client);
        asked.push(ask());
        eventually("it waits", || world.metrics.hash_queue.get() == 1).await;
        // The first hangs up, and the others wait on.
        if asked.len() == 2 {
            asked[0].abort();
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(
            !asked.last().expect("one").is_finished(),
            "it shares the check"
        );
        assert_eq!(world.metrics.hash_queue.get(), 1);
    }
    for asked in asked {
        asked.abort();
    }
    eventually("the queue is empty", || world.metrics.hash_queue.get() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_found_under_one_snapshot_serves_the_next() {
    let (mut client, _) = robot();
    let secret = "correct horse battery staple";
    client.credentials = vec![supplied("c1", secret, 12)];
    let world = Arc::new(World::serving(client.clone()));
    let asked = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.token("acme.robot", secret, "").await }
    });
    eventually("it is compared", || world.metrics.comparisons.get() == 1).await;
    publish(&world, &client);
    assert_eq!(asked.await.expect("no panic").status, 200);
    assert_eq!(world.token("acme.robot", secret, "").await.status, 200);
    assert_eq!(counts(&world), [1, 1, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_first_requests_share_one_check() {
    let (client, secret) = robot();
    let world = Arc::new(World::with(
        ISSUER,
        HashLimits {
            running: 1,
            waiting: 0,
        },
    ));
    publish(&world, &client);
    let requests = (0..32).map(|_| {
        let (world, secret) = (Arc::clone(&world), secret.clone());
        tokio::spawn(async move { world.token("acme.robot", &secret, "").await.status })
    });
    for status in futures::future::join_all(requests).await {
        assert_eq!(status.expect("answered"), 200);
    }
    assert_eq!(world.metrics.checks(Shed), 0);
    assert_eq!(world.metrics.hashing.get(), 0);
}

/// What a refusal costs follows from what is presented, and not from whose it is: of a secret that a
/// person could have supplied as much as such hashes cost, and nothing where nobody has supplied one.
#[tokio::test]
async fn supplied_secrets_work_and_are_refused_at_one_price() {
    const CHOSEN: &str = "correct horse battery staple";
    let (generated, secret) = robot();
    let of = |id: &str, suspended, credentials| Client {
        id: id.into(),
        suspended,
        credentials,
        ..generated.clone()
    };
    let world = World::new();
    let price = async |id: &str, presented: &str| {
        let before = world.metrics.comparisons.get();
        let answer = world.token(id, presented, "").await;
        (
            answer.status.as_u16(),
            world.metrics.comparisons.get() - before,
        )
    };
    publish(&world, &generated);
    assert_eq!(
        price("acme.robot", CHOSEN).await,
        (401, 0),
        "nobody has supplied one"
    );

    let chosen = of("acme.chosen", false, vec![supplied("1", CHOSEN, 10)]);
    let suspended = of("acme.gone", true, vec![supplied("1", CHOSEN, 10)]);
    let clients = [generated.clone(), chosen.clone(), suspended.clone()];
    world
        .store
        .publish(snapshot([ring("main", &es256())], clients));
    for (id, presented) in [
        ("acme.chosen", "another horse battery staple"),
        ("acme.robot", CHOSEN),
        ("acme.gone", CHOSEN),
        ("acme.unknown", CHOSEN),
    ] {
        assert_eq!(price(id, presented).await, (401, 3), "{id}");
        assert_eq!(price(id, &new_secret()).await, (401, 3), "{id}");
        for neither in ["too short", &"x".repeat(73), "not\tprintable at all"] {
            assert_eq!(price(id, neither).await, (401, 0), "{id} {neither}");
        }
    }
    assert_eq!(price("acme.chosen", CHOSEN).await, (200, 1));
    assert_eq!(
        price("acme.chosen", CHOSEN).await,
        (200, 0),
        "it is remembered"
    );
    assert_eq!(price("acme.robot", &secret).await, (200, 1));

    // While a release changes its costs, old hashes work, and all refusals cost both.
    let old = of(
        "acme.old",
        false,
        vec![supplied("1", CHOSEN, 11), supplied("2", &new_secret(), 6)],
    );
    let clients = [generated.clone(), chosen, suspended, old];
    world
        .store
        .publish(snapshot([ring("main", &es256())], clients));
    assert_eq!(price("acme.old", CHOSEN).await, (200, 1));
    for id in ["acme.chosen", "acme.old", "acme.unknown"] {
        assert_eq!(
            price(id, "another horse battery staple").await,
            (401, 6),
            "{id}"
        );
        assert_eq!(price(id, &new_secret()).await, (401, 6), "{id}");
    }
}

/// Guesses of supplied secrets do not turn away the first checks of generated ones.
#[tokio::test]
async fn supplied_secrets_have_a_pool_of_their_own() {
    let (mut client, secret) = robot();
    client
        .credentials
        .push(supplied("2", "correct horse battery staple", 10));
    let limits = HashLimits {
        running: 1,
        waiting: 0,
    };
    let world = Arc::new(World::with(ISSUER, limits));
    publish(&world, &client);
    let guess = tokio::spawn({
        let world = Arc::clone(&world);
        async move {
            world
                .token("acme.robot", "another horse battery staple", "")
                .await
        }
    });
    eventually("it is compared", || world.metrics.hashing.get() == 1).await;
    assert_eq!(
        world
            .token("acme.robot", "a third horse battery staple", "")
            .await
            .status,
        503
    );
    assert_eq!(world.token("acme.robot", &secret, "").await.status, 200);
    assert_eq!(guess.await.expect("answered").status, 401);
}
