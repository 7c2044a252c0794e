//! A private key, parsed once, that signs tokens.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding,
    RsaParameters, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::domain::algorithm::{Algorithm, RsaKeySize};
use crate::domain::jwk::{KeyMembers, PublicJwk, Usage};

mod der;
pub mod import;
mod pem;

/// Why a key can not be used. No message quotes anything of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not one PEM block of PKCS#8.
    #[error(
        "the private key is not one PEM block \"-----BEGIN PRIVATE KEY-----\" (PKCS#8, not \
         encrypted)."
    )]
    NotPem,
    /// The PEM block holds no sound key for the algorithm.
    #[error("the private key is no sound key for {algorithm} ({reason}).")]
    Rejected {
        /// What it should have signed with.
        algorithm: Algorithm,
        /// The library's word for what is wrong.
        reason: String,
    },
    /// The two halves do not fit.
    #[error("the private key does not fit its public half: what it signed for {0} did not verify.")]
    SelfTest(Algorithm),
    /// No key could be made.
    #[error("generating a key for {0} failed.")]
    Generate(Algorithm),
    /// No signature could be made.
    #[error("signing with {0} failed.")]
    Sign(Algorithm),
    /// The claims could not be written as JSON.
    #[error("the claims can not be written as JSON.")]
    Claims,
}

/// How an algorithm signs and verifies: the one table of the ten.
pub(super) enum Method {
    Rsa(&'static dyn RsaEncoding, &'static RsaParameters),
    /// With the curve's JWK name.
    Ec(
        &'static EcdsaSigningAlgorithm,
        &'static dyn VerificationAlgorithm,
        &'static str,
    ),
    Ed25519,
}

