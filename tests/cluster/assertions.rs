//! Clients without a secret, on a real control plane: keys of their own, `ServiceAccount`s, and the way
//! to both from a secret, with clients that never rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::{Algorithm, RsaKeySize};
use serde_json::{Value, json};

use crate::release::{LIMIT, Release};
use crate::ring::now;
use crate::support::http::{self, Answer};
use crate::support::{Proc, eventually, free_port};

const TYPE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";

/// A release with two replicas, a tenant and a ring that signs.
struct Trial {
    release: Release,
    tenant: String,
    ports: [u16; 2],
    second: Proc,
}

/// How a client asks for a token at a port.
pub type Ask = Arc<dyn Fn(u16) -> std::io::Result<Answer> + Send + Sync>;

impl Trial {
    fn start(name: &str) -> Self {
        let release = Release::start(name);
        let tenant = release.tenant(&format!("{name}-tenant"));
        release.ring("main", "algorithm: ES256");
        release.wait_ready("signingkey", &release.name, "main");
        let port = free_port();
        let account = release.cluster.admin_kubeconfig();
        let second = release.start_process(account, port, free_port(), &[]);
        Self {
            ports: [release.port, port],
            release,
            tenant,
            second,
        }
    }

    /// Servers in the place of both replicas.
    fn only_serve(&mut self) {
        self.second.signal(crate::support::Signal::Kill);
        self.second.wait_exit(LIMIT);
        self.release.printed(self.second.output());
        self.release.serve(&[]);
        self.ports = [self.release.port; 2];
    }

    fn id(&self, user: &str) -> String {
        format!("{}.{user}", self.tenant)
    }

    /// A technical user with that credential.
    fn user(&self, name: &str, credential: &Value) {
        let tenant = &self.tenant;
        self.release.apply(&format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: TechnicalUser\nmetadata: {{name: {name}, namespace: {tenant}}}\nspec:\n  scopes: [read]\n  audiences: ['https://a.example']\n  credential: {credential}\n"
        ));
    }

    fn patch(&self, name: &str, patch: &Value) {
        let patch = patch.to_string();
        self.release.cluster.kubectl_ok(&[
            "patch",
            "technicaluser",
            name,
            "-n",
            &self.tenant,
            "--type=merge",
            "-p",
            &patch,
        ]);
    }

    /// Waits until every replica answers so.
    fn everywhere(&self, what: &str, ask: &Ask, status: u16) {
        for port in self.ports {
            eventually(&format!("{what}, at {port}"), LIMIT, || match ask(port) {
                Ok(answer) if answer.status == status => Ok(()),
                other => Err(format!("{other:?}\n{}", self.release.tail())),
            });
        }
    }

    fn status(&self, name: &str) -> Value {
        self.release.get("technicaluser", &self.tenant, name)["status"].clone()
    }

    /// Nothing of that technical user is left in either namespace.
    fn nothing_left(&self, name: &str) {
        let hashes = format!("{}-credentials", self.id(name));
        let delivered = format!("{name}-credentials");
        eventually("no Secret is left", LIMIT, || {
            let left = [
                self.release.get("secret", &self.release.name, &hashes),
                self.release.get("secret", &self.tenant, &delivered),
            ];
            let names = left.iter().map(|s| s["metadata"]["name"].to_string());
            left.iter()
                .all(Value::is_null)
                .then_some(())
                .ok_or_else(|| names.collect::<Vec<_>>().join(", "))
        });
    }
}

/// Asks all replicas in turn until it is ended.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Load {
    fn start(ports: [u16; 2], ask: Ask) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut issued, mut refused) = (0, Vec::new());
            for port in ports.iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                match ask(*port) {
                    Ok(answer) if answer.status == 200 => issued += 1,
                    other => refused.push(format!("{}: {other:?}", now())),
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            (issued, refused)
        });
        Self { stop, thread }
    }

    /// Ends it: nobody noticed anything.
    fn unnoticed(self, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let (issued, refused) = self.thread.join().expect("the load does not panic");
        println!("{what}: {issued} tokens, {} requests failed", refused.len());
        assert!(issued > 0, "{what}: it did something");
        assert!(refused.is_empty(), "{what}: {refused:#?}");
    }
}

