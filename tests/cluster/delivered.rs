//! What is delivered to tenants comes back, what they write stops nobody, and a quota is told.

use std::fmt::Write as _;

use crate::release::{LIMIT, Release};
use crate::ring::published;
use crate::support::eventually;

/// The delivered Secret is deleted or altered: a new secret, the same client id, and the old one works
/// through its grace. Its keys are renamed or it is moved: the same secret.
#[test]
fn delivered_secrets_come_back() {
    let release = Release::start("delivered");
    let tenant = release.tenant("delivered-tenant");
    release.ring("main", "algorithm: ES256");
    release.user(&tenant, "user", "");
    let (id, first) = release.credentials(&tenant, "user");
    release.token(&id, &first, "");

    release
        .cluster
        .kubectl_ok(&["delete", "secret", "user-credentials", "-n", &tenant]);
    let second = changed(&release, &tenant, &first);
    assert_eq!(
        release.credentials(&tenant, "user").0,
        id,
        "the same client id"
    );
    release.token(&id, &second, "");
    assert_eq!(release.ask(&id, &first, "").status, 200, "a grace");

    let patch = r#"{"stringData":{"client_secret":"made-up"}}"#;
    release.cluster.kubectl_ok(&[
        "patch",
        "secret",
        "user-credentials",
        "-n",
        &tenant,
        "-p",
        patch,
    ]);
    let third = changed(&release, &tenant, "made-up");
    release.token(&id, &third, "");
    assert_eq!(release.refused(&id, "made-up", "").status, 401);

    // Renamed keys, another Secret: the secret itself stays.
    release.user(&tenant, "user", "");
    let spec = r#"{"spec":{"credential":{"secret":{"rotation":{"gracePeriod":"0s"},"secretName":"app","keys":{"clientId":"CYODA_CLIENT_ID","clientSecret":"CYODA_CLIENT_SECRET"}}}}}"#;
    release.cluster.kubectl_ok(&[
        "patch",
        "technicaluser",
        "user",
        "-n",
        &tenant,
        "--type=merge",
        "-p",
        spec,
    ]);
    eventually("it stands in the other Secret", LIMIT, || {
        let value = release.secret_value(&tenant, "app", "CYODA_CLIENT_SECRET");
        if value.as_deref() == Some(third.as_str()) {
            Ok(())
        } else {
            Err("not yet")
        }
    });
    eventually("the first Secret is gone", LIMIT, || {
        if release.get("secret", &tenant, "user-credentials").is_null() {
            Ok(())
        } else {
            Err("still there")
        }
    });
    assert_eq!(release.ask(&id, &third, "").status, 200);
    // A grace that is shorter ends old ones at once.
    for old in [&first, &second] {
        assert_eq!(release.refused(&id, old, "").status, 401);
    }

    // The hash is lost: made again from the delivered Secret.
    let hashes = format!("{tenant}.user-credentials");
    release
        .cluster
        .kubectl_ok(&["delete", "secret", &hashes, "-n", &release.name]);
    eventually("the hash is there again", LIMIT, || {
        let answer = release.ask(&id, &third, "");
        let there = !release.get("secret", &release.name, &hashes).is_null();
        if answer.status == 200 && there {
            Ok(())
        } else {
            Err(answer.text())
        }
    });

    // The technical user goes: nothing of it stays.
    release
        .cluster
        .kubectl_ok(&["delete", "technicaluser", "user", "-n", &tenant]);
    assert_eq!(release.refused(&id, &third, "").status, 401);
    eventually("its hashes are swept", LIMIT, || {
        if release.get("secret", &release.name, &hashes).is_null() {
            Ok(())
        } else {
            Err("still there")
        }
    });
    eventually("its Secret is collected", 2 * LIMIT, || {
        if release.get("secret", &tenant, "app").is_null() {
            Ok(())
        } else {
            Err("still there")
        }
    });
}

/// Waits until the delivered secret is another one.
fn changed(release: &Release, tenant: &str, before: &str) -> String {
    eventually("another client secret", LIMIT, || {
        match release.secret_value(tenant, "user-credentials", "client_secret") {
            Some(now) if now != before => Ok(now),
            other => Err(format!("{} {}", other.is_some(), release.tail())),
        }
    })
}

