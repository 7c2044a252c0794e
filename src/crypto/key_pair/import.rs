//! Reads a private key that a person injects, in any of the forms that tools write, and gives the
//! one form in which keys are stored.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use self::blocks::{Block, private_block};
use super::{KeyPair, Method, der, method, pem};
use crate::domain::algorithm::{Algorithm, KeyKind};

mod blocks;

/// The largest RSA key that signs.
const LARGEST_RSA_BITS: usize = 8192;

/// Why an injected key can not be used. No message quotes anything of what was injected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Nothing is there.
    #[error(
        "the private key is empty: put a PEM block there, \"-----BEGIN PRIVATE KEY-----\" and so on."
    )]
    Empty,
    /// More than any key needs.
    #[error(
        "the private key's text is {bytes} bytes long, and at most {} are read: leave only the PEM \
         block of the key there.",
        pem::MAX_LEN
    )]
    TooLong {
        /// How long the text is.
        bytes: usize,
    },
    /// No PEM block in it.
    #[error(
        "the private key is not PEM: no line begins a block (\"-----BEGIN PRIVATE KEY-----\"); put \
         the key there as PEM, with its line breaks."
    )]
    NotPem,
    /// Base64 around PEM.
    #[error(
        "the private key was encoded in base64 once more than a Secret needs: put the PEM text \
         itself into stringData, or its base64 into data."
    )]
    EncodedTwice,
    /// The bytes that PEM would wrap.
    #[error(
        "the private key is DER, which is binary: convert it to PEM (openssl pkey -inform DER)."
    )]
    Der,
    /// A block begins and does not end.
    #[error(
        "the private key's PEM block is cut off: it has no line \"-----END ...-----\" of the same \
         name as its first line."
    )]
    CutOff,
    /// A passphrase would be needed.
    #[error(
        "the private key is encrypted, and there is no passphrase here: decrypt it first (openssl \
         pkey -in FILE)."
    )]
    Encrypted,
    /// The wrong half.
    #[error(
        "the private key is missing: there is only a public key, which signs nothing; put the \
         private key there."
    )]
    PublicOnly,
    /// A certificate holds no private key.
    #[error(
        "the private key is missing: there is only a certificate; put the private key there that \
         belongs to it (tls.key of a TLS Secret)."
    )]
    CertificateOnly,
    /// Which one is meant is not said.
    #[error("the private key is not one but {count}: leave only the one there that is to sign.")]
    Several {
        /// How many there are.
        count: usize,
    },
    /// OpenSSH has a form of its own.
    #[error(
        "the private key is in the form of OpenSSH: convert it (ssh-keygen -p -m PKCS8 -f FILE)."
    )]
    OpenSsh,
    /// A sound key that signs with something else.
    #[error(
        "the private key is {found}, and {algorithm} signs with {wanted}: inject such a key, or \
         give the ring the algorithm that fits the key."
    )]
    AnotherKind {
        /// What it is.
        found: &'static str,
        /// What the ring signs with.
        algorithm: Algorithm,
        /// What it takes for that.
        wanted: &'static str,
    },
    /// An RSA key with too few bits.
    #[error(
        "the private key is an RSA key of {bits} bits, and at least {smallest} are needed: inject a \
         larger key."
    )]
    TooSmall {
        /// How many it has.
        bits: usize,
        /// How many are needed.
        smallest: i32,
    },
    /// An RSA key with more bits than can be computed with.
    #[error(
        "the private key is an RSA key of {bits} bits, and at most {LARGEST_RSA_BITS} are \
         supported: inject a smaller key."
    )]
    TooBig {
        /// How many it has.
        bits: usize,
    },
    /// It looks like a key, and is none.
    #[error(
        "the private key is broken: its PEM block holds no sound key for {algorithm}; take it from \
         where it was made again."
    )]
    Broken {
        /// What it should have signed with.
        algorithm: Algorithm,
    },
}

/// Reads a private key as PEM: PKCS#8 (v1 and v2), PKCS#1 or SEC1, with whatever text and other
/// blocks stand around it. Gives PKCS#8 v1 in PEM, which [`KeyPair::from_pem`] reads and which has
/// signed once. The smallest size is for RSA alone. Blocks for some milliseconds with large RSA
/// keys.
pub fn import(
    algorithm: Algorithm,
    smallest_rsa_bits: i32,
    text: &[u8],
) -> Result<Zeroizing<String>, ImportError> {
    let block = private_block(text)?;
    let broken = || ImportError::Broken { algorithm };
    let der = block.decode().ok_or_else(broken)?;
    let found = identify(&block, &der).ok_or_else(broken)?;
    match (algorithm.key_kind(), &found) {
        (KeyKind::Rsa, Found::Rsa { bits, .. }) => {
            if i32::try_from(*bits).is_ok_and(|bits| bits < smallest_rsa_bits) {
                return Err(ImportError::TooSmall {
                    bits: *bits,
                    smallest: smallest_rsa_bits,
                });
            }
            if *bits > LARGEST_RSA_BITS {
                return Err(ImportError::TooBig { bits: *bits });
            }
        }
        (KeyKind::Ec(wanted), Found::Ec { curve, .. }) if wanted == curve.name => {}
        (KeyKind::Ed25519, Found::Ed25519) => {}
        _ => {
            return Err(ImportError::AnotherKind {
                found: found.words(),
                algorithm,
                wanted: wanted(algorithm),
            });
        }
    }
    let pem = store(algorithm, &found, &der).ok_or_else(broken)?;
    KeyPair::from_pem(algorithm, &pem).map_err(|_| broken())?;
    Ok(pem)
}

