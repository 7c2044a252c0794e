//! Technical users after a restore: their UIDs are others, and clients go on.

use serde_json::{Value, json};

use crate::credentials::User;
use crate::release::{LIMIT, Release};
use crate::ring::text;
use crate::support::{eventually, free_port};

/// A release with a technical user that has rotated once, both client secrets, and its manifest.
struct Trial {
    release: Release,
    tenant: String,
    id: String,
    secrets: [String; 2],
    manifest: Value,
}

impl Trial {
    fn new(prefix: &str) -> Self {
        let release = Release::start(prefix);
        let tenant = release.tenant(&format!("{prefix}-tenant"));
        release.ring("main", "algorithm: ES256");
        release.user(&tenant, "user", "");
        let (id, old) = release.credentials(&tenant, "user");
        let user = User {
            release: &release,
            tenant: &tenant,
            name: "user",
        };
        user.rotate("once");
        let new = user.follows("user-credentials", "client_secret", &old);
        user.wait_states(&["Retired", "Active"]);
        let manifest = user.get();
        Self {
            id,
            secrets: [old, new],
            manifest,
            release,
            tenant,
        }
    }

    fn user(&self) -> User<'_> {
        User {
            release: &self.release,
            tenant: &self.tenant,
            name: "user",
        }
    }

    fn hashes(&self) -> Value {
        let name = format!("{}.user-credentials", self.tenant);
        self.release.get("secret", &self.release.name, &name)
    }

    fn delivered(&self) -> Value {
        self.release.get("secret", &self.tenant, "user-credentials")
    }

    fn delete(&self, how: &str) {
        let cluster = self.release.cluster;
        cluster.kubectl_ok(&["delete", "technicaluser", "user", "-n", &self.tenant, how]);
    }

    /// The technical user as the manifest has it, under a UID of its own, without status.
    fn make_again(&self) {
        let again = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
            "metadata": {
                "name": "user", "namespace": self.tenant,
                "annotations": self.manifest["metadata"]["annotations"],
            },
            "spec": self.manifest["spec"],
        });
        self.release.apply(&again.to_string());
    }

    fn restart(&mut self) {
        self.release.forget_leader();
        self.release.admin_port = free_port();
        self.release.run(&[]);
    }

    /// The same client secrets work, and no other was made.
    fn assert_as_before(&self) {
        let user = self.user();
        user.wait_states(&["Retired", "Active"]);
        self.release
            .wait_ready("technicaluser", &self.tenant, "user");
        for secret in &self.secrets {
            self.release.token(&self.id, secret, "");
        }
        let (_, stands) = self.release.credentials(&self.tenant, "user");
        assert!(stands == self.secrets[1], "the same one is delivered");
        let uid = &user.get()["metadata"]["uid"];
        assert_ne!(*uid, self.manifest["metadata"]["uid"]);
        assert_eq!(
            &self.delivered()["metadata"]["ownerReferences"][0]["uid"],
            uid
        );
        assert_eq!(
            &self.hashes()["metadata"]["labels"]["chancery.dev/technical-user-uid"],
            uid
        );
        let told = user.told("CredentialAdopted");
        assert!(
            told.iter().any(|m| m.contains("holds client secret 2")),
            "{told:?}"
        );
        // What was handled is not done again.
        assert_eq!(user.get()["status"]["lastHandledRotation"], "once");
    }
}

/// With the operator stopped, the technical user is deleted and made again, and its Secret is
/// nobody's: both client secrets go on.
#[test]
fn a_restored_technical_user_has_its_client_secrets() {
    let mut trial = Trial::new("restored");
    trial.release.kill();
    trial.delete("--cascade=orphan");
    eventually("the Secret is an orphan", LIMIT, || {
        let owners = trial.delivered()["metadata"]["ownerReferences"].clone();
        owners.is_null().then_some(()).ok_or(owners.to_string())
    });
    trial.make_again();
    trial.restart();
    trial.assert_as_before();
    // And rotates on.
    let user = trial.user();
    user.rotate("twice");
    user.wait_states(&["Retired", "Retired", "Active"]);
}

