//! The HTTP server: the router in memory, rule by rule, and real listeners for what needs them.

#[path = "http/account.rs"]
mod account;
#[path = "http/apart.rs"]
mod apart;
#[path = "http/assertions.rs"]
mod assertions;
#[path = "http/audit.rs"]
mod audit;
#[path = "http/authentication.rs"]
mod authentication;
#[path = "http/connections.rs"]
mod connections;
#[path = "http/documents.rs"]
mod documents;
#[path = "http/exchange.rs"]
mod exchange;
#[path = "http/introspect.rs"]
mod introspect;
#[path = "http/jwt.rs"]
mod jwt;
#[path = "http/listening.rs"]
mod listening;
#[path = "http/openapi.rs"]
mod openapi;
#[path = "http/outside.rs"]
mod outside;
#[path = "http/people.rs"]
mod people;
#[path = "http/revoke.rs"]
mod revoke;
#[path = "http/secrets.rs"]
mod secrets;
#[path = "http/staleness.rs"]
mod staleness;
#[path = "http/subject_tokens.rs"]
mod subject_tokens;
#[path = "http/support.rs"]
mod support;
#[path = "http/throttle.rs"]
mod throttle;
#[path = "http/tls.rs"]
mod tls;
#[path = "http/token.rs"]
mod token;
#[path = "http/users.rs"]
mod users;
#[path = "http/workloads.rs"]
mod workloads;
