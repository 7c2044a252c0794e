//! A device and its companion agent, from the manifest to the last trace of both. The operator and each
//! of two replicas are processes of their own.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::load::part;
use crate::release::LIMIT;
use crate::revocation::{Field, KNOWN_WITHIN};
use crate::support::{eventually, http};

const DEVICE: &str = "phone";
const AGENT: &str = "phone-agent";

struct Pair {
    field: Field,
    tenant: String,
}

impl Pair {
    fn start(prefix: &str) -> Self {
        let field = Field::start(prefix);
        let tenant = field.release.tenant(&format!("{prefix}-tenant"));
        Self { field, tenant }
    }

    /// The device's manifest; `more` goes into its spec.
    fn apply(&self, companion: &str, more: &str) {
        let spec = format!("  family: Device\n  companionAgent: {companion}\n{more}");
        self.field.release.user(&self.tenant, DEVICE, &spec);
    }

    fn get(&self, name: &str) -> Value {
        self.field.release.get("technicaluser", &self.tenant, name)
    }

    fn wait_ready(&self) {
        let release = &self.field.release;
        eventually("the device names its companion", LIMIT, || {
            let status = self.get(DEVICE)["status"].clone();
            let named = status["companionAgent"]["name"] == AGENT;
            named.then_some(()).ok_or(status)
        });
        for name in [DEVICE, AGENT] {
            release.wait_ready("technicaluser", &self.tenant, name);
        }
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let all = [arguments, &["-n", &self.tenant]].concat();
        self.field.release.cluster.kubectl_ok(&all)
    }

    fn rotate(&self, name: &str, value: &str) {
        let annotation = format!("chancery.dev/rotate={value}");
        self.kubectl(&[
            "annotate",
            "technicaluser",
            name,
            "--overwrite",
            &annotation,
        ]);
    }

    /// Waits until neither replica takes that credential; gives how long it took.
    fn refused_everywhere(&self, what: &str, (id, secret): &(String, String), since: Instant) {
        for port in [self.field.release.port, self.field.replicas[0].port] {
            let url = format!("http://127.0.0.1:{port}/oauth/token");
            eventually(&format!("{what}: {id} is refused at {port}"), LIMIT, || {
                let answer = http::token(&url, id, secret, "").map_err(|e| e.to_string())?;
                (answer.status == 401).then_some(()).ok_or(answer.text())
            });
            let took = since.elapsed();
            println!("{what}: {id} is refused after {:.2} s", took.as_secs_f64());
            assert!(took < KNOWN_WITHIN, "{took:?}");
        }
    }

    fn taken_everywhere(&self, (id, secret): &(String, String)) {
        for port in [self.field.release.port, self.field.replicas[0].port] {
            let url = format!("http://127.0.0.1:{port}/oauth/token");
            eventually(&format!("{id} is taken at {port}"), LIMIT, || {
                let answer = http::token(&url, id, secret, "").map_err(|e| e.to_string())?;
                (answer.status == 200).then_some(()).ok_or(answer.text())
            });
        }
    }

    fn credentials(&self) -> [(String, String); 2] {
        [DEVICE, AGENT].map(|name| self.field.release.credentials(&self.tenant, name))
    }
}

fn revoke_at(port: u16, (id, secret): &(String, String)) -> http::Answer {
    let url = format!("http://127.0.0.1:{port}/auth/device/revoke");
    http::form(&url, id, secret, "").expect("the server answers")
}

