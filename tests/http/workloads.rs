//! Workloads that authenticate with the projected tokens of their `ServiceAccount`s.

use std::collections::HashMap;
use std::sync::Arc;

use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::Algorithm;
use chancery::domain::client::Client;
use chancery::domain::settings::{Policy, Settings};
use chancery::serve::trust::{Account, Keys, Trusted};
use serde_json::{Value, json};

use crate::jwt::{body, public, sign, with};
use crate::support::*;

const CLUSTER: &str = "https://kubernetes.example";

/// `acme.robot` is `ServiceAccount` `apps/robot` of the cluster.
struct Scene {
    world: World,
    key: Arc<KeyPair>,
}

fn account(key: &KeyPair, audience: &str) -> Account {
    Account {
        namespace: "apps".into(),
        name: "robot".into(),
        uid: Some("u1".into()),
        audience: audience.into(),
        issuer: CLUSTER.into(),
        keys: Keys(vec![public(key, Some("k1"))]),
    }
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            world: World::with_settings(Settings {
                issuer: ISSUER.into(),
                policy: Policy {
                    service_account_audiences: vec!["reports".into()],
                    ..Policy::default()
                },
                ..Settings::default()
            }),
            key: key(Algorithm::RS256),
        };
        scene.publish(account(&scene.key, ISSUER));
        scene
    }

    fn publish(&self, account: Account) {
        let client = |id: &str, suspended| Client {
            id: id.into(),
            credentials: Vec::new(),
            suspended,
            ..robot().0
        };
        let clients = [client("acme.robot", false), client("acme.other", false)];
        let mut snapshot = snapshot([ring("main", &es256())], clients);
        let trusted = Arc::new(Trusted::ServiceAccount(account));
        snapshot.trusted = HashMap::from([("acme.robot".to_owned(), trusted)]);
        self.world.store.publish(snapshot);
    }

    /// A token as the API server makes them, but for these changes.
    fn token(&self, claims: &Value) -> String {
        let sound = json!({
            "iss": CLUSTER, "sub": "system:serviceaccount:apps:robot", "aud": [ISSUER],
            "exp": NOW + 3607, "iat": NOW - 1800, "nbf": NOW - 1800,
            "jti": "11f3ec3c-3c9b-4e35-b6a3-d50e8bd4d7b4",
            "kubernetes.io": named("apps", "robot", "u1"),
        });
        let header = json!({"alg": "RS256", "kid": "k1"});
        sign(&self.key, &header, &with(&sound, claims))
    }

    async fn ask(&self, token: &str, more: &str) -> Answer {
        self.world.send(post(&[], body(token, more))).await
    }
}

fn named(namespace: &str, name: &str, uid: &str) -> Value {
    json!({
        "namespace": namespace, "serviceaccount": {"name": name, "uid": uid},
        "pod": {"name": "robot-1", "uid": "p1"},
    })
}

const ROBOT: &str = "&client_id=acme.robot";

