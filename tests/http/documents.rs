//! The JWKS, the metadata, and the admin port.

use chancery::domain::algorithm::Algorithm;
use chancery::serve::admin::Admin;
use chancery::serve::secrets::HashLimits;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};

use crate::support::*;

#[tokio::test]
async fn the_jwks_is_served_byte_for_byte() {
    let world = World::new();
    let answer = world.get("/.well-known/jwks.json").await;
    assert_eq!(answer.status, 503);
    assert_ne!(answer.header("retry-after"), "");
    let published = jwks([&es256()]);
    world.store.publish(snapshot([ring("main", &es256())], []));
    let answer = world.get("/.well-known/jwks.json?x=y").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, published.document);
    assert_eq!(answer.header("content-type"), "application/jwk-set+json");
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    assert_eq!(answer.header("etag"), "\"tag\"");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn conditional_requests_by_the_table() {
    let world = World::serving(robot().0);
    for (if_none_match, status) in [
        ("\"tag\"", 304),
        ("W/\"tag\"", 304),
        ("*", 304),
        ("\"a\", W/\"tag\" , \"b\"", 304),
        ("\"other\"", 200),
        ("tag", 200),
        ("", 200),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let request = Request::builder()
                .method(method)
                .uri("/.well-known/jwks.json")
                .header("if-none-match", if_none_match)
                .body(Full::default())
                .expect("a request");
            let answer = world.send(request).await;
            assert_eq!(answer.status, status, "{if_none_match}");
            assert_eq!(answer.header("etag"), "\"tag\"");
            assert_eq!(answer.header("cache-control"), "public, max-age=300");
            assert!(status == 200 || answer.body.is_empty());
        }
    }
}

#[tokio::test]
async fn metadata_under_every_name() {
    const PLAIN: [&str; 2] = [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
    ];
    for (issuer, prefix) in [
        (ISSUER, ""),
        ("https://id.example.com/tenant/a", "/tenant/a"),
    ] {
        let world = World::with(issuer, HashLimits::default());
        for name in PLAIN {
            assert_eq!(world.get(&format!("{prefix}{name}")).await.status, 503);
        }
        let rings = [ring("a", &es256()), ring("b", &key(Algorithm::EdDSA))];
        world.store.publish(snapshot(rings, []));
        for name in PLAIN {
            for path in [format!("{prefix}{name}"), format!("{name}{prefix}")] {
                let answer = world.get(&path).await;
                assert_eq!(answer.status, 200, "{path}");
                assert_eq!(answer.header("content-type"), "application/json");
                assert_eq!(answer.header("access-control-allow-origin"), "*");
                let json = answer.json();
                assert_eq!(json["issuer"], issuer);
                assert_eq!(json["token_endpoint"], format!("{issuer}/oauth/token"));
                assert_eq!(
                    json["revocation_endpoint"],
                    format!("{issuer}/oauth/revoke")
                );
                assert_eq!(
                    json["revocation_endpoint_auth_methods_supported"],
                    json["token_endpoint_auth_methods_supported"]
                );
                assert_eq!(
                    json["introspection_endpoint"],
                    format!("{issuer}/oauth/introspect")
                );
                assert_eq!(
                    json["introspection_endpoint_auth_methods_supported"],
                    json["token_endpoint_auth_methods_supported"]
                );
                assert_eq!(
                    json["introspection_signing_alg_values_supported"],
                    serde_json::json!(["ES256", "EdDSA"])
                );
                assert_eq!(json["jwks_uri"], format!("{issuer}/.well-known/jwks.json"));
                assert_eq!(
                    json["id_token_signing_alg_values_supported"],
                    serde_json::json!(["ES256", "EdDSA"])
                );
                assert_eq!(json["response_types_supported"], serde_json::json!([]));
            }
        }
        assert_eq!(
            world
                .get(&format!("{prefix}/.well-known/jwks.json"))
                .await
                .status,
            200
        );
        if !prefix.is_empty() {
            for path in ["/.well-known/jwks.json", "/oauth/token", PLAIN[0]] {
                assert_eq!(world.get(path).await.status, 404, "{path}");
            }
        }
        // The algorithms follow the keys.
        world
            .store
            .publish(snapshot([ring("b", &key(Algorithm::PS256))], []));
        let json = world.get(&format!("{prefix}{}", PLAIN[0])).await.json();
        assert_eq!(
            json["id_token_signing_alg_values_supported"],
            serde_json::json!(["PS256"])
        );
    }
}

