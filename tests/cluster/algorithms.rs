//! Each of the ten algorithms, from the manifest to a token that two independent libraries verify.

use std::str::FromStr;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use crate::quickstart::verify;
use crate::release::Release;
use crate::support::http;

const ALL: [&str; 10] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
];

#[test]
fn each_algorithm_signs_what_others_verify() {
    let release = Release::start("algorithms");
    let tenant = release.tenant("algorithms-tenant");
    let name = |algorithm: &str| algorithm.to_lowercase();
    for algorithm in ALL {
        release.ring(&name(algorithm), &format!("algorithm: {algorithm}"));
        release.user(
            &tenant,
            &name(algorithm),
            &format!("  signingKey: {}\n", name(algorithm)),
        );
    }
    let mut kids = std::collections::BTreeSet::new();
    for algorithm in ALL {
        release.wait_ready("signingkey", &release.name, &name(algorithm));
        release.wait_ready("technicaluser", &tenant, &name(algorithm));
        let (id, secret) = release.credentials(&tenant, &name(algorithm));
        let token = release.token(&id, &secret, "");
        let jwks = format!("{}/.well-known/jwks.json", release.issuer());
        let verified = verify(&release, &jwks, &token, "https://a.example");
        assert_eq!(verified["header"]["alg"], algorithm);
        let ring = release.get("signingkey", &release.name, &name(algorithm));
        assert_eq!(verified["header"]["kid"], ring["status"]["activeKeyId"]);
        kids.insert(verified["header"]["kid"].to_string());
        // jsonwebtoken has no ES512; the Go library above has.
        if algorithm != "ES512" {
            let map = release.get(
                "configmap",
                &release.name,
                &format!("{}-jwks", name(algorithm)),
            );
            let document = map["data"]["jwks.json"].as_str().expect("a JWKS");
            rust_verifies(document, &token, algorithm, &release.issuer());
        }
    }
    assert_eq!(kids.len(), ALL.len(), "ten keys, ten kids");
    let jwks = http::get(&format!("{}/.well-known/jwks.json", release.issuer())).expect("HTTP");
    assert_eq!(jwks.json()["keys"].as_array().map(Vec::len), Some(10));
    assert!(!jwks.text().contains("\"d\""), "public members only");
}

fn rust_verifies(document: &str, token: &str, algorithm: &str, issuer: &str) {
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_str(document).expect("a JWKS");
    let header = jsonwebtoken::decode_header(token).expect("a header");
    let key = set
        .find(header.kid.as_deref().expect("a kid"))
        .expect("the key is published");
    let mut validation = Validation::new(Algorithm::from_str(algorithm).expect("an algorithm"));
    validation.set_audience(&["https://a.example"]);
    validation.set_issuer(&[issuer]);
    validation.leeway = 0;
    let key = DecodingKey::from_jwk(key).expect("a key");
    jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation).expect("it verifies");
}

/// Of several rings the one with the highest priority signs, then the first by name.
#[test]
fn priority_decides_which_ring_signs() {
    let release = Release::start("priority");
    let tenant = release.tenant("priority-tenant");
    release.ring("b", "algorithm: ES256");
    release.ring("c", "algorithm: EdDSA");
    release.user(&tenant, "user", "");
    release.wait_ready("signingkey", &release.name, "b");
    release.wait_ready("signingkey", &release.name, "c");
    let (id, secret) = release.credentials(&tenant, "user");
    let algorithm = || {
        let token = release.token(&id, &secret, "");
        format!(
            "{:?}",
            jsonwebtoken::decode_header(&token).expect("a header").alg
        )
    };
    let signs = |wanted: &str| {
        crate::support::eventually(&format!("{wanted} signs"), crate::release::LIMIT, || {
            let now = algorithm();
            if now == wanted { Ok(()) } else { Err(now) }
        });
    };
    signs("ES256");
    release.ring("c", "algorithm: EdDSA, priority: 5");
    signs("EdDSA");
}
