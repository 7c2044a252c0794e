//! Sealing a short text to a public key, so that only the holder of the private one reads it: the file
//! format of [age](https://age-encryption.org/v1), with X25519 recipients and armor alone. Whoever has
//! `age` on his machine opens what we seal, and so does `kubectl chancery claim` with an [`Identity`] that
//! lives as long as the command.
//!
//! Why the format is written out here, on aws-lc-rs: docs/decisions/2026-11-27-one-time.md. `tests/age.rs` holds
//! it against the implementation in Go.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::hkdf::{self, HKDF_SHA256};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use zeroize::Zeroizing;

use super::random;

/// What a recipient's text begins with, before its `1`.
const HRP: Hrp = Hrp::parse_unchecked("age");
const VERSION: &str = "age-encryption.org/v1";
const OF_STANZA: &str = "age-encryption.org/v1/X25519";
const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const END: &str = "-----END AGE ENCRYPTED FILE-----";
/// Of armor, and of what a stanza holds.
const COLUMNS: usize = 64;
const KEY: usize = 32;
const FILE_KEY: usize = 16;
const PAYLOAD_NONCE: usize = 16;
const TAG: usize = 16;
/// What is longer would take a second chunk, which nothing here needs.
const CHUNK: usize = 64 * 1024;

/// Why a text is no recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientFault {
    /// It does not begin so, or is of another length.
    #[error(
        "an age recipient is age1 and 58 lower-case letters and digits, as age-keygen -y prints it"
    )]
    Shape,
    /// A letter was lost or mistaken.
    #[error("its checksum is wrong, so that a letter of it was lost or mistaken: copy it again")]
    Checksum,
    /// A point of low order: anyone could open what is sealed to it.
    #[error("it is no public key that anything could be sealed to: make another with age-keygen")]
    LowOrder,
}

/// Why something could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client secret could not be sealed to the age recipient")]
pub struct SealFault;

/// Why something could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenFault {
    /// It is none, or one with other kinds of recipients.
    #[error("it is no age file as Chancery seals them")]
    Format,
    /// It is sealed to others.
    #[error("it is sealed to another key")]
    AnothersKey,
    /// It was altered.
    #[error("it was altered since it was sealed")]
    Altered,
}

/// A public key that something can be sealed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient([u8; KEY]);

impl Recipient {
    /// Reads `age1…`.
    pub fn parse(text: &str) -> Result<Self, RecipientFault> {
        let shaped = text.len() == 62
            && text.starts_with("age1")
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !shaped {
            return Err(RecipientFault::Shape);
        }
        let checked =
            CheckedHrpstring::new::<Bech32>(text).map_err(|_| RecipientFault::Checksum)?;
        let bytes: Vec<u8> = checked.byte_iter().collect();
        let key = bytes.try_into().map_err(|_| RecipientFault::Shape)?;
        let recipient = Self(key);
        // Which private key is asked does not matter: with a point of low order each agrees on zero.
        let any = PrivateKey::from_private_key(&X25519, &[0x42; KEY]);
        let agrees = any.is_ok_and(|any| recipient.agree(&any).is_ok());
        agrees.then_some(recipient).ok_or(RecipientFault::LowOrder)
    }

    fn agree(&self, own: &PrivateKey) -> Result<Zeroizing<[u8; KEY]>, SealFault> {
        agree(own, &self.0)
    }
}

impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = bech32::encode::<Bech32>(HRP, &self.0).map_err(|_| std::fmt::Error)?;
        f.write_str(&text)
    }
}

/// A private key that lives no longer than this value.
pub struct Identity {
    private: PrivateKey,
    recipient: Recipient,
}

impl Identity {
    /// A new one.
    ///
    /// # Panics
    /// If the machine has no randomness to give: nothing that this program does is safe then.
    pub fn generate() -> Self {
        let private = PrivateKey::generate(&X25519).expect("the machine gives random bytes");
        let public = public_of(&private).expect("a key that was just made");
        Self {
            private,
            recipient: Recipient(public),
        }
    }

    /// Its public half.
    pub fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// Opens what was sealed to it.
    pub fn open(&self, armored: &str) -> Result<Zeroizing<Vec<u8>>, OpenFault> {
        let file = dearmored(armored).ok_or(OpenFault::Format)?;
        let Parts {
            share,
            wrapped,
            header,
            mac,
            payload,
        } = Parts::of(&file).ok_or(OpenFault::Format)?;
        let shared = agree(&self.private, &share).map_err(|_| OpenFault::AnothersKey)?;
        let wrapping = wrapping_key(&shared, &share, &self.recipient.0);
        let opened = unsealed(&wrapping, [0; NONCE_LEN], &wrapped).ok_or(OpenFault::AnothersKey)?;
        let file_key: Zeroizing<[u8; FILE_KEY]> =
            Zeroizing::new(opened[..].try_into().map_err(|_| OpenFault::Format)?);
        let key = hmac::Key::new(
            hmac::HMAC_SHA256,
            &derived(&file_key[..], &[], "header")[..],
        );
        hmac::verify(&key, header, &mac).map_err(|_| OpenFault::Altered)?;
        let (nonce, sealed) = payload
            .split_at_checked(PAYLOAD_NONCE)
            .ok_or(OpenFault::Format)?;
        let payload_key = derived(&file_key[..], nonce, "payload");
        unsealed(&payload_key, LAST_CHUNK, sealed).ok_or(OpenFault::Altered)
    }
}

