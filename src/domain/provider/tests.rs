//! Tables, and properties that hold for any provider and token.
#![allow(clippy::needless_pass_by_value)]

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: i64 = 1_000_000;
const OWN: &str = "https://id.example";

fn path(text: &str) -> ClaimPath {
    text.parse().expect("a path")
}

fn provider() -> Provider {
    Provider {
        namespace: None,
        name: "corp".into(),
        registered: NOW - 1000,
        active: true,
        issuers: vec!["https://corp.example".into(), "https://old.example/".into()],
        audiences: vec!["orders".into(), "bills".into()],
        claims: ClaimPaths {
            subject: path("sub"),
            organisation: path("org_id"),
            legal_entity: path("caas_org_id"),
            roles: path("realm_access.roles"),
        },
        required: Vec::new(),
        role_mappings: Vec::new(),
        auto_enroll: AutoEnroll::default(),
    }
}

fn of_tenant() -> Provider {
    Provider {
        namespace: Some("acme".into()),
        ..provider()
    }
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn header() -> Map<String, Value> {
    map(json!({"alg": "RS256", "typ": "at+jwt", "kid": "k"}))
}

fn token() -> Map<String, Value> {
    map(json!({
        "iss": "https://corp.example", "sub": "ada", "aud": "orders", "exp": NOW + 300, "iat": NOW - 5,
        "caas_org_id": "acme", "realm_access": {"roles": ["reader"]},
    }))
}

fn by() -> Circumstances<'static> {
    Circumstances {
        now: NOW,
        leeway: 30,
        own_issuer: OWN,
    }
}

/// The token with members set, or taken away where `null` stands.
fn with(changes: Value) -> Map<String, Value> {
    let mut token = token();
    for (name, value) in map(changes) {
        if value == json!("<away>") {
            token.remove(&name);
        } else {
            token.insert(name, value);
        }
    }
    token
}

fn judge(provider: &Provider, changes: Value) -> Result<Subject, Refusal> {
    provider.judge(&header(), &with(changes), &by())
}

#[test]
fn a_sound_token_speaks_of_a_person() {
    let changes = json!({
        "aud": ["other", "bills", "bills"], "org_id": "Research", "scope": "read write read",
        "act": {"sub": "x"}, "may_act": {"sub": "acme.agent"}, "client_id": "portal", "jti": "1",
        "nbf": NOW + 30,
    });
    let subject = judge(&provider(), changes).expect("taken");
    assert_eq!(
        subject,
        Subject {
            id: "corp:ada".into(),
            subject: "ada".into(),
            issuer: Some("https://corp.example".into()),
            audiences: vec!["other".into(), "bills".into()],
            organisation: Some("Research".into()),
            legal_entity: Some("acme".into()),
            roles: vec!["reader".into()],
            scopes: Some(vec!["read".into(), "write".into()]),
            expires: NOW + 300,
            issued_at: NOW - 5,
            client: Some("portal".into()),
            may_act: Some(map(json!({"sub": "acme.agent"}))),
            act: Some(map(json!({"sub": "x"}))),
            token_id: Some("1".into()),
        }
    );
    assert!(subject.belongs_to("acme") && !subject.belongs_to("other"));
    let plain = judge(&provider(), json!({})).expect("taken");
    assert_eq!((plain.scopes, plain.act, plain.may_act), (None, None, None));
}

#[test]
fn a_tenants_provider_speaks_of_its_own_people() {
    let tenant = of_tenant();
    let subject = judge(&tenant, json!({"caas_org_id": "<away>"})).expect("taken");
    assert_eq!(subject.id, "acme/corp:ada");
    assert!(subject.belongs_to("acme"), "whatever the tenant is called");
    let other = judge(&tenant, json!({"caas_org_id": "other"})).expect("read");
    assert!(!other.belongs_to("acme"), "it speaks for someone else");
    assert!(tenant.serves("acme") && !tenant.serves("other"));
    assert!(provider().serves("acme"));
}

