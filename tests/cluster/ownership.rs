//! What is not ours is not touched; what is ours comes back.

use crate::release::{LIMIT, Release};
use crate::support::{eventually, http};

fn kids(release: &Release) -> Vec<String> {
    let url = format!("{}/.well-known/jwks.json", release.issuer());
    let json = http::get(&url).expect("HTTP").json();
    let keys = json["keys"].as_array().cloned().unwrap_or_default();
    keys.iter()
        .map(|k| k["kid"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn key_secrets(release: &Release) -> Vec<String> {
    let secrets = release.list("secrets", &release.name);
    let keys = secrets
        .iter()
        .filter(|s| s["type"] == "chancery.dev/key-pair");
    keys.map(|s| {
        s["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    })
    .collect()
}

/// Foreign objects of the names that we need: a sentence, and not one byte of them changed.
#[test]
fn foreign_objects_are_left_alone() {
    let release = Release::start("foreign");
    let tenant = release.tenant("foreign-tenant");
    let namespace = &release.name;
    release.apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: main-1, namespace: {namespace}}}\nstringData: {{private-key.pem: mine}}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: second-jwks, namespace: {namespace}}}\ndata: {{jwks.json: mine}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: user-credentials, namespace: {tenant}}}\nstringData: {{client_secret: mine}}\n"
    ));
    let foreign = [
        ("secret", namespace.as_str(), "main-1"),
        ("configmap", namespace.as_str(), "second-jwks"),
        ("secret", tenant.as_str(), "user-credentials"),
    ];
    let before = foreign.map(|(kind, ns, name)| release.get(kind, ns, name));
    assert!(before.iter().all(|o| o["metadata"]["uid"].is_string()));
    release.ring("main", "algorithm: ES256");
    release.ring("second", "algorithm: ES256");
    release.user(&tenant, "user", "");
    for (kind, ns, name, reason, blocker) in [
        (
            "signingkey",
            namespace,
            "main",
            "SecretNameConflict",
            "main-1",
        ),
        (
            "signingkey",
            namespace,
            "second",
            "ConfigMapNameConflict",
            "second-jwks",
        ),
        (
            "technicaluser",
            &tenant,
            "user",
            "SecretNameConflict",
            "user-credentials",
        ),
    ] {
        let condition = release.wait_reason(kind, ns, name, "Stalled", reason);
        let message = condition["message"].as_str().expect("a message");
        assert!(
            message.contains(blocker) && message.contains("left as it is")
                || message.contains("was left as it is"),
            "{message}"
        );
        assert!(!message.contains("mine"), "nothing of its content is told");
    }
    let after = foreign.map(|(kind, ns, name)| release.get(kind, ns, name));
    assert_eq!(before, after);
    assert_eq!(
        key_secrets(&release),
        Vec::<String>::new(),
        "no key was made in its place"
    );

    // Taken out of the way, it goes on; the recheck comes within half a minute.
    release
        .cluster
        .kubectl_ok(&["delete", "secret", "main-1", "-n", namespace]);
    release
        .cluster
        .kubectl_ok(&["delete", "secret", "user-credentials", "-n", &tenant]);
    release.wait_ready("signingkey", namespace, "main");
    eventually("the user's own Secret", LIMIT, || {
        release
            .secret_value(&tenant, "user-credentials", "client_id")
            .ok_or("not yet")
    });
}

/// A key Secret that exists already and that nobody owns is used: never a second.
#[test]
fn an_existing_key_is_used() {
    let mut release = Release::prepared("existing");
    release.run(&[]);
    release.ring("main", "algorithm: ES256");
    release.wait_ready("signingkey", &release.name, "main");
    let kid = kids(&release)[0].clone();
    // Deleted without its children, as a restore leaves it.
    release.cluster.kubectl_ok(&[
        "delete",
        "signingkey",
        "main",
        "-n",
        &release.name,
        "--cascade=orphan",
        "--wait=true",
    ]);
    eventually("the key Secret is nobody's", LIMIT, || {
        let secret = release.get("secret", &release.name, "main-1");
        if secret["metadata"]["ownerReferences"].is_null() {
            Ok(())
        } else {
            Err(secret["metadata"].to_string())
        }
    });
    release.ring("main", "algorithm: ES256");
    release.wait_ready("signingkey", &release.name, "main");
    eventually("the same key signs", LIMIT, || {
        let ring = release.get("signingkey", &release.name, "main");
        if ring["status"]["activeKeyId"] == kid.as_str() {
            Ok(())
        } else {
            Err(ring["status"].to_string())
        }
    });
    assert_eq!(key_secrets(&release), ["main-1"]);
    let secret = release.get("secret", &release.name, "main-1");
    let ring = release.get("signingkey", &release.name, "main");
    assert_eq!(
        secret["metadata"]["ownerReferences"][0]["uid"],
        ring["metadata"]["uid"]
    );
}

