//! Whether a client assertion is right (RFC 7523 §3), without telling anyone more than that.
//!
//! What is wrong with the text itself is told: it follows from the text alone. Beyond that a refusal
//! has the same words and costs one signature's verification, whoever the client is: for one that is
//! unknown, suspended, or has no such key, a key of the same algorithm is used whose private half
//! nobody has.

use std::collections::HashMap;
use std::sync::Arc;

use super::client_auth::{Asserted, Authenticated};
use super::metrics::{AssertionCheck, Metrics};
use super::replay::{Now, Refused, Replay, ReplayLimits};
use super::reply::Refusal;
use super::snapshot::View;
use super::throttle::TooOften;
use super::trust::Trusted;
use crate::clock::Clock;
use crate::crypto::public_key::PublicKey;
use crate::domain::algorithm::{Algorithm, KeyKind};
use crate::domain::assertion::{ASSERTION_TYPE, Assertion, Defect, Kind};
use crate::domain::client_key::GivenJwk;
use crate::domain::oauth_error::ErrorCode;
use crate::domain::settings::Settings;

/// Checks client assertions.
#[derive(Debug)]
pub struct Assertions {
    replay: Replay,
    /// Keys that verify nothing, by algorithm.
    decoys: HashMap<Algorithm, PublicKey>,
    metrics: Arc<Metrics>,
}

impl Assertions {
    /// A checker that has seen nothing yet.
    pub fn new(limits: ReplayLimits, metrics: Arc<Metrics>) -> Self {
        let decoy = |algorithm| {
            let key = PublicKey::from_jwk(&decoy(algorithm), 2048);
            (algorithm, key.expect("a sound key"))
        };
        Self {
            replay: Replay::new(limits),
            decoys: Algorithm::ALL.into_iter().map(decoy).collect(),
            metrics,
        }
    }

    /// The client that an assertion speaks for, if it proves that. `failed` counts one that does not,
    /// for the client id that it names if its form is sound. It is asked afterwards: a right one is
    /// never turned away for others' failures, and to verify one costs less than the request around it.
    pub(super) fn authenticate<'v>(
        &self,
        view: &'v View,
        asserted: &Asserted,
        settings: &Settings,
        clock: &dyn Clock,
        failed: impl Fn(Option<&str>) -> Result<(), TooOften>,
    ) -> Result<Authenticated<'v>, Refusal> {
        let now = Now {
            wall: clock.now().as_second(),
            elapsed: clock.elapsed(),
        };
        let counted = |client_id, refusal| match failed(client_id) {
            Ok(()) => refusal,
            Err(too_often) => Refusal::failed_too_often(too_often),
        };
        let told = |defect: Defect| {
            self.metrics.asserted(AssertionCheck::Malformed);
            let refusal = Refusal::new(ErrorCode::InvalidClient, defect.to_string());
            counted(None, refusal)
        };
        if asserted.kind.as_deref() != Some(ASSERTION_TYPE) {
            return Err(told(Defect(
                "it needs client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer beside it",
            )));
        }
        let text = asserted.assertion.as_deref();
        let text = text.ok_or(Defect("it is missing")).map_err(told)?;
        let assertion = Assertion::parse(text).map_err(told)?;
        let client_id = check(&assertion, asserted, settings, now).map_err(told)?;
        let outcome = self.prove(view, &assertion, client_id, now);
        self.metrics.asserted(match &outcome {
            Ok(_) => AssertionCheck::Verified,
            Err(Why::Wrong) => AssertionCheck::Wrong,
            Err(Why::Taken(Refused::Replayed)) => AssertionCheck::Replayed,
            Err(Why::Taken(Refused::Full)) => AssertionCheck::Shed,
        });
        outcome.map_err(|why| match why {
            Why::Wrong | Why::Taken(Refused::Replayed) => {
                counted(Some(client_id), Refusal::invalid_client())
            }
            Why::Taken(Refused::Full) => Refusal::unavailable(
                "as many assertions are in use as can be remembered: use access tokens until they \
                 expire, and give assertions short lives.",
            ),
        })
    }

    fn prove<'v>(
        &self,
        view: &'v View,
        assertion: &Assertion<'_>,
        client_id: &str,
        now: Now,
    ) -> Result<Authenticated<'v>, Why> {
        let client = view.active_client(client_id);
        let trusted = client.and_then(|_| view.snapshot.trusted.get(client_id));
        let key = match (assertion.claims.kind(), trusted.map(|t| &**t)) {
            (Kind::PrivateKey, Some(Trusted::PublicKey(keys))) => {
                keys.called_for(&assertion.header)
            }
            (Kind::ServiceAccount, Some(Trusted::ServiceAccount(account)))
                if account.is_of(&assertion.claims) =>
            {
                account.keys.called_for(&assertion.header)
            }
            _ => None,
        };
        let decoy = &self.decoys[&assertion.header.algorithm];
        let signed = assertion.signed.as_bytes();
        let verified = key
            .map_or(decoy, |key| key)
            .verifies(signed, &assertion.signature);
        let client = client.filter(|_| verified && key.is_some());
        let client = client.ok_or(Why::Wrong)?;
        if let (Kind::PrivateKey, Some(jti)) = (assertion.claims.kind(), &assertion.claims.id) {
            let expires = assertion.claims.expires;
            let taken = (self.replay).take(&client.namespace, &client.id, jti, expires, now);
            taken.map_err(Why::Taken)?;
        }
        let credential = key.map_or_else(String::new, |key| key.key_id().to_owned());
        Ok(Authenticated { client, credential })
    }
}

