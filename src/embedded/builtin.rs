//! The rules of the built-in kinds (`kubernetes/pkg/apis/core/validation`), as far as Chancery
//! can meet them. Nothing here quotes the data of a Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::field::{Broken, FieldError};
use super::kinds::Builtin;
use super::meta;
use super::names::{config_key, label_key};
use super::status::Refusal;

const DATA_MAX_BYTES: usize = 1024 * 1024;

/// Decodes as the typed Go server does: unknown fields dropped (their paths go to `unknown`), a
/// wrong type refused.
pub fn decode(
    which: Builtin,
    object: &mut Value,
    unknown: &mut Vec<String>,
) -> Result<(), Refusal> {
    match which {
        Builtin::Secret => typed::<Secret>(object, unknown),
        Builtin::ConfigMap => typed::<ConfigMap>(object, unknown),
        Builtin::Namespace => typed::<Namespace>(object, unknown),
        Builtin::ServiceAccount => typed::<ServiceAccount>(object, unknown),
        Builtin::Event => typed::<Event>(object, unknown),
        Builtin::Lease => typed::<Lease>(object, unknown),
        Builtin::CustomResourceDefinition => Err(Refusal::method_not_allowed()),
    }
}

fn typed<T: DeserializeOwned + Serialize>(
    object: &mut Value,
    unknown: &mut Vec<String>,
) -> Result<(), Refusal> {
    // serde's message can quote the value, which in a Secret nobody may read: it is left out.
    let decoded: T = serde_json::from_value(object.clone()).map_err(|why| {
        let kind = object["kind"].as_str().unwrap_or_default();
        let version = object["apiVersion"].as_str().unwrap_or_default();
        let why = if kind == "Secret" {
            "a field has the wrong type or is not base64".to_owned()
        } else {
            why.to_string()
        };
        Refusal::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
        ))
    })?;
    let kept = serde_json::to_value(decoded).map_err(|why| Refusal::internal(&why.to_string()))?;
    meta::unknown_fields(object, &kept, "", unknown);
    *object = kept;
    Ok(())
}

/// Defaults, and the form in which the server keeps an object.
pub fn normalise(which: Builtin, object: &mut Value) {
    let Value::Object(map) = object else { return };
    match which {
        Builtin::Secret => {
            if let Some(Value::Object(plain)) = map.remove("stringData") {
                let data = map.entry("data").or_insert_with(|| json!({}));
                for (key, value) in plain {
                    data[key] = json!(STANDARD.encode(value.as_str().unwrap_or_default()));
                }
            }
            if map.get("type").is_none_or(meta::is_empty) {
                map.insert("type".into(), json!("Opaque"));
            }
            drop_empty(map, &["data"]);
        }
        Builtin::ConfigMap => drop_empty(map, &["data", "binaryData"]),
        Builtin::ServiceAccount => drop_empty(map, &["secrets", "imagePullSecrets"]),
        Builtin::Namespace => {
            let name = map["metadata"]["name"].clone();
            map["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            if map.get("spec").is_none_or(|s| s["finalizers"].is_null()) {
                map.insert("spec".into(), json!({"finalizers": ["kubernetes"]}));
            }
            if map.get("status").is_none_or(|s| s["phase"].is_null()) {
                map.insert("status".into(), json!({"phase": "Active"}));
            }
        }
        Builtin::Event => {
            map.retain(|_, value| !meta::is_empty(value));
            // Go writes these whether they are set or not.
            for (field, empty) in [
                ("deprecatedFirstTimestamp", Value::Null),
                ("deprecatedLastTimestamp", Value::Null),
                ("deprecatedSource", json!({})),
                ("regarding", json!({})),
            ] {
                map.entry(field).or_insert(empty);
            }
        }
        Builtin::Lease => map.retain(|name, value| name == "spec" || !meta::is_empty(value)),
        Builtin::CustomResourceDefinition => {}
    }
}

fn drop_empty(map: &mut Map<String, Value>, fields: &[&str]) {
    for field in fields {
        if map.get(*field).is_some_and(meta::is_empty) {
            map.remove(*field);
        }
    }
}