/// Asks with an assertion, made anew each time.
fn with_assertion(parameters: impl Fn() -> String + Send + Sync + 'static) -> Ask {
    Arc::new(move |port| {
        let body = format!(
            "grant_type=client_credentials&client_assertion_type={TYPE}&client_assertion={}",
            parameters()
        );
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let url = format!("http://127.0.0.1:{port}/oauth/token");
        http::request("POST", &url, &form, body.as_bytes())
    })
}

fn with_secret(id: &str, secret: &str) -> Ask {
    let (id, secret) = (id.to_owned(), secret.to_owned());
    Arc::new(move |port| {
        let url = format!("http://127.0.0.1:{port}/oauth/token");
        http::token(&url, &id, &secret, "")
    })
}

/// A key of a client's own.
pub struct Key {
    pair: Arc<KeyPair>,
    kid: &'static str,
}

impl Key {
    pub fn new(algorithm: Algorithm, kid: &'static str) -> Self {
        let pem = KeyPair::generate_pem(algorithm, RsaKeySize::Bits2048).expect("a key");
        let pair = Arc::new(KeyPair::from_pem(algorithm, &pem).expect("a pair"));
        Self { pair, kid }
    }

    fn public(&self) -> Value {
        let mut jwk = serde_json::to_value(self.pair.public_jwk()).expect("JSON");
        jwk["kid"] = self.kid.into();
        jwk
    }

    /// A client that signs with it.
    pub fn ask(&self, id: &str, issuer: &str) -> Ask {
        let (pair, kid) = (self.pair.clone(), self.kid);
        let (id, issuer) = (id.to_owned(), issuer.to_owned());
        with_assertion(move || {
            let header = json!({"alg": pair.algorithm().name(), "kid": kid});
            let jti = chancery::crypto::random::random_id();
            let exp = now().as_second() + 60;
            let claims = json!({"iss": id, "sub": id, "aud": issuer, "exp": exp, "jti": jti});
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", part(&header), part(&claims));
            let signature = pair.sign(signed.as_bytes()).expect("signed");
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        })
    }
}

pub fn public_keys(keys: &[&Key]) -> Value {
    let keys: Vec<Value> = keys.iter().map(|key| key.public()).collect();
    json!({"jwks": {"keys": keys}})
}

#[test]
fn a_client_with_keys_of_its_own() {
    let trial = Trial::start("keys");
    let (one, two) = (
        Key::new(Algorithm::ES256, "one"),
        Key::new(Algorithm::PS256, "two"),
    );
    trial.user("robot", &json!({"publicKey": public_keys(&[&one])}));
    trial
        .release
        .wait_ready("technicaluser", &trial.tenant, "robot");
    let (id, issuer) = (trial.id("robot"), trial.release.issuer());
    let (first, second) = (one.ask(&id, &issuer), two.ask(&id, &issuer));
    trial.everywhere("a token", &first, 200);
    trial.everywhere("another's key", &second, 401);
    assert_eq!(trial.status("robot")["keyIds"], json!(["one"]));
    assert!(trial.status("robot")["secretName"].is_null());

    // From one key to another: add, use, take away.
    let load = Load::start(trial.ports, first.clone());
    let both = json!({"spec": {"credential": {"publicKey": public_keys(&[&one, &two])}}});
    trial.patch("robot", &both);
    trial.everywhere("the second key", &second, 200);
    load.unnoticed("a key is added");
    let load = Load::start(trial.ports, second.clone());
    let last = json!({"spec": {"credential": {"publicKey": public_keys(&[&two])}}});
    trial.patch("robot", &last);
    trial.everywhere("the first key is gone", &first, 401);
    load.unnoticed("a key is taken away");

    trial.patch("robot", &json!({"spec": {"suspended": true}}));
    trial.everywhere("suspended", &second, 401);
    trial.patch("robot", &json!({"spec": {"suspended": false}}));
    trial.everywhere("restored", &second, 200);
    let robot = ["delete", "technicaluser", "robot", "-n", &trial.tenant];
    trial.release.cluster.kubectl_ok(&robot);
    trial.everywhere("deleted", &second, 401);
    trial.nothing_left("robot");
}

