//! What a server makes of the rings' objects: which JWKS it serves, and which ring signs first.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use chancery::domain::names::ISSUER_JWKS;
use chancery::domain::rotation::later;
use chancery::objects::{jwks_map, key_secret};
use chancery::serve::snapshot::{PublishedJwks, Ring};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::scene::{Scene, eventually};
use super::*;

fn feed(scene: &Scene) -> Feed {
    let stores = scene.running.stores.clone();
    Feed::new(
        stores,
        scene.settings.clone(),
        chancery::clock::system(),
        Readiness::waiting_for([]),
    )
}

/// Builds snapshots until the JWKS is of these keys and no other.
async fn serving(feed: &mut Feed, before: Option<&PublishedJwks>, kids: &[&str]) -> PublishedJwks {
    let mut wanted = kids.to_vec();
    wanted.sort_unstable();
    eventually(&format!("a JWKS of {wanted:?}"), async || {
        let jwks = feed.build(before).jwks?;
        let mut found: Vec<&str> = jwks.keys.keys.iter().map(|k| k.kid.as_str()).collect();
        found.sort_unstable();
        (found == wanted).then_some(jwks.clone())
    })
    .await
}

/// Both ConfigMaps of the first ring are deleted, and the second ring makes the issuer's anew, of
/// which it knows its own share alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_nobody_removed_is_served_although_the_config_map_lacks_it() {
    for removed in [true, false] {
        let scene = Scene::start().await;
        scene.ring("main", Value::Null).await;
        scene.ring("second", Value::Null).await;
        let main = scene.follows("main", None).await;
        let second = scene.follows("second", None).await;
        let mut feed = feed(&scene);
        let good = serving(&mut feed, None, &[&main, &second]).await;
        // The operator stands still.
        scene.running.operator.abort();
        let issuer = scene.maps().get(ISSUER_JWKS).await.expect("a ConfigMap");
        let share = &jwks_map::shares(&issuer)["second"];
        let none = BTreeMap::new();
        let alone = jwks_map::of_issuer("second", share, None, &none, OPERATOR, "default");
        let params = DeleteParams::default();
        for name in ["main-jwks", ISSUER_JWKS] {
            scene.maps().delete(name, &params).await.expect("deleted");
        }
        let made = scene.maps().create(&PostParams::default(), &alone).await;
        let made = made.expect("created").metadata.uid;
        eventually("the feed has it", async || {
            let maps = &scene.running.stores.config_maps;
            let map = Stores::get(maps, OPERATOR, ISSUER_JWKS)?;
            (map.metadata.uid == made).then_some(())
        })
        .await;
        let served = feed.build(Some(&good)).jwks.expect("a JWKS");
        assert_eq!(served.document, good.document, "the last good one");
        let fresh = feed.build(None).jwks.expect("a JWKS");
        assert!(
            fresh.keys.contains(&main),
            "its Secret says that it was published"
        );

        // What was removed goes, and so does what went with its ring.
        if removed {
            let mut secret = scene.secrets().get("main-1").await.expect("the key");
            let mut written = key_secret::read(&secret);
            written.life.removed = Some(clock::system().now());
            let algorithm = chancery::domain::algorithm::Algorithm::ES256;
            key_secret::stamp(&mut secret, algorithm, &written);
            let params = PostParams::default();
            let written = scene.secrets().replace("main-1", &params, &secret).await;
            written.expect("replaced");
        } else {
            scene.delete("main").await;
        }
        serving(&mut feed, Some(&good), &[&second]).await;
    }
}

