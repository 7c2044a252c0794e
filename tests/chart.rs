//! The Helm chart, with the real Helm on the real API server: what it refuses, what it renders, and
//! that operator and server do their work with the rights that it gives them, and no others.

mod support;

#[path = "chart/http.rs"]
mod http;
#[path = "cluster/login.rs"]
#[allow(dead_code)] // That it can be down is for others.
mod login;
#[path = "chart/monitoring.rs"]
mod monitoring;
#[path = "chart/release.rs"]
mod release;
#[path = "chart/rights.rs"]
mod rights;
#[path = "chart/values.rs"]
mod values;

use std::process::Command;

use release::{LEAST, NAMESPACE, Release, SOON, get, objects, pick, pod_of, render, repository};
use serde_json::{Value, json};
use support::process::complete;
use support::{ControlPlane, Signal, eventually};

#[test]
fn the_crds_in_the_chart_are_those_of_the_repository() {
    let names = |folder: &str| -> Vec<String> {
        let entries = std::fs::read_dir(repository(folder)).expect("the folder is there");
        let name = |e: std::io::Result<std::fs::DirEntry>| e.expect("readable").file_name();
        let mut names: Vec<String> = entries
            .map(|e| name(e).into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    };
    let inside = "charts/chancery/files/crds";
    assert_eq!(names("crds"), names(inside), "cp crds/* {inside}/");
    let rendered = objects(&LEAST);
    for name in names("crds") {
        let text = |folder: &str| {
            std::fs::read_to_string(repository(folder).join(&name)).expect("the file is there")
        };
        assert_eq!(text("crds"), text(inside), "{name}: cp crds/* {inside}/");
        // And what Helm makes of it is the same, but for what it is asked to add.
        let crd: Value = serde_saphyr::from_str(&text("crds")).expect("YAML");
        let crd_name = crd["metadata"]["name"].as_str().expect("a name");
        let installed = pick(&rendered, "CustomResourceDefinition", crd_name);
        assert_eq!(installed["spec"], crd["spec"], "{name}");
        let keep = &installed["metadata"]["annotations"]["helm.sh/resource-policy"];
        assert_eq!(keep, "keep");
    }
    let crds = |set: &[&str]| {
        let rendered = objects(&[&LEAST, set].concat());
        let crd = |o: &&Value| o["kind"] == "CustomResourceDefinition";
        rendered
            .iter()
            .filter(crd)
            .map(|o| o["metadata"]["annotations"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(crds(&["--set", "crds.enabled=false"]).len(), 0);
    assert_eq!(crds(&["--set", "crds.keep=false"]), vec![Value::Null; 5]);
}

#[test]
fn lint_has_nothing_against_it() {
    for values in ["tls", "behind-proxy"] {
        let values = repository(&format!("charts/chancery/ci/{values}-values.yaml"));
        let values = values.display().to_string();
        let lint = ["lint", "--strict", &release::chart(), "-f", &values];
        ControlPlane::shared().helm_ok(&lint);
    }
}

/// The image's toolchain and labels are those of the repository.
#[test]
fn the_dockerfile_is_of_the_same_version_as_the_rest() {
    let read = |path: &str| std::fs::read_to_string(repository(path)).expect("it is there");
    let docker = read("Dockerfile");
    let channel = read("rust-toolchain.toml");
    let channel = channel
        .lines()
        .find_map(|line| line.strip_prefix("channel = \""))
        .map(|line| line.trim_end_matches('"'))
        .expect("a channel");
    let minor = channel.rsplit_once('.').map_or(channel, |(minor, _)| minor);
    let base = format!("FROM rust:{minor}-bookworm ");
    assert!(docker.contains(&base), "the Dockerfile has no {base:?}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(docker.contains(&format!("ARG VERSION={version}\n")));
    let chart: Value = serde_saphyr::from_str(&read("charts/chancery/Chart.yaml")).expect("YAML");
    assert_eq!(chart["appVersion"], version);
}

/// As admission judges them: Pods, in a namespace that enforces the standard.
#[test]
fn every_pod_meets_the_restricted_standard() {
    let cluster = ControlPlane::shared();
    let namespace = cluster.namespace("restricted");
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl_ok(&["label", "namespace", &namespace, enforce]);
    for account in ["chancery-operator", "chancery-server"] {
        cluster.kubectl_ok(&["create", "serviceaccount", account, "-n", &namespace]);
    }
    let create = |pod: &Value| {
        let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
        cluster.kubectl_stdin(&create, &pod.to_string())
    };
    let proxy = [
        "--set",
        "issuer=https://a.example",
        "--set",
        "tls.behindProxy=true",
    ];
    let mut judged = 0;
    for arguments in [LEAST, proxy] {
        for deployment in objects(&arguments)
            .iter()
            .filter(|o| o["kind"] == "Deployment")
        {
            let mut pod = deployment["spec"]["template"].clone();
            pod["apiVersion"] = json!("v1");
            pod["kind"] = json!("Pod");
            pod["metadata"]["name"] = deployment["metadata"]["name"].clone();
            pod["metadata"]["namespace"] = json!(namespace);
            create(&pod).expect_success("a pod of the chart");
            // That it is judged at all shows when it is spoilt.
            pod["spec"]["containers"][0]["securityContext"] = Value::Null;
            let refused = create(&pod).stderr;
            assert!(refused.contains("violates PodSecurity"), "{refused}");
            judged += 1;
        }
    }
    assert_eq!(judged, 4);
}

/// What a person sees first.
#[test]
fn a_verified_token_out_of_the_quickstart() {
    let cluster = ControlPlane::shared();
    let release = Release::shared();
    let trust = Some(release.trust.as_str());
    let [client, secret, token_url] = release::credentials(cluster, "acme", "orders-credentials");
    assert_eq!(client, "acme.orders");
    assert_eq!(token_url, format!("{}/oauth/token", release.issuer));

    // Over TLS, to the URL that the Secret names; and from a replica behind a proxy.
    let (plain, port) = release.another_server(&["--set", "tls.behindProxy=true"]);
    let plain_url = format!("http://127.0.0.1:{port}");
    let ways = [
        (release.issuer.clone(), trust, 420),
        // This one's settings are the same file: what else it is rendered with is arguments.
        (plain_url, None, 420),
    ];
    for (base, trust, ttl) in ways {
        let form = "grant_type=client_credentials&scope=orders.read";
        let token_url = format!("{base}/oauth/token");
        let answer = http::post_form(&token_url, trust, (&client, &secret), form);
        let answer = answer.expect("the server answers");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(
            answer
                .head
                .to_lowercase()
                .contains("cache-control: no-store")
        );
        let answer = answer.json();
        assert_eq!(
            answer["expires_in"], ttl,
            "tokens.defaultTtl is set: {answer}"
        );
        let token = answer["access_token"].as_str().expect("a token").to_owned();

        let metadata = format!("{base}/.well-known/oauth-authorization-server");
        let metadata = http::get(&metadata, trust).expect("an answer").json();
        assert_eq!(metadata["issuer"], release.issuer.as_str());

        let pem = support::Scratch::new("trust");
        let ca = pem.write("ca.pem", &release.trust);
        let mut verifier = Command::new(cluster.verifier());
        verifier.args(["-jwks", &format!("{base}/.well-known/jwks.json")]);
        verifier.args(["-issuer", &release.issuer, "-typ", "at+jwt"]);
        verifier.args(["-audience", "https://orders.acme.example"]);
        if trust.is_some() {
            verifier.arg("-ca").arg(&ca);
        }
        let answer = complete(verifier, token.as_bytes(), SOON).expect_success("the verifier");
        let answer: Value = serde_json::from_str(&answer).expect("it prints JSON");
        let claims = &answer["claims"];
        assert_eq!(claims["sub"], "acme.orders");
        assert_eq!(claims["scope"], "orders.read");
        assert_eq!(claims["caas_org_id"], "acme");
    }

    // As a rollout ends a replica.
    plain.signal(Signal::Term);
    let ended = plain.wait_exit(SOON);
    assert!(ended.success(), "{ended}: {}", plain.output());
}

/// Everything that the chart grants is used and nothing that is used is missing, shown by what the
/// API server saw.
#[test]
fn operator_and_server_use_what_they_are_granted_and_ask_for_nothing_else() {
    let cluster = ControlPlane::shared();
    let release = Release::shared();
    let tenant = cluster.namespace("tenant");
    let kubectl = |args: &[&str]| cluster.kubectl_ok(args);

    // A second ring, so that the issuer's JWKS is changed, and changed back.
    cluster.apply(
        &json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "SigningKey",
            "metadata": {"name": "spare", "namespace": NAMESPACE},
            "spec": {"audience": "human", "algorithm": "ES256"},
        })
        .to_string(),
    );
    release::wait_ready(cluster, "signingkey", "spare", NAMESPACE);
    // As a restore leaves it: without its owner.
    let orphan = r#"[{"op": "remove", "path": "/metadata/ownerReferences"}]"#;
    let map = ["configmap", "spare-jwks", "-n", NAMESPACE];
    kubectl(&[&["patch", "--type=json", "-p", orphan], &map[..]].concat());
    eventually("the ring owns its ConfigMap again", SOON, || {
        let owner = get(cluster, &map)["metadata"]["ownerReferences"][0]["name"].clone();
        (owner == "spare").then_some(()).ok_or(owner)
    });
    let kids = || {
        let map = get(cluster, &["configmap", "chancery-issuer", "-n", NAMESPACE]);
        let jwks = map["data"]["jwks.json"].as_str().expect("a document");
        let jwks: Value = serde_json::from_str(jwks).expect("JSON");
        jwks["keys"].as_array().expect("keys").len()
    };
    assert_eq!(kids(), 2);
    kubectl(&["delete", "signingkey", "spare", "-n", NAMESPACE]);
    eventually("its key is out of the JWKS", SOON, || {
        let kids = kids();
        (kids == 1).then_some(()).ok_or(kids)
    });

    // A ring's JWKS in another namespace, where a name is taken, and then free; and gone again.
    let elsewhere = cluster.namespace("elsewhere");
    kubectl(&["create", "configmap", "taken", "-n", &elsewhere]);
    let ring = |publish: Value| {
        let ring = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "SigningKey",
            "metadata": {"name": "published", "namespace": NAMESPACE},
            "spec": {"audience": "human", "algorithm": "ES256", "publish": publish},
        });
        cluster.apply(&ring.to_string());
    };
    let data = |name: &str| {
        let map = cluster.kubectl(&["get", "configmap", name, "-n", &elsewhere, "-o", "json"]);
        let map: Value = serde_json::from_str(&map.stdout).unwrap_or_default();
        map["data"].as_object().cloned().unwrap_or_default()
    };
    let holds = |name: &'static str, keys: &[&str]| {
        eventually(
            &format!("{name} holds the JWKS under {keys:?}"),
            SOON,
            || {
                let data = data(name);
                let found: Vec<&String> = data.keys().collect();
                (found == keys).then_some(()).ok_or(format!("{found:?}"))
            },
        );
    };
    let to = |name: &str| json!({"namespaces": [elsewhere], "configMapName": name});
    ring(json!([to("taken"), to("free")]));
    holds("free", &["jwks", "jwks.json"]);
    let reason = "-o=jsonpath={.status.conditions[?(@.type=='Published')].reason}";
    eventually("the ring says that a name is taken", SOON, || {
        let said = kubectl(&["get", "signingkey", "published", "-n", NAMESPACE, reason]);
        (said == "ConfigMapNameConflict").then_some(()).ok_or(said)
    });
    assert!(data("taken").is_empty());
    let by_label = json!({"matchLabels": {"kubernetes.io/metadata.name": elsewhere}});
    ring(json!([{"namespaceSelector": by_label, "configMapName": "free", "keys": ["k"]}]));
    holds("free", &["k"]);
    kubectl(&["delete", "signingkey", "published", "-n", NAMESPACE]);
    holds("free", &[]);

    // A tenant's life: made, robbed of its Secret twice, renamed, deleted.
    let user = |secret_name: &str| {
        json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
            "metadata": {"name": "robot", "namespace": tenant},
            "spec": {
                "roles": ["clerk"], "audiences": ["https://a.example"], "introspect": true,
                "credential": {"secret": {"secretName": secret_name, "rotation": {"gracePeriod": "0s"}}},
            },
        })
    };
    let subscription = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "Subscription",
        "metadata": {"name": "it", "namespace": tenant},
        "spec": {
            "legalEntity": {"id": tenant, "name": "A tenant"}, "tier": "Free",
            "allowed": {"roles": ["clerk"], "audiences": ["https://a.example"]},
        },
    });
    cluster.apply(&subscription.to_string());
    // A provider that no one can reach: it is judged, and its status told.
    let provider = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "OidcProvider",
        "metadata": {"name": "corp", "namespace": tenant},
        "spec": {
            "wellKnownUri": "https://127.0.0.2:1/.well-known/openid-configuration",
            "issuers": ["https://127.0.0.2:1"], "audiences": ["orders"],
        },
    });
    cluster.apply(&provider.to_string());
    eventually("the provider is judged", SOON, || {
        let reason = "-o=jsonpath={.status.conditions[?(@.type=='Ready')].reason}";
        let said = kubectl(&["get", "oidcprovider", "corp", "-n", &tenant, reason]);
        (said == "ProviderRefused").then_some(()).ok_or(said)
    });
    kubectl(&["delete", "oidcprovider", "corp", "-n", &tenant]);
    cluster.apply(&user("first").to_string());
    release::wait_ready(cluster, "technicaluser", "robot", &tenant);
    for _ in 0..2 {
        let before = get(cluster, &["secret", "first", "-n", &tenant]);
        kubectl(&["delete", "secret", "first", "-n", &tenant]);
        eventually("another Secret stands there", SOON, || {
            let now = cluster.kubectl(&["get", "secret", "first", "-n", &tenant, "-o", "json"]);
            let now: Value = serde_json::from_str(&now.stdout).unwrap_or_default();
            let new = now["metadata"]["uid"].is_string()
                && now["metadata"]["uid"] != before["metadata"]["uid"];
            new.then_some(()).ok_or(now)
        });
        // Settled, so that the second theft is told as the first one was.
        eventually("the status names the new credential", SOON, || {
            let user = get(cluster, &["technicaluser", "robot", "-n", &tenant]);
            let secret = get(cluster, &["secret", "first", "-n", &tenant]);
            let id = &secret["metadata"]["annotations"]["chancery.dev/credential-id"];
            let named = user["status"]["credentials"]
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["id"] == *id));
            named.then_some(()).ok_or(user["status"].clone())
        });
    }
    // A device's companion agent: made, edited, given up.
    let device = |companion: Value| {
        let device = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
            "metadata": {"name": "phone", "namespace": tenant},
            "spec": {
                "family": "Device", "roles": ["clerk"], "audiences": ["https://a.example"],
                "companionAgent": companion, "credential": {"secret": {}},
            },
        });
        cluster.apply(&device.to_string());
    };
    device(json!({}));
    eventually("there is a companion", SOON, || {
        let agent = cluster.kubectl(&["get", "technicaluser", "phone-agent", "-n", &tenant]);
        agent.success().then_some(()).ok_or(agent.stderr)
    });
    release::wait_ready(cluster, "technicaluser", "phone-agent", &tenant);
    device(json!({"roles": ["clerk"]}));
    let roles = "-o=jsonpath={.spec.roles}";
    eventually("its roles follow", SOON, || {
        let said = kubectl(&["get", "technicaluser", "phone-agent", "-n", &tenant, roles]);
        (said == r#"["clerk"]"#).then_some(()).ok_or(said)
    });
    device(Value::Null);
    // It revokes a token that it was issued: the server notes it, and the operator brings it home.
    let [id, secret, token_url] = release::credentials(cluster, &tenant, "first");
    let post = |url: &str, form: &str| {
        http::post_form(url, Some(&release.trust), (&id, &secret), form).expect("an answer")
    };
    eventually("a token is revoked, and the list tells", SOON, || {
        let answer = post(&token_url, "grant_type=client_credentials");
        let token = answer.json()["access_token"].as_str().map(str::to_owned);
        let form = format!("token={}", token.unwrap_or_default());
        let revoked = post(&token_url.replace("token", "revoke"), &form);
        let list = ["get", "configmap", "chancery-revocations", "-n", NAMESPACE];
        let list = cluster.kubectl(&[&list[..], &["-o", "json"]].concat());
        let noted = revoked.status == 200 && list.stdout.contains(&id);
        noted.then_some(()).ok_or(answer.body + &revoked.body)
    });
    // A token of its provider names a key that is not known: the server notes it, and the operator takes the
    // note.
    let published = login::key();
    let partner = login::Login::start(&[&published]);
    let provider = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "OidcProvider",
        "metadata": {"name": "partner", "namespace": tenant},
        "spec": {
            "wellKnownUri": format!("{}/.well-known/openid-configuration", partner.base),
            "requireHttps": false, "issuers": [partner.base], "audiences": ["orders"],
        },
    });
    cluster.apply(&provider.to_string());
    let now = chancery::clock::system().now().as_second();
    let claims = json!({
        "iss": partner.base, "aud": "orders", "sub": "ann", "iat": now, "exp": now + 600,
    });
    let introspect = token_url.replace("token", "introspect");
    let active = |token: &str| {
        let answer = post(&introspect, &format!("token={token}"));
        (answer.json()["active"] == true, answer.body)
    };
    let token = login::signed(&published, &claims);
    eventually("a token of the partner holds", SOON, || {
        let (active, told) = active(&token);
        active.then_some(()).ok_or(told)
    });
    assert!(!active(&login::with_kid(&published, "new", &claims)).0);
    let asked = partner.asked();
    eventually("the partner is asked again", SOON, || {
        (partner.asked() > asked).then_some(()).ok_or(asked)
    });
    kubectl(&["delete", "oidcprovider", "partner", "-n", &tenant]);
    somebody_is_enrolled(cluster, &tenant, &|form: &str| post(&token_url, form));
    cluster.apply(&user("second").to_string());
    let gone = |kind: &str, name: &str, namespace: &str| {
        eventually(&format!("{kind} {name} is gone"), SOON, || {
            let left = cluster.kubectl(&["get", kind, name, "-n", namespace]);
            left.stderr
                .contains("NotFound")
                .then_some(())
                .ok_or(left.stdout)
        });
    };
    gone("secret", "first", &tenant);
    gone("technicaluser", "phone-agent", &tenant);
    kubectl(&["delete", "technicaluser", "robot", "-n", &tenant]);
    gone("secret", &format!("{tenant}.robot-credentials"), NAMESPACE);

    rights::granted_is_used(cluster);
    for (who, process) in [("operator", &release.operator), ("server", &release.server)] {
        let log = process.output();
        assert!(process.is_running(), "{who}: {log}");
        assert!(!log.contains("forbidden"), "{who}: {log}");
    }
}

