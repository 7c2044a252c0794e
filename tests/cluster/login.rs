//! A small provider that people sign in at, on loopback: what it publishes and whether it is up is the test's
//! to say.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::{Algorithm, RsaKeySize};
use serde_json::{Value, json};

/// The provider.
pub struct Login {
    pub base: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    published: Mutex<Vec<Arc<KeyPair>>>,
    down: AtomicBool,
    asked: AtomicU64,
}

/// A key that it may sign with.
pub fn key() -> Arc<KeyPair> {
    let pem = KeyPair::generate_pem(Algorithm::ES256, RsaKeySize::Bits2048).expect("a key");
    Arc::new(KeyPair::from_pem(Algorithm::ES256, &pem).expect("a pair"))
}

/// A token that such a key signed.
pub fn signed(key: &KeyPair, claims: &Value) -> String {
    with_kid(key, key.key_id(), claims)
}

/// The same, which names another key.
pub fn with_kid(key: &KeyPair, kid: &str, claims: &Value) -> String {
    let alg = key.algorithm().name();
    let header = json!({"alg": alg, "typ": "at+jwt", "kid": kid}).to_string();
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(header), part(claims.to_string()));
    let signature = key.sign(signed.as_bytes()).expect("signed");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

impl Login {
    /// One that publishes these keys.
    pub fn start(keys: &[&Arc<KeyPair>]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::<State>::default();
        let (serving, own) = (Arc::clone(&state), base.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serving.asked.fetch_add(1, Ordering::SeqCst);
                if !serving.down.load(Ordering::SeqCst) {
                    // One that hangs up is no matter.
                    let _ = answer(stream, &serving, &own);
                }
            }
        });
        let login = Self { base, state };
        login.publish(keys);
        login
    }

    /// Publishes these keys from now on, and no other.
    pub fn publish(&self, keys: &[&Arc<KeyPair>]) {
        let keys = keys.iter().map(|key| Arc::clone(key)).collect();
        *self.state.published.lock().expect("no panic") = keys;
    }

    /// Whether it hangs up on whoever asks.
    pub fn down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// How often it was asked for anything.
    pub fn asked(&self) -> u64 {
        self.state.asked.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, state: &State, base: &str) -> std::io::Result<()> {
    let mut asked = [0; 4096];
    let read = stream.read(&mut asked)?;
    let body = if asked[..read].starts_with(b"GET /jwks ") {
        let keys = state.published.lock().expect("no panic");
        let keys: Vec<_> = keys.iter().map(|key| key.public_jwk()).collect();
        json!({ "keys": keys })
    } else {
        json!({"issuer": base, "jwks_uri": format!("{base}/jwks")})
    };
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
