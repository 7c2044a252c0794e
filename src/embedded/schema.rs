//! The structural schema of a custom resource: pruning of unknown fields and defaults.
//! What it forbids is checked in [`validate`](super::validate) and [`rules`](super::rules).

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::rules::Rule;

/// The schema of one kind.
pub struct Schema {
    /// The whole object.
    pub root: Node,
}

/// What may stand in one place of an object (`JSONSchemaProps`, compiled).
#[derive(Default)]
pub struct Node {
    /// `type`; empty where the schema names none.
    pub types: Vec<String>,
    /// `nullable`.
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// `properties`.
    pub properties: BTreeMap<String, Node>,
    /// `additionalProperties`, if it is a schema.
    pub additional: Option<Box<Node>>,
    /// `additionalProperties: true`.
    pub any_additional: bool,
    /// `items`.
    pub items: Option<Box<Node>>,
    /// `required`.
    pub required: Vec<String>,
    /// `enum`.
    pub enumeration: Vec<Value>,
    /// `pattern`, as written and compiled.
    pub pattern: Option<(String, Regex)>,
    /// `format`.
    pub format: String,
    /// `minimum` and whether it is exclusive.
    pub minimum: Option<(f64, bool)>,
    /// `maximum` and whether it is exclusive.
    pub maximum: Option<(f64, bool)>,
    /// `multipleOf`.
    pub multiple_of: Option<f64>,
    /// `minLength`.
    pub min_length: Option<u64>,
    /// `maxLength`.
    pub max_length: Option<u64>,
    /// `minItems`.
    pub min_items: Option<u64>,
    /// `maxItems`.
    pub max_items: Option<u64>,
    /// `minProperties`.
    pub min_properties: Option<u64>,
    /// `maxProperties`.
    pub max_properties: Option<u64>,
    /// `uniqueItems`.
    pub unique_items: bool,
    /// `allOf`.
    pub all_of: Vec<Node>,
    /// `anyOf`.
    pub any_of: Vec<Node>,
    /// `oneOf`.
    pub one_of: Vec<Node>,
    /// `not`.
    pub not: Option<Box<Node>>,
    /// `default`.
    pub default: Option<Value>,
    /// `x-kubernetes-list-type`.
    pub list_type: String,
    /// `x-kubernetes-list-map-keys`.
    pub list_map_keys: Vec<String>,
    /// `x-kubernetes-validations`.
    pub rules: Vec<Rule>,
}

impl Schema {
    /// Compiles `openAPIV3Schema`; an error says what in it can not be served.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let mut root = Node::compile(schema, "")?;
        // The root's own three fields are every object's, whatever the schema says of them.
        for field in ["apiVersion", "kind"] {
            root.properties.insert(
                field.into(),
                Node {
                    types: vec!["string".into()],
                    ..Node::default()
                },
            );
        }
        let metadata = root.properties.entry("metadata".into()).or_default();
        metadata.types = vec!["object".into()];
        metadata.preserve_unknown = true;
        Ok(Self { root })
    }

    /// Drops what the schema does not know, and names the paths of it.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        prune(&self.root, object, "", &mut unknown);
        unknown.sort();
        unknown
    }

    /// Fills in defaults. As in the real server, a null where none is allowed and a default
    /// exists counts as missing.
    ///
    /// Nulls that are neither allowed nor replaced by a default are dropped.
    pub fn default(&self, object: &mut Value) {
        apply_defaults(&self.root, object);
        drop_nulls(&self.root, object);
    }
}

