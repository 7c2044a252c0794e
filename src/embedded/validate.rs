//! What a schema forbids, in the words of the real server (`kube-openapi/pkg/validation`), and
//! the uniqueness of list items (`apiextensions-apiserver/pkg/apiserver/schema/listtype`).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::field::{Broken, FieldError, go_float};
use super::schema::{Node, Schema, join};

/// Everything in `new` that the schema forbids. What has not changed since `old` is let be
/// ("ratcheting"), so that a stricter schema does not make an old object unwritable.
pub fn check(schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(&schema.root, new, old, "", &mut errors);
    errors
}

/// As [`check`], for the status alone.
pub fn check_status(schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(node) = schema.root.properties.get("status") {
        walk(node, new, old, "", &mut errors);
        // The real server checks the status as a document of its own and puts its name before
        // every path afterwards; only the sentence still names the place within the status.
        for error in &mut errors {
            error.field = match error.field.as_str() {
                "" | "<nil>" => "status".to_owned(),
                inner => join("status", inner),
            };
        }
    }
    errors
}

/// The item of the old list that an item of a new one continues: only a list with map keys
/// says which that is.
pub fn correlate<'a>(node: &Node, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    if node.list_type != "map" {
        return None;
    }
    let key = map_key(node, item)?;
    let old = old?.as_array()?;
    old.iter().find(|o| map_key(node, o).as_ref() == Some(&key))
}

