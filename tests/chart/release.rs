//! The chart as it is rendered, and a release of it that runs: installed by Helm, with operator and
//! servers as processes that have the settings, the arguments and the accounts' tokens that
//! their pods would have.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use super::http;
use crate::support::{ControlPlane, Proc, Scratch, chancery_bin, eventually, free_port};

pub const SOON: Duration = Duration::from_mins(1);

/// The namespace of examples/quickstart.
pub const NAMESPACE: &str = "chancery-system";

/// The least that has to be set.
pub const LEAST: [&str; 4] = [
    "--set",
    "issuer=https://id.example.com",
    "--set",
    "tls.existingSecret=chancery-tls",
];

/// A path in the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn chart() -> String {
    repository("charts/chancery").display().to_string()
}

/// What Helm makes of the chart with further arguments: the manifests, or what it says against it.
pub fn render(arguments: &[&str]) -> Result<String, String> {
    let chart = chart();
    let head = ["template", "chancery", &chart, "-n", NAMESPACE];
    let answer = ControlPlane::shared().helm(&[&head, arguments].concat());
    if answer.success() {
        Ok(answer.stdout)
    } else {
        Err(answer.stderr)
    }
}

/// The same as objects.
#[track_caller]
pub fn objects(arguments: &[&str]) -> Vec<Value> {
    let manifests = render(arguments).unwrap_or_else(|why| panic!("{arguments:?}: {why}"));
    let objects: Vec<Value> = serde_saphyr::from_multiple(&manifests).expect("Helm writes YAML");
    objects.into_iter().filter(|o| !o.is_null()).collect()
}

/// The object of that kind and name.
#[track_caller]
pub fn pick<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects
        .iter()
        .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name} among the objects"))
}

/// A Deployment's pod.
pub fn pod_of<'a>(objects: &'a [Value], deployment: &str) -> &'a Value {
    &pick(objects, "Deployment", deployment)["spec"]["template"]
}

/// The release that the tests share.
pub struct Release {
    pub operator: Proc,
    /// Serves TLS at the issuer's URL.
    pub server: Proc,
    pub issuer: String,
    /// The certificate to trust, in PEM.
    pub trust: String,
    pub operator_account: PathBuf,
    pub server_account: PathBuf,
    /// The admin ports of operator and server.
    pub admins: [u16; 2],
    /// The settings, the certificate and its key, as the pods would have them.
    mounts: Scratch,
}

impl Release {
    /// Installed, running, and with the quickstart applied and ready.
    pub fn shared() -> &'static Release {
        static SHARED: LazyLock<Option<Release>> =
            LazyLock::new(|| std::panic::catch_unwind(Release::install).ok());
        SHARED
            .as_ref()
            .expect("the shared release did not come up: the test that tried first tells why")
    }

    fn install() -> Release {
        let cluster = ControlPlane::shared();
        let port = free_port();
        let issuer = format!("https://localhost:{port}");
        cluster.kubectl_ok(&["create", "namespace", NAMESPACE]);
        let mounts = Scratch::new("mounts");
        let trust = certificate(cluster, &mounts);
        let chart = chart();
        let set_issuer = format!("issuer={issuer}");
        cluster.helm_ok(&[
            "install",
            "chancery",
            &chart,
            "-n",
            NAMESPACE,
            "--set",
            &set_issuer,
            "--set",
            "tls.existingSecret=chancery-tls",
            // Something that is not the default, so that it shows that the file is read.
            "--set",
            "tokens.defaultTtl=7m",
            // Where the tests' own provider is.
            "--set",
            "providers.allowedAddresses={127.0.0.1/32}",
        ]);
        for crd in [
            "signingkeys",
            "subscriptions",
            "technicalusers",
            "oidcproviders",
            "users",
        ] {
            let crd = format!("crd/{crd}.chancery.dev");
            cluster.kubectl_ok(&["wait", "--for=condition=Established", &crd, "--timeout=60s"]);
        }

        // What a kubelet would mount.
        let map: Value = get(
            cluster,
            &["configmap", "chancery-settings", "-n", NAMESPACE],
        );
        let settings = map["data"]["settings.yaml"].as_str().expect("a file");
        mounts.write("settings.yaml", settings);

        let accounts = ["chancery-operator", "chancery-server"]
            .map(|name| cluster.kubeconfig_for_service_account(NAMESPACE, name));
        let [operator_account, server_account] = accounts;
        let deployment = |name: &str| {
            get(cluster, &["deployment", name, "-n", NAMESPACE])["spec"]["template"].clone()
        };
        let admins = [free_port(), free_port()];
        let operator = start(
            &deployment("chancery-operator"),
            &mounts,
            &operator_account,
            &[("admin", admins[0])],
        );
        let server = start(
            &deployment("chancery-server"),
            &mounts,
            &server_account,
            &[("admin", admins[1]), ("https", port)],
        );
        let release = Release {
            operator,
            server,
            issuer,
            trust,
            operator_account,
            server_account,
            admins,
            mounts,
        };
        Release::wait_ready("the operator", admins[0], &release.operator);

        let quickstart = repository("examples/quickstart").display().to_string();
        cluster.kubectl_ok(&["apply", "-f", &quickstart]);
        for (kind, name, namespace) in [
            ("signingkey", "main", NAMESPACE),
            ("subscription", "acme", "acme"),
            ("technicaluser", "orders", "acme"),
        ] {
            wait_ready(cluster, kind, name, namespace);
        }
        Release::wait_ready("the server", admins[1], &release.server);
        release
    }

    /// A further replica, of a chart that is rendered with other values: behind a proxy, say. It
    /// gives its public port, once it is ready.
    pub fn another_server(&self, arguments: &[&str]) -> (Proc, u16) {
        let issuer = format!("issuer={}", self.issuer);
        let rendered = objects(&[&["--set", &issuer], arguments].concat());
        let (admin, port) = (free_port(), free_port());
        let process = start(
            pod_of(&rendered, "chancery-server"),
            &self.mounts,
            &self.server_account,
            &[("admin", admin), ("http", port)],
        );
        Release::wait_ready("the other server", admin, &process);
        (process, port)
    }

    fn wait_ready(what: &str, admin: u16, process: &Proc) {
        eventually(&format!("{what} is ready"), SOON, || {
            let answer = http::get(&format!("http://127.0.0.1:{admin}/readyz?verbose"), None);
            match answer {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}\n{}", process.output())),
            }
        });
    }
}

