//! What a restore leaves, and what hands spoil: the ring comes back with the same keys, says what it
//! saw, and old tokens verify.

use serde_json::{Value, json};

use crate::release::{LIMIT, Release};
use crate::ring::{Ring, kid, published, text, verifies, wait_published};
use crate::support::{eventually, free_port, http};

/// Rotations take a second, and a key verifies for an hour: the tokens of all keys stay good.
const RARE: [&str; 2] = ["--jwks-max-age", "1s"];
const SPEC: &str = "algorithm: ES256, rotation: {publishLead: 1s}";

/// A ring with a retired key and an active one, and a token of each.
struct Trial {
    release: Release,
    tenant: String,
    kids: [String; 2],
    tokens: [String; 2],
}

impl Trial {
    fn new(prefix: &str) -> Self {
        let mut release = Release::prepared(prefix);
        release.run(&RARE);
        let tenant = release.tenant(&format!("{prefix}-tenant"));
        release.user(&tenant, "user", "");
        let ring = Ring::apply(&release, "main", SPEC);
        let first = ring.active();
        let (id, secret) = release.credentials(&tenant, "user");
        let old = release.token(&id, &secret, "");
        assert_eq!(kid(&old), first);
        let second = ring.rotate("once");
        ring.wait_state(&first, "Retired");
        let new = eventually("a token of the second key", LIMIT, || {
            let token = release.token(&id, &secret, "");
            if kid(&token) == second {
                Ok(token)
            } else {
                Err("not yet")
            }
        });
        Self {
            kids: [first, second],
            tokens: [old, new],
            release,
            tenant,
        }
    }

    fn ring(&self) -> Ring<'_> {
        Ring {
            release: &self.release,
            name: "main",
        }
    }

    /// The same keys, of which the second signs; what they signed verifies; no other was made.
    fn assert_as_before(&self, what: &str) {
        println!("{what}");
        let ring = self.ring();
        let [first, second] = &self.kids;
        ring.wait(&format!("{what}: as before"), |ring| {
            let keys = ring["status"]["keys"].as_array()?;
            let is = |n: usize, kid: &String, state: &str| {
                keys[n]["keyId"] == kid.as_str() && keys[n]["state"] == state
            };
            let same = keys.len() == 2 && is(0, first, "Retired") && is(1, second, "Active");
            same.then_some(())
        });
        self.release
            .wait_ready("signingkey", &self.release.name, "main");
        assert_eq!(ring.secret_names(), ["main-1", "main-2"], "{what}");
        eventually(what, LIMIT, || {
            let mut kids = published(&self.release);
            kids.sort();
            let mut wanted = self.kids.to_vec();
            wanted.sort();
            (kids == wanted).then_some(()).ok_or(format!("{kids:?}"))
        });
        for token in &self.tokens {
            verifies(&self.release, token);
        }
        let (id, secret) = self.release.credentials(&self.tenant, "user");
        let token = self.release.token(&id, &secret, "");
        assert_eq!(&kid(&token), second, "{what}");
    }

    fn stop(&mut self) {
        self.release.kill();
        self.release.forget_leader();
    }

    /// Starts a process in the place of the one before, where tokens' issuer points.
    fn start(&mut self) {
        self.release.admin_port = free_port();
        self.release.run(&RARE);
    }

    fn patch(&self, object: &[&str], patch: &Value) {
        let patch = patch.to_string();
        let args = ["-n", &self.release.name, "--type=merge", "-p", &patch];
        let cluster = self.release.cluster;
        cluster.kubectl_ok(&[&["patch"], object, &args].concat());
    }
}

/// As Velero restores: no status, no owner references, no labels; and the ring has another UID.
#[test]
fn a_restore_keeps_the_keys() {
    let mut trial = Trial::new("velero");
    trial.stop();
    let bare = json!({ "metadata": { "labels": null, "ownerReferences": null } });
    let ours = [
        ["secret", "main-1"],
        ["secret", "main-2"],
        ["configmap", "main-jwks"],
        ["configmap", "chancery-issuer"],
    ];
    for object in ours {
        trial.patch(&object, &bare);
    }
    trial.patch(
        &["signingkey", "main", "--subresource=status"],
        &json!({ "status": null }),
    );
    trial.start();
    trial.assert_as_before("labels, owner references and status are gone");
    for [kind, name] in ours {
        let labels =
            trial.release.get(kind, &trial.release.name, name)["metadata"]["labels"].clone();
        assert_eq!(labels["app.kubernetes.io/managed-by"], "chancery", "{name}");
    }

    // The same with another UID: as a resource that was made anew.
    trial.stop();
    let ring = trial.ring();
    let manifest = ring.get();
    ring.kubectl(&["delete"], &["--cascade=orphan", "--wait=true"]);
    for object in ours {
        trial.patch(&object, &bare);
    }
    let annotations = &manifest["metadata"]["annotations"];
    let again = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "SigningKey",
        "metadata": { "name": "main", "namespace": trial.release.name, "annotations": annotations },
        "spec": manifest["spec"],
    });
    trial.release.apply(&again.to_string());
    trial.start();
    trial.assert_as_before("the ring was made anew");
    let said = trial
        .ring()
        .wait_event("Normal", "KeyAdopted", &trial.kids[1]);
    println!("  {said}");
    let uid = trial.ring().get()["metadata"]["uid"].clone();
    assert_ne!(uid, manifest["metadata"]["uid"]);
    for secret in trial.ring().secrets() {
        assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], uid);
    }
    // The rotation that was asked for before is not done again, and another one is.
    trial.ring().rotate("twice");
}

