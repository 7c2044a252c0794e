//! TLS: what is negotiated, and certificates that change.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chancery::serve::tls::Tls;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::listening::{read_answer, request, start};
use crate::support::*;

/// Writes a new self-signed pair and gives the certificate.
fn new_pair(certificate: &Path, key: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(certificate, made.cert.pem()).expect("written");
    std::fs::write(key, made.signing_key.serialize_pem()).expect("written");
    CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("PEM")
}

struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> Self {
        let name = format!("chancery-{}", chancery::crypto::random::random_id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("made");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn connector(
    trusted: &CertificateDer<'static>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn tokens_over_tls_and_a_certificate_that_changes() {
    let directory = Directory::new();
    let (certificate, key) = (directory.0.join("tls.crt"), directory.0.join("tls.key"));
    let first = new_pair(&certificate, &key);
    let tls = Tls::load(&certificate, &key).expect("loaded");
    let (client, secret) = robot();
    let world = World::serving(client);
    let running = start(&world, Some(Arc::clone(&tls)), Duration::ZERO).await;
    let connect = async |connector: TlsConnector| {
        let stream = TcpStream::connect(running.public).await.expect("connected");
        connector
            .connect("localhost".try_into().expect("a name"), stream)
            .await
    };
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let connector = connector(&first, &[version], &[b"http/1.1"]);
        let mut stream = connect(connector).await.expect("a handshake");
        stream
            .write_all(request(&secret).as_bytes())
            .await
            .expect("sent");
        assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    let both: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let stream = connect(connector(&first, rustls::ALL_VERSIONS, &both))
        .await
        .expect("shaken");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    let jwks = http::Request::get("https://localhost/.well-known/jwks.json")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .expect("a request");
    assert_eq!(
        sender.send_request(jwks).await.expect("answered").status(),
        200
    );

    // Nothing new, then half a change, then the other half.
    assert_eq!(tls.reload(), Ok(false));
    let second = new_pair(&certificate, &directory.0.join("other.key"));
    let why = tls.reload().expect_err("the key is still the old one");
    assert!(why.contains("tls.crt") && why.ends_with('.'), "{why}");
    assert_eq!(tls.reload(), Ok(false), "said once");
    connect(connector(&first, rustls::ALL_VERSIONS, &[]))
        .await
        .expect("the old one serves");
    std::fs::rename(directory.0.join("other.key"), &key).expect("renamed");
    assert_eq!(tls.reload(), Ok(true));
    connect(connector(&second, rustls::ALL_VERSIONS, &[]))
        .await
        .expect("the new one serves");
    connect(connector(&first, rustls::ALL_VERSIONS, &[]))
        .await
        .expect_err("the old one is gone");
    // Unreadable files change nothing.
    std::fs::remove_file(&key).expect("removed");
    tls.reload().expect_err("no key");
    std::fs::write(&key, "nonsense").expect("written");
    tls.reload().expect_err("no key");
    connect(connector(&second, rustls::ALL_VERSIONS, &[]))
        .await
        .expect("still serves");
    running.ended.abort();
}

#[test]
fn what_can_not_serve_is_refused_with_a_sentence() {
    let directory = Directory::new();
    let (certificate, key) = (directory.0.join("tls.crt"), directory.0.join("tls.key"));
    let refused = || Tls::load(&certificate, &key).expect_err("refused");
    assert!(refused().contains("tls.crt can not be read"));
    new_pair(&certificate, &key);
    std::fs::write(&certificate, "").expect("written");
    assert!(refused().contains("holds no certificate"));
    new_pair(&certificate, &directory.0.join("other"));
    assert!(refused().contains("do not serve together"));
}
