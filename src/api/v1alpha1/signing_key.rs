//! `SigningKey`: a ring of key pairs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Publish;
use crate::domain::algorithm::{Algorithm, RsaKeySize};

/// A ring of key pairs for one audience and one algorithm. The operator makes its keys, publishes
/// them in a JWKS (the ConfigMap <name>-jwks, the issuer's ConfigMap chancery-issuer, and HTTP),
/// and signs tokens with the active one. It lives in the operator's namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "chancery.dev",
    version = "v1alpha1",
    kind = "SigningKey",
    namespaced,
    status = "SigningKeyStatus",
    shortname = "sk",
    category = "identity",
    derive = "PartialEq",
    doc = "A ring of key pairs for one audience and one algorithm. The operator makes its keys, publishes them in a JWKS, and signs tokens with the active one. It lives in the operator's namespace.",
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name is longer than 52 characters: the names of the ring's Secrets and ConfigMap follow from it, so choose a shorter one."),
    printcolumn(name = "Audience", type_ = "string", json_path = ".spec.audience"),
    printcolumn(name = "Algorithm", type_ = "string", json_path = ".spec.algorithm"),
    printcolumn(name = "Active key", type_ = "string", json_path = ".status.activeKeyId", description = "The kid of the key that signs"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.rsaKeySize) || self.algorithm.startsWith('RS') || self.algorithm.startsWith('PS')")
        .message("rsaKeySize is only for the RS and PS algorithms: take it away, or choose one of those.").field_path(".rsaKeySize"),
    validation = Rule::new("self.algorithm == oldSelf.algorithm")
        .message("algorithm can not be changed on a ring that exists: make a second SigningKey with the new algorithm and a higher priority, and delete this one when its tokens have expired.").field_path(".algorithm"),
    validation = Rule::new("(has(self.rsaKeySize) ? self.rsaKeySize : 2048) == (has(oldSelf.rsaKeySize) ? oldSelf.rsaKeySize : 2048)")
        .message("rsaKeySize can not be changed on a ring that exists: make a second SigningKey with the new size and a higher priority, and delete this one when its tokens have expired.").field_path(".rsaKeySize"),
)]
pub struct SigningKeySpec {
    /// Which subjects the ring's tokens speak for: client (technical users) or human (people; its
    /// keys are made and published, and no grant of this version signs with them yet).
    #[x_kube(validation = Rule::new("self == oldSelf").message("audience can not be changed on a ring that exists: make a second SigningKey for the other audience."))]
    pub audience: KeyAudience,

    /// The signature algorithm, by its name in JWT headers (RFC 7518): one of RS256 RS384 RS512
    /// PS256 PS384 PS512 ES256 ES384 ES512 EdDSA. RS256 where absent.
    #[serde(default = "default_algorithm")]
    pub algorithm: Algorithm,

    /// The size of RSA keys in bits: 2048 (the default), 3072 or 4096. Only for RS and PS
    /// algorithms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rsa_key_size_schema")]
    pub rsa_key_size: Option<i32>,

    /// Where several rings have the same audience, the one with the highest priority signs, then
    /// the first by name. From -1000 to 1000; 0 where absent.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,

    /// Where the ring's JWKS is published besides: ConfigMaps in other namespaces. The condition
    /// Published says whether they stand; nothing that a key does waits for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub publish: Vec<Publish>,
}

fn default_algorithm() -> Algorithm {
    Algorithm::RS256
}

fn rsa_key_size_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "integer", "format": "int32", "enum": [2048, 3072, 4096] })
}

/// Which subjects a ring's tokens speak for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyAudience {
    /// People: sign-in and on-behalf-of.
    Human,
    /// Technical users.
    Client,
}

impl SigningKeySpec {
    /// The size of an RSA key of this ring.
    pub fn rsa_size(&self) -> RsaKeySize {
        self.rsa_key_size
            .and_then(RsaKeySize::from_bits)
            .unwrap_or(RsaKeySize::Bits2048)
    }
}

/// What the operator says of a ring.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SigningKeyStatus {
    /// The metadata.generation that this status speaks of; -1 before the first visit.
    pub observed_generation: i64,
    /// Ready, and while they hold Reconciling and Stalled.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The kid of the key that signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_key_id: Option<String>,
    /// Every key pair of the ring, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyStatus>,
    /// The ConfigMap with the ring's JWKS, in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_config_map: Option<String>,
}

/// One key pair of a ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyStatus {
    /// Its kid in JWT headers: the RFC 7638 thumbprint.
    pub key_id: String,
    /// Its number in the ring; the Secret is called <ring>-<sequence>.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub sequence: i64,
    /// Next (made, perhaps published, does not sign), Active (signs), or Retired (verifies only).
    pub state: KeyState,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When it was first seen in the issuer's JWKS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Time>,
    /// When it began to sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<Time>,
    /// When it ceased to sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Time>,
    /// When it leaves the JWKS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifies_until: Option<Time>,
    /// True when the Secret with the private key is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub material_lost: bool,
    /// The public key as it stands in the JWKS.
    #[serde(default)]
    pub public_jwk: BTreeMap<String, String>,
}

/// Where a key pair is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyState {
    /// Made, and not signing yet.
    Next,
    /// Signs.
    Active,
    /// Verifies only.
    Retired,
}
