//! `POST /oauth/introspect` (RFC 7662): a technical user that may asks whether a token of its own
//! tenant holds, and what stands in it: one of this issuer, or of an outside provider, whose claims are
//! told in our names.
//!
//! Every other token, and what is none, is the same `{"active":false}` (§2.2): another tenant's is
//! not told apart from one that never was. Where the request accepts
//! `application/token-introspection+jwt` the answer is signed (RFC 9701).

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, PRAGMA};
use http::{HeaderMap, Request, StatusCode};
use http_body::Body;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::app::App;
use super::audit::Trail;
use super::bearer;
use super::metrics;
use super::outside_token::{self, Untaken, Unverified};
use super::reply::{Refusal, Reply, oauth_json, reply, set};
use super::snapshot::View;
use super::token::{self, Received};
use crate::crypto::jws;
use crate::domain::client::Client;
use crate::domain::grant::RingChoice;
use crate::domain::oauth_error::ErrorCode;
use crate::domain::outside_claims;

/// The media type of a signed answer, and with `typ` its last part in a JOSE header (RFC 9701 §5).
pub(super) const JWT: &str = "application/token-introspection+jwt";
const JWT_TYP: &str = "token-introspection+jwt";

pub(super) async fn respond<B>(app: &App, request: Request<B>) -> Reply
where
    B: Body<Data = Bytes>,
{
    match handle(app, request).await {
        Ok((active, reply)) => {
            let outcome = if active {
                metrics::Introspection::Active
            } else {
                metrics::Introspection::Inactive
            };
            app.metrics.introspection(outcome);
            reply
        }
        Err(refusal) => {
            let outcome = match refusal.status() {
                StatusCode::SERVICE_UNAVAILABLE => metrics::Introspection::Unavailable,
                _ => metrics::Introspection::Refused,
            };
            app.metrics.introspection(outcome);
            tracing::debug!(error = %refusal.error, "Refused an introspection.");
            refusal.into_reply(&app.challenge)
        }
    }
}

async fn handle<B>(app: &App, request: Request<B>) -> Result<(bool, Reply), Refusal>
where
    B: Body<Data = Bytes>,
{
    let Received { head, body } = token::receive(app, request).await?;
    let form = token::form(&body)?;
    let presented = form
        .get("token")
        .ok_or_else(|| Refusal::invalid_request("the parameter token is missing."))?;
    let view = app.snapshots.load();
    // What was revoked or suspended long ago may not be known here.
    bearer::can_tell(app, &view)?;
    // Whoever tries none is told so, rather than asked for Basic alone (RFC 9701 §5, RFC 6749 §5.2).
    let tries = ["client_secret", "client_assertion", "client_assertion_type"];
    if !head.headers.contains_key(AUTHORIZATION) && tries.iter().all(|p| form.get(p).is_none()) {
        return Err(Refusal::new(
            ErrorCode::InvalidClient,
            "the client authentication is missing.",
        )
        .with_status(StatusCode::BAD_REQUEST));
    }
    let mut trail = Trail::default();
    let caller = token::authenticate(app, &view, &head, &form, &mut trail).await?;
    if !caller.introspect {
        return Err(Refusal::new(
            ErrorCode::UnauthorizedClient,
            "the client may not introspect tokens: its TechnicalUser needs introspect: true.",
        )
        .with_status(StatusCode::FORBIDDEN));
    }
    token::within_rate(app, caller)?;
    let answer = Introspection::of(held(app, &view, caller, presented)?);
    let reply = if wants_jwt(&head.headers) {
        signed(app, &view, caller, &answer)?
    } else {
        oauth_json(StatusCode::OK, &answer)
    };
    Ok((answer.active, reply))
}

/// What stands in the token, if it holds and is of the caller's tenant.
fn held(
    app: &App,
    view: &View,
    caller: &Client,
    presented: &str,
) -> Result<Option<Map<String, Value>>, Refusal> {
    if let Some(bearer) = bearer::living(app, view, presented) {
        let own = bearer.client.namespace == caller.namespace;
        return Ok(own.then_some(bearer.token.claims));
    }
    let Some(token) = Unverified::parse(presented) else {
        return Ok(None);
    };
    match outside_token::of_tenant(app, view, caller, &token) {
        Ok(vouched) => {
            let of = (&vouched.subject, vouched.subscription);
            Ok(outside_claims::mapped(of.0, of.1, &app.settings).ok())
        }
        // It may well hold: nobody is to believe that it does not.
        Err(why) if why.is_not_yet() => Err(Untaken::not_yet()),
        Err(_) => Ok(None),
    }
}

