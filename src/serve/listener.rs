//! Where plain HTTP is allowed.

use std::net::SocketAddr;

/// Whether no other machine reaches that address.
pub fn is_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

/// Whether the server may listen there. Secrets and tokens cross the wire in the clear without
/// TLS, so that is for loopback alone, or for when a proxy in front terminates TLS.
///
/// # Errors
/// A sentence that says what to do.
pub fn check(listen: SocketAddr, tls: bool, behind_proxy: bool) -> Result<(), String> {
    if tls || behind_proxy || is_loopback(listen) {
        return Ok(());
    }
    Err(format!(
        "{listen} is reachable from other machines, and without TLS client secrets would cross \
         the network in the clear: give a certificate with --tls-cert and --tls-key, say \
         --behind-proxy if a proxy terminates TLS, or listen on 127.0.0.1."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_needs_loopback_or_a_proxy() {
        for (listen, tls, proxy, allowed) in [
            ("127.0.0.1:8080", false, false, true),
            ("127.8.0.1:8080", false, false, true),
            ("[::1]:8080", false, false, true),
            ("[::ffff:127.0.0.1]:8080", false, false, true),
            ("0.0.0.0:8080", false, false, false),
            ("[::]:8080", false, false, false),
            ("10.0.0.1:8080", false, false, false),
            ("0.0.0.0:8443", true, false, true),
            ("0.0.0.0:8080", false, true, true),
        ] {
            let listen = listen.parse().expect("an address");
            assert_eq!(
                check(listen, tls, proxy).is_ok(),
                allowed,
                "{listen} {tls} {proxy}"
            );
        }
    }
}