#[test]
fn it_lives_as_its_device_says() {
    let pair = Pair::start("companion");
    pair.apply("{scopes: [read]}", "");
    pair.wait_ready();
    let [device, agent] = pair.credentials();
    assert!(device.1.starts_with("dk-") && agent.1.starts_with("ak-"));
    let release = &pair.field.release;
    let claims = |of: &(String, String)| part(&release.token(&of.0, &of.1, ""), 1);
    let (of_device, of_agent) = (claims(&device), claims(&agent));
    assert_eq!(of_device["client_family"], "Device", "{of_device}");
    assert_eq!(of_device["scope"], "read write", "{of_device}");
    assert_eq!(of_agent["client_family"], "Agent", "{of_agent}");
    assert_eq!(of_agent["scope"], "read", "{of_agent}");
    assert_eq!(of_agent["sub"], format!("{}.{AGENT}", pair.tenant));
    assert_eq!(of_agent["user_roles"], json!([]), "{of_agent}");
    let owner = pair.get(AGENT)["metadata"]["ownerReferences"][0].clone();
    assert_eq!(
        (&owner["name"], &owner["controller"]),
        (&json!(DEVICE), &json!(true))
    );
    assert_eq!(owner["blockOwnerDeletion"], Value::Null);
    let table = pair.kubectl(&["get", "technicalusers", "-o", "wide"]);
    assert!(
        table.contains("COMPANION") && table.contains(AGENT),
        "{table}"
    );
    let told = pair.kubectl(&["describe", "technicaluser", DEVICE]);
    assert!(told.contains("CompanionCreated"), "{told}");

    // Edited in the device, and by somebody in itself.
    pair.apply(
        "{roles: [clerk], audiences: ['https://b.example'], tokenTtl: 90s}",
        "",
    );
    eventually("its tokens follow", LIMIT, || {
        let claims = claims(&agent);
        let follows = claims["user_roles"] == json!(["clerk"]);
        follows.then_some(()).ok_or(claims)
    });
    let now = claims(&agent);
    assert_eq!(now["aud"], "https://b.example", "{now}");
    let life = now["exp"].as_i64().expect("exp") - now["iat"].as_i64().expect("iat");
    assert_eq!((life, &now["scope"]), (90, &Value::Null), "{now}");
    let more = r#"{"spec": {"scopes": ["write"]}}"#;
    let patch = ["patch", "technicaluser", AGENT, "--type=merge", "-p", more];
    pair.kubectl(&patch);
    eventually("it is put back", LIMIT, || {
        let scopes = pair.get(AGENT)["spec"]["scopes"].clone();
        (scopes == json!([])).then_some(()).ok_or(scopes)
    });
    eventually("and that is told", LIMIT, || {
        let told = pair.kubectl(&["events", "--for", "technicaluser/phone"]);
        let both = told.contains("CompanionUpdated") && told.contains("says of it: scopes");
        both.then_some(()).ok_or(told)
    });
    // More than its device has is no companion's.
    let beyond = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
        "metadata": {"name": DEVICE, "namespace": pair.tenant},
        "spec": {"family": "Device", "roles": [], "audiences": ["https://a.example"],
            "companionAgent": {"roles": ["clerk"]}, "credential": {"secret": {}}},
    });
    let scratch = crate::support::Scratch::new("beyond");
    let file = scratch.write("beyond.json", beyond.to_string());
    let answer = release
        .cluster
        .kubectl(&["apply", "-f", &file.display().to_string()]);
    let told = "companionAgent.roles has a role that the device does not have";
    assert!(
        !answer.success() && answer.stderr.contains(told),
        "{answer:?}"
    );

    // Suspended with its device, and back with it.
    pair.taken_everywhere(&agent);
    let since = Instant::now();
    pair.apply("{}", "  suspended: true\n");
    for one in [&device, &agent] {
        pair.refused_everywhere("suspended", one, since);
    }
    pair.apply("{}", "  suspended: false\n");
    for one in [&device, &agent] {
        pair.taken_everywhere(one);
    }

    // A technical user that somebody has made has that name.
    release.user(&pair.tenant, "robot", "  tokenTtl: 2m\n");
    release.wait_ready("technicaluser", &pair.tenant, "robot");
    let robot = release.credentials(&pair.tenant, "robot");
    let before = pair.get("robot");
    release.user(
        &pair.tenant,
        "other",
        "  family: Device\n  companionAgent: {name: robot}\n",
    );
    let reason = "CompanionNameConflict";
    release.wait_reason("technicaluser", &pair.tenant, "other", "Stalled", reason);
    release.wait_ready("technicaluser", &pair.tenant, "other");
    let other = release.credentials(&pair.tenant, "other");
    assert_eq!(claims(&other)["client_family"], "Device");
    assert_eq!(claims(&robot)["client_family"], "Integration");
    let after = pair.get("robot");
    for part in ["spec", "metadata"] {
        assert_eq!(after[part], before[part], "it was left as it was");
    }
    // A slip of the pen, the name of somebody else's, takes nothing away.
    let rename = |name: &str| {
        let patch = json!({"spec": {"companionAgent": {"name": name}}}).to_string();
        pair.kubectl(&[
            "patch",
            "technicaluser",
            DEVICE,
            "--type=merge",
            "-p",
            &patch,
        ]);
    };
    rename("robot");
    release.wait_reason("technicaluser", &pair.tenant, DEVICE, "Stalled", reason);
    assert_eq!(pair.get(DEVICE)["status"]["companionAgent"]["name"], AGENT);
    pair.taken_everywhere(&agent);
    assert_eq!(
        pair.get("robot")["metadata"]["ownerReferences"],
        Value::Null
    );
    rename("helper");
    eventually("another agent takes its place", LIMIT, || {
        let named = pair.get(DEVICE)["status"]["companionAgent"]["name"].clone();
        (named == "helper").then_some(()).ok_or(named)
    });
    pair.refused_everywhere("renamed", &agent, Instant::now());
    rename(AGENT);
    pair.wait_ready();
    let [_, agent] = pair.credentials();

    // That device revokes itself, and not what is not its own.
    assert_eq!(revoke_at(release.port, &other).status, 200);
    pair.refused_everywhere("revoked", &other, Instant::now());
    claims(&robot);

    // It goes with its device.
    let since = Instant::now();
    pair.kubectl(&["delete", "technicaluser", DEVICE]);
    pair.refused_everywhere("deleted", &agent, since);
    eventually("nothing is left of either", LIMIT, || {
        let named = |kind: &str, namespace: &str| -> Vec<String> {
            let all = release.list(kind, namespace).into_iter();
            let names = all.map(|o| o["metadata"]["name"].as_str().unwrap_or("").to_owned());
            names.filter(|name| name.contains(DEVICE)).collect()
        };
        let left = [
            named("technicalusers", &pair.tenant),
            named("secrets", &pair.tenant),
            named("secrets", &release.name),
        ]
        .concat();
        left.is_empty().then_some(()).ok_or(left.join(", "))
    });
    pair.field.end();
}

