//! What becomes of each note.

use serde_json::json;

use super::lately::SEEN_WITHIN;
use super::*;
use crate::domain::enrolment::LEGAL_ENTITIES;
use crate::domain::provider::{AutoEnroll, ClaimPaths};
use crate::domain::subscription::SubscriptionFacts;
use crate::domain::user::UserFacts;
use crate::tenancy::JudgedProvider;

const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("a time")
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.legal_entities.auto_enroll = true;
    settings
}

fn provider(namespace: Option<&str>, name: &str, auto_enroll: AutoEnroll) -> JudgedProvider {
    let path = |text: &str| text.parse().expect("a path");
    let provider = Provider {
        namespace: namespace.map(str::to_owned),
        name: name.into(),
        registered: 0,
        active: true,
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
        auto_enroll,
    };
    JudgedProvider {
        uid: "uid".into(),
        provider: Some(provider),
        problem: None,
    }
}

fn facts(namespace: &str, ended: bool) -> SubscriptionFacts {
    let subscription: crate::api::v1alpha1::Subscription = serde_json::from_value(json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "Subscription",
        "metadata": {"name": "main", "namespace": namespace},
        "spec": {"legalEntity": {"id": format!("le-{namespace}"), "name": "A tenant"}, "tier": "Free"},
    }))
    .expect("a Subscription");
    SubscriptionFacts {
        period_to: ended.then_some(now()),
        ..subscription.facts()
    }
}

/// Two tenants, one without a current Subscription, a provider for all that enrols, and one that does not.
fn tenancy() -> Tenancy {
    let mut tenancy = Tenancy::default();
    for (namespace, ended) in [("acme", false), ("globex", false), ("old", true)] {
        let facts = vec![facts(namespace, ended)];
        tenancy.sound.insert(namespace.into(), facts);
    }
    let all = AutoEnroll {
        users: true,
        legal_entities: true,
    };
    let users = AutoEnroll {
        users: true,
        legal_entities: false,
    };
    let system = "chancery-system".to_owned();
    for (namespace, name, of, enrols) in [
        (system.clone(), "corp", None, all),
        (system.clone(), "quiet", None, AutoEnroll::default()),
        ("acme".to_owned(), "own", Some("acme"), users),
    ] {
        let key = (namespace, name.to_owned());
        tenancy.providers.insert(key, provider(of, name, enrols));
    }
    let mut inactive = provider(None, "inactive", all);
    if let Some(provider) = &mut inactive.provider {
        provider.active = false;
    }
    tenancy
        .providers
        .insert((system, "inactive".into()), inactive);
    tenancy
}

fn seen(noted: &[(&str, &str)]) -> Seen {
    let mut outbox = enrolments::outbox(&settings());
    outbox.metadata.resource_version = Some("7".into());
    let data: BTreeMap<_, _> = noted
        .iter()
        .map(|(place, text)| ((*place).to_owned(), (*text).to_owned()))
        .collect();
    outbox.data = (!data.is_empty()).then_some(data);
    Seen {
        outbox: Some(outbox),
        tenancy: Arc::new(tenancy()),
        people: Arc::default(),
        there: BTreeSet::new(),
        tenants: BTreeMap::new(),
        namespaces: BTreeMap::new(),
        legal_entities: Count::default(),
        subscriptions: BTreeSet::new(),
    }
}

/// The writes in their order, each in a few words.
fn told(seen: &Seen) -> Vec<String> {
    told_with(seen, &settings()).0
}

fn told_with(seen: &Seen, settings: &Settings) -> (Vec<String>, bool) {
    let decision = decide(seen, settings, now());
    let words = |write: &Write| match write {
        Write::Create(Object::User(user), _) => {
            assert!(user.spec.roles.is_empty() && !user.spec.suspended);
            format!(
                "user {} {}",
                user.namespace().unwrap_or_default(),
                user.person()
            )
        }
        Write::Create(Object::Namespace(namespace), _) => {
            format!("namespace {}", namespace.name_any())
        }
        Write::Create(Object::Subscription(subscription), _) => format!(
            "subscription {} {:?} {}",
            subscription.namespace().unwrap_or_default(),
            subscription.spec.legal_entity.name,
            subscription.spec.tier
        ),
        Write::Create(Object::ConfigMap(map), _) => format!("create {}", map.name_any()),
        Write::Replace(Object::ConfigMap(map), _) => match &map.data {
            None => "empty".to_owned(),
            Some(data) => format!("keep {data:?}"),
        },
        Write::Event(note) => format!("event {}", note.reason),
        other => format!("{other:?}"),
    };
    let words = decision.writes.iter().map(words).collect();
    (words, decision.wake_at.is_some())
}

