//! `GET /openapi.json`: everything that the public port serves, as OpenAPI 3.1, whose schemas are those
//! of the very types that answers are made of.

// What is said of fields is read in a document, where backticks would stand as they are.
#![allow(clippy::doc_markdown)]

use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::account::{Account, Subscriptions};
use super::documents::Metadata;
use super::introspect::{self, Introspection};
use super::reply::{ErrorBody, Problem};
use super::token::IssuedBody;
use crate::domain::jwk::JwkSet;
use crate::domain::settings::Settings;

/// A client that authenticates in the form (RFC 6749 §2.3.1, RFC 7521 §4.2), where it does not by HTTP
/// Basic.
#[derive(Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "RFC 6749 calls them so")]
struct ClientCredentials {
    /// The client id; needed with client_secret, and with the token of a ServiceAccount.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    /// The client secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
    /// urn:ietf:params:oauth:client-assertion-type:jwt-bearer
    #[serde(skip_serializing_if = "Option::is_none")]
    client_assertion_type: Option<String>,
    /// A JWT that the client has signed, or the token of its ServiceAccount.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_assertion: Option<String>,
}

/// A request for a token.
#[derive(Serialize, JsonSchema)]
struct TokenRequest {
    /// client_credentials, or urn:ietf:params:oauth:grant-type:token-exchange (RFC 8693).
    grant_type: String,
    /// Of a token exchange: the token of the person whom the client acts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_token: Option<String>,
    /// urn:ietf:params:oauth:token-type:access_token or urn:ietf:params:oauth:token-type:jwt
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_token_type: Option<String>,
    /// A token of the client's own, which says again that the client acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_token: Option<String>,
    /// As subject_token_type.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor_token_type: Option<String>,
    /// As subject_token_type; absent: an access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_token_type: Option<String>,
    /// Scopes with one space between them; absent: all that the client has, and of a token exchange all of
    /// these that the person's token has too, where that names any.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// Whom the token is for, as absolute URIs (RFC 8707); absent: the first of the client's audiences.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Vec<String>>,
    /// The same by any name (RFC 8693 §2.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<Vec<String>>,
    #[serde(flatten)]
    client: ClientCredentials,
}

/// A request about a token.
#[derive(Serialize, JsonSchema)]
struct AboutToken {
    /// The token.
    token: String,
    /// Of no consequence: there are access tokens alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type_hint: Option<String>,
    #[serde(flatten)]
    client: ClientCredentials,
}

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

struct Builder {
    generator: SchemaGenerator,
    paths: Map<String, Value>,
}

/// One way to ask for something.
struct Operation {
    method: &'static str,
    id: &'static str,
    summary: &'static str,
    /// The schema of the form that is posted, and whether there has to be one.
    form: Option<(Value, bool)>,
    /// Names of security schemes, each of which will do.
    security: &'static [&'static str],
    responses: Map<String, Value>,
}

impl Builder {
    fn schema<T: JsonSchema>(&mut self) -> Value {
        self.generator.subschema_for::<T>().to_value()
    }

    fn add(&mut self, path: &str, operation: Operation) {
        let Operation {
            method,
            id,
            summary,
            form,
            security,
            responses,
        } = operation;
        let security: Vec<_> = security.iter().map(|name| json!({*name: []})).collect();
        let mut described = json!({
            "operationId": id, "summary": summary, "security": security, "responses": responses,
        });
        if let Some((schema, required)) = form {
            described["requestBody"] = json!({
                "required": required,
                "content": {"application/x-www-form-urlencoded": {"schema": schema}},
            });
        }
        let item = self.paths.entry(path).or_insert_with(|| json!({}));
        item[method] = described;
    }

