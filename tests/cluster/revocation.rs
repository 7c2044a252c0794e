//! Tokens that are revoked: at one replica, known to the others, whoever is killed in between, and
//! whatever is written into the outbox by hand. The operator and each replica are processes of
//! their own.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::load::part;
use crate::release::{LIMIT, Release};
use crate::support::{Proc, Signal, eventually, free_port, http};

/// What is promised is 2 s. Machines that do much else at the same time get five times as long.
pub const KNOWN_WITHIN: Duration = Duration::from_secs(10);

pub struct Field {
    pub release: Release,
    operator: Option<Proc>,
    pub replicas: Vec<Replica>,
}

pub struct Replica {
    pub port: u16,
    admin_port: u16,
    process: Proc,
}

impl Field {
    /// An operator, and two replicas that serve.
    pub fn start(prefix: &str) -> Self {
        let mut release = Release::prepared(prefix);
        release.ring("main", "algorithm: ES256");
        // The first replica is the release's own, under whose issuer all of them serve.
        release.serve(&[]);
        let mut field = Self {
            release,
            operator: None,
            replicas: Vec::new(),
        };
        field.operator();
        field.replica();
        field
    }

    pub fn operator(&mut self) {
        let account = self.release.cluster.admin_kubeconfig();
        let args = [
            "operator",
            "--kubeconfig",
            &account.display().to_string(),
            "--issuer",
            &self.release.issuer(),
            "--environment",
            &self.release.name,
            "--namespace",
            &self.release.name,
            "--admin-listen",
            &format!("127.0.0.1:{}", free_port()),
        ];
        self.operator = Some(Proc::run(crate::support::chancery_bin(), &args, &[]));
    }

    pub fn kill_operator(&mut self) {
        let operator = self.operator.take().expect("it runs");
        operator.signal(Signal::Kill);
        operator.wait_exit(LIMIT);
        self.release.printed(operator.output());
        self.release.forget_leader();
    }

    /// Ends the replicas beside the release's own.
    pub fn kill_replicas(&mut self) {
        for replica in self.replicas.drain(..) {
            replica.process.signal(Signal::Kill);
            replica.process.wait_exit(LIMIT);
            self.release.printed(replica.process.output());
        }
    }

    pub fn replica(&mut self) {
        let (port, admin_port) = (free_port(), free_port());
        let account = self.release.cluster.admin_kubeconfig();
        let process = self.release.serve_beside(account, port, admin_port, &[]);
        self.replicas.push(Replica {
            port,
            admin_port,
            process,
        });
    }

    /// How many single tokens, and clients, each replica knows to be revoked.
    fn known(&self) -> Vec<(i64, i64)> {
        let first = self.release.admin_port;
        let ports = self.replicas.iter().map(|r| r.admin_port);
        let count = |port: u16| {
            let url = format!("http://127.0.0.1:{port}/metrics");
            let metrics = http::get(&url).map(|a| a.text()).unwrap_or_default();
            let gauge = |name: &str| -> i64 {
                let line = metrics.lines().find_map(|l| l.strip_prefix(name));
                line.and_then(|n| n.trim().parse().ok()).unwrap_or(-1)
            };
            (
                gauge("chancery_revoked_tokens "),
                gauge("chancery_revoked_clients "),
            )
        };
        [first].into_iter().chain(ports).map(count).collect()
    }

    pub fn wait_known(&self, what: &str, tokens: i64, clients: i64) -> f64 {
        let since = Instant::now();
        eventually(what, LIMIT, || {
            let known = self.known();
            let all = known.iter().all(|k| *k == (tokens, clients));
            all.then_some(())
                .ok_or(format!("{known:?}\n{}", self.release.tail()))
        });
        let took = since.elapsed().as_secs_f64();
        println!("{what}: after {took:.2} s");
        took
    }

    fn data(&self, map: &str) -> Value {
        self.release.get("configmap", &self.release.name, map)["data"].clone()
    }

