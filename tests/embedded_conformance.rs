//! Does the API server in memory answer as a real one does? The calls of
//! `embedded_conformance/calls.txt` are made of both, and the answers compared: code, warnings and
//! body, with what differs between any two servers (UIDs, versions, times) made the same.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use chancery::embedded::{ApiServer, Ids, Options};
use http::Request;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use regex::Regex;
use serde_json::{Value, json};
use support::ControlPlane;

const CALLS: &str = include_str!("embedded_conformance/calls.txt");
const CRD: &str = include_str!("embedded_conformance/widgets.yaml");

/// What a deliberate difference is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The wording: `message`, and the messages of causes.
    Message,
    /// The answer altogether.
    All,
}

/// Where the embedded server is meant to answer otherwise: scenario, call, part, reason. A call
/// that answers alike after all fails the test, so that this list can not grow stale.
const DIFFERENCES: &[(&str, &str, Part, &str)] = &[
    (
        "create",
        r#"POST widgets {"apiVersion":"conformance.chancery.dev/v2""#,
        Part::All,
        "the real one also warns of a field that is unknown to a version that does not exist",
    ),
    ("create", "POST widgets not json", Part::Message, JSON_WORDS),
    (
        "create",
        "POST widgets/a ",
        Part::All,
        "POST to an object is no verb of ours: 405 rather than a create",
    ),
    (
        "schema",
        r#"POST widgets {"metadata":{"name":"a","labels":{"x":1}}"#,
        Part::Message,
        JSON_WORDS,
    ),
    (
        "unknown fields",
        "PATCH widgets/a?fieldValidation=Strict",
        Part::Message,
        "the real one quotes the whole object, which in a Secret nobody may read",
    ),
    (
        "merge patch",
        "PATCH widgets/a []",
        Part::Message,
        JSON_WORDS,
    ),
    (
        "merge patch",
        "PATCH widgets/a {broken",
        Part::Message,
        JSON_WORDS,
    ),
    (
        "merge patch",
        "PATCH:application/json-patch+json",
        Part::All,
        "JSON patches are not served: refused with 415",
    ),
    (
        "merge patch",
        "PATCH:text/plain",
        Part::Message,
        "the sentence lists the patch types that are served",
    ),
    (
        "config maps",
        r#"POST configmaps {"metadata":{"name":"keys"},"data":{"a":1}}"#,
        Part::Message,
        JSON_WORDS,
    ),
    (
        "config maps",
        r#"POST configmaps {"metadata":{"name":"refs","ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap""#,
        Part::Message,
        "the order of the fields in the quoted value",
    ),
    (
        "secrets",
        r#"POST secrets {"metadata":{"name":"bad"},"data":{"k":"not base64!"}}"#,
        Part::Message,
        JSON_WORDS,
    ),
    (
        "lists",
        "GET widgets?continue=rubbish",
        Part::Message,
        JSON_WORDS,
    ),
    (
        "oddities",
        r#"PATCH widgets/a {"apiVersion":"#,
        Part::All,
        "the real one also warns of fields that are unknown to a version that does not exist",
    ),
    (
        "oddities",
        r#"POST configmaps {"apiVersion":"v1","kind":"Secret""#,
        Part::Message,
        "the words are those of Go's conversion",
    ),
    ("oddities", "POST configmaps []", Part::Message, JSON_WORDS),
    (
        "garbage collection",
        "DELETE widgets/kept?propagationPolicy=Orphan",
        Part::All,
        "orphaning is done at once, not by a finalizer that a controller takes away",
    ),
];

const JSON_WORDS: &str = "the words are those of Go's JSON or base64 decoder";

struct Scenario {
    name: String,
    calls: Vec<String>,
}

fn scenarios() -> Vec<Scenario> {
    let mut all: Vec<Scenario> = Vec::new();
    for line in CALLS.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            all.push(Scenario {
                name: name.to_owned(),
                calls: Vec::new(),
            });
        } else if !line.is_empty() && !line.starts_with('#') {
            let scenario = all.last_mut().expect("calls stand under a heading");
            scenario.calls.push(line.to_owned());
        }
    }
    all
}

/// One server under test, and what it has answered in this scenario.
struct Server {
    client: Client,
    namespace: String,
    versions: Vec<String>,
    uid: String,
    token: String,
    /// Versions seen, so that they can be made the same in sentences.
    seen: Vec<String>,
}

#[derive(Debug, PartialEq)]
struct Answer {
    code: u16,
    warnings: Vec<String>,
    body: Value,
}