/// The rules for the content of an object.
pub fn check(which: Builtin, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match which {
        Builtin::Secret => secret(object, &mut errors),
        Builtin::ConfigMap => {
            let mut bytes = 0;
            for bag in ["data", "binaryData"] {
                for (key, value) in entries(object, bag) {
                    check_key(bag, key, &mut errors);
                    if bag == "data" && !object["binaryData"][key].is_null() {
                        errors.push(FieldError::invalid(
                            format!("data[{key}]"),
                            key.as_str(),
                            "duplicate of key present in binaryData",
                        ));
                    }
                    let length = value.as_str().map_or(0, str::len);
                    bytes += if bag == "data" {
                        length
                    } else {
                        length / 4 * 3
                    };
                }
            }
            if bytes > DATA_MAX_BYTES {
                errors.push(FieldError::too_long("", DATA_MAX_BYTES as u64));
            }
        }
        Builtin::Event => event(object, &mut errors),
        Builtin::Lease => lease(object, &mut errors),
        Builtin::Namespace | Builtin::ServiceAccount | Builtin::CustomResourceDefinition => {}
    }
    errors
}

fn entries<'a>(object: &'a Value, bag: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object[bag].as_object().into_iter().flatten()
}

fn check_key(bag: &str, key: &str, errors: &mut Vec<FieldError>) {
    for message in config_key(key) {
        errors.push(FieldError::invalid(format!("{bag}[{key}]"), key, message));
    }
}

fn secret(object: &Value, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for (key, value) in entries(object, "data") {
        check_key("data", key, errors);
        bytes += value.as_str().map_or(0, str::len) / 4 * 3;
    }
    if bytes > DATA_MAX_BYTES {
        errors.push(FieldError::too_long("data", DATA_MAX_BYTES as u64));
    }
    let data = &object["data"];
    let mut need = |keys: &[&str]| {
        for key in keys {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    };
    match object["type"].as_str().unwrap_or_default() {
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if data[key].is_null() {
                    need(&[key]);
                }
            }
        }
        "kubernetes.io/basic-auth" if data["username"].is_null() && data["password"].is_null() => {
            need(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if meta::is_empty(&data["ssh-privatekey"]) => {
            need(&["ssh-privatekey"]);
        }
        "kubernetes.io/dockerconfigjson" if data[".dockerconfigjson"].is_null() => {
            need(&[".dockerconfigjson"]);
        }
        "kubernetes.io/dockercfg" if data[".dockercfg"].is_null() => need(&[".dockercfg"]),
        _ => {}
    }
}

fn event(object: &Value, errors: &mut Vec<FieldError>) {
    let namespace = meta::text(object, "namespace");
    let regards = object["regarding"]["namespace"]
        .as_str()
        .unwrap_or_default();
    if regards.is_empty() && !matches!(namespace, "default" | "kube-system") {
        let why = "does not match event.namespace";
        errors.push(FieldError::invalid("involvedObject.namespace", "", why));
    }
    for field in [
        "reportingController",
        "reportingInstance",
        "action",
        "reason",
    ] {
        let value = object[field].as_str().unwrap_or_default();
        if value.is_empty() {
            errors.push(FieldError::required(field, ""));
        }
        if field == "reportingController" {
            for message in label_key(value) {
                errors.push(FieldError::invalid(field, value, message));
            }
        } else if value.len() > 128 {
            errors.push(FieldError::invalid(
                field,
                "",
                "can have at most 128 characters",
            ));
        }
    }
    let sort = object["type"].as_str().unwrap_or_default();
    if !matches!(sort, "Normal" | "Warning") {
        errors.push(FieldError::invalid(
            "type",
            "",
            format!("has invalid value: {sort}"),
        ));
    }
    if object["note"].as_str().map_or(0, str::len) > 1024 {
        errors.push(FieldError::invalid(
            "message",
            "",
            "can have at most 1024 characters",
        ));
    }
    let series = &object["series"];
    if series["count"].as_i64().is_some_and(|count| count < 2) {
        errors.push(FieldError::invalid(
            "series.count",
            "",
            "should be at least 2",
        ));
    }
}

fn lease(object: &Value, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64()
        && seconds <= 0
    {
        errors.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            seconds,
            "must be greater than 0",
        ));
    }
    if let Some(count) = spec["leaseTransitions"].as_i64()
        && count < 0
    {
        errors.push(FieldError::invalid(
            "spec.leaseTransitions",
            count,
            "must be greater than or equal to 0",
        ));
    }
}

/// What an update may not change.
pub fn check_update(which: Builtin, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if which == Builtin::Secret && new["type"] != old["type"] {
        errors.push(FieldError::of(
            Broken::Invalid,
            "type",
            Some(new["type"].clone()),
            "field is immutable",
        ));
    }
    if matches!(which, Builtin::Secret | Builtin::ConfigMap) && old["immutable"] == json!(true) {
        let why = "field is immutable when `immutable` is set";
        if new["immutable"] != json!(true) {
            errors.push(FieldError::forbidden("immutable", why));
        }
        for bag in ["data", "binaryData"] {
            if new[bag] != old[bag] {
                errors.push(FieldError::forbidden(bag, why));
            }
        }
    }
    errors
}
