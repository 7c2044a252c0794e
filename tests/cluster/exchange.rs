//! Token exchange on a real release: a chain of three hops, whose last token shows the person and all
//! who acted, and whose audit log tells the same. The person's first token is made with the key of a
//! ring for people, as a sign-in would.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chancery::crypto::jws::sign_token;
use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::Algorithm;
use serde_json::{Value, json};

use crate::load::part;
use crate::release::{LIMIT, Release};
use crate::support::{Scratch, eventually, http};

pub const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange";
pub const TYPE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token";

type Credentials = (String, String);

fn exchange(
    release: &Release,
    (id, secret): &Credentials,
    token: &str,
    more: &str,
) -> http::Answer {
    let url = format!("{}/oauth/token", release.issuer());
    let body = format!("grant_type={GRANT}&subject_token={token}&subject_token_type={TYPE}{more}");
    http::form(&url, id, secret, &body).expect("the server answers")
}

fn token(answer: &http::Answer) -> String {
    let json = answer.json();
    let token = json["access_token"].as_str().map(str::to_owned);
    token.unwrap_or_else(|| panic!("{}: {}", answer.status, answer.text()))
}

/// What a sign-in at this issuer would give a person, for the first service.
fn of_person(release: &Release, tenant: &str, first: &str) -> String {
    let secret = eventually("the ring for people has a key", LIMIT, || {
        let secret = release.get("secret", &release.name, "people-1");
        secret["data"]
            .is_object()
            .then_some(secret)
            .ok_or("none yet")
    });
    let data = secret["data"].as_object().expect("data").values();
    let mut texts = data.filter_map(|v| String::from_utf8(STANDARD.decode(v.as_str()?).ok()?).ok());
    let pem = texts
        .find(|text| text.contains("PRIVATE KEY"))
        .expect("a key");
    let key = KeyPair::from_pem(Algorithm::EdDSA, &pem).expect("a key pair");
    let now = chancery::clock::system().now().as_second();
    let claims = json!({
        "iss": release.issuer(), "sub": "corp:ann", "aud": first, "client_id": first,
        "iat": now, "exp": now + 1000, "jti": "of-the-sign-in", "scope": "read write",
        "caas_org_id": tenant, "caas_user_id": "corp:ann", "org_id": tenant,
        "user_roles": ["clerk", "BOSS"],
    });
    sign_token(&key, &claims).expect("signed")
}