    /// Answers of an OAuth endpoint: `ok`, and those of RFC 6749 §5.2.
    fn oauth(&mut self, ok: Value, forbids: bool) -> Map<String, Value> {
        let error = self.schema::<ErrorBody<'_>>();
        let problem = self.schema::<Problem<'_>>();
        let mut all = Map::from_iter([("200".to_owned(), ok)]);
        for (status, what) in [
            ("400", "The request is wrong."),
            ("401", "The client is not authenticated."),
            ("403", "The client may not do this."),
            ("408", "The body took too long to arrive."),
            ("413", "The body is too long."),
            (
                "429",
                "Too often: come again after Retry-After, in seconds.",
            ),
            ("503", "Not now: come again after Retry-After, in seconds."),
        ] {
            if status != "403" || forbids {
                let mut described = answer(what, &[(JSON, &error)]);
                add_headers(status, &mut described);
                all.insert(status.into(), described);
            }
        }
        let failed = answer(
            "The server is at fault.",
            &[(JSON, &error), (PROBLEM, &problem)],
        );
        all.insert("500".into(), failed);
        all
    }

    /// Answers of what is read: `ok`, and problems with these statuses.
    fn read(&mut self, ok: Value, problems: &[&str]) -> Map<String, Value> {
        let problem = self.schema::<Problem<'_>>();
        let mut all = Map::from_iter([("200".to_owned(), ok)]);
        for status in problems.iter().chain(&["500"]) {
            let what = match *status {
                "400" => "More than one token, none that is sound, or one in the URL.",
                "401" => {
                    "No token, or none that holds: WWW-Authenticate says which (RFC 6750 section 3)."
                }
                "503" => "Not now: come again after Retry-After, in seconds.",
                _ => "The server is at fault.",
            };
            let mut described = answer(what, &[(PROBLEM, &problem)]);
            // Whoever presents a token is told how to, whatever is wrong with it.
            let like = if *status == "400" { "401" } else { *status };
            add_headers(like, &mut described);
            all.insert((*status).into(), described);
        }
        all
    }
}

fn answer(what: &str, content: &[(&str, &Value)]) -> Value {
    if content.is_empty() {
        return json!({"description": what});
    }
    let content = content.iter();
    let content: Map<_, _> = content
        .map(|(media, schema)| ((*media).to_owned(), json!({"schema": schema})))
        .collect();
    json!({"description": what, "content": content})
}

/// The headers that an answer with that status always has.
fn add_headers(status: &str, answer: &mut Value) {
    let (name, header) = match status {
        "401" => (
            "WWW-Authenticate",
            json!({
                "description": "How to authenticate (RFC 9110 section 11.6.1).",
                "required": true, "schema": {"type": "string"},
            }),
        ),
        "429" | "503" => (
            "Retry-After",
            json!({
                "description": "After how many seconds to come again (RFC 9110 section 10.2.3).",
                "required": true, "schema": {"type": "integer", "minimum": 1},
            }),
        ),
        _ => return,
    };
    answer["headers"] = json!({name: header});
}

const CLIENT: &[&str] = &["client_secret_basic", "client_in_form"];
const BEARER: &[&str] = &["access_token"];

/// The document of a release.
pub fn document(settings: &Settings) -> Value {
    let with = |s: &mut schemars::generate::SchemaSettings| {
        // What may be left out of an answer is not required.
        s.contract = Contract::Serialize;
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
    };
    let mut b = Builder {
        generator: SchemaSettings::draft2020_12().with(with).into_generator(),
        paths: Map::new(),
    };
    oauth(&mut b);
    accounts(&mut b);
    documents(&mut b, settings);
    let schemas = b.generator.take_definitions(true);
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Chancery",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Tokens for technical users, and what verifiers of tokens need.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": settings.issuer}],
        "paths": b.paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "client_secret_basic": {"type": "http", "scheme": "basic",
                    "description": "Client id and secret, each form-encoded before (RFC 6749 section 2.3.1)."},
                "client_in_form": {"type": "oauth2",
                    "description": "In the form: client_id and client_secret, or a client assertion (RFC 7521 section 4.2).",
                    "flows": {"clientCredentials": {"tokenUrl": settings.token_url(), "scopes": {}}}},
                "access_token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "An access token of this issuer, or of an outside provider that is trusted here (RFC 6750 section 2.1)."},
            },
        },
    })
}

