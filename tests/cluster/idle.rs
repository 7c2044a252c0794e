//! At rest an operator writes nothing but its Lease.

use std::time::Duration;

use tokio::time::Instant;

use crate::release::{LIMIT, Release};
use crate::support::eventually;

/// How long nothing may happen.
const REST: Duration = Duration::from_mins(5);

#[test]
fn at_rest_nothing_is_written_but_the_lease() {
    let release = Release::prepared("idle");
    let tenant = release.tenant("idle-tenant");
    for ring in ["one", "two", "three"] {
        let spec = "algorithm: ES256, rotation: {interval: 720h}";
        release.ring(ring, spec);
    }
    release.user(&tenant, "first", "");
    // An account of its own, by which the audit log tells it from other tests' processes.
    let (cluster, namespace) = (release.cluster, release.name.clone());
    cluster.kubectl_ok(&["create", "serviceaccount", "idle", "-n", &namespace]);
    cluster.kubectl_ok(&[
        "create",
        "clusterrolebinding",
        &format!("{namespace}-idle"),
        "--clusterrole=cluster-admin",
        &format!("--serviceaccount={namespace}:idle"),
    ]);
    let account = cluster.kubeconfig_for_service_account(&namespace, "idle");
    let user = format!("system:serviceaccount:{namespace}:idle");
    let process = release.start_process(&account, release.port, release.admin_port, &[]);
    for ring in ["one", "two", "three"] {
        release.wait_ready("signingkey", &namespace, ring);
    }
    release.wait_ready("technicaluser", &tenant, "first");

    // The log as it grows: where the last write is, and what it was.
    let writes = || -> Vec<String> {
        let of_ours = cluster.audit_events().into_iter().filter(|event| {
            let verb = event["verb"].as_str().unwrap_or_default();
            event["user"]["username"] == user.as_str()
                && ["create", "update", "patch", "delete", "deletecollection"].contains(&verb)
        });
        let told = of_ours.map(|event| {
            let at = |field: &str| event["objectRef"][field].as_str().unwrap_or("-").to_owned();
            format!(
                "{} {} {} {}",
                event["verb"],
                at("resource"),
                at("name"),
                at("subresource")
            )
        });
        told.collect()
    };
    let but_lease = |all: &[String]| -> Vec<String> {
        let other = all.iter().filter(|line| !line.contains(" leases "));
        other.cloned().collect()
    };
    // Settled: two looks with time between see the same.
    let mut before = writes();
    eventually("the first work is done", LIMIT, || {
        std::thread::sleep(Duration::from_secs(2));
        let now = writes();
        let same = but_lease(&now) == but_lease(&before);
        before.clone_from(&now);
        if same {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    let begun = Instant::now();
    while begun.elapsed() < REST {
        std::thread::sleep(Duration::from_secs(1));
        let now = writes();
        assert_eq!(but_lease(&now), but_lease(&before), "{}", process.output());
    }
    let renewals = writes().len() - before.len();
    println!(
        "{} s at rest: {renewals} renewals of the Lease, and no other write",
        REST.as_secs()
    );
    assert!(renewals > 30, "the log shows what is written: {renewals}");
    process.signal(crate::support::Signal::Kill);
    process.wait_exit(LIMIT);
    release.printed(process.output());
}