/// A person of a provider comes for the first time: the server notes them, and the operator makes a User.
fn somebody_is_enrolled(cluster: &ControlPlane, tenant: &str, ask: &dyn Fn(&str) -> http::Answer) {
    use chancery::crypto::{jws, key_pair::KeyPair};
    use chancery::domain::algorithm::{Algorithm, RsaKeySize};

    let pem = KeyPair::generate_pem(Algorithm::EdDSA, RsaKeySize::Bits2048).expect("a key");
    let key = KeyPair::from_pem(Algorithm::EdDSA, &pem).expect("a pair");
    let ring = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "SigningKey",
        "metadata": {"name": "people", "namespace": NAMESPACE},
        "spec": {"audience": "human", "algorithm": "ES256"},
    });
    let provider = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "OidcProvider",
        "metadata": {"name": "staff", "namespace": tenant},
        "spec": {
            "issuers": ["https://staff.example"], "audiences": ["desk"],
            "jwks": {"keys": [key.public_jwk()]}, "autoEnroll": {"users": true},
        },
    });
    cluster.apply(&ring.to_string());
    cluster.apply(&provider.to_string());
    release::wait_ready(cluster, "signingkey", "people", NAMESPACE);
    release::wait_ready(cluster, "oidcprovider", "staff", tenant);
    let acts = r#"--patch={"spec": {"onBehalfOf": true}}"#;
    let of = [
        "patch",
        "technicaluser",
        "robot",
        "-n",
        tenant,
        "--type=merge",
    ];
    cluster.kubectl_ok(&[&of[..], &[acts]].concat());
    eventually("somebody is a User", SOON, || {
        let now = chancery::clock::system().now().as_second();
        let claims = json!({
            "iss": "https://staff.example", "aud": "desk", "sub": "ada", "client_id": "app",
            "iat": now, "exp": now + 300,
        });
        let token = jws::sign_token(&key, &claims).expect("signed");
        let answer = ask(&format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token={token}&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token"
        ));
        let id = "-o=jsonpath={.items[*].status.id}";
        let said = cluster.kubectl_ok(&["get", "users.chancery.dev", "-n", tenant, id]);
        let enrolled = said == format!("{tenant}/staff:ada");
        enrolled.then_some(()).ok_or(answer.body + &said)
    });
    // Whether one that its watch shows no more is gone, the operator asks.
    cluster.kubectl_ok(&["delete", "users.chancery.dev", "--all", "-n", tenant]);
    cluster.kubectl_ok(&["delete", "oidcprovider", "staff", "-n", tenant]);
    cluster.kubectl_ok(&["delete", "signingkey", "people", "-n", NAMESPACE]);
}

