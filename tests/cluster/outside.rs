//! People of an outside provider on a real release with two replicas: their tokens are exchanged, introspected
//! and asked about, and each reason to take them no more, and each new key, comes to both.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::Algorithm;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::exchange::{GRANT, TYPE};
use crate::load::part;
use crate::login::{self, Login, signed, with_kid};
use crate::provider::annotate;
use crate::release::{LIMIT, Release};
use crate::revocation::KNOWN_WITHIN;
use crate::support::{Proc, Scratch, Signal, eventually, free_port, http};

/// What a token comes to: exchanged, introspected (0: not active), and at `/account`.
type Uses = [u16; 3];
const TAKEN: Uses = [200, 200, 200];
const REFUSED: Uses = [400, 0, 401];

/// A release that trusts, with loopback allowed, two replicas, and a service that acts for people.
pub struct Trusting {
    pub release: Release,
    pub tenant: String,
    shop: (String, String),
    beside: u16,
    second: Option<Proc>,
    _config: Scratch,
}

impl Trusting {
    pub fn start(name: &str) -> Self {
        let config = Scratch::new("outside");
        let file: PathBuf = config.path().join("release.yaml");
        std::fs::write(&file, "providers: {allowedAddresses: [127.0.0.0/8]}\n").expect("written");
        let settings = ["--config", &file.display().to_string()];
        let mut release = Release::prepared(name);
        release.run(&settings);
        release.ring("main", "algorithm: ES256");
        people(&release, "");
        let tenant = release.bare_tenant(&format!("{name}-tenant"));
        release.subscribe(&tenant, "main", &tenant, "");
        release.user(&tenant, "shop", "  onBehalfOf: true\n  introspect: true\n");
        release.wait_ready("technicaluser", &tenant, "shop");
        let shop = release.credentials(&tenant, "shop");
        let (beside, admin) = (free_port(), free_port());
        let account = release.cluster.admin_kubeconfig();
        let second = Some(release.serve_beside(account, beside, admin, &settings));
        let url = format!("http://127.0.0.1:{beside}/oauth/token");
        release.token(&shop.0, &shop.1, "");
        eventually("the second replica serves", LIMIT, || {
            let answer = http::token(&url, &shop.0, &shop.1, "").map_err(|e| e.to_string())?;
            (answer.status == 200).then_some(()).ok_or(answer.text())
        });
        Self {
            release,
            tenant,
            shop,
            beside,
            second,
            _config: config,
        }
    }