/// What a restore brings back has no owner: the agent of a suspended device gets nothing by that, and is its
/// device's again. That of a device which is gone for good says what to do.
#[test]
fn an_agent_that_has_lost_its_device_gets_nothing() {
    let mut pair = Pair::start("orphan");
    pair.apply("{scopes: [read]}", "");
    pair.wait_ready();
    let [device, agent] = pair.credentials();
    pair.taken_everywhere(&agent);
    pair.apply("{scopes: [read]}", "  suspended: true\n");
    for one in [&device, &agent] {
        pair.refused_everywhere("suspended", one, Instant::now());
    }
    let saved = [DEVICE, AGENT].map(|name| {
        let all = [
            pair.get(name),
            pair.field
                .release
                .get("secret", &pair.tenant, &format!("{name}-credentials")),
            pair.field.release.get(
                "secret",
                &pair.field.release.name,
                &format!("{}.{name}-credentials", pair.tenant),
            ),
        ];
        all.map(|mut object| {
            let from = object["metadata"].clone();
            object["metadata"] = json!({});
            for kept in ["name", "namespace", "labels", "annotations"] {
                object["metadata"][kept] = from[kept].clone();
            }
            object.as_object_mut().expect("an object").remove("status");
            object
        })
    });
    pair.kubectl(&["delete", "technicaluser", DEVICE, "--wait"]);
    eventually("all is gone", LIMIT, || {
        let left = [
            pair.field.release.list("technicalusers", &pair.tenant),
            pair.field.release.list("secrets", &pair.tenant),
        ]
        .concat();
        left.is_empty().then_some(()).ok_or(json!(left))
    });
    pair.field.kill_operator();
    // Secrets first, and the agent before its device.
    let [device_saved, agent_saved] = saved;
    for saved in [&agent_saved, &device_saved] {
        for object in saved[1..].iter().chain(&saved[..1]) {
            pair.field.release.apply(&object.to_string());
        }
    }
    pair.refused_everywhere("restored", &agent, Instant::now());
    pair.field.operator();
    let release = &pair.field.release;
    eventually("it is its device's again", LIMIT, || {
        let owner = pair.get(AGENT)["metadata"]["ownerReferences"][0]["name"].clone();
        (owner == DEVICE).then_some(()).ok_or(release.tail())
    });
    for one in [&device, &agent] {
        pair.refused_everywhere("still suspended", one, Instant::now());
    }
    pair.apply("{scopes: [read]}", "  suspended: false\n");
    for one in [&device, &agent] {
        pair.taken_everywhere(one);
    }

    // Left behind on purpose.
    pair.kubectl(&["delete", "technicaluser", DEVICE, "--cascade=orphan"]);
    pair.refused_everywhere("orphaned", &agent, Instant::now());
    let reason = "CompanionOrphaned";
    let told = release.wait_reason("technicaluser", &pair.tenant, AGENT, "Stalled", reason);
    let told = told["message"].as_str().unwrap_or("").to_owned();
    let (_, how) = told.split_once("kubectl ").expect("a command");
    let how: Vec<&str> = how.split_whitespace().collect();
    release.cluster.kubectl_ok(&how);
    pair.taken_everywhere(&agent);
    release.wait_ready("technicaluser", &pair.tenant, AGENT);
    pair.field.end();
}