/// The rights for legal entities stand there only where the release allows that.
#[test]
fn namespaces_are_made_only_where_legal_entities_are_enrolled() {
    let rights = |more: &[&str]| -> Vec<(String, String)> {
        let rendered = objects(&[&LEAST[..], more].concat());
        let role = pick(
            &rendered,
            "ClusterRole",
            "chancery-system:chancery:operator",
        );
        let rules = role["rules"].as_array().expect("rules").clone();
        let texts = |value: &Value| -> Vec<String> {
            let all = value.as_array().cloned().unwrap_or_default();
            all.iter()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect()
        };
        let all = rules.iter().flat_map(|rule| {
            let verbs = texts(&rule["verbs"]);
            let resources = texts(&rule["resources"]).into_iter();
            resources.flat_map(move |r| verbs.clone().into_iter().map(move |v| (v, r.clone())))
        });
        all.collect()
    };
    let off = rights(&[]);
    let on = rights(&["--set", "legalEntities.autoEnroll=true"]);
    let added: Vec<_> = on.iter().filter(|right| !off.contains(right)).collect();
    let pair = |verb: &str, what: &str| (verb.to_owned(), what.to_owned());
    assert_eq!(
        added,
        [
            &pair("create", "namespaces"),
            &pair("create", "subscriptions")
        ]
    );
    assert!(off.iter().all(|right| on.contains(right)));
}