/// Clients with the secret and clients with what takes its place, all the while.
#[test]
fn from_a_secret_to_a_key_without_an_outage() {
    let trial = Trial::start("exchange");
    let key = Key::new(Algorithm::EdDSA, "one");
    trial.user("robot", &json!({"secret": {}}));
    trial
        .release
        .wait_ready("technicaluser", &trial.tenant, "robot");
    let (id, secret) = trial.release.credentials(&trial.tenant, "robot");
    let old = with_secret(&id, &secret);
    let new = key.ask(&id, &trial.release.issuer());
    trial.everywhere("a token for the secret", &old, 200);
    let load = Load::start(trial.ports, old.clone());
    let exchange = json!({"secret": null, "publicKey": public_keys(&[&key])});
    trial.patch("robot", &json!({"spec": {"credential": exchange}}));
    trial.everywhere("a token for the key", &new, 200);
    let beside = Load::start(trial.ports, new.clone());
    eventually("status tells of the end", LIMIT, || {
        let status = trial.status("robot");
        let ends = status["credentials"][0]["expiresAt"].is_string();
        ends.then_some(()).ok_or_else(|| status.to_string())
    });
    trial
        .release
        .wait_ready("technicaluser", &trial.tenant, "robot");
    load.unnoticed("the secret, through the exchange");
    // The grace ends: the secret does, and nobody with a key notices.
    trial.patch(
        "robot",
        &json!({"spec": {"credential": {"gracePeriod": "3s"}}}),
    );
    trial.everywhere("the grace is over", &old, 401);
    trial.nothing_left("robot");
    beside.unnoticed("the key, from the exchange on");
    eventually("status tells of no secret", LIMIT, || {
        let status = trial.status("robot");
        let told = status["credentials"].is_null() && status["secretName"].is_null();
        told.then_some(()).ok_or_else(|| status.to_string())
    });
}

/// A workload that shows this token each time.
pub fn with_token(id: &str, token: &str) -> Ask {
    let parameters = format!("{token}&client_id={id}");
    with_assertion(move || parameters.clone())
}

impl Trial {
    fn account(&self, name: &str) {
        let make = ["create", "serviceaccount", name, "-n", &self.tenant];
        self.release.cluster.kubectl_ok(&make);
    }

    /// A token as the kubelet projects it, by the `TokenRequest` API.
    fn token_of(&self, name: &str, audience: &str) -> String {
        let audience = format!("--audience={audience}");
        let ask = ["create", "token", name, "-n", &self.tenant, &audience];
        let token = self.release.cluster.kubectl_ok(&ask).trim().to_owned();
        // Whoever reads it is the workload, for an hour.
        self.release.remember(&token);
        token
    }
}