    pub fn trust(&self, name: &str, issuer: &str, refresh: &str) {
        self.release.apply(&format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: OidcProvider\nmetadata: {{name: {name}, namespace: {}}}\nspec:\n  wellKnownUri: {issuer}/.well-known/openid-configuration\n  requireHttps: false\n  issuers: ['{issuer}']\n  audiences: [{name}]\n  jwks: {{refreshInterval: {refresh}}}\n  roleMappings: [{{from: SALES, to: [clerk, boss]}}]\n  claims: {{roles: realm_access.roles}}\n",
            self.tenant
        ));
    }

    /// What a provider gives a person of this tenant, for that audience.
    pub fn claims(&self, issuer: &str, audience: &str) -> Value {
        let now = crate::ring::now().as_second();
        json!({
            "iss": issuer, "sub": "ann", "aud": audience, "iat": now, "exp": now + 600,
            "jti": "of-the-sign-in", "caas_org_id": self.tenant, "scope": "openid read",
            "realm_access": {"roles": ["SALES", "OTHER"]},
        })
    }

    pub fn ports(&self) -> [u16; 2] {
        [self.release.port, self.beside]
    }

    fn form(&self, port: u16, path: &str, body: &str) -> http::Answer {
        let url = format!("http://127.0.0.1:{port}{path}");
        http::form(&url, &self.shop.0, &self.shop.1, body).expect("the server answers")
    }

    fn exchange(&self, port: u16, token: &str) -> http::Answer {
        let body = format!("grant_type={GRANT}&subject_token={token}&subject_token_type={TYPE}");
        self.form(port, "/oauth/token", &body)
    }

    fn introspect(&self, port: u16, token: &str) -> http::Answer {
        self.form(port, "/oauth/introspect", &format!("token={token}"))
    }

    fn uses(&self, port: u16, token: &str) -> Uses {
        let told = self.introspect(port, token);
        let active = match told.status {
            200 if told.json()["active"] == true => 200,
            200 => {
                assert_eq!(told.json(), json!({"active": false}));
                0
            }
            other => other,
        };
        let account = account(port, token).status;
        [self.exchange(port, token).status, active, account]
    }

    /// Waits until both replicas say so, and tells after how long.
    fn wait(&self, what: &str, token: &str, wanted: Uses) -> Duration {
        let since = Instant::now();
        for port in self.ports() {
            eventually(&format!("{what}, at {port}"), LIMIT, || {
                let uses = self.uses(port, token);
                let tail = || self.release.tail();
                (uses == wanted)
                    .then_some(())
                    .ok_or_else(|| format!("{uses:?}\n{}", tail()))
            });
        }
        let took = since.elapsed();
        println!("{what}: after {:.2} s", took.as_secs_f64());
        took
    }

    /// The same within five times what is promised.
    fn soon(&self, what: &str, token: &str, wanted: Uses) {
        let took = self.wait(what, token, wanted);
        assert!(took < KNOWN_WITHIN, "{what}: {took:?}");
    }

    pub fn patch(&self, kind: &str, name: &str, spec: &str) {
        let patch = format!("{{\"spec\": {spec}}}");
        let args = [
            "patch",
            kind,
            name,
            "-n",
            &self.tenant,
            "--type=merge",
            "-p",
        ];
        let args = [&args[..], &[&patch]].concat();
        self.release.cluster.kubectl_ok(&args);
    }

    fn annotate(&self, name: &str, annotation: &str) {
        annotate(
            &self.release,
            "oidcprovider",
            &self.tenant,
            name,
            annotation,
        );
    }

    /// What the servers are handed of a provider.
    fn handed(&self, name: &str) -> Vec<String> {
        let map = format!("chancery-provider.{}.{name}-keys", self.tenant);
        let map = self.release.get("configmap", &self.release.name, &map);
        let document = map["data"]["jwks.json"].as_str().unwrap_or("{}");
        let jwks: Value = serde_json::from_str(document).expect("JSON");
        let keys = jwks["keys"].as_array().cloned().unwrap_or_default();
        let kids = keys.iter().filter_map(|key| key["kid"].as_str());
        kids.map(str::to_owned).collect()
    }

    fn wait_handed(&self, name: &str, keys: &[&Arc<KeyPair>]) {
        let mut wanted: Vec<_> = keys.iter().map(|key| key.key_id().to_owned()).collect();
        wanted.sort();
        eventually(&format!("{wanted:?} are handed on"), LIMIT, || {
            let mut handed = self.handed(name);
            handed.sort();
            (handed == wanted)
                .then_some(())
                .ok_or(format!("{handed:?}"))
        });
    }

    pub fn end(mut self) {
        if let Some(second) = self.second.take() {
            second.signal(Signal::Kill);
            second.wait_exit(LIMIT);
            self.release.printed(second.output());
        }
    }
}

fn account(port: u16, token: &str) -> http::Answer {
    let bearer = format!("Bearer {token}");
    let url = format!("http://127.0.0.1:{port}/account");
    http::request("GET", &url, &[("authorization", &bearer)], b"").expect("the server answers")
}

/// A ring for people.
fn people(release: &Release, more: &str) {
    let namespace = &release.name;
    release.apply(&format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: SigningKey\nmetadata: {{name: people, namespace: {namespace}}}\nspec: {{audience: human, algorithm: ES256{more}}}\n"
    ));
    release.wait_ready("signingkey", namespace, "people");
}