/// The same with an operator at work: whatever it does first, no moment lacks a key.
#[tokio::test(flavor = "multi_thread")]
async fn no_moment_lacks_a_key_where_config_maps_are_deleted() {
    let scene = Scene::start().await;
    scene.ring("main", Value::Null).await;
    scene.ring("second", Value::Null).await;
    let main = scene.follows("main", None).await;
    let second = scene.follows("second", None).await;
    let mut feed = feed(&scene);
    let mut last = serving(&mut feed, None, &[&main, &second]).await;
    // It looks all the time, beside all else.
    let going = Arc::new(AtomicBool::new(true));
    let (goes, kids) = (going.clone(), [main, second]);
    let looking = tokio::spawn(async move {
        let mut looks = 0_u64;
        while goes.load(Ordering::SeqCst) {
            last = feed.build(Some(&last)).jwks.expect("a JWKS");
            let gone = kids.iter().find(|kid| !last.keys.contains(kid));
            assert_eq!(gone, None, "at look {looks}");
            looks += 1;
            tokio::task::yield_now().await;
        }
        looks
    });
    for ring in ["main", "second"].into_iter().cycle().take(10) {
        let own = format!("{ring}-jwks");
        for name in [own.as_str(), ISSUER_JWKS] {
            let deleted = scene.maps().delete(name, &DeleteParams::default()).await;
            deleted.expect("deleted");
        }
        eventually("the ConfigMaps are mended", async || {
            let (own, all) = (scene.kids(&own).await?, scene.kids(ISSUER_JWKS).await?);
            (own.len() == 1 && all.len() == 2).then_some(())
        })
        .await;
    }
    going.store(false, Ordering::SeqCst);
    println!("{} looks", looking.await.expect("each had both keys"));
}

/// Waits until the rings of these active keys can sign, as the snapshot that is then published says.
async fn both_sign(feed: &mut Feed, snapshots: &SnapshotStore, kids: [&str; 2]) -> [Arc<Ring>; 2] {
    eventually("both rings can sign", async || {
        let snapshot = feed.build(None);
        let rings = snapshot.client_rings.clone();
        snapshots.publish(snapshot);
        let of = |kid: &str| rings.iter().find(|r| r.active.key_id() == kid).cloned();
        Some([of(kids[0])?, of(kids[1])?])
    })
    .await
}

/// A further ring of higher priority: verifiers may not know its first key yet, so that the other
/// ring signs until its lead is over. Its later keys wait for their lead by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_further_rings_first_key_lets_others_sign_through_its_lead() {
    let scene = Scene::start().await;
    scene.ring("main", Value::Null).await;
    let first = scene.follows("main", None).await;
    let main = scene.rotate("main", &first).await;
    let lead = json!({"priority": 5, "rotation": {"publishLead": "30m"}});
    scene.ring("second", lead).await;
    let second = scene.follows("second", None).await;

    let mut feed = feed(&scene);
    let snapshots = SnapshotStore::new(clock::system());
    let [main, second] = both_sign(&mut feed, &snapshots, [&main, &second]).await;
    let known_from = second.standing.known_from.expect("a time");
    assert!(
        main.standing.known_from < Some(known_from),
        "a key with a lead behind it"
    );
    let secret = scene.secrets().get("second-1").await.expect("the key");
    let published = key_secret::read(&secret).life.published.expect("a time");
    assert_eq!(known_from, later(published, SignedDuration::from_mins(30)));

    let order = |now| {
        let view = snapshots.load();
        let names = view.rings(now).map(|r| r.name.clone());
        names.collect::<Vec<_>>()
    };
    let moment = SignedDuration::from_millis(1);
    let before = known_from - moment;
    assert_eq!(order(published), ["main", "second"]);
    assert_eq!(order(before), ["main", "second"]);
    assert_eq!(order(known_from), ["second", "main"]);
}

/// Of two rings whose first keys are in their lead, that whose key was published first signs, however
/// short the other's lead is: it signed before the other was made.
#[tokio::test(flavor = "multi_thread")]
async fn a_ring_that_signs_goes_on_beside_a_new_one_with_a_shorter_lead() {
    let scene = Scene::start().await;
    scene
        .ring("main", json!({"rotation": {"publishLead": "30m"}}))
        .await;
    let main = scene.follows("main", None).await;
    // Times are written to the millisecond.
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    scene
        .ring("second", json!({"rotation": {"publishLead": "2s"}}))
        .await;
    let second = scene.follows("second", None).await;
    let mut feed = feed(&scene);
    let snapshots = SnapshotStore::new(clock::system());
    let [_, second] = both_sign(&mut feed, &snapshots, [&main, &second]).await;
    let over = second.standing.known_from.expect("a first key");
    let view = snapshots.load();
    let names: Vec<_> = view
        .rings(later(over, SignedDuration::from_secs(1)))
        .collect();
    assert_eq!(names[0].name, "main");
}

