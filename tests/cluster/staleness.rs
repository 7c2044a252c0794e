//! A replica that the API server does not answer: it goes on for as long as it may, leaves the load
//! balancer, signs no more, and is well again as soon as there are answers.

use std::time::Duration;

use tokio::time::Instant;

use crate::release::{LIMIT, Release};
use crate::support::{ControlPlane, Signal, eventually, free_port, http};

/// As this machine may be slow.
const SLACK: f64 = 5.0;

#[test]
fn cut_off_it_ends_signing_and_comes_back() {
    // A control plane of its own, for as long as this process lives: its API server is frozen.
    let cluster: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start()));
    let mut release = Release::prepared_on(cluster, "stale");
    let tenant = release.tenant("stale-tenant");
    release.ring("main", "algorithm: ES256");
    release.user(&tenant, "first", "");
    // Half of what the lead of 30 minutes leaves is 5 seconds, after which it is not ready.
    release.run(&["--max-staleness", "10s", "--jwks-max-age", "29m50s"]);
    release.wait_ready("technicaluser", &tenant, "first");
    let (id, secret) = release.credentials(&tenant, "first");
    release.token(&id, &secret, "");

    let admin = |path: &str| {
        let url = format!("http://127.0.0.1:{}{path}", release.admin_port);
        http::get(&url).expect("the admin port answers")
    };
    let ready = || admin("/readyz").status == 200;
    let until = |what: &str, since: Instant, holds: &dyn Fn() -> bool| {
        eventually(what, LIMIT, || {
            if holds() { Ok(()) } else { Err(release.tail()) }
        });
        let took = since.elapsed().as_secs_f64();
        println!("{what}: after {took:.1} s");
        took
    };
    let settled = || {
        let since = Instant::now();
        until("ready", since, &ready);
        // So that what follows begins from a fresh contact.
        until("a fresh contact", since, &|| {
            contact_age(&admin("/metrics").text()) < 0.5
        });
    };

    // An outage that is shorter than all limits is not noticed.
    settled();
    cluster.pause_api_server();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        assert_eq!(release.ask(&id, &secret, "").status, 200);
        assert!(since.elapsed() > Duration::from_secs(4) || ready());
        // No faster than a client's rate allows.
        std::thread::sleep(Duration::from_millis(25));
    }
    cluster.resume_api_server();

    settled();
    let old = contact_age(&admin("/metrics").text());
    cluster.pause_api_server();
    let since = Instant::now();
    assert_eq!(release.ask(&id, &secret, "").status, 200, "tokens go on");
    let took = until("not ready", since, &|| !ready());
    assert!(took > 5.0 - old - 2.5 && took < 5.0 * SLACK, "{took}");
    let said = admin("/readyz?verbose").text();
    assert!(
        said.contains("contact: This replica has had no contact"),
        "{said}"
    );
    assert_eq!(release.ask(&id, &secret, "").status, 200, "tokens go on");

    let took = until("503", since, &|| {
        release.ask(&id, &secret, "").status == 503
    });
    assert!(took > 10.0 - old - 2.5 && took < 10.0 * SLACK, "{took}");
    let answer = release.ask(&id, &secret, "");
    assert_eq!(answer.json()["error"], "temporarily_unavailable");
    assert!(answer.header("retry-after").is_some());
    let told = answer.json()["error_description"].to_string();
    assert!(told.contains("serving.maxStaleness"), "{told}");
    for document in ["jwks.json", "openid-configuration"] {
        let answer = http::get(&format!("{}/.well-known/{document}", release.issuer()));
        assert_eq!(answer.expect("it answers").status, 200, "{document}");
    }
    assert!(contact_age(&admin("/metrics").text()) > 10.0);

    cluster.resume_api_server();
    let since = Instant::now();
    until("a token again", since, &|| {
        release.ask(&id, &secret, "").status == 200
    });
    let took = until("ready again", since, &ready);
    assert!(took < 5.0 * SLACK, "{took}");

    // The same where the API server is gone and comes back as another process.
    cluster.stop_api_server();
    let since = Instant::now();
    until("503 without an API server", since, &|| {
        release.ask(&id, &secret, "").status == 503
    });
    cluster.start_api_server();
    let since = Instant::now();
    until("ready again", since, &ready);
    until("a token again", since, &|| {
        release.ask(&id, &secret, "").status == 200
    });

    // And what changes is seen, without a restart.
    release.user(&tenant, "second", "");
    release.wait_ready("technicaluser", &tenant, "second");
    let (id, secret) = release.credentials(&tenant, "second");
    release.token(&id, &secret, "");
    let metrics = admin("/metrics").text();
    assert!(metrics.contains("\nchancery_clock_sure 1"), "{metrics}");
}

fn contact_age(metrics: &str) -> f64 {
    let line = metrics
        .lines()
        .find(|l| l.starts_with("chancery_contact_age_seconds "));
    let value = line.and_then(|l| l.split(' ').nth(1));
    value.and_then(|v| v.parse().ok()).expect("the gauge")
}

/// A server that was stopped and goes on knows for a moment only what was true before: it tells a client
/// with a secret that was made meanwhile to come again, and not that it is wrong.
#[test]
fn a_server_that_was_stopped_calls_no_new_secret_wrong() {
    let release = Release::start("frozen");
    let tenant = release.tenant("frozen-tenant");
    release.ring("main", "algorithm: ES256");
    release.apply(&format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: TechnicalUser\nmetadata: {{name: user, namespace: {tenant}}}\nspec: {{audiences: ['https://a.example'], credential: {{secret: {{rotation: {{gracePeriod: 0s}}}}}}}}\n"
    ));
    let (port, account) = (free_port(), release.cluster.admin_kubeconfig());
    let server = release.serve_beside(account, port, free_port(), &[]);
    let (id, mut secret) = release.credentials(&tenant, "user");
    let url = format!("http://127.0.0.1:{port}/oauth/token");
    let ask = |secret: &str| http::token(&url, &id, secret, "");
    let gets = |secret: &str| {
        eventually("a token", LIMIT, || {
            let answer = ask(secret).map_err(|e| e.to_string())?;
            let told = || format!("{}: {}", answer.status, answer.text());
            (answer.status == 200).then_some(()).ok_or_else(told)
        });
    };
    gets(&secret);
    let mut told_to_come_again = 0;
    for round in 0..5 {
        server.signal(Signal::Stop);
        let since = Instant::now();
        release.cluster.kubectl_ok(&[
            "annotate",
            "technicaluser",
            "user",
            "-n",
            &tenant,
            "--overwrite",
            &format!("chancery.dev/rotate=round-{round}"),
        ]);
        let new = eventually("another secret", LIMIT, || {
            let (_, now) = release.credentials(&tenant, "user");
            let stood = since.elapsed() > Duration::from_secs(2);
            (now != secret && stood)
                .then_some(now)
                .ok_or_else(|| release.tail())
        });
        server.signal(Signal::Cont);
        for _ in 0..20 {
            let status = ask(&new).map(|answer| answer.status).unwrap_or_default();
            assert_ne!(status, 401, "round {round}: {}", server.output());
            told_to_come_again += i32::from(status == 503);
        }
        gets(&new);
        secret = new;
    }
    println!("{told_to_come_again} times it was told to come again");
    server.signal(Signal::Kill);
    server.wait_exit(LIMIT);
    release.printed(server.output());
}
