//! Key Secrets that somebody copies, moves or puts back, and ConfigMaps that can not be written: no key
//! that was withdrawn lives on for it.

use serde_json::{Value, json};

use crate::release::{LIMIT, Release};
use crate::ring::{Ring, SECONDS, published, wait_published};
use crate::support::eventually;

fn trial(prefix: &str) -> Release {
    let mut release = Release::prepared(prefix);
    release.run(&SECONDS);
    release
}

/// A Secret as a person saves it, to be made again.
fn saved(release: &Release, name: &str) -> Value {
    let mut secret = release.get("secret", &release.name, name);
    let meta = secret["metadata"].as_object_mut().expect("metadata");
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "managedFields",
    ] {
        meta.remove(field);
    }
    secret
}

fn make(release: &Release, secret: &Value) {
    let create = ["create", "-f", "-"];
    let made = release.cluster.kubectl_stdin(&create, &secret.to_string());
    made.expect_success("kubectl create");
}

fn withdraw(ring: Ring, kid: &str) {
    ring.edit(&json!({ "invalidated": [{ "keyId": kid, "gracePeriod": "0s" }] }));
}

/// One key has one life: that a copy of its Secret says nothing of its removal keeps it nowhere.
#[test]
fn a_copied_secret_keeps_no_key_alive() {
    let release = trial("copied");
    let spec = "algorithm: ES256, rotation: {publishLead: 2s, retention: 1h}";
    let ring = Ring::apply(&release, "main", spec);
    let first = ring.active();
    let mut copy = saved(&release, "main-1");
    copy["metadata"]["name"] = json!("main-5");
    make(&release, &copy);
    ring.rotate("one");
    // Its grace is over, and its Secrets are kept.
    wait_published(&release, &first, false);
    let next = ring.rotate("two");
    wait_published(&release, &next, true);
    assert!(!published(&release).contains(&first));
    let third = ring.active();
    withdraw(ring, &third);
    wait_published(&release, &third, false);
}

/// A key of one ring that is put into another, as a rename by copying would: it stays the first one's.
#[test]
fn a_key_stays_in_its_ring() {
    let release = trial("moved");
    let ring = Ring::apply(&release, "main", "algorithm: ES256");
    let kid = ring.active();
    let mut copy = saved(&release, "main-1");
    let meta = copy["metadata"].as_object_mut().expect("metadata");
    meta.remove("ownerReferences");
    meta["name"] = json!("other-1");
    meta["labels"]["chancery.dev/signing-key"] = json!("other");
    make(&release, &copy);
    release.ring("other", "algorithm: ES256");
    let other = Ring {
        release: &release,
        name: "other",
    };
    let told = other.wait_told("Stalled", "SecretNameConflict");
    println!("{told}");
    assert!(
        told.contains(&kid) && told.contains("SigningKey main"),
        "{told}"
    );
    withdraw(ring, &kid);
    wait_published(&release, &kid, false);
    ring.follows(&kid);
    let told = other.wait("it is refused for good", |_| {
        let told = other.condition("Stalled")?;
        told.contains("withdrawn or removed from another ring")
            .then_some(told)
    });
    println!("{told}");
    assert!(!published(&release).contains(&kid));
    // Out of the way, the ring makes a key of its own.
    other.delete("secret", "other-1");
    release.wait_ready("signingkey", &release.name, "other");
    assert_ne!(other.active(), kid);
}

/// A backup of the Secret of a key that was withdrawn at once: it is never published again.
#[test]
fn a_key_that_is_gone_for_good_does_not_come_back() {
    let release = trial("back");
    let ring = Ring::apply(&release, "main", "algorithm: ES256");
    for entry_stays in [true, false] {
        let kid = ring.active();
        let name = ring.secret_of(&kid);
        let backup = saved(&release, &name);
        withdraw(ring, &kid);
        ring.follows(&kid);
        eventually("its key pair is destroyed", LIMIT, || {
            let names = ring.secret_names();
            (!names.contains(&name))
                .then_some(())
                .ok_or(format!("{names:?}"))
        });
        if !entry_stays {
            ring.wait("it is forgotten", |ring| {
                let keys = ring["status"]["keys"].as_array()?;
                keys.iter()
                    .all(|k| k["keyId"] != kid.as_str())
                    .then_some(())
            });
            ring.edit(&json!({ "invalidated": null }));
        }
        let output = release.process().output().len();
        make(&release, &backup);
        let told = ring.wait_event(
            "Warning",
            "KeyRemoved",
            &format!("Secret {name} with key {kid} came back"),
        );
        println!("{told}");
        eventually("it is destroyed again", LIMIT, || {
            let names = ring.secret_names();
            (!names.contains(&name))
                .then_some(())
                .ok_or(format!("{names:?}"))
        });
        let since = &release.process().output()[output..];
        assert!(!since.contains(&format!("Key {kid} stands in")), "{since}");
        assert!(!published(&release).contains(&kid));
    }
}

/// The ring's own ConfigMap can not be written: the key leaves the JWKS that is served all the same.
#[test]
fn a_config_map_that_is_refused_holds_up_no_emergency() {
    let release = trial("sealed");
    let ring = Ring::apply(&release, "main", "algorithm: ES256");
    let kid = ring.active();
    ring.release.cluster.kubectl_ok(&[
        "patch",
        "configmap",
        "main-jwks",
        "-n",
        &release.name,
        "--type=merge",
        "-p",
        r#"{"immutable":true}"#,
    ]);
    withdraw(ring, &kid);
    wait_published(&release, &kid, false);
    ring.wait_told("Stalled", "WriteRefused");
    ring.wait("status does not call it active", |ring| {
        (ring["status"]["activeKeyId"] != kid.as_str()).then_some(())
    });
    ring.delete("configmap", "main-jwks");
    release.wait_ready("signingkey", &release.name, "main");
    assert_ne!(ring.active(), kid);
}
