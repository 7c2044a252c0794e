//! Is the control plane that the tests stand on a real one? Each property that they rely on is
//! checked here once.

#![allow(clippy::pedantic)] // Pedantry is for what ships.

mod support;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use std::time::Duration;
use support::process::complete;
use support::{Binaries, Component, ControlPlane, Scratch, eventually};

const SOON: Duration = Duration::from_secs(30);

/// A kind in our group, with a rule that only the API server's CEL can enforce.
const PROBE: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: harnessprobes.chancery.dev}
spec:
  group: chancery.dev
  names: {kind: HarnessProbe, plural: harnessprobes, singular: harnessprobe}
  scope: Namespaced
  versions:
    - name: v1alpha1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              properties: {min: {type: integer}, max: {type: integer}}
              x-kubernetes-validations:
                - rule: self.min <= self.max
                  message: min must not be above max
"#;

/// The shared control plane, with the probe's kind in it. Applying it twice does no harm.
fn with_probe() -> &'static ControlPlane {
    let cluster = ControlPlane::shared();
    cluster.apply(PROBE);
    let crd = "crd/harnessprobes.chancery.dev";
    cluster.kubectl_ok(&["wait", "--for=condition=Established", crd, "--timeout=30s"]);
    cluster
}

fn probe(namespace: &str, name: &str, min: i32, max: i32) -> String {
    json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "HarnessProbe",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"min": min, "max": max},
    })
    .to_string()
}

fn config_map(namespace: &str, name: &str, owner: Option<&Value>) -> String {
    let owners: Vec<Value> = owner
        .map(|owner| {
            json!({
                "apiVersion": owner["apiVersion"], "kind": owner["kind"],
                "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
            })
        })
        .into_iter()
        .collect();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": owners},
    })
    .to_string()
}

#[test]
fn it_is_the_version_that_is_pinned() {
    let cluster = ControlPlane::shared();
    let version = cluster.kubectl_ok(&["version", "-o", "json"]);
    let version: Value = serde_json::from_str(&version).expect("kubectl speaks JSON");
    // Someone's own KUBEBUILDER_ASSETS may have any version.
    let pinned = Binaries::get().version.as_deref();
    let server = version["serverVersion"]["gitVersion"].as_str();
    assert_eq!(server, pinned.or(server), "{version}");
    if pinned.is_some() {
        assert_eq!(server, Some("v1.36.3"));
        assert_eq!(version["serverVersion"]["minor"], "36");
        assert_eq!(version["clientVersion"]["gitVersion"], "v1.36.3");
    }
}

#[test]
fn a_cel_rule_refuses_with_its_sentence() {
    let cluster = with_probe();
    let namespace = cluster.namespace("cel");
    let apply = ["apply", "-f", "-"];
    let refused = cluster.kubectl_stdin(&apply, &probe(&namespace, "bad", 2, 1));
    assert!(!refused.success());
    assert!(
        refused.stderr.contains("min must not be above max"),
        "{}",
        refused.stderr
    );
    cluster.apply(&probe(&namespace, "good", 1, 2));
}

#[test]
fn rbac_gives_a_service_account_what_it_is_given_and_nothing_else() {
    let cluster = ControlPlane::shared();
    let namespace = cluster.namespace("rbac");
    let kubeconfig = cluster.kubeconfig_for_service_account(&namespace, "default");
    let who = cluster.kubectl_as(&kubeconfig, &["auth", "whoami", "-o", "json"]);
    let expected = format!("system:serviceaccount:{namespace}:default");
    assert!(who.stdout.contains(&expected), "{who:?}");

    let denied = cluster.kubectl_as(&kubeconfig, &["get", "configmaps"]);
    assert!(!denied.success());
    assert!(denied.stderr.contains("Forbidden"), "{}", denied.stderr);

    let account = format!("--serviceaccount={namespace}:default");
    let namespaced = ["-n", &namespace];
    let role = [
        "create",
        "role",
        "reader",
        "--verb=get,list",
        "--resource=configmaps",
    ];
    cluster.kubectl_ok(&[&role[..], &namespaced].concat());
    let binding = ["create", "rolebinding", "reader", "--role=reader", &account];
    cluster.kubectl_ok(&[&binding[..], &namespaced].concat());

    eventually("the role counts", SOON, || {
        let allowed = cluster.kubectl_as(&kubeconfig, &["get", "configmaps"]);
        allowed.success().then_some(()).ok_or(allowed.stderr)
    });
    let denied = cluster.kubectl_as(&kubeconfig, &["get", "secrets"]);
    assert!(denied.stderr.contains("Forbidden"), "{denied:?}");
}

