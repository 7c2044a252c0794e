//! Access tokens that this issuer signed, read back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::public_key::PublicKey;
use crate::domain::algorithm::Algorithm;
use crate::domain::jwk::JwkSet;

/// The longest token in bytes that is looked at; the longest of ours is half of it.
pub const MAX_TOKEN: usize = 32 * 1024;

/// What is read of an access token. That its signature is right says nothing of its times, nor of
/// whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct OwnToken {
    /// `iss`.
    #[serde(rename = "iss")]
    pub issuer: String,
    /// `sub`: whom it speaks for.
    #[serde(rename = "sub")]
    pub subject: String,
    /// Who asked for it.
    pub client_id: String,
    /// `jti`.
    #[serde(rename = "jti")]
    pub id: String,
    /// `iat`, in seconds since 1970.
    #[serde(rename = "iat")]
    pub issued_at: i64,
    /// `exp`, in seconds since 1970.
    #[serde(rename = "exp")]
    pub expires_at: i64,
    /// The `kid` of the key that signed it.
    #[serde(skip)]
    pub key_id: String,
    /// All that stands in it.
    #[serde(skip)]
    pub claims: Map<String, Value>,
}

/// An access token (`typ: at+jwt`, RFC 9068 §2.1) that one of these keys signed; none for anything
/// else, whatever is wrong with it.
pub fn read(token: &str, keys: &JwkSet) -> Option<OwnToken> {
    /// The members that ours have; another, such as `crit` or `jku`, is none of ours.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Header {
        alg: Algorithm,
        kid: String,
        typ: String,
    }
    if token.len() > MAX_TOKEN {
        return None;
    }
    let mut parts = token.split('.');
    let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let of: Header = serde_json::from_slice(&decode(header)?).ok()?;
    let key = keys.keys.iter().find(|k| k.kid == of.kid)?;
    if of.typ != "at+jwt" || of.alg != key.alg {
        return None;
    }
    let signed = &token[..header.len() + 1 + claims.len()];
    let key = PublicKey::published(key).ok()?;
    if !key.verifies(signed.as_bytes(), &decode(signature)?) {
        return None;
    }
    let claims: Map<String, Value> = serde_json::from_slice(&decode(claims)?).ok()?;
    let token = OwnToken::deserialize(&Value::Object(claims.clone())).ok()?;
    Some(OwnToken {
        key_id: of.kid,
        claims,
        ..token
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::jws::sign_token;
    use crate::crypto::key_pair::KeyPair;
    use crate::domain::algorithm::RsaKeySize;

    #[test]
    fn what_each_algorithm_signs_is_read_and_nothing_else() {
        let claims = serde_json::json!({
            "iss": "https://id.example.com", "sub": "acme.robot", "client_id": "acme.robot", "jti": "one", "iat": 1, "exp": 2,
            "more": [],
        });
        let mut pairs = Vec::new();
        for algorithm in Algorithm::ALL {
            let pem = KeyPair::generate_pem(algorithm, RsaKeySize::Bits2048).expect("a key");
            pairs.push(KeyPair::from_pem(algorithm, &pem).expect("a key pair"));
        }
        let keys = JwkSet {
            keys: pairs.iter().map(|p| p.public_jwk().clone()).collect(),
        };
        let stranger = JwkSet::default();
        for pair in &pairs {
            let token = sign_token(pair, &claims).expect("signed");
            let read_back = read(&token, &keys).expect("it is ours");
            assert_eq!((&*read_back.id, read_back.expires_at), ("one", 2));
            assert_eq!(read(&token, &stranger), None, "an unknown key");
            let (rest, signature) = token.rsplit_once('.').expect("three parts");
            let flipped = if signature.starts_with('A') { "B" } else { "A" };
            let (header, payload) = rest.split_once('.').expect("two parts");
            let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let kid = pair.key_id();
            let alg = pair.algorithm();
            for odd in [
                format!("{rest}.{flipped}{}", &signature[1..]),
                format!("{rest}."),
                rest.to_owned(),
                format!("{token}.x"),
                format!("{header}.{}.{signature}", encode("{}")),
                format!(
                    "{}.{payload}.{signature}",
                    encode(&format!(r#"{{"alg":"none","kid":"{kid}","typ":"at+jwt"}}"#))
                ),
                format!(
                    "{}.{payload}.{signature}",
                    encode(&format!(
                        r#"{{"alg":"{alg}","kid":"{kid}","typ":"at+jwt","crit":[]}}"#
                    ))
                ),
                format!(
                    "{}.{payload}.{signature}",
                    encode(&format!(r#"{{"alg":"{alg}","kid":"{kid}","typ":"JWT"}}"#))
                ),
                ".".repeat(100_000),
                String::new(),
            ] {
                assert_eq!(
                    read(&odd, &keys),
                    None,
                    "{alg} {}",
                    odd.get(..80).unwrap_or(&odd)
                );
            }
        }
        // Signed, and no token.
        let odd = sign_token(&pairs[0], &serde_json::json!({"iss": 1})).expect("signed");
        assert_eq!(read(&odd, &keys), None);
    }
}
