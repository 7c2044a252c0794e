//! Users on a real control plane, with a second Chancery as the provider: who comes for the first time is
//! enrolled, who is suspended is refused at every replica, and nobody takes more room than there is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chancery::crypto::jws::sign_token;
use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::Algorithm;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::exchange::{GRANT, TYPE};
use crate::load::part;
use crate::provider::Circle;
use crate::release::{LIMIT, Release};
use crate::revocation::KNOWN_WITHIN;
use crate::support::{Proc, Signal, eventually, free_port, http};

/// A circle in which people come from the other release, with a second replica that serves.
struct Field {
    circle: Circle,
    client: (String, String),
    beside: (u16, Proc),
    key: KeyPair,
}

impl Field {
    /// `more` goes into the provider's spec.
    fn start(name: &str, config: &str, namespace: Option<&str>, more: &str) -> Self {
        let circle = Circle::with(name, config);
        let people = |release: &Release| {
            release.apply(&format!(
                "apiVersion: chancery.dev/v1alpha1\nkind: SigningKey\nmetadata: {{name: people, namespace: {}}}\nspec: {{audience: human, algorithm: EdDSA, rotation: {{publishLead: 1s}}}}\n",
                release.name
            ));
            release.wait_ready("signingkey", &release.name, "people");
        };
        people(&circle.provider);
        circle.trusting.ring("main", "algorithm: ES256");
        people(&circle.trusting);
        let tenant = circle.tenant.clone();
        let own = circle.trusting.name.clone();
        circle.trust_in(namespace.map_or(&tenant, |_| &own), "partner", more);
        circle
            .trusting
            .user(&tenant, "front", "  onBehalfOf: true\n  introspect: true\n");
        let of = namespace.map_or(&tenant, |_| &own);
        circle.trusting.wait_ready("oidcprovider", of, "partner");
        circle
            .trusting
            .wait_ready("technicaluser", &tenant, "front");
        let client = circle.trusting.credentials(&tenant, "front");
        let (port, admin) = (free_port(), free_port());
        let account = circle.trusting.cluster.admin_kubeconfig();
        let config = circle.config();
        let beside = circle
            .trusting
            .serve_beside(account, port, admin, &["--config", &config]);
        let key = key_of(&circle.provider);
        Self {
            circle,
            client,
            beside: (port, beside),
            key,
        }
    }

    fn release(&self) -> &Release {
        &self.circle.trusting
    }

    /// What a sign-in at the provider would give a person.
    fn signed_in(&self, subject: &str, more: &Value) -> String {
        let now = chancery::clock::system().now().as_second();
        let mut claims = json!({
            "iss": self.circle.provider.issuer(), "sub": subject, "aud": ["orders"], "client_id": "app",
            "iat": now, "exp": now + 1000, "jti": format!("of-{subject}"), "scope": "read write",
            "caas_org_id": self.circle.tenant,
        });
        let more = more.as_object().cloned().unwrap_or_default();
        claims.as_object_mut().expect("an object").extend(more);
        sign_token(&self.key, &claims).expect("signed")
    }

    fn exchange_at(&self, port: u16, token: &str) -> http::Answer {
        let url = format!("http://127.0.0.1:{port}/oauth/token");
        let body = format!("grant_type={GRANT}&subject_token={token}&subject_token_type={TYPE}");
        http::form(&url, &self.client.0, &self.client.1, &body).expect("the server answers")
    }

    fn ports(&self) -> [u16; 2] {
        [self.release().port, self.beside.0]
    }

    /// Waits until each replica gives the person a token, and gives the last one.
    fn comes_in(&self, token: &str) -> String {
        let mut given = String::new();
        for port in self.ports() {
            given = eventually("a replica gives a token", LIMIT, || {
                let answer = self.exchange_at(port, token);
                let token = answer.json()["access_token"].as_str().map(str::to_owned);
                token.ok_or_else(|| format!("{}\n{}", answer.text(), self.release().tail()))
            });
        }
        given
    }

