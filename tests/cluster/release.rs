//! A release on the shared control plane: its namespaces, its process, and what it must not leak.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;

use crate::support::http::{self, Answer};
use crate::support::{ControlPlane, Proc, chancery_bin, eventually, free_port};

mod leaks;

/// How long anything may take here. What a test waits for takes milliseconds on an idle machine;
/// these machines are not idle.
pub const LIMIT: Duration = Duration::from_mins(1);

/// A release: an environment with its operator namespace and its process.
pub struct Release {
    pub cluster: &'static ControlPlane,
    /// The environment's name, also that of the operator namespace.
    pub name: String,
    pub port: u16,
    pub admin_port: u16,
    process: Option<Proc>,
    /// What earlier processes of the release printed.
    printed: Mutex<Vec<String>>,
    /// The tenants' namespaces.
    tenants: Mutex<Vec<String>>,
    /// Secrets that were read or brought during the test, also those that are gone since.
    read: Mutex<BTreeSet<String>>,
}

/// Whatever a test was about: at its end nothing of its secrets is to be found anywhere.
impl Drop for Release {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_nothing_leaked();
        }
    }
}

/// The control plane with the CRDs installed, once for all tests.
pub fn cluster() -> &'static ControlPlane {
    static READY: OnceLock<()> = OnceLock::new();
    let cluster = ControlPlane::shared();
    READY.get_or_init(|| install_crds(cluster));
    cluster
}

fn install_crds(cluster: &ControlPlane) {
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
    cluster.kubectl_ok(&["apply", "-f", crds]);
    cluster.kubectl_ok(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "-f",
        crds,
    ]);
}

impl Release {
    /// A release whose process has begun.
    pub fn start(prefix: &str) -> Self {
        let mut release = Self::prepared(prefix);
        release.run(&[]);
        release
    }

    /// A release without a process.
    pub fn prepared(prefix: &str) -> Self {
        Self::on(cluster(), prefix)
    }

    /// The same on another control plane, where there is nothing yet.
    pub fn prepared_on(cluster: &'static ControlPlane, prefix: &str) -> Self {
        install_crds(cluster);
        Self::on(cluster, prefix)
    }

    fn on(cluster: &'static ControlPlane, prefix: &str) -> Self {
        let name = cluster.namespace(prefix);
        let (port, admin_port) = (free_port(), free_port());
        Self {
            cluster,
            name,
            port,
            admin_port,
            process: None,
            printed: Mutex::default(),
            tenants: Mutex::default(),
            read: Mutex::default(),
        }
    }

    /// Starts the release's process.
    pub fn run(&mut self, more: &[&str]) {
        let account = self.cluster.admin_kubeconfig();
        self.process = Some(self.start_process(account, self.port, self.admin_port, more));
    }

    /// Starts a process that only serves, in the place of the one before.
    pub fn serve(&mut self, more: &[&str]) {
        let account = self.cluster.admin_kubeconfig();
        let (port, admin_port) = (self.port, self.admin_port);
        self.process = Some(self.start_as("serve", account, port, admin_port, more));
    }

    /// A process of the release, with an account and ports of its own.
    pub fn start_process(&self, account: &Path, port: u16, admin_port: u16, more: &[&str]) -> Proc {
        self.start_as("run", account, port, admin_port, more)
    }

    /// A further process that only serves, with an account and ports of its own.
    pub fn serve_beside(&self, account: &Path, port: u16, admin_port: u16, more: &[&str]) -> Proc {
        self.start_as("serve", account, port, admin_port, more)
    }

    fn start_as(
        &self,
        command: &str,
        account: &Path,
        port: u16,
        admin_port: u16,
        more: &[&str],
    ) -> Proc {
        let kubeconfig = account.display().to_string();
        let (listen, admin) = (
            format!("127.0.0.1:{port}"),
            format!("127.0.0.1:{admin_port}"),
        );
        let issuer = self.issuer();
        let mut args = vec![
            command,
            "--kubeconfig",
            &kubeconfig,
            "--issuer",
            &issuer,
            "--environment",
            &self.name,
            "--namespace",
            &self.name,
            "--listen",
            &listen,
            "--admin-listen",
            &admin,
            "--log",
            "debug,hyper=info,tower=info,kube=debug,kube_client=debug",
        ];
        args.extend(more);
        Proc::run(chancery_bin(), &args, &[])
    }

    /// Takes away the Lease of a process that was killed, so that the next one need not wait until
    /// it expires.
    pub fn forget_leader(&self) {
        let lease = ["delete", "lease", "chancery-leader", "-n", &self.name];
        self.cluster
            .kubectl_ok(&[&lease[..], &["--ignore-not-found"]].concat());
    }

    /// What a process that the release does not hold has printed: searched for secrets too.
    pub fn printed(&self, output: String) {
        self.printed
            .lock()
            .expect("no test panicked here")
            .push(output);
    }

