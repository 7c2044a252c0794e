//! `TechnicalUser`: a machine client with credentials.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::assertion::{PublicKeyCredential, ServiceAccountCredential, ServiceAccountStatus};
use super::companion::{CompanionAgent, CompanionStatus};
use super::one_time::SealedStatus;
use super::secret_credential::{Delivery, SecretCredential, SecretKeys};
use crate::domain::client::{DEFAULT_SECRET_GRACE, Family};
use crate::domain::names;
use crate::domain::period::Period;
use crate::domain::rate::Rate;
use crate::domain::vocabulary;

/// A machine client that gets access tokens with the client_credentials grant. It authenticates with a
/// secret, which the operator makes, keeps as a hash and delivers in a Secret of the same namespace, or which
/// you supply, with a key pair of its own, or with its Kubernetes ServiceAccount.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "chancery.dev",
    version = "v1alpha1",
    kind = "TechnicalUser",
    namespaced,
    status = "TechnicalUserStatus",
    shortname = "tu",
    category = "identity",
    derive = "PartialEq",
    doc = "A machine client that gets access tokens with the client_credentials grant. It authenticates with a secret, which the operator makes, keeps as a hash and delivers in a Secret of the same namespace, or which you supply, with a key pair of its own, or with its Kubernetes ServiceAccount.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name is longer than 63 characters: the client id and the Secret's name follow from it, so choose a shorter one."),
    validation = Rule::new("!has(self.spec.companionAgent) || has(self.spec.companionAgent.name) || self.metadata.name.size() <= 57").message("metadata.name is longer than 57 characters, and with -agent, as its companion agent is called, longer than 63: set companionAgent.name, or choose a shorter one."),
    validation = Rule::new("!has(self.spec.companionAgent) || !has(self.spec.companionAgent.name) || self.spec.companionAgent.name != self.metadata.name").message("companionAgent.name is that of the device itself: choose another, or take it away for the device's name with -agent."),
    printcolumn(name = "Client ID", type_ = "string", json_path = ".status.clientId"),
    printcolumn(name = "Credential", type_ = "string", json_path = ".status.credential"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspended"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Stalled", type_ = "string", json_path = ".status.conditions[?(@.type=='Stalled')].reason", description = "Why a person has to do something, although it may go on getting tokens"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Family", type_ = "string", json_path = ".spec.family", priority = 1),
    printcolumn(name = "Secret ID", type_ = "string", json_path = ".status.credentials[?(@.state=='Active')].id", description = "The client secret that was delivered last", priority = 1),
    printcolumn(name = "Old until", type_ = "string", json_path = ".status.graceEndsAt", description = "Until when the last of the client secrets before it works", priority = 1),
    printcolumn(name = "Rotates", type_ = "string", json_path = ".status.nextRotation", description = "When the next client secret is made by the clock; in the past: it is overdue", priority = 1),
    printcolumn(name = "Companion", type_ = "string", json_path = ".status.companionAgent.name", description = "The agent that goes with a device", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.clientId) == has(oldSelf.clientId) && (!has(self.clientId) || self.clientId == oldSelf.clientId)")
        .message("clientId can not be changed, since services know the client by it: make a second TechnicalUser.").field_path(".clientId"),
    validation = Rule::new("!has(self.companionAgent) || self.family == 'Device'")
        .message("companionAgent is for a technical user of family Device, with which it goes: take it away, or make the agent a TechnicalUser of its own.").field_path(".companionAgent"),
    validation = Rule::new("!has(self.companionAgent) || self.companionAgent.roles.all(r, r in self.roles)")
        .message("companionAgent.roles has a role that the device does not have, and an agent is given no more than its device: take it away there, or add it to roles.").field_path(".companionAgent.roles"),
    validation = Rule::new("!has(self.companionAgent) || self.companionAgent.scopes.all(s, s in self.scopes)")
        .message("companionAgent.scopes has a scope that the device does not have, and an agent is given no more than its device: take it away there, or add it to scopes.").field_path(".companionAgent.scopes"),
    validation = Rule::new("!has(self.companionAgent) || !has(self.companionAgent.audiences) || self.companionAgent.audiences.all(a, a in self.audiences)")
        .message("companionAgent.audiences has an audience that the device does not have, and an agent is given no more than its device: take it away there, or add it to audiences.").field_path(".companionAgent.audiences"),
)]
pub struct TechnicalUserSpec {
    /// The client id; <namespace>.<name> where absent. One of your choosing begins with
    /// "<namespace>." too, unless the Subscription's allowed.clientIds lists it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::client_id")]
    pub client_id: Option<String>,