#[test]
fn what_the_server_can_not_do() {
    let cluster = ControlPlane::shared();
    let account = &Release::shared().server_account;
    let listed = ["list", "watch"];
    let tenants = [
        ("chancery.dev/subscriptions", &listed[..]),
        ("chancery.dev/technicalusers", &listed),
        ("chancery.dev/oidcproviders", &listed),
        ("chancery.dev/users", &listed),
    ];
    let own = [
        ("chancery.dev/signingkeys", &listed[..]),
        ("/secrets", &listed),
        ("/configmaps", &listed),
        ("/configmaps:chancery-outbox", &["get", "update"]),
        ("/configmaps:chancery-wanted-keys", &["get", "update"]),
        ("/configmaps:chancery-enrolments", &["get", "update"]),
    ];
    rights::are_exactly(cluster, account, NAMESPACE, &[&tenants[..], &own].concat());
    rights::are_exactly(cluster, account, "acme", &tenants);
    rights::are_exactly(cluster, account, "default", &tenants);

    let secret = "--from-literal=a=b";
    let status = r#"{"status": {"observedGeneration": 7}}"#;
    let attempts: &[&[&str]] = &[
        &["get", "secret", "orders-credentials", "-n", "acme"],
        &["get", "secrets", "-n", "acme"],
        &["get", "secrets", "-A"],
        &["get", "configmaps", "-A"],
        &["create", "secret", "generic", "x", "-n", NAMESPACE, secret],
        &["create", "secret", "generic", "x", "-n", "acme", secret],
        &["create", "configmap", "x", "-n", NAMESPACE],
        &["delete", "configmap", "chancery-outbox", "-n", NAMESPACE],
        &[
            "delete",
            "configmap",
            "chancery-wanted-keys",
            "-n",
            NAMESPACE,
        ],
        &["get", "configmap", "chancery-revocations", "-n", NAMESPACE],
        &[
            "patch",
            "configmap",
            "chancery-revocations",
            "-n",
            NAMESPACE,
            "-p",
            "{}",
        ],
        &["delete", "secret", "main-1", "-n", NAMESPACE],
        &["delete", "secrets", "--all", "-n", "acme"],
        &[
            "annotate",
            "--overwrite",
            "secret",
            "main-1",
            "-n",
            NAMESPACE,
            "a=b",
        ],
        &[
            "patch",
            "configmap",
            "chancery-issuer",
            "-n",
            NAMESPACE,
            "-p",
            "{}",
        ],
        &[
            "patch",
            "signingkey",
            "main",
            "-n",
            NAMESPACE,
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ],
        &[
            "patch",
            "technicaluser",
            "orders",
            "-n",
            "acme",
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ],
        &["delete", "technicaluser", "orders", "-n", "acme"],
        &["create", "serviceaccount", "x", "-n", NAMESPACE],
        &["create", "token", "chancery-operator", "-n", NAMESPACE],
        &["get", "pods", "-A"],
        &["get", "namespaces"],
        &["get", "secrets", "-A", "--as=system:admin"],
        &["get", "lease", "chancery-leader", "-n", NAMESPACE],
    ];
    rights::refused(cluster, account, attempts);
    // What it may do, with the same kubeconfig: so the refusals are not for another reason.
    let may = cluster.kubectl_as(account, &["get", "secrets", "-n", NAMESPACE]);
    may.expect_success("the server lists the Secrets of its namespace");
}

