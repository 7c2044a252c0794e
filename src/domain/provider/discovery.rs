//! What a provider says of itself: its metadata (`OpenID` Connect Discovery §3, RFC 8414) and its JWKS.

use serde::Deserialize;
use serde_json::Value;

use crate::domain::client_key::GivenJwk;

/// The most keys of a provider.
const MOST_KEYS: usize = 100;
/// The longest id of a key in bytes, as in the CRD.
const LONGEST_KID: usize = 256;
/// The longest modulus in base64url: of 4096 bits.
const LONGEST_MODULUS: usize = 683;
/// The members of a JWK that are not for others (RFC 7518 §6.2.2, §6.3.2, §6.4).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// So much of what a provider says is told of it.
const MOST_TOLD: usize = 256;

/// What is needed of a provider's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// `issuer`.
    pub issuer: String,
    /// `jwks_uri`.
    pub jwks_uri: String,
}

/// Why a document of a provider is not taken: a sentence without its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentFault {
    /// It names another issuer than it may.
    #[error("{0}")]
    Issuer(String),
    /// Anything else.
    #[error("{0}")]
    Unsound(String),
}

/// Reads a provider's metadata that was found at `uri`. Its issuer must be one of `issuers`; where those
/// are empty, the prefix of its own URI.
///
/// # Errors
/// What is wrong with it.
pub fn read_discovery(
    document: &[u8],
    uri: &str,
    issuers: &[String],
) -> Result<Discovery, DocumentFault> {
    #[derive(Deserialize)]
    struct Document {
        issuer: String,
        jwks_uri: String,
    }
    let Document { issuer, jwks_uri } = serde_json::from_slice(document).map_err(|why| {
        DocumentFault::Unsound(format!(
            "its metadata is no such document, with issuer and jwks_uri: {}",
            told(&why.to_string())
        ))
    })?;
    if !issuers.is_empty() && !issuers.contains(&issuer) {
        return Err(DocumentFault::Issuer(format!(
            "its metadata says that its issuer is {:?}, which is none of spec.issuers",
            told(&issuer)
        )));
    }
    if issuers.is_empty() && !is_at_home(&issuer, uri) {
        return Err(DocumentFault::Issuer(format!(
            "its metadata says that its issuer is {:?}, which is not what spec.wellKnownUri begins with",
            told(&issuer)
        )));
    }
    Ok(Discovery { issuer, jwks_uri })
}