/// Of the first chunk of a file, which is the last one too.
const LAST_CHUNK: [u8; NONCE_LEN] = {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 1] = 1;
    nonce
};

/// Seals a text, of at most 64 KiB, to a recipient: an armored age file.
pub fn seal(recipient: &Recipient, text: &[u8]) -> Result<String, SealFault> {
    if text.len() > CHUNK {
        return Err(SealFault);
    }
    let fails = |_| SealFault;
    let file_key = Zeroizing::new(random::bytes::<FILE_KEY>());
    let ephemeral = PrivateKey::generate(&X25519).map_err(fails)?;
    let share = public_of(&ephemeral).ok_or(SealFault)?;
    let shared = recipient.agree(&ephemeral)?;
    let wrapping = wrapping_key(&shared, &share, &recipient.0);
    let wrapped = sealed(&wrapping, [0; NONCE_LEN], &file_key[..])?;

    let mut file = format!(
        "{VERSION}\n-> X25519 {}\n{}\n---",
        STANDARD_NO_PAD.encode(share),
        STANDARD_NO_PAD.encode(wrapped)
    )
    .into_bytes();
    let key = derived(&file_key[..], &[], "header");
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key[..]), &file);
    file.extend(format!(" {}\n", STANDARD_NO_PAD.encode(mac)).into_bytes());

    let nonce = random::bytes::<PAYLOAD_NONCE>();
    let payload_key = derived(&file_key[..], &nonce, "payload");
    file.extend(nonce);
    file.extend(sealed(&payload_key, LAST_CHUNK, text)?);
    Ok(armored(&file))
}

/// A file with one X25519 stanza, taken apart.
struct Parts<'a> {
    share: [u8; KEY],
    wrapped: Vec<u8>,
    /// All that the MAC covers.
    header: &'a [u8],
    mac: Vec<u8>,
    payload: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(file: &'a [u8]) -> Option<Self> {
        let mut rest = file;
        let mut line = || {
            let end = rest.iter().position(|b| *b == b'\n')?;
            let (line, after) = rest.split_at(end);
            rest = &after[1..];
            std::str::from_utf8(line).ok()
        };
        if line()? != VERSION {
            return None;
        }
        let share = STANDARD_NO_PAD.decode(line()?.strip_prefix("-> X25519 ")?);
        let wrapped = STANDARD_NO_PAD.decode(line()?).ok()?;
        let mac = STANDARD_NO_PAD.decode(line()?.strip_prefix("--- ")?).ok()?;
        let header = file.len() - rest.len();
        // But for the space, the MAC, and the end of the line.
        let header = header.checked_sub(2 + STANDARD_NO_PAD.encode(&mac).len())?;
        Some(Self {
            share: share.ok()?.try_into().ok()?,
            wrapped,
            header: &file[..header],
            mac,
            payload: rest,
        })
    }
}

fn public_of(private: &PrivateKey) -> Option<[u8; KEY]> {
    let public = private.compute_public_key().ok()?;
    public.as_ref().try_into().ok()
}

fn agree(own: &PrivateKey, theirs: &[u8; KEY]) -> Result<Zeroizing<[u8; KEY]>, SealFault> {
    let theirs = UnparsedPublicKey::new(&X25519, theirs);
    agreement::agree(own, theirs, SealFault, |shared| {
        let shared: [u8; KEY] = shared.try_into().map_err(|_| SealFault)?;
        // Held by the library too; that it stays so is not left to it.
        let zero = shared.iter().fold(0, |sum, byte| sum | byte) == 0;
        (!zero).then_some(Zeroizing::new(shared)).ok_or(SealFault)
    })
}

fn wrapping_key(shared: &[u8; KEY], share: &[u8; KEY], of: &[u8; KEY]) -> Zeroizing<[u8; KEY]> {
    derived(shared, &[&share[..], of].concat(), OF_STANZA)
}