    /// Waits until something is so at each replica, and gives how long that took.
    fn soon(&self, what: &str, look: impl Fn(u16) -> Result<(), String>) {
        let since = Instant::now();
        for port in self.ports() {
            eventually(what, LIMIT, || look(port));
        }
        let took = since.elapsed();
        println!("{what}: after {:.2} s", took.as_secs_f64());
        assert!(took < KNOWN_WITHIN, "{what}: {took:?}");
    }

    fn users(&self) -> Vec<Value> {
        self.release()
            .list("users.chancery.dev", &self.circle.tenant)
    }

    fn patch(&self, name: &str, spec: &Value) {
        let patch = json!({ "spec": spec }).to_string();
        let of = [
            "patch",
            "users.chancery.dev",
            name,
            "-n",
            &self.circle.tenant,
        ];
        let patch = [&of[..], &["--type=merge", "-p", &patch]].concat();
        self.release().cluster.kubectl_ok(&patch);
    }

    fn event(&self, reason: &str) {
        eventually(&format!("{reason} is told"), LIMIT, || {
            let selector = format!("--field-selector=reason={reason}");
            let get = [
                "get",
                "events",
                "-n",
                &self.release().name,
                &selector,
                "-o",
                "name",
            ];
            let said = self.release().cluster.kubectl_ok(&get);
            (!said.trim().is_empty())
                .then_some(())
                .ok_or(self.release().tail())
        });
    }

    fn end(self) {
        let (_, beside) = self.beside;
        beside.signal(Signal::Kill);
        beside.wait_exit(LIMIT);
        self.circle.trusting.printed(beside.output());
    }
}

fn key_of(release: &Release) -> KeyPair {
    let secret = release.get("secret", &release.name, "people-1");
    let data = secret["data"].as_object().expect("data").values();
    let mut texts = data.filter_map(|v| String::from_utf8(STANDARD.decode(v.as_str()?).ok()?).ok());
    let pem = texts.find(|text| text.contains("PRIVATE KEY"));
    KeyPair::from_pem(Algorithm::EdDSA, &pem.expect("a key")).expect("a key pair")
}

