//! The quickstart as the README has it, with nothing but kubectl.

use crate::release::{LIMIT, Release, cluster};
use crate::support::process::complete;
use crate::support::{eventually, http};

/// Applies `examples/quickstart`, in namespaces of the test's own.
#[test]
fn manifests_in_a_verified_token_out() {
    let release = Release::start("quickstart");
    let tenant = release.bare_tenant("acme");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/quickstart");
    for file in [
        "10-signing-key.yaml",
        "20-subscription.yaml",
        "30-technical-user.yaml",
    ] {
        let text = std::fs::read_to_string(format!("{folder}/{file}")).expect("an example");
        let text = text
            .replace(
                "namespace: chancery-system",
                &format!("namespace: {}", release.name),
            )
            .replace("namespace: acme", &format!("namespace: {tenant}"))
            .replace(
                "legalEntity:",
                &format!("environment: {}\n  legalEntity:", release.name),
            );
        release.apply(&text);
    }
    release.wait_ready("signingkey", &release.name, "main");
    release.wait_ready("subscription", &tenant, "acme");
    release.wait_ready("technicaluser", &tenant, "orders");

    let (id, secret) = release.credentials(&tenant, "orders");
    assert_eq!(id, format!("{tenant}.orders"));
    let url = release.secret_value(&tenant, "orders-credentials", "token_url");
    assert_eq!(url, Some(format!("{}/oauth/token", release.issuer())));
    let token = release.token(&id, &secret, "&scope=orders.read");

    // Verified by another language's library, against HTTP and against the ConfigMap.
    let from_map = release.get("configmap", &release.name, "chancery-issuer");
    let document = from_map["data"]["jwks.json"]
        .as_str()
        .expect("a JWKS")
        .to_owned();
    let over_http =
        http::get(&format!("{}/.well-known/jwks.json", release.issuer())).expect("HTTP");
    assert_eq!(over_http.text(), document, "byte for byte");
    assert_eq!(from_map["data"]["jwks"].as_str(), Some(document.as_str()));
    let scratch = crate::support::Scratch::new("jwks");
    let file = scratch.write("jwks.json", &document).display().to_string();
    for jwks in [format!("{}/.well-known/jwks.json", release.issuer()), file] {
        let verified = verify(&release, &jwks, &token, "https://orders.acme.example");
        let claims = &verified["claims"];
        assert_eq!(claims["scope"], "orders.read");
        assert_eq!(claims["user_roles"], serde_json::json!(["clerk"]));
        assert_eq!(claims["caas_org_id"], "acme");
        assert_eq!(claims["caas_tier"], "Free");
    }

    // The tables that tell the story.
    let table = cluster().kubectl_ok(&["get", "identity", "-n", &tenant]);
    for part in ["orders-credentials", &id, "Succeeded", "acme", "Free"] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    let events = cluster().kubectl_ok(&["describe", "signingkey", "main", "-n", &release.name]);
    for part in ["KeyCreated", "KeyPublished", "KeyActivated"] {
        assert!(events.contains(part), "{part} in\n{events}");
    }
}

/// Has the Go verifier judge a token.
pub fn verify(release: &Release, jwks: &str, token: &str, audience: &str) -> serde_json::Value {
    let mut command = std::process::Command::new(release.cluster.verifier());
    let issuer = release.issuer();
    command.args([
        "-jwks",
        jwks,
        "-issuer",
        &issuer,
        "-audience",
        audience,
        "-typ",
        "at+jwt",
    ]);
    let printed = complete(command, token.as_bytes(), LIMIT).expect_success("the Go verifier");
    serde_json::from_str(&printed).expect("JSON")
}

