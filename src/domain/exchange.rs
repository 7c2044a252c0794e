//! Token exchange (RFC 8693): what a technical user gets that acts for a person. Never more than the
//! person's token says, than the technical user was given, and than the tenant's current Subscription
//! allows; never for another tenant's person; never for longer than the person's token lives.
//!
//! Whoever calls [`on_behalf_of`] has verified the subject token; [`own_subject`] reads one of this
//! issuer's, [`super::provider::Provider::judge`] an outside provider's.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::claims::Claims;
use super::client::Client;
use super::grant::{Granted, Request, RingChoice, audiences, current, life, scope, withheld};
use super::oauth_error::{ErrorCode, OAuthError};
use super::period::Period;
use super::provider::Subject;
use super::settings::{ClaimNames, Settings};
use super::subscription::cut_down;

/// The most parties that may have acted one after another, the client that asks included.
pub const LONGEST_CHAIN: usize = 8;
/// The longest name of a party in a chain, in bytes.
const LONGEST_NAME: usize = 512;

/// Who acts for a person (RFC 8693 §4.1): the last one outermost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Actor {
    /// Who it is.
    pub sub: String,
    /// Who calls it so, where that is another issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// For whom it acted in turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
}

impl Actor {
    /// Who acts, and who acted before, the last one first, each alone: without `act`.
    pub fn parties(&self) -> Vec<Self> {
        let mut parties = Vec::new();
        let mut next = Some(self);
        while let Some(actor) = next {
            parties.push(Self {
                sub: actor.sub.clone(),
                iss: actor.iss.clone(),
                act: None,
            });
            next = actor.act.as_deref();
        }
        parties
    }
}

fn refused(sentence: &'static str) -> OAuthError {
    OAuthError::new(ErrorCode::InvalidRequest, sentence)
}

/// Whom a token of this issuer speaks of, which a key for people signed, and which holds. `client_id`
/// is the client that presents it.
///
/// # Errors
/// `invalid_request` for a token of a technical user itself, and one that is not for this client.
pub fn own_subject(
    claims: &Map<String, Value>,
    names: &ClaimNames,
    client_id: &str,
) -> Result<Subject, OAuthError> {
    let text = |name: &str| {
        let value = claims.get(name).and_then(Value::as_str);
        value.map(str::to_owned)
    };
    let list = |name: &str| match claims.get(name) {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => {
            let all = all.iter().filter_map(Value::as_str);
            all.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    };
    let number = |name: &str| claims.get(name).and_then(Value::as_i64);
    let object = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object.clone())),
        Some(_) => Err(refused(
            "the subject token has an act or may_act that is no object.",
        )),
    };
    let (id, issuer) = (text("sub"), text("iss"));
    let person = id.filter(|id| id.contains(':') && text("client_id").as_ref() != Some(id));
    let id = person.ok_or(refused(
        "the subject token is a technical user's own: it speaks of no person.",
    ))?;
    let audiences = list("aud");
    if !audiences.iter().any(|one| one == client_id) {
        return Err(refused(
            "the subject token is not for this client: its aud has to name the client id.",
        ));
    }
    let scopes = text("scope").unwrap_or_default();
    let scopes = scopes.split(' ').filter(|scope| !scope.is_empty());
    Ok(Subject {
        subject: id.clone(),
        id,
        issuer,
        audiences,
        organisation: text(&names.organization),
        legal_entity: Some(text(&names.legal_entity).unwrap_or_default()),
        roles: list(&names.roles),
        // One of ours that names none has none.
        scopes: Some(scopes.map(str::to_owned).collect()),
        expires: number("exp").unwrap_or(i64::MIN),
        issued_at: number("iat").unwrap_or(i64::MIN),
        client: text("client_id"),
        may_act: object("may_act")?,
        act: object("act")?,
        token_id: text("jti"),
    })
}

/// Whether a client may act for people at all.
///
/// # Errors
/// `unauthorized_client`.
pub fn may_exchange(client: &Client) -> Result<(), OAuthError> {
    if client.on_behalf_of {
        return Ok(());
    }
    Err(OAuthError::new(
        ErrorCode::UnauthorizedClient,
        "the client may not act for people: its TechnicalUser needs onBehalfOf: true.",
    ))
}

