//! Users: who is suspended is refused every way; roles that a person gives; who is new is noted.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chancery::domain::client::Client;
use chancery::domain::enrolment::Newcomer;
use chancery::domain::provider::{AutoEnroll, Provider};
use chancery::domain::settings::Settings;
use chancery::domain::user::{People, UserFacts};
use chancery::serve::revoke::Unnoted;
use chancery::serve::snapshot::Snapshot;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::people::{OF_CORP, clients, corp, exchange, of_person, read, served, token_of, trusted};
use crate::support::*;

pub fn user(namespace: &str, name: &str, id: &str) -> UserFacts {
    UserFacts {
        namespace: namespace.into(),
        name: name.into(),
        uid: name.into(),
        created: Timestamp::from_second(1).expect("a time"),
        id: id.into(),
        display_name: None,
        roles: Vec::new(),
        suspended: false,
    }
}

pub fn suspended(namespace: &str, name: &str, id: &str) -> UserFacts {
    UserFacts {
        suspended: true,
        ..user(namespace, name, id)
    }
}

fn with_users(clients: [Client; 4], provider: Provider, users: Vec<UserFacts>) -> Snapshot {
    Snapshot {
        people: Arc::new(People::of(users)),
        legal_entities: HashSet::from(["le-acme".to_owned(), "le-globex".to_owned()]),
        ..served(clients, vec![trusted(provider, &OF_CORP)])
    }
}

async fn of_bearer(world: &World, path: &str, token: &str) -> Answer {
    let request = http::Request::get(path).header("authorization", format!("Bearer {token}"));
    let request = request.body(http_body_util::Full::default());
    world.send(request.expect("a request")).await
}

#[tokio::test]
async fn who_is_suspended_is_refused_every_way_and_nobody_else_is() {
    let (all, secret) = clients();
    let world = World::new();
    let show = |users: Vec<UserFacts>| {
        world.store.publish(with_users(all.clone(), corp(), users));
    };
    show(Vec::new());
    let person = of_person(&json!({}));
    let first = token_of(&exchange(&world, "acme.front", &secret, &person, "").await);
    let second = token_of(&exchange(&world, "acme.shop", &secret, &first, "").await);
    let other = of_person(&json!({"sub": "bob"}));
    let others = token_of(&exchange(&world, "acme.front", &secret, &other, "").await);

    // Each way to get or use a token for the person: none is refused as long as nobody keeps her out.
    let ways = async |allowed: bool, what: &str| {
        for id in ["acme.front", "acme.shop", "acme.orders"] {
            let answer = exchange(&world, id, &secret, &person, "").await;
            let expected = if allowed { "" } else { "access_denied" };
            assert_eq!(
                answer.error(),
                expected,
                "{what}: {id} with the provider's token"
            );
        }
        for (id, token) in [("acme.shop", &first), ("acme.orders", &second)] {
            let answer = exchange(&world, id, &secret, token, "").await;
            let expected = if allowed { "" } else { "invalid_request" };
            assert_eq!(
                answer.error(),
                expected,
                "{what}: {id} with this issuer's own"
            );
        }
        for token in [&first, &second, &person] {
            let said = world
                .send(introspection("acme.front", &secret, token))
                .await;
            assert_eq!(said.json()["active"], allowed, "{what}: introspection");
            for path in ["/account", "/account/subscriptions"] {
                let answer = of_bearer(&world, path, token).await;
                let expected = if allowed { 200 } else { 401 };
                assert_eq!(answer.status.as_u16(), expected, "{what}: {path}");
            }
        }
        // Others go on.
        let answer = exchange(&world, "acme.front", &secret, &other, "").await;
        assert_eq!(answer.status, 200, "{what}");
        let said = world
            .send(introspection("acme.front", &secret, &others))
            .await;
        assert_eq!(said.json()["active"], true, "{what}");
    };
    ways(true, "nobody is known").await;
    for (allowed, users, what) in [
        (true, vec![user("acme", "ann", "corp:ann")], "she is known"),
        (
            false,
            vec![suspended("acme", "ann", "corp:ann")],
            "she is suspended",
        ),
        (
            false,
            vec![
                user("acme", "ann", "corp:ann"),
                suspended("acme", "twin", "corp:ann"),
            ],
            "one of two is",
        ),
        (
            true,
            vec![suspended("globex", "ann", "corp:ann")],
            "by another tenant",
        ),
        (
            true,
            vec![suspended("acme", "ann", "acme/corp:ann")],
            "by another provider",
        ),
        (true, vec![user("acme", "ann", "corp:ann")], "it is lifted"),
    ] {
        show(users);
        ways(allowed, what).await;
    }
}