/// The process says when it is ready, and goes away without dropping anyone.
#[test]
fn readiness_and_the_end() {
    let mut release = Release::prepared("readiness");
    release.run(&[]);
    let ready = |release: &Release| {
        http::get(&format!(
            "http://127.0.0.1:{}/readyz?verbose",
            release.admin_port
        ))
        .map(|a| (a.status, a.text()))
        .map_err(|e| e.to_string())
    };
    let others = ["stores: ", "clock: ", "contact: "];
    let (_, why) = eventually("not ready without a JWKS", LIMIT, || {
        match ready(&release) {
            Ok((503, why))
                if why.contains("no JWKS") && !others.iter().any(|o| why.contains(o)) =>
            {
                Ok((503, why))
            }
            other => Err(format!("{other:?}")),
        }
    });
    assert!(why.contains("SigningKey"), "{why}");
    assert!(
        why.contains("\nLast contact with the API server: "),
        "{why}"
    );
    release.ring("main", "algorithm: ES256");
    eventually("ready with one", LIMIT, || match ready(&release) {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    release.process().signal(crate::support::Signal::Term);
    assert!(release.process().wait_exit(LIMIT).success());
}

/// An account without rights: it says what it waits for, once in the log and to whoever asks, and
/// goes on by itself once it may.
#[test]
fn without_rights_it_says_so_and_waits() {
    let release = Release::prepared("rightless");
    let (cluster, namespace) = (release.cluster, &release.name);
    cluster.kubectl_ok(&["create", "serviceaccount", "none", "-n", namespace]);
    let account = cluster.kubeconfig_for_service_account(namespace, "none");
    let admin = crate::support::free_port();
    let process = release.start_process(&account, release.port, admin, &[]);
    let ready = || {
        let url = format!("http://127.0.0.1:{admin}/readyz");
        let answer = http::get(&url).map_err(|e| format!("{e}\n{}", process.output()))?;
        Ok::<_, String>((answer.status, answer.text()))
    };
    let say = |what: &str, says: &dyn Fn(&str) -> bool| {
        eventually(what, LIMIT, || match ready()? {
            (503, why) if says(&why) => Ok(why),
            other => Err(format!("{other:?}\n{}", process.output())),
        })
    };
    let why = say("it says what is forbidden", &|why| {
        why.contains("stores: ") && why.contains("is forbidden: User")
    });
    assert!(
        why.contains("SigningKeys") && why.contains(":none"),
        "{why}"
    );
    let lived = http::get(&format!("http://127.0.0.1:{admin}/livez"));
    assert_eq!(lived.expect("it answers").status, 200);
    let lines = |says: &str| {
        let output = process.output();
        output.lines().filter(|l| l.contains(says)).count()
    };
    // kube's own line, which the usual log leaves out, counts the tries.
    eventually("many tries", LIMIT, || {
        match lines("watch list error with 403") {
            48.. => Ok(()),
            tries => Err(format!("{tries}")),
        }
    });
    // Once for each of twelve watches.
    assert!(lines("a watch failed") <= 12, "{}", process.output());

    cluster.kubectl_ok(&[
        "create",
        "clusterrolebinding",
        &format!("{namespace}-none"),
        "--clusterrole=cluster-admin",
        &format!("--serviceaccount={namespace}:none"),
    ]);
    say("only a JWKS is waited for", &|why| {
        why.contains("jwks: ") && !why.contains("stores: ")
    });
    process.signal(crate::support::Signal::Term);
    assert!(process.wait_exit(LIMIT).success());
    release.printed(process.output());
}

/// At rest nothing is written, and a restart writes nothing: what is there is as it should be.
#[test]
fn a_restart_writes_nothing() {
    let mut release = Release::prepared("restart");
    release.run(&[]);
    let tenant = release.tenant("restart-tenant");
    release.ring("main", "algorithm: ES256");
    release.user(&tenant, "user", "");
    release.wait_ready("signingkey", &release.name, "main");
    release.wait_ready("technicaluser", &tenant, "user");
    let (id, secret) = release.credentials(&tenant, "user");
    let token = release.token(&id, &secret, "");
    let versions = |release: &Release| {
        let mut all = Vec::new();
        for (kinds, namespace) in [
            (
                "signingkeys,secrets,configmaps,events",
                release.name.as_str(),
            ),
            (
                "technicalusers,subscriptions,secrets,events",
                tenant.as_str(),
            ),
        ] {
            for object in release.list(kinds, namespace) {
                let meta = &object["metadata"];
                all.push((
                    object["kind"].to_string(),
                    meta["name"].to_string(),
                    meta["resourceVersion"].to_string(),
                ));
            }
        }
        all
    };
    // Two looks that agree: whatever was on its way has arrived.
    let mut last = versions(&release);
    let before = eventually("it comes to rest", LIMIT, || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = versions(&release);
        if now == last {
            return Ok(now);
        }
        last = now;
        Err("still writing")
    });
    release.kill();
    release.forget_leader();
    release.run(&[]);
    let again = release.token(&id, &secret, "");
    // The visits of the start are over when the debug log tells of each.
    for object in ["main", "user"] {
        release.process().wait_for_line(
            |l| l.contains("visited") && l.contains(&format!("\"{object}\"")),
            LIMIT,
        );
    }
    assert_eq!(versions(&release), before);
    let kid = |token: &str| jsonwebtoken::decode_header(token).expect("a header").kid;
    assert_eq!(kid(&again), kid(&token));
}