#[test]
fn a_workload_with_its_service_account() {
    let trial = Trial::start("workload");
    let issuer = trial.release.issuer();
    let map = eventually("the cluster's keys are known", LIMIT, || {
        let namespace = &trial.release.name;
        let map = trial
            .release
            .get("configmap", namespace, "chancery-cluster-keys");
        let known = map["data"]["jwks.json"].is_string();
        known
            .then(|| map.clone())
            .ok_or_else(|| trial.release.tail())
    });
    let document = map["data"]["jwks.json"].as_str().expect("a JWKS");
    let keys: Value = serde_json::from_str(document).expect("JSON");
    assert!(!keys["keys"].as_array().expect("keys").is_empty());

    let account = json!({"serviceAccount": {"name": "app"}});
    trial.user("robot", &account);
    let waiting = trial.release.wait_reason(
        "technicaluser",
        &trial.tenant,
        "robot",
        "Ready",
        "ServiceAccountNotFound",
    );
    assert_eq!(waiting["status"], "False");
    trial.account("app");
    trial
        .release
        .wait_ready("technicaluser", &trial.tenant, "robot");
    let id = trial.id("robot");
    let token = trial.token_of("app", &issuer);
    let ask = with_token(&id, &token);
    trial.everywhere("a token", &ask, 200);
    for (what, token) in [
        (
            "another audience",
            trial.token_of("app", "https://elsewhere"),
        ),
        ("the API server's", {
            let ask = ["create", "token", "app", "-n", &trial.tenant];
            let token = trial.release.cluster.kubectl_ok(&ask).trim().to_owned();
            trial.release.remember(&token);
            token
        }),
        ("another ServiceAccount", trial.token_of("default", &issuer)),
    ] {
        trial.everywhere(what, &with_token(&id, &token), 401);
    }

    // Altered by hand, the cluster's keys are put right.
    let load = Load::start(trial.ports, ask.clone());
    let delete = [
        "delete",
        "configmap",
        "chancery-cluster-keys",
        "-n",
        &trial.release.name,
    ];
    trial.release.cluster.kubectl_ok(&delete);
    eventually("the keys are there again", LIMIT, || {
        let namespace = &trial.release.name;
        let again = trial
            .release
            .get("configmap", namespace, "chancery-cluster-keys");
        (again["data"] == map["data"])
            .then_some(())
            .ok_or_else(|| again.to_string())
    });
    load.unnoticed("a workload, while the ConfigMap was gone");

    trial.patch("robot", &json!({"spec": {"suspended": true}}));
    trial.everywhere("suspended", &ask, 401);
    trial.patch("robot", &json!({"spec": {"suspended": false}}));
    trial.everywhere("restored", &ask, 200);

    // Deleted and made again: its name is the same, and it is another.
    let before = trial.status("robot")["serviceAccount"]["uid"].clone();
    let gone = ["delete", "serviceaccount", "app", "-n", &trial.tenant];
    trial.release.cluster.kubectl_ok(&gone);
    trial.everywhere("gone", &ask, 401);
    trial.account("app");
    let new = with_token(&id, &trial.token_of("app", &issuer));
    trial.everywhere("once it was seen", &new, 200);
    trial.everywhere("the old one's tokens", &ask, 401);
    assert_ne!(trial.status("robot")["serviceAccount"]["uid"], before);

    let robot = ["delete", "technicaluser", "robot", "-n", &trial.tenant];
    trial.release.cluster.kubectl_ok(&robot);
    trial.everywhere("deleted", &new, 401);
    trial.nothing_left("robot");

    // One of another namespace: it works, and its UID is not shown to who may not read that.
    let far = json!({"serviceAccount": {"name": "default", "namespace": "default"}});
    trial.user("far", &far);
    trial
        .release
        .wait_ready("technicaluser", &trial.tenant, "far");
    let shown = trial.status("far")["serviceAccount"]["uid"].to_string();
    assert!(shown.starts_with("\"sha256:"), "{shown}");
    let audience = format!("--audience={issuer}");
    let ask = ["create", "token", "default", "-n", "default", &audience];
    let token = trial.release.cluster.kubectl_ok(&ask).trim().to_owned();
    trial.release.remember(&token);
    trial.everywhere(
        "of another namespace",
        &with_token(&trial.id("far"), &token),
        200,
    );
}

