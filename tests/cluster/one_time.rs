//! Client secrets that are delivered once: claimed through kubectl, or sealed to a recipient of the spec and
//! opened by an age that is not ours; and what is plain is nowhere, etcd's history included.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use chancery::crypto::age::{Identity, Recipient, seal};
use serde_json::{Value, json};

use crate::load::Client;
use crate::release::{LIMIT, Release};
use crate::ring::text;
use crate::support::binaries;
use crate::support::process::{Output, complete};
use crate::support::{ControlPlane, Proc, Scratch, Signal, chancery_bin, eventually, free_port};

struct Trial {
    release: Release,
    tenant: String,
    scratch: Scratch,
}

impl Trial {
    fn start(prefix: &str) -> Self {
        let mut trial = Self::without_operator(prefix);
        trial.release.run(&[]);
        trial
    }

    fn without_operator(prefix: &str) -> Self {
        Self::of(Release::prepared(prefix), prefix)
    }

    fn of(release: Release, prefix: &str) -> Self {
        let tenant = release.tenant(&format!("{prefix}-tenant"));
        release.ring("main", "algorithm: ES256");
        let scratch = Scratch::new("one-time");
        let plugin = scratch.path().join("kubectl-chancery");
        std::os::unix::fs::symlink(chancery_bin(), plugin).expect("a link");
        Self {
            release,
            tenant,
            scratch,
        }
    }

    /// A technical user whose client secrets are delivered once; `more` goes into credential.secret.
    fn user(&self, name: &str, more: &str) {
        self.release.apply(&format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: TechnicalUser\nmetadata: {{name: {name}, namespace: {}}}\nspec:\n  audiences: ['https://a.example']\n  credential: {{secret: {{delivery: OneTime{more}}}}}\n",
            self.tenant
        ));
    }

    fn get(&self, name: &str) -> Value {
        self.release.get("technicaluser", &self.tenant, name)
    }

    fn patch(&self, name: &str, patch: &Value) {
        let of = ["patch", "technicaluser", name, "-n", &self.tenant];
        let patch = patch.to_string();
        let how = ["--type=merge", "-p", &patch];
        self.release.cluster.kubectl_ok(&[&of[..], &how].concat());
    }

    fn secret(&self, name: &str, spec: &Value) {
        self.patch(name, &json!({"spec": {"credential": {"secret": spec}}}));
    }

    fn rotate(&self, name: &str, value: &str) {
        self.patch(
            name,
            &json!({"metadata": {"annotations": {"chancery.dev/rotate": value}}}),
        );
    }

    fn wait<T>(&self, name: &str, what: &str, mut look: impl FnMut(&Value) -> Option<T>) -> T {
        eventually(&format!("{name}: {what}"), LIMIT, || {
            let user = self.get(name);
            look(&user).ok_or_else(|| format!("{}\n{}", user["status"], self.release.tail()))
        })
    }

    fn awaited(&self, name: &str, condition: &str) -> String {
        let told = self.release.wait_reason(
            "technicaluser",
            &self.tenant,
            name,
            condition,
            "ClaimAwaited",
        );
        text(&told["message"]).expect("a message")
    }

    /// `kubectl chancery claim`, as kubectl runs it.
    fn command(&self, name: &str, kubeconfig: &Path, more: &[&str]) -> Command {
        let mut command = self.release.cluster.kubectl_command(kubeconfig);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", self.scratch.path().display()))
            .args(["chancery", "claim", name, "-n", &self.tenant])
            .args(more);
        command
    }

    fn claim(&self, name: &str, more: &[&str]) -> Output {
        let account = self.release.cluster.admin_kubeconfig();
        complete(self.command(name, account, more), b"", LIMIT)
    }

    /// Client id and secret, of a claim that is granted.
    fn claimed(&self, name: &str) -> (String, String) {
        self.read(self.claim(name, &["-o", "json"]))
    }

    fn read(&self, output: Output) -> (String, String) {
        let printed: Value =
            serde_json::from_str(&output.expect_success("the claim")).expect("JSON");
        let of = |key: &str| text(&printed[key]).expect("it is there");
        let (id, secret) = (of("client_id"), of("client_secret"));
        self.release.remember(&secret);
        (id, secret)
    }

    fn refused(&self, name: &str, told: &[&str]) {
        let output = self.claim(name, &[]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(output.stdout, "");
        for part in told {
            assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
        }
    }

    /// A key of `age-keygen`: the file with it, and its recipient.
    fn key(&self, name: &str) -> (PathBuf, String) {
        let file = self.scratch.path().join(name);
        let mut keygen = Command::new(binaries::age().join("age-keygen"));
        keygen.arg("-o").arg(&file);
        complete(keygen, b"", LIMIT).expect_success("age-keygen");
        let mut public = Command::new(binaries::age().join("age-keygen"));
        public.arg("-y").arg(&file);
        let recipient = complete(public, b"", LIMIT).expect_success("age-keygen -y");
        (file, recipient.trim().to_owned())
    }

    /// What `age` reads of a sealed text with that key.
    fn decrypted(&self, sealed: &Value, key: &Path) -> String {
        let sealed = text(&sealed["ciphertext"]).expect("a sealed text");
        let secret = decrypt(&sealed, key).expect_success("age --decrypt");
        self.release.remember(&secret);
        secret
    }

    fn no_secret_is_there(&self) {
        let secrets = self.release.list("secrets", &self.tenant);
        assert!(secrets.is_empty(), "{secrets:?}");
    }

    fn client(&self, id: &str, secret: &str) -> Client {
        Client {
            ports: vec![self.release.port],
            issuer: self.release.issuer(),
            id: id.into(),
            secret: secret.into(),
        }
    }
}

