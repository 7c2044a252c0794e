//! What may be wrong with a person's token, each defect on its own: whichever way it is used, as a subject
//! token, for introspection, for `/account` and as a client assertion, it is refused, and the next sound one
//! is taken.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chancery::domain::algorithm::Algorithm;
use chancery::domain::provider::Provider;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::jwt::{body, part, sign, with};
use crate::people::*;
use crate::support::*;

/// Signed by the provider, with another header.
fn headed(changes: &Value) -> String {
    sign(&OF_CORP, &with(&header(), changes), &claims())
}

/// Signed by the provider: claims that are written out.
fn literal(claims: &str) -> String {
    let signed = format!("{}.{}", part(&header()), URL_SAFE_NO_PAD.encode(claims));
    let signature = OF_CORP.sign(signed.as_bytes()).expect("signed");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Each of the lists of issues 5 and 6, and some more.
fn defects() -> Vec<(&'static str, String)> {
    let claim = |changes: Value| of_person(&changes);
    let header_of = |changes: Value| headed(&changes);
    let sound = of_person(&json!({}));
    let parts: Vec<&str> = sound.split('.').collect();
    let hs256 = {
        let signed = format!(
            "{}.{}",
            part(&with(&header(), &json!({"alg": "HS256"}))),
            part(&claims())
        );
        let public = serde_json::to_vec(OF_CORP.public_jwk()).expect("JSON");
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &public),
            signed.as_bytes(),
        );
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let id_token = |changes: Value| {
        let header = with(&header(), &json!({"typ": "JWT"}));
        sign(&OF_CORP, &header, &with(&claims(), &changes))
    };
    let text = claims().to_string();
    let twice = |member: &str| literal(&format!("{},{member}}}", &text[..text.len() - 1]));
    let altered = {
        let other = part(&with(&claims(), &json!({"sub": "mallory"})));
        format!("{}.{other}.{}", parts[0], parts[2])
    };
    let nested = sign(
        &OF_CORP,
        &with(&header(), &json!({"cty": "JWT"})),
        &json!(sound),
    );
    vec![
        ("iss another", claim(json!({"iss": "https://x"}))),
        (
            "iss with a slash more",
            claim(json!({"iss": format!("{CORP}/")})),
        ),
        ("iss missing", claim(json!({"iss": null}))),
        ("iss an array", claim(json!({"iss": [CORP]}))),
        ("iss this issuer", claim(json!({"iss": ISSUER}))),
        ("aud of another service", claim(json!({"aud": "back"}))),
        (
            "aud array of others",
            claim(json!({"aud": ["back", "Front"]})),
        ),
        ("aud with a number", claim(json!({"aud": ["front", 7]}))),
        ("aud an object", claim(json!({"aud": {"front": 1}}))),
        ("aud empty", claim(json!({"aud": []}))),
        ("aud missing", claim(json!({"aud": null}))),
        ("exp missing", claim(json!({"exp": null}))),
        ("exp a text", claim(json!({"exp": "9999999999"}))),
        ("exp past", claim(json!({"exp": NOW - 61}))),
        ("exp now", claim(json!({"exp": NOW}))),
        ("exp beyond all calendars", claim(json!({"exp": 1e300}))),
        ("nbf in the future", claim(json!({"nbf": NOW + 61}))),
        ("iat missing", claim(json!({"iat": null}))),
        (
            "iat before the provider was registered",
            claim(json!({"iat": NOW - 1061})),
        ),
        ("iat absurd", claim(json!({"iat": 12}))),
        ("iat in the future", claim(json!({"iat": NOW + 61}))),
        ("sub missing", claim(json!({"sub": null}))),
        ("sub with a newline", claim(json!({"sub": "a\nb"}))),
        ("sub with a NUL", claim(json!({"sub": "a\u{0}"}))),
        ("sub turned round", claim(json!({"sub": "a\u{202e}b"}))),
        ("sub empty", claim(json!({"sub": ""}))),
        (
            "sub of 300 characters",
            claim(json!({"sub": "x".repeat(300)})),
        ),
        ("sub a number", claim(json!({"sub": 7}))),
        ("legal entity missing", claim(json!({"caas_org_id": null}))),
        (
            "legal entity no id",
            claim(json!({"caas_org_id": "le acme"})),
        ),
        ("legal entities", claim(json!({"caas_org_id": ["le-acme"]}))),
        (
            "roles a number",
            claim(json!({"realm_access": {"roles": 7}})),
        ),
        ("a client's own", claim(json!({"client_id": "ann"}))),
        ("bound to a key", claim(json!({"cnf": {"jkt": "x"}}))),
        ("a logout token", claim(json!({"events": {}}))),
        (
            "typ of a logout token",
            header_of(json!({"typ": "logout+jwt"})),
        ),
        (
            "typ of a client assertion",
            header_of(json!({"typ": "client-authentication+jwt"})),
        ),
        ("an ID token with a nonce", id_token(json!({"nonce": "n"}))),
        (
            "an ID token with at_hash",
            id_token(json!({"at_hash": "x"})),
        ),
        (
            "nothing that a bare ID token has not",
            headed(&json!({"typ": null})),
        ),
        (
            "an ID token for its client",
            id_token(json!({"azp": "front", "jti": "one"})),
        ),
        ("Keycloak's ID token", id_token(json!({"typ": "ID"}))),
        (
            "Keycloak's refresh token",
            id_token(json!({"typ": "Refresh"})),
        ),
        (
            "another's key",
            sign(&key(Algorithm::ES256), &header(), &claims()),
        ),
        (
            "our own key",
            sign(
                &PEOPLE,
                &with(&header(), &json!({"alg": "EdDSA", "kid": PEOPLE.key_id()})),
                &claims(),
            ),
        ),
        ("kid of our own", header_of(json!({"kid": PEOPLE.key_id()}))),
        ("kid unknown", header_of(json!({"kid": "x"}))),
        (
            "kid of 16 KB",
            header_of(json!({"kid": "k".repeat(16_000)})),
        ),
        ("kid a number", header_of(json!({"kid": 1}))),
        (
            "alg none",
            format!("{}.{}.", part(&json!({"alg": "none"})), parts[1]),
        ),
        (
            "alg none with its kid",
            format!(
                "{}.{}.",
                part(&with(&header(), &json!({"alg": "none"}))),
                parts[1]
            ),
        ),
        ("HS256 with the public key", hs256),
        ("alg of another key", header_of(json!({"alg": "ES384"}))),
        ("alg of another kind", header_of(json!({"alg": "PS256"}))),
        ("alg missing", header_of(json!({"alg": null}))),
        ("crit", header_of(json!({"crit": ["x"], "x": 1}))),
        ("b64", header_of(json!({"b64": false}))),
        (
            "jku",
            header_of(json!({"jku": "https://evil.example/jwks"})),
        ),
        ("x5u", header_of(json!({"x5u": "https://evil.example/c"}))),
        ("x5c", header_of(json!({"x5c": ["MIIB"]}))),
        (
            "embedded jwk",
            header_of(json!({"jwk": OF_CORP.public_jwk()})),
        ),
        ("nested", nested),
        ("cty", header_of(json!({"cty": "JWT"}))),
        (
            "JWE",
            format!(
                "{}.YQ.YQ.YQ.YQ",
                part(&json!({"alg": "dir", "enc": "A256GCM"}))
            ),
        ),
        ("five parts", format!("{sound}.YQ.YQ")),
        ("sub twice", twice(r#""sub":"mallory""#)),
        ("aud twice", twice(r#""aud":"front""#)),
        ("roles twice", twice(r#""x":{"a":1,"a":2}"#)),
        ("no object", literal("[]")),
        ("no JSON", literal("{")),
        ("signature truncated", sound[..sound.len() - 6].to_owned()),
        ("signature missing", format!("{}.{}.", parts[0], parts[1])),
        ("signature with padding", format!("{sound}=")),
        ("claims altered", altered),
        ("empty parts", "..".into()),
        ("no JWT", "x".into()),
        ("60,000 dots", ".".repeat(60_000)),
        ("a long one", "a".repeat(40_000)),
    ]
}

#[tokio::test]
async fn each_defect_alone_is_refused_whichever_way_it_is_used() {
    let (world, secret) = world();
    let sound = of_person(&json!({}));
    let taken = async || {
        let exchanged = exchange(&world, "acme.front", &secret, &sound, "").await;
        let told = told(&world, "acme.front", &secret, &sound).await;
        let account = account(&world, "/account", &sound).await;
        (
            exchanged.status.as_u16(),
            told.json()["active"] == true,
            account.status.as_u16(),
        )
    };
    assert_eq!(taken().await, (200, true, 200));
    let mut accounts = std::collections::BTreeSet::new();
    for (why, token) in defects() {
        let began = Instant::now();
        let answer = exchange(&world, "acme.front", &secret, &token, "").await;
        let code = (answer.status.as_u16(), &*answer.error());
        assert_eq!(code, (400, "invalid_request"), "{why}: {answer:?}");
        let said = told(&world, "acme.front", &secret, &token).await;
        assert_eq!(said.json(), json!({"active": false}), "{why}");
        for path in ["/account", "/account/subscriptions"] {
            let answer = account(&world, path, &token).await;
            assert_eq!(answer.status, 401, "{why}: {answer:?}");
            accounts.insert(answer.body);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{why}");
        // No text of it comes back.
        let description = answer.json()["error_description"].to_string();
        for quoted in ["mallory", "evil", "kkk", "xxx", "https://x"] {
            assert!(!description.contains(quoted), "{why}: {description}");
        }
    }
    assert_eq!(accounts.len(), 1, "one answer for all: {accounts:?}");
    // None of it has done harm.
    assert_eq!(taken().await, (200, true, 200));
    assert_eq!(world.metrics.panics.get(), 0);
}

#[tokio::test]
async fn what_is_sound_and_looks_odd_is_taken() {
    let (world, secret) = world();
    for (why, token) in [
        ("aud a text", of_person(&json!({"aud": "front"}))),
        (
            "aud with others",
            of_person(&json!({"aud": ["back", "front"]})),
        ),
        ("scopes of its own", of_person(&json!({"scope": "read"}))),
        (
            "no typ, but a client",
            sign(
                &OF_CORP,
                &with(&header(), &json!({"typ": null})),
                &with(&claims(), &json!({"azp": "portal"})),
            ),
        ),
        (
            "typ as a media type",
            headed(&json!({"typ": "application/AT+JWT"})),
        ),
        ("no kid, and one key", headed(&json!({"kid": null}))),
        (
            "fractions",
            of_person(&json!({"exp": 1_800_000_100.5, "iat": 1_799_999_999.9})),
        ),
        (
            "a clock that is ahead",
            of_person(&json!({"iat": NOW + 60, "nbf": NOW + 60})),
        ),
        ("just registered", of_person(&json!({"iat": NOW - 1060}))),
        (
            "a long subject",
            of_person(&json!({"sub": "x".repeat(255)})),
        ),
        (
            "for this actor",
            of_person(&json!({"may_act": {"sub": "acme.front"}})),
        ),
    ] {
        let answer = exchange(&world, "acme.front", &secret, &token, "").await;
        assert_eq!(answer.status, 200, "{why}: {answer:?}");
        let said = told(&world, "acme.front", &secret, &token).await.json();
        assert_eq!(said["active"], true, "{why}: {said}");
        assert_eq!(
            account(&world, "/account", &token).await.status,
            200,
            "{why}"
        );
    }
    let narrow = of_person(&json!({"scope": "read"}));
    let narrow = exchange(&world, "acme.front", &secret, &narrow, "").await;
    assert_eq!(narrow.json()["scope"], "read");
    // Another may not act with it; that says nothing of whether it holds.
    let others = of_person(&json!({"may_act": {"sub": "acme.shop"}}));
    let answer = exchange(&world, "acme.front", &secret, &others, "").await;
    assert_eq!(answer.error(), "invalid_request");
    let said = told(&world, "acme.front", &secret, &others).await.json();
    assert_eq!(said["active"], true);
}

#[tokio::test]
async fn what_is_too_long_is_not_read() {
    let (world, secret) = world();
    for token in [
        ".".repeat(100_000),
        headed(&json!({"kid": "k".repeat(10_000_000)})),
    ] {
        let answer = exchange(&world, "acme.front", &secret, &token, "").await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.error()),
            (413, "invalid_request")
        );
        let answer = told(&world, "acme.front", &secret, &token).await;
        assert_eq!(answer.status, 413);
        assert_eq!(account(&world, "/account", &token).await.status, 401);
    }
}

/// Whoever holds a person's token is no client by it, whatever it says.
#[tokio::test]
async fn a_persons_token_is_no_client_assertion() {
    let (world, _) = world();
    let clients = json!({
        "iss": "acme.front", "sub": "acme.front", "aud": ISSUER, "client_id": "acme.front",
        "exp": NOW + 60, "jti": "one",
    });
    for token in [
        of_person(&json!({})),
        of_person(&json!({"sub": "acme.front", "aud": ISSUER, "jti": "one"})),
        of_person(&clients),
        sign(
            &OF_CORP,
            &with(&header(), &json!({"typ": null})),
            &with(&claims(), &clients),
        ),
    ] {
        for more in ["", "&client_id=acme.front"] {
            let answer = world.send(post(&[], body(&token, more))).await;
            assert_eq!(
                (answer.status.as_u16(), &*answer.error()),
                (401, "invalid_client")
            );
        }
    }
}

#[tokio::test]
async fn a_tenants_provider_speaks_for_its_tenant_alone() {
    let (all, secret) = clients();
    let world = World::new();
    let of_acme = Provider {
        namespace: Some("acme".into()),
        ..corp()
    };
    world
        .store
        .publish(served(all, vec![trusted(of_acme, &OF_CORP)]));
    let unnamed = of_person(&json!({"caas_org_id": null}));
    for token in [&of_person(&json!({})), &unnamed] {
        let answer = exchange(&world, "acme.front", &secret, token, "").await;
        assert_eq!(read(&token_of(&answer)).claims["sub"], "acme/corp:ann");
        let said = told(&world, "acme.front", &secret, token).await.json();
        assert_eq!(
            (&said["sub"], &said["caas_org_id"]),
            (&json!("acme/corp:ann"), &json!("le-acme"))
        );
        let said = account(&world, "/account", token).await.json();
        assert_eq!(said["userAccountInfo"]["legalEntity"]["id"], "le-acme");
        // Not for the other.
        let answer = exchange(&world, "globex.shop", &secret, token, "").await;
        assert_eq!(answer.error(), "invalid_request");
        let said = told(&world, "globex.shop", &secret, token).await.json();
        assert_eq!(said, json!({"active": false}));
    }
    // It claims another's person, for itself or for that one.
    let claimed = of_person(&json!({"caas_org_id": "le-globex"}));
    let answer = exchange(&world, "acme.front", &secret, &claimed, "").await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.error()),
        (400, "access_denied")
    );
    let answer = exchange(&world, "globex.shop", &secret, &claimed, "").await;
    assert_eq!(answer.error(), "invalid_request");
    for id in ["acme.front", "globex.shop"] {
        let said = told(&world, id, &secret, &claimed).await.json();
        assert_eq!(said, json!({"active": false}), "{id}");
    }
    assert_eq!(account(&world, "/account", &claimed).await.status, 401);
}

#[tokio::test]
async fn another_tenants_person_is_nobody_here() {
    let (world, secret) = world();
    let theirs = of_person(&json!({"caas_org_id": "le-globex"}));
    let answer = exchange(&world, "acme.front", &secret, &theirs, "").await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.error()),
        (400, "access_denied")
    );
    let said = told(&world, "acme.front", &secret, &theirs).await;
    assert_eq!(said, told(&world, "acme.front", &secret, "x").await);
    // For its own tenant it holds.
    let answer = exchange(&world, "globex.shop", &secret, &theirs, "").await;
    assert_eq!(answer.status, 200);
    let ours = exchange(&world, "globex.shop", &secret, &of_person(&json!({})), "").await;
    assert_eq!(ours.error(), "access_denied");
    let nobodys = of_person(&json!({"caas_org_id": "le-nobody"}));
    let answer = exchange(&world, "acme.front", &secret, &nobodys, "").await;
    assert_eq!(answer.error(), "access_denied");
    assert_eq!(account(&world, "/account", &nobodys).await.status, 401);
}
