//! From a client secret to a key, and back: nothing that a client still uses is taken from it.

use chancery::objects::credentials::{self, works_until};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::scene::eventually;
use super::*;

const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

pub struct Exchange {
    pub client: Client,
    _running: Running,
    _api: ApiServer,
}

impl Exchange {
    /// A technical user with a secret that works.
    pub async fn start() -> Self {
        Self::with(settings()).await
    }

    /// The same in a release with these settings.
    pub async fn with(settings: Arc<Settings>) -> Self {
        let (api, client) = world().await;
        let running = operator_with(client.clone(), settings);
        let scene = Self {
            client,
            _running: running,
            _api: api,
        };
        scene.settled("a secret", |s| s.secret_name.is_some()).await;
        scene
    }

    pub fn users(&self) -> Api<TechnicalUser> {
        Api::namespaced(self.client.clone(), TENANT)
    }

    pub async fn credential(&self, credential: Value) {
        let patch = Patch::Merge(json!({"spec": {"credential": credential}}));
        let (users, params) = (self.users(), PatchParams::default());
        let patched = users.patch("orders", &params, &patch);
        patched.await.expect("patched");
    }

    /// Waits until status speaks of the spec as it is, and of that.
    pub async fn settled(
        &self,
        what: &str,
        holds: impl Fn(&chancery::api::v1alpha1::TechnicalUserStatus) -> bool,
    ) -> chancery::api::v1alpha1::TechnicalUserStatus {
        eventually(what, async || {
            let user = self.users().get("orders").await.expect("the user");
            let status = user
                .status
                .filter(|s| Some(s.observed_generation) == user.metadata.generation && holds(s))?;
            let ready = |c: &Condition| c.type_ == "Ready" && c.status == "True";
            status.conditions.iter().any(ready).then_some(status)
        })
        .await
    }

    /// Asks for a rotation.
    pub async fn ask(&self, value: &str) {
        let asked = json!({"metadata": {"annotations": {"chancery.dev/rotate": value}}});
        let (users, params) = (self.users(), PatchParams::default());
        let patch = Patch::Merge(asked);
        let patched = users.patch("orders", &params, &patch);
        patched.await.expect("patched");
    }

    pub async fn hashes(&self) -> Option<Secret> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), OPERATOR);
        let hashes = secrets.get_opt("acme.orders-credentials").await;
        hashes.expect("an answer")
    }

    pub async fn delivered(&self) -> Option<Secret> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), TENANT);
        let delivered = secrets.get_opt("orders-credentials").await;
        delivered.expect("an answer")
    }
}

