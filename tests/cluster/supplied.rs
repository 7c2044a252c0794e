//! Client secrets that a person supplies: read, followed, never touched; and the ways from and to generated
//! ones, without an outage.

use std::time::Duration;

use chancery::crypto::hash;
use serde_json::{Value, json};

use crate::credentials::{Trial, User, ask, unnoticed};
use crate::release::{LIMIT, Release};
use crate::ring::text;
use crate::support::eventually;

/// Client secrets as people choose them.
const ONE: &str = "correct horse battery staple 1";
const TWO: &str = "Tr0ub4dor&3 and some more";
const THREE: &str = "/-a third one of them, as bcrypt takes it: seventy-two bytes, no longer.";

/// Makes or replaces a Secret of the tenant's own; a key that is absent goes.
fn supply(release: &Release, tenant: &str, name: &str, data: &Value) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": tenant },
        "stringData": data,
    });
    for value in data.as_object().into_iter().flat_map(|d| d.values()) {
        let value = value.as_str().unwrap_or_default();
        if value.len() >= 16 {
            release.remember(value);
        }
    }
    let file = crate::support::Scratch::new("supply");
    let file = file.write("secret.json", secret.to_string());
    let file = file.display().to_string();
    let exists = !release.get("secret", tenant, name).is_null();
    let verb = if exists { "replace" } else { "create" };
    release.cluster.kubectl_ok(&[verb, "-f", &file]);
}

/// The state of that credential in status.
fn state(user: &Value, id: &str) -> Option<String> {
    let all = user["status"]["credentials"].as_array()?;
    text(&all.iter().find(|c| c["id"] == id)?["state"])
}

fn condition<'v>(user: &'v Value, kind: &str) -> Option<&'v Value> {
    let all = user["status"]["conditions"].as_array()?;
    all.iter().find(|c| c["type"] == kind)
}

fn wait_state(user: &User<'_>, id: &str, wanted: &str) {
    user.wait(&format!("{id} is {wanted}"), |user| {
        (state(user, id).as_deref() == Some(wanted)).then_some(())
    });
}

/// Until that credential works; before, status does not say that the Secret has one that does.
fn claimed_once_it_works(user: &User<'_>, id: &str, secret: &str) {
    user.wait(&format!("{id} is Active"), |user| {
        let state = state(user, id)?;
        let ready = condition(user, "Ready")?;
        let told = text(&ready["message"])?;
        let claims = told.contains(&format!("client secret in Secret {secret} "));
        let named = user["status"]["secretName"] == secret;
        if state == "Active" {
            return (claims && named).then_some(());
        }
        assert!(!claims && !named, "{state}: {}", user["status"]);
        assert!(told.contains("works in a moment"), "{told}");
        None
    });
}

fn wait_gone(user: &User<'_>, id: &str) {
    user.wait(&format!("{id} is gone"), |user| {
        let all = user["status"]["credentials"].as_array()?;
        all.iter().all(|c| c["id"] != id).then_some(())
    });
}

/// Each replica takes this secret.
fn works(trial: &Trial, id: &str, secret: &str) {
    for port in &trial.ports {
        eventually("it works", LIMIT, || match ask(*port, id, secret) {
            Ok(200) => Ok(()),
            other => Err(format!("{other:?}\n{}", trial.release.tail())),
        });
    }
}

fn reference(names: &[&str]) -> Value {
    let refs: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    json!({ "delivery": "Reference", "secretRefs": refs })
}

