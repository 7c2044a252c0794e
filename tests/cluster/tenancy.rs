//! Subscriptions decide: who speaks for whom, and what tokens may say.

use crate::quickstart::verify;
use crate::release::{LIMIT, Release, cluster};
use crate::support::eventually;

fn claims(
    release: &Release,
    id: &str,
    secret: &str,
    parameters: &str,
    audience: &str,
) -> serde_json::Value {
    let token = release.token(id, secret, parameters);
    let jwks = format!("{}/.well-known/jwks.json", release.issuer());
    verify(release, &jwks, &token, audience)["claims"].clone()
}

#[test]
fn a_technical_user_grants_no_more_than_its_subscription() {
    let release = Release::start("bounds");
    let tenant = release.tenant("bounds-tenant");
    release.ring("main", "algorithm: ES256");
    release.apply(&format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: TechnicalUser\nmetadata: {{name: greedy, namespace: {tenant}}}\nspec:\n  roles: [clerk, admin]\n  scopes: [read, 'admin.all']\n  audiences: ['https://c.example', 'https://a.example']\n  tokenTtl: 90s\n  credential: {{secret: {{}}}}\n"
    ));
    release.wait_ready("technicaluser", &tenant, "greedy");
    let restricted = release.wait_reason(
        "technicaluser",
        &tenant,
        "greedy",
        "Restricted",
        "BeyondSubscription",
    );
    let message = restricted["message"].as_str().unwrap_or_default();
    for denied in ["admin", "admin.all", "https://c.example"] {
        assert!(message.contains(denied), "{message}");
    }
    let (id, secret) = release.credentials(&tenant, "greedy");
    let claims = claims(&release, &id, &secret, "", "https://a.example");
    assert_eq!(claims["user_roles"], serde_json::json!(["clerk"]));
    assert_eq!(claims["scope"], "read");
    assert_eq!(
        claims["exp"]
            .as_i64()
            .zip(claims["iat"].as_i64())
            .map(|(e, i)| e - i),
        Some(90)
    );
    for (parameters, error) in [
        ("&scope=admin.all", "invalid_scope"),
        ("&resource=https%3A%2F%2Fc.example", "invalid_target"),
        ("&audience=https%3A%2F%2Fb.example", "invalid_target"),
    ] {
        let answer = release.ask(&id, &secret, parameters);
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (400, Some(error)),
            "{parameters}"
        );
    }
}

