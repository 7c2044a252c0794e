//! `Subscription`: what binds a namespace to a tenant.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::subscription::{Allowed, SubscriptionFacts};
use crate::domain::tier::{EntitlementId, Entitlements, Limit, TimeInterval};
use crate::domain::vocabulary;

/// Binds a namespace to one legal entity (the tenant), and says what its tokens may say at most.
/// Platform administrators write it; tenants do not.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "chancery.dev",
    version = "v1alpha1",
    kind = "Subscription",
    namespaced,
    status = "SubscriptionStatus",
    shortname = "subs",
    category = "identity",
    derive = "PartialEq",
    doc = "Binds a namespace to one legal entity (the tenant), and says what its tokens may say at most. Platform administrators write it; tenants do not.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name is longer than 63 characters: choose a shorter one."),
    printcolumn(name = "Legal entity", type_ = "string", json_path = ".spec.legalEntity.id"),
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Current", type_ = "boolean", json_path = ".status.current", description = "Whether it is the one that holds now"),
    printcolumn(name = "From", type_ = "string", json_path = ".spec.periodFrom", priority = 1),
    printcolumn(name = "To", type_ = "string", json_path = ".spec.periodTo"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Environment", type_ = "string", json_path = ".spec.environment", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.periodFrom) || !has(self.periodTo) || self.periodFrom < self.periodTo")
        .message("periodTo is not after periodFrom: the subscription would never be current.").field_path(".periodTo"),
)]
pub struct SubscriptionSpec {
    /// The Chancery release that serves this namespace, by its environment's name; default where
    /// absent.
    #[serde(default = "default_environment")]
    #[schemars(schema_with = "vocabulary::environment")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("environment can not be changed: delete the Subscription and make it again."))]
    pub environment: String,

    /// The tenant that this namespace speaks for.
    #[x_kube(validation = Rule::new("self.id == oldSelf.id").message("legalEntity.id can not be changed, since a namespace never changes its tenant: make a namespace of its own for the other legal entity.").field_path(".id"))]
    pub legal_entity: LegalEntity,

    /// The tier: Free, Developer, Pro, Enterprise, or one that the release defines.
    #[schemars(schema_with = "vocabulary::tier_name")]
    pub tier: String,

    /// What tokens of this namespace may say at most. Nothing is allowed that is not listed.
    #[serde(default)]
    pub allowed: Allowed,

    /// When it begins (RFC 3339). Absent: since ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("timestamp('0001-01-01T00:00:00Z') <= self && self < timestamp('9999-01-01T00:00:00Z')").message("a date lies in the years 1 to 9998: for a period without beginning leave periodFrom away."))]
    pub period_from: Option<Time>,

    /// When it ends (RFC 3339): from then on it is not current. Absent: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("timestamp('0001-01-01T00:00:00Z') <= self && self < timestamp('9999-01-01T00:00:00Z')").message("a date lies in the years 1 to 9998: for a period without end leave periodTo away."))]
    pub period_to: Option<Time>,

    /// Limits that differ from the tier's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    #[x_kube(
        validation = Rule::new("self.all(e, !has(e.limit) || has(e.timeIntervalBound) || !(e.id in ['API_REQUEST', 'EXTERNALIZED_CALL']))")
            .message("API_REQUEST and EXTERNALIZED_CALL are rates: say with timeIntervalBound in which interval the limit holds."),
        validation = Rule::new("self.all(e, !has(e.timeIntervalBound) || e.id in ['API_REQUEST', 'EXTERNALIZED_CALL'])")
            .message("timeIntervalBound is only for the rates API_REQUEST and EXTERNALIZED_CALL: take it away from the others."),
    )]
    pub entitlements: Vec<Entitlement>,
}

fn default_environment() -> String {
    "default".into()
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LegalEntity {
    /// Its id, which stands in every token: letters, digits, dots, dashes and underscores.
    #[schemars(schema_with = "vocabulary::legal_entity_id")]
    pub id: String,
    /// Its name, for people.
    #[schemars(schema_with = "vocabulary::display_name")]
    pub name: String,
}

/// The limit of one entitlement: a number, or explicitly none.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.limit) != (has(self.unlimited) && self.unlimited)")
        .message("say either limit or unlimited: true, and not both."),
    validation = Rule::new("!has(self.timeIntervalBound) || has(self.limit)")
        .message("timeIntervalBound goes with a limit: what is unlimited has no interval."),
)]
pub struct Entitlement {
    /// Which entitlement.
    pub id: EntitlementId,
    /// How many, or how many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub limit: Option<i64>,
    /// True for no limit at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlimited: bool,
    /// For a rate: the interval in which the limit holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_interval_bound: Option<TimeInterval>,
}

impl Entitlement {
    fn new(id: EntitlementId, limit: Limit) -> Self {
        let Limit {
            limit,
            unlimited,
            time_interval_bound,
        } = limit;
        Self {
            id,
            limit,
            unlimited,
            time_interval_bound,
        }
    }

    /// A list of them, as status shows it.
    pub fn list(entitlements: &Entitlements) -> Vec<Self> {
        entitlements
            .iter()
            .map(|(id, limit)| Self::new(*id, *limit))
            .collect()
    }
}

/// What the operator says of a Subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionStatus {
    /// The metadata.generation that this status speaks of; -1 before the first visit.
    pub observed_generation: i64,
    /// Ready, and while they hold Reconciling and Stalled.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Whether it is the one of its namespace that holds now.
    pub current: bool,
    /// What the tenant is entitled to under it: the tier's limits with its own laid over them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub entitlements: Vec<Entitlement>,
}

impl Subscription {
    /// What the domain needs to know of it.
    pub fn facts(&self) -> SubscriptionFacts {
        let SubscriptionSpec {
            environment,
            legal_entity,
            tier,
            allowed,
            period_from,
            period_to,
            entitlements,
        } = &self.spec;
        SubscriptionFacts {
            namespace: self.namespace().unwrap_or_default(),
            name: self.name_any(),
            created: self
                .creation_timestamp()
                .map_or(jiff::Timestamp::MAX, |t| t.0),
            uid: self.uid().unwrap_or_default(),
            environment: environment.clone(),
            legal_entity_id: legal_entity.id.clone(),
            legal_entity_name: legal_entity.name.clone(),
            tier: tier.clone(),
            allowed: allowed.clone(),
            period_from: period_from.as_ref().map(|t| t.0),
            period_to: period_to.as_ref().map(|t| t.0),
            entitlements: entitlements
                .iter()
                .map(|e| {
                    let Entitlement {
                        id,
                        limit,
                        unlimited,
                        time_interval_bound,
                    } = *e;
                    (
                        id,
                        Limit {
                            limit,
                            unlimited,
                            time_interval_bound,
                        },
                    )
                })
                .collect(),
        }
    }
}