#[test]
fn people_are_enrolled_suspended_and_bounded() {
    let field = Field::start(
        "users",
        "users: {maxPerTenant: 3}\n",
        None,
        "  autoEnroll: {users: true}\n",
    );
    let tenant = field.circle.tenant.clone();
    let ann = field.signed_in("ann", &json!({"user_roles": ["BOSS"]}));
    let token = field.comes_in(&ann);
    assert_eq!(part(&token, 1)["sub"], format!("{tenant}/partner:ann"));
    assert_eq!(part(&token, 1)["user_roles"], json!([]));
    let user = eventually("she is a User", LIMIT, || match field.users().as_slice() {
        [user] if user["status"]["id"].is_string() => Ok(user.clone()),
        other => Err(format!("{other:?}\n{}", field.release().tail())),
    });
    let name = user["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    assert_eq!(user["status"]["id"], format!("{tenant}/partner:ann"));
    assert_eq!(
        user["spec"],
        json!({"provider": {"name": "partner", "scope": "Tenant"}, "subject": "ann", "roles": [], "suspended": false})
    );
    field
        .release()
        .wait_ready("users.chancery.dev", &tenant, &name);
    eventually("no note is left", LIMIT, || {
        let map = field
            .release()
            .get("configmap", &field.release().name, "chancery-enrolments");
        map["data"].is_null().then_some(()).ok_or(map)
    });
    // Whoever is known costs no write.
    field.comes_in(&ann);
    let version = |user: &Value| user["metadata"]["resourceVersion"].clone();
    let settled = field.users();
    field.comes_in(&ann);
    assert_eq!(version(&field.users()[0]), version(&settled[0]));

    // Roles that a person gives, as far as the Subscription allows them.
    field.patch(&name, &json!({"roles": ["clerk", "ADMIN"]}));
    field.soon("her role is known everywhere", |port| {
        let answer = field.exchange_at(port, &ann);
        let token = answer.json()["access_token"].as_str().map(str::to_owned);
        let roles = part(&token.ok_or(answer.text())?, 1)["user_roles"].clone();
        (roles == json!(["clerk"]))
            .then_some(())
            .ok_or(roles.to_string())
    });

    let introspects = |port: u16| -> Value {
        let url = format!("http://127.0.0.1:{port}/oauth/introspect");
        let (id, secret) = &field.client;
        let answer = http::form(&url, id, secret, &format!("token={token}"));
        answer.expect("an answer").json()["active"].clone()
    };
    for suspended in [true, false] {
        field.patch(&name, &json!({ "suspended": suspended }));
        let what = format!("suspended: {suspended}, everywhere");
        field.soon(&what, |port| {
            let answer = field.exchange_at(port, &ann);
            let refused = answer.status == 400 && answer.json()["error"] == "access_denied";
            let holds = introspects(port);
            let as_it_should = refused == suspended && holds == json!(!suspended);
            as_it_should
                .then_some(())
                .ok_or(format!("{} {holds}", answer.text()))
        });
    }

    // Deleted, she is enrolled again when she comes again: who is to be kept out is suspended.
    let delete = ["delete", "users.chancery.dev", &name, "-n", &tenant];
    field.release().cluster.kubectl_ok(&delete);
    eventually("she is back without roles", LIMIT, || {
        field.comes_in(&ann);
        let users = field.users();
        let back = users
            .first()
            .filter(|user| user["spec"]["roles"] == json!([]));
        back.map(drop).ok_or(format!("{users:?}"))
    });

    // What no server can have noted.
    let stranger = field.release().tenant("users-stranger");
    let notes = json!({"data": {
        &stranger: json!({format!("{tenant}/partner"): ["mallory"]}).to_string(),
        "garbage": "no list",
    }});
    let own = field.release().name.clone();
    let patch = notes.to_string();
    let of = ["patch", "configmap", "chancery-enrolments", "-n", &own];
    let patch = [&of[..], &["--type=merge", "-p", &patch]].concat();
    field.release().cluster.kubectl_ok(&patch);
    field.event("EnrolmentRefused");
    assert!(
        field
            .release()
            .list("users.chancery.dev", &stranger)
            .is_empty()
    );

    // As many as may be; whoever is known comes in all the same.
    for subject in ["bob", "carol"] {
        field.comes_in(&field.signed_in(subject, &json!({})));
    }
    field.event("UsersFull");
    let dave = field.signed_in("dave", &json!({}));
    field.soon("nobody else is enrolled", |port| {
        let answer = field.exchange_at(port, &dave);
        (answer.status == 503).then_some(()).ok_or(answer.text())
    });
    field.comes_in(&ann);
    assert_eq!(field.users().len(), 3);
    field.end();
}

#[test]
fn a_legal_entity_is_enrolled_once() {
    let field = Field::start(
        "entities",
        "legalEntities: {autoEnroll: true, namespacePrefix: entity-, allowed: {roles: [clerk]}}\n",
        Some("the operator's"),
        "  autoEnroll: {users: true, legalEntities: true}\n",
    );
    let id = format!("of-{}", field.circle.tenant);
    let ann = field.signed_in("ann", &json!({ "caas_org_id": id }));
    let refused = |port: u16| {
        let answer = field.exchange_at(port, &ann);
        let denied = answer.json()["error"] == "access_denied";
        denied.then_some(()).ok_or(answer.text())
    };
    for port in field.ports() {
        eventually("she is another tenant's", LIMIT, || refused(port));
    }
    let namespace = format!("entity-{id}");
    let subscription = eventually("it has a Subscription", LIMIT, || {
        let made = field.release().get("subscription", &namespace, "enrolled");
        let current = made["status"]["current"] == true;
        current
            .then_some(made.clone())
            .ok_or(format!("{made}\n{}", field.release().tail()))
    });
    assert_eq!(
        subscription["spec"]["legalEntity"],
        json!({"id": id, "name": format!("Org. {id}")})
    );
    assert_eq!(subscription["spec"]["tier"], "Free");
    // Again, it is known; and she is still no other tenant's person.
    refused(field.release().port).expect("refused");
    assert!(field.users().is_empty());
    let delete = ["delete", "namespace", &namespace, "--wait=false"];
    field.release().cluster.kubectl_ok(&delete);
    field.end();
}