/// Client id, secret and token URL, as a delivered Secret has them.
pub fn credentials(cluster: &ControlPlane, namespace: &str, name: &str) -> [String; 3] {
    let secret = get(cluster, &["secret", name, "-n", namespace]);
    ["client_id", "client_secret", "token_url"].map(|key| decoded(&secret, key))
}

/// Starts the program of a pod's only container with that container's own arguments, but for what
/// is elsewhere on this machine: its ports, and the folders that are mounted.
fn start(pod: &Value, mounts: &Scratch, kubeconfig: &Path, ports: &[(&str, u16)]) -> Proc {
    let container = &pod["spec"]["containers"][0];
    let mounted = mounts.path().display().to_string();
    let mut arguments: Vec<String> = Vec::new();
    for argument in container["args"].as_array().expect("arguments") {
        let mut argument = argument.as_str().expect("text").to_owned();
        for folder in ["/etc/chancery-tls/", "/etc/chancery/"] {
            argument = argument.replace(folder, &format!("{mounted}/"));
        }
        for port in container["ports"].as_array().expect("ports") {
            let there = format!("0.0.0.0:{}", port["containerPort"]);
            let here = ports.iter().find(|(name, _)| port["name"] == *name);
            let (_, here) = here.unwrap_or_else(|| panic!("which port is {port}?"));
            argument = argument.replace(&there, &format!("127.0.0.1:{here}"));
        }
        arguments.push(argument);
    }
    arguments.push(format!("--kubeconfig={}", kubeconfig.display()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Proc::run(chancery_bin(), &arguments, &[])
}

/// Makes the Secret with the server's certificate, and the files that a kubelet would make of it.
fn certificate(cluster: &ControlPlane, mounts: &Scratch) -> String {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
    let certificate = mounts.write("tls.crt", made.cert.pem());
    let key = mounts.write("tls.key", made.signing_key.serialize_pem());
    cluster.kubectl_ok(&[
        "create",
        "secret",
        "tls",
        "chancery-tls",
        "-n",
        NAMESPACE,
        &format!("--cert={}", certificate.display()),
        &format!("--key={}", key.display()),
    ]);
    made.cert.pem()
}

/// An object as it stands in the cluster.
#[track_caller]
pub fn get(cluster: &ControlPlane, what: &[&str]) -> Value {
    let answer = cluster.kubectl_ok(&[&["get", "-o", "json"], what].concat());
    serde_json::from_str(&answer).expect("kubectl speaks JSON")
}

#[track_caller]
pub fn wait_ready(cluster: &ControlPlane, kind: &str, name: &str, namespace: &str) {
    let object = format!("{kind}/{name}");
    let wait = ["wait", "--for=condition=Ready", "--timeout=60s"];
    let answer = cluster.kubectl(&[&wait[..], &[&object, "-n", namespace]].concat());
    assert!(
        answer.success(),
        "{object} in {namespace} is not ready: {}\n{}",
        answer.stderr,
        cluster
            .kubectl(&["get", &object, "-n", namespace, "-o", "yaml"])
            .stdout
    );
}

/// A value of a Secret.
fn decoded(secret: &Value, key: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let value = secret["data"][key].as_str().unwrap_or_default();
    let bytes = STANDARD.decode(value).expect("base64");
    String::from_utf8(bytes).expect("text")
}
