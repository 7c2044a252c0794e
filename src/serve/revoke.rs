//! `POST /oauth/revoke` (RFC 7009): a client has access tokens revoked that it was issued; and
//! `POST /auth/device/revoke`: a device revokes itself, and its companion agent with it.
//!
//! What was asked for is noted where it lasts ([`Outbox`]) before the answer 200, and every replica
//! knows of it a moment later ([`super::snapshot::Snapshot::is_revoked`]). A token that is not the
//! client's, that has expired, or that is none at all is answered 200 too, and nothing is noted
//! (§2.2: the client can not do anything about it).

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, StatusCode};
use http_body::Body;

use super::app::App;
use super::audit::Trail;
use super::metrics::Revocation;
use super::reply::{Refusal, Reply, revoked};
use super::snapshot::View;
use super::token::{self, Received};
use crate::crypto::own_token;
use crate::domain::client::{Client, Family};
use crate::domain::oauth_error::ErrorCode;
use crate::domain::revocation::{Token, leeway};

/// What a client has revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// One of its tokens.
    Token(Token),
    /// Itself: it is a device.
    Device {
        /// The client id of its companion agent, which is revoked with it.
        companion: Option<String>,
        /// The earliest second, since 1970, in which it can have done so.
        from: i64,
    },
}

/// What a request makes durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The client's namespace.
    pub namespace: String,
    /// The client's id.
    pub client_id: String,
    /// What is revoked.
    pub what: What,
}

/// Why nothing was noted. Coming again later loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unnoted {
    /// There is no room for more of this tenant.
    Full,
    /// It could not be written.
    Unreachable,
}

/// Where what a request makes durable is noted.
pub trait Outbox: Send + Sync + 'static {
    /// Notes it: once this is `Ok`, it holds whatever crashes.
    fn note(&self, note: Note) -> BoxFuture<'static, Result<(), Unnoted>>;
}

pub(super) async fn respond<B>(app: &App, request: Request<B>) -> Reply
where
    B: Body<Data = Bytes>,
{
    answer(app, handle(app, request).await)
}

fn answer(app: &App, outcome: Result<Revocation, Refusal>) -> Reply {
    match outcome {
        Ok(outcome) => {
            app.metrics.revocation(outcome);
            revoked()
        }
        Err(refusal) => {
            let outcome = match refusal.status() {
                StatusCode::SERVICE_UNAVAILABLE => Revocation::Unavailable,
                _ => Revocation::Refused,
            };
            app.metrics.revocation(outcome);
            tracing::debug!(error = %refusal.error, "Refused a revocation.");
            refusal.into_reply(&app.challenge)
        }
    }
}

async fn handle<B>(app: &App, request: Request<B>) -> Result<Revocation, Refusal>
where
    B: Body<Data = Bytes>,
{
    let Received { head, body } = token::receive(app, request).await?;
    let form = token::form(&body)?;
    let presented = form
        .get("token")
        .ok_or_else(|| Refusal::invalid_request("the parameter token is missing."))?;
    let view = app.snapshots.load();
    let mut trail = Trail::default();
    let client = token::authenticate(app, &view, &head, &form, &mut trail).await?;
    // As for tokens: what is made durable costs more than what is signed.
    token::within_rate(app, client)?;
    let Some(token) = own(app, &view, client, presented) else {
        return Ok(Revocation::Nothing);
    };
    if view
        .snapshot
        .is_revoked(&token.id, &client.id, token.issued_at)
    {
        return Ok(Revocation::Nothing);
    }
    let note = Note {
        namespace: client.namespace.clone(),
        client_id: client.id.clone(),
        what: What::Token(token),
    };
    noted(app, note, &trail).await
}

/// `POST /auth/device/revoke`: a device revokes itself, with its own credential, and its companion
/// agent. No body is needed.
pub(super) async fn device<B>(app: &App, request: Request<B>) -> Reply
where
    B: Body<Data = Bytes>,
{
    answer(app, handle_device(app, request).await)
}

async fn handle_device<B>(app: &App, request: Request<B>) -> Result<Revocation, Refusal>
where
    B: Body<Data = Bytes>,
{
    let Received { head, body } = token::receive(app, request).await?;
    let form = token::form(&body)?;
    let view = app.snapshots.load();
    let mut trail = Trail::default();
    let client = token::authenticate(app, &view, &head, &form, &mut trail).await?;
    if client.family != Family::Device {
        return Err(Refusal::new(
            ErrorCode::UnauthorizedClient,
            "only a technical user of family Device can revoke itself.",
        )
        .with_status(StatusCode::FORBIDDEN));
    }
    let note = Note {
        namespace: client.namespace.clone(),
        client_id: client.id.clone(),
        what: What::Device {
            companion: client.companion.clone(),
            from: client.revocable_from(),
        },
    };
    noted(app, note, &trail).await
}

async fn noted(app: &App, note: Note, trail: &Trail) -> Result<Revocation, Refusal> {
    let what = note.what.clone();
    match app.outbox.note(note).await {
        Ok(()) => {
            match &what {
                What::Token(token) => trail.revoked(Some(&token.id), None),
                What::Device { companion, .. } => trail.revoked(None, companion.as_deref()),
            }
            Ok(Revocation::Noted)
        }
        Err(Unnoted::Full) => Err(Refusal::unavailable(
            "too many tokens of this tenant are revoked and have not expired yet: come again \
             later, or have a platform administrator raise revocation.entriesPerTenant.",
        )),
        Err(Unnoted::Unreachable) => Err(Refusal::unavailable(
            "the revocation can not be written down now, and so does not hold: come again.",
        )),
    }
}

/// The token, if this client was issued it and it can still be taken by anyone.
fn own(app: &App, view: &View, client: &Client, presented: &str) -> Option<Token> {
    let keys = &view.snapshot.jwks.as_ref()?.keys;
    let token = own_token::read(presented, keys)?;
    let ends = token.expires_at.saturating_add(leeway(&app.settings));
    let its_own = token.issuer == app.settings.issuer && token.client_id == client.id;
    (its_own && ends > app.clock.now().as_second()).then_some(Token {
        id: token.id,
        issued_at: token.issued_at,
        expires_at: token.expires_at,
    })
}
