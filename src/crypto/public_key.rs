//! Public keys, parsed: those of others, which verify what their clients present, and our own.

use std::fmt;

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::key_pair::{Method, method, thumbprint};
use crate::domain::algorithm::Algorithm;
use crate::domain::client_key::{GivenJwk, KeyFault, MOST_RSA_BITS};
use crate::domain::jwk::{KeyMembers, PublicJwk};
use crate::domain::settings::Policy;

/// A public key for one algorithm.
pub struct PublicKey {
    key_id: String,
    algorithm: Algorithm,
    parsed: ParsedPublicKey,
}

impl PublicKey {
    /// Parses a key. RSA moduli have at least `least_rsa_bits`, and never fewer than 2048.
    pub fn from_jwk(jwk: &GivenJwk, least_rsa_bits: usize) -> Result<Self, KeyFault> {
        let algorithm = jwk.algorithm()?;
        let members = jwk.members()?;
        if let KeyMembers::Rsa { n, e } = &members {
            judge_rsa(&unsigned("n", n)?, &unsigned("e", e)?, least_rsa_bits)?;
        }
        Ok(Self {
            key_id: jwk.kid.clone().unwrap_or_else(|| thumbprint(&members)),
            algorithm,
            parsed: parse(algorithm, &members)?,
        })
    }

    /// A key of our own, as it was published.
    pub fn published(jwk: &PublicJwk) -> Result<Self, KeyFault> {
        Ok(Self {
            key_id: jwk.kid.clone(),
            algorithm: jwk.alg,
            parsed: parse(jwk.alg, &jwk.key)?,
        })
    }

    /// The same under a release's policy.
    pub fn allowed(jwk: &GivenJwk, policy: &Policy) -> Result<Self, KeyFault> {
        let algorithm = jwk.algorithm()?;
        if !policy.allowed_algorithms.contains(&algorithm) {
            return Err(KeyFault::Forbidden(algorithm));
        }
        Self::from_jwk(jwk, policy.min_rsa_key_size.try_into().unwrap_or(0))
    }

    /// What it is called: its `kid`, or its thumbprint where it has none.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The one algorithm that it verifies.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether a signature in the form of JOSE is this key's.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey")
            .field("kid", &self.key_id)
            .field("alg", &self.algorithm)
            .finish_non_exhaustive()
    }
}

fn parse(algorithm: Algorithm, members: &KeyMembers) -> Result<ParsedPublicKey, KeyFault> {
    let parsed = match (method(algorithm), members) {
        (Method::Rsa(_, parameters), KeyMembers::Rsa { n, e }) => {
            let (n, e) = (unsigned("n", n)?, unsigned("e", e)?);
            PublicKeyComponents { n, e }.to_parsed_public_key(parameters)
        }
        (Method::Ec(_, verifier, _), KeyMembers::Ec { x, y, .. }) => {
            let width = coordinate(algorithm);
            // SEC 1 §2.3.3, uncompressed.
            let mut point = vec![4];
            point.extend(exactly("x", x, width)?);
            point.extend(exactly("y", y, width)?);
            ParsedPublicKey::new(verifier, point)
        }
        (Method::Ed25519, KeyMembers::Okp { x, .. }) => {
            let verifier: &'static dyn VerificationAlgorithm = &signature::ED25519;
            let point = exactly("x", x, 32)?;
            if is_of_small_order(&point) {
                return Err(KeyFault::Unsound);
            }
            ParsedPublicKey::new(verifier, point)
        }
        _ => return Err(KeyFault::Algorithm),
    };
    parsed.map_err(|_| KeyFault::Unsound)
}

/// Whether an encoded point of edwards25519 has order 1, 2, 4 or 8: there are signatures that verify with
/// such a key and that nobody needs a private key to make (RFC 8032 leaves it to the verifier to refuse
/// them). The sign, which is the last bit, makes no difference.
fn is_of_small_order(point: &[u8]) -> bool {
    let y = |low: u8, rest: u8, high: u8| {
        let mut y = [rest; 32];
        (y[0], y[31]) = (low, high);
        y
    };
    let small = [
        y(0, 0, 0),
        y(1, 0, 0),
        // p - 1, and the encodings of 0 and 1 that are not reduced: p and p + 1.
        y(0xec, 0xff, 0x7f),
        y(0xed, 0xff, 0x7f),
        y(0xee, 0xff, 0x7f),
        ORDER_8,
        ORDER_8_TOO,
    ];
    let Some((last, others)) = point.split_last() else {
        return false;
    };
    small
        .iter()
        .any(|y| y[..31] == *others && y[31] == last & 0x7f)
}

/// The y coordinates of the points of order 8.
const ORDER_8: [u8; 32] = [
    0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
    0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
];
const ORDER_8_TOO: [u8; 32] = [
    0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
    0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
];

/// What is asked of an RSA key that another has made, in modulus and exponent.
fn judge_rsa(n: &[u8], e: &[u8], least_bits: usize) -> Result<(), KeyFault> {
    let bits = n.len() * 8 - n[0].leading_zeros() as usize;
    let least = least_bits.max(2048);
    if bits < least || bits > MOST_RSA_BITS {
        return Err(KeyFault::Size { bits, least });
    }
    let odd = e.last().is_some_and(|last| last % 2 == 1);
    if e.len() > 4 || !odd || e == [1] {
        return Err(KeyFault::Exponent);
    }
    Ok(())
}

