//! How clients authenticate (RFC 6749 §2.3), and that a refusal tells nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chancery::crypto::secret::shape;
use chancery::domain::client::Client;
use chancery::serve::secrets::COMPARISONS;

use crate::support::*;

const FORM: &str = "grant_type=client_credentials";

#[tokio::test]
async fn ways_by_the_table() {
    let (client, secret) = robot();
    let world = World::serving(client);
    let auth = basic("acme.robot", &secret);
    let lower = auth.replacen("Basic", "bAsIc", 1);
    let unpadded = auth.trim_end_matches('=').to_owned();
    let encoded = basic("acme%2Erobot", &secret.replacen("sk-", "sk%2D", 1));
    let no_colon = format!("Basic {}", STANDARD.encode("acme.robot"));
    let not_utf8 = format!("Basic {}", STANDARD.encode(b"acme\xff:x"));
    let bad_percent = basic("acme.robot", "%zz");
    let post_auth = format!("{FORM}&client_id=acme.robot&client_secret={secret}");
    let cases: Vec<(&str, Vec<&str>, String, u16, &str)> = vec![
        ("Basic", vec![&auth], FORM.into(), 200, ""),
        ("scheme in any case", vec![&lower], FORM.into(), 200, ""),
        ("no padding", vec![&unpadded], FORM.into(), 200, ""),
        ("percent-encoded", vec![&encoded], FORM.into(), 200, ""),
        ("post", vec![], post_auth.clone(), 200, ""),
        (
            "same id in the form",
            vec![&auth],
            format!("{FORM}&client_id=acme.robot"),
            200,
            "",
        ),
        (
            "other id",
            vec![&auth],
            format!("{FORM}&client_id=b"),
            400,
            "invalid_request",
        ),
        ("both", vec![&auth], post_auth, 400, "invalid_request"),
        (
            "assertion beside Basic",
            vec![&auth],
            format!("{FORM}&client_assertion=x"),
            400,
            "invalid_request",
        ),
        (
            "assertion beside secret",
            vec![],
            format!("{FORM}&client_id=a&client_secret=b&client_assertion=x"),
            400,
            "invalid_request",
        ),
        (
            "two headers",
            vec![&auth, &auth],
            FORM.into(),
            400,
            "invalid_request",
        ),
        (
            "assertion",
            vec![],
            format!("{FORM}&client_assertion=x"),
            401,
            "invalid_client",
        ),
        ("nothing", vec![], FORM.into(), 401, "invalid_client"),
        (
            "id alone",
            vec![],
            format!("{FORM}&client_id=acme.robot"),
            401,
            "invalid_client",
        ),
        (
            "secret alone",
            vec![],
            format!("{FORM}&client_secret={secret}"),
            401,
            "invalid_client",
        ),
        (
            "Bearer",
            vec!["Bearer x"],
            FORM.into(),
            401,
            "invalid_client",
        ),
        (
            "Basic alone",
            vec!["Basic"],
            FORM.into(),
            401,
            "invalid_client",
        ),
        (
            "no base64",
            vec!["Basic ???"],
            FORM.into(),
            401,
            "invalid_client",
        ),
        (
            "no colon",
            vec![&no_colon],
            FORM.into(),
            401,
            "invalid_client",
        ),
        (
            "no UTF-8",
            vec![&not_utf8],
            FORM.into(),
            401,
            "invalid_client",
        ),
        (
            "bad percent",
            vec![&bad_percent],
            FORM.into(),
            401,
            "invalid_client",
        ),
        ("empty", vec![""], FORM.into(), 401, "invalid_client"),
    ];
    for (name, authorizations, body, status, error) in cases {
        let headers: Vec<_> = authorizations
            .iter()
            .map(|a| ("authorization", *a))
            .collect();
        let answer = world.send(post(&headers, body)).await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        if status != 200 {
            assert_eq!(answer.error(), error, "{name}");
        }
        let challenge = "Basic realm=\"https://id.example.com\", charset=\"UTF-8\"";
        let expected = if status == 401 { challenge } else { "" };
        assert_eq!(answer.header("www-authenticate"), expected, "{name}");
        assert_eq!(answer.header("cache-control"), "no-store", "{name}");
        assert!(
            !String::from_utf8_lossy(&answer.body).contains(&secret),
            "{name}"
        );
    }
}

#[tokio::test]
async fn every_refusal_has_the_same_bytes_and_its_price_follows_from_the_shape() {
    let (client, secret) = robot();
    let (other, suspended_secret) = robot();
    let suspended = Client {
        id: "acme.suspended".into(),
        suspended: true,
        ..other.clone()
    };
    let bare = Client {
        id: "acme.bare".into(),
        credentials: Vec::new(),
        ..other
    };
    let rotating = Client {
        id: "acme.rotating".into(),
        credentials: (0..4)
            .map(|i| credential(&format!("c{i}"), &new_secret(), i))
            .collect(),
        ..bare.clone()
    };
    let world = World::new();
    let clients = [client, suspended, bare, rotating];
    world
        .store
        .publish(snapshot([ring("main", &es256())], clients));
    let wrong = new_secret();
    let mut answers = Vec::new();
    let mut typo = wrong.clone();
    typo.replace_range(20..21, if &typo[20..21] == "x" { "y" } else { "x" });
    for (id, presented) in [
        ("acme.robot", wrong.as_str()),
        ("acme.robot", "guess"),
        ("acme.robot", ""),
        ("acme.unknown", &wrong),
        ("acme.unknown", "guess"),
        ("acme.suspended", &suspended_secret),
        ("acme.suspended", &wrong),
        ("acme.bare", &wrong),
        ("acme.bare", &typo),
        ("acme.robot", &typo),
        ("acme.rotating", &wrong),
        ("", &secret),
        ("acme.robot\0", &secret),
    ] {
        let before = world.metrics.comparisons.get();
        answers.push(world.token(id, presented, "&scope=admin").await);
        let price = if shape(presented).is_some() {
            COMPARISONS as u64
        } else {
            0
        };
        assert_eq!(
            world.metrics.comparisons.get() - before,
            price,
            "{id} {presented}"
        );
    }
    assert_eq!(answers[0].status, 401);
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:#?}");
    assert_eq!(world.token("acme.robot", &secret, "").await.status, 200);
}
