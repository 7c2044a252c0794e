//! `spec.publish`: a ring's JWKS in other namespaces, as a person sees it with kubectl.

use serde_json::{Value, json};

use crate::release::{LIMIT, Release, cluster};
use crate::support::{Signal, eventually};

fn kubectl(args: &[&str]) -> String {
    cluster().kubectl_ok(args)
}

/// A release that publishes.
struct Story {
    release: Release,
}

impl Story {
    fn new(prefix: &str) -> Self {
        let release = Release::start(prefix);
        Self { release }
    }

    fn ring(&self, name: &str, publish: &Value) {
        let ring = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "SigningKey",
            "metadata": {"name": name, "namespace": self.release.name},
            "spec": {"audience": "client", "algorithm": "ES256", "publish": publish},
        });
        self.release.apply(&ring.to_string());
    }

    /// The JWKS of a ring as it stands in the operator's namespace.
    fn jwks(&self, ring: &str) -> String {
        eventually(&format!("ring {ring} has a JWKS"), LIMIT, || {
            let map = self
                .release
                .get("configmap", &self.release.name, &format!("{ring}-jwks"));
            let document = map["data"]["jwks.json"].as_str().map(str::to_owned);
            document.ok_or_else(|| self.release.tail())
        })
    }

    /// Waits until a ConfigMap holds a ring's JWKS under these keys and nothing else.
    fn holds(&self, namespace: &str, name: &str, ring: &str, keys: &[&str]) {
        let document = self.jwks(ring);
        let expected: serde_json::Map<String, Value> = keys
            .iter()
            .map(|key| ((*key).to_owned(), json!(document)))
            .collect();
        eventually(&format!("{namespace}/{name} holds the JWKS"), LIMIT, || {
            let map = self.release.get("configmap", namespace, name);
            if map["data"] == json!(expected) {
                return Ok(());
            }
            Err(format!("{map}\n{}", self.release.tail()))
        });
    }

    fn gone(&self, namespace: &str, name: &str) {
        eventually(
            &format!("{namespace}/{name} is gone"),
            LIMIT,
            || match self.release.get("configmap", namespace, name) {
                Value::Null => Ok(()),
                map => Err(format!("{map}\n{}", self.release.tail())),
            },
        );
    }

    /// Waits until `Published` gives that reason, with that in its sentence; the ring signs all the
    /// while.
    fn says(&self, ring: &str, reason: &str, sentence: &str) {
        let what = format!("{ring}: {reason}: {sentence}");
        eventually(&what, LIMIT, || {
            let object = self.release.get("signingkey", &self.release.name, ring);
            let conditions = object["status"]["conditions"].as_array().cloned();
            let conditions = conditions.unwrap_or_default();
            let of = |kind: &str| conditions.iter().find(|c| c["type"] == kind);
            let said = of("Published").is_some_and(|c| {
                c["reason"] == reason
                    && (c["status"] == "True") == (reason == "Succeeded")
                    && c["message"].as_str().is_some_and(|m| m.contains(sentence))
            });
            let signs =
                of("Ready").is_some_and(|c| c["status"] == "True") && of("Stalled").is_none();
            if said && signs {
                return Ok(());
            }
            Err(format!("{conditions:?}\n{}", self.release.tail()))
        });
    }

    fn configmap(&self, namespace: &str, name: &str) -> Value {
        self.release.get("configmap", namespace, name)
    }
}

