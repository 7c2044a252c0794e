//! Two replicas under constant load, whose keys rotate every few seconds, while leaders end by
//! TERM, KILL and STOP in turn and the API server goes away: nobody notices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use tokio::time::Instant;

use crate::release::{LIMIT, Release};
use crate::support::{ControlPlane, Proc, Signal, eventually, free_port, http};

/// The shortest policy under the release's own rules: tokens of 2 s, a JWKS that is cached for 1 s,
/// and an API server that may be away for a minute.
const SETTINGS: [&str; 10] = [
    "--jwks-max-age",
    "1s",
    "--clock-leeway",
    "1s",
    "--default-token-ttl",
    "2s",
    "--max-token-ttl",
    "2s",
    "--max-staleness",
    "60s",
];
const ROTATION: &str = "{interval: 4s, publishLead: 3s}";
const ROTATIONS: i64 = 20;
const LONG: Duration = Duration::from_mins(8);

/// A replica as a load balancer knows it.
struct Backend {
    port: u16,
    admin_port: u16,
    process: Mutex<Option<Proc>>,
    /// Milliseconds since the start at which it was last found ready; negative: never.
    ready_at: AtomicI64,
}

struct Field {
    begun: Instant,
    backends: [Backend; 2],
    over: AtomicBool,
    tokens: AtomicU64,
    verified: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Field {
    fn now(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn fail(&self, why: &str) {
        let at = self.now();
        self.failures
            .lock()
            .expect("no panic")
            .push(format!("{at} ms: {why}"));
    }

    fn ready(&self) -> Vec<&Backend> {
        let now = self.now();
        let fresh = |b: &&Backend| now - b.ready_at.load(Ordering::Acquire) < 400;
        self.backends.iter().filter(fresh).collect()
    }

    /// Those that were ready a moment ago. If none is, all: a Service's endpoints do not change while
    /// the API server is away, and other load balancers let all have requests then, too.
    fn in_service(&self) -> Vec<&Backend> {
        let ready = self.ready();
        if ready.is_empty() {
            self.backends.iter().collect()
        } else {
            ready
        }
    }

    /// A load balancer's request: one that breaks goes to the other backend.
    fn request(
        &self,
        turn: u64,
        call: impl Fn(&Backend) -> std::io::Result<http::Answer>,
    ) -> Result<http::Answer, String> {
        let since = Instant::now();
        let mut last = String::from("no replica is ready");
        // As long as a client waits for an answer.
        while since.elapsed() < Duration::from_secs(5) {
            let service = self.in_service();
            let skip = usize::try_from(turn % 2).unwrap_or(0);
            for backend in service.iter().cycle().skip(skip).take(service.len()) {
                match call(backend) {
                    Ok(answer) if answer.status == 200 => return Ok(answer),
                    // A replica that ends says so; another one answers.
                    Ok(answer) => last = format!("{}: {}", answer.status, answer.text()),
                    Err(error) => last = error.to_string(),
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(last)
    }

    fn watch(&self, backend: &Backend) {
        let url = format!("http://127.0.0.1:{}/readyz", backend.admin_port);
        while !self.over.load(Ordering::Acquire) {
            let asked = self.now();
            let answer = http::request_within(Duration::from_millis(300), "GET", &url, &[], b"");
            if answer.is_ok_and(|a| a.status == 200) {
                backend.ready_at.store(asked, Ordering::Release);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks for tokens, and has each verified at once and shortly before it expires, by a verifier
    /// that caches the JWKS for its max-age and does not fetch it for an unknown kid.
    fn load(&self, id: &str, secret: &str) {
        let mut verifier = Verifier::default();
        let mut kept: Vec<(Instant, String)> = Vec::new();
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"));
        let basic = format!("Basic {basic}");
        let headers = [
            ("authorization", basic.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        for turn in 0.. {
            if self.over.load(Ordering::Acquire) {
                return;
            }
            let answer = self.request(turn, |b| {
                let url = format!("http://127.0.0.1:{}/oauth/token", b.port);
                let body = b"grant_type=client_credentials";
                http::request_within(Duration::from_secs(1), "POST", &url, &headers, body)
            });
            match answer {
                Err(why) => self.fail(&format!("no token: {why}")),
                Ok(answer) => {
                    self.tokens.fetch_add(1, Ordering::Relaxed);
                    let token = answer.json()["access_token"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned();
                    verifier.verify(self, turn, &token);
                    if turn % 5 == 0 {
                        kept.push((Instant::now(), token));
                    }
                }
            }
            // A second and a half old, of the two that it lives.
            let (old, young) = kept
                .into_iter()
                .partition(|(at, _)| at.elapsed() > Duration::from_millis(1300));
            kept = young;
            let old: Vec<(Instant, String)> = old;
            for (at, token) in old {
                if at.elapsed() < Duration::from_millis(1900) {
                    verifier.verify(self, turn, &token);
                }
            }
            std::thread::sleep(Duration::from_millis(40));
        }
    }
}

#[derive(Default)]
struct Verifier {
    held: Option<(Instant, JwkSet)>,
}

impl Verifier {
    fn verify(&mut self, field: &Field, turn: u64, token: &str) {
        let stale = |(at, _): &(Instant, JwkSet)| at.elapsed() >= Duration::from_secs(1);
        if self.held.as_ref().is_none_or(stale) {
            let answer = field.request(turn, |b| {
                let url = format!("http://127.0.0.1:{}/.well-known/jwks.json", b.port);
                http::request_within(Duration::from_secs(1), "GET", &url, &[], b"")
            });
            match answer.map(|a| serde_json::from_slice(&a.body)) {
                Ok(Ok(set)) => self.held = Some((Instant::now(), set)),
                other => field.fail(&format!("no JWKS: {other:?}")),
            }
        }
        let Some((_, set)) = &self.held else { return };
        let kid = jsonwebtoken::decode_header(token)
            .ok()
            .and_then(|h| h.kid)
            .unwrap_or_default();
        let Some(jwk) = set.find(&kid) else {
            let known: Vec<_> = set
                .keys
                .iter()
                .filter_map(|k| k.common.key_id.clone())
                .collect();
            return field.fail(&format!(
                "kid {kid} is not in the verifier's JWKS, {known:?}"
            ));
        };
        let mut rules = Validation::new(Algorithm::ES256);
        rules.validate_aud = false;
        rules.leeway = 1;
        let key = DecodingKey::from_jwk(jwk).expect("a key");
        match jsonwebtoken::decode::<serde_json::Value>(token, &key, &rules) {
            Ok(_) => {
                field.verified.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => field.fail(&format!("a token does not verify: {error}")),
        }
    }
}

#[test]
fn leaders_end_and_keys_rotate_and_nobody_notices() {
    let cluster: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start()));
    let release = Release::prepared_on(cluster, "endure");
    let tenant = release.tenant("endure-tenant");
    release.ring("main", &format!("algorithm: ES256, rotation: {ROTATION}"));
    release.user(&tenant, "load", "");
    let account = cluster.admin_kubeconfig().to_owned();
    let backend = |port, admin_port| Backend {
        port,
        admin_port,
        process: Mutex::new(None),
        ready_at: AtomicI64::new(i64::MIN / 2),
    };
    let field = Arc::new(Field {
        begun: Instant::now(),
        backends: [
            backend(release.port, release.admin_port),
            backend(free_port(), free_port()),
        ],
        over: AtomicBool::new(false),
        tokens: AtomicU64::default(),
        verified: AtomicU64::default(),
        failures: Mutex::default(),
    });
    let start = |n: usize| {
        let backend = &field.backends[n];
        let process = release.start_process(&account, backend.port, backend.admin_port, &SETTINGS);
        *backend.process.lock().expect("no panic") = Some(process);
    };
    start(0);
    start(1);
    release.wait_ready("technicaluser", &tenant, "load");
    let (id, secret) = release.credentials(&tenant, "load");

    let mut threads = Vec::new();
    for n in 0..2 {
        let field = field.clone();
        threads.push(std::thread::spawn(move || field.watch(&field.backends[n])));
    }
    eventually("both are ready", LIMIT, || match field.ready().len() {
        2 => Ok(()),
        n => Err(format!("{n} of 2")),
    });
    release.token(&id, &secret, "");
    for _ in 0..2 {
        let (field, id, secret) = (field.clone(), id.clone(), secret.clone());
        threads.push(std::thread::spawn(move || field.load(&id, &secret)));
    }

    let status = || release.get("signingkey", &release.name, "main")["status"].clone();
    let newest = || -> i64 {
        let status = status();
        let keys = status["keys"].as_array().cloned().unwrap_or_default();
        keys.iter()
            .filter_map(|k| k["sequence"].as_i64())
            .max()
            .unwrap_or(0)
    };
    let leader = || -> usize {
        eventually("one leads", LIMIT, || {
            let leads = |b: &&Backend| {
                let url = format!("http://127.0.0.1:{}/metrics", b.admin_port);
                let answer = http::request_within(Duration::from_secs(1), "GET", &url, &[], b"");
                answer.is_ok_and(|a| a.text().contains("chancery_leader 1"))
            };
            let found = field.backends.iter().position(|b| leads(&b));
            found.ok_or_else(|| "none".to_owned())
        })
    };
    // Which kids were seen in the issuer's ConfigMap, and which were gone: none comes back.
    let mut kids: BTreeMap<String, bool> = BTreeMap::new();
    let mut look = |when: &str| {
        let map = cluster.kubectl(&[
            "get",
            "configmap",
            "chancery-issuer",
            "-n",
            &release.name,
            "-o",
            "jsonpath={.data.jwks}",
        ]);
        let Ok(set) = serde_json::from_str::<JwkSet>(&map.stdout) else {
            return;
        };
        let now: BTreeSet<String> = set
            .keys
            .iter()
            .filter_map(|k| k.common.key_id.clone())
            .collect();
        for (kid, there) in &mut kids {
            *there &= now.contains(kid);
        }
        for kid in now {
            let there = *kids.entry(kid.clone()).or_insert(true);
            assert!(there, "{when}: kid {kid} was gone and is back");
        }
    };
    let mut rounds = Vec::new();
    let deadline = Instant::now() + LONG;
    for round in 0.. {
        let from = newest();
        if from > ROTATIONS && round > 4 {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{from} rotations\n{rounds:?}\n{}",
            field.failures.lock().expect("no panic").join("\n")
        );
        let leading = leader();
        let backend = &field.backends[leading];
        let told = match round % 4 {
            0 => {
                let process = backend
                    .process
                    .lock()
                    .expect("no panic")
                    .take()
                    .expect("it runs");
                process.signal(Signal::Term);
                process.wait_exit(LIMIT);
                release.printed(process.output());
                start(leading);
                "TERM"
            }
            1 => {
                let process = backend
                    .process
                    .lock()
                    .expect("no panic")
                    .take()
                    .expect("it runs");
                process.signal(Signal::Kill);
                process.wait_exit(LIMIT);
                release.printed(process.output());
                start(leading);
                "KILL"
            }
            2 => {
                let process = backend.process.lock().expect("no panic");
                let process = process.as_ref().expect("it runs");
                process.signal(Signal::Stop);
                eventually("the other leads", LIMIT, || {
                    let other = &field.backends[1 - leading];
                    let url = format!("http://127.0.0.1:{}/metrics", other.admin_port);
                    let answer = http::get(&url).map_err(|e| e.to_string())?;
                    if answer.text().contains("chancery_leader 1") {
                        Ok(())
                    } else {
                        Err("not yet".to_owned())
                    }
                });
                process.signal(Signal::Cont);
                "STOP"
            }
            _ => {
                cluster.stop_api_server();
                std::thread::sleep(Duration::from_secs(10));
                cluster.start_api_server();
                "API server away for 10 s"
            }
        };
        rounds.push(told);
        eventually("it rotates on, and both are ready", LIMIT * 2, || {
            look(told);
            let (newest, ready) = (newest(), field.ready().len());
            if newest >= from + 3 && ready == 2 {
                Ok(())
            } else {
                Err(format!("after {told}: key {newest}, {ready} ready"))
            }
        });
    }
    field.over.store(true, Ordering::Release);
    for thread in threads {
        thread.join().expect("no panic");
    }
    let failures = field.failures.lock().expect("no panic").clone();
    println!(
        "{} rotations, {} kids, {} tokens, {} verifications, {} failures, in {:.0} s; {rounds:?}",
        newest() - 1,
        kids.len(),
        field.tokens.load(Ordering::Relaxed),
        field.verified.load(Ordering::Relaxed),
        failures.len(),
        field.begun.elapsed().as_secs_f64()
    );
    assert_eq!(failures, Vec::<String>::new());

    // At rest there is a Secret for each key that status knows, and no other.
    release.cluster.kubectl_ok(&[
        "patch",
        "signingkey",
        "main",
        "-n",
        &release.name,
        "--type=merge",
        "-p",
        r#"{"spec":{"rotation":null}}"#,
    ]);
    eventually("no Secret is an orphan", LIMIT * 2, || {
        let secrets = release.list("secrets", &release.name);
        let of = |s: &&serde_json::Value| s["type"] == "chancery.dev/key-pair";
        let names: BTreeSet<String> = secrets
            .iter()
            .filter(of)
            .filter_map(|s| s["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        let status = status();
        let keys = status["keys"].as_array().cloned().unwrap_or_default();
        let known: BTreeSet<String> = keys
            .iter()
            .map(|k| format!("main-{}", k["sequence"]))
            .collect();
        if names == known && known.len() == 1 {
            Ok(())
        } else {
            Err(format!("{names:?} and {known:?}"))
        }
    });
    for n in 0..2 {
        let process = field.backends[n].process.lock().expect("no panic").take();
        if let Some(process) = process {
            process.signal(Signal::Kill);
            process.wait_exit(LIMIT);
            release.printed(process.output());
        }
    }
}
