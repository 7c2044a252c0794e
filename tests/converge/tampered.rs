//! What people do to the stored hashes, and intervals that a release forbids.

use chancery::api::v1alpha1::TechnicalUserStatus;
use chancery::crypto::hash;
use chancery::domain::period::Period;
use chancery::objects::credentials;
use k8s_openapi::ByteString;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::exchange::Exchange;
use super::scene::eventually;
use super::*;

impl Exchange {
    fn hidden(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), OPERATOR)
    }

    /// Replaces the stored hashes.
    async fn tamper(&self, alter: impl Fn(&mut Secret)) {
        let mut hashes = self.hashes().await.expect("the hashes");
        alter(&mut hashes);
        let (name, params) = (hashes.name_any(), PostParams::default());
        let written = self.hidden().replace(&name, &params, &hashes).await;
        written.expect("written");
    }

    async fn plain(&self) -> Option<String> {
        let delivered = self.delivered().await?;
        let plain = delivery::plain_secrets(&delivered, "client_secret").pop()?;
        Some(plain.to_string())
    }

    /// Waits until what is delivered works, by hashes that servers find.
    async fn works(&self, what: &str) -> String {
        eventually(what, async || {
            let (hashes, plain) = (self.hashes().await?, self.plain().await?);
            credentials::hashes_of(&hashes)?;
            let stored = credentials::read_hashes(&hashes)?;
            let works = stored.iter().any(|c| hash::verify(&plain, &c.hash));
            works.then_some(plain)
        })
        .await
    }

    /// What the events of that reason say.
    async fn told(&self, reason: &str, what: &str) -> String {
        let events: Api<Event> = Api::namespaced(self.client.clone(), TENANT);
        eventually(what, async || {
            let all = events.list(&ListParams::default()).await.expect("a list");
            let mut notes = all.items.into_iter().filter_map(|event| {
                let of = event.reason.as_deref() == Some(reason);
                event.note.filter(|note| of && note.contains(what))
            });
            notes.next()
        })
        .await
    }
}

fn set(json: &'static str) -> impl Fn(&mut Secret) {
    move |secret: &mut Secret| {
        let data = secret.data.get_or_insert_default();
        data.insert(credentials::HASHES.into(), ByteString(json.into()));
    }
}

