//! The documents that verifiers and clients read: the JWKS and the metadata.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_LENGTH, ETAG, IF_NONE_MATCH,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::App;
use super::grants::Grant;
use super::openapi;
use super::reply::{Reply, problem, reply, set};
use super::snapshot::{PublishedJwks, View};
use crate::domain::algorithm::Algorithm;
use crate::domain::settings::Settings;

/// How clients can prove who they are.
const AUTH_METHODS: [&str; 3] = [
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
];

/// The JWKS, byte for byte as it stands in its `ConfigMap` (RFC 7517 §5).
pub(super) fn jwks<B>(app: &App, request: &Request<B>) -> Reply {
    let view = app.snapshots.load();
    let Some(jwks) = &view.snapshot.jwks else {
        return no_keys_yet();
    };
    let etag = HeaderValue::from_str(&jwks.etag).ok();
    let mut reply = if etag.is_some() && none_match(request.headers(), &jwks.etag) {
        let mut reply = Reply::default();
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
        reply
    } else {
        document(request.method(), "application/jwk-set+json", &jwks.document)
    };
    if let Some(etag) = etag {
        reply.headers_mut().insert(ETAG, etag);
    }
    public(app, reply)
}

/// The metadata document of RFC 8414 §2 and `OpenID` Connect Discovery §3, the same for both.
pub(super) fn metadata<B>(app: &App, request: &Request<B>) -> Reply {
    let view = app.snapshots.load();
    let Some(jwks) = &view.snapshot.jwks else {
        return no_keys_yet();
    };
    let document_bytes = metadata_bytes(&view, &app.settings, jwks);
    public(
        app,
        document(request.method(), "application/json", document_bytes),
    )
}

/// The metadata of this issuer (RFC 8414 section 2, OpenID Connect Discovery section 3).
#[derive(Serialize, JsonSchema)]
pub struct Metadata<'a> {
    issuer: &'a str,
    token_endpoint: String,
    revocation_endpoint: String,
    introspection_endpoint: String,
    jwks_uri: String,
    grant_types_supported: [&'static str; Grant::ALL.len()],
    token_endpoint_auth_methods_supported: [&'static str; 3],
    token_endpoint_auth_signing_alg_values_supported: &'a [Algorithm],
    revocation_endpoint_auth_methods_supported: [&'static str; 3],
    revocation_endpoint_auth_signing_alg_values_supported: &'a [Algorithm],
    introspection_endpoint_auth_methods_supported: [&'static str; 3],
    introspection_endpoint_auth_signing_alg_values_supported: &'a [Algorithm],
    /// Of signed answers (RFC 9701 §7).
    introspection_signing_alg_values_supported: Vec<Algorithm>,
    /// None, but the member is required (RFC 8414 §2).
    response_types_supported: [&'static str; 0],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: Vec<Algorithm>,
}

fn metadata_bytes<'v>(view: &'v View, settings: &Settings, jwks: &PublishedJwks) -> &'v Bytes {
    view.metadata.get_or_init(|| {
        let issuer = &settings.issuer;
        let mut algorithms: Vec<_> = jwks.keys.keys.iter().map(|k| k.alg).collect();
        algorithms.sort();
        algorithms.dedup();
        let algs = settings.policy.allowed_algorithms.as_slice();
        let metadata = Metadata {
            issuer,
            token_endpoint: format!("{issuer}/oauth/token"),
            revocation_endpoint: format!("{issuer}/oauth/revoke"),
            introspection_endpoint: format!("{issuer}/oauth/introspect"),
            jwks_uri: format!("{issuer}/.well-known/jwks.json"),
            grant_types_supported: Grant::ALL.map(|(_, name)| name),
            token_endpoint_auth_methods_supported: AUTH_METHODS,
            token_endpoint_auth_signing_alg_values_supported: algs,
            revocation_endpoint_auth_methods_supported: AUTH_METHODS,
            revocation_endpoint_auth_signing_alg_values_supported: algs,
            introspection_endpoint_auth_methods_supported: AUTH_METHODS,
            introspection_endpoint_auth_signing_alg_values_supported: algs,
            introspection_signing_alg_values_supported: algorithms.clone(),
            response_types_supported: [],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: algorithms,
        };
        serde_json::to_vec(&metadata).unwrap_or_default().into()
    })
}

/// Everything that is served, as `OpenAPI` 3.1: the same as long as this process lives.
pub(super) fn openapi<B>(app: &App, request: &Request<B>) -> Reply {
    let described = app.openapi.get_or_init(|| {
        let described = openapi::document(&app.settings);
        serde_json::to_vec(&described).unwrap_or_default().into()
    });
    public(
        app,
        document(request.method(), "application/json", described),
    )
}

fn no_keys_yet() -> Reply {
    // Never an empty set: a verifier that believes it would refuse every token.
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "The issuer's keys are not known here yet.",
    )
}

fn document(method: &Method, content_type: &'static str, body: &Bytes) -> Reply {
    let mut reply = reply(StatusCode::OK, content_type, body.clone());
    if *method == Method::HEAD {
        reply
            .headers_mut()
            .insert(CONTENT_LENGTH, body.len().into());
        *reply.body_mut() = Full::default();
    }
    reply
}

/// Anyone may read it, a browser too, and keep it for a while.
fn public(app: &App, mut reply: Reply) -> Reply {
    set(&mut reply, ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    reply
        .headers_mut()
        .insert(CACHE_CONTROL, app.cache_control.clone());
    reply
}

/// Whether the client has this version already: weak comparison (RFC 9110 §13.1.2).
fn none_match(headers: &HeaderMap, etag: &str) -> bool {
    let strong = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || strong(tag) == strong(etag))
}
