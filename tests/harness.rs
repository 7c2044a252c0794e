//! The harness must be right before what it tests can be: that nothing outlives a test, that waiting
//! waits, and that the search for leaked secrets finds them.

#![allow(clippy::pedantic)] // Pedantry is for what ships.

mod support;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{Canary, Proc, Scratch, Signal, eventually, eventually_async, free_port};

const SOON: Duration = Duration::from_secs(20);

fn sh(script: &str) -> Proc {
    Proc::run("/bin/sh", &["-c", script], &[])
}

#[test]
fn the_output_of_a_process_is_there_while_it_runs() {
    let process = sh("echo out; echo err >&2; exec sleep 1000");
    let err = process.wait_for_line(|line| line.starts_with('e'), SOON);
    assert_eq!(err, "err");
    assert_eq!(process.wait_for_line(|line| line == "out", SOON), "out");
    assert!(process.is_running());
    process.signal(Signal::Term);
    assert_eq!(
        process.wait_exit(SOON).code(),
        None,
        "it was ended by the signal"
    );
}

#[test]
#[should_panic(expected = "ended with exit status: 3")]
fn waiting_for_a_line_of_a_process_that_ended_ends_too() {
    sh("echo something else; exit 3").wait_for_line(|line| line == "hello", 10 * SOON);
}

#[test]
fn a_process_sees_no_kubeconfig_of_the_person_who_runs_the_tests() {
    let process = sh("echo \"${KUBECONFIG-none} $HOME\"");
    let line = process.wait_for_line(|_| true, SOON);
    assert!(line.starts_with("none /"), "{line}");
    assert_ne!(
        line.split(' ').nth(1),
        std::env::var("HOME").ok().as_deref()
    );
}

#[test]
fn stopping_freezes_and_continuing_thaws() {
    let process = sh("trap 'echo thawed; exit 0' CONT; echo ready; while :; do sleep 0.05; done");
    process.wait_for_line(|line| line == "ready", SOON);
    process.signal(Signal::Stop);
    eventually("the process is stopped", SOON, || {
        match state(process.pid()) {
            Some('T') => Ok(()),
            other => Err(format!("its state is {other:?}")),
        }
    });
    process.signal(Signal::Cont);
    process.wait_for_line(|line| line == "thawed", SOON);
}

/// Not a test: what the next one runs in a process of its own and kills.
#[test]
#[ignore = "waits to be killed; run by nothing_is_left_of_a_test_that_is_killed"]
fn victim() {
    let scratch = Scratch::new("victim");
    let server = Proc::run("/bin/sleep", &["1000"], &[]);
    let stubborn = sh("trap '' TERM; echo ready; while :; do sleep 1; done");
    stubborn.wait_for_line(|line| line == "ready", SOON);
    let frozen = Proc::run("/bin/sleep", &["1000"], &[]);
    frozen.signal(Signal::Stop);
    println!(
        "\nvictim {} {} {} {}",
        server.pid(),
        stubborn.pid(),
        frozen.pid(),
        scratch.path().display()
    );
    frozen.wait_exit(Duration::from_secs(1000));
}

#[test]
fn nothing_is_left_of_a_test_that_is_killed() {
    let this = std::env::current_exe().expect("a test knows its binary");
    let args = ["victim", "--exact", "--ignored", "--nocapture"];
    let victim = Proc::run(this, &args, &[]);
    let line = victim.wait_for_line(|line| line.starts_with("victim "), SOON);
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    let (pids, folder) = (&words[..3], Path::new(words[3]));
    let alive = |pid: &&str| !matches!(state(pid.parse().expect("a number")), None | Some('Z'));
    assert!(pids.iter().all(alive), "{line}");
    assert!(folder.exists());

    victim.signal(Signal::Kill);

    eventually("its processes are gone, and its folder", SOON, || {
        let left: Vec<_> = pids.iter().filter(|pid| alive(pid)).collect();
        if left.is_empty() && !folder.exists() {
            Ok(())
        } else {
            Err(format!("processes {left:?}, folder: {}", folder.exists()))
        }
    });
}