#[test]
fn by_name_and_by_label_through_the_life_of_namespaces() {
    let story = Story::new("publish");
    let label = format!("{}=yes", story.release.name);
    let selector = json!({"matchLabels": {story.release.name.clone(): "yes"}});
    let [a, b, c] = ["publish-a", "publish-b", "publish-c"].map(|n| cluster().namespace(n));
    let late = format!("{a}-late");
    kubectl(&["label", "namespace", &b, &label]);

    // The ring waits for nobody: it signs although a namespace is not there.
    story.ring(
        "main",
        &json!([
            {"namespaces": [a, late]},
            {"configMapName": "orders-jwks", "namespaceSelector": selector, "keys": ["k.json"]},
        ]),
    );
    story
        .release
        .wait_ready("signingkey", &story.release.name, "main");
    story.holds(&a, "main-jwks", "main", &["jwks", "jwks.json"]);
    story.holds(&b, "orders-jwks", "main", &["k.json"]);
    story.says(
        "main",
        "NamespaceNotFound",
        &format!("There is no namespace {late}"),
    );
    let map = story.configmap(&a, "main-jwks");
    let by = &map["metadata"]["annotations"]["chancery.dev/published-by"];
    assert_eq!(*by, format!("{}/main", story.release.name));
    assert_eq!(map["metadata"]["ownerReferences"], Value::Null);

    // A namespace that comes gets its own, by name and by label.
    kubectl(&["create", "namespace", &late]);
    story.holds(&late, "main-jwks", "main", &["jwks", "jwks.json"]);
    story.says("main", "Succeeded", "3 ConfigMaps");
    let wait = "--for=condition=Published";
    let namespace = &story.release.name;
    kubectl(&[
        "wait",
        wait,
        "signingkey/main",
        "-n",
        namespace,
        "--timeout=60s",
    ]);
    kubectl(&["label", "namespace", &c, &label]);
    story.holds(&c, "orders-jwks", "main", &["k.json"]);
    // One that stops matching loses it.
    kubectl(&[
        "label",
        "namespace",
        &b,
        &format!("{}-", story.release.name),
    ]);
    story.gone(&b, "orders-jwks");
    story.says("main", "Succeeded", "3 ConfigMaps");

    // A namespace that is going is told of; it comes again with the namespace.
    let finalizer = r#"{"metadata": {"finalizers": ["chancery.dev/test"]}}"#;
    kubectl(&["create", "configmap", "holds", "-n", &late]);
    kubectl(&[
        "patch",
        "configmap",
        "holds",
        "-n",
        &late,
        "--type=merge",
        "-p",
        finalizer,
    ]);
    kubectl(&["delete", "namespace", &late, "--wait=false"]);
    story.says(
        "main",
        "NamespaceTerminating",
        &format!("Namespace {late} is being deleted"),
    );
    let none = r#"{"metadata": {"finalizers": null}}"#;
    kubectl(&[
        "patch",
        "configmap",
        "holds",
        "-n",
        &late,
        "--type=merge",
        "-p",
        none,
    ]);
    story.says("main", "NamespaceNotFound", &late);
    kubectl(&["create", "namespace", &late]);
    story.holds(&late, "main-jwks", "main", &["jwks", "jwks.json"]);

    // Another name moves it, other keys change it.
    story.ring(
        "main",
        &json!([{"configMapName": "moved", "namespaces": [a], "keys": ["x"]}]),
    );
    story.holds(&a, "moved", "main", &["x"]);
    story.gone(&a, "main-jwks");
    story.gone(&late, "main-jwks");
    story.gone(&c, "orders-jwks");
    story.says("main", "Succeeded", "1 ConfigMap.");

    // The operator's own namespace is none to publish in; among all it is not meant.
    story.ring("main", &json!([{"namespaces": [story.release.name, a]}]));
    story.says("main", "WrongNamespace", "the operator's own");
    story.ring("main", &json!([]));
    story.gone(&a, "moved");
    story.gone(&a, "main-jwks");
    let published = || {
        let ring = story.release.get("signingkey", &story.release.name, "main");
        let conditions = ring["status"]["conditions"].as_array().cloned();
        conditions
            .unwrap_or_default()
            .iter()
            .any(|c| c["type"] == "Published")
    };
    eventually("nothing is said any more", LIMIT, || {
        if published() { Err("it is") } else { Ok(()) }
    });
}

