//! Did a secret get where it must not be? A [`Canary`] is told the secrets of a test and then
//! searches logs, statuses, audit logs and whatever else there is for them, in the forms in which
//! secrets travel: as they are, in hex, in base64 wherever it starts, in base64 within base64 (a
//! Secret's `data`), as numbers (what `{:?}` makes of bytes), escaped, and for private keys the
//! secret numbers and the lines of the PEM.
//!
//! It does not look into what is compressed (a Helm release, say): unpack that first.

use super::der;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// Needles are found by their first bytes; anything shorter would be found by chance.
const SHORTEST: usize = 8;

/// Finds the secrets that it was told of. See the module's page.
#[derive(Default)]
pub struct Canary {
    needles: Vec<Needle>,
    by_start: HashMap<[u8; SHORTEST], Vec<usize>>,
}

struct Needle {
    label: String,
    form: String,
    bytes: Vec<u8>,
}

/// A secret that was found. It says where and which, but never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hit {
    pub label: String,
    pub form: String,
    pub haystack: String,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} stands in {}: {}",
            self.label, self.haystack, self.form
        )
    }
}

impl Canary {
    pub fn new() -> Canary {
        Canary::default()
    }

    /// Adds a secret: a password, a token, raw bytes, or a private key as PEM, DER or JWK. The
    /// public part of a private key is not searched for.
    #[track_caller]
    pub fn add(&mut self, secret: impl AsRef<[u8]>, label: &str) {
        let secret = secret.as_ref().trim_ascii();
        assert!(
            secret.len() >= SHORTEST,
            "{label}: a secret of less than {SHORTEST} bytes would be found everywhere by chance"
        );
        for (part, bytes) in parts(secret) {
            for (form, bytes) in forms(&bytes) {
                self.add_needle(label, format!("{part}, {form}"), bytes);
            }
        }
    }

    fn add_needle(&mut self, label: &str, form: String, bytes: Vec<u8>) {
        let Some(start) = bytes.first_chunk::<SHORTEST>() else {
            return;
        };
        let same_start = self.by_start.entry(*start).or_default();
        same_start.push(self.needles.len());
        self.needles.push(Needle {
            label: label.to_owned(),
            form,
            bytes,
        });
    }

    /// Searches what is given, each with a name that a person knows it by.
    pub fn scan<B: AsRef<[u8]>>(&self, haystacks: &[(&str, B)]) -> Vec<Hit> {
        let mut hits = Vec::new();
        let mut seen = HashSet::new();
        for (name, bytes) in haystacks {
            let bytes = bytes.as_ref();
            for text in [bytes, &unfolded(bytes)] {
                for needle in self.found_in(text) {
                    let hit = Hit {
                        label: needle.label.clone(),
                        form: needle.form.clone(),
                        haystack: (*name).to_owned(),
                    };
                    if seen.insert(hit.clone()) {
                        hits.push(hit);
                    }
                }
            }
        }
        hits
    }

    /// Panics with all that was found, if anything was.
    #[track_caller]
    pub fn assert_absent<B: AsRef<[u8]>>(&self, haystacks: &[(&str, B)]) {
        assert!(
            !self.needles.is_empty(),
            "a canary that knows no secret finds none: add one"
        );
        let hits: Vec<String> = self.scan(haystacks).iter().map(Hit::to_string).collect();
        assert!(hits.is_empty(), "secrets leaked:\n{}", hits.join("\n"));
    }

    fn found_in<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = &'a Needle> {
        text.windows(SHORTEST)
            .enumerate()
            .flat_map(move |(at, start)| {
                let start: &[u8; SHORTEST] = start.try_into().expect("windows have this size");
                let candidates = self.by_start.get(start).into_iter().flatten();
                candidates
                    .map(|&index| &self.needles[index])
                    .filter(move |needle| text[at..].starts_with(&needle.bytes))
            })
    }
}

/// Without white space, and without the line ends that JSON writes as `\n`: so that text folded at
/// some width is found, and a list of numbers however it is laid out.
fn unfolded(bytes: &[u8]) -> Vec<u8> {
    let mut flat = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        match (first, tail.first()) {
            (b'\\', Some(b'n' | b'r')) => rest = &tail[1..],
            (byte, _) => {
                if !byte.is_ascii_whitespace() {
                    flat.push(*byte);
                }
                rest = tail;
            }
        }
    }
    flat
}

