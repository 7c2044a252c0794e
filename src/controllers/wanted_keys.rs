//! What servers note when a token names a key that its provider is not known to have: the provider is asked
//! again soon, if there is one of that UID, and the note is taken away. Whatever else stands there is taken
//! away too. How often a provider is asked, `oidc_provider/fetches.rs` says, and no note changes that.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::reflector::ObjectRef;

use super::operator::Context;
use super::outbox::leave_only;
use super::{Decision, Error};
use crate::domain::names::WANTED_KEYS;
use crate::domain::settings::Settings;
use crate::objects::wanted_keys;

/// Looks at the notes at the API server, has those asked that are noted, and says what to write.
pub async fn look(cx: &Context) -> Result<Decision, Error> {
    let namespace = cx.settings.operator_namespace.as_str();
    let namespaces = &cx.stores.namespaces;
    if namespaces.get(&ObjectRef::new(namespace)).is_none() {
        // Under `dev` a manifest brings it: its watch brings us back.
        return Ok(Decision::default());
    }
    let map = cx.get::<ConfigMap>(namespace, WANTED_KEYS).await?;
    if let Some(map) = &map {
        let tenancy = cx.tenancy();
        let mut wanted: Vec<_> = wanted_keys::noted(map).collect();
        wanted.sort_unstable();
        for (name, judged) in &tenancy.providers {
            if wanted.binary_search(&judged.uid.as_str()).is_ok() {
                cx.providers.want(name);
            }
        }
    }
    Ok(decide(map.as_ref(), &cx.settings))
}

/// An object with nothing in it, and with its labels, by which servers and operator see it.
fn decide(stands: Option<&ConfigMap>, settings: &Settings) -> Decision {
    let template = wanted_keys::template(settings);
    let mut decision = Decision::default();
    leave_only(stands, BTreeMap::new(), template, &mut decision);
    decision
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::{Object, Write};

    #[test]
    fn it_is_made_emptied_and_else_left_alone() {
        let settings = Settings::default();
        let made = decide(None, &settings).writes;
        assert!(matches!(made.as_slice(), [Write::Create(..)]), "{made:?}");
        let mut map = wanted_keys::template(&settings);
        assert!(decide(Some(&map), &settings).writes.is_empty());
        let replaced = |map: &ConfigMap| {
            let mut writes = decide(Some(map), &settings).writes;
            match writes.pop() {
                Some(Write::Replace(Object::ConfigMap(map), _)) => *map,
                other => panic!("{other:?}"),
            }
        };
        map.metadata.resource_version = Some("7".into());
        let empty = map.clone();
        wanted_keys::note(&mut map, ["one"], jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(replaced(&map), empty, "if it is still as it was seen");
        map.data = None;
        map.binary_data = Some(std::collections::BTreeMap::default());
        assert_eq!(replaced(&map), empty);
        map = empty.clone();
        map.metadata.labels = None;
        assert_eq!(replaced(&map), empty);
    }
}
