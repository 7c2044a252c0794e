//! Client secrets rotate: by the interval, by the annotation, at once; and nobody who reads the Secret
//! again in time is refused.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::load::part;
use crate::release::{LIMIT, Release};
use crate::ring::{SECONDS, between, now, text};
use crate::support::{Proc, eventually, free_port, http};

/// A technical user of a release, by its name.
#[derive(Clone, Copy)]
pub struct User<'a> {
    pub release: &'a Release,
    pub tenant: &'a str,
    pub name: &'a str,
}

impl User<'_> {
    pub fn get(&self) -> Value {
        self.release.get("technicaluser", self.tenant, self.name)
    }

    pub fn patch(&self, patch: &Value) {
        let patch = patch.to_string();
        let of = ["patch", "technicaluser", self.name, "-n", self.tenant];
        let how = ["--type=merge", "-p", &patch];
        self.release.cluster.kubectl_ok(&[&of[..], &how].concat());
    }

    pub fn secret(&self, spec: &Value) {
        self.patch(&json!({"spec": {"credential": {"secret": spec}}}));
    }

    pub fn rotate(&self, value: &str) {
        self.patch(&json!({"metadata": {"annotations": {"chancery.dev/rotate": value}}}));
        self.wait("it is handled", |user| {
            (user["status"]["lastHandledRotation"] == value).then_some(())
        });
    }

    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&Value) -> Option<T>) -> T {
        eventually(&format!("{}: {what}", self.name), LIMIT, || {
            let user = self.get();
            look(&user).ok_or_else(|| format!("{}\n{}", user["status"], self.release.tail()))
        })
    }

    /// The states of its secrets in status, oldest first.
    pub fn states(&self) -> Vec<String> {
        let all = self.get()["status"]["credentials"].clone();
        let all = all.as_array().cloned().unwrap_or_default();
        all.iter().filter_map(|c| text(&c["state"])).collect()
    }

    pub fn wait_states(&self, wanted: &[&str]) {
        eventually(&format!("{wanted:?}"), LIMIT, || {
            let states = self.states();
            (states == wanted)
                .then_some(())
                .ok_or(format!("{states:?}"))
        });
    }

    /// What its Secret of that name holds under that key, once it is another than before.
    pub fn follows(&self, name: &str, key: &str, before: &str) -> String {
        eventually("another client secret", LIMIT, || {
            let value = self.release.secret_value(self.tenant, name, key);
            value
                .filter(|v| v != before)
                .ok_or_else(|| self.release.tail())
        })
    }

    pub fn told(&self, reason: &str) -> Vec<String> {
        let events = self.release.list("events", self.tenant);
        let mine = events
            .iter()
            .filter(|e| e["involvedObject"]["name"] == self.name && e["reason"] == reason);
        mine.filter_map(|e| text(&e["message"])).collect()
    }
}

/// A release with a second replica that serves, and a technical user.
pub struct Trial {
    pub release: Release,
    pub tenant: String,
    second: Proc,
    pub ports: Vec<u16>,
}

