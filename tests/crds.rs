//! The CRDs: as committed, on a real kube-apiserver and on the embedded one. What a person may
//! write is accepted, what they may not is refused with a sentence, and kubectl shows it well.

mod support;

#[path = "crds/corpus.rs"]
mod corpus;
#[path = "crds/schema.rs"]
mod schema;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use chancery::embedded::{ApiServer, Ids, Options};
use corpus::Bad;
use http::Request;
use serde_json::{Value, json};
use support::ControlPlane;

/// The shared control plane with the CRDs as they are committed.
fn cluster() -> &'static ControlPlane {
    static INSTALLED: LazyLock<()> = LazyLock::new(|| {
        let cluster = ControlPlane::shared();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
        // A schema that is not structural, or a rule that may cost too much, is refused here.
        cluster.kubectl_ok(&["apply", "-f", path(&folder)]);
        cluster.kubectl_ok(&["apply", "-f", path(&folder)]);
        for (_, crd) in schema::committed() {
            let name = format!("crd/{}", crd["metadata"]["name"].as_str().expect("a name"));
            for condition in ["Established", "NamesAccepted"] {
                let condition = format!("--for=condition={condition}");
                cluster.kubectl_ok(&["wait", &condition, &name, "--timeout=30s"]);
            }
        }
    });
    LazyLock::force(&INSTALLED);
    ControlPlane::shared()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn apply(namespace: &str, file: &Path) -> support::Output {
    cluster().kubectl(&["apply", "-n", namespace, "-f", path(file)])
}

#[test]
fn the_committed_crds_are_what_the_program_prints() {
    let mut program = std::process::Command::new(support::chancery_bin());
    program.arg("crds");
    let printed = support::process::complete(program, b"", std::time::Duration::from_secs(30));
    let printed = printed.expect_success("chancery crds");
    let mut printed: BTreeMap<String, String> = printed
        .split("---\n")
        .filter(|document| !document.is_empty())
        .map(|document| {
            let crd: Value = serde_saphyr::from_str(document).expect("a CRD");
            let plural = crd["spec"]["names"]["plural"].as_str().expect("a plural");
            (format!("chancery.dev_{plural}.yaml"), document.to_owned())
        })
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    for (name, _) in schema::committed() {
        let text = corpus::text_of(&folder.join(&name));
        let new = printed.remove(&name);
        assert!(
            new.as_ref() == Some(&text),
            "crds/{name} is not what `chancery crds` prints: CONTRIBUTING.md tells how to write it anew"
        );
    }
    assert!(printed.is_empty(), "not committed: {:?}", printed.keys());
}

#[test]
fn the_corpus_tries_everything_that_the_crds_demand() {
    let bad = corpus::bad();
    let mut untried = Vec::new();
    for (_, crd) in schema::committed() {
        let expected: Vec<&String> = bad
            .iter()
            .filter(|bad| bad.kind() == schema::kind(&crd))
            .flat_map(|bad| &bad.expect)
            .collect();
        let demands = schema::demands(&crd);
        assert!(!demands.is_empty());
        untried.extend(
            demands
                .into_iter()
                .filter(|demand| !expected.iter().any(|text| demand.refusal.is_match(text)))
                .map(|demand| demand.what),
        );
    }
    assert!(
        untried.is_empty(),
        "no manifest in tests/corpus/bad expects to be refused for:\n{}",
        untried.join("\n")
    );
}

#[test]
fn every_rule_speaks_in_a_sentence_and_every_field_is_described() {
    for (file, crd) in schema::committed() {
        schema::walk(schema::root(&crd), "", &mut |path, node| {
            let described = node["description"].as_str().is_some_and(|d| d.len() > 10);
            // An entry of a list or a map of words has nothing to add to its description.
            let entry = path.ends_with(']') || path.rsplit('.').next() == Some("team");
            let word = entry && node["type"] == "string";
            let bare = matches!(path, "metadata" | "apiVersion" | "kind") || word;
            assert!(described || bare, "{file}: {path} has no description");
            for rule in node["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let message = rule["message"].as_str().unwrap_or_default();
                assert!(
                    message.ends_with('.') && message.split(' ').count() >= 6,
                    "{file}: {path}: no sentence: {rule}"
                );
            }
            if path.ends_with("conditions") {
                assert_eq!(node["x-kubernetes-list-type"], "map", "{file}");
                assert_eq!(
                    node["x-kubernetes-list-map-keys"],
                    json!(["type"]),
                    "{file}"
                );
            }
        });
    }
}

