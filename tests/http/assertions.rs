//! Clients that authenticate with assertions: `private_key_jwt` (RFC 7521, RFC 7523, RFC 10070), each
//! defect on its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chancery::crypto::key_pair::KeyPair;
use chancery::crypto::public_key::PublicKey;
use chancery::domain::algorithm::Algorithm;
use chancery::domain::client::Client;
use chancery::serve::metrics::AssertionCheck as Check;
use chancery::serve::replay::ReplayLimits;
use chancery::serve::trust::{Keys, Trusted};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::jwt::*;
use crate::support::*;

fn es256_header() -> Value {
    json!({"alg": "ES256", "kid": "k1"})
}

fn robots_claims() -> Value {
    json!({"iss": "acme.robot", "sub": "acme.robot", "aud": ISSUER, "exp": NOW + 60, "jti": unique()})
}

/// A world whose client `acme.robot` has keys, and no secret.
struct Scene {
    world: World,
    key: Arc<KeyPair>,
    client: Client,
}

fn publish(world: &World, client: &Client, keys: Vec<Arc<PublicKey>>) {
    let mut snapshot = snapshot([ring("main", &es256())], [client.clone()]);
    let trusted = Arc::new(Trusted::PublicKey(Keys(keys)));
    snapshot.trusted = HashMap::from([(client.id.clone(), trusted)]);
    world.store.publish(snapshot);
}

impl Scene {
    fn new() -> Self {
        Self::in_world(World::new())
    }

    fn in_world(world: World) -> Self {
        let (client, _) = robot();
        let client = Client {
            credentials: Vec::new(),
            ..client
        };
        let key = key(Algorithm::ES256);
        publish(&world, &client, vec![public(&key, Some("k1"))]);
        Self { world, key, client }
    }

    /// An assertion that is sound but for these changes, and signed.
    fn assertion(&self, header: &Value, claims: &Value) -> String {
        let (header, claims) = (
            with(&es256_header(), header),
            with(&robots_claims(), claims),
        );
        sign(&self.key, &header, &claims)
    }

    fn sound(&self) -> String {
        self.assertion(&json!({}), &json!({}))
    }

    async fn ask(&self, assertion: &str) -> Answer {
        self.world.send(post(&[], body(assertion, ""))).await
    }
}

/// What a refusal that tells nothing looks like.
const SILENT: &str = "client authentication failed.";

fn said(answer: &Answer) -> String {
    let json = answer.json();
    json["error_description"]
        .as_str()
        .unwrap_or_default()
        .into()
}

