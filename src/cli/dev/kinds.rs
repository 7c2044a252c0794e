//! The kinds that manifests may have: those of our CRDs, and the built-in ones that go with them.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// A kind; in the order in which kinds are applied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(Arc<Parts>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Parts {
    order: u8,
    api_version: String,
    kind: String,
    plural: String,
    namespaced: bool,
}

impl Kind {
    fn new(api_version: &str, kind: &str, plural: &str, namespaced: bool) -> Self {
        // What others need comes first.
        let order = match kind {
            "Namespace" => 0,
            "Secret" | "ConfigMap" | "ServiceAccount" => 1,
            "SigningKey" => 2,
            "Subscription" => 3,
            _ => 4,
        };
        Self(Arc::new(Parts {
            order,
            api_version: api_version.into(),
            kind: kind.into(),
            plural: plural.into(),
            namespaced,
        }))
    }

    /// Kinds with a lower number are applied before.
    pub fn order(&self) -> u8 {
        self.0.order
    }

    /// Its name, such as `SigningKey`.
    pub fn name(&self) -> &str {
        &self.0.kind
    }

    /// Whether its objects are in namespaces.
    pub fn namespaced(&self) -> bool {
        self.0.namespaced
    }

    /// The URL path of its objects: of all (no namespace), or of one namespace.
    pub fn path(&self, namespace: &str) -> String {
        let Parts {
            api_version,
            plural,
            ..
        } = &*self.0;
        let root = if api_version.contains('/') {
            "apis"
        } else {
            "api"
        };
        if namespace.is_empty() {
            format!("/{root}/{api_version}/{plural}")
        } else {
            format!("/{root}/{api_version}/namespaces/{namespace}/{plural}")
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.kind)
    }
}

/// All kinds that count.
#[derive(Clone, Debug)]
pub struct Kinds {
    all: Vec<Kind>,
    /// Manifests of any other kind are passed over rather than complained of.
    only: Option<&'static str>,
}

impl Kinds {
    /// The kinds of these CRDs, and the built-in ones.
    pub fn new(crds: &[CustomResourceDefinition]) -> Self {
        let mut kinds = vec![
            Kind::new("v1", "Namespace", "namespaces", false),
            Kind::new("v1", "Secret", "secrets", true),
            Kind::new("v1", "ConfigMap", "configmaps", true),
            Kind::new("v1", "ServiceAccount", "serviceaccounts", true),
        ];
        for crd in crds {
            let spec = &crd.spec;
            for version in spec.versions.iter().filter(|v| v.served) {
                kinds.push(Kind::new(
                    &format!("{}/{}", spec.group, version.name),
                    &spec.names.kind,
                    &spec.names.plural,
                    spec.scope == "Namespaced",
                ));
            }
        }
        kinds.sort();
        Self {
            all: kinds,
            only: None,
        }
    }

    /// The same, but manifests of any kind other than this one are passed over.
    pub fn only(self, kind: &'static str) -> Self {
        Self {
            only: Some(kind),
            ..self
        }
    }

    /// Whether a manifest that says so of its kind is none of ours.
    pub fn passes_over(&self, kind: Option<&str>) -> bool {
        self.only.is_some_and(|only| kind != Some(only))
    }

    /// All of them, those that others need first.
    pub fn all(&self) -> &[Kind] {
        &self.all
    }

    /// Namespaces.
    pub fn namespace(&self) -> &Kind {
        // `new` puts it first.
        &self.all[0]
    }

    /// The kind that a manifest names; else the field that is wrong, and a sentence.
    pub fn find(&self, api_version: &str, kind: &str) -> Result<Kind, (&'static str, String)> {
        let named = || self.all.iter().filter(|k| k.0.kind == kind);
        if let Some(found) = named().find(|k| k.0.api_version == api_version) {
            return Ok(found.clone());
        }
        if let Some(other) = named().next() {
            return Err((
                "apiVersion",
                format!(
                    "{api_version:?} has no {kind}: write {}.",
                    other.0.api_version
                ),
            ));
        }
        let known: Vec<&str> = self.all.iter().map(|k| &*k.0.kind).collect();
        Err((
            "kind",
            format!(
                "{kind:?} of {api_version:?} is no kind that chancery dev serves: those are {}.",
                known.join(", ")
            ),
        ))
    }
}
