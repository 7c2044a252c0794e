//! The decisions on secrets that are delivered once, visit for visit.

use serde_json::json;

use super::super::desk::{Desk, recipient};
use super::repeated;
use crate::api::v1alpha1::{
    CLAIM_ANNOTATION, CredentialState, Delivery, ROTATE_ANNOTATION, SealedBy, TechnicalUserStatus,
};
use crate::domain::reasons as r;
use crate::objects::credentials;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

#[test]
fn nothing_is_made_before_it_is_claimed() {
    let mut desk = Desk::new(&json!({"delivery": "OneTime"}));
    desk.settle();
    assert!(desk.made.is_empty() && desk.hashes.is_none());
    let (reason, told) = desk.holds("Reconciling").expect("told");
    assert_eq!(reason, r::CLAIM_AWAITED);
    assert!(
        told.contains("kubectl chancery claim user -n acme"),
        "{told}"
    );
    assert_eq!(desk.told, [r::CLAIM_AWAITED], "once");

    // The hash, and the sealed text with it, in one write: whatever dies after it loses nothing.
    let key = recipient();
    desk.annotate(CLAIM_ANNOTATION, &key);
    assert!(desk.visit(1));
    assert_eq!(desk.shown_to(), None, "died before status was written");
    desk.settle();
    assert_eq!(
        desk.made,
        [("1".into(), Some(key.clone()))],
        "no second one"
    );
    assert_eq!(desk.states(), [CredentialState::Active]);
    let sealed = desk.status().sealed.expect("shown");
    assert_eq!((sealed.by, &sealed.recipient), (SealedBy::Claim, &key));
    assert_eq!(
        desk.delivered.is_none(),
        desk.status().secret_name.is_none()
    );

    // A restore drops status: it is as it was.
    let before = desk.status();
    desk.user.status = None;
    desk.settle();
    assert_eq!(desk.status().sealed, before.sealed);
    assert_eq!(desk.status().last_handled_claim, Some(key));
    assert_eq!(desk.made.len(), 1);
}

#[test]
fn a_claim_counts_for_one_client_secret() {
    let (mut desk, first) = Desk::claimed();
    let second = recipient();
    desk.annotate(CLAIM_ANNOTATION, &second);
    desk.settle();
    assert_eq!(
        desk.shown_to(),
        Some(first.clone()),
        "what is sealed stays so"
    );
    assert_eq!(
        desk.told.iter().filter(|t| **t == r::CLAIM_REFUSED).count(),
        1
    );

    // Neither of both has the next one.
    desk.annotate(ROTATE_ANNOTATION, "lost");
    for before in [&second, &first] {
        desk.annotate(CLAIM_ANNOTATION, before);
        desk.settle();
        assert_eq!(desk.made.len(), 1);
        let (reason, told) = desk.holds("RotationPaused").expect("told");
        assert_eq!(reason, r::CLAIM_AWAITED);
        assert!(told.contains("as a rotation was asked for"), "{told}");
        assert_eq!(
            desk.states(),
            [CredentialState::Active],
            "the old one works"
        );
    }
    let third = recipient();
    desk.annotate(CLAIM_ANNOTATION, &third);
    desk.settle();
    assert_eq!(desk.made[1..], [("2".into(), Some(third.clone()))]);
    assert_eq!(
        desk.states(),
        [CredentialState::Active, CredentialState::Next]
    );
    assert_eq!(desk.shown_to(), Some(first), "until servers know of it");
    assert_eq!(desk.status().last_handled_claim, Some(third.clone()));
    // Another one that comes in between is too late.
    let late = recipient();
    desk.annotate(CLAIM_ANNOTATION, &late);
    desk.pass(2);
    assert_eq!(desk.shown_to(), Some(third));
    assert_eq!(
        desk.states(),
        [CredentialState::Retired, CredentialState::Active]
    );
    assert_eq!(desk.made.len(), 2);
    assert_eq!(desk.status().last_handled_rotation.as_deref(), Some("lost"));
    desk.pass(24 * 3600);
    assert_eq!(desk.states(), [CredentialState::Active]);
    assert_eq!(desk.made.len(), 2);
}