impl Trial {
    pub fn start(prefix: &str) -> Self {
        let mut release = Release::prepared(prefix);
        release.run(&SECONDS);
        let tenant = release.tenant(&format!("{prefix}-tenant"));
        release.ring("main", "algorithm: ES256");
        release.user(&tenant, "user", "");
        let (port, admin_port) = (free_port(), free_port());
        let account = release.cluster.admin_kubeconfig();
        let second = release.start_process(account, port, admin_port, &SECONDS);
        let trial = Self {
            ports: vec![release.port, port],
            second,
            tenant,
            release,
        };
        let (id, secret) = trial.release.credentials(&trial.tenant, "user");
        for port in &trial.ports {
            eventually("each replica gives a token", LIMIT, || {
                match ask(*port, &id, &secret) {
                    Ok(200) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
        trial
    }

    pub fn user(&self) -> User<'_> {
        User {
            release: &self.release,
            tenant: &self.tenant,
            name: "user",
        }
    }

    /// Until both replicas refuse this secret; how long the slower one took.
    pub fn refused(&self, id: &str, secret: &str) -> Duration {
        let begun = Instant::now();
        for port in &self.ports {
            eventually("it is refused", LIMIT, || match ask(*port, id, secret) {
                Ok(401) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
        begun.elapsed()
    }

    pub fn end(self) {
        self.second.signal(crate::support::Signal::Term);
        self.second.wait_exit(LIMIT);
        self.release.printed(self.second.output());
    }
}

pub fn ask(port: u16, id: &str, secret: &str) -> Result<u16, String> {
    let url = format!("http://127.0.0.1:{port}/oauth/token");
    let answer = http::token(&url, id, secret, "").map_err(|e| e.to_string())?;
    Ok(answer.status)
}

/// Asks both replicas without rest, with what `read` finds each time, while something is done.
pub fn unnoticed<T>(
    what: &str,
    trial: &Trial,
    read: impl Fn() -> Option<(String, String)> + Sync,
    act: impl FnOnce() -> T,
) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut asked, mut refused) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let Some((id, secret)) = read() else {
                    refused.push(format!("{}: there is nothing to read", now()));
                    continue;
                };
                for port in &trial.ports {
                    asked += 1;
                    let answer = ask(*port, &id, &secret);
                    if answer != Ok(200) {
                        refused.push(format!("{}: {port} {answer:?}", now()));
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            (asked, refused)
        });
        // Also where it panics: the load would go on for ever, and the test with it.
        let done = std::panic::catch_unwind(AssertUnwindSafe(act));
        stop.store(true, Ordering::Relaxed);
        let (asked, refused) = load.join().expect("the load does not panic");
        let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        println!("{what}: {asked} requests, {} refused", refused.len());
        assert!(asked > 0 && refused.is_empty(), "{what}: {refused:#?}");
        done
    })
}

/// By the interval and by the annotation, with two replicas under load: whoever reads the Secret anew
/// for each request is never refused, nor is one that goes on with the old secret through its grace.
#[test]
fn client_secrets_rotate_unnoticed() {
    let trial = Trial::start("secret-rotation");
    let user = trial.user();
    user.secret(&json!({"rotation": {"gracePeriod": "40s"}}));
    let (id, first) = trial.release.credentials(&trial.tenant, "user");
    let fresh = || {
        let value = |key| {
            trial
                .release
                .secret_value(&trial.tenant, "user-credentials", key)
        };
        value("client_id").zip(value("client_secret"))
    };
    let second = unnoticed("whoever reads it anew", &trial, fresh, || {
        let kept = || Some((id.clone(), first.clone()));
        unnoticed("whoever keeps the old one", &trial, kept, || {
            user.rotate("now");
            user.follows("user-credentials", "client_secret", &first);
            user.wait_states(&["Retired", "Active"]);
        });
        let status = user.get()["status"].clone();
        let old = &status["credentials"][0];
        let ends: Timestamp = text(&old["expiresAt"])
            .expect("it ends")
            .parse()
            .expect("a time");
        let left = between(now(), ends);
        assert!((1.0..=40.0).contains(&left), "{left}");
        assert_eq!(old["id"], "1");
        assert_eq!(status["credentials"][1]["id"], "2");
        let wide = trial.release.cluster.kubectl_ok(&[
            "get",
            "tu",
            "user",
            "-n",
            &trial.tenant,
            "-o",
            "wide",
        ]);
        let expires = text(&old["expiresAt"]).expect("it ends");
        for part in ["SECRET ID", "OLD UNTIL", "ROTATES", &expires] {
            assert!(wide.contains(part), "{part} in {wide}");
        }
        // Once for a value.
        user.patch(&json!({"metadata": {"annotations": {"other": "x"}}}));
        let second = fresh().expect("it stands there").1;
        trial.refused(&id, &first);
        assert!(now() >= ends, "not before its grace is over");
        user.wait_states(&["Active"]);
        assert_eq!(fresh().expect("it stands there").1, second);

        // By the interval, twice.
        user.secret(&json!({"rotation": {"interval": "8s", "gracePeriod": "7s"}}));
        let due = user.wait("it is told when", |u| text(&u["status"]["nextRotation"]));
        println!("the next rotation: {due}");
        let third = user.follows("user-credentials", "client_secret", &second);
        user.follows("user-credentials", "client_secret", &third);
        user.secret(&json!({"rotation": {"interval": null, "gracePeriod": "10s"}}));
        second
    });
    trial.refused(&id, &second);
    let told = user.told("CredentialRotated");
    assert!(
        told.iter()
            .any(|m| m.contains("asked for") && m.contains("works until")),
        "{told:?}"
    );
    assert!(told.iter().any(|m| m.contains("turn has come")), "{told:?}");
    let ended = user.told("CredentialRemoved");
    assert!(
        ended.iter().any(|m| m.contains("Client secret 1 ")),
        "{ended:?}"
    );
    trial.end();
}

/// Grace 0: the old one fails on both replicas within two seconds of the new one's delivery.
#[test]
fn without_a_grace_an_old_secret_ends_at_once() {
    let trial = Trial::start("secret-at-once");
    let user = trial.user();
    user.secret(&json!({"rotation": {"gracePeriod": "0s"}}));
    let (id, first) = trial.release.credentials(&trial.tenant, "user");
    let mut old = first;
    for turn in 1..=3 {
        for port in &trial.ports {
            assert_eq!(ask(*port, &id, &old), Ok(200), "it is remembered");
        }
        user.patch(
            &json!({"metadata": {"annotations": {"chancery.dev/rotate": turn.to_string()}}}),
        );
        let begun = Instant::now();
        let new = user.follows("user-credentials", "client_secret", &old);
        let delivered = begun.elapsed();
        let refused = trial.refused(&id, &old);
        println!("delivered after {delivered:?}, refused {refused:?} after that was seen");
        assert!(refused < Duration::from_secs(2), "{refused:?}");
        for port in &trial.ports {
            eventually("the new one works", LIMIT, || match ask(*port, &id, &new) {
                Ok(200) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
        user.wait_states(&["Active"]);
        old = new;
    }
    trial.end();
}

/// Another Secret's name and other keys, with a rotation amid it: what mounts the former Secret goes on,
/// and so does what reads the new one; the former goes when the grace is over.
#[test]
fn moved_and_renamed_without_an_outage() {
    let trial = Trial::start("secret-moved");
    let user = trial.user();
    user.secret(&json!({"rotation": {"gracePeriod": "45s"}}));
    let (_, first) = trial.release.credentials(&trial.tenant, "user");
    let at = &trial;
    let read = |name: &'static str, id: &'static str, secret: &'static str| {
        let value = move |key: &str| at.release.secret_value(&at.tenant, name, key);
        move || value(id).zip(value(secret))
    };
    let former = read("user-credentials", "client_id", "client_secret");
    unnoticed("the former names", &trial, former, || {
        // Renamed first: in the same Secret under both names.
        let keys = json!({"clientId": "CYODA_CLIENT_ID", "clientSecret": "CYODA_CLIENT_SECRET"});
        user.secret(&json!({"keys": keys}));
        user.follows("user-credentials", "CYODA_CLIENT_SECRET", "");
        let renamed = read("user-credentials", "CYODA_CLIENT_ID", "CYODA_CLIENT_SECRET");
        unnoticed("the new names", &trial, renamed, || {
            user.rotate("renamed");
            user.follows("user-credentials", "CYODA_CLIENT_SECRET", &first);
            user.secret(&json!({"secretName": "app"}));
            user.follows("app", "CYODA_CLIENT_SECRET", "");
        });
        let moved = read("app", "CYODA_CLIENT_ID", "CYODA_CLIENT_SECRET");
        unnoticed("the new Secret", &trial, moved, || {
            user.rotate("moved");
            user.wait_states(&["Retired", "Retired", "Active"]);
        });
    });
    let secret = trial.release.get("secret", &trial.tenant, "app");
    assert_eq!(secret["type"], "Opaque");
    eventually("the former Secret goes", 2 * LIMIT, || {
        let former = trial
            .release
            .get("secret", &trial.tenant, "user-credentials");
        former
            .is_null()
            .then_some(())
            .ok_or(former["metadata"].to_string())
    });

    // Nothing of it stays.
    let hashes = format!("{}.user-credentials", trial.tenant);
    trial
        .release
        .cluster
        .kubectl_ok(&["delete", "technicaluser", "user", "-n", &trial.tenant]);
    for (namespace, name) in [
        (&trial.release.name, hashes.as_str()),
        (&trial.tenant, "app"),
    ] {
        eventually("it is gone", 2 * LIMIT, || {
            let left = trial.release.get("secret", namespace, name);
            left.is_null().then_some(()).ok_or(name.to_owned())
        });
    }
    trial.end();
}

/// Labels and annotations of the person's choosing, and the families.
#[test]
fn chosen_labels_and_families() {
    let release = Release::start("secret-chosen");
    let tenant = release.tenant("secret-chosen-tenant");
    release.ring("main", "algorithm: ES256");
    for (family, prefix, life) in [("Device", "dk-", 900), ("Agent", "ak-", 300)] {
        let name = family.to_lowercase();
        release.user(&tenant, &name, &format!("  family: {family}\n"));
        let (id, secret) = release.credentials(&tenant, &name);
        assert!(secret.starts_with(prefix));
        let token = release.token(&id, &secret, "");
        let claims = part(&token, 1);
        assert_eq!(claims["client_family"], family);
        let ttl = claims["exp"].as_i64().zip(claims["iat"].as_i64());
        assert_eq!(ttl.map(|(exp, iat)| exp - iat), Some(life), "{family}");
    }
    let user = User {
        release: &release,
        tenant: &tenant,
        name: "device",
    };
    let (_, before) = release.credentials(&tenant, "device");
    let chosen =
        json!({"labels": {"team": "orders", "b": "c"}, "annotations": {"acme.example/a": "b c"}});
    user.secret(&chosen);
    let wait = |what: &str, look: &dyn Fn(&Value) -> bool| {
        eventually(what, LIMIT, || {
            let secret = release.get("secret", &tenant, "device-credentials");
            let meta = secret["metadata"].clone();
            look(&meta).then_some(()).ok_or(meta.to_string())
        });
    };
    wait("they are there", &|meta| {
        meta["labels"]["team"] == "orders"
            && meta["labels"]["b"] == "c"
            && meta["annotations"]["acme.example/a"] == "b c"
    });
    // What others put there stays; what is chosen no more goes.
    release.cluster.kubectl_ok(&[
        "label",
        "secret",
        "device-credentials",
        "-n",
        &tenant,
        "others=here",
    ]);
    user.secret(&json!({"labels": {"team": "billing", "b": null}, "annotations": null}));
    wait("they are changed", &|meta| {
        meta["labels"]["team"] == "billing"
            && meta["labels"]["b"].is_null()
            && meta["labels"]["others"] == "here"
            && meta["annotations"]["acme.example/a"].is_null()
    });
    assert_eq!(release.credentials(&tenant, "device").1, before);
}
