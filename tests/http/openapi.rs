//! `/openapi.json`: it describes everything that is served, and real answers are as it says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use chancery::domain::client::{Client, Family};
use chancery::domain::rate::Rate;
use chancery::domain::settings::{Settings, ThrottleSettings};
use chancery::domain::tier::{EntitlementId, Entitlements, Limit};
use chancery::serve::revoke::Unnoted;
use chancery::serve::secrets::HashLimits;
use chancery::serve::snapshot::Snapshot;
use http::{Method, Request};
use http_body_util::Full;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::people::{OF_CORP, corp, of_person, trusted};
use crate::support::*;

/// Compares answers with the document.
struct Judge {
    document: Value,
    seen: BTreeSet<(String, u16)>,
}

impl Judge {
    async fn new(world: &World) -> Self {
        let answer = world.get("/openapi.json").await;
        assert_eq!(answer.status, 200);
        let mut judge = Self {
            document: answer.json(),
            seen: BTreeSet::new(),
        };
        judge.judge(&Method::GET, "/openapi.json", &answer);
        judge
    }

    /// Whether a value is of a schema of the document.
    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        fits(&self.document, schema, value)
    }

    fn judge(&mut self, method: &Method, path: &str, answer: &Answer) {
        let status = answer.status.as_u16();
        let what = format!("{method} {path}: {status}");
        let method = method.as_str().to_ascii_lowercase();
        let described = &self.document["paths"][path][&method]["responses"][status.to_string()];
        assert!(
            described["description"].is_string(),
            "{what} is not described"
        );
        let declared = described["headers"].as_object();
        for name in ["Retry-After", "WWW-Authenticate"] {
            let sent = !answer.header(&name.to_ascii_lowercase()).is_empty();
            let told = declared.is_some_and(|all| all.contains_key(name));
            assert_eq!(sent, told, "{what}: {name}");
        }
        let Some(content) = described["content"].as_object() else {
            assert!(answer.body.is_empty(), "{what} has a body");
            self.seen.insert((format!("{method} {path}"), status));
            return;
        };
        let media = answer.header("content-type");
        let of_media = content.get(media);
        let schema = &of_media.unwrap_or_else(|| panic!("{what}: {media}"))["schema"];
        let body = if media.ends_with("json") {
            answer.json()
        } else {
            String::from_utf8_lossy(&answer.body).into()
        };
        if let Err(why) = self.fits(schema, &body) {
            panic!("{what}: {why}\n{body}\n{schema}");
        }
        // Something else is not: a schema that fits everything would tell nothing.
        let open = schema == &json!({"type": "object"});
        if media.ends_with("json") && !open {
            assert!(self.fits(schema, &json!({})).is_err(), "{what}: {schema}");
        }
        self.seen.insert((format!("{method} {path}"), status));
    }

    async fn send(&mut self, world: &World, request: Request<Full<Bytes>>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = world.send(request).await;
        self.judge(&method, &path, &answer);
        answer
    }
}

/// Whether a value is of a schema, by the keywords of JSON Schema 2020-12 that stand in ours. Another
/// keyword is no reason to accept anything: the test fails, and somebody teaches it here.
fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Object(schema) => schema,
        other => return Err(format!("{other} takes nothing")),
    };
    let all = |schemas: &Value| -> Vec<Result<(), String>> {
        let schemas = schemas.as_array().expect("schemas").iter();
        schemas
            .map(|schema| fits(document, schema, value))
            .collect()
    };
    let wrong = |keyword: &str, with: &Value| Err(format!("{value}: not by {keyword} {with}"));
    for (keyword, with) in schema {
        let number = with.as_f64().zip(value.as_f64());
        let fine = match keyword.as_str() {
            "description" | "title" | "format" | "default" => true,
            "$ref" => {
                let pointer = with
                    .as_str()
                    .and_then(|r| r.strip_prefix('#'))
                    .expect("a pointer");
                let target = document.pointer(pointer).expect("what it leads to");
                fits(document, target, value)?;
                true
            }
            "type" => match with {
                Value::Array(several) => several.iter().any(|one| is(value, one)),
                one => is(value, one),
            },
            "enum" => with.as_array().is_some_and(|all| all.contains(value)),
            "const" => with == value,
            "minimum" => number.is_none_or(|(least, value)| value >= least),
            "maximum" => number.is_none_or(|(most, value)| value <= most),
            "maxLength" | "minLength" | "minItems" | "maxItems" => {
                let length = match value {
                    Value::String(text) => Some(text.chars().count() as u64),
                    Value::Array(all) => Some(all.len() as u64),
                    _ => None,
                };
                let bound = with.as_u64().expect("a bound");
                let least = keyword.starts_with("min");
                length.is_none_or(|n| if least { n >= bound } else { n <= bound })
            }
            "required" => {
                let names = with.as_array().expect("names").iter();
                value.as_object().is_none_or(|of| {
                    names
                        .map(|n| n.as_str().expect("a name"))
                        .all(|n| of.contains_key(n))
                })
            }
            "properties" => {
                for (name, schema) in with.as_object().expect("schemas") {
                    if let Some(member) = value.get(name) {
                        fits(document, schema, member).map_err(|e| format!("{name}: {e}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                for (name, member) in value.as_object().into_iter().flatten() {
                    if !known.is_some_and(|known| known.contains_key(name)) {
                        fits(document, with, member).map_err(|e| format!("{name}: {e}"))?;
                    }
                }
                true
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(document, with, item)?;
                }
                true
            }
            "allOf" => all(with).iter().all(Result::is_ok),
            "anyOf" => all(with).iter().any(Result::is_ok),
            "oneOf" => all(with).iter().filter(|fit| fit.is_ok()).count() == 1,
            other => panic!("the keyword {other} is not known to this test"),
        };
        if !fine {
            return wrong(keyword, with);
        }
    }
    Ok(())
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    }
}