impl Server {
    fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            versions: Vec::new(),
            uid: String::new(),
            token: String::new(),
            seen: Vec::new(),
        }
    }

    fn fill(&self, text: &str) -> String {
        let back = |n: usize| {
            let index = self.versions.len().checked_sub(n + 1);
            index.map_or("0", |i| self.versions[i].as_str()).to_owned()
        };
        text.replace("${ns}", &self.namespace)
            .replace("${rv}", &back(0))
            .replace("${old}", &back(1))
            .replace("${older}", &back(2))
            .replace("${uid}", &self.uid)
            .replace("${continue}", &self.token)
    }

    async fn call(&mut self, line: &str) -> Answer {
        let line = self.fill(line);
        let (method, rest) = line.split_once(' ').expect("METHOD target");
        let (target, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let (path, body) = address(target, body, &self.namespace);
        let (method, content_type) = match method.split_once(':') {
            Some((method, content_type)) => (method, content_type),
            None if method == "PATCH" => (method, "application/merge-patch+json"),
            None => (method, "application/json"),
        };
        match method {
            "POLL" => return self.poll(&path, |code, _| code == 404).await,
            "TERMINATING" => {
                return self
                    .poll(&path, |_, body| {
                        body["metadata"]["deletionTimestamp"].is_string()
                    })
                    .await;
            }
            _ => {}
        }
        let (code, warnings, text) = self.send(method, &path, content_type, body).await;
        let watch = path.contains("watch=true") && code == 200;
        let body = if watch {
            Value::Array(text.lines().map(parse).filter(keeps).collect())
        } else {
            parse(&text)
        };
        self.remember(&body);
        Answer {
            code,
            warnings: warnings.iter().map(|w| self.sentence(w)).collect(),
            body: self.normal(&body),
        }
    }

    /// Waits for what is done in the background.
    async fn poll(&mut self, path: &str, done: impl Fn(u16, &Value) -> bool) -> Answer {
        for _ in 0..300 {
            let (code, _, text) = self
                .send("GET", path, "application/json", String::new())
                .await;
            let body = parse(&text);
            if done(code, &body) {
                return Answer {
                    code,
                    warnings: Vec::new(),
                    body: self.normal(&body),
                };
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{path}: what was waited for did not happen");
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: String,
    ) -> (u16, Vec<String>, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            // Both, as a call has a body or asks for a form of the answer.
            .header(
                "accept",
                if method == "GET" {
                    content_type
                } else {
                    "application/json"
                },
            )
            .body(Body::from(body.into_bytes()))
            .expect("a request");
        let response = self.client.send(request).await.expect("an answer");
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings
            .map(|w| w.to_str().expect("text").to_owned())
            .collect();
        let code = response.status().as_u16();
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        (code, warnings, String::from_utf8_lossy(&bytes).into_owned())
    }

    fn remember(&mut self, body: &Value) {
        let metadata = &body["metadata"];
        if let Some(token) = metadata["continue"].as_str().filter(|t| !t.is_empty()) {
            token.clone_into(&mut self.token);
        }
        if body["kind"]
            .as_str()
            .is_some_and(|k| k == "Status" || k.ends_with("List"))
        {
            return;
        }
        if let Some(version) = metadata["resourceVersion"].as_str() {
            if self.versions.last().map(String::as_str) != Some(version) {
                self.versions.push(version.to_owned());
            }
            self.seen.push(version.to_owned());
        }
        if let Some(uid) = metadata["uid"].as_str() {
            uid.clone_into(&mut self.uid);
        }
    }

    /// A sentence without what is this server's own.
    fn sentence(&self, text: &str) -> String {
        let uuid = Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").expect("a pattern");
        let mut text = uuid.replace_all(text, "<uid>").into_owned();
        for version in self.seen.iter().rev() {
            let whole = Regex::new(&format!(r"\b{version}\b")).expect("a pattern");
            text = whole.replace_all(&text, "<version>").into_owned();
        }
        // The order of several faults is that of a Go map: any.
        if let Some((head, list)) = text
            .split_once(": [")
            .filter(|(h, _)| h.ends_with("is invalid"))
        {
            let mut parts: Vec<&str> = list.trim_end_matches(']').split(", ").collect();
            parts.sort_unstable();
            text = format!("{head}: [{}]", parts.join(", "));
        }
        text
    }

    fn normal(&self, value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut out = BTreeMap::new();
                for (key, inner) in map {
                    let inner = match (key.as_str(), inner) {
                        ("managedFields" | "selfLink", _) => continue,
                        ("creationTimestamp" | "deletionTimestamp", Value::String(_)) => {
                            json!("<time>")
                        }
                        ("resourceVersion", Value::String(_)) => json!("<version>"),
                        ("uid", Value::String(_)) => json!("<uid>"),
                        // Built-in kinds leave an empty one out, custom ones do not.
                        ("continue", Value::String(token)) if token.is_empty() => continue,
                        ("continue", Value::String(_)) => json!("<token>"),
                        ("message", Value::String(text)) => json!(self.sentence(text)),
                        ("causes", Value::Array(causes)) => {
                            let mut causes: Vec<Value> =
                                causes.iter().map(|c| self.normal(c)).collect();
                            causes.sort_by_key(Value::to_string);
                            // The real server checks some things two or three times over.
                            causes.dedup();
                            Value::Array(causes)
                        }
                        (_, inner) => self.normal(inner),
                    };
                    out.insert(key.clone(), inner);
                }
                json!(out)
            }
            Value::Array(items) => items.iter().map(|i| self.normal(i)).collect(),
            other => other.clone(),
        }
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text.trim()))
}

