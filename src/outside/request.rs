//! One GET of a JSON document, with all that bounds it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::{Fault, roots};
use crate::domain::address::{self, Cidr};

/// How much of a head is read, in bytes.
const MOST_HEAD: usize = 64 * 1024;
/// The most headers of an answer.
const MOST_HEADERS: usize = 100;

/// What a request may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest that it may take, from the name's resolution to the end of the answer.
    pub time: Duration,
    /// The longest document, in bytes.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(10),
            body: 1024 * 1024,
        }
    }
}

/// What to get, and how.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Where it is.
    pub uri: &'a str,
    /// Whether http is refused.
    pub require_https: bool,
    /// Whose certificates are believed (PEM); none: those of the system.
    pub ca_bundle: Option<&'a str>,
    /// Addresses that are allowed although they are not public.
    pub allowed: &'a [Cidr],
    /// What it may cost.
    pub limits: Limits,
}

/// A document.
#[derive(Debug)]
pub struct Answer {
    /// It.
    pub body: Bytes,
    /// How long it is good; none: it does not say.
    pub max_age: Option<Duration>,
}

/// Gets a document.
pub async fn get(request: Request<'_>) -> Result<Answer, Fault> {
    let limit = request.limits.time;
    let got = tokio::time::timeout(limit, within(request)).await;
    got.unwrap_or_else(|_| {
        Err(Fault::Unreachable(format!(
            "there was no whole answer within {} s",
            limit.as_secs_f64()
        )))
    })
}

async fn within(request: Request<'_>) -> Result<Answer, Fault> {
    let target = Target::parse(request.uri, request.require_https)?;
    let stream = connect(&target, request.allowed).await?;
    if !target.tls {
        return exchange(stream, &target, request.limits.body).await;
    }
    let name = ServerName::try_from(target.host.clone());
    let name =
        name.map_err(|_| Fault::Refused("its host is no name that a certificate can have".into()))?;
    let connector = TlsConnector::from(roots::config(request.ca_bundle).await?);
    let stream = connector.connect(name, stream).await;
    let stream = stream.map_err(|why| Fault::Unreachable(format!("no TLS with it: {why}")))?;
    exchange(stream, &target, request.limits.body).await
}

/// A URL, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// As it stands in the URL.
    authority: String,
    path: String,
}

impl Target {
    fn parse(text: &str, require_https: bool) -> Result<Self, Fault> {
        let refused = |why: &str| Fault::Refused(format!("its URL {why}"));
        if text.len() > 2048 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(refused(
                "is longer than 2048 bytes, or no visible ASCII text",
            ));
        }
        if text.contains('#') {
            return Err(refused("has a fragment"));
        }
        let uri: Uri = text.parse().map_err(|_| refused("is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if !require_https => false,
            Some("http") => {
                return Err(refused(
                    "is http, where anyone on the way could put keys of their own into the answer, and spec.requireHttps is true",
                ));
            }
            _ => return Err(refused("is neither https nor http")),
        };
        let authority = uri.authority().ok_or_else(|| refused("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused("has a user in it"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if host.is_empty() {
            return Err(refused("has no host"));
        }
        let port = match &authority.as_str()[authority.host().len()..] {
            "" if tls => 443,
            "" => 80,
            port => {
                let port = port
                    .strip_prefix(':')
                    .and_then(|digits| digits.parse().ok());
                port.filter(|port| *port > 0)
                    .ok_or_else(|| refused("has no port behind its colon"))?
            }
        };
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        })
    }
}

