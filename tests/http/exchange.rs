//! Token exchange (RFC 8693), rule by rule. What may be wrong with the person's token: `subject_tokens.rs`.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chancery::crypto::{jws, own_token};
use chancery::domain::client::Client;
use chancery::domain::provider::Provider;
use chancery::domain::revocation::{Index, OfClient, Revocations};
use chancery::serve::snapshot::Snapshot;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::jwt::with;
use crate::people::*;
use crate::support::*;

#[tokio::test]
async fn a_client_acts_for_a_person() {
    let (world, secret) = world();
    let answer = exchange(&world, "acme.front", &secret, &of_person(&json!({})), "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    let json = answer.json();
    assert_eq!(
        json["issued_token_type"],
        "urn:ietf:params:oauth:token-type:access_token"
    );
    assert_eq!(json["token_type"], "Bearer");
    // No longer than the person's own.
    assert_eq!(json["expires_in"], 200);
    assert_eq!(json["scope"], "read write");
    let token = read(&token_of(&answer));
    assert_eq!(
        Value::Object(token.claims.clone()),
        json!({
            "iss": ISSUER, "sub": "corp:ann", "aud": "acme.shop", "client_id": "acme.front",
            "iat": NOW, "exp": NOW + 200, "jti": token.id, "scope": "read write",
            "act": {"sub": "acme.front"}, "caas_org_id": "le-acme", "caas_user_id": "corp:ann",
            "org_id": "le-acme", "user_roles": ["CLERK", "BOSS"], "caas_tier": "Free",
            "client_family": "Integration",
        })
    );
    let jwt = format!(
        "&subject_token={}&subject_token_type={TYPE}jwt&requested_token_type={TYPE}jwt&scope=read&audience=https://api.example.com",
        of_person(&json!({}))
    );
    let answer = ask(&world, "acme.front", &secret, &jwt).await;
    let json = answer.json();
    assert_eq!(
        json["issued_token_type"],
        "urn:ietf:params:oauth:token-type:jwt"
    );
    assert_eq!(json["scope"], "read");
    assert_eq!(
        read(&token_of(&answer)).claims["aud"],
        "https://api.example.com"
    );
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &world.registry).expect("text");
    let line = "chancery_tokens_issued_total{grant=\"urn:ietf:params:oauth:grant-type:token-exchange\",alg=\"EdDSA\"} 2";
    assert!(text.contains(line), "{text}");
    let metadata = world.get("/.well-known/openid-configuration").await.json();
    let grants = metadata["grant_types_supported"].as_array().cloned();
    assert!(
        grants
            .is_some_and(|g| g.contains(&"urn:ietf:params:oauth:grant-type:token-exchange".into()))
    );
}

