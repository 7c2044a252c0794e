//! As much DER as it takes to find modulus and exponent in an RSA public key, and to tell what
//! kind of private key a document holds.

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// `n` and `e` of an `RSAPublicKey` (RFC 8017 §A.1.1), big-endian without leading zeros.
pub fn rsa_public_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, rest) = element(SEQUENCE, der)?;
    let (n, more) = element(INTEGER, sequence)?;
    let (e, end) = element(INTEGER, more)?;
    (rest.is_empty() && end.is_empty()).then_some((unsigned(n)?, unsigned(e)?))
}

/// A private key in its wrapping (RFC 5958: PKCS#8 v1 and v2).
pub struct Wrapped<'a> {
    /// What kind of key it is: the content of the algorithm's OID.
    pub kind: &'a [u8],
    /// The algorithm's parameters, with tag and length: for EC keys the curve.
    pub parameters: &'a [u8],
    /// The key in the form of its kind.
    pub key: &'a [u8],
    /// The public half, which v2 may name.
    pub public: Option<&'a [u8]>,
}

/// What a PKCS#8 document holds.
pub fn wrapped(der: &[u8]) -> Option<Wrapped<'_>> {
    let (document, _) = element(SEQUENCE, der)?;
    let (version, rest) = element(INTEGER, document)?;
    let (algorithm, rest) = element(SEQUENCE, rest)?;
    let (key, rest) = element(OCTETS, rest)?;
    let (kind, parameters) = element(OID, algorithm)?;
    // Attributes may stand between, which say nothing of the key.
    let rest = element(0xa0, rest).map_or(rest, |(_, rest)| rest);
    let public = match (version, element(0x81, rest)) {
        ([1], Some((bits, _))) => bits.strip_prefix(&[0]),
        ([0 | 1], None) => None,
        _ => return None,
    };
    Some(Wrapped {
        kind,
        parameters,
        key,
        public,
    })
}

/// How many octets the number of an `ECPrivateKey` (RFC 5915) has, and its curve, with tag and
/// length, where it names one.
pub fn ec_private_key(der: &[u8]) -> Option<(usize, Option<&[u8]>)> {
    let (document, _) = element(SEQUENCE, der)?;
    let (_, rest) = element(INTEGER, document)?;
    let (number, rest) = element(OCTETS, rest)?;
    Some((number.len(), element(0xa0, rest).map(|(curve, _)| curve)))
}

/// How many bits the modulus of an `RSAPrivateKey` (RFC 8017 §A.1.2) has.
pub fn rsa_private_key_bits(der: &[u8]) -> Option<usize> {
    let (document, _) = element(SEQUENCE, der)?;
    let (_, rest) = element(INTEGER, document)?;
    let modulus = unsigned(element(INTEGER, rest)?.0)?;
    Some(modulus.len() * 8 - modulus[0].leading_zeros() as usize)
}

/// The content of an OID that is the whole of this.
pub fn oid(der: &[u8]) -> Option<&[u8]> {
    element(OID, der).and_then(|(oid, rest)| rest.is_empty().then_some(oid))
}

/// Whether this is one `SEQUENCE` and nothing else, as every key in DER is.
pub fn is_sequence(der: &[u8]) -> bool {
    element(SEQUENCE, der).is_some_and(|(_, rest)| rest.is_empty())
}

/// The content of the element with that tag at the front, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, der) = der.split_first()?;
    let (&first, der) = der.split_first()?;
    let (len, der) = if first < 0x80 {
        (usize::from(first), der)
    } else {
        let (digits, der) = der.split_at_checked(usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 2 {
            return None;
        }
        (
            digits.iter().fold(0, |len, d| len << 8 | usize::from(*d)),
            der,
        )
    };
    (found == tag).then_some(der.split_at_checked(len)?)
}

fn unsigned(integer: &[u8]) -> Option<&[u8]> {
    match integer {
        [0, rest @ ..] if !rest.is_empty() => Some(rest),
        [first, ..] if *first < 0x80 && *first > 0 => Some(integer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_key_and_refuses_the_rest() {
        let key = [0x30, 9, 2, 2, 0, 0x91, 2, 3, 1, 0, 1];
        assert_eq!(rsa_public_key(&key), Some((&[0x91][..], &[1, 0, 1][..])));
        for end in 0..key.len() {
            assert_eq!(rsa_public_key(&key[..end]), None);
        }
        assert_eq!(rsa_public_key(&[0x30, 0x80]), None);
        assert_eq!(rsa_public_key(&[0x30, 0x83, 1, 1, 1]), None);
    }
}