#[test]
fn what_the_operator_can_not_do() {
    let cluster = ControlPlane::shared();
    let account = &Release::shared().operator_account;
    let read = ["get", "list", "watch"];
    let write = ["get", "list", "watch", "create", "update", "delete"];
    let everywhere = [
        ("chancery.dev/subscriptions", &read[..]),
        ("chancery.dev/technicalusers", &write),
        ("chancery.dev/subscriptions/status", &["update"]),
        ("chancery.dev/technicalusers/status", &["update"]),
        ("chancery.dev/oidcproviders", &read),
        ("chancery.dev/oidcproviders/status", &["update"]),
        ("chancery.dev/users", &["get", "list", "watch", "create"]),
        ("chancery.dev/users/status", &["update"]),
        ("/secrets", &write),
        ("/configmaps", &write),
        ("/namespaces", &["list", "watch"]),
        ("/serviceaccounts", &["list", "watch"]),
        ("events.k8s.io/events", &["create", "patch"]),
    ];
    let own = [
        ("chancery.dev/signingkeys", &read[..]),
        ("chancery.dev/signingkeys/status", &["update"]),
        ("coordination.k8s.io/leases", &["create"]),
        (
            "coordination.k8s.io/leases:chancery-leader",
            &["get", "update"],
        ),
    ];
    rights::are_exactly(
        cluster,
        account,
        NAMESPACE,
        &[&everywhere[..], &own].concat(),
    );
    rights::are_exactly(cluster, account, "acme", &everywhere);
    rights::are_exactly(cluster, account, "default", &everywhere);

    let spec = r#"{"spec": {"suspended": true}}"#;
    let attempts: &[&[&str]] = &[
        // Companion agents it replaces as it saw them.
        &[
            "patch",
            "technicaluser",
            "orders",
            "-n",
            "acme",
            "--type=merge",
            "-p",
            spec,
        ],
        &[
            "patch",
            "subscription",
            "acme",
            "-n",
            "acme",
            "--type=merge",
            "-p",
            spec,
        ],
        &["annotate", "signingkey", "main", "-n", NAMESPACE, "a=b"],
        &["delete", "subscription", "acme", "-n", "acme"],
        &["delete", "signingkey", "main", "-n", NAMESPACE],
        &["get", "pods", "-A", "--as=system:admin"],
        &["get", "pods", "-A"],
        &["get", "namespace", "acme"],
        &["create", "namespace", "x"],
        &["delete", "users.chancery.dev", "somebody", "-n", "acme"],
        &["label", "namespace", "acme", "a=b"],
        &["delete", "namespace", "acme"],
        &["get", "crds"],
        &["create", "serviceaccount", "x", "-n", NAMESPACE],
        &["create", "token", "chancery-server", "-n", NAMESPACE],
        &["get", "lease", "another", "-n", NAMESPACE],
        &["delete", "lease", "chancery-leader", "-n", NAMESPACE],
        &["get", "lease", "chancery-leader", "-n", "acme"],
        &[
            "create",
            "clusterrolebinding",
            "x",
            "--clusterrole=cluster-admin",
            "--serviceaccount=chancery-system:chancery-operator",
        ],
    ];
    rights::refused(cluster, account, attempts);
    let may = cluster.kubectl_as(account, &["get", "signingkeys", "-n", NAMESPACE]);
    may.expect_success("the operator lists the rings");
}

