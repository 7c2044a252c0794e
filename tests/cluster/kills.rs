//! Kills at any moment, and an object that no version can read.

use std::time::Duration;

use crate::release::{LIMIT, Release};
use crate::support::{eventually, free_port};

/// The process is killed at 20 random moments of its first work on a ring and a technical user,
/// and started again each time: one key, one secret, no orphan.
#[test]
fn kills_at_random_leave_one_of_each() {
    let mut release = Release::prepared("kills");
    let tenant = release.tenant("kills-tenant");
    for round in 0..20_u64 {
        let (ring, user) = (format!("ring{round}"), format!("user{round}"));
        release.run(&[]);
        // The moment: after a part of what a visit takes, which the log's growth tells.
        release
            .process()
            .wait_for_line(|l| l.contains("serving tokens"), LIMIT);
        release.ring(&ring, "algorithm: RS256");
        release.user(&tenant, &user, "");
        let jitter = (round * 7919 + 104_729) % 331;
        std::thread::sleep(Duration::from_millis(jitter));
        release.kill();
        release.forget_leader();
        (release.port, release.admin_port) = (free_port(), free_port());
    }
    release.run(&[]);
    for round in 0..20 {
        release.wait_ready("signingkey", &release.name, &format!("ring{round}"));
        release.wait_ready("technicaluser", &tenant, &format!("user{round}"));
    }
    let named = |namespace: &str, kind: &str| -> Vec<String> {
        let secrets = release.list("secrets", namespace);
        let of = secrets.iter().filter(|s| s["type"] == kind);
        of.map(|s| {
            s["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
    };
    let mut keys: Vec<String> = (0..20).map(|n| format!("ring{n}-1")).collect();
    keys.sort();
    assert_eq!(
        named(&release.name, "chancery.dev/key-pair"),
        keys,
        "one key a ring, the first"
    );
    let mut hashes: Vec<String> = (0..20)
        .map(|n| format!("{tenant}.user{n}-credentials"))
        .collect();
    hashes.sort();
    assert_eq!(named(&release.name, "chancery.dev/credentials"), hashes);
    let mut delivered: Vec<String> = (0..20).map(|n| format!("user{n}-credentials")).collect();
    delivered.sort();
    assert_eq!(named(&tenant, "Opaque"), delivered);
    for round in 0..20 {
        let (id, secret) = release.credentials(&tenant, &format!("user{round}"));
        release.token(&id, &secret, "");
    }
}

/// One that does not parse (a CRD of another version let it in) does not hold up the others.
#[test]
fn an_unreadable_object_holds_up_nobody() {
    // A control plane of its own: the CRD is changed.
    let cluster = crate::support::ControlPlane::start();
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
    cluster.kubectl_ok(&["apply", "-f", crds]);
    cluster.kubectl_ok(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "-f",
        crds,
    ]);
    let namespace = cluster.namespace("guard");
    let loosen = r#"[{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/algorithm","value":{"type":"string"}}]"#;
    cluster.kubectl_ok(&[
        "patch",
        "crd",
        "signingkeys.chancery.dev",
        "--type=json",
        "-p",
        loosen,
    ]);
    let ring = |name: &str, algorithm: &str| {
        format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: SigningKey\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{audience: client, algorithm: {algorithm}}}\n"
        )
    };
    eventually("the loosened CRD lets it in", LIMIT, || {
        let output = cluster.kubectl_stdin(&["apply", "-f", "-"], &ring("strange", "XS999"));
        if output.success() {
            Ok(())
        } else {
            Err(output.stderr)
        }
    });
    cluster.kubectl_ok(&["apply", "-f", crds]);
    let kubeconfig = cluster.admin_kubeconfig().display().to_string();
    let (listen, admin) = (
        format!("127.0.0.1:{}", free_port()),
        format!("127.0.0.1:{}", free_port()),
    );
    let process = crate::support::Proc::run(
        crate::support::chancery_bin(),
        &[
            "run",
            "--kubeconfig",
            &kubeconfig,
            "--issuer",
            "http://127.0.0.1:1",
            "--namespace",
            &namespace,
            "--listen",
            &listen,
            "--admin-listen",
            &admin,
        ],
        &[],
    );
    cluster.apply(&ring("fine", "ES256"));
    cluster.kubectl_ok(&[
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "-n",
        &namespace,
        "signingkey/fine",
    ]);
    let told = eventually("the unreadable one says so", LIMIT, || {
        let message = cluster.kubectl(&[
            "get",
            "signingkey",
            "strange",
            "-n",
            &namespace,
            "-o",
            "jsonpath={.status.conditions[?(@.type=='Stalled')].message}",
        ]);
        if message.stdout.contains("XS999") {
            Ok(message.stdout)
        } else {
            Err(format!("{}\n{}", message.stderr, process.output()))
        }
    });
    assert!(told.contains("can not read"), "{told}");
}
