//! Outside providers on a real control plane: a second Chancery is the provider.

use serde_json::Value;

use crate::release::{LIMIT, Release};
use crate::support::{Scratch, eventually, http};

/// A release that trusts, with loopback allowed, and a release that is trusted.
pub struct Circle {
    pub trusting: Release,
    pub tenant: String,
    pub provider: Release,
    config: Scratch,
}

impl Circle {
    fn start(name: &str) -> Self {
        Self::with(name, "")
    }

    /// With more in the trusting release's settings.
    pub fn with(name: &str, more: &str) -> Self {
        let config = Scratch::new("providers");
        let file = config.path().join("release.yaml");
        let text = format!("providers: {{allowedAddresses: [127.0.0.0/8]}}\n{more}");
        std::fs::write(&file, text).expect("written");
        let mut trusting = Release::prepared(name);
        trusting.run(&["--config", &file.display().to_string()]);
        let tenant = trusting.tenant(&format!("{name}-tenant"));
        let provider = Release::start(&format!("{name}-other"));
        provider.ring("main", "algorithm: ES256, rotation: {publishLead: 1s}");
        provider.wait_ready("signingkey", &provider.name, "main");
        Self {
            trusting,
            tenant,
            provider,
            config,
        }
    }

    /// The file with the trusting release's settings.
    pub fn config(&self) -> String {
        let file = self.config.path().join("release.yaml");
        file.display().to_string()
    }

    fn trust(&self, name: &str, more: &str) {
        self.trust_in(&self.tenant, name, more);
    }

    pub fn trust_in(&self, namespace: &str, name: &str, more: &str) {
        let issuer = self.provider.issuer();
        self.trusting.apply(&format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: OidcProvider\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  wellKnownUri: {issuer}/.well-known/openid-configuration\n  requireHttps: false\n  issuers: ['{issuer}']\n  audiences: [orders]\n{more}"
        ));
    }

    fn status(&self, name: &str) -> Value {
        self.trusting.get("oidcprovider", &self.tenant, name)["status"].clone()
    }

    /// What the provider serves, by kid.
    fn served(&self) -> Vec<String> {
        let answer = http::get(&format!("{}/.well-known/jwks.json", self.provider.issuer()));
        kids(&answer.expect("an answer").json())
    }

    /// What the servers of the trusting release are handed.
    fn handed(&self, name: &str) -> Vec<String> {
        let map = format!("chancery-provider.{}.{name}-keys", self.tenant);
        let map = self.trusting.get("configmap", &self.trusting.name, &map);
        let document = map["data"]["jwks.json"].as_str().unwrap_or("{}");
        kids(&serde_json::from_str(document).expect("JSON"))
    }

    /// Waits until status and ConfigMap have just these.
    fn follows(&self, name: &str, wanted: &[String]) {
        eventually(&format!("{name} has {wanted:?}"), LIMIT, || {
            let status = self.status(name);
            let told = status["keyIds"].as_array().cloned().unwrap_or_default();
            let told: Vec<_> = told
                .iter()
                .filter_map(|kid| kid.as_str().map(str::to_owned))
                .collect();
            let same = |all: &[String]| {
                let sorted = |all: &[String]| {
                    let mut all = all.to_vec();
                    all.sort();
                    all
                };
                sorted(all) == sorted(wanted)
            };
            let handed = self.handed(name);
            (same(&told) && same(&handed))
                .then_some(())
                .ok_or_else(|| format!("{status}\n{}", self.trusting.tail()))
        });
    }
}

pub fn annotate(release: &Release, kind: &str, namespace: &str, name: &str, annotation: &str) {
    let annotate = [
        "annotate",
        kind,
        name,
        "-n",
        namespace,
        "--overwrite",
        annotation,
    ];
    release.cluster.kubectl_ok(&annotate);
}

