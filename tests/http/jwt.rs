//! Makes client assertions, right and wrong.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chancery::crypto::key_pair::KeyPair;
use chancery::crypto::public_key::PublicKey;
use chancery::domain::client_key::GivenJwk;
use serde_json::Value;

pub const TYPE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";

pub fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A JWT that this key has signed.
pub fn sign(key: &KeyPair, header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = key.sign(signed.as_bytes()).expect("signed");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Members replaced; null takes one away.
pub fn with(base: &Value, changes: &Value) -> Value {
    let mut all = base.clone();
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            all.as_object_mut().expect("an object").remove(name);
        } else {
            all[name] = value.clone();
        }
    }
    all
}

/// A claim of its own for each, as a client would choose it.
pub fn unique() -> String {
    chancery::crypto::random::random_id()
}

pub fn public(key: &KeyPair, kid: Option<&str>) -> Arc<PublicKey> {
    let json = serde_json::to_value(key.public_jwk()).expect("JSON");
    let mut jwk: GivenJwk = serde_json::from_value(json).expect("a key");
    jwk.kid = kid.map(str::to_owned).or(jwk.kid);
    Arc::new(PublicKey::from_jwk(&jwk, 2048).expect("a sound key"))
}

/// A body with an assertion.
pub fn body(assertion: &str, more: &str) -> String {
    format!(
        "grant_type=client_credentials&client_assertion_type={TYPE}&client_assertion={assertion}{more}"
    )
}