fn key(kid: &str) -> Value {
    json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": X, "y": Y})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_exchanged_for_a_key_and_works_through_its_grace() {
    let scene = Exchange::start().await;
    let before = (scene.hashes().await, scene.delivered().await);
    let to_key = json!({"secret": null, "publicKey": {"jwks": {"keys": [key("k1")]}}});
    scene.credential(to_key).await;
    let status = scene
        .settled("both", |s| {
            s.key_ids == ["k1"] && s.credentials.iter().all(|c| c.expires_at.is_some())
        })
        .await;
    assert_eq!(status.credential.as_deref(), Some("PublicKey"));
    assert_eq!(status.secret_name.as_deref(), Some("orders-credentials"));
    let told = &status.conditions[0].message;
    assert!(
        told.contains("key k1") && told.contains("works too, until"),
        "{told}"
    );
    let until = eventually("the hash has an end", async || {
        works_until(&scene.hashes().await.expect("the hash"))
    })
    .await;
    let day = until.duration_since(clock::system().now()).as_secs();
    assert!((86_000..=86_400).contains(&day), "{day}");
    assert_eq!(status.credentials.len(), 1);
    let data = |secret: &Option<Secret>| secret.as_ref().and_then(|s| s.data.clone());
    assert_eq!(data(&scene.delivered().await), data(&before.1), "as it was");
    assert_eq!(data(&scene.hashes().await), data(&before.0), "as it was");

    // Back again: the same secret, without an end.
    scene
        .credential(json!({"publicKey": null, "secret": {}}))
        .await;
    let status = scene
        .settled("back", |s| {
            s.credentials.iter().all(|c| c.expires_at.is_none())
        })
        .await;
    assert_eq!(status.credential.as_deref(), Some("Secret"));
    assert!(status.key_ids.is_empty());
    assert_eq!(works_until(&scene.hashes().await.expect("the hash")), None);
    assert_eq!(
        data(&scene.delivered().await),
        data(&before.1),
        "the same secret"
    );

    // With another grace, which is then ended by a shorter one.
    let to_key =
        json!({"secret": null, "gracePeriod": "1h", "publicKey": {"jwks": {"keys": [key("k2")]}}});
    scene.credential(to_key).await;
    scene.settled("its keys", |s| s.key_ids == ["k2"]).await;
    assert!(scene.delivered().await.is_some());
    scene.credential(json!({"gracePeriod": "0s"})).await;
    scene
        .settled("the end", |s| {
            let told = &s.conditions[0].message;
            s.credentials.is_empty() && !told.contains("secret")
        })
        .await;
    eventually("nothing of the secret is left", async || {
        let left = (scene.hashes().await, scene.delivered().await);
        matches!(left, (None, None)).then_some(())
    })
    .await;

    // A new one is made where a secret is wanted again.
    let to_secret = json!({"publicKey": null, "gracePeriod": null, "secret": {}});
    scene.credential(to_secret).await;
    scene
        .settled("a new secret", |s| s.secret_name.is_some())
        .await;
    assert_ne!(
        data(&scene.delivered().await),
        data(&before.1),
        "another secret"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_can_not_be_used_is_told_and_the_others_work() {
    let scene = Exchange::start().await;
    // Both coordinates are sound, and no point of the curve.
    let off = json!({"kty": "EC", "crv": "P-256", "kid": "off", "x": Y, "y": X});
    let keys = json!({"secret": null, "publicKey": {"jwks": {"keys": [key("k1"), off]}}});
    scene.credential(keys).await;
    let status = scene.settled("one works", |s| s.key_ids == ["k1"]).await;
    let stalled = |c: &&Condition| c.type_ == "Stalled" && c.status == "True";
    let stalled = status.conditions.iter().find(stalled).expect("told");
    assert_eq!(stalled.reason, "PublicKeyRefused");
    assert!(
        stalled.message.contains("keys[1] (kid \"off\")"),
        "{}",
        stalled.message
    );
}

/// Two client secrets work when a key takes their place: the old one ends when its own grace does, and
/// the newest with the exchange.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_secret_ends_with_its_own_grace_amid_an_exchange() {
    let scene = Exchange::start().await;
    let rotation = json!({"secret": {"rotation": {"gracePeriod": "12s"}}});
    scene.credential(rotation).await;
    let asked = json!({"metadata": {"annotations": {"chancery.dev/rotate": "now"}}});
    let patch = Patch::Merge(asked);
    let (users, params) = (scene.users(), PatchParams::default());
    users
        .patch("orders", &params, &patch)
        .await
        .expect("patched");
    let two = |s: &chancery::api::v1alpha1::TechnicalUserStatus| {
        s.credentials.len() == 2 && s.credentials[0].expires_at.is_some()
    };
    let status = scene.settled("both work", two).await;
    let end = status.credentials[0].expires_at.clone().expect("an end").0;
    eventually("its end is kept", async || {
        let stored = credentials::read(&scene.hashes().await?);
        stored[0].known.ends_at
    })
    .await;

    let to_key = json!({
        "secret": null, "gracePeriod": "1h", "publicKey": {"jwks": {"keys": [key("k1")]}},
    });
    scene.credential(to_key).await;
    let ended = |s: &chancery::api::v1alpha1::TechnicalUserStatus| {
        s.key_ids == ["k1"] && s.credentials.iter().all(|c| c.expires_at.is_some())
    };
    let status = scene.settled("the key, and both", ended).await;
    let until = |n: usize| status.credentials[n].expires_at.as_ref().expect("an end").0;
    assert!(status.credentials.len() == 2, "{:?}", status.credentials);
    assert_eq!(until(0), end, "not longer than it was to");
    let hour = until(1).duration_since(clock::system().now()).as_secs();
    assert!((3_500..=3_600).contains(&hour), "{hour}");
    // Servers have it in writing.
    let hashes = scene.hashes().await.expect("the hashes");
    let stored = credentials::read_hashes(&hashes).expect("hashes");
    assert_eq!(
        stored[0].expires_at.map(jiff::Timestamp::as_second),
        Some(end.as_second())
    );
    assert_eq!(stored[1].expires_at, None);

    // What is wrong with the spec meanwhile holds nothing up.
    let ttl = Patch::Merge(json!({"spec": {"tokenTtl": "23h"}}));
    users.patch("orders", &params, &ttl).await.expect("patched");
    let status = eventually("the old one has ended", async || {
        let status = users.get("orders").await.expect("the user").status?;
        (status.credentials.len() == 1).then_some(status)
    })
    .await;
    let now = clock::system().now();
    assert!(now >= end, "{now} {end}");
    assert_eq!(status.credentials[0].id, "2");
    let violation = |c: &Condition| c.type_ == "Stalled" && c.reason == "PolicyViolation";
    assert!(
        status.conditions.iter().any(violation),
        "{:?}",
        status.conditions
    );
    scene.credential(json!({"gracePeriod": "0s"})).await;
    eventually("nothing of the secret is left", async || {
        let left = (scene.hashes().await, scene.delivered().await);
        matches!(left, (None, None)).then_some(())
    })
    .await;
}

/// A secret whose hash was stored, and that was not delivered yet, is nobody's: it goes. What is asked for
/// from then on is told not to happen.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_being_made_goes_and_what_is_asked_for_is_told() {
    let scene = Exchange::start().await;
    let first = scene.delivered().await.and_then(|s| s.data);
    scene.ask("first").await;
    let stored = async || credentials::read(&scene.hashes().await.expect("the hashes"));
    eventually("the next one is stored", async || {
        (stored().await.len() == 2).then_some(())
    })
    .await;
    let to_key = json!({"secret": null, "publicKey": {"jwks": {"keys": [key("k1")]}}});
    scene.credential(to_key).await;
    let status = scene
        .settled("the one that its holder has", |s| {
            s.key_ids == ["k1"] && s.credentials.len() == 1
        })
        .await;
    assert_eq!(status.credentials[0].id, "1");
    let only: Vec<_> = stored()
        .await
        .into_iter()
        .map(|s| s.credential.id)
        .collect();
    assert_eq!(only, ["1"]);
    assert_eq!(scene.delivered().await.and_then(|s| s.data), first);

    scene.ask("second").await;
    let paused = |s: &chancery::api::v1alpha1::TechnicalUserStatus, what: &str| {
        let told = |c: &&Condition| c.type_ == "RotationPaused" && c.status == "True";
        let told = s.conditions.iter().find(told);
        told.is_some_and(|c| c.reason == "CredentialExchanged" && c.message.contains(what))
    };
    let asked = "The rotation that an annotation asks for does not take place";
    scene
        .settled("the rotation is refused", |s| paused(s, asked))
        .await;
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), TENANT);
    let params = DeleteParams::default();
    let deleted = secrets.delete("orders-credentials", &params);
    deleted.await.expect("deleted");
    let lost = "deleted or altered, and neither is it put there again";
    let status = scene.settled("its loss is told", |s| paused(s, lost)).await;
    assert!(status.conditions[0].message.contains(lost));
    assert_eq!(status.credentials.len(), 1, "it works for who has it");
    // A secret again: now it happens.
    scene
        .credential(json!({"publicKey": null, "secret": {}}))
        .await;
    let status = scene
        .settled("another one", |s| {
            s.secret_name.is_some() && s.last_handled_rotation.as_deref() == Some("second")
        })
        .await;
    assert!(!paused(&status, ""));
}

