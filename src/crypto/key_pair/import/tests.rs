//! The keys under `keys/` were made by OpenSSL 3.0 (`genpkey`, `ecparam -genkey`, `ec`, `pkey
//! -traditional`) and `ssh-keygen`, for these tests alone; the PKCS#8 v2 ones are the v1 ones with
//! their public half put in, which OpenSSL 3.0 does not write.

use std::collections::HashSet;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

macro_rules! keys {
    ($($name:literal),* $(,)?) => {
        const KEYS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("keys/", $name, ".pem")))),*];
    };
}

keys! {
    "certificate", "dsa.pkcs8", "dsa.traditional", "ed25519.pkcs8", "ed25519.pkcs8-v2", "ed448",
    "encrypted.pkcs8", "encrypted.proc-type", "openssh", "p256.pkcs8", "p256.pkcs8-v2",
    "p256.sec1", "p256.sec1-compressed", "p256.sec1-explicit", "p256.sec1-no-public",
    "p256.sec1-with-parameters", "p384.pkcs8", "p384.sec1", "p384.sec1-with-parameters",
    "p521.pkcs8", "p521.sec1", "p521.sec1-with-parameters", "rsa-1024.pkcs8", "rsa-2048.pkcs1",
    "rsa-2048.pkcs8", "rsa-2048.pkcs8-v2", "rsa-2048.public", "rsa-2048.public-pkcs1", "rsa-pss",
    "secp256k1.pkcs8", "x25519",
}

fn key(name: &str) -> &'static str {
    KEYS.iter().find(|(n, _)| *n == name).expect(name).1
}

/// What the same key is imported as from each of its forms.
fn all_the_same(algorithm: Algorithm, forms: &[&str]) {
    let imported: Vec<_> = forms
        .iter()
        .map(|name| {
            let pem = import(algorithm, 2048, key(name).as_bytes());
            let pem = pem.unwrap_or_else(|e| panic!("{name} for {algorithm}: {e}"));
            assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
            let pair = KeyPair::from_pem(algorithm, &pem).expect("reads back");
            let der = pem::decode(&pem).expect("PEM");
            let wrapped = der::wrapped(&der).expect("PKCS#8");
            assert!(wrapped.public.is_none(), "v1, which all readers know");
            (pair.key_id().to_owned(), pem)
        })
        .collect();
    for ((kid, pem), name) in imported.iter().zip(forms) {
        assert_eq!(kid, &imported[0].0, "{name}: another kid");
        let again = import(algorithm, 2048, pem.as_bytes()).expect("what we store");
        assert_eq!(&again, pem, "{name}: not stable");
    }
}

#[test]
fn every_form_that_openssl_writes_is_read() {
    use Algorithm as A;
    for algorithm in [A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512] {
        let forms = ["rsa-2048.pkcs8", "rsa-2048.pkcs1", "rsa-2048.pkcs8-v2"];
        all_the_same(algorithm, &forms);
    }
    let p256 = [
        "p256.pkcs8",
        "p256.pkcs8-v2",
        "p256.sec1",
        "p256.sec1-with-parameters",
        "p256.sec1-compressed",
        "p256.sec1-no-public",
    ];
    all_the_same(A::ES256, &p256);
    for (algorithm, curve) in [(A::ES384, "p384"), (A::ES512, "p521")] {
        let forms = ["pkcs8", "sec1", "sec1-with-parameters"].map(|f| format!("{curve}.{f}"));
        all_the_same(algorithm, &forms.each_ref().map(String::as_str));
    }
    all_the_same(A::EdDSA, &["ed25519.pkcs8", "ed25519.pkcs8-v2"]);
}

#[test]
fn what_stands_around_a_key_does_not_matter() {
    let (p256, certificate) = (key("p256.sec1"), key("certificate"));
    let headers = p256.replacen('\n', "\nComment: one: two\nMore: text\n\n", 1);
    for text in [
        p256.replace('\n', "\r\n"),
        p256.trim_end().to_owned(),
        format!("\u{feff}{p256}"),
        format!("Bag Attributes\n  friendlyName: x\n{p256}\nthe end"),
        format!("{certificate}{p256}"),
        format!("{p256}{certificate}{certificate}"),
        format!("{}{p256}", key("rsa-2048.public")),
        p256.replace('\n', "\n    "),
        p256.replace('\n', "\n\n"),
        headers,
    ] {
        let expected = import(Algorithm::ES256, 2048, p256.as_bytes());
        assert_eq!(import(Algorithm::ES256, 2048, text.as_bytes()), expected);
    }
}