/// The same while the operator runs, object by object, as from a backup: hashes, Secret, technical user.
#[test]
fn a_backup_is_restored_beside_a_running_operator() {
    let trial = Trial::new("backup");
    let (hashes, delivered) = (trial.hashes(), trial.delivered());
    trial.delete("--cascade=background");
    for namespace in [&trial.release.name, &trial.tenant] {
        eventually("all of it is gone", 2 * LIMIT, || {
            let gone = if namespace == &trial.tenant {
                trial.delivered()
            } else {
                trial.hashes()
            };
            gone.is_null()
                .then_some(())
                .ok_or(gone["metadata"].to_string())
        });
    }
    trial.release.refused(&trial.id, &trial.secrets[1], "");
    // A backup is older than what is made of it.
    let stored = text(&hashes["data"]["credentials.json"]).expect("hashes");
    let stored = back_an_hour(&decoded(&stored));
    let before = trial.release.process().output().len();
    bring_back(
        &trial,
        &hashes,
        &json!({ "credentials.json": stored, "lives.json":
        decoded(&text(&hashes["data"]["lives.json"]).expect("lives")) }),
    );
    bring_back(&trial, &delivered, &json!({}));
    // The hashes wait for their technical user.
    eventually("the operator has seen them", LIMIT, || {
        let printed = trial.release.process().output();
        let visits = printed[before..].lines().filter(|l| l.contains("visited"));
        let mut visits = visits.filter(|l| l.contains("TechnicalUser"));
        let left = visits.any(|l| l.contains("writes=0 wake_at=Some("));
        left.then_some(()).ok_or_else(|| trial.release.tail())
    });
    assert!(!trial.hashes().is_null());
    trial.make_again();
    trial.assert_as_before();
}

/// What the operator has not delivered, or what does not hold what it has a hash of, is not adopted;
/// and who deletes a technical user and makes it again gets new client secrets.
#[test]
fn nothing_else_is_adopted() {
    let mut trial = Trial::new("forged-restore");
    trial.release.kill();
    trial.delete("--cascade=orphan");
    eventually("the Secret is an orphan", LIMIT, || {
        let owners = trial.delivered()["metadata"]["ownerReferences"].clone();
        owners.is_null().then_some(()).ok_or(owners.to_string())
    });
    // A tenant who knows none of the client secrets puts one of his own there.
    let own = chancery::crypto::secret::generate(chancery::domain::client::Family::Integration);
    trial.release.remember(&own);
    let patch = json!({ "stringData": { "client_secret": own.as_str() } }).to_string();
    let cluster = trial.release.cluster;
    cluster.kubectl_ok(&[
        "patch",
        "secret",
        "user-credentials",
        "-n",
        &trial.tenant,
        "-p",
        &patch,
    ]);
    trial.make_again();
    trial.restart();
    let told = trial.release.wait_reason(
        "technicaluser",
        &trial.tenant,
        "user",
        "Stalled",
        "SecretNameConflict",
    );
    let told = text(&told["message"]).expect("a message");
    assert!(told.contains("was left as it is"), "{told}");
    for secret in [own.as_str(), &trial.secrets[0], &trial.secrets[1]] {
        assert_eq!(trial.release.refused(&trial.id, secret, "").status, 401);
    }
    let (_, stands) = trial.release.credentials(&trial.tenant, "user");
    assert!(stands == *own, "it was left as it is");

    // Deleted and made again at once, beside the operator: what still names an owner proves nothing.
    cluster.kubectl_ok(&["delete", "secret", "user-credentials", "-n", &trial.tenant]);
    trial
        .release
        .wait_ready("technicaluser", &trial.tenant, "user");
    let (_, before) = trial.release.credentials(&trial.tenant, "user");
    trial.delete("--wait=false");
    trial.make_again();
    let user = trial.user();
    user.follows("user-credentials", "client_secret", &before);
    trial.release.refused(&trial.id, &before, "");
}

fn decoded(base64: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64);
    String::from_utf8(bytes.expect("base64")).expect("text")
}

/// The times in it an hour earlier.
fn back_an_hour(stored: &str) -> String {
    let mut all: Value = serde_json::from_str(stored).expect("JSON");
    for one in all.as_array_mut().expect("a list") {
        let at: jiff::Timestamp = text(&one["createdAt"])
            .expect("a time")
            .parse()
            .expect("a time");
        let before = at - jiff::SignedDuration::from_hours(1);
        one["createdAt"] = json!(before.to_string());
    }
    all.to_string()
}

/// As from a backup: under another UID, with no owner.
fn bring_back(trial: &Trial, before: &Value, other: &Value) {
    let metadata = &before["metadata"];
    let again = json!({
        "apiVersion": "v1", "kind": "Secret", "type": before["type"], "data": before["data"],
        "stringData": other,
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"],
            "labels": metadata["labels"], "annotations": metadata["annotations"],
        },
    });
    let file = crate::support::Scratch::new("backup");
    let file = file.write("secret.json", again.to_string());
    let file = file.display().to_string();
    trial.release.cluster.kubectl_ok(&["create", "-f", &file]);
}