    /// What it is for: Integration, a service that calls another (its secrets begin with sk-); Device,
    /// a machine in somebody's hands, which can revoke itself (dk-); Agent, a program that acts by itself
    /// (ak-). Its tokens say which, and live by default for 5m, 15m and 5m.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("family can not be changed, since the client's secrets and tokens say it: make a second TechnicalUser."))]
    pub family: Family,

    /// The roles in its tokens, as far as the Subscription allows them.
    #[serde(default)]
    #[schemars(schema_with = "vocabulary::roles")]
    pub roles: Vec<String>,

    /// The scopes that it may ask for, as far as the Subscription allows them; a request without
    /// scope gets them all.
    #[serde(default)]
    #[schemars(schema_with = "vocabulary::scopes")]
    pub scopes: Vec<String>,

    /// The audiences (aud) that it may ask for, as far as the Subscription allows them; a request
    /// that names none gets the first.
    #[schemars(schema_with = "vocabulary::audiences")]
    pub audiences: Vec<String>,

    /// How long its tokens live, such as 90s, 5m or 1h. The release's default where absent, and
    /// never more than the release allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("!self.matches('^([0-9]{1,5}(h|m|s)){1,3}$') || duration(self) >= duration('1s')")
            .message("tokenTtl is zero: give tokens a life of at least 1s, or take the field away for the release's default."),
        validation = Rule::new("!self.matches('^([0-9]{1,5}(h|m|s)){1,3}$') || duration(self) <= duration('24h')")
            .message("tokenTtl is longer than 24h, which is more than any release allows: choose a shorter life."),
    )]
    pub token_ttl: Option<Period>,

    /// How often it may ask for a token, such as 10/s, 600/m or 5000/h: as many at once, which then
    /// come back evenly. Each replica of the server counts for itself. The release's default where
    /// absent, and never more than the release allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_rate: Option<Rate>,

    /// The SigningKey that signs its tokens; by default the release's choice among those with
    /// audience client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::signing_key_name")]
    pub signing_key: Option<String>,

    /// True: it may act for people of its tenant whose tokens it presents (token exchange, RFC 8693),
    /// with its own scopes and audiences, and the person's roles, at most.
    #[serde(default)]
    pub on_behalf_of: bool,

    /// True: it may ask whether a token of its tenant holds, and what stands in it (POST
    /// /oauth/introspect), as a service does that is sent one.
    #[serde(default)]
    pub introspect: bool,

    /// True: it gets no tokens until this is taken back. Its credential stays as it is.
    #[serde(default)]
    pub suspended: bool,

    /// Of a Device: an agent that goes with it. The operator makes that TechnicalUser, keeps it as it is
    /// said here, and deletes it with the device, or where this is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub companion_agent: Option<CompanionAgent>,

    /// How it authenticates: exactly one of secret, publicKey and serviceAccount.
    pub credential: Credential,
}

/// How a technical user authenticates.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.secret), has(self.publicKey), has(self.serviceAccount)].exists_one(x, x)")
        .message("credential has none of secret, publicKey and serviceAccount, or more than one of them: say in one way how the client authenticates."),
    validation = Rule::new("!has(self.gracePeriod) || !has(self.secret)")
        .message("gracePeriod says how long an earlier client secret works on beside publicKey or serviceAccount, and there is nothing for it to do beside secret: take it away.")
        .field_path(".gracePeriod"),
)]
pub struct Credential {
    /// With a client secret: one that the operator generates, or, with delivery Reference, one that you
    /// supply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretCredential>,

    /// With a key pair of its own, of which the public half stands here (private_key_jwt).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKeyCredential>,

    /// With the projected token of its Kubernetes ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountCredential>,

    /// Where secret was exchanged for another way: how long the client secret works on beside it; 24h
    /// where absent, and with 0s it ends at once. Then the delivered Secret is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Period>,
}

