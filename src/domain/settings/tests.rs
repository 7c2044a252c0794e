//! What a release may set, and each mistake.

use super::*;

fn good() -> Settings {
    Settings {
        issuer: "https://id.example.com/tenant".into(),
        ..Settings::default()
    }
}

#[test]
fn defaults_with_an_issuer_are_sound() {
    assert_eq!(good().problems(), Vec::<String>::new());
    assert_eq!(good().catalogue().len(), 4);
}

#[test]
fn the_bounds_themselves_are_sound() {
    let mut settings = good();
    for (leeway, staleness, connections) in [
        (
            Period::from_secs(0),
            Period::from_secs(1),
            FEWEST_CONNECTIONS,
        ),
        (LONGEST_CLOCK_LEEWAY, LONGEST_STALENESS, MOST_CONNECTIONS),
    ] {
        settings.serving.max_connections = connections;
        settings.tokens.clock_leeway = leeway;
        settings.serving.max_staleness = staleness;
        settings.policy.longest_rotation_interval = Some(Period::from_secs(1));
        settings.policy.shortest_secret_rotation_interval = Some(Period::from_secs(1));
        assert_eq!(settings.problems(), Vec::<String>::new());
    }
}

#[test]
fn each_mistake_is_named() {
    type Spoil = Box<dyn Fn(&mut Settings)>;
    let cases: [(&str, Spoil); 27] = [
        (
            "secrets.generatedCost",
            Box::new(|s| s.secrets.generated_cost = 3),
        ),
        (
            "secrets.generatedCost",
            Box::new(|s| s.secrets.generated_cost = 10),
        ),
        (
            "secrets.suppliedCost",
            Box::new(|s| s.secrets.supplied_cost = 9),
        ),
        (
            "secrets.suppliedCost",
            Box::new(|s| s.secrets.supplied_cost = 15),
        ),
        (
            "revocation.tokensPerClient",
            Box::new(|s| s.revocation.tokens_per_client = 1001),
        ),
        (
            "revocation.entriesPerTenant",
            Box::new(|s| s.revocation.entries_per_tenant = 1),
        ),
        (
            "throttle.tokenRate",
            Box::new(|s| s.throttle.token_rate = "60001/m".parse().expect("a rate")),
        ),
        (
            "throttle.trustedProxies",
            Box::new(|s| s.throttle.trusted_proxies = 0),
        ),
        ("issuer", Box::new(|s| s.issuer = "id.example.com".into())),
        (
            "issuer",
            Box::new(|s| s.issuer = "https://id.example.com/".into()),
        ),
        (
            "issuer",
            Box::new(|s| s.issuer = "https://id.example.com/?a".into()),
        ),
        ("issuer", Box::new(|s| s.issuer = "https:///x".into())),
        (
            "jwks.maxAge",
            Box::new(|s| s.jwks.max_age = Period::from_secs(24 * 3600 + 1)),
        ),
        ("environment", Box::new(|s| s.environment = "Prod".into())),
        (
            "tokens.defaultTtl",
            Box::new(|s| s.tokens.default_ttl = Period::from_hours(2)),
        ),
        (
            "tokens.maxTtl",
            Box::new(|s| s.tokens.max_ttl = Period::from_hours(25)),
        ),
        (
            "tokens.clockLeeway",
            Box::new(|s| s.tokens.clock_leeway = Period::from_secs(601)),
        ),
        (
            "serving.maxStaleness",
            Box::new(|s| s.serving.max_staleness = Period::from_secs(0)),
        ),
        (
            "serving.maxStaleness",
            Box::new(|s| s.serving.max_staleness = Period::from_secs(24 * 3600 + 1)),
        ),
        (
            "policy.longestRotationInterval",
            Box::new(|s| s.policy.longest_rotation_interval = Some(Period::from_secs(0))),
        ),
        (
            "policy.shortestSecretRotationInterval",
            Box::new(|s| {
                s.policy.shortest_secret_rotation_interval = Some(Period::from_secs(0));
            }),
        ),
        (
            "serving.maxConnections",
            Box::new(|s| s.serving.max_connections = FEWEST_CONNECTIONS - 1),
        ),
        (
            "serving.maxConnections",
            Box::new(|s| s.serving.max_connections = MOST_CONNECTIONS + 1),
        ),
        (
            "policy.minRsaKeySize",
            Box::new(|s| s.policy.min_rsa_key_size = 1024),
        ),
        (
            "policy.serviceAccountAudiences",
            Box::new(|s| s.policy.service_account_audiences = vec!["a b".into()]),
        ),
        (
            "policy.serviceAccountAudiences",
            Box::new(|s| {
                let own = "https://kubernetes.default.svc".to_owned();
                s.policy.service_account_audiences = vec!["a".into(), own];
            }),
        ),
        ("claims.tier", Box::new(|s| s.claims.tier = "sub".into())),
    ];
    for (name, spoil) in cases {
        let mut settings = good();
        spoil(&mut settings);
        let problems = settings.problems();
        assert!(
            problems.iter().any(|p| p.starts_with(name)),
            "{name}: {problems:?}"
        );
    }
}

#[test]
fn an_issuer_is_a_url_that_verifiers_can_trust() {
    for sound in [
        "https://id.example.com",
        "https://ID.example.com:8443/a/b",
        "https://x",
        "https://10.0.0.1:65535",
        "https://[2001:db8::1]/a",
        "http://127.0.0.1:8080",
        "http://127.8.9.10",
        "http://localhost:1/id",
        "http://[::1]:8080",
        "http://[::ffff:127.0.0.1]:8080",
    ] {
        assert_eq!(issuer_problem(sound), None, "{sound}");
    }
    for (issuer, told) in [
        ("https://a:99999999", "port \":99999999\""),
        ("https://a:b:c", "port \":b:c\""),
        ("https://a:0", "port \":0\""),
        ("https://a:", "port \":\""),
        ("https://a:+1", "port \":+1\""),
        ("https://[::1]8080", "port \"8080\""),
        ("https://", "trailing slash"),
        ("https://:443", "host \"\""),
        ("https:///a", "host \"\""),
        ("https://a..b", "host \"a..b\""),
        ("https://-a.example", "host \"-a.example\""),
        ("https://a_b", "host \"a_b\""),
        ("https://1.2.3", "host \"1.2.3\""),
        ("https://[::1", "host \"[\""),
        ("https://[x]", "host \"[x]\""),
        ("http://id.example.com", "use https"),
        ("http://10.0.0.1:8080", "use https"),
        ("http://localhost.example.com", "use https"),
        ("http://[::2]", "use https"),
        ("ftp://a", "use a URL such as"),
    ] {
        let problem = issuer_problem(issuer).unwrap_or_default();
        assert!(problem.contains(told), "{issuer}: {problem:?}");
        assert!(
            problem.starts_with(&format!("issuer is {issuer:?}")),
            "{problem}"
        );
    }
}
