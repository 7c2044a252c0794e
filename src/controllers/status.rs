//! Writes a status only when it says something new.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::core::DynamicObject;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Note, Write};
use crate::api::v1alpha1::{Conditions, Observed, READY, RECONCILING, STALLED};
use crate::domain::reasons::WRITE_REFUSED;

/// The write of a status, and then the events that go with it, unless it says what is there already.
pub fn write<K, S>(object: &K, before: Option<&S>, after: &S, events: Vec<Write>) -> Vec<Write>
where
    K: Resource<DynamicType = ()>,
    S: Serialize + PartialEq,
{
    let version = object.meta().resource_version.clone();
    let Some(resource_version) = version.filter(|_| before != Some(after)) else {
        return Vec::new();
    };
    told(resource_version, json!(after), events)
}

fn told(resource_version: String, status: Value, events: Vec<Write>) -> Vec<Write> {
    let write = Write::Status {
        resource_version,
        status,
    };
    [write].into_iter().chain(events).collect()
}

/// The events that go with a status which says, as that before did not, that a person has to do
/// something.
pub fn warnings(before: &[Condition], conditions: &Conditions) -> Vec<Write> {
    let known = |kind: &str, reason: &str, message: &str| {
        before.iter().filter(|c| c.type_ == kind).any(|c| {
            // What an API server says of a refusal changes from try to try: by what a quota has left, say.
            c.reason == reason && (c.message == message || reason == WRITE_REFUSED)
        })
    };
    let new = conditions
        .troubles()
        .filter(|(kind, reason, message)| !known(kind, reason, message));
    new.map(|(_, reason, message)| Note::warning(reason, message))
        .collect()
}

/// What `Ready` says in a status, where it is true.
pub fn ready_in(status: &Value) -> Option<String> {
    let conditions: Vec<Condition> = serde_json::from_value(status["conditions"].clone()).ok()?;
    let ready = conditions.into_iter().find(|c| c.type_ == READY)?;
    (ready.status == "True").then_some(ready.message)
}

fn is_of_state(condition: &str) -> bool {
    [READY, RECONCILING, STALLED].contains(&condition)
}

/// The writes of a status that the visit came to, or that stands, with this beside it: a write that nothing
/// in it hangs on was refused. What needs a person already goes before that.
pub fn with_refusal(
    object: &DynamicObject,
    decided: Option<&Value>,
    why: &str,
    observed: Observed,
) -> Vec<Write> {
    let stands = &object.data["status"];
    let of = |status: &Value| -> Vec<Condition> {
        serde_json::from_value(status["conditions"].clone()).unwrap_or_default()
    };
    let status = decided.unwrap_or(stands);
    let (before, mut all) = (of(stands), of(status));
    let mut status = status.as_object().cloned().unwrap_or_default();
    let refusal = Conditions::default().and(STALLED, true, WRITE_REFUSED, why);
    if !all.iter().any(|c| c.type_ == STALLED) {
        let mut ready = all.iter_mut().filter(|c| c.type_ == READY);
        if let Some(ready) = ready.next().filter(|ready| ready.status == "True") {
            ready.message = format!("{} {why}", ready.message);
        }
        let after_ready = all.len().min(1);
        all.splice(after_ready..after_ready, refusal.write(&before, observed));
    }
    status.insert("conditions".into(), json!(all));
    let (status, version) = (Value::Object(status), &object.metadata.resource_version);
    let Some(resource_version) = version.clone().filter(|_| status != *stands) else {
        return Vec::new();
    };
    told(resource_version, status, warnings(&before, &refusal))
}

/// The writes of a status with these conditions, and the events that go with it, unless all of it
/// stands there already. `rest` is what else it says; without that, it is what the last visit came to.
pub fn with_conditions(
    object: &DynamicObject,
    rest: Option<&Value>,
    conditions: &Conditions,
    observed: Observed,
) -> Vec<Write> {
    let stands = &object.data["status"];
    let before: Vec<Condition> =
        serde_json::from_value(stands["conditions"].clone()).unwrap_or_default();
    let status = rest.unwrap_or(stands).as_object().cloned();
    let mut status = status.unwrap_or_default();
    // What was found of anything else still holds.
    let others = status.get("conditions").cloned().unwrap_or_default();
    let others: Vec<Condition> = serde_json::from_value(others).unwrap_or_default();
    let mut all = conditions.write(&before, observed);
    all.extend(others.into_iter().filter(|c| !is_of_state(&c.type_)));
    status.insert("observedGeneration".into(), observed.generation.into());
    status.insert("conditions".into(), json!(all));
    let (status, version) = (Value::Object(status), &object.metadata.resource_version);
    let Some(resource_version) = version.clone().filter(|_| status != *stands) else {
        return Vec::new();
    };
    told(resource_version, status, warnings(&before, conditions))
}