    /// The list, read as a person would.
    fn listed(&self, tenant: &str) -> Value {
        let share = self.data("chancery-revocations")[tenant].clone();
        serde_json::from_str(share.as_str().unwrap_or("null")).expect("JSON")
    }

    pub fn wait_home(&self, what: &str) {
        eventually(what, LIMIT, || {
            let data = self.data("chancery-outbox");
            data.is_null().then_some(()).ok_or(data)
        });
    }

    pub fn end(mut self) {
        if let Some(operator) = self.operator.take() {
            operator.signal(Signal::Kill);
            operator.wait_exit(LIMIT);
            self.release.printed(operator.output());
        }
        self.kill_replicas();
    }
}

fn revoke_at(port: u16, id: &str, secret: &str, token: &str) -> http::Answer {
    let url = format!("http://127.0.0.1:{port}/oauth/revoke");
    http::form(&url, id, secret, &format!("token={token}")).expect("the server answers")
}

#[test]
fn known_everywhere_whoever_is_killed() {
    let mut field = Field::start("revoke");
    let tenant = field.release.tenant("revoke-tenant");
    field.release.user(&tenant, "robot", "");
    field.release.user(&tenant, "other", "");
    for user in ["robot", "other"] {
        field.release.wait_ready("technicaluser", &tenant, user);
    }
    let (id, secret) = field.release.credentials(&tenant, "robot");
    let (other, others) = field.release.credentials(&tenant, "other");
    let new = || field.release.token(&id, &secret, "");
    let (first, second, third) = (new(), new(), new());
    let foreign = field.release.token(&other, &others, "");
    let beside = field.replicas[0].port;
    eventually("the second replica serves", LIMIT, || {
        let url = format!("http://127.0.0.1:{beside}/oauth/token");
        let answer = http::token(&url, &id, &secret, "").map_err(|e| e.to_string())?;
        (answer.status == 200).then_some(()).ok_or(answer.text())
    });
    field.wait_known("nothing is revoked", 0, 0);

    // At one replica, known to the other.
    let answer = revoke_at(beside, &id, &secret, &first);
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    let took = field.wait_known("one token is revoked, everywhere", 1, 0);
    assert!(took < KNOWN_WITHIN.as_secs_f64(), "{took}");
    field.wait_home("the operator brought it home");
    let jti = part(&first, 1)["jti"].as_str().expect("jti").to_owned();
    assert!(field.listed(&tenant)[&id]["tokens"][&jti].is_array());
    // Again, another client's, garbage: 200, and nothing more is known.
    for odd in [&first, &foreign, "garbage"] {
        assert_eq!(revoke_at(beside, &id, &secret, odd).status, 200);
    }
    assert_eq!(revoke_at(beside, &id, "wrong", &second).status, 401);

    // Without an operator it holds all the same, also for a replica that starts only now.
    field.kill_operator();
    let answer = revoke_at(field.release.port, &id, &secret, &second);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let took = field.wait_known("another one, with no operator", 2, 0);
    assert!(took < KNOWN_WITHIN.as_secs_f64(), "{took}");
    assert!(field.data("chancery-outbox")[&tenant].is_string());
    field.kill_replicas();
    field.replica();
    field.wait_known("a new replica knows both", 2, 0);

    // What the server that noted it no longer remembers is in the outbox, and comes home.
    field.release.kill();
    field.operator();
    field.wait_home("the next operator brought it home");
    let tokens = field.listed(&tenant)[&id]["tokens"].clone();
    assert_eq!(tokens.as_object().map(serde_json::Map::len), Some(2));
    field.release.serve(&[]);
    field.wait_known("all know both", 2, 0);

    // The list deleted by hand: who has seen it goes on, and what comes later is written.
    let map = [
        "delete",
        "configmap",
        "chancery-revocations",
        "-n",
        &field.release.name,
    ];
    field.release.cluster.kubectl_ok(&map);
    eventually("the list is there again", LIMIT, || {
        let map = field
            .release
            .get("configmap", &field.release.name, "chancery-revocations");
        map["metadata"]["uid"].is_string().then_some(()).ok_or(map)
    });
    field.wait_known("still both", 2, 0);
    let answer = revoke_at(field.replicas[0].port, &id, &secret, &third);
    assert_eq!(answer.status, 200);
    field.wait_known("and the third", 3, 0);
    field.wait_home("it came home");
    field.end();
}

