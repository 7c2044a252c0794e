//! What stands in a ring's way holds up nothing but itself.

use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::{Algorithm, RsaKeySize};
use chancery::objects::key_secret;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::scene::{Scene, eventually};
use super::*;

/// A quota refuses the successor's Secret: the withdrawn key goes all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_does_not_wait_for_what_is_refused() {
    let scene = Scene::start().await;
    scene.ring("main", Value::Null).await;
    let first = scene.follows("main", None).await;
    scene.gate.refuse(true);
    scene.withdraw_at_once("main", &first).await;
    for map in ["chancery-issuer", "main-jwks"] {
        eventually(&format!("{map} without the key"), async || {
            scene.kids(map).await.filter(Vec::is_empty)
        })
        .await;
    }
    assert!(!scene.gate.refusals().is_empty(), "there was a refusal");
    eventually("its key pair is destroyed", async || {
        let secret = scene.secrets().get_opt("main-1").await.expect("an answer");
        secret.is_none().then_some(())
    })
    .await;
    eventually("it is told what is refused", async || {
        let (reason, message) = scene.told("main", "Stalled").await?;
        (reason == "WriteRefused" && message.contains("exceeded quota: none")).then_some(())
    })
    .await;
    scene.gate.refuse(false);
    let second = scene.follows("main", Some(&first)).await;
    assert_eq!(scene.kids("chancery-issuer").await, Some(vec![second]));
}

/// A withdrawn key leaves the issuer's map before its ring has written down that it is spent: another
/// ring that was given the same key pair does not take it in between, however long that is.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_withdrawn_does_not_come_in_by_another_ring() {
    let scene = Scene::start().await;
    let pem = KeyPair::generate_pem(Algorithm::ES256, RsaKeySize::Bits2048).expect("a key");
    let pair = KeyPair::from_pem(Algorithm::ES256, &pem).expect("a key");
    let stolen = pair.key_id();
    let source = json!({
        "metadata": {"name": "source"}, "stringData": {"key.pem": pem.as_str()},
    });
    let source: Secret = serde_json::from_value(source).expect("valid");
    let (secrets, params) = (scene.secrets(), PostParams::default());
    let made = secrets.create(&params, &source).await;
    made.expect("created");
    let brings = || json!({"privateKey": {"secretRef": {"name": "source"}}});
    scene.ring("main", brings()).await;
    assert_eq!(scene.follows("main", None).await, stolen);
    scene.ring("other", brings()).await;
    let told = async |what: &str| {
        eventually(&format!("other: {what}"), async || {
            let (reason, message) = scene.told("other", "Stalled").await?;
            (reason == "InjectedKeyRefused" && message.contains(what)).then_some(())
        })
        .await;
    };
    told("stands in SigningKey main").await;

    scene.gate.refuse_replacing("configmaps", "main-jwks");
    scene.withdraw_at_once("main", stolen).await;
    eventually("it is out of the issuer's map", async || {
        scene.kids("chancery-issuer").await.filter(Vec::is_empty)
    })
    .await;
    eventually("main tells what is refused", async || {
        let (reason, _) = scene.told("main", "Stalled").await?;
        (reason == "WriteRefused").then_some(())
    })
    .await;
    // Visited again, it is refused as before.
    let label = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"priority": 1}});
    scene.patch("other", label).await;
    eventually("other is visited", async || {
        let other = scene.rings().get("other").await.expect("the ring");
        let seen = other.status?.observed_generation;
        (Some(seen) == other.metadata.generation).then_some(())
    })
    .await;
    told("stands in SigningKey main").await;

    scene.gate.refuse(false);
    told("was withdrawn or removed from another ring").await;
    assert_eq!(scene.kids("chancery-issuer").await, Some(Vec::new()));
    let copy = scene.secrets().get_opt("other-1").await.expect("an answer");
    assert!(copy.is_none(), "other has taken it");
}