fn decrypt(sealed: &str, key: &Path) -> Output {
    let mut age = Command::new(binaries::age().join("age"));
    age.args(["--decrypt", "-i"]).arg(key);
    complete(age, sealed.as_bytes(), LIMIT)
}

/// What is sealed here opens with the age of others, and the other way round; and it reads our recipients.
#[test]
fn the_format_is_that_of_age() {
    let scratch = Scratch::new("age");
    let key = scratch.path().join("key");
    let mut keygen = Command::new(binaries::age().join("age-keygen"));
    complete(
        {
            keygen.arg("-o").arg(&key);
            keygen
        },
        b"",
        LIMIT,
    )
    .expect_success("age-keygen");
    let mut public = Command::new(binaries::age().join("age-keygen"));
    let public = complete(
        {
            public.arg("-y").arg(&key);
            public
        },
        b"",
        LIMIT,
    );
    let theirs = public.expect_success("age-keygen -y");
    let theirs = Recipient::parse(theirs.trim()).expect("a recipient");
    let mine = Identity::generate();
    for length in [0, 1, 52, 1000, 64 * 1024] {
        let plain = "x".repeat(length);
        let sealed = seal(&theirs, plain.as_bytes()).expect("sealed");
        assert!(
            decrypt(&sealed, &key).expect_success("age --decrypt") == plain,
            "{length}"
        );
        if length == 64 * 1024 {
            // One byte of it changed.
            let at = sealed.len() / 2;
            let other = if sealed.as_bytes()[at] == b'A' {
                "B"
            } else {
                "A"
            };
            let altered = format!("{}{other}{}", &sealed[..at], &sealed[at + 1..]);
            assert!(!decrypt(&altered, &key).success(), "it can fail");
        }
        let mut age = Command::new(binaries::age().join("age"));
        age.args(["--encrypt", "--armor", "-r", &mine.recipient().to_string()]);
        let sealed = complete(age, plain.as_bytes(), LIMIT).expect_success("age --encrypt");
        assert!(
            mine.open(&sealed).expect("opened")[..] == *plain.as_bytes(),
            "{length}"
        );
    }
}