/// No ConfigMap was restored either, and the first key's Secret was gone long before: what is left is
/// one Secret without labels, which nothing points at.
#[test]
fn a_bare_secret_is_found() {
    let mut trial = Trial::new("bare");
    let ring = trial.ring();
    let (manifest, second) = (ring.get(), trial.kids[1].clone());
    ring.delete("secret", "main-1");
    trial.stop();
    let ring = trial.ring();
    ring.kubectl(&["delete"], &["--cascade=orphan", "--wait=true"]);
    for map in ["main-jwks", "chancery-issuer"] {
        ring.delete("configmap", map);
    }
    let bare = json!({ "metadata": { "labels": null, "ownerReferences": null } });
    trial.patch(&["secret", "main-2"], &bare);
    let again = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "SigningKey",
        "metadata": { "name": "main", "namespace": trial.release.name },
        "spec": manifest["spec"],
    });
    trial.release.apply(&again.to_string());
    trial.start();
    let ring = trial.ring();
    ring.wait("the same key signs", |ring| {
        (ring["status"]["activeKeyId"] == second.as_str()).then_some(())
    });
    wait_published(&trial.release, &second, true);
    verifies(&trial.release, &trial.tokens[1]);
    assert_eq!(ring.secret_names(), ["main-2"], "none was made");
    ring.wait_event("Normal", "KeyAdopted", &second);
}

/// Of the whole, one part after the other is deleted or wiped by hand while all runs.
#[test]
fn what_hands_delete_comes_back() {
    let trial = Trial::new("hands");
    let (ring, name) = (trial.ring(), trial.release.name.clone());
    for map in ["chancery-issuer", "main-jwks"] {
        let uid = trial.release.get("configmap", &name, map)["metadata"]["uid"].clone();
        ring.delete("configmap", map);
        eventually("it is there again", LIMIT, || {
            let now = trial.release.get("configmap", &name, map)["metadata"]["uid"].clone();
            (now.is_string() && now != uid)
                .then_some(())
                .ok_or("not yet")
        });
        trial.assert_as_before(&format!("{map} was deleted"));
        let said = ring.wait_event("Warning", "JwksRepaired", map);
        println!("  {said}");
    }
    trial.patch(
        &["signingkey", "main", "--subresource=status"],
        &json!({ "status": { "keys": null, "activeKeyId": null, "conditions": [], "lastHandledRotation": null } }),
    );
    trial.assert_as_before("status was wiped");
    ring.wait("what was handled is known", |ring| {
        (ring["status"]["lastHandledRotation"] == "once").then_some(())
    });
    for secret in ["main-1", "main-2"] {
        trial.patch(
            &["secret", secret],
            &json!({ "metadata": { "annotations": null } }),
        );
        eventually("its annotations are there again", LIMIT, || {
            let secret = trial.release.get("secret", &name, secret);
            let annotations = &secret["metadata"]["annotations"];
            let whole = annotations["chancery.dev/activated-at"].is_string();
            whole.then_some(()).ok_or(annotations.to_string())
        });
        trial.assert_as_before(&format!("the annotations of {secret} were wiped"));
    }
}

