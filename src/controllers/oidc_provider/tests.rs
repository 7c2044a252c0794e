//! What a visit decides, by what it sees.
#![allow(clippy::needless_pass_by_value)]

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::v1alpha1::{OidcProviderStatus, REACHABLE, STALLED};
use crate::controllers::Kind;
use crate::crypto::key_pair::KeyPair;
use crate::domain::algorithm::{Algorithm, RsaKeySize};
use crate::domain::client_key::GivenJwk;
use crate::domain::provider::Conflict;
use crate::outside::{Fault, Fetched};
use crate::tenancy::ProviderProblem;

const URI: &str = "https://corp.example/.well-known/openid-configuration";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn sure(second: i64) -> Moment {
    Moment {
        now: at(second),
        sure: true,
    }
}

fn resource(namespace: &str, more: Value) -> OidcProvider {
    let mut spec = json!({
        "wellKnownUri": URI, "issuers": ["https://corp.example"], "audiences": ["orders"],
    });
    let more = more.as_object().expect("an object").clone();
    spec.as_object_mut().expect("an object").extend(more);
    let provider = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "OidcProvider",
        "metadata": {
            "name": "corp", "namespace": namespace, "uid": "uid-1", "resourceVersion": "7", "generation": 1,
            "creationTimestamp": "1970-01-01T00:00:00Z",
        },
        "spec": spec,
    });
    serde_json::from_value(provider).expect("a provider")
}

fn key() -> GivenJwk {
    let pem = KeyPair::generate_pem(Algorithm::ES256, RsaKeySize::Bits2048).expect("a key");
    let pair = KeyPair::from_pem(Algorithm::ES256, &pem).expect("a pair");
    let json = serde_json::to_value(pair.public_jwk()).expect("JSON");
    serde_json::from_value(json).expect("a key")
}

fn fetched(keys: &[GivenJwk]) -> Fetched {
    Fetched {
        issuer: "https://corp.example".into(),
        jwks_uri: "https://corp.example/jwks".into(),
        keys: keys.to_vec(),
        max_age: None,
    }
}

fn seen(provider: &OidcProvider, problem: Option<ProviderProblem>) -> Seen {
    let settings = Settings::default();
    let judged = JudgedProvider {
        uid: "uid-1".into(),
        provider: provider.provider(&settings.operator_namespace).ok(),
        problem,
    };
    Seen {
        key: Key {
            kind: Kind::OidcProvider,
            namespace: provider.namespace().expect("a namespace"),
            name: provider.name_any(),
        },
        provider: Some(Arc::new(provider.clone())),
        judged: Some(judged),
        map: None,
        asked: Asked::default(),
    }
}

fn decided(seen: &Seen, moment: Moment) -> Decision {
    decide(seen, &Settings::default(), moment)
}

/// The ConfigMap that is written.
fn map(decision: &Decision) -> Option<ConfigMap> {
    decision.writes.iter().find_map(|write| match write {
        Write::Create(Object::ConfigMap(map), _) | Write::Replace(Object::ConfigMap(map), _) => {
            Some((**map).clone())
        }
        _ => None,
    })
}

/// The status that is written.
fn status(decision: &Decision) -> Option<OidcProviderStatus> {
    decision.writes.iter().find_map(|write| match write {
        Write::Status { status, .. } => serde_json::from_value(status.clone()).ok(),
        _ => None,
    })
}

fn told(decision: &Decision, kind: &str) -> Option<(bool, String)> {
    let status = status(decision)?;
    let condition = status.conditions.into_iter().find(|c| c.type_ == kind)?;
    Some((condition.status == "True", condition.reason))
}

fn says(decision: &Decision, kind: &str, holds: bool, reason: &str) {
    let found = told(decision, kind);
    assert_eq!(
        found,
        Some((holds, reason.to_owned())),
        "{kind}: {decision:?}"
    );
}

#[test]
fn what_is_fetched_is_handed_on_and_then_told() {
    for namespace in ["acme", "chancery-system"] {
        let provider = resource(namespace, json!({}));
        let mut seen = seen(&provider, None);
        says(&decided(&seen, sure(100)), "Ready", false, r::PROGRESSING);
        let one = key();
        seen.asked.outcome = Some(Outcome::new(
            at(100),
            Ok(fetched(std::slice::from_ref(&one))),
        ));
        let decision = decided(&seen, sure(100));
        let made = map(&decision).expect("a ConfigMap");
        assert_eq!(status(&decision), None, "it tells of what stands there");
        seen.map = Some(made.clone());
        let decision = decided(&seen, sure(101));
        assert_eq!(map(&decision), None);
        says(&decision, "Ready", true, r::SUCCEEDED);
        says(&decision, REACHABLE, true, r::SUCCEEDED);
        says(&decision, "IssuerValidated", true, r::SUCCEEDED);
        let status = status(&decision).expect("a status");
        assert_eq!(status.key_ids, [one.kid.clone().expect("a kid")]);
        assert_eq!(status.issuer.as_deref(), Some("https://corp.example"));
        assert_eq!(decision.wake_at, Some(at(100 + 24 * 3600)));
        // Once that is written there is nothing to do.
        let mut written = provider.clone();
        written.status = Some(status);
        seen.provider = Some(Arc::new(written));
        assert!(decided(&seen, sure(102)).writes.is_empty());
        // Nor for a process that has not asked yet.
        seen.asked = Asked::default();
        assert!(decided(&seen, sure(103)).writes.is_empty());
        // Deleted by hand, it comes back.
        seen.asked.outcome = Some(Outcome::new(at(100), Ok(fetched(&[one]))));
        seen.map = None;
        assert_eq!(
            map(&decided(&seen, sure(104))).map(|map| map.data),
            Some(made.data)
        );
    }
}

