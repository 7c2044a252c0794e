//! What is said of a User, as a table.

use serde_json::json;

use super::*;
use crate::domain::provider::{AutoEnroll, ClaimPaths, Provider};
use crate::domain::subscription::SubscriptionFacts;
use crate::tenancy::{JudgedProvider, ProviderProblem};

const NOW: i64 = 1_800_000_000;

fn user(namespace: &str, name: &str, second: i64, spec: &serde_json::Value) -> User {
    let created = Timestamp::from_second(NOW + second).expect("a time");
    let mut whole = json!({"provider": {"name": "corp"}, "subject": "ann"});
    let more = spec.as_object().expect("an object").clone();
    whole.as_object_mut().expect("an object").extend(more);
    let user = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "User",
        "metadata": {
            "name": name, "namespace": namespace, "uid": name, "generation": 3, "resourceVersion": "7",
            "creationTimestamp": created.to_string(),
        },
        "spec": whole,
    });
    serde_json::from_value(user).expect("a User")
}

fn provider(namespace: Option<&str>, active: bool) -> JudgedProvider {
    let path = |text: &str| text.parse().expect("a path");
    let provider = Provider {
        namespace: namespace.map(str::to_owned),
        name: "corp".into(),
        registered: 0,
        active,
        issuers: vec!["https://a.example".into()],
        audiences: vec!["a".into()],
        claims: ClaimPaths {
            subject: path("sub"),
            organisation: path("org_id"),
            legal_entity: path("caas_org_id"),
            roles: path("user_roles"),
        },
        required: Vec::new(),
        role_mappings: Vec::new(),
        auto_enroll: AutoEnroll::default(),
    };
    JudgedProvider {
        uid: "uid".into(),
        provider: Some(provider),
        problem: None,
    }
}

/// A tenant acme with a provider of its own, and one for all.
fn tenancy(own: Option<JudgedProvider>) -> Tenancy {
    let facts: crate::api::v1alpha1::Subscription = serde_json::from_value(json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "Subscription",
        "metadata": {"name": "acme", "namespace": "acme"},
        "spec": {"legalEntity": {"id": "acme", "name": "Acme"}, "tier": "Free"},
    }))
    .expect("a Subscription");
    let facts: SubscriptionFacts = facts.facts();
    let mut tenancy = Tenancy::default();
    tenancy.environments.insert("acme".into(), "default".into());
    tenancy
        .environments
        .insert("other".into(), "elsewhere".into());
    tenancy.sound.insert("acme".into(), vec![facts]);
    let key = |namespace: &str| (namespace.to_owned(), "corp".to_owned());
    if let Some(own) = own {
        tenancy.providers.insert(key("acme"), own);
    }
    tenancy
        .providers
        .insert(key("chancery-system"), provider(None, true));
    tenancy
}

/// Ready's reason, whether it is true, whether it stalls, and the message.
fn said(user: User, tenancy: Tenancy, others: &[User]) -> Option<(String, bool, bool, String)> {
    let all = others.iter().chain([&user]).map(User::facts);
    let seen = Seen {
        people: Arc::new(People::of(all)),
        tenancy: Arc::new(tenancy),
        user: Arc::new(user),
    };
    let now = Timestamp::from_second(NOW).expect("a time");
    let decision = decide(&seen, &Settings::default(), now);
    let status = decision.writes.iter().find_map(|write| match write {
        super::super::Write::Status { status, .. } => Some(status.clone()),
        _ => None,
    })?;
    let status: UserStatus = serde_json::from_value(status).expect("a status");
    assert_eq!(status.observed_generation, 3);
    assert_eq!(status.id, Some(seen.user.person()));
    let find = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind);
    let ready = find("Ready").expect("always");
    let stalled = find("Stalled").is_some();
    Some((
        ready.reason.clone(),
        ready.status == "True",
        stalled,
        ready.message.clone(),
    ))
}

