//! How a client says who it is (RFC 6749 §2.3, RFC 7521 §4.2).

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use super::form::{self, Form};
use super::reply::Refusal;
use crate::domain::client::Client;

/// Some clients leave out the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a request authenticates with.
pub enum Presented {
    /// A secret (`client_secret_basic`, `client_secret_post`).
    Secret(Known),
    /// A client assertion.
    Assertion(Asserted),
}

/// A client id and secret as they were presented.
pub struct Known {
    /// The client id.
    pub client_id: String,
    /// The secret.
    pub secret: Zeroizing<String>,
}

/// A client that has proved who it is.
pub struct Authenticated<'v> {
    /// Who it is.
    pub client: &'v Arc<Client>,
    /// Which of its credentials proved it: a client secret's id, or the `kid` of a key. No secret.
    pub credential: String,
}

/// A client assertion as it was presented (RFC 7521 §4.2).
pub struct Asserted {
    /// `client_id`, which the assertion may make needless.
    pub client_id: Option<String>,
    /// `client_assertion_type`.
    pub kind: Option<String>,
    /// `client_assertion`.
    pub assertion: Option<Zeroizing<String>>,
}

impl Presented {
    /// The client id that is claimed, where the request says it outside of an assertion.
    pub fn client_id(&self) -> Option<&str> {
        match self {
            Self::Secret(known) => Some(&known.client_id),
            Self::Assertion(asserted) => asserted.client_id.as_deref(),
        }
    }
}

/// What a request authenticates with: a secret or an assertion, never two ways at once.
pub fn presented(headers: &HeaderMap, form: &Form<'_>) -> Result<Presented, Refusal> {
    let mut authorizations = headers.get_all(AUTHORIZATION).iter();
    let authorization = authorizations.next();
    if authorizations.next().is_some() {
        return Err(Refusal::invalid_request(
            "the request has two Authorization headers.",
        ));
    }
    let (assertion, kind) = (
        form.get("client_assertion"),
        form.get("client_assertion_type"),
    );
    let asserts = assertion.is_some() || kind.is_some();
    let secret = form.get("client_secret");
    let ways = [authorization.is_some(), secret.is_some(), asserts];
    if ways.into_iter().filter(|w| *w).count() > 1 {
        return Err(Refusal::invalid_request(
            "the request authenticates the client in more than one way (RFC 6749 section 2.3).",
        ));
    }
    let client_id = form.get("client_id");
    if let Some(authorization) = authorization {
        let presented = basic(authorization.as_bytes()).ok_or_else(Refusal::invalid_client)?;
        if client_id.is_some_and(|id| id != presented.client_id) {
            return Err(Refusal::invalid_request(
                "client_id in the form is not the one in the Authorization header.",
            ));
        }
        return Ok(Presented::Secret(presented));
    }
    if asserts {
        return Ok(Presented::Assertion(Asserted {
            client_id: client_id.map(str::to_owned),
            kind: kind.map(str::to_owned),
            assertion: assertion.map(|text| Zeroizing::new(text.to_owned())),
        }));
    }
    match (client_id, secret) {
        (Some(client_id), Some(secret)) => Ok(Presented::Secret(Known {
            client_id: client_id.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
        })),
        _ => Err(Refusal::invalid_client()),
    }
}

/// `Basic` credentials: base64 of the id, a colon and the secret, each form-encoded before
/// (RFC 6749 §2.3.1, RFC 7617 §2).
fn basic(value: &[u8]) -> Option<Known> {
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = Zeroizing::new(BASE64.decode(encoded.trim_ascii()).ok()?);
    let colon = decoded.iter().position(|b| *b == b':')?;
    let client_id = form::decode(&decoded[..colon])?.into_owned();
    let secret = Zeroizing::new(form::decode(&decoded[colon + 1..])?.into_owned());
    Some(Known { client_id, secret })
}