/// Whether metadata of an issuer is found at that URI: behind the issuer, or, as RFC 8414 §3 has it, with
/// its path at the end.
fn is_at_home(issuer: &str, uri: &str) -> bool {
    let issuer = issuer.strip_suffix('/').unwrap_or(issuer);
    let Some((scheme, rest)) = issuer.split_once("://") else {
        return false;
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if host.is_empty() {
        return false;
    }
    let behind = uri.strip_prefix(issuer);
    let inserted = uri
        .strip_prefix(&format!("{scheme}://{host}"))
        .and_then(|rest| rest.strip_suffix(path));
    [behind, inserted]
        .into_iter()
        .flatten()
        .any(|rest| rest.starts_with("/.well-known/"))
}

/// The keys of a provider's JWKS that look as if they could be used: public, for signatures, and no RSA
/// key of more than 4096 bits. An RSA key that says no algorithm is for RS256, as most providers mean.
///
/// # Errors
/// It is no JWKS, has more than 100 keys, or a private one.
pub fn read_jwks(document: &[u8]) -> Result<Vec<GivenJwk>, String> {
    #[derive(Deserialize)]
    struct Document {
        keys: Vec<Value>,
    }
    let Document { keys } = serde_json::from_slice(document)
        .map_err(|why| format!("its JWKS is no JWKS: {}", told(&why.to_string())))?;
    if keys.len() > MOST_KEYS {
        return Err(format!(
            "its JWKS has {} keys, and {MOST_KEYS} are taken at most",
            keys.len()
        ));
    }
    let secret = |key: &Value| PRIVATE.into_iter().find(|m| key.get(m).is_some());
    if let Some(member) = keys.iter().find_map(secret) {
        return Err(format!(
            "its JWKS has a private or symmetric key (member {member}), which everybody can read there, so that anybody could sign: whoever runs it has to withdraw that key"
        ));
    }
    let keys = keys.into_iter().filter_map(|key| {
        let mut key: GivenJwk = serde_json::from_value(key).ok()?;
        if key.kty == "RSA" && key.alg.is_none() {
            key.alg = Some("RS256".into());
        }
        let long = key.n.as_ref().is_some_and(|n| n.len() > LONGEST_MODULUS);
        // As in the CRD: it stands in status and in what servers are handed.
        let odd = key.kid.as_ref().is_some_and(|kid| !is_kid(kid));
        (!long && !odd && key.algorithm().is_ok()).then_some(key)
    });
    Ok(keys.collect())
}

/// Whether a key may be called that: one that is not can be asked for by no token.
fn is_kid(kid: &str) -> bool {
    (1..=LONGEST_KID).contains(&kid.len()) && kid.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// The beginning of what a provider says.
fn told(text: &str) -> &str {
    let end = (0..=MOST_TOLD.min(text.len())).rev();
    let end = end.into_iter().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URI: &str = "https://corp.example/realm/.well-known/openid-configuration";

    fn read(issuer: &str, issuers: &[&str]) -> Result<Discovery, DocumentFault> {
        let document =
            json!({"issuer": issuer, "jwks_uri": "https://corp.example/keys", "more": []});
        let issuers: Vec<_> = issuers.iter().map(|i| (*i).to_owned()).collect();
        read_discovery(document.to_string().as_bytes(), URI, &issuers)
    }

    #[test]
    fn metadata_names_an_issuer_that_it_may() {
        let found = read("https://a", &["https://b", "https://a"]).expect("taken");
        assert_eq!(
            (&*found.issuer, &*found.jwks_uri),
            ("https://a", "https://corp.example/keys")
        );
        let odd = [
            ("https://a/", ["https://a"]),
            ("https://A", ["https://a"]),
            ("", ["https://a"]),
        ];
        for (issuer, issuers) in odd {
            assert!(
                matches!(read(issuer, &issuers), Err(DocumentFault::Issuer(_))),
                "{issuer}"
            );
        }
        for home in ["https://corp.example/realm", "https://corp.example/realm/"] {
            assert!(read(home, &[]).is_ok(), "{home}");
        }
        for other in [
            "https://corp.example",
            "https://corp.example/real",
            "https://corp",
            "https://",
            "",
            "/",
            "http://corp.example/realm",
            "https://corp.example/realm/.well-known",
        ] {
            assert!(
                matches!(read(other, &[]), Err(DocumentFault::Issuer(_))),
                "{other}"
            );
        }
        let inserted = "https://corp.example/.well-known/oauth-authorization-server/realm";
        assert!(is_at_home("https://corp.example/realm", inserted));
        assert!(!is_at_home("https://corp.example/other", inserted));
        for broken in [
            "",
            "[]",
            "{}",
            r#"{"issuer": "https://a"}"#,
            "<html>",
            r#"{"issuer":1,"jwks_uri":""}"#,
        ] {
            let read = read_discovery(broken.as_bytes(), URI, &["https://a".into()]);
            assert!(matches!(read, Err(DocumentFault::Unsound(_))), "{broken}");
        }
        let long = read(&"é".repeat(400), &[])
            .expect_err("refused")
            .to_string();
        assert!(long.len() < 700, "{long}");
    }

    #[test]
    fn a_jwks_gives_what_can_be_used_and_no_private_key() {
        let rsa =
            |n: usize| json!({"kty": "RSA", "kid": n.to_string(), "n": "q".repeat(n), "e": "AQAB"});
        let keys = |keys: &[Value]| {
            let read = read_jwks(json!({"keys": keys}).to_string().as_bytes()).expect("read");
            read.into_iter()
                .map(|k| (k.kid.unwrap_or_default(), k.alg))
                .collect::<Vec<_>>()
        };
        let ec = json!({"kty": "EC", "crv": "P-256", "kid": "ec", "x": "AQ", "y": "AQ", "x5c": []});
        let encrypts =
            json!({"kty": "EC", "crv": "P-256", "kid": "enc", "use": "enc", "x": "AQ", "y": "AQ"});
        assert_eq!(
            keys(&[
                rsa(683),
                rsa(684),
                ec,
                encrypts,
                json!({"kty": "odd"}),
                json!({"kty": "EC", "crv": "P-256", "kid": "k".repeat(257), "x": "AQ", "y": "AQ"}),
                json!({"kty": "EC", "crv": "P-256", "kid": "k\n", "x": "AQ", "y": "AQ"}),
                json!(1)
            ]),
            [
                ("683".into(), Some("RS256".to_owned())),
                ("ec".into(), None)
            ]
        );
        assert_eq!(keys(&[]), []);
        for member in PRIVATE {
            let mut key = rsa(342);
            key[member] = json!("AQ");
            let why = read_jwks(json!({"keys": [rsa(342), key]}).to_string().as_bytes());
            assert!(
                why.expect_err("refused")
                    .contains(&format!("member {member})"))
            );
        }
        let many = vec![rsa(342); 101];
        assert!(read_jwks(json!({"keys": many}).to_string().as_bytes()).is_err());
        for broken in ["", "{}", "[]", r#"{"keys": {}}"#] {
            assert!(read_jwks(broken.as_bytes()).is_err(), "{broken}");
        }
    }
}
