//! The kinds that are served: a few built-in ones, and those of the CRDs it was given.

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::OpenError;
use super::schema::Schema;

/// The built-in kinds, whose rules are code rather than a schema (`builtin`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// v1 Secret.
    Secret,
    /// v1 `ConfigMap`.
    ConfigMap,
    /// v1 Namespace.
    Namespace,
    /// v1 `ServiceAccount`: what it names is kept and means nothing here.
    ServiceAccount,
    /// events.k8s.io/v1 Event.
    Event,
    /// coordination.k8s.io/v1 Lease.
    Lease,
    /// apiextensions.k8s.io/v1 `CustomResourceDefinition`: can be read, never written.
    CustomResourceDefinition,
}

/// Whose rules an object of a kind follows.
pub enum Rules {
    /// Those of a built-in kind.
    Builtin(Builtin),
    /// Those of a CRD's schema.
    Custom(Box<Schema>),
}

/// One kind that is served, in its one served version.
#[expect(clippy::struct_field_names, reason = "`kind` is what the API calls it")]
pub struct Kind {
    /// Where it stands in [`Kinds`].
    pub index: usize,
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// `kind` in documents.
    pub kind: String,
    /// The resource's name in URLs.
    pub plural: String,
    /// The resource's singular name.
    pub singular: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether status is a subresource, so that writes of the one leave the other alone.
    pub status_subresource: bool,
    /// Fields, beside the name and namespace, that field selectors may name.
    pub selectable_fields: Vec<String>,
    /// Its rules.
    pub rules: Rules,
    /// Short names and categories, for discovery.
    pub discovery: (Vec<String>, Vec<String>),
}

impl Kind {
    /// `plural.group`, as messages name it.
    pub fn resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The group that messages about invalid objects name: Events are still those of the core
    /// group there.
    pub fn error_group(&self) -> &str {
        if self.builtin() == Some(Builtin::Event) {
            ""
        } else {
            &self.group
        }
    }

    /// `apiVersion` in documents.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Which built-in kind it is, if any.
    pub fn builtin(&self) -> Option<Builtin> {
        match self.rules {
            Rules::Builtin(builtin) => Some(builtin),
            Rules::Custom(_) => None,
        }
    }

    /// The schema of a custom resource.
    pub fn schema(&self) -> Option<&Schema> {
        match &self.rules {
            Rules::Custom(schema) => Some(schema),
            Rules::Builtin(_) => None,
        }
    }

    /// Whether it can only be read here.
    pub fn read_only(&self) -> bool {
        self.builtin() == Some(Builtin::CustomResourceDefinition)
    }

    /// Whether its objects are kept across restarts.
    pub fn persisted(&self) -> bool {
        !self.read_only() && self.builtin() != Some(Builtin::Event)
    }

    /// Whether a replace may leave out `resourceVersion` and overwrite whatever is there.
    pub fn unconditional_replace(&self) -> bool {
        matches!(
            self.builtin(),
            Some(
                Builtin::Secret
                    | Builtin::ConfigMap
                    | Builtin::ServiceAccount
                    | Builtin::Namespace
                    | Builtin::Event
            )
        )
    }

    /// The path that etcd would hold the object under: some messages quote it.
    pub fn storage_key(&self, key: &str) -> String {
        let resource = match self.builtin() {
            Some(Builtin::Event) => "events".to_owned(),
            Some(Builtin::Lease) => "leases".to_owned(),
            Some(_) => self.plural.clone(),
            None => format!("{}/{}", self.group, self.plural),
        };
        format!("/registry/{resource}/{key}")
    }
}

/// All kinds that are served.
pub struct Kinds {
    all: Vec<Arc<Kind>>,
}

