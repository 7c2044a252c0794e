//! What identity means here, with no Kubernetes, no IO, no async, no clock and no randomness:
//! time and facts come in as arguments, decisions go out as values. `tests/architecture.rs`
//! holds this module to it.
//!
//! Reading order: [`algorithm`] and [`jwk`] (what a key is), [`rotation`] (the life of a ring of
//! keys), [`tier`] and [`subscription`] (what a
//! tenant may), [`client`] and [`grant`] (who gets which token), [`rate`] (how often), [`revocation`] (until when), [`claims`] (what stands in it),
//! [`assertion`] and [`client_key`] (how a client proves who it is without a secret),
//! [`provider`] (which tokens of others are taken), [`outside_claims`] (what is told of them), [`user`] and
//! [`enrolment`] (what is noted here of their people), [`address`] (where requests may go),
//! [`vocabulary`] (what a manifest may say), [`lease`] (which replica leads).

pub mod address;
pub mod algorithm;
pub mod assertion;
pub mod claims;
pub mod client;
pub mod client_key;
pub mod clock_trust;
pub mod enrolment;
pub mod exchange;
pub mod grant;
pub mod jwk;
pub mod lease;
pub mod moment;
pub mod names;
pub mod oauth_error;
pub mod outside_claims;
pub mod period;
pub mod preference;
pub mod provider;
pub mod rate;
pub mod reasons;
pub mod revocation;
pub mod rotation;
pub mod service_account;
pub mod settings;
pub mod staleness;
pub mod subscription;
pub mod supply;
pub mod tier;
pub mod user;
pub mod vocabulary;