#[tokio::test]
async fn every_algorithm_gets_a_token() {
    for algorithm in Algorithm::ALL {
        let scene = Scene::new();
        let key = key(algorithm);
        publish(&scene.world, &scene.client, vec![public(&key, None)]);
        for header in [
            json!({"alg": algorithm.name(), "kid": key.key_id()}),
            json!({"alg": algorithm.name(), "typ": "client-authentication+jwt"}),
        ] {
            let answer = scene.ask(&sign(&key, &header, &robots_claims())).await;
            assert_eq!(answer.status, 200, "{algorithm}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn each_defect_alone_is_refused() {
    let scene = Scene::new();
    assert_eq!(scene.ask(&scene.sound()).await.status, 200, "sound");
    let none = json!({});
    let public_pem = serde_json::to_vec(scene.key.public_jwk()).expect("JSON");
    let hs256 = {
        let header = with(&es256_header(), &json!({"alg": "HS256"}));
        let signed = format!("{}.{}", part(&header), part(&robots_claims()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &public_pem);
        let tag = hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let unsigned = {
        let header = json!({"alg": "none"});
        format!("{}.{}.", part(&header), part(&robots_claims()))
    };
    let truncated = {
        let mut text = scene.sound();
        // A whole number of octets: else it is no base64url.
        text.truncate(text.len() - 6);
        text
    };
    let altered = {
        let other = part(&with(&robots_claims(), &json!({"exp": NOW + 61})));
        let sound = scene.sound();
        let mut parts: Vec<&str> = sound.split('.').collect();
        parts[1] = &other;
        parts.join(".")
    };
    let duplicate = {
        let claims = format!(
            r#"{{"iss":"acme.robot","sub":"acme.robot","aud":"{ISSUER}","exp":{},"jti":"d","sub":"acme.robot"}}"#,
            NOW + 60
        );
        let signed = format!(
            "{}.{}",
            part(&es256_header()),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = scene.key.sign(signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let stranger = {
        let key = key(Algorithm::ES256);
        sign(&key, &es256_header(), &robots_claims())
    };
    let jwe = format!(
        "{}.YQ.YQ.YQ.YQ",
        part(&json!({"alg": "dir", "enc": "A256GCM"}))
    );
    let header = |change: Value| scene.assertion(&change, &none);
    let claims = |change: Value| scene.assertion(&none, &change);
    // What is told follows from the text alone; what is silent says nothing of any client.
    for (name, assertion, told) in [
        ("alg none", unsigned, "alg is none of"),
        (
            "HS256 with the public key as secret",
            hs256,
            "alg is none of",
        ),
        (
            "aud wrong",
            claims(json!({"aud": "https://other"})),
            "aud must",
        ),
        (
            "aud missing",
            claims(json!({"aud": null})),
            "aud is missing",
        ),
        (
            "aud with others",
            claims(json!({"aud": [ISSUER, "x"]})),
            "aud must",
        ),
        (
            "aud the token endpoint",
            claims(json!({"aud": format!("{ISSUER}/oauth/token")})),
            "aud must",
        ),
        (
            "exp missing",
            claims(json!({"exp": null})),
            "exp is missing",
        ),
        (
            "exp a string",
            claims(json!({"exp": "1800000060"})),
            "exp is no number",
        ),
        ("exp far", claims(json!({"exp": NOW + 301})), "5 minutes"),
        ("exp past", claims(json!({"exp": NOW - 31})), "expired"),
        (
            "nbf in the future",
            claims(json!({"nbf": NOW + 60})),
            "nbf is in the future",
        ),
        ("iat absurd", claims(json!({"iat": 12})), "iat is more than"),
        (
            "iat in the future",
            claims(json!({"iat": NOW + 999})),
            "iat is in the future",
        ),
        (
            "iat beyond all calendars",
            claims(json!({"iat": i64::MAX})),
            "iat is no number",
        ),
        (
            "jti missing",
            claims(json!({"jti": null})),
            "jti is missing",
        ),
        (
            "sub not iss",
            claims(json!({"sub": "acme.other"})),
            "iss and sub",
        ),
        (
            "iss not sub",
            claims(json!({"iss": "https://acme"})),
            "iss and sub",
        ),
        ("crit", header(json!({"crit": ["x"], "x": 1})), "crit"),
        (
            "jku",
            header(json!({"jku": "https://evil.example/jwks"})),
            "jku",
        ),
        (
            "x5u",
            header(json!({"x5u": "https://evil.example/c"})),
            "x5u",
        ),
        (
            "embedded jwk",
            header(json!({"jwk": scene.key.public_jwk()})),
            "jwk",
        ),
        ("x5c", header(json!({"x5c": ["MIIB"]})), "x5c"),
        ("nested", header(json!({"cty": "JWT"})), "nested"),
        (
            "an access token's typ",
            header(json!({"typ": "at+jwt"})),
            "typ",
        ),
        ("JWE", jwe, "JWE"),
        ("duplicate claims", duplicate, "claims"),
        (
            "a kid of 16 KB",
            header(json!({"kid": "k".repeat(12_000)})),
            "kid",
        ),
        ("60,000 dots", ".".repeat(60_000), "longer"),
        ("16,000 dots", ".".repeat(16_000), "three parts"),
        ("empty parts", "..".into(), "header"),
        ("no JWT", "x".into(), "three parts"),
        ("kid unknown", header(json!({"kid": "k2"})), SILENT),
        (
            "alg of another key",
            header(json!({"alg": "ES384"})),
            SILENT,
        ),
        (
            "alg of another kind",
            header(json!({"alg": "RS256"})),
            SILENT,
        ),
        ("signature truncated", truncated, SILENT),
        ("claims altered", altered, SILENT),
        ("another's key", stranger, SILENT),
        (
            "unknown client",
            claims(json!({"iss": "acme.nobody", "sub": "acme.nobody"})),
            SILENT,
        ),
    ] {
        let began = Instant::now();
        let answer = scene.ask(&assertion).await;
        assert_eq!(answer.status, 401, "{name}: {answer:?}");
        assert_eq!(answer.error(), "invalid_client", "{name}");
        assert!(said(&answer).contains(told), "{name}: {answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store", "{name}");
        assert!(began.elapsed() < Duration::from_secs(5), "{name}");
    }
    // Nothing of it has done any harm.
    assert_eq!(scene.ask(&scene.sound()).await.status, 200);
    assert_eq!(scene.world.metrics.panics.get(), 0);
}

#[tokio::test]
async fn what_is_too_long_is_not_read() {
    let scene = Scene::new();
    for assertion in [
        ".".repeat(100_000),
        scene.assertion(&json!({"kid": "k".repeat(10_000_000)}), &json!({})),
    ] {
        let answer = scene.ask(&assertion).await;
        assert_eq!(answer.status, 413);
        assert_eq!(answer.error(), "invalid_request");
    }
}

#[tokio::test]
async fn the_form_around_it_by_the_table() {
    let scene = Scene::new();
    let form = "grant_type=client_credentials";
    let auth = basic("acme.robot", "x");
    let none: Vec<(&str, &str)> = Vec::new();
    let basic = vec![("authorization", auth.as_str())];
    for (name, headers, text, status, error) in [
        ("alone", &none, body(&scene.sound(), ""), 200, ""),
        (
            "with its client_id",
            &none,
            body(&scene.sound(), "&client_id=acme.robot"),
            200,
            "",
        ),
        (
            "with another client_id",
            &none,
            body(&scene.sound(), "&client_id=acme.other"),
            401,
            "invalid_client",
        ),
        (
            "beside Basic",
            &basic,
            body(&scene.sound(), ""),
            400,
            "invalid_request",
        ),
        (
            "beside a secret",
            &none,
            body(&scene.sound(), "&client_id=acme.robot&client_secret=x"),
            400,
            "invalid_request",
        ),
        (
            "two assertions",
            &none,
            body(&scene.sound(), "&client_assertion=x"),
            400,
            "invalid_request",
        ),
        (
            "no type",
            &none,
            format!("{form}&client_assertion={}", scene.sound()),
            401,
            "invalid_client",
        ),
        (
            "another type",
            &none,
            format!(
                "{form}&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Asaml2-bearer&client_assertion={}",
                scene.sound()
            ),
            401,
            "invalid_client",
        ),
        (
            "the type alone",
            &none,
            format!("{form}&client_assertion_type={TYPE}&client_id=acme.robot"),
            401,
            "invalid_client",
        ),
    ] {
        let answer = scene.world.send(post(headers, text)).await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        if status != 200 {
            assert_eq!(answer.error(), error, "{name}");
        }
    }
    // In a URL it would be logged on its way.
    let url = format!("/oauth/token?client_assertion={}", scene.sound());
    let request = http::Request::post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.into())
        .expect("a request");
    assert_eq!(scene.world.send(request).await.error(), "invalid_request");
}

#[tokio::test]
async fn an_assertion_is_good_for_one_use() {
    let scene = Scene::new();
    let assertion = scene.sound();
    assert_eq!(scene.ask(&assertion).await.status, 200);
    let again = scene.ask(&assertion).await;
    assert_eq!((again.status.as_u16(), said(&again)), (401, SILENT.into()));
    // The same jti in another assertion is the same.
    let twice = json!({"jti": "twice"});
    let jti = |exp: i64| scene.assertion(&json!({}), &with(&twice, &json!({"exp": NOW + exp})));
    assert_eq!(scene.ask(&jti(60)).await.status, 200);
    assert_eq!(scene.ask(&jti(90)).await.status, 401);
    assert_eq!(scene.world.metrics.assertions(Check::Replayed), 2);
    // One that was refused has used nothing up.
    let refused = scene.assertion(&json!({"kid": "k2"}), &json!({"jti": "later"}));
    assert_eq!(scene.ask(&refused).await.status, 401);
    let later = scene.assertion(&json!({}), &json!({"jti": "later"}));
    assert_eq!(scene.ask(&later).await.status, 200);
    // A snapshot that changes nothing about it makes nothing forgotten.
    publish(
        &scene.world,
        &scene.client,
        vec![public(&scene.key, Some("k1"))],
    );
    assert_eq!(scene.ask(&later).await.status, 401);
    // Another replica has not seen it: docs/decisions/2026-11-26-client-assertions.md.
    let other = Scene::new();
    publish(
        &other.world,
        &scene.client,
        vec![public(&scene.key, Some("k1"))],
    );
    assert_eq!(other.ask(&later).await.status, 200);
}

#[tokio::test]
async fn a_full_memory_turns_away_and_forgets_nothing() {
    let limits = ReplayLimits {
        total: 100,
        of_tenant: 2,
    };
    let scene = Scene::in_world(World::with_replay(limits));
    let first = scene.sound();
    assert_eq!(scene.ask(&first).await.status, 200);
    assert_eq!(scene.ask(&scene.sound()).await.status, 200);
    let shed = scene.ask(&scene.sound()).await;
    assert_eq!(shed.status, 503);
    assert_eq!(shed.error(), "temporarily_unavailable");
    assert_eq!(shed.header("retry-after"), "2");
    assert_eq!(scene.ask(&first).await.status, 401, "still remembered");
    // What has expired makes room.
    scene
        .world
        .clock
        .0
        .store(NOW + 100, std::sync::atomic::Ordering::Relaxed);
    let fresh = scene.assertion(&json!({}), &json!({"exp": NOW + 160}));
    assert_eq!(scene.ask(&fresh).await.status, 200);
}

#[tokio::test]
async fn keys_are_told_apart_by_kid_and_without_one_only_where_one_fits() {
    let scene = Scene::new();
    let (one, two, rsa) = (
        key(Algorithm::ES256),
        key(Algorithm::ES256),
        key(Algorithm::PS256),
    );
    let keys = vec![
        public(&one, Some("one")),
        public(&two, Some("two")),
        public(&rsa, Some("rsa")),
    ];
    publish(&scene.world, &scene.client, keys);
    for (key, header, status) in [
        (&one, json!({"alg": "ES256", "kid": "one"}), 200),
        (&two, json!({"alg": "ES256", "kid": "two"}), 200),
        (&one, json!({"alg": "ES256", "kid": "two"}), 401),
        (&one, json!({"alg": "ES256"}), 401),
        (&rsa, json!({"alg": "PS256", "kid": "rsa"}), 200),
        (&rsa, json!({"alg": "PS256"}), 200),
        (&rsa, json!({"alg": "RS256", "kid": "rsa"}), 401),
        (&rsa, json!({"alg": "PS384", "kid": "rsa"}), 401),
    ] {
        let answer = scene.ask(&sign(key, &header, &robots_claims())).await;
        assert_eq!(answer.status, status, "{header}");
    }
    // A key that was taken away is no key any more, at once.
    publish(&scene.world, &scene.client, vec![public(&two, Some("two"))]);
    let header = json!({"alg": "ES256", "kid": "one"});
    let gone = scene.ask(&sign(&one, &header, &robots_claims())).await;
    assert_eq!(gone.status, 401);
}

/// Every refusal beyond the form has the same bytes, and each costs one verification.
#[tokio::test]
async fn a_refusal_tells_nothing_of_any_client() {
    let scene = Scene::new();
    let with_secret = Client {
        id: "acme.secret".into(),
        ..robot().0
    };
    let suspended = Client {
        id: "acme.suspended".into(),
        suspended: true,
        ..scene.client.clone()
    };
    let clients = [scene.client.clone(), with_secret, suspended.clone()];
    let mut snapshot = snapshot([ring("main", &es256())], clients);
    for client in [&scene.client, &suspended] {
        let trusted = Trusted::PublicKey(Keys(vec![public(&scene.key, Some("k1"))]));
        snapshot
            .trusted
            .insert(client.id.clone(), Arc::new(trusted));
    }
    scene.world.store.publish(snapshot);
    let mut answers = Vec::new();
    for id in ["acme.robot", "acme.secret", "acme.suspended", "acme.nobody"] {
        let claims = json!({"iss": id, "sub": id});
        let key = key(Algorithm::ES256);
        let wrong = sign(&key, &es256_header(), &with(&robots_claims(), &claims));
        answers.push(scene.ask(&wrong).await);
        if id != "acme.robot" {
            // Also with a signature that would be right.
            answers.push(scene.ask(&scene.assertion(&json!({}), &claims)).await);
        }
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!(scene.world.metrics.assertions(Check::Wrong), 7);
}

#[tokio::test]
async fn a_secret_works_beside_keys_until_its_end() {
    let (mut client, secret) = robot();
    let scene = Scene::new();
    client.credentials[0].expires_at =
        Some(jiff::Timestamp::from_second(NOW + 10).expect("a time"));
    publish(&scene.world, &client, vec![public(&scene.key, Some("k1"))]);
    let status = async || scene.world.token("acme.robot", &secret, "").await.status;
    assert_eq!(status().await, 200);
    assert_eq!(scene.ask(&scene.sound()).await.status, 200);
    // Also one that is remembered ends with its time, and with no snapshot that says so.
    scene
        .world
        .clock
        .0
        .store(NOW + 10, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(status().await, 401);
    assert_eq!(scene.ask(&scene.sound()).await.status, 200);
}