#[tokio::test]
async fn three_hops_with_scopes_that_only_shrink() {
    let (world, secret) = world();
    let first = exchange(&world, "acme.front", &secret, &of_person(&json!({})), "").await;
    let first = token_of(&first);
    let second = exchange(&world, "acme.shop", &secret, &first, "").await;
    assert_eq!(second.json()["scope"], "read");
    let second = token_of(&second);
    // The third could write by itself, and has what the second has.
    let refused = exchange(&world, "acme.orders", &secret, &second, "&scope=write").await;
    assert_eq!(refused.error(), "invalid_scope");
    let third = exchange(&world, "acme.orders", &secret, &second, "&audience=x").await;
    let third = token_of(&third);
    let token = read(&third);
    assert_eq!(
        token.claims["act"],
        json!({"sub": "acme.orders", "act": {"sub": "acme.shop", "act": {"sub": "acme.front"}}})
    );
    assert_eq!(
        (&*token.subject, &token.claims["scope"]),
        ("corp:ann", &"read".into())
    );
    assert_eq!(token.expires_at, NOW + 200);
    // Whatever takes a token takes it.
    let answer = world
        .send(introspection("acme.front", &secret, &third))
        .await;
    assert_eq!(
        (&answer.json()["active"], &answer.json()["sub"]),
        (&true.into(), &"corp:ann".into())
    );
    let account = account(&world, "/account", &third).await.json();
    assert_eq!(account["userAccountInfo"]["userId"], "corp:ann");
    assert_eq!(
        account["userAccountInfo"]["roles"],
        json!([{"id": "CLERK"}, {"id": "BOSS"}])
    );
    // Not its own: the first is for the second alone, and the third for nobody here.
    for (id, token) in [
        ("acme.front", &first),
        ("acme.orders", &first),
        ("acme.front", &third),
    ] {
        let answer = exchange(&world, id, &secret, token, "").await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.error()),
            (400, "invalid_request"),
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_token_of_this_issuer_that_holds_no_more_lets_nobody_act() {
    let (all, secret) = clients();
    let providers = || vec![trusted(corp(), &OF_CORP)];
    let world = World::new();
    world.store.publish(served(all.clone(), providers()));
    let first = exchange(&world, "acme.front", &secret, &of_person(&json!({})), "").await;
    let first = token_of(&first);
    let token = read(&first);
    let front = |front: Client| {
        let [_, shop, orders, stranger] = all.clone();
        served([front, shop, orders, stranger], providers())
    };
    let revoked = || {
        let of = OfClient {
            tokens: std::collections::BTreeMap::from([(token.id.clone(), (NOW, NOW + 360))]),
            ..OfClient::default()
        };
        let mut all_revoked = Revocations::default();
        let of = std::collections::BTreeMap::from([("acme.front".to_owned(), of)]);
        all_revoked.join_tenant("acme", &of);
        Snapshot {
            revoked: Arc::new(Index::of(&all_revoked)),
            ..served(all.clone(), providers())
        }
    };
    let cases = [
        ("revoked", revoked()),
        (
            "its client is suspended",
            front(Client {
                suspended: true,
                ..all[0].clone()
            }),
        ),
        (
            "its client is gone",
            front(Client {
                id: "acme.else".into(),
                ..all[0].clone()
            }),
        ),
        (
            "no Subscription is current",
            front(Client {
                subscriptions: Arc::default(),
                ..all[0].clone()
            }),
        ),
        (
            "its key is none for people",
            Snapshot {
                human_keys: HashSet::new(),
                ..served(all.clone(), providers())
            },
        ),
        (
            "its key is withdrawn",
            Snapshot {
                jwks: Some(jwks([&es256()])),
                ..served(all.clone(), providers())
            },
        ),
    ];
    for (why, snapshot) in cases {
        let before = exchange(&world, "acme.shop", &secret, &first, "").await;
        assert_eq!(before.status, 200, "before: {why}");
        world.store.publish(snapshot);
        let after = exchange(&world, "acme.shop", &secret, &first, "").await;
        assert_eq!(
            (after.status.as_u16(), &*after.error()),
            (400, "invalid_request"),
            "{why}"
        );
        world.store.publish(served(all.clone(), providers()));
    }
    world.clock.0.fetch_add(200, Ordering::Relaxed);
    let after = exchange(&world, "acme.shop", &secret, &first, "").await;
    assert_eq!(after.error(), "invalid_request", "expired");
}

#[tokio::test]
async fn a_clients_own_token_is_no_persons() {
    let (world, secret) = world();
    let own = world
        .token("acme.front", &secret, "&audience=acme.shop")
        .await;
    let own = token_of(&own);
    let answer = exchange(&world, "acme.shop", &secret, &own, "").await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.error()),
        (400, "invalid_request")
    );
    // Not even where keys were mistaken for each other, whichever way round.
    let token = own_token::read(&own, &jwks([&es256()]).keys).expect("ours");
    let by_people = jws::sign_token(&PEOPLE, &token.claims).expect("signed");
    let person = with(
        &Value::Object(token.claims),
        &json!({"sub": "corp:ann", "act": {"sub": "acme.front"}}),
    );
    let by_clients = jws::sign_token(&es256(), &person).expect("signed");
    for odd in [by_people, by_clients] {
        let answer = exchange(&world, "acme.shop", &secret, &odd, "").await;
        assert_eq!(answer.error(), "invalid_request");
        let said = world.send(introspection("acme.front", &secret, &odd)).await;
        assert_eq!(said.json(), json!({"active": false}));
    }
}