#[test]
fn what_can_not_be_used_is_named() {
    use Algorithm::{ES256, ES384, EdDSA, RS256};
    let der = pem::decode(key("p256.pkcs8")).expect("PEM");
    let p256 = key("p256.pkcs8");
    let twice = STANDARD.encode(p256);
    let two = format!("{p256}{}", key("ed25519.pkcs8"));
    let cut = p256.replace("-----END PRIVATE KEY-----", "");
    let misnamed = key("p256.sec1").replace("END EC ", "END ");
    let long = " ".repeat(pem::MAX_LEN) + p256;
    let one_line = p256.replace('\n', " ");
    let line = p256.lines().nth(1).expect("a line");
    let damaged = p256.replace(line, &line.replacen(&line[40..44], "AAAA", 1));
    let short = p256.replace(&line[..4], "");
    let no_base64 = p256.replace(&line[..4], "####");
    let v2 = key("p256.pkcs8-v2");
    let tail = v2.lines().rev().nth(1).expect("a line");
    let other_public = v2.replace(tail, &tail.replacen(&tail[..2], "AA", 1));
    let cases: &[(Algorithm, &[u8], &str)] = &[
        (ES256, b"", "is empty"),
        (ES256, b" \r\n\t", "is empty"),
        (ES256, b"changeme", "is not PEM"),
        (ES256, b"\xff\xfe\x00", "is not PEM"),
        (ES256, one_line.as_bytes(), "is not PEM"),
        (ES256, &der, "is DER"),
        (ES256, twice.as_bytes(), "base64 once more"),
        (ES256, long.as_bytes(), "at most 32768 are read"),
        (ES256, cut.as_bytes(), "is cut off"),
        (ES256, misnamed.as_bytes(), "is cut off"),
        (ES256, two.as_bytes(), "is not one but 2"),
        (ES256, damaged.as_bytes(), "is broken"),
        (ES256, short.as_bytes(), "is broken"),
        (ES256, no_base64.as_bytes(), "is broken"),
        (ES256, other_public.as_bytes(), "is broken"),
        (RS256, key("encrypted.pkcs8").as_bytes(), "is encrypted"),
        (RS256, key("encrypted.proc-type").as_bytes(), "is encrypted"),
        (
            RS256,
            key("rsa-2048.public").as_bytes(),
            "only a public key",
        ),
        (
            RS256,
            key("rsa-2048.public-pkcs1").as_bytes(),
            "only a public key",
        ),
        (ES256, key("certificate").as_bytes(), "only a certificate"),
        (EdDSA, key("openssh").as_bytes(), "form of OpenSSH"),
        (
            ES256,
            key("rsa-2048.pkcs1").as_bytes(),
            "is an RSA key, and ES256 signs with an EC key on the curve P-256:",
        ),
        (
            ES384,
            p256.as_bytes(),
            "is an EC key on the curve P-256, and ES384 signs with an EC key on the curve P-384:",
        ),
        (
            ES256,
            key("p384.sec1").as_bytes(),
            "is an EC key on the curve P-384, and ES256",
        ),
        (
            ES256,
            key("p521.pkcs8").as_bytes(),
            "is an EC key on the curve P-521, and ES256",
        ),
        (ES256, key("secp256k1.pkcs8").as_bytes(), "on another curve"),
        (
            ES256,
            key("p256.sec1-explicit").as_bytes(),
            "explicit parameters",
        ),
        (
            RS256,
            key("ed25519.pkcs8").as_bytes(),
            "is an Ed25519 key, and RS256 signs with an RSA key:",
        ),
        (
            EdDSA,
            key("ed448").as_bytes(),
            "is an Ed448 key, and EdDSA signs with an Ed25519 key:",
        ),
        (EdDSA, key("x25519").as_bytes(), "an X25519 key"),
        (RS256, key("dsa.pkcs8").as_bytes(), "is a DSA key"),
        (RS256, key("dsa.traditional").as_bytes(), "is a DSA key"),
        (Algorithm::PS256, key("rsa-pss").as_bytes(), "bound to PSS"),
        (
            RS256,
            key("rsa-1024.pkcs8").as_bytes(),
            "is an RSA key of 1024 bits, and at least 2048 are needed",
        ),
    ];
    for (algorithm, text, expected) in cases {
        let error = import(*algorithm, 2048, text)
            .expect_err(expected)
            .to_string();
        assert!(error.contains(expected), "{expected:?}: {error}");
        assert!(
            error.starts_with("the private key") && error.ends_with('.'),
            "{error}"
        );
    }
}