/// From a generated secret to a supplied one and back, with two replicas under load: what worked before
/// works through a grace, and the person's Secret is as it was.
#[test]
fn from_generated_to_supplied_and_back_unnoticed() {
    let trial = Trial::start("supplied-exchange");
    let (release, tenant) = (&trial.release, trial.tenant.as_str());
    let user = trial.user();
    user.secret(&json!({"rotation": {"gracePeriod": "25s"}}));
    let (id, generated) = release.credentials(tenant, "user");
    // Nothing is touched, also where it has the name that a delivered one would have.
    supply(release, tenant, "mine", &json!({ "client_secret": ONE }));
    let before = release.get("secret", tenant, "mine");

    let kept = || Some((id.clone(), generated.clone()));
    unnoticed("from generated to supplied", &trial, kept, || {
        user.secret(&reference(&["mine"]));
        claimed_once_it_works(&user, "2", "mine");
        wait_state(&user, "1", "Retired");
        let supplied = || Some((id.clone(), ONE.to_owned()));
        unnoticed("the supplied one", &trial, supplied, || {
            std::thread::sleep(Duration::from_secs(2));
        });
    });
    let told = user.told("CredentialRotated");
    assert!(
        told.iter().any(|m| m.contains("Client secret 1 ")),
        "{told:?}"
    );
    assert!(user.told("CredentialSupplied")[0].contains("Secret mine holds under client_secret"));
    let hashes = format!("{tenant}.user-credentials");
    let stored = release.secret_value(&release.name, &hashes, "credentials.json");
    assert!(
        stored.is_some_and(|s| s.contains("$2b$12$")),
        "of the cost of supplied ones"
    );
    let table = release
        .cluster
        .kubectl_ok(&["get", "tu", "user", "-n", tenant, "-o", "wide"]);
    for part in [
        "Secret",
        "mine",
        "True",
        "client secret in Secret mine (key client_secret)",
    ] {
        assert!(table.contains(part), "{part} in {table}");
    }
    // Its grace over, the generated one ends, and so does the Secret that it was delivered in.
    wait_gone(&user, "1");
    trial.refused(&id, &generated);
    eventually("the delivered Secret goes", LIMIT, || {
        let left = release.get("secret", tenant, "user-credentials");
        left.is_null()
            .then_some(())
            .ok_or(left["metadata"].to_string())
    });
    works(&trial, &id, ONE);

    let kept = || Some((id.clone(), ONE.to_owned()));
    let new = unnoticed("from supplied to generated", &trial, kept, || {
        user.secret(&json!({"delivery": null, "secretRefs": null}));
        let new = user.follows("user-credentials", "client_secret", "");
        let generated = || Some((id.clone(), new.clone()));
        unnoticed("the generated one", &trial, generated, || {
            wait_state(&user, "2", "Retired");
            wait_state(&user, "3", "Active");
        });
        new
    });
    assert_ne!(new, generated);
    let told = user.told("CredentialExchanged");
    assert!(
        told.iter()
            .any(|m| m.contains("as spec.credential.secret.delivery says so now")),
        "{told:?}"
    );
    wait_gone(&user, "2");
    trial.refused(&id, ONE);
    works(&trial, &id, &new);
    let after = release.get("secret", tenant, "mine");
    assert_eq!(before, after, "nobody has touched it");
    trial.end();
}

