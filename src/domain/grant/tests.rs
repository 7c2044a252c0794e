use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::client::Family;
use crate::domain::subscription::{Allowed, SubscriptionFacts};
use crate::domain::tier::Entitlements;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn owned(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| (*v).to_owned()).collect()
}

fn subscription(scopes: &[&str], roles: &[&str], audiences: &[&str]) -> SubscriptionFacts {
    SubscriptionFacts {
        namespace: "acme".into(),
        name: "main".into(),
        created: at(0),
        uid: "uid".into(),
        environment: "default".into(),
        legal_entity_id: "le-1".into(),
        legal_entity_name: "Acme".into(),
        tier: "Pro".into(),
        allowed: Allowed {
            scopes: owned(scopes),
            roles: owned(roles),
            audiences: owned(audiences),
            client_ids: Vec::new(),
        },
        entitlements: Entitlements::new(),
        period_from: None,
        period_to: None,
    }
}

fn client(scopes: &[&str], roles: &[&str], audiences: &[&str]) -> Client {
    Client {
        id: "acme.robot".into(),
        family: Family::Integration,
        namespace: "acme".into(),
        name: "robot".into(),
        suspended: false,
        created_at: None,
        last_revocation: None,
        introspect: false,
        on_behalf_of: false,
        roles: owned(roles),
        scopes: owned(scopes),
        audiences: owned(audiences),
        token_ttl: None,
        token_rate: None,
        signing_key: None,
        credentials: Vec::new(),
        companion: None,
        subscriptions: Arc::new(vec![subscription(&["*"], &["*"], &["*"])]),
    }
}

fn settings() -> Settings {
    Settings {
        issuer: "https://id.example.com".into(),
        ..Settings::default()
    }
}

