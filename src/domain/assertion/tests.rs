use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://id.example.com";

fn jwt(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(header), part(claims))
}

/// A sound one, with members replaced; null takes one away.
fn with(base: &Value, changes: &Value) -> Value {
    let mut all = base.clone();
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            all.as_object_mut().expect("an object").remove(name);
        } else {
            all[name] = value.clone();
        }
    }
    all
}

fn of_client(header: &Value, claims: &Value) -> Result<(), Defect> {
    let header = with(&json!({"alg": "ES256", "kid": "k"}), header);
    let sound = json!({"iss": "acme.robot", "sub": "acme.robot", "aud": ISSUER, "exp": NOW + 60, "jti": "1"});
    let text = jwt(&header, &with(&sound, claims));
    Assertion::parse(&text)?.check_private_key(ISSUER, NOW)
}

fn of_workload(claims: &Value) -> Result<(), Defect> {
    let sound = json!({
        "iss": "https://cluster", "sub": "system:serviceaccount:acme:app", "aud": [ISSUER],
        "exp": NOW + 3000, "iat": NOW - 600, "nbf": NOW - 600,
        "kubernetes.io": {"namespace": "acme", "serviceaccount": {"name": "app", "uid": "u"}},
    });
    let text = jwt(&json!({"alg": "RS256", "kid": "k"}), &with(&sound, claims));
    let assertion = Assertion::parse(&text)?;
    assert_eq!(assertion.claims.kind(), Kind::ServiceAccount);
    assertion.check_service_account([ISSUER, "reports"].into_iter(), NOW)
}

#[test]
fn a_clients_assertion_by_the_table() {
    let none = json!({});
    for (header, claims) in [
        (none.clone(), none.clone()),
        (json!({"kid": null}), none.clone()),
        (json!({"typ": "JWT"}), none.clone()),
        (json!({"typ": "client-authentication+jwt"}), none.clone()),
        (
            json!({"typ": "application/Client-Authentication+JWT"}),
            none.clone(),
        ),
        (json!({"x5t": "abc"}), none.clone()),
        (none.clone(), json!({"aud": [ISSUER]})),
        (none.clone(), json!({"exp": NOW + 300})),
        (none.clone(), json!({"exp": NOW - 29})),
        (none.clone(), json!({"exp": 1_800_000_060.9})),
        (none.clone(), json!({"iat": NOW + 30, "nbf": NOW + 30})),
        (none.clone(), json!({"iat": NOW - 3600})),
    ] {
        assert_eq!(of_client(&header, &claims), Ok(()), "{header} {claims}");
    }
    for (header, said) in [
        (json!({"alg": "none"}), "alg is none of"),
        (json!({"alg": "HS256"}), "alg is none of"),
        (json!({"alg": null}), "alg is none of"),
        (json!({"alg": ["ES256"]}), "alg is none of"),
        (json!({"crit": ["exp"]}), "crit is not taken"),
        (json!({"b64": true}), "b64"),
        (json!({"jku": "https://x"}), "jku is not taken"),
        (json!({"x5u": "https://x"}), "x5u is not taken"),
        (json!({"x5c": []}), "x5c is not taken"),
        (json!({"jwk": {}}), "jwk is not taken"),
        (json!({"enc": "A256GCM"}), "JWE"),
        (json!({"zip": "DEF"}), "zip"),
        (json!({"cty": "JWT"}), "nested"),
        (json!({"typ": "at+jwt"}), "typ is neither"),
        (json!({"typ": 1}), "typ is neither"),
        (json!({"kid": 1}), "kid is no text"),
        (json!({"kid": "k".repeat(257)}), "kid is no text"),
    ] {
        let defect = of_client(&header, &none).expect_err("refused").to_string();
        assert!(defect.contains(said), "{header}: {defect}");
    }
    for (claims, said) in [
        (json!({"iss": "other"}), "iss and sub"),
        (json!({"iss": null}), "iss is missing"),
        (json!({"iss": 1}), "iss is missing"),
        (json!({"sub": null}), "sub is missing"),
        (json!({"sub": ""}), "sub is missing"),
        (json!({"aud": null}), "aud is missing"),
        (json!({"aud": 1}), "aud is missing"),
        (json!({"aud": [1]}), "aud is no text"),
        (json!({"aud": []}), "aud must be the issuer"),
        (json!({"aud": [ISSUER, "other"]}), "aud must be the issuer"),
        (json!({"aud": [ISSUER, ISSUER]}), "aud must be the issuer"),
        (
            json!({"aud": format!("{ISSUER}/")}),
            "aud must be the issuer",
        ),
        (
            json!({"aud": format!("{ISSUER}/oauth/token")}),
            "aud must be the issuer",
        ),
        (json!({"exp": null}), "exp is missing"),
        (json!({"exp": "1800000060"}), "exp is no number"),
        (json!({"exp": -1}), "exp is no number"),
        (json!({"exp": 1e300}), "exp is no number"),
        (json!({"exp": u64::MAX}), "exp is no number"),
        (json!({"exp": NOW + 301}), "more than 5 minutes"),
        (json!({"exp": NOW - 30}), "expired"),
        (json!({"nbf": NOW + 31}), "nbf is in the future"),
        (json!({"nbf": "now"}), "nbf is no number"),
        (json!({"iat": NOW + 31}), "iat is in the future"),
        (json!({"iat": 0}), "iat is more than an hour"),
        (json!({"iat": 99_999_999_999_999_i64}), "iat is no number"),
        (json!({"jti": null}), "jti is missing"),
        (json!({"jti": ""}), "jti is no text"),
        (json!({"jti": 1}), "jti is no text"),
        (json!({"jti": "j".repeat(257)}), "jti is no text"),
    ] {
        let defect = of_client(&none, &claims).expect_err("refused").to_string();
        assert!(defect.contains(said), "{claims}: {defect}");
    }
}