#[tokio::test]
async fn parameters_by_the_table() {
    let (world, secret) = world();
    let person = of_person(&json!({}));
    let own = token_of(&world.token("acme.front", &secret, "").await);
    let others = token_of(&world.token("acme.shop", &secret, "").await);
    let subject = format!("&subject_token={person}&subject_token_type={TYPE}access_token");
    let actor = |token: &str, kind: &str| {
        format!("{subject}&actor_token={token}&actor_token_type={TYPE}{kind}")
    };
    for (form, error) in [
        (subject.clone(), ""),
        (
            format!("{subject}&requested_token_type={TYPE}access_token"),
            "",
        ),
        (actor(&own, "access_token"), ""),
        (actor(&own, "jwt"), ""),
        (String::new(), "invalid_request"),
        (format!("&subject_token={person}"), "invalid_request"),
        (
            format!("&subject_token_type={TYPE}access_token"),
            "invalid_request",
        ),
        (
            format!("&subject_token={person}&subject_token_type={TYPE}id_token"),
            "invalid_request",
        ),
        (
            format!("&subject_token={person}&subject_token_type={TYPE}refresh_token"),
            "invalid_request",
        ),
        (
            format!("&subject_token={person}&subject_token_type={TYPE}saml2"),
            "invalid_request",
        ),
        (
            format!("&subject_token={person}&subject_token_type=jwt"),
            "invalid_request",
        ),
        (
            format!("{subject}&requested_token_type={TYPE}refresh_token"),
            "invalid_request",
        ),
        (
            format!("{subject}&requested_token_type={TYPE}id_token"),
            "invalid_request",
        ),
        (format!("{subject}&actor_token={own}"), "invalid_request"),
        (
            format!("{subject}&actor_token_type={TYPE}jwt"),
            "invalid_request",
        ),
        (actor(&own, "id_token"), "invalid_request"),
        (actor(&others, "access_token"), "invalid_request"),
        (actor(&person, "access_token"), "invalid_request"),
        (actor("x", "access_token"), "invalid_request"),
        (format!("{subject}&{}", &subject[1..]), "invalid_request"),
        (format!("{subject}&scope=admin"), "invalid_scope"),
        (
            format!("{subject}&audience=https://other"),
            "invalid_target",
        ),
        (format!("{subject}&resource=shop"), "invalid_target"),
        (format!("{subject}&resource=https://api.example.com"), ""),
    ] {
        let answer = ask(&world, "acme.front", &secret, &form).await;
        let status = if error.is_empty() { 200 } else { 400 };
        let shown = form.replace(&person, "PERSON").replace(&own, "OWN");
        assert_eq!(
            (answer.status.as_u16(), &*answer.error()),
            (status, error),
            "{shown}: {answer:?}"
        );
    }
    let answer = exchange(&world, "acme.front", &new_secret(), &person, "").await;
    assert_eq!(answer.error(), "invalid_client");
}

#[tokio::test]
async fn which_providers_and_clients_may() {
    let (all, secret) = clients();
    let world = World::new();
    let person = of_person(&json!({}));
    let outcome = async |snapshot: Snapshot| {
        world.store.publish(snapshot);
        let answer = exchange(&world, "acme.front", &secret, &person, "").await;
        (answer.status.as_u16(), answer.error())
    };
    let with_provider = |provider: Provider| served(all.clone(), vec![trusted(provider, &OF_CORP)]);
    let of_tenant = |namespace: &str| Provider {
        namespace: Some(namespace.into()),
        ..corp()
    };
    let refused = (400, "invalid_request".to_owned());
    assert_eq!(outcome(with_provider(corp())).await.0, 200);
    assert_eq!(outcome(with_provider(of_tenant("acme"))).await.0, 200);
    assert_eq!(outcome(with_provider(of_tenant("globex"))).await, refused);
    let inactive = Provider {
        active: false,
        ..corp()
    };
    assert_eq!(outcome(with_provider(inactive)).await, refused);
    assert_eq!(outcome(served(all.clone(), Vec::new())).await, refused);
    let front = |change: &dyn Fn(&mut Client)| {
        let mut all = all.clone();
        change(&mut all[0]);
        served(all, vec![trusted(corp(), &OF_CORP)])
    };
    let unauthorized = (400, "unauthorized_client".to_owned());
    assert_eq!(
        outcome(front(&|c| c.on_behalf_of = false)).await,
        unauthorized
    );
    assert_eq!(
        outcome(front(&|c| c.subscriptions = Arc::default())).await,
        unauthorized
    );
    assert_eq!(
        outcome(front(&|c| c.suspended = true)).await,
        (401, "invalid_client".into())
    );
    let no_ring = Snapshot {
        human_rings: Vec::new(),
        ..with_provider(corp())
    };
    assert_eq!(outcome(no_ring).await.0, 503);
    // The ring's window ends before the token would.
    let mut closing = with_provider(corp());
    let mut standing = chancery::domain::preference::Standing::default();
    standing.window.to = Some(Timestamp::from_second(NOW + 20).expect("a time"));
    closing.human_rings = vec![Arc::new(chancery::serve::snapshot::Ring {
        name: "people".into(),
        active: Arc::clone(&PEOPLE),
        standing,
    })];
    world.store.publish(closing);
    let answer = exchange(&world, "acme.front", &secret, &person, "").await;
    assert_eq!(answer.json()["expires_in"], 20);
}

