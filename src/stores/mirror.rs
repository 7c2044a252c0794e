//! Whether a store lacks anything that the API server had at a time: its list is compared with
//! what stands in the store.

use std::collections::BTreeMap;
use std::fmt;

use futures::future::BoxFuture;
use kube::api::{Api, ListParams};
use kube::runtime::reflector::Store;
use kube::runtime::watcher::Config;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::Watched;

/// Namespace and name.
type Name = (String, String);
/// The resourceVersions of objects.
type Versions = BTreeMap<Name, String>;

/// A store, and the list that its watch goes by.
pub struct Mirror {
    /// What is in it.
    pub kind: Watched,
    list: Box<dyn Fn() -> BoxFuture<'static, Result<Listed, kube::Error>> + Send + Sync>,
    held: Box<dyn Fn() -> Versions + Send + Sync>,
}

/// What the API server has, less what was seen in the store since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    at: String,
    all: Versions,
    awaited: Versions,
}

impl Mirror {
    pub(super) fn new<K>(kind: Watched, api: Api<K>, config: &Config, store: Store<K>) -> Self
    where
        K: Resource<DynamicType = ()>
            + Clone
            + DeserializeOwned
            + fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        // No resourceVersion: what is newest, not what some cache has. No limit: names and versions
        // are small.
        let params = ListParams {
            label_selector: config.label_selector.clone(),
            field_selector: config.field_selector.clone(),
            ..ListParams::default()
        };
        let list = move || -> BoxFuture<'static, Result<Listed, kube::Error>> {
            let (api, params) = (api.clone(), params.clone());
            Box::pin(async move {
                let list = api.list_metadata(&params).await?;
                let at = list.metadata.resource_version.clone().unwrap_or_default();
                Ok(Listed::new(at, versions(&list.items)))
            })
        };
        Self {
            kind,
            list: Box::new(list),
            held: Box::new(move || versions(store.state().iter().map(AsRef::as_ref))),
        }
    }

    /// What the API server has now, as names and versions.
    ///
    /// # Errors
    /// The API server did not answer, or refused.
    pub fn list(&self) -> BoxFuture<'static, Result<Listed, kube::Error>> {
        (self.list)()
    }

    /// Whether the store lacks nothing of the list: each object was seen in it as it was listed, or
    /// newer, and what was deleted is gone.
    pub fn holds(&self, listed: &mut Listed) -> bool {
        listed.settled_by(&(self.held)())
    }
}

impl Listed {
    fn new(at: String, all: Versions) -> Self {
        Self {
            at,
            awaited: all.clone(),
            all,
        }
    }

    fn settled_by(&mut self, held: &Versions) -> bool {
        // What was once seen may change, or go, in its own time.
        self.awaited.retain(|name, version| {
            held.get(name)
                .is_none_or(|held| !is_as_new_as(held, version))
        });
        self.awaited.is_empty()
            && held
                .iter()
                .filter(|(name, _)| !self.all.contains_key(*name))
                .all(|(_, version)| is_as_new_as(version, &self.at))
    }
}

fn versions<'a, K: Resource + 'a>(objects: impl IntoIterator<Item = &'a K>) -> Versions {
    let pair = |object: &K| {
        let name = (object.namespace().unwrap_or_default(), object.name_any());
        (name, object.resource_version().unwrap_or_default())
    };
    objects.into_iter().map(pair).collect()
}

/// Whether an object's version is another one or comes after it. They are numbers of any length
/// that can be compared (KEP-5504); what is none is at least equal to itself.
fn is_as_new_as(version: &str, other: &str) -> bool {
    match (version.parse::<u128>(), other.parse::<u128>()) {
        (Ok(version), Ok(other)) => version >= other,
        _ => version == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(objects: &[(&str, &str)]) -> Versions {
        let pair = |(name, version): &(&str, &str)| {
            (("ns".to_owned(), (*name).to_owned()), (*version).to_owned())
        };
        objects.iter().map(pair).collect()
    }

    #[test]
    fn a_store_holds_a_list_when_it_lacks_nothing_of_it() {
        let lists: [(&str, &[(&str, &str)]); 3] = [
            ("20", &[("a", "9"), ("b", "12")]),
            ("20", &[]),
            ("opaque", &[("a", "x")]),
        ];
        for (list, held, holds, why) in [
            (0, vec![("a", "9"), ("b", "12")], true, "the same"),
            (0, vec![("a", "10"), ("b", "100")], true, "newer, by number"),
            (0, vec![("a", "9"), ("b", "11")], false, "one is older"),
            (0, vec![("a", "9")], false, "one is missing"),
            (
                0,
                vec![("a", "9"), ("b", "12"), ("c", "21")],
                true,
                "made since",
            ),
            (
                0,
                vec![("a", "9"), ("b", "12"), ("c", "19")],
                false,
                "deleted",
            ),
            (1, vec![], true, "nothing of nothing"),
            (1, vec![("a", "3")], false, "all are deleted"),
            (2, vec![("a", "x")], true, "no number, and equal"),
            (2, vec![("a", "y")], false, "no number, and another"),
            (2, vec![("a", "x"), ("b", "z")], false, "who knows how new"),
        ] {
            let (at, all) = lists[list];
            let mut listed = Listed::new(at.to_owned(), of(all));
            assert_eq!(listed.settled_by(&of(&held)), holds, "{why}");
        }
    }

    #[test]
    fn what_was_seen_once_may_go() {
        let mut listed = Listed::new("20".into(), of(&[("a", "9"), ("b", "12")]));
        assert!(!listed.settled_by(&of(&[("a", "9"), ("b", "11")])));
        assert!(
            listed.settled_by(&of(&[("b", "12")])),
            "a was deleted since"
        );
    }
}