/// The embedded API server signs no tokens: status says so, and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_clusters_keys_status_says_so() {
    let scene = Exchange::start().await;
    let account = json!({"secret": null, "serviceAccount": {"name": "app"}});
    scene.credential(account).await;
    let told = |user: &TechnicalUser, reason: &str| {
        let status = user.status.as_ref()?;
        let current = Some(status.observed_generation) == user.metadata.generation;
        let mut conditions = status.conditions.iter().filter(|_| current);
        let found = conditions.find(|c| c.type_ == "Ready" && c.reason == reason)?;
        Some(found.message.clone())
    };
    let message = eventually("the keys are missed", async || {
        let user = scene.users().get("orders").await.expect("the user");
        told(&user, "ClusterKeysUnknown").filter(|m| m.contains("refuses"))
    })
    .await;
    assert!(
        message.contains("/.well-known/openid-configuration"),
        "{message}"
    );
    assert!(message.contains("serviceAccount.cluster"), "{message}");

    // With keys of its own it needs none, and an audience has to be one of ours.
    let other = json!({
        "name": "app", "audience": "elsewhere",
        "cluster": {"issuer": "https://other.example", "jwks": {"keys": [key("k1")]}},
    });
    scene.credential(json!({"serviceAccount": other})).await;
    let message = eventually("the audience is refused", async || {
        let user = scene.users().get("orders").await.expect("the user");
        told(&user, "PolicyViolation")
    })
    .await;
    assert!(
        message.contains("policy.serviceAccountAudiences"),
        "{message}"
    );
    scene
        .credential(json!({"serviceAccount": {"audience": null}}))
        .await;
    let status = scene.settled("it works", |s| s.key_ids.is_empty()).await;
    assert_eq!(status.credential.as_deref(), Some("ServiceAccount"));
    assert!(
        status.conditions[0]
            .message
            .contains("https://other.example")
    );
}