#[test]
fn suspended_and_out_of_period() {
    let release = Release::start("suspend");
    let tenant = release.tenant("suspend-tenant");
    release.ring("main", "algorithm: ES256");
    release.user(&tenant, "user", "");
    let (id, secret) = release.credentials(&tenant, "user");
    release.token(&id, &secret, "");
    let suspend = |value: &str| {
        let patch = format!(r#"{{"spec":{{"suspended":{value}}}}}"#);
        cluster().kubectl_ok(&[
            "patch",
            "technicaluser",
            "user",
            "-n",
            &tenant,
            "--type=merge",
            "-p",
            &patch,
        ]);
    };
    suspend("true");
    let refusal = release.refused(&id, &secret, "");
    assert_eq!(
        (refusal.status, refusal.json()["error"].as_str()),
        (401, Some("invalid_client"))
    );
    release.wait_reason("technicaluser", &tenant, "user", "Ready", "Suspended");
    assert_eq!(
        refusal.body,
        release.ask("nobody.knows", &secret, "").body,
        "as an unknown one"
    );
    suspend("false");
    release.token(&id, &secret, "");

    // The period ends in a moment, and the next one is there already.
    let now = chancery::clock::system().now();
    let end = jiff::Timestamp::from_second(now.as_second() + 4).expect("a time");
    release.subscribe(
        &tenant,
        "main",
        &tenant,
        &format!("  periodTo: \"{end}\"\n"),
    );
    let refusal = release.refused(&id, &secret, "");
    assert_eq!(
        (refusal.status, refusal.json()["error"].as_str()),
        (400, Some("unauthorized_client"))
    );
    release.wait_reason("subscription", &tenant, "main", "Ready", "Expired");
    release.wait_reason(
        "technicaluser",
        &tenant,
        "user",
        "Ready",
        "SubscriptionNotCurrent",
    );
    eventually("that it ended is an event", LIMIT, || {
        let events = release.list("events", &tenant);
        let told = events.iter().any(|event| {
            event["involvedObject"]["name"] == "main"
                && event["type"] == "Warning"
                && event["reason"] == "NotCurrent"
        });
        told.then_some(()).ok_or_else(|| format!("{events:#?}"))
    });
    release.subscribe(
        &tenant,
        "renewal",
        &tenant,
        &format!("  periodFrom: \"{end}\"\n"),
    );
    release.token(&id, &secret, "");
    release.wait_reason("technicaluser", &tenant, "user", "Ready", "Succeeded");
    eventually("the renewal is current", LIMIT, || {
        let renewal = release.get("subscription", &tenant, "renewal");
        if renewal["status"]["current"] == true {
            Ok(())
        } else {
            Err(renewal["status"].to_string())
        }
    });
}

#[test]
fn the_older_subscription_wins() {
    let release = Release::start("conflict");
    let tenant = release.tenant("conflict-tenant");
    let other = cluster().namespace("conflict-other");
    release.wait_ready("subscription", &tenant, "main");
    // Kubernetes tells ages to the second; within one, the UID decides.
    let main = release.get("subscription", &tenant, "main");
    let created = main["metadata"]["creationTimestamp"].as_str();
    let created: jiff::Timestamp = created.expect("a time").parse().expect("a time");
    eventually("the next second", LIMIT, || {
        let age = chancery::clock::system().now().duration_since(created);
        if age.as_secs() > 1 {
            Ok(())
        } else {
            Err("the same second")
        }
    });
    release.subscribe(&tenant, "younger", "someone-else", "");
    let bound = release.wait_reason(
        "subscription",
        &tenant,
        "younger",
        "Stalled",
        "NamespaceBound",
    );
    assert!(
        bound["message"]
            .as_str()
            .is_some_and(|m| m.contains("main")),
        "{bound}"
    );
    release.subscribe(&other, "main", &tenant, "");
    let taken = release.wait_reason(
        "subscription",
        &other,
        "main",
        "Stalled",
        "LegalEntityBound",
    );
    assert!(
        taken["message"]
            .as_str()
            .is_some_and(|m| m.contains(&tenant)),
        "{taken}"
    );
    release.subscribe(&release.name.clone(), "main", "operator", "");
    release.wait_reason(
        "subscription",
        &release.name,
        "main",
        "Stalled",
        "WrongNamespace",
    );
    // The older goes: the younger takes over.
    cluster().kubectl_ok(&["delete", "subscription", "main", "-n", &tenant]);
    release.wait_reason("subscription", &other, "main", "Ready", "Succeeded");
    release.wait_reason("subscription", &tenant, "younger", "Ready", "Succeeded");
}

#[test]
fn what_the_release_forbids() {
    let mut release = Release::prepared("policy");
    let scratch = crate::support::Scratch::new("policy");
    let config = scratch.write(
        "config.yaml",
        "policy: {allowedAlgorithms: [RS256, ES256], minRsaKeySize: 3072}\ntokens: {maxTtl: 10m}\n",
    );
    let config = config.display().to_string();
    release.run(&["--config", &config]);
    let tenant = release.tenant("policy-tenant");
    release.ring("eddsa", "algorithm: EdDSA");
    release.ring("small", "algorithm: RS256");
    release.ring("fine", "algorithm: ES256");
    release.user(&tenant, "long", "  tokenTtl: 11m\n");
    let stranger = cluster().namespace("policy-stranger");
    release.user(&stranger, "user", "");
    release.user(&tenant, "named", "  clientId: billing\n");
    for (kind, namespace, name, condition, reason, part) in [
        (
            "signingkey",
            &release.name,
            "eddsa",
            "Stalled",
            "PolicyViolation",
            "EdDSA",
        ),
        (
            "signingkey",
            &release.name,
            "small",
            "Stalled",
            "PolicyViolation",
            "3072",
        ),
        (
            "technicaluser",
            &tenant,
            "long",
            "Stalled",
            "PolicyViolation",
            "11m",
        ),
        (
            "technicaluser",
            &tenant,
            "named",
            "Stalled",
            "ClientIdNotAllowed",
            "billing",
        ),
        (
            "technicaluser",
            &stranger,
            "user",
            "Ready",
            "NoSubscription",
            stranger.as_str(),
        ),
    ] {
        let condition = release.wait_reason(kind, namespace, name, condition, reason);
        assert!(
            condition["message"]
                .as_str()
                .is_some_and(|m| m.contains(part)),
            "{condition}"
        );
    }
    release.wait_ready("signingkey", &release.name, "fine");
    // A platform administrator lists the client id.
    release.apply(&format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: Subscription\nmetadata: {{name: main, namespace: {tenant}}}\nspec:\n  environment: {}\n  legalEntity: {{id: {tenant}, name: A tenant}}\n  tier: Free\n  allowed: {{clientIds: [billing], scopes: ['*'], roles: ['*'], audiences: ['*']}}\n",
        release.name
    ));
    release.wait_ready("technicaluser", &tenant, "named");
    let (id, secret) = release.credentials(&tenant, "named");
    assert_eq!(id, "billing");
    release.token(&id, &secret, "");
    // The same id a second time: the older keeps it.
    release.user(&tenant, "rival", "  clientId: billing\n");
    release.wait_reason(
        "technicaluser",
        &tenant,
        "rival",
        "Stalled",
        "ClientIdConflict",
    );
    assert_eq!(release.ask(&id, &secret, "").status, 200);
}
