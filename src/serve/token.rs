//! `POST /oauth/token` (RFC 6749 §3.2): what all grants have in common.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};
use http_body::Body;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::app::App;
use super::audit::{Told, Trail};
use super::client_auth::{self, Authenticated, Known, Presented};
use super::form::{self, Form};
use super::grants::{Grant, client_credentials, token_exchange};
use super::reply::{Refusal, Reply, oauth_json};
use super::secrets::Denied;
use super::snapshot::View;
use super::source;
use super::throttle::TooOften;
use crate::domain::algorithm::Algorithm;
use crate::domain::client::Client;
use crate::domain::oauth_error::ErrorCode;
use crate::domain::period::Period;

/// The parameters that may stand in a request more than once (RFC 8707 §2, RFC 8693 §2.1).
const REPEATABLE: [&str; 2] = ["resource", "audience"];

/// A token that was made.
pub(super) struct Issued {
    pub(super) body: IssuedBody,
    pub(super) grant: Grant,
    pub(super) algorithm: Algorithm,
    pub(super) told: Told,
}

/// A successful answer (RFC 6749 §5.1).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TokenResponse")]
pub(super) struct IssuedBody {
    /// A JWT (RFC 9068).
    pub(super) access_token: String,
    /// Of a token exchange: of what type the token is (RFC 8693 section 3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issued_token_type: Option<&'static str>,
    /// Bearer
    pub(super) token_type: &'static str,
    /// How long it lives, in seconds.
    pub(super) expires_in: i64,
    /// Its scopes; absent: it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) scope: String,
}

pub(super) async fn respond<B>(app: &App, request: Request<B>) -> Reply
where
    B: Body<Data = Bytes>,
{
    let began = Instant::now();
    let _under_way = app.metrics.under_way();
    let mut trail = Trail::default();
    let outcome = handle(app, request, &mut trail).await;
    let took = began.elapsed();
    app.metrics.answered(took);
    match outcome {
        Ok(Issued {
            body,
            grant,
            algorithm,
            told,
        }) => {
            app.metrics.issued(grant, algorithm);
            trail.issued(&told, &body.scope);
            tracing::debug!(?took, alg = algorithm.name(), "Issued a token.");
            oauth_json(StatusCode::OK, &body)
        }
        Err(refusal) => {
            app.metrics.refused(refusal.error.code());
            trail.refused(&refusal);
            let (error, cause) = (&refusal.error, trail.cause());
            tracing::debug!(?took, %error, cause, "Refused a token request.");
            refusal.into_reply(&app.challenge)
        }
    }
}

async fn handle<B>(app: &App, request: Request<B>, trail: &mut Trail) -> Result<Issued, Refusal>
where
    B: Body<Data = Bytes>,
{
    let Received { head, body } = receive(app, request).await?;
    let form = form(&body)?;
    let grant = form
        .get("grant_type")
        .ok_or_else(|| Refusal::invalid_request("the parameter grant_type is missing."))?;
    trail.asks(grant);
    let grant = Grant::named(grant).ok_or_else(|| {
        Refusal::new(
            ErrorCode::UnsupportedGrantType,
            "grant_type must be client_credentials or \
             urn:ietf:params:oauth:grant-type:token-exchange.",
        )
    })?;
    let view = app.snapshots.load();
    // Before anything is judged by what may be long past.
    in_contact(app, &view)?;
    let client = authenticate(app, &view, &head, &form, trail).await?;
    within_rate(app, client)?;
    let issued = match grant {
        Grant::ClientCredentials => client_credentials::issue(app, &view, client, &form)?,
        Grant::TokenExchange => token_exchange::issue(app, &view, client, &form, trail).await?,
    };
    // Again: this process may have been frozen since, and a token that nobody gets is none.
    in_contact(app, &view)?;
    Ok(issued)
}

/// A request to one of the OAuth endpoints, received whole.
pub(super) struct Received {
    pub(super) head: Parts,
    pub(super) body: Bytes,
}

/// Receives a form, and refuses what is none, and credentials in the URL.
pub(super) async fn receive<B>(app: &App, request: Request<B>) -> Result<Received, Refusal>
where
    B: Body<Data = Bytes>,
{
    let (head, body) = request.into_parts();
    if head.uri.query().is_some_and(holds_credentials) {
        return Err(Refusal::invalid_request(
            "credentials must never stand in the URL (RFC 6749 section 2.3.1): it is logged on \
             its way. Take this secret for known, and rotate it.",
        ));
    }
    form::is_form(&head.headers).map_err(|e| Refusal::invalid_request(e.to_string()))?;
    let body = app.bodies.read(body, app.body_timeout).await?;
    Ok(Received { head, body })
}

