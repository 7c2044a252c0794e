//! The public side: which path goes where.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body::Body;

use super::assertions::Assertions;
use super::body::Bodies;
use super::enrol::{Enrolments, Newcomers};
use super::metrics::Metrics;
use super::outside_token::KeysWanted;
use super::pulse::Pulse;
use super::readiness::Readiness;
use super::replay::ReplayLimits;
use super::reply::{READ, Reply, method_not_allowed, not_found, problem, reads};
use super::revoke::Outbox;
use super::secrets::{HashLimits, Secrets};
use super::snapshot::SnapshotStore;
use super::throttle::Throttle;
use super::{account, documents, introspect, revoke, token};
use crate::clock::SharedClock;
use crate::domain::settings::Settings;

/// What an [`App`] is made of.
pub struct Parts {
    /// The release's settings; the issuer is sound ([`Settings::problems`]).
    pub settings: Arc<Settings>,
    /// What is served.
    pub snapshots: Arc<SnapshotStore>,
    /// The time.
    pub clock: SharedClock,
    /// What the admin port says.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How much bcrypt may go on at once.
    pub hash_limits: HashLimits,
    /// How many client assertions are remembered, so that none is used twice.
    pub replay_limits: ReplayLimits,
    /// How long a client may take to send a request's body; [`super::body::BODY_TIMEOUT`] as a rule.
    pub body_timeout: Duration,
    /// Where what requests make durable is noted.
    pub outbox: Arc<dyn Outbox>,
    /// Who is told that an outside provider has a key that is not known here.
    pub keys_wanted: Arc<dyn KeysWanted>,
    /// Where people who are new are noted.
    pub enrolments: Arc<dyn Enrolments>,
}

/// The server of tokens and documents.
pub struct App {
    pub(super) settings: Arc<Settings>,
    pub(super) snapshots: Arc<SnapshotStore>,
    pub(super) clock: SharedClock,
    pub(super) readiness: Readiness,
    pub(super) metrics: Arc<Metrics>,
    pub(super) secrets: Secrets,
    pub(super) throttle: Throttle,
    pub(super) assertions: Assertions,
    pub(super) body_timeout: Duration,
    pub(super) bodies: Bodies,
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) keys_wanted: Arc<dyn KeysWanted>,
    pub(super) enrolments: Arc<dyn Enrolments>,
    pub(super) newcomers: Newcomers,
    /// Beats while this is served.
    pub pulse: Pulse,
    /// `WWW-Authenticate` of a 401.
    pub(super) challenge: HeaderValue,
    /// `Cache-Control` of the documents.
    pub(super) cache_control: HeaderValue,
    /// The document of `/openapi.json`, written at its first use.
    pub(super) openapi: OnceLock<Bytes>,
    routes: [(String, Route); 12],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Token,
    Revoke,
    Introspect,
    RevokeDevice,
    Account,
    Subscriptions,
    Metadata,
    Jwks,
    OpenApi,
}

impl App {
    /// A server of these parts.
    pub fn new(parts: Parts) -> Arc<Self> {
        Self::with_secrets(parts, |secrets| secrets)
    }