#[test]
fn three_hops_and_the_audit_log_tells_them() {
    let folder = Scratch::new("exchange");
    let audit = folder.path().join("audit.jsonl");
    let mut release = Release::prepared("exchange");
    release.run(&["--audit-log", audit.to_str().expect("UTF-8")]);
    release.ring("main", "algorithm: ES256");
    let namespace = release.name.clone();
    release.apply(&format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: SigningKey\nmetadata: {{name: people, namespace: {namespace}}}\nspec: {{audience: human, algorithm: EdDSA}}\n"
    ));
    let tenant = release.bare_tenant("exchange-tenant");
    let stranger = release.tenant("exchange-stranger");
    let ids = ["front", "shop", "orders"].map(|name| format!("{tenant}.{name}"));
    release.apply(&format!(
        "apiVersion: chancery.dev/v1alpha1\nkind: Subscription\nmetadata: {{name: main, namespace: {tenant}}}\nspec:\n  environment: {namespace}\n  legalEntity: {{id: {tenant}, name: A tenant}}\n  tier: Free\n  allowed: {{scopes: ['*'], roles: [clerk], audiences: ['*']}}\n"
    ));
    for (n, (name, scopes)) in [
        ("front", "[read, write]"),
        ("shop", "[read, write]"),
        ("orders", "[read]"),
    ]
    .into_iter()
    .enumerate()
    {
        let next = ids.get(n + 1).map_or("https://store.example", |id| id);
        release.apply(&format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: TechnicalUser\nmetadata: {{name: {name}, namespace: {tenant}}}\nspec:\n  onBehalfOf: true\n  introspect: true\n  scopes: {scopes}\n  audiences: ['{next}']\n  credential: {{secret: {{}}}}\n"
        ));
        release.wait_ready("technicaluser", &tenant, name);
    }
    release.user(&stranger, "shop", "  onBehalfOf: true\n");
    release.wait_ready("technicaluser", &stranger, "shop");
    release.wait_ready("signingkey", &namespace, "people");
    let [front, shop, orders] =
        ["front", "shop", "orders"].map(|n| release.credentials(&tenant, n));
    let strangers = release.credentials(&stranger, "shop");
    release.token(&front.0, &front.1, "");
    let person = of_person(&release, &tenant, &ids[0]);
    let first = eventually("the first hop", LIMIT, || {
        let answer = exchange(&release, &front, &person, "");
        (answer.status == 200)
            .then(|| token(&answer))
            .ok_or(answer.text())
    });
    let second = token(&exchange(&release, &shop, &first, "&scope=read"));
    let third = token(&exchange(&release, &orders, &second, ""));
    let claims = part(&third, 1);
    assert_eq!(claims["sub"], "corp:ann");
    assert_eq!(
        claims["act"],
        json!({"sub": ids[2], "act": {"sub": ids[1], "act": {"sub": ids[0]}}})
    );
    assert_eq!(
        (&claims["scope"], &claims["user_roles"]),
        (&"read".into(), &json!(["clerk"]))
    );
    let expires = |token: &str| part(token, 1)["exp"].as_i64().expect("exp");
    assert!(expires(&third) <= expires(&second) && expires(&second) <= expires(&first));
    let url = format!("{}/oauth/introspect", release.issuer());
    let said = http::form(&url, &front.0, &front.1, &format!("token={third}")).expect("an answer");
    assert_eq!(said.json()["act"], claims["act"]);

    // What is refused: not for this client, another tenant's, a client's own token.
    assert_eq!(exchange(&release, &orders, &first, "").status, 400);
    assert_eq!(
        exchange(&release, &shop, &second, "&scope=write").status,
        400
    );
    let foreign = of_person(&release, &tenant, &strangers.0);
    let refused = exchange(&release, &strangers, &foreign, "");
    assert_eq!(refused.status, 400, "{}", refused.text());
    let own = release.token(&front.0, &front.1, "");
    assert_eq!(
        exchange(&release, &shop, &own, "").json()["error"],
        "invalid_request"
    );

    let told = eventually("the audit log tells all hops", LIMIT, || {
        let text = std::fs::read_to_string(&audit).map_err(|e| e.to_string())?;
        let lines = text
            .lines()
            .filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let hops: Vec<_> = lines
            .filter(|l| l["event"] == "issued" && l["subject"] == "corp:ann")
            .collect();
        (hops.len() == 3).then_some(hops).ok_or(text)
    });
    for (n, line) in told.iter().enumerate() {
        assert_eq!(
            (&line["client"], &line["tenant"]),
            (&ids[n].clone().into(), &tenant.clone().into())
        );
    }
    assert_eq!(told[0]["subject_token"], "of-the-sign-in");
    assert_eq!(told[1]["subject_token"], told[0]["jti"]);
    assert_eq!(
        told[2]["actors"],
        json!([{"sub": ids[2]}, {"sub": ids[1]}, {"sub": ids[0]}])
    );

    // A client in the middle is suspended: what it was issued lets nobody act, and holds no more.
    let suspend = "{\"spec\":{\"suspended\":true}}";
    let patch = [
        "patch",
        "technicaluser",
        "shop",
        "-n",
        &tenant,
        "--type",
        "merge",
        "-p",
        suspend,
    ];
    release.cluster.kubectl_ok(&patch);
    eventually("what it was issued holds no more", LIMIT, || {
        let answer = exchange(&release, &orders, &second, "");
        (answer.status == 400).then_some(()).ok_or(answer.text())
    });
}
