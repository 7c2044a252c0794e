//! The ConfigMap in which servers note that a token names a key which its provider is not known to have: for
//! each such provider one entry, under the UID of its resource, with the time. Nothing of the token stands
//! there.
#![allow(clippy::doc_markdown)]

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{labels, write_time};
use crate::domain::names::{PART_WANTED_KEYS, WANTED_KEYS};
use crate::domain::settings::Settings;

/// So many entries may stand there at once; what comes on top is noted later.
pub const MOST: usize = 1000;
/// A UID is this long at most.
const LONGEST_UID: usize = 64;

/// The ConfigMap with nothing in it.
pub fn template(settings: &Settings) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(WANTED_KEYS.into()),
            namespace: Some(settings.operator_namespace.clone()),
            labels: Some(labels(&settings.environment, PART_WANTED_KEYS)),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

/// Notes these providers; whether that is a change.
pub fn note<'a>(
    map: &mut ConfigMap,
    uids: impl IntoIterator<Item = &'a str>,
    now: Timestamp,
) -> bool {
    let noted = map.data.get_or_insert_default();
    let mut changed = false;
    for uid in uids {
        if noted.len() < MOST && uid.len() <= LONGEST_UID && !noted.contains_key(uid) {
            noted.insert(uid.to_owned(), write_time(now));
            changed = true;
        }
    }
    changed
}

/// The UIDs that are noted. Whoever altered the object by hand may have put anything there: who reads this
/// looks for a provider of that very UID, and believes no more.
pub fn noted(map: &ConfigMap) -> impl Iterator<Item = &str> {
    let all = map.data.iter().flatten().map(|(uid, _)| uid.as_str());
    all.filter(|uid| uid.len() <= LONGEST_UID).take(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_empty(map: &ConfigMap) -> bool {
        let data = map.data.as_ref();
        data.is_none_or(std::collections::BTreeMap::is_empty) && map.binary_data.is_none()
    }

    #[test]
    fn one_entry_a_provider_and_no_more_than_fit() {
        let mut map = template(&Settings::default());
        let now = Timestamp::from_second(1000).expect("a time");
        assert!(is_empty(&map));
        assert!(note(&mut map, ["b", "a", "a"], now));
        assert!(
            !note(&mut map, ["a"], Timestamp::MAX),
            "it is noted already"
        );
        assert!(!note(&mut map, ["x".repeat(65).as_str()], now));
        assert_eq!(noted(&map).collect::<Vec<_>>(), ["a", "b"]);
        let many: Vec<String> = (0..2 * MOST).map(|n| n.to_string()).collect();
        assert!(note(&mut map, many.iter().map(String::as_str), now));
        assert_eq!(noted(&map).count(), MOST);
        assert!(!is_empty(&map));
    }
}
