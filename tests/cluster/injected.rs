//! Key pairs that a person brings: every form, rotations by new content, and what is refused.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::{Algorithm, RsaKeySize};
use serde_json::{Value, json};

use crate::release::{LIMIT, Release};
use crate::ring::{Ring, SECONDS, kid, published, published_on, verifies, wait_published};
use crate::rotation::client;
use crate::support::eventually;

/// New content is seen within 10 s; a machine that does much else gets five times that.
const SEEN: Duration = Duration::from_secs(50);

/// A key file that OpenSSL wrote: those of the unit tests of the import.
fn file(name: &str) -> String {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/crypto/key_pair/import/keys"
    );
    std::fs::read_to_string(format!("{folder}/{name}.pem")).expect("a key file")
}

fn fresh(algorithm: Algorithm) -> String {
    let pem = KeyPair::generate_pem(algorithm, RsaKeySize::Bits2048).expect("a key");
    pem.to_string()
}

fn trial(prefix: &str) -> (Release, String) {
    let mut release = Release::prepared(prefix);
    release.run(&SECONDS);
    let tenant = release.tenant(&format!("{prefix}-tenant"));
    release.user(&tenant, "user", "");
    (release, tenant)
}

/// Puts a Secret into the operator's namespace, by whatever kubectl makes of it.
fn put(release: &Release, name: &str, kind: &str, data: &[(&str, &str)]) {
    let data: serde_json::Map<String, Value> = data
        .iter()
        .map(|(key, value)| {
            if value.contains("PRIVATE KEY") {
                release.remember(value);
            }
            ((*key).to_owned(), json!(STANDARD.encode(value)))
        })
        .collect();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": kind,
        "metadata": { "name": name, "namespace": release.name }, "data": data,
    });
    // Not plain apply, which would copy the data into an annotation.
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let made = release.cluster.kubectl_stdin(&apply, &secret.to_string());
    made.expect_success("kubectl apply");
}

fn brings(secret: &str, more: &str) -> String {
    format!("privateKey: {{secretRef: {{name: {secret}}}}}, rotation: {{publishLead: 3s}}, {more}")
}

/// The forms in which tools write keys; a token of each verifies.
#[test]
fn every_form_is_taken() {
    let (release, tenant) = trial("forms");
    let (certificate, pkcs1) = (file("certificate"), file("rsa-2048.pkcs1"));
    for (ring, algorithm, kind, data) in [
        (
            "pkcs8",
            "EdDSA",
            "Opaque",
            vec![("private-key.pem", file("ed25519.pkcs8"))],
        ),
        ("sec1", "ES256", "Opaque", vec![("any", file("p256.sec1"))]),
        (
            "sec1-384",
            "ES384",
            "Opaque",
            vec![("any", file("p384.sec1-with-parameters"))],
        ),
        (
            "pkcs8-521",
            "ES512",
            "Opaque",
            vec![("any", file("p521.pkcs8"))],
        ),
        // As cert-manager writes it.
        (
            "tls",
            "RS256",
            "kubernetes.io/tls",
            vec![
                ("tls.crt", certificate.clone()),
                ("tls.key", pkcs1),
                ("ca.crt", certificate),
            ],
        ),
    ] {
        let data: Vec<(&str, &str)> = data.iter().map(|(k, v)| (*k, v.as_str())).collect();
        put(&release, &format!("{ring}-source"), kind, &data);
        let spec = brings(
            &format!("{ring}-source"),
            &format!("algorithm: {algorithm}"),
        );
        let ring = Ring::apply(&release, ring, &spec);
        let active = ring.active();
        release.user(
            &tenant,
            ring.name,
            &format!("  signingKey: {}\n", ring.name),
        );
        let (id, secret) = release.credentials(&tenant, ring.name);
        let token = release.token(&id, &secret, "");
        assert_eq!(kid(&token), active, "{}", ring.name);
        let verified = verifies(&release, &token);
        assert_eq!(verified["header"]["alg"], algorithm);
        println!("{}: {algorithm} from {kind}, {active}", ring.name);
    }
}