#[test]
fn what_is_not_ours_is_left_and_what_is_ours_is_put_right() {
    let mut story = Story::new("foreign");
    let a = cluster().namespace("foreign-a");
    let b = cluster().namespace("foreign-b");
    kubectl(&[
        "create",
        "configmap",
        "taken",
        "-n",
        &a,
        "--from-literal=jwks=theirs",
    ]);
    let before = story.configmap(&a, "taken");
    story.ring(
        "main",
        &json!([{"configMapName": "taken", "namespaces": [a]}, {"namespaces": [a, b]}]),
    );
    story.says(
        "main",
        "ConfigMapNameConflict",
        &format!("ConfigMap {a}/taken"),
    );
    story.holds(&b, "main-jwks", "main", &["jwks", "jwks.json"]);
    assert_eq!(story.configmap(&a, "taken"), before);

    // Altered, emptied, made immutable, deleted: it comes back.
    let change = |patch: &str| {
        let patch = [
            "patch",
            "configmap",
            "main-jwks",
            "-n",
            &b,
            "--type=merge",
            "-p",
            patch,
        ];
        kubectl(&patch);
        story.holds(&b, "main-jwks", "main", &["jwks", "jwks.json"]);
    };
    change(r#"{"data": {"jwks": "{\"keys\": []}", "more": "x"}}"#);
    change(r#"{"data": null}"#);
    change(r#"{"binaryData": {"x": "eA=="}, "data": {"jwks": null}}"#);
    change(r#"{"data": {"jwks": "old"}, "immutable": true}"#);
    kubectl(&["delete", "configmap", "main-jwks", "-n", &b]);
    story.holds(&b, "main-jwks", "main", &["jwks", "jwks.json"]);
    // Its labels are taken away, as a restore may: what we noted beside them tells whose it is.
    let label = |more: &[&str]| {
        let label = ["label", "configmap", "main-jwks", "-n", &b];
        kubectl(&[&label[..], more].concat());
    };
    label(&[
        "chancery.dev/part-",
        "chancery.dev/signing-key-",
        "chancery.dev/environment-",
    ]);
    eventually("its labels are there again", LIMIT, || {
        let map = story.configmap(&b, "main-jwks");
        let part = &map["metadata"]["labels"]["chancery.dev/part"];
        (part == "published-jwks")
            .then_some(())
            .ok_or(map.to_string())
    });
    // Without either it is somebody else's.
    let ours = [
        "annotate",
        "configmap",
        "main-jwks",
        "-n",
        &b,
        "chancery.dev/published-by-",
    ];
    let operator = story.release.process();
    operator.signal(Signal::Stop);
    kubectl(&ours);
    label(&["chancery.dev/part-"]);
    operator.signal(Signal::Cont);
    story.says(
        "main",
        "ConfigMapNameConflict",
        &format!("ConfigMap {b}/main-jwks"),
    );
    let left = story.configmap(&b, "main-jwks");
    assert_eq!(left["metadata"]["labels"]["chancery.dev/part"], Value::Null);
    kubectl(&["delete", "configmap", "main-jwks", "-n", &b]);
    story.holds(&b, "main-jwks", "main", &["jwks", "jwks.json"]);
    // What was in the way goes: the name is used.
    kubectl(&["delete", "configmap", "taken", "-n", &a]);
    story.holds(&a, "taken", "main", &["jwks", "jwks.json"]);
    story.says("main", "Succeeded", "3 ConfigMaps");

    // At rest nothing is written.
    let versions = |story: &Story| {
        let of = |o: Value| o["metadata"]["resourceVersion"].clone();
        let maps = [(&a, "taken"), (&a, "main-jwks"), (&b, "main-jwks")];
        let mut all: Vec<Value> = maps.map(|(ns, n)| of(story.configmap(ns, n))).to_vec();
        all.push(of(story.release.get(
            "signingkey",
            &story.release.name,
            "main",
        )));
        all
    };
    let before = versions(&story);
    std::thread::sleep(std::time::Duration::from_secs(2));
    story.release.kill();
    story.release.run(&[]);
    story
        .release
        .process()
        .wait_for_line(|l| l.contains("visited") && l.contains("\"main\""), LIMIT);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(versions(&story), before);

    // Deleted while the operator was down: what it published goes when it is back, and nothing else.
    kubectl(&["create", "configmap", "theirs", "-n", &a]);
    story.release.kill();
    kubectl(&["delete", "signingkey", "main", "-n", &story.release.name]);
    assert!(story.configmap(&a, "taken").is_object());
    story.release.run(&[]);
    story.gone(&a, "taken");
    story.gone(&a, "main-jwks");
    story.gone(&b, "main-jwks");
    assert!(story.configmap(&a, "theirs").is_object());

    // And while it was up.
    story.ring("other", &json!([{"namespaces": [a, b]}]));
    story.holds(&b, "other-jwks", "other", &["jwks", "jwks.json"]);
    kubectl(&["delete", "signingkey", "other", "-n", &story.release.name]);
    story.gone(&a, "other-jwks");
    story.gone(&b, "other-jwks");
}

#[test]
fn two_rings_with_one_name_and_a_namespace_that_refuses() {
    let story = Story::new("claims");
    let a = cluster().namespace("claims-a");
    let b = cluster().namespace("claims-b");
    let publish = json!([{"configMapName": "jwks", "namespaces": [a]}]);
    story.ring("old", &json!([]));
    story
        .release
        .wait_ready("signingkey", &story.release.name, "old");
    // Kubernetes tells ages to the second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    story.ring("a-young", &publish);
    story.holds(&a, "jwks", "a-young", &["jwks", "jwks.json"]);
    story.ring("old", &publish);
    story.holds(&a, "jwks", "old", &["jwks", "jwks.json"]);
    story.says("a-young", "ConfigMapClaimed", "by the older SigningKey old");
    story.says("old", "Succeeded", "1 ConfigMap");
    kubectl(&["delete", "signingkey", "old", "-n", &story.release.name]);
    story.holds(&a, "jwks", "a-young", &["jwks", "jwks.json"]);
    story.says("a-young", "Succeeded", "1 ConfigMap");

    // A quota of another's namespace holds up neither the ring nor the other copies.
    kubectl(&["create", "quota", "none", "-n", &b, "--hard=configmaps=0"]);
    eventually("the quota holds", LIMIT, || {
        let args = ["create", "configmap", "x", "-n", &b, "--dry-run=server"];
        let answer = cluster().kubectl(&args);
        if answer.success() {
            Err(answer.stdout)
        } else {
            Ok(())
        }
    });
    story.ring("third", &json!([{"namespaces": [a, b]}]));
    story.holds(&a, "third-jwks", "third", &["jwks", "jwks.json"]);
    story.says(
        "third",
        "WriteRefused",
        &format!("ConfigMap {b}/third-jwks was refused"),
    );
    story.says("third", "WriteRefused", "exceeded quota");
    kubectl(&["delete", "quota", "none", "-n", &b]);
    story.holds(&b, "third-jwks", "third", &["jwks", "jwks.json"]);
    story.says("third", "Succeeded", "2 ConfigMaps");

    // What is published follows a rotation: here of a key whose Secret is lost.
    let before = story.configmap(&b, "third-jwks")["data"].clone();
    kubectl(&["delete", "secret", "third-1", "-n", &story.release.name]);
    eventually("the copies hold the new key", LIMIT, || {
        let now = story.configmap(&b, "third-jwks")["data"].clone();
        let own = story.configmap(&story.release.name, "third-jwks")["data"].clone();
        if now != before && now == own {
            Ok(())
        } else {
            Err(now)
        }
    });
    story.says("third", "Succeeded", "2 ConfigMaps");
}
