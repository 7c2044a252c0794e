use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::client::Family;
use crate::domain::subscription::{Allowed, SubscriptionFacts};
use crate::domain::tier::Entitlements;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://id.example.com";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn owned(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

fn settings() -> Settings {
    Settings {
        issuer: ISSUER.into(),
        ..Settings::default()
    }
}

fn subscription(allowed: Allowed) -> SubscriptionFacts {
    SubscriptionFacts {
        namespace: "acme".into(),
        name: "main".into(),
        created: at(0),
        uid: "uid".into(),
        environment: "default".into(),
        legal_entity_id: "le-acme".into(),
        legal_entity_name: "Acme".into(),
        tier: "Pro".into(),
        allowed,
        entitlements: Entitlements::new(),
        period_from: None,
        period_to: None,
    }
}

fn all() -> Allowed {
    Allowed {
        scopes: owned(&["*"]),
        roles: owned(&["*"]),
        audiences: owned(&["*"]),
        client_ids: Vec::new(),
    }
}

fn client() -> Client {
    Client {
        id: "acme.shop".into(),
        family: Family::Integration,
        namespace: "acme".into(),
        name: "shop".into(),
        suspended: false,
        created_at: None,
        last_revocation: None,
        introspect: false,
        on_behalf_of: true,
        roles: owned(&["ROBOT"]),
        scopes: owned(&["read", "write"]),
        audiences: owned(&["https://orders.example", "acme.orders"]),
        token_ttl: None,
        token_rate: None,
        signing_key: None,
        credentials: Vec::new(),
        companion: None,
        subscriptions: Arc::new(vec![subscription(all())]),
    }
}

