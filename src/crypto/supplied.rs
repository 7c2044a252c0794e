//! Client secrets that people supply: what is taken for one, and what is not.
//!
//! A person chooses them, so that there is a least length, and a bcrypt cost that a guesser of a stolen
//! hash has to pay. One that has the shape of a generated secret is treated as one: what a check costs
//! follows from the shape of what is presented.

use super::hash::{self, MAX_SECRET_LEN};
use super::secret;
use crate::domain::settings::SecretSettings;

/// The shortest client secret that a person may supply, in characters.
pub const MIN_SECRET_LEN: usize = 16;

/// What is wrong with a supplied client secret, as the rest of a sentence that begins with where it
/// stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing is there.
    #[error("is empty: put the client secret there.")]
    Empty,
    /// A line break follows.
    #[error(
        "ends with a line break, as echo and many editors write it: write it without one, as printf %s and kubectl create secret generic --from-literal do."
    )]
    LineBreak,
    /// Neither client nor server could tell whether a space belongs to it.
    #[error("begins or ends with a space: take it away.")]
    Space,
    /// RFC 6749 appendix A.2.
    #[error(
        "holds a NUL, a line break or another character that is no printable ASCII, and a client secret may have none (RFC 6749 appendix A.2): use letters, digits and punctuation."
    )]
    Character,
    /// It is guessed, whatever its hash costs.
    #[error(
        "has {0} characters, and a client secret has at least {MIN_SECRET_LEN}, as a short one is guessed whatever its hash costs: generate one, by openssl rand -hex 32, say."
    )]
    TooShort(usize),
    /// bcrypt would ignore its end.
    #[error(
        "has {0} bytes, and of more than {MAX_SECRET_LEN} bcrypt, by which it is stored, ignores the rest: use a shorter one; 32 random bytes in hex have 64."
    )]
    TooLong(usize),
    /// Whoever reads the hash would have the secret.
    #[error(
        "is a bcrypt hash, and format is Plain, so that whoever reads the hash could use it as the client secret: set format to BcryptHash."
    )]
    Hashed,
    /// It is something else.
    #[error(
        "is no bcrypt hash, which has 60 characters and begins with $2b$, $2y$ or $2a$: put the hash of the client secret there, of cost {0}, or set format to Plain."
    )]
    NoHash(u32),
    /// Of a version with a known fault, or of none that is known.
    #[error(
        "is a bcrypt hash of version {0}, which differs between implementations: make one of version 2b, 2y or 2a."
    )]
    Version(String),
    /// The time of a refusal would tell whose it is.
    #[error(
        "is a bcrypt hash of cost {is}, and this release wants {wanted} (secrets.suppliedCost), as a lower one is guessed sooner and any other would show in how long a refusal takes: hash the client secret with cost {wanted}."
    )]
    Cost {
        /// What it is.
        is: u32,
        /// What it has to be.
        wanted: u32,
    },
}

/// The client secret that stands there as it is.
pub fn plain(bytes: &[u8]) -> Result<&str, Fault> {
    let text = text(bytes)?;
    if text.len() > MAX_SECRET_LEN {
        return Err(Fault::TooLong(text.len()));
    }
    if hash::cost_of(text).is_some() {
        return Err(Fault::Hashed);
    }
    if text.len() < MIN_SECRET_LEN {
        return Err(Fault::TooShort(text.len()));
    }
    Ok(text)
}

/// The bcrypt hash that stands there.
pub fn hashed(bytes: &[u8], settings: SecretSettings) -> Result<&str, Fault> {
    let wanted = settings.supplied_cost;
    let text = text(bytes)?;
    let is = hash::cost_of(text).ok_or(Fault::NoHash(wanted))?;
    let version = &text[1..3];
    if !["2a", "2b", "2y"].contains(&version) {
        return Err(Fault::Version(version.to_owned()));
    }
    if is != wanted {
        return Err(Fault::Cost { is, wanted });
    }
    Ok(text)
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    match bytes {
        [] => return Err(Fault::Empty),
        [.., b'\n' | b'\r'] => return Err(Fault::LineBreak),
        [b' ', ..] | [.., b' '] => return Err(Fault::Space),
        _ => {}
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::Character)?;
    let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
    printable.then_some(text).ok_or(Fault::Character)
}