/// What came with a manifest, or from a backup, was made for a resource that is no more, and its key is gone.
#[test]
fn a_claim_is_for_one_resource() {
    let mut desk = Desk::new(&json!({"delivery": "OneTime"}));
    let (old, new) = (recipient(), recipient());
    desk.annotate(CLAIM_ANNOTATION, &format!("{old}@another"));
    desk.settle();
    assert!(desk.made.is_empty());
    assert!(
        desk.holds("Reconciling")
            .is_some_and(|(reason, _)| reason == r::CLAIM_AWAITED)
    );
    let claim = desk.user.claim_for(&new);
    assert!(claim.len() > new.len());
    desk.annotate(CLAIM_ANNOTATION, &claim);
    desk.settle();
    assert_eq!(desk.made, [("1".into(), Some(new.clone()))]);
    assert_eq!(desk.status().last_handled_claim, Some(new.clone()));
    // Nor does it count a second time, however it is written.
    desk.annotate(ROTATE_ANNOTATION, "lost");
    for again in [&claim, &new] {
        desk.annotate(CLAIM_ANNOTATION, again);
        desk.settle();
        assert_eq!(desk.made.len(), 1);
    }
}

#[test]
fn the_spec_goes_before_a_claim() {
    let (spec, claim) = (recipient(), recipient());
    let mut desk = Desk::new(&json!({"delivery": "OneTime", "recipient": spec}));
    desk.annotate(CLAIM_ANNOTATION, &claim);
    desk.settle();
    assert_eq!(desk.made, [("1".into(), Some(spec))]);
    // Another recipient asks for nothing by itself.
    let other = recipient();
    desk.secret().recipient = Some(other.clone());
    desk.settle();
    assert_eq!(desk.made.len(), 1);
    desk.annotate(ROTATE_ANNOTATION, "now");
    desk.settle();
    assert_eq!(desk.made[1..], [("2".into(), Some(other))]);
    // The claim that lost does not have the next one.
    desk.pass(2);
    desk.secret().recipient = None;
    desk.annotate(ROTATE_ANNOTATION, "again");
    desk.settle();
    assert_eq!(desk.made.len(), 2);
    assert!(desk.holds("RotationPaused").is_some());
}

#[test]
fn by_the_clock_only_with_a_recipient() {
    let rotation = json!({"interval": "240h", "gracePeriod": "1h"});
    let key = recipient();
    let mut desk =
        Desk::new(&json!({"delivery": "OneTime", "recipient": key, "rotation": rotation}));
    desk.settle();
    desk.pass(240 * 3600);
    desk.pass(2);
    assert_eq!(
        desk.states(),
        [CredentialState::Retired, CredentialState::Active]
    );
    assert_eq!(desk.made.len(), 2);

    // By claim the old one works on past its interval.
    let mut desk = Desk::new(&json!({"delivery": "OneTime", "rotation": rotation}));
    desk.annotate(CLAIM_ANNOTATION, &key);
    desk.settle();
    desk.pass(1000 * 3600);
    assert_eq!(desk.states(), [CredentialState::Active]);
    let (_, told) = desk.holds("RotationPaused").expect("told");
    assert!(told.contains("as its turn has come"), "{told}");
    assert_eq!(
        desk.told.iter().filter(|t| **t == r::CLAIM_AWAITED).count(),
        1
    );
    // What is not due by a clock that can be relied upon is neither granted nor refused.
    desk.sure = false;
    let other = recipient();
    desk.annotate(CLAIM_ANNOTATION, &other);
    desk.settle();
    assert_eq!(desk.made.len(), 1);
    desk.sure = true;
    desk.settle();
    assert_eq!(desk.made[1..], [("2".into(), Some(other))]);
}

