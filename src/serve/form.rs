//! `application/x-www-form-urlencoded`, read strictly: what is malformed is refused, not mended.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// More parameters than this are refused; they would only cost time.
const MAX_PARAMETERS: usize = 64;

/// Why a body is no form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// A `%` without two hexadecimal digits, or bytes that are no UTF-8.
    #[error("the form is not valid: a percent-encoding or the UTF-8 in it is broken.")]
    Malformed,
    /// One parameter twice (RFC 6749 §3.2).
    #[error("a parameter stands in the form more than once (RFC 6749 section 3.2).")]
    Duplicate,
    /// Too many parameters.
    #[error("the form has more than {MAX_PARAMETERS} parameters.")]
    TooMany,
}

/// Why a request's head announces no form that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoForm {
    /// Something else, or nothing, or more than one thing.
    #[error("Content-Type must be application/x-www-form-urlencoded.")]
    OtherType,
    /// A form in another encoding than UTF-8.
    #[error("the charset in Content-Type must be UTF-8, or be left out (RFC 6749 appendix B).")]
    OtherCharset,
}

/// Whether the head of a request announces a form, in UTF-8.
pub fn is_form(headers: &HeaderMap) -> Result<(), NoForm> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(NoForm::OtherType);
    };
    let mut parts = value.as_bytes().split(|b| *b == b';');
    let media_type = parts.next().unwrap_or_default();
    if !media_type
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    {
        return Err(NoForm::OtherType);
    }
    for part in parts {
        let equals = part.iter().position(|b| *b == b'=');
        let (name, value) = part.split_at(equals.unwrap_or(part.len()));
        if !name.trim_ascii().eq_ignore_ascii_case(b"charset") {
            continue;
        }
        let value = value.strip_prefix(b"=").unwrap_or_default().trim_ascii();
        let quoted = value
            .strip_prefix(b"\"")
            .and_then(|v| v.strip_suffix(b"\""));
        let charset = quoted.unwrap_or(value);
        let utf8 = [&b"utf-8"[..], b"utf8"];
        if !utf8.iter().any(|utf8| charset.eq_ignore_ascii_case(utf8)) {
            return Err(NoForm::OtherCharset);
        }
    }
    Ok(())
}

/// A form's parameters. One without a value counts as absent (RFC 6749 §3.2).
#[derive(Debug)]
pub struct Form<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Form<'a> {
    /// Reads a body. Only the parameters in `repeatable` may stand there more than once.
    pub fn parse(body: &'a [u8], repeatable: &[&str]) -> Result<Self, FormError> {
        let mut parameters: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::with_capacity(8);
        for pair in body.split(|b| *b == b'&').filter(|p| !p.is_empty()) {
            if parameters.len() == MAX_PARAMETERS {
                return Err(FormError::TooMany);
            }
            let equals = pair.iter().position(|b| *b == b'=');
            let (name, value) = match equals {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &pair[pair.len()..]),
            };
            let name = decode(name).ok_or(FormError::Malformed)?;
            let value = decode(value).ok_or(FormError::Malformed)?;
            if !repeatable.contains(&&*name) && parameters.iter().any(|(n, _)| *n == name) {
                return Err(FormError::Duplicate);
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// The value of a parameter, unless it is absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a parameter that are not empty.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(n, v)| n == name && !v.is_empty())
            .map(|(_, v)| &**v)
    }
}

/// Decodes one name or value; none if it is malformed. Also for the parts of Basic credentials
/// (RFC 6749 §2.3.1).
pub fn decode(encoded: &[u8]) -> Option<Cow<'_, str>> {
    if !encoded.iter().any(|b| matches!(b, b'%' | b'+')) {
        return std::str::from_utf8(encoded).ok().map(Cow::Borrowed);
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [first, tail @ ..] = rest {
        rest = tail;
        decoded.push(match first {
            b'+' => b' ',
            b'%' => {
                let [high, low, tail @ ..] = tail else {
                    return None;
                };
                rest = tail;
                hex(*high)? << 4 | hex(*low)?
            }
            other => *other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_forms() {
        let form = Form::parse(b"a=1&b=x+y%2Bz&c&d=&e=%c3%a9&&r=1&r=2", &["r"]).expect("a form");
        assert_eq!(form.get("a"), Some("1"));
        assert_eq!(form.get("b"), Some("x y+z"));
        assert_eq!(
            (form.get("c"), form.get("d"), form.get("z")),
            (None, None, None)
        );
        assert_eq!(form.get("e"), Some("é"));
        assert_eq!(form.all("r").collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn refuses_what_is_malformed() {
        for (body, error) in [
            (&b"a=%"[..], FormError::Malformed),
            (b"a=%4", FormError::Malformed),
            (b"a=%zz", FormError::Malformed),
            (b"a=%+1", FormError::Malformed),
            (b"a=%ff", FormError::Malformed),
            (b"a=\xff", FormError::Malformed),
            (b"%ff=a", FormError::Malformed),
            (b"a=1&a=1", FormError::Duplicate),
            (b"a=1&%61=2", FormError::Duplicate),
            (b"a=&a=1", FormError::Duplicate),
            (&b"r=&".repeat(65), FormError::TooMany),
        ] {
            assert_eq!(
                Form::parse(body, &["r"]).expect_err("refused"),
                error,
                "{body:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn agrees_with_another_encoder(pairs in proptest::collection::btree_map(".*", ".+", 0..8)) {
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
            let form = Form::parse(body.as_bytes(), &[]).expect("a form");
            for (name, value) in &pairs {
                prop_assert_eq!(form.get(name), Some(value.as_str()));
            }
        }

        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Form::parse(&body, &["resource"]);
        }
    }
}
