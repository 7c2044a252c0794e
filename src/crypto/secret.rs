//! Client secrets that we generate.
//!
//! A secret is `<prefix><43 random base62 characters><6 base62 characters of checksum>`: the
//! family's prefix (`sk-`, `dk-` or `ak-`), 256 random bits, and the CRC-32 of all that precedes it, so that a
//! scanner tells a leaked secret from a look-alike and a typing mistake costs no hash. It needs
//! no encoding in a form, a URL or a Basic header. For scanners: [`PATTERN`].

use zeroize::Zeroizing;

use super::random;
use crate::domain::client::Family;

/// The regular expression that every generated secret matches.
pub const PATTERN: &str = r"\b[sda]k-[0-9A-Za-z]{49}\b";

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 43 × log2(62) = 256.03 bits.
const RANDOM_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;

/// A new secret of 256 random bits.
pub fn generate(family: Family) -> Zeroizing<String> {
    let prefix = family.secret_prefix();
    // Of full capacity from the start, so that no copy is left behind by growing.
    let mut secret = Zeroizing::new(String::with_capacity(
        prefix.len() + RANDOM_CHARS + CHECKSUM_CHARS,
    ));
    secret.push_str(prefix);
    while secret.len() < prefix.len() + RANDOM_CHARS {
        let bytes = Zeroizing::new(random::bytes::<64>());
        for byte in bytes.iter() {
            // 248 = 4 × 62: what is beyond would make some characters likelier than others.
            if *byte < 248 && secret.len() < prefix.len() + RANDOM_CHARS {
                secret.push(char::from(BASE62[usize::from(byte % 62)]));
            }
        }
    }
    let checksum = checksum(secret.as_bytes());
    secret.extend(checksum.iter().map(|b| char::from(*b)));
    secret
}

/// The family whose generated secrets look like this one: prefix, characters and checksum are
/// right. Says nothing about whether it is anyone's secret. The work depends on nothing but the
/// text itself.
pub fn shape(secret: &str) -> Option<Family> {
    let family = Family::ALL
        .into_iter()
        .find(|f| secret.starts_with(f.secret_prefix()))?;
    let (body, sum) = secret.as_bytes().split_last_chunk::<CHECKSUM_CHARS>()?;
    let random = body.strip_prefix(family.secret_prefix().as_bytes())?;
    let sound = random.len() == RANDOM_CHARS
        && random.iter().all(u8::is_ascii_alphanumeric)
        && checksum(body) == *sum;
    sound.then_some(family)
}

fn checksum(text: &[u8]) -> [u8; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(text);
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_generated_has_the_shape() {
        for family in Family::ALL {
            let secret = generate(family);
            assert_eq!(shape(&secret), Some(family));
            assert_eq!(secret.len(), 52);
            assert_ne!(*secret, *generate(family));
        }
    }

    #[test]
    fn one_changed_character_spoils_it() {
        let secret = generate(Family::Integration);
        for at in 0..secret.len() {
            let mut spoilt = secret.as_bytes().to_vec();
            spoilt[at] = if spoilt[at] == b'x' { b'y' } else { b'x' };
            let spoilt = String::from_utf8(spoilt).expect("still text");
            assert_eq!(shape(&spoilt), None, "position {at}");
        }
        for odd in [
            "",
            "sk-",
            "sk-12",
            &secret[..51],
            &format!("{}0", *secret),
            "sk-é",
            "ключ",
        ] {
            assert_eq!(shape(odd), None, "{odd}");
        }
    }
}