#[test]
fn each_defect_is_refused_for_what_it_is() {
    use Refusal as R;
    let long = "x".repeat(256);
    let subject = || R::Subject("sub".into());
    for (changes, refusal) in [
        (json!({"iss": "https://corp.example/"}), R::Issuer),
        (json!({"iss": "https://CORP.example"}), R::Issuer),
        (json!({"iss": OWN}), R::OwnIssuer),
        (json!({"iss": ""}), R::Malformed("iss")),
        (
            json!({"iss": ["https://corp.example"]}),
            R::Malformed("iss"),
        ),
        (json!({"iss": "<away>"}), R::Missing("iss")),
        (json!({"aud": "<away>"}), R::Missing("aud")),
        (json!({"aud": "order"}), R::Audience),
        (json!({"aud": []}), R::Audience),
        (json!({"aud": ["x", "y"]}), R::Audience),
        (json!({"aud": ["orders", 1]}), R::Malformed("aud")),
        (json!({"aud": {"orders": 1}}), R::Malformed("aud")),
        (json!({"exp": "<away>"}), R::Missing("exp")),
        (json!({"exp": (NOW + 300).to_string()}), R::Malformed("exp")),
        (json!({"exp": null}), R::Malformed("exp")),
        (json!({"exp": -1}), R::Malformed("exp")),
        (json!({"exp": 1e300}), R::Malformed("exp")),
        (json!({"exp": NOW - 30}), R::Expired),
        (json!({"nbf": NOW + 31}), R::NotYet),
        (json!({"nbf": "soon"}), R::Malformed("nbf")),
        (json!({"iat": "<away>"}), R::Missing("iat")),
        (json!({"iat": NOW + 31}), R::IssuedAhead),
        (json!({"iat": NOW - 1031}), R::BeforeRegistration),
        (json!({"iat": i64::MAX}), R::Malformed("iat")),
        (json!({"sub": "<away>"}), R::SubjectMissing("sub".into())),
        (json!({"sub": null}), R::SubjectMissing("sub".into())),
        (json!({"sub": ""}), subject()),
        (json!({"sub": "ada\n"}), subject()),
        (json!({"sub": "a\u{0}b"}), subject()),
        (json!({"sub": "a\u{2028}b"}), subject()),
        (json!({"sub": "a\u{202e}b"}), subject()),
        (json!({"sub": long}), subject()),
        (json!({"sub": "é".repeat(128)}), subject()),
        (json!({"sub": 7}), subject()),
        (
            json!({"caas_org_id": "<away>"}),
            R::LegalEntityMissing("caas_org_id".into()),
        ),
        (
            json!({"caas_org_id": ""}),
            R::LegalEntity("caas_org_id".into()),
        ),
        (
            json!({"caas_org_id": "a b"}),
            R::LegalEntity("caas_org_id".into()),
        ),
        (
            json!({"caas_org_id": ["acme"]}),
            R::LegalEntity("caas_org_id".into()),
        ),
        (json!({"org_id": 7}), R::Organisation("org_id".into())),
        (
            json!({"realm_access": {"roles": 7}}),
            R::Roles("realm_access.roles".into()),
        ),
        (
            json!({"realm_access": {"roles": ["a", 7]}}),
            R::Roles("realm_access.roles".into()),
        ),
        (json!({"scope": 7}), R::Malformed("scope")),
        (json!({"scp": {"a": 1}}), R::Malformed("scp")),
        (json!({"act": "acme.agent"}), R::Malformed("act")),
        (json!({"may_act": []}), R::Malformed("may_act")),
        (json!({"jti": 7}), R::Malformed("jti")),
        (json!({"client_id": "ada"}), R::OfClient),
        (json!({"azp": "ada"}), R::OfClient),
        // Okta, Auth0, Keycloak with and without a user name, and Entra ID with and without idtyp.
        (json!({"cid": "ada"}), R::OfClient),
        (json!({"sub": "x@clients", "azp": "x"}), R::OfClient),
        (
            json!({"sub": "x|1", "azp": "x", "gty": "client-credentials"}),
            R::OfClient,
        ),
        (
            json!({"azp": "Robot", "preferred_username": "service-account-robot"}),
            R::OfClient,
        ),
        (
            json!({"azp": "robot", "typ": "Bearer", "clientAddress": "192.0.2.1"}),
            R::OfClient,
        ),
        (json!({"azp": "x", "idtyp": "app"}), R::OfClient),
        (json!({"azp": "x", "oid": "ada"}), R::OfClient),
        (json!({"client_id": {}}), R::Malformed("client_id")),
        (json!({"cnf": {"jkt": "x"}}), R::Bound),
        (
            json!({"events": {}}),
            R::Kind("a security event (RFC 8417)"),
        ),
    ] {
        let text = changes.to_string();
        let found = judge(&provider(), changes).expect_err(&text);
        assert_eq!(found, refusal, "{text}");
        assert!(found.to_string().ends_with('.'), "{found}");
        assert!(!found.reason().is_empty());
    }
    let longest = json!({"sub": "x".repeat(255)});
    assert!(judge(&provider(), longest).is_ok());
    assert!(
        judge(&provider(), json!({"exp": 1_000_300.7})).is_ok(),
        "NumericDate may have a fraction"
    );
}

