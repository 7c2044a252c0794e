//! The audit log: a line for each token that is issued, refused or revoked, and no secret in any.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use chancery::cli::audit;
use chancery::crypto::key_pair::KeyPair;
use chancery::domain::client::{Client, Family};
use chancery::domain::provider::Provider;
use chancery::domain::user::{People, UserFacts};
use chancery::serve::snapshot::Snapshot;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::jwt::{sign, with};
use crate::people::{self, CORP, OF_CORP, corp, exchange, of_person, trusted};
use crate::support::*;
use crate::users;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// What was written, an object a line.
    fn read(&self) -> Vec<Value> {
        let bytes = self.0.lock().expect("a lock");
        let text = std::str::from_utf8(&bytes).expect("text");
        let line = |line: &str| serde_json::from_str(line).expect("an object a line");
        text.lines().map(line).collect()
    }
}

/// The log of this thread, on which the test runs whole.
fn listen() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let to = lines.clone();
    let subscriber = tracing_subscriber::registry().with(audit::layer(move || to.clone()));
    (lines, tracing::subscriber::set_default(subscriber))
}

fn without_time(mut line: Value) -> Value {
    let time = line.as_object_mut().and_then(|l| l.remove("timestamp"));
    assert!(time.is_some_and(|t| t.is_string()), "{line}");
    line
}

