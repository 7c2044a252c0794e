//! Tokens of outside providers at introspection and `/account`: whom they speak of, in our names, to their own
//! tenant alone; and what is said while a provider's keys are not known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chancery::domain::client::Client;
use chancery::domain::provider::{Provider, RoleMapping};
use chancery::domain::subscription::SubscriptionFacts;
use chancery::serve::snapshot::Snapshot;
use chancery::serve::trust::{Keys, OutsideProvider};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::jwt::{public, sign, with};
use crate::people::*;
use crate::support::*;

const PATHS: [&str; 2] = ["/account", "/account/subscriptions"];

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

/// What a token comes to: exchanged, introspected, and at both paths of `/account`.
async fn uses(world: &World, secret: &str, token: &str) -> [u16; 4] {
    let exchanged = exchange(world, "acme.front", secret, token, "").await;
    let told = told(world, "acme.front", secret, token).await;
    let told = match told.status.as_u16() {
        200 if told.json()["active"] == true => 200,
        200 => {
            assert_eq!(told.json(), json!({"active": false}));
            0
        }
        other => other,
    };
    let account = async |path| account(world, path, token).await.status.as_u16();
    [
        exchanged.status.as_u16(),
        told,
        account(PATHS[0]).await,
        account(PATHS[1]).await,
    ]
}

const TAKEN: [u16; 4] = [200, 200, 200, 200];
const REFUSED: [u16; 4] = [400, 0, 401, 401];