#[test]
fn what_is_no_access_token_is_refused() {
    let judge = |header: Value, changes: Value| {
        provider()
            .judge(&map(header), &with(changes), &by())
            .map(|_| ())
    };
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt"] {
        assert_eq!(judge(json!({"typ": typ}), json!({})), Ok(()), "{typ}");
    }
    // Without that type, something has to tell it from an ID token.
    for header in [json!({"typ": "JWT"}), json!({"typ": "jwt"}), json!({})] {
        assert!(matches!(
            judge(header.clone(), json!({})),
            Err(Refusal::Kind(_))
        ));
        for changes in [
            json!({"jti": "j"}),
            json!({"scope": "read"}),
            json!({"scp": ["read"]}),
            json!({"client_id": "app"}),
            json!({"azp": "app"}),
            json!({"cid": "app"}),
            // Of a service that is an application itself, as at Entra ID.
            json!({"azp": "orders", "scp": "read"}),
            json!({"typ": "Bearer", "azp": "orders"}),
            json!({"azp": "app", "oid": "ada", "scp": "read"}),
            json!({"azp": "app", "preferred_username": "service-account-other"}),
            json!({"azp": "app", "sub": "ada@clients"}),
        ] {
            let text = changes.to_string();
            assert_eq!(judge(header.clone(), changes), Ok(()), "{text}");
        }
        for changes in [
            json!({"azp": "orders", "jti": "j"}),
            json!({"azp": "app", "aud": ["orders", "app"]}),
        ] {
            let found = judge(header.clone(), changes);
            assert_eq!(found, Err(Refusal::Kind("an ID token")));
        }
    }
    assert_eq!(judge(json!({}), json!({"typ": "Bearer"})), Ok(()));
    for typ in [
        "logout+jwt",
        "client-authentication+jwt",
        "JOSE",
        "dpop+jwt",
        "token-introspection+jwt",
    ] {
        assert!(
            matches!(judge(json!({"typ": typ}), json!({})), Err(Refusal::Kind(_))),
            "{typ}"
        );
    }
    for changes in [
        json!({"nonce": "n"}),
        json!({"at_hash": "h"}),
        json!({"c_hash": "h"}),
        json!({"typ": "ID"}),
        json!({"typ": "Refresh"}),
    ] {
        assert!(matches!(
            judge(json!({"typ": "JWT"}), changes),
            Err(Refusal::Kind(_))
        ));
    }
    for name in [
        "crit", "b64", "enc", "zip", "cty", "jku", "jwk", "x5u", "x5c",
    ] {
        let header = json!({"alg": "RS256", "typ": "at+jwt", name: "x"});
        assert_eq!(judge(header, json!({})), Err(Refusal::Header(name)));
    }
    assert!(matches!(
        judge(json!({"typ": 1}), json!({})),
        Err(Refusal::Header(_))
    ));
}

#[test]
fn an_inactive_provider_and_one_without_audiences_take_nothing() {
    let inactive = Provider {
        active: false,
        ..provider()
    };
    assert_eq!(judge(&inactive, json!({})), Err(Refusal::Inactive));
    let deaf = Provider {
        audiences: Vec::new(),
        ..provider()
    };
    assert_eq!(judge(&deaf, json!({})), Err(Refusal::Audience));
}

