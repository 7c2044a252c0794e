//! How a technical user authenticates without a secret.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::unquoted::unquoted;
use crate::domain::client_key::GivenJwk;
use crate::domain::vocabulary;

/// A key pair of the client's own: it signs a JWT for each request for a token (private_key_jwt).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublicKeyCredential {
    /// The public keys, as a JWK Set (RFC 7517). With several, each assertion names its own by kid,
    /// so that keys are rotated by adding one and taking the other away later.
    pub jwks: Jwks,
}

/// Public keys as a JWK Set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Jwks {
    /// The keys, at most 16: RSA from 2048 bits on, EC on P-256, P-384 or P-521, and Ed25519. In YAML the
    /// names "n" and "y" need their quotes, since bare they are no and yes.
    #[schemars(schema_with = "vocabulary::public_keys")]
    pub keys: Vec<GivenJwk>,
}

/// A Kubernetes ServiceAccount: its workloads show a projected token of it, and no secret exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountCredential {
    /// The ServiceAccount's name.
    #[schemars(schema_with = "vocabulary::object_name")]
    pub name: String,

    /// Its namespace; that of the TechnicalUser where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::namespace")]
    pub namespace: Option<String>,

    /// The audience that its tokens are projected with; the issuer where absent. Another one has to be
    /// among the release's policy.serviceAccountAudiences, and never the API server's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::token_audience")]
    pub audience: Option<String>,

    /// Where the ServiceAccount is another cluster's: who issues its tokens, and with which keys. They
    /// vouch for this technical user alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<OtherCluster>,
}

/// Another cluster.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = unquoted("issuer", vocabulary::TOKEN_ISSUER))]
pub struct OtherCluster {
    /// The issuer (iss) of its ServiceAccount tokens, as its /.well-known/openid-configuration has it.
    #[schemars(schema_with = "vocabulary::token_issuer")]
    pub issuer: String,
    /// Its keys, as its /openid/v1/jwks has them.
    pub jwks: Jwks,
}

/// The ServiceAccount of this cluster that authenticates, as the operator last saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountStatus {
    /// The ServiceAccount's namespace.
    pub namespace: String,
    /// The ServiceAccount's name.
    pub name: String,
    /// The UID of the very object, or where that stands in another namespace, the SHA-256 digest of it;
    /// tokens of another one of that name are refused.
    pub uid: String,
}