#[test]
fn kubectl_apply_refuses_each_bad_manifest_with_its_sentence() {
    let cluster = cluster();
    let namespace = cluster.namespace("bad");
    let bad = corpus::bad();
    let firsts = corpus::firsts(&bad);
    for first in &firsts {
        apply(&namespace, first).expect_success("kubectl apply");
    }
    let before = cluster.kubectl_ok(&["get", "identity", "-n", &namespace, "-o", "name"]);
    assert_eq!(before.lines().count(), firsts.len(), "{before}");

    let complaints = Mutex::new(Vec::new());
    let left = Mutex::new(bad.iter());
    let work = || {
        loop {
            let next = left.lock().expect("no panic").next();
            let Some(bad) = next else { break };
            let answer = apply(&namespace, &bad.path);
            let complaint = if answer.success() {
                format!("{}: accepted: {}", bad.name(), answer.stdout)
            } else {
                bad.missing_in(&answer.stderr)
            };
            complaints.lock().expect("no panic").push(complaint);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
    let complaints = complaints.into_inner().expect("no panic");
    assert_eq!(complaints.len(), bad.len());
    let complaints = complaints.concat();
    assert!(complaints.is_empty(), "{complaints}");

    // Refused means that nothing came of it: what was there is as it was, and nothing else is.
    let after = cluster.kubectl_ok(&["get", "identity", "-n", &namespace, "-o", "name"]);
    assert_eq!(after, before);
    for first in &firsts {
        let again = apply(&namespace, first).expect_success("kubectl apply");
        assert!(again.trim_end().ends_with("unchanged"), "{again}");
    }
}

#[test]
fn kubectl_apply_accepts_each_good_manifest_and_twice_changes_nothing() {
    let cluster = cluster();
    let namespace = cluster.namespace("good");
    for file in corpus::good() {
        let applied = apply(&namespace, &file).expect_success(path(&file));
        let again = apply(&namespace, &file).expect_success(path(&file));
        assert_eq!(applied.lines().count(), again.lines().count());
        for line in again.lines() {
            assert!(line.ends_with(" unchanged"), "{}: {line}", file.display());
        }
    }
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart");
    cluster.kubectl_ok(&["apply", "-f", path(&quickstart)]);
}

#[test]
fn a_fresh_object_says_that_nobody_has_looked_at_it_yet() {
    let cluster = cluster();
    let namespace = cluster.namespace("fresh");
    for name in ["ring", "subscription", "client", "provider", "user"] {
        let file = corpus::folder().join(format!("good/{name}.yaml"));
        apply(&namespace, &file).expect_success("kubectl apply");
    }
    for kind in [
        "signingkeys",
        "subscriptions",
        "technicalusers",
        "oidcproviders",
        "users.chancery.dev",
    ] {
        let status = "-o=jsonpath={.items[*].status}";
        let status = cluster.kubectl_ok(&["get", kind, "-n", &namespace, status]);
        assert_eq!(status, r#"{"observedGeneration":-1}"#, "{kind}");
    }
}

/// A table of kubectl's, by its columns: they are padded with at least three spaces.
fn table(text: &str) -> Vec<Vec<String>> {
    let columns = |line: &str| {
        let cells = line.split("   ").map(str::trim);
        cells.filter(|c| !c.is_empty()).map(str::to_owned).collect()
    };
    text.lines().map(columns).collect()
}

const KID: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
const AHEAD: &str = "2126-12-22T10:00:00Z";
const FURTHER_AHEAD: &str = "2099-06-01T00:00:00Z";

#[test]
fn kubectl_get_tells_the_story() {
    let cluster = cluster();
    let namespace = cluster.namespace("columns");
    for (name, kind, short, wide) in [
        (
            "ring",
            "signingkey",
            "sk",
            "NAME|AUDIENCE|ALGORITHM|ACTIVE KEY|SIGNING|NEXT|AT|READY|STALLED|AGE|REASON|ROTATES|MESSAGE",
        ),
        (
            "subscription",
            "subscription",
            "subs",
            "NAME|LEGAL ENTITY|TIER|CURRENT|FROM|TO|READY|REASON|AGE|ENVIRONMENT|MESSAGE",
        ),
        (
            "client",
            "technicaluser",
            "tu",
            "NAME|CLIENT ID|CREDENTIAL|SECRET|SUSPENDED|READY|REASON|STALLED|AGE|FAMILY|SECRET ID|OLD UNTIL|ROTATES|COMPANION|MESSAGE",
        ),
        (
            "provider",
            "oidcprovider",
            "oidc",
            "NAME|ISSUER|ACTIVE|REACHABLE|READY|REASON|AGE|REFRESHED|KEYS|STALLED|MESSAGE",
        ),
        (
            "user",
            "users.chancery.dev",
            "usr",
            "NAME|PERSON|SUSPENDED|READY|REASON|AGE|DISPLAY NAME|ROLES|MESSAGE",
        ),
    ] {
        let file = corpus::folder().join(format!("good/{name}.yaml"));
        apply(&namespace, &file).expect_success("kubectl apply");
        let mut status = json!({"status": {"observedGeneration": 1, "conditions": [{
            "type": "Ready", "status": "True", "reason": "Succeeded", "message": "All is well.",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]}});
        if kind == "signingkey" {
            // A time ahead: a column of type date would show it as <invalid>.
            status["status"]["activeKeyId"] = json!(KID);
            status["status"]["nextTransition"] = json!({"at": AHEAD, "what": "Activate"});
            let signing = json!({
                "type": "Signing", "status": "True", "reason": "Preferred", "message": "It does.",
                "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            let conditions = status["status"]["conditions"].as_array_mut();
            conditions.expect("a list").push(signing);
            status["status"]["nextRotation"] = json!(FURTHER_AHEAD);
        }
        if kind == "technicaluser" {
            let secret =
                |id, state| json!({"id": id, "state": state, "createdAt": "2026-01-01T00:00:00Z"});
            let mut older = secret("5", "Retired");
            older["expiresAt"] = json!("2126-12-01T10:00:00Z");
            let mut old = secret("6", "Retired");
            old["expiresAt"] = json!(AHEAD);
            status["status"]["credentials"] = json!([older, old, secret("7", "Active")]);
            // Not that of the first of them.
            status["status"]["graceEndsAt"] = json!(AHEAD);
            // As a suspended one is: that it is so, and that something stalls, the short table tells too.
            status["status"]["conditions"][0]["reason"] = json!("Suspended");
            let stalled = json!({
                "type": "Stalled", "status": "True", "reason": "SuppliedSecretNotFound", "message": "Make it.",
                "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            let conditions = status["status"]["conditions"].as_array_mut();
            conditions.expect("a list").push(stalled);
            let suspend = r#"--patch={"spec": {"suspended": true}}"#;
            let of = ["patch", kind, name, "-n", &namespace, "--type=merge"];
            cluster.kubectl_ok(&[&of[..], &[suspend]].concat());
            status["status"]["nextRotation"] = json!(FURTHER_AHEAD);
            status["status"]["companionAgent"] = json!({"name": "helper", "clientId": "x.helper"});
        }
        let patch = [
            "patch",
            kind,
            name,
            "-n",
            &namespace,
            "--subresource=status",
        ];
        let status = format!("--patch={status}");
        cluster.kubectl_ok(&[&patch[..], &["--type=merge", &status]].concat());

        let shown = table(&cluster.kubectl_ok(&["get", short, "-n", &namespace, "-o", "wide"]));
        assert_eq!(shown[0].join("|"), wide);
        assert_eq!(shown[1][0], name);
        let reason = match kind {
            "technicaluser" => "Suspended",
            _ => "Succeeded",
        };
        for cell in ["True", reason, "All is well."] {
            assert!(shown[1].iter().any(|c| c == cell), "{shown:?}");
        }
        let rotates = shown[1].iter().any(|c| c == FURTHER_AHEAD);
        let turns = ["signingkey", "technicaluser"].contains(&kind);
        assert_eq!(rotates, turns, "{shown:?}");
        if kind == "technicaluser" {
            let told = |cell: &str| shown[1].iter().any(|c| c == cell);
            assert!(told("7") && told(AHEAD) && told("helper"), "{shown:?}");
        }
        // Without -o wide the line is short enough to be read.
        let narrow = cluster.kubectl_ok(&["get", short, "-n", &namespace]);
        let longest = narrow.lines().map(|line| line.trim_end().len()).max();
        assert!(longest.is_some_and(|longest| longest <= 160), "{narrow}");
        if kind == "signingkey" {
            let cells = table(&narrow).remove(1);
            let told = ["client", "ES256", KID, "True", "Activate", AHEAD, "True"];
            assert_eq!(cells[1..8], told, "{narrow}");
        }
        if kind == "technicaluser" {
            let cells = table(&narrow).remove(1);
            let told = ["true", "True", "Suspended", "SuppliedSecretNotFound"];
            assert!(
                cells
                    .ends_with(&[&told.map(str::to_owned)[..], &cells[cells.len() - 1..]].concat()),
                "{narrow}"
            );
        }
        let narrow = table(&narrow);
        assert!(
            narrow[0].len() < shown[0].len() && narrow[0].len() <= 10,
            "{narrow:?}"
        );
        assert!(!narrow[0].contains(&"MESSAGE".to_owned()), "{narrow:?}");
    }
    let identity = cluster.kubectl_ok(&["get", "identity", "-A"]);
    for name in [
        "signingkey.chancery.dev/ring",
        "subscription.chancery.dev/subscription",
        "technicaluser.chancery.dev/client",
        "oidcprovider.chancery.dev/provider",
        "user.chancery.dev/user",
    ] {
        let found = identity.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(namespace.as_str()) && words.next() == Some(name)
        });
        assert!(found, "{name} is not among\n{identity}");
    }
}

#[test]
fn kubectl_explain_has_a_word_on_every_field() {
    let cluster = cluster();
    for (_, crd) in schema::committed() {
        let kind = crd["spec"]["names"]["singular"].as_str().expect("a name");
        let mut places = Vec::new();
        schema::walk(schema::root(&crd), "", &mut |path, node| {
            // kubectl explain goes through lists without a word.
            let path = path.replace("[0]", "");
            if node["properties"].is_object() && !path.contains("conditions") && !path.is_empty() {
                places.push((path, node));
            }
        });
        assert!(places.len() >= 2);
        for (path, node) in places {
            let said = cluster.kubectl_ok(&["explain", &format!("{kind}.{path}")]);
            let said = words(&said);
            for (field, inner) in node["properties"].as_object().expect("looked at above") {
                let description = inner["description"]
                    .as_str()
                    .expect("another test holds this");
                assert!(
                    said.contains(field.as_str()),
                    "{kind}.{path}.{field}: {said}"
                );
                assert!(
                    said.contains(&words(description)),
                    "kubectl explain {kind}.{path} does not say: {description}\n{said}"
                );
            }
        }
    }
    let algorithm = cluster.kubectl_ok(&["explain", "signingkey.spec.algorithm"]);
    assert!(
        words(&algorithm).contains("ENUM: RS256 RS384"),
        "{algorithm}"
    );
    assert!(algorithm.contains("RFC 7518"), "{algorithm}");
}

/// A text without its line breaks.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn two_managers_each_keep_what_is_theirs() {
    let cluster = cluster();
    let namespace = cluster.namespace("managers");
    let object = |rest: Value| {
        let mut object = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "Subscription",
            "metadata": {"name": "shared", "namespace": namespace},
        });
        object
            .as_object_mut()
            .expect("an object")
            .extend(rest.as_object().expect("one").clone());
        object.to_string()
    };
    let apply = |manager: &str, more: &[&str], body: &str| {
        let manager = format!("--field-manager={manager}");
        let args = ["apply", "--server-side", &manager, "-f", "-"];
        cluster
            .kubectl_stdin(&[&args[..], more].concat(), body)
            .expect_success("kubectl apply --server-side");
    };
    let spec = |scope: &str| {
        object(json!({"spec": {
            "legalEntity": {"id": "acme", "name": "Acme"}, "tier": "Free",
            "allowed": {"scopes": [scope]},
        }}))
    };
    apply("one", &[], &spec("orders.read"));
    apply("two", &[], &spec("orders.write"));
    let condition = |kind: &str| {
        object(json!({"status": {"conditions": [{
            "type": kind, "status": "True", "reason": "Tried", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]}}))
    };
    apply("one", &["--subresource=status"], &condition("Ready"));
    apply("two", &["--subresource=status"], &condition("Audited"));
    let found = cluster.kubectl_ok(&["get", "subs", "shared", "-n", &namespace, "-o", "json"]);
    let found: Value = serde_json::from_str(&found).expect("JSON");
    assert_eq!(
        found["spec"]["allowed"]["scopes"],
        json!(["orders.read", "orders.write"])
    );
    let conditions = found["status"]["conditions"].as_array().expect("a list");
    let types: Vec<_> = conditions.iter().map(|c| c["type"].clone()).collect();
    assert_eq!(types, [json!("Ready"), json!("Audited")]);
}

/// The embedded API server with the CRDs, and one namespace.
struct Embedded(kube::Client);

impl Embedded {
    fn open() -> Self {
        let crds = schema::committed().into_iter();
        let server = ApiServer::open(Options {
            crds: crds
                .map(|(_, crd)| serde_json::from_value(crd).expect("a CRD"))
                .collect(),
            state_dir: None,
            clock: chancery::clock::system(),
            ids: Ids::Random,
        });
        Self(server.expect("it opens").client("default"))
    }

    /// Makes an object, or puts it in the place of one that is there; the refusal's message.
    async fn apply(&self, object: &Value) -> Result<Value, String> {
        let kind = object["kind"].as_str().expect("a kind").to_lowercase();
        let folder = format!("/apis/chancery.dev/v1alpha1/namespaces/default/{kind}s");
        let name = object["metadata"]["name"].as_str().expect("a name");
        let one = format!("{folder}/{name}");
        let mut object = object.clone();
        let (method, place) = match self.call("GET", &one, Vec::new()).await {
            Ok(before) => {
                object["metadata"]["resourceVersion"] =
                    before["metadata"]["resourceVersion"].clone();
                ("PUT", one)
            }
            Err(_) => ("POST", folder),
        };
        let body = serde_json::to_vec(&object).expect("JSON");
        self.call(method, &format!("{place}?fieldValidation=Strict"), body)
            .await
    }

    async fn call(&self, method: &str, uri: &str, body: Vec<u8>) -> Result<Value, String> {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", "application/json")
            .body(body)
            .expect("a request");
        match self.0.request::<Value>(request).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) => Err(status.message),
            Err(other) => panic!("{method} {uri}: {other}"),
        }
    }
}

#[tokio::test]
async fn the_embedded_server_refuses_the_same_manifests_for_the_same_reasons() {
    let server = Embedded::open();
    let bad = corpus::bad();
    for first in corpus::firsts(&bad) {
        for object in corpus::objects(&corpus::text_of(&first)).expect("good YAML") {
            server.apply(&object).await.expect("a good manifest");
        }
    }
    let mut complaints = String::new();
    for bad in &bad {
        complaints += &refusal(&server, bad).await;
    }
    assert!(complaints.is_empty(), "{complaints}");
}

async fn refusal(server: &Embedded, bad: &Bad) -> String {
    let object = match corpus::objects(&bad.text) {
        Ok(mut objects) => objects.remove(0),
        Err(why) => return bad.missing_in(&why),
    };
    match server.apply(&object).await {
        Ok(accepted) => format!("{}: accepted: {accepted}\n", bad.name()),
        Err(message) => bad.missing_in(&message),
    }
}

#[tokio::test]
async fn the_embedded_server_accepts_the_same_manifests() {
    let server = Embedded::open();
    for file in corpus::good() {
        for object in corpus::objects(&corpus::text_of(&file)).expect("good YAML") {
            let applied = server.apply(&object).await;
            let applied = applied.unwrap_or_else(|why| panic!("{}: {why}", file.display()));
            let again = server.apply(&object).await.expect("as before");
            let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
            assert_eq!(version(&again), version(&applied), "{}", file.display());
        }
    }
}