#[test]
fn without_issuers_any_but_ours_will_do() {
    let any = Provider {
        issuers: Vec::new(),
        ..provider()
    };
    let taken = judge(&any, json!({"iss": "https://else.example"})).expect("taken");
    assert_eq!(taken.issuer.as_deref(), Some("https://else.example"));
    let taken = judge(&any, json!({"iss": "<away>"})).expect("taken");
    assert_eq!(taken.issuer, None);
    assert_eq!(judge(&any, json!({"iss": OWN})), Err(Refusal::OwnIssuer));
    assert_eq!(judge(&any, json!({"aud": "x"})), Err(Refusal::Audience));
    assert!(!any.may_issue_as(Some(OWN), OWN) && any.may_issue_as(None, OWN));
    assert!(!provider().may_issue_as(None, OWN));
}

#[test]
fn roles_are_read_in_three_forms_and_mapped() {
    let roles = |value: Value| {
        let subject = judge(&provider(), json!({"realm_access": {"roles": value}}));
        subject.expect("taken").roles
    };
    assert_eq!(roles(json!(["b", "a", "b"])), ["b", "a"]);
    assert_eq!(roles(json!({"a": {"org": "x"}, "b": 1})), ["a", "b"]);
    assert_eq!(roles(json!(" a  b a ")), ["a", "b"]);
    assert_eq!(roles(json!([])), [""; 0]);
    assert_eq!(roles(json!(null)), [""; 0]);
    assert_eq!(
        roles(json!(["a,ADMIN", " a", "a\n", "", "ok"])),
        ["ok"],
        "what can be no role here is none"
    );
    let mapped = Provider {
        role_mappings: vec![
            RoleMapping {
                from: "dev".into(),
                to: vec!["READER".into(), "WRITER".into()],
            },
            RoleMapping {
                from: "ops".into(),
                to: vec!["READER".into()],
            },
            RoleMapping {
                from: "odd,one".into(),
                to: vec!["ODD".into()],
            },
        ],
        ..provider()
    };
    let roles = |value: Value| {
        let subject = judge(&mapped, json!({"realm_access": {"roles": value}}));
        subject.expect("taken").roles
    };
    assert_eq!(
        roles(json!(["ops", "dev", "READER", "WRITER2"])),
        ["READER", "WRITER"]
    );
    assert_eq!(roles(json!(["odd,one"])), ["ODD"]);
    assert_eq!(roles(json!(["Dev"])), [""; 0]);
}

#[test]
fn required_claims_are_required() {
    let of = |value: Option<&str>| Provider {
        required: vec![Required {
            claim: path("ext.group"),
            value: value.map(str::to_owned),
        }],
        ..provider()
    };
    let refused = Err(Refusal::Required("ext.group".into()));
    for (value, found, taken) in [
        (None, json!({"group": "x"}), true),
        (None, json!({"group": false}), true),
        (None, json!({"group": null}), false),
        (None, json!({}), false),
        (None, json!("group"), false),
        (Some("a"), json!({"group": "a"}), true),
        (Some("a"), json!({"group": "A"}), false),
        (Some("a"), json!({"group": ["b", "a"]}), true),
        (Some("a"), json!({"group": [["a"]]}), false),
        (Some("a"), json!({"group": {"a": 1}}), false),
        (Some("true"), json!({"group": true}), true),
        (Some("true"), json!({"group": false}), false),
        (Some("7"), json!({"group": 7}), true),
    ] {
        let text = format!("{value:?} in {found}");
        let judged = judge(&of(value), json!({"ext": found}));
        if taken {
            assert!(judged.is_ok(), "{text}");
        } else {
            assert_eq!(judged, refused, "{text}");
        }
    }
}

