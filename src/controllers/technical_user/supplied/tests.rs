//! The decisions on client secrets that are supplied.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::super::desk::Desk;
use super::*;
use crate::api::v1alpha1::RevokedStatus;
use crate::domain::client::Family;
use crate::domain::settings::Settings;

/// What waits to be looked at keeps status as it is, and yet not what is no matter of that.
#[test]
fn a_revocation_is_told_while_what_is_supplied_waits() {
    let mut desk = Desk::new(&json!({"delivery": "Reference", "secretRefs": [{"name": "mine"}]}));
    desk.user.spec.family = Family::Device;
    desk.supplied = Some(|| Found::Missing("Secret mine is not there.".into()));
    desk.settle();
    assert!(desk.holds("Reconciling").is_some());
    desk.supplied = Some(|| Found::Pending(None));
    desk.user.spec.suspended = true;
    assert!(!desk.visit(usize::MAX), "it is as it was");

    let mut hashes = credentials::hashes_template(&desk.user, &Settings::default());
    let revoked = RevokedStatus {
        at: Time(desk.now),
        reason: r::REVOKED_BY_DEVICE.into(),
        rotate: None,
    };
    credentials::set_revoked(&mut hashes, Some(&revoked));
    desk.hashes = Some(hashes);
    desk.settle();
    let (reason, _) = desk.holds("Stalled").expect("told");
    assert_eq!(reason, r::REVOKED_BY_DEVICE);
    assert!(desk.status().revoked.is_some());
}
