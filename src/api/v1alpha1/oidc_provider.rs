//! `OidcProvider`: an outside identity provider whose tokens are taken.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::unquoted::unquoted;
use crate::domain::client_key::GivenJwk;
use crate::domain::period::Period;
use crate::domain::provider::{
    AutoEnroll, ClaimPath, ClaimPaths, Example, Expected, Provider, Required, RoleMapping,
};
use crate::domain::vocabulary;

/// Another value of it has the operator ask the provider anew, at once.
pub const RELOAD_ANNOTATION: &str = "chancery.dev/reload";
/// Of a provider, present where it is asked for its keys: whether it answered the last time.
pub const REACHABLE: &str = "Reachable";
/// Of a provider: whether the issuer (iss) of its tokens is looked at.
pub const ISSUER_VALIDATED: &str = "IssuerValidated";

/// An outside identity provider: its tokens are taken where one of this issuer would be, and speak of its
/// people. In the operator's namespace it is for every tenant, in a tenant's namespace for that tenant alone.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "chancery.dev",
    version = "v1alpha1",
    kind = "OidcProvider",
    namespaced,
    status = "OidcProviderStatus",
    shortname = "oidc",
    category = "identity",
    derive = "PartialEq",
    doc = "An outside identity provider: its tokens are taken where one of this issuer would be, and speak of its people. In the operator's namespace it is for every tenant, in a tenant's namespace for that tenant alone.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name is longer than 63 characters: it stands in the id of each of the provider's people, so choose a shorter one."),
    printcolumn(name = "Issuer", type_ = "string", json_path = ".status.issuer"),
    printcolumn(name = "Active", type_ = "boolean", json_path = ".spec.active"),
    printcolumn(name = "Reachable", type_ = "string", json_path = ".status.conditions[?(@.type=='Reachable')].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Refreshed", type_ = "date", json_path = ".status.lastRefresh", description = "How long ago its keys were read", priority = 1),
    printcolumn(name = "Keys", type_ = "string", json_path = ".status.keyIds", priority = 1),
    printcolumn(name = "Stalled", type_ = "string", json_path = ".status.conditions[?(@.type=='Stalled')].reason", description = "Why a person has to do something, although its tokens may go on being taken", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.wellKnownUri) != (has(self.jwks) && has(self.jwks.keys) && self.jwks.keys.size() > 0)")
        .message("a provider has either wellKnownUri, where its metadata tells of its keys, or its keys themselves in jwks.keys: give one of the two."),
    validation = Rule::new("!has(self.wellKnownUri) || !self.requireHttps || self.wellKnownUri.startsWith('https://')")
        .message("wellKnownUri does not begin with https://, so that anyone on the way could put keys of their own into the answer: use https, or set requireHttps to false for a provider within the cluster.").field_path(".wellKnownUri"),
    validation = unquoted("wellKnownUri", vocabulary::WELL_KNOWN_URI[0]),
    validation = unquoted("wellKnownUri", vocabulary::WELL_KNOWN_URI[1]),
    validation = unquoted("caBundle", vocabulary::CA_BUNDLE[0]),
    validation = unquoted("caBundle", vocabulary::CA_BUNDLE[1]),
)]
pub struct OidcProviderSpec {
    /// Where the provider's metadata is, such as
    /// https://login.example.com/.well-known/openid-configuration. It tells where the keys are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::well_known_uri")]
    pub well_known_uri: Option<String>,

    /// What may stand as iss in its tokens, byte for byte. The metadata's issuer must be one of them.
    /// Empty: iss is not looked at, and the metadata's issuer must be what wellKnownUri begins with; in a
    /// tenant's namespace the release has to allow that (providers.allowTenantsAnyIssuer).
    #[serde(default)]
    #[schemars(schema_with = "vocabulary::provider_issuers")]
    pub issuers: Vec<String>,

    /// Of these one must stand in its tokens as aud. Without that a token that was made for another service
    /// would be taken here.
    #[schemars(schema_with = "vocabulary::provider_audiences")]
    pub audiences: Vec<String>,

    /// False: none of its tokens is taken, on every replica, until this is taken back.
    #[serde(default = "default_true")]
    pub active: bool,

