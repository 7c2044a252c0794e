//! What a release must not leak: the secrets of its objects, searched for wherever a person or a
//! machine may read.

use super::Release;
use crate::support::http;
use crate::support::{Canary, Proc};

impl Release {
    /// Every secret and private key of the release's objects, searched for in everything that a
    /// person or a machine may read of this run.
    pub(super) fn assert_nothing_leaked(&self) {
        use base64::Engine as _;
        let mut canary = Canary::new();
        let mut secrets = 0;
        for secret in self.read.lock().expect("no test panicked here").iter() {
            canary.add(secret, "a secret that was read or brought");
            secrets += 1;
        }
        for namespace in self.namespaces() {
            for secret in self.list("secrets", &namespace) {
                let name = secret["metadata"]["name"].as_str().unwrap_or_default();
                for (key, value) in secret["data"].as_object().into_iter().flatten() {
                    let public = ["client_id", "token_url", "issuer", "tls.crt", "ca.crt"];
                    let bytes = base64::engine::general_purpose::STANDARD
                        .decode(value.as_str().unwrap_or_default())
                        .expect("base64");
                    // A device that revoked itself has no hashes left, and no lives.
                    let empty = bytes == b"[]" || bytes == b"{}";
                    if !public.contains(&key.as_str()) && !empty {
                        canary.add(&bytes, &format!("{namespace}/{name}: {key}"));
                        secrets += 1;
                    }
                }
            }
        }
        let haystacks = self.haystacks();
        let haystacks: Vec<(&str, &[u8])> = haystacks
            .iter()
            .map(|(n, b)| (n.as_str(), b.as_slice()))
            .collect();
        // A test about Subscriptions alone makes none.
        if secrets > 0 {
            canary.assert_absent(&haystacks);
        }
    }

    /// The operator's namespace and those of the tenants.
    fn namespaces(&self) -> Vec<String> {
        let tenants = self.tenants.lock().expect("no test panicked here");
        tenants.iter().chain([&self.name]).cloned().collect()
    }

    /// All that may be read of this run, each with a name: objects, events, logs, the admin port.
    pub fn haystacks(&self) -> Vec<(String, Vec<u8>)> {
        let mut haystacks = Vec::new();
        for namespace in self.namespaces() {
            for kind in [
                "signingkeys",
                "subscriptions",
                "technicalusers",
                "oidcproviders",
                "users.chancery.dev",
                "configmaps",
                "events",
            ] {
                let get = ["get", kind, "-n", &namespace, "-o", "yaml"];
                let text = self.cluster.kubectl_ok(&get);
                haystacks.push((format!("{kind} in {namespace}"), text.into_bytes()));
            }
        }
        let printed = self.process.as_ref().map(Proc::output).unwrap_or_default();
        haystacks.push(("the log".into(), printed.into_bytes()));
        let earlier = self.printed.lock().expect("no test panicked here");
        for (n, printed) in earlier.iter().enumerate() {
            let printed = printed.clone().into_bytes();
            haystacks.push((format!("the log of process {n}"), printed));
        }
        if self.process.as_ref().is_some_and(Proc::is_running) {
            for path in ["metrics", "readyz?verbose"] {
                let url = format!("http://127.0.0.1:{}/{path}", self.admin_port);
                let body = http::get(&url).expect("the admin port answers").body;
                haystacks.push((path.into(), body));
            }
        }
        haystacks
    }
}
