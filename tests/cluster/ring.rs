//! What tests of a ring's life share: times of seconds, and looks at a ring as a person has them.

use std::time::Duration;

use chancery::clock;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::release::{LIMIT, Release};
use crate::support::{eventually, http};

/// A release whose safe grace is 8 s: 3 (token) + 1 (leeway) + 1 (max-age) + 3 (staleness).
pub const SECONDS: [&str; 10] = [
    "--jwks-max-age",
    "1s",
    "--clock-leeway",
    "1s",
    "--max-token-ttl",
    "3s",
    "--default-token-ttl",
    "3s",
    "--max-staleness",
    "3s",
];
pub const SAFE_GRACE: f64 = 8.0;

/// A ring of a release, by its name.
#[derive(Clone, Copy)]
pub struct Ring<'a> {
    pub release: &'a Release,
    pub name: &'a str,
}

impl<'a> Ring<'a> {
    /// Applies the ring and waits until it signs.
    pub fn apply(release: &'a Release, name: &'a str, spec: &str) -> Self {
        release.ring(name, spec);
        let ring = Self { release, name };
        ring.wait("it is ready", |_| ring.condition("Ready"));
        ring
    }

    pub fn get(&self) -> Value {
        self.release
            .get("signingkey", &self.release.name, self.name)
    }

    pub fn kubectl(&self, verb: &[&str], more: &[&str]) {
        let of = ["signingkey", self.name, "-n", &self.release.name];
        let cluster = self.release.cluster;
        cluster.kubectl_ok(&[verb, &of, more].concat());
    }

    /// Merges into the spec; null takes a field away.
    pub fn edit(&self, spec: &Value) {
        let patch = json!({ "spec": spec }).to_string();
        self.kubectl(&["patch"], &["--type=merge", "-p", &patch]);
    }

    pub fn annotate(&self, annotation: &str) {
        self.kubectl(&["annotate", "--overwrite"], &[annotation]);
    }

    /// Asks for a rotation, and gives the key that then signs.
    pub fn rotate(&self, value: &str) -> String {
        let before = self.active();
        self.annotate(&format!("chancery.dev/rotate={value}"));
        self.follows(&before)
    }

    /// Waits until `look` finds something in the ring.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&Value) -> Option<T>) -> T {
        eventually(&format!("{}: {what}", self.name), LIMIT, || {
            let ring = self.get();
            look(&ring).ok_or_else(|| format!("{}\n{}", ring["status"], self.release.tail()))
        })
    }

    pub fn active(&self) -> String {
        self.wait("a key signs", |ring| text(&ring["status"]["activeKeyId"]))
    }

    /// Waits until another key than `before` signs.
    pub fn follows(&self, before: &str) -> String {
        self.wait("another key signs", |ring| {
            text(&ring["status"]["activeKeyId"]).filter(|kid| kid != before)
        })
    }

    /// A key in status; null if it is not there.
    pub fn key(&self, kid: &str) -> Value {
        key_of(&self.get(), kid)
    }

    pub fn wait_state(&self, kid: &str, state: &str) -> Value {
        self.wait(&format!("{kid} is {state}"), |ring| {
            Some(key_of(ring, kid)).filter(|key| key["state"] == state)
        })
    }

    /// Waits until status speaks of the spec as it is now.
    pub fn wait_observed(&self) -> Value {
        self.wait("the spec is observed", |ring| {
            let observed = ring["status"]["observedGeneration"] == ring["metadata"]["generation"];
            observed.then(|| ring.clone())
        })
    }

    /// Waits until a condition is there with that reason, and gives its message.
    pub fn wait_told(&self, condition: &str, reason: &str) -> String {
        let namespace = &self.release.name;
        let told = self
            .release
            .wait_reason("signingkey", namespace, self.name, condition, reason);
        text(&told["message"]).unwrap_or_default()
    }

    /// The condition's message, if it is there and true.
    pub fn condition(&self, kind: &str) -> Option<String> {
        let ring = self.get();
        let conditions = ring["status"]["conditions"].as_array()?.clone();
        let holds = |c: &&Value| c["type"] == kind && c["status"] == "True";
        text(&conditions.iter().find(holds)?["message"])
    }

    /// The events of the ring, as type, reason and message.
    pub fn events(&self) -> Vec<(String, String, String)> {
        let events = self.release.list("events", &self.release.name);
        let mine = events
            .iter()
            .filter(|e| e["involvedObject"]["name"] == self.name);
        let field = |e: &Value, name: &str| text(&e[name]).unwrap_or_default();
        mine.map(|e| (field(e, "type"), field(e, "reason"), field(e, "message")))
            .collect()
    }

    /// Waits for an event of that type and reason that says this.
    pub fn wait_event(&self, kind: &str, reason: &str, says: &str) -> String {
        eventually(
            &format!("{}: {kind} {reason}: {says}", self.name),
            LIMIT,
            || {
                let events = self.events();
                let found = events
                    .iter()
                    .find(|(k, r, m)| k == kind && r == reason && m.contains(says));
                found.map(|f| f.2.clone()).ok_or(format!("{events:#?}"))
            },
        )
    }

    /// The ring's key Secrets, oldest first.
    pub fn secrets(&self) -> Vec<Value> {
        let all = self.release.list("secrets", &self.release.name);
        let prefix = format!("{}-", self.name);
        let mine = |s: &Value| {
            let name = text(&s["metadata"]["name"]).unwrap_or_default();
            s["type"] == "chancery.dev/key-pair"
                && name
                    .strip_prefix(&prefix)
                    .is_some_and(|n| n.parse::<u32>().is_ok())
        };
        let mut mine: Vec<Value> = all.into_iter().filter(|s| mine(s)).collect();
        mine.sort_by_key(|s| s["metadata"]["creationTimestamp"].to_string());
        mine
    }

    /// The names of the ring's key Secrets.
    pub fn secret_names(&self) -> Vec<String> {
        let secrets = self.secrets();
        let names = secrets.iter().map(|s| text(&s["metadata"]["name"]));
        names.map(Option::unwrap_or_default).collect()
    }

    /// The Secret of a key in status.
    pub fn secret_of(&self, kid: &str) -> String {
        let key = self.wait("the key is in status", |ring| {
            Some(key_of(ring, kid)).filter(|key| !key.is_null())
        });
        format!("{}-{}", self.name, key["sequence"])
    }

    pub fn delete(&self, kind: &str, name: &str) {
        let delete = ["delete", kind, name, "-n", &self.release.name];
        self.release.cluster.kubectl_ok(&delete);
    }
}

