//! How a technical user authenticates without a secret.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// The keys, at most 16: RSA from 2048 bits on, EC on P-256, P-384 or P-521, and Ed25519.
    #[schemars(schema_with = "vocabulary::public_keys")]
    pub keys: Vec<GivenJwk>,
}