#[test]
fn what_is_put_into_the_outbox_by_hand_is_refused_and_told() {
    let field = Field::start("outbox");
    let tenant = field.release.tenant("outbox-tenant");
    let stranger = field.release.tenant("outbox-stranger");
    field.release.user(&tenant, "robot", "");
    field.release.wait_ready("technicaluser", &tenant, "robot");
    let (id, secret) = field.release.credentials(&tenant, "robot");
    let token = field.release.token(&id, &secret, "");
    field.wait_known("nothing is revoked", 0, 0);
    let now = part(&token, 1)["iat"].as_i64().expect("iat");
    let entry =
        |client: &str| json!({client: {"tokens": {"forged": [now, now + 300]}}}).to_string();
    let namespace = field.release.name.clone();
    let tampered = [
        (stranger.as_str(), entry(&id)),
        ("garbage", "no list at all".into()),
        ("huge", "x".repeat(700_000)),
        (
            tenant.as_str(),
            json!({&id: {"before": now + 999_999, "until": now + 9_999_999}}).to_string(),
        ),
    ];
    for (key, value) in tampered {
        let patch = json!({"data": {key: value}}).to_string();
        let scratch = crate::support::Scratch::new("outbox");
        let file = scratch.write("patch.json", &patch).display().to_string();
        let map = ["configmap", "chancery-outbox", "-n", &namespace];
        let patch = ["patch", "--type=merge", "--patch-file", &file];
        field
            .release
            .cluster
            .kubectl_ok(&[&patch[..], &map].concat());
        field.wait_home(&format!("the entry of {key} was taken away"));
    }
    eventually("it is told", LIMIT, || {
        let events = field
            .release
            .cluster
            .kubectl_ok(&["get", "events", "-n", &namespace]);
        let told = [
            "are not that tenant's",
            "no list of revocations",
            "before which no token",
        ];
        told.iter()
            .all(|part| events.contains(part))
            .then_some(())
            .ok_or(events)
    });
    assert_eq!(
        field.data("chancery-revocations"),
        Value::Null,
        "nothing came home"
    );
    field.wait_known("nothing is revoked by it", 0, 0);

    // And what is asked for meanwhile holds; beyond its number all of the client's is revoked.
    let port = field.replicas[0].port;
    assert_eq!(revoke_at(port, &id, &secret, &token).status, 200);
    field.wait_known("one is", 1, 0);
    for _ in 0..50 {
        let more = field.release.token(&id, &secret, "");
        let answer = revoke_at(port, &id, &secret, &more);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    field.wait_known("all of one client is", 0, 1);
    field.end();
}

#[test]
fn a_device_that_revoked_itself_stays_so_until_it_is_found() {
    let mut field = Field::start("device");
    let tenant = field.release.tenant("device-tenant");
    field.release.user(&tenant, "lost", "  family: Device\n");
    field.release.user(&tenant, "robot", "");
    for user in ["lost", "robot"] {
        field.release.wait_ready("technicaluser", &tenant, user);
    }
    let (id, secret) = field.release.credentials(&tenant, "lost");
    assert!(secret.starts_with("dk-"));
    let (robot, robots) = field.release.credentials(&tenant, "robot");
    field.release.token(&id, &secret, "");
    field.release.token(&robot, &robots, "");
    field.wait_known("nothing is revoked", 0, 0);
    let beside = field.replicas[0].port;
    let revoke = |id: &str, secret: &str| {
        let url = format!("http://127.0.0.1:{beside}/auth/device/revoke");
        http::form(&url, id, secret, "")
            .expect("the server answers")
            .status
    };
    assert_eq!(revoke(&robot, &robots), 403);
    assert_eq!(revoke(&id, "wrong"), 401);
    // With no operator, so that for a while only the outbox tells.
    field.kill_operator();
    let since = Instant::now();
    assert_eq!(revoke(&id, &secret), 200);
    field.release.refused(&id, &secret, "");
    let took = since.elapsed();
    println!(
        "refused at the other replica: after {:.2} s",
        took.as_secs_f64()
    );
    assert!(took < KNOWN_WITHIN, "{took:?}");
    field.wait_known("all that it was issued is revoked", 0, 1);
    field.operator();
    let lost = ("technicaluser", tenant.as_str(), "lost");
    let told = |field: &Field| {
        let (kind, name) = (lost.0, lost.2);
        field
            .release
            .wait_reason(kind, lost.1, name, "Stalled", "RevokedByDevice")
    };
    told(&field);
    let revoked = field.release.get(lost.0, lost.1, lost.2)["status"]["revoked"].clone();
    assert_eq!(revoked["reason"], "RevokedByDevice", "{revoked}");
    assert!(revoked["at"].is_string(), "{revoked}");
    field.wait_home("it is home");

    // Through restarts of everything, the same manifest again, and a Secret that somebody deletes.
    let refused = |field: &Field, why: &str| {
        let answer = field.release.refused(&id, &secret, "");
        assert_eq!(answer.status, 401, "{why}: {}", answer.text());
    };
    field.kill_operator();
    field.release.kill();
    field.operator();
    field.release.serve(&[]);
    field.release.token(&robot, &robots, "");
    refused(&field, "after restarts");
    field.release.user(&tenant, "lost", "  family: Device\n");
    field
        .release
        .user(&tenant, "lost", "  family: Device\n  tokenTtl: 2m\n");
    let hashes = format!("{tenant}.lost-credentials");
    let namespace = field.release.name.clone();
    let delete = ["delete", "secret", &hashes, "-n", &namespace];
    field.release.cluster.kubectl_ok(&delete);
    eventually("the Secret is there again", LIMIT, || {
        let secret = field.release.get("secret", &namespace, &hashes);
        let note = secret["metadata"]["annotations"]["chancery.dev/revoked"].clone();
        note.is_string()
            .then_some(())
            .ok_or(secret["metadata"].clone())
    });
    refused(&field, "after the manifest and the Secret");
    let generation = field.release.get(lost.0, lost.1, lost.2)["metadata"]["generation"].clone();
    eventually("the manifest was seen", LIMIT, || {
        let seen =
            field.release.get(lost.0, lost.1, lost.2)["status"]["observedGeneration"].clone();
        (seen == generation).then_some(()).ok_or(seen)
    });
    assert!(field.release.get(lost.0, lost.1, lost.2)["status"]["revoked"].is_object());

    // Found: a person asks for a new secret.
    let annotate = [
        "annotate",
        lost.0,
        lost.2,
        "-n",
        &tenant,
        "chancery.dev/rotate=found",
    ];
    field.release.cluster.kubectl_ok(&annotate);
    field.release.wait_ready(lost.0, lost.1, lost.2);
    let (_, new) = field.release.credentials(&tenant, "lost");
    assert_ne!(new, secret);
    field.release.token(&id, &new, "");
    refused(&field, "the lost one");
    assert!(field.release.get(lost.0, lost.1, lost.2)["status"]["revoked"].is_null());
    // And it can be lost again.
    let url = format!("{}/auth/device/revoke", field.release.issuer());
    let answer = http::form(&url, &id, &new, "").expect("the server answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    field.release.refused(&id, &new, "");
    told(&field);
    field.end();
}