#[test]
fn from_sign_in_to_every_use_and_back() {
    let trusting = Trusting::start("outside");
    let tenant = trusting.tenant.clone();
    let first = login::key();
    // It is down when it is first asked: nothing can be said of its tokens.
    let login = Login::start(&[&first]);
    login.down(true);
    trusting.trust("login", &login.base, "10s");
    let release = &trusting.release;
    release.wait_reason(
        "oidcprovider",
        &tenant,
        "login",
        "Reachable",
        "ProviderUnreachable",
    );
    let claims = || trusting.claims(&login.base, "login");
    let token = signed(&first, &claims());
    trusting.wait("its keys are not known yet", &token, [503, 503, 401]);
    let answer = trusting.exchange(trusting.beside, &token);
    assert_eq!(answer.header("retry-after"), Some("2"));
    login.down(false);
    trusting.wait("it is up", &token, TAKEN);

    // Whom the tokens speak of, as each says it.
    let id = format!("{tenant}/login:ann");
    for port in trusting.ports() {
        let exchanged = trusting.exchange(port, &token).json();
        let claims = part(exchanged["access_token"].as_str().expect("a token"), 1);
        assert_eq!(
            (&claims["sub"], &claims["caas_user_id"]),
            (&json!(id), &json!(id))
        );
        assert_eq!(claims["act"], json!({"sub": trusting.shop.0}));
        assert_eq!(
            (&claims["scope"], &claims["user_roles"]),
            (&json!("read"), &json!(["clerk"]))
        );
        assert_eq!(claims["caas_org_id"], tenant);
        assert_eq!(claims["iss"], release.issuer());
        let told = trusting.introspect(port, &token).json();
        assert_eq!(
            (&told["sub"], &told["iss"]),
            (&json!(id), &json!(login.base))
        );
        assert_eq!(
            (&told["caas_org_id"], &told["user_roles"]),
            (&json!(tenant), &json!(["clerk"]))
        );
        let info = account(port, &token).json()["userAccountInfo"].clone();
        assert_eq!(
            (&info["userId"], &info["roles"]),
            (&json!(id), &json!([{"id": "clerk"}]))
        );
        assert_eq!(info["legalEntity"]["id"], tenant);
    }

    // Inactive, and back; its Subscription over, and back.
    trusting.patch("oidcprovider", "login", "{\"active\": false}");
    trusting.soon("inactive", &token, REFUSED);
    trusting.patch("oidcprovider", "login", "{\"active\": true}");
    trusting.wait("active again", &token, TAKEN);
    trusting.patch(
        "subscription",
        "main",
        "{\"periodTo\": \"2026-01-01T00:00:00Z\"}",
    );
    trusting.soon("its Subscription has ended", &token, REFUSED);
    trusting.patch("subscription", "main", "{\"periodTo\": null}");
    trusting.wait("it is current again", &token, TAKEN);

    rotated_under_load(&trusting, &login, &first);

    // Down for a while: what it had is trusted.
    let second = login::key();
    login.publish(&[&second]);
    trusting.annotate("login", "chancery.dev/reload=one");
    trusting.wait_handed("login", &[&second]);
    let token = signed(&second, &claims());
    trusting.wait("its other key", &token, TAKEN);
    login.down(true);
    trusting.annotate("login", "chancery.dev/reload=two");
    release.wait_reason(
        "oidcprovider",
        &tenant,
        "login",
        "Reachable",
        "ProviderUnreachable",
    );
    for port in trusting.ports() {
        assert_eq!(trusting.uses(port, &token), TAKEN);
    }
    login.down(false);
    release.wait_reason("oidcprovider", &tenant, "login", "Reachable", "Succeeded");
    let delete = ["delete", "oidcprovider", "login", "-n", &tenant];
    release.cluster.kubectl_ok(&delete);
    trusting.soon("deleted", &token, REFUSED);
    trusting.end();
}

/// The provider publishes a key, waits until whoever trusts it must have read it, signs with it, and takes the
/// old one away once nothing that it signed lives: nobody notices.
fn rotated_under_load(trusting: &Trusting, login: &Login, first: &Arc<KeyPair>) {
    let second = login::key();
    let signer = Mutex::new(Arc::clone(first));
    let (stop, done) = (AtomicBool::new(false), Mutex::new((0, 0, Vec::new())));
    let counted = |which: usize, least: usize| {
        eventually(&format!("{least} exchanges of key {which}"), LIMIT, || {
            let done = done.lock().expect("no panic");
            let count = [done.0, done.1][which];
            (count >= least).then_some(()).ok_or(count)
        });
    };
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            for port in trusting.ports().iter().cycle() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let key = Arc::clone(&signer.lock().expect("no panic"));
                let token = signed(&key, &trusting.claims(&login.base, "login"));
                let answer = trusting.exchange(*port, &token);
                let mut done = done.lock().expect("no panic");
                match (answer.status, Arc::ptr_eq(&key, first)) {
                    (200, true) => done.0 += 1,
                    (200, false) => done.1 += 1,
                    _ => done.2.push(format!("{port}: {}", answer.text())),
                }
                drop(done);
                std::thread::sleep(Duration::from_millis(25));
            }
        });
        counted(0, 20);
        login.publish(&[first, &second]);
        trusting.wait_handed("login", &[first, &second]);
        // What is handed on is known everywhere within 2 s.
        std::thread::sleep(KNOWN_WITHIN);
        *signer.lock().expect("no panic") = Arc::clone(&second);
        counted(1, 20);
        login.publish(&[&second]);
        trusting.wait_handed("login", &[&second]);
        let old = signed(first, &trusting.claims(&login.base, "login"));
        trusting.wait("the old key is gone", &old, REFUSED);
        let more = done.lock().expect("no panic").1 + 20;
        counted(1, more);
        stop.store(true, Ordering::SeqCst);
        load.join().expect("no panic");
    });
    let (old, new, failed) = done.into_inner().expect("no panic");
    println!(
        "rotated at the provider: {old} exchanges, and {new} of the new key, {} failed",
        failed.len()
    );
    assert_eq!(failed, Vec::<String>::new());
}

