//! Whether a token holds, asked of a real release: each reason that it holds no more is known to every
//! replica.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::release::{LIMIT, Release};
use crate::revocation::KNOWN_WITHIN;
use crate::support::{ControlPlane, Scratch, eventually, free_port, http};

struct Field {
    release: Release,
    beside: u16,
}

fn introspect(port: u16, (id, secret): &(String, String), token: &str) -> Result<Value, String> {
    let url = format!("http://127.0.0.1:{port}/oauth/introspect");
    let answer = http::form(&url, id, secret, &format!("token={token}"));
    let answer = answer.map_err(|e| e.to_string())?;
    match answer.status {
        200 => Ok(answer.json()),
        status => Err(format!("{status}: {}", answer.text())),
    }
}

fn account(port: u16, path: &str, token: &str) -> http::Answer {
    let url = format!("http://127.0.0.1:{port}{path}");
    let bearer = format!("Bearer {token}");
    http::request("GET", &url, &[("authorization", &bearer)], b"").expect("the server answers")
}

impl Field {
    /// Waits until both replicas say so, by introspection and by `/account`, within what is promised.
    fn wait(&self, what: &str, asker: &(String, String), token: &str, active: bool) {
        let since = Instant::now();
        for port in [self.release.port, self.beside] {
            eventually(&format!("{what}, at {port}"), LIMIT, || {
                let answer = introspect(port, asker, token)?;
                let members = answer.as_object().map_or(0, serde_json::Map::len);
                assert!(
                    active || answer["active"] == true || members == 1,
                    "{answer}"
                );
                let account = account(port, "/account", token).status;
                let expected = if active { 200 } else { 401 };
                (answer["active"] == active && account == expected)
                    .then_some(())
                    .ok_or(format!("{answer}, {account}"))
            });
        }
        let took = since.elapsed();
        println!("{what}: after {:.2} s", took.as_secs_f64());
        assert!(took < KNOWN_WITHIN, "{what}: {took:?}");
    }

    fn kubectl(&self, args: &[&str]) {
        self.cluster().kubectl_ok(args);
    }

    fn cluster(&self) -> &'static ControlPlane {
        self.release.cluster
    }

    fn patch(&self, kind: &str, tenant: &str, name: &str, patch: &str) {
        self.kubectl(&[
            "patch", kind, name, "-n", tenant, "--type", "merge", "-p", patch,
        ]);
    }
}

