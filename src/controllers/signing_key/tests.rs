//! What a ring without any key is told.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::v1alpha1::ROTATE_ANNOTATION;
use crate::controllers::Note;
use crate::domain::reasons as r;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).expect("a time")
}

/// A visit of a ring that has nothing yet: its status, and its events.
fn visit(ring: &Value, injected: Option<&str>) -> (Value, Vec<Note>) {
    let ring: SigningKey = serde_json::from_value(ring.clone()).expect("a ring");
    let seen = Seen {
        name: "main".into(),
        ring: Some(Arc::new(ring)),
        secrets: Vec::new(),
        ring_map: None,
        issuer_map: None,
        others: BTreeMap::new(),
        elsewhere: super::Elsewhere::default(),
        copies: publish::Copies::default(),
        peers: Vec::new(),
        injected: injected.map(|why| Err(why.to_owned())),
    };
    let moment = Moment {
        now: now(),
        sure: true,
    };
    let decision = decide(&seen, &Settings::default(), moment, rotation::plan);
    let (mut status, mut events) = (Value::Null, Vec::new());
    for write in decision.writes {
        match write {
            Write::Status { status: after, .. } => status = after,
            Write::Event(note) => events.push(note),
            _ => {}
        }
    }
    (status, events)
}

fn ring(spec: &Value, conditions: &Value) -> Value {
    let mut ring = json!({
        "apiVersion": "chancery.dev/v1alpha1",
        "kind": "SigningKey",
        "metadata": {
            "name": "main", "namespace": "chancery-system", "uid": "u", "generation": 2,
            "resourceVersion": "1",
        },
        "spec": {"audience": "client"},
        "status": {"observedGeneration": 1, "conditions": conditions},
    });
    let all = ring["spec"].as_object_mut().expect("an object");
    all.extend(spec.as_object().expect("an object").clone());
    ring
}

#[track_caller]
fn stalled(status: &Value) -> (String, String) {
    let conditions = status["conditions"].as_array().expect("conditions");
    let stalled = conditions.iter().find(|c| c["type"] == "Stalled");
    let text = |field| stalled.and_then(|c| c[field].as_str()).unwrap_or("none");
    (text("reason").to_owned(), text("message").to_owned())
}

/// Also where the `ConfigMap` that remembers its keys was deleted: it had a life.
#[test]
fn a_ring_that_has_ended_stays_ended() {
    let past = json!({ "validTo": "1970-01-10T00:00:00Z" });
    let before = json!([{
        "type": "Stalled", "status": "True", "reason": r::VALIDITY_ENDED, "message": "",
        "lastTransitionTime": "1970-01-10T00:00:00Z",
    }]);
    let (status, _) = visit(&ring(&past, &before), None);
    assert_eq!(stalled(&status).0, r::VALIDITY_ENDED);
    let (status, _) = visit(&ring(&past, &json!([])), None);
    assert_eq!(stalled(&status).0, r::VALIDITY_REFUSED, "it never began");
}

#[test]
fn a_ring_without_a_key_goes_on_with_none() {
    let spec = json!({ "privateKey": { "secretRef": { "name": "mine" } } });
    let (status, _) = visit(
        &ring(&spec, &json!([])),
        Some("Secret mine is not there: make it."),
    );
    assert_eq!(
        stalled(&status),
        (
            r::INJECTED_KEY_REFUSED.to_owned(),
            "Secret mine is not there: make it. This ring signs nothing until then.".to_owned()
        )
    );
}

#[test]
fn unknown_kids_make_one_event() {
    for (count, sentence) in [
        (
            1,
            "spec.invalidated names k0, which is no key of this ring: ",
        ),
        (
            2,
            "spec.invalidated names k0, k1, which are no keys of this ring: ",
        ),
        (
            64,
            "spec.invalidated names k0, k1, k2, k3, k4 and 59 more, which are no keys of this ring: ",
        ),
    ] {
        let kids = (0..count).map(|n| json!({ "keyId": format!("k{n}") }));
        let spec = json!({ "invalidated": kids.collect::<Vec<_>>() });
        let (_, events) = visit(&ring(&spec, &json!([])), None);
        let mut told = events.iter().filter(|e| e.reason == r::UNKNOWN_KEY);
        let event = told.next().expect("an event");
        assert!(event.message.starts_with(sentence), "{}", event.message);
        assert!(told.next().is_none());
    }
}

#[test]
fn an_empty_annotation_asks_for_nothing() {
    let mut ring = ring(&json!({}), &json!([]));
    for (value, asks) in [("", None), ("1", Some("1".to_owned()))] {
        ring["metadata"]["annotations"] = json!({ ROTATE_ANNOTATION: value });
        let ring = serde_json::from_value(ring.clone()).expect("a ring");
        assert_eq!(policy_of(&ring, &Settings::default()).rotate, asks);
    }
}