/// Connects to an address that may be connected to: the very one that was judged, so that a name which
/// resolves to another one a moment later (DNS rebinding) leads nowhere.
async fn connect(target: &Target, allowed: &[Cidr]) -> Result<TcpStream, Fault> {
    let addresses: Vec<SocketAddr> = if let Ok(address) = target.host.parse::<IpAddr>() {
        vec![SocketAddr::new(address, target.port)]
    } else {
        let found = lookup_host((target.host.as_str(), target.port)).await;
        let unresolved = "its host's name can not be resolved";
        found
            .map_err(|_| Fault::Unreachable(unresolved.into()))?
            .collect()
    };
    let mut why = Fault::Unreachable("its host's name has no address".into());
    // A provider may have several; a few of them are enough.
    for address in addresses.into_iter().take(4) {
        if let Err(what) = address::judge(address.ip(), allowed) {
            why = Fault::Refused(format!(
                "its host is at {what}, which no request goes to unless the release allows it (providers.allowedAddresses)"
            ));
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                why = Fault::Unreachable(format!("no connection to its host: {}", error.kind()));
            }
        }
    }
    Err(why)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    target: &Target,
    most: usize,
) -> Result<Answer, Fault> {
    let unreachable = |why: hyper::Error| Fault::Unreachable(format!("HTTP with it failed: {why}"));
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MOST_HEAD)
        .max_headers(MOST_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(unreachable)?;
    let request = http::Request::get(target.path.as_str())
        .header(HOST, target.authority.as_str())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, "chancery")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Fault::Refused("its URL is no URL".into()))?;
    let asked = async {
        let response = sender.send_request(request).await.map_err(unreachable)?;
        let (head, body) = response.into_parts();
        judge(head.status, &head.headers)?;
        let body = Limited::new(body, most).collect().await.map_err(|why| {
            if why.is::<http_body_util::LengthLimitError>() {
                Fault::Refused(format!("its answer is longer than {most} bytes"))
            } else {
                Fault::Unreachable(format!("its answer broke off: {why}"))
            }
        })?;
        Ok(Answer {
            body: body.to_bytes(),
            max_age: max_age(&head.headers),
        })
    };
    tokio::pin!(asked, connection);
    // The connection has to be driven, and ends with the answer.
    tokio::select! {
        answer = &mut asked => answer,
        ended = &mut connection => match ended {
            // What it has read may be a whole answer.
            Ok(()) => asked.await,
            Err(why) => Err(unreachable(why)),
        },
    }
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Result<(), Fault> {
    if status.is_redirection() {
        return Err(Fault::Refused(format!(
            "it answers {} and wants to send the request elsewhere, which is not followed: name the place itself",
            status.as_u16()
        )));
    }
    if status != StatusCode::OK {
        let why = format!("it answers {}", status.as_u16());
        // What is overloaded, or on its way, may be well soon.
        return Err(
            if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                Fault::Unreachable(why)
            } else {
                Fault::Refused(why)
            },
        );
    }
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    let media = text(CONTENT_TYPE).unwrap_or_default();
    let media = media
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let json = media == "application/json"
        || (media.starts_with("application/") && media.ends_with("+json"));
    if !json {
        return Err(Fault::Refused(
            "its answer is not of type application/json".into(),
        ));
    }
    if text(CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Fault::Refused(
            "its answer is compressed, which was not asked for".into(),
        ));
    }
    Ok(())
}

/// How long an answer is good (RFC 9111 §5.2.2); none: it does not say.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    let directives = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    let ages = directives.filter_map(|directive| {
        let directive = directive.trim().to_ascii_lowercase();
        if directive == "no-store" || directive == "no-cache" {
            return Some(0);
        }
        let seconds = directive.strip_prefix("max-age=")?.trim_matches('"');
        // What is longer than any number is long.
        let digits = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| seconds.parse().unwrap_or(u32::MAX))
    });
    ages.min()
        .map(|seconds| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_strictly() {
        let parse = |text: &str| Target::parse(text, false);
        let target = parse("https://login.example.com/a/.well-known/x?y=1").expect("a URL");
        assert_eq!(
            (target.tls, &*target.host, target.port),
            (true, "login.example.com", 443)
        );
        assert_eq!(target.path, "/a/.well-known/x?y=1");
        let target = parse("http://[::1]:8080/x").expect("a URL");
        assert_eq!(
            (target.tls, &*target.host, target.port),
            (false, "::1", 8080)
        );
        assert_eq!(target.authority, "[::1]:8080");
        assert_eq!(parse("http://a/").expect("a URL").port, 80);
        for odd in [
            "",
            "login.example.com",
            "/x",
            "ftp://a/x",
            "file:///etc/passwd",
            "https:///x",
            "https://u@a/x",
            "https://u:p@a/x",
            "https://a/x#y",
            "https://a b/x",
            "https://a:/x",
            "https://a:99999/x",
            "https://ä/x",
            "gopher://a",
            "https://a/\n",
        ] {
            assert!(matches!(parse(odd), Err(Fault::Refused(_))), "{odd:?}");
        }
        assert!(matches!(
            Target::parse("http://a/x", true),
            Err(Fault::Refused(_))
        ));
        assert!(Target::parse("https://a/x", true).is_ok());
    }

    #[test]
    fn how_long_an_answer_is_good() {
        let of = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CACHE_CONTROL, line.parse().expect("a header"));
            }
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["public"]), None);
        assert_eq!(of(&["public, max-age=300"]), Some(300));
        assert_eq!(of(&["Max-Age=\"300\"", "max-age=20"]), Some(20));
        assert_eq!(of(&["max-age=300, no-store"]), Some(0));
        assert_eq!(of(&["no-cache"]), Some(0));
        assert_eq!(of(&["max-age=-1"]), None);
        assert_eq!(of(&["max-age=99999999999999"]), Some(u32::MAX.into()));
        assert_eq!(of(&["s-maxage=1, max-age=x"]), None);
    }
}
