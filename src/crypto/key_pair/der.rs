//! As much DER as it takes to find modulus and exponent in an RSA public key.

/// `n` and `e` of an `RSAPublicKey` (RFC 8017 §A.1.1), big-endian without leading zeros.
pub fn rsa_public_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, rest) = element(0x30, der)?;
    let (n, more) = element(0x02, sequence)?;
    let (e, end) = element(0x02, more)?;
    (rest.is_empty() && end.is_empty()).then_some((unsigned(n)?, unsigned(e)?))
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