/// The bcrypt cost of a supplied secret.
pub fn cost(plain: &str, settings: SecretSettings) -> u32 {
    match secret::shape(plain) {
        Some(_) => settings.generated_cost,
        None => settings.supplied_cost,
    }
}

/// Whether what a client presents could be a secret that a person has supplied: the work depends on
/// nothing but the text itself.
pub fn shape(presented: &str) -> bool {
    secret::shape(presented).is_none() && plain(presented.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::client::Family;

    const SETTINGS: SecretSettings = SecretSettings {
        generated_cost: 5,
        supplied_cost: 12,
    };

    #[test]
    fn what_is_no_client_secret_is_told_apart() {
        let hash = hash::of_nothing(12);
        for (bytes, fault) in [
            (&b""[..], Fault::Empty),
            (b"correct horse battery\n", Fault::LineBreak),
            (b"correct horse battery\r\n", Fault::LineBreak),
            (b"correct horse battery ", Fault::Space),
            (b"correct\0horse battery", Fault::Character),
            (b"correct\nhorse battery", Fault::Character),
            ("correct hörse battery".as_bytes(), Fault::Character),
            (b"\xff\xfe correct horse", Fault::Character),
            (&[b'x'; 15], Fault::TooShort(15)),
            (&[b'x'; 73], Fault::TooLong(73)),
            (hash.as_bytes(), Fault::Hashed),
        ] {
            assert_eq!(plain(bytes), Err(fault), "{bytes:?}");
        }
        for good in [&[b'x'; 16][..], &[b'x'; 72], b"correct horse battery"] {
            assert_eq!(plain(good).map(str::as_bytes), Ok(good));
        }
    }

    #[test]
    fn what_is_no_hash_is_told_apart() {
        let of = |prefix: &str| hash::of_nothing(12).replace("$2b$12$", prefix);
        let wanted = 12;
        for (text, fault) in [
            (String::new(), Fault::Empty),
            (format!("{}\n", of("$2b$12$")), Fault::LineBreak),
            ("x".repeat(60), Fault::NoHash(12)),
            (of("$2b$12$")[..59].to_owned(), Fault::NoHash(12)),
            (of("$2x$12$"), Fault::Version("2x".into())),
            (of("$2c$12$"), Fault::NoHash(12)),
            (of("$2b$11$"), Fault::Cost { is: 11, wanted }),
            (of("$2b$15$"), Fault::Cost { is: 15, wanted }),
            (of("$2b$99$"), Fault::NoHash(12)),
        ] {
            assert_eq!(hashed(text.as_bytes(), SETTINGS), Err(fault), "{text}");
        }
        for good in ["$2a$12$", "$2b$12$", "$2y$12$"] {
            let good = of(good);
            assert_eq!(hashed(good.as_bytes(), SETTINGS), Ok(good.as_str()));
        }
    }

    /// The faults are shown in status: none of them holds a part of the secret.
    #[test]
    fn no_fault_tells_of_the_secret() {
        for wrong in [
            "hunter2",
            "hunter2 hunter2\n",
            " hunter2",
            &"hunter2".repeat(11),
        ] {
            let told = plain(wrong.as_bytes()).expect_err(wrong).to_string();
            assert!(!told.contains("hunter2") && told.ends_with('.'), "{told}");
        }
    }

    #[test]
    fn the_cost_follows_from_the_shape() {
        let generated = secret::generate(Family::Integration);
        assert_eq!(cost(&generated, SETTINGS), 5);
        assert!(plain(generated.as_bytes()).is_ok() && !shape(&generated));
        assert_eq!(cost("correct horse battery", SETTINGS), 12);
        assert!(shape("correct horse battery") && !shape("too short"));
    }
}