/// What is answered of a token (RFC 7662 section 2.2).
#[derive(Debug, Serialize, JsonSchema)]
pub struct Introspection {
    /// Whether it holds. If not, nothing else is said.
    pub active: bool,
    /// Bearer, if it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_type: Option<&'static str>,
    /// All that stands in it, if it holds. Of an outside provider's: what a token of this issuer would
    /// say of the person.
    #[serde(flatten)]
    pub claims: Map<String, Value>,
}

impl Introspection {
    fn of(claims: Option<Map<String, Value>>) -> Self {
        Self {
            active: claims.is_some(),
            token_type: claims.as_ref().map(|_| "Bearer"),
            claims: claims.unwrap_or_default(),
        }
    }
}

/// The answer as a JWT for the caller alone (RFC 9701 §5). It has neither `sub` nor `exp`, so that
/// nobody takes it for a token.
fn signed(
    app: &App,
    view: &View,
    caller: &Client,
    answer: &Introspection,
) -> Result<Reply, Refusal> {
    #[derive(Serialize)]
    struct Claims<'a> {
        iss: &'a str,
        aud: &'a str,
        iat: i64,
        token_introspection: &'a Introspection,
    }
    let now = app.clock.now();
    let ring = view
        .chosen(RingChoice::of(caller), now)
        .ok_or_else(|| Refusal::unavailable("no key can sign for this client now."))?;
    let claims = Claims {
        iss: &app.settings.issuer,
        aud: &caller.id,
        iat: now.as_second(),
        token_introspection: answer,
    };
    let jwt = jws::sign(&ring.active, JWT_TYP, &claims).map_err(|e| {
        tracing::error!(ring = ring.name, error = %e, "An introspection could not be signed.");
        Refusal::new(ErrorCode::ServerError, "the answer could not be signed.")
    })?;
    let mut reply = reply(StatusCode::OK, JWT, jwt);
    set(&mut reply, CACHE_CONTROL, "no-store");
    set(&mut reply, PRAGMA, "no-cache");
    Ok(reply)
}

/// Whether a request would rather have the signed answer (RFC 9110 §12.5.1): it names that type, and
/// JSON with no greater weight. A wildcard is JSON, as for everyone who asks for nothing.
fn wants_jwt(headers: &HeaderMap) -> bool {
    let (mut jwt, mut json) = (0.0, 0.0);
    let lines = headers.get_all(ACCEPT).iter();
    let ranges = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|l| l.split(','));
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("q")
                .then(|| value.trim().parse::<f32>().unwrap_or(0.0))
        });
        let weight = weight.unwrap_or(1.0);
        if name.eq_ignore_ascii_case(JWT) {
            jwt = weight;
        } else if name.eq_ignore_ascii_case("application/json") {
            json = weight;
        }
    }
    jwt > 0.0 && jwt >= json
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_signed_answer_is_for_who_asks_for_it() {
        for (accept, signed) in [
            (&[][..], false),
            (&["*/*"], false),
            (&["application/*"], false),
            (&["application/json"], false),
            (&[JWT], true),
            (&["Application/Token-Introspection+JWT"], true),
            (&["application/token-introspection+jwt;q=0"], false),
            (&["application/token-introspection+jwt; q=x"], false),
            (
                &["application/json, application/token-introspection+jwt"],
                true,
            ),
            (
                &["application/json", "application/token-introspection+jwt"],
                true,
            ),
            (
                &["application/json;q=0.9, application/token-introspection+jwt;q=0.8"],
                false,
            ),
            (
                &["text/html, application/token-introspection+jwt;q=0.1"],
                true,
            ),
            (&["application/jwt"], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in accept {
                headers.append(ACCEPT, HeaderValue::from_static(line));
            }
            assert_eq!(wants_jwt(&headers), signed, "{accept:?}");
        }
    }
}
