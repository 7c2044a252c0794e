//! Writes a status only when it says something new.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::core::DynamicObject;
use serde::Serialize;
use serde_json::Value;

use super::Write;
use crate::api::v1alpha1::{Conditions, Observed};

/// The write of a status, unless it says what is there already.
pub fn write<K, S>(object: &K, before: Option<&S>, after: &S) -> Option<Write>
where
    K: Resource<DynamicType = ()>,
    S: Serialize + PartialEq,
{
    if before == Some(after) {
        return None;
    }
    let status = serde_json::to_value(after).ok()?;
    let resource_version = object.meta().resource_version.clone()?;
    Some(Write::Status {
        resource_version,
        status,
    })
}

/// What `Ready` says of an object, where it is true.
pub fn ready_as_before(object: &DynamicObject) -> Option<String> {
    let conditions: Vec<Condition> =
        serde_json::from_value(object.data["status"]["conditions"].clone()).ok()?;
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready")?;
    (ready.status == "True").then_some(ready.message)
}

/// The write of a status in which only the conditions are new, unless they stand there already.
pub fn conditions_only(
    object: &DynamicObject,
    conditions: &Conditions,
    observed: Observed,
) -> Option<Write> {
    let status = &object.data["status"];
    let before: Vec<Condition> =
        serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
    let after = conditions.write(&before, observed);
    if before == after && status["observedGeneration"] == observed.generation {
        return None;
    }
    // The rest stays: it is what the last visit that succeeded came to.
    let mut status = status.as_object().cloned().unwrap_or_default();
    status.insert("observedGeneration".into(), observed.generation.into());
    status.insert("conditions".into(), serde_json::to_value(after).ok()?);
    let resource_version = object.metadata.resource_version.clone()?;
    Some(Write::Status {
        resource_version,
        status: Value::Object(status),
    })
}