#[test]
fn claimed_once_through_kubectl() {
    let trial = Trial::start("claimed");
    let release = &trial.release;
    trial.user("user", "");
    let told = trial.awaited("user", "Reconciling");
    let how = format!("kubectl chancery claim user -n {}", trial.tenant);
    assert!(told.contains(&how), "{told}");
    let table = release
        .cluster
        .kubectl_ok(&["get", "tu", "-n", &trial.tenant]);
    assert!(
        table.contains("OneTime") && table.contains("ClaimAwaited"),
        "{table}"
    );
    let hashes = format!("{}.user-credentials", trial.tenant);
    assert!(
        release.get("secret", &release.name, &hashes).is_null(),
        "nothing is made"
    );

    let (id, first) = trial.claimed("user");
    release.token(&id, &first, "");
    trial.no_secret_is_there();
    let status = trial.wait("user", "it is ready", |user| {
        let status = &user["status"];
        (status["conditions"][0]["status"] == "True").then(|| status.clone())
    });
    assert_eq!(status["sealed"]["by"], "Claim");
    assert_eq!(status["credentials"][0]["state"], "Active");
    let recipient = text(&status["sealed"]["recipient"]).expect("a recipient");
    trial.refused(
        "user",
        &[
            "was claimed for",
            &recipient,
            "Lost means rotate",
            "chancery.dev/rotate=…",
        ],
    );
    // Its claim was for this resource alone.
    let user = trial.get("user");
    let (claim, uid) = (
        text(&user["metadata"]["annotations"]["chancery.dev/claim"]).expect("a claim"),
        text(&user["metadata"]["uid"]).expect("a UID"),
    );
    assert_eq!(claim, format!("{recipient}@{uid}"));
    // A claim that is written by hand changes nothing either.
    let other = Identity::generate().recipient().to_string();
    trial.patch(
        "user",
        &json!({"metadata": {"annotations": {"chancery.dev/claim": other}}}),
    );
    trial.wait("user", "it is looked at", |user| {
        (user["status"]["lastHandledClaim"] == other).then_some(())
    });
    assert_eq!(trial.get("user")["status"]["sealed"], status["sealed"]);

    // Rotated under load: what is held works on, and the new one from the first moment.
    let load = trial.client(&id, &first).load();
    trial.rotate("user", "lost");
    trial.awaited("user", "RotationPaused");
    assert_eq!(
        trial.get("user")["status"]["sealed"],
        status["sealed"],
        "the claim by hand has no other"
    );
    let (_, second) = trial.claimed("user");
    assert_eq!(release.ask(&id, &second, "").status, 200);
    let both = trial.client(&id, &second).load();
    trial.wait("user", "both work", |user| {
        let all = &user["status"]["credentials"];
        (all[0]["state"] == "Retired" && all[1]["state"] == "Active").then_some(())
    });
    assert_eq!(trial.get("user")["status"]["lastHandledRotation"], "lost");
    load.unnoticed("the one that was claimed first");
    both.unnoticed("the one that was claimed then");
    assert_ne!(first, second);

    // With the grace shortened the first ends.
    trial.secret("user", &json!({"rotation": {"gracePeriod": "0s"}}));
    assert_eq!(release.refused(&id, &first, "").status, 401);
    assert_eq!(release.ask(&id, &second, "").status, 200);

    // Into a file; one that is there is left as it is, and nothing is made for it.
    let file = trial.scratch.path().join("user.env");
    let name = file.display().to_string();
    trial.rotate("user", "into a file");
    trial.awaited("user", "RotationPaused");
    let output = trial.claim("user", &["-o", "env", "--output-file", &name]);
    assert_eq!(output.expect_success("the claim"), "");
    let written = std::fs::read_to_string(&file).expect("written");
    let third = written
        .split("CLIENT_SECRET=")
        .nth(1)
        .expect("a secret")
        .trim();
    release.remember(third);
    assert!(written.starts_with(&format!("CLIENT_ID={id}\n")));
    release.token(&id, third, "");
    let mode = std::fs::metadata(&file)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let output = trial.claim("user", &["--output-file", &name]);
    assert!(
        !output.success() && output.stderr.contains("is there already"),
        "{output:?}"
    );

    // Not for those that are delivered otherwise.
    release.user(&trial.tenant, "plain", "");
    trial.refused("plain", &["delivery OneTime"]);
    trial.refused("nobody", &["there is no TechnicalUser"]);
}

