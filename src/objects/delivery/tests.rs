use serde_json::{Value, json};

use super::*;

fn user(secret: &Value) -> TechnicalUser {
    serde_json::from_value(json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
        "metadata": {"name": "orders", "namespace": "acme", "uid": "uid"},
        "spec": {"audiences": ["a"], "credential": {"secret": secret}},
    }))
    .expect("valid")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn settings() -> Settings {
    Settings {
        issuer: "https://id.example".into(),
        ..Settings::default()
    }
}

/// What stands there after that, with a client secret in it.
fn after(secret: &Value, before: Option<&Secret>, now: i64) -> Secret {
    let mut made = delivery(&user(secret), &settings(), "1", before, at(now));
    fill(&mut made.secret, &made.under, "plain");
    made.secret
}

fn data(secret: &Secret) -> Vec<(&str, &str)> {
    let data = secret.data.iter().flatten();
    let text = |bytes| std::str::from_utf8(bytes).expect("text");
    data.map(|(key, value)| (key.as_str(), text(value.0.as_slice())))
        .collect()
}

#[test]
fn renamed_keys_stand_under_both_names_for_a_grace() {
    let rotation = json!({"gracePeriod": "1h"});
    let first = after(&json!({"rotation": rotation}), None, 0);
    let keys = [
        ("client_id", "acme.orders"),
        ("client_secret", "plain"),
        ("issuer", "https://id.example"),
        ("token_url", "https://id.example/oauth/token"),
    ];
    assert_eq!(data(&first), keys);
    let renamed = json!({"keys": {"clientSecret": "PASSWORD"}, "rotation": rotation});
    let both = after(&renamed, Some(&first), 100);
    let mut more = vec![("PASSWORD", "plain")];
    more.extend(keys);
    assert_eq!(data(&both), more);
    // Each later look says the same, until the grace is over.
    let made = delivery(&user(&renamed), &settings(), "1", Some(&both), at(200));
    assert_eq!(made.wake_at, Some(at(3700)));
    assert_eq!(after(&renamed, Some(&both), 3699), both);
    let over = after(&renamed, Some(&both), 3700);
    more.retain(|(key, _)| *key != "client_secret");
    assert_eq!(data(&over), more);
    // Taken back in between, nothing is former.
    let back = after(&json!({"rotation": rotation}), Some(&both), 200);
    assert_eq!(data(&back).len(), 5, "PASSWORD goes later");
    assert_eq!(
        after(&json!({"rotation": rotation}), Some(&back), 3800),
        first
    );
    // Without a grace it goes at once.
    let at_once = json!({"keys": {"clientSecret": "PASSWORD"}, "rotation": {"gracePeriod": "0s"}});
    assert_eq!(data(&after(&at_once, Some(&both), 200)), more);
}

#[test]
fn chosen_labels_come_and_go_and_others_stay() {
    let chosen = json!({"labels": {"team": "a", "b": "c"}, "annotations": {"x.example/y": "z"}});
    let mut first = after(&chosen, None, 0);
    let labels = first.metadata.labels.as_mut().expect("labels");
    assert_eq!((labels["team"].as_str(), labels["b"].as_str()), ("a", "c"));
    labels.insert("others".into(), "here".into());
    let less = after(&json!({"labels": {"team": "b"}}), Some(&first), 0);
    let labels = less.metadata.labels.as_ref().expect("labels");
    assert_eq!(
        (labels["team"].as_str(), labels["others"].as_str()),
        ("b", "here")
    );
    assert!(!labels.contains_key("b"));
    let annotations = less.metadata.annotations.as_ref().expect("annotations");
    assert!(!annotations.contains_key("x.example/y"));
}

/// The annotations stand in the tenant's namespace: whatever is written there harms nobody else.
#[test]
fn annotations_that_a_tenant_writes_are_believed_for_the_tenants_own_keys_alone() {
    let mut first = after(&json!({}), None, 0);
    let annotations = first.metadata.annotations.as_mut().expect("annotations");
    let far = "9999-01-01T00:00:00Z";
    let former = json!({
        "extra": {"is": "clientId", "until": far},
        "../x": {"is": "clientSecret", "until": far},
        "": {"is": "clientSecret", "until": far},
    });
    annotations.insert(FORMER_KEYS.into(), former.to_string());
    annotations.insert(CHOSEN.into(), r#"{"labels":["chancery.dev/part"]}"#.into());
    let made = delivery(&user(&json!({})), &settings(), "1", Some(&first), at(0));
    assert_eq!(made.under, ["client_secret"]);
    assert_eq!(made.wake_at, Some(at(24 * 3600)), "no longer than a grace");
    let labels = made.secret.metadata.labels.as_ref().expect("labels");
    assert_eq!(labels["chancery.dev/part"], PART_DELIVERY);
    for broken in ["", "[]", "{\"a\":1}", "null"] {
        let annotations = first.metadata.annotations.as_mut().expect("annotations");
        for name in [FORMER_KEYS, CHOSEN, KEYS] {
            annotations.insert(name.into(), broken.into());
        }
        assert_eq!(
            data(&after(&json!({}), Some(&first), 0)).len(),
            4,
            "{broken}"
        );
    }
}