#[test]
fn each_reason_is_known_to_every_replica() {
    let release = Release::start("introspect");
    release.ring("main", "algorithm: ES256");
    let (tenant, stranger) = (release.tenant("intro-one"), release.tenant("intro-two"));
    for name in ["robot", "fleeting"] {
        release.user(&tenant, name, "");
    }
    for tenant in [&tenant, &stranger] {
        release.user(tenant, "gateway", "  introspect: true\n");
    }
    for (tenant, name) in [
        (&tenant, "robot"),
        (&tenant, "fleeting"),
        (&tenant, "gateway"),
        (&stranger, "gateway"),
    ] {
        release.wait_ready("technicaluser", tenant, name);
    }
    let (robot, gateway) = (
        release.credentials(&tenant, "robot"),
        release.credentials(&tenant, "gateway"),
    );
    let fleeting = release.credentials(&tenant, "fleeting");
    let strangers = release.credentials(&stranger, "gateway");
    let token = release.token(&robot.0, &robot.1, "");
    let of_fleeting = release.token(&fleeting.0, &fleeting.1, "");
    let (beside, admin) = (free_port(), free_port());
    let account_file = release.cluster.admin_kubeconfig();
    let folder = Scratch::new("audit");
    let audit = folder.path().join("audit.jsonl");
    let audit_log = ["--audit-log", audit.to_str().expect("UTF-8")];
    let process = release.serve_beside(account_file, beside, admin, &audit_log);
    eventually("the second replica serves", LIMIT, || {
        introspect(beside, &gateway, "x")
    });
    let field = Field { release, beside };

    field.wait("it holds", &gateway, &token, true);
    let said = introspect(beside, &gateway, &token).expect("an answer");
    assert_eq!(said["client_id"], robot.0);
    assert_eq!(said["caas_org_id"], tenant);
    // Another tenant's: as if it were none.
    for port in [field.release.port, beside] {
        let none = introspect(port, &strangers, &token).expect("an answer");
        assert_eq!(none, serde_json::json!({"active": false}));
        let refused = introspect(port, &robot, &token).expect_err("it may not");
        assert!(refused.starts_with("403"), "{refused}");
    }
    let all = account(beside, "/account/subscriptions", &token).json();
    assert_eq!(all["subscriptions"][0]["status"], "ACTIVE");
    assert_eq!(all["subscriptions"].as_array().map(Vec::len), Some(1));

    let suspend = |value| format!("{{\"spec\":{{\"suspended\":{value}}}}}");
    field.patch("technicaluser", &tenant, "robot", &suspend(true));
    field.wait("suspended", &gateway, &token, false);
    field.patch("technicaluser", &tenant, "robot", &suspend(false));
    field.wait("it is back", &gateway, &token, true);

    let period = |to: &str| format!("{{\"spec\":{{\"periodTo\":{to}}}}}");
    field.patch(
        "subscription",
        &tenant,
        "main",
        &period("\"2026-01-01T00:00:00Z\""),
    );
    // Its own tenant's gateway has no current Subscription either, and is told so.
    field.wait("its Subscription has ended", &gateway, &token, false);
    field.patch("subscription", &tenant, "main", &period("null"));
    field.wait("it is current again", &gateway, &token, true);

    field.wait("another one's", &gateway, &of_fleeting, true);
    field.kubectl(&["delete", "technicaluser", "fleeting", "-n", &tenant]);
    field.wait(
        "its technical user is deleted",
        &gateway,
        &of_fleeting,
        false,
    );

    let kid = crate::load::part(&token, 0)["kid"].clone();
    let url = format!("http://127.0.0.1:{beside}/oauth/revoke");
    let second = field.release.token(&robot.0, &robot.1, "");
    let revoked = http::form(&url, &robot.0, &robot.1, &format!("token={second}"));
    assert_eq!(revoked.expect("an answer").status, 200);
    field.wait("revoked", &gateway, &second, false);
    let url = format!("http://127.0.0.1:{beside}/oauth/token");
    let issued = http::token(&url, &robot.0, &robot.1, "&scope=read").expect("an answer");
    let wrong = http::token(&url, &robot.0, "wrong", "").expect("an answer");
    assert_eq!((issued.status, wrong.status), (200, 401));
    let issued = issued.json()["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let (lines, text) = eventually("the audit log tells all three", LIMIT, || {
        let text = std::fs::read_to_string(&audit).map_err(|e| e.to_string())?;
        let lines: Vec<Value> = text
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect();
        (lines.len() == 3)
            .then_some((lines, text.clone()))
            .ok_or(text)
    });
    let told = |n: usize, member: &str| lines[n][member].as_str().unwrap_or_default().to_owned();
    let claims = |token: &str| crate::load::part(token, 1);
    assert_eq!(told(0, "event"), "revoked");
    assert_eq!(lines[0]["jti"], claims(&second)["jti"]);
    assert_eq!(told(1, "event"), "issued");
    assert_eq!(lines[1]["jti"], claims(&issued)["jti"]);
    assert_eq!(
        (told(1, "tenant"), told(1, "client")),
        (tenant.clone(), robot.0.clone())
    );
    assert_eq!(told(1, "scope"), "read");
    assert_eq!(
        (told(2, "event"), told(2, "error")),
        ("refused".into(), "invalid_client".into())
    );
    assert!(!text.contains(&robot.1) && !text.contains("eyJ"), "{text}");

    let withdraw =
        format!("{{\"spec\":{{\"invalidated\":[{{\"keyId\":{kid},\"gracePeriod\":\"0s\"}}]}}}}");
    let name = field.release.name.clone();
    field.patch("signingkey", &name, "main", &withdraw);
    eventually("its key is withdrawn", LIMIT, || {
        let answer = introspect(beside, &gateway, &token)?;
        (answer["active"] == false)
            .then_some(())
            .ok_or(answer.to_string())
    });
    process.signal(crate::support::Signal::Kill);
    process.wait_exit(Duration::from_secs(30));
    field.release.printed(process.output());
}