/// The letter that `ps` shows; `None` if there is no such process.
fn state(pid: u32) -> Option<char> {
    let ps = Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .expect("ps runs");
    String::from_utf8_lossy(&ps.stdout).trim().chars().next()
}

#[test]
#[should_panic(expected = "in vain: pigs fly. The last look said: 3 tries")]
fn waiting_in_vain_tells_what_for_and_the_last_reason() {
    let mut tries = 0;
    eventually("pigs fly", Duration::from_millis(100), || {
        tries += 1;
        Err::<(), _>(format!("{} tries", tries.min(3)))
    });
}

#[tokio::test]
async fn waiting_ends_with_the_value() {
    let mut tries = 0;
    let value = eventually_async("the third try", SOON, || {
        tries += 1;
        std::future::ready(if tries == 3 {
            Ok(tries)
        } else {
            Err("not yet")
        })
    })
    .await;
    assert_eq!(value, 3);
}

#[test]
fn a_free_port_is_no_ephemeral_one() {
    let port = free_port();
    assert!((20_000..32_000).contains(&port), "{port}");
    std::net::TcpListener::bind(("127.0.0.1", port)).expect("it is free");
}

const SECRET: &str = "sk-Zm9v~canary/\"quoted\"+0123456789";

#[track_caller]
fn assert_found(canary: &Canary, haystack: impl AsRef<[u8]>) {
    let hits = canary.scan(&[("the log", haystack.as_ref())]);
    let text = String::from_utf8_lossy(haystack.as_ref());
    assert!(!hits.is_empty(), "not found in: {text}");
    assert!(hits.iter().all(|hit| hit.label == "the secret"));
}

/// All the places that a secret could be in: text, base64 of text at each alignment, and so on.
fn hiding_places(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut places = vec![[b"before ", secret, b" after"].concat()];
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    places.push(format!("x{hex}x").into_bytes());
    places.push(format!("x{}x", hex.to_uppercase()).into_bytes());
    places.push(format!("Key({secret:?})").into_bytes());
    places.push(format!("Key({secret:#?})").into_bytes());
    for before in ["", "a", "ab", "abc", "abcd"] {
        for after in ["", "z", "zy"] {
            let text = [before.as_bytes(), secret, after.as_bytes()].concat();
            let (once, url) = (STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text));
            places.push(STANDARD.encode(format!("{before}{once}")).into_bytes());
            places.push(STANDARD.encode(format!("{before}{url}")).into_bytes());
            let folded: Vec<&[u8]> = once.as_bytes().chunks(19).collect();
            places.push(folded.join(&b"\n"[..]));
            places.push(folded.join(&b"\\n"[..]));
            places.push(once.into_bytes());
            places.push(url.into_bytes());
        }
    }
    places
}

#[test]
fn the_canary_finds_a_password_in_every_form() {
    let mut canary = Canary::new();
    canary.add(SECRET, "the secret");
    for place in hiding_places(SECRET.as_bytes()) {
        assert_found(&canary, place);
    }
    assert_found(&canary, serde_json::json!({ "p": SECRET }).to_string());
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("client_secret", SECRET)
        .finish();
    assert_found(&canary, form);
}

#[test]
fn the_canary_finds_bytes_that_are_no_text() {
    let bytes: Vec<u8> = (0..40_u8).map(|n| n.wrapping_mul(37) ^ 0xa5).collect();
    let mut canary = Canary::new();
    canary.add(&bytes, "the secret");
    for place in hiding_places(&bytes) {
        assert_found(&canary, place);
    }
}

#[test]
fn the_canary_finds_nothing_where_nothing_is() {
    let mut canary = Canary::new();
    canary.add(SECRET, "the secret");
    canary.assert_absent(&[("a log", "sk-Zm9v~canary is all right, but for the rest")]);
    let other = "sk-another-secret-of-the-same-length-0123";
    canary.assert_absent(&[("another secret", other)]);
}

