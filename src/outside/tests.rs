//! Against a server on loopback that answers whatever a test wants.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::crypto::key_pair::KeyPair;
use crate::domain::algorithm::{Algorithm, RsaKeySize};

/// What to answer for a path.
type Answers = dyn Fn(&str, &str) -> Vec<u8> + Send + Sync;

/// Serves until the test ends; gives where.
async fn server(answers: impl Fn(&str, &str) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let base = format!("http://{address}");
    let answers: Arc<Answers> = Arc::new(answers);
    let own = base.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answers, own) = (answers.clone(), own.clone());
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let mut buffer = [0; 1024];
                    match stream.read(&mut buffer).await {
                        Ok(read) if read > 0 => asked.extend_from_slice(&buffer[..read]),
                        _ => return,
                    }
                }
                let asked = String::from_utf8_lossy(&asked).into_owned();
                let path = asked.split(' ').nth(1).unwrap_or_default();
                let _ = stream.write_all(&answers(&own, path)).await;
                if path.contains("hangs") || asked.contains("/hangs/") {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    base
}

fn json(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\ncache-control: max-age=60\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn metadata(own: &str) -> Vec<u8> {
    json(&format!(r#"{{"issuer":"{own}","jwks_uri":"{own}/jwks"}}"#))
}

fn jwks() -> String {
    let pem = KeyPair::generate_pem(Algorithm::ES256, RsaKeySize::Bits2048).expect("a key");
    let pair = KeyPair::from_pem(Algorithm::ES256, &pem).expect("a pair");
    serde_json::json!({"keys": [pair.public_jwk()]}).to_string()
}

fn source(base: &str) -> Source {
    Source {
        well_known_uri: format!("{base}/.well-known/openid-configuration"),
        issuers: vec![base.to_owned()],
        require_https: false,
        ca_bundle: None,
    }
}

fn loopback() -> Vec<Cidr> {
    vec!["127.0.0.0/8".parse().expect("a range")]
}

async fn ask(source: &Source) -> Result<Fetched, Fault> {
    let limits = Limits {
        time: Duration::from_millis(500),
        body: 4096,
    };
    fetch(source, &loopback(), limits).await
}

#[tokio::test]
async fn a_sound_provider_gives_its_keys() {
    let keys = jwks();
    let base = server(move |own, path| match path {
        "/jwks" => json(&keys),
        _ => metadata(own),
    })
    .await;
    let fetched = ask(&source(&base)).await.expect("fetched");
    assert_eq!((&fetched.issuer, fetched.keys.len()), (&base, 1));
    assert_eq!(fetched.jwks_uri, format!("{base}/jwks"));
    assert_eq!(fetched.max_age, Some(Duration::from_mins(1)));
    let other = Source {
        issuers: vec!["https://other.example".into()],
        ..source(&base)
    };
    assert!(matches!(ask(&other).await, Err(Fault::Issuer(_))));
    // Nobody has allowed it, or http.
    let forbidden = fetch(&source(&base), &[], Limits::default()).await;
    let why = forbidden.expect_err("refused").to_string();
    assert!(
        why.contains("a loopback address") && !why.contains("127.0.0.1"),
        "{why}"
    );
    let strict = Source {
        require_https: true,
        ..source(&base)
    };
    assert!(matches!(ask(&strict).await, Err(Fault::Refused(_))));
}

#[tokio::test]
async fn what_a_bad_provider_does_is_refused_in_bounded_time() {
    let key = jwks();
    let private = key.replacen("\"kty\"", "\"d\":\"AQ\",\"kty\"", 1);
    let head = |status: &str, more: &str| {
        format!("HTTP/1.1 {status}\r\n{more}content-length: 2\r\n\r\n{{}}").into_bytes()
    };
    let redirect = head("302 Found", "location: https://elsewhere.example/\r\n");
    let html = head("200 OK", "content-type: text/html\r\n");
    let zipped = head(
        "200 OK",
        "content-type: application/json\r\ncontent-encoding: gzip\r\n",
    );
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(100_000)).into_bytes();
    let short = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{}"
        .to_vec();
    let huge = json(&format!("{{\"keys\":[{}]}}", "1,".repeat(4096)));
    let lying = {
        // Chunks without an end, so that no length warns.
        let mut all = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        all.extend(
            b"400\r\n"
                .iter()
                .chain(&[b' '; 1024])
                .chain(b"\r\n")
                .copied()
                .collect::<Vec<_>>()
                .repeat(8),
        );
        all
    };
    let elsewhere = |own: &str| {
        json(&format!(
            r#"{{"issuer":"{own}","jwks_uri":"http://169.254.169.254/jwks"}}"#
        ))
    };
    let cases: [(&str, Vec<u8>, bool); 13] = [
        ("redirect", redirect, true),
        ("html", html, true),
        ("zipped", zipped, true),
        ("endless", endless, false),
        ("short", short, false),
        ("huge", huge, true),
        ("lying", lying, true),
        ("empty", json(r#"{"keys":[]}"#), true),
        ("broken", json("{"), true),
        ("private", json(&private), true),
        ("missing", head("404 Not Found", ""), true),
        ("busy", head("503 Service Unavailable", ""), false),
        ("hangs", Vec::new(), false),
    ];
    for (name, answer, refused) in cases {
        let base = server(move |own, path| match path {
            "/jwks" | "/hangs" => answer.clone(),
            _ if name == "hangs" => {
                json(&format!(r#"{{"issuer":"{own}","jwks_uri":"{own}/hangs"}}"#))
            }
            _ => metadata(own),
        })
        .await;
        let fault = ask(&source(&base)).await.expect_err(name);
        assert_eq!(
            matches!(fault, Fault::Refused(_)),
            refused,
            "{name}: {fault:?}"
        );
    }
    let base = server(move |own, _| elsewhere(own)).await;
    let fault = ask(&source(&base)).await.expect_err("metadata");
    assert!(
        fault.to_string().contains("the cloud's metadata"),
        "{fault}"
    );
    let nobody = source("http://127.0.0.1:1");
    assert!(matches!(ask(&nobody).await, Err(Fault::Unreachable(_))));
}

#[tokio::test]
async fn a_certificate_must_be_of_a_given_authority() {
    let pair =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let pem = pair.cert.pem();
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der())
        .expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .expect("a server");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let base = format!("https://localhost:{port}");
    let (own, keys) = (base.clone(), jwks());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut asked = vec![0; 4096];
            let read = stream.read(&mut asked).await.unwrap_or_default();
            let jwks = asked[..read].starts_with(b"GET /jwks ");
            let answer = if jwks { json(&keys) } else { metadata(&own) };
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    let of = |ca_bundle: Option<String>| Source {
        require_https: true,
        ca_bundle,
        ..source(&base)
    };
    let allowed: Vec<Cidr> = ["127.0.0.0/8", "::1"]
        .iter()
        .map(|r| r.parse().expect("a range"))
        .collect();
    let limits = Limits::default();
    let fetched = fetch(&of(Some(pem)), &allowed, limits)
        .await
        .expect("fetched");
    assert_eq!(fetched.issuer, base);
    let other =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    for ca_bundle in [Some(other.cert.pem()), None] {
        let fault = fetch(&of(ca_bundle), &allowed, limits)
            .await
            .expect_err("not believed");
        assert!(fault.to_string().contains("its metadata"), "{fault}");
    }
    let none = fetch(&of(Some("no certificate".into())), &allowed, limits).await;
    assert!(matches!(none, Err(Fault::Refused(_))));
}