/// A person's Secret with a ring's label and the name of one of its later keys: it is no key, it is
/// left alone, and the ring makes its keys by the numbers in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_stray_of_a_later_number_stops_no_rotation() {
    let highest = format!("main-{}", i64::MAX);
    let cases = ["main-50", &highest].into_iter();
    let cases = cases.flat_map(|stray| [(stray, true), (stray, false)]);
    let run = |(stray, before)| a_ring_beside(stray, before);
    futures::future::join_all(cases.map(run)).await;
}

/// `before`: the stray is there before the ring.
async fn a_ring_beside(stray: &str, before: bool) {
    let scene = Scene::start().await;
    let put = async || {
        let secret = json!({
            "metadata": {"name": stray, "labels": {
                "app.kubernetes.io/managed-by": "chancery", "chancery.dev/environment": "default",
                "chancery.dev/part": "signing-key", "chancery.dev/signing-key": "main",
            }},
            "type": key_secret::TYPE, "stringData": {"private-key.pem": "mine"},
        });
        let secret: Secret = serde_json::from_value(secret).expect("valid");
        let made = scene
            .secrets()
            .create(&PostParams::default(), &secret)
            .await;
        made.expect("created")
    };
    let early = if before { Some(put().await) } else { None };
    scene.ring("main", Value::Null).await;
    let mut active = scene.follows("main", None).await;
    let made = match early {
        Some(made) => made,
        None => put().await,
    };
    for _ in 0..2 {
        active = scene.rotate("main", &active).await;
    }
    let what = format!("{stray}, {}", if before { "before" } else { "after" });
    let status = eventually("the ring is at rest", async || {
        let ring = scene.rings().get("main").await.expect("the ring");
        let status = ring.status?;
        let retired = |k: &&chancery::api::v1alpha1::KeyStatus| k.retired_at.is_some();
        (status.keys.iter().filter(retired).count() == 2).then_some(status)
    })
    .await;
    let numbers: Vec<i64> = status.keys.iter().map(|k| k.sequence).collect();
    assert_eq!(numbers, [1, 2, 3], "{what}");
    assert_eq!(scene.told("main", "Stalled").await, None, "{what}");
    let now = scene.secrets().get(stray).await.expect("it is there");
    assert_eq!(now.metadata, made.metadata, "{what}: it is left alone");

    // Nothing is due for an hour: whoever asks again and again is in a loop.
    let mut asked = scene.gate.requests();
    eventually(&format!("{what}: a second of rest"), async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = std::mem::replace(&mut asked, scene.gate.requests());
        (asked == before).then_some(())
    })
    .await;
    // And one look is no more than a few questions.
    let labels = json!({"metadata": {"labels": {"look": "again"}}});
    scene.patch("main", labels).await;
    let before = asked;
    let rotated = scene.rotate("main", &active).await;
    assert_ne!(rotated, active);
    let asked = scene.gate.requests() - before;
    println!("{what}: a rotation asks {asked} times");
    assert!(asked < 150, "{what}: {asked}");
}

/// What failed before is not waited for once a person has changed the ring.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_spec_ends_a_backoff() {
    let scene = Scene::start().await;
    scene.gate.refuse(true);
    scene.ring("main", Value::Null).await;
    // 200 ms, and twice as long each time: after the seventh it waits for at least 12.8 s.
    let seventh = eventually("seven refusals", async || {
        scene.gate.refusals().get(6).copied()
    })
    .await;
    // Only the spec counts: a label does not, nor what the visit itself has written.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    scene.patch("main", label).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(scene.gate.refusals().len(), 7, "it waits");
    let changed = Instant::now();
    scene.patch("main", json!({"spec": {"priority": 1}})).await;
    let next = eventually("it is tried again", async || {
        scene.gate.refusals().get(7).copied()
    })
    .await;
    println!("tried again {:?} after the change", next - changed);
    let waited = next - seventh;
    assert!(waited < Duration::from_secs(10), "{waited:?}");
}

