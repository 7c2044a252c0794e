//! What the garbage collector and the namespace controller of a cluster do, at once and within
//! the request that gives cause for it.

use serde_json::{Value, json};

use super::Inner;
use super::kinds::{Builtin, Kind};
use super::meta;
use super::request::key;
use super::status::Refusal;
use super::store::{Place, State};

/// What is left of an object after it was told to go.
pub enum Fate {
    /// It is gone.
    Removed,
    /// Finalizers hold it: its state.
    Held(Value),
}

/// Deletes an object, or marks it if finalizers hold it.
pub fn terminate(
    inner: &Inner,
    state: &mut State,
    kind: &Kind,
    key: &str,
) -> Result<Fate, Refusal> {
    let Some(object) = state.get(kind, key).cloned() else {
        return Ok(Fate::Removed);
    };
    let is_namespace = kind.builtin() == Some(Builtin::Namespace);
    if meta::finalizers(&object.value).is_empty() && !is_namespace {
        state.remove(kind, key)?;
        push_namespace(inner, state, &object.value);
        return Ok(Fate::Removed);
    }
    if meta::is_terminating(&object.value) {
        return Ok(Fate::Held(object.value.clone()));
    }
    let mut value = object.value.clone();
    let metadata = meta::metadata(&mut value);
    metadata.insert("deletionTimestamp".into(), meta::time(inner.clock.now()));
    if is_namespace {
        value["status"]["phase"] = json!("Terminating");
        state.pending.insert((kind.index, key.to_owned()));
    } else {
        metadata.insert("deletionGracePeriodSeconds".into(), json!(0));
        if let Some(generation) = metadata.get("generation").and_then(Value::as_u64) {
            metadata.insert("generation".into(), json!(generation + 1));
        }
    }
    Ok(Fate::Held(state.put(kind, value)?.value.clone()))
}

/// A namespace that is going may be able to go now that something in it has.
pub fn push_namespace(inner: &Inner, state: &mut State, object: &Value) {
    let namespace = meta::text(object, "namespace");
    if !namespace.is_empty() {
        let kind = inner.kinds.builtin(Builtin::Namespace);
        state.pending.insert((kind.index, namespace.to_owned()));
    }
}

/// Does all the collecting that is due. What the disk refuses stays due, and is tried again with
/// the next write.
pub fn collect(inner: &Inner, state: &mut State) {
    let mut failed = Vec::new();
    while let Some(place) = state.pending.pop_first() {
        if let Err(why) = visit(inner, state, &place) {
            tracing::warn!(
                reason = why.message,
                "garbage collection will be tried again"
            );
            failed.push(place);
        }
    }
    state.pending.extend(failed);
}

fn visit(inner: &Inner, state: &mut State, place: &Place) -> Result<(), Refusal> {
    let Some(object) = state.at(place).cloned() else {
        return Ok(());
    };
    let kind = inner.kinds.all()[place.0].clone();
    if kind.builtin() == Some(Builtin::Namespace) {
        if meta::is_terminating(&object.value) {
            empty_namespace(inner, state, &kind, &place.1)?;
        }
        return Ok(());
    }
    let references = object.value["metadata"]["ownerReferences"].as_array();
    let references = references.cloned().unwrap_or_default();
    let namespace = meta::text(&object.value, "namespace");
    let (there, gone): (Vec<_>, Vec<_>) = references
        .into_iter()
        .partition(|reference| exists(inner, state, reference, namespace));
    if gone.is_empty() || meta::is_terminating(&object.value) {
        return Ok(());
    }
    if there.is_empty() {
        terminate(inner, state, &kind, &place.1)?;
    } else {
        let mut value = object.value.clone();
        meta::metadata(&mut value).insert("ownerReferences".into(), Value::Array(there));
        state.put(&kind, value)?;
    }
    Ok(())
}

/// Whether an owner is there: the same UID, in the same namespace or in none. An owner of a kind
/// that is not served here is taken to be there, as the collector does with kinds it can not
/// resolve.
fn exists(inner: &Inner, state: &State, reference: &Value, namespace: &str) -> bool {
    let field = |name: &str| reference[name].as_str().unwrap_or_default();
    let Some(kind) = inner.kinds.find_kind(field("apiVersion"), field("kind")) else {
        return true;
    };
    let expected = key(if kind.namespaced { namespace } else { "" }, field("name"));
    state
        .by_uid(field("uid"))
        .is_some_and(|(index, key)| *index == kind.index && *key == expected)
}

fn empty_namespace(
    inner: &Inner,
    state: &mut State,
    kind: &Kind,
    name: &str,
) -> Result<(), Refusal> {
    for (index, key) in state.in_namespace(&inner.kinds, name) {
        terminate(inner, state, &inner.kinds.all()[index].clone(), &key)?;
    }
    if state.in_namespace(&inner.kinds, name).is_empty() {
        let held = state
            .get(kind, name)
            .is_some_and(|o| !meta::finalizers(&o.value).is_empty());
        if !held {
            state.remove(kind, name)?;
        }
    }
    Ok(())
}

/// Cuts the ties to an owner that goes without what it owns (`propagationPolicy: Orphan`).
pub fn orphan(inner: &Inner, state: &mut State, uid: &str) -> Result<(), Refusal> {
    for place in state.dependents(uid) {
        let Some(object) = state.at(&place) else {
            continue;
        };
        let mut value = object.value.clone();
        let metadata = meta::metadata(&mut value);
        if let Some(Value::Array(references)) = metadata.get_mut("ownerReferences") {
            references.retain(|r| r["uid"].as_str() != Some(uid));
            if references.is_empty() {
                metadata.remove("ownerReferences");
            }
        }
        state.put(&inner.kinds.all()[place.0].clone(), value)?;
    }
    Ok(())
}