#[test]
fn what_is_no_key_is_told() {
    // The checksum is wrong.
    let wrong = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8q";
    let mut desk = Desk::new(&json!({"delivery": "OneTime", "recipient": wrong}));
    desk.settle();
    let (reason, told) = desk.holds("Stalled").expect("told");
    assert_eq!(reason, r::INVALID_SPEC);
    assert!(told.contains(wrong) && told.contains("checksum"), "{told}");
    desk.secret().recipient = Some(recipient());
    desk.settle();
    assert_eq!((desk.made.len(), desk.holds("Stalled")), (1, None));
    // Nobody is asked to claim what could not be claimed.
    desk.secret().recipient = Some(wrong.into());
    desk.annotate(ROTATE_ANNOTATION, "now");
    desk.settle();
    let (reason, told) = desk.holds("RotationPaused").expect("told");
    assert_eq!(reason, r::INVALID_SPEC);
    assert!(
        told.contains("once spec.credential.secret.recipient is"),
        "{told}"
    );
    assert!(!desk.told.contains(&r::CLAIM_AWAITED));

    let mut desk = Desk::new(&json!({"delivery": "OneTime"}));
    desk.annotate(CLAIM_ANNOTATION, "me");
    desk.settle();
    let (_, told) = desk.holds("Stalled").expect("told");
    assert!(told.contains("kubectl chancery claim"), "{told}");
    assert!(desk.made.is_empty());
}

#[test]
fn from_a_delivered_secret_and_back_without_an_outage() {
    let mut desk = Desk::new(&json!({}));
    desk.settle();
    assert_eq!(desk.states(), [CredentialState::Active]);
    assert_eq!(desk.made, [("1".into(), None)]);
    desk.secret().delivery = Delivery::OneTime;
    desk.settle();
    assert_eq!(
        desk.states(),
        [CredentialState::Active],
        "until it is claimed"
    );
    assert!(desk.delivered.is_some() && desk.status().secret_name.is_some());
    assert!(desk.holds("RotationPaused").is_some());
    let key = recipient();
    desk.annotate(CLAIM_ANNOTATION, &key);
    desk.settle();
    desk.pass(2);
    assert_eq!(
        desk.states(),
        [CredentialState::Retired, CredentialState::Active]
    );
    assert!(desk.delivered.is_some(), "it works, so it stands there");
    desk.pass(24 * 3600);
    assert_eq!(desk.states(), [CredentialState::Active]);
    assert!(desk.delivered.is_none(), "nothing plain is left");

    desk.secret().delivery = Delivery::Secret;
    desk.visit(usize::MAX);
    assert_eq!(desk.made.len(), 3);
    assert_eq!(desk.shown_to(), Some(key), "it works on");
}

#[test]
fn revoked_stays_revoked() {
    let (mut desk, _) = Desk::claimed();
    let revoked = crate::api::v1alpha1::RevokedStatus {
        at: Time(desk.now),
        reason: r::REVOKED_BY_DEVICE.into(),
        rotate: None,
    };
    credentials::set_revoked(desk.hashes.as_mut().expect("hashes"), Some(&revoked));
    desk.settle();
    assert_eq!(desk.shown_to(), None, "nor is what was sealed kept");
    desk.annotate(CLAIM_ANNOTATION, &recipient());
    desk.settle();
    assert_eq!(desk.made.len(), 1);
    assert_eq!(desk.holds("Stalled").expect("told").0, r::REVOKED_BY_DEVICE);
    // Found again: the claim that waits has it.
    desk.annotate(ROTATE_ANNOTATION, "found");
    desk.settle();
    assert_eq!(desk.made.len(), 2);
    assert_eq!(desk.states(), [CredentialState::Active]);
}

/// What was said while nobody served the namespace does not stand there for good.
#[test]
fn a_namespace_that_another_release_serves_is_left_to_it() {
    let mut desk = Desk::new(&json!({"delivery": "OneTime"}));
    desk.environment = None;
    desk.settle();
    let (reason, _) = desk.holds("Reconciling").expect("told");
    assert_eq!(reason, r::NO_SUBSCRIPTION);
    desk.environment = Some("staging");
    desk.settle();
    let (reason, told) = desk.holds("Reconciling").expect("told");
    assert_eq!(reason, r::ANOTHER_ENVIRONMENT);
    assert!(told.contains("names environment staging"), "{told}");
    // From then on that one tells.
    desk.user.status = Some(TechnicalUserStatus::default());
    assert!(!desk.visit(usize::MAX));
}

#[test]
fn a_message_repeats_a_recipient_and_nothing_else() {
    let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    assert_eq!(repeated(recipient), recipient);
    for secret in [
        "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ",
        "sk-secret",
        "",
    ] {
        assert_eq!(repeated(secret), "(which is no age recipient)");
    }
}
