//! `GET /account` and `GET /account/subscriptions`: whom a token speaks for, and what its tenant is
//! entitled to. Any access token will do that holds (RFC 6750 §2.1), of this issuer or of an outside
//! provider; each sees its own tenant alone.

use std::fmt::Write as _;

use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::app::App;
use super::bearer::{self, Bearer};
use super::outside_token::{self, Untaken, Unverified, Vouched};
use super::reply::{Refusal, Reply, problem, reply, set};
use super::snapshot::View;
use crate::domain::outside_claims;
use crate::domain::settings::Settings;
use crate::domain::subscription::{Phase, SubscriptionFacts};
use crate::domain::tier::{EntitlementId, TimeInterval};

/// Whom a token speaks for.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The user, or the technical user.
    pub user_account_info: UserAccountInfo,
}

/// A user, or a technical user, with its tenant.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserAccountInfo {
    /// The subject of the token (sub); of an outside provider's token the person's id here.
    pub user_id: String,
    /// What people call it: the name of the technical user; the display name in the person's User, or the
    /// person's id.
    pub user_name: String,
    /// The tenant.
    pub legal_entity: LegalEntity,
    /// The roles in the token; of an outside provider's those that its mapping and the subscription give.
    pub roles: Vec<Role>,
    /// The subscription that holds now.
    pub current_subscription: Subscription,
}

/// A tenant.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LegalEntity {
    /// As it stands in tokens.
    pub id: String,
    /// What people call it.
    pub name: String,
}

/// A role.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Role {
    /// As it stands in tokens.
    pub id: String,
}

/// The subscriptions of a legal entity.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Subscriptions {
    /// The one that begins first comes first.
    pub subscriptions: Vec<Subscription>,
}

/// A subscription of a legal entity.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    /// Its name among those of the legal entity.
    pub id: String,
    /// Whose it is.
    pub legal_entity_id: String,
    /// Where it is in its period. Of several that are ACTIVE the one that began last is the current one.
    pub status: Phase,
    /// The tier.
    pub tier_name: String,
    /// When it begins; absent: it began before all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub period_from: Option<String>,
    /// When it ends; absent: not by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub period_to: Option<String>,
    /// What it gives.
    pub limits: Vec<EntitlementLimit>,
}

/// How much of something a subscription gives.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntitlementLimit {
    /// Of what.
    pub entitlement_id: EntitlementId,
    /// How many, or how many bytes; absent where there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// That there is no limit.
    pub unlimited: bool,
    /// Whether it holds over everything of its kind together, rather than for each one.
    pub cumulative: bool,
    /// Of a rate: the interval in which it is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_interval_bound: Option<TimeInterval>,
}

impl Subscription {
    fn of(facts: &SubscriptionFacts, settings: &Settings, now: Timestamp) -> Self {
        let limits = facts.effective_entitlements(settings);
        let limits = limits.into_iter().map(|(id, limit)| EntitlementLimit {
            entitlement_id: id,
            limit: limit.limit,
            unlimited: limit.unlimited,
            cumulative: id.is_cumulative(),
            time_interval_bound: limit.time_interval_bound,
        });
        Self {
            id: facts.name.clone(),
            legal_entity_id: facts.legal_entity_id.clone(),
            status: facts.phase(now),
            tier_name: facts.tier.clone(),
            period_from: facts.period_from.map(|at| at.to_string()),
            period_to: facts.period_to.map(|at| at.to_string()),
            limits: limits.collect(),
        }
    }
}

/// `GET /account`
pub(super) fn account<B>(app: &App, request: &Request<B>) -> Reply {
    answer(app, request, |view, holder, now| {
        let role = |id: &str| Role { id: id.to_owned() };
        let subscription = holder.subscription();
        let person = |id| view.snapshot.people.get(&subscription.namespace, id);
        let name_of = |id| person(id).and_then(|person| person.display_name.as_ref());
        let (user_id, user_name, roles) = match holder {
            Holder::Own(bearer) => {
                let token = &bearer.token;
                let roles = token.claims.get(&app.settings.claims.roles);
                let roles = roles.and_then(Value::as_array).into_iter().flatten();
                let name = if bearer.for_person {
                    name_of(&token.subject).unwrap_or(&token.subject)
                } else {
                    &bearer.client.name
                };
                let roles = roles.filter_map(Value::as_str).map(role).collect();
                (&token.subject, name, roles)
            }
            Holder::Outside(vouched) => {
                let subject = &vouched.subject;
                let roles = outside_claims::roles(subject, vouched.subscription);
                let roles = roles.into_iter().map(role).collect();
                (
                    &subject.id,
                    name_of(&subject.id).unwrap_or(&subject.id),
                    roles,
                )
            }
        };
        Account {
            user_account_info: UserAccountInfo {
                user_id: user_id.clone(),
                user_name: user_name.clone(),
                legal_entity: LegalEntity {
                    id: subscription.legal_entity_id.clone(),
                    name: subscription.legal_entity_name.clone(),
                },
                roles,
                current_subscription: Subscription::of(subscription, &app.settings, now),
            },
        }
    })
}