    /// False: wellKnownUri, and where the keys are, may be http. For a provider within the cluster.
    #[serde(default = "default_true")]
    pub require_https: bool,

    /// The certificates (PEM) of the authorities that sign the provider's certificate, in place of those that
    /// the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::ca_bundle")]
    pub ca_bundle: Option<String>,

    /// Where in its tokens stands what is needed here.
    #[serde(default)]
    pub claims: ProviderClaims,

    /// From the provider's roles to those here. Empty: they are taken as they are. With a mapping, a role that
    /// it does not name is none. Tokens have no role that the Subscription does not allow, either way.
    #[serde(default)]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["from"]))]
    pub role_mappings: Vec<MappedRole>,

    /// Who of its people are enrolled by themselves.
    #[serde(default)]
    pub auto_enroll: AutoEnroll,

    /// How the provider's keys are known.
    #[serde(default)]
    pub jwks: ProviderJwks,

    /// Tokens of the provider and what is to come of them. The operator tries each, and takes no token of the
    /// provider while one fails.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub examples: Vec<TokenExample>,
}

/// Where in a provider's tokens stands what is needed here. A claim is named by names with dots between them,
/// such as realm_access.roles; a dot within a name is written \., a backslash \\; what begins with https:// is
/// one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderClaims {
    /// Whom the token speaks of. A person is called <provider>:<this> here, and of a tenant's provider
    /// <namespace>/<provider>:<this>.
    #[schemars(schema_with = "vocabulary::claim_path")]
    pub subject: String,
    /// The organisation that they belong to; it may be missing.
    #[schemars(schema_with = "vocabulary::claim_path")]
    pub organisation: String,
    /// The legal entity (tenant) that they belong to. In tokens of a tenant's provider it may be missing: they
    /// belong to that tenant.
    #[schemars(schema_with = "vocabulary::claim_path")]
    pub legal_entity: String,
    /// Their roles: an array, an object with the roles as its keys, or a text with spaces between them. They
    /// may be missing.
    #[schemars(schema_with = "vocabulary::claim_path")]
    pub roles: String,
    /// What must stand in each token besides.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub required: Vec<RequiredClaim>,
}

impl Default for ProviderClaims {
    fn default() -> Self {
        Self {
            subject: "sub".into(),
            organisation: "org_id".into(),
            legal_entity: "caas_org_id".into(),
            roles: "user_roles".into(),
            required: Vec::new(),
        }
    }
}

/// A claim that must be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequiredClaim {
    /// The claim, by its names.
    #[schemars(schema_with = "vocabulary::claim_path")]
    pub claim: String,
    /// What it must be, or what must be in it where it is an array; anything where absent. true and 7 are
    /// written "true" and "7".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::claim_value")]
    pub value: Option<String>,
}

/// What a role of the provider is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MappedRole {
    /// The provider's role.
    #[schemars(schema_with = "vocabulary::provider_role")]
    pub from: String,
    /// The roles here.
    #[schemars(schema_with = "vocabulary::mapped_roles")]
    pub to: Vec<String>,
}

/// How a provider's keys are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderJwks {
    /// How often they are read, at the latest, from 10s to 24h. A shorter max-age of the provider's answer
    /// holds, down to 10s.
    #[serde(default = "default_refresh")]
    #[x_kube(
        validation = Rule::new("!self.matches('^([0-9]{1,5}(h|m|s)){1,3}$') || (duration(self) >= duration('10s') && duration(self) <= duration('24h'))")
            .message("refreshInterval is not from 10s to 24h: a provider's new key is known after this time at the latest, and 5m is usual."),
    )]
    pub refresh_interval: Period,
    /// The keys of a signer without metadata, at most 20, of those kinds that its JWKS could have. In YAML the
    /// names "n" and "y" need their quotes, since bare they are no and yes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "vocabulary::provider_keys")]
    pub keys: Vec<GivenJwk>,
}

impl Default for ProviderJwks {
    fn default() -> Self {
        Self {
            refresh_interval: default_refresh(),
            keys: Vec::new(),
        }
    }
}

