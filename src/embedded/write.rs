//! create, replace and patch, in the order of the real server's generic registry
//! (`k8s.io/apiserver/pkg/registry/generic/registry/store.go`): which of several faults is
//! reported depends on that order.

use serde_json::{Value, json};

use super::Inner;
use super::admit::{self, Decoded};
use super::field::FieldError;
use super::gc;
use super::kinds::{Builtin, Kind};
use super::meta;
use super::request::{Options, key};
use super::status::Refusal;
use super::store::State;

/// The answer to a write.
pub struct Written {
    /// HTTP code.
    pub code: u16,
    /// The document.
    pub body: Value,
    /// Sentences for `Warning` headers.
    pub warnings: Vec<String>,
}

impl Written {
    /// A document and its warnings, with the code 200.
    pub fn ok(body: Value, warnings: Vec<String>) -> Self {
        Self {
            code: 200,
            body,
            warnings,
        }
    }
}

/// POST.
pub fn create(
    inner: &Inner,
    state: &mut State,
    kind: &Kind,
    namespace: &str,
    body: &[u8],
    options: &Options,
) -> Result<Written, Refusal> {
    let Decoded {
        mut object,
        mut warnings,
    } = admit::decode(kind, admit::parse(body)?, options.field_validation, None)?;
    own_namespace(kind, &mut object, namespace)?;
    if kind.namespaced {
        namespace_takes_new(inner, state, kind, namespace, meta::text(&object, "name"))?;
    }
    if !meta::text(&object, "resourceVersion").is_empty() {
        return Err(Refusal::new(
            500,
            "",
            "resourceVersion should not be set on objects to be created",
        ));
    }
    warnings.extend(admit::finalizer_warnings(kind, &object, &[]));
    let uid = state.ids.uid();
    let generated = if meta::text(&object, "name").is_empty()
        && !meta::text(&object, "generateName").is_empty()
    {
        // As in the real server, the prefix is cut to leave room for the ending.
        let prefix: String = meta::text(&object, "generateName")
            .chars()
            .take(58)
            .collect();
        Some(format!("{prefix}{}", state.ids.suffix()))
    } else {
        None
    };
    let metadata = meta::metadata(&mut object);
    if let Some(name) = generated {
        metadata.insert("name".into(), json!(name));
    }
    metadata.insert("uid".into(), json!(uid));
    metadata.insert("creationTimestamp".into(), meta::time(inner.clock.now()));
    for gone in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        metadata.remove(gone);
    }
    if kind.schema().is_some() {
        metadata.insert("generation".into(), json!(1));
    }
    if kind.status_subresource
        && let Value::Object(map) = &mut object
    {
        map.remove("status");
    }
    admit::normalise(kind, &mut object);
    let name = meta::text(&object, "name").to_owned();
    let errors = admit::check_create(kind, &object);
    if !errors.is_empty() {
        return Err(Refusal::invalid(
            kind.error_group(),
            &kind.kind,
            &name,
            &errors,
        ));
    }
    // A default on the status appears when the object is next read from the store: that is in
    // this very answer, but after the checks.
    admit::default(kind, &mut object);
    let at = key(namespace, &name);
    if state.get(kind, &at).is_some() {
        return Err(Refusal::already_exists(kind, &name));
    }
    let body = if options.dry_run {
        object
    } else {
        state.put(kind, object)?.value.clone()
    };
    Ok(Written {
        code: 201,
        body,
        warnings,
    })
}