#[test]
fn it_is_made_and_left_alone() {
    let mut none = seen(&[]);
    assert_eq!(told(&none), Vec::<String>::new());
    none.outbox = None;
    assert_eq!(told(&none), ["create chancery-enrolments"]);
    let mut bare = seen(&[]);
    bare.outbox.as_mut().expect("one").metadata.labels = None;
    assert_eq!(told(&bare), ["empty"], "its labels are put right");
}

#[test]
fn people_are_made_users_before_the_notes_go() {
    let seen = seen(&[
        ("acme", r#"{"corp":["ann","bob"],"acme/own":["ann"]}"#),
        ("globex", r#"{"corp":["ann"]}"#),
    ]);
    assert_eq!(
        told(&seen),
        [
            "user acme acme/own:ann",
            "user acme corp:ann",
            "user acme corp:bob",
            "user globex corp:ann",
            "empty",
            "event Enrolled",
            "event Enrolled",
        ]
    );
}

#[test]
fn one_is_told_as_one() {
    let seen = seen(&[
        ("acme", r#"{"corp":["ann","bob"]}"#),
        ("globex", r#"{"corp":["ann"]}"#),
        (LEGAL_ENTITIES, r#"{"corp":["new"]}"#),
    ]);
    let decision = decide(&seen, &settings(), now());
    let told = decision.writes.iter().filter_map(|write| match write {
        Write::Event(note) => Some(&*note.message),
        _ => None,
    });
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "2 people of acme were enrolled.",
            "A legal entity was enrolled.",
            "A person of globex was enrolled.",
        ]
    );
}

#[test]
fn what_a_note_may_not_ask_for_is_refused() {
    for (place, text) in [
        // No tenant; none now; nobody's provider; one that enrols nobody; one that is not trusted; another
        // tenant's.
        ("nobody", r#"{"corp":["ann"]}"#),
        ("old", r#"{"corp":["ann"]}"#),
        ("chancery-system", r#"{"corp":["ann"]}"#),
        ("acme", r#"{"absent":["ann"]}"#),
        ("acme", r#"{"acme/corp":["ann"]}"#),
        ("acme", r#"{"quiet":["ann"]}"#),
        ("acme", r#"{"inactive":["ann"]}"#),
        ("globex", r#"{"own":["ann"]}"#),
        ("globex", r#"{"acme/own":["ann"]}"#),
        ("acme", "garbage"),
        (LEGAL_ENTITIES, r#"{"quiet":["le-new"]}"#),
        (LEGAL_ENTITIES, r#"{"inactive":["le-new"]}"#),
        (LEGAL_ENTITIES, r#"{"own":["le-new"]}"#),
    ] {
        let told = told(&seen(&[(place, text)]));
        assert_eq!(told, ["empty", "event EnrolmentRefused"], "{place} {text}");
    }
}

#[test]
fn who_is_known_is_not_made_again() {
    let note = [("acme", r#"{"corp":["ann"]}"#)];
    // By a User of another name, which a person made.
    let mut by_person = seen(&note);
    by_person.people = Arc::new(People::of([UserFacts {
        namespace: "acme".into(),
        name: "anna".into(),
        uid: "u".into(),
        created: now(),
        id: "corp:ann".into(),
        display_name: None,
        roles: Vec::new(),
        suspended: true,
    }]));
    assert_eq!(told(&by_person), ["empty"]);
    // Something else of the name that it would have.
    let mut by_name = seen(&note);
    let name = enrolments::user_name("corp", "ann");
    by_name.there.insert(("acme".into(), name));
    assert_eq!(told(&by_name), ["empty"]);
}

#[test]
fn a_tenant_has_so_many_and_so_fast() {
    let mut few = settings();
    few.users.max_per_tenant = 3;
    few.users.enrolment_rate = "2/m".parse().expect("a rate");
    let note = [
        ("acme", r#"{"corp":["a","b","c"]}"#),
        ("globex", r#"{"corp":["a"]}"#),
    ];
    let (told, wakes) = told_with(&seen(&note), &few);
    assert!(wakes);
    assert_eq!(
        told,
        [
            "user acme corp:a",
            "user acme corp:b",
            "user globex corp:a",
            r#"keep {"acme": "{\"corp\":[\"c\"]}"}"#,
            "event Enrolled",
            "event Enrolled",
        ]
    );
    // Where the rate is used up, nothing is written at all.
    let mut later = seen(&[("acme", r#"{"corp":["c"]}"#)]);
    later
        .tenants
        .insert("acme".into(), Count { all: 2, lately: 2 });
    assert_eq!(told_with(&later, &few), (vec![], true));
    // The last one; then none.
    later
        .tenants
        .insert("acme".into(), Count { all: 2, lately: 0 });
    let (told, wakes) = told_with(&later, &few);
    assert_eq!(
        told,
        [
            "user acme corp:c",
            "empty",
            "event Enrolled",
            "event UsersFull"
        ]
    );
    assert!(!wakes);
    later
        .tenants
        .insert("acme".into(), Count { all: 3, lately: 0 });
    assert_eq!(told_with(&later, &few).0, ["empty", "event UsersFull"]);
}

#[test]
fn so_many_are_made_in_one_visit() {
    let many: Vec<_> = (0..70).map(|n| format!("p{n:02}")).collect();
    let note = json!({ "corp": many }).to_string();
    let decision = decide(&seen(&[("acme", &note)]), &settings(), now());
    let made = |w: &&Write| matches!(w, Write::Create(Object::User(_), _));
    assert_eq!(decision.writes.iter().filter(made).count(), MOST_MADE);
    let left = decision.writes.iter().find_map(|write| match write {
        Write::Replace(Object::ConfigMap(map), _) => map.data.clone(),
        _ => None,
    });
    assert_eq!(enrolment::read(&left.expect("some")).0.all().count(), 20);
}

#[test]
fn a_legal_entity_gets_a_namespace_and_a_subscription() {
    let note = [(LEGAL_ENTITIES, r#"{"corp":["new"]}"#)];
    let whole = [
        "namespace org-new",
        r#"subscription org-new "Org. new" Free"#,
        "empty",
        "event Enrolled",
    ];
    assert_eq!(told(&seen(&note)), whole);
    // After a crash in between.
    let mut half = seen(&note);
    let made = Arc::new(enrolments::namespace("new", &settings()));
    half.namespaces.insert("org-new".into(), made.clone());
    assert_eq!(told(&half), whole[1..]);
    half.subscriptions
        .insert(("org-new".into(), "default".into(), "new".into()));
    assert_eq!(told(&half), ["empty"], "and again");
    // A Subscription of it anywhere, sound or not.
    let mut known = seen(&note);
    known
        .subscriptions
        .insert(("acme".into(), "default".into(), "new".into()));
    assert_eq!(told(&known), ["empty"]);
    // Not where the release does not allow it.
    assert_eq!(
        told_with(&seen(&note), &Settings::default()).0,
        ["empty", "event EnrolmentRefused"]
    );
}

#[test]
fn no_namespace_of_anybody_else_becomes_a_tenants() {
    let note = [(LEGAL_ENTITIES, r#"{"corp":["new"]}"#)];
    let mut other = Namespace::default();
    other.metadata.name = Some("org-new".into());
    let mut seen = seen(&note);
    let refused = ["empty", "event EnrolmentRefused"];
    seen.namespaces.insert("org-new".into(), Arc::new(other));
    assert_eq!(told(&seen), refused);
    let of_another = enrolments::namespace("newer", &settings());
    seen.namespaces
        .insert("org-new".into(), Arc::new(of_another));
    assert_eq!(told(&seen), refused);
    // Or with a Subscription of another one in it.
    let made = Arc::new(enrolments::namespace("new", &settings()));
    seen.namespaces.insert("org-new".into(), made.clone());
    seen.subscriptions
        .insert(("org-new".into(), "default".into(), "le-else".into()));
    assert_eq!(told(&seen), refused);
    // One that goes is waited for.
    seen.subscriptions.clear();
    let mut going = (*made).clone();
    going.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    seen.namespaces.insert("org-new".into(), Arc::new(going));
    assert_eq!(told_with(&seen, &settings()), (vec![], true));
}

#[test]
fn so_many_legal_entities_and_so_fast() {
    let mut few = settings();
    few.legal_entities.max = 2;
    few.legal_entities.enrolment_rate = "1/m".parse().expect("a rate");
    let mut seen = seen(&[(LEGAL_ENTITIES, r#"{"corp":["a","b"]}"#)]);
    let (told, wakes) = told_with(&seen, &few);
    assert!(
        wakes && told.contains(&"namespace org-a".to_owned()),
        "{told:?}"
    );
    assert!(!told.contains(&"namespace org-b".to_owned()), "{told:?}");
    seen.legal_entities = Count { all: 2, lately: 0 };
    assert_eq!(
        told_with(&seen, &few).0,
        ["empty", "event LegalEntitiesFull"]
    );
}

#[test]
fn what_is_made_counts_before_it_is_seen() {
    let lately = Lately::default();
    let decision = decide(
        &seen(&[("acme", r#"{"corp":["ann"]}"#)]),
        &settings(),
        now(),
    );
    lately.remember(&decision, now());
    let name = enrolments::user_name("corp", "ann");
    let made = vec![("acme".to_owned(), name)];
    assert_eq!(lately.unseen(|_, _| false, now()), made);
    assert_eq!(lately.unseen(|_, _| true, now()), Vec::new(), "it is seen");
    lately.remember(&decision, now());
    let later = now().saturating_add(SEEN_WITHIN).expect("a time");
    assert_eq!(
        lately.unseen(|_, _| false, later),
        Vec::new(),
        "it was not made"
    );
}
