//! `client_credentials` (RFC 6749 §4.4): a technical user speaks for itself.

use super::super::app::App;
use super::super::form::Form;
use super::super::reply::Refusal;
use super::super::snapshot::View;
use super::super::token::Issued;
use super::{Grant, requested, sign};
use crate::crypto::random::random_id;
use crate::domain::client::Client;
use crate::domain::grant::client_credentials;

/// Its `grant_type`.
pub const GRANT_TYPE: &str = "client_credentials";

/// The token that an authenticated client gets for what it asks.
pub(in super::super) fn issue(
    app: &App,
    view: &View,
    client: &Client,
    form: &Form<'_>,
) -> Result<Issued, Refusal> {
    let request = requested(form);
    let token_id = random_id();
    let now = app.clock.now();
    let granted = client_credentials(client, &request, &app.settings, now, &token_id)?;
    let ring = view.chosen(granted.ring, now);
    let ring = ring.ok_or_else(|| Refusal::unavailable("no key can sign for this client now."))?;
    sign(Grant::ClientCredentials, ring, granted)
}