#[test]
fn an_outage_keeps_the_keys_until_they_are_too_old() {
    let provider = resource("acme", json!({}));
    let mut seen = seen(&provider, None);
    seen.asked.outcome = Some(Outcome::new(at(100), Ok(fetched(&[key()]))));
    seen.map = map(&decided(&seen, sure(100)));
    let fault = Fault::Unreachable("no connection".into());
    seen.asked.outcome = Some(Outcome::new(at(200), Err(fault)));
    let decision = decided(&seen, sure(200));
    assert_eq!(map(&decision), None);
    says(&decision, "Ready", true, r::SUCCEEDED);
    says(&decision, REACHABLE, false, r::PROVIDER_UNREACHABLE);
    assert_eq!(told(&decision, STALLED), None, "it may come back by itself");
    seen.asked.outcome = Some(Outcome::new(at(200), Err(Fault::Refused("private".into()))));
    says(
        &decided(&seen, sure(200)),
        STALLED,
        true,
        r::PROVIDER_REFUSED,
    );
    let end = 100 + 24 * 3600;
    assert_eq!(map(&decided(&seen, sure(end - 1))), None);
    let unsure = Moment {
        sure: false,
        ..sure(end)
    };
    assert_eq!(
        map(&decided(&seen, unsure)),
        None,
        "such a clock ends nothing"
    );
    let dropped = map(&decided(&seen, sure(end))).expect("without keys");
    assert_eq!(
        provider_keys::read(&dropped, &provider).expect("read").keys,
        []
    );
    seen.map = Some(dropped);
    let decision = decided(&seen, sure(end + 1));
    assert_eq!(map(&decision), None);
    says(&decision, STALLED, true, r::PROVIDER_KEYS_EXPIRED);
    says(&decision, "Ready", false, r::PROVIDER_KEYS_EXPIRED);
    let warned = decision.writes.iter().any(
        |write| matches!(write, Write::Event(note) if note.warning && note.reason == r::PROVIDER_KEYS_EXPIRED),
    );
    assert!(warned, "{decision:?}");
    seen.asked.outcome = Some(Outcome::new(at(end + 5), Ok(fetched(&[key()]))));
    let back = map(&decided(&seen, sure(end + 5))).expect("with keys");
    assert_eq!(
        provider_keys::read(&back, &provider)
            .expect("read")
            .keys
            .len(),
        1
    );
}

#[test]
fn what_another_place_or_issuer_has_answered_is_no_answer() {
    let provider = resource("acme", json!({}));
    let mut seen = seen(&provider, None);
    seen.asked.outcome = Some(Outcome::new(at(100), Ok(fetched(&[key()]))));
    let made = map(&decided(&seen, sure(100)));
    for more in [
        json!({"wellKnownUri": "https://new.example/.well-known/x"}),
        json!({"issuers": ["https://new.example"]}),
    ] {
        let moved = resource("acme", more);
        let seen = Seen {
            map: made.clone(),
            ..self::seen(&moved, None)
        };
        let decision = decided(&seen, sure(101));
        says(&decision, "Ready", false, r::PROGRESSING);
        let status = status(&decision).expect("a status");
        assert_eq!((status.key_ids, status.issuer), (Vec::new(), None));
    }
}

