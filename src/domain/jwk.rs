//! Public keys as JSON Web Keys (RFC 7517), and the sets that are published. There is no type
//! here that could hold a private member.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;

/// The members that make a public key, by key type (RFC 7518 §6, RFC 8037 §2). Numbers and
/// coordinates are base64url without padding, at their full width.
#[derive(Clone, Debug, PartialEq, Hash, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kty")]
pub enum KeyMembers {
    /// An RSA modulus and exponent.
    #[serde(rename = "RSA")]
    Rsa {
        /// The modulus.
        n: String,
        /// The public exponent.
        e: String,
    },
    /// A point on a curve.
    #[serde(rename = "EC")]
    Ec {
        /// The curve: `P-256`, `P-384` or `P-521`.
        crv: String,
        /// The x coordinate.
        x: String,
        /// The y coordinate.
        y: String,
    },
    /// An Ed25519 public key.
    #[serde(rename = "OKP")]
    Okp {
        /// The curve: `Ed25519`.
        crv: String,
        /// The public key.
        x: String,
    },
}

impl KeyMembers {
    /// The text whose SHA-256 is the key's thumbprint: the required members in lexicographic
    /// order, without white space (RFC 7638 §3).
    pub fn thumbprint_input(&self) -> String {
        // Every value here is base64url or a curve's name: nothing needs escaping.
        match self {
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
            Self::Ec { crv, x, y } => {
                format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::Okp { crv, x } => format!(r#"{{"crv":"{crv}","kty":"OKP","x":"{x}"}}"#),
        }
    }
}

/// A public key that verifies our tokens, as it stands in a JWKS.
#[derive(Clone, Debug, PartialEq, Hash, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PublicJwk {
    /// The key itself.
    #[serde(flatten)]
    pub key: KeyMembers,
    /// Its RFC 7638 SHA-256 thumbprint, the `kid` in JWT headers.
    pub kid: String,
    /// The one algorithm that it may be used with (RFC 8725 §3.1).
    pub alg: Algorithm,
    /// Always `sig`.
    #[serde(rename = "use")]
    pub usage: Usage,
}

impl PublicJwk {
    /// Stands for a key where there is none: in timetables and tests, which know keys by their names.
    pub fn stand_in(kid: impl Into<String>) -> Self {
        let kid = kid.into();
        Self {
            key: KeyMembers::Okp {
                crv: "Ed25519".into(),
                x: kid.clone(),
            },
            kid,
            alg: Algorithm::EdDSA,
            usage: Usage::Signature,
        }
    }
}

/// What a key is for (RFC 7517 §4.2); ours only ever sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Hash, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Usage {
    /// Signatures.
    #[default]
    #[serde(rename = "sig")]
    Signature,
}

/// A JWK Set (RFC 7517 §5).
#[derive(Clone, Debug, Default, PartialEq, Hash, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JwkSet {
    /// The keys, oldest first within a ring.
    pub keys: Vec<PublicJwk>,
}

impl JwkSet {
    /// The document as it is published: the same keys give the same bytes.
    pub fn to_document(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a published document.
    pub fn from_document(document: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(document)
    }

    /// Whether a key with this id stands in the set.
    pub fn contains(&self, key_id: &str) -> bool {
        self.keys.iter().any(|k| k.kid == key_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_reads_back_and_keeps_its_bytes() {
        let set = JwkSet {
            keys: vec![PublicJwk {
                key: KeyMembers::Okp {
                    crv: "Ed25519".into(),
                    x: "abc".into(),
                },
                kid: "k".into(),
                alg: Algorithm::EdDSA,
                usage: Usage::Signature,
            }],
        };
        let document = set.to_document();
        assert_eq!(
            document,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"abc","kid":"k","alg":"EdDSA","use":"sig"}]}"#
        );
        assert_eq!(JwkSet::from_document(&document).expect("reads back"), set);
        assert!(set.contains("k") && !set.contains("other"));
    }

    #[test]
    fn thumbprint_input_is_that_of_rfc_7638() {
        let key = KeyMembers::Rsa {
            n: "0vx7".into(),
            e: "AQAB".into(),
        };
        assert_eq!(
            key.thumbprint_input(),
            r#"{"e":"AQAB","kty":"RSA","n":"0vx7"}"#
        );
    }
}