#[tokio::test]
async fn head_unknown_paths_and_wrong_methods() {
    let world = World::serving(robot().0);
    let send = async |method: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Full::default());
        world.send(request.expect("a request")).await
    };
    for path in [
        "/.well-known/jwks.json",
        "/.well-known/openid-configuration",
    ] {
        let (head, get) = (send("HEAD", path).await, send("GET", path).await);
        assert_eq!(head.status, 200);
        assert!(head.body.is_empty());
        assert_eq!(head.header("content-length"), get.body.len().to_string());
        for method in ["POST", "DELETE", "OPTIONS"] {
            let answer = send(method, path).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("allow")),
                (405, "GET, HEAD")
            );
        }
    }
    for method in ["GET", "HEAD", "PUT", "OPTIONS"] {
        let answer = send(method, "/oauth/token").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("allow")),
            (405, "POST")
        );
    }
    for path in [
        "/",
        "/oauth",
        "/oauth/token/",
        "//oauth/token",
        "/metrics",
        "/readyz",
    ] {
        let answer = send("GET", path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json()["status"], 404);
    }
}

#[tokio::test]
async fn the_admin_port_tells_health_and_counts() {
    let (client, secret) = robot();
    let world = World::serving(client);
    let app = std::sync::Arc::clone(&world.app);
    let admin = Admin::new(
        world.readiness.clone(),
        std::sync::Arc::clone(&world.registry),
    )
    .before_scrape(move || app.refresh_gauges())
    .telling(|| "Told.".into());
    let get = async |path: &str| {
        let request = Request::get(path).body(()).expect("a request");
        let (head, body) = admin.respond(&request).into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        (
            head.status.as_u16(),
            String::from_utf8(body.to_vec()).expect("text"),
        )
    };
    assert_eq!(get("/livez").await.0, 200);
    assert_eq!(get("/readyz").await, (200, "ready\n".into()));
    world
        .readiness
        .not_ready("feed", "The TechnicalUsers are not synced.");
    let why = "feed: The TechnicalUsers are not synced.\n";
    assert_eq!(get("/readyz").await, (503, format!("{why}not ready\n")));
    assert_eq!(
        get("/readyz?verbose").await,
        (503, format!("{why}Told.\nnot ready\n"))
    );
    assert_eq!(get("/livez").await.0, 200);
    assert_eq!(get("/oauth/token").await.0, 404);
    world.token("acme.robot", &secret, "").await;
    world.token("acme.robot", &secret, "&scope=admin").await;
    let (status, text) = get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "chancery_tokens_issued_total{grant=\"client_credentials\",alg=\"ES256\"} 1",
        "chancery_token_requests_refused_total{error=\"invalid_scope\"} 1",
        "chancery_token_request_duration_seconds_count 2",
        "chancery_secret_checks_total{result=\"remembered\"} 1",
        "chancery_hash_checks_running 0",
        "chancery_hash_checks_waiting 0",
        "chancery_snapshot_age_seconds 0",
        "chancery_snapshot_generation 1",
        "chancery_secrets_remembered 1",
        "chancery_ready 0",
        "chancery_build_info{version=",
        &format!(
            "chancery_active_keys{{signing_key=\"main\",alg=\"ES256\",kid=\"{}\"}} 1",
            es256().key_id()
        ),
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert!(
        !text.contains("acme") && !text.contains(&secret[3..]),
        "{text}"
    );
}