#[test]
fn a_hit_names_the_secret_without_telling_it() {
    let mut canary = Canary::new();
    canary.add(SECRET, "the secret");
    let hits = canary.scan(&[("the log", SECRET)]);
    let line = hits[0].to_string();
    assert_eq!(line, "the secret stands in the log: the whole, as it is");
}

/// Makes a private key: its PKCS#8, and its secret number or numbers.
fn keys() -> Vec<(&'static str, Vec<u8>)> {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature as s;
    let random = SystemRandom::new();
    let ec = |alg| {
        let key = s::EcdsaKeyPair::generate_pkcs8(alg, &random).expect("a key can be made");
        key.as_ref().to_vec()
    };
    let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("RSA");
    let rsa: Pkcs8V1Der<'_> = rsa.as_der().expect("PKCS#8");
    let ed = s::Ed25519KeyPair::generate_pkcs8(&random).expect("Ed25519");
    vec![
        ("P-256", ec(&s::ECDSA_P256_SHA256_FIXED_SIGNING)),
        ("P-384", ec(&s::ECDSA_P384_SHA384_FIXED_SIGNING)),
        ("P-521", ec(&s::ECDSA_P521_SHA512_FIXED_SIGNING)),
        ("Ed25519", ed.as_ref().to_vec()),
        ("RSA", rsa.as_ref().to_vec()),
    ]
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|l| str::from_utf8(l).unwrap())
        .collect();
    format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        lines.join("\n")
    )
}

#[test]
fn the_canary_finds_private_keys_and_their_secret_numbers() {
    for (kind, der) in keys() {
        let parts = support::der::private_parts(&der).expect(kind);
        assert_eq!(parts.len(), if kind == "RSA" { 6 } else { 1 }, "{kind}");
        let pem = pem(&der);
        for (form, added) in [("PEM", pem.as_bytes()), ("DER", &der)] {
            let mut canary = Canary::new();
            canary.add(added, "the secret");
            for (_, range) in &parts {
                for place in hiding_places(&der[range.clone()]) {
                    assert_found(&canary, place);
                }
            }
            assert_found(&canary, &der);
            if form == "PEM" {
                assert_found(&canary, &pem);
                assert_found(&canary, serde_json::json!({ "key": pem }).to_string());
                let data = STANDARD.encode(&pem);
                assert_found(&canary, format!("data: {data}"));
                // One line of it is enough.
                let line = pem.lines().nth(2).unwrap();
                if kind.starts_with("P-") {
                    assert_found(&canary, format!("parsing {line}: no such key"));
                }
            }
        }
    }
}

#[test]
fn the_canary_finds_the_secret_numbers_of_a_private_jwk() {
    let (d, k) = ([7_u8; 32], [9_u8; 20]);
    let jwk = serde_json::json!({
        "kty": "EC", "crv": "P-256",
        "d": URL_SAFE_NO_PAD.encode(d), "k": URL_SAFE_NO_PAD.encode(k),
    });
    let mut canary = Canary::new();
    canary.add(jwk.to_string(), "the secret");
    for place in hiding_places(&d).into_iter().chain(hiding_places(&k)) {
        assert_found(&canary, place);
    }
}

/// Public keys are published on purpose: in a JWKS, where they have all that is not secret of the
/// private key's file.
#[test]
fn the_canary_does_not_take_the_public_key_for_a_leak() {
    for (kind, der) in keys() {
        let parts = support::der::private_parts(&der).expect(kind);
        let mut canary = Canary::new();
        canary.add(pem(&der), "the secret");
        let first = parts.iter().map(|(_, range)| range.start).min().unwrap();
        let last = parts.iter().map(|(_, range)| range.end).max().unwrap();
        for public in [&der[..first], &der[last..]] {
            for place in hiding_places(public) {
                canary.assert_absent(&[(kind, place)]);
            }
        }
    }
}