fn key_of(ring: &Value, kid: &str) -> Value {
    let keys = ring["status"]["keys"].as_array();
    let found = keys.into_iter().flatten().find(|k| k["keyId"] == kid);
    found.cloned().unwrap_or_default()
}

pub fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A time that a Secret's annotation holds, to the millisecond.
pub fn noted(secret: &Value, what: &str) -> Option<Timestamp> {
    let annotations = &secret["metadata"]["annotations"];
    annotations[format!("chancery.dev/{what}-at")]
        .as_str()?
        .parse()
        .ok()
}

/// How many seconds lie between two times.
pub fn between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

pub fn now() -> Timestamp {
    clock::system().now()
}

/// That many seconds from now, as a manifest has it.
pub fn in_seconds(seconds: i64) -> String {
    let at = now().as_second() + seconds;
    Timestamp::from_second(at).expect("a time").to_string()
}

/// What the server on that port publishes: the kids with their algorithms.
pub fn published_on(port: u16) -> Vec<(String, String)> {
    let url = format!("http://127.0.0.1:{port}/.well-known/jwks.json");
    let json = http::get(&url).expect("HTTP").json();
    let keys = json["keys"].as_array().cloned().unwrap_or_default();
    keys.iter()
        .filter_map(|k| Some((text(&k["kid"])?, text(&k["alg"])?)))
        .collect()
}

/// The kids that the release publishes.
pub fn published(release: &Release) -> Vec<String> {
    let keys = published_on(release.port).into_iter();
    keys.map(|(kid, _)| kid).collect()
}

/// Waits until the release publishes that kid, or no more does.
pub fn wait_published(release: &Release, kid: &str, wanted: bool) {
    let what = format!("{kid} is {}in the JWKS", if wanted { "" } else { "not " });
    eventually(&what, LIMIT, || {
        let kids = published(release);
        let stands = kids.iter().any(|k| k == kid);
        (stands == wanted)
            .then_some(())
            .ok_or_else(|| format!("{kids:?}\n{}", release.tail()))
    });
}

/// The kid in a token's header.
pub fn kid(token: &str) -> String {
    let header = crate::load::part(token, 0);
    text(&header["kid"]).expect("a kid")
}

/// The Go verifier's judgement of a token against what the release publishes now.
pub fn verifies(release: &Release, token: &str) -> Value {
    let jwks = format!("{}/.well-known/jwks.json", release.issuer());
    crate::quickstart::verify(release, &jwks, token, "https://a.example")
}

/// Waits until all replicas agree; how long that took in seconds.
pub fn timed(what: &str, limit: Duration, look: impl FnMut() -> Result<(), String>) -> f64 {
    let since = tokio::time::Instant::now();
    eventually(what, limit, look);
    let took = since.elapsed().as_secs_f64();
    println!("{what}: {took:.2} s");
    took
}