#[test]
fn both_are_revoked_by_one_call_and_back_by_one_annotation() {
    let mut pair = Pair::start("pair");
    pair.apply("{}", "");
    pair.wait_ready();
    let old = pair.credentials();
    for one in &old {
        pair.taken_everywhere(one);
    }
    let [device, agent] = &old;
    let (here, beside) = (pair.field.release.port, pair.field.replicas[0].port);
    // An agent is no device.
    assert_eq!(revoke_at(here, agent).status, 403);
    let since = Instant::now();
    assert_eq!(revoke_at(beside, device).status, 200);
    for one in [agent, device] {
        pair.refused_everywhere("revoked", one, since);
    }
    pair.field
        .wait_known("all that both were issued is revoked", 0, 2);
    let release = &pair.field.release;
    for name in [DEVICE, AGENT] {
        release.wait_reason(
            "technicaluser",
            &pair.tenant,
            name,
            "Stalled",
            "RevokedByDevice",
        );
        let revoked = pair.get(name)["status"]["revoked"].clone();
        assert!(revoked["at"].is_string(), "{name}: {revoked}");
    }
    pair.field.wait_home("it is home");

    // Through restarts of everything, and the same manifest again.
    pair.field.kill_operator();
    pair.field.kill_replicas();
    pair.field.release.kill();
    pair.field.operator();
    pair.field.release.serve(&[]);
    pair.field.replica();
    pair.apply("{}", "");
    pair.apply("{}", "  tokenTtl: 2m\n");
    // The agent's own annotation does not bring it back.
    pair.rotate(AGENT, "alone");
    for name in [DEVICE, AGENT] {
        let release = &pair.field.release;
        eventually(&format!("{name} was looked at"), LIMIT, || {
            let user = pair.get(name);
            let seen = &user["status"]["observedGeneration"];
            (*seen == user["metadata"]["generation"])
                .then_some(())
                .ok_or(user["status"].clone())
        });
        release.wait_reason(
            "technicaluser",
            &pair.tenant,
            name,
            "Stalled",
            "RevokedByDevice",
        );
    }
    let now = Instant::now();
    eventually("the servers are there", LIMIT, || {
        let url = format!(
            "http://127.0.0.1:{}/oauth/token",
            pair.field.replicas[0].port
        );
        http::token(&url, "nobody", "x", "").map_err(|e| e.to_string())
    });
    for one in &old {
        pair.refused_everywhere("after restarts", one, now);
    }
    let hashes = |name: &str| {
        let release = &pair.field.release;
        let name = format!("{}.{name}-credentials", pair.tenant);
        release.secret_value(&release.name, &name, "credentials.json")
    };
    assert_eq!(
        (hashes(DEVICE).as_deref(), hashes(AGENT).as_deref()),
        (Some("[]"), Some("[]"))
    );

    // Found: both are back, with new secrets.
    pair.rotate(DEVICE, "found");
    let release = &pair.field.release;
    for name in [DEVICE, AGENT] {
        release.wait_ready("technicaluser", &pair.tenant, name);
        assert_eq!(pair.get(name)["status"]["revoked"], Value::Null);
    }
    let new = pair.credentials();
    for (new, old) in new.iter().zip(&old) {
        assert_ne!(new.1, old.1);
        pair.taken_everywhere(new);
        pair.refused_everywhere("the lost one", old, Instant::now());
    }
    // And they can be lost again, while no operator runs: the outbox alone tells.
    pair.field.kill_operator();
    let since = Instant::now();
    assert_eq!(revoke_at(pair.field.release.port, &new[0]).status, 200);
    for one in &new {
        pair.refused_everywhere("again, with no operator", one, since);
    }
    pair.field.operator();
    pair.field.wait_home("the next operator brought it home");
    let release = &pair.field.release;
    release.wait_reason(
        "technicaluser",
        &pair.tenant,
        AGENT,
        "Stalled",
        "RevokedByDevice",
    );
    pair.field.end();
}
