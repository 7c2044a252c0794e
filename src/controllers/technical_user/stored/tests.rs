//! What is made of hashes that somebody takes away.

use jiff::Timestamp;
use serde_json::json;

use super::super::desk::Desk;
use super::*;
use crate::domain::rotation::Cause;
use crate::objects::credentials::{Known, Stored};

fn stored(now: Timestamp) -> Stored {
    let credential = StoredCredential {
        id: "1".into(),
        hash: hash::of_nothing(5),
        created_at: now,
        expires_at: None,
    };
    let stored = Stored::new(credential, Cause::First, None);
    Stored {
        known: Known {
            delivered_at: Some(now),
            activated_at: Some(now),
            ..stored.known
        },
        ..stored
    }
}

/// What status knows is what proves the delivered secret: it is still known while its hash is made again,
/// so that the hash can be lost as often as somebody likes.
#[test]
fn a_hash_that_is_lost_again_at_once_is_made_again() {
    let mut desk = Desk::new(&json!({}));
    let mut hashes =
        credentials::hashes_template(&desk.user, &crate::domain::settings::Settings::default());
    credentials::put(&mut hashes, stored(desk.now));
    let emptied = {
        let mut emptied = hashes.clone();
        credentials::write(&mut emptied, &[]);
        emptied
    };
    desk.hashes = Some(hashes);
    let delivered = json!({
        "metadata": {
            "name": "user-credentials", "namespace": "acme", "resourceVersion": "1",
            "annotations": {"chancery.dev/credential-id": "1"},
        },
        "type": "Opaque",
    });
    let delivered = serde_json::from_value(delivered).expect("valid");
    desk.delivered = Some((delivered, "1".into()));
    desk.settle();
    let known = |desk: &Desk| desk.status().credentials.len();
    assert_eq!((known(&desk), desk.made.len()), (1, 0));
    for _ in 0..3 {
        desk.hashes = Some(emptied.clone());
        // One visit: the hash is there again, and status has yet to see it.
        assert!(desk.visit(usize::MAX));
        let hashes = desk.hashes.as_ref().expect("hashes");
        let ids: Vec<_> = credentials::read(hashes)
            .into_iter()
            .map(|s| s.credential.id)
            .collect();
        assert_eq!((ids, known(&desk)), (vec!["1".to_owned()], 1));
    }
    desk.settle();
    assert_eq!((known(&desk), desk.made.len()), (1, 0), "none was made");
}
