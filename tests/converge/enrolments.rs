//! What servers have noted of people, and of legal entities, comes home whoever is killed in between: one
//! User each, one namespace, and no note is left.

use chancery::api::v1alpha1::{OidcProvider, User};
use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::{Algorithm, RsaKeySize};
use chancery::objects::enrolments;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::scene::eventually;
use super::*;

const NOTES: &str = "chancery-enrolments";

fn settings() -> Arc<Settings> {
    let mut settings = (*super::settings()).clone();
    settings.legal_entities.auto_enroll = true;
    Arc::new(settings)
}

fn users(client: &Client) -> Api<User> {
    Api::namespaced(client.clone(), TENANT)
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), OPERATOR)
}

async fn provider(client: &Client, namespace: &str, name: &str, auto_enroll: Value) {
    let pem = KeyPair::generate_pem(Algorithm::ES256, RsaKeySize::Bits2048).expect("a key");
    let pair = KeyPair::from_pem(Algorithm::ES256, &pem).expect("a pair");
    let provider = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "OidcProvider", "metadata": {"name": name},
        "spec": {
            "issuers": [format!("https://{name}.example")], "audiences": ["orders"],
            "jwks": {"keys": [pair.public_jwk()]}, "autoEnroll": auto_enroll,
        },
    });
    let api: Api<OidcProvider> = Api::namespaced(client.clone(), namespace);
    let provider = serde_json::from_value(provider).expect("valid");
    let made = api.create(&PostParams::default(), &provider).await;
    made.expect("created");
}

/// A tenant with a provider of its own, and one for all; an operator has seen them, and has ended.
async fn prepared() -> (ApiServer, Client) {
    let (api, client) = world().await;
    provider(&client, TENANT, "partner", json!({"users": true})).await;
    let both = json!({"users": true, "legalEntities": true});
    provider(&client, OPERATOR, "corp", both).await;
    let running = operator_with(api.client("default"), settings());
    converged(&client, &running, "before").await;
    for (namespace, name) in [(TENANT, "partner"), (OPERATOR, "corp")] {
        let api: Api<OidcProvider> = Api::namespaced(client.clone(), namespace);
        eventually(&format!("{name} is ready"), async || {
            let status = api.get(name).await.expect("there").status?;
            let ready = |c: &Condition| c.type_ == "Ready" && c.status == "True";
            status.conditions.iter().any(ready).then_some(())
        })
        .await;
    }
    eventually("there is a place for notes", async || {
        maps(&client).get_opt(NOTES).await.expect("an answer")
    })
    .await;
    (api, client)
}

/// As servers note them.
async fn note(client: &Client, data: Value) {
    let (params, patch) = (
        PatchParams::default(),
        Patch::Merge(json!({ "data": data })),
    );
    let patched = maps(client).patch(NOTES, &params, &patch).await;
    patched.expect("patched");
}

/// As a person edits a User.
async fn change(client: &Client, user: &str, edit: Value) {
    let (params, patch) = (PatchParams::default(), Patch::Merge(edit));
    let patched = users(client).patch(user, &params, &patch).await;
    patched.expect("patched");
}

async fn note_all(client: &Client) {
    let data = json!({
        TENANT: json!({"corp": ["ann", "bob"], "acme/partner": ["ann"]}).to_string(),
        "_legal-entities": json!({"corp": ["new"]}).to_string(),
        "nobody": json!({"corp": ["ann"]}).to_string(),
    });
    note(client, data).await;
}

