//! `/version`, `/api`, `/apis`: enough for kube's discovery and for people with `curl`.

use serde_json::{Value, json};

use super::kinds::{Kind, Kinds};
use super::status::Refusal;

/// The Kubernetes version whose behaviour is matched.
const MINOR: &str = "36";

/// A document about the server.
pub fn document(kinds: &Kinds, path: &[String]) -> Result<Value, Refusal> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path[..] {
        ["version"] => Ok(json!({
            "major": "1",
            "minor": MINOR,
            "gitVersion": format!("v1.{MINOR}.0+chancery-embedded"),
            "gitCommit": "",
            "gitTreeState": "",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "rustc",
            "platform": "",
        })),
        ["healthz" | "livez" | "readyz"] => Ok(json!("ok")),
        ["api"] => Ok(json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        })),
        ["apis"] => {
            let mut groups: Vec<Value> = Vec::new();
            for kind in kinds.all().iter().filter(|k| !k.group.is_empty()) {
                if !groups.iter().any(|g| g["name"] == json!(kind.group)) {
                    groups.push(group(kind));
                }
            }
            Ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => kinds
            .all()
            .iter()
            .find(|k| k.group == name && !name.is_empty())
            .map(|kind| {
                let mut document = group(kind);
                document["kind"] = json!("APIGroup");
                document["apiVersion"] = json!("v1");
                document
            })
            .ok_or_else(Refusal::no_such_path),
        ["api", version] => resources(kinds, "", version),
        ["apis", group, version] => resources(kinds, group, version),
        _ => Err(Refusal::no_such_path()),
    }
}

fn group(kind: &Kind) -> Value {
    let version = json!({"groupVersion": kind.api_version(), "version": kind.version});
    json!({"name": kind.group, "versions": [version], "preferredVersion": version})
}

fn resources(kinds: &Kinds, group: &str, version: &str) -> Result<Value, Refusal> {
    let mut list = Vec::new();
    let mut group_version = String::new();
    for kind in kinds
        .all()
        .iter()
        .filter(|k| k.group == group && k.version == version)
    {
        group_version = kind.api_version();
        let verbs = if kind.read_only() {
            json!(["get", "list", "watch"])
        } else {
            json!([
                "create", "delete", "get", "list", "patch", "update", "watch"
            ])
        };
        list.push(json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": verbs,
            "shortNames": kind.discovery.0,
            "categories": kind.discovery.1,
        }));
        if kind.status_subresource {
            list.push(json!({
                "name": format!("{}/status", kind.plural),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                "verbs": ["get", "patch", "update"],
            }));
        }
    }
    if list.is_empty() {
        return Err(Refusal::no_such_path());
    }
    Ok(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": list,
    }))
}