#[test]
fn scopes_are_read_from_both_names() {
    let scopes = |changes: Value| judge(&provider(), changes).expect("taken").scopes;
    let of = |all: &[&str]| Some(all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    assert_eq!(
        scopes(json!({"scope": ""})),
        of(&[]),
        "it is limited to nothing"
    );
    assert_eq!(scopes(json!({"scp": ["a", "b"]})), of(&["a", "b"]));
    assert_eq!(scopes(json!({"scp": "a b"})), of(&["a", "b"]));
    assert_eq!(
        scopes(json!({"scope": "a b", "scp": ["b", "c"]})),
        of(&["b"])
    );
}

#[test]
fn examples_say_how_they_differ() {
    let try_it = |token: Value, expect: Expected| {
        let example = Example {
            token: map(token),
            expect,
        };
        provider().try_example(&example, OWN)
    };
    let token =
        || json!({"sub": "ada", "caas_org_id": "acme", "realm_access": {"roles": ["b", "a"]}});
    let text = |text: &str| Some(text.to_owned());
    let right = Expected {
        id: text("corp:ada"),
        organisation: text(""),
        legal_entity: text("acme"),
        roles: Some(vec!["a".into(), "b".into()]),
        refused: None,
    };
    assert_eq!(try_it(token(), right.clone()), [""; 0]);
    assert_eq!(try_it(token(), Expected::default()), [""; 0]);
    let wrong = Expected {
        roles: Some(vec!["a".into()]),
        id: text("ada"),
        ..right
    };
    assert_eq!(
        try_it(token(), wrong),
        [
            r#"id is "corp:ada", and "ada" is expected"#,
            r#"roles is ["a", "b"], and ["a"] is expected"#,
        ]
    );
    let refused = |reason: &str| Expected {
        refused: text(reason),
        ..Expected::default()
    };
    assert_eq!(
        try_it(token(), refused("WrongAudience")),
        ["it is taken, and WrongAudience is expected"]
    );
    let mut other = token();
    other["aud"] = json!("else");
    assert_eq!(try_it(other.clone(), refused("WrongAudience")), [""; 0]);
    assert_eq!(
        try_it(other.clone(), refused("WrongIssuer")),
        [r#"refused is "WrongAudience", and "WrongIssuer" is expected"#]
    );
    // Whenever it is tried, and however long ago the resource was made.
    for (times, comes_of_it) in [
        (json!({"exp": 5}), Some("TokenExpired")),
        (json!({"nbf": 5}), None),
        (json!({"nbf": 4_000_000_000_i64}), Some("TokenNotYetValid")),
        (json!({"exp": 4_000_000_000_i64}), None),
        (json!({"iat": 5, "exp": 10}), None),
        (
            json!({"iat": 4_000_000_000_i64, "exp": 4_000_000_300_i64}),
            None,
        ),
        (json!({"iat": 10, "exp": 10}), Some("TokenExpired")),
        (
            json!({"iat": 10, "nbf": 11, "exp": 12}),
            Some("TokenNotYetValid"),
        ),
        (json!({"exp": "5"}), Some("ClaimMalformed")),
        (json!({"iat": -1}), Some("ClaimMalformed")),
    ] {
        let mut timed = token();
        let claims = timed.as_object_mut().expect("an object");
        claims.extend(times.as_object().expect("an object").clone());
        let expect = comes_of_it.map_or_else(Expected::default, refused);
        assert_eq!(try_it(timed, expect), [""; 0], "{times}");
    }
    assert_eq!(
        try_it(other, Expected::default()),
        ["it is refused (WrongAudience): aud in the token has none of the provider's audiences"]
    );
}

#[test]
fn one_token_has_one_provider_in_a_tenant() {
    let at = |second| Timestamp::from_second(second).expect("a time");
    let of = |namespace: Option<&str>, name: &str, issuers: &[&str], audiences: &[&str]| Provider {
        namespace: namespace.map(str::to_owned),
        name: name.into(),
        issuers: issuers.iter().map(|i| (*i).to_owned()).collect(),
        audiences: audiences.iter().map(|a| (*a).to_owned()).collect(),
        ..provider()
    };
    let yields = |all: &[(Provider, i64)]| {
        let names: Vec<_> = all.iter().map(|(p, _)| p.id()).collect();
        let standing = all
            .iter()
            .zip(&names)
            .map(|((provider, created), uid)| Standing {
                provider,
                created: at(*created),
                uid,
            });
        conflicts(standing)
            .into_iter()
            .map(|(uid, c)| format!("{uid} to {} ({:?}, {})", c.with, c.issuer, c.audience))
            .collect::<Vec<_>>()
    };
    let old = of(None, "old", &["i", "j"], &["a", "b"]);
    assert_eq!(
        yields(&[(of(None, "new", &["j"], &["b", "c"]), 2), (old.clone(), 1)]),
        [r#"new to old (Some("j"), b)"#]
    );
    assert_eq!(
        yields(&[(of(None, "new", &["J"], &["b"]), 2), (old.clone(), 1)]),
        [""; 0]
    );
    assert_eq!(
        yields(&[(of(None, "new", &["j"], &["c"]), 2), (old.clone(), 1)]),
        [""; 0]
    );
    assert_eq!(
        yields(&[(of(None, "new", &[], &["b"]), 2), (old.clone(), 1)]),
        ["new to old (None, b)"]
    );
    // A tenant's yields to that of all tenants, though it was there first.
    assert_eq!(
        yields(&[
            (of(Some("acme"), "own", &["i"], &["a"]), 0),
            (old.clone(), 1)
        ]),
        [r#"acme/own to old (Some("i"), a)"#]
    );
    let two = [
        (of(Some("acme"), "own", &["i"], &["a"]), 0),
        (of(Some("other"), "own", &["i"], &["a"]), 1),
    ];
    assert_eq!(yields(&two), [""; 0], "tenants are apart");
    let inactive = Provider {
        active: false,
        ..old.clone()
    };
    assert_eq!(
        yields(&[(inactive, 0), (of(None, "new", &["i"], &["a"]), 1)]),
        [""; 0]
    );
    // Who yields stands in no one's way.
    let three = [
        (of(None, "first", &["i"], &["a"]), 1),
        (of(None, "second", &["i", "k"], &["a"]), 2),
        (of(None, "third", &["k"], &["a"]), 3),
    ];
    assert_eq!(yields(&three), [r#"second to first (Some("i"), a)"#]);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (NOW - 2000..NOW + 2000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z,\n ]{0,6}".prop_map(Value::from),
        prop::sample::select(vec!["orders", "https://corp.example", "acme", "ada", OWN])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("roles|sub|a", inner, 0..3)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn changes() -> impl Strategy<Value = Map<String, Value>> {
    let names = prop::sample::select(vec![
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "caas_org_id",
        "org_id",
        "realm_access",
        "scope",
        "scp",
        "act",
        "may_act",
        "client_id",
        "azp",
        "jti",
        "typ",
        "cnf",
        "nonce",
        "events",
    ]);
    prop::collection::btree_map(names, value(), 0..4)
        .prop_map(|m| m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

proptest! {
    /// Whatever a token says: what is taken keeps every rule, and no two providers and subjects make one
    /// id, nor one that a client could have.
    #[test]
    fn what_is_taken_keeps_the_rules(
        changes in changes(), away in prop::option::of(prop::sample::select(vec!["exp", "iat", "aud", "iss"])),
        tenant in any::<bool>(), no_issuers in any::<bool>(),
    ) {
        let mut provider = if tenant { of_tenant() } else { provider() };
        if no_issuers {
            provider.issuers.clear();
        }
        let mut claims = token();
        claims.extend(changes);
        if let Some(away) = away {
            claims.remove(away);
        }
        if let Ok(subject) = provider.judge(&header(), &claims, &by()) {
            let issuer = claims.get("iss").and_then(Value::as_str);
            prop_assert_ne!(issuer, Some(OWN));
            prop_assert!(no_issuers || provider.issuers.iter().any(|i| Some(i.as_str()) == issuer));
            prop_assert!(subject.audiences.iter().any(|a| provider.audiences.contains(a)));
            prop_assert!(subject.expires > NOW - 30 && claims["exp"].is_number());
            prop_assert!(subject.issued_at <= NOW + 30 && subject.issued_at >= provider.registered - 30);
            prop_assert!((1..=LONGEST_SUBJECT).contains(&subject.subject.len()));
            prop_assert!(!subject.id.contains(char::is_control));
            let prefix = format!("{}:", provider.id());
            prop_assert_eq!(subject.id.strip_prefix(&prefix), Some(subject.subject.as_str()));
            prop_assert!(tenant || subject.legal_entity.is_some());
            prop_assert!(!subject.roles.iter().any(|r| r.contains([',', '\n'])));
            let unique: std::collections::HashSet<_> = subject.roles.iter().collect();
            prop_assert_eq!(unique.len(), subject.roles.len());
            prop_assert!(!claims.contains_key("cnf"));
        }
    }

    /// With a mapping, no role comes out that it does not name.
    #[test]
    fn a_mapping_gives_only_what_it_names(
        theirs in prop::collection::vec("[a-d]{1,2}", 0..6),
        mappings in prop::collection::vec(("[a-d]{1,2}", prop::collection::vec("[A-C]", 0..3)), 1..4),
    ) {
        let provider = Provider {
            role_mappings: mappings
                .iter()
                .map(|(from, to)| RoleMapping { from: from.clone(), to: to.clone() })
                .collect(),
            ..provider()
        };
        let subject = judge(&provider, json!({"realm_access": {"roles": theirs.clone()}})).expect("taken");
        for role in &subject.roles {
            prop_assert!(mappings.iter().any(|(from, to)| theirs.contains(from) && to.contains(role)));
        }
        for (from, to) in &mappings {
            prop_assert!(!theirs.contains(from) || to.iter().all(|role| subject.roles.contains(role)));
        }
    }

    /// Among those that do not yield, no two take one token in one tenant, whatever the order they come in.
    #[test]
    fn of_those_that_stay_no_two_overlap(
        drawn in prop::collection::vec(
            (prop::option::of("[xy]"), prop::collection::vec("[ij]", 0..3), prop::collection::vec("[ab]", 1..3), 0..3i64),
            0..7,
        ),
    ) {
        let all: Vec<_> = drawn.into_iter().enumerate().map(|(n, (namespace, issuers, audiences, created))| {
            let made = Provider { namespace, name: format!("p{n}"), issuers, audiences, ..provider() };
            (made, Timestamp::from_second(created).expect("a time"), format!("uid-{n}"))
        }).collect();
        let standing = || all.iter().map(|(provider, created, uid)| Standing { provider, created: *created, uid });
        let yields = conflicts(standing());
        prop_assert_eq!(&yields, &conflicts(standing().collect::<Vec<_>>().into_iter().rev()));
        let stay: Vec<_> = all.iter().filter(|(_, _, uid)| !yields.contains_key(uid.as_str())).collect();
        for (i, (one, ..)) in stay.iter().enumerate() {
            for (other, ..) in &stay[i + 1..] {
                let together = one.namespace.is_none() || other.namespace.is_none() || one.namespace == other.namespace;
                let issuer = one.issuers.is_empty() || other.issuers.is_empty()
                    || one.issuers.iter().any(|x| other.issuers.contains(x));
                let audience = one.audiences.iter().any(|x| other.audiences.contains(x));
                prop_assert!(!(together && issuer && audience), "{} and {}", one.id(), other.id());
            }
        }
    }
}

/// The CRD lists the words, and the page does.
#[test]
fn every_refusal_has_a_word_that_is_listed() {
    let text = String::new;
    let all = [
        Refusal::Inactive,
        Refusal::Header("a"),
        Refusal::Kind("a"),
        Refusal::Bound,
        Refusal::OfClient,
        Refusal::Missing("a"),
        Refusal::Malformed("a"),
        Refusal::OwnIssuer,
        Refusal::Issuer,
        Refusal::Audience,
        Refusal::Expired,
        Refusal::NotYet,
        Refusal::IssuedAhead,
        Refusal::BeforeRegistration,
        Refusal::SubjectMissing(text()),
        Refusal::Subject(text()),
        Refusal::Organisation(text()),
        Refusal::LegalEntityMissing(text()),
        Refusal::LegalEntity(text()),
        Refusal::Roles(text()),
        Refusal::Required(text()),
    ];
    assert_eq!(all.map(|refusal| refusal.reason()), Refusal::REASONS);
    let schema =
        crate::domain::vocabulary::example_refusal(&mut schemars::SchemaGenerator::default());
    let rule = serde_json::to_string(&schema).expect("JSON");
    let listed = format!(
        "[{}]",
        Refusal::REASONS.map(|word| format!("'{word}'")).join(", ")
    );
    assert!(rule.contains(&listed), "{rule}");
    let page = include_str!("../../../docs/providers.md");
    for word in Refusal::REASONS {
        assert!(page.contains(&format!("`{word}`")), "{word}");
    }
}