/// New content is a rotation: the old key signs through the lead and verifies through its grace.
#[test]
fn new_content_is_a_rotation() {
    let (release, tenant) = trial("content");
    put(
        &release,
        "source",
        "Opaque",
        &[("key.pem", &fresh(Algorithm::ES256))],
    );
    let ring = Ring::apply(&release, "main", &brings("source", "algorithm: ES256"));
    let first = ring.active();
    let load = client(&release, &tenant).load();
    let second_pem = fresh(Algorithm::ES256);
    put(&release, "source", "Opaque", &[("key.pem", &second_pem)]);
    let since = tokio::time::Instant::now();
    let second = ring.wait("the new key is published", |ring| {
        let keys = ring["status"]["keys"].as_array()?;
        let next = keys.iter().find(|k| k["state"] == "Next")?;
        next["publishedAt"].as_str()?;
        crate::ring::text(&next["keyId"])
    });
    let took = since.elapsed();
    println!(
        "new content was published after {:.2} s",
        took.as_secs_f64()
    );
    assert!(took < SEEN, "{took:?}");
    assert_eq!(ring.active(), first, "the old one signs through the lead");
    assert!(published(&release).contains(&second));
    assert_eq!(ring.follows(&first), second);
    assert!(
        published(&release).contains(&first),
        "and verifies through its grace"
    );
    wait_published(&release, &first, false);
    eventually("its copy is deleted", LIMIT, || {
        let names = ring.secret_names();
        (names == ["main-2"])
            .then_some(())
            .ok_or(format!("{names:?}"))
    });

    // The copy is lost: it is made again, with the same kid.
    ring.delete("secret", "main-2");
    eventually("the copy is there again", LIMIT, || {
        let names = ring.secret_names();
        (!names.is_empty())
            .then_some(())
            .ok_or_else(|| release.tail())
    });
    ring.wait("the same key signs", |ring| {
        let same = ring["status"]["activeKeyId"] == second.as_str();
        (same && ring["status"]["keys"].as_array()?.len() == 1).then_some(())
    });
    eventually("tokens of the same key", LIMIT, || {
        let (id, secret) = release.credentials(&tenant, "user");
        let token = release.token(&id, &secret, "");
        (kid(&token) == second).then_some(()).ok_or("not yet")
    });
    let tally = load.end("new content, then a lost copy");
    assert!(tally.unverified.is_empty(), "{:#?}", tally.unverified);
    assert_eq!(tally.by_kid.len(), 2);
    println!(
        "{} requests were refused while the copy was missing",
        tally.refused.len()
    );
    assert!(tally.longest_gap < 10.0, "{}", tally.longest_gap);
}

/// What can not be used: a sentence without key material, and the ring goes on signing.
#[test]
fn what_can_not_be_used_is_refused() {
    let (release, tenant) = trial("refused");
    put(
        &release,
        "source",
        "Opaque",
        &[("key.pem", &fresh(Algorithm::RS256))],
    );
    let ring = Ring::apply(&release, "main", &brings("source", "algorithm: RS256"));
    let active = ring.active();
    let load = client(&release, &tenant).load();
    let p256 = file("p256.pkcs8");
    let whole = file("rsa-2048.pkcs8");
    let lines: Vec<&str> = whole.lines().collect();
    let broken = [&lines[..5], &lines[9..]].concat().join("\n");
    let (public, certificate) = (file("rsa-2048.public"), file("certificate"));
    let mut pieces = HashSet::new();
    let mut told = String::new();
    for (what, pem) in [
        ("another algorithm", p256.as_str()),
        ("too small", &file("rsa-1024.pkcs8")),
        ("encrypted", &file("encrypted.pkcs8")),
        ("broken", &broken),
        ("encrypted as of old", &file("encrypted.proc-type")),
        ("public only", &public),
        ("a certificate", &certificate),
        ("not a key at all", "hunter2hunter2hunter2hunter2"),
    ] {
        put(&release, "source", "Opaque", &[("key.pem", pem)]);
        let sentence = ring.wait(what, |_| {
            ring.condition("Stalled").filter(|said| *said != told)
        });
        println!("{what}: {sentence}");
        assert!(
            sentence.contains("Secret source") && sentence.ends_with("that it has."),
            "{sentence}"
        );
        ring.wait_told("Stalled", "InjectedKeyRefused");
        assert!(
            ring.condition("Ready").is_some(),
            "{what}: it goes on signing"
        );
        assert_eq!(ring.active(), active);
        told = sentence;
        pieces.extend(pieces_of(pem));
    }
    ring.delete("secret", "source");
    let sentence = ring.wait("missing", |_| {
        ring.condition("Stalled")
            .filter(|said| said.contains("is not there"))
    });
    println!("missing: {sentence}");
    assert_eq!(ring.active(), active);
    assert_eq!(ring.secret_names(), ["main-1"]);

    // Eight characters of a key are too many, wherever they stand. Those that say of what kind it is
    // stand in every certificate too.
    for public in [&public, &certificate, &release.cluster.ca_pem()] {
        for piece in pieces_of(public) {
            pieces.remove(&piece);
        }
    }
    for (name, haystack) in release.haystacks() {
        let found = haystack.windows(8).find(|w| pieces.contains(*w));
        let found = found.map(String::from_utf8_lossy);
        assert!(found.is_none(), "{found:?} stands in {name}");
    }
    println!(
        "{} pieces of eight characters, none of them to be found",
        pieces.len()
    );
    load.unnoticed("ten mistakes");
}

