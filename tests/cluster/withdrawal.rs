//! Keys that a person withdraws, takes back, or has sign again; and keys that are lost.

use std::time::Duration;

use serde_json::json;

use crate::release::{LIMIT, Release};
use crate::ring::{
    Ring, SECONDS, between, kid, now, published, published_on, text, timed, verifies,
    wait_published,
};
use crate::rotation::client;
use crate::support::{eventually, free_port};

/// What is promised is 10 s; a machine that does much else at the same time gets five times that.
const OUT_OF_EVERY_JWKS: Duration = Duration::from_secs(50);

fn trial(prefix: &str, more: &[&str]) -> (Release, String) {
    let mut release = Release::prepared(prefix);
    release.run(&[&SECONDS, more].concat());
    let tenant = release.tenant(&format!("{prefix}-tenant"));
    release.user(&tenant, "user", "");
    (release, tenant)
}

/// Withdrawn with a grace, and taken back: while it verifies, and while it is kept.
#[test]
fn a_withdrawal_can_be_taken_back() {
    let (release, tenant) = trial("takeback", &[]);
    let spec = "algorithm: ES256, rotation: {publishLead: 2s, gracePeriod: 30s, retention: 5m}";
    let ring = Ring::apply(&release, "main", spec);
    let first = ring.active();
    let client = client(&release, &tenant);
    let old = release.token(&client.id, &client.secret, "");
    assert_eq!(kid(&old), first);
    // Not the emergency: yet it signs no more as soon as another key does.
    let withdrawn = json!([{ "keyId": first, "gracePeriod": "25s" }]);
    ring.edit(&json!({ "invalidated": withdrawn }));
    let second = ring.follows(&first);
    let key = ring.wait_state(&first, "Withdrawn");
    assert!(published(&release).contains(&first), "it verifies");
    verifies(&release, &old);
    let until = text(&key["verifiesUntil"]).expect("a time");
    let until = until.parse().expect("a time");
    let left = between(now(), until);
    assert!(left > 0.0 && left <= 25.0, "{left}");
    ring.wait_event("Warning", "KeyWithdrawn", &first);

    // Taken back in its grace: as any key that was replaced.
    ring.edit(&json!({ "invalidated": null }));
    ring.wait_state(&first, "Retired");
    ring.wait_event("Normal", "KeyReactivated", &first);
    assert!(published(&release).contains(&first));
    assert_eq!(ring.active(), second, "it verifies, and does not sign");

    // Withdrawn again, until it is out of the JWKS; its Secret is kept.
    let withdrawn = json!([{ "keyId": first, "gracePeriod": "1s" }]);
    ring.edit(&json!({ "invalidated": withdrawn }));
    ring.wait_state(&first, "Removed");
    wait_published(&release, &first, false);
    assert_eq!(ring.secret_names(), ["main-1", "main-2"]);

    // Taken back while it is kept: it verifies again, for a grace.
    ring.edit(&json!({ "invalidated": null }));
    wait_published(&release, &first, true);
    let key = ring.wait_state(&first, "Retired");
    let until = text(&key["verifiesUntil"]).expect("a time");
    let left = between(now(), until.parse().expect("a time"));
    assert!(left > 15.0 && left <= 30.0, "{left}");
    // And it can sign again.
    ring.edit(&json!({ "signWith": first }));
    ring.wait("the first key signs", |ring| {
        (ring["status"]["activeKeyId"] == first.as_str()).then_some(())
    });
    eventually("tokens by the first key", LIMIT, || {
        let token = release.token(&client.id, &client.secret, "");
        (kid(&token) == first)
            .then_some(())
            .ok_or_else(|| release.tail())
    });
}

/// A rotation went wrong: the key before signs, and nothing turns until the field is taken away.
#[test]
fn an_older_key_can_be_made_to_sign() {
    let (release, tenant) = trial("signwith", &[]);
    let spec = "algorithm: ES256, rotation: {interval: 25s, publishLead: 2s, gracePeriod: 5m}";
    let ring = Ring::apply(&release, "main", spec);
    let first = ring.active();
    let load = client(&release, &tenant).load();
    let second = ring.rotate("now");
    ring.edit(&json!({ "signWith": first }));
    ring.wait("the first key signs again", |ring| {
        (ring["status"]["activeKeyId"] == first.as_str()).then_some(())
    });
    ring.wait_told("RotationPaused", "SignWith");
    ring.wait_state(&second, "Retired");
    let next = ring.get()["status"]["nextTransition"].clone();
    assert!(
        next["what"] == "Remove" || next.is_null(),
        "no rotation is due: {next}"
    );

    // And back, by name.
    ring.edit(&json!({ "signWith": second }));
    ring.wait("the second key signs again", |ring| {
        (ring["status"]["activeKeyId"] == second.as_str()).then_some(())
    });
    // Without it the schedule goes on, with a key that never signed.
    ring.edit(&json!({ "signWith": null }));
    let third = ring.follows(&second);
    assert!(third != first, "a retired key does not come back by itself");
    assert_eq!(ring.condition("RotationPaused"), None);

    // A name of nobody: told, and no more.
    ring.edit(&json!({ "signWith": "gR6nVqGqS3mUnknownUnknownUnknownUnknownUnkn" }));
    let told = ring.wait_told("Stalled", "UnknownKey");
    assert!(
        told.contains("signWith names gR6nVq") && told.contains("status.keys"),
        "{told}"
    );
    assert!(ring.condition("Ready").is_some(), "it goes on signing");
    ring.edit(&json!({ "signWith": null }));
    ring.wait("no complaint any more", |_| {
        ring.condition("Stalled").is_none().then_some(())
    });
    load.unnoticed("back by signWith, and on");
}