#[tokio::test]
async fn of_two_providers_with_one_issuer_the_one_whose_audience_it_is() {
    let (clients, secret) = clients();
    let world = World::new();
    let bills = Provider {
        name: "bills".into(),
        audiences: vec!["bills".into()],
        ..corp()
    };
    let both = [bills, corp()].map(|provider| trusted(provider, &OF_CORP));
    world.store.publish(served(clients, both.into()));
    for (aud, subject) in [("front", "corp:ann"), ("bills", "bills:ann")] {
        let token = of_person(&json!({"aud": aud}));
        let answer = exchange(&world, "acme.front", &secret, &token, "").await;
        assert_eq!(read(&token_of(&answer)).subject, subject);
    }
    let token = of_person(&json!({"aud": "neither"}));
    let answer = exchange(&world, "acme.front", &secret, &token, "").await;
    let told = answer.json()["error_description"].to_string();
    assert!(told.contains("aud in the token"), "{told}");
}

/// What a refusal tells of a scope is what has to be changed.
#[tokio::test]
async fn who_withholds_a_scope_is_told() {
    let (mut all, secret) = clients();
    let mut facts = all[0].subscriptions[0].clone();
    facts.allowed.scopes = vec!["read".into(), "pay".into()];
    for client in &mut all {
        client.scopes = vec!["read".into(), "write".into()];
        client.subscriptions = Arc::new(vec![facts.clone()]);
    }
    let world = World::new();
    world
        .store
        .publish(served(all, vec![trusted(corp(), &OF_CORP)]));
    let narrow = of_person(&json!({"scope": "mail"}));
    for (scope, told) in [
        ("pay", "TechnicalUser"),
        ("write", "Subscription"),
        ("read", "person's token"),
    ] {
        let more = format!("&scope={scope}");
        let answer = exchange(&world, "acme.front", &secret, &narrow, &more).await;
        assert_eq!(answer.error(), "invalid_scope");
        let said = answer.json()["error_description"].to_string();
        for one in ["TechnicalUser", "Subscription", "person's token"] {
            assert_eq!(said.contains(one), one == told, "{scope}: {said}");
        }
    }
    // Nothing of a person where none is spoken for.
    for (scope, told) in [("pay", "TechnicalUser"), ("write", "Subscription")] {
        let form = format!("&scope={scope}");
        let answer = world.token("acme.front", &secret, &form).await;
        let said = answer.json()["error_description"].to_string();
        assert!(
            said.contains(told) && !said.contains("person"),
            "{scope}: {said}"
        );
    }
}

#[tokio::test]
async fn what_may_act_demands_is_told_apart() {
    let (world, secret) = world();
    for (may_act, told) in [
        (json!({"sub": "acme.shop"}), "somebody else"),
        (json!({"sub": "acme.shop", "foo": 1}), "somebody else"),
        (
            json!({"sub": "acme.front", "iss": CORP}),
            "can not be judged",
        ),
        (json!({"sub": "acme.front", "foo": 1}), "can not be judged"),
        (json!({"client_id": "acme.front"}), "names nobody"),
        (json!({}), "names nobody"),
    ] {
        let token = of_person(&json!({ "may_act": may_act }));
        let answer = exchange(&world, "acme.front", &secret, &token, "").await;
        assert_eq!(answer.error(), "invalid_request", "{may_act}");
        let said = answer.json()["error_description"].to_string();
        assert!(said.contains(told), "{may_act}: {said}");
    }
}