/// The token that `client` gets to act for `subject`, with `token_id` for its `jti`.
///
/// # Errors
/// `unauthorized_client` where the client may not act for others, or has no current Subscription;
/// `access_denied` for another tenant's person; `invalid_request` where the subject token does not let
/// this client act; `invalid_scope`, `invalid_target`.
pub fn on_behalf_of<'a>(
    client: &'a Client,
    subject: &'a Subject,
    request: &Request<'a>,
    settings: &'a Settings,
    now: Timestamp,
    token_id: &'a str,
) -> Result<Granted<'a>, OAuthError> {
    may_exchange(client)?;
    let subscription = current(client, now)?;
    if !subject.belongs_to(&subscription.legal_entity_id) {
        return Err(OAuthError::new(
            ErrorCode::AccessDenied,
            "the subject token speaks of another legal entity's person.",
        ));
    }
    may_act(client, subject, settings)?;
    let act = chain(client, subject, settings)?;
    let allowed = &subscription.allowed;
    let of_client = cut_down(&client.scopes, &allowed.scopes);
    let mut scopes = of_client.clone();
    if let Some(of_subject) = &subject.scopes {
        scopes.retain(|scope| of_subject.iter().any(|one| one == scope));
    }
    let scope = scope(request.scope, &scopes, |scope| {
        if of_client.contains(&scope) {
            "the person's token does not have it."
        } else {
            withheld(client, scope)
        }
    })?;
    let audiences = audiences(request, &cut_down(&client.audiences, &allowed.audiences))?;
    let ttl = life(client, settings);
    let issued_at = now.as_second();
    let expires_at = issued_at.saturating_add(ttl.as_secs()).min(subject.expires);
    if expires_at <= issued_at {
        return Err(refused("the subject token has expired."));
    }
    let legal_entity = subscription.legal_entity_id.as_str();
    Ok(Granted {
        claims: Claims {
            names: &settings.claims,
            issuer: &settings.issuer,
            subject: &subject.id,
            audiences,
            client_id: &client.id,
            issued_at,
            expires_at,
            token_id,
            scope,
            legal_entity,
            organization: subject.organisation.as_deref().unwrap_or(legal_entity),
            roles: cut_down(&subject.roles, &allowed.roles),
            tier: &subscription.tier,
            family: client.family.name(),
            act: Some(act),
        },
        ttl: Period::from_secs(expires_at - issued_at),
        ring: RingChoice::Preferred,
    })
}

/// Whether the subject token lets this client act (RFC 8693 §4.4). One that says nothing of that does.
fn may_act(client: &Client, subject: &Subject, settings: &Settings) -> Result<(), OAuthError> {
    let Some(may_act) = &subject.may_act else {
        return Ok(());
    };
    let is = |name: &str, this: &str| may_act.get(name).is_none_or(|value| *value == this);
    if !may_act.contains_key("sub") {
        return Err(refused(
            "may_act in the subject token names nobody: it has no sub.",
        ));
    }
    if !is("sub", &client.id) || !is("client_id", &client.id) {
        return Err(refused(
            "may_act in the subject token names somebody else than this client.",
        ));
    }
    // What else it may say identifies the actor further, and nobody here could tell.
    let known = |name: &String| matches!(name.as_str(), "sub" | "client_id" | "iss");
    if !is("iss", &settings.issuer) || !may_act.keys().all(known) {
        return Err(refused(
            "may_act in the subject token names this client's id with members that can not be judged \
             here: beside sub it may have client_id, and iss with this issuer.",
        ));
    }
    Ok(())
}

/// The client, and whoever acted before it.
fn chain(client: &Client, subject: &Subject, settings: &Settings) -> Result<Actor, OAuthError> {
    Ok(Actor {
        sub: client.id.clone(),
        iss: None,
        act: acted(subject, settings)?.map(Box::new),
    })
}

/// Who has acted for a person by a token's `act`; none: nobody has.
///
/// # Errors
/// `invalid_request` where it names no parties, or so many that no further one may act.
pub fn acted(subject: &Subject, settings: &Settings) -> Result<Option<Actor>, OAuthError> {
    let own = settings.issuer.as_str();
    let issuer = subject.issuer.as_deref();
    // A provider whose tokens name no issuer is called as in the person's id.
    let provider = || subject.id.split_once(':').map(|(provider, _)| provider);
    let foreign = issuer.or_else(provider).filter(|issuer| *issuer != own);
    let mut before = Vec::new();
    let mut next = subject.act.as_ref();
    while let Some(actor) = next {
        if before.len() + 1 == LONGEST_CHAIN {
            return Err(refused(
                "as many have acted for the person one after another (act) as may: ask for the \
                 person's own token.",
            ));
        }
        let text = |name: &str| match actor.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() && text.len() <= LONGEST_NAME => {
                Ok(Some(text.clone()))
            }
            Some(_) => Err(refused("act in the subject token names no party.")),
        };
        let sub = text("sub")?.ok_or(refused("act in the subject token names no party."))?;
        // Who is called so by another issuer is not who is called so here.
        let named = text("iss")?;
        if foreign.is_some() && named.as_deref() == Some(own) {
            return Err(refused(
                "act in the subject token names a party of this issuer, for which its provider can not \
                 vouch.",
            ));
        }
        let iss = named.or_else(|| foreign.map(str::to_owned));
        before.push((sub, iss.filter(|iss| iss != own)));
        next = match actor.get("act") {
            None => None,
            Some(Value::Object(earlier)) => Some(earlier),
            Some(_) => return Err(refused("act in the subject token names no party.")),
        };
    }
    Ok(before.into_iter().rev().fold(None, |act, (sub, iss)| {
        let act = act.map(Box::new);
        Some(Actor { sub, iss, act })
    }))
}

#[cfg(test)]
#[path = "exchange/tests.rs"]
mod tests;