/// With the rights that the docs name, and without them.
#[test]
fn whoever_may_patch_may_claim() {
    let trial = Trial::start("claim-rights");
    trial.user("user", "");
    let cluster = trial.release.cluster;
    let namespace = &trial.tenant;
    for (account, verbs) in [("reader", "get"), ("claimer", "get,patch")] {
        let role = format!("--verb={verbs}");
        let of = format!("--serviceaccount={namespace}:{account}");
        let role_of = format!("--role={account}");
        cluster.kubectl_ok(&["create", "serviceaccount", account, "-n", namespace]);
        let resource = "--resource=technicaluser.chancery.dev";
        cluster.kubectl_ok(&["create", "role", account, "-n", namespace, &role, resource]);
        cluster.kubectl_ok(&[
            "create",
            "rolebinding",
            account,
            "-n",
            namespace,
            &role_of,
            &of,
        ]);
    }
    let of = |account: &str| {
        let account = cluster.kubeconfig_for_service_account(namespace, account);
        complete(trial.command("user", &account, &["-o", "json"]), b"", LIMIT)
    };
    let output = of("reader");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.stderr.contains("you may not patch technicalusers"),
        "{output:?}"
    );
    let (id, secret) = trial.read(of("claimer"));
    trial.release.token(&id, &secret, "");
}

/// Two at the same moment: one has it, and the other is told so.
#[test]
fn of_two_claims_one_wins() {
    let trial = Trial::start("claims");
    let account = trial.release.cluster.admin_kubeconfig();
    for round in 0..6 {
        let name = format!("user{round}");
        trial.user(&name, "");
        let claim = || complete(trial.command(&name, account, &["-o", "json"]), b"", LIMIT);
        let outputs = std::thread::scope(|scope| {
            let claims: Vec<_> = (0..3).map(|_| scope.spawn(claim)).collect();
            claims
                .into_iter()
                .map(|c| c.join().expect("it ran"))
                .collect::<Vec<_>>()
        });
        let (won, lost): (Vec<_>, Vec<_>) = outputs.into_iter().partition(Output::success);
        assert_eq!((won.len(), lost.len()), (1, 2), "{won:?} {lost:?}");
        for lost in lost {
            assert_eq!((lost.status.code(), lost.stdout.as_str()), (Some(1), ""));
            let told = ["is just being claimed by somebody else", "was claimed for"];
            assert!(
                told.iter().any(|t| lost.stderr.contains(t)),
                "{}",
                lost.stderr
            );
            println!("{}", lost.stderr.trim());
        }
        for won in won {
            let (id, secret) = trial.read(won);
            trial.release.token(&id, &secret, "");
        }
    }
}

/// Nobody makes the secret: the claim is taken back, by Ctrl-C and by the time.
#[test]
fn a_claim_that_is_given_up_is_taken_back() {
    let mut trial = Trial::without_operator("claim-given-up");
    trial.user("user", "");
    let annotation =
        |trial: &Trial| trial.get("user")["metadata"]["annotations"]["chancery.dev/claim"].clone();
    let account = trial.release.cluster.admin_kubeconfig();
    let command = trial.command("user", account, &[]);
    let waiting = Proc::start("claim", command, trial.scratch.path());
    eventually("the claim stands", LIMIT, || {
        let claim = annotation(&trial);
        claim.is_string().then_some(()).ok_or(waiting.output())
    });
    // Meanwhile nobody else can.
    trial.refused("user", &["is just being claimed by somebody else"]);
    waiting.signal(Signal::Int);
    assert_eq!(waiting.wait_exit(LIMIT).code(), Some(1));
    assert!(
        waiting.stderr().contains("the claim was taken back"),
        "{}",
        waiting.output()
    );
    assert!(annotation(&trial).is_null());
    let file = trial.scratch.path().join("empty");
    let name = file.display().to_string();
    let output = trial.claim("user", &["--timeout", "2s", "--output-file", &name]);
    assert!(
        output
            .stderr
            .contains("within 2s: the claim was taken back"),
        "{output:?}"
    );
    assert!(annotation(&trial).is_null() && !file.exists());
    trial.release.run(&[]);
    let (id, secret) = trial.claimed("user");
    trial.release.token(&id, &secret, "");
}