/// Waits until all is home, and proves that it is there once.
async fn home(client: &Client, what: &str) {
    let mut wanted = vec!["acme/partner:ann", "corp:ann", "corp:bob"];
    eventually(&format!("{what}: all are Users, and told of"), async || {
        let all = users(client).list(&ListParams::default()).await;
        let all = all.expect("a list").items;
        let told = all
            .iter()
            .filter_map(|user| user.status.as_ref()?.id.clone());
        let mut told: Vec<_> = told.collect();
        told.sort();
        (told == wanted && all.len() == wanted.len()).then_some(())
    })
    .await;
    eventually(&format!("{what}: no note is left"), async || {
        let map = maps(client).get(NOTES).await.expect("there");
        map.data.is_none_or(|data| data.is_empty()).then_some(())
    })
    .await;
    let subscriptions: Api<Subscription> = Api::namespaced(client.clone(), "org-new");
    eventually(
        &format!("{what}: the legal entity's is current"),
        async || {
            let made = subscriptions.get_opt(enrolments::SUBSCRIPTION).await;
            let made = made.expect("an answer")?;
            assert_eq!(made.spec.legal_entity.name, "Org. new");
            made.status.filter(|status| status.current)
        },
    )
    .await;
    let all = users(client)
        .list(&ListParams::default())
        .await
        .expect("a list");
    for user in &all {
        assert!(
            user.spec.roles.is_empty() && !user.spec.suspended,
            "{what}: {user:?}"
        );
        let id = user.person();
        let (of, subject) = id.split_once(':').expect("a colon");
        assert_eq!(
            user.name_any(),
            enrolments::user_name(of, subject),
            "{what}"
        );
        wanted.retain(|wanted| *wanted != id);
    }
    assert!(wanted.is_empty(), "{what}");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespaces = namespaces
        .list(&ListParams::default())
        .await
        .expect("a list");
    let made = namespaces
        .iter()
        .filter(|ns| ns.name_any().starts_with("org-"));
    assert_eq!(made.count(), 1, "{what}: one namespace");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_at_every_write_of_an_enrolment() {
    let writes = {
        let (api, client) = prepared().await;
        note_all(&client).await;
        let (faulty, _) = faulty(&api, i64::MAX, Fault::Refused);
        let writes = faulty.writes.clone();
        let running = operator_with(Client::new(faulty, "default"), settings());
        home(&client, "undisturbed").await;
        drop(running);
        writes.load(Ordering::SeqCst)
    };
    // Three Users and the status of each, a namespace, a Subscription with its status, the notes.
    assert!(writes >= 10, "{writes} writes");
    println!("undisturbed: {writes} writes");
    for fault in [
        Fault::KillBefore,
        Fault::KillAfter,
        Fault::AnswerLost,
        Fault::Refused,
    ] {
        for n in 1..=writes {
            let (api, client) = prepared().await;
            note_all(&client).await;
            let (faulty, mut dead) = faulty(&api, n.cast_signed(), fault);
            let what = format!("{fault:?} at write {n}");
            let first = operator_with(Client::new(faulty, "default"), settings());
            let survivor = if matches!(fault, Fault::KillBefore | Fault::KillAfter) {
                let died = tokio::time::timeout(Duration::from_secs(3), dead.recv()).await;
                if died.is_err() {
                    println!("{what}: there was no such write this time");
                }
                drop(first);
                operator_with(api.client("default"), settings())
            } else {
                first
            };
            home(&client, &what).await;
            drop(survivor);
        }
    }
}

/// As where two believe for a moment that they lead.
#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_come_to_the_same() {
    for round in 0..5 {
        let (api, client) = prepared().await;
        let both = [0, 1].map(|_| operator_with(api.client("default"), settings()));
        note_all(&client).await;
        home(&client, &format!("round {round}")).await;
        drop(both);
    }
}

/// What a person makes of a User stays: a note of somebody who is known changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_never_written_again() {
    let (api, client) = prepared().await;
    let _running = operator_with(api.client("default"), settings());
    note_all(&client).await;
    home(&client, "first").await;
    let name = enrolments::user_name("corp", "ann");
    let edit = json!({"spec": {"roles": ["clerk"], "suspended": true, "displayName": "Ann"}});
    change(&client, &name, edit).await;
    let suspended = eventually("it is told", async || {
        let user = users(&client).get(&name).await.expect("there");
        let told = |c: &Condition| c.type_ == "Ready" && c.reason == "Suspended";
        user.status
            .as_ref()?
            .conditions
            .iter()
            .any(told)
            .then_some(user)
    })
    .await;
    note(
        &client,
        json!({ TENANT: json!({"corp": ["ann", "carol"]}).to_string() }),
    )
    .await;
    eventually("carol is a User", async || {
        users(&client)
            .get_opt(&enrolments::user_name("corp", "carol"))
            .await
            .expect("an answer")
    })
    .await;
    let after = users(&client).get(&name).await.expect("there");
    assert_eq!(
        after.metadata.resource_version,
        suspended.metadata.resource_version
    );

    // Deleted, she comes back as she was enrolled, when she is noted again.
    users(&client)
        .delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    note(
        &client,
        json!({ TENANT: json!({"corp": ["ann"]}).to_string() }),
    )
    .await;
    let back = eventually("she is back", async || {
        users(&client).get_opt(&name).await.expect("an answer")
    })
    .await;
    assert!(back.spec.roles.is_empty() && !back.spec.suspended);
}

/// A server knows of them, and of their suspension, by its own watch.
#[tokio::test(flavor = "multi_thread")]
async fn servers_see_users() {
    let (api, client) = prepared().await;
    let running = operator_with(api.client("default"), settings());
    let mut feed = Feed::new(
        running.stores.clone(),
        settings(),
        clock::system(),
        Readiness::waiting_for([]),
    );
    note_all(&client).await;
    home(&client, "first").await;
    let mut sees = async |suspended: bool| {
        eventually(&format!("suspended: {suspended}"), async || {
            let snapshot = feed.build(None);
            assert!(snapshot.people.get("globex", "corp:ann").is_none());
            let person = snapshot.people.get(TENANT, "corp:ann")?;
            let known = |id: &str| snapshot.legal_entities.contains(id);
            let all = person.suspended == suspended && known("new") && known("acme");
            all.then_some(())
        })
        .await;
    };
    sees(false).await;
    let name = enrolments::user_name("corp", "ann");
    for suspended in [true, false] {
        let edit = json!({"spec": {"suspended": suspended}});
        change(&client, &name, edit).await;
        sees(suspended).await;
    }
}