fn person() -> Subject {
    Subject {
        id: "corp:ann".into(),
        subject: "ann".into(),
        issuer: Some("https://login.corp.example".into()),
        audiences: owned(&["shop"]),
        organisation: None,
        legal_entity: Some("le-acme".into()),
        roles: owned(&["CLERK"]),
        scopes: None,
        expires: NOW + 3600,
        issued_at: NOW,
        client: None,
        may_act: None,
        act: None,
        token_id: None,
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

/// The claims as they are signed, or the error's code.
fn exchanged(client: &Client, subject: &Subject, request: &Request<'_>) -> Result<Value, String> {
    let settings = settings();
    let granted = on_behalf_of(client, subject, request, &settings, at(NOW), "jti");
    granted
        .map(|granted| serde_json::to_value(&granted.claims).expect("JSON"))
        .map_err(|error| error.code().as_str().to_owned())
}

#[test]
fn the_token_speaks_for_the_person_and_names_the_client() {
    let claims = exchanged(&client(), &person(), &Request::default()).expect("a token");
    assert_eq!(
        claims,
        json!({
            "iss": ISSUER, "sub": "corp:ann", "aud": "https://orders.example",
            "client_id": "acme.shop", "iat": NOW, "exp": NOW + 300, "jti": "jti",
            "scope": "read write", "act": {"sub": "acme.shop"},
            "caas_org_id": "le-acme", "caas_user_id": "corp:ann", "org_id": "le-acme",
            "user_roles": ["CLERK"], "caas_tier": "Pro", "client_family": "Integration",
        })
    );
}

#[test]
fn each_reason_to_refuse() {
    let base = person();
    let with = |change: &dyn Fn(&mut Subject)| {
        let mut subject = base.clone();
        change(&mut subject);
        subject
    };
    let refuse = |client: &Client, subject: &Subject, request: &Request<'_>| {
        exchanged(client, subject, request).expect_err("it is refused")
    };
    let any = Request::default();
    let shop = client();
    let no_right = Client {
        on_behalf_of: false,
        ..client()
    };
    assert_eq!(refuse(&no_right, &base, &any), "unauthorized_client");
    let ended = SubscriptionFacts {
        period_to: Some(at(NOW)),
        ..subscription(all())
    };
    let ended = Client {
        subscriptions: Arc::new(vec![ended]),
        ..client()
    };
    assert_eq!(refuse(&ended, &base, &any), "unauthorized_client");
    let foreign = with(&|s| s.legal_entity = Some("le-other".into()));
    assert_eq!(refuse(&shop, &foreign, &any), "access_denied");
    for expires in [NOW, NOW - 1, i64::MIN] {
        let expired = with(&|s| s.expires = expires);
        assert_eq!(refuse(&shop, &expired, &any), "invalid_request");
    }
    let of_token = with(&|s| s.scopes = Some(owned(&["read"])));
    let write = Request {
        scope: Some("write"),
        ..Request::default()
    };
    assert_eq!(refuse(&shop, &of_token, &write), "invalid_scope");
    let elsewhere = Request {
        audiences: vec!["https://other.example"],
        ..Request::default()
    };
    assert_eq!(refuse(&shop, &base, &elsewhere), "invalid_target");
}

#[test]
fn may_act_is_honoured() {
    for (may_act, good) in [
        (json!({"sub": "acme.shop"}), true),
        (json!({"sub": "acme.shop", "iss": ISSUER}), true),
        (json!({"sub": "acme.shop", "client_id": "acme.shop"}), true),
        (json!({"sub": "acme.other"}), false),
        (
            json!({"sub": "acme.shop", "iss": "https://other.example"}),
            false,
        ),
        (json!({"sub": "acme.shop", "email": "a@b"}), false),
        (json!({"client_id": "acme.shop"}), false),
        (json!({"sub": 1}), false),
        (json!({}), false),
    ] {
        let subject = Subject {
            may_act: Some(object(may_act.clone())),
            ..person()
        };
        let outcome = exchanged(&client(), &subject, &Request::default());
        match outcome {
            Ok(claims) => assert!(good && claims.get("may_act").is_none(), "{may_act}"),
            Err(code) => assert!(!good && code == "invalid_request", "{may_act}: {code}"),
        }
    }
}

/// As many parties as that, one after another.
fn acted(times: usize) -> Option<Map<String, Value>> {
    (0..times).fold(None, |act, n| {
        let mut one = object(json!({"sub": format!("party-{n}")}));
        if let Some(act) = act {
            one.insert("act".into(), Value::Object(act));
        }
        Some(one)
    })
}

#[test]
fn a_chain_is_kept_bounded_and_nobody_in_it_is_mistaken() {
    let of = |act: Option<Map<String, Value>>, issuer: &str| Subject {
        act,
        issuer: Some(issuer.into()),
        ..person()
    };
    let acts = |subject: &Subject| {
        exchanged(&client(), subject, &Request::default()).map(|claims| claims["act"].clone())
    };
    // Of this issuer: as they are.
    assert_eq!(
        acts(&of(acted(2), ISSUER)),
        Ok(json!({"sub": "acme.shop", "act": {"sub": "party-1", "act": {"sub": "party-0"}}}))
    );
    // Of another: its parties are not ours, whatever they are called.
    let theirs =
        object(json!({"sub": "acme.orders", "extra": 1, "act": {"sub": "x", "iss": "https://y"}}));
    assert_eq!(
        acts(&of(Some(theirs), "https://corp")),
        Ok(json!({"sub": "acme.shop", "act": {
            "sub": "acme.orders", "iss": "https://corp", "act": {"sub": "x", "iss": "https://y"},
        }}))
    );
    assert!(acts(&of(acted(LONGEST_CHAIN - 1), ISSUER)).is_ok());
    for times in [LONGEST_CHAIN, LONGEST_CHAIN + 1, 50] {
        assert_eq!(
            acts(&of(acted(times), ISSUER)),
            Err("invalid_request".into())
        );
    }
    for odd in [
        json!({}),
        json!({"sub": ""}),
        json!({"sub": 1}),
        json!({"sub": "a", "iss": 1}),
        json!({"sub": "a", "act": "b"}),
        json!({"sub": "a", "act": {}}),
        json!({"sub": "x".repeat(LONGEST_NAME + 1)}),
    ] {
        let refused = acts(&of(Some(object(odd.clone())), ISSUER));
        assert_eq!(refused, Err("invalid_request".into()), "{odd}");
    }
}

#[test]
fn whose_a_token_of_ours_is() {
    let claims = json!({
        "iss": ISSUER, "sub": "corp:ann", "aud": ["acme.shop", "x"], "client_id": "acme.front",
        "iat": NOW, "exp": NOW + 60, "jti": "one", "scope": "read", "act": {"sub": "acme.front"},
        "caas_org_id": "le-acme", "org_id": "acme-emea", "user_roles": ["CLERK"],
    });
    let with = |name: &str, value: Value| {
        let mut changed = object(claims.clone());
        if value.is_null() {
            changed.remove(name);
        } else {
            changed.insert(name.into(), value);
        }
        let subject = own_subject(&changed, &ClaimNames::default(), "acme.shop");
        subject.map_err(|e| e.code().as_str())
    };
    let subject = with("x", Value::Null).expect("a person");
    assert_eq!(
        (
            &*subject.id,
            subject.legal_entity.as_deref(),
            subject.organisation.as_deref()
        ),
        ("corp:ann", Some("le-acme"), Some("acme-emea"))
    );
    assert_eq!(subject.scopes, Some(owned(&["read"])));
    assert_eq!(
        (subject.roles, subject.expires),
        (owned(&["CLERK"]), NOW + 60)
    );
    assert_eq!(
        with("aud", "acme.shop".into()).map(|s| s.id),
        Ok("corp:ann".into())
    );
    // One that names no scope has none; one that names no tenant is nobody's.
    assert_eq!(
        with("scope", Value::Null).map(|s| s.scopes),
        Ok(Some(Vec::new()))
    );
    let nobodys = with("caas_org_id", Value::Null).expect("read");
    assert!(!nobodys.belongs_to("le-acme"));
    for (name, value) in [
        ("sub", "acme.front".into()),
        ("sub", "ann".into()),
        ("sub", Value::Null),
        ("client_id", "corp:ann".into()),
        ("aud", "acme.other".into()),
        ("aud", json!(["https://a"])),
        ("aud", Value::Null),
        ("act", "x".into()),
        ("may_act", json!([])),
    ] {
        assert_eq!(
            with(name, value.clone()).err(),
            Some("invalid_request"),
            "{name} {value}"
        );
    }
}

const WORDS: [&str; 5] = ["a", "b", "c", "d", "*"];

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    vec(proptest::sample::select(of), 0..5).prop_map(|words| {
        let mut seen = BTreeSet::new();
        let words = words.into_iter().filter(|word| seen.insert(*word));
        words.map(str::to_owned).collect()
    })
}

