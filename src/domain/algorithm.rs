//! The signature algorithms: one table, from which everything else follows.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A JWS signature algorithm by its name in JWT headers (RFC 7518 §3.1, RFC 8037 §3.1). Nothing
/// symmetric: a verifier must never be able to sign.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// ECDSA on P-521 with SHA-512.
    ES512,
    /// Ed25519. It has a second name, which is taken and never made: others write it (RFC 9864 §2.2).
    #[serde(alias = "Ed25519")]
    EdDSA,
}

/// What kind of key an algorithm signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA, of a size that the ring chooses.
    Rsa,
    /// An elliptic curve of RFC 7518 §6.2.1.1, by its JWK name.
    Ec(&'static str),
    /// Ed25519 (RFC 8037).
    Ed25519,
}

impl Algorithm {
    /// All of them, in the order in which documents list them.
    pub const ALL: [Self; 10] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    /// The name in a JWT header.
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The kind of key that it signs with.
    pub fn key_kind(self) -> KeyKind {
        match self {
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => {
                KeyKind::Rsa
            }
            Self::ES256 => KeyKind::Ec("P-256"),
            Self::ES384 => KeyKind::Ec("P-384"),
            Self::ES512 => KeyKind::Ec("P-521"),
            Self::EdDSA => KeyKind::Ed25519,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|a| a.name() == name)
            .or_else(|| (name == "Ed25519").then_some(Self::EdDSA))
            .ok_or(UnknownAlgorithm)
    }
}

/// A name that stands for none of the ten algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a signature algorithm: use one of RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA"
)]
pub struct UnknownAlgorithm;

/// The size of an RSA modulus in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RsaKeySize {
    /// 2048 bits, the default.
    Bits2048,
    /// 3072 bits.
    Bits3072,
    /// 4096 bits.
    Bits4096,
}

impl RsaKeySize {
    /// The size in bits.
    pub fn bits(self) -> i32 {
        match self {
            Self::Bits2048 => 2048,
            Self::Bits3072 => 3072,
            Self::Bits4096 => 4096,
        }
    }

    /// The size with that many bits, if it is one of the three.
    pub fn from_bits(bits: i32) -> Option<Self> {
        [Self::Bits2048, Self::Bits3072, Self::Bits4096]
            .into_iter()
            .find(|s| s.bits() == bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_match_serde() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
            let json = serde_json::to_value(algorithm).expect("an algorithm is JSON");
            assert_eq!(json, algorithm.name());
        }
        assert_eq!("Ed25519".parse(), Ok(Algorithm::EdDSA));
        let read = serde_json::from_value::<Algorithm>("Ed25519".into());
        assert_eq!(read.expect("its second name"), Algorithm::EdDSA);
        assert_eq!("HS256".parse::<Algorithm>(), Err(UnknownAlgorithm));
        assert_eq!("none".parse::<Algorithm>(), Err(UnknownAlgorithm));
    }
}