/// Grace 0 for the ring's only key: the next signs at once, on every replica, and nothing is left.
#[test]
fn the_emergency() {
    let (release, tenant) = trial("emergency", &[]);
    let spec = "algorithm: RS256, rotation: {publishLead: 30m, retention: 1h}";
    let other = free_port();
    let second_replica = release.start_process(
        release.cluster.admin_kubeconfig(),
        other,
        free_port(),
        &SECONDS,
    );
    let ring = Ring::apply(&release, "main", spec);
    let first = ring.active();
    let mut client = client(&release, &tenant);
    client.ports.push(other);
    eventually("the other replica signs", LIMIT, || {
        let url = format!("http://127.0.0.1:{other}/oauth/token");
        match crate::support::http::token(&url, &client.id, &client.secret, "") {
            Ok(answer) if answer.status == 200 => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    });
    let load = client.clone().load();
    ring.edit(&json!({ "invalidated": [{ "keyId": first, "gracePeriod": "0s" }] }));
    let took = timed(
        "out of the JWKS of both replicas",
        OUT_OF_EVERY_JWKS,
        || {
            let lists = [published_on(release.port), published_on(other)];
            let gone = lists.iter().all(|l| l.iter().all(|(kid, _)| *kid != first));
            gone.then_some(())
                .ok_or_else(|| format!("{lists:?}\n{}", release.tail()))
        },
    );
    assert!(took < OUT_OF_EVERY_JWKS.as_secs_f64());
    let second = ring.follows(&first);
    timed("its Secret is deleted", LIMIT, || {
        let names = ring.secret_names();
        (names == ["main-2"])
            .then_some(())
            .ok_or(format!("{names:?}"))
    });
    let key = ring.key(&first);
    let cached = text(&key["cachedUntil"]).unwrap_or_else(|| panic!("{}", ring.get()["status"]));
    // max-age and maxStaleness.
    let removed = text(&key["removedAt"]).expect("a time");
    let cached_for = between(
        removed.parse().expect("a time"),
        cached.parse().expect("a time"),
    );
    assert!((3.0..=5.0).contains(&cached_for), "{key}");
    let ready = ring.condition("Ready").expect("it signs");
    if between(now(), cached.parse().expect("a time")) > 1.0 {
        assert!(
            ready.contains(&format!("Key {first} was withdrawn")),
            "{ready}"
        );
        assert!(ready.contains("may accept it until"), "{ready}");
    }
    ring.wait("and then no more is told of it", |ring| {
        let keys = ring["status"]["keys"].as_array()?;
        (keys.len() == 1).then_some(())
    });
    let ready = ring.condition("Ready").expect("it signs");
    assert!(!ready.contains(&first), "{ready}");
    let said = ring.wait_event("Warning", "KeyActivated", &second);
    assert!(said.contains("before its publishLead is over"), "{said}");
    ring.wait_event("Warning", "KeyRemoved", "may accept it until");
    ring.wait_event("Normal", "KeyDeleted", &first);
    let tally = load.end("the emergency");
    assert!(tally.refused.is_empty(), "{:#?}", tally.refused);
    assert_eq!(tally.by_kid.len(), 2);

    // An unknown kid: an event, once, and nothing else.
    let secret = |name: &str| release.get("secret", &release.name, name);
    let before = (published(&release), secret("main-2"));
    let unknown = "unknownUnknownUnknownUnknownUnknownUnknownU";
    let both =
        json!([{ "keyId": first, "gracePeriod": "0s" }, { "keyId": unknown, "gracePeriod": "0s" }]);
    ring.edit(&json!({ "invalidated": both }));
    ring.wait_event("Warning", "UnknownKey", unknown);
    ring.wait_observed();
    assert_eq!((published(&release), secret("main-2")), before);
    assert_eq!(ring.condition("Stalled"), None);
    let told = ring
        .events()
        .into_iter()
        .filter(|(_, r, _)| r == "UnknownKey");
    assert_eq!(told.count(), 1, "the key that is gone is known");
    second_replica.signal(crate::support::Signal::Term);
    second_replica.wait_exit(LIMIT);
    release.printed(second_replica.output());
}

/// Somebody deletes the Secret of the key that signs: loud, and soon over.
#[test]
fn the_active_keys_secret_is_deleted() {
    let (release, tenant) = trial("deleted", &[]);
    let spec = "algorithm: ES256, rotation: {publishLead: 30m}";
    let ring = Ring::apply(&release, "main", spec);
    let first = ring.active();
    let client = client(&release, &tenant);
    let old = release.token(&client.id, &client.secret, "");
    let load = client.load();
    ring.delete("secret", "main-1");
    let second = ring.follows(&first);
    ring.wait_event("Warning", "KeyMaterialLost", &first);
    ring.wait_event("Warning", "KeyActivated", &second);
    assert!(published(&release).contains(&first), "through its grace");
    verifies_if_young(&release, &old);
    let key = ring.key(&first);
    assert_eq!(key["materialLost"], true, "{key}");
    wait_published(&release, &first, false);
    ring.wait("nothing is left of it", |ring| {
        let keys = ring["status"]["keys"].as_array()?;
        (keys.len() == 1).then_some(())
    });
    assert_eq!(ring.secret_names(), ["main-2"]);
    let tally = load.end("the active key's Secret was deleted");
    assert_eq!(tally.by_kid.len(), 2);
    println!("{} requests were refused meanwhile", tally.refused.len());
    assert!(tally.longest_gap < 10.0, "{}", tally.longest_gap);
}

fn verifies_if_young(release: &Release, token: &str) {
    if crate::load::expiry(token) > now().as_second() + 1 {
        verifies(release, token);
    }
}