#[test]
fn each_case_is_told() {
    let own = || Some(provider(Some("acme"), true));
    let stalled = JudgedProvider {
        problem: Some(ProviderProblem::OwnIssuer),
        ..provider(Some("acme"), true)
    };
    let plain = |namespace: &str| user(namespace, "ann", 5, &json!({}));
    let with = |spec: serde_json::Value| user("acme", "ann", 5, &spec);
    let older = |suspended: bool| user("acme", "first", 1, &json!({"suspended": suspended}));
    let younger = user("acme", "last", 9, &json!({"suspended": true}));
    for (user, tenancy, others, reason, ready, stalls, told) in [
        (
            plain("acme"),
            tenancy(own()),
            vec![],
            "Succeeded",
            true,
            false,
            "acme/corp:ann",
        ),
        (
            with(json!({"provider": {"name": "corp", "scope": "Global"}})),
            tenancy(None),
            vec![],
            "Succeeded",
            true,
            false,
            "operator's namespace speak of corp:ann",
        ),
        (
            with(json!({"suspended": true})),
            tenancy(own()),
            vec![],
            "Suspended",
            true,
            false,
            "gets no token",
        ),
        (
            plain("acme"),
            tenancy(own()),
            vec![younger],
            "Suspended",
            true,
            false,
            "another User",
        ),
        (
            plain("acme"),
            tenancy(None),
            vec![],
            "ProviderNotFound",
            false,
            true,
            "scope is Tenant or Global",
        ),
        (
            with(json!({"suspended": true})),
            tenancy(None),
            vec![],
            "ProviderNotFound",
            false,
            true,
            "kept out",
        ),
        (
            plain("acme"),
            tenancy(Some(stalled)),
            vec![],
            "ProviderNotUsable",
            false,
            true,
            "Stalled",
        ),
        (
            plain("acme"),
            tenancy(Some(provider(Some("acme"), false))),
            vec![],
            "Inactive",
            true,
            false,
            "not active",
        ),
        (
            plain("acme"),
            tenancy(own()),
            vec![older(false)],
            "SubjectConflict",
            false,
            true,
            "User first names acme/corp:ann too, and goes before: the older does, and of two of the same second",
        ),
        (
            plain("acme"),
            tenancy(own()),
            vec![older(true)],
            "SubjectConflict",
            false,
            true,
            "kept out",
        ),
        (
            plain("free"),
            tenancy(own()),
            vec![],
            "NoSubscription",
            false,
            false,
            "no tenant's",
        ),
        (
            plain("chancery-system"),
            tenancy(own()),
            vec![],
            "WrongNamespace",
            false,
            true,
            "operator's own",
        ),
    ] {
        let what = format!("{reason}: {user:?}");
        let said = said(user, tenancy, &others).unwrap_or_else(|| panic!("nothing: {what}"));
        assert_eq!(
            (&*said.0, said.1, said.2),
            (reason, ready, stalls),
            "{what}"
        );
        assert!(said.3.contains(told), "{said:?}");
    }
    // Another release's, and one that goes.
    assert_eq!(said(plain("other"), tenancy(own()), &[]), None);
    let mut going = plain("acme");
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    assert_eq!(said(going, tenancy(own()), &[]), None);
}

#[test]
fn roles_beyond_the_subscription_are_told() {
    let restricted = |roles: serde_json::Value| {
        let mut tenancy = tenancy(Some(provider(Some("acme"), true)));
        let sound = tenancy.sound.get_mut("acme").expect("a tenant");
        sound[0].allowed.roles = vec!["clerk".into()];
        let user = user("acme", "ann", 5, &json!({"roles": roles}));
        let seen = Seen {
            people: Arc::new(People::of([user.facts()])),
            tenancy: Arc::new(tenancy),
            user: Arc::new(user),
        };
        let now = Timestamp::from_second(NOW).expect("a time");
        let mut decision = decide(&seen, &Settings::default(), now);
        let super::super::Write::Status { status, .. } = decision.writes.remove(0) else {
            panic!("no status: {decision:?}");
        };
        let status: UserStatus = serde_json::from_value(status).expect("a status");
        assert_eq!(status.conditions[0].status, "True");
        let ready = status.conditions[0].message.clone();
        let of =
            |c: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| c.type_ == RESTRICTED;
        let restricted = status.conditions.iter().find(of);
        (
            ready,
            restricted.map(|c| (c.reason.clone(), c.message.clone())),
        )
    };
    assert_eq!(restricted(json!(["clerk"])).1, None);
    let (ready, told) = restricted(json!(["clerk", "boss"]));
    let (reason, message) = told.expect("a condition");
    assert_eq!(reason, r::BEYOND_SUBSCRIPTION);
    assert_eq!(
        message,
        "Subscription acme does not allow the roles boss, so that tokens go without."
    );
    assert!(ready.ends_with(&message), "{ready}");
}
