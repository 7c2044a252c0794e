//! Where a request comes from.

use std::net::{IpAddr, SocketAddr};

use http::{Extensions, HeaderMap, HeaderName};

use crate::domain::settings::{ForwardedHeader, ThrottleSettings};

/// The other end of the connection, as the listener puts it beside a request: only where clients
/// connect themselves, and not a proxy for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// The client's address; none where it can not be known: behind a proxy that does not tell, or
/// that the release does not trust.
pub fn of(
    headers: &HeaderMap,
    extensions: &Extensions,
    settings: &ThrottleSettings,
) -> Option<IpAddr> {
    let Some(header) = settings.forwarded_header else {
        return extensions.get::<Peer>().map(|peer| peer.0);
    };
    let name = match header {
        ForwardedHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
        ForwardedHeader::Forwarded => http::header::FORWARDED,
    };
    let proxies = usize::try_from(settings.trusted_proxies).ok()?;
    // Each proxy adds whom it speaks for at the right: what is further left than the outermost
    // trusted one's was written by anyone.
    let mut lines = headers.get_all(name).iter().rev();
    let mut before = 0;
    // As bytes: a line that is no text must not be passed over.
    let entry = lines.find_map(|line| {
        let entries = || line.as_bytes().split(|b| *b == b',');
        before += entries().count();
        (before >= proxies).then(|| entries().nth(before - proxies))?
    })?;
    let entry = std::str::from_utf8(entry).ok()?;
    match header {
        ForwardedHeader::XForwardedFor => address(entry.trim()),
        ForwardedHeader::Forwarded => entry.split(';').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let is_for = name.trim().eq_ignore_ascii_case("for");
            is_for.then(|| address(value.trim().trim_matches('"')))?
        }),
    }
}

/// An address with a port or without; of IPv6 also in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let whole = bare.unwrap_or(text).parse().ok();
    whole.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn told(header: Option<ForwardedHeader>, proxies: i32, lines: &[&str]) -> Option<String> {
        let settings = ThrottleSettings {
            forwarded_header: header,
            trusted_proxies: proxies,
            ..ThrottleSettings::default()
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = || HeaderValue::from_bytes(line.as_bytes()).expect("a value");
            headers.append("x-forwarded-for", value());
            headers.append("forwarded", value());
        }
        let mut extensions = Extensions::new();
        extensions.insert(Peer("10.0.0.1".parse().expect("an address")));
        of(&headers, &extensions, &settings).map(|a| a.to_string())
    }

    #[test]
    fn the_peer_counts_unless_the_release_trusts_a_header() {
        let told_of = |header| told(header, 1, &["192.0.2.1"]);
        assert_eq!(told_of(None).as_deref(), Some("10.0.0.1"));
        let header = Some(ForwardedHeader::XForwardedFor);
        assert_eq!(told_of(header).as_deref(), Some("192.0.2.1"));
        // Not the proxy in its place: it speaks for all.
        assert_eq!(told(header, 1, &[]), None);
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_read() {
        let header = Some(ForwardedHeader::XForwardedFor);
        for (proxies, lines, expected) in [
            (1, &["6.6.6.6, 192.0.2.1"][..], Some("192.0.2.1")),
            (2, &["6.6.6.6, 192.0.2.1, 10.0.0.2"], Some("192.0.2.1")),
            (2, &["6.6.6.6", "192.0.2.1", "10.0.0.2"], Some("192.0.2.1")),
            (2, &["6.6.6.6,192.0.2.1", "10.0.0.2"], Some("192.0.2.1")),
            (2, &["192.0.2.1"], None),
            (1, &["192.0.2.1:4711"], Some("192.0.2.1")),
            (1, &["[2001:db8::1]:4711"], Some("2001:db8::1")),
            (1, &["2001:db8::1"], Some("2001:db8::1")),
            (1, &["6.6.6.6", "\u{e9}, 192.0.2.1"], Some("192.0.2.1")),
            (1, &["6.6.6.6", "192.0.2.1\u{e9}"], None),
            (1, &["unknown"], None),
            (1, &[""], None),
            (1, &["192.0.2.1,"], None),
        ] {
            let address = told(header, proxies, lines);
            assert_eq!(address.as_deref(), expected, "{proxies} {lines:?}");
        }
    }

    #[test]
    fn the_standard_header_is_read_too() {
        let header = Some(ForwardedHeader::Forwarded);
        for (line, expected) in [
            ("for=192.0.2.1", Some("192.0.2.1")),
            (
                "for=6.6.6.6, proto=https;For=\"[2001:db8::1]:4711\";by=x",
                Some("2001:db8::1"),
            ),
            ("for=_hidden", None),
            ("proto=https", None),
        ] {
            assert_eq!(told(header, 1, &[line]).as_deref(), expected, "{line}");
        }
    }
}
