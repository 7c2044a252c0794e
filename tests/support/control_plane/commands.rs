//! What a test does with a control plane: kubectl, helm, clients, namespaces, the audit log.

use super::{ControlPlane, files};
use crate::support::process::{self, Output};
use crate::support::{binaries, eventually};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A kubectl or helm that still runs after this is stuck, and killed.
const LIMIT: Duration = Duration::from_secs(600);

impl ControlPlane {
    /// Where the API server listens: `https://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.files.url
    }

    /// The certificate authority to trust for [`url`](ControlPlane::url).
    pub fn ca_path(&self) -> &Path {
        &self.files.ca
    }

    pub fn ca_pem(&self) -> String {
        std::fs::read_to_string(&self.files.ca).expect("written when the API server started")
    }

    /// A kubeconfig that may do everything. Chancery itself never gets this one: it runs with
    /// [`kubeconfig_for_service_account`](ControlPlane::kubeconfig_for_service_account).
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.files.admin_kubeconfig
    }

    /// Runs kubectl as admin.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_with(self.admin_kubeconfig(), args, "")
    }

    /// Runs kubectl as admin, and panics with what it said if it fails.
    #[track_caller]
    pub fn kubectl_ok(&self, args: &[&str]) -> String {
        self.kubectl(args)
            .expect_success(&format!("kubectl {}", args.join(" ")))
    }

    /// Runs kubectl as admin with a standard input: `apply -f -`, say.
    pub fn kubectl_stdin(&self, args: &[&str], stdin: &str) -> Output {
        self.kubectl_with(self.admin_kubeconfig(), args, stdin)
    }

    /// Applies manifests as admin, and panics with what kubectl said if they are refused.
    #[track_caller]
    pub fn apply(&self, manifests: &str) -> String {
        self.kubectl_stdin(&["apply", "-f", "-"], manifests)
            .expect_success("kubectl apply")
    }

    /// Runs kubectl as whoever a kubeconfig names.
    pub fn kubectl_as(&self, kubeconfig: &Path, args: &[&str]) -> Output {
        self.kubectl_with(kubeconfig, args, "")
    }

    fn kubectl_with(&self, kubeconfig: &Path, args: &[&str], stdin: &str) -> Output {
        let mut kubectl = self.kubectl_command(kubeconfig);
        kubectl.args(args);
        process::complete(kubectl, stdin.as_bytes(), LIMIT)
    }

    /// A kubectl command to add arguments and variables to; `PATH` finds its plugins.
    pub fn kubectl_command(&self, kubeconfig: &Path) -> Command {
        let mut command = self.client_command(&self.binaries.kubectl);
        command.env("KUBECONFIG", kubeconfig);
        command
    }

    /// Runs helm as admin. It is built when it is first asked for.
    pub fn helm(&self, args: &[&str]) -> Output {
        let mut command = self.client_command(&binaries::helm());
        let home = &self.files.home;
        command
            .env("KUBECONFIG", self.admin_kubeconfig())
            .env("HELM_CACHE_HOME", home.join("helm/cache"))
            .env("HELM_CONFIG_HOME", home.join("helm/config"))
            .env("HELM_DATA_HOME", home.join("helm/data"))
            .args(args);
        process::complete(command, b"", LIMIT)
    }

    /// Runs helm as admin, and panics with what it said if it fails.
    #[track_caller]
    pub fn helm_ok(&self, args: &[&str]) -> String {
        self.helm(args)
            .expect_success(&format!("helm {}", args.join(" ")))
    }

    /// The verifier in another language: `tests/verifier` tells how to call it. It is built when it
    /// is first asked for.
    pub fn verifier(&self) -> PathBuf {
        binaries::verifier()
    }

    fn client_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.files.home);
        command
    }

    /// Makes a namespace whose name starts with `prefix` and that no other test has.
    pub fn namespace(&self, prefix: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.kubectl_ok(&["create", "namespace", &name]);
        name
    }

    /// A token of a ServiceAccount, for a day. If there is no such account yet, as the `default`
    /// one of a new namespace takes a moment, it waits for it.
    pub fn service_account_token(&self, namespace: &str, name: &str) -> String {
        let args = ["create", "token", name, "-n", namespace, "--duration=24h"];
        let what = format!("a token of the ServiceAccount {namespace}/{name}");
        let token = eventually(&what, Duration::from_secs(20), || {
            let answer = self.kubectl(&args);
            if answer.success() {
                Ok(answer.stdout)
            } else {
                Err(answer.stderr)
            }
        });
        token.trim().to_owned()
    }

    /// A kubeconfig with the token of a ServiceAccount, whose rights are what RBAC gives it.
    pub fn kubeconfig_for_service_account(&self, namespace: &str, name: &str) -> PathBuf {
        let token = self.service_account_token(namespace, name);
        let content = files::kubeconfig(self.url(), self.ca_path(), name, &token, namespace);
        self.scratch
            .write(&format!("{namespace}.{name}.kubeconfig"), content)
    }

    /// A client that may do everything. To be called within a Tokio runtime.
    pub fn admin_client(&self) -> kube::Client {
        self.client(&self.files.admin_token)
    }

    /// A client with the rights of a ServiceAccount. To be called within a Tokio runtime.
    pub fn service_account_client(&self, namespace: &str, name: &str) -> kube::Client {
        self.client(&self.service_account_token(namespace, name))
    }

    fn client(&self, token: &str) -> kube::Client {
        let mut config = kube::Config::new(self.url().parse().expect("a URL"));
        let ca = self.ca_pem();
        let body: String = ca.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).expect("the authority is PEM");
        config.root_cert = Some(vec![der]);
        config.auth_info.token = Some(token.to_owned().into());
        kube::Client::try_from(config).expect("a client needs nothing but this")
    }

    /// All that the audit log holds by now: each request to a resource but for what the control
    /// plane reads for itself, with the bodies for `chancery.dev`. An event is written when its
    /// answer is, so a test that looks for one looks until it is there.
    pub fn audit_events(&self) -> Vec<serde_json::Value> {
        let log = std::fs::read(&self.files.audit_log).unwrap_or_default();
        String::from_utf8_lossy(&log)
            .split_inclusive('\n')
            // The last line may be half written.
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).expect("the audit log holds JSON lines"))
            .collect()
    }

    /// The audit log as it lies there, for a search for secrets.
    pub fn audit_log_path(&self) -> &Path {
        &self.files.audit_log
    }
}