/// The key that signs in a ring for people, as a sign-in at that issuer would use it.
fn signer(release: &Release, sequence: u32) -> KeyPair {
    let name = format!("people-{sequence}");
    let secret = eventually(&format!("the key {name}"), LIMIT, || {
        let secret = release.get("secret", &release.name, &name);
        secret["data"]
            .is_object()
            .then_some(secret)
            .ok_or("none yet")
    });
    let data = secret["data"].as_object().expect("data").values();
    let mut texts = data.filter_map(|v| String::from_utf8(STANDARD.decode(v.as_str()?).ok()?).ok());
    let pem = texts.find(|text| text.contains("PRIVATE KEY"));
    KeyPair::from_pem(Algorithm::ES256, &pem.expect("a key")).expect("a key pair")
}

#[test]
fn a_token_that_names_a_new_key_has_it_fetched() {
    let trusting = Trusting::start("wanted");
    let provider = Release::start("wanted-other");
    people(&provider, "");
    trusting.trust("partner", &provider.issuer(), "1h");
    trusting
        .release
        .wait_ready("oidcprovider", &trusting.tenant, "partner");
    let claims = || trusting.claims(&provider.issuer(), "partner");
    let first = signer(&provider, 1);
    trusting.wait("the first key", &signed(&first, &claims()), TAKEN);
    let known = trusting.handed("partner");

    // An emergency there: the next key signs at once, before anyone can have read it.
    let own = provider.name.clone();
    let kid = first.key_id();
    let patch = format!(
        "{{\"spec\": {{\"invalidated\": [{{\"keyId\": \"{kid}\", \"gracePeriod\": \"0s\"}}]}}}}"
    );
    let withdraw = ["patch", "signingkey", "people", "-n", &own];
    let withdraw = [&withdraw[..], &["--type=merge", "-p", &patch]].concat();
    provider.cluster.kubectl_ok(&withdraw);
    let second = signer(&provider, 2);
    eventually("the second key signs", LIMIT, || {
        let ring = provider.get("signingkey", &own, "people");
        let active = ring["status"]["activeKeyId"].clone();
        (active == second.key_id()).then_some(()).ok_or(active)
    });
    assert_eq!(trusting.handed("partner"), known, "nobody has asked since");
    let token = signed(&second, &claims());
    // Refused at once, without waiting for anything.
    assert_eq!(trusting.exchange(trusting.beside, &token).status, 400);
    let took = trusting.wait(
        "a token with a new key is taken by both replicas",
        &token,
        TAKEN,
    );
    assert!(took < Duration::from_secs(30), "{took:?}");
    // And what was withdrawn there is not trusted here any more.
    let withdrawn = signed(&first, &claims());
    for port in trusting.ports() {
        assert_eq!(trusting.uses(port, &withdrawn), REFUSED);
    }
    flooded(&trusting);
    trusting.end();
}

/// Whoever makes up keys has the provider asked no more often than the operator's pause allows, and fills
/// nothing.
fn flooded(trusting: &Trusting) {
    let published = login::key();
    let login = Login::start(&[&published]);
    trusting.trust("login", &login.base, "1h");
    let token = signed(&published, &trusting.claims(&login.base, "login"));
    trusting.wait("another provider", &token, TAKEN);
    let (before, began) = (login.asked(), Instant::now());
    let notes = || {
        let map = "chancery-wanted-keys";
        trusting
            .release
            .get("configmap", &trusting.release.name, map)
    };
    let version = |map: &Value| map["metadata"]["resourceVersion"].clone();
    let (mut sent, mut versions) = (0, Vec::new());
    while began.elapsed() < Duration::from_secs(25) {
        for port in trusting.ports() {
            let made_up = login::key();
            let kid = format!("{}{sent}", "k".repeat(2000));
            let claims = trusting.claims(&login.base, "login");
            let answer = account(port, &with_kid(&made_up, &kid, &claims));
            assert_eq!(answer.status, 401);
            sent += 1;
        }
        if sent % 50 == 0 {
            let map = notes();
            assert!(map["data"].to_string().len() < 200, "{map}");
            if versions.last() != Some(&version(&map)) {
                versions.push(version(&map));
            }
        }
    }
    let seconds = began.elapsed().as_secs();
    let asked = login.asked() - before;
    println!(
        "{sent} tokens with keys of nobody's in {seconds} s: the provider was asked {asked} times for something, at least {} writes were seen",
        versions.len()
    );
    assert!(sent > 100, "{sent}");
    // Metadata and JWKS, every 10 s.
    assert!((2..=2 * (seconds / 10 + 1)).contains(&asked), "{asked}");
    assert_eq!(trusting.uses(trusting.beside, &token), TAKEN);
}