/// The parameters in a body.
pub(super) fn form(body: &[u8]) -> Result<Form<'_>, Refusal> {
    Form::parse(body, &REPEATABLE).map_err(|e| Refusal::invalid_request(e.to_string()))
}

/// The client that a request authenticates. One that fails where this replica can not know better is
/// told to come again.
pub(super) async fn authenticate<'v>(
    app: &App,
    view: &'v View,
    head: &Parts,
    form: &Form<'_>,
    trail: &mut Trail,
) -> Result<&'v Arc<Client>, Refusal> {
    let outcome = authenticated(app, view, head, form, trail).await;
    outcome.map_err(|refusal| {
        if refusal.error.code() == ErrorCode::InvalidClient && app.pulse.has_just_returned() {
            let why = "this replica was stopped, and has not read yet what has changed meanwhile.";
            return Refusal::unavailable(why);
        }
        refusal
    })
}

async fn authenticated<'v>(
    app: &App,
    view: &'v View,
    head: &Parts,
    form: &Form<'_>,
    trail: &mut Trail,
) -> Result<&'v Arc<Client>, Refusal> {
    let presented = client_auth::presented(&head.headers, form)?;
    if let Some(client_id) = presented.client_id() {
        trail.claims(client_id);
    }
    let Authenticated { client, credential } = prove(app, view, head, &presented).await?;
    let subscription = client.subscription(app.clock.now());
    let legal_entity = subscription.map(|s| s.legal_entity_id.as_str());
    trail.is(client, &credential, legal_entity);
    Ok(client)
}

/// The client that what was presented proves.
async fn prove<'v>(
    app: &App,
    view: &'v View,
    head: &Parts,
    presented: &Presented,
) -> Result<Authenticated<'v>, Refusal> {
    if view.published_at.is_none() {
        // Nobody is unknown before it is known who there is.
        let why = "this replica has just started, and has not read yet who there is.";
        return Err(Refusal::unavailable(why));
    }
    let count = |client_id: Option<&str>| {
        let throttle = &app.settings.throttle;
        let source = source::of(&head.headers, &head.extensions, throttle);
        app.throttle.attempt(client_id, source)
    };
    match presented {
        Presented::Secret(Known { client_id, secret }) => {
            let counted = OnceLock::new();
            let attempt = || {
                let attempt = count(Some(client_id))?;
                // It is asked at most once.
                let _ = counted.set(attempt);
                Ok(())
            };
            let outcome = app
                .secrets
                .authenticate(view, client_id, secret, app.clock.now(), attempt)
                .await;
            if let (Ok(_), Some(attempt)) = (&outcome, counted.into_inner()) {
                app.throttle.succeeded(attempt);
            }
            outcome.map_err(|denied| match denied {
                Denied::Invalid => Refusal::invalid_client(),
                Denied::Busy => Refusal::unavailable("too many client secrets are being checked."),
                Denied::TooOften(too_often) => Refusal::failed_too_often(too_often),
            })
        }
        Presented::Assertion(asserted) => {
            let failed = |client_id: Option<&str>| count(client_id).map(drop);
            (app.assertions).authenticate(view, asserted, &app.settings, &*app.clock, failed)
        }
    }
}

/// Counts a request of an authenticated client.
pub(super) fn within_rate(app: &App, client: &Client) -> Result<(), Refusal> {
    app.throttle
        .token(&client.id, client.token_rate)
        .map_err(|TooOften(after)| {
            let rate = app.throttle.token_rate(client.token_rate);
            let sentence = format!(
                "the client asks for more tokens than its rate of {rate} allows: use each until \
                 it expires."
            );
            Refusal::too_often(after, sentence)
        })
}

/// Past `serving.maxStaleness` nothing is signed: the key may have been withdrawn meanwhile.
pub(super) fn in_contact(app: &App, view: &View) -> Result<(), Refusal> {
    let limit = app.settings.serving.max_staleness;
    let age = view.contact_age(&*app.clock);
    if age <= Duration::from_secs(limit.as_secs().unsigned_abs()) {
        return Ok(());
    }
    let age = Period::from_secs(age.as_secs().try_into().unwrap_or(i64::MAX));
    Err(Refusal::unavailable(format!(
        "this replica has had no contact with the API server for {age}, and signs nothing past \
         {limit} (serving.maxStaleness)."
    )))
}

fn holds_credentials(query: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        form::decode(name.as_bytes())
            .is_some_and(|n| n == "client_secret" || n == "client_assertion")
    })
}
