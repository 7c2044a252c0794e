//! How keys and secrets are made and checked, on aws-lc-rs alone (bcrypt apart).
//!
//! [`key_pair`] (keys that sign), [`public_key`] (keys of others, that verify), [`jws`] (tokens),
//! [`secret`] (client secrets that we make), [`supplied`] (those that people supply), [`age`] (how the
//! former are sealed to who claims them), [`hash`] (how secrets are stored), [`random`].

pub mod age;
pub mod hash;
pub mod jws;
pub mod key_pair;
pub mod own_token;
pub mod public_key;
pub mod random;
pub mod secret;
pub mod supplied;

/// What stands for a text where that itself is not to be read.
pub fn fingerprint(text: &str) -> String {
    format!("sha256:{}", sha256_base64url(text.as_bytes()))
}

/// The SHA-256 digest in base64url without padding.
pub fn sha256_base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sha256(bytes))
}

/// The SHA-256 digest.
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().to_vec()
}
