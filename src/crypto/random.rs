//! Random bytes and ids from the operating system's generator.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// So many random bytes.
///
/// # Panics
/// If the machine has no randomness to give: nothing that this program does is safe then.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the machine gives random bytes");
    bytes
}

/// A number from 0 to 1, in 256 steps: for waits that are to differ.
pub fn fraction() -> f64 {
    f64::from(bytes::<1>()[0]) / 255.0
}

/// An id of 128 random bits, base64url: 22 characters. For `jti` and credential ids.
pub fn random_id() -> String {
    URL_SAFE_NO_PAD.encode(bytes::<16>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_url_safe_and_differ() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| random_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|i| {
            i.len() == 22
                && i.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        }));
    }
}