#[test]
fn what_stands_against_it_is_told() {
    let provider = resource("acme", json!({}));
    let conflict = Conflict {
        with: "corp".into(),
        issuer: Some("https://corp.example".into()),
        audience: "orders".into(),
    };
    for (problem, reason) in [
        (ProviderProblem::Unsound("x.".into()), r::INVALID_SPEC),
        (ProviderProblem::AnyIssuer, r::POLICY_VIOLATION),
        (ProviderProblem::OwnIssuer, r::INVALID_SPEC),
        (
            ProviderProblem::Examples(vec![(2, vec!["id differs".into()])]),
            r::EXAMPLE_FAILED,
        ),
        (ProviderProblem::Conflict(conflict), r::PROVIDER_CONFLICT),
    ] {
        let mut seen = seen(&provider, Some(problem));
        // Whatever it has answered: it is not handed on.
        seen.asked.outcome = Some(Outcome::new(at(100), Ok(fetched(&[key()]))));
        let decision = decided(&seen, sure(100));
        assert_eq!(map(&decision), None);
        says(&decision, STALLED, true, reason);
        let status = status(&decision).expect("a status");
        assert_eq!(status.key_ids, [""; 0]);
        if reason == r::PROVIDER_CONFLICT {
            let told = &status.conditions[0].message;
            assert!(
                told.contains("corp of the operator's namespace chancery-system")
                    && told.contains("give this one other audiences, or delete it"),
                "{told}"
            );
        }
    }
    let of_nobody = seen(&provider, Some(ProviderProblem::NoSubscription));
    says(
        &decided(&of_nobody, sure(100)),
        "Reconciling",
        true,
        r::NO_SUBSCRIPTION,
    );
    let mut anothers = provider.clone();
    anothers.status = Some(OidcProviderStatus {
        environment: Some("other".into()),
        ..OidcProviderStatus::default()
    });
    let anothers = seen(&anothers, Some(ProviderProblem::NoSubscription));
    assert!(
        decided(&anothers, sure(100)).writes.is_empty(),
        "that release's to say"
    );
    let inactive = seen(&resource("acme", json!({"active": false})), None);
    says(&decided(&inactive, sure(100)), "Ready", true, r::INACTIVE);
}

#[test]
fn keys_in_the_spec_need_nobody_to_be_asked() {
    let sound = key();
    let broken = GivenJwk {
        kid: Some("broken".into()),
        x: Some("AQAB".into()),
        ..sound.clone()
    };
    let inline = |keys: &[&GivenJwk]| {
        let mut provider = resource("acme", json!({"jwks": {"keys": keys}, "issuers": []}));
        provider.spec.well_known_uri = None;
        provider
    };
    let decision = decided(&seen(&inline(&[&sound]), None), sure(100));
    says(&decision, "Ready", true, r::SUCCEEDED);
    says(&decision, "IssuerValidated", false, r::ISSUER_NOT_VALIDATED);
    let stands = status(&decision).expect("a status").conditions;
    assert!(
        stands[0].message.contains("spec.issuers is empty"),
        "{stands:?}"
    );
    let warns = |write: &Write| matches!(write, Write::Event(note) if note.warning && note.reason == r::ISSUER_NOT_VALIDATED);
    assert_eq!(
        decision.writes.iter().filter(|write| warns(write)).count(),
        1
    );
    assert_eq!(told(&decision, REACHABLE), None);
    assert_eq!(status(&decision).expect("a status").key_ids.len(), 1);
    let decision = decided(&seen(&inline(&[&sound, &broken]), None), sure(100));
    says(&decision, "Ready", true, r::SUCCEEDED);
    says(&decision, STALLED, true, r::PUBLIC_KEY_REFUSED);
    let decision = decided(&seen(&inline(&[&broken]), None), sure(100));
    says(&decision, "Ready", false, r::PUBLIC_KEY_REFUSED);
}

#[test]
fn what_is_gone_or_in_the_way_is_swept_or_left() {
    let provider = resource("acme", json!({}));
    let mut here = seen(&provider, None);
    here.asked.outcome = Some(Outcome::new(at(100), Ok(fetched(&[key()]))));
    let made = map(&decided(&here, sure(100))).expect("a ConfigMap");
    let deletes = |seen: &Seen| {
        let decision = decided(seen, sure(200));
        decision
            .writes
            .iter()
            .any(|write| matches!(write, Write::Delete(_)))
    };
    let gone = |map: &ConfigMap| Seen {
        provider: None,
        judged: None,
        map: Some(map.clone()),
        ..seen(&provider, None)
    };
    assert!(deletes(&gone(&made)));
    let mut strange = made.clone();
    strange.metadata.labels = None;
    assert!(!deletes(&gone(&strange)), "it is not ours");
    // Another release has it now.
    let moved = Seen {
        judged: None,
        map: Some(made.clone()),
        ..seen(&provider, None)
    };
    assert!(deletes(&moved));
    // One of the same name that was made anew.
    let mut again = provider.clone();
    again.metadata.uid = Some("uid-2".into());
    let again = Seen {
        provider: Some(Arc::new(again)),
        map: Some(made),
        ..seen(&provider, None)
    };
    assert!(deletes(&again));
    here.map = Some(strange);
    let decision = decided(&here, sure(200));
    assert!(!deletes(&here) && map(&decision).is_none());
    says(&decision, STALLED, true, r::CONFIG_MAP_NAME_CONFLICT);
}
