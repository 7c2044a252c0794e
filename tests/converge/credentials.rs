//! A rotation of a client secret, with a fault at every write of it: with what the process remembers of
//! a secret between its hash's write and its delivery, and what its watches show.

use chancery::api::v1alpha1::CredentialState;
use chancery::crypto::hash;
use chancery::objects::credentials::{self, Stored};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::scene::eventually;
use super::*;

async fn stored(client: &Client) -> Vec<Stored> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), OPERATOR);
    let hashes = secrets.get("acme.orders-credentials").await;
    credentials::read(&hashes.expect("the hashes"))
}

async fn delivered(client: &Client) -> String {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), TENANT);
    let secret = secrets
        .get("orders-credentials")
        .await
        .expect("it is there");
    let mut plain = delivery::plain_secrets(&secret, "client_secret");
    plain.pop().expect("a client secret").to_string()
}

/// Asks for a rotation while the n-th write meets its fate; gives how many writes there were.
async fn rotation(n: i64, fault: Fault) -> u64 {
    let what = format!("{fault:?} at write {n}");
    let (api, client) = world().await;
    let first = operator(api.client("default"));
    converged(&client, &first, &what).await;
    drop(first);
    let old = delivered(&client).await;
    let (faulty, mut dead) = faulty(&api, n, fault);
    let writes = faulty.writes.clone();
    let mut running = operator(Client::new(faulty, "default"));
    let users: Api<TechnicalUser> = Api::namespaced(client.clone(), TENANT);
    let asked = json!({"metadata": {"annotations": {"chancery.dev/rotate": "now"}}});
    let (params, patch) = (PatchParams::default(), Patch::Merge(asked));
    let patched = users.patch("orders", &params, &patch);
    patched.await.expect("patched");
    let mut accepted = true;
    let status = eventually(&what, async || {
        if dead.try_recv().is_ok() {
            running = operator(api.client("default"));
        }
        // At every moment: what is delivered is accepted, and so is the old one.
        let (plain, stored) = (delivered(&client).await, stored(&client).await);
        let works = |plain: &str| {
            stored
                .iter()
                .any(|s| hash::verify(plain, &s.credential.hash))
        };
        accepted &= works(&old) && (works(&plain) || plain != delivered(&client).await);
        let status = users.get("orders").await.expect("the user").status?;
        let lives: Vec<_> = status.credentials.iter().map(|c| c.state).collect();
        (lives == [CredentialState::Retired, CredentialState::Active]).then_some(status)
    })
    .await;
    assert!(accepted, "{what}");
    assert_eq!(
        status.last_handled_rotation.as_deref(),
        Some("now"),
        "{what}"
    );
    assert!(status.credentials[0].expires_at.is_some(), "{what}");
    let (new, stored) = (delivered(&client).await, stored(&client).await);
    assert_eq!(stored.len(), 2, "{what}: no third");
    assert!(
        new != old && hash::verify(&new, &stored[1].credential.hash),
        "{what}"
    );
    assert_eq!(stored[1].known.handled.as_deref(), Some("now"), "{what}");
    drop(running);
    writes.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_at_every_write_of_a_rotation() {
    let writes = rotation(i64::MAX, Fault::Refused).await;
    assert!(
        writes >= 4,
        "there is something to disturb: {writes} writes"
    );
    let faults = [
        Fault::KillBefore,
        Fault::KillAfter,
        Fault::AnswerLost,
        Fault::Refused,
    ];
    let runs = faults
        .iter()
        .flat_map(|fault| (1..=writes.cast_signed()).map(|n| rotation(n, *fault)));
    let runs = futures::future::join_all(runs).await;
    println!(
        "{writes} writes undisturbed; {} runs, each with one fault",
        runs.len()
    );
}
