use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::device::revocation_of;
use super::*;
use crate::api::v1alpha1::ROTATE_ANNOTATION;
use crate::objects::credentials;

fn device(asked: Option<&str>, revoked: Option<&str>) -> TechnicalUser {
    let revoked = revoked.map(|rotate| {
        json!({"at": "2026-11-27T10:00:00Z", "reason": "RevokedByItself", "rotate": rotate})
    });
    let device = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
        "metadata": {"name": "box", "annotations": asked.map(|v| json!({ROTATE_ANNOTATION: v}))},
        "spec": {"family": "Device", "audiences": ["a"], "credential": {"secret": {}}},
        "status": {"observedGeneration": 1, "conditions": [], "revoked": revoked},
    });
    serde_json::from_value(device).expect("a device")
}

#[test]
fn a_backup_of_its_hashes_does_not_bring_a_device_back() {
    let (clean, mut noted) = (Secret::default(), Secret::default());
    let of_status = revocation_of(&device(None, Some("one")), None).expect("revoked");
    credentials::set_revoked(&mut noted, Some(&of_status));
    for (what, asked, told, hashes, expected) in [
        ("never", None, None, Some(&clean), false),
        ("noted, not told yet", None, None, Some(&noted), true),
        ("told, the hashes are gone", None, Some("one"), None, true),
        (
            "told, a backup is back",
            Some("one"),
            Some("one"),
            Some(&clean),
            true,
        ),
        (
            "asked for, not acted upon",
            Some("two"),
            Some("one"),
            Some(&noted),
            true,
        ),
        (
            "back, not told yet",
            Some("two"),
            Some("one"),
            Some(&clean),
            false,
        ),
    ] {
        let revoked = revocation_of(&device(asked, told), hashes).is_some();
        assert_eq!(revoked, expected, "{what}");
    }
}

#[test]
fn the_rotation_is_the_devices_as_far_as_the_delivery_has_one() {
    let rotation = |device: serde_json::Value, agent: serde_json::Value| {
        let mut it = self::device(None, None);
        it.spec.credential.secret = serde_json::from_value(device).expect("a credential");
        let agents: SecretCredential = serde_json::from_value(agent).expect("a credential");
        json!(rotation_of(&it, &agents))
    };
    let both = json!({"rotation": {"interval": "48h", "gracePeriod": "1h"}});
    let supplied = json!({"delivery": "Reference", "secretRefs": [{"name": "mine"}]});
    for (device, agent, expected) in [
        (both.clone(), json!({}), both["rotation"].clone()),
        (
            both.clone(),
            json!({"delivery": "OneTime"}),
            both["rotation"].clone(),
        ),
        (both, supplied.clone(), json!({"gracePeriod": "1h"})),
        (
            json!({"rotation": {"interval": "48h"}}),
            supplied.clone(),
            json!(null),
        ),
        (json!({}), supplied, json!(null)),
    ] {
        assert_eq!(rotation(device, agent.clone()), expected, "{agent}");
    }
}
