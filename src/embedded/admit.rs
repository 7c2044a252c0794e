//! From the bytes of a request to an object that may be kept: decoding, defaults, checks.

use serde_json::{Value, json};

use super::builtin;
use super::field::FieldError;
use super::kinds::{Builtin, Kind, Rules};
use super::meta;
use super::request::FieldValidation;
use super::rules;
use super::status::Refusal;
use super::validate;

/// An object as the server understood it.
pub struct Decoded {
    /// The object.
    pub object: Value,
    /// What the client should know of.
    pub warnings: Vec<String>,
}

/// A request's body as JSON.
pub fn parse(body: &[u8]) -> Result<Value, Refusal> {
    let value: Value = serde_json::from_slice(body).map_err(|why| {
        // Where it is wrong is said, not what stands there: the body may be a Secret.
        Refusal::bad_request(format!(
            "the object provided is unrecognized (must be of type Status or a known kind): couldn't get version/kind; json parse error at line {} column {}",
            why.line(),
            why.column()
        ))
    })?;
    if value.is_object() {
        return Ok(value);
    }
    Err(Refusal::bad_request(
        "the body of the request is not a JSON object",
    ))
}

/// The body of a merge patch.
pub fn parse_patch(body: &[u8]) -> Result<Value, Refusal> {
    parse(body).map_err(|_| Refusal::bad_request("error decoding patch: it is not a JSON object"))
}

/// Reads an object of `kind`; fields that it does not have are dropped, and told of as asked.
/// `patched` is the object's name where a patch made the document.
pub fn decode(
    kind: &Kind,
    mut object: Value,
    validation: FieldValidation,
    patched: Option<&str>,
) -> Result<Decoded, Refusal> {
    type_meta(kind, &mut object, patched)?;
    let mut unknown = Vec::new();
    match &kind.rules {
        Rules::Builtin(which) => builtin::decode(*which, &mut object, &mut unknown)?,
        Rules::Custom(schema) => unknown = schema.prune(&mut object),
    }
    meta::normalise(&mut object, &mut unknown)?;
    unknown.sort();
    unknown.dedup();
    let sentences: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect();
    if validation == FieldValidation::Strict && !sentences.is_empty() {
        let why = format!("strict decoding error: {}", sentences.join(", "));
        return Err(match patched {
            // The real server quotes the whole object here, which may be a Secret.
            Some(_) => Refusal::invalid("", "", "", &[FieldError::invalid_unquoted("patch", why)]),
            None => Refusal::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: {why}",
                kind.kind, kind.version, kind.kind
            )),
        });
    }
    let warnings = if validation == FieldValidation::Warn {
        sentences
    } else {
        Vec::new()
    };
    Ok(Decoded { object, warnings })
}

fn type_meta(kind: &Kind, object: &mut Value, patched: Option<&str>) -> Result<(), Refusal> {
    let expected = kind.api_version();
    if kind.builtin().is_some() && patched.is_none() {
        // The typed server fills in what the URL says already.
        for (field, value) in [("apiVersion", &expected), ("kind", &kind.kind)] {
            if object[field].is_null() {
                object[field] = json!(value);
            }
        }
    }
    for field in ["apiVersion", "kind"] {
        if object[field].as_str().is_none_or(str::is_empty) {
            let name = if field == "kind" {
                "Kind"
            } else {
                "apiVersion"
            };
            return Err(Refusal::bad_request(format!("Object '{name}' is missing")));
        }
    }
    let version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    let given = object["kind"].as_str().unwrap_or_default().to_owned();
    if let (Some(name), None) = (patched, kind.builtin()) {
        let mut errors = Vec::new();
        for (field, given, must) in [
            ("kind", &given, &kind.kind),
            ("apiVersion", &version, &expected),
        ] {
            if given != must {
                errors.push(FieldError::invalid(
                    field,
                    given.as_str(),
                    format!("must be {must}"),
                ));
            }
        }
        if !errors.is_empty() {
            return Err(Refusal::invalid(&kind.group, &given, name, &errors));
        }
    }
    if version != expected {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    if given != kind.kind {
        return Err(Refusal::bad_request(format!(
            "{given} in version \"{}\" cannot be handled as a {}: converting ({given}) to ({}) is not possible",
            kind.version, kind.kind, kind.kind
        )));
    }
    Ok(())
}

/// What the real server says of new finalizers that name no domain.
pub fn finalizer_warnings(kind: &Kind, object: &Value, before: &[&str]) -> Vec<String> {
    let standard = ["orphan", "foregroundDeletion", "kubernetes"];
    let mut fresh = meta::finalizers(object);
    fresh.sort_unstable();
    fresh
        .into_iter()
        .filter(|f| kind.builtin().is_none() && !f.contains('/') && !before.contains(f) && !standard.contains(f))
        .map(|f| {
            let path = if f.contains('.') { " including a path (/)" } else { "" };
            format!(
                "metadata.finalizers: \"{f}\": prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
            )
        })
        .collect()
}

/// Defaults, and the form in which objects are kept.
pub fn normalise(kind: &Kind, object: &mut Value) {
    match &kind.rules {
        Rules::Builtin(which) => builtin::normalise(*which, object),
        Rules::Custom(schema) => {
            let status = object.get("status").cloned();
            schema.default(object);
            // What has no status here is checked without one.
            if kind.status_subresource
                && status.is_none()
                && let Value::Object(map) = object
            {
                map.remove("status");
            }
        }
    }
}

/// The defaults that reading from the store adds.
pub fn default(kind: &Kind, object: &mut Value) {
    if let Rules::Custom(schema) = &kind.rules {
        schema.default(object);
    }
}

/// Everything that is wrong with a new object.
pub fn check_create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let is_label = kind.builtin() == Some(Builtin::Namespace);
    let mut errors = meta::check_create(object, kind.namespaced, is_label);
    match &kind.rules {
        Rules::Builtin(which) => errors.extend(builtin::check(*which, object)),
        Rules::Custom(schema) => {
            errors.extend(validate::check(schema, object, None));
            errors.extend(validate::check_lists(schema, object));
            add_rules(schema, object, None, &mut errors);
        }
    }
    errors
}

/// Everything that is wrong with a changed object.
pub fn check_update(kind: &Kind, new: &Value, old: &Value, status: bool) -> Vec<FieldError> {
    let mut errors = meta::check_update(new, old);
    match &kind.rules {
        Rules::Builtin(which) => {
            errors.extend(builtin::check_update(*which, new, old));
            errors.extend(builtin::check(*which, new));
        }
        Rules::Custom(schema) => {
            if status {
                if let Some(new) = new.get("status") {
                    errors.extend(validate::check_status(schema, new, old.get("status")));
                }
            } else {
                errors.extend(validate::check(schema, new, Some(old)));
            }
            if validate::check_lists(schema, old).is_empty() {
                errors.extend(validate::check_lists(schema, new));
            }
            add_rules(schema, new, Some(old), &mut errors);
        }
    }
    errors
}

/// CEL rules are tried only on what has the form that their types promise.
fn add_rules(
    schema: &super::schema::Schema,
    new: &Value,
    old: Option<&Value>,
    errors: &mut Vec<FieldError>,
) {
    if errors.iter().any(|e| e.kind.blocks_rules()) {
        errors.push(FieldError::invalid(
            "<nil>",
            Value::Null,
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ));
    } else {
        errors.extend(rules::check(schema, new, old));
    }
}
