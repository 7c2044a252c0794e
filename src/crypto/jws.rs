//! Signed tokens in JWS compact serialisation (RFC 7515 §7.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::key_pair::{KeyError, KeyPair};

/// A signed access token (`typ: at+jwt`, RFC 9068 §2.1) with these claims.
///
/// # Errors
/// [`KeyError::Claims`] if the claims are no JSON object, [`KeyError::Sign`] if signing fails.
pub fn sign_token(key: &KeyPair, claims: &impl Serialize) -> Result<String, KeyError> {
    compact(key, key.token_header(), claims)
}

/// Another JWT with that `typ`, so that it is taken for nothing else (RFC 8725 §3.11).
///
/// # Errors
/// As [`sign_token`].
pub fn sign(key: &KeyPair, typ: &'static str, claims: &impl Serialize) -> Result<String, KeyError> {
    compact(key, &key.header(typ), claims)
}

fn compact(key: &KeyPair, header: &str, claims: &impl Serialize) -> Result<String, KeyError> {
    let mut json = Vec::with_capacity(1024);
    serde_json::to_writer(&mut json, claims).map_err(|_| KeyError::Claims)?;
    let mut token = String::with_capacity(header.len() + json.len() * 4 / 3 + 8 + 700);
    token.push_str(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(&json, &mut token);
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(&signature, &mut token);
    Ok(token)
}