/// What is made again from its own manifest, the claim's annotation with it, waits for a new claim.
#[test]
fn a_claim_goes_with_its_resource() {
    let trial = Trial::start("claim-again");
    let release = &trial.release;
    trial.user("user", "");
    let (id, first) = trial.claimed("user");
    release.token(&id, &first, "");
    let before = trial.get("user");
    let of = ["replace", "--force", "-f", "-"];
    let replaced = release.cluster.kubectl_stdin(&of, &before.to_string());
    replaced.expect_success("replace");
    let told = trial.awaited("user", "Reconciling");
    assert!(told.contains("kubectl chancery claim user"), "{told}");
    let after = trial.get("user");
    let claim = |user: &Value| text(&user["metadata"]["annotations"]["chancery.dev/claim"]);
    assert_eq!(
        claim(&after),
        claim(&before),
        "the operator writes none of it"
    );
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert!(after["status"]["sealed"].is_null(), "{}", after["status"]);
    assert_eq!(release.refused(&id, &first, "").status, 401);
    let (_, second) = trial.claimed("user");
    release.token(&id, &second, "");
}

/// The API server goes away amid a claim, and comes back: the claim goes on. Where it does not come back, the
/// command says what may stand.
#[test]
fn a_claim_outlives_an_api_server() {
    let cluster: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start()));
    let release = Release::prepared_on(cluster, "claim-outage");
    let mut trial = Trial::of(release, "claim-outage");
    let start = |trial: &Trial, more: &[&str]| {
        let command = trial.command("user", cluster.admin_kubeconfig(), more);
        let claim = Proc::start("claim", command, trial.scratch.path());
        eventually("the claim stands", LIMIT, || {
            let user = trial.get("user");
            let stands = user["metadata"]["annotations"]["chancery.dev/claim"].is_string();
            stands.then_some(()).ok_or(claim.output())
        });
        claim
    };
    trial.user("user", "");
    let claim = start(&trial, &["--timeout", "3s"]);
    cluster.kill_api_server();
    assert_eq!(claim.wait_exit(LIMIT).code(), Some(1));
    let told = claim.stderr();
    let how = format!(
        "kubectl annotate technicaluser user -n {} chancery.dev/claim-",
        trial.tenant
    );
    assert!(
        told.contains("It may stand in") && told.contains(&how),
        "{told}"
    );
    cluster.start_api_server();
    trial.patch(
        "user",
        &json!({"metadata": {"annotations": {"chancery.dev/claim": null}}}),
    );
    let claim = start(&trial, &["-o", "json", "--timeout", "3m"]);
    cluster.kill_api_server();
    cluster.start_api_server();
    trial.release.run(&[]);
    assert!(claim.wait_exit(LIMIT).success(), "{}", claim.output());
    let printed: Value = serde_json::from_str(&claim.stdout()).expect("JSON");
    let secret = text(&printed["client_secret"]).expect("a secret");
    trial.release.remember(&secret);
    let id = text(&printed["client_id"]).expect("an id");
    trial.release.token(&id, &secret, "");
}

