//! The grants, one file each. A grant reads its own parameters, asks the domain what may be
//! granted, and signs.

use super::audit::Told;
use super::form::Form;
use super::reply::Refusal;
use super::snapshot::Ring;
use super::token::{Issued, IssuedBody};
use crate::crypto::jws::sign_token;
use crate::domain::grant::{Granted, Request};
use crate::domain::oauth_error::ErrorCode;

pub mod client_credentials;
pub mod token_exchange;

/// A grant that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// A technical user speaks for itself.
    ClientCredentials,
    /// A technical user acts for a person.
    TokenExchange,
}

impl Grant {
    /// All of them, with their `grant_type`.
    pub const ALL: [(Self, &'static str); 2] = [
        (Self::ClientCredentials, client_credentials::GRANT_TYPE),
        (Self::TokenExchange, token_exchange::GRANT_TYPE),
    ];

    /// The one with that `grant_type`.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(_, known)| *known == name)
            .map(|(grant, _)| grant)
    }
}

/// What a token is asked for (RFC 6749 §3.3, RFC 8707, RFC 8693 §2.1).
fn requested<'f>(form: &'f Form<'_>) -> Request<'f> {
    Request {
        scope: form.get("scope"),
        resources: form.all("resource").collect(),
        audiences: form.all("audience").collect(),
    }
}

/// Signs what was granted, which lives no longer than the ring may sign.
fn sign(grant: Grant, ring: &Ring, mut granted: Granted<'_>) -> Result<Issued, Refusal> {
    if let Some(end) = ring.standing.window.to {
        granted.end_by(end);
    }
    let access_token = sign_token(&ring.active, &granted.claims).map_err(|e| {
        tracing::error!(ring = ring.name, error = %e, "A token could not be signed.");
        Refusal::new(ErrorCode::ServerError, "the token could not be signed.")
    })?;
    let claims = granted.claims;
    let told = Told {
        subject: claims.subject.to_owned(),
        token_id: claims.token_id.to_owned(),
        key_id: ring.active.key_id().to_owned(),
        audience: claims.audiences.join(" "),
        expires_at: claims.expires_at,
        actors: claims.act.map_or_else(Vec::new, |act| act.parties()),
        subject_token: None,
    };
    let body = IssuedBody {
        access_token,
        issued_token_type: None,
        token_type: "Bearer",
        expires_in: granted.ttl.as_secs(),
        scope: claims.scope,
    };
    Ok(Issued {
        body,
        grant,
        algorithm: ring.active.algorithm(),
        told,
    })
}