#[tokio::test]
async fn what_is_told_of_a_person() {
    let (mut all, secret) = clients();
    let mut facts = all[0].subscriptions[0].clone();
    facts.allowed.roles = vec!["CLERK".into(), "READER".into()];
    facts.allowed.scopes = vec!["read".into()];
    let next = SubscriptionFacts {
        name: "next".into(),
        period_from: Some(at(NOW + 1000)),
        ..facts.clone()
    };
    let subscriptions = Arc::new(vec![facts, next]);
    for client in &mut all[..3] {
        client.subscriptions = Arc::clone(&subscriptions);
    }
    let mapped = Provider {
        role_mappings: vec![
            RoleMapping {
                from: "BOSS".into(),
                to: vec!["CLERK".into(), "ADMIN".into()],
            },
            RoleMapping {
                from: "ROOT".into(),
                to: vec!["READER".into()],
            },
        ],
        ..corp()
    };
    let world = World::new();
    world
        .store
        .publish(served(all, vec![trusted(mapped, &OF_CORP)]));
    let token = of_person(&json!({
        "scope": "openid read", "azp": "app", "jti": "one", "org_id": "sales", "email": "ann@x.example",
        "act": {"sub": "gate"},
    }));
    let answer = told(&world, "acme.front", &secret, &token).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(
        answer.json(),
        json!({
            "active": true, "token_type": "Bearer",
            "iss": CORP, "sub": "corp:ann", "aud": "front", "iat": NOW - 5, "exp": NOW + 200,
            "client_id": "corp:app", "jti": "one", "scope": "read", "act": {"sub": "gate", "iss": CORP},
            "caas_org_id": "le-acme", "caas_user_id": "corp:ann", "org_id": "sales",
            "user_roles": ["CLERK"], "caas_tier": "Free",
        })
    );
    // As the exchange has it.
    let exchanged = exchange(&world, "acme.front", &secret, &token, "&scope=read").await;
    let exchanged = read(&token_of(&exchanged));
    for same in [
        "sub",
        "caas_org_id",
        "caas_user_id",
        "org_id",
        "user_roles",
        "caas_tier",
        "exp",
    ] {
        assert_eq!(exchanged.claims[same], answer.json()[same], "{same}");
    }
    let account_of = account(&world, PATHS[0], &token).await;
    let mut told = account_of.json();
    let current = told["userAccountInfo"]["currentSubscription"].take();
    assert_eq!(
        told,
        json!({"userAccountInfo": {
            "userId": "corp:ann", "userName": "corp:ann",
            "legalEntity": {"id": "le-acme", "name": "Acme"},
            "roles": [{"id": "CLERK"}], "currentSubscription": null,
        }})
    );
    assert_eq!(
        (&current["id"], &current["status"]),
        (&json!("main"), &json!("ACTIVE"))
    );
    let all = account(&world, PATHS[1], &token).await.json();
    let all: Vec<_> = all["subscriptions"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    let ids: Vec<_> = all.iter().map(|s| (&s["id"], &s["status"])).collect();
    assert_eq!(
        ids,
        [
            (&json!("main"), &json!("ACTIVE")),
            (&json!("next"), &json!("SCHEDULED"))
        ]
    );
    // Nobody takes a signed answer of this for a token either.
    let mut request = introspection("acme.front", &secret, &token);
    let jwt = "application/token-introspection+jwt"
        .parse()
        .expect("a value");
    request.headers_mut().insert("accept", jwt);
    let answer = world.send(request).await;
    assert_eq!(answer.status, 200);
    let jwt = std::str::from_utf8(&answer.body).expect("text");
    assert_eq!(account(&world, PATHS[0], jwt).await.status, 401);
}

/// Each reason to refuse a provider's token × each way to use one.
#[tokio::test]
async fn each_reason_is_known_to_every_way_to_use_it() {
    let (all, secret) = clients();
    let world = World::new();
    let token = of_person(&json!({}));
    let of = |provider: Provider| served(all.clone(), vec![trusted(provider, &OF_CORP)]);
    let with_keys = |change: &dyn Fn(&mut OutsideProvider)| {
        let mut one = OutsideProvider {
            uid: "uid".into(),
            provider: corp(),
            keys: Keys(vec![public(&OF_CORP, None)]),
            fetched: true,
            good_until: None,
        };
        change(&mut one);
        served(all.clone(), vec![Arc::new(one)])
    };
    let subscribed = |change: &dyn Fn(&mut SubscriptionFacts)| {
        let mut all = all.clone();
        let mut facts = all[0].subscriptions[0].clone();
        change(&mut facts);
        for client in &mut all[..3] {
            client.subscriptions = Arc::new(vec![facts.clone()]);
        }
        served(all, vec![trusted(corp(), &OF_CORP)])
    };
    let cases: Vec<(&str, Snapshot)> = vec![
        (
            "the provider is inactive",
            of(Provider {
                active: false,
                ..corp()
            }),
        ),
        ("it is gone", served(all.clone(), Vec::new())),
        (
            "another's tenant's",
            of(Provider {
                namespace: Some("globex".into()),
                ..corp()
            }),
        ),
        (
            "registered since",
            of(Provider {
                registered: NOW + 60,
                ..corp()
            }),
        ),
        (
            "other issuers",
            of(Provider {
                issuers: vec!["https://y".into()],
                ..corp()
            }),
        ),
        (
            "other audiences",
            of(Provider {
                audiences: vec!["back".into()],
                ..corp()
            }),
        ),
        (
            "no audiences",
            of(Provider {
                audiences: Vec::new(),
                ..corp()
            }),
        ),
        (
            "another key under its kid",
            with_keys(&|one| {
                one.keys = Keys(vec![public(&es256(), Some(OF_CORP.key_id()))]);
            }),
        ),
        (
            "its keys are too old",
            with_keys(&|one| one.good_until = Some(at(NOW))),
        ),
        (
            "the tenant is another",
            subscribed(&|s| s.legal_entity_id = "le-other".into()),
        ),
        (
            "no Subscription any more",
            subscribed(&|s| s.period_to = Some(at(NOW))),
        ),
        (
            "no Subscription yet",
            subscribed(&|s| s.period_from = Some(at(NOW + 1))),
        ),
    ];
    for (why, snapshot) in cases {
        world.store.publish(of(corp()));
        assert_eq!(uses(&world, &secret, &token).await, TAKEN, "before: {why}");
        world.store.publish(snapshot);
        assert_eq!(uses(&world, &secret, &token).await, REFUSED, "{why}");
    }
    world.store.publish(of(corp()));
    world.clock.0.fetch_add(199, Ordering::Relaxed);
    assert_eq!(uses(&world, &secret, &token).await, TAKEN);
    world.clock.0.fetch_add(1, Ordering::Relaxed);
    assert_eq!(
        uses(&world, &secret, &token).await,
        REFUSED,
        "it has expired"
    );
}

#[tokio::test]
async fn a_token_that_two_tenants_could_claim_is_nobodys() {
    let (all, secret) = clients();
    let world = World::new();
    let of = |namespace: &str| {
        let provider = Provider {
            namespace: Some(namespace.into()),
            ..corp()
        };
        trusted(provider, &OF_CORP)
    };
    world
        .store
        .publish(served(all.clone(), vec![of("acme"), of("globex")]));
    let unnamed = of_person(&json!({"caas_org_id": null}));
    // Whoever asks for a tenant is told of its own.
    for (id, sub) in [
        ("acme.front", "acme/corp:ann"),
        ("globex.shop", "globex/corp:ann"),
    ] {
        let said = told(&world, id, &secret, &unnamed).await.json();
        assert_eq!((&said["active"], &said["sub"]), (&json!(true), &json!(sub)));
    }
    assert_eq!(account(&world, PATHS[0], &unnamed).await.status, 401);
    let named = of_person(&json!({"caas_org_id": "le-globex"}));
    let said = account(&world, PATHS[0], &named).await.json();
    assert_eq!(said["userAccountInfo"]["userId"], "globex/corp:ann");
    let said = told(&world, "acme.front", &secret, &named).await.json();
    assert_eq!(said, json!({"active": false}));
    // Two providers of one issuer with audiences of their own: each token has its provider.
    let back = Provider {
        name: "staff".into(),
        audiences: vec!["back".into()],
        ..corp()
    };
    let both = vec![trusted(corp(), &OF_CORP), trusted(back, &OF_CORP)];
    world.store.publish(served(all, both));
    for (aud, sub) in [("front", "corp:ann"), ("back", "staff:ann")] {
        let token = of_person(&json!({"aud": aud}));
        assert_eq!(uses(&world, &secret, &token).await, TAKEN, "{aud}");
        let said = told(&world, "acme.front", &secret, &token).await.json();
        assert_eq!(said["sub"], sub);
    }
}

/// Before the provider has answered, nobody can say that its token does not hold.
#[tokio::test]
async fn while_no_keys_of_the_provider_are_known_nothing_can_be_said() {
    let (all, secret) = clients();
    let world = World::new();
    let unanswered = |provider: Provider| {
        let one = OutsideProvider {
            uid: "uid".into(),
            provider,
            keys: Keys::default(),
            fetched: true,
            good_until: None,
        };
        world
            .store
            .publish(served(all.clone(), vec![Arc::new(one)]));
    };
    unanswered(corp());
    let token = of_person(&json!({}));
    assert_eq!(uses(&world, &secret, &token).await, [503; 4]);
    let answers = [
        exchange(&world, "acme.front", &secret, &token, "").await,
        told(&world, "acme.front", &secret, &token).await,
        account(&world, PATHS[0], &token).await,
    ];
    for answer in answers {
        assert_eq!(answer.header("retry-after"), "2", "{answer:?}");
    }
    // Keys would not help these.
    for changes in [
        json!({"iss": "https://x"}),
        json!({"aud": "back"}),
        json!({"exp": NOW - 61}),
        json!({"exp": NOW}),
        json!({"sub": ""}),
    ] {
        assert_eq!(
            uses(&world, &secret, &of_person(&changes)).await,
            REFUSED,
            "{changes}"
        );
    }
    assert_eq!(uses(&world, &secret, "x").await, REFUSED);
    // Of a tenant's provider its own clients are told so, and no stranger.
    unanswered(Provider {
        namespace: Some("acme".into()),
        ..corp()
    });
    assert_eq!(uses(&world, &secret, &token).await, [503, 503, 401, 401]);
    let said = told(&world, "globex.shop", &secret, &token).await.json();
    assert_eq!(said, json!({"active": false}));
    // Nothing is to be fetched because of it: the operator is at it.
    assert!(world.wanted.0.lock().expect("a lock").is_empty());
}

#[tokio::test]
async fn before_the_jwks_is_known_no_token_is_called_wrong() {
    let (all, secret) = clients();
    let world = World::new();
    let snapshot = || served(all.clone(), vec![trusted(corp(), &OF_CORP)]);
    world.store.publish(snapshot());
    let first = exchange(&world, "acme.front", &secret, &of_person(&json!({})), "").await;
    let first = token_of(&first);
    let own = token_of(&world.token("acme.shop", &secret, "").await);
    let actor = format!("&actor_token={own}&actor_token_type={TYPE}access_token");
    let ask = async |more: &str| exchange(&world, "acme.shop", &secret, &first, more).await;
    assert_eq!(ask(&actor).await.status, 200);
    world.store.publish(Snapshot {
        jwks: None,
        ..snapshot()
    });
    for more in ["", &actor] {
        let answer = ask(more).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.error()),
            (503, "temporarily_unavailable")
        );
        assert_eq!(answer.header("retry-after"), "2");
    }
    world.store.publish(snapshot());
    world.clock.0.fetch_add(3601, Ordering::Relaxed);
    assert_eq!(ask(&actor).await.status, 503, "contact is lost");
}

