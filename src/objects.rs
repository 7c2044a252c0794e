//! How what we know is written into Secrets and ConfigMaps, and read back. Both sides meet here:
//! the controllers write these objects, the feed and the next look read them.

pub mod cluster_keys;
pub mod credentials;
pub mod delivery;
pub mod enrolments;
pub mod injected;
pub mod jwks_map;
pub mod key_secret;
pub mod provider_keys;
pub mod published;
pub mod revocations;
pub mod wanted_keys;

use std::collections::BTreeMap;

use jiff::{Timestamp, TimestampRound, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use crate::domain::names::{ENVIRONMENT_LABEL, MANAGED_BY, MANAGED_BY_LABEL, PART_LABEL};

/// The labels that everything we make carries.
pub fn labels(environment: &str, part: &str) -> BTreeMap<String, String> {
    [
        (MANAGED_BY_LABEL, MANAGED_BY),
        (PART_LABEL, part),
        (ENVIRONMENT_LABEL, environment),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
}

/// The label's value, if the object has it.
pub fn label<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(name).map(String::as_str)
}

/// The annotation's value, if the object has it.
pub fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// A time in an annotation; none if it is absent or unreadable.
pub fn time_annotation(meta: &ObjectMeta, name: &str) -> Option<Timestamp> {
    annotation(meta, name)?.parse().ok()
}

/// A time as annotations write it: RFC 3339 in UTC, to the millisecond.
pub fn write_time(time: Timestamp) -> String {
    let rounding = TimestampRound::new()
        .smallest(Unit::Millisecond)
        .mode(jiff::RoundMode::Floor);
    time.round(rounding).unwrap_or(time).to_string()
}

/// Who owns an object, as far as we are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The resource with that very UID is its controller.
    Ours,
    /// It has no owner at all.
    Nobodys,
    /// Something else owns it.
    Anothers,
}

/// Whether the resource with that UID owns the object.
pub fn ownership(meta: &ObjectMeta, uid: &str) -> Ownership {
    match meta.owner_references.as_deref() {
        None | Some([]) => Ownership::Nobodys,
        Some(owners)
            if owners
                .iter()
                .any(|o| o.uid == uid && o.controller == Some(true)) =>
        {
            Ownership::Ours
        }
        Some(_) => Ownership::Anothers,
    }
}

/// A reference to the resource as controlling owner, if it has a UID yet.
pub fn owner<K: Resource<DynamicType = ()>>(resource: &K) -> Option<Vec<OwnerReference>> {
    resource.controller_owner_ref(&()).map(|o| vec![o])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ownership_goes_by_uid() {
        let reference = |uid: &str| OwnerReference {
            uid: uid.into(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        let meta = |owners| ObjectMeta {
            owner_references: owners,
            ..ObjectMeta::default()
        };
        assert_eq!(ownership(&meta(None), "a"), Ownership::Nobodys);
        assert_eq!(ownership(&meta(Some(vec![])), "a"), Ownership::Nobodys);
        assert_eq!(
            ownership(&meta(Some(vec![reference("a")])), "a"),
            Ownership::Ours
        );
        assert_eq!(
            ownership(&meta(Some(vec![reference("b")])), "a"),
            Ownership::Anothers
        );
    }

    #[test]
    fn times_read_back() {
        let time = Timestamp::from_nanosecond(1_234_567_891_234_567_891).expect("a time");
        assert_eq!(write_time(time), "2009-02-13T23:31:31.234Z");
    }
}
