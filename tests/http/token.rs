//! `POST /oauth/token` by RFC 6749, 8707 and 9068.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::Algorithm;
use chancery::domain::jwk::KeyMembers;
use chancery::serve::body::{MAX_BODY, MOST_UNFINISHED};
use chancery::serve::secrets::HashLimits;
use chancery::serve::snapshot::Snapshot;
use futures::StreamExt as _;
use http::Request;
use http_body_util::Full;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Value, json};

use crate::support::*;

/// The claims of a token that another library has verified.
fn verified(token: &str, pair: &KeyPair) -> Value {
    if pair.algorithm() == Algorithm::ES512 {
        return verified_p521(token, pair);
    }
    let jwk = serde_json::to_value(pair.public_jwk()).expect("JSON");
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(jwk).expect("a JWK");
    let mut validation = Validation::new(pair.algorithm().name().parse().expect("an algorithm"));
    validation.validate_aud = false;
    validation.set_issuer(&[ISSUER]);
    validation.validate_exp = false; // Our clock stands still.
    let key = DecodingKey::from_jwk(&jwk).expect("a key");
    let token = jsonwebtoken::decode::<Value>(token, &key, &validation).expect("verifies");
    assert_eq!(token.header.typ.as_deref(), Some("at+jwt"));
    assert_eq!(token.header.kid.as_deref(), Some(pair.key_id()));
    token.claims
}

fn verified_p521(token: &str, pair: &KeyPair) -> Value {
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let KeyMembers::Ec { x, y, .. } = &pair.public_jwk().key else {
        panic!("an EC key")
    };
    let point = [vec![4], decode(x), decode(y)].concat();
    UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point)
        .verify(message.as_bytes(), &decode(signature))
        .expect("verifies");
    let (header, claims) = message.split_once('.').expect("two parts");
    let header: Value = serde_json::from_slice(&decode(header)).expect("JSON");
    assert_eq!(
        header,
        json!({"alg": "ES512", "kid": pair.key_id(), "typ": "at+jwt"})
    );
    serde_json::from_slice(&decode(claims)).expect("JSON")
}

#[tokio::test]
async fn each_algorithm_signs_a_token_that_others_verify() {
    let (client, secret) = robot();
    let world = World::new();
    for algorithm in Algorithm::ALL {
        let pair = key(algorithm);
        world
            .store
            .publish(snapshot([ring("main", &pair)], [client.clone()]));
        let answer = world.token("acme.robot", &secret, "").await;
        assert_eq!(answer.status, 200, "{algorithm}: {answer:?}");
        let body = answer.json();
        assert_eq!(body["token_type"], "Bearer");
        assert_eq!(body["expires_in"], 300);
        assert_eq!(body["scope"], "read write");
        assert_eq!(body.as_object().expect("an object").len(), 4);
        let mut claims = verified(body["access_token"].as_str().expect("a token"), &pair);
        let jti = claims["jti"].take();
        assert_eq!(jti.as_str().map(str::len), Some(22));
        assert_eq!(
            claims,
            json!({
                "iss": ISSUER, "sub": "acme.robot", "aud": "https://api.example.com",
                "client_id": "acme.robot", "iat": NOW, "exp": NOW + 300, "jti": null,
                "scope": "read write", "caas_org_id": "le-acme", "caas_user_id": "acme.robot",
                "org_id": "le-acme", "user_roles": ["READER"], "caas_tier": "Free",
                "client_family": "Integration",
            })
        );
    }
}