/// While no operator is there to put it right, a server believes no JWKS that somebody has altered: it
/// goes on with the last good one, and one that begins serves what the rings' Secrets hold.
#[test]
fn a_server_believes_no_altered_jwks() {
    let mut trial = Trial::new("believed");
    trial.stop();
    trial.release.admin_port = free_port();
    trial.release.serve(&RARE);
    let name = trial.release.name.clone();
    let ready = |trial: &Trial| {
        let url = format!("http://127.0.0.1:{}/readyz", trial.release.admin_port);
        http::get(&url).is_ok_and(|answer| answer.status == 200)
    };
    let wait_ready = |trial: &Trial| {
        let tail = || trial.release.tail();
        eventually("ready", LIMIT, || {
            ready(trial).then_some(()).ok_or_else(tail)
        });
    };
    wait_ready(&trial);
    let good = published(&trial.release);
    assert_eq!(good.len(), 2);
    let map = trial.release.get("configmap", &name, "chancery-issuer");
    let whole = text(&map["data"]["jwks.json"]).expect("a JWKS");
    let mut with: Value = serde_json::from_str(&whole).expect("JSON");
    let rogue = rogue();
    with["keys"]
        .as_array_mut()
        .expect("keys")
        .push(rogue.clone());
    let alter = |trial: &Trial, jwks: &str| {
        let data = json!({ "data": { "jwks.json": jwks, "jwks": jwks } });
        trial.patch(&["configmap", "chancery-issuer"], &data);
    };
    for (altered, told) in [
        (with.to_string(), "is no ring's"),
        (json!({ "keys": [] }).to_string(), "nobody has removed"),
    ] {
        let before = trial.release.process().output().len();
        alter(&trial, &altered);
        eventually("it is told in the log", LIMIT, || {
            let output = trial.release.process().output();
            let said = output[before..].contains(told);
            said.then_some(()).ok_or_else(|| trial.release.tail())
        });
        assert_eq!(published(&trial.release), good, "{told}");
        let (id, secret) = trial.release.credentials(&trial.tenant, "user");
        assert_eq!(kid(&trial.release.token(&id, &secret, "")), trial.kids[1]);

        // One that begins now knows of no good one, and of the rings' Secrets.
        trial.release.kill();
        trial.release.admin_port = free_port();
        trial.release.serve(&RARE);
        trial
            .release
            .process()
            .wait_for_line(|line| line.contains(told), LIMIT);
        wait_ready(&trial);
        let mut kids = published(&trial.release);
        let mut wanted = good.clone();
        kids.sort();
        wanted.sort();
        assert_eq!(kids, wanted, "{told}");
        // What it made from the Secrets has their order: the map's is back once it has seen the map.
        alter(&trial, &whole);
        eventually("the good JWKS is served again", LIMIT, || {
            let kids = published(&trial.release);
            (kids == good)
                .then_some(())
                .ok_or_else(|| format!("{kids:?}"))
        });
        wait_ready(&trial);
    }

    // An operator puts it right.
    alter(&trial, &with.to_string());
    trial.stop();
    trial.start();
    trial.assert_as_before("altered while there was no operator");
}

/// A key that is no ring's.
fn rogue() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
}

/// Keys that are put into the JWKS by hand are nobody's, and those that are taken out come back.
#[test]
fn a_jwks_altered_by_hand_is_put_right() {
    let trial = Trial::new("altered");
    let (ring, name) = (trial.ring(), trial.release.name.clone());
    let rogue = rogue();
    for map in ["main-jwks", "chancery-issuer"] {
        let document = || {
            let map = trial.release.get("configmap", &name, map);
            text(&map["data"]["jwks.json"]).unwrap_or_default()
        };
        let whole = document();
        let mut with: Value = serde_json::from_str(&whole).expect("JSON");
        let keys = with["keys"].as_array_mut().expect("keys");
        let mut without = keys.clone();
        without.remove(0);
        keys.push(rogue.clone());
        for (what, altered) in [
            ("a rogue key was added", with),
            ("a key was taken out", json!({ "keys": without })),
        ] {
            let altered = altered.to_string();
            let data = json!({ "data": { "jwks.json": altered, "jwks": altered } });
            trial.patch(&["configmap", map], &data);
            eventually("it is put right", LIMIT, || {
                let now = document();
                (now == whole).then_some(()).ok_or(now)
            });
            trial.assert_as_before(&format!("{map}: {what}"));
            let said = ring.wait_event("Warning", "JwksRepaired", map);
            println!("  {said}");
            ring.release
                .cluster
                .kubectl_ok(&["delete", "events", "--all", "-n", &name]);
        }
    }
}

/// The Secret of a key that is retired: its tokens verify all the same.
#[test]
fn a_retired_keys_secret_is_deleted() {
    let trial = Trial::new("retired");
    let ring = trial.ring();
    let [first, second] = &trial.kids;
    ring.delete("secret", "main-1");
    ring.wait("it is told", |ring| {
        let keys = ring["status"]["keys"].as_array()?;
        let lost = keys[0]["keyId"] == first.as_str() && keys[0]["materialLost"] == true;
        (lost && keys[0]["state"] == "Retired").then_some(())
    });
    for token in &trial.tokens {
        verifies(&trial.release, token);
    }
    assert_eq!(&ring.active(), second);
    assert_eq!(ring.secret_names(), ["main-2"], "and none is made");
    // It can be withdrawn like any other.
    ring.edit(&json!({ "invalidated": [{ "keyId": first, "gracePeriod": "0s" }] }));
    wait_published(&trial.release, first, false);
    assert_eq!(&ring.active(), second);
}