/// What view, edit and admin of the cluster have come to.
#[test]
fn people_get_what_their_role_stands_for() {
    let cluster = ControlPlane::shared();
    Release::shared();
    let namespace = cluster.namespace("people");
    let roles = ["view", "edit", "admin"];
    for role in roles {
        cluster.kubectl_ok(&["create", "serviceaccount", role, "-n", &namespace]);
        let account = format!("--serviceaccount={namespace}:{role}");
        let role_flag = format!("--clusterrole={role}");
        let binding = [
            "create",
            "rolebinding",
            role,
            &role_flag,
            &account,
            "-n",
            &namespace,
        ];
        cluster.kubectl_ok(&binding);
    }
    let can = |role: &str, verb: &str, kind: &str| {
        let who = format!("--as=system:serviceaccount:{namespace}:{role}");
        let resource = format!("{kind}.chancery.dev");
        let ask = ["auth", "can-i", verb, &resource, "-n", &namespace, &who];
        cluster.kubectl(&ask).stdout.trim() == "yes"
    };
    // A controller brings the rules into the three roles.
    eventually("the roles are aggregated", SOON, || {
        let all = roles.iter().all(|role| can(role, "list", "technicalusers"));
        all.then_some(()).ok_or("not yet")
    });
    for role in roles {
        for kind in [
            "signingkeys",
            "subscriptions",
            "technicalusers",
            "oidcproviders",
            "users",
        ] {
            assert!(can(role, "get", kind), "{role} reads {kind}");
            for verb in ["create", "update", "patch", "delete"] {
                let tenants = ["technicalusers", "oidcproviders", "users"].contains(&kind);
                let expected = tenants && role != "view";
                assert_eq!(can(role, verb, kind), expected, "{role} {verb} {kind}");
            }
        }
    }
}