/// The width of a coordinate in octets (RFC 7518 §6.2.1.2).
fn coordinate(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::ES384 => 48,
        Algorithm::ES512 => 66,
        _ => 32,
    }
}

/// A number as RFC 7518 §2 writes it: no octet more than it needs.
fn unsigned(name: &'static str, text: &str) -> Result<Vec<u8>, KeyFault> {
    let octets = decode(name, text)?;
    match octets.first() {
        Some(first) if *first > 0 => Ok(octets),
        _ => Err(KeyFault::Encoding(name)),
    }
}

fn exactly(name: &'static str, text: &str, width: usize) -> Result<Vec<u8>, KeyFault> {
    let octets = decode(name, text)?;
    if octets.len() == width {
        Ok(octets)
    } else {
        Err(KeyFault::Encoding(name))
    }
}

fn decode(name: &'static str, text: &str) -> Result<Vec<u8>, KeyFault> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| KeyFault::Encoding(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::key_pair::KeyPair;
    use crate::domain::algorithm::RsaKeySize;

    fn given(pair: &KeyPair) -> GivenJwk {
        let json = serde_json::to_value(pair.public_jwk()).expect("JSON");
        serde_json::from_value(json).expect("a key")
    }

    #[test]
    fn every_algorithm_verifies_its_own_and_nothing_else() {
        let pairs: Vec<KeyPair> = Algorithm::ALL
            .into_iter()
            .map(|algorithm| {
                let pem = KeyPair::generate_pem(algorithm, RsaKeySize::Bits2048).expect("a key");
                KeyPair::from_pem(algorithm, &pem).expect("a pair")
            })
            .collect();
        for pair in &pairs {
            let key = PublicKey::from_jwk(&given(pair), 2048).expect("a key");
            assert_eq!(key.key_id(), pair.key_id());
            for other in &pairs {
                let signature = other.sign(b"message").expect("signed");
                let own = other.key_id() == pair.key_id();
                assert_eq!(key.verifies(b"message", &signature), own);
                assert!(!key.verifies(b"another", &signature));
                assert!(!key.verifies(b"message", &signature[1..]));
                assert!(!key.verifies(b"message", &[]));
            }
        }
    }

    #[test]
    fn unsound_keys_are_refused() {
        let pem = KeyPair::generate_pem(Algorithm::ES256, RsaKeySize::Bits2048).expect("a key");
        let ec = given(&KeyPair::from_pem(Algorithm::ES256, &pem).expect("a pair"));
        let refused = |jwk: GivenJwk| PublicKey::from_jwk(&jwk, 2048).expect_err("refused");
        let swapped = GivenJwk {
            x: ec.y.clone(),
            y: ec.x.clone(),
            ..ec.clone()
        };
        assert_eq!(refused(swapped), KeyFault::Unsound);
        // Whoever has no private key could sign for these.
        for (first, last) in [(0, 0), (1, 0), (1, 0x80), (0, 0x80)] {
            let mut point = [0; 32];
            (point[0], point[31]) = (first, last);
            let small = GivenJwk {
                kty: "OKP".into(),
                crv: Some("Ed25519".into()),
                x: Some(URL_SAFE_NO_PAD.encode(point)),
                ..GivenJwk::default()
            };
            assert_eq!(refused(small), KeyFault::Unsound);
        }
        for point in [ORDER_8, ORDER_8_TOO] {
            assert!(is_of_small_order(&point));
        }
        let short = GivenJwk {
            x: Some("AQAB".into()),
            ..ec.clone()
        };
        assert_eq!(refused(short), KeyFault::Encoding("x"));
        let padded = GivenJwk {
            x: ec.x.clone().map(|x| x + "="),
            ..ec
        };
        assert_eq!(refused(padded), KeyFault::Encoding("x"));
        let rsa = |n: &[u8], e: &str| GivenJwk {
            kty: "RSA".into(),
            alg: Some("RS256".into()),
            n: Some(URL_SAFE_NO_PAD.encode(n)),
            e: Some(e.into()),
            ..GivenJwk::default()
        };
        let size = |bits| KeyFault::Size { bits, least: 2048 };
        assert_eq!(refused(rsa(&[0xff; 128], "AQAB")), size(1024));
        assert_eq!(
            refused(rsa(&[[0x7f].as_slice(), &[0xff; 255]].concat(), "AQAB")),
            size(2047)
        );
        assert_eq!(refused(rsa(&[0xff; 1025], "AQAB")), size(8200));
        assert_eq!(refused(rsa(&[0; 256], "AQAB")), KeyFault::Encoding("n"));
        assert_eq!(refused(rsa(&[], "AQAB")), KeyFault::Encoding("n"));
        for e in ["AQ", "Ag", "AQAAAAE"] {
            assert_eq!(refused(rsa(&[0xff; 256], e)), KeyFault::Exponent, "{e}");
        }
    }
}