/// When bookmarks come is each server's own affair, but for the one that ends the initial events.
fn keeps(event: &Value) -> bool {
    event["type"] != "BOOKMARK" || event["object"]["metadata"]["annotations"].is_object()
}

fn address(target: &str, body: &str, namespace: &str) -> (String, String) {
    let mut body = body.to_owned();
    if target.starts_with('/') {
        return (target.to_owned(), body);
    }
    let resource = target.split(['/', '?']).next().unwrap_or_default();
    let (version, kind) = match resource {
        "widgets" => ("conformance.chancery.dev/v1", "Widget"),
        "configmaps" => ("v1", "ConfigMap"),
        "secrets" => ("v1", "Secret"),
        "serviceaccounts" => ("v1", "ServiceAccount"),
        "leases" => ("coordination.k8s.io/v1", "Lease"),
        "events" => ("events.k8s.io/v1", "Event"),
        other => panic!("no such resource in this table: {other}"),
    };
    if let Ok(Value::Object(mut map)) = serde_json::from_str(&body)
        && map.contains_key("metadata")
        && !map.contains_key("apiVersion")
    {
        let whole = map.contains_key("spec")
            || resource != "widgets"
            || target.contains('?')
            || target == resource;
        if whole {
            map.insert("apiVersion".into(), json!(version));
            map.insert("kind".into(), json!(kind));
            body = Value::Object(map).to_string();
        }
    }
    let root = if version.contains('/') { "apis" } else { "api" };
    (
        format!("/{root}/{version}/namespaces/{namespace}/{target}"),
        body,
    )
}

fn without_words(answer: &Answer) -> (u16, Value) {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("message");
                map.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut body = answer.body.clone();
    strip(&mut body);
    (answer.code, body)
}

async fn namespace(client: &Client, name: &str) {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let server = Server::new(client.clone(), name);
    let (code, _, text) = server
        .send(
            "POST",
            "/api/v1/namespaces",
            "application/json",
            body.to_string(),
        )
        .await;
    assert!(code == 201, "{code} {text}");
}

fn embedded() -> Client {
    let crd = serde_saphyr::from_str(CRD).expect("the CRD can be read");
    let server = ApiServer::open(Options {
        crds: vec![crd],
        state_dir: None,
        clock: chancery::clock::system(),
        ids: Ids::Random,
    });
    server.expect("it opens").client("default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_server_answers_as_a_real_one() {
    let cluster = ControlPlane::shared();
    cluster.apply(CRD);
    cluster.kubectl_ok(&[
        "wait",
        "--for=condition=Established",
        "crd/widgets.conformance.chancery.dev",
        "--timeout=30s",
    ]);
    let real = cluster.admin_client();
    let ours = embedded();
    let mut report = String::new();
    let mut calls = 0;
    for (index, scenario) in scenarios().iter().enumerate() {
        let name = format!("conformance-{index}");
        namespace(&real, &name).await;
        namespace(&ours, &name).await;
        let mut real = Server::new(real.clone(), &name);
        let mut ours = Server::new(ours.clone(), &name);
        for call in &scenario.calls {
            calls += 1;
            let expected = real.call(call).await;
            let found = ours.call(call).await;
            let difference = DIFFERENCES
                .iter()
                .find(|(s, c, ..)| *s == scenario.name && call.starts_with(c));
            let same = expected == found;
            let tolerated = match difference {
                None => same,
                Some((_, _, Part::All, _)) => !same,
                Some((_, _, Part::Message, _)) => {
                    !same && without_words(&expected) == without_words(&found)
                }
            };
            if !tolerated {
                let stale = if same {
                    " (listed as different, but it is not)"
                } else {
                    ""
                };
                let _ = writeln!(
                    report,
                    "\n{}: {call}{stale}\n  real: {} {:?} {}\n  ours: {} {:?} {}",
                    scenario.name,
                    expected.code,
                    expected.warnings,
                    expected.body,
                    found.code,
                    found.warnings,
                    found.body,
                );
            }
        }
    }
    println!("{calls} calls");
    assert!(report.is_empty(), "the answers differ:\n{report}");
}