#[tokio::test]
async fn roles_of_a_user_come_beside_the_mappings_within_what_is_allowed() {
    let (mut all, secret) = clients();
    for client in &mut all {
        let mut facts = client.subscriptions[0].clone();
        facts.allowed.roles = vec!["CLERK".into(), "AUDITOR".into()];
        client.subscriptions = Arc::new(vec![facts]);
    }
    let world = World::new();
    let roles = |list: &[&str]| list.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>();
    let of = UserFacts {
        roles: roles(&["AUDITOR", "CLERK", "ADMIN"]),
        ..user("acme", "ann", "corp:ann")
    };
    let younger = UserFacts {
        created: Timestamp::from_second(2).expect("a time"),
        roles: roles(&["BOSS"]),
        ..user("acme", "twin", "corp:ann")
    };
    world
        .store
        .publish(with_users(all.clone(), corp(), vec![of, younger]));
    let given = async |token: &str, client: &str| {
        let token = token_of(&exchange(&world, client, &secret, token, "").await);
        (read(&token).claims["user_roles"].clone(), token)
    };
    let (hers, token) = given(&of_person(&json!({})), "acme.front").await;
    assert_eq!(hers, json!(["CLERK", "AUDITOR"]));
    let (his, _) = given(&of_person(&json!({"sub": "bob"})), "acme.front").await;
    assert_eq!(his, json!(["CLERK"]));
    // Taken from her since: the next hop has no more than the token before, and that lives for minutes.
    world.store.publish(with_users(all, corp(), Vec::new()));
    assert_eq!(
        given(&token, "acme.shop").await.0,
        json!(["CLERK", "AUDITOR"])
    );
}

fn enrolling(legal_entities: bool) -> Provider {
    Provider {
        auto_enroll: AutoEnroll {
            users: true,
            legal_entities,
        },
        ..corp()
    }
}

fn notes(world: &World) -> Vec<Newcomer> {
    world.enrolments.notes.lock().expect("a lock").clone()
}

fn of_acme(subject: &str) -> Newcomer {
    Newcomer::Person {
        namespace: "acme".into(),
        provider: "corp".into(),
        subject: subject.into(),
    }
}

