//! What the CRDs demand, as a list: so that a test can prove that the corpus tries each demand.

use super::corpus;
use regex::Regex;
use serde_json::Value;
use std::path::Path;

/// The committed CRDs, by file name.
pub fn committed() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let mut all: Vec<(String, Value)> = std::fs::read_dir(&folder)
        .expect("the folder crds")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            let crd = serde_saphyr::from_str(&corpus::text_of(&path)).expect("a CRD");
            let name = path.file_name().expect("a file").to_string_lossy();
            (name.into_owned(), crd)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

pub fn kind(crd: &Value) -> &str {
    crd["spec"]["names"]["kind"].as_str().expect("a kind")
}

pub fn root(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// Calls `visit` for every place of a schema with its path, such as `spec.scopes[0]`.
pub fn walk<'a>(node: &'a Value, path: &str, visit: &mut dyn FnMut(&str, &'a Value)) {
    visit(path, node);
    for (name, inner) in node["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        walk(inner, &path, visit);
    }
    // The corpus names an entry of a map so.
    if node["additionalProperties"].is_object() {
        walk(
            &node["additionalProperties"],
            &format!("{path}.team"),
            visit,
        );
    }
    if node["items"].is_object() {
        walk(&node["items"], &format!("{path}[0]"), visit);
    }
}

/// A demand, and what the refusal of who breaks it looks like.
pub struct Demand {
    pub what: String,
    pub refusal: Regex,
}

/// Everything that a schema demands of what a person writes (status is the operator's).
pub fn demands(crd: &Value) -> Vec<Demand> {
    let mut demands = Vec::new();
    walk(root(crd), "", &mut |path, node| {
        if path.starts_with("status") {
            return;
        }
        let place = regex::escape(path).replace('0', "[0-9]+");
        let mut demand = |what: &str, refusal: String| {
            demands.push(Demand {
                what: format!("{}: {path}: {what}", kind(crd)),
                refusal: Regex::new(&refusal).expect("a pattern"),
            });
        };
        for rule in node["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let message = rule["message"].as_str().expect("every rule has a sentence");
            demand(message, regex::escape(message));
        }
        for (keyword, refusal) in [
            ("enum", format!("{place}: Unsupported value: ")),
            (
                "minimum",
                format!("{place} in body should be greater than or equal"),
            ),
            (
                "maximum",
                format!("{place} in body should be less than or equal"),
            ),
            ("minItems", format!("{place} in body should have at least")),
            ("maxItems", format!("{place}: Too many")),
            ("maxLength", format!("{place}: Too long")),
            ("minLength", format!("{place} in body should be at least")),
            ("pattern", format!("{place} in body should match")),
            ("format", format!("{place} in body must be of type")),
        ] {
            // A number's format is its width, and a text's is what it looks like.
            let counts = keyword != "format" || node["type"] == "string";
            if !node[keyword].is_null() && counts {
                demand(keyword, refusal);
            }
        }
        for field in node["required"].as_array().into_iter().flatten() {
            let field = field.as_str().expect("a name");
            let place = if path.is_empty() {
                field.to_owned()
            } else {
                format!(r"{place}\.{field}")
            };
            demand(
                &format!("required {field}"),
                format!("^{place}: Required value"),
            );
        }
        if matches!(node["x-kubernetes-list-type"].as_str(), Some("set" | "map")) {
            demand(
                "no duplicates",
                format!(r"{place}\[[0-9]+\]: Duplicate value"),
            );
        }
    });
    demands
}
