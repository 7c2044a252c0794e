use super::*;
use crate::crypto::jws::sign_token;

fn new_pair(algorithm: Algorithm) -> (Zeroizing<String>, KeyPair) {
    let pem = KeyPair::generate_pem(algorithm, RsaKeySize::Bits2048).expect("a key");
    let pair = KeyPair::from_pem(algorithm, &pem).expect("reads back");
    (pem, pair)
}

#[test]
fn every_algorithm_makes_reads_and_signs() {
    for algorithm in Algorithm::ALL {
        let (pem, pair) = new_pair(algorithm);
        assert_eq!(pair.algorithm(), algorithm);
        assert_eq!(pair.public_jwk().alg, algorithm);
        assert_eq!(pair.key_id().len(), 43);
        assert_eq!(pair.key_id(), thumbprint(&pair.public_jwk().key));
        let again = KeyPair::from_pem(algorithm, &pem).expect("reads back");
        assert_eq!(again.key_id(), pair.key_id());
        let expected = match algorithm {
            Algorithm::ES256 | Algorithm::EdDSA => 64,
            Algorithm::ES384 => 96,
            Algorithm::ES512 => 132,
            _ => 256,
        };
        assert_eq!(
            pair.sign(b"message").expect("signed").len(),
            expected,
            "{algorithm}"
        );
        assert!(pem.lines().all(|l| l.len() <= 64));
    }
}

#[test]
fn jsonwebtoken_agrees_on_keys_thumbprints_and_tokens() {
    for algorithm in Algorithm::ALL {
        let (_, pair) = new_pair(algorithm);
        let json = serde_json::to_value(pair.public_jwk()).expect("JSON");
        let mut theirs_json = json.clone();
        if algorithm == Algorithm::ES512 {
            theirs_json
                .as_object_mut()
                .expect("an object")
                .remove("alg");
        }
        let theirs: jsonwebtoken::jwk::Jwk = serde_json::from_value(theirs_json).expect("a JWK");
        assert_eq!(
            theirs
                .thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256)
                .expect("a thumbprint"),
            pair.key_id(),
            "{algorithm}"
        );
        let claims = serde_json::json!({"sub": "someone", "exp": 4_000_000_000_i64});
        let token = sign_token(&pair, &claims).expect("a token");
        if algorithm == Algorithm::ES512 {
            continue; // Not known there; the self-test has verified it.
        }
        let name = algorithm.name().parse().expect("known there");
        let key = jsonwebtoken::DecodingKey::from_jwk(&theirs).expect("a key");
        let validation = jsonwebtoken::Validation::new(name);
        let decoded = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation)
            .unwrap_or_else(|e| panic!("{algorithm}: {e}"));
        assert_eq!(decoded.claims, claims);
        assert_eq!(decoded.header.kid.as_deref(), Some(pair.key_id()));
        assert_eq!(decoded.header.typ.as_deref(), Some("at+jwt"));
    }
}

#[test]
fn coordinates_keep_their_full_width() {
    // Leading zeros appear in one coordinate of 128.
    for _ in 0..300 {
        let (_, pair) = new_pair(Algorithm::ES256);
        let KeyMembers::Ec { x, y, .. } = &pair.public_jwk().key else {
            panic!("an EC key")
        };
        assert_eq!((x.len(), y.len()), (43, 43));
    }
}

#[test]
fn bad_keys_are_refused_with_a_sentence_that_quotes_nothing() {
    let (pem, _) = new_pair(Algorithm::ES256);
    let (other, _) = new_pair(Algorithm::EdDSA);
    let inner = pem.lines().nth(1).expect("a line").to_owned();
    let cut = pem.replacen(&inner[..8], "", 1);
    let flipped = pem.replacen(&inner[20..24], "AAAA", 1);
    let sec1 = pem.replace("PRIVATE KEY", "EC PRIVATE KEY");
    let huge = format!(
        "{BEGIN}{}",
        "A".repeat(100_000),
        BEGIN = "-----BEGIN PRIVATE KEY-----"
    );
    for bad in [
        "",
        "nonsense",
        &cut,
        &flipped,
        &sec1,
        &other,
        &pem.repeat(2),
        &huge,
    ] {
        let error = KeyPair::from_pem(Algorithm::ES256, bad)
            .expect_err("refused")
            .to_string();
        assert!(
            error.starts_with("the private key ") && error.ends_with('.'),
            "{error}"
        );
        assert!(
            error.len() < 200 && !error.contains(&inner[..16]),
            "{error}"
        );
    }
    assert!(KeyPair::from_pem(Algorithm::ES384, &pem).is_err());
    assert!(KeyPair::from_pem(Algorithm::RS256, &pem).is_err());
}

#[test]
fn debug_shows_no_key() {
    let (pem, pair) = new_pair(Algorithm::EdDSA);
    let shown = format!("{pair:?}");
    assert!(shown.contains(pair.key_id()) && shown.contains("EdDSA"));
    assert!(!shown.contains(pem.lines().nth(1).expect("a line")) && shown.len() < 120);
}