/// What of a secret is searched for: it as a whole, and of a private key its secret parts.
fn parts(secret: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut parts = vec![("the whole".to_owned(), secret.to_vec())];
    let text = std::str::from_utf8(secret).unwrap_or("");
    if let Some(lines) = private_pem(text) {
        // One that is encrypted has headers, and a test may bring a broken one: all of it counts.
        let Ok(der) = STANDARD.decode(lines.concat()) else {
            return parts;
        };
        let private = der_parts(&der);
        let mut start = 0;
        for (number, line) in lines.iter().enumerate() {
            let end = start + line.len() * 3 / 4;
            let is_private = private.iter().any(|(_, range)| {
                let overlap = end.min(range.end).saturating_sub(start.max(range.start));
                overlap >= 4
            });
            if is_private && line.len() >= 16 {
                let name = format!("line {} of the PEM", number + 1);
                parts.push((name, line.as_bytes().to_vec()));
            }
            start = end;
        }
        parts.extend(named(&der, private));
    } else if let Ok(serde_json::Value::Object(jwk)) = serde_json::from_str(text) {
        for member in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            if let Some(value) = jwk.get(member).and_then(|value| value.as_str()) {
                let bytes = URL_SAFE_NO_PAD
                    .decode(value)
                    .expect("a JWK holds base64url");
                parts.push((format!("its {member}"), bytes));
            }
        }
    } else if let Some(private) = der::private_parts(secret) {
        parts.extend(named(secret, private));
    }
    parts
}

/// The base64 lines of a PEM that holds a private key.
fn private_pem(text: &str) -> Option<Vec<&str>> {
    let begin = text.find("-----BEGIN ")?;
    let mut lines = text[begin..].lines().map(str::trim);
    lines
        .next()
        .filter(|line| line.ends_with("PRIVATE KEY-----"))?;
    Some(lines.take_while(|line| !line.starts_with('-')).collect())
}

fn der_parts(der: &[u8]) -> Vec<(&'static str, std::ops::Range<usize>)> {
    // A kind of key that we do not know: all of it counts as secret.
    der::private_parts(der).unwrap_or_else(|| vec![("content", 0..der.len())])
}

fn named(
    der: &[u8],
    parts: Vec<(&'static str, std::ops::Range<usize>)>,
) -> impl Iterator<Item = (String, Vec<u8>)> {
    parts
        .into_iter()
        .map(|(name, range)| (format!("its {name}"), der[range].to_vec()))
}

/// The forms in which bytes travel.
fn forms(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let mut forms = vec![
        ("as it is".to_owned(), bytes.to_vec()),
        ("in capital hex".to_owned(), hex.to_uppercase().into_bytes()),
        ("in hex".to_owned(), hex.into_bytes()),
        ("as numbers".to_owned(), numbers.join(",").into_bytes()),
    ];
    if let Ok(text) = std::str::from_utf8(bytes) {
        let json = serde_json::json!(text).to_string();
        let json = json.as_bytes()[1..json.len() - 1].to_vec();
        let form: String = form_urlencoded::byte_serialize(bytes).collect();
        forms.push(("escaped for JSON".to_owned(), json));
        forms.push(("escaped for a form".to_owned(), form.into_bytes()));
    }
    for (form, once) in base64_forms(bytes) {
        for (_, twice) in base64_forms(&once) {
            forms.push((format!("{form}, and that in base64 again"), twice));
        }
        forms.push((form, once));
    }
    let mut seen = HashSet::new();
    forms.retain(|(_, bytes)| seen.insert(bytes.clone()));
    forms
}

/// Base64 encodes three bytes at a time, so that what a secret looks like depends on where in the
/// encoded text it starts. These are the characters that do not depend on its neighbours.
fn base64_forms(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut forms = Vec::new();
    for before in 0..3_usize {
        let mut text = vec![0; before];
        text.extend(bytes);
        let inner = (before * 8).div_ceil(6)..text.len() * 8 / 6;
        for (name, engine) in [("base64", STANDARD_NO_PAD), ("base64url", URL_SAFE_NO_PAD)] {
            let encoded = engine.encode(&text).into_bytes();
            forms.push((
                format!("in {name}, {before} bytes into a group"),
                encoded[inner.clone()].to_vec(),
            ));
        }
    }
    forms
}
