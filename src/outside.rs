//! Requests to outside identity providers. Where they go is written by tenants, so each is bounded: https
//! as a rule, the address judged just before it is connected to, no redirects, and little of time and
//! memory. Nothing here knows Kubernetes.

mod request;
mod roots;

use std::time::Duration;

use crate::crypto::public_key::PublicKey;
use crate::domain::address::Cidr;
use crate::domain::client_key::GivenJwk;
use crate::domain::provider::discovery::{self, DocumentFault};

pub use request::Limits;
use request::{Request, get};

/// Where a provider's keys are to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where its metadata is.
    pub well_known_uri: String,
    /// What its issuer may be; none: the prefix of that URI.
    pub issuers: Vec<String>,
    /// Whether http is refused.
    pub require_https: bool,
    /// The authorities that its certificate is to be from (PEM); none: those of the system.
    pub ca_bundle: Option<String>,
}

/// What a provider answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// What its metadata calls it.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_uri: String,
    /// Its keys that can be used; never none.
    pub keys: Vec<GivenJwk>,
    /// How long they are good, by the answer's `Cache-Control`; none: it does not say.
    pub max_age: Option<Duration>,
}

/// Why a provider's keys could not be had; a sentence without its end. It tells nothing of the network that
/// whoever wrote the resource could not see: no address, and nothing of an answer that was no metadata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It did not answer, or not now.
    #[error("{0}")]
    Unreachable(String),
    /// It answered what can not be used, or may not be asked where it is: a person has to do something.
    #[error("{0}")]
    Refused(String),
    /// It says that it is another issuer.
    #[error("{0}")]
    Issuer(String),
}

/// Asks a provider for its metadata and keys.
///
/// # Errors
/// Why they could not be had.
pub async fn fetch(source: &Source, allowed: &[Cidr], limits: Limits) -> Result<Fetched, Fault> {
    let request = |uri| Request {
        uri,
        require_https: source.require_https,
        ca_bundle: source.ca_bundle.as_deref(),
        allowed,
        limits,
    };
    let uri = &source.well_known_uri;
    let metadata = get(request(uri))
        .await
        .map_err(|why| why.of("its metadata"))?;
    let found = discovery::read_discovery(&metadata.body, uri, &source.issuers);
    let found = found.map_err(|why| match why {
        DocumentFault::Issuer(why) => Fault::Issuer(why),
        DocumentFault::Unsound(why) => Fault::Refused(why),
    })?;
    let jwks = get(request(&found.jwks_uri)).await;
    let jwks = jwks.map_err(|why| why.of("its JWKS"))?;
    let mut keys = discovery::read_jwks(&jwks.body).map_err(Fault::Refused)?;
    keys.retain(|key| PublicKey::from_jwk(key, 2048).is_ok());
    if keys.is_empty() {
        return Err(Fault::Refused(
            "its JWKS has no key that can be used: RSA of 2048 to 4096 bits, EC on P-256, P-384 or P-521, or Ed25519, for signatures".into(),
        ));
    }
    Ok(Fetched {
        issuer: found.issuer,
        jwks_uri: found.jwks_uri,
        keys,
        max_age: jwks.max_age,
    })
}

impl Fault {
    fn of(self, what: &str) -> Self {
        match self {
            Self::Unreachable(why) => Self::Unreachable(format!("{what} could not be read: {why}")),
            Self::Refused(why) => Self::Refused(format!("{what} can not be read: {why}")),
            Self::Issuer(why) => Self::Issuer(why),
        }
    }
}

#[cfg(test)]
#[path = "outside/tests.rs"]
mod tests;