#[tokio::test]
async fn the_operator_is_told_of_a_key_that_is_not_known_and_of_nothing_else() {
    let (all, secret) = clients();
    let world = World::new();
    let inline = Arc::new(OutsideProvider {
        uid: "inline".into(),
        provider: Provider {
            name: "inline".into(),
            issuers: vec!["https://inline.example".into()],
            ..corp()
        },
        keys: Keys(vec![public(&OF_CORP, None)]),
        fetched: false,
        good_until: None,
    });
    let of_globex = trusted(
        Provider {
            namespace: Some("globex".into()),
            name: "theirs".into(),
            issuers: vec!["https://theirs.example".into()],
            ..corp()
        },
        &OF_CORP,
    );
    let inactive = trusted(
        Provider {
            name: "inactive".into(),
            issuers: vec!["https://inactive.example".into()],
            active: false,
            ..corp()
        },
        &OF_CORP,
    );
    let providers = vec![trusted(corp(), &OF_CORP), inline, of_globex, inactive];
    world.store.publish(served(all, providers));
    let wanted = || std::mem::take(&mut *world.wanted.0.lock().expect("a lock"));
    let new = |header: Value, claims_of: Value| {
        sign(
            &es256(),
            &with(&self::header(), &header),
            &with(&claims(), &claims_of),
        )
    };
    let unknown = json!({"kid": "new"});
    for (why, token, told_of) in [
        ("a new kid", new(unknown.clone(), json!({})), &["corp"][..]),
        (
            "none, and another key",
            new(json!({"kid": null}), json!({})),
            &["corp"],
        ),
        ("its own kid, forged", new(json!({}), json!({})), &[]),
        (
            "another issuer",
            new(unknown.clone(), json!({"iss": "https://x"})),
            &[],
        ),
        (
            "another audience",
            new(unknown.clone(), json!({"aud": "back"})),
            &[],
        ),
        (
            "expired",
            new(unknown.clone(), json!({"exp": NOW - 61})),
            &[],
        ),
        (
            "an ID token",
            new(json!({"kid": "new", "typ": "JWT"}), json!({"nonce": "n"})),
            &[],
        ),
        (
            "embedded",
            new(
                json!({"kid": "new", "jwk": es256().public_jwk()}),
                json!({}),
            ),
            &[],
        ),
        (
            "keys that stand in the resource",
            new(unknown.clone(), json!({"iss": "https://inline.example"})),
            &[],
        ),
        (
            "another tenant's provider",
            new(unknown.clone(), json!({"iss": "https://theirs.example"})),
            &[],
        ),
        (
            "an inactive one",
            new(unknown.clone(), json!({"iss": "https://inactive.example"})),
            &[],
        ),
        ("a sound one", of_person(&json!({})), &[]),
    ] {
        exchange(&world, "acme.front", &secret, &token, "").await;
        assert_eq!(wanted(), told_of, "exchange: {why}");
        told(&world, "acme.front", &secret, &token).await;
        assert_eq!(wanted(), told_of, "introspection: {why}");
        account(&world, PATHS[0], &token).await;
        let other = why == "another tenant's provider";
        let told_of = if other { &["globex/theirs"] } else { told_of };
        assert_eq!(wanted(), told_of, "account: {why}");
    }
}