/// What the Secret holds is replaced in place, as by External Secrets; a second one is added, and the first
/// taken away; the Secret is lost and comes back. Nobody who goes on with what was supplied is refused
/// before a grace is over.
#[test]
fn supplied_secrets_are_followed_unnoticed() {
    let trial = Trial::start("supplied-followed");
    let (release, tenant) = (&trial.release, trial.tenant.as_str());
    let user = trial.user();
    let (id, _) = release.credentials(tenant, "user");
    supply(release, tenant, "one", &json!({ "client_secret": ONE }));
    let mut spec = reference(&["one"]);
    spec["rotation"] = json!({"gracePeriod": "0s"});
    user.secret(&spec);
    works(&trial, &id, ONE);
    user.secret(&json!({"rotation": {"gracePeriod": "45s"}}));
    user.wait_states(&["Active"]);

    let first = || Some((id.clone(), ONE.to_owned()));
    unnoticed("the content is replaced", &trial, first, || {
        supply(release, tenant, "one", &json!({ "client_secret": TWO }));
        let begun = tokio::time::Instant::now();
        wait_state(&user, "3", "Active");
        let took = begun.elapsed();
        println!("followed after {took:?}");
        assert!(took < Duration::from_secs(20), "a watch tells, not a poll");
        wait_state(&user, "2", "Retired");
        works(&trial, &id, TWO);
        let told = user.told("CredentialRotated");
        assert!(
            told.iter().any(|m| m.contains(
                "Client secret 2 is not the one that is supplied any more; it works until"
            )),
            "{told:?}"
        );
    });
    let second = || Some((id.clone(), TWO.to_owned()));
    unnoticed("a second one comes, the first goes", &trial, second, || {
        supply(release, tenant, "two", &json!({ "client_secret": THREE }));
        let before = [
            release.get("secret", tenant, "one"),
            release.get("secret", tenant, "two"),
        ];
        user.secret(&reference(&["one", "two"]));
        wait_state(&user, "4", "Active");
        assert_eq!(state(&user.get(), "3").as_deref(), Some("Active"), "both");
        let third = || Some((id.clone(), THREE.to_owned()));
        unnoticed("the second one", &trial, third, || {
            user.secret(&reference(&["two"]));
            wait_state(&user, "3", "Retired");
            works(&trial, &id, TWO);
            let after = [
                release.get("secret", tenant, "one"),
                release.get("secret", tenant, "two"),
            ];
            assert_eq!(before, after);
        });
    });
    wait_gone(&user, "3");
    trial.refused(&id, ONE);
    trial.refused(&id, TWO);

    // The Secret is lost, which is loud and no outage.
    let third = || Some((id.clone(), THREE.to_owned()));
    unnoticed("the Secret is lost", &trial, third, || {
        release
            .cluster
            .kubectl_ok(&["delete", "secret", "two", "-n", tenant]);
        let told = release.wait_reason(
            "technicaluser",
            tenant,
            "user",
            "Stalled",
            "SuppliedSecretNotFound",
        );
        let told = text(&told["message"]).expect("a message");
        assert!(
            told.contains("Secret two, which") && told.contains("goes on working"),
            "{told}"
        );
        let ready = release.wait_reason("technicaluser", tenant, "user", "Ready", "Succeeded");
        assert_eq!(ready["status"], "True");
        let ready = text(&ready["message"]).expect("a message");
        assert!(
            ready.contains("with the client secret that was supplied before."),
            "{ready}"
        );
        // What is asked for beside it is told too.
        user.patch(&json!({"metadata": {"annotations": {"chancery.dev/rotate": "now"}}}));
        user.wait("the annotation is told", |user| {
            let stalled = condition(user, "Stalled")?;
            let told = text(&stalled["message"])?;
            let both = ["is not there", "with delivery Reference you supply it"];
            both.iter().all(|part| told.contains(part)).then_some(())
        });
        user.patch(&json!({"metadata": {"annotations": {"chancery.dev/rotate": null}}}));
        assert!(
            !user.told("SuppliedSecretNotFound").is_empty(),
            "an event too"
        );
        // It comes back with something else in it.
        supply(release, tenant, "two", &json!({ "client_secret": ONE }));
        wait_state(&user, "5", "Active");
        wait_state(&user, "4", "Retired");
    });
    works(&trial, &id, ONE);
    release.wait_reason("technicaluser", tenant, "user", "Ready", "Succeeded");
    // At once, where a person says so.
    user.secret(&json!({"rotation": {"gracePeriod": "0s"}}));
    trial.refused(&id, THREE);
    works(&trial, &id, ONE);

    // It goes, with its hashes, and the person's Secrets stay.
    release
        .cluster
        .kubectl_ok(&["delete", "technicaluser", "user", "-n", tenant]);
    let hashes = format!("{tenant}.user-credentials");
    eventually("its hashes are swept", LIMIT, || {
        let left = release.get("secret", &release.name, &hashes);
        left.is_null().then_some(()).ok_or("still there")
    });
    for name in ["one", "two"] {
        assert!(
            !release.get("secret", tenant, name).is_null(),
            "{name} is the person's"
        );
    }
    trial.end();
}