/// The removal of a retired key is due by the clock while a successor is refused again and again, ever
/// more rarely; and what else was told of the ring still holds. Four rings, since by chance a try comes
/// when a removal is due.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_by_the_clock_does_not_wait_for_what_is_refused() {
    let scene = Scene::start().await;
    let rings = [("one", 10), ("two", 13), ("three", 16), ("four", 19)];
    // Nothing is refused before all have rotated.
    let rotated = tokio::sync::Barrier::new(rings.len());
    let all = rings.map(|(ring, grace)| a_removal_while_refused(&scene, &rotated, ring, grace));
    let late = futures::future::join_all(all).await;
    println!("removed so many ms after it was due: {late:?}");
    assert!(late.iter().all(|late| *late < 2500), "{late:?}");
}

/// How late the first key of a ring with that grace, in seconds, is removed, in milliseconds.
async fn a_removal_while_refused(
    scene: &Scene,
    rotated: &tokio::sync::Barrier,
    ring: &str,
    grace: i64,
) -> i128 {
    let brief = json!({"rotation": {"publishLead": "1s", "retention": "1h", "gracePeriod": format!("{grace}s")}});
    scene.ring(ring, brief).await;
    let first = scene.follows(ring, None).await;
    let second = scene.rotate(ring, &first).await;
    rotated.wait().await;
    scene.gate.refuse(true);
    let again = json!({"metadata": {"annotations": {"chancery.dev/rotate": "again"}}});
    scene.patch(ring, again).await;
    let raised = eventually("the lead is raised, and a write refused", async || {
        scene.told(ring, "Stalled").await?;
        scene.told(ring, "PublishLeadRaised").await
    });
    assert_eq!(raised.await.0, "BelowSafeMinimum");
    let name = format!("{ring}-1");
    let late = eventually("the retired key is removed", async || {
        let secret = scene.secrets().get_opt(&name).await.expect("an answer")?;
        let life = key_secret::read(&secret).life;
        let due = life.retired? + jiff::SignedDuration::from_secs(grace);
        Some(life.removed?.duration_since(due).as_millis())
    })
    .await;
    // What was refused holds, and the key that signs does.
    assert_eq!(scene.follows(ring, Some(&first)).await, second);
    scene.told(ring, "Stalled").await.expect("it is refused");
    scene.told(ring, "Ready").await.expect("it signs");
    late
}

/// What is asked for and can not be done, or not yet, is told: in the condition, in `Ready`'s message
/// (which is what a table shows), and as one event.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_brought_key_can_not_answer_is_told_until_there_is_another() {
    let scene = Scene::start().await;
    let pem = || {
        let pem = KeyPair::generate_pem(Algorithm::ES256, RsaKeySize::Bits2048);
        pem.expect("a key").to_string()
    };
    let mut secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "mine"}, "stringData": {"private-key.pem": pem()},
    }))
    .expect("valid");
    let params = PostParams::default();
    let made = scene.secrets().create(&params, &secret).await;
    secret.metadata.resource_version = made.expect("created").metadata.resource_version;
    let brought = json!({
        "privateKey": {"secretRef": {"name": "mine"}}, "publish": [{"namespaces": ["absent"]}],
    });
    scene.ring("main", brought).await;
    let first = scene.follows("main", None).await;
    let again = json!({"metadata": {"annotations": {"chancery.dev/rotate": "please"}}});
    scene.patch("main", again).await;
    let (reason, message) =
        eventually("it is told", async || scene.told("main", "Stalled").await).await;
    assert_eq!(reason, "InvalidSpec");
    for part in ["chancery.dev/rotate", "please", "Secret mine", &first] {
        assert!(message.contains(part), "{part} in {message:?}");
    }
    let ready = scene.told("main", "Ready").await.expect("it signs").1;
    assert!(
        ready.contains(&first) && ready.contains(&message),
        "{ready}"
    );
    secret.string_data = Some([("private-key.pem".to_owned(), pem())].into());
    let replaced = scene.secrets().replace("mine", &params, &secret).await;
    replaced.expect("replaced");
    scene.follows("main", Some(&first)).await;
    eventually("nothing is in the way", async || {
        let status = scene.rings().get("main").await.expect("the ring").status?;
        let handled = status.last_handled_rotation.as_deref() == Some("please");
        (handled && scene.told("main", "Stalled").await.is_none()).then_some(())
    })
    .await;
    for reason in ["InvalidSpec", "NamespaceNotFound"] {
        let events = scene.events(reason).await;
        assert_eq!(events.len(), 1, "{reason}: {events:?}");
    }
}