pub(super) fn method(algorithm: Algorithm) -> Method {
    use signature as s;
    match algorithm {
        Algorithm::RS256 => Method::Rsa(&s::RSA_PKCS1_SHA256, &s::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Method::Rsa(&s::RSA_PKCS1_SHA384, &s::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Method::Rsa(&s::RSA_PKCS1_SHA512, &s::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Method::Rsa(&s::RSA_PSS_SHA256, &s::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Method::Rsa(&s::RSA_PSS_SHA384, &s::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Method::Rsa(&s::RSA_PSS_SHA512, &s::RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => Method::Ec(
            &s::ECDSA_P256_SHA256_FIXED_SIGNING,
            &s::ECDSA_P256_SHA256_FIXED,
            "P-256",
        ),
        Algorithm::ES384 => Method::Ec(
            &s::ECDSA_P384_SHA384_FIXED_SIGNING,
            &s::ECDSA_P384_SHA384_FIXED,
            "P-384",
        ),
        Algorithm::ES512 => Method::Ec(
            &s::ECDSA_P521_SHA512_FIXED_SIGNING,
            &s::ECDSA_P521_SHA512_FIXED,
            "P-521",
        ),
        Algorithm::EdDSA => Method::Ed25519,
    }
}

fn header(algorithm: Algorithm, key_id: &str, typ: &'static str) -> String {
    let header = format!(r#"{{"alg":"{algorithm}","kid":"{key_id}","typ":"{typ}"}}"#);
    base64url(header.as_bytes())
}

enum Signer {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A private key with its algorithm and public half.
pub struct KeyPair {
    algorithm: Algorithm,
    signer: Signer,
    public: PublicJwk,
    token_header: String,
}

impl KeyPair {
    /// Reads a private key (PEM, PKCS#8) for an algorithm, and has it sign once to see that its
    /// halves fit. Blocks for some milliseconds with large RSA keys.
    pub fn from_pem(algorithm: Algorithm, pem: &str) -> Result<Self, KeyError> {
        let der = pem::decode(pem).ok_or(KeyError::NotPem)?;
        let rejected = |e: KeyRejected| KeyError::Rejected {
            algorithm,
            reason: e.to_string(),
        };
        let odd = || KeyError::Rejected {
            algorithm,
            reason: "no usable public half".into(),
        };
        let (signer, key, verifier, public) = match method(algorithm) {
            Method::Rsa(encoding, verifier) => {
                let verifier: &'static dyn VerificationAlgorithm = verifier;
                let pair = RsaKeyPair::from_pkcs8(&der).map_err(rejected)?;
                let public = pair.public_key().as_ref().to_vec();
                let (n, e) = der::rsa_public_key(&public).ok_or_else(odd)?;
                let key = KeyMembers::Rsa {
                    n: base64url(n),
                    e: base64url(e),
                };
                (Signer::Rsa(pair, encoding), key, verifier, public)
            }
            Method::Ec(signing, verifier, curve) => {
                let pair = EcdsaKeyPair::from_pkcs8(signing, &der).map_err(rejected)?;
                let public = pair.public_key().as_ref().to_vec();
                // SEC 1 §2.3.3, uncompressed: 4, x, y.
                let Some((4, point)) = public.split_first() else {
                    return Err(odd());
                };
                let (x, y) = point.split_at(point.len() / 2);
                let key = KeyMembers::Ec {
                    crv: curve.into(),
                    x: base64url(x),
                    y: base64url(y),
                };
                (Signer::Ec(pair), key, verifier, public)
            }
            Method::Ed25519 => {
                let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(rejected)?;
                let public = pair.public_key().as_ref().to_vec();
                let key = KeyMembers::Okp {
                    crv: "Ed25519".into(),
                    x: base64url(&public),
                };
                let verifier: &'static dyn VerificationAlgorithm = &signature::ED25519;
                (Signer::Ed25519(pair), key, verifier, public)
            }
        };
        let kid = thumbprint(&key);
        let pair = Self {
            algorithm,
            signer,
            token_header: header(algorithm, &kid, "at+jwt"),
            public: PublicJwk {
                key,
                kid,
                alg: algorithm,
                usage: Usage::Signature,
            },
        };
        let message = b"chancery self-test";
        UnparsedPublicKey::new(verifier, &public)
            .verify(message, &pair.sign(message)?)
            .map_err(|Unspecified| KeyError::SelfTest(algorithm))?;
        Ok(pair)
    }

    /// A new private key, as PEM (PKCS#8 v1, which OpenSSL 3.0 reads too). The size is for RSA
    /// alone. Blocks: up to a second for RSA 3072, three for 4096.
    pub fn generate_pem(
        algorithm: Algorithm,
        rsa_key_size: RsaKeySize,
    ) -> Result<Zeroizing<String>, KeyError> {
        let failed = |Unspecified| KeyError::Generate(algorithm);
        match method(algorithm) {
            Method::Rsa(..) => {
                let size = match rsa_key_size {
                    RsaKeySize::Bits2048 => KeySize::Rsa2048,
                    RsaKeySize::Bits3072 => KeySize::Rsa3072,
                    RsaKeySize::Bits4096 => KeySize::Rsa4096,
                };
                let pair = RsaKeyPair::generate(size).map_err(failed)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                Ok(pem::encode(der.as_ref()))
            }
            Method::Ec(signing, ..) => {
                let pair = EcdsaKeyPair::generate(signing).map_err(failed)?;
                Ok(pem::encode(pair.to_pkcs8v1().map_err(failed)?.as_ref()))
            }
            Method::Ed25519 => {
                let pair = Ed25519KeyPair::generate().map_err(failed)?;
                Ok(pem::encode(pair.to_pkcs8v1().map_err(failed)?.as_ref()))
            }
        }
    }

    /// The `kid`: the RFC 7638 SHA-256 thumbprint.
    pub fn key_id(&self) -> &str {
        &self.public.kid
    }

    /// The public half, as it stands in a JWKS.
    pub fn public_jwk(&self) -> &PublicJwk {
        &self.public
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The first part of every access token that this key signs: its JOSE header, base64url.
    pub fn token_header(&self) -> &str {
        &self.token_header
    }

    /// The same of another JWT, with that `typ`.
    pub fn header(&self, typ: &'static str) -> String {
        header(self.algorithm, self.key_id(), typ)
    }

    /// A signature in the form of JOSE: for ECDSA r and s at their full width (RFC 7518 §3.4).
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |Unspecified| KeyError::Sign(self.algorithm);
        match &self.signer {
            Signer::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &SystemRandom::new(), message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
            Signer::Ec(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message).map_err(failed)?;
                Ok(signature.as_ref().to_vec())
            }
            Signer::Ed25519(pair) => Ok(pair.try_sign(message).map_err(failed)?.as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair")
            .field("kid", &self.public.kid)
            .field("alg", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The RFC 7638 SHA-256 thumbprint of a public key, base64url: 43 characters.
pub fn thumbprint(key: &KeyMembers) -> String {
    super::sha256_base64url(key.thumbprint_input().as_bytes())
}

fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests;
