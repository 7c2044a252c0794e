//! Rotations by schedule, by request and by a change of the spec: nobody notices them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::json;

use crate::load::Client;
use crate::release::{LIMIT, Release};
use crate::ring::{
    Ring, SAFE_GRACE, SECONDS, between, noted, published, published_on, text, wait_published,
};
use crate::support::{eventually, free_port};

/// A release with times of seconds, a ring, and a client.
fn trial(prefix: &str) -> (Release, String) {
    let mut release = Release::prepared(prefix);
    release.run(&SECONDS);
    let tenant = release.tenant(&format!("{prefix}-tenant"));
    release.user(&tenant, "user", "");
    (release, tenant)
}

pub fn client(release: &Release, tenant: &str) -> Client {
    let (id, secret) = release.credentials(tenant, "user");
    release.token(&id, &secret, "");
    Client {
        ports: vec![release.port],
        issuer: release.issuer(),
        id,
        secret,
    }
}

/// Each key Secret is of a key in status, and each such key has one unless it is out of the JWKS.
fn assert_no_orphan(ring: Ring) {
    eventually("Secrets and status agree", LIMIT, || {
        let status = ring.get()["status"].clone();
        let keys = status["keys"].as_array().cloned().unwrap_or_default();
        let of_keys: BTreeSet<String> = keys
            .iter()
            .map(|k| format!("{}-{}", ring.name, k["sequence"]))
            .collect();
        let secrets: BTreeSet<String> = ring.secret_names().into_iter().collect();
        (of_keys == secrets)
            .then_some(())
            .ok_or(format!("{of_keys:?} {secrets:?}"))
    });
}

/// By the interval: the next key is published for its lead before it signs, the one before verifies
/// through its grace, and then nothing is left of it.
#[test]
fn a_schedule_turns_over_unnoticed() {
    let (release, tenant) = trial("schedule");
    let spec = "algorithm: ES256, rotation: {interval: 20s, publishLead: 5s}";
    let ring = Ring::apply(&release, "main", spec);
    let first = ring.active();
    let client = client(&release, &tenant);
    let load = client.load();
    let mut before = (first.clone(), ring.secret_of(&first));
    let mut kids = vec![first];
    for turn in 1..=2 {
        let (old, old_secret) = &before;
        let next = ring.wait("the next key is made", |ring| {
            let keys = ring["status"]["keys"].as_array()?;
            let next = keys.iter().find(|k| k["state"] == "Next")?;
            text(&next["publishedAt"]).and_then(|_| text(&next["keyId"]))
        });
        assert!(published(&release).contains(&next), "it is in the JWKS");
        assert_eq!(&ring.active(), old, "and does not sign");
        assert_eq!(&ring.follows(old), &next);
        let secret = ring.secret_of(&next);
        let get = |name: &str| release.get("secret", &release.name, name);
        let (published_at, activated_at) = eventually("its times", LIMIT, || {
            let secret = get(&secret);
            noted(&secret, "published")
                .zip(noted(&secret, "activated"))
                .ok_or("not yet")
        });
        let waited = between(published_at, activated_at);
        assert!(waited >= 5.0, "{waited}");
        let started = noted(&get(old_secret), "activated").expect("it signed");
        let interval = between(started, activated_at);
        // Up to a tenth earlier, by its place among the rings.
        assert!(interval >= 18.0, "{interval}");

        // Retired: in the JWKS until its grace is over.
        let retired_at = eventually("the old one is retired", LIMIT, || {
            noted(&get(old_secret), "retired").ok_or("not yet")
        });
        assert!(published(&release).contains(old));
        let key = ring.wait_state(old, "Retired");
        let until: Timestamp = text(&key["verifiesUntil"])
            .expect("a time")
            .parse()
            .expect("a time");
        assert!(between(retired_at, until) > SAFE_GRACE - 1.0, "{key}");
        wait_published(&release, old, false);
        let stood = between(retired_at, crate::ring::now());
        assert!(stood >= SAFE_GRACE, "{stood}");
        eventually("its Secret is deleted", LIMIT, || {
            let secret = get(old_secret);
            secret
                .is_null()
                .then_some(())
                .ok_or(secret["metadata"].to_string())
        });
        println!(
            "turn {turn}: signed after {interval:.2} s (18 to 20 wanted), waited {waited:.2} s, the old one verified for {stood:.2} s more"
        );
        ring.wait_event("Normal", "KeyRetired", old);
        ring.wait_event("Normal", "KeyRemoved", old);
        ring.wait_event("Normal", "KeyDeleted", old);
        kids.push(next.clone());
        before = (next, secret);
    }
    let tally = load.unnoticed("two turns by schedule");
    assert!(
        kids.iter().all(|kid| tally.by_kid.contains_key(kid)),
        "each signed"
    );
    assert_no_orphan(ring);
}

