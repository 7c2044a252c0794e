//! PKCS#8 private keys as PEM (RFC 7468 §10).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// Far above any key that we accept; bounds the work that a crafted document makes.
pub const MAX_LEN: usize = 32 * 1024;

/// The content of a document that is one PEM block of PKCS#8 and white space around it.
pub fn decode(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    if pem.len() > MAX_LEN {
        return None;
    }
    let body = pem.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let mut text = Zeroizing::new(Vec::with_capacity(body.len()));
    text.extend(body.bytes().filter(|b| !b.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; text.len() / 4 * 3 + 3]);
    let len = STANDARD.decode_slice(text.as_slice(), &mut der).ok()?;
    der.truncate(len);
    Some(der)
}

/// A PEM block of PKCS#8 with this content.
pub fn encode(der: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(vec![0; der.len() / 3 * 4 + 4]);
    let len = STANDARD
        .encode_slice(der, &mut text)
        .expect("the buffer is long enough");
    // Of full capacity from the start, so that no copy is left behind by growing.
    let mut pem = Zeroizing::new(String::with_capacity(len + len / 64 + 64));
    pem.push_str(BEGIN);
    pem.push('\n');
    for line in text[..len].chunks(64) {
        pem.extend(line.iter().map(|b| char::from(*b)));
        pem.push('\n');
    }
    pem.push_str(END);
    pem.push('\n');
    pem
}
