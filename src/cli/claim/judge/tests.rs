use serde_json::{Value, json};

use super::*;

const OWN: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
const OTHER: &str = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg";

/// Its checksum is wrong.
const WRONG: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8q";

fn whose() -> Whose {
    Whose {
        namespace: "acme".into(),
        name: "orders".into(),
    }
}

/// A technical user whose client secrets are delivered once, with that over it.
fn user(over: Value) -> TechnicalUser {
    let mut user = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
        "metadata": {"name": "orders", "namespace": "acme", "generation": 1},
        "spec": {"audiences": ["a"], "credential": {"secret": {"delivery": "OneTime"}}},
    });
    merge(&mut user, over);
    serde_json::from_value(user).expect("valid")
}

fn merge(into: &mut Value, over: Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (name, value) in over {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, over) => *into = over,
    }
}

fn sealed_to(recipient: &str) -> Value {
    json!({"status": {
        "observedGeneration": 1,
        "credentials": [{"id": "1", "createdAt": "2026-11-27T08:00:00Z", "state": "Active"}],
        "lastHandledClaim": recipient,
        "sealed": {
            "credentialId": "1", "recipient": recipient, "by": "Claim",
            "sealedAt": "2026-11-27T08:00:00Z", "ciphertext": "sealed",
        },
    }})
}

fn claimed_by(claim: &str) -> Value {
    json!({"metadata": {"annotations": {"chancery.dev/claim": claim}}})
}

#[test]
fn who_may_claim() {
    let may = |over: &[Value]| {
        let mut all = json!({});
        for one in over {
            merge(&mut all, one.clone());
        }
        may_claim(&user(all), OWN, &whose())
    };
    let rotate = |value: &str| json!({"metadata": {"annotations": {"chancery.dev/rotate": value}}});
    let waits = json!({"status": {"conditions": [{
        "type": "RotationPaused", "status": "True", "reason": "ClaimAwaited", "message": "",
        "lastTransitionTime": "2026-11-27T08:00:00Z",
    }]}});
    let revoked = json!({"status": {
        "revoked": {"at": "2026-11-27T08:00:00Z", "reason": "RevokedByDevice", "rotate": "old"},
    }});
    let sound: [&[Value]; 9] = [
        &[],
        // It came with a manifest: that resource is no more.
        &[claimed_by(&format!("{OTHER}@another"))],
        &[claimed_by(OWN)],
        // What is no key claims nothing.
        &[claimed_by("nonsense")],
        &[sealed_to(OTHER), claimed_by(OTHER), rotate("new")],
        &[sealed_to(OTHER), claimed_by(OTHER), waits],
        &[sealed_to(OTHER), json!({"metadata": {"generation": 2}})],
        &[json!({"status": {"observedGeneration": 1}})],
        &[
            revoked.clone(),
            rotate("new"),
            json!({"status": {"observedGeneration": 1}}),
        ],
    ];
    for over in sound {
        assert_eq!(may(over), Ok(()), "{over:?}");
    }
    let to = |delivery: Value| json!({"spec": {"credential": {"secret": delivery}}});
    let handled = json!({"status": {"lastHandledRotation": "new"}});
    let refused: [(&[Value], &str); 9] = [
        (&[to(json!({"delivery": "Secret"}))], "delivery OneTime"),
        (
            &[to(json!({"recipient": OTHER})), sealed_to(OTHER)],
            "age --decrypt",
        ),
        (
            &[to(json!({"recipient": OTHER})), sealed_to(OWN)],
            "none is there yet",
        ),
        (
            &[to(json!({"recipient": WRONG})), sealed_to(OWN)],
            "its checksum is wrong",
        ),
        (
            &[claimed_by(OTHER)],
            "is just being claimed by somebody else",
        ),
        (
            &[sealed_to(OTHER), claimed_by(OTHER)],
            "was claimed for age1lgg",
        ),
        (&[sealed_to(OTHER), rotate("")], "Lost means rotate"),
        (
            &[sealed_to(OTHER), rotate("new"), handled],
            "at 2026-11-27T08:00:00Z",
        ),
        (&[revoked, rotate("old")], "was revoked at"),
    ];
    for (over, told) in refused {
        let sentence = may(over).expect_err("refused");
        assert!(sentence.contains(told), "{told}: {sentence}");
    }
}

#[test]
fn how_a_claim_stands() {
    let stands = |over: &[Value]| {
        let mut all = json!({});
        for one in over {
            merge(&mut all, one.clone());
        }
        progress(&user(all), OWN, &whose())
    };
    let granted = Progress::Granted(Granted {
        client_id: "acme.orders".into(),
        ciphertext: "sealed".into(),
    });
    assert_eq!(stands(&[sealed_to(OWN), claimed_by(OWN)]), granted);
    // Whatever became of the annotation since.
    assert_eq!(stands(&[sealed_to(OWN)]), granted);
    assert_eq!(stands(&[claimed_by(OWN)]), Progress::Waits);
    assert_eq!(
        stands(&[sealed_to(OTHER), claimed_by(OWN)]),
        Progress::Waits
    );
    let handled = json!({"status": {"lastHandledClaim": OWN}});
    let next = json!({"status": {
        "credentials": [{"id": "2", "createdAt": "2026-11-27T08:00:00Z", "state": "Next"}],
    }});
    assert_eq!(
        stands(&[sealed_to(OTHER), claimed_by(OWN), handled.clone(), next]),
        Progress::Waits,
        "servers are still to learn of it"
    );
    for (over, told) in [
        (
            &[sealed_to(OTHER), claimed_by(OWN), handled][..],
            "was claimed for",
        ),
        (
            &[claimed_by(OTHER)],
            "has written another claim over this one",
        ),
        (&[sealed_to(OTHER), claimed_by(OTHER)], "was claimed for"),
        (&[], "has taken this claim away"),
    ] {
        let Progress::Doubtful(why) = stands(over) else {
            panic!("{over:?}");
        };
        assert!(why.contains(told), "{told}: {why}");
    }
}