/// What the operator says of a technical user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TechnicalUserStatus {
    /// The metadata.generation that this status speaks of; -1 before the first visit.
    pub observed_generation: i64,
    /// Ready, and while they hold Reconciling, Stalled, Restricted and RotationPaused.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The client id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// How it authenticates: Secret, OneTime (a client secret that is delivered once), Reference (one that
    /// a person supplies), PublicKey or ServiceAccount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The ids (kid) of the public keys that its assertions verify with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub key_ids: Vec<String>,
    /// The ServiceAccount whose tokens authenticate it; absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountStatus>,
    /// The Secret in this namespace that holds the credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Secrets in this namespace that hold a client secret too, and are about to go, since another one
    /// has taken their place: what mounts them has until then to follow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub former_secrets: Vec<FormerSecretStatus>,
    /// The credentials that work, the newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialStatus>,
    /// The id of the newest client secret that was ever there: no later one has an id up to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_credential_id: Option<String>,
    /// Until when the last of those works that another one follows: what uses the client has read the new
    /// one by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_ends_at: Option<Time>,
    /// When the next client secret is made by the clock; in the past: it is overdue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_rotation: Option<Time>,
    /// The last value of the annotation chancery.dev/rotate for which a secret was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_rotation: Option<String>,
    /// With delivery OneTime: the client secret, sealed to whoever claimed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedStatus>,
    /// The recipient of the last annotation chancery.dev/claim that was looked at: a client secret was sealed
    /// to it, or there was none to be claimed. It seals no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_claim: Option<String>,
    /// The Subscription that holds for it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription: Option<String>,
    /// The agent that goes with a device, once it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub companion_agent: Option<CompanionStatus>,
    /// That it was revoked, until somebody asks for a new secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked: Option<RevokedStatus>,
}

/// A technical user that was revoked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevokedStatus {
    /// When it was revoked.
    pub at: Time,
    /// Why, such as RevokedByDevice.
    pub reason: String,
    /// The value that the annotation chancery.dev/rotate had then: another one makes a new secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<String>,
}

/// A Secret that holds a client secret and is about to go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FormerSecretStatus {
    /// The Secret's name.
    pub name: String,
    /// Until when it is there, where that is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// A client secret that works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// Names it; no secret.
    pub id: String,
    /// When it was made; of one that you supply, when it was first read.
    pub created_at: Time,
    /// Next: made, and about to be delivered. Active: the one that was delivered last, or that you supply;
    /// there can be two of these. Retired: an old one, which works until expiresAt.
    #[serde(default)]
    pub state: CredentialState,
    /// Until when it works, where that is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// The Secret that it was read from, where you supply it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
}

/// Where a credential is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CredentialState {
    /// It was made, and is about to be delivered.
    Next,
    /// It was delivered last.
    #[default]
    Active,
    /// Another one was delivered; it works through its grace.
    Retired,
}

impl TechnicalUser {
    /// The client id that it has, chosen or following from its name.
    pub fn client_id(&self) -> String {
        self.spec.client_id.clone().unwrap_or_else(|| {
            names::default_client_id(&self.namespace().unwrap_or_default(), &self.name_any())
        })
    }

    /// What it says of its client secret, if it authenticates with one.
    pub fn secret_credential(&self) -> Option<&SecretCredential> {
        self.spec.credential.secret.as_ref()
    }

    /// How long an earlier client secret works on beside another way to authenticate.
    pub fn secret_grace(&self) -> Period {
        let said = self.spec.credential.grace_period;
        said.unwrap_or(DEFAULT_SECRET_GRACE)
    }

    /// What the keys of the delivered Secret are called.
    pub fn secret_keys(&self) -> SecretKeys {
        let secret = self.secret_credential();
        secret.map(|s| s.keys.clone()).unwrap_or_default()
    }

    /// The Secret that its client secret is to be delivered in, if it is to be.
    pub fn delivers_in(&self) -> Option<String> {
        let delivers = |s: &&SecretCredential| s.delivery == Delivery::Secret;
        let delivers = self.secret_credential().filter(delivers);
        delivers.map(|_| self.secret_name())
    }

    /// The Secret that its credential is delivered in, where it authenticates with a client secret.
    pub fn secret_name(&self) -> String {
        let chosen = self.secret_credential().and_then(|s| s.secret_name.clone());
        chosen.unwrap_or_else(|| names::default_delivery_secret(&self.name_any()))
    }
}