#[test]
fn a_workloads_token_by_the_table() {
    for claims in [
        json!({}),
        json!({"aud": "reports"}),
        // Such a token lives long, is used again, and may well have no jti.
        json!({"exp": NOW + 86_400, "iat": NOW - 86_400}),
    ] {
        assert_eq!(of_workload(&claims), Ok(()), "{claims}");
    }
    let named = |namespace: &str, name: &str| json!({"kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": "u"}}});
    for (claims, said) in [
        (json!({"kubernetes.io": null}), "none in kubernetes.io"),
        (
            json!({"kubernetes.io": {"namespace": "acme"}}),
            "none in kubernetes.io",
        ),
        (named("acme", "other"), "different ServiceAccounts"),
        (named("other", "app"), "different ServiceAccounts"),
        (
            json!({"aud": [ISSUER, "https://kubernetes.default.svc"]}),
            "one value alone",
        ),
        (
            json!({"aud": "https://kubernetes.default.svc"}),
            "aud is neither",
        ),
        (json!({"exp": null}), "exp is missing"),
        (json!({"exp": NOW - 60}), "expired"),
        (json!({"nbf": NOW + 60}), "nbf is in the future"),
    ] {
        let defect = of_workload(&claims).expect_err("refused").to_string();
        assert!(defect.contains(said), "{claims}: {defect}");
    }
}

#[test]
fn what_is_no_jwt_is_refused() {
    let sound = jwt(&json!({"alg": "ES256"}), &json!({}));
    let (head, _) = sound.rsplit_once('.').expect("a signature");
    for (text, said) in [
        (String::new(), "three parts"),
        ("a.b".into(), "three parts"),
        (format!("{sound}.x"), "three parts"),
        (format!("{sound}.x.y"), "JWE"),
        (format!("{sound}.x.y.z"), "three parts"),
        (".".repeat(10_000), "three parts"),
        ("..".into(), "header"),
        ("a.b.c".into(), "header"),
        (format!(" {sound}"), "header"),
        (format!("{head}."), "signature"),
        (format!("{head}.*"), "signature"),
        ("a".repeat(MAX_BYTES + 1), "longer"),
    ] {
        let defect = Assertion::parse(&text).expect_err("refused").to_string();
        assert!(defect.contains(said), "{text:.40}: {defect}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(text in ".{0,200}", header in ".{0,60}", claims in ".{0,60}") {
        let _ = Assertion::parse(&text);
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let _ = Assertion::parse(&format!("{}.{}.c2ln", part(&header), part(&claims)));
    }
}
