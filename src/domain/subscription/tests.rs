use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn subscription(namespace: &str, name: &str, created: i64, tenant: &str) -> SubscriptionFacts {
    SubscriptionFacts {
        namespace: namespace.into(),
        name: name.into(),
        created: at(created),
        uid: format!("uid-{namespace}-{name}"),
        environment: "default".into(),
        legal_entity_id: tenant.into(),
        legal_entity_name: tenant.into(),
        tier: "Free".into(),
        allowed: Allowed::default(),
        entitlements: Entitlements::new(),
        period_from: None,
        period_to: None,
    }
}

fn problem_of(all: &[SubscriptionFacts], name: &str) -> Option<Problem> {
    let settings = Settings::default();
    judge(all, &settings)
        .into_iter()
        .find(|(s, _)| s.name == name)
        .expect("judged")
        .1
}

#[test]
fn the_older_wins_a_namespace_and_a_legal_entity() {
    let all = [
        subscription("b", "second", 20, "acme"),
        subscription("a", "first", 10, "acme"),
        subscription("a", "other-tenant", 30, "globex"),
        subscription("a", "upgrade", 40, "acme"),
    ];
    assert_eq!(problem_of(&all, "first"), None);
    assert_eq!(problem_of(&all, "upgrade"), None);
    assert_eq!(
        problem_of(&all, "second"),
        Some(Problem::LegalEntityBound {
            namespace: "a".into()
        })
    );
    assert!(matches!(
        problem_of(&all, "other-tenant"),
        Some(Problem::NamespaceBound { .. })
    ));
}

#[test]
fn one_that_lost_blocks_nobody() {
    // `second` lost namespace a's tenant to `first`; its own claim on globex is void.
    let all = [
        subscription("a", "first", 10, "acme"),
        subscription("a", "second", 20, "globex"),
        subscription("b", "third", 30, "globex"),
    ];
    assert_eq!(problem_of(&all, "third"), None);
}

#[test]
fn a_legal_entity_may_have_a_namespace_in_each_environment() {
    let mut staging = subscription("a-staging", "staging", 20, "acme");
    staging.environment = "staging".into();
    let all = [subscription("a", "prod", 10, "acme"), staging];
    assert_eq!(problem_of(&all, "staging"), None);
}

#[test]
fn operator_namespace_and_tiers() {
    let mut draft = subscription("a", "draft", 1, "acme");
    draft.tier = "Pro".into();
    let mut unknown = subscription("b", "unknown", 1, "globex");
    unknown.tier = "Platinum".into();
    let all = [
        draft,
        unknown,
        subscription("chancery-system", "operator", 1, "initech"),
    ];
    assert_eq!(problem_of(&all, "draft"), Some(Problem::DraftTier));
    assert!(
        matches!(problem_of(&all, "unknown"), Some(Problem::UnknownTier { known }) if known.len() == 4)
    );
    assert_eq!(
        problem_of(&all, "operator"),
        Some(Problem::InOperatorNamespace)
    );
}

#[test]
fn the_latest_that_has_begun_is_current() {
    let mut old = subscription("a", "old", 1, "acme");
    old.period_to = Some(at(100));
    let mut new = subscription("a", "new", 2, "acme");
    new.period_from = Some(at(90));
    new.period_to = Some(at(200));
    let all = [old, new];
    let name = |now| current(&all, at(now)).map(|s| s.name.as_str());
    assert_eq!(name(0), Some("old"));
    assert_eq!(name(89), Some("old"));
    assert_eq!(name(90), Some("new"));
    assert_eq!(name(199), Some("new"));
    assert_eq!(name(200), None);
    assert_eq!(next_change(&all, at(0)), Some(at(90)));
    assert_eq!(next_change(&all, at(90)), Some(at(100)));
    assert_eq!(next_change(&all, at(200)), None);
}

#[test]
fn cut_down_keeps_what_is_allowed() {
    let wanted = ["a".to_owned(), "b".to_owned()];
    assert_eq!(cut_down(&wanted, &["b".to_owned(), "c".to_owned()]), ["b"]);
    assert_eq!(cut_down(&wanted, &["*".to_owned()]), ["a", "b"]);
    assert!(cut_down(&wanted, &[]).is_empty());
}
