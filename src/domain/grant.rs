//! Which token an authenticated technical user gets for what it asked: never more than it was
//! given, and never more than its current Subscription allows.

use jiff::Timestamp;

use super::claims::Claims;
use super::client::Client;
use super::oauth_error::{ErrorCode, OAuthError};
use super::period::Period;
use super::settings::Settings;
use super::subscription::{SubscriptionFacts, cut_down};

/// What a `client_credentials` request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// `scope` (RFC 6749 §3.3); absent: everything.
    pub scope: Option<&'a str>,
    /// `resource`, each an absolute URI (RFC 8707 §2).
    pub resources: Vec<&'a str>,
    /// `audience`, by any name (RFC 8693 §2.1).
    pub audiences: Vec<&'a str>,
}

/// Which ring signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingChoice<'a> {
    /// The one that the technical user names, and no other.
    Named(&'a str),
    /// The one that the release prefers.
    Preferred,
}

impl<'a> RingChoice<'a> {
    /// The one for a technical user.
    pub fn of(client: &'a Client) -> Self {
        let named = client.signing_key.as_deref();
        named.map_or(Self::Preferred, Self::Named)
    }
}

/// A token to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted<'a> {
    /// What stands in it.
    pub claims: Claims<'a>,
    /// How long it lives.
    pub ttl: Period,
    /// What signs it.
    pub ring: RingChoice<'a>,
}

impl Granted<'_> {
    /// No token outlives the key that signs it.
    pub fn end_by(&mut self, end: Timestamp) {
        let claims = &mut self.claims;
        claims.expires_at = claims.expires_at.min(end.as_second());
        self.ttl = Period::from_secs(claims.expires_at - claims.issued_at);
    }
}

/// The token that `client` gets by `client_credentials` (RFC 6749 §4.4), with `token_id` for its
/// `jti`.
///
/// # Errors
/// `unauthorized_client` without a current Subscription, `invalid_scope`, `invalid_target`.
pub fn client_credentials<'a>(
    client: &'a Client,
    request: &Request<'a>,
    settings: &'a Settings,
    now: Timestamp,
    token_id: &'a str,
) -> Result<Granted<'a>, OAuthError> {
    let subscription = current(client, now)?;
    let allowed = &subscription.allowed;
    let effective = cut_down(&client.scopes, &allowed.scopes);
    let scope = scope(request.scope, &effective, |scope| withheld(client, scope))?;
    let audiences = audiences(request, &cut_down(&client.audiences, &allowed.audiences))?;
    let ttl = life(client, settings);
    let issued_at = now.as_second();
    Ok(Granted {
        claims: Claims {
            names: &settings.claims,
            issuer: &settings.issuer,
            subject: &client.id,
            audiences,
            client_id: &client.id,
            issued_at,
            expires_at: issued_at.saturating_add(ttl.as_secs()),
            token_id,
            scope,
            legal_entity: &subscription.legal_entity_id,
            organization: &subscription.legal_entity_id,
            roles: cut_down(&client.roles, &allowed.roles),
            tier: &subscription.tier,
            family: client.family.name(),
            act: None,
        },
        ttl,
        ring: RingChoice::of(client),
    })
}

/// The Subscription that holds for a client now, without which it gets no tokens.
///
/// # Errors
/// `unauthorized_client`.
pub fn current(client: &Client, now: Timestamp) -> Result<&SubscriptionFacts, OAuthError> {
    client.subscription(now).ok_or_else(|| {
        OAuthError::new(
            ErrorCode::UnauthorizedClient,
            "the client's namespace has no current Subscription, so it gets no tokens.",
        )
    })
}

/// How long a token of a client lives, within what the release allows.
pub(super) fn life(client: &Client, settings: &Settings) -> Period {
    let tokens = settings.tokens;
    let wanted = client.token_ttl;
    wanted
        .unwrap_or(tokens.default_of(client.family))
        .min(tokens.max_ttl)
}

/// Why a client can not be given a scope.
pub(super) fn withheld(client: &Client, scope: &str) -> &'static str {
    if client.scopes.iter().any(|one| one == scope) {
        "its Subscription does not allow it (spec.allowed.scopes)."
    } else {
        "its TechnicalUser was not given it (spec.scopes)."
    }
}

/// The scopes that are granted of those that can be: all where none are asked for. `why` says of another
/// who withholds it.
pub(super) fn scope(
    requested: Option<&str>,
    effective: &[&str],
    why: impl Fn(&str) -> &'static str,
) -> Result<String, OAuthError> {
    let Some(requested) = requested else {
        return Ok(effective.join(" "));
    };
    let mut granted: Vec<&str> = Vec::new();
    for scope in requested.split(' ') {
        if scope.is_empty() || !scope.bytes().all(is_scope_char) {
            return Err(OAuthError::new(
                ErrorCode::InvalidScope,
                "scope is not a list of scopes with one space between them (RFC 6749 section 3.3).",
            ));
        }
        if !effective.contains(&scope) {
            return Err(OAuthError::new(
                ErrorCode::InvalidScope,
                format!(
                    "the client may not ask for scope {}: {}",
                    scope.get(..64).unwrap_or(scope),
                    why(scope)
                ),
            ));
        }
        if !granted.contains(&scope) {
            granted.push(scope);
        }
    }
    Ok(granted.join(" "))
}

/// The audiences that are granted of those that can be: the first where none are asked for.
pub(super) fn audiences<'a>(
    request: &Request<'a>,
    effective: &[&'a str],
) -> Result<Vec<&'a str>, OAuthError> {
    let invalid = |sentence| Err(OAuthError::new(ErrorCode::InvalidTarget, sentence));
    if !request.resources.iter().all(|r| is_absolute_uri(r)) {
        return invalid(
            "resource is not an absolute URI without a fragment (RFC 8707 section 2); use \
             audience for a name.",
        );
    }
    let Some(first) = effective.first() else {
        return invalid(
            "the client has no audience that its Subscription allows, so no token can be made \
             for it.",
        );
    };
    let mut granted: Vec<&str> = Vec::new();
    for audience in request.resources.iter().chain(&request.audiences) {
        if !effective.contains(audience) {
            return invalid(
                "a requested resource or audience is not one of the client's, or its \
                 Subscription does not allow it.",
            );
        }
        if !granted.contains(audience) {
            granted.push(audience);
        }
    }
    if granted.is_empty() {
        granted.push(first);
    }
    Ok(granted)
}

/// `%x21 / %x23-5B / %x5D-7E` (RFC 6749 §3.3).
fn is_scope_char(b: u8) -> bool {
    b.is_ascii_graphic() && b != b'"' && b != b'\\'
}

/// Whether the text is an absolute URI (RFC 3986 §4.3: a scheme, something after it, and no
/// fragment).
fn is_absolute_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let sound = |b: u8| b.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&b);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && !rest.is_empty()
        && rest.bytes().all(sound)
}

#[cfg(test)]
#[path = "grant/tests.rs"]
mod tests;
