//! `spec.publish` of a `SigningKey`: where its JWKS stands besides the operator's namespace.

use std::collections::BTreeMap;

use kube::KubeSchema;
use kube::core::{Expression, Selector, SelectorExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::vocabulary;

/// A ConfigMap with the ring's JWKS in other namespaces: in those that are named, and in those that
/// a selector matches.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.namespaces) && self.namespaces.size() > 0) || has(self.namespaceSelector)")
        .message("say where to publish: list namespaces, or give a namespaceSelector ({} for all namespaces)."),
)]
pub struct Publish {
    /// The ConfigMap's name; <signing key>-jwks where absent. A ConfigMap of that name that is not
    /// of the operator's making is left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::object_name")]
    pub config_map_name: Option<String>,

    /// Namespaces by name. One that does not exist yet gets its ConfigMap when it comes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "vocabulary::namespaces")]
    pub namespaces: Vec<String>,

    /// Namespaces by their labels; {} stands for all. The operator's own is never meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<NamespaceSelector>,

    /// The keys of the ConfigMap's data that hold the document; jwks.json and jwks where absent.
    // No default of the schema: in a list, kubectl apply would find a change each time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "vocabulary::config_map_keys")]
    pub keys: Vec<String>,
}

impl Publish {
    /// The keys that hold the document.
    pub fn data_keys(&self) -> Vec<String> {
        if self.keys.is_empty() {
            vec!["jwks.json".into(), "jwks".into()]
        } else {
            self.keys.clone()
        }
    }
}

/// Which namespaces are meant, by their labels: those that meet all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// Labels with their values; a namespace has all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,

    /// Demands on labels; a namespace meets all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<LabelDemand>,
}

/// A demand on a label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)")
        .message("In and NotIn go with values, Exists and DoesNotExist go without: add values, or take them away."),
)]
pub struct LabelDemand {
    /// The label's name.
    #[schemars(length(max = 317))]
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: LabelOperator,
    /// The values that In and NotIn compare with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "vocabulary::label_values")]
    pub values: Vec<String>,
}

/// What is demanded of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// It has one of the values.
    In,
    /// It is absent, or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl NamespaceSelector {
    /// Whether a namespace with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = self.match_labels.iter();
        let equal = equal.map(|(k, v)| Expression::Equal(k.clone(), v.clone()));
        let demands = self.match_expressions.iter().map(|demand| {
            let key = demand.key.clone();
            let values = || demand.values.iter().cloned().collect();
            match demand.operator {
                LabelOperator::In => Expression::In(key, values()),
                LabelOperator::NotIn => Expression::NotIn(key, values()),
                LabelOperator::Exists => Expression::Exists(key),
                LabelOperator::DoesNotExist => Expression::DoesNotExist(key),
            }
        });
        equal.chain(demands).collect::<Selector>().matches(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_mean_what_kubernetes_means() {
        let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        for (selector, meant) in [
            ("{}", true),
            ("{matchLabels: {team: a}}", true),
            ("{matchLabels: {team: b}}", false),
            ("{matchLabels: {team: a, other: a}}", false),
            (
                "{matchExpressions: [{key: team, operator: In, values: [a, b]}]}",
                true,
            ),
            (
                "{matchExpressions: [{key: team, operator: NotIn, values: [a]}]}",
                false,
            ),
            (
                "{matchExpressions: [{key: other, operator: NotIn, values: [a]}]}",
                true,
            ),
            ("{matchExpressions: [{key: team, operator: Exists}]}", true),
            (
                "{matchExpressions: [{key: team, operator: DoesNotExist}]}",
                false,
            ),
            (
                "{matchLabels: {team: a}, matchExpressions: [{key: x, operator: Exists}]}",
                false,
            ),
        ] {
            let read: NamespaceSelector = serde_saphyr::from_str(selector).expect("a selector");
            assert_eq!(read.matches(&labels), meant, "{selector}");
        }
    }
}
