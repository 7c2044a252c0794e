//! What becomes of client secrets beside something else to authenticate with.

use serde_json::json;

use super::super::desk::Desk;
use super::*;
use crate::api::v1alpha1::Credential;
use crate::domain::client::StoredCredential;
use crate::domain::rotation::Cause;
use crate::objects::credentials::{Known, Stored};

/// What is against the spec keeps the exchange from beginning, and no old secret alive.
#[test]
fn an_old_secret_ends_although_the_exchange_can_not_begin() {
    let mut desk = Desk::new(&json!({}));
    let keys = json!({"publicKey": {"jwks": {"keys": [{
        "kty": "EC", "crv": "P-256", "kid": "k1",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }]}}});
    desk.user.spec.credential = serde_json::from_value::<Credential>(keys).expect("valid");
    desk.user.spec.client_id = Some("another.user".into());
    let mut hashes = credentials::hashes_template(&desk.user, &Settings::default());
    for id in ["1", "2"] {
        let credential = StoredCredential {
            id: id.into(),
            hash: format!("hash {id}"),
            created_at: desk.now,
            expires_at: None,
        };
        let mut stored = Stored::new(credential, Cause::Request, None);
        let retired_at = (id == "1").then_some(desk.now);
        stored.known = Known {
            delivered_at: Some(desk.now),
            activated_at: Some(desk.now),
            retired_at,
            ends_at: retired_at.map(|at| later(at, SignedDuration::from_hours(1))),
            ..stored.known
        };
        credentials::put(&mut hashes, stored);
    }
    desk.hashes = Some(hashes);
    let stored = |desk: &Desk| {
        let hashes = desk.hashes.as_ref().expect("hashes");
        let all = credentials::read(hashes).into_iter();
        all.map(|s| s.credential.id).collect::<Vec<_>>()
    };
    desk.settle();
    assert_eq!(stored(&desk), ["1", "2"]);
    assert!(desk.holds("Stalled").is_some());
    desk.pass(3600);
    assert_eq!(stored(&desk), ["2"]);
    assert!(
        desk.told.contains(&r::CREDENTIAL_REMOVED),
        "{:?}",
        desk.told
    );
    assert!(!desk.told.contains(&r::CREDENTIAL_EXCHANGED));
    let hashes = desk.hashes.as_ref().expect("hashes");
    assert_eq!(credentials::exchanged_at(hashes), None);
}
