//! Clients and a verifier that never rest while something happens to a ring.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use tokio::time::Instant;

use crate::ring::now;
use crate::support::http;

/// For how long the verifier believes a JWKS: the release's max-age, and it never asks earlier.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Requests under way until [`Load::end`].
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

/// What came of them.
#[derive(Debug, Default)]
pub struct Tally {
    pub issued: usize,
    pub verified: usize,
    /// How many tokens each key signed.
    pub by_kid: BTreeMap<String, usize>,
    pub refused: Vec<String>,
    pub unverified: Vec<String>,
    /// The longest time without a token, in seconds.
    pub longest_gap: f64,
}

/// A client of the replicas on `ports`, in turn.
#[derive(Clone)]
pub struct Client {
    pub ports: Vec<u16>,
    pub issuer: String,
    pub id: String,
    pub secret: String,
}

impl Client {
    /// Asks for tokens and verifies each of them at once and until it expires.
    pub fn load(self) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        Load {
            stop,
            thread: std::thread::spawn(move || self.run(&stopped)),
        }
    }

    fn run(self, stop: &AtomicBool) -> Tally {
        let mut tally = Tally::default();
        let mut held: Vec<String> = Vec::new();
        let mut jwks: Option<(Instant, JwkSet)> = None;
        let mut last = Instant::now();
        for port in self.ports.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let base = format!("http://127.0.0.1:{port}");
            match http::token(&format!("{base}/oauth/token"), &self.id, &self.secret, "") {
                Ok(answer) if answer.status == 200 => {
                    let token = answer.json()["access_token"].as_str().map(str::to_owned);
                    let token = token.expect("a token");
                    *tally.by_kid.entry(crate::ring::kid(&token)).or_default() += 1;
                    tally.issued += 1;
                    held.push(token);
                    tally.longest_gap = tally.longest_gap.max(last.elapsed().as_secs_f64());
                    last = Instant::now();
                }
                other => tally.refused.push(format!("{}: {other:?}", now())),
            }
            let stale = jwks.as_ref().is_none_or(|(at, _)| at.elapsed() >= MAX_AGE);
            if stale {
                let document = http::get(&format!("{base}/.well-known/jwks.json"));
                let document = document
                    .ok()
                    .and_then(|d| serde_json::from_slice(&d.body).ok());
                jwks = document.map(|d| (Instant::now(), d)).or(jwks);
            }
            let Some((_, set)) = &jwks else { continue };
            // With a new document all are judged again, else only the newest.
            let from = if stale {
                0
            } else {
                held.len().saturating_sub(1)
            };
            for token in &held[from..] {
                match self.verify(set, token) {
                    Ok(()) => tally.verified += 1,
                    Err(why) => tally.unverified.push(format!("{}: {why}", now())),
                }
            }
            held.retain(|token| expiry(token) > now().as_second());
            std::thread::sleep(Duration::from_millis(25));
        }
        tally
    }

    fn verify(&self, set: &JwkSet, token: &str) -> Result<(), String> {
        let kid = crate::ring::kid(token);
        let key = set.find(&kid).ok_or(format!("{kid} is not published"))?;
        let algorithm = key.common.key_algorithm.ok_or("no alg")?.to_string();
        let algorithm = Algorithm::from_str(&algorithm).map_err(|e| e.to_string())?;
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&["https://a.example"]);
        validation.set_issuer(&[&self.issuer]);
        // As the release allows.
        validation.leeway = 1;
        let key = DecodingKey::from_jwk(key).map_err(|e| e.to_string())?;
        let decoded = jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation);
        decoded.map(drop).map_err(|e| format!("{kid}: {e}"))
    }
}

/// A part of a token: 0 is the header, 1 the claims.
pub fn part(token: &str, number: usize) -> serde_json::Value {
    use base64::Engine as _;
    let part = token.split('.').nth(number).expect("three parts");
    let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part);
    serde_json::from_slice(&part.expect("base64url")).expect("JSON")
}

/// The `exp` of a token, in seconds since the epoch.
pub fn expiry(token: &str) -> i64 {
    part(token, 1)["exp"].as_i64().expect("exp")
}

impl Load {
    /// Ends it, and tells.
    pub fn end(self, what: &str) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let tally = self.thread.join().expect("the load does not panic");
        println!(
            "{what}: {} tokens by {} keys, {} requests failed; {} verifications, {} failed; longest gap {:.2} s",
            tally.issued,
            tally.by_kid.len(),
            tally.refused.len(),
            tally.verified,
            tally.unverified.len(),
            tally.longest_gap
        );
        tally
    }

    /// Ends it: nobody noticed anything.
    pub fn unnoticed(self, what: &str) -> Tally {
        let tally = self.end(what);
        assert!(tally.issued > 0, "{what}: it did something");
        assert!(tally.refused.is_empty(), "{what}: {:#?}", tally.refused);
        assert!(
            tally.unverified.is_empty(),
            "{what}: {:#?}",
            tally.unverified
        );
        tally
    }
}