fn form(path: &str, authorization: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = post(&[("authorization", authorization)], body);
    *request.uri_mut() = path.parse().expect("a path");
    request
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a request")
}

const FORMS: [&str; 4] = [
    "/oauth/token",
    "/oauth/introspect",
    "/oauth/revoke",
    "/auth/device/revoke",
];

/// A device that may introspect, with one subscription of each kind of limit.
fn device() -> (Client, String) {
    let (robot, secret) = robot();
    let mut facts = robot.subscriptions[0].clone();
    facts.entitlements = Entitlements::from([(EntitlementId::NumModels, Limit::UNLIMITED)]);
    facts.period_from = Some(Timestamp::UNIX_EPOCH);
    let device = Client {
        family: Family::Device,
        introspect: true,
        subscriptions: Arc::new(vec![facts, robot.subscriptions[0].clone()]),
        ..robot
    };
    (device, secret)
}

#[tokio::test]
async fn real_answers_are_as_described() {
    let (device, secret) = device();
    let throttle = ThrottleSettings {
        token_rate: Rate::per_minute(41),
        ..ThrottleSettings::default()
    };
    let world = World::throttled(throttle, HashLimits::default());
    let mut judge = Judge::new(&world).await;
    let own = basic("acme.robot", &secret);
    // Before anything is known.
    for path in FORMS {
        judge
            .send(
                &world,
                form(path, &own, "token=x&grant_type=client_credentials"),
            )
            .await;
    }
    for path in ["/account", "/account/subscriptions"] {
        judge
            .send(&world, get(path, &[("authorization", "Bearer x")]))
            .await;
    }
    for path in [
        "/.well-known/jwks.json",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
    ] {
        judge.send(&world, get(path, &[])).await;
    }
    let served = |client: &Client| Snapshot {
        providers: vec![trusted(corp(), &OF_CORP)],
        ..snapshot([ring("main", &es256())], [client.clone()])
    };
    world.store.publish(served(&device));
    // All is well.
    let answer = judge
        .send(
            &world,
            form("/oauth/token", &own, "grant_type=client_credentials"),
        )
        .await;
    let token = answer.json()["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let about = format!("token={token}");
    judge
        .send(&world, form("/oauth/introspect", &own, about.clone()))
        .await;
    judge
        .send(&world, form("/oauth/introspect", &own, "token=x"))
        .await;
    // Of an outside provider's person.
    let persons = of_person(&json!({"scope": "read", "azp": "app", "act": {"sub": "gate"}}));
    let answer = judge
        .send(
            &world,
            form("/oauth/introspect", &own, format!("token={persons}")),
        )
        .await;
    assert_eq!(answer.json()["sub"], "corp:ann");
    let authorization = format!("Bearer {persons}");
    for path in ["/account", "/account/subscriptions"] {
        let answer = judge
            .send(&world, get(path, &[("authorization", &authorization)]))
            .await;
        assert_eq!(answer.status, 200);
    }
    let mut signed = form("/oauth/introspect", &own, about.clone());
    let jwt = "application/token-introspection+jwt";
    signed
        .headers_mut()
        .insert("accept", jwt.parse().expect("a value"));
    judge.send(&world, signed).await;
    judge
        .send(&world, form("/oauth/revoke", &own, about.clone()))
        .await;
    judge
        .send(&world, form("/auth/device/revoke", &own, ""))
        .await;
    let bearer = format!("Bearer {token}");
    for path in ["/account", "/account/subscriptions"] {
        for (lines, status) in [
            (&[("authorization", &*bearer)][..], 200),
            (&[], 401),
            (&[("authorization", "Bearer x")], 401),
            (&[("authorization", "Bearer")], 400),
        ] {
            let answer = judge.send(&world, get(path, lines)).await;
            assert_eq!(answer.status, status);
        }
    }
    for path in [
        "/.well-known/jwks.json",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
    ] {
        judge.send(&world, get(path, &[])).await;
    }
    let unchanged = get("/.well-known/jwks.json", &[("if-none-match", "*")]);
    assert_eq!(judge.send(&world, unchanged).await.status, 304);
    // What is refused.
    let wrong = basic("acme.robot", &new_secret());
    let long = "a".repeat(70_000);
    *world.outbox.refuses.lock().expect("a lock") = Some(Unnoted::Full);
    for path in FORMS {
        judge
            .send(
                &world,
                form(path, &wrong, "token=x&grant_type=client_credentials"),
            )
            .await;
        judge.send(&world, form(path, &own, "a=%")).await;
        judge.send(&world, form(path, &own, long.clone())).await;
    }
    for path in ["/oauth/revoke", "/auth/device/revoke"] {
        assert_eq!(
            judge
                .send(&world, form(path, &own, about.clone()))
                .await
                .status,
            503
        );
    }
    world.store.publish(served(&Client {
        family: Family::Agent,
        introspect: false,
        ..device.clone()
    }));
    for path in ["/oauth/introspect", "/auth/device/revoke"] {
        assert_eq!(
            judge
                .send(&world, form(path, &own, about.clone()))
                .await
                .status,
            403
        );
    }
    world.store.publish(served(&Client {
        token_rate: Some(Rate::per_minute(1)),
        ..device
    }));
    for path in ["/oauth/token", "/oauth/revoke", "/oauth/introspect"] {
        let body = format!("{about}&grant_type=client_credentials");
        assert_eq!(judge.send(&world, form(path, &own, body)).await.status, 429);
    }
    // The server is at fault.
    world.clock.0.store(-1, Ordering::Relaxed);
    for path in FORMS {
        judge
            .send(
                &world,
                form(path, &own, "token=x&grant_type=client_credentials"),
            )
            .await;
    }
    for path in ["/account", "/account/subscriptions"] {
        judge
            .send(&world, get(path, &[("authorization", &bearer)]))
            .await;
    }
    // What was described and was not seen: a body that is slow, a device that comes too often, and
    // documents whose making panics.
    for (path, item) in judge.document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            for status in operation["responses"]
                .as_object()
                .expect("responses")
                .keys()
            {
                let at = (
                    format!("{method} {path}"),
                    status.parse().expect("a status"),
                );
                let unseen = status == "408"
                    || (status == "429" && path == "/auth/device/revoke")
                    || (status == "500" && method == "get" && !path.starts_with("/account"));
                assert!(unseen || judge.seen.contains(&at), "{at:?} was not seen");
            }
        }
    }
}