/// The key's Secret is deleted: another key signs, loudly, and old tokens still verify.
#[test]
fn a_lost_key_is_replaced_loudly() {
    let release = Release::start("lost");
    let tenant = release.tenant("lost-tenant");
    release.ring("main", "algorithm: EdDSA");
    release.user(&tenant, "user", "");
    let (id, secret) = release.credentials(&tenant, "user");
    let old = release.token(&id, &secret, "");
    let old_kid = kids(&release)[0].clone();
    release
        .cluster
        .kubectl_ok(&["delete", "secret", "main-1", "-n", &release.name]);
    eventually("another key signs", LIMIT, || {
        let ring = release.get("signingkey", &release.name, "main");
        let active = ring["status"]["activeKeyId"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if !active.is_empty() && active != old_kid {
            Ok(active)
        } else {
            Err(ring["status"].to_string())
        }
    });
    eventually("both are published", LIMIT, || {
        let now = kids(&release);
        if now.len() == 2 && now.contains(&old_kid) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    let jwks = format!("{}/.well-known/jwks.json", release.issuer());
    crate::quickstart::verify(&release, &jwks, &old, "https://a.example");
    eventually("a token of the new key", LIMIT, || {
        let token = release.token(&id, &secret, "");
        let kid = jsonwebtoken::decode_header(&token).expect("a header").kid;
        if kid.as_deref() == Some(&old_kid) {
            Err("the old key signs")
        } else {
            Ok(())
        }
    });
    let events = eventually("an event tells", LIMIT, || {
        let events =
            release
                .cluster
                .kubectl_ok(&["describe", "signingkey", "main", "-n", &release.name]);
        if events.contains("KeyMaterialLost") {
            Ok(events)
        } else {
            Err(events)
        }
    });
    assert!(events.contains("Warning"), "{events}");
    assert_eq!(key_secrets(&release), ["main-2"]);

    // The ring goes, and its keys with it.
    release.ring("other", "algorithm: ES256");
    release.wait_ready("signingkey", &release.name, "other");
    release
        .cluster
        .kubectl_ok(&["delete", "signingkey", "main", "-n", &release.name]);
    eventually("its keys left the JWKS", LIMIT, || {
        let now = kids(&release);
        if now.len() == 1 && !now.contains(&old_kid) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    // The garbage collector learns of a fresh CRD only every half minute.
    eventually("its Secrets are collected", 2 * LIMIT, || {
        let now = key_secrets(&release);
        if now == ["other-1"] {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
}

/// ConfigMaps deleted or altered by hand come back with the same keys, and an event tells.
#[test]
fn jwks_maps_come_back() {
    let release = Release::start("repair");
    release.ring("a", "algorithm: ES256");
    release.ring("b", "algorithm: EdDSA");
    release.wait_ready("signingkey", &release.name, "a");
    release.wait_ready("signingkey", &release.name, "b");
    let document =
        |name: &str| release.get("configmap", &release.name, name)["data"]["jwks.json"].clone();
    let before = eventually("both rings are published", LIMIT, || {
        if kids(&release).len() == 2 {
            Ok(document("chancery-issuer"))
        } else {
            Err("not yet")
        }
    });
    let namespace = release.name.as_str();
    release.cluster.kubectl_ok(&[
        "delete",
        "configmap",
        "chancery-issuer",
        "a-jwks",
        "-n",
        namespace,
    ]);
    let same = |what: &str| {
        eventually(what, LIMIT, || {
            let now = document("chancery-issuer");
            if now == before && document("a-jwks").is_string() {
                Ok(())
            } else {
                Err(now.to_string())
            }
        });
        assert_eq!(kids(&release).len(), 2, "HTTP never serves less");
    };
    same("deleted ones come back");
    let patch = r#"{"data":{"jwks.json":"{\"keys\":[]}"},"metadata":{"annotations":{"chancery.dev/rings":"{}"}}}"#;
    release.cluster.kubectl_ok(&[
        "patch",
        "configmap",
        "chancery-issuer",
        "-n",
        namespace,
        "--type=merge",
        "-p",
        patch,
    ]);
    same("an altered one is put right");
    eventually("an event tells", LIMIT, || {
        let events = release
            .cluster
            .kubectl_ok(&["get", "events", "-n", namespace]);
        if events.contains("JwksRepaired") {
            Ok(())
        } else {
            Err(events)
        }
    });
}

/// New content of the Secret that a person brings a key pair in is followed at once, although the
/// Secret has no label of ours and nothing else changes.
#[test]
fn a_brought_key_is_followed_at_once() {
    let release = Release::start("brought");
    let (namespace, ed) = (
        &release.name,
        include_str!("../../src/crypto/key_pair/import/keys/ed25519.pkcs8.pem"),
    );
    let bring = |pem: &str| {
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "from-elsewhere", "namespace": namespace},
            "stringData": {"private-key.pem": pem},
        });
        release.apply(&secret.to_string());
    };
    release.ring(
        "main",
        "algorithm: ES256, privateKey: {secretRef: {name: from-elsewhere}}",
    );
    let stalled = |sentence: &str| {
        eventually(sentence, LIMIT, || {
            let condition = release.get("signingkey", namespace, "main")["status"]["conditions"]
                .as_array()
                .and_then(|all| all.iter().find(|c| c["type"] == "Stalled").cloned())
                .unwrap_or_default();
            let said = condition["message"].as_str().unwrap_or_default().to_owned();
            if condition["reason"] == "InjectedKeyRefused" && said.contains(sentence) {
                Ok(said)
            } else {
                Err(format!("{condition}\n{}", release.tail()))
            }
        })
    };
    stalled("is not there");
    bring(ed);
    stalled("can not be used");
    bring(include_str!(
        "../../src/crypto/key_pair/import/keys/p256.sec1.pem"
    ));
    release.wait_ready("signingkey", namespace, "main");
    assert_eq!(kids(&release).len(), 1);
    assert_eq!(key_secrets(&release), ["main-1"]);
}