#[tokio::test]
async fn requests_by_the_table() {
    const FORM: &str = "grant_type=client_credentials";
    let (client, secret) = robot();
    let world = World::serving(client);
    let auth = basic("acme.robot", &secret);
    let long = format!("{FORM}&x={}", "a".repeat(65_536));
    let just = format!("{FORM}&x={}", "a".repeat(65_536 - FORM.len() - 3));
    let many = format!("{FORM}{}", "&x".repeat(100));
    let cases: Vec<(&str, String, u16, &str)> = vec![
        ("plain", FORM.into(), 200, ""),
        (
            "unknown parameters are ignored",
            format!("{FORM}&foo=bar&foo2="),
            200,
            "",
        ),
        ("64 KiB", just, 200, ""),
        ("beyond 64 KiB", long, 413, "invalid_request"),
        (
            "grant_type missing",
            "scope=read".into(),
            400,
            "invalid_request",
        ),
        ("empty body", String::new(), 400, "invalid_request"),
        (
            "grant_type empty",
            "grant_type=&scope=read".into(),
            400,
            "invalid_request",
        ),
        (
            "unknown grant",
            "grant_type=password".into(),
            400,
            "unsupported_grant_type",
        ),
        (
            "case matters",
            "grant_type=Client_Credentials".into(),
            400,
            "unsupported_grant_type",
        ),
        (
            "grant_type twice",
            format!("{FORM}&{FORM}"),
            400,
            "invalid_request",
        ),
        (
            "scope twice",
            format!("{FORM}&scope=read&scope=read"),
            400,
            "invalid_request",
        ),
        (
            "unknown twice",
            format!("{FORM}&foo=1&foo=2"),
            400,
            "invalid_request",
        ),
        ("too many", many, 400, "invalid_request"),
        (
            "bad percent",
            format!("{FORM}&scope=%zz"),
            400,
            "invalid_request",
        ),
        (
            "bad UTF-8",
            format!("{FORM}&scope=%ff"),
            400,
            "invalid_request",
        ),
        ("scope", format!("{FORM}&scope=read"), 200, ""),
        ("empty scope is no scope", format!("{FORM}&scope="), 200, ""),
        ("scopes with +", format!("{FORM}&scope=write+read"), 200, ""),
        (
            "scope beyond",
            format!("{FORM}&scope=admin"),
            400,
            "invalid_scope",
        ),
        (
            "scope malformed",
            format!("{FORM}&scope=read++write"),
            400,
            "invalid_scope",
        ),
        (
            "scope header injection",
            format!("{FORM}&scope=%0d%0aX"),
            400,
            "invalid_scope",
        ),
        (
            "resource",
            format!("{FORM}&resource=https%3A%2F%2Fapi.example.com"),
            200,
            "",
        ),
        (
            "resource other",
            format!("{FORM}&resource=https://x.example"),
            400,
            "invalid_target",
        ),
        (
            "resource no URI",
            format!("{FORM}&resource=reports"),
            400,
            "invalid_target",
        ),
        ("audience", format!("{FORM}&audience=reports"), 200, ""),
        (
            "audience other",
            format!("{FORM}&audience=other"),
            400,
            "invalid_target",
        ),
        (
            "several",
            format!("{FORM}&resource=https://api.example.com&audience=reports&audience=reports"),
            200,
            "",
        ),
    ];
    for (name, body, status, error) in cases {
        let answer = world.send(post(&[("authorization", &auth)], body)).await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        if status != 200 {
            assert_eq!(answer.error(), error, "{name}");
            let sentence = answer.json()["error_description"]
                .as_str()
                .expect("text")
                .to_owned();
            assert!(
                sentence.ends_with('.') && sentence.is_ascii(),
                "{name}: {sentence}"
            );
            assert!(
                !sentence.contains(['"', '\\', '\r', '\n']),
                "{name}: {sentence}"
            );
        }
        assert_eq!(answer.header("cache-control"), "no-store", "{name}");
        assert_eq!(answer.header("pragma"), "no-cache", "{name}");
        assert_eq!(answer.header("content-type"), "application/json", "{name}");
        assert_eq!(answer.header("www-authenticate"), "", "{name}");
    }
}

#[tokio::test]
async fn audiences_and_scopes_stand_in_the_token() {
    let (client, secret) = robot();
    let world = World::serving(client);
    let claims = async |more: &str| {
        let answer = world.token("acme.robot", &secret, more).await.json();
        verified(answer["access_token"].as_str().expect("a token"), &es256())
    };
    assert_eq!(claims("&audience=reports").await["aud"], "reports");
    let both = claims("&resource=https://api.example.com&audience=reports").await;
    assert_eq!(both["aud"], json!(["https://api.example.com", "reports"]));
    assert_eq!(claims("&scope=write").await["scope"], "write");
}