#[tokio::test]
async fn every_path_is_described_and_every_reference_leads_somewhere() {
    for issuer in [ISSUER, "https://id.example.com/tenant"] {
        let settings = Settings {
            issuer: issuer.into(),
            ..Settings::default()
        };
        let prefix = settings.issuer_path().to_owned();
        let world = World::with_settings(settings);
        let answer = world.get(&format!("{prefix}/openapi.json")).await;
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let document = answer.json();
        assert_eq!(document["openapi"], "3.1.1");
        assert_eq!(document["servers"], json!([{"url": issuer}]));
        let mut described = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            let absolute = item.get("servers").is_some();
            let prefix = if absolute { "" } else { &prefix };
            described.insert(format!("{prefix}{path}"));
            for (method, operation) in item.as_object().expect("an item") {
                if method != "servers" {
                    assert!(
                        ids.insert(operation["operationId"].to_string()),
                        "{operation}"
                    );
                }
            }
        }
        let served: BTreeSet<String> = world.app.paths().map(str::to_owned).collect();
        assert_eq!(described, served);
        // A token without scopes has none in its answer.
        let required = &document["components"]["schemas"]["TokenResponse"]["required"];
        assert_eq!(
            required,
            &json!(["access_token", "token_type", "expires_in"])
        );
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().expect("a reference");
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        assert!(text.contains("\"$ref\":\"#/components/schemas/"));
    }
}