fn unlabel(secret: &mut Secret) {
    secret.metadata.labels = None;
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_that_are_emptied_or_garbage_are_made_again() {
    let scene = Exchange::start().await;
    let plain = scene.works("at first").await;
    for (what, json) in [
        ("emptied", "[]"),
        ("no JSON", "garbage"),
        (
            "no hash",
            r#"[{"id":"1","hash":"garbage","createdAt":"2026-11-27T00:00:00Z"}]"#,
        ),
    ] {
        scene.tamper(set(json)).await;
        assert_eq!(scene.works(what).await, plain, "{what}: clients go on");
    }
    scene.tamper(|secret| secret.data = None).await;
    assert_eq!(scene.works("no data").await, plain);
    scene
        .told("SecretRepaired", "lost or altered by hand")
        .await;

    // What was delivered is lost too: another one, and the truth about why.
    scene
        .settled("status knows", |s| s.credentials.len() == 1)
        .await;
    let mut delivered = scene.delivered().await.expect("it is there");
    let data = delivered.data.get_or_insert_default();
    data.insert("client_secret".into(), ByteString("mine".into()));
    scene.tamper(set("[]")).await;
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), TENANT);
    let params = PostParams::default();
    // Where the operator was quicker, that is well too.
    let _ = secrets
        .replace("orders-credentials", &params, &delivered)
        .await;
    scene.works("another one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_without_labels_get_them_back() {
    let scene = Exchange::start().await;
    let plain = scene.works("at first").await;
    let known = |s: &TechnicalUserStatus| s.credentials.len() == 1 && s.secret_name.is_some();
    scene.settled("status knows", known).await;
    let uid = scene.hashes().await.and_then(|s| s.uid());
    scene.tamper(unlabel).await;
    assert_eq!(scene.works("labels").await, plain);
    assert_eq!(scene.hashes().await.and_then(|s| s.uid()), uid, "the same");
    scene.told("SecretRepaired", "had lost the labels").await;
    scene.settled("all is well", known).await;

    // Nothing in it tells whose they are: status has seen others.
    scene
        .tamper(|secret| {
            unlabel(secret);
            set("[]")(secret);
        })
        .await;
    assert_eq!(scene.works("made again").await, plain, "clients go on");
    assert_ne!(scene.hashes().await.and_then(|s| s.uid()), uid);
    scene
        .told("SecretRepaired", "holds none of the hashes")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_below_the_releases_holds_as_the_releases() {
    let mut settings = (*settings()).clone();
    settings.policy.shortest_secret_rotation_interval = Some(Period::from_hours(1));
    let scene = Exchange::with(Arc::new(settings)).await;
    let interval =
        |text: &str| json!({"secret": {"rotation": {"interval": text, "gracePeriod": "0s"}}});
    scene.credential(interval("1s")).await;
    let stalled = |s: &TechnicalUserStatus| {
        let told = |c: &&Condition| c.type_ == "Stalled" && c.reason == "PolicyViolation";
        s.conditions.iter().find(told).map(|c| c.message.clone())
    };
    let status = scene
        .settled("the policy is told", |s| stalled(s).is_some())
        .await;
    let told = stalled(&status).expect("told");
    assert!(
        told.contains("interval is 1s") && told.contains("Until then 1h holds"),
        "{told}"
    );
    let next = status.next_rotation.expect("a time").0;
    let wait = next.duration_since(status.credentials[0].created_at.0);
    // Not all rotate at the same second.
    assert!((3000..=3700).contains(&wait.as_secs()), "{wait}");
    assert_eq!(status.credentials.len(), 1);

    scene.credential(interval("1h")).await;
    scene.settled("all is well", |s| stalled(s).is_none()).await;
}

/// A stolen secret is replaced, whatever else the spec asks for; and a number names one secret for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_the_release_holds_up_no_rotation() {
    let scene = Exchange::start().await;
    let stolen = scene.works("at first").await;
    let users: Api<TechnicalUser> = Api::namespaced(scene.client.clone(), TENANT);
    let rotate = json!({
        "metadata": {"annotations": {"chancery.dev/rotate": "stolen"}},
        "spec": {
            "tokenTtl": "23h",
            "credential": {"secret": {"rotation": {"gracePeriod": "0s"}}},
        },
    });
    let params = PatchParams::default();
    let patched = users.patch("orders", &params, &Patch::Merge(rotate)).await;
    patched.expect("patched");
    let status = scene
        .settled("it is replaced", |s| {
            let ready = |c: &Condition| c.type_ == "Ready" && c.status == "True";
            let stalled = |c: &Condition| c.type_ == "Stalled" && c.message.contains("23h");
            s.last_handled_rotation.as_deref() == Some("stolen")
                && s.credentials.len() == 1
                && s.conditions.iter().any(ready)
                && s.conditions.iter().any(stalled)
        })
        .await;
    assert_eq!(status.credentials[0].id, "2");
    assert_ne!(scene.works("another one").await, stolen);

    // By way of a key, of which nothing is left.
    let key = chancery::crypto::key_pair::KeyPair::generate_pem(
        chancery::domain::algorithm::Algorithm::ES256,
        chancery::domain::algorithm::RsaKeySize::Bits2048,
    );
    let pair = chancery::crypto::key_pair::KeyPair::from_pem(
        chancery::domain::algorithm::Algorithm::ES256,
        &key.expect("a key"),
    )
    .expect("a key");
    let to_key = json!({
        "secret": null, "gracePeriod": "0s",
        "publicKey": {"jwks": {"keys": [pair.public_jwk()]}},
    });
    scene.credential(to_key).await;
    scene
        .settled("nothing is left of the secret", |s| {
            s.credentials.is_empty() && s.key_ids.len() == 1
        })
        .await;
    let back = json!({"publicKey": null, "gracePeriod": null, "secret": {}});
    scene.credential(back).await;
    let status = scene
        .settled("a secret again", |s| s.credentials.len() == 1)
        .await;
    assert_eq!(status.credentials[0].id, "3");
}