/// `GET /account/subscriptions`
pub(super) fn subscriptions<B>(app: &App, request: &Request<B>) -> Reply {
    answer(app, request, |_, holder, now| {
        let mut all: Vec<_> = holder.subscriptions().iter().collect();
        all.sort_by_key(|s| (s.period_from, s.created));
        let of = |facts| Subscription::of(facts, &app.settings, now);
        Subscriptions {
            subscriptions: all.into_iter().map(of).collect(),
        }
    })
}

/// Whose token it is, once it is known to hold.
enum Holder<'v> {
    /// One of this issuer.
    Own(Bearer<'v>),
    /// One that an outside provider vouches for.
    Outside(Vouched<'v>),
}

impl Holder<'_> {
    fn subscription(&self) -> &SubscriptionFacts {
        match self {
            Self::Own(bearer) => bearer.subscription,
            Self::Outside(vouched) => vouched.subscription,
        }
    }

    fn subscriptions(&self) -> &[SubscriptionFacts] {
        match self {
            Self::Own(bearer) => &bearer.client.subscriptions,
            Self::Outside(vouched) => vouched.subscriptions,
        }
    }
}

fn answer<B, T: Serialize>(
    app: &App,
    request: &Request<B>,
    body: impl FnOnce(&View, &Holder<'_>, Timestamp) -> T,
) -> Reply {
    let view = app.snapshots.load();
    let holder = match of_request(app, &view, request) {
        Ok(holder) => holder,
        Err(no) => return no.into_reply(app),
    };
    let json = serde_json::to_vec(&body(&view, &holder, app.clock.now())).unwrap_or_default();
    let length = json.len();
    let mut reply = reply(StatusCode::OK, "application/json", json);
    set(&mut reply, CACHE_CONTROL, "no-store");
    if *request.method() == Method::HEAD {
        reply.headers_mut().insert(CONTENT_LENGTH, length.into());
        *reply.body_mut() = Full::default();
    }
    reply
}

/// Why a request is told nothing.
enum No {
    InUrl,
    Nothing,
    Malformed,
    Invalid,
    NotNow(Refusal),
}

impl No {
    /// What is answered (RFC 6750 §3).
    fn into_reply(self, app: &App) -> Reply {
        let (status, error, detail) = match self {
            Self::InUrl => (
                StatusCode::BAD_REQUEST,
                Some("invalid_request"),
                "An access token must never stand in the URL: it is logged on its way. Have this \
                 one revoked, and send the next in the Authorization header.",
            ),
            Self::Nothing => (
                StatusCode::UNAUTHORIZED,
                None,
                "An access token is needed, in the header Authorization: Bearer.",
            ),
            Self::Malformed => (
                StatusCode::BAD_REQUEST,
                Some("invalid_request"),
                "The Authorization header holds no token, or there is more than one such header.",
            ),
            Self::Invalid => (
                StatusCode::UNAUTHORIZED,
                Some("invalid_token"),
                "The token is of no issuer that is trusted here, or holds no more.",
            ),
            Self::NotNow(why) => return problem(why.status(), why.error.description()),
        };
        refused(app, status, error, detail)
    }
}

/// The token of a request's `Authorization` header, if it holds.
fn of_request<'v, B>(app: &App, view: &'v View, request: &Request<B>) -> Result<Holder<'v>, No> {
    if request.uri().query().is_some_and(holds_token) {
        return Err(No::InUrl);
    }
    let presented = presented(request.headers())?;
    bearer::can_tell(app, view).map_err(No::NotNow)?;
    if let Some(bearer) = bearer::living(app, view, presented) {
        return Ok(Holder::Own(bearer));
    }
    let token = Unverified::parse(presented).ok_or(No::Invalid)?;
    let vouched = outside_token::of_anyone(app, view, &token);
    vouched.map(Holder::Outside).map_err(|why| {
        if why.is_not_yet() {
            No::NotNow(Untaken::not_yet())
        } else {
            No::Invalid
        }
    })
}

/// The one bearer token that is presented.
fn presented(headers: &HeaderMap) -> Result<&str, No> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let line = lines.next().ok_or(No::Nothing)?;
    if lines.next().is_some() {
        return Err(No::Malformed);
    }
    let line = line.to_str().map_err(|_| No::Malformed)?;
    let (scheme, token) = line.split_once(' ').unwrap_or((line, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(No::Nothing);
    }
    let token = token.trim_start_matches(' ');
    // `b64token` (RFC 6750 §2.1).
    let sound = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if token.is_empty() || !token.bytes().all(sound) {
        return Err(No::Malformed);
    }
    Ok(token)
}

fn holds_token(query: &str) -> bool {
    query
        .split('&')
        .any(|pair| pair.split('=').next() == Some("access_token"))
}

/// A problem with the challenge that says how to come again (RFC 6750 §3).
fn refused(app: &App, status: StatusCode, error: Option<&str>, detail: &str) -> Reply {
    let mut reply = problem(status, detail);
    let mut challenge = format!("Bearer realm=\"{}\"", app.settings.issuer);
    if let Some(error) = error {
        let _ = write!(
            challenge,
            ", error=\"{error}\", error_description=\"{detail}\""
        );
    }
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    reply
}