fn map_key(node: &Node, item: &Value) -> Option<Value> {
    let map = item.as_object()?;
    let mut key = Map::new();
    for name in &node.list_map_keys {
        if let Some(value) = map.get(name) {
            key.insert(name.clone(), value.clone());
        }
    }
    Some(Value::Object(key))
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Where a value has another type than its schema names: what is wanted, and what is found.
///
/// The oddities are the real server's: where the schema has a format, a number or an object is
/// measured by that, and a list passes for a text.
fn mistyped(node: &Node, value: &Value) -> Option<(String, &'static str)> {
    if node.types.is_empty() {
        return None;
    }
    let is = |name: &str| node.types.iter().any(|t| t == name);
    let found = json_type(value);
    let (fits, width) = match value {
        Value::Null => (node.nullable, ""),
        Value::Number(n) if n.is_f64() => (
            is("number") || (is("integer") && n.as_f64().is_some_and(|f| f.fract() == 0.0)),
            "float64",
        ),
        Value::Number(_) => (is("integer") || is("number"), "int64"),
        _ => (is(found), ""),
    };
    if fits {
        return None;
    }
    let numeric = is("number") || is("integer");
    match value {
        _ if node.format.is_empty() => {}
        Value::Null => {}
        Value::String(_) | Value::Array(_) if numeric => {}
        Value::String(_) | Value::Array(_) => return None,
        _ if width == node.format => {}
        _ => return Some((node.format.clone(), width)),
    }
    Some((node.types.join(","), found))
}

/// A number of 64 bits without a fraction, which JSON may write with one (`2.0`).
fn whole_number(value: f64) -> Option<i64> {
    go_float(value).parse().ok()
}

fn walk(node: &Node, new: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    if old == Some(new) {
        return;
    }
    let place = path.trim_start_matches('.');
    // How a path stands within a sentence: the whole object has an empty name there.
    let says = |what: String| format!("{path} in body {what}");
    if let Some((wanted, found)) = mistyped(node, new) {
        errors.push(FieldError::of(
            Broken::TypeInvalid,
            place,
            Some(json!(found)),
            says(format!("must be of type {wanted}: \"{found}\"")),
        ));
    }
    if new.is_null() {
        enumeration(node, new, place, errors);
        return;
    }
    branches(node, new, old, path, errors);
    let invalid = |what: String| FieldError::invalid(place, new.clone(), says(what));
    match new {
        Value::String(text) => string(node, text, place, path, errors),
        Value::Number(number) => {
            let value = number.as_f64().unwrap_or_default();
            if let Some(factor) = node.multiple_of
                && (value / factor).fract() != 0.0
            {
                errors.push(invalid(format!(
                    "should be a multiple of {}",
                    go_float(factor)
                )));
            }
            if let Some((max, exclusive)) = node.maximum
                && (value > max || (exclusive && value >= max))
            {
                let or_equal = if exclusive { "" } else { " or equal to" };
                errors.push(invalid(format!(
                    "should be less than{or_equal} {}",
                    go_float(max)
                )));
            }
            if let Some((min, exclusive)) = node.minimum
                && (value < min || (exclusive && value <= min))
            {
                let or_equal = if exclusive { "" } else { " or equal to" };
                errors.push(invalid(format!(
                    "should be greater than{or_equal} {}",
                    go_float(min)
                )));
            }
            let whole = number.as_i64().or_else(|| whole_number(value));
            let too_wide = match node.format.as_str() {
                "int32" => whole.is_none_or(|n| i32::try_from(n).is_err()),
                _ => whole.is_none(),
            };
            if node.types == ["integer"] && too_wide {
                let format = match node.format.as_str() {
                    "int32" | "int64" => format!("with format {}", node.format),
                    _ => "(default format)".to_owned(),
                };
                errors.push(FieldError::invalid(
                    "<nil>",
                    "",
                    format!("Checked value must be of type integer {format} in {place}"),
                ));
            }
        }
        Value::Array(items) => array(node, items, old, path, errors),
        _ => {}
    }
    enumeration(node, new, place, errors);
    if let Value::Object(map) = new {
        object(node, map, old, path, errors);
    }
}

fn enumeration(node: &Node, value: &Value, place: &str, errors: &mut Vec<FieldError>) {
    if node.enumeration.is_empty() || node.enumeration.contains(value) {
        return;
    }
    let allowed: Vec<String> = node
        .enumeration
        .iter()
        .map(|v| super::field::go_quote(&v.as_str().map_or_else(|| v.to_string(), str::to_owned)))
        .collect();
    errors.push(FieldError::of(
        Broken::NotSupported,
        place,
        Some(value.clone()),
        format!("supported values: {}", allowed.join(", ")),
    ));
}

fn string(node: &Node, text: &str, place: &str, path: &str, errors: &mut Vec<FieldError>) {
    let length = text.chars().count() as u64;
    // Only the first of these three is reported, as in the real server.
    if let Some(max) = node.max_length.filter(|max| length > *max) {
        errors.push(FieldError::too_long(place, max));
    } else if let Some(min) = node.min_length.filter(|min| length < *min) {
        errors.push(FieldError::invalid(
            place,
            text,
            format!("{path} in body should be at least {min} chars long"),
        ));
    } else if let Some((pattern, _)) = node
        .pattern
        .as_ref()
        .filter(|(_, regex)| !regex.is_match(text))
    {
        errors.push(FieldError::invalid(
            place,
            text,
            format!("{path} in body should match '{pattern}'"),
        ));
    }
    if !super::formats::holds(&node.format, text) {
        errors.push(FieldError::of(
            Broken::TypeInvalid,
            place,
            Some(json!(text)),
            format!(
                "{path} in body must be of type {}: {}",
                node.format,
                super::field::go_quote(text)
            ),
        ));
    }
}

fn array(
    node: &Node,
    items: &[Value],
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let place = path.trim_start_matches('.');
    if let Some(child) = &node.items {
        for (i, inner) in items.iter().enumerate() {
            walk(
                child,
                inner,
                correlate(node, inner, old),
                &format!("{path}[{i}]"),
                errors,
            );
        }
    }
    if let Some(min) = node.min_items.filter(|min| (items.len() as u64) < *min) {
        errors.push(FieldError::invalid(
            place,
            items.len(),
            format!("{path} in body should have at least {min} items"),
        ));
    }
    if let Some(max) = node.max_items.filter(|max| items.len() as u64 > *max) {
        errors.push(FieldError::too_many(place, items.len(), max));
    }
    if node.unique_items && (1..items.len()).any(|i| items[..i].contains(&items[i])) {
        errors.push(FieldError::invalid(
            place,
            "",
            format!("{path} in body shouldn't contain duplicates"),
        ));
    }
}

fn object(
    node: &Node,
    map: &Map<String, Value>,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let place = path.trim_start_matches('.');
    let count = map.len();
    if let Some(min) = node.min_properties.filter(|min| (count as u64) < *min) {
        errors.push(FieldError::invalid(
            place,
            count,
            format!("{path} in body should have at least {min} properties"),
        ));
    }
    if let Some(max) = node.max_properties.filter(|max| count as u64 > *max) {
        errors.push(FieldError::too_many(place, count, max));
    }
    for (name, inner) in map {
        if let Some(child) = node.field(name) {
            // Within the real server, only the names of fields that the schema does not list
            // are put after a full stop at the root.
            let inner_path = if node.properties.contains_key(name) {
                join(path, name)
            } else {
                format!("{path}.{name}")
            };
            walk(
                child,
                inner,
                old.and_then(|o| o.get(name)),
                &inner_path,
                errors,
            );
        }
    }
    for name in &node.required {
        if !map.contains_key(name) {
            errors.push(FieldError::required(join(place, name), ""));
        }
    }
}

fn branches(
    node: &Node,
    new: &Value,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let attempt = |branch: &Node| {
        let mut found = Vec::new();
        walk(branch, new, old, path, &mut found);
        found
    };
    // The real server reports composite failures against no field at all.
    let composite = |what: String| {
        let name = if path.is_empty() {
            "\"\"".to_owned()
        } else {
            format!("\"{path}\"")
        };
        FieldError::invalid("<nil>", "", format!("{name} {what}"))
    };
    if !node.any_of.is_empty() {
        let tries: Vec<_> = node.any_of.iter().map(attempt).collect();
        if tries.iter().all(|t| !t.is_empty()) {
            errors.push(composite(
                "must validate at least one schema (anyOf)".into(),
            ));
            errors.extend(tries.into_iter().min_by_key(Vec::len).unwrap_or_default());
        }
    }
    if !node.one_of.is_empty() {
        let tries: Vec<_> = node.one_of.iter().map(attempt).collect();
        let valid = tries.iter().filter(|t| t.is_empty()).count();
        if valid != 1 {
            let found = if valid == 0 {
                "Found none valid".to_owned()
            } else {
                format!("Found {valid} valid alternatives")
            };
            errors.push(composite(format!(
                "must validate one and only one schema (oneOf). {found}"
            )));
            if valid == 0 {
                errors.extend(tries.into_iter().min_by_key(Vec::len).unwrap_or_default());
            }
        }
    }
    if !node.all_of.is_empty() {
        let tries: Vec<_> = node.all_of.iter().map(attempt).collect();
        let valid = tries.iter().filter(|t| t.is_empty()).count();
        if valid != node.all_of.len() {
            let rest = if valid == 0 { ". None validated" } else { "" };
            errors.extend(tries.into_iter().flatten());
            errors.push(composite(format!(
                "must validate all the schemas (allOf){rest}"
            )));
        }
    }
    if node
        .not
        .as_deref()
        .is_some_and(|not| attempt(not).is_empty())
    {
        errors.push(composite("must not validate the schema (not)".into()));
    }
}

/// Items that a list of type `set` or `map` holds twice.
pub fn check_lists(schema: &Schema, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    lists(&schema.root, object, "", &mut errors);
    errors
}

fn lists(node: &Node, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                if let Some(child) = node.field(name) {
                    let place = if node.properties.contains_key(name) {
                        join(path, name)
                    } else {
                        format!("{path}[{name}]")
                    };
                    lists(child, inner, &place, errors);
                }
            }
        }
        Value::Array(items) => {
            let mut seen = BTreeSet::new();
            for (i, item) in items.iter().enumerate() {
                let key = match node.list_type.as_str() {
                    "set" => Some(item.clone()),
                    "map" => map_key(node, item),
                    _ => None,
                };
                if let Some(key) = key
                    && !seen.insert(key.to_string())
                {
                    errors.push(FieldError::duplicate(format!("{path}[{i}]"), key));
                }
            }
            if let Some(child) = &node.items {
                for (i, item) in items.iter().enumerate() {
                    lists(child, item, &format!("{path}[{i}]"), errors);
                }
            }
        }
        _ => {}
    }
}