fn code(client: &Client, request: &Request<'_>) -> Result<String, &'static str> {
    client_credentials(client, request, &settings(), at(100), "jti")
        .map(|g| format!("{} for {}", g.claims.scope, g.claims.audiences.join(",")))
        .map_err(|e| e.code().as_str())
}

#[test]
fn scopes_as_a_table() {
    let client = client(&["read", "write"], &[], &["api"]);
    for (requested, expected) in [
        (None, Ok("read write for api")),
        (Some("write"), Ok("write for api")),
        (Some("write read"), Ok("write read for api")),
        (Some("read read"), Ok("read for api")),
        (Some("admin"), Err("invalid_scope")),
        (Some("read admin"), Err("invalid_scope")),
        (Some("read  write"), Err("invalid_scope")),
        (Some(" read"), Err("invalid_scope")),
        (Some("re\"ad"), Err("invalid_scope")),
        (Some("read\twrite"), Err("invalid_scope")),
        (Some("*"), Err("invalid_scope")),
    ] {
        let request = Request {
            scope: requested,
            ..Request::default()
        };
        assert_eq!(
            code(&client, &request),
            expected.map(str::to_owned),
            "{requested:?}"
        );
    }
}

/// Resources, audiences, and what comes of them.
type Case<'a> = (&'a [&'a str], &'a [&'a str], Result<&'a str, &'a str>);

#[test]
fn audiences_as_a_table() {
    let client = client(&[], &[], &["https://a.example", "b", "urn:c"]);
    let cases: [Case; 10] = [
        (&[], &[], Ok(" for https://a.example")),
        (&["urn:c"], &[], Ok(" for urn:c")),
        (
            &["https://a.example"],
            &["b"],
            Ok(" for https://a.example,b"),
        ),
        (&[], &["b", "b"], Ok(" for b")),
        (&["b"], &[], Err("invalid_target")),
        (&["https://a.example#x"], &[], Err("invalid_target")),
        (&["https://other.example"], &[], Err("invalid_target")),
        (&["https:"], &[], Err("invalid_target")),
        (&["//a.example"], &[], Err("invalid_target")),
        (&[], &["other"], Err("invalid_target")),
    ];
    for (resources, audiences, expected) in cases {
        let request = Request {
            scope: None,
            resources: resources.to_vec(),
            audiences: audiences.to_vec(),
        };
        assert_eq!(
            code(&client, &request),
            expected.map(str::to_owned),
            "{request:?}"
        );
    }
}

#[test]
fn the_subscription_cuts_everything_down() {
    let mut client = client(&["read", "write"], &["A", "B"], &["x", "y"]);
    client.subscriptions = Arc::new(vec![subscription(&["write", "z"], &["B"], &["y"])]);
    let settings = settings();
    let granted = client_credentials(&client, &Request::default(), &settings, at(100), "jti")
        .expect("granted");
    assert_eq!(granted.claims.scope, "write");
    assert_eq!(granted.claims.roles, ["B"]);
    assert_eq!(granted.claims.audiences, ["y"]);
    assert_eq!(granted.claims.legal_entity, "le-1");
    assert_eq!(granted.claims.tier, "Pro");
    client.subscriptions = Arc::new(vec![subscription(&["*"], &["*"], &[])]);
    assert_eq!(code(&client, &Request::default()), Err("invalid_target"));
}

#[test]
fn without_a_current_subscription_there_is_no_token() {
    let mut client = client(&["read"], &[], &["x"]);
    let ended = SubscriptionFacts {
        period_to: Some(at(100)),
        ..subscription(&["*"], &["*"], &["*"])
    };
    client.subscriptions = Arc::new(vec![ended]);
    assert_eq!(
        code(&client, &Request::default()),
        Err("unauthorized_client")
    );
    client.subscriptions = Arc::new(Vec::new());
    assert_eq!(
        code(&client, &Request::default()),
        Err("unauthorized_client")
    );
}

#[test]
fn lives_and_rings() {
    let settings = settings();
    let mut client = client(&[], &[], &["x"]);
    let request = Request::default();
    for (ttl, expected) in [(None, 300), (Some(60), 60), (Some(7200), 3600)] {
        client.token_ttl = ttl.map(Period::from_secs);
        let granted =
            client_credentials(&client, &request, &settings, at(100), "jti").expect("granted");
        assert_eq!(granted.ttl.as_secs(), expected);
        assert_eq!(
            (granted.claims.issued_at, granted.claims.expires_at),
            (100, 100 + expected)
        );
        assert_eq!(granted.ring, RingChoice::Preferred);
    }
    client.signing_key = Some("special".into());
    let granted =
        client_credentials(&client, &request, &settings, at(100), "jti").expect("granted");
    assert_eq!(granted.ring, RingChoice::Named("special"));
}

fn some_of(universe: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(proptest::sample::select(universe), 0..4)
}

const NAMES: [&str; 6] = ["a", "b", "c", "urn:d", "urn:e", "*"];

proptest! {
    #[test]
    fn never_more_than_client_and_subscription(
        given in [some_of(&NAMES), some_of(&NAMES), some_of(&NAMES)],
        allowed in [some_of(&NAMES), some_of(&NAMES), some_of(&NAMES)],
        scope in proptest::option::of(some_of(&NAMES)),
        resources in some_of(&NAMES),
        audiences in some_of(&NAMES),
        ttl in proptest::option::of(0_i64..100_000),
    ) {
        let mut client = client(&given[0], &given[1], &given[2]);
        client.token_ttl = ttl.map(Period::from_secs);
        let facts = subscription(&allowed[0], &allowed[1], &allowed[2]);
        client.subscriptions = Arc::new(vec![facts]);
        let joined = scope.map(|s| s.join(" "));
        let request = Request { scope: joined.as_deref(), resources, audiences };
        let settings = settings();
        if let Ok(granted) = client_credentials(&client, &request, &settings, at(100), "jti") {
            let within = |value: &str, i: usize| {
                given[i].contains(&value)
                    && (allowed[i].contains(&value) || allowed[i].contains(&"*"))
            };
            let claims = &granted.claims;
            prop_assert!(claims.scope.split(' ').filter(|s| !s.is_empty()).all(|s| within(s, 0)));
            prop_assert!(claims.roles.iter().all(|r| within(r, 1)));
            prop_assert!(!claims.audiences.is_empty());
            prop_assert!(claims.audiences.iter().all(|a| within(a, 2)));
            prop_assert!(granted.ttl <= settings.tokens.max_ttl);
            if let Some(requested) = &joined {
                prop_assert!(claims.scope.split(' ').all(|s| requested.split(' ').any(|r| r == s)));
            }
        }
    }

    #[test]
    fn nothing_that_is_asked_panics_or_leaves_the_charset(
        scope in proptest::option::of(".*"),
        resource in ".*",
        audience in ".*",
    ) {
        let client = client(&["a"], &[], &["x"]);
        let request = Request {
            scope: scope.as_deref(), resources: vec![&resource], audiences: vec![&audience],
        };
        if let Err(e) = client_credentials(&client, &request, &settings(), at(100), "jti") {
            prop_assert!(e.description().bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\'));
        }
    }
}
