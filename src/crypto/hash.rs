//! How client secrets are stored: bcrypt.

use std::str::FromStr as _;

use bcrypt::HashParts;

use crate::domain::settings::secrets as domain;

/// The bcrypt cost of generated secrets where a release sets none: about 3 ms. They hold 256 random bits,
/// which no one guesses at any cost.
pub const GENERATED_COST: u32 = domain::GENERATED_COST;

/// The longest secret in bytes: bcrypt ignores what comes after.
pub const MAX_SECRET_LEN: usize = 72;

/// Why a secret can not be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// bcrypt would ignore its end.
    #[error(
        "the secret is longer than {MAX_SECRET_LEN} bytes, which is the most that bcrypt hashes."
    )]
    TooLong,
    /// Other implementations of bcrypt would ignore what follows.
    #[error("the secret holds a NUL character, where bcrypt may stop reading.")]
    Nul,
    /// Not between 4 and 31.
    #[error("the bcrypt cost is {0}: set it between 4 and 31.")]
    Cost(u32),
    /// The machine has no randomness for a salt.
    #[error("no random bytes can be had for the salt.")]
    Random,
}

/// The hash of a secret (`$2b$`, a new salt each time). Blocks for 3 ms at cost 5, twice that
/// for each further step.
pub fn hash(secret: &str, cost: u32) -> Result<String, HashError> {
    hashable(secret)?;
    if !(4..=31).contains(&cost) {
        return Err(HashError::Cost(cost));
    }
    // Of 72 bytes the crate leaves out the final NUL, as all implementations do, and calls that cut.
    bcrypt::hash(secret, cost).map_err(|_| HashError::Random)
}

/// Whether the secret is the one that was hashed. False for anything that is no bcrypt hash and
/// for every secret that [`hash`] refuses. Blocks as [`hash`] does.
pub fn verify(secret: &str, hash: &str) -> bool {
    hashable(secret).is_ok()
        && cost_of(hash).is_some()
        && bcrypt::verify(secret, hash).unwrap_or(false)
}

/// The cost of a bcrypt hash; none if the text is no hash.
pub fn cost_of(hash: &str) -> Option<u32> {
    // Before the crate sees it: versions of it panicked on others (RUSTSEC-2026-0199).
    if hash.len() != 60 || !hash.is_ascii() {
        return None;
    }
    let cost = HashParts::from_str(hash).ok()?.get_cost();
    (4..=31).contains(&cost).then_some(cost)
}

/// Whether hashes of this cost are of secrets that have the shape of generated ones; the others are of
/// what people supply. The settings' bounds keep the two apart, also where a release changes them.
pub fn is_of_generated(cost: u32) -> bool {
    cost <= domain::HIGHEST_GENERATED_COST
}

/// A hash of that cost, from 4 to 31, that is no secret's: comparing with it takes as long as with any
/// other of that cost.
pub fn of_nothing(cost: u32) -> String {
    format!("$2b${cost:02}${}", ".".repeat(53))
}

fn hashable(secret: &str) -> Result<(), HashError> {
    if secret.len() > MAX_SECRET_LEN {
        Err(HashError::TooLong)
    } else if secret.contains('\0') {
        Err(HashError::Nul)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_fits_its_own_hash_only() {
        let stored = hash("right", 4).expect("hashed");
        assert!(stored.starts_with("$2b$04$"));
        assert!(verify("right", &stored) && !verify("wrong", &stored));
        assert_eq!(cost_of(&stored), Some(4));
        assert_ne!(hash("right", 4).expect("hashed"), stored);
    }

    #[test]
    fn hashes_of_other_tools_are_read() {
        // From bcrypt's own test vectors (OpenBSD's $2a$, PHP's $2y$).
        let stored = "$2a$04$UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96";
        assert!(verify("password", stored));
    }

    #[test]
    fn a_hash_of_nothing_is_compared_with_like_any_other() {
        for cost in [4, 5, 12] {
            assert_eq!(cost_of(&of_nothing(cost)), Some(cost));
        }
        assert_eq!(bcrypt::verify("x", &of_nothing(4)).ok(), Some(false));
        assert!(is_of_generated(GENERATED_COST) && !is_of_generated(12));
    }

    #[test]
    fn odd_hashes_are_refused_and_never_panic() {
        let sixty = format!("$2b$04${}é", "a".repeat(51));
        assert_eq!(sixty.len(), 60);
        for odd in [
            sixty.as_str(),
            "",
            "$2b$",
            &"$".repeat(60),
            &"é".repeat(30),
            &format!("$2b$99${}", "a".repeat(53)),
        ] {
            assert!(!verify("x", odd), "{odd}");
            assert_eq!(cost_of(odd), None, "{odd}");
        }
    }

    #[test]
    fn secrets_that_bcrypt_would_cut_are_refused() {
        let long = "x".repeat(73);
        assert_eq!(hash(&long, 4), Err(HashError::TooLong));
        assert_eq!(hash("a\0b", 4), Err(HashError::Nul));
        assert_eq!(hash("a", 3), Err(HashError::Cost(3)));
        let stored = hash(&long[..72], 4).expect("72 bytes fit");
        assert!(verify(&long[..72], &stored) && !verify(&long, &stored));
        assert!(!verify(&long[..71], &stored));
        assert!(!verify("a\0b", &hash("a", 4).expect("hashed")));
    }
}
