//! The files that the servers and their clients read: keys, tokens, kubeconfigs, the audit policy.

use super::{Scratch, servers::Ports};
use aws_lc_rs::encoding::AsDer;
use base64::{Engine, engine::general_purpose::STANDARD};
use std::path::{Path, PathBuf};

/// Who changes what is always logged; for our own kinds with the bodies, so that a secret which
/// slips into a resource or a status is found. What the control plane reads for itself is noise.
const AUDIT_POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    users: ["system:apiserver"]
  - level: None
    users: ["system:kube-controller-manager"]
    verbs: [get, list, watch]
  - level: None
    nonResourceURLs: ["/healthz*", "/livez*", "/readyz*"]
  - level: RequestResponse
    resources: [{group: chancery.dev}]
  - level: Metadata
"#;

pub struct Files {
    pub url: String,
    pub admin_token: String,
    pub admin_kubeconfig: PathBuf,
    pub controller_manager_kubeconfig: PathBuf,
    pub tokens: PathBuf,
    pub service_account_key: PathBuf,
    /// Where kube-apiserver keeps the certificate that it makes for itself.
    pub certificates: PathBuf,
    pub ca: PathBuf,
    pub audit_policy: PathBuf,
    pub audit_log: PathBuf,
    /// Home folder of kubectl and helm, with their caches.
    pub home: PathBuf,
}

impl Files {
    pub fn write(scratch: &Scratch, ports: &Ports) -> Files {
        let url = format!("https://127.0.0.1:{}", ports.api_server);
        let admin_token = random_token();
        let manager_token = random_token();
        let ca = scratch.path().join("ca.crt");
        let kubeconfig = |name: &str, token: &str| {
            scratch.write(
                &format!("{name}.kubeconfig"),
                kubeconfig(&url, &ca, name, token, "default"),
            )
        };
        let home = scratch.path().join("home");
        std::fs::create_dir(&home).expect("a new folder can be written into");
        // The controller manager has a name of its own so that the audit log tells the two apart.
        let tokens = format!(
            "{admin_token},admin,admin,system:masters\n\
             {manager_token},system:kube-controller-manager,manager,system:masters\n"
        );
        Files {
            admin_kubeconfig: kubeconfig("admin", &admin_token),
            controller_manager_kubeconfig: kubeconfig("controller-manager", &manager_token),
            tokens: scratch.write("tokens.csv", tokens),
            service_account_key: scratch.write("service-account.key", new_rsa_key()),
            certificates: scratch.path().join("certificates"),
            audit_policy: scratch.write("audit-policy.yaml", AUDIT_POLICY),
            audit_log: scratch.path().join("audit.log"),
            home,
            admin_token,
            url,
            ca,
        }
    }

    /// kube-apiserver makes its certificate itself, and an authority for it, and writes both into
    /// one file. Clients are given the authority alone, which is the last.
    pub fn learn_ca(&self) -> Result<(), String> {
        if self.ca.exists() {
            return Ok(());
        }
        let chain = self.certificates.join("apiserver.crt");
        let chain = std::fs::read_to_string(&chain)
            .map_err(|error| format!("can not read {}: {error}", chain.display()))?;
        let last = chain
            .rfind("-----BEGIN CERTIFICATE-----")
            .ok_or("kube-apiserver wrote no certificate")?;
        std::fs::write(&self.ca, &chain[last..]).map_err(|error| error.to_string())
    }
}

/// A kubeconfig of one cluster and one user. JSON, since every reader of YAML reads it.
pub fn kubeconfig(url: &str, ca: &Path, user: &str, token: &str, namespace: &str) -> String {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "test",
            "cluster": {"server": url, "certificate-authority": ca},
        }],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{
            "name": "test",
            "context": {"cluster": "test", "user": user, "namespace": namespace},
        }],
        "current-context": "test",
    })
    .to_string()
}

fn random_token() -> String {
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the machine has randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key that signs ServiceAccount tokens: RSA, as in about every cluster.
fn new_rsa_key() -> String {
    let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048)
        .expect("an RSA key can be made");
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> =
        key.as_der().expect("an RSA key can be written as PKCS#8");
    pem("PRIVATE KEY", der.as_ref())
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}