fn oauth(b: &mut Builder) {
    let issued = b.schema::<IssuedBody>();
    let form = b.schema::<TokenRequest>();
    let responses = b.oauth(answer("The token.", &[(JSON, &issued)]), false);
    b.add(
        "/oauth/token",
        Operation {
            method: "post",
            id: "token",
            summary: "An access token (RFC 6749, RFC 9068)",
            form: Some((form, true)),
            security: CLIENT,
            responses,
        },
    );
    let introspection = b.schema::<Introspection>();
    let about = b.schema::<AboutToken>();
    let jwt = json!({"type": "string", "description": "A JWT with the same answer in token_introspection."});
    let ok = answer(
        "What stands in the token, if it holds.",
        &[(JSON, &introspection), (introspect::JWT, &jwt)],
    );
    let responses = b.oauth(ok, true);
    b.add(
        "/oauth/introspect",
        Operation {
            method: "post",
            id: "introspect",
            summary: "Whether a token of the client's tenant holds (RFC 7662, RFC 9701)",
            form: Some((about.clone(), true)),
            security: CLIENT,
            responses,
        },
    );
    let responses = b.oauth(
        answer("It is revoked, or there is nothing to revoke.", &[]),
        false,
    );
    b.add(
        "/oauth/revoke",
        Operation {
            method: "post",
            id: "revoke",
            summary: "Revokes a token that the client was issued (RFC 7009)",
            form: Some((about, true)),
            security: CLIENT,
            responses,
        },
    );
    let form = b.schema::<ClientCredentials>();
    let ok = answer(
        "The device is revoked, and its companion agent with it.",
        &[],
    );
    let responses = b.oauth(ok, true);
    b.add(
        "/auth/device/revoke",
        Operation {
            method: "post",
            id: "revokeDevice",
            summary: "A device revokes itself",
            form: Some((form, true)),
            security: CLIENT,
            responses,
        },
    );
}

fn accounts(b: &mut Builder) {
    let (account, all) = (b.schema::<Account>(), b.schema::<Subscriptions>());
    for (path, id, summary, schema) in [
        ("/account", "account", "Whom the token speaks for", account),
        (
            "/account/subscriptions",
            "subscriptions",
            "The subscriptions of its legal entity",
            all,
        ),
    ] {
        let responses = b.read(answer(summary, &[(JSON, &schema)]), &["400", "401", "503"]);
        b.add(
            path,
            Operation {
                method: "get",
                id,
                summary,
                form: None,
                security: BEARER,
                responses,
            },
        );
    }
}

fn documents(b: &mut Builder, settings: &Settings) {
    let metadata = b.schema::<Metadata<'_>>();
    let keys = b.schema::<JwkSet>();
    let read = |id, summary, responses| Operation {
        method: "get",
        id,
        summary,
        form: None,
        security: &[],
        responses,
    };
    let path = settings.issuer_path();
    let origin = settings.issuer.strip_suffix(path).unwrap_or_default();
    for (name, id, inserted_id, summary) in [
        (
            "/.well-known/openid-configuration",
            "openidConfiguration",
            "openidConfigurationInserted",
            "The metadata of OpenID Connect Discovery",
        ),
        (
            "/.well-known/oauth-authorization-server",
            "authorizationServer",
            "authorizationServerInserted",
            "The metadata of RFC 8414",
        ),
    ] {
        let ok = answer(summary, &[(JSON, &metadata)]);
        let responses = b.read(ok, &["503"]);
        b.add(name, read(id, summary, responses.clone()));
        if !path.is_empty() {
            let inserted = format!("{name}{path}");
            b.add(&inserted, read(inserted_id, summary, responses));
            b.paths[&inserted]["servers"] = json!([{"url": origin}]);
        }
    }
    let summary = "The keys that verify tokens (RFC 7517)";
    let ok = answer(summary, &[("application/jwk-set+json", &keys)]);
    let mut responses = b.read(ok, &["503"]);
    let unchanged = answer("It is the one that If-None-Match names.", &[]);
    responses.insert("304".into(), unchanged);
    b.add("/.well-known/jwks.json", read("jwks", summary, responses));
    let summary = "This document";
    let ok = answer(summary, &[(JSON, &json!({"type": "object"}))]);
    let responses = b.read(ok, &[]);
    b.add("/openapi.json", read("openapi", summary, responses));
}