impl Node {
    fn compile(schema: &Value, path: &str) -> Result<Self, String> {
        let at = |why: &str| {
            format!(
                "its schema at {:?} {why}",
                if path.is_empty() { "." } else { path }
            )
        };
        let Value::Object(map) = schema else {
            return Err(at("is not an object"));
        };
        for unsupported in ["$ref", "patternProperties", "dependencies", "definitions"] {
            if map.contains_key(unsupported) {
                return Err(at(&format!("uses {unsupported}, which CRDs can not")));
            }
        }
        let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
        let number = |key: &str| map.get(key).and_then(Value::as_u64);
        let strings = |key: &str| -> Vec<String> {
            let list = map.get(key).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let text = |key: &str| {
            map.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let bound = |key: &str, exclusive: &str| {
            let limit = map.get(key).and_then(Value::as_f64)?;
            Some((limit, flag(exclusive)))
        };
        let child = |key: &str| -> Result<Option<Box<Node>>, String> {
            match map.get(key) {
                Some(inner @ Value::Object(_)) => Ok(Some(Box::new(Self::compile(
                    inner,
                    &format!("{path}.{key}"),
                )?))),
                _ => Ok(None),
            }
        };
        let branches = |key: &str| -> Result<Vec<Node>, String> {
            let list = map.get(key).and_then(Value::as_array).into_iter().flatten();
            list.map(|inner| Self::compile(inner, &format!("{path}.{key}")))
                .collect()
        };

        let mut properties = BTreeMap::new();
        for (name, inner) in map
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            properties.insert(
                name.clone(),
                Self::compile(inner, &format!("{path}.{name}"))?,
            );
        }
        let types = if flag("x-kubernetes-int-or-string") {
            vec!["integer".into(), "string".into()]
        } else {
            map.get("type")
                .and_then(Value::as_str)
                .map(str::to_owned)
                .into_iter()
                .collect()
        };
        let pattern = match map.get("pattern").and_then(Value::as_str) {
            Some(pattern) => {
                let compiled = Regex::new(pattern)
                    .map_err(|e| at(&format!("has a pattern that does not compile: {e}")))?;
                Some((pattern.to_owned(), compiled))
            }
            None => None,
        };
        Ok(Self {
            types,
            nullable: flag("nullable"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            properties,
            additional: child("additionalProperties")?,
            any_additional: flag("additionalProperties"),
            items: child("items")?,
            required: strings("required"),
            enumeration: map
                .get("enum")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            pattern,
            format: text("format"),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: map.get("multipleOf").and_then(Value::as_f64),
            min_length: number("minLength"),
            max_length: number("maxLength"),
            min_items: number("minItems"),
            max_items: number("maxItems"),
            min_properties: number("minProperties"),
            max_properties: number("maxProperties"),
            unique_items: flag("uniqueItems"),
            all_of: branches("allOf")?,
            any_of: branches("anyOf")?,
            one_of: branches("oneOf")?,
            not: child("not")?,
            default: map.get("default").cloned(),
            list_type: text("x-kubernetes-list-type"),
            list_map_keys: strings("x-kubernetes-list-map-keys"),
            rules: Rule::compile_all(schema).map_err(|why| at(&why))?,
        })
    }

    /// The node for a field of an object here.
    pub fn field(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or(self.additional.as_deref())
    }
}

/// `path.field`, or `field` at the root.
pub fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

fn prune(node: &Node, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let keep = |key: &str| {
                node.properties.contains_key(key)
                    || node.additional.is_some()
                    || node.any_additional
                    || node.preserve_unknown
                    || (node.embedded && matches!(key, "apiVersion" | "kind" | "metadata"))
            };
            map.retain(|key, _| {
                let kept = keep(key);
                if !kept {
                    unknown.push(join(path, key));
                }
                kept
            });
            for (key, inner) in map.iter_mut() {
                if node.embedded && key == "metadata" {
                    continue;
                }
                if let Some(child) = node.field(key) {
                    prune(child, inner, &join(path, key), unknown);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = &node.items {
                for (i, inner) in items.iter_mut().enumerate() {
                    prune(child, inner, &format!("{path}[{i}]"), unknown);
                }
            }
        }
        _ => {}
    }
}

fn apply_defaults(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, child) in &node.properties {
                if let Some(default) = &child.default {
                    let missing = map.get(name).is_none_or(|v| v.is_null() && !child.nullable);
                    if missing {
                        map.insert(name.clone(), default.clone());
                    }
                }
            }
            if let Some(additional) = node.additional.as_deref().filter(|a| a.default.is_some()) {
                fill_nulls(node, additional, map);
            }
            for (name, inner) in map.iter_mut() {
                if let Some(child) = node.field(name) {
                    apply_defaults(child, inner);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = &node.items {
                for inner in items {
                    if let (true, Some(default), false) =
                        (inner.is_null(), &child.default, child.nullable)
                    {
                        *inner = default.clone();
                    }
                    apply_defaults(child, inner);
                }
            }
        }
        _ => {}
    }
}

fn drop_nulls(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, inner| {
                !inner.is_null() || node.field(name).is_none_or(|child| child.nullable)
            });
            for (name, inner) in map.iter_mut() {
                if let Some(child) = node.field(name) {
                    drop_nulls(child, inner);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = &node.items {
                for inner in items {
                    drop_nulls(child, inner);
                }
            }
        }
        _ => {}
    }
}

fn fill_nulls(node: &Node, additional: &Node, map: &mut Map<String, Value>) {
    for (name, inner) in map.iter_mut() {
        if inner.is_null()
            && !additional.nullable
            && !node.properties.contains_key(name)
            && let Some(default) = &additional.default
        {
            *inner = default.clone();
        }
    }
}