/// Once per value of the annotation, also where the process dies right after the key was made.
#[test]
fn a_request_rotates_once() {
    let (mut release, tenant) = trial("request");
    let spec = "algorithm: ES256, rotation: {publishLead: 3s}";
    let ring = Ring::apply(&release, "main", spec);
    let first = ring.active();
    let load = client(&release, &tenant).load();
    let second = ring.rotate("2026-08-01");
    ring.wait("the request is told to be handled", |ring| {
        (ring["status"]["lastHandledRotation"] == "2026-08-01").then_some(())
    });
    // GitOps applies the same again; that it was looked at is seen by the generation.
    let manifest = |value: &str, priority: i32| {
        format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: SigningKey\nmetadata:\n  name: main\n  namespace: {}\n  annotations: {{chancery.dev/rotate: '{value}'}}\nspec: {{audience: client, {spec}, priority: {priority}}}\n",
            release.name
        )
    };
    for priority in [1, 2] {
        release.apply(&manifest("2026-08-01", priority));
        ring.wait_observed();
    }
    wait_published(&release, &first, false);
    assert_eq!(ring.active(), second);
    assert_eq!(ring.secret_names(), ["main-2"], "no third key");
    load.unnoticed("a request, applied three times");

    // The JWKS can not be written: so the process gets as far as the key's Secret, and dies.
    let policy = Frozen::new(&release);
    release.apply(&manifest("2026-08-02", 2));
    eventually("the third key's Secret", LIMIT, || {
        let secret = release.get("secret", &release.name, "main-3");
        (!secret.is_null())
            .then_some(())
            .ok_or_else(|| release.tail())
    });
    release.kill();
    release.forget_leader();
    drop(policy);
    (release.port, release.admin_port) = (free_port(), free_port());
    release.run(&SECONDS);
    let ring = Ring {
        release: &release,
        name: "main",
    };
    let third = ring.follows(&second);
    wait_published(&release, &second, false);
    assert_eq!(ring.active(), third);
    assert_eq!(ring.get()["status"]["lastHandledRotation"], "2026-08-02");
    eventually("the second key's Secret is gone", LIMIT, || {
        let names = ring.secret_names();
        (names == ["main-3"])
            .then_some(())
            .ok_or(format!("{names:?}"))
    });
    assert_no_orphan(ring);
}

/// No ConfigMap of the release can be changed, as an admission policy says so.
struct Frozen {
    release: String,
    cluster: &'static crate::support::ControlPlane,
}

