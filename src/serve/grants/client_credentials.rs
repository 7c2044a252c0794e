//! `client_credentials` (RFC 6749 §4.4): a technical user speaks for itself.

use super::super::app::App;
use super::super::audit::Told;
use super::super::form::Form;
use super::super::reply::Refusal;
use super::super::snapshot::View;
use super::super::token::{Issued, IssuedBody};
use crate::crypto::jws::sign_token;
use crate::crypto::random::random_id;
use crate::domain::client::Client;
use crate::domain::grant::{Request, client_credentials};
use crate::domain::oauth_error::ErrorCode;

/// Its `grant_type`.
pub const GRANT_TYPE: &str = "client_credentials";

/// The token that an authenticated client gets for what it asks.
pub(in super::super) fn issue(
    app: &App,
    view: &View,
    client: &Client,
    form: &Form<'_>,
) -> Result<Issued, Refusal> {
    let request = Request {
        scope: form.get("scope"),
        resources: form.all("resource").collect(),
        audiences: form.all("audience").collect(),
    };
    let token_id = random_id();
    let now = app.clock.now();
    let mut granted = client_credentials(client, &request, &app.settings, now, &token_id)?;
    let ring = view.chosen(granted.ring, now);
    let ring = ring.ok_or_else(|| Refusal::unavailable("no key can sign for this client now."))?;
    if let Some(end) = ring.standing.window.to {
        granted.end_by(end);
    }
    let access_token = sign_token(&ring.active, &granted.claims).map_err(|e| {
        tracing::error!(ring = ring.name, error = %e, "A token could not be signed.");
        Refusal::new(ErrorCode::ServerError, "the token could not be signed.")
    })?;
    let told = Told {
        subject: granted.claims.subject.to_owned(),
        token_id: token_id.clone(),
        key_id: ring.active.key_id().to_owned(),
        audience: granted.claims.audiences.join(" "),
        expires_at: granted.claims.expires_at,
    };
    let body = IssuedBody {
        access_token,
        token_type: "Bearer",
        expires_in: granted.ttl.as_secs(),
        scope: granted.claims.scope,
    };
    Ok(Issued {
        body,
        algorithm: ring.active.algorithm(),
        told,
    })
}
