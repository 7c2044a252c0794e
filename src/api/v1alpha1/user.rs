//! `User`: what a tenant notes of a person whom an outside provider names.
// Each of kube's columns has a type, and some the same.
#![allow(clippy::duplicated_attributes)]

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::user::{ProviderScope, UserFacts, person_id, provider_id};
use crate::domain::vocabulary;

/// A person of this tenant, as one of its identity providers names them: gives them roles here, or keeps them
/// out. Who has none is let in all the same, with what the provider's mapping gives.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "chancery.dev",
    version = "v1alpha1",
    kind = "User",
    namespaced,
    status = "UserStatus",
    shortname = "usr",
    category = "identity",
    derive = "PartialEq",
    doc = "A person of this tenant, as one of its identity providers names them: gives them roles here, or keeps them out. Who has none is let in all the same, with what the provider's mapping gives.",
    printcolumn(
        name = "Person",
        type_ = "string",
        json_path = ".status.id",
        description = "What they are called here, and in tokens (sub)"
    ),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspended"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Display name",
        type_ = "string",
        json_path = ".spec.displayName",
        priority = 1
    ),
    printcolumn(
        name = "Roles",
        type_ = "string",
        json_path = ".spec.roles",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct UserSpec {
    /// The OidcProvider whose tokens speak of the person.
    #[x_kube(validation = Rule::new("self == oldSelf").message("provider can not be changed, as it would be another person: delete the User and make another one."))]
    pub provider: UserProvider,

    /// What the provider calls the person: what stands in its tokens where its claims.subject says (sub, as a
    /// rule), byte for byte.
    #[schemars(schema_with = "vocabulary::subject")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("subject can not be changed, as it would be another person: delete the User and make another one."))]
    pub subject: String,

    /// What people call the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::display_name")]
    pub display_name: Option<String>,

    /// Roles that the person has here beside those that the provider's mapping gives. Tokens have no role that
    /// the Subscription does not allow.
    #[serde(default)]
    #[schemars(schema_with = "vocabulary::person_roles")]
    pub roles: Vec<String>,

    /// True: nobody gets a token that speaks for the person, and those that do hold no more.
    #[serde(default)]
    pub suspended: bool,
}

/// An OidcProvider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserProvider {
    /// The name of the OidcProvider.
    #[schemars(schema_with = "vocabulary::provider_name")]
    pub name: String,
    /// Tenant: the one of that name in this namespace. Global: the one in the operator's namespace, which is
    /// for every tenant.
    #[serde(default)]
    pub scope: ProviderScope,
}

/// What the operator says of a User.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UserStatus {
    /// The metadata.generation that this status speaks of; -1 before the first visit.
    pub observed_generation: i64,
    /// Ready, and while they hold Reconciling, Stalled and Restricted.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What the person is called here, and in tokens (sub): provider:subject, of a tenant's provider
    /// namespace/provider:subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl User {
    /// What the person is called here, and in tokens.
    pub fn person(&self) -> String {
        let UserProvider { name, scope } = &self.spec.provider;
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        person_id(&provider_id(*scope, namespace, name), &self.spec.subject)
    }

    /// What the domain needs to know of it.
    pub fn facts(&self) -> UserFacts {
        let created = self.creation_timestamp();
        UserFacts {
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
            uid: self.uid().unwrap_or_default(),
            created: created.map_or(Timestamp::MAX, |at| at.0),
            id: self.person(),
            display_name: self.spec.display_name.clone(),
            roles: self.spec.roles.clone(),
            suspended: self.spec.suspended,
        }
    }
}
