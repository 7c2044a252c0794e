//! `x-kubernetes-validations`: rules in CEL, with transition rules.
//!
//! kube's `cel` evaluates the rules of one place; this walks the object itself, because kube's
//! own walk matches the items of a list with the old ones by position, where a real server
//! matches them by their map keys, and because errors must name the places as it does.

use std::sync::Arc;

use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::{Value, json};

use super::field::{Broken, FieldError};
use super::schema::{Node, Schema, join};
use super::validate::correlate;

/// One rule of one place.
pub struct Rule {
    /// A schema of that place that holds this one rule only.
    compiled: Arc<CompiledSchema>,
    transition: bool,
    field_path: Option<String>,
    reason: Broken,
    text: String,
}

impl Rule {
    /// The rules of one node of a schema; an error says which rule can not be served.
    pub fn compile_all(schema: &Value) -> Result<Vec<Self>, String> {
        let Some(rules) = schema
            .get("x-kubernetes-validations")
            .and_then(Value::as_array)
        else {
            return Ok(Vec::new());
        };
        let mut bare = schema.clone();
        strip(&mut bare);
        rules
            .iter()
            .map(|rule| {
                let text = rule["rule"].as_str().unwrap_or_default().to_owned();
                if rule["optionalOldSelf"] == json!(true) {
                    return Err(format!(
                        "has a rule with optionalOldSelf, which is not supported: {text}"
                    ));
                }
                let mut one = bare.clone();
                let mut plain = rule.clone();
                if let Some(map) = plain.as_object_mut() {
                    map.remove("fieldPath");
                }
                one["x-kubernetes-validations"] = json!([plain]);
                let compiled = compile_schema(&one);
                let transition = match compiled.validations.first() {
                    Some(Ok(result)) => result.is_transition_rule,
                    Some(Err(why)) => {
                        return Err(format!("has a rule that does not compile: {why}"));
                    }
                    None => false,
                };
                Ok(Self {
                    compiled: Arc::new(compiled),
                    transition,
                    field_path: rule["fieldPath"].as_str().map(str::to_owned),
                    reason: match rule["reason"].as_str() {
                        Some("FieldValueForbidden") => Broken::Forbidden,
                        Some("FieldValueRequired") => Broken::Required,
                        Some("FieldValueDuplicate") => Broken::Duplicate,
                        _ => Broken::Invalid,
                    },
                    text,
                })
            })
            .collect()
    }
}

/// Takes the rules out of a schema, at every depth: kube's walk is not wanted.
fn strip(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("x-kubernetes-validations");
            // A default's content is data, not schema, and kube would fill it in a second time.
            map.remove("default");
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Every rule that `new` breaks, given what was there before.
///
/// A rule that does not look at the old value is not held against a value that has not changed
/// ("ratcheting"), as in the real server since 1.33.
pub fn check(schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let validator = Validator::new();
    walk(&validator, &schema.root, new, old, "", &mut errors);
    errors
}

fn walk(
    validator: &Validator,
    node: &Node,
    new: &Value,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if new.is_null() {
        return;
    }
    for rule in &node.rules {
        evaluate(validator, node, rule, new, old, path, errors);
    }
    match new {
        Value::Object(map) => {
            for (name, inner) in map {
                if let Some(child) = node.field(name) {
                    let before = old.and_then(|o| o.get(name));
                    let place = if node.properties.contains_key(name) {
                        join(path, name)
                    } else {
                        format!("{path}[{name}]")
                    };
                    walk(validator, child, inner, before, &place, errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = &node.items {
                for (i, inner) in items.iter().enumerate() {
                    let before = correlate(node, inner, old);
                    walk(
                        validator,
                        child,
                        inner,
                        before,
                        &format!("{path}[{i}]"),
                        errors,
                    );
                }
            }
        }
        _ => {}
    }
    for branch in node.all_of.iter().chain(&node.any_of).chain(&node.one_of) {
        for rule in &branch.rules {
            evaluate(validator, node, rule, new, old, path, errors);
        }
    }
}

fn evaluate(
    validator: &Validator,
    node: &Node,
    rule: &Rule,
    new: &Value,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let old = old.filter(|o| !o.is_null());
    if rule.transition && old.is_none() {
        return;
    }
    let Err(failures) = validator.validate_compiled(&rule.compiled, new, old) else {
        return;
    };
    if !rule.transition && old == Some(new) {
        return;
    }
    // Only what is scalar is quoted; the schema's type decides, as in the real server.
    let structured = node.types.iter().any(|t| t == "object" || t == "array");
    let value = (!structured).then(|| new.clone());
    for failure in failures {
        let (place, detail) = match failure.kind {
            ErrorKind::ValidationFailure => {
                let place = rule.field_path.as_deref().map_or_else(
                    || path.to_owned(),
                    |inner| join(path, inner.trim_start_matches('.')),
                );
                (place, failure.message)
            }
            // Fails closed, in our own words: the real server's are those of its CEL library.
            _ => (
                path.to_owned(),
                format!("{} evaluating rule: {}", failure.message, rule.text),
            ),
        };
        let place = if place.is_empty() {
            "<nil>".to_owned()
        } else {
            place
        };
        errors.push(match rule.reason {
            Broken::Forbidden => FieldError::forbidden(place, detail),
            Broken::Required => FieldError::required(place, detail),
            Broken::Duplicate => FieldError::of(Broken::Duplicate, place, value.clone(), ""),
            _ => FieldError::of(Broken::Invalid, place, value.clone(), detail),
        });
    }
}
