//! A small HTTP/1.1 client, so that what the tests say on the wire is plain to see.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The head as it came, for a look at its fields.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Reads a document. An https URL needs the PEM of the certificate to trust.
pub fn get(url: &str, trust: Option<&str>) -> Result<Answer, String> {
    send(url, trust, "GET", &[], "")
}

/// Sends a form with HTTP Basic authentication.
pub fn post_form(
    url: &str,
    trust: Option<&str>,
    (user, password): (&str, &str),
    form: &str,
) -> Result<Answer, String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let basic = STANDARD.encode(format!("{user}:{password}"));
    let fields = [
        ("Authorization", format!("Basic {basic}")),
        (
            "Content-Type",
            "application/x-www-form-urlencoded".to_owned(),
        ),
    ];
    send(url, trust, "POST", &fields, form)
}

fn send(
    url: &str,
    trust: Option<&str>,
    method: &str,
    fields: &[(&str, String)],
    body: &str,
) -> Result<Answer, String> {
    let (scheme, rest) = url.split_once("://").ok_or("no URL")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\n");
    for (name, value) in fields {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!(
        "Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );

    let stream = TcpStream::connect(authority).map_err(|e| format!("{authority}: {e}"))?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .map_err(|e| e.to_string())?;
    let answer = match (scheme, trust) {
        ("http", _) => talk(stream, &request),
        ("https", Some(pem)) => talk(tls(stream, authority, pem)?, &request),
        _ => return Err(format!("{url}: http, or https with a certificate to trust")),
    }?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("half an answer: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(|| format!("no status: {head}"))?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

fn tls(
    stream: TcpStream,
    authority: &str,
    trust: &str,
) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
    let mut roots = RootCertStore::empty();
    let certificate =
        CertificateDer::from_pem_slice(trust.as_bytes()).map_err(|e| e.to_string())?;
    roots.add(certificate).map_err(|e| e.to_string())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(|e| e.to_string())?;
    Ok(StreamOwned::new(connection, stream))
}

fn talk(mut stream: impl Read + Write, request: &str) -> Result<String, String> {
    stream
        .write_all(request.as_bytes())
        .map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // The length is in the head; that TLS was not closed politely costs nothing here.
        Err(e) if e.kind() != ErrorKind::UnexpectedEof => return Err(e.to_string()),
        _ => {}
    }
    String::from_utf8(answer).map_err(|e| e.to_string())
}