#[test]
fn what_an_object_owns_is_collected_after_it() {
    let cluster = with_probe();
    let namespace = cluster.namespace("collection");
    cluster.apply(&config_map(&namespace, "owner", None));
    cluster.apply(&probe(&namespace, "owner", 1, 2));
    for kind in ["configmap", "harnessprobe"] {
        let owner = cluster.kubectl_ok(&["get", kind, "owner", "-n", &namespace, "-o", "json"]);
        let owner: Value = serde_json::from_str(&owner).expect("kubectl speaks JSON");
        let owned = format!("of-{kind}");
        cluster.apply(&config_map(&namespace, &owned, Some(&owner)));
        cluster.kubectl_ok(&["get", "configmap", &owned, "-n", &namespace]);
        cluster.kubectl_ok(&["delete", kind, "owner", "-n", &namespace]);
        // The collector looks for new kinds every 30 seconds.
        eventually(&format!("{owned} is collected"), 3 * SOON, || {
            let left = cluster.kubectl(&["get", "configmap", &owned, "-n", &namespace]);
            let gone = left.stderr.contains("NotFound");
            gone.then_some(()).ok_or("it is still there")
        });
    }
}

#[test]
fn a_namespace_takes_all_that_is_in_it_along() {
    let cluster = ControlPlane::shared();
    let namespace = cluster.namespace("deleted");
    cluster.apply(&config_map(&namespace, "content", None));
    cluster.kubectl_ok(&["delete", "namespace", &namespace, "--timeout=60s"]);
    let gone = cluster.kubectl(&["get", "configmap", "content", "-n", &namespace]);
    assert!(gone.stderr.contains("NotFound"), "{gone:?}");
}

#[test]
fn the_audit_log_has_what_was_done_and_the_bodies_of_our_kinds() {
    let cluster = with_probe();
    let namespace = cluster.namespace("audit");
    cluster.apply(&probe(&namespace, "audited", 3, 4));
    cluster.apply(&config_map(&namespace, "audited", None));
    let event = |resource: &str| {
        eventually("the event is in the audit log", SOON, || {
            let events = cluster.audit_events();
            let seen = events.len();
            let found = events.into_iter().find(|event| {
                let object = &event["objectRef"];
                event["verb"] == "create"
                    && object["resource"] == resource
                    && object["namespace"] == namespace
                    && object["name"] == "audited"
            });
            found.ok_or(format!("it is not among {seen} events"))
        })
    };
    let ours = event("harnessprobes");
    assert_eq!(ours["user"]["username"], "admin");
    assert_eq!(ours["requestObject"]["spec"]["min"], 3);
    let other = event("configmaps");
    assert_eq!(other["level"], "Metadata");
    assert_eq!(other["requestObject"], Value::Null);
}

#[tokio::test]
async fn a_client_in_rust_works_and_has_the_rights_of_its_token() {
    // Starting blocks, which a test's runtime of its own can afford.
    let cluster = ControlPlane::shared();
    let namespace = cluster.namespace("client");
    let admin = cluster.admin_client();
    let namespaces: Api<Namespace> = Api::all(admin);
    let found = namespaces.get(&namespace).await.expect("it was just made");
    assert_eq!(found.metadata.name.as_deref(), Some(namespace.as_str()));

    let poor = cluster.service_account_client(&namespace, "default");
    let config_maps: Api<ConfigMap> = Api::namespaced(poor, &namespace);
    let denied = config_maps.list(&ListParams::default()).await;
    match denied.expect_err("the ServiceAccount may not list") {
        kube::Error::Api(status) => assert_eq!(status.code, 403),
        other => panic!("refused, but not by RBAC: {other}"),
    }
}