#[tokio::test]
async fn who_is_new_is_noted_once_before_the_answer() {
    let (all, secret) = clients();
    let world = World::new();
    let show = |provider, users: Vec<UserFacts>| {
        world
            .store
            .publish(with_users(all.clone(), provider, users));
    };
    let ask = async |subject: &str, more: &str| {
        let token = of_person(&json!({ "sub": subject }));
        exchange(&world, "acme.front", &secret, &token, more).await
    };
    show(corp(), Vec::new());
    assert_eq!(ask("ann", "").await.status, 200);
    assert_eq!(notes(&world), [], "the provider enrols nobody");
    show(enrolling(false), vec![user("acme", "bob", "corp:bob")]);
    assert_eq!(ask("bob", "").await.status, 200);
    assert_eq!(notes(&world), [], "he is known");
    // What is refused for another reason is not noted.
    assert_eq!(ask("ann", "&scope=none").await.error(), "invalid_scope");
    assert_eq!(notes(&world), []);
    for _ in 0..3 {
        assert_eq!(ask("ann", "").await.status, 200);
    }
    assert_eq!(notes(&world), [of_acme("ann")], "once");
    // Her User is gone, or was never made: she is noted again in a while.
    world.clock.0.fetch_add(11, Ordering::Relaxed);
    let answer = ask("ann", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(notes(&world).len(), 2);
    // This issuer's own token says nothing new of anybody.
    let hop = exchange(&world, "acme.shop", &secret, &token_of(&answer), "").await;
    assert_eq!((hop.status.as_u16(), notes(&world).len()), (200, 2));

    // No note, no token.
    for (why, told) in [
        (Unnoted::Unreachable, "come again"),
        (Unnoted::Full, "wait for their Users"),
    ] {
        *world.enrolments.refuses.lock().expect("a lock") = Some(why);
        let answer = ask("carol", "").await;
        assert_eq!(answer.status, 503);
        assert!(!answer.header("retry-after").is_empty());
        assert!(
            answer.json()["error_description"]
                .to_string()
                .contains(told),
            "{answer:?}"
        );
        assert_eq!(ask("bob", "").await.status, 200, "who is known needs none");
    }
    *world.enrolments.refuses.lock().expect("a lock") = None;
    assert_eq!(ask("carol", "").await.status, 200);
    assert_eq!(notes(&world).last(), Some(&of_acme("carol")));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &world.registry).expect("text");
    for line in [
        "chancery_enrolment_notes_total{result=\"noted\"} 3",
        "chancery_enrolment_notes_total{result=\"unavailable\"} 1",
        "chancery_enrolment_notes_total{result=\"full\"} 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn a_tenant_uses_up_its_own_rate_and_bound_alone() {
    let (all, secret) = clients();
    let mut settings = Settings {
        issuer: ISSUER.into(),
        ..Settings::default()
    };
    settings.users.enrolment_rate = "2/m".parse().expect("a rate");
    settings.users.max_per_tenant = 3;
    let world = World::with_settings(settings);
    let show = |users: Vec<UserFacts>| {
        world
            .store
            .publish(with_users(all.clone(), enrolling(false), users));
    };
    let ask = async |client: &str, subject: &str| {
        let tenant = if client.starts_with("acme") {
            "le-acme"
        } else {
            "le-globex"
        };
        let token = of_person(&json!({"sub": subject, "caas_org_id": tenant}));
        exchange(&world, client, &secret, &token, "")
            .await
            .status
            .as_u16()
    };
    show(Vec::new());
    assert_eq!(ask("acme.front", "a").await, 200);
    // Whoever comes again and again counts once.
    for _ in 0..5 {
        assert_eq!(ask("acme.front", "b").await, 200);
    }
    assert_eq!(ask("acme.front", "c").await, 503, "the rate");
    assert_eq!(
        ask("acme.front", "a").await,
        200,
        "who was noted comes again"
    );
    assert_eq!(ask("globex.shop", "c").await, 200, "another tenant");
    world.clock.0.fetch_add(30, Ordering::Relaxed);
    let three = ["x", "y", "z"].map(|name| user("acme", name, &format!("corp:{name}")));
    show(three.to_vec());
    assert_eq!(ask("acme.front", "c").await, 503, "the bound");
    assert_eq!(ask("acme.front", "x").await, 200, "who is known");
    assert_eq!(ask("globex.shop", "d").await, 200, "another tenant");
    show(three[..2].to_vec());
    assert_eq!(ask("acme.front", "c").await, 200);
}

/// Whether there is such a legal entity, and whether it is noted, the answer does not tell.
#[tokio::test]
async fn a_legal_entity_that_is_nobodys_is_noted_and_the_answer_is_the_same() {
    let (all, secret) = clients();
    let mut settings = Settings {
        issuer: ISSUER.into(),
        ..Settings::default()
    };
    settings.legal_entities.auto_enroll = true;
    for (allows, enrols) in [(false, true), (true, false), (true, true)] {
        settings.legal_entities.auto_enroll = allows;
        let world = World::with_settings(settings.clone());
        world
            .store
            .publish(with_users(all.clone(), enrolling(enrols), Vec::new()));
        let ask = async |tenant: &str| {
            let token = of_person(&json!({ "caas_org_id": tenant }));
            exchange(&world, "acme.front", &secret, &token, "").await
        };
        let known = ask("le-globex").await;
        assert_eq!(known.error(), "access_denied");
        assert_eq!(notes(&world), []);
        for _ in 0..2 {
            let new = ask("le-new").await;
            assert_eq!((new.status, &new.body), (known.status, &known.body));
        }
        let noted: Vec<Value> = notes(&world)
            .iter()
            .map(|newcomer| match newcomer {
                Newcomer::LegalEntity { provider, id } => json!([provider, id]),
                Newcomer::Person { .. } => json!("a person"),
            })
            .collect();
        let expected = if allows && enrols {
            vec![json!(["corp", "le-new"])]
        } else {
            Vec::new()
        };
        assert_eq!(noted, expected, "{allows} {enrols}");
    }
}

/// When to come again is told as far as it is known, and not sooner.
#[tokio::test]
async fn when_to_come_again_can_be_true() {
    let (all, secret) = clients();
    let mut settings = Settings {
        issuer: ISSUER.into(),
        ..Settings::default()
    };
    settings.users.enrolment_rate = "3/m".parse().expect("a rate");
    settings.users.max_per_tenant = 1;
    let world = World::with_settings(settings);
    let after = async |subject: &str| {
        let token = of_person(&json!({ "sub": subject }));
        let answer = exchange(&world, "acme.front", &secret, &token, "").await;
        answer.header("retry-after").to_owned()
    };
    world
        .store
        .publish(with_users(all.clone(), enrolling(false), Vec::new()));
    for subject in ["a", "b", "c"] {
        assert_eq!(after(subject).await, "");
    }
    assert_eq!(after("d").await, "20", "the rate");
    world.clock.0.fetch_add(15, Ordering::Relaxed);
    assert_eq!(after("d").await, "5", "the rate");
    let full = vec![user("acme", "x", "corp:x")];
    world
        .store
        .publish(with_users(all.clone(), enrolling(false), full));
    assert_eq!(after("d").await, "60", "the bound");
    world.store.publish(Snapshot {
        human_rings: Vec::new(),
        ..with_users(all, corp(), Vec::new())
    });
    assert_eq!(after("d").await, "60", "no ring for people at all");
}

#[tokio::test]
async fn a_person_is_called_as_their_user_says() {
    let (all, secret) = clients();
    let world = World::new();
    let show = |users: Vec<UserFacts>| {
        world.store.publish(with_users(all.clone(), corp(), users));
    };
    show(Vec::new());
    let person = of_person(&json!({}));
    let ours = token_of(&exchange(&world, "acme.front", &secret, &person, "").await);
    let called = async |what: &str, expected: &str| {
        for token in [&person, &ours] {
            let answer = of_bearer(&world, "/account", token).await.json();
            let info = &answer["userAccountInfo"];
            assert_eq!(
                (&info["userId"], &info["userName"]),
                (&json!("corp:ann"), &json!(expected)),
                "{what}"
            );
        }
    };
    let named = |namespace: &str| UserFacts {
        display_name: Some("Ann Example".into()),
        ..user(namespace, "ann", "corp:ann")
    };
    called("nobody is known", "corp:ann").await;
    show(vec![user("acme", "ann", "corp:ann")]);
    called("without a name", "corp:ann").await;
    show(vec![named("globex")]);
    called("another tenant's", "corp:ann").await;
    show(vec![named("acme")]);
    called("named", "Ann Example").await;
}