/// An elliptic curve.
#[derive(Clone, Copy)]
struct Curve {
    /// The content of its OID.
    oid: &'static [u8],
    /// By its JWK name.
    name: &'static str,
    /// How many octets a private key's number has.
    octets: usize,
    words: &'static str,
}

const CURVES: [Curve; 3] = [
    Curve {
        oid: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
        name: "P-256",
        octets: 32,
        words: "an EC key on the curve P-256",
    },
    Curve {
        oid: &[0x2b, 0x81, 0x04, 0, 0x22],
        name: "P-384",
        octets: 48,
        words: "an EC key on the curve P-384",
    },
    Curve {
        oid: &[0x2b, 0x81, 0x04, 0, 0x23],
        name: "P-521",
        octets: 66,
        words: "an EC key on the curve P-521",
    },
];

/// What a document turned out to hold.
enum Found<'a> {
    /// With its `RSAPrivateKey`.
    Rsa {
        key: &'a [u8],
        bits: usize,
        public: Option<&'a [u8]>,
    },
    /// With its `ECPrivateKey`.
    Ec {
        key: &'a [u8],
        curve: Curve,
        public: Option<&'a [u8]>,
    },
    Ed25519,
    Other(&'static str),
}

impl Found<'_> {
    fn words(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "an RSA key",
            Self::Ec { curve, .. } => curve.words,
            Self::Ed25519 => "an Ed25519 key",
            Self::Other(words) => words,
        }
    }
}

fn wanted(algorithm: Algorithm) -> &'static str {
    match algorithm.key_kind() {
        KeyKind::Rsa => "an RSA key",
        KeyKind::Ed25519 => "an Ed25519 key",
        KeyKind::Ec(name) => CURVES
            .iter()
            .find(|c| c.name == name)
            .map_or("an EC key", |c| c.words),
    }
}

/// What a block holds, by what it says of itself; whether that is sound is seen later.
fn identify<'a>(block: &Block<'_>, der: &'a [u8]) -> Option<Found<'a>> {
    let rsa = |key, public| {
        let bits = der::rsa_private_key_bits(key)?;
        Some(Found::Rsa { key, bits, public })
    };
    match block.label {
        b"RSA PRIVATE KEY" => rsa(der, None),
        b"EC PRIVATE KEY" => {
            let named = block.curve.as_ref().map(|c| c.as_slice());
            ec(der, named, None)
        }
        b"DSA PRIVATE KEY" => Some(Found::Other("a DSA key")),
        b"PRIVATE KEY" => {
            let wrapped = der::wrapped(der)?;
            match wrapped.kind {
                // 1.2.840.113549.1.1.1, and .10, which may sign with PSS alone.
                [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1] => rsa(wrapped.key, wrapped.public),
                [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10] => {
                    Some(Found::Other("an RSA key bound to PSS (RSASSA-PSS)"))
                }
                // 1.2.840.10045.2.1
                [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1] => {
                    ec(wrapped.key, Some(wrapped.parameters), wrapped.public)
                }
                // 1.2.840.10040.4.1
                [0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1] => Some(Found::Other("a DSA key")),
                // 1.3.101.110 to .113 (RFC 8410)
                [0x2b, 0x65, 0x70] => Some(Found::Ed25519),
                [0x2b, 0x65, 0x6e] => Some(Found::Other("an X25519 key, which signs nothing")),
                [0x2b, 0x65, 0x6f] => Some(Found::Other("an X448 key, which signs nothing")),
                [0x2b, 0x65, 0x71] => Some(Found::Other("an Ed448 key")),
                _ => Some(Found::Other("a key of an unknown kind")),
            }
        }
        _ => Some(Found::Other("a key of an unknown kind")),
    }
}

/// An `ECPrivateKey` and its curve: as its surroundings name it, or it itself, or else as many
/// octets as its number has (RFC 5915 §3 gives it the width of its curve).
fn ec<'a>(key: &'a [u8], named: Option<&[u8]>, public: Option<&'a [u8]>) -> Option<Found<'a>> {
    let (octets, inside) = der::ec_private_key(key)?;
    let curve = match named.or(inside) {
        None => CURVES.into_iter().find(|c| c.octets == octets),
        Some(parameters) => match der::oid(parameters) {
            Some(oid) => CURVES.into_iter().find(|c| c.oid == oid),
            None => {
                return Some(Found::Other(
                    "an EC key whose curve is given by explicit parameters",
                ));
            }
        },
    };
    let Some(curve) = curve else {
        return Some(Found::Other("an EC key on another curve"));
    };
    Some(Found::Ec { key, curve, public })
}

/// The key in the form that is stored, if it is sound and fits the public half that it came with.
fn store(algorithm: Algorithm, found: &Found<'_>, der: &[u8]) -> Option<Zeroizing<String>> {
    let fits = |named: Option<&[u8]>, public: &[u8]| named.is_none_or(|named| named == public);
    match (method(algorithm), found) {
        (Method::Rsa(..), Found::Rsa { key, public, .. }) => {
            let pair = RsaKeyPair::from_der(key).ok()?;
            if !fits(*public, pair.public_key().as_ref()) {
                return None;
            }
            let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
            Some(pem::encode(der.as_ref()))
        }
        (Method::Ec(signing, ..), Found::Ec { key, public, .. }) => {
            let pair = EcdsaKeyPair::from_private_key_der(signing, key).ok()?;
            if !fits(*public, pair.public_key().as_ref()) {
                return None;
            }
            Some(pem::encode(pair.to_pkcs8v1().ok()?.as_ref()))
        }
        // The library compares the public half itself.
        (Method::Ed25519, Found::Ed25519) => {
            let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
            Some(pem::encode(pair.to_pkcs8v1().ok()?.as_ref()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