/// On a control plane of its own, since the CRDs come and go.
#[test]
fn upgraded_and_uninstalled() {
    let cluster = ControlPlane::start();
    let chart = release::chart();
    let helm = |verb: &str, set: &[&str]| {
        let head = [
            verb,
            "chancery",
            &chart,
            "-n",
            NAMESPACE,
            "--create-namespace",
        ];
        cluster.helm_ok(&[&head, &LEAST[..], set].concat())
    };
    let notes = helm("install", &[]);
    assert!(
        notes.contains("kubectl wait --for=condition=Ready signingkey/main"),
        "{notes}"
    );
    let crd = "crd/signingkeys.chancery.dev";
    cluster.kubectl_ok(&["wait", "--for=condition=Established", crd, "--timeout=60s"]);
    let ring = repository("examples/quickstart/10-signing-key.yaml");
    eventually("a ring can be made", SOON, || {
        let applied = cluster.kubectl(&["apply", "-f", &ring.display().to_string()]);
        applied.success().then_some(()).ok_or(applied.stderr)
    });

    let checksums = || {
        ["operator", "server"].map(|name| {
            let name = format!("chancery-{name}");
            let deployment = get(&cluster, &["deployment", &name, "-n", NAMESPACE]);
            let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
            annotations["checksum/settings"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
    };
    let settings = || {
        let map = get(
            &cluster,
            &["configmap", "chancery-settings", "-n", NAMESPACE],
        );
        map["data"]["settings.yaml"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let before = checksums();
    assert!(settings().contains("maxTtl: 1h"));
    helm("upgrade", &["--set", "tokens.maxTtl=2h"]);
    assert!(settings().contains("maxTtl: 2h"));
    let after = checksums();
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(b, a)| b != a && !a.is_empty()),
        "{before:?} {after:?}"
    );
    helm(
        "upgrade",
        &["--set", "tokens.maxTtl=2h", "--set", "server.replicas=3"],
    );
    assert_eq!(checksums(), after, "what is no setting rolls no operator");

    cluster.helm_ok(&["uninstall", "chancery", "-n", NAMESPACE, "--wait"]);
    let kept = get(&cluster, &["signingkey", "main", "-n", NAMESPACE]);
    assert_eq!(
        kept["spec"]["audience"], "client",
        "the CRDs stay, and what is of their kinds"
    );
    let left = cluster.kubectl_ok(&[
        "get",
        "deployments,services,serviceaccounts,roles,rolebindings,configmaps,poddisruptionbudgets,\
         clusterroles,clusterrolebindings",
        "-A",
        "-l",
        "app.kubernetes.io/instance=chancery",
        "-o",
        "name",
    ]);
    assert_eq!(left, "", "nothing else does");

    // Installed again it takes its CRDs back; and told not to keep them, it takes them along.
    helm("install", &["--set", "crds.keep=false"]);
    cluster.helm_ok(&["uninstall", "chancery", "-n", NAMESPACE, "--wait"]);
    eventually("the CRDs are gone", SOON, || {
        let left = cluster.kubectl(&["get", "crds", "-o", "name"]).stdout;
        (!left.contains("chancery.dev")).then_some(()).ok_or(left)
    });
}

/// Two releases on one cluster: the second brings no CRDs, and nothing of theirs has one name.
#[test]
fn a_second_release_beside_the_first() {
    let cluster = ControlPlane::shared();
    Release::shared();
    let namespace = cluster.namespace("staging");
    let chart = release::chart();
    let install = [
        "install",
        "chancery",
        &chart,
        "-n",
        &namespace,
        "--set",
        "environment=staging",
    ];
    let without = ["--set", "crds.enabled=false"];
    let refused = cluster.helm(&[&install[..], &LEAST].concat());
    assert!(
        refused.stderr.contains("ownership"),
        "the CRDs are the first one's: {refused:?}"
    );
    cluster.helm(&["uninstall", "chancery", "-n", &namespace]);
    cluster.helm_ok(&[&install[..], &LEAST, &without].concat());
    cluster.helm_ok(&["uninstall", "chancery", "-n", &namespace, "--wait"]);
    get(cluster, &["clusterrole", "chancery-system:chancery:server"]);
}

#[test]
fn what_can_not_work_is_refused_with_a_sentence() {
    let behind = [
        "--set",
        "issuer=https://a.example",
        "--set",
        "tls.behindProxy=true",
    ];
    let issuer = ["--set", "issuer=https://a.example"];
    let cases: &[(&[&str], &[&str], &str)] = &[
        (
            &[],
            &[],
            "issuer is not set. It is the URL that stands in every token as iss",
        ),
        (
            &issuer,
            &[],
            "Nobody terminates TLS, and client secrets would cross the network",
        ),
        (
            &behind,
            &["tls.existingSecret=x"],
            "tls.existingSecret and tls.behindProxy are both set",
        ),
        (
            &LEAST,
            &["server.terminationGracePeriodSeconds=20"],
            "the server takes up to 30 seconds to end",
        ),
        (
            &LEAST,
            &["server.serviceAccount.create=false"],
            "server.serviceAccount.create is false and",
        ),
        (
            &LEAST,
            &["tokens.defaultTTL=5m"],
            "additional properties 'defaultTTL' not allowed",
        ),
        (
            &LEAST,
            &["servers.replicas=1"],
            "additional properties 'servers' not allowed",
        ),
        (
            &LEAST,
            &["operator.replicaCount=2"],
            "additional properties 'replicaCount' not allowed",
        ),
        (&LEAST, &["tokens.defaultTtl=5"], "at '/tokens/defaultTtl'"),
        (&LEAST, &["tokens.maxTtl=1d"], "at '/tokens/maxTtl'"),
        (&LEAST, &["jwks.maxAge=-1m"], "at '/jwks/maxAge'"),
        (
            &LEAST,
            &["secrets.generatedCost=10"],
            "at '/secrets/generatedCost'",
        ),
        (
            &LEAST,
            &["secrets.suppliedCost=9"],
            "at '/secrets/suppliedCost'",
        ),
        (
            &LEAST,
            &["tokens.clockLeeway=one"],
            "at '/tokens/clockLeeway'",
        ),
        (
            &LEAST,
            &["serving.maxStaleness=1d"],
            "at '/serving/maxStaleness'",
        ),
        (
            &LEAST,
            &["policy.longestRotationInterval=90d"],
            "at '/policy/longestRotationInterval'",
        ),
        (
            &LEAST,
            &["policy.shortestSecretRotationInterval=1d"],
            "at '/policy/shortestSecretRotationInterval'",
        ),
        (
            &LEAST,
            &["serving.maxConnections=15"],
            "at '/serving/maxConnections'",
        ),
        (&LEAST, &["issuer=id.example.com"], "at '/issuer'"),
        (&LEAST, &["issuer=https://id.example.com/"], "at '/issuer'"),
        (
            &LEAST,
            &["issuer=https://id.example.com/?a"],
            "at '/issuer'",
        ),
        (&LEAST, &["issuer=http://id.example.com"], "at '/issuer'"),
        (&LEAST, &["environment=Prod"], "at '/environment'"),
        (
            &LEAST,
            &["policy.allowedAlgorithms={HS256}"],
            "at '/policy/allowedAlgorithms/0'",
        ),
        (
            &LEAST,
            &["policy.minRsaKeySize=1024"],
            "at '/policy/minRsaKeySize'",
        ),
        (&LEAST, &["claims.tier=sub"], "at '/claims/tier'"),
        (
            &LEAST,
            &["tiers.Mini.entitlements.NUM_MODELS.limit=1"],
            "missing properties",
        ),
        (&LEAST, &["image.digest=latest"], "at '/image/digest'"),
        (&LEAST, &["server.replicas=0"], "at '/server/replicas'"),
        (&LEAST, &["operator.replicas=0"], "at '/operator/replicas'"),
        (&LEAST, &["bindAddress=127.0.0.1"], "at '/bindAddress'"),
        (
            &LEAST,
            &["commonLabels.app\\.kubernetes\\.io/name=x"],
            "app.kubernetes.io/name",
        ),
    ];
    for (base, sets, sentence) in cases {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        match render(&[base, &sets[..]].concat()) {
            Ok(_) => panic!("{sets:?} was not refused: {sentence}"),
            Err(why) => assert!(why.contains(sentence), "{sets:?}: {why}"),
        }
    }
}

/// The program's own judgement of the file, with everything set that can be.
#[test]
fn the_settings_file_is_what_the_program_reads() {
    let everything = repository("tests/chart/everything.yaml")
        .display()
        .to_string();
    let rendered = objects(&["-f", &everything]);
    let map = pick(&rendered, "ConfigMap", "all-settings");
    let text = map["data"]["settings.yaml"].as_str().expect("a file");
    let settings: chancery::domain::settings::Settings =
        serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(settings.problems(), Vec::<String>::new());
    assert_eq!(settings.operator_namespace, NAMESPACE);
    // Every single one is another than the default.
    let defaults = chancery::domain::settings::Settings {
        operator_namespace: NAMESPACE.into(),
        ..Default::default()
    };
    let as_value =
        |s: &chancery::domain::settings::Settings| serde_json::to_value(s).expect("JSON");
    let (set, default) = (as_value(&settings), as_value(&defaults));
    values::leaves(&default, &mut |path, value| {
        if path != "/operatorNamespace" {
            assert_ne!(
                set.pointer(path),
                Some(value),
                "{path} of {everything} is the default"
            );
        }
    });
    let trial = &settings.tiers["Trial"].entitlements;
    let disk = chancery::domain::tier::EntitlementId::DiskUsage;
    assert_eq!(trial[&disk].limit, Some(2_000_000_000_000));

    // And with the chart's defaults it is the program's defaults, but for a floor that trials do without.
    let rendered = objects(&LEAST);
    let map = pick(&rendered, "ConfigMap", "chancery-settings");
    let text = map["data"]["settings.yaml"].as_str().expect("a file");
    let mut settings: chancery::domain::settings::Settings =
        serde_saphyr::from_str(text).expect("it reads");
    settings.issuer.clear();
    let floor = settings.policy.shortest_secret_rotation_interval.take();
    assert_eq!(floor.map(|floor| floor.to_string()), Some("1m".into()));
    assert_eq!(settings, defaults);
}

/// With everything set that can be, the API server takes all of it, unknown fields refused.
#[test]
fn everything_that_can_be_set_is_valid() {
    let cluster = ControlPlane::shared();
    Release::shared();
    let everything = repository("tests/chart/everything.yaml")
        .display()
        .to_string();
    let manifests =
        render(&["-f", &everything, "--set", "crds.enabled=false"]).expect("it renders");
    let apply = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    // The Prometheus operator's kinds are judged in chart/monitoring.rs: their CRDs are not here.
    let foreign = |part: &&str| !part.contains("apiVersion: monitoring.coreos.com/");
    let manifests: Vec<&str> = manifests.split("---\n").filter(foreign).collect();
    let manifests = manifests.join("---\n");
    cluster
        .kubectl_stdin(&apply, &manifests)
        .expect_success("kubectl apply");
    let rendered = objects(&["-f", &everything]);
    let server = &pod_of(&rendered, "all-server")["spec"];
    let image = format!("registry.example/chancery@sha256:{}", "a".repeat(64));
    assert_eq!(server["containers"][0]["image"], image.as_str());
    assert_eq!(server["serviceAccountName"], "its-server");
}

/// A value that changes nothing would be a promise that is not kept.
#[test]
fn every_value_has_an_effect_and_stands_in_the_readme() {
    values::each_has_an_effect();
}