/// Who looks at the rings sees which one signs, and why: by the same rule that the servers follow.
#[tokio::test(flavor = "multi_thread")]
async fn the_rings_tell_which_of_them_signs() {
    let scene = Scene::start().await;
    scene.ring("main", Value::Null).await;
    let first = scene.follows("main", None).await;
    scene.rotate("main", &first).await;
    let alone = "This ring signs for audience client: there is no other.".to_owned();
    assert_eq!(
        signing(&scene, "main").await,
        Some(("True".into(), alone.clone()))
    );
    let lead = json!({"priority": 5, "rotation": {"publishLead": "6s"}});
    scene.ring("second", lead).await;
    scene.follows("second", None).await;
    let says = async |ring: &str, holds: &str, part: &str| {
        eventually(&format!("{ring} says {holds}, {part}"), async || {
            let (status, message) = signing(&scene, ring).await?;
            (status == holds && message.contains(part)).then_some(())
        })
        .await;
    };
    says(
        "second",
        "False",
        "SigningKey main signs for audience client",
    )
    .await;
    says(
        "second",
        "False",
        "until this ring's publishLead is over at",
    )
    .await;
    says("main", "True", "this one signs").await;
    // By the clock, with no change of anything.
    says("second", "True", "this one signs").await;
    says("main", "False", "SigningKey second signs").await;
    says("main", "False", "its priority is 5, and this ring's 0").await;
    // In an emergency no verifier knows the next key, and all know the other ring's.
    let stolen = scene.follows("second", None).await;
    scene.withdraw_at_once("second", &stolen).await;
    scene.follows("second", Some(&stolen)).await;
    says(
        "second",
        "False",
        "until this ring's publishLead is over at",
    )
    .await;
    says("main", "True", "this one signs").await;
    let mut feed = feed(&scene);
    let snapshots = SnapshotStore::new(clock::system());
    let first = |snapshots: &SnapshotStore| {
        let now = clock::system().now();
        snapshots
            .load()
            .rings(now)
            .next()
            .map(|ring| ring.name.clone())
    };
    eventually("the server has the rule", async || {
        let snapshot = feed.build(None);
        let both = snapshot.client_rings.len() == 2;
        snapshots.publish(snapshot);
        both.then_some(())
    })
    .await;
    assert_eq!(first(&snapshots).as_deref(), Some("main"));
    says("second", "True", "this one signs").await;
    assert_eq!(first(&snapshots).as_deref(), Some("second"));
    scene.patch("main", json!({"spec": {"priority": 5}})).await;
    says("main", "True", "this one signs").await;
    says("second", "False", "it is the first by name").await;
    scene.delete("main").await;
    says("second", "True", &alone).await;
}

/// The condition `Signing`, as status and message.
async fn signing(scene: &Scene, ring: &str) -> Option<(String, String)> {
    let status = scene.rings().get(ring).await.expect("the ring").status?;
    let mut all = status.conditions.into_iter();
    let found = all.find(|c| c.type_ == "Signing")?;
    Some((found.status, found.message))
}

/// A ring was deleted and no operator is there to strike its share off the issuer's ConfigMap: a server
/// that starts then serves what the rings that are there have, and not what nobody has any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_alone_serves_the_rings_that_are_there() {
    let scene = Scene::start().await;
    scene.ring("main", Value::Null).await;
    scene.ring("second", Value::Null).await;
    let main = scene.follows("main", None).await;
    let second = scene.follows("second", None).await;
    let mut good = feed(&scene);
    serving(&mut good, None, &[&main, &second]).await;
    scene.running.operator.abort();
    scene.delete("main").await;
    let mut fresh = feed(&scene);
    serving(&mut fresh, None, &[&second]).await;
    let kids = scene.kids(ISSUER_JWKS).await.expect("a ConfigMap");
    assert!(kids.contains(&main), "it was left as it was");
}
