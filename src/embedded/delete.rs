//! DELETE.

use serde_json::json;

use super::field::FieldError;
use super::gc::{self, Fate};
use super::kinds::Builtin;
use super::request::{Options, key};
use super::status::Refusal;
use super::store::State;
use super::write::{Whose, Written};
use super::{Inner, admit, meta};

/// DELETE of one object.
pub fn delete(
    inner: &Inner,
    state: &mut State,
    whose: &Whose<'_>,
    body: &[u8],
    options: &Options,
) -> Result<Written, Refusal> {
    let Whose {
        kind,
        namespace,
        name,
        ..
    } = *whose;
    let given = if body.is_empty() {
        json!({})
    } else {
        admit::parse(body)?
    };
    let propagation = given["propagationPolicy"]
        .as_str()
        .or(options.propagation.as_deref());
    let orphan = match propagation {
        None | Some("Background") => false,
        Some("Orphan") => true,
        Some("Foreground") => {
            return Err(Refusal::bad_request(
                "propagationPolicy Foreground is not served here: Background and Orphan are",
            ));
        }
        Some(other) => {
            let allowed = ["Foreground", "Background", "Orphan", "nil"];
            let error = FieldError::not_supported("propagationPolicy", other, &allowed);
            return Err(Refusal::invalid_option("DeleteOptions", error));
        }
    };
    let at = key(namespace, name);
    let object = state
        .get(kind, &at)
        .ok_or_else(|| Refusal::not_found(kind, name))?;
    let object = object.value.clone();
    let uid = meta::text(&object, "uid");
    let wanted = &given["preconditions"];
    if let Some(expected) = wanted["uid"].as_str()
        && expected != uid
    {
        let why = format!(
            "the UID in the precondition ({expected}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        );
        return Err(Refusal::precondition(kind, name, &why));
    }
    let version = meta::text(&object, "resourceVersion");
    if let Some(expected) = wanted["resourceVersion"].as_str()
        && expected != version
    {
        let why = format!(
            "the ResourceVersion in the precondition ({expected}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        );
        return Err(Refusal::precondition(kind, name, &why));
    }
    if kind.builtin() == Some(Builtin::Namespace)
        && matches!(name, "default" | "kube-system" | "kube-public")
    {
        return Err(Refusal::forbidden(
            kind,
            name,
            "this namespace may not be deleted",
        ));
    }
    if !(options.dry_run || given["dryRun"] == json!(["All"])) {
        if orphan {
            gc::orphan(inner, state, uid)?;
        }
        if let Fate::Held(object) = gc::terminate(inner, state, kind, &at)? {
            return Ok(Written::ok(object, Vec::new()));
        }
    }
    let mut details = json!({"name": name, "kind": kind.plural, "uid": uid});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    let body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    });
    Ok(Written::ok(body, Vec::new()))
}