#[tokio::test]
async fn content_types_by_the_table() {
    let (client, secret) = robot();
    let world = World::serving(client);
    let auth = basic("acme.robot", &secret);
    for (content_type, status) in [
        ("application/x-www-form-urlencoded", 200),
        ("application/x-www-form-urlencoded; charset=UTF-8", 200),
        ("Application/X-WWW-Form-UrlEncoded ;charset=utf-8", 200),
        (
            "application/x-www-form-urlencoded; a=b; Charset=\"Utf-8\"",
            200,
        ),
        ("application/x-www-form-urlencoded; charset=utf-16", 400),
        (
            "application/x-www-form-urlencoded; CHARSET = \"latin1\"",
            400,
        ),
        ("application/x-www-form-urlencoded;charset=", 400),
        (
            "application/x-www-form-urlencoded; charset=utf-8; charset=utf-7",
            400,
        ),
        ("application/json", 400),
        ("multipart/form-data; boundary=x", 400),
        ("application/x-www-form-urlencoded2", 400),
        ("", 400),
    ] {
        let headers = [
            ("authorization", auth.as_str()),
            ("content-type", content_type),
        ];
        let answer = world
            .send(post(&headers, "grant_type=client_credentials"))
            .await;
        assert_eq!(answer.status, status, "{content_type}");
        if status == 400 {
            assert_eq!(answer.error(), "invalid_request");
            let said = answer.json()["error_description"].to_string();
            let of_charset = content_type.to_lowercase().contains("charset");
            assert_eq!(said.contains("must be UTF-8"), of_charset, "{said}");
        }
    }
    let missing = Request::post("/oauth/token")
        .header("authorization", &auth)
        .body(Full::new(Bytes::from("grant_type=client_credentials")))
        .expect("a request");
    assert_eq!(world.send(missing).await.error(), "invalid_request");
}

#[tokio::test]
async fn only_post_and_nothing_from_the_query() {
    let (client, secret) = robot();
    let world = World::serving(client);
    let answer = world
        .get("/oauth/token?grant_type=client_credentials")
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow")),
        (405, "POST")
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    for (query, body, status, error) in [
        (
            "grant_type=client_credentials",
            "scope=read",
            400,
            "invalid_request",
        ),
        ("scope=admin", "grant_type=client_credentials", 200, ""),
        (
            "client_secret=x",
            "grant_type=client_credentials",
            400,
            "invalid_request",
        ),
        (
            "a=b&client%5Fsecret=x",
            "grant_type=client_credentials",
            400,
            "invalid_request",
        ),
        (
            "client_assertion=x",
            "grant_type=client_credentials",
            400,
            "invalid_request",
        ),
    ] {
        let mut request = post(&[("authorization", &basic("acme.robot", &secret))], body);
        *request.uri_mut() = format!("/oauth/token?{query}").parse().expect("a URI");
        let answer = world.send(request).await;
        assert_eq!(answer.status, status, "{query}");
        if status != 200 {
            assert_eq!(answer.error(), error, "{query}");
        }
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_off_too() {
    let (client, secret) = robot();
    let world = World::serving(client);
    let chunks = (0..100)
        .map(|_| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(vec![b'a'; 1024]))));
    let request = Request::post("/oauth/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("authorization", basic("acme.robot", &secret))
        .body(http_body_util::StreamBody::new(futures::stream::iter(
            chunks,
        )))
        .expect("a request");
    assert_eq!(world.app.respond(request).await.status(), 413);
    let chunks = ["grant_type=client_", "credentials", "&scope=", "read"]
        .map(|c| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(c))));
    let request = Request::post("/oauth/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("authorization", basic("acme.robot", &secret))
        .body(http_body_util::StreamBody::new(futures::stream::iter(
            chunks,
        )))
        .expect("a request");
    assert_eq!(world.app.respond(request).await.status(), 200);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let soon = std::time::Duration::from_millis(20);
    let world = World::with_body_timeout(ISSUER, HashLimits::default(), soon);
    let request = Request::post("/oauth/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(http_body_util::StreamBody::new(futures::stream::pending::<
            Result<http_body::Frame<Bytes>, std::io::Error>,
        >()))
        .expect("a request");
    assert_eq!(world.app.respond(request).await.status(), 408);
}

