//! The HTTP side: the token endpoint, the metadata documents, the JWKS, and the admin port. It
//! knows a [`snapshot::Snapshot`] and nothing of Kubernetes; a request makes no API call.
//!
//! Reading order: [`snapshot`] (what is served), [`app`] (which path goes where), [`token`] with
//! [`body`], [`form`], [`client_auth`], [`secrets`], [`assertions`] with [`trust`] and [`replay`], [`throttle`] with
//! [`source`], and [`grants`] (one file a grant), [`revoke`], [`introspect`] with [`bearer`]
//! (whether a token holds) and [`outside_token`] (the same of other issuers') with [`enrol`] (what Users make of
//! people), [`account`], [`documents`] (JWKS and metadata), [`openapi`], [`admin`],
//! [`readiness`], [`pulse`], [`metrics`], [`tls`], [`listener`], [`audit`] and [`run`].
//!
//! Routing is a `match` over twelve paths on plain hyper: nothing that a framework does is needed.

pub mod account;
pub mod admin;
pub mod app;
pub mod assertions;
pub mod audit;
pub mod bearer;
pub mod body;
pub mod client_auth;
pub mod documents;
pub mod enrol;
pub mod form;
pub mod grants;
pub mod introspect;
pub mod listener;
pub mod metrics;
pub mod openapi;
pub mod outside_token;
pub mod pulse;
pub mod readiness;
pub mod replay;
pub mod reply;
pub mod revoke;
pub mod run;
pub mod secrets;
pub mod snapshot;
pub mod source;
pub mod throttle;
pub mod tls;
pub mod token;
pub mod trust;
