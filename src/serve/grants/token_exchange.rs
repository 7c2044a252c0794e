//! `urn:ietf:params:oauth:grant-type:token-exchange` (RFC 8693): a technical user acts for a person,
//! whose token of this issuer, or of an outside provider, it presents. What is not supported is
//! refused, never ignored.

use super::super::app::App;
use super::super::audit::Trail;
use super::super::bearer;
use super::super::enrol;
use super::super::form::Form;
use super::super::outside_token::{self, Unverified};
use super::super::reply::{Refusal, UNTIL_CHANGED};
use super::super::snapshot::View;
use super::super::token::Issued;
use super::super::trust::OutsideProvider;
use super::{Grant, requested, sign};
use crate::crypto::random::random_id;
use crate::domain::client::Client;
use crate::domain::exchange::{may_exchange, on_behalf_of, own_subject};
use crate::domain::grant::current;
use crate::domain::provider::Subject;

/// Its `grant_type`.
pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The types of tokens that are taken and given (RFC 8693 §3): ours are both.
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The token that an authenticated client gets to act for a person.
pub(in super::super) async fn issue(
    app: &App,
    view: &View,
    client: &Client,
    form: &Form<'_>,
    trail: &mut Trail,
) -> Result<Issued, Refusal> {
    // Before a stranger's token is looked at.
    may_exchange(client)?;
    current(client, app.clock.now())?;
    // Else a token that holds would be told not to.
    bearer::can_tell(app, view)?;
    let issued_type = match form.get("requested_token_type") {
        None | Some(ACCESS_TOKEN) => ACCESS_TOKEN,
        Some(JWT) => JWT,
        Some(_) => {
            return Err(Refusal::invalid_request(
                "requested_token_type must be urn:ietf:params:oauth:token-type:access_token or \
                 urn:ietf:params:oauth:token-type:jwt, or left out.",
            ));
        }
    };
    let presented = typed(form, "subject_token", "subject_token_type")?
        .ok_or_else(|| Refusal::invalid_request("the parameter subject_token is missing."))?;
    actor(app, view, client, form)?;
    let (subject, provider) = subject(app, view, client, presented, trail)?;
    trail.speaks_of(&subject.id, provider.map(|trusted| &trusted.provider));
    let request = requested(form);
    let token_id = random_id();
    let now = app.clock.now();
    let granted = on_behalf_of(client, &subject, &request, &app.settings, now, &token_id)?;
    let ring = view.human_rings(now).next().ok_or_else(|| {
        let why = "no key for people can sign now: a SigningKey with audience human makes one.";
        if view.snapshot.human_rings.is_empty() {
            return Refusal::unavailable_for(UNTIL_CHANGED, why);
        }
        Refusal::unavailable(why)
    })?;
    let mut issued = sign(Grant::TokenExchange, ring, granted)?;
    issued.body.issued_token_type = Some(issued_type);
    if let Some(outside) = provider {
        enrol::enrol(app, view, &client.namespace, &outside.provider, &subject).await?;
        // What was waited for took its time: they may be kept out since.
        enrol::still_admitted(app, &client.namespace, &subject)?;
    }
    issued.told.subject_token = subject.token_id;
    Ok(issued)
}

/// A token of the form with its type; none where it is absent (RFC 8693 §2.1).
fn typed<'f>(
    form: &'f Form<'_>,
    name: &'static str,
    type_name: &'static str,
) -> Result<Option<&'f str>, Refusal> {
    match (form.get(name), form.get(type_name)) {
        (None, None) => Ok(None),
        (Some(token), Some(ACCESS_TOKEN | JWT)) => Ok(Some(token)),
        (Some(_), Some(_)) => Err(Refusal::invalid_request(format!(
            "{type_name} must be urn:ietf:params:oauth:token-type:access_token or \
             urn:ietf:params:oauth:token-type:jwt: no other kind of token is taken."
        ))),
        (Some(_), None) => Err(Refusal::invalid_request(format!(
            "{type_name} is missing beside {name} (RFC 8693 section 2.1)."
        ))),
        (None, Some(_)) => Err(Refusal::invalid_request(format!(
            "{type_name} stands there without {name} (RFC 8693 section 2.1)."
        ))),
    }
}

/// Who acts is the client. An actor token may say so again: then it is the client's own, and holds.
fn actor(app: &App, view: &View, client: &Client, form: &Form<'_>) -> Result<(), Refusal> {
    let Some(presented) = typed(form, "actor_token", "actor_token_type")? else {
        return Ok(());
    };
    let own = bearer::living(app, view, presented)
        .is_some_and(|bearer| !bearer.for_person && bearer.token.subject == client.id);
    if own {
        return Ok(());
    }
    Err(Refusal::invalid_request(
        "actor_token is not a token of this client that holds: the client itself acts, and no other \
         may be named.",
    ))
}

/// Whom the subject token speaks of, once it is verified, and the outside provider that vouches for them,
/// unless it is of this issuer.
fn subject<'v>(
    app: &App,
    view: &'v View,
    client: &'v Client,
    presented: &str,
    trail: &mut Trail,
) -> Result<(Subject, Option<&'v OutsideProvider>), Refusal> {
    let token = Unverified::parse(presented).ok_or_else(|| {
        Refusal::invalid_request("subject_token is no JWT as RFC 7519 and RFC 8725 have it.")
    })?;
    trail.brings(token.key_id());
    if token.issuer() == Some(app.settings.issuer.as_str()) {
        let bearer = bearer::living(app, view, presented);
        // Of another tenant's nothing is told, not even whether it holds.
        let bearer = bearer.filter(|bearer| bearer.client.namespace == client.namespace);
        let bearer = bearer.ok_or_else(|| {
            Refusal::invalid_request("subject_token is of this issuer, and does not hold.")
        })?;
        if !bearer.for_person {
            return Err(Refusal::invalid_request(
                "subject_token is a technical user's own: it speaks of no person.",
            ));
        }
        let names = &app.settings.claims;
        let subject = own_subject(&bearer.token.claims, names, &client.id)?;
        return Ok((subject, None));
    }
    let vouched = outside_token::of_tenant(app, view, client, &token);
    let vouched = vouched.map_err(|why| {
        trail.untaken(&why);
        why.into_refusal()
    })?;
    Ok((vouched.subject, Some(vouched.provider)))
}