/// What the text itself must say; the client id that it speaks for.
fn check<'a>(
    assertion: &'a Assertion<'_>,
    asserted: &'a Asserted,
    settings: &Settings,
    now: Now,
) -> Result<&'a str, Defect> {
    let named = asserted.client_id.as_deref();
    match assertion.claims.kind() {
        Kind::PrivateKey => {
            assertion.check_private_key(&settings.issuer, now.wall)?;
            let subject = assertion.claims.subject.as_str();
            if named.is_some_and(|named| named != subject) {
                return Err(Defect("sub is not the client_id of the request"));
            }
            Ok(subject)
        }
        Kind::ServiceAccount => {
            let issuer = [settings.issuer.as_str()].into_iter();
            let others = settings.policy.service_account_audiences.iter();
            let audiences = issuer.chain(others.map(String::as_str));
            assertion.check_service_account(audiences, now.wall)?;
            named.ok_or(Defect(
                "client_id is missing beside the token of a ServiceAccount, and says for which technical user it is",
            ))
        }
    }
}

/// Why an assertion of sound form proves nothing.
enum Why {
    Wrong,
    Taken(Refused),
}

/// A public key for an algorithm. Their private halves were thrown away when they were made, and
/// what they verify counts for nothing.
fn decoy(algorithm: Algorithm) -> GivenJwk {
    let some = |text: &str| Some(text.to_owned());
    let mut jwk = GivenJwk {
        alg: some(algorithm.name()),
        ..GivenJwk::default()
    };
    match algorithm.key_kind() {
        KeyKind::Rsa => {
            jwk.kty = "RSA".into();
            jwk.n = some(RSA);
            jwk.e = some("AQAB");
        }
        KeyKind::Ed25519 => {
            jwk.kty = "OKP".into();
            jwk.crv = some("Ed25519");
            jwk.x = some("WGZW9-Ui4_NUbupAlrGI0mtTt907N-KTUjuPBkfiRl8");
        }
        KeyKind::Ec(curve) => {
            jwk.kty = "EC".into();
            jwk.crv = some(curve);
            let (x, y) = match algorithm {
                Algorithm::ES384 => P384,
                Algorithm::ES512 => P521,
                _ => P256,
            };
            (jwk.x, jwk.y) = (some(x), some(y));
        }
    }
    jwk
}

const RSA: &str = "xBtwZio4zXuUOkHXkJDZ9HcqpsuCg6_0Y77RZRIHoTkN0KRgqzDiKQsBMgd7WpQZBOTFEk7fnK_r8GRpj3WQK5k07TXqnPRwa-Yk72k8wxh5Gn1aqYz-8mvXrLHaB-zQA0glVvmEKgsxjpdzoCgztVwPKt_5tt60pxuCgeB4tmbk-Id81a3c8pB1LyVwdzCVNuFfFoLpV1cCJCQqWb1zGwVOJsppKj_YMzmikXkp2dG9XioPPYFoWKEqpdxEtUbHBU5x5zji4lIxczHFULA-N68Bc3qB81OmWw_djEWQwiWj60rCbluD7R6Uqz663D7vfgNUxbDJPZ9FjkHON0Z9IQ";
const P256: (&str, &str) = (
    "s6mHL57h_Vh5rATHi6UtEzrg-LFvox0m2SXTARbD3WA",
    "czf-xeLMe07lrPFkdXJHtefn3QorZmhY8MOBqMcngaA",
);
const P384: (&str, &str) = (
    "pJE3tr91oSg1i9gafDbovNjIMvrPsR1kbngXEM8JD46kcFCVNug1WCdbEVf5G72-",
    "STmV0tLjpLrqJb3tEa-xCZCU9DMFW9kjcYDcw8G3vfVR4zRCxTuDYDP-qJFKxL1T",
);
const P521: (&str, &str) = (
    "AMV7gxCfWsbnVbgyc_Xnq6qyf6CeYkQfblmlBPIFEtB7nmJKmIXFc0Vzmt3vhCRKBzNYpkTmjgQjByc05Yw9mvmE",
    "ANcasmzQIBrkjLes0NkyhTF-Z1ZHRc0GVuJ3DFNXt9_AOevg65GZQCWi_H0MELTK1Te5yMc_u5SMvBIRI7q1N_6x",
);
