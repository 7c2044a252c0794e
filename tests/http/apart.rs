//! What an attacker tried between tenants and between providers: nobody makes another's token doubtful, learns
//! of it, comes in by another door, or lets a provider speak for this issuer's own.

use std::collections::HashSet;
use std::sync::Arc;

use chancery::domain::provider::Provider;
use chancery::domain::user::People;
use chancery::serve::snapshot::Snapshot;
use serde_json::json;

use crate::people::*;
use crate::support::*;
use crate::users::suspended;

fn of(namespace: Option<&str>, name: &str, audience: &str) -> Provider {
    Provider {
        namespace: namespace.map(str::to_owned),
        name: name.into(),
        audiences: vec![audience.into()],
        ..corp()
    }
}

/// Another tenant trusts the same issuer for another audience that the token has, and reads no legal entity
/// from it: the token is still that of the tenant which it names.
#[tokio::test]
async fn a_stranger_makes_no_token_doubtful() {
    let (all, _) = clients();
    let world = World::new();
    let mut strangers = of(Some("globex"), "mine", "account");
    strangers.claims.legal_entity = "nothing".parse().expect("a path");
    let token = of_person(&json!({"aud": ["front", "account"]}));
    for (own, id) in [
        (of(Some("acme"), "corp", "front"), "acme/corp:ann"),
        (of(None, "corp", "front"), "corp:ann"),
    ] {
        let mut both = vec![trusted(strangers.clone(), &OF_CORP), trusted(own, &OF_CORP)];
        for _ in 0..2 {
            both.reverse();
            world.store.publish(served(all.clone(), both.clone()));
            let said = account(&world, "/account", &token).await;
            assert_eq!(said.json()["userAccountInfo"]["userId"], id, "{said:?}");
        }
    }
}

/// Whether another tenant's token holds, and of what kind it is, is not told to who presents it.
#[tokio::test]
async fn of_another_tenants_token_nothing_is_told() {
    let (world, secret) = world();
    let person = of_person(&json!({}));
    let persons = token_of(&exchange(&world, "acme.front", &secret, &person, "").await);
    let clients = world
        .token("acme.front", &secret, "&audience=acme.shop")
        .await;
    let broken = format!("{}AAAA", &persons[..persons.len() - 4]);
    let mut answers = Vec::new();
    for token in [&persons, &token_of(&clients), &broken] {
        let answer = exchange(&world, "globex.shop", &secret, token, "").await;
        assert_eq!(answer.status, 400);
        answers.push(answer.json());
    }
    assert!(answers.iter().all(|a| *a == answers[2]), "{answers:#?}");
}

#[tokio::test]
async fn a_provider_names_no_party_of_this_issuer() {
    let (world, secret) = world();
    let ours = json!({"act": {"sub": "gate", "act": {"sub": "acme.orders", "iss": ISSUER}}});
    let answer = exchange(&world, "acme.front", &secret, &of_person(&ours), "").await;
    assert_eq!(answer.error(), "invalid_request");
    let told = answer.json()["error_description"].to_string();
    assert!(told.contains("a party of this issuer"), "{told}");
    let said = told_of(&world, &secret, &of_person(&ours)).await;
    assert_eq!(said, json!({"active": false}));
}

async fn told_of(world: &World, secret: &str, token: &str) -> serde_json::Value {
    told(world, "acme.front", secret, token).await.json()
}

/// A tenant's second provider of the same issuer gives the person another id, and lets nobody in whom the
/// first one's keeps out.
#[tokio::test]
async fn who_is_suspended_comes_in_by_no_other_provider_of_the_issuer() {
    let (all, secret) = clients();
    let world = World::new();
    let both = || {
        let names = [("corp", "front"), ("corp2", "desk")];
        let both = names.map(|(name, aud)| trusted(of(Some("acme"), name, aud), &OF_CORP));
        both.to_vec()
    };
    world.store.publish(served(all.clone(), both()));
    let token = of_person(&json!({"aud": "desk"}));
    let answer = exchange(&world, "acme.front", &secret, &token, "").await;
    let issued = token_of(&answer);
    assert_eq!(read(&issued).subject, "acme/corp2:ann");
    let people = People::of([suspended("acme", "ann", "acme/corp:ann")]);
    world.store.publish(Snapshot {
        people: Arc::new(people),
        ..served(all, both())
    });
    let answer = exchange(&world, "acme.front", &secret, &token, "").await;
    assert_eq!(answer.error(), "access_denied");
    for token in [&token, &issued] {
        assert_eq!(account(&world, "/account", token).await.status, 401);
        let said = told_of(&world, &secret, token).await;
        assert_eq!(said, json!({"active": false}));
    }
    let bob = of_person(&json!({"aud": "desk", "sub": "bob"}));
    let answer = exchange(&world, "acme.front", &secret, &bob, "").await;
    assert_eq!(answer.status, 200, "others go on");
}

/// What this issuer gave a provider's people ends with the provider, as what the provider gave them does.
#[tokio::test]
async fn an_inactive_providers_people_hold_no_token() {
    let (all, secret) = clients();
    let world = World::new();
    let serving = vec![trusted(corp(), &OF_CORP)];
    world.store.publish(served(all.clone(), serving));
    let person = of_person(&json!({}));
    let issued = token_of(&exchange(&world, "acme.front", &secret, &person, "").await);
    assert_eq!(account(&world, "/account", &issued).await.status, 200);
    for (inactive, holds) in [("other", true), ("corp", false)] {
        world.store.publish(Snapshot {
            inactive_providers: HashSet::from([inactive.to_owned()]),
            ..served(all.clone(), Vec::new())
        });
        let next = exchange(&world, "acme.shop", &secret, &issued, "").await;
        assert_eq!(next.status == 200, holds, "{inactive}: {next:?}");
        let account = account(&world, "/account", &issued).await;
        assert_eq!(account.status == 200, holds, "{inactive}");
        let said = told_of(&world, &secret, &issued).await;
        assert_eq!(said["active"], holds, "{inactive}");
    }
}