    /// Ends the process with SIGKILL, wherever it is.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.signal(crate::support::Signal::Kill);
            process.wait_exit(LIMIT);
            self.printed(process.output());
        }
    }

    /// The running process.
    pub fn process(&self) -> &Proc {
        self.process.as_ref().expect("the release runs")
    }

    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn apply(&self, manifests: &str) -> String {
        self.cluster.apply(manifests)
    }

    /// A ring with audience client.
    pub fn ring(&self, name: &str, spec: &str) {
        let namespace = &self.name;
        self.apply(&format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: SigningKey\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{audience: client, {spec}}}\n"
        ));
    }

    /// A tenant namespace with nothing in it.
    pub fn bare_tenant(&self, prefix: &str) -> String {
        let namespace = self.cluster.namespace(prefix);
        self.tenants
            .lock()
            .expect("no test panicked here")
            .push(namespace.clone());
        namespace
    }

    /// A tenant namespace with a Subscription that allows what the tests use.
    pub fn tenant(&self, prefix: &str) -> String {
        let namespace = self.bare_tenant(prefix);
        self.subscribe(&namespace, "main", &namespace, "");
        namespace
    }

    /// A Subscription; `more` goes into its spec.
    pub fn subscribe(&self, namespace: &str, name: &str, legal_entity: &str, more: &str) {
        self.apply(&format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: Subscription\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  environment: {}\n  legalEntity: {{id: {legal_entity}, name: A tenant}}\n  tier: Free\n  allowed: {{scopes: [read, write], roles: [clerk], audiences: ['https://a.example', 'https://b.example']}}\n{more}",
            self.name
        ));
    }

    /// A technical user; `more` goes into its spec.
    pub fn user(&self, namespace: &str, name: &str, more: &str) {
        self.apply(&format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: TechnicalUser\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  roles: [clerk]\n  scopes: [read, write]\n  audiences: ['https://a.example', 'https://b.example']\n  credential: {{secret: {{}}}}\n{more}"
        ));
    }

    pub fn wait_ready(&self, kind: &str, namespace: &str, name: &str) {
        self.cluster.kubectl_ok(&[
            "wait",
            "--for=condition=Ready",
            "--timeout=60s",
            "-n",
            namespace,
            &format!("{kind}/{name}"),
        ]);
    }

    /// The object as JSON; null if there is none.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Value {
        let output = self
            .cluster
            .kubectl(&["get", kind, name, "-n", namespace, "-o", "json"]);
        serde_json::from_str(&output.stdout).unwrap_or_default()
    }

    /// All of a kind in a namespace.
    pub fn list(&self, kind: &str, namespace: &str) -> Vec<Value> {
        let json = self
            .cluster
            .kubectl_ok(&["get", kind, "-n", namespace, "-o", "json"]);
        let list: Value = serde_json::from_str(&json).expect("JSON");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until a condition of an object has that reason, and gives the condition.
    pub fn wait_reason(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        condition: &str,
        reason: &str,
    ) -> Value {
        eventually(
            &format!("{kind} {namespace}/{name}: {condition} for {reason}"),
            LIMIT,
            || {
                let object = self.get(kind, namespace, name);
                let conditions = object["status"]["conditions"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                conditions
                    .iter()
                    .find(|c| c["type"] == condition && c["reason"] == reason)
                    .cloned()
                    .ok_or_else(|| format!("{conditions:?}\n{}", self.tail()))
            },
        )
    }

    /// The last lines of the process's log.
    pub fn tail(&self) -> String {
        let output = self.process.as_ref().map(Proc::output).unwrap_or_default();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// What a key of a Secret holds.
    pub fn secret_value(&self, namespace: &str, name: &str, key: &str) -> Option<String> {
        use base64::Engine as _;
        let secret = self.get("secret", namespace, name);
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(secret["data"][key].as_str()?)
            .ok()?;
        let value = String::from_utf8(bytes).ok()?;
        if chancery::crypto::secret::shape(&value).is_some() {
            self.remember(&value);
        }
        Some(value)
    }

    /// A secret that is searched for at the end, also where its object is gone by then.
    pub fn remember(&self, secret: &str) {
        let mut read = self.read.lock().expect("no test panicked here");
        read.insert(secret.to_owned());
    }

    /// Client id and secret of a technical user, from its delivered Secret.
    pub fn credentials(&self, namespace: &str, user: &str) -> (String, String) {
        let secret = format!("{user}-credentials");
        eventually(&format!("Secret {namespace}/{secret}"), LIMIT, || {
            let value = |key| self.secret_value(namespace, &secret, key);
            value("client_id")
                .zip(value("client_secret"))
                .ok_or_else(|| self.tail())
        })
    }

    /// Asks for a token, once.
    pub fn ask(&self, id: &str, secret: &str, parameters: &str) -> Answer {
        http::token(
            &format!("{}/oauth/token", self.issuer()),
            id,
            secret,
            parameters,
        )
        .expect("the server answers")
    }

    /// Asks until there is a token: the server's watches may lag the operator's by a moment.
    pub fn token(&self, id: &str, secret: &str, parameters: &str) -> String {
        eventually(&format!("a token for {id}"), LIMIT, || {
            let answer = http::token(
                &format!("{}/oauth/token", self.issuer()),
                id,
                secret,
                parameters,
            )
            .map_err(|e| format!("{e}\n{}", self.tail()))?;
            let token = answer.json()["access_token"].as_str().map(str::to_owned);
            token.ok_or_else(|| format!("{}: {}\n{}", answer.status, answer.text(), self.tail()))
        })
    }

    /// Waits until a token is refused, and gives the refusal.
    pub fn refused(&self, id: &str, secret: &str, parameters: &str) -> Answer {
        eventually(&format!("no token for {id}"), LIMIT, || {
            let answer = self.ask(id, secret, parameters);
            if answer.status == 200 {
                Err("it still gets one".to_owned())
            } else {
                Ok(answer)
            }
        })
    }
}