impl Kinds {
    /// The built-in kinds and those of `crds`.
    pub fn new(crds: &[CustomResourceDefinition]) -> Result<Self, OpenError> {
        let mut kinds = Self { all: Vec::new() };
        let builtin = [
            (
                Builtin::Namespace,
                "",
                "v1",
                "Namespace",
                "namespaces",
                false,
            ),
            (
                Builtin::ConfigMap,
                "",
                "v1",
                "ConfigMap",
                "configmaps",
                true,
            ),
            (Builtin::Secret, "", "v1", "Secret", "secrets", true),
            (
                Builtin::ServiceAccount,
                "",
                "v1",
                "ServiceAccount",
                "serviceaccounts",
                true,
            ),
            (
                Builtin::Event,
                "events.k8s.io",
                "v1",
                "Event",
                "events",
                true,
            ),
            (
                Builtin::Lease,
                "coordination.k8s.io",
                "v1",
                "Lease",
                "leases",
                true,
            ),
            (
                Builtin::CustomResourceDefinition,
                "apiextensions.k8s.io",
                "v1",
                "CustomResourceDefinition",
                "customresourcedefinitions",
                false,
            ),
        ];
        for (which, group, version, kind, plural, namespaced) in builtin {
            kinds.all.push(Arc::new(Kind {
                index: kinds.all.len(),
                group: group.into(),
                version: version.into(),
                kind: kind.into(),
                plural: plural.into(),
                singular: kind.to_lowercase(),
                namespaced,
                status_subresource: which == Builtin::Namespace,
                selectable_fields: match which {
                    Builtin::Secret => vec!["type".into()],
                    Builtin::Namespace => vec!["status.phase".into()],
                    Builtin::Event => ["reason", "type", "reportingController"]
                        .map(String::from)
                        .to_vec(),
                    _ => Vec::new(),
                },
                rules: Rules::Builtin(which),
                discovery: (Vec::new(), Vec::new()),
            }));
        }
        for crd in crds {
            let kind = custom(crd, kinds.all.len())?;
            if kinds
                .find(&kind.group, &kind.version, &kind.plural)
                .is_some()
            {
                return Err(OpenError::Definition {
                    name: kind.resource(),
                    why: "a kind of that name is served already".into(),
                });
            }
            kinds.all.push(Arc::new(kind));
        }
        Ok(kinds)
    }

    /// The kind that a URL names.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.all
            .iter()
            .find(|k| k.group == group && k.version == version && k.plural == plural)
    }

    /// The kind that an owner reference names; its version does not matter.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.all.iter().find(|k| k.group == group && k.kind == kind)
    }

    /// The one kind for a built-in.
    pub fn builtin(&self, which: Builtin) -> &Arc<Kind> {
        // `new` puts every built-in kind in the list, in the order of the enumeration's use.
        self.all
            .iter()
            .find(|k| k.builtin() == Some(which))
            .unwrap_or(&self.all[0])
    }

    /// Every kind.
    pub fn all(&self) -> &[Arc<Kind>] {
        &self.all
    }
}

fn custom(crd: &CustomResourceDefinition, index: usize) -> Result<Kind, OpenError> {
    let names = &crd.spec.names;
    let refuse = |why: String| OpenError::Definition {
        name: format!("{}.{}", names.plural, crd.spec.group),
        why,
    };
    let [version] = &crd.spec.versions[..] else {
        return Err(refuse(
            "it has several versions, and this API server converts between none".into(),
        ));
    };
    let schema = version
        .schema
        .as_ref()
        .and_then(|s| s.open_api_v3_schema.as_ref())
        .ok_or_else(|| refuse("it has no openAPIV3Schema".into()))?;
    let schema = serde_json::to_value(schema).map_err(|e| refuse(e.to_string()))?;
    let subresources = version.subresources.as_ref();
    if subresources.is_some_and(|s| s.scale.is_some()) {
        return Err(refuse(
            "it has the scale subresource, which this API server does not serve".into(),
        ));
    }
    Ok(Kind {
        index,
        group: crd.spec.group.clone(),
        version: version.name.clone(),
        kind: names.kind.clone(),
        plural: names.plural.clone(),
        singular: names
            .singular
            .clone()
            .unwrap_or_else(|| names.kind.to_lowercase()),
        namespaced: crd.spec.scope == "Namespaced",
        status_subresource: subresources.is_some_and(|s| s.status.is_some()),
        selectable_fields: version
            .selectable_fields
            .iter()
            .flatten()
            .map(|f| f.json_path.trim_start_matches('.').to_owned())
            .collect(),
        rules: Rules::Custom(Box::new(Schema::compile(&schema).map_err(refuse)?)),
        discovery: (
            names.short_names.clone().unwrap_or_default(),
            names.categories.clone().unwrap_or_default(),
        ),
    })
}

/// A CRD as the server shows it: established, its names accepted.
pub fn crd_document(crd: &CustomResourceDefinition) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(crd)?;
    value["apiVersion"] = json!("apiextensions.k8s.io/v1");
    value["kind"] = json!("CustomResourceDefinition");
    value["metadata"]["name"] = json!(format!("{}.{}", crd.spec.names.plural, crd.spec.group));
    value["status"] = json!({
        "acceptedNames": value["spec"]["names"],
        "conditions": [
            {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found"},
            {"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "the initial names have been accepted"},
        ],
        "storedVersions": crd.spec.versions.iter().map(|v| v.name.clone()).collect::<Vec<_>>(),
    });
    Ok(value)
}