#[tokio::test]
async fn a_token_is_used_again_and_again() {
    let scene = Scene::new();
    let token = scene.token(&json!({}));
    for _ in 0..3 {
        let answer = scene.ask(&token, ROBOT).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// The UID of a `ServiceAccount` of another namespace is known by its digest alone.
#[tokio::test]
async fn a_digest_stands_for_a_uid() {
    let scene = Scene::new();
    let known_by = |uid: &str| Account {
        uid: Some(uid.into()),
        ..account(&scene.key, ISSUER)
    };
    let token = scene.token(&json!({}));
    for (uid, status) in [
        (chancery::crypto::fingerprint("u1"), 200),
        (chancery::crypto::fingerprint("u2"), 401),
        ("sha256:u1".to_owned(), 401),
    ] {
        scene.publish(known_by(&uid));
        assert_eq!(scene.ask(&token, ROBOT).await.status, status, "{uid}");
    }
}

#[tokio::test]
async fn each_defect_alone_is_refused() {
    let scene = Scene::new();
    let other = |namespace: &str, name: &str, uid: &str| {
        json!({
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "kubernetes.io": named(namespace, name, uid),
        })
    };
    let silent = "client authentication failed.";
    for (name, claims, told) in [
        (
            "another ServiceAccount",
            other("apps", "other", "u1"),
            silent,
        ),
        ("another namespace", other("other", "robot", "u1"), silent),
        ("made again", other("apps", "robot", "u2"), silent),
        ("another cluster", json!({"iss": "https://other"}), silent),
        (
            "another of our audiences",
            json!({"aud": ["reports"]}),
            silent,
        ),
        (
            "kid and kubernetes.io disagree",
            json!({"kubernetes.io": named("apps", "other", "u1")}),
            "different",
        ),
        (
            "no kubernetes.io",
            json!({"kubernetes.io": null}),
            "kubernetes.io",
        ),
        (
            "the API server's",
            json!({"aud": [CLUSTER]}),
            "aud is neither",
        ),
        (
            "for two",
            json!({"aud": [ISSUER, CLUSTER]}),
            "one value alone",
        ),
        ("no aud", json!({"aud": null}), "aud is missing"),
        ("without an end", json!({"exp": null}), "exp is missing"),
        ("expired", json!({"exp": NOW - 40}), "expired"),
        ("not yet", json!({"nbf": NOW + 40}), "nbf"),
    ] {
        let answer = scene.ask(&scene.token(&claims), ROBOT).await;
        assert_eq!(answer.status, 401, "{name}: {answer:?}");
        assert_eq!(answer.error(), "invalid_client", "{name}");
        let said = answer.json()["error_description"].to_string();
        assert!(said.contains(told), "{name}: {said}");
    }
    // It is for the client that the form names, and for no other.
    let token = scene.token(&json!({}));
    for (more, told) in [
        ("", "client_id is missing"),
        ("&client_id=acme.other", silent),
        ("&client_id=acme.nobody", silent),
    ] {
        let answer = scene.ask(&token, more).await;
        assert_eq!(answer.status, 401, "{more}");
        assert!(
            answer.json()["error_description"]
                .to_string()
                .contains(told)
        );
    }
    // Signed by someone else, or by a key that the cluster no longer has.
    let stranger = Scene::new();
    let forged = scene.ask(&stranger.token(&json!({})), ROBOT).await;
    assert_eq!(forged.status, 401);
    let gone = Account {
        keys: Keys(vec![public(&scene.key, Some("k2"))]),
        ..account(&scene.key, ISSUER)
    };
    scene.publish(gone);
    assert_eq!(scene.ask(&token, ROBOT).await.status, 401);
}

#[tokio::test]
async fn an_audience_that_the_release_names_and_another_cluster() {
    let scene = Scene::new();
    let reports = scene.token(&json!({"aud": ["reports"]}));
    scene.publish(account(&scene.key, "reports"));
    assert_eq!(scene.ask(&reports, ROBOT).await.status, 200);
    let issuers = scene.token(&json!({}));
    assert_eq!(scene.ask(&issuers, ROBOT).await.status, 401);
    // Of another cluster nobody here knows the UIDs.
    let other = Account {
        uid: None,
        ..account(&scene.key, ISSUER)
    };
    scene.publish(other);
    assert_eq!(scene.ask(&issuers, ROBOT).await.status, 200);
}

/// Its own key makes no client a workload, nor the other way round.
#[tokio::test]
async fn the_kinds_are_told_apart() {
    let scene = Scene::new();
    let claims = json!({"iss": "acme.robot", "sub": "acme.robot", "aud": ISSUER, "exp": NOW + 60, "jti": "1"});
    let own = sign(&scene.key, &json!({"alg": "RS256", "kid": "k1"}), &claims);
    assert_eq!(scene.ask(&own, "").await.status, 401);
    let keys = Trusted::PublicKey(Keys(vec![public(&scene.key, Some("k1"))]));
    let mut snapshot = snapshot([ring("main", &es256())], [robot().0]);
    snapshot.trusted = HashMap::from([("acme.robot".to_owned(), Arc::new(keys))]);
    scene.world.store.publish(snapshot);
    assert_eq!(scene.ask(&own, "").await.status, 200);
    assert_eq!(scene.ask(&scene.token(&json!({})), ROBOT).await.status, 401);
}
