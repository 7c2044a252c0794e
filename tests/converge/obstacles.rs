//! What stands in a ring's way holds up nothing but itself.

use chancery::objects::key_secret;
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