/// What a tenant writes into a Secret of its own stops nobody, and makes nothing its own.
#[test]
fn forged_secrets_stop_nobody() {
    let release = Release::start("forged");
    let (tenant, evil) = (
        release.tenant("forged-tenant"),
        release.bare_tenant("forged-evil"),
    );
    release.ring("main", "algorithm: ES256");
    release.wait_ready("signingkey", &release.name, "main");
    // Names of owners that would be paths, queries or log lines.
    let mut owners = String::new();
    for n in 0..60 {
        for name in [
            "?watch=true&x=",
            "../../../../api/v1/secrets?",
            "a b",
            "x\\nforged line ",
        ] {
            let _ = writeln!(
                owners,
                "    - {{apiVersion: chancery.dev/v1alpha1, kind: TechnicalUser, name: \"{name}{n}\", uid: u-{n}, controller: false}}"
            );
        }
    }
    owners += "    - {apiVersion: chancery.dev/v1alpha1, kind: TechnicalUser, name: \"?watch=true\", uid: u, controller: true}\n";
    release.apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: forged\n  namespace: {evil}\n  labels: {{app.kubernetes.io/managed-by: chancery, chancery.dev/environment: {}, chancery.dev/part: client-secret}}\n  ownerReferences:\n{owners}",
        release.name
    ));
    for n in 0..4 {
        release.user(&tenant, &format!("user{n}"), "");
    }
    for n in 0..4 {
        release.wait_ready("technicaluser", &tenant, &format!("user{n}"));
    }
    let output = release.process().output();
    assert!(
        !output.contains("watch=true&x="),
        "no such name came into a request"
    );
    assert!(
        !output.lines().any(|l| l.starts_with("forged line")),
        "nor into the log as a line"
    );

    // Who may write status has no key of his own published.
    let forged = r#"{"status":{"keys":[{"keyId":"evil","sequence":7,"state":"Retired","publicJwk":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"evil","alg":"EdDSA","use":"sig"}}]}}"#;
    release.cluster.kubectl_ok(&[
        "patch",
        "signingkey",
        "main",
        "-n",
        &release.name,
        "--subresource=status",
        "--type=merge",
        "-p",
        forged,
    ]);
    eventually("status tells of the ring's own key alone", LIMIT, || {
        let ring = release.get("signingkey", &release.name, "main");
        let keys = ring["status"]["keys"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if keys.len() == 1 && keys[0]["keyId"] != "evil" {
            Ok(())
        } else {
            Err(ring["status"].to_string())
        }
    });
    assert_eq!(published(&release).len(), 1);
}

/// A quota stands against the delivered Secret: a condition tells, nothing is written over and
/// over, and what works goes on working.
#[test]
fn a_refused_write_is_told_and_waits() {
    let release = Release::start("quota");
    let tenant = release.tenant("quota-tenant");
    release.ring("main", "algorithm: ES256");
    release.user(&tenant, "first", "");
    let (id, secret) = release.credentials(&tenant, "first");
    release.token(&id, &secret, "");
    release.apply(&format!(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: none, namespace: {tenant}}}\nspec: {{hard: {{count/secrets: 1}}}}\n"
    ));
    eventually("the quota counts", LIMIT, || {
        let quota = release.get("resourcequota", &tenant, "none");
        if quota["status"]["used"]["count/secrets"] == "1" {
            Ok(())
        } else {
            Err(quota["status"].to_string())
        }
    });
    release.user(&tenant, "second", "");
    let told = release.wait_reason(
        "technicaluser",
        &tenant,
        "second",
        "Stalled",
        "WriteRefused",
    );
    assert!(
        told["message"]
            .as_str()
            .is_some_and(|m| m.contains("quota")),
        "{told}"
    );
    let hashes = format!("{tenant}.second-credentials");
    assert!(
        release.get("secret", &release.name, &hashes).is_null(),
        "no hash without its secret"
    );
    release
        .cluster
        .kubectl_ok(&["delete", "resourcequota", "none", "-n", &tenant]);
    release.wait_ready("technicaluser", &tenant, "second");
    release.token(&id, &secret, "");
}
