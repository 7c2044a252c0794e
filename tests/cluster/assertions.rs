//! Clients without a secret, on a real control plane: keys of their own, and the way to them from a
//! secret, with clients that never rest.

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
    _second: Proc,
}

/// How a client asks for a token at a port.
type Ask = Arc<dyn Fn(u16) -> std::io::Result<Answer> + Send + Sync>;

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
            _second: second,
        }
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
struct Key {
    pair: Arc<KeyPair>,
    kid: &'static str,
}

impl Key {
    fn new(algorithm: Algorithm, kid: &'static str) -> Self {
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
    fn ask(&self, id: &str, issuer: &str) -> Ask {
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

fn public_keys(keys: &[&Key]) -> Value {
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