/// Each thing that is no client secret is refused with a sentence, and what was supplied before goes on.
#[test]
fn what_is_no_client_secret_is_refused() {
    let release = Release::start("supplied-refused");
    let tenant = release.tenant("supplied-refused-tenant");
    let tenant = tenant.as_str();
    release.ring("main", "algorithm: ES256");
    let id = format!("{tenant}.user");
    // Nothing is there yet: it waits, and says what for.
    let spec = "apiVersion: chancery.dev/v1alpha1\nkind: TechnicalUser\nmetadata: {name: user, namespace: NS}\nspec:\n  audiences: ['https://a.example']\n  credential: {secret: {delivery: Reference, secretRefs: [{name: user-credentials, key: password}]}}\n";
    release.apply(&spec.replace("NS", tenant));
    let told = release.wait_reason(
        "technicaluser",
        tenant,
        "user",
        "Reconciling",
        "SuppliedSecretNotFound",
    );
    let says = |condition: &Value, part: &str| {
        let message = text(&condition["message"]).unwrap_or_default();
        assert!(message.contains(part), "{part:?} in {message:?}");
    };
    says(
        &told,
        "Secret user-credentials, which spec.credential.secret.secretRefs names, is not there.",
    );
    let user = User {
        release: &release,
        tenant,
        name: "user",
    };

    // Nothing works yet, and it is too short.
    let put = |value: &str| {
        supply(
            &release,
            tenant,
            "user-credentials",
            &json!({ "password": value }),
        );
    };
    put("too short: 15..");
    let told = release.wait_reason(
        "technicaluser",
        tenant,
        "user",
        "Stalled",
        "SuppliedSecretRefused",
    );
    says(
        &told,
        "What Secret user-credentials holds under password has 15 characters",
    );
    put(ONE);
    release.wait_ready("technicaluser", tenant, "user");
    release.token(&id, ONE, "");

    let (plain, other) = (ONE, TWO);
    let of_cost = |cost| hash::hash(other, cost).expect("hashed");
    let good = of_cost(12);
    let long = "x".repeat(73);
    for (value, part) in [
        ("", "is empty"),
        ("hunter2hunter2hunter2\n", "ends with a line break"),
        ("hunter2\u{0}hunter2hunter2", "holds a NUL"),
        (long.as_str(), "has 73 bytes"),
        (good.as_str(), "is a bcrypt hash, and format is Plain"),
    ] {
        put(value);
        refused_and_told(&user, part);
        assert_eq!(
            release.ask(&id, plain, "").status,
            200,
            "{part}: what worked goes on"
        );
    }
    let costly = good.replace("$2b$12$", "$2b$15$");
    let odd = good.replace("$2b$12$", "$2x$12$");
    let hashed = json!([{ "name": "user-credentials", "key": "password", "format": "BcryptHash" }]);
    user.secret(&json!({ "secretRefs": hashed }));
    for (value, part) in [
        (plain, "is no bcrypt hash"),
        (
            &of_cost(10),
            "is a bcrypt hash of cost 10, and this release wants 12",
        ),
        (
            &costly,
            "is a bcrypt hash of cost 15, and this release wants 12",
        ),
        (&odd, "is a bcrypt hash of version 2x"),
    ] {
        put(value);
        refused_and_told(&user, part);
        assert_eq!(
            release.ask(&id, plain, "").status,
            200,
            "{part}: what worked goes on"
        );
    }
    put(&good);
    release.token(&id, other, "");
    assert_eq!(release.ask(&id, plain, "").status, 200, "a grace");
    assert_eq!(
        release.ask(&id, &good, "").status,
        401,
        "a hash is no secret"
    );
    // As other tools write it.
    put(&good.replace("$2b$", "$2y$"));
    wait_state(&user, "3", "Active");
    release.token(&id, other, "");

    // The rotate annotation has nothing to make, and says so.
    user.patch(&json!({"metadata": {"annotations": {"chancery.dev/rotate": "now"}}}));
    let told = release.wait_reason("technicaluser", tenant, "user", "Stalled", "InvalidSpec");
    says(&told, "with delivery Reference you supply it");
    // A key that is gone is as a Secret that is gone.
    supply(
        &release,
        tenant,
        "user-credentials",
        &json!({ "other": THREE }),
    );
    let told = release.wait_reason(
        "technicaluser",
        tenant,
        "user",
        "Stalled",
        "SuppliedSecretNotFound",
    );
    says(&told, "has no key password");
    release.token(&id, other, "");
    // What Chancery delivers is no place to supply one.
    release.user(tenant, "generated", "");
    release.credentials(tenant, "generated");
    user.secret(&json!({ "secretRefs": [{ "name": "generated-credentials" }] }));
    refused_and_told(
        &user,
        "Secret generated-credentials is one that Chancery delivers",
    );
    release.token(&id, other, "");
}

fn refused_and_told(user: &User<'_>, part: &str) {
    user.wait(part, |user| {
        let all = user["status"]["conditions"].as_array()?;
        let stalled = all.iter().find(|c| c["type"] == "Stalled")?;
        let told = text(&stalled["message"])?;
        let refused = stalled["reason"] == "SuppliedSecretRefused";
        (refused && told.contains(part) && told.contains("goes on working")).then_some(())
    });
}