/// Puts an object into the namespace of the URL; it may name that, or none.
fn own_namespace(kind: &Kind, object: &mut Value, namespace: &str) -> Result<(), Refusal> {
    let given = meta::text(object, "namespace");
    if kind.namespaced {
        if !given.is_empty() && given != namespace {
            return Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        meta::metadata(object).insert("namespace".into(), json!(namespace));
    } else if !given.is_empty() {
        return Err(Refusal::bad_request(
            "namespace must not be set on a cluster-scoped object: the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

fn namespace_takes_new(
    inner: &Inner,
    state: &State,
    kind: &Kind,
    namespace: &str,
    name: &str,
) -> Result<(), Refusal> {
    let namespaces = inner.kinds.builtin(Builtin::Namespace);
    let Some(object) = state.get(namespaces, namespace) else {
        return Err(Refusal::not_found(namespaces, namespace));
    };
    if meta::is_terminating(&object.value) {
        let mut refusal = Refusal::forbidden(
            kind,
            name,
            &format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            ),
        );
        if let Some(details) = &mut refusal.details {
            details["causes"] = json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"),
                "field": "metadata.namespace",
            }]);
        }
        return Err(refusal);
    }
    Ok(())
}

/// What an update brings.
pub enum Update<'a> {
    /// PUT: the whole object.
    Replace(&'a [u8]),
    /// PATCH with a JSON merge patch (RFC 7396).
    MergePatch(&'a [u8]),
}

/// Which object an update is for.
pub struct Whose<'a> {
    /// Its kind.
    pub kind: &'a Kind,
    /// Its namespace; empty for none.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Whether its `status` subresource is meant.
    pub status: bool,
}

/// PUT and PATCH, of an object or its status.
pub fn update(
    inner: &Inner,
    state: &mut State,
    whose: &Whose<'_>,
    update: &Update<'_>,
    options: &Options,
) -> Result<Written, Refusal> {
    let Whose {
        kind,
        namespace,
        name,
        status,
    } = *whose;
    let at = key(namespace, name);
    let old = || state.get(kind, &at).map(|object| object.value.clone());
    let (given, current) = match update {
        Update::Replace(body) => {
            let given = admit::parse(body)?;
            (
                admit::decode(kind, given, options.field_validation, None)?,
                old(),
            )
        }
        Update::MergePatch(body) => {
            let current = old().ok_or_else(|| Refusal::not_found(kind, name))?;
            let mut patched = current.clone();
            merge(&mut patched, &admit::parse_patch(body)?);
            let decoded = admit::decode(kind, patched, options.field_validation, Some(name))?;
            (decoded, Some(current))
        }
    };
    let Decoded {
        mut object,
        mut warnings,
    } = given;
    let replaces = matches!(update, Update::Replace(_));
    let given_name = meta::text(&object, "name");
    if given_name.is_empty() {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if given_name != name {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({given_name}) does not match the name on the URL ({name})"
        )));
    }
    let old = current.ok_or_else(|| Refusal::not_found(kind, name))?;
    own_namespace(kind, &mut object, namespace)?;
    let (uid, old_uid) = (meta::text(&object, "uid"), meta::text(&old, "uid"));
    if replaces && !uid.is_empty() && uid != old_uid {
        return Err(Refusal::conflict(
            kind,
            name,
            &format!(
                "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: \
                 Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}",
                kind.storage_key(&at)
            ),
        ));
    }
    let version = meta::text(&object, "resourceVersion");
    if version.is_empty() {
        if !kind.unconditional_replace() {
            // The real server, too, puts the resource where the kind belongs here.
            return Err(Refusal::invalid(
                &kind.group,
                &kind.plural,
                name,
                &[FieldError::invalid(
                    "metadata.resourceVersion",
                    0,
                    "must be specified for an update",
                )],
            ));
        }
    } else if version.parse::<u64>().is_err() {
        // The real server, too, takes this for a fault of its own.
        return Err(Refusal::new(
            500,
            "",
            format!("strconv.ParseUint: parsing {version:?}: invalid syntax"),
        ));
    } else if version != meta::text(&old, "resourceVersion") {
        return Err(Refusal::modified(kind, name));
    }
    if !status {
        warnings.extend(admit::finalizer_warnings(
            kind,
            &object,
            &meta::finalizers(&old),
        ));
    }
    keep_system_fields(&mut object, &old);
    if status {
        let new_status = object.get("status").cloned();
        object = old.clone();
        set_status(&mut object, new_status);
    } else if kind.status_subresource {
        set_status(&mut object, old.get("status").cloned());
    }
    admit::normalise(kind, &mut object);
    if kind.schema().is_some() && !status && content(&object) != content(&old) {
        let generation = old["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
        meta::metadata(&mut object).insert("generation".into(), json!(generation));
    }
    let errors = admit::check_update(kind, &object, &old, status);
    if !errors.is_empty() {
        return Err(Refusal::invalid(
            kind.error_group(),
            &kind.kind,
            name,
            &errors,
        ));
    }
    admit::default(kind, &mut object);
    if object == old || options.dry_run {
        return Ok(Written::ok(object, warnings));
    }
    if meta::is_terminating(&object) && meta::finalizers(&object).is_empty() {
        if kind.builtin() == Some(Builtin::Namespace) {
            let object = state.put(kind, object)?.value.clone();
            state.pending.insert((kind.index, at));
            return Ok(Written::ok(object, warnings));
        }
        state.remove(kind, &at)?;
        gc::push_namespace(inner, state, &object);
        return Ok(Written::ok(object, warnings));
    }
    Ok(Written::ok(
        state.put(kind, object)?.value.clone(),
        warnings,
    ))
}

/// What no client can change.
fn keep_system_fields(object: &mut Value, old: &Value) {
    let metadata = meta::metadata(object);
    let before = &old["metadata"];
    for field in ["generation", "creationTimestamp", "resourceVersion"] {
        match before.get(field) {
            Some(value) => metadata.insert(field.into(), value.clone()),
            None => metadata.remove(field),
        };
    }
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let keep = field == "deletionTimestamp" || !metadata.contains_key(field);
        if let (Some(value), true) = (before.get(field), keep) {
            metadata.insert(field.into(), value.clone());
        }
    }
}

fn set_status(object: &mut Value, status: Option<Value>) {
    if let Value::Object(map) = object {
        match status {
            Some(status) => map.insert("status".into(), status),
            None => map.remove("status"),
        };
    }
}

/// An object without its metadata: what the generation counts the changes of.
fn content(object: &Value) -> Value {
    let mut content = object.clone();
    if let Value::Object(map) = &mut content {
        map.remove("metadata");
    }
    content
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Value::Object(map) = target {
        for (name, value) in patch {
            if value.is_null() {
                map.remove(name);
            } else {
                merge(map.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }
}