/// While no operator runs, nobody has seen the new one.
#[test]
fn a_service_account_made_again_waits_for_the_operator() {
    let mut trial = Trial::start("unseen");
    let issuer = trial.release.issuer();
    trial.account("app");
    trial.user("robot", &json!({"serviceAccount": {"name": "app"}}));
    trial
        .release
        .wait_ready("technicaluser", &trial.tenant, "robot");
    let id = trial.id("robot");
    let old = with_token(&id, &trial.token_of("app", &issuer));
    trial.everywhere("a token", &old, 200);
    // From here on there are only servers.
    trial.release.kill();
    trial.only_serve();
    trial.everywhere("a server alone", &old, 200);
    let gone = ["delete", "serviceaccount", "app", "-n", &trial.tenant];
    trial.release.cluster.kubectl_ok(&gone);
    trial.account("app");
    let new = with_token(&id, &trial.token_of("app", &issuer));
    trial.everywhere("not seen yet", &new, 401);
    trial.release.kill();
    trial.release.forget_leader();
    trial.release.run(&[]);
    trial.everywhere("seen", &new, 200);
    trial.everywhere("the old one's tokens", &old, 401);
}

#[test]
fn from_a_secret_to_a_service_account_without_an_outage() {
    let trial = Trial::start("to-workload");
    trial.user("robot", &json!({"secret": {}}));
    trial
        .release
        .wait_ready("technicaluser", &trial.tenant, "robot");
    let (id, secret) = trial.release.credentials(&trial.tenant, "robot");
    let old = with_secret(&id, &secret);
    trial.everywhere("a token for the secret", &old, 200);
    trial.account("app");
    let new = with_token(&id, &trial.token_of("app", &trial.release.issuer()));
    let load = Load::start(trial.ports, old.clone());
    let exchange = json!({"secret": null, "serviceAccount": {"name": "app"}});
    trial.patch("robot", &json!({"spec": {"credential": exchange}}));
    trial.everywhere("a token for the workload", &new, 200);
    let beside = Load::start(trial.ports, new.clone());
    eventually("status tells of the end", LIMIT, || {
        let status = trial.status("robot");
        let ends = status["credentials"][0]["expiresAt"].is_string();
        ends.then_some(()).ok_or_else(|| status.to_string())
    });
    load.unnoticed("the secret, through the exchange");
    trial.patch(
        "robot",
        &json!({"spec": {"credential": {"gracePeriod": "0s"}}}),
    );
    trial.everywhere("the grace is over", &old, 401);
    trial.nothing_left("robot");
    beside.unnoticed("the workload, from the exchange on");
}

/// Another cluster's keys stand in the resource, and vouch for that user alone.
#[test]
fn a_workload_of_another_cluster() {
    let trial = Trial::start("elsewhere");
    let issuer = trial.release.issuer();
    let key = Key::new(Algorithm::RS256, "theirs");
    let cluster = json!({"issuer": "https://elsewhere.example", "jwks": {"keys": [key.public()]}});
    let account = json!({"name": "app", "namespace": "their-apps", "cluster": cluster});
    trial.user("robot", &json!({"serviceAccount": account}));
    trial
        .release
        .wait_ready("technicaluser", &trial.tenant, "robot");
    trial.account("app");
    trial.user("other", &json!({"serviceAccount": {"name": "app"}}));
    trial
        .release
        .wait_ready("technicaluser", &trial.tenant, "other");
    let ask = |id: &str, namespace: &str| {
        let (pair, id) = (key.pair.clone(), id.to_owned());
        let (issuer, namespace) = (issuer.clone(), namespace.to_owned());
        with_assertion(move || {
            let exp = now().as_second() + 3600;
            let claims = json!({
                "iss": "https://elsewhere.example", "aud": [issuer], "exp": exp,
                "sub": format!("system:serviceaccount:{namespace}:app"),
                "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": "app", "uid": "u"}},
            });
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let header = json!({"alg": "RS256", "kid": "theirs"});
            let signed = format!("{}.{}", part(&header), part(&claims));
            let signature = pair.sign(signed.as_bytes()).expect("signed");
            format!(
                "{signed}.{}&client_id={id}",
                URL_SAFE_NO_PAD.encode(signature)
            )
        })
    };
    let (robot, other) = (trial.id("robot"), trial.id("other"));
    trial.everywhere("a token", &ask(&robot, "their-apps"), 200);
    trial.everywhere("another namespace", &ask(&robot, &trial.tenant), 401);
    trial.everywhere("another user", &ask(&other, &trial.tenant), 401);
}