#[tokio::test]
async fn one_line_each_and_no_secret() {
    let (lines, _listening) = listen();
    let (robot, secret) = robot();
    let device = Client {
        id: "acme.phone".into(),
        family: Family::Device,
        companion: Some("acme.agent".into()),
        ..robot.clone()
    };
    let world = World::new();
    world
        .store
        .publish(snapshot([ring("main", &es256())], [robot, device]));
    let answer = world.token("acme.robot", &secret, "&scope=read").await;
    let token = answer.json()["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let claims = chancery::crypto::own_token::read(&token, &jwks([&es256()]).keys).expect("ours");
    // Remembered, which is another way through the server.
    world.token("acme.robot", &secret, "").await;
    world.token("acme.robot", &secret, "&scope=admin").await;
    let wrong = new_secret();
    world.token("acme.robot", &wrong, "").await;
    world.token("acme.none", &wrong, "").await;
    // Someone takes one field for the other.
    world.token(&secret, "acme.robot", "").await;
    world
        .token("acme.robot", &secret, &format!("&scope={secret}"))
        .await;
    let answer = world.send(revocation("acme.robot", &secret, &token)).await;
    assert_eq!(answer.status, 200);
    // Nothing is revoked: no line.
    world.send(revocation("acme.robot", &secret, "x")).await;
    let mut revoke = post(&[("authorization", &basic("acme.phone", &secret))], "");
    *revoke.uri_mut() = "/auth/device/revoke".parse().expect("a path");
    world.send(revoke).await;
    let read: Vec<_> = lines.read().into_iter().map(without_time).collect();
    let known = json!({
        "client": "acme.robot", "tenant": "le-acme", "namespace": "acme", "credential": "c1",
    });
    let with = |base: &Value, more: Value| {
        let mut line = base.clone();
        let of = line.as_object_mut().expect("an object");
        of.extend(more.as_object().expect("an object").clone());
        line
    };
    let grant = json!({"grant": "client_credentials"});
    assert_eq!(
        read[0],
        with(
            &with(&known, grant.clone()),
            json!({
                "event": "issued", "subject": "acme.robot", "kid": es256().key_id(), "jti": claims.id,
                "aud": "https://api.example.com", "scope": "read", "exp": NOW + 300,
            })
        )
    );
    assert_eq!(read[1]["credential"], "c1");
    assert_eq!(read[1]["scope"], "read write");
    assert_ne!(read[1]["jti"], read[0]["jti"]);
    let refused = |line: &Value, error: &str| {
        assert_eq!(
            (&line["event"], &line["error"]),
            (&"refused".into(), &error.into())
        );
        assert_ne!(line["reason"], Value::Null);
    };
    refused(&read[2], "invalid_scope");
    assert_eq!(read[2]["credential"], "c1");
    assert!(read[2]["reason"].as_str().expect("text").contains("admin"));
    for line in &read[3..6] {
        refused(line, "invalid_client");
        assert!(
            line.get("credential").is_none() && line.get("tenant").is_none(),
            "{line}"
        );
    }
    assert_eq!(read[3]["client"], "acme.robot");
    assert_eq!(read[4]["client"], "acme.none");
    refused(&read[6], "invalid_scope");
    assert_eq!(
        read[7],
        with(&known, json!({"event": "revoked", "jti": claims.id}))
    );
    assert_eq!(
        read[8],
        with(
            &known,
            json!({
                "event": "device_revoked", "client": "acme.phone", "companion": "acme.agent",
            })
        )
    );
    assert_eq!(read.len(), 9);
    let all = format!("{read:?}");
    for secret in [&secret, &wrong] {
        assert!(!all.contains(&secret[3..23]), "{all}");
    }
    let (_, signature) = token.rsplit_once('.').expect("three parts");
    assert!(!all.contains(signature) && !all.contains("eyJ"), "{all}");
}

/// Whom another issuer calls as one of ours is called has not acted here.
#[tokio::test]
async fn actors_are_told_with_whoever_calls_them_so() {
    let (lines, _listening) = listen();
    let (world, secret) = people::world();
    for (act, before) in [
        (
            json!({"sub": "acme.shop"}),
            json!({"sub": "acme.shop", "iss": CORP}),
        ),
        (
            json!({"sub": "x acme.orders", "iss": "https://x.example"}),
            json!({"sub": "x acme.orders", "iss": "https://x.example"}),
        ),
    ] {
        let person = of_person(&json!({ "act": act }));
        let answer = exchange(&world, "acme.front", &secret, &person, "").await;
        assert_eq!(answer.status, 200);
        let line = lines.read().pop().expect("a line");
        assert_eq!(line["actors"], json!([{"sub": "acme.front"}, before]));
    }
    // What has nothing to say is left out.
    let narrow = of_person(&json!({"scope": "mail"}));
    let answer = exchange(&world, "acme.front", &secret, &narrow, "").await;
    assert_eq!(answer.status, 200);
    let line = lines.read().pop().expect("a line");
    assert_eq!(
        (&line["event"], line.get("scope")),
        (&json!("issued"), None)
    );
}

/// The client hears the same of all; the audit log tells which it was.
#[tokio::test]
async fn why_a_persons_token_is_not_known_is_told() {
    let (lines, _listening) = listen();
    let (all, secret) = people::clients();
    let world = World::new();
    let named = |name: &str, namespace: Option<&str>, active: bool| Provider {
        name: name.into(),
        namespace: namespace.map(str::to_owned),
        issuers: vec![format!("https://{name}.example")],
        active,
        ..corp()
    };
    let providers = || {
        vec![
            trusted(corp(), &OF_CORP),
            trusted(named("old", None, false), &OF_CORP),
            trusted(named("theirs", Some("globex"), true), &OF_CORP),
        ]
    };
    world
        .store
        .publish(people::served(all.clone(), providers()));
    let signed = |by: &KeyPair, kid: Value, iss: &str| {
        let header = with(&people::header(), &json!({ "kid": kid }));
        sign(by, &header, &with(&people::claims(), &json!({"iss": iss})))
    };
    let kid = OF_CORP.key_id();
    let mut told = HashSet::new();
    let mut heard = HashSet::new();
    let secretive = format!("sk-{}", "x".repeat(30));
    for (token, provider, kid, cause) in [
        (
            signed(&OF_CORP, json!("new"), CORP),
            Some("corp"),
            "new",
            "kid",
        ),
        (
            signed(&es256(), json!(kid), CORP),
            Some("corp"),
            kid,
            "signature",
        ),
        (
            signed(&es256(), json!(secretive), CORP),
            Some("corp"),
            "(it holds what may be a client secret)",
            "kid",
        ),
        (
            signed(&OF_CORP, json!(kid), "https://old.example"),
            Some("old"),
            kid,
            "active",
        ),
        (
            signed(&OF_CORP, json!(kid), "https://theirs.example"),
            Some("globex/theirs"),
            kid,
            "tenant",
        ),
        (
            signed(&OF_CORP, json!(kid), "https://login.corp.example/"),
            Some("corp"),
            kid,
            "iss",
        ),
        (
            signed(&es256(), json!("none"), "https://x"),
            None,
            "none",
            "iss",
        ),
    ] {
        let answer = exchange(&world, "acme.front", &secret, &token, "").await;
        assert_eq!(answer.error(), "invalid_request");
        heard.insert(answer.body);
        let line = lines.read().pop().expect("a line");
        assert_eq!(line["event"], "refused");
        assert_eq!(line.get("provider").and_then(Value::as_str), provider);
        assert_eq!(line["subject_kid"], kid, "{line}");
        let why = line["cause"].as_str().expect("a cause").to_owned();
        assert!(why.contains(cause), "{why}");
        assert_eq!(line.get("subject"), None, "nothing is verified");
        assert!(!line.to_string().contains("eyJ"), "{line}");
        told.insert(why);
    }
    assert_eq!((heard.len(), told.len()), (1, 6), "{told:?}");
    // What was verified before the refusal is named.
    let of_corp = of_person(&json!({"aud": "back"}));
    exchange(&world, "acme.front", &secret, &of_corp, "").await;
    let line = lines.read().pop().expect("a line");
    assert_eq!(
        (&line["provider"], &line["subject_kid"]),
        (&json!("corp"), &json!(kid))
    );
    let ann = UserFacts {
        namespace: "acme".into(),
        suspended: true,
        ..users::user("acme", "ann", "corp:ann")
    };
    world.store.publish(Snapshot {
        people: Arc::new(People::of([ann])),
        ..people::served(all, providers())
    });
    for (changes, subject) in [(json!({}), "corp:ann"), (json!({"sub": "bob"}), "corp:bob")] {
        let token = of_person(&changes);
        exchange(&world, "acme.front", &secret, &token, "&scope=none").await;
        let line = lines.read().pop().expect("a line");
        assert_eq!(
            (&line["event"], &line["subject"], &line["provider"]),
            (&json!("refused"), &json!(subject), &json!("corp"))
        );
    }
}