/// Tenants of the snapshot are those with Subscriptions, whether or not they have technical users.
#[tokio::test]
async fn a_tenant_needs_no_technical_user_for_its_people() {
    let ([front, ..], _) = clients();
    let world = World::new();
    let none: BTreeMap<String, Arc<Client>> = BTreeMap::new();
    let mut snapshot = served(clients().0, vec![trusted(corp(), &OF_CORP)]);
    snapshot.clients = none.into_iter().collect();
    assert!(snapshot.tenants.contains_key(&front.namespace));
    world.store.publish(snapshot);
    let token = of_person(&json!({}));
    for path in PATHS {
        assert_eq!(account(&world, path, &token).await.status, 200);
    }
}

/// What a provider calls its clients is never what one of ours is called.
#[tokio::test]
async fn a_providers_client_is_none_of_ours() {
    let (all, secret) = clients();
    let world = World::new();
    let of_acme = Provider {
        namespace: Some("acme".into()),
        ..corp()
    };
    world
        .store
        .publish(served(all, vec![trusted(of_acme, &OF_CORP)]));
    for member in ["client_id", "azp"] {
        let token = of_person(&json!({ member: "acme.shop" }));
        let said = told(&world, "acme.front", &secret, &token).await.json();
        assert_eq!(said["client_id"], "acme/corp:acme.shop", "{member}");
    }
}