/// The pieces of eight characters of a PEM's body.
fn pieces_of(pem: &str) -> impl Iterator<Item = Vec<u8>> {
    let body = pem
        .lines()
        .filter(|l| !l.contains("-----") && !l.contains(": "));
    let body: Vec<u8> = body.flat_map(str::bytes).collect();
    let pieces: Vec<Vec<u8>> = body.windows(8).map(<[u8]>::to_vec).collect();
    pieces.into_iter()
}

/// A kid that was withdrawn, or stands in another ring, does not come in again.
#[test]
fn a_key_lives_once() {
    let (release, tenant) = trial("once");
    let (one, two) = (fresh(Algorithm::EdDSA), fresh(Algorithm::EdDSA));
    put(&release, "source", "Opaque", &[("key.pem", &one)]);
    let ring = Ring::apply(&release, "main", &brings("source", "algorithm: EdDSA"));
    let first = ring.active();
    put(&release, "same", "Opaque", &[("key.pem", &one)]);
    release.ring("other", &brings("same", "algorithm: EdDSA"));
    let other = Ring {
        release: &release,
        name: "other",
    };
    let told = other.wait_told("Stalled", "InjectedKeyRefused");
    assert!(
        told.contains(&first) && told.contains("SigningKey main"),
        "{told}"
    );
    assert_eq!(other.secret_names(), Vec::<String>::new());

    // Withdrawn at once: nothing else is there, and nothing is made up.
    let load = client(&release, &tenant).load();
    ring.edit(&json!({ "invalidated": [{ "keyId": first, "gracePeriod": "0s" }] }));
    let told = ring.wait_told("Stalled", "InjectedKeyRefused");
    assert!(
        told.contains(&first) && told.contains("was withdrawn"),
        "{told}"
    );
    wait_published(&release, &first, false);
    eventually("its copy is deleted", LIMIT, || {
        let names = ring.secret_names();
        names.is_empty().then_some(()).ok_or(format!("{names:?}"))
    });
    // A new one ends the outage.
    put(&release, "source", "Opaque", &[("key.pem", &two)]);
    let second = ring.follows(&first);
    release.wait_ready("signingkey", &release.name, "main");
    let tally = load.end("withdrawn, then another brought");
    assert!(!tally.refused.is_empty(), "there was no key to sign with");

    // The first again, the order taken away: it is known to be spent.
    ring.edit(&json!({ "invalidated": null }));
    put(&release, "source", "Opaque", &[("key.pem", &one)]);
    let told = ring.wait_told("Stalled", "InjectedKeyRefused");
    assert!(told.contains(&first), "{told}");
    assert_eq!(ring.active(), second, "it goes on signing");
    // Nor does it come in by another ring.
    other.wait("it is refused there", |_| {
        let told = other.condition("Stalled")?;
        (told.contains(&first) && told.contains("another ring")).then_some(())
    });
    assert!(!published(&release).contains(&first));
}