/// Requests whose bodies never end fill no memory, and take nothing from those that come whole.
#[tokio::test]
async fn bodies_that_do_not_end_are_bounded_together() {
    let (client, secret) = robot();
    let world = World::new();
    world
        .store
        .publish(snapshot([ring("main", &es256())], [client]));
    let unfinished = || {
        let part = http_body::Frame::data(Bytes::from(vec![b'a'; MAX_BODY]));
        let parts = futures::stream::iter([Ok::<_, std::io::Error>(part)]);
        let body = http_body_util::StreamBody::new(parts.chain(futures::stream::pending()));
        Request::post("/oauth/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .expect("a request")
    };
    let mut waiting = futures::stream::FuturesUnordered::new();
    for _ in 0..MOST_UNFINISHED / MAX_BODY {
        let app = world.app.clone();
        waiting.push(async move { app.respond(unfinished()).await.status() });
    }
    assert!(futures::poll!(waiting.next()).is_pending());
    let answer = world.app.respond(unfinished()).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(world.token("acme.robot", &secret, "").await.status, 200);
    drop(waiting);
    let answer = world.app.respond(unfinished());
    assert!(
        futures::poll!(Box::pin(answer)).is_pending(),
        "there is room"
    );
}

#[tokio::test]
async fn without_keys_there_is_a_503() {
    let (mut client, secret) = robot();
    let world = World::new();
    let clients = || snapshot([], [client.clone()]).clients;
    let unpublished = Snapshot {
        jwks: Some(jwks([&key(Algorithm::EdDSA)])),
        client_rings: vec![ring("main", &es256())],
        clients: clients(),
        ..Snapshot::default()
    };
    let none = Snapshot {
        jwks: None,
        client_rings: vec![ring("main", &es256())],
        clients: clients(),
        ..Snapshot::default()
    };
    for odd in [none, unpublished, snapshot([], [client.clone()])] {
        world.store.publish(odd);
        let answer = world.token("acme.robot", &secret, "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.error().as_str()),
            (503, "temporarily_unavailable")
        );
        assert_ne!(answer.header("retry-after"), "");
    }
    client.signing_key = Some("other".into());
    world
        .store
        .publish(snapshot([ring("main", &es256())], [client]));
    assert_eq!(world.token("acme.robot", &secret, "").await.status, 503);
}

#[tokio::test]
async fn the_ring_is_the_first_or_the_one_that_is_named() {
    let (mut client, secret) = robot();
    let (first, second) = (es256(), key(Algorithm::EdDSA));
    let world = World::new();
    for (named, expected) in [
        (None, &first),
        (Some("second"), &second),
        (Some("first"), &first),
    ] {
        client.signing_key = named.map(str::to_owned);
        let rings = [ring("first", &first), ring("second", &second)];
        world.store.publish(snapshot(rings, [client.clone()]));
        let answer = world.token("acme.robot", &secret, "").await.json();
        verified(answer["access_token"].as_str().expect("a token"), expected);
    }
}

#[tokio::test]
async fn without_a_current_subscription_the_client_is_told() {
    let (mut client, secret) = robot();
    client.subscriptions = Arc::new(Vec::new());
    let world = World::serving(client);
    let answer = world.token("acme.robot", &secret, "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.error().as_str()),
        (400, "unauthorized_client")
    );
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_server_lives() {
    let (client, secret) = robot();
    let world = World::serving(client);
    world.clock.0.store(-1, Ordering::Relaxed);
    let answer = world.token("acme.robot", &secret, "").await;
    assert_eq!(answer.status, 500);
    assert_eq!(world.metrics.panics.get(), 1);
    world.clock.0.store(NOW, Ordering::Relaxed);
    assert_eq!(world.token("acme.robot", &secret, "").await.status, 200);
}
