//! Public keys that others give us, as JSON Web Keys (RFC 7517): those with which clients prove who
//! they are. What is not a sound public key for one signature algorithm is refused with a sentence.

use serde::{Deserialize, Serialize};

use super::algorithm::{Algorithm, KeyKind};
use super::jwk::KeyMembers;

/// The largest RSA modulus in bits: a larger one only costs time.
pub const MOST_RSA_BITS: usize = 8192;

/// A key as it is given. Private members have no place here: the API server refuses them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GivenJwk {
    /// The key type: `RSA`, `EC` or `OKP`.
    pub kty: String,
    /// What the key is called; its RFC 7638 thumbprint where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The algorithm; where absent that of the curve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// What it is for: `sig`, where it says anything.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// The curve of an EC or OKP key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// The modulus of an RSA key, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// The public exponent of an RSA key, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    /// The x coordinate of an EC key, or an OKP key itself, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// The y coordinate of an EC key, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
}

/// Why a key can not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// A key type without public keys, or an unknown one.
    #[error("kty is none of RSA, EC and OKP, which are those with a public half")]
    KeyType,
    /// No `alg`, and several algorithms could be meant.
    #[error(
        "an RSA key needs alg, one of RS256, RS384, RS512, PS256, PS384 and PS512, since a key is for one algorithm alone (RFC 8725 section 3.1)"
    )]
    AlgorithmMissing,
    /// An `alg` that is none of the ten, or of another kind of key.
    #[error("alg does not fit the key: write the algorithm of this kty and crv")]
    Algorithm,
    /// A curve that none of the algorithms has.
    #[error("crv is none of P-256, P-384, P-521 and Ed25519")]
    Curve,
    /// `use` is something else than `sig`.
    #[error("use is not sig: a key that encrypts signs nothing")]
    Usage,
    /// A member that makes the key is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A member is no base64url of the width that it should have.
    #[error("{0} is not base64url, without padding, of the width that it has in this kind of key")]
    Encoding(&'static str),
    /// An RSA modulus of a size that is not taken.
    #[error("the RSA modulus has {bits} bits, and {least} to {MOST_RSA_BITS} are taken")]
    Size {
        /// Its size.
        bits: usize,
        /// The smallest that is taken.
        least: usize,
    },
    /// An RSA exponent that is unsafe, or only costs time.
    #[error("e is not an odd number from 3 to 4294967295: keys are made with 65537 (AQAB)")]
    Exponent,
    /// The members are no point on the curve, or no key for another reason.
    #[error("its members make no sound public key")]
    Unsound,
    /// The release's policy forbids the algorithm.
    #[error(
        "this release does not allow {0} (policy.allowedAlgorithms): use a key for another algorithm"
    )]
    Forbidden(Algorithm),
}

impl GivenJwk {
    /// The one algorithm that the key is for.
    pub fn algorithm(&self) -> Result<Algorithm, KeyFault> {
        let of_curve = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => None,
            ("EC", Some("P-256")) => Some(Algorithm::ES256),
            ("EC", Some("P-384")) => Some(Algorithm::ES384),
            ("EC", Some("P-521")) => Some(Algorithm::ES512),
            ("OKP", Some("Ed25519")) => Some(Algorithm::EdDSA),
            ("EC" | "OKP", None) => return Err(KeyFault::Missing("crv")),
            ("EC" | "OKP", Some(_)) => return Err(KeyFault::Curve),
            _ => return Err(KeyFault::KeyType),
        };
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err(KeyFault::Usage);
        }
        let Some(said) = self.alg.as_deref() else {
            return of_curve.ok_or(KeyFault::AlgorithmMissing);
        };
        let said: Algorithm = said.parse().map_err(|_| KeyFault::Algorithm)?;
        let fits = match of_curve {
            Some(of_curve) => said == of_curve,
            None => said.key_kind() == KeyKind::Rsa,
        };
        fits.then_some(said).ok_or(KeyFault::Algorithm)
    }

    /// The members that make the key, as they are given.
    pub fn members(&self) -> Result<KeyMembers, KeyFault> {
        let member = |name, value: &Option<String>| value.clone().ok_or(KeyFault::Missing(name));
        Ok(match self.kty.as_str() {
            "RSA" => KeyMembers::Rsa {
                n: member("n", &self.n)?,
                e: member("e", &self.e)?,
            },
            "EC" => KeyMembers::Ec {
                crv: member("crv", &self.crv)?,
                x: member("x", &self.x)?,
                y: member("y", &self.y)?,
            },
            "OKP" => KeyMembers::Okp {
                crv: member("crv", &self.crv)?,
                x: member("x", &self.x)?,
            },
            _ => return Err(KeyFault::KeyType),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwk(kty: &str, crv: &str, alg: &str) -> GivenJwk {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        GivenJwk {
            kty: kty.into(),
            crv: some(crv),
            alg: some(alg),
            ..GivenJwk::default()
        }
    }

    #[test]
    fn each_key_is_for_one_algorithm() {
        use Algorithm as A;
        for (kty, crv, alg, expected) in [
            ("RSA", "", "RS256", Ok(A::RS256)),
            ("RSA", "", "PS512", Ok(A::PS512)),
            ("RSA", "", "", Err(KeyFault::AlgorithmMissing)),
            ("RSA", "", "ES256", Err(KeyFault::Algorithm)),
            ("RSA", "", "HS256", Err(KeyFault::Algorithm)),
            ("RSA", "", "none", Err(KeyFault::Algorithm)),
            ("EC", "P-256", "", Ok(A::ES256)),
            ("EC", "P-384", "ES384", Ok(A::ES384)),
            ("EC", "P-521", "", Ok(A::ES512)),
            ("EC", "P-256", "ES384", Err(KeyFault::Algorithm)),
            ("EC", "secp256k1", "", Err(KeyFault::Curve)),
            ("EC", "", "", Err(KeyFault::Missing("crv"))),
            ("OKP", "Ed25519", "EdDSA", Ok(A::EdDSA)),
            ("OKP", "Ed25519", "Ed25519", Ok(A::EdDSA)),
            ("EC", "P-256", "Ed25519", Err(KeyFault::Algorithm)),
            ("OKP", "X25519", "", Err(KeyFault::Curve)),
            ("oct", "", "HS256", Err(KeyFault::KeyType)),
        ] {
            assert_eq!(
                jwk(kty, crv, alg).algorithm(),
                expected,
                "{kty} {crv} {alg}"
            );
        }
        let encrypts = GivenJwk {
            usage: Some("enc".into()),
            ..jwk("EC", "P-256", "")
        };
        assert_eq!(encrypts.algorithm(), Err(KeyFault::Usage));
    }

    #[test]
    fn what_makes_a_key_must_be_there() {
        assert_eq!(
            jwk("RSA", "", "RS256").members(),
            Err(KeyFault::Missing("n"))
        );
        assert_eq!(
            jwk("EC", "P-256", "").members(),
            Err(KeyFault::Missing("x"))
        );
        assert_eq!(jwk("oct", "", "").members(), Err(KeyFault::KeyType));
    }
}