impl Frozen {
    fn new(release: &Release) -> Self {
        let name = &release.name;
        release.apply(&format!(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {{name: {name}}}\nspec:\n  failurePolicy: Fail\n  matchConstraints: {{resourceRules: [{{apiGroups: [''], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps]}}]}}\n  validations: [{{expression: 'false', message: frozen by a test}}]\n---\n\
             apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {{name: {name}}}\nspec:\n  policyName: {name}\n  validationActions: [Deny]\n  matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}}}\n"
        ));
        let cluster = release.cluster;
        eventually("the policy holds", LIMIT, || {
            let annotate = [
                "annotate",
                "configmap",
                "chancery-issuer",
                "-n",
                name,
                "trial=1",
                "--overwrite",
                "--dry-run=server",
            ];
            let answer = cluster.kubectl(&annotate);
            if answer.success() {
                Err("not yet")
            } else {
                Ok(())
            }
        });
        Self {
            release: name.clone(),
            cluster,
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for kind in [
            "validatingadmissionpolicybinding",
            "validatingadmissionpolicy",
        ] {
            self.cluster.kubectl(&["delete", kind, &self.release]);
        }
    }
}

/// Another algorithm or key size is a rotation: both verify meanwhile, each by its own algorithm.
#[test]
fn another_algorithm_is_a_rotation() {
    let (release, tenant) = trial("algorithm");
    let spec = "algorithm: ES256, rotation: {publishLead: 3s}";
    let ring = Ring::apply(&release, "main", spec);
    let mut kids = vec![ring.active()];
    let load = client(&release, &tenant).load();
    for (spec, algorithm) in [
        (json!({ "algorithm": "RS256" }), "RS256"),
        (json!({ "rsaKeySize": 3072 }), "RS256"),
        (json!({ "algorithm": "EdDSA", "rsaKeySize": null }), "EdDSA"),
    ] {
        let before = kids.last().expect("one").clone();
        let was = published_on(release.port);
        ring.edit(&spec);
        let next = ring.follows(&before);
        let is = published_on(release.port);
        let algorithm_of = |kid: &str| {
            let found = is.iter().find(|(k, _)| k == kid);
            found.map(|(_, alg)| alg.as_str())
        };
        assert_eq!(algorithm_of(&next), Some(algorithm));
        // The one before keeps its own.
        let (_, kept) = was
            .iter()
            .find(|(kid, _)| *kid == before)
            .expect("it was there");
        assert_eq!(algorithm_of(&before), Some(kept.as_str()));
        kids.push(next);
    }
    let size = ring.secrets();
    println!("{} Secrets at the end", size.len());
    let tally = load.unnoticed("ES256, RS256 of 2048 and 3072 bits, EdDSA");
    assert_eq!(tally.by_kid.len(), 4);
    assert!(kids.iter().all(|kid| tally.by_kid.contains_key(kid)));
    ring.wait_event("Normal", "KeyCreated", "algorithm or key size has changed");
    wait_published(&release, &kids[2], false);
    assert_no_orphan(ring);
}

/// Ten rings of one interval do not turn over together.
#[test]
fn rings_of_one_interval_rotate_apart() {
    let mut release = Release::prepared("jitter");
    release.run(&SECONDS);
    let names: Vec<String> = (0..10).map(|n| format!("ring{n}")).collect();
    for name in &names {
        release.ring(
            name,
            "algorithm: ES256, rotation: {interval: 720h, publishLead: 1h}",
        );
    }
    let mut times = BTreeSet::new();
    for name in &names {
        let ring = Ring::apply(
            &release,
            name,
            "algorithm: ES256, rotation: {interval: 720h, publishLead: 1h}",
        );
        let at = ring.wait("its next time", |ring| {
            let next = &ring["status"]["nextTransition"];
            assert!(next.is_null() || next["what"] != "Remove", "{next}");
            text(&next["at"]).filter(|_| next["what"] == "Publish")
        });
        times.insert(at.parse::<Timestamp>().expect("a time"));
    }
    let (first, last) = (*times.first().expect("ten"), *times.last().expect("ten"));
    let spread = between(first, last) / 3600.0;
    println!("ten rings with an interval of 720 h: spread over {spread:.1} h");
    assert_eq!(times.len(), 10);
    assert!(spread > 6.0 && spread < 25.0, "{spread}");
}
