//! The ConfigMaps with a ring's JWKS in other namespaces. An owner reference does not reach across
//! namespaces, so labels and an annotation say whose they are.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{annotation, label, labels};
use crate::domain::names::{ENVIRONMENT_LABEL, PART_PUBLISHED, RING_LABEL};

/// On a published ConfigMap: `<operator namespace>/<ring>`.
const PUBLISHED_BY: &str = "chancery.dev/published-by";

/// Whose ConfigMaps are meant.
#[derive(Clone, Copy, Debug)]
pub struct Publisher<'a> {
    /// The release's environment.
    pub environment: &'a str,
    /// The release's namespace.
    pub operator_namespace: &'a str,
    /// The ring.
    pub ring: &'a str,
}

impl Publisher<'_> {
    /// Whether this ring of this release has made a ConfigMap; any other is foreign to it.
    pub fn made(&self, map: &ConfigMap) -> bool {
        let expected = self.labels();
        let mut expected = expected.iter();
        self.made_once(map)
            && expected.all(|(name, value)| label(&map.metadata, name) == Some(value))
    }

    /// The same where its labels were taken away, by a restore or by hand: what it was signed with
    /// still tells. It is enough to mend a ConfigMap that is wanted, and not to delete one.
    pub fn made_once(&self, map: &ConfigMap) -> bool {
        let environment = label(&map.metadata, ENVIRONMENT_LABEL);
        environment.is_none_or(|of| of == self.environment)
            && annotation(&map.metadata, PUBLISHED_BY) == Some(&self.signature())
    }

    /// What a ConfigMap should be, over what is there: the data is ours alone, and what others
    /// have put beside our labels and annotation stays.
    pub fn over(
        &self,
        (namespace, name): (&str, &str),
        keys: &BTreeSet<String>,
        document: &str,
        before: Option<&ConfigMap>,
    ) -> ConfigMap {
        let mut map = before.cloned().unwrap_or_else(|| ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some(namespace.into()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        });
        let all_labels = map.metadata.labels.get_or_insert_default();
        all_labels.extend(self.labels());
        let annotations = map.metadata.annotations.get_or_insert_default();
        annotations.insert(PUBLISHED_BY.into(), self.signature());
        let document = |key: &String| (key.clone(), document.to_owned());
        map.data = Some(keys.iter().map(document).collect());
        map.binary_data = None;
        map
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut all = labels(self.environment, PART_PUBLISHED);
        all.insert(RING_LABEL.into(), self.ring.into());
        all
    }

    fn signature(&self) -> String {
        format!("{}/{}", self.operator_namespace, self.ring)
    }
}
