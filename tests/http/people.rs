//! People of an outside provider, the services that act for them, and whoever asks about their tokens.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use chancery::crypto::key_pair::KeyPair;
use chancery::crypto::own_token::{self, OwnToken};
use chancery::domain::algorithm::Algorithm;
use chancery::domain::client::Client;
use chancery::domain::provider::{AutoEnroll, ClaimPaths, Provider};
use chancery::domain::rate::Rate;
use chancery::serve::snapshot::Snapshot;
use chancery::serve::trust::{Keys, OutsideProvider};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::jwt::{public, sign, with};
use crate::support::*;

pub const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange";
pub const TYPE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3A";
pub const CORP: &str = "https://login.corp.example";

/// The key for people, and that of the provider.
pub static PEOPLE: LazyLock<Arc<KeyPair>> = LazyLock::new(|| key(Algorithm::EdDSA));
pub static OF_CORP: LazyLock<Arc<KeyPair>> = LazyLock::new(|| key(Algorithm::ES256));

pub fn corp() -> Provider {
    let path = |text: &str| text.parse().expect("a path");
    Provider {
        namespace: None,
        name: "corp".into(),
        registered: NOW - 1000,
        active: true,
        issuers: vec![CORP.into()],
        audiences: vec!["front".into()],
        claims: ClaimPaths {
            subject: path("sub"),
            organisation: path("org_id"),
            legal_entity: path("caas_org_id"),
            roles: path("realm_access.roles"),
        },
        required: Vec::new(),
        role_mappings: Vec::new(),
        auto_enroll: AutoEnroll::default(),
    }
}

pub fn trusted(provider: Provider, key: &KeyPair) -> Arc<OutsideProvider> {
    Arc::new(OutsideProvider {
        uid: provider.id(),
        provider,
        keys: Keys(vec![public(key, None)]),
        fetched: true,
        good_until: None,
    })
}

/// Three services in a row, each of which may call the next, and a stranger: with one secret.
pub fn clients() -> ([Client; 4], String) {
    let (robot, secret) = robot();
    let of = |name: &str, next: &str| Client {
        id: format!("acme.{name}"),
        name: name.into(),
        on_behalf_of: true,
        introspect: true,
        // Tables are long.
        token_rate: Some(Rate::per_minute(60_000)),
        audiences: vec![next.into(), "https://api.example.com".into()],
        ..robot.clone()
    };
    let mut shop = of("shop", "acme.orders");
    shop.scopes = vec!["read".into()];
    let mut facts = robot.subscriptions[0].clone();
    facts.namespace = "globex".into();
    facts.legal_entity_id = "le-globex".into();
    let stranger = Client {
        id: "globex.shop".into(),
        namespace: "globex".into(),
        subscriptions: Arc::new(vec![facts]),
        ..of("shop", "acme.orders")
    };
    let all = [of("front", "acme.shop"), shop, of("orders", "x"), stranger];
    (all, secret)
}

pub fn served(clients: [Client; 4], providers: Vec<Arc<OutsideProvider>>) -> Snapshot {
    let people = ring("people", &PEOPLE);
    Snapshot {
        jwks: Some(jwks([&es256(), &*PEOPLE])),
        human_keys: HashSet::from([PEOPLE.key_id().to_owned()]),
        human_rings: vec![people],
        providers,
        ..snapshot([ring("main", &es256())], clients)
    }
}

pub fn world() -> (World, String) {
    let (clients, secret) = clients();
    let world = World::new();
    world
        .store
        .publish(served(clients, vec![trusted(corp(), &OF_CORP)]));
    (world, secret)
}

pub fn header() -> Value {
    json!({"alg": "ES256", "typ": "at+jwt", "kid": OF_CORP.key_id()})
}

pub fn claims() -> Value {
    json!({
        "iss": CORP, "sub": "ann", "aud": ["front"], "exp": NOW + 200, "iat": NOW - 5,
        "caas_org_id": "le-acme", "realm_access": {"roles": ["CLERK", "BOSS"]},
    })
}

/// What the provider gave a person.
pub fn of_person(changes: &Value) -> String {
    sign(&OF_CORP, &header(), &with(&claims(), changes))
}

pub async fn ask(world: &World, id: &str, secret: &str, form: &str) -> Answer {
    let body = format!("grant_type={GRANT}{form}");
    world
        .send(post(&[("authorization", &basic(id, secret))], body))
        .await
}

pub async fn exchange(world: &World, id: &str, secret: &str, token: &str, more: &str) -> Answer {
    let form = format!("&subject_token={token}&subject_token_type={TYPE}access_token{more}");
    ask(world, id, secret, &form).await
}

pub fn token_of(answer: &Answer) -> String {
    let token = answer.json()["access_token"].as_str().map(str::to_owned);
    token.unwrap_or_else(|| panic!("{answer:?}"))
}

pub fn read(token: &str) -> OwnToken {
    own_token::read(token, &jwks([&*PEOPLE]).keys).expect("the key for people signed it")
}

/// What a client that may introspect is told of a token.
pub async fn told(world: &World, id: &str, secret: &str, token: &str) -> Answer {
    world.send(introspection(id, secret, token)).await
}

/// What the holder of a token is told under that path.
pub async fn account(world: &World, path: &str, token: &str) -> Answer {
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    let request: Request<Full<Bytes>> = request.body(Full::default()).expect("a request");
    world.send(request).await
}