fn kids(jwks: &Value) -> Vec<String> {
    let keys = jwks["keys"].as_array().cloned().unwrap_or_default();
    keys.iter()
        .filter_map(|key| key["kid"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn keys_follow_a_second_chancery_and_outlast_it() {
    let mut circle = Circle::start("circle");
    circle.trust("partner", "  jwks: {refreshInterval: 10s}\n");
    let tenant = circle.tenant.clone();
    circle
        .trusting
        .wait_ready("oidcprovider", &tenant, "partner");
    let first = circle.served();
    assert_eq!(first.len(), 1);
    circle.follows("partner", &first);
    assert_eq!(circle.status("partner")["issuer"], circle.provider.issuer());

    // It rotates: the new key is known by the clock, before anybody asks.
    let own = circle.provider.name.clone();
    annotate(
        &circle.provider,
        "signingkey",
        &own,
        "main",
        "chancery.dev/rotate=one",
    );
    eventually("the provider has a second key", LIMIT, || {
        let served = circle.served();
        (served.len() == 2)
            .then_some(())
            .ok_or_else(|| format!("{served:?}"))
    });
    circle.follows("partner", &circle.served());

    // A reload is handled, and told.
    annotate(
        &circle.trusting,
        "oidcprovider",
        &tenant,
        "partner",
        "chancery.dev/reload=now",
    );
    eventually("the reload is told", LIMIT, || {
        let handled = circle.status("partner")["lastHandledReload"].clone();
        (handled == "now").then_some(()).ok_or(handled.to_string())
    });

    // It is gone: what it had is trusted, and that is told.
    let known = circle.handed("partner");
    circle.provider.kill();
    circle.trusting.wait_reason(
        "oidcprovider",
        &tenant,
        "partner",
        "Reachable",
        "ProviderUnreachable",
    );
    circle
        .trusting
        .wait_ready("oidcprovider", &tenant, "partner");
    circle.follows("partner", &known);
    // Up again, it is asked again by itself.
    circle.provider.forget_leader();
    circle.provider.run(&[]);
    circle
        .trusting
        .wait_reason("oidcprovider", &tenant, "partner", "Reachable", "Succeeded");

    // Deleted, nothing is left of it.
    let delete = ["delete", "oidcprovider", "partner", "-n", &tenant];
    circle.trusting.cluster.kubectl_ok(&delete);
    let map = format!("chancery-provider.{tenant}.partner-keys");
    eventually("its ConfigMap is swept", LIMIT, || {
        let left = circle
            .trusting
            .get("configmap", &circle.trusting.name, &map);
        left.is_null().then_some(()).ok_or(map.clone())
    });
}

#[test]
fn what_can_not_be_trusted_is_told() {
    let circle = Circle::start("distrust");
    let tenant = circle.tenant.clone();
    let stalled = |name: &str, reason: &str| {
        circle
            .trusting
            .wait_reason("oidcprovider", &tenant, name, "Stalled", reason)
    };
    circle.trust("partner", "");
    circle
        .trusting
        .wait_ready("oidcprovider", &tenant, "partner");
    // creationTimestamp counts seconds, and the younger is to be another's.
    let made = crate::ring::now().as_second();
    eventually("a second passes", LIMIT, || {
        (crate::ring::now().as_second() > made)
            .then_some(())
            .ok_or("not yet")
    });
    circle.trust("twin", "  roleMappings: [{from: a, to: [clerk]}]\n");
    let told = stalled("twin", "ProviderConflict");
    let message = told["message"].as_str().expect("a message");
    assert!(message.contains(&format!("{tenant}/partner")), "{message}");
    let patch = |name: &str, patch: &str| {
        let patch = [
            "patch",
            "oidcprovider",
            name,
            "-n",
            &tenant,
            "--type=merge",
            "-p",
            patch,
        ];
        circle.trusting.cluster.kubectl_ok(&patch);
    };
    patch(
        "twin",
        r#"{"spec": {"audiences": ["bills"], "issuers": ["https://elsewhere.example"]}}"#,
    );
    stalled("twin", "IssuerMismatch");
    // Nowhere where it may not be asked.
    for (uri, what) in [
        (
            "https://169.254.169.254/.well-known/openid-configuration",
            "the cloud's metadata",
        ),
        (
            "https://10.0.0.1/.well-known/openid-configuration",
            "a private address",
        ),
        (
            "https://[::ffff:a00:1]/.well-known/openid-configuration",
            "a private address",
        ),
    ] {
        patch(
            "twin",
            &format!(r#"{{"spec": {{"wellKnownUri": "{uri}"}}}}"#),
        );
        eventually(uri, LIMIT, || {
            let status = circle.status("twin").to_string();
            status.contains(what).then_some(()).ok_or(status)
        });
    }
    // Inactive: it is told, and it is not asked any more.
    patch("partner", r#"{"spec": {"active": false}}"#);
    circle
        .trusting
        .wait_reason("oidcprovider", &tenant, "partner", "Ready", "Inactive");
    patch("partner", r#"{"spec": {"active": true}}"#);
    circle
        .trusting
        .wait_reason("oidcprovider", &tenant, "partner", "Ready", "Succeeded");
}
