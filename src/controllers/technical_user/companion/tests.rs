use serde_json::json;

use super::*;

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