/// A token of the provider, and what is to come of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenExample {
    /// The token's claims. Of iss, aud and the times those that are left out count as right. The times that
    /// stand there are judged as at iat, and without one as at the moment when this resource was made.
    #[schemars(schema_with = "vocabulary::example_token")]
    pub token: Map<String, Value>,
    /// What is to come of it; what is left out may be anything.
    // Without a default in the schema: kubectl would find the list changed each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<ExpectedSubject>,
}

/// What is to come of an example.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.refused) || !(has(self.id) || has(self.organisation) || has(self.legalEntity) || has(self.roles))")
        .message("refused says that no token comes of it, and beside it stands what is to come of it: take refused away, or all else."),
)]
pub struct ExpectedSubject {
    /// What the person is called here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::example_text")]
    pub id: Option<String>,
    /// Their organisation; empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::example_text")]
    pub organisation: Option<String>,
    /// Their legal entity; empty: none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::example_text")]
    pub legal_entity: Option<String>,
    /// Their roles here, in any order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::example_roles")]
    pub roles: Option<Vec<String>>,
    /// That the token is refused, and why, such as LegalEntityMissing; nothing else stands beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::example_refusal")]
    pub refused: Option<String>,
}

fn default_refresh() -> Period {
    Period::from_mins(5)
}

fn default_true() -> bool {
    true
}

/// What the operator says of a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OidcProviderStatus {
    /// The metadata.generation that this status speaks of; -1 before the first visit.
    pub observed_generation: i64,
    /// Ready, Reachable and IssuerValidated, and while they hold Reconciling and Stalled.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The environment of the release that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// What the provider's metadata calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Where its metadata says that its keys are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// What its keys are called that are trusted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub key_ids: Vec<String>,
    /// When its keys were read last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_refresh: Option<Time>,
    /// When they are read next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_refresh: Option<Time>,
    /// The value of the annotation chancery.dev/reload for which the provider was asked last; Reachable
    /// and lastRefresh tell whether it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reload: Option<String>,
}

impl OidcProvider {
    /// What the domain needs to know of it: one of the operator's namespace is for every tenant.
    ///
    /// # Errors
    /// A sentence about what the schema lets pass and can not be used.
    pub fn provider(&self, operator_namespace: &str) -> Result<Provider, String> {
        let spec = &self.spec;
        let namespace = self.namespace().unwrap_or_default();
        let path = |field: &str, text: &str| -> Result<ClaimPath, String> {
            text.parse()
                .map_err(|why| format!("spec.claims.{field} is {text:?}: {why}."))
        };
        let claims = &spec.claims;
        let required = claims.required.iter().map(|required| {
            Ok(Required {
                claim: path("required.claim", &required.claim)?,
                value: required.value.clone(),
            })
        });
        let mappings = spec.role_mappings.iter().map(|mapped| RoleMapping {
            from: mapped.from.clone(),
            to: mapped.to.clone(),
        });
        let created = self.creation_timestamp();
        Ok(Provider {
            namespace: (namespace != operator_namespace).then_some(namespace),
            name: self.name_any(),
            registered: created.map_or(i64::MAX, |created| created.0.as_second()),
            active: spec.active,
            issuers: spec.issuers.clone(),
            audiences: spec.audiences.clone(),
            claims: ClaimPaths {
                subject: path("subject", &claims.subject)?,
                organisation: path("organisation", &claims.organisation)?,
                legal_entity: path("legalEntity", &claims.legal_entity)?,
                roles: path("roles", &claims.roles)?,
            },
            required: required.collect::<Result<_, String>>()?,
            role_mappings: mappings.collect(),
            auto_enroll: spec.auto_enroll,
        })
    }

    /// Its examples.
    pub fn examples(&self) -> impl Iterator<Item = Example> {
        self.spec.examples.iter().map(|example| {
            let expect = example.expect.clone().unwrap_or_default();
            Example {
                token: example.token.clone(),
                expect: Expected {
                    id: expect.id,
                    organisation: expect.organisation,
                    legal_entity: expect.legal_entity,
                    roles: expect.roles,
                    refused: expect.refused,
                },
            }
        })
    }
}