/// Two rings that are given the same key at the same moment: it is one's, whichever publishes it
/// first, and the other says so; withdrawn there, it is out.
#[test]
fn given_to_two_rings_at_once() {
    let (release, _) = trial("both");
    let spec = brings("source", "algorithm: EdDSA");
    put(
        &release,
        "source",
        "Opaque",
        &[("key.pem", &fresh(Algorithm::EdDSA))],
    );
    release.ring("one", &spec);
    release.ring("two", &spec);
    let rings = ["one", "two"].map(|name| Ring {
        release: &release,
        name,
    });
    let has = |ring: &Ring, kid: &str| {
        let keys = ring.get()["status"]["keys"].as_array().cloned();
        let mut keys = keys.unwrap_or_default().into_iter();
        keys.any(|k| k["keyId"] == kid && (k["state"] == "Next" || k["state"] == "Active"))
    };
    let mut last = String::new();
    for round in 1..=5 {
        let pem = fresh(Algorithm::EdDSA);
        let pair = KeyPair::from_pem(Algorithm::EdDSA, &pem).expect("a key");
        put(&release, "source", "Opaque", &[("key.pem", &pem)]);
        pair.key_id().clone_into(&mut last);
        let (winner, told) = eventually(&format!("round {round}"), LIMIT, || {
            for (ring, other) in [(&rings[0], &rings[1]), (&rings[1], &rings[0])] {
                let told = other.condition("Stalled").unwrap_or_default();
                let says = told.contains(&last)
                    && told.contains(&format!("stands in SigningKey {}", ring.name));
                if has(ring, &last) && says && !has(other, &last) {
                    return Ok((ring.name, told));
                }
            }
            Err(format!("{}\n{}", rings[0].get(), rings[1].get()))
        });
        println!("round {round}: {winner}'s. {told}");
        // No copy of it is left with the other.
        let other = rings.iter().find(|r| r.name != winner).expect("the other");
        eventually("no copy is left", LIMIT, || {
            let secrets = other.secrets();
            let of_other = |s: &Value| {
                let pem = text_of(s);
                KeyPair::from_pem(Algorithm::EdDSA, &pem).is_ok_and(|p| p.key_id() == last)
            };
            let left = secrets.iter().any(of_other);
            (!left).then_some(()).ok_or(format!("{}", secrets.len()))
        });
    }
    let owner = rings.iter().find(|ring| has(ring, &last)).expect("one");
    wait_published(&release, &last, true);
    owner.edit(&json!({ "invalidated": [{ "keyId": last, "gracePeriod": "0s" }] }));
    wait_published(&release, &last, false);
    owner.wait_told("Stalled", "InjectedKeyRefused");
    for ring in &rings {
        let map = release.get("configmap", &release.name, &format!("{}-jwks", ring.name));
        let document = map["data"]["jwks.json"].as_str().unwrap_or_default();
        assert!(!document.contains(&last), "{}", ring.name);
    }
    assert!(!published(&release).contains(&last));
}

fn text_of(secret: &Value) -> String {
    let data = secret["data"]["private-key.pem"].as_str();
    let pem = STANDARD.decode(data.unwrap_or_default());
    String::from_utf8(pem.unwrap_or_default()).unwrap_or_default()
}

/// The same content in two releases: the same kid, and each verifies the other's tokens.
#[test]
fn two_releases_share_a_key() {
    let (one, one_tenant) = trial("twin");
    let (two, two_tenant) = trial("twin");
    let pem = fresh(Algorithm::ES256);
    let mut tokens = Vec::new();
    let mut kids = Vec::new();
    for (release, tenant) in [(&one, &one_tenant), (&two, &two_tenant)] {
        put(release, "source", "Opaque", &[("key.pem", &pem)]);
        let ring = Ring::apply(release, "main", &brings("source", "algorithm: ES256"));
        kids.push(ring.active());
        client(release, tenant);
    }
    assert_eq!(kids[0], kids[1]);
    for (release, tenant) in [(&one, &one_tenant), (&two, &two_tenant)] {
        let (id, secret) = release.credentials(tenant, "user");
        tokens.push((release, release.token(&id, &secret, "")));
    }
    assert_eq!(published_on(one.port), published_on(two.port));
    for ((release, token), other) in tokens.iter().zip([&two, &one]) {
        let jwks = format!("{}/.well-known/jwks.json", other.issuer());
        crate::quickstart::verify(release, &jwks, token, "https://a.example");
    }
}
