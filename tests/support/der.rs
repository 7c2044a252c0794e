//! Which bytes of a private key's DER are the secret ones.
//!
//! A private key file holds the public key as well, and that is published on purpose. A search for
//! leaks that took the whole file for secret would find a leak in every JWKS.

use std::ops::Range;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// The secret numbers of a PKCS#8, PKCS#1 or SEC 1 private key: what each is called in a JWK, and
/// where it lies. `None` if this is no such key.
pub fn private_parts(der: &[u8]) -> Option<Vec<(&'static str, Range<usize>)>> {
    parts_in(der, 0..der.len())
}

fn parts_in(der: &[u8], within: Range<usize>) -> Option<Vec<(&'static str, Range<usize>)>> {
    let outer = element(der, within)?;
    if outer.tag == OCTET_STRING {
        // RFC 8410: in PKCS#8, an Ed25519 seed is an OCTET STRING in the OCTET STRING.
        return Some(vec![("d", outer.content)]);
    }
    let fields = children(der, outer)?;
    let tags: Vec<u8> = fields.iter().map(|field| field.tag).collect();
    match tags[..] {
        // PKCS#8: version, algorithm, key.
        [INTEGER, SEQUENCE, OCTET_STRING, ..] => parts_in(der, fields[2].content.clone()),
        // SEC 1: version, scalar; then the curve and the public point.
        [INTEGER, OCTET_STRING, ..] => Some(vec![("d", fields[1].content.clone())]),
        // PKCS#1: version, n, e; then what is secret.
        [
            INTEGER,
            INTEGER,
            INTEGER,
            INTEGER,
            INTEGER,
            INTEGER,
            INTEGER,
            INTEGER,
            INTEGER,
            ..,
        ] => {
            let names = ["d", "p", "q", "dp", "dq", "qi"];
            let numbers = fields[3..]
                .iter()
                .map(|field| unpadded(der, &field.content));
            Some(names.into_iter().zip(numbers).collect())
        }
        _ => None,
    }
}

struct Element {
    tag: u8,
    content: Range<usize>,
}

fn children(der: &[u8], parent: Element) -> Option<Vec<Element>> {
    if parent.tag != SEQUENCE {
        return None;
    }
    let mut found = Vec::new();
    let mut rest = parent.content;
    while !rest.is_empty() {
        let child = element(der, rest.clone())?;
        rest.start = child.content.end;
        found.push(child);
    }
    Some(found)
}

/// The first element within a part of the DER.
fn element(der: &[u8], within: Range<usize>) -> Option<Element> {
    let bytes = der.get(within.clone())?;
    let (&tag, &first) = (bytes.first()?, bytes.get(1)?);
    let (header, length) = if first < 0x80 {
        (2, usize::from(first))
    } else {
        let count = usize::from(first & 0x7f);
        let digits = bytes
            .get(2..2 + count)
            .filter(|_| (1..=4).contains(&count))?;
        let length = digits
            .iter()
            .fold(0, |sum, &digit| sum << 8 | usize::from(digit));
        (2 + count, length)
    };
    let start = within.start + header;
    let content = start..start + length;
    (content.end <= within.end).then_some(Element { tag, content })
}

/// Without the zero byte that keeps a DER integer positive, and that a JWK leaves out.
fn unpadded(der: &[u8], number: &Range<usize>) -> Range<usize> {
    let zeros = der[number.clone()].iter().take_while(|&&byte| byte == 0);
    number.start + zeros.count()..number.end
}
