//! A client secret that is delivered once, claimed and claimed again after a rotation, with a fault at every
//! write: what status shows opens with the claim's key and works, at every moment, and nothing is lost.

use chancery::api::v1alpha1::{CredentialState, TechnicalUserStatus};
use chancery::crypto::age::Identity;
use chancery::crypto::hash;
use chancery::objects::credentials::{self, Stored};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::scene::eventually;
use super::*;

struct Claims {
    client: Client,
    keys: Vec<Identity>,
    what: String,
    /// The secrets that were shown, each of which works until the end of its grace.
    shown: Vec<String>,
}

impl Claims {
    fn users(&self) -> Api<TechnicalUser> {
        Api::namespaced(self.client.clone(), TENANT)
    }

    async fn patch(&self, patch: Value) {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = self.users().patch("orders", &params, &patch).await;
        patched.expect("patched");
    }

    /// Claims with a new key.
    async fn claim(&mut self, rotate: &str) {
        let key = Identity::generate();
        let annotations = json!({
            "chancery.dev/claim": key.recipient().to_string(),
            "chancery.dev/rotate": rotate,
        });
        self.keys.push(key);
        self.patch(json!({"metadata": {"annotations": annotations}}))
            .await;
    }

    async fn stored(&self) -> Vec<Stored> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), OPERATOR);
        let hashes = secrets.get_opt("acme.orders-credentials").await;
        let hashes = hashes.expect("an answer");
        hashes
            .map(|hashes| credentials::read(&hashes))
            .unwrap_or_default()
    }

    /// What is there now; all that was ever shown opens and works.
    async fn look(&mut self) -> TechnicalUserStatus {
        let user = self.users().get("orders").await.expect("the user");
        let status = user.status.unwrap_or_default();
        if let Some(sealed) = &status.sealed {
            let mut opened = self
                .keys
                .iter()
                .filter_map(|k| k.open(&sealed.ciphertext).ok());
            let plain = opened.next().expect("it opens with a claim's key");
            let plain = String::from_utf8(plain.to_vec()).expect("text");
            if !self.shown.contains(&plain) {
                self.shown.push(plain);
            }
        }
        let stored = self.stored().await;
        for plain in &self.shown {
            let works = stored
                .iter()
                .any(|s| hash::verify(plain, &s.credential.hash));
            assert!(works, "{}: what was shown works", self.what);
        }
        status
    }

    async fn settled(&mut self, wanted: &[CredentialState], of: &mut Run) -> TechnicalUserStatus {
        let what = self.what.clone();
        eventually(&what, async || {
            of.survive();
            let status = self.look().await;
            let lives: Vec<_> = status.credentials.iter().map(|c| c.state).collect();
            let newest = self.keys.last().map(|k| k.recipient().to_string());
            let shown = status.sealed.as_ref().map(|s| s.recipient.clone());
            (lives == wanted && shown == newest).then_some(status)
        })
        .await
    }
}

/// An operator, which another one follows when it is killed.
struct Run {
    api: ApiServer,
    dead: mpsc::UnboundedReceiver<()>,
    running: Running,
}

impl Run {
    fn survive(&mut self) {
        if self.dead.try_recv().is_ok() {
            self.running = operator(self.api.client("default"));
        }
    }
}

/// The n-th write meets its fate; gives how many there were.
async fn claimed_twice(n: i64, fault: Fault) -> u64 {
    let what = format!("{fault:?} at write {n}");
    let (api, client) = world().await;
    let mut claims = Claims {
        client,
        keys: Vec::new(),
        what: what.clone(),
        shown: Vec::new(),
    };
    claims
        .patch(json!({"spec": {"credential": {"secret": {"delivery": "OneTime"}}}}))
        .await;
    let (faulty, dead) = faulty(&api, n, fault);
    let writes = faulty.writes.clone();
    let running = operator(Client::new(faulty, "default"));
    let mut run = Run { api, dead, running };
    claims.claim("").await;
    claims.settled(&[CredentialState::Active], &mut run).await;
    claims.claim("now").await;
    let both = [CredentialState::Retired, CredentialState::Active];
    let status = claims.settled(&both, &mut run).await;
    assert_eq!(
        status.last_handled_rotation.as_deref(),
        Some("now"),
        "{what}"
    );
    assert_eq!(status.secret_name, None, "{what}");
    let stored = claims.stored().await;
    assert_eq!(
        (stored.len(), claims.shown.len()),
        (2, 2),
        "{what}: no third"
    );
    let secrets: Api<Secret> = Api::namespaced(claims.client.clone(), TENANT);
    let delivered = secrets.list(&ListParams::default()).await.expect("a list");
    assert!(delivered.items.is_empty(), "{what}: none is delivered");
    drop(run);
    writes.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_at_every_write_of_two_claims() {
    let writes = claimed_twice(i64::MAX, Fault::Refused).await;
    assert!(
        writes >= 8,
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
        .flat_map(|fault| (1..=writes.cast_signed()).map(|n| claimed_twice(n, *fault)));
    let runs = futures::future::join_all(runs).await;
    println!(
        "{writes} writes undisturbed; {} runs, each with one fault",
        runs.len()
    );
}