    /// The same with a checker of secrets that is broken on purpose: for benchmarks.
    #[doc(hidden)]
    pub fn with_secrets(parts: Parts, prepare: impl FnOnce(Secrets) -> Secrets) -> Arc<Self> {
        let Parts {
            settings,
            snapshots,
            clock,
            readiness,
            metrics,
            hash_limits,
            replay_limits,
            body_timeout,
            outbox,
            keys_wanted,
            enrolments,
        } = parts;
        let path = settings.issuer_path();
        let routes = [
            (format!("{path}/oauth/token"), Route::Token),
            (format!("{path}/oauth/revoke"), Route::Revoke),
            (format!("{path}/oauth/introspect"), Route::Introspect),
            (format!("{path}/auth/device/revoke"), Route::RevokeDevice),
            (format!("{path}/account"), Route::Account),
            (
                format!("{path}/account/subscriptions"),
                Route::Subscriptions,
            ),
            (format!("{path}/openapi.json"), Route::OpenApi),
            (format!("{path}/.well-known/jwks.json"), Route::Jwks),
            // Appended (OpenID Connect Discovery §4) and inserted (RFC 8414 §3.1): the same for
            // an issuer without a path.
            (
                format!("{path}/.well-known/openid-configuration"),
                Route::Metadata,
            ),
            (
                format!("{path}/.well-known/oauth-authorization-server"),
                Route::Metadata,
            ),
            (
                format!("/.well-known/openid-configuration{path}"),
                Route::Metadata,
            ),
            (
                format!("/.well-known/oauth-authorization-server{path}"),
                Route::Metadata,
            ),
        ];
        let header = |value: String, otherwise| {
            HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static(otherwise))
        };
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", settings.issuer);
        let cache_control = format!("public, max-age={}", settings.jwks.max_age.as_secs());
        Arc::new(Self {
            challenge: header(challenge, "Basic realm=\"token\""),
            cache_control: header(cache_control, "no-cache"),
            secrets: prepare(Secrets::new(
                hash_limits,
                settings.secrets,
                Arc::clone(&metrics),
            )),
            throttle: Throttle::new(settings.throttle, Arc::clone(&clock), Arc::clone(&metrics)),
            pulse: Pulse::new(Arc::clone(&clock)),
            newcomers: Newcomers::new(&settings, Arc::clone(&clock)),
            assertions: Assertions::new(replay_limits, Arc::clone(&metrics)),
            settings,
            snapshots,
            clock,
            readiness,
            metrics,
            body_timeout,
            bodies: Bodies::default(),
            outbox,
            keys_wanted,
            enrolments,
            openapi: OnceLock::new(),
            routes,
        })
    }

    /// Every path that is served.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().map(|(path, _)| path.as_str())
    }

    /// Answers a request. A panic on the way is a 500, and the process lives.
    pub async fn respond<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes>,
    {
        AssertUnwindSafe(self.route(request))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                self.metrics.panics.inc();
                tracing::error!("A request handler panicked. This is a bug; please report it.");
                problem(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "The server failed to answer this request.",
                )
            })
    }

    async fn route<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes>,
    {
        let path = request.uri().path();
        let Some((_, route)) = self.routes.iter().find(|(p, _)| p == path) else {
            return not_found();
        };
        match route {
            Route::Token if *request.method() == Method::POST => {
                token::respond(self, request).await
            }
            Route::Revoke if *request.method() == Method::POST => {
                revoke::respond(self, request).await
            }
            Route::Introspect if *request.method() == Method::POST => {
                introspect::respond(self, request).await
            }
            Route::RevokeDevice if *request.method() == Method::POST => {
                revoke::device(self, request).await
            }
            Route::Token | Route::Revoke | Route::Introspect | Route::RevokeDevice => {
                method_not_allowed("POST")
            }
            _ if !reads(request.method()) => method_not_allowed(READ),
            Route::Account => account::account(self, &request),
            Route::Subscriptions => account::subscriptions(self, &request),
            Route::Metadata => documents::metadata(self, &request),
            Route::Jwks => documents::jwks(self, &request),
            Route::OpenApi => documents::openapi(self, &request),
        }
    }

    /// Brings the gauges up to date; call it before each scrape.
    pub fn refresh_gauges(&self) {
        let view = self.snapshots.load();
        let metrics = &self.metrics;
        let age = view.published_at.map_or(-1, |at| {
            self.clock
                .now()
                .as_second()
                .saturating_sub(at.as_second())
                .max(0)
        });
        metrics.snapshot_age.set(age);
        metrics
            .snapshot_generation
            .set(view.generation.try_into().unwrap_or(i64::MAX));
        metrics
            .clients
            .set(view.snapshot.clients.len().try_into().unwrap_or(i64::MAX));
        metrics
            .remembered
            .set(view.remembered.len().try_into().unwrap_or(i64::MAX));
        let (tokens, clients) = view.snapshot.revoked.count();
        metrics.revoked(tokens, clients);
        let (users, suspended) = view.snapshot.people.count();
        metrics.people(users, suspended);
        metrics
            .contact_age
            .set(view.contact_age(&*self.clock).as_secs_f64());
        metrics.ready.set(self.readiness.is_ready().into());
        metrics.active_keys.clear();
        for ring in view.rings(self.clock.now()) {
            let labels = vec![
                ("signing_key", ring.name.clone()),
                ("alg", ring.active.algorithm().to_string()),
                ("kid", ring.active.key_id().to_owned()),
            ];
            metrics.active_keys.get_or_create(&labels).set(1);
        }
    }
}