#[test]
fn the_smallest_size_is_the_callers() {
    let text = key("rsa-2048.pkcs8").as_bytes();
    assert!(import(Algorithm::RS256, 2048, text).is_ok());
    let error = import(Algorithm::RS256, 3072, text).expect_err("too small");
    let (bits, smallest) = (2048, 3072);
    assert_eq!(error, ImportError::TooSmall { bits, smallest });
    // Below what the library signs with, whatever the caller says.
    assert!(import(Algorithm::RS256, 0, key("rsa-1024.pkcs8").as_bytes()).is_err());
}

#[derive(Clone, Debug)]
enum Edit {
    Cut(usize),
    Remove(usize, usize),
    Put(usize, u8),
    Insert(usize, Vec<u8>),
    Append(usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = 0..3000_usize;
    let edit = prop_oneof![
        at.clone().prop_map(Edit::Cut),
        (at.clone(), 1..40_usize).prop_map(|(at, len)| Edit::Remove(at, len)),
        (at.clone(), any::<u8>()).prop_map(|(at, byte)| Edit::Put(at, byte)),
        (at, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(at, b)| Edit::Insert(at, b)),
        (0..KEYS.len()).prop_map(Edit::Append),
    ];
    prop::collection::vec(edit, 0..4)
}

/// Every eight characters that stand together in the body of a key above.
static PIECES: LazyLock<HashSet<Vec<u8>>> = LazyLock::new(|| {
    let bodies = KEYS.iter().map(|(_, text)| {
        let lines = text.lines().filter(|l| !l.starts_with('-'));
        lines.flat_map(str::bytes).collect::<Vec<u8>>()
    });
    bodies
        .flat_map(|b| b.windows(8).map(<[u8]>::to_vec).collect::<Vec<_>>())
        .collect()
});

fn quotes_a_key(error: &str) -> bool {
    error
        .as_bytes()
        .windows(8)
        .any(|piece| PIECES.contains(piece))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_input_panics_or_is_quoted(
        which in 0..KEYS.len(),
        edits in edits(),
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
    ) {
        let mut text = KEYS[which].1.as_bytes().to_vec();
        for edit in edits {
            let len = text.len();
            match edit {
                Edit::Cut(at) => text.truncate(at % (len + 1)),
                Edit::Remove(at, n) if len > 0 => {
                    let at = at % len;
                    text.drain(at..(at + n).min(len));
                }
                Edit::Put(at, byte) if len > 0 => text[at % len] = byte,
                Edit::Remove(..) | Edit::Put(..) => {}
                Edit::Insert(at, bytes) => {
                    let at = at % (len + 1);
                    text.splice(at..at, bytes);
                }
                Edit::Append(other) => text.extend(KEYS[other].1.bytes()),
            }
        }
        if let Err(error) = import(algorithm, 2048, &text) {
            let error = error.to_string();
            prop_assert!(!quotes_a_key(&error), "{error}");
            prop_assert!(error.len() < 250);
        }
    }

    #[test]
    fn no_der_panics(
        der in prop::collection::vec(any::<u8>(), 0..200),
        label in prop::sample::select(vec!["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"]),
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
    ) {
        let text = format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----",
            STANDARD.encode(&der)
        );
        prop_assert!(import(algorithm, 2048, text.as_bytes()).is_err());
        prop_assert!(import(algorithm, 2048, &der).is_err());
    }

    /// Damage within the DER reaches further than damage to its base64.
    #[test]
    fn no_damaged_der_panics(
        which in 0..KEYS.len(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let text = KEYS[which].1;
        let Ok(block) = private_block(text.as_bytes()) else { return Ok(()) };
        let Some(mut der) = block.decode() else { return Ok(()) };
        let index = at.index(der.len());
        der[index] = byte;
        if let Some(cut) = cut {
            let len = cut.index(der.len());
            der.truncate(len);
        }
        let label = std::str::from_utf8(block.label).expect("a label");
        let text = format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----",
            STANDARD.encode(&der)
        );
        for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
            if let Ok(pem) = import(algorithm, 2048, text.as_bytes()) {
                prop_assert!(KeyPair::from_pem(algorithm, &pem).is_ok());
            }
        }
    }
}