/// On a control plane of its own, since the others would notice.
#[test]
fn an_outage_of_the_api_server_loses_nothing() {
    let cluster = ControlPlane::start();
    let get = ["get", "configmap", "kept", "--request-timeout=2s"];
    cluster.apply(&config_map("default", "kept", None));
    let url = cluster.url().to_owned();
    let token = cluster.kubeconfig_for_service_account("default", "default");

    cluster.pause_api_server();
    let silent = cluster.kubectl(&get);
    assert!(
        !silent.success(),
        "a frozen server answers nothing: {silent:?}"
    );
    cluster.resume_api_server();
    eventually("it answers again", SOON, || {
        let answer = cluster.kubectl(&get);
        answer.success().then_some(()).ok_or(answer.stderr)
    });

    for outage in [ControlPlane::stop_api_server, ControlPlane::kill_api_server] {
        outage(&cluster);
        let down = cluster.kubectl(&get);
        assert!(down.stderr.contains("refused"), "{down:?}");
        cluster.start_api_server();
        assert_eq!(cluster.url(), url);
        cluster.kubectl_ok(&get);
        // Tokens from before still count: the keys are the same.
        let who = cluster.kubectl_as(&token, &["auth", "whoami"]);
        assert!(who.success(), "{who:?}");
    }

    // The controller manager has survived it too: it makes each namespace's ServiceAccount.
    let namespace = cluster.namespace("afterwards");
    cluster.kubeconfig_for_service_account(&namespace, "default");
    for component in Component::ALL {
        assert_ne!(cluster.log_of(component), "", "{}", component.name());
    }
    let folder = cluster.folder().to_owned();
    drop(cluster);
    assert!(!folder.exists() || support::scratch::kept(), "{folder:?}");
}

#[test]
fn helm_installs_a_chart() {
    let cluster = ControlPlane::shared();
    assert!(cluster.helm_ok(&["version", "--short"]).starts_with("v4."));
    let namespace = cluster.namespace("helm");
    let chart = Scratch::new("chart");
    chart.write("Chart.yaml", "{apiVersion: v2, name: tiny, version: 0.1.0}");
    std::fs::create_dir(chart.path().join("templates")).expect("the folder is ours");
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}'}\n";
    chart.write("templates/map.yaml", template);
    let folder = chart.path().to_str().expect("UTF-8");
    cluster.helm_ok(&["install", "one", folder, "-n", &namespace]);
    cluster.kubectl_ok(&["get", "configmap", "one", "-n", &namespace]);
}

/// The verifier, and the harness's way to it: that it knows all ten algorithms shows when
/// Chancery's own tokens are given to it.
#[test]
fn the_verifier_takes_a_good_token_and_refuses_a_bad_one() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    let random = aws_lc_rs::rand::SystemRandom::new();
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwks = json!({"keys": [{
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k1",
        "x": encode(x), "y": encode(y),
    }]});
    let header = json!({"alg": "ES256", "kid": "k1", "typ": "at+jwt"});
    let claims = json!({"iss": "https://issuer", "aud": ["api"], "exp": 4_000_000_000_u64});
    let signed = [header, claims].map(|part| encode(part.to_string().as_bytes()));
    let signed = signed.join(".");
    let signature = key.sign(&random, signed.as_bytes()).expect("it can sign");
    let token = format!("{signed}.{}", encode(signature.as_ref()));

    let files = Scratch::new("verifier");
    let jwks = files.write("jwks.json", jwks.to_string());
    let verify = |token: &str, audience: &str| {
        let mut verifier = std::process::Command::new(support::binaries::verifier());
        verifier.arg("-jwks").arg(&jwks);
        verifier.args(["-issuer", "https://issuer", "-audience", audience]);
        verifier.args(["-typ", "at+jwt"]);
        complete(verifier, token.as_bytes(), SOON)
    };

    let answer = verify(&token, "api").expect_success("the verifier");
    let answer: Value = serde_json::from_str(&answer).expect("it prints JSON");
    assert_eq!(answer["header"]["kid"], "k1");
    assert_eq!(answer["claims"]["iss"], "https://issuer");

    let other = verify(&token, "another api");
    assert_eq!(other.status.code(), Some(1));
    assert!(
        other.stderr.contains("invalid audience"),
        "{}",
        other.stderr
    );
    let unsigned = verify(&format!("{signed}."), "api");
    assert_eq!(unsigned.status.code(), Some(1), "{unsigned:?}");
}