/// A ring that opens later is ready, says when it opens, and tells when it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_tells_when_it_will_open_and_that_it_has() {
    let scene = Scene::start().await;
    // Kubernetes' times have whole seconds.
    let from = jiff::Timestamp::from_second(clock::system().now().as_second() + 5).expect("a time");
    scene
        .ring("main", json!({"validFrom": from.to_string()}))
        .await;
    let kid = scene.follows("main", None).await;
    let next = eventually("what comes next", async || {
        let status = scene.rings().get("main").await.expect("the ring").status?;
        status.next_transition
    })
    .await;
    let told = serde_json::to_value(&next).expect("JSON");
    assert_eq!(
        (&told["what"], &told["keyId"]),
        (&json!("Open"), &json!(kid)),
        "{told}"
    );
    assert!(
        scene
            .events("KeyActivated")
            .await
            .iter()
            .all(|told| !told.contains("has come"))
    );
    let told = eventually("an event", async || {
        let events = scene.events("KeyActivated").await;
        events.into_iter().find(|told| told.contains("has come"))
    })
    .await;
    assert!(told.contains(&kid), "{told}");
    assert!(clock::system().now() >= from, "it came too early");
}

/// The ring's own ConfigMap can not be written, so that it holds the stolen key for ever, and other rings
/// write the issuer's all the time: none of them brings the key back.
#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_key_stays_out_of_the_jwks_while_other_rings_write() {
    let scene = Scene::start().await;
    let pem = KeyPair::generate_pem(Algorithm::ES256, RsaKeySize::Bits2048).expect("a key");
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "mine"}, "stringData": {"private-key.pem": *pem},
    }))
    .expect("valid");
    let made = scene
        .secrets()
        .create(&PostParams::default(), &secret)
        .await;
    made.expect("created");
    let brought = json!({"privateKey": {"secretRef": {"name": "mine"}}});
    scene.ring("main", brought).await;
    scene.ring("second", Value::Null).await;
    let stolen = scene.follows("main", None).await;
    let mut active = scene.follows("second", None).await;
    eventually("it is published", async || {
        let kids = scene.kids("chancery-issuer").await?;
        kids.contains(&stolen).then_some(())
    })
    .await;
    let immutable = Patch::Merge(json!({"immutable": true}));
    let patched = scene
        .maps()
        .patch("main-jwks", &PatchParams::default(), &immutable)
        .await;
    patched.expect("patched");
    scene.withdraw_at_once("main", &stolen).await;
    let out = async || {
        let kids = scene.kids("chancery-issuer").await?;
        (!kids.contains(&stolen)).then_some(())
    };
    eventually("it is out", out).await;
    for _ in 0..3 {
        active = scene.rotate("second", &active).await;
        assert_eq!(out().await, Some(()), "it came back");
    }
    let kids = scene.kids("main-jwks").await.expect("a ConfigMap");
    assert!(kids.contains(&stolen), "or there was nothing to bring back");
}

/// An emergency goes before what a hundred other rings do.
#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_does_not_wait_for_a_hundred_other_rings() {
    let scene = Scene::start().await;
    for n in 0..100 {
        let rotation = json!({"interval": format!("{}s", 12 + n % 30), "publishLead": "2s"});
        scene
            .ring(&format!("r{n:03}"), json!({"rotation": rotation}))
            .await;
    }
    scene.ring("main", Value::Null).await;
    let mut active = scene.follows("main", None).await;
    for _ in 0..3 {
        let ordered = Instant::now();
        scene.withdraw_at_once("main", &active).await;
        let out = async || {
            let kids = scene.kids("chancery-issuer").await?;
            (!kids.contains(&active)).then_some(())
        };
        eventually("it is out", out).await;
        let took = ordered.elapsed();
        println!("out of the JWKS after {took:?} (limit 10 s)");
        assert!(took < Duration::from_secs(50), "{took:?}");
        active = scene.follows("main", Some(&active)).await;
        println!("the next key signs after {:?}", ordered.elapsed());
    }
}