/// Sealed to the spec's recipient, opened by `age`, and rotated by the clock without anybody there.
#[test]
fn sealed_to_the_recipient_of_the_spec() {
    let trial = Trial::start("recipient");
    let release = &trial.release;
    let (key, recipient) = trial.key("first.key");
    trial.user("user", &format!(", recipient: {recipient}"));
    let sealed = |id: &str| {
        trial.wait("user", "it is sealed", |user| {
            let sealed = &user["status"]["sealed"];
            (sealed["credentialId"] == id).then(|| sealed.clone())
        })
    };
    let first = sealed("1");
    assert_eq!(
        (&first["by"], &first["recipient"]),
        (&json!("Spec"), &json!(recipient))
    );
    let secret = trial.decrypted(&first, &key);
    let id = format!("{}.user", trial.tenant);
    release.token(&id, &secret, "");
    release.wait_ready("technicaluser", &trial.tenant, "user");
    trial.no_secret_is_there();
    trial.refused("user", &["are sealed to", "age --decrypt"]);

    // Another recipient has the next one, and asks for none.
    let (other, recipient) = trial.key("other.key");
    trial.secret("user", &json!({"recipient": recipient}));
    trial.wait("user", "it is looked at", |user| {
        (user["status"]["observedGeneration"] == user["metadata"]["generation"]).then_some(())
    });
    assert_eq!(trial.get("user")["status"]["sealed"], first);
    let load = trial.client(&id, &secret).load();
    trial.rotate("user", "now");
    let second = sealed("2");
    assert!(!decrypt(&text(&second["ciphertext"]).expect("sealed"), &key).success());
    let now = trial.decrypted(&second, &other);
    assert_eq!(release.ask(&id, &now, "").status, 200, "servers know of it");
    load.unnoticed("the one before");
    // A status that is lost is made again from what stands beside the hash.
    let of = [
        "patch",
        "technicaluser",
        "user",
        "-n",
        &trial.tenant,
        "--subresource=status",
    ];
    let how = ["--type=merge", "-p", r#"{"status": null}"#];
    release.cluster.kubectl_ok(&[&of[..], &how].concat());
    assert_eq!(sealed("2"), second);

    // By the clock.
    trial.secret(
        "user",
        &json!({"rotation": {"interval": "8s", "gracePeriod": "7s"}}),
    );
    let third = sealed("3");
    release.token(&id, &trial.decrypted(&third, &other), "");
    trial.secret(
        "user",
        &json!({"rotation": {"interval": null, "gracePeriod": "24h"}}),
    );

    // What is no recipient, though it looks like one.
    let (rest, last) = recipient.split_at(61);
    let wrong = format!("{rest}{}", if last == "q" { "p" } else { "q" });
    trial.secret("user", &json!({"recipient": wrong}));
    let told = release.wait_reason(
        "technicaluser",
        &trial.tenant,
        "user",
        "Stalled",
        "InvalidSpec",
    );
    assert!(
        told["message"]
            .as_str()
            .is_some_and(|m| m.contains("checksum")),
        "{told}"
    );
    release.wait_ready("technicaluser", &trial.tenant, "user");
    // Nobody is asked to claim, nor is the plugin's user sent to what is not there.
    trial.rotate("user", "to the wrong one");
    let paused = release.wait_reason(
        "technicaluser",
        &trial.tenant,
        "user",
        "RotationPaused",
        "InvalidSpec",
    );
    let message = text(&paused["message"]).expect("a message");
    assert!(!message.contains("claim"), "{message}");
    trial.refused("user", &["its checksum is wrong", "Mend it"]);
}

/// From a Secret to a claim, and back, under load.
#[test]
fn there_and_back_without_an_outage() {
    let trial = Trial::start("there-and-back");
    let release = &trial.release;
    for family in ["Integration", "Device", "Agent"] {
        let name = family.to_lowercase();
        release.user(&trial.tenant, &name, &format!("  family: {family}\n"));
        let (id, first) = release.credentials(&trial.tenant, &name);
        release.token(&id, &first, "");
        let load = trial.client(&id, &first).load();
        trial.secret(&name, &json!({"delivery": "OneTime"}));
        trial.awaited(&name, "RotationPaused");
        let (_, claimed) = trial.claimed(&name);
        assert_eq!(claimed[..3], first[..3], "the same family");
        assert_eq!(release.ask(&id, &claimed, "").status, 200);
        let claimed_load = trial.client(&id, &claimed).load();
        trial.wait(&name, "it took the other's place", |user| {
            let all = &user["status"]["credentials"];
            (all[0]["state"] == "Retired" && all[1]["state"] == "Active").then_some(())
        });
        assert_eq!(
            release.credentials(&trial.tenant, &name).1,
            first,
            "through its grace"
        );
        trial.secret(&name, &json!({"delivery": "Secret"}));
        let third = eventually("another one is delivered", LIMIT, || {
            let (_, third) = release.credentials(&trial.tenant, &name);
            (third != first && third != claimed)
                .then_some(third)
                .ok_or("not yet")
        });
        assert_eq!(release.ask(&id, &third, "").status, 200);
        trial.wait(&name, "nothing is sealed any more", |user| {
            user["status"]["sealed"].is_null().then_some(())
        });
        claimed_load.unnoticed("the one that was claimed");
        load.unnoticed("the one that was delivered before");
    }
    // With its grace over, what was delivered goes.
    release.user(&trial.tenant, "gone", "");
    let (id, first) = release.credentials(&trial.tenant, "gone");
    trial.secret(
        "gone",
        &json!({"delivery": "OneTime", "rotation": {"gracePeriod": "0s"}}),
    );
    trial.awaited("gone", "RotationPaused");
    assert!(
        !release
            .get("secret", &trial.tenant, "gone-credentials")
            .is_null(),
        "it works"
    );
    let (_, claimed) = trial.claimed("gone");
    release.token(&id, &claimed, "");
    assert_eq!(release.refused(&id, &first, "").status, 401);
    eventually("the Secret is gone", LIMIT, || {
        let secret = release.get("secret", &trial.tenant, "gone-credentials");
        secret.is_null().then_some(()).ok_or("it is there")
    });
}

/// Killed at random moments: one client secret each, which opens and works.
#[test]
fn kills_lose_nothing() {
    let mut trial = Trial::without_operator("one-time-kills");
    let (key, recipient) = trial.key("key");
    for round in 0..8_u64 {
        trial.release.run(&[]);
        let ready = |l: &str| l.contains("serving tokens");
        trial.release.process().wait_for_line(ready, LIMIT);
        trial.user(
            &format!("user{round}"),
            &format!(", recipient: {recipient}"),
        );
        std::thread::sleep(Duration::from_millis((round * 7919 + 104_729) % 151));
        trial.release.kill();
        trial.release.forget_leader();
        (trial.release.port, trial.release.admin_port) = (free_port(), free_port());
    }
    trial.release.run(&[]);
    for round in 0..8 {
        let name = format!("user{round}");
        trial
            .release
            .wait_ready("technicaluser", &trial.tenant, &name);
        let status = trial.get(&name)["status"].clone();
        assert_eq!(
            status["credentials"].as_array().map(Vec::len),
            Some(1),
            "{status}"
        );
        let secret = trial.decrypted(&status["sealed"], &key);
        trial
            .release
            .token(&format!("{}.{name}", trial.tenant), &secret, "");
    }
}

/// Neither the objects of now nor those of any time before hold it: what etcd has on disk is searched.
#[test]
fn etcd_has_never_seen_it() {
    let trial = Trial::start("etcd");
    let release = &trial.release;
    trial.user("user", "");
    let (id, first) = trial.claimed("user");
    release.token(&id, &first, "");
    trial.rotate("user", "again");
    let (_, second) = trial.claimed("user");
    release.token(&id, &second, "");
    // And one that etcd has seen: in the delivered Secret, which is gone by now.
    release.user(&trial.tenant, "plain", "");
    let (_, plain) = release.credentials(&trial.tenant, "plain");
    release
        .cluster
        .kubectl_ok(&["delete", "technicaluser", "plain", "-n", &trial.tenant]);
    let sealed = text(&trial.get("user")["status"]["sealed"]["ciphertext"]).expect("sealed");
    let line = sealed.lines().nth(2).expect("a line of base64").to_owned();
    let folder = release.cluster.folder().join("etcd");
    let on_disk = || contents(&folder);
    eventually("what is known to be there is found", LIMIT, || {
        let on_disk = on_disk();
        let there = found(&on_disk, &plain) && found(&on_disk, &line);
        there.then_some(()).ok_or("it is not on the disk yet")
    });
    let on_disk = on_disk();
    println!(
        "{} MiB of etcd searched",
        on_disk.iter().map(Vec::len).sum::<usize>() >> 20
    );
    for secret in [&first, &second] {
        assert!(
            !found(&on_disk, secret),
            "a secret that was claimed is plain in etcd"
        );
    }
}

/// All files of a folder and those below.
fn contents(folder: &Path) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.push(std::fs::read(&path).unwrap_or_default());
        }
    }
    all
}

/// Whether it is there, as it is or in base64, wherever that begins.
fn found(all: &[Vec<u8>], secret: &str) -> bool {
    use base64::Engine as _;
    let encoded = (0..3).map(|before| {
        let text = [&b"   "[..before], secret.as_bytes()].concat();
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(text);
        // But for what depends on its neighbours.
        text.as_bytes()[4..text.len() - 4].to_vec()
    });
    let needles: Vec<Vec<u8>> = encoded.chain([secret.as_bytes().to_vec()]).collect();
    all.iter().any(|bytes| {
        needles.iter().any(|needle| {
            let mut starts = bytes.iter().enumerate().filter(|(_, b)| **b == needle[0]);
            starts.any(|(at, _)| bytes[at..].starts_with(needle))
        })
    })
}