/// HKDF-SHA-256, to 32 bytes.
fn derived(secret: &[u8], salt: &[u8], info: &str) -> Zeroizing<[u8; KEY]> {
    let mut key = Zeroizing::new([0; KEY]);
    let pseudorandom = hkdf::Salt::new(HKDF_SHA256, salt).extract(secret);
    let info = [info.as_bytes()];
    let filled = pseudorandom
        .expand(&info, HKDF_SHA256)
        .and_then(|out| out.fill(&mut key[..]));
    filled.expect("32 bytes is what one round of it gives");
    key
}

fn cipher(key: &[u8; KEY]) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key);
    LessSafeKey::new(key.expect("its keys have 32 bytes"))
}

/// Each key is used once, so that the nonces of the format do not repeat.
fn sealed(key: &[u8; KEY], nonce: [u8; NONCE_LEN], text: &[u8]) -> Result<Vec<u8>, SealFault> {
    // Of full capacity from the start, so that no copy of the text is left behind by growing.
    let mut buffer = Zeroizing::new(Vec::with_capacity(text.len() + TAG));
    buffer.extend_from_slice(text);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let done = cipher(key).seal_in_place_append_tag(nonce, Aad::empty(), &mut *buffer);
    done.map_err(|_| SealFault)?;
    Ok(std::mem::take(&mut *buffer))
}

fn unsealed(key: &[u8; KEY], nonce: [u8; NONCE_LEN], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let opened = cipher(key).open_in_place(nonce, Aad::empty(), &mut buffer);
    let length = opened.ok()?.len();
    buffer.truncate(length);
    Some(buffer)
}

fn armored(file: &[u8]) -> String {
    let text = STANDARD.encode(file);
    let mut armored = format!("{BEGIN}\n");
    for line in text.as_bytes().chunks(COLUMNS) {
        // Base64 is ASCII.
        armored.push_str(&String::from_utf8_lossy(line));
        armored.push('\n');
    }
    armored + END + "\n"
}

fn dearmored(text: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_holder_alone() {
        let (mine, other) = (Identity::generate(), Identity::generate());
        for text in ["", "sk-secret", &"x".repeat(1000)] {
            let file = seal(mine.recipient(), text.as_bytes()).expect("sealed");
            assert_eq!(mine.open(&file).expect("opened")[..], *text.as_bytes());
            assert_eq!(other.open(&file), Err(OpenFault::AnothersKey));
            assert_ne!(
                file,
                seal(mine.recipient(), text.as_bytes()).expect("sealed")
            );
            assert!(file.lines().all(|line| line.len() <= COLUMNS));
        }
        assert_eq!(seal(mine.recipient(), &vec![0; CHUNK + 1]), Err(SealFault));
    }

    /// One changed bit, wherever it is, is noticed.
    #[test]
    fn what_was_altered_does_not_open() {
        let mine = Identity::generate();
        let file = dearmored(&seal(mine.recipient(), b"secret").expect("sealed")).expect("armor");
        for at in 0..file.len() {
            for bit in [1, 0x80] {
                let mut altered = file.clone();
                altered[at] ^= bit;
                assert!(mine.open(&armored(&altered)).is_err(), "byte {at}");
            }
            assert!(mine.open(&armored(&file[..at])).is_err(), "cut at {at}");
        }
        for odd in ["", BEGIN, "no armor", &format!("{BEGIN}\n!\n{END}")] {
            assert_eq!(mine.open(odd), Err(OpenFault::Format), "{odd}");
        }
    }

    #[test]
    fn recipients_are_read_and_written() {
        // Of age's own documentation.
        let text = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        assert_eq!(Recipient::parse(text).expect("sound").to_string(), text);
        let made = Identity::generate();
        let again = Recipient::parse(&made.recipient().to_string());
        assert_eq!(again.as_ref(), Ok(made.recipient()));
        let of = |key: [u8; KEY]| Recipient(key).to_string();
        let mut order_8 = [0; KEY];
        order_8.copy_from_slice(&[
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f,
            0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16,
            0x5f, 0x49, 0xb8, 0x00,
        ]);
        let one = {
            let mut one = [0; KEY];
            one[0] = 1;
            one
        };
        for low in [[0; KEY], one, order_8] {
            assert_eq!(Recipient::parse(&of(low)), Err(RecipientFault::LowOrder));
        }
        let cases = [
            (
                "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8q",
                RecipientFault::Checksum,
            ),
            (
                "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8b",
                RecipientFault::Checksum,
            ),
            (
                "AGE1QL3Z7HJY54PW3HYWW5AYYFG7ZQGVC7W3J2ELW8ZMRJ2KG5SFN9AQMCAC8P",
                RecipientFault::Shape,
            ),
            ("age1ql3z7", RecipientFault::Shape),
            ("", RecipientFault::Shape),
            (
                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XX",
                RecipientFault::Shape,
            ),
        ];
        for (text, fault) in cases {
            assert_eq!(Recipient::parse(text), Err(fault), "{text}");
        }
    }
}
