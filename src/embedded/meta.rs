//! Object metadata: its form, and the rules that hold for every kind
//! (`k8s.io/apimachinery/pkg/api/validation`).

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::field::{FieldError, go_quote};
use super::names::{dns_label, dns_subdomain, label_key, label_value};
use super::status::Refusal;

const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

/// A time as metadata has it: whole seconds.
pub fn time(at: Timestamp) -> Value {
    json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A string field of an object's metadata.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// The object's metadata, made if it has none.
pub fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    match &mut object["metadata"] {
        Value::Object(map) => map,
        // The lines above made it an object.
        _ => unreachable!("metadata was just made an object"),
    }
}

/// The finalizers of an object.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = object["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten();
    list.filter_map(Value::as_str).collect()
}

/// Whether a delete has been asked for and something still holds the object.
pub fn is_terminating(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Brings metadata into the form that a typed server gives it: unknown fields dropped (their
/// paths go to `unknown`), empty ones left out, `managedFields` not kept.
pub fn normalise(object: &mut Value, unknown: &mut Vec<String>) -> Result<(), Refusal> {
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    let given = object["metadata"].clone();
    let typed: ObjectMeta = serde_json::from_value(given.clone())
        .map_err(|why| Refusal::bad_request(format!("metadata can not be read: {why}")))?;
    let mut kept = serde_json::to_value(typed)
        .map_err(|why| Refusal::internal(&format!("metadata: {why}")))?;
    unknown_fields(&given, &kept, "metadata", unknown);
    if let Value::Object(map) = &mut kept {
        map.remove("managedFields");
        map.remove("selfLink");
        map.retain(|_, value| !is_empty(value));
    }
    object["metadata"] = kept;
    Ok(())
}

/// Whether Go's `omitempty` leaves a value out.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Bool(_) => false,
    }
}

/// The paths of what `given` has and `kept`, which is what a typed decoder made of it, has not.
pub fn unknown_fields(given: &Value, kept: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (name, value) in given {
                let place = super::schema::join(path, name);
                match kept.get(name) {
                    Some(inner) => unknown_fields(value, inner, &place, unknown),
                    None if value.is_null() => {}
                    None => unknown.push(place),
                }
            }
        }
        (Value::Array(given), Value::Array(kept)) => {
            for (i, (value, inner)) in given.iter().zip(kept).enumerate() {
                unknown_fields(value, inner, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

/// The rules for metadata at a create.
pub fn check_create(object: &Value, namespaced: bool, name_is_label: bool) -> Vec<FieldError> {
    let check_name = if name_is_label {
        dns_label
    } else {
        dns_subdomain
    };
    let mut errors = Vec::new();
    let prefix = text(object, "generateName");
    if !prefix.is_empty() {
        // The generated part follows, so that a prefix may well end in a dash.
        let mut masked = prefix.to_owned();
        if masked.len() > 1 && masked.ends_with('-') {
            masked.pop();
            masked.push('a');
        }
        for message in check_name(&masked) {
            errors.push(FieldError::invalid(
                "metadata.generateName",
                prefix,
                message,
            ));
        }
    }
    let name = text(object, "name");
    if name.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else {
        for message in check_name(name) {
            errors.push(FieldError::invalid("metadata.name", name, message));
        }
    }
    if !namespaced && !text(object, "namespace").is_empty() {
        errors.push(FieldError::forbidden(
            "metadata.namespace",
            "not allowed on this type",
        ));
    }
    common(object, &mut errors);
    let list = finalizers(object);
    for finalizer in &list {
        for message in label_key(finalizer) {
            errors.push(FieldError::invalid(
                "metadata.finalizers",
                *finalizer,
                message,
            ));
        }
    }
    errors
}

/// The rules for metadata at an update.
pub fn check_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if is_terminating(old) {
        let before = finalizers(old);
        let mut extra: Vec<_> = finalizers(new)
            .into_iter()
            .filter(|f| !before.contains(f))
            .collect();
        extra.sort_unstable();
        extra.dedup();
        if !extra.is_empty() {
            let quoted: Vec<_> = extra.into_iter().map(go_quote).collect();
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    quoted.join(", ")
                ),
            ));
        }
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let (now, before) = (&new["metadata"][field], &old["metadata"][field]);
        if now != before {
            let shown = if field == "uid" && now.is_null() {
                json!("")
            } else {
                now.clone()
            };
            errors.push(FieldError::invalid(
                format!("metadata.{field}"),
                shown,
                "field is immutable",
            ));
        }
    }
    common(new, &mut errors);
    errors
}

fn common(object: &Value, errors: &mut Vec<FieldError>) {
    let strings = |field: &str| {
        let map = object["metadata"][field].as_object().into_iter().flatten();
        map.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect::<Vec<_>>()
    };
    for (key, value) in strings("labels") {
        for message in label_key(&key) {
            errors.push(FieldError::invalid(
                "metadata.labels",
                key.as_str(),
                message,
            ));
        }
        for message in label_value(&value) {
            errors.push(FieldError::invalid(
                "metadata.labels",
                value.as_str(),
                message,
            ));
        }
    }
    let mut bytes = 0;
    for (key, value) in strings("annotations") {
        bytes += key.len() + value.len();
        for message in label_key(&key.to_lowercase()) {
            errors.push(FieldError::invalid(
                "metadata.annotations",
                key.as_str(),
                message,
            ));
        }
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        errors.push(FieldError::too_long(
            "metadata.annotations",
            ANNOTATIONS_MAX_BYTES as u64,
        ));
    }
    owner_references(object, errors);
}

fn owner_references(object: &Value, errors: &mut Vec<FieldError>) {
    let path = "metadata.ownerReferences";
    let references = &object["metadata"]["ownerReferences"];
    let mut controller: Option<String> = None;
    for reference in references.as_array().into_iter().flatten() {
        let field = |name: &str| reference[name].as_str().unwrap_or_default();
        // The real server, too, puts the path of the list here, not that of the item.
        if field("apiVersion").is_empty() {
            errors.push(FieldError::invalid(
                format!("{path}.apiVersion"),
                "",
                "version must not be empty",
            ));
        }
        for name in ["kind", "name", "uid"] {
            if field(name).is_empty() {
                errors.push(FieldError::invalid(
                    format!("{path}.{name}"),
                    "",
                    "must not be empty",
                ));
            }
        }
        if reference["controller"] == json!(true) {
            let this = format!("{}/{}", field("kind"), field("name"));
            if let Some(first) = &controller {
                errors.push(FieldError::invalid(
                    path,
                    references.clone(),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                ));
            } else {
                controller = Some(this);
            }
        }
    }
}