/// Scopes, roles or audiences that a client, a person or a token has.
fn given() -> impl Strategy<Value = Vec<String>> {
    some(&["a", "b", "c", "d"])
}

fn allowed() -> impl Strategy<Value = Vec<String>> {
    some(&WORDS)
}

fn within(one: &str, allowed: &[String]) -> bool {
    allowed.iter().any(|a| a == "*" || a == one)
}

fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text
            .split(' ')
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect(),
        Value::Array(all) => all
            .iter()
            .map(|v| v.as_str().expect("text").to_owned())
            .collect(),
        _ => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever the person's token, the client and the Subscription say: the token goes beyond none.
    #[test]
    fn never_beyond_what_each_allows(
        (scopes, roles, audiences) in (given(), given(), given()),
        (of_subject, subject_roles) in (proptest::option::of(given()), given()),
        (allowed_scopes, allowed_roles, allowed_audiences) in (allowed(), allowed(), allowed()),
        (asked_scope, asked_audiences) in (proptest::option::of(given()), vec(proptest::sample::select(&WORDS[..4]), 0..2)),
        (ttl, life) in (proptest::option::of(1_i64..90_000), -10_i64..90_000),
        tenant in proptest::option::of(proptest::sample::select(&["le-acme", "le-other", ""][..])),
        on_behalf_of in proptest::bool::weighted(0.9),
        chain in 0_usize..10,
    ) {
        let client = Client {
            on_behalf_of,
            scopes,
            roles,
            audiences,
            token_ttl: ttl.map(Period::from_secs),
            subscriptions: Arc::new(vec![subscription(Allowed {
                scopes: allowed_scopes,
                roles: allowed_roles,
                audiences: allowed_audiences,
                client_ids: Vec::new(),
            })]),
            ..client()
        };
        let subject = Subject {
            scopes: of_subject,
            roles: subject_roles,
            expires: NOW + life,
            legal_entity: tenant.map(str::to_owned),
            act: acted(chain),
            ..person()
        };
        let scope = asked_scope.map(|words| words.join(" ")).filter(|text| !text.is_empty());
        let request = Request {
            scope: scope.as_deref(),
            resources: Vec::new(),
            audiences: asked_audiences,
        };
        let Ok(claims) = exchanged(&client, &subject, &request) else {
            return Ok(());
        };
        let may = &client.subscriptions[0].allowed;
        for scope in words(&claims["scope"]) {
            prop_assert!(client.scopes.contains(&scope) && within(&scope, &may.scopes));
            prop_assert!(subject.scopes.as_ref().is_none_or(|of| of.contains(&scope)));
            prop_assert!(request.scope.is_none_or(|asked| asked.split(' ').any(|a| a == scope)));
        }
        for role in words(&claims["user_roles"]) {
            prop_assert!(subject.roles.contains(&role) && within(&role, &may.roles));
        }
        let audiences = words(&claims["aud"]);
        prop_assert!(!audiences.is_empty());
        for audience in audiences {
            prop_assert!(client.audiences.contains(&audience) && within(&audience, &may.audiences));
            prop_assert!(request.audiences.is_empty() || request.audiences.contains(&&*audience));
        }
        let expires = claims["exp"].as_i64().expect("exp");
        prop_assert!(expires > NOW && expires <= subject.expires);
        prop_assert!(expires <= NOW + settings().tokens.max_ttl.as_secs());
        prop_assert!(ttl.is_none_or(|ttl| expires <= NOW + ttl));
        prop_assert!(client.on_behalf_of && subject.belongs_to("le-acme"));
        prop_assert_eq!(&claims["caas_org_id"], "le-acme");
        prop_assert_eq!(&claims["sub"], "corp:ann");
        prop_assert_eq!(&claims["caas_user_id"], "corp:ann");
        prop_assert_eq!(&claims["client_id"], "acme.shop");
        let (mut depth, mut act) = (0, &claims["act"]);
        prop_assert_eq!(&act["sub"], "acme.shop");
        while act.is_object() {
            depth += 1;
            act = &act["act"];
        }
        prop_assert_eq!(depth, chain + 1);
        prop_assert!(depth <= LONGEST_CHAIN);
    }

    /// Along a chain of this issuer's tokens each has no more than the one before.
    #[test]
    fn each_hop_has_no_more_than_the_one_before(
        hops in vec((given(), given(), allowed(), allowed(), 1_i64..90_000), 1..6),
        first in proptest::option::of(given()),
        roles in given(),
    ) {
        let mut subject = Subject { scopes: first, roles, ..person() };
        let mut before: Option<Value> = None;
        for (scopes, audiences, may_scopes, may_roles, ttl) in hops {
            let client = Client {
                scopes,
                audiences: [audiences, owned(&["acme.shop"])].concat(),
                token_ttl: Some(Period::from_secs(ttl)),
                subscriptions: Arc::new(vec![subscription(Allowed {
                    scopes: may_scopes,
                    roles: may_roles,
                    ..all()
                })]),
                ..client()
            };
            let request = Request { audiences: vec!["acme.shop"], ..Request::default() };
            let claims = exchanged(&client, &subject, &request).expect("it may");
            if let Some(before) = &before {
                for claim in ["scope", "user_roles"] {
                    let had = words(&before[claim]);
                    prop_assert!(words(&claims[claim]).iter().all(|one| had.contains(one)));
                }
                prop_assert!(claims["exp"].as_i64() <= before["exp"].as_i64());
                prop_assert_eq!(&claims["act"]["act"], &before["act"]);
                prop_assert_eq!(&claims["sub"], &before["sub"]);
            }
            subject = own_subject(&object(claims.clone()), &ClaimNames::default(), "acme.shop").expect("a person");
            before = Some(claims);
        }
    }
}
