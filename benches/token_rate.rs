//! How much of the price of a token is its signature: tokens per server-CPU-second of the whole
//! HTTP path, over the bare signing rate of aws-lc-rs in the same run. The quotient survives
//! noisy neighbours; neither of its halves does.
//!
//! The server is a child process on core 0 with one worker thread; 16 keep-alive connections
//! of one spinning thread on core 1 ask for tokens of one client with Basic authentication. Rounds of load and of
//! bare signing on core 0 take turns. `cargo bench --bench token_rate`.
// A benchmark is about the machine's own time.
#![allow(clippy::disallowed_methods)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chancery::clock;
use chancery::crypto::hash::{self, GENERATED_COST};
use chancery::crypto::key_pair::KeyPair;
use chancery::crypto::secret;
use chancery::domain::algorithm::{Algorithm, RsaKeySize};
use chancery::domain::client::{Client, Family, StoredCredential};
use chancery::domain::jwk::JwkSet;
use chancery::domain::rate::Rate;
use chancery::domain::settings::{Settings, ThrottleSettings};
use chancery::domain::subscription::{Allowed, SubscriptionFacts};
use chancery::serve::admin::Admin;
use chancery::serve::app::{App, Parts};
use chancery::serve::body::BODY_TIMEOUT;
use chancery::serve::metrics::Metrics;
use chancery::serve::readiness::Readiness;
use chancery::serve::run::{DEADLINE, Public, Serving};
use chancery::serve::secrets::HashLimits;
use chancery::serve::snapshot::{PublishedJwks, Ring, Snapshot, SnapshotStore};
use jiff::Timestamp;
use prometheus_client::registry::Registry;

const CLIENT_ID: &str = "acme.robot";
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const LOAD: Duration = Duration::from_millis(1200);
const BARE: Duration = Duration::from_millis(300);
/// About as long as the signed part of the tokens here.
const MESSAGE: [u8; 600] = [b'a'; 600];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, algorithm] = arguments.as_slice()
        && role == "server"
    {
        return serve(algorithm.parse().expect("an algorithm"));
    }
    println!("tokens per server-CPU-second over bare aws-lc-rs signatures per CPU-second,");
    println!(
        "median [min..max] of {ROUNDS} rounds; {CONNECTIONS} keep-alive connections, 1 client"
    );
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        measure(algorithm);
    }
}

fn measure(algorithm: Algorithm) {
    let pem = KeyPair::generate_pem(algorithm, RsaKeySize::Bits2048).expect("a key");
    let pair = KeyPair::from_pem(algorithm, &pem).expect("a key pair");
    let secret = secret::generate(Family::Integration);
    let server = Server::start(algorithm, &pem, &secret);
    let request = request(&secret);
    verify_sample(server.address, &request, &pair);
    server.load(&request, LOAD); // Warm-up.
    let (mut rates, mut bares, mut quotients) = (Vec::new(), Vec::new(), Vec::new());
    let mut wall = Vec::new();
    for _ in 0..ROUNDS {
        let before = bare_rate(algorithm, &pem);
        let (tokens, cpu) = server.load(&request, LOAD);
        let bare = f64::midpoint(before, bare_rate(algorithm, &pem));
        #[allow(clippy::cast_precision_loss)]
        let tokens = tokens as f64;
        rates.push(tokens / cpu);
        wall.push(tokens / LOAD.as_secs_f64());
        bares.push(bare);
        quotients.push(tokens / cpu / bare);
    }
    verify_sample(server.address, &request, &pair);
    println!(
        "{algorithm:6} tokens/CPU-s {}  bare {}  quotient {}  (wall {}/s)",
        spread(&mut rates, 0),
        spread(&mut bares, 0),
        spread(&mut quotients, 2),
        spread(&mut wall, 0),
    );
}

fn spread(values: &mut [f64], digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (min, max) = (values[0], values[values.len() - 1]);
    format!(
        "{:.digits$} [{min:.digits$}..{max:.digits$}]",
        values[values.len() / 2]
    )
}

/// Signatures per CPU-second of one thread on core 0, with nothing around them.
fn bare_rate(algorithm: Algorithm, pem: &str) -> f64 {
    let body: String = pem.lines().filter(|l| !l.starts_with('-')).collect();
    let der = STANDARD.decode(body).expect("base64");
    let sign: Box<dyn Fn() + Send> = match algorithm {
        Algorithm::RS256 => {
            let pair = RsaKeyPair::from_pkcs8(&der).expect("a key");
            Box::new(move || {
                let mut signature = [0; 256];
                let random = SystemRandom::new();
                pair.sign(&RSA_PKCS1_SHA256, &random, &MESSAGE, &mut signature)
                    .expect("signed");
            })
        }
        Algorithm::ES256 => {
            let pair =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).expect("a key");
            Box::new(move || {
                pair.sign(&SystemRandom::new(), &MESSAGE).expect("signed");
            })
        }
        _ => {
            let pair = Ed25519KeyPair::from_pkcs8(&der).expect("a key");
            Box::new(move || {
                let _ = pair.sign(&MESSAGE);
            })
        }
    };
    let signing = thread::spawn(move || {
        pin(0);
        let (began, cpu) = (Instant::now(), thread_cpu());
        let mut signatures = 0_u32;
        while began.elapsed() < BARE {
            for _ in 0..16 {
                sign();
            }
            signatures += 16;
        }
        f64::from(signatures) / (thread_cpu() - cpu)
    });
    signing.join().expect("signed")
}

/// The server's process.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(algorithm: Algorithm, pem: &str, secret: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["server", algorithm.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let stdin = child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{secret}\n{pem}").expect("written");
        drop(child.stdin.take());
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("an address");
        Self {
            child,
            address: line.trim().parse().expect("an address"),
        }
    }

    /// Tokens had in that time, and the server's CPU-seconds for them.
    fn load(&self, request: &str, time: Duration) -> (u64, f64) {
        let stop = Arc::new(AtomicBool::new(false));
        let tokens = Arc::new(AtomicU64::new(0));
        let client = {
            let (stop, tokens) = (Arc::clone(&stop), Arc::clone(&tokens));
            let (request, address) = (request.to_owned(), self.address);
            thread::spawn(move || generate(address, &request, &stop, &tokens))
        };
        thread::sleep(Duration::from_millis(100));
        let (cpu, counted) = (process_cpu(self.child.id()), tokens.load(Ordering::Relaxed));
        thread::sleep(time);
        let counted = tokens.load(Ordering::Relaxed) - counted;
        let cpu = process_cpu(self.child.id()) - cpu;
        stop.store(true, Ordering::Relaxed);
        client.join().expect("every answer was a token");
        (counted, cpu)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_nodelay(true).expect("set");
    stream
}

fn request(secret: &str) -> String {
    let body = "grant_type=client_credentials&scope=read";
    format!(
        "POST /oauth/token HTTP/1.1\r\nHost: id.example.com\r\nAuthorization: Basic {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nAccept: */*\r\n\
         Content-Length: {}\r\n\r\n{body}",
        STANDARD.encode(format!("{CLIENT_ID}:{secret}")),
        body.len()
    )
}

/// Keeps one request under way on each connection. It looks at its connections in turn instead
/// of sleeping, so that the server does not pay for waking it: clients on other machines cost it
/// nothing of the kind either.
fn generate(address: SocketAddr, request: &str, stop: &AtomicBool, tokens: &AtomicU64) {
    pin(1);
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| connect(address)).collect();
    for stream in &mut connections {
        stream.write_all(request.as_bytes()).expect("sent");
        stream.set_nonblocking(true).expect("set");
    }
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        for stream in &mut connections {
            // An answer is one write of the server, so it comes in one piece over loopback.
            match stream.read(&mut buffer) {
                Ok(length) => {
                    assert!(
                        length > 0 && buffer[length - 1] == b'}',
                        "an answer in one piece"
                    );
                    assert!(buffer.starts_with(b"HTTP/1.1 200"), "no token");
                    tokens.fetch_add(1, Ordering::Relaxed);
                    stream.write_all(request.as_bytes()).expect("sent");
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => panic!("{e}"),
            }
        }
        // Neighbours on this core get their turn.
        thread::yield_now();
    }
}

/// One request and its answer, which must be a 200.
fn ask<'b>(stream: &mut TcpStream, request: &str, buffer: &'b mut [u8; 4096]) -> &'b [u8] {
    stream.write_all(request.as_bytes()).expect("sent");
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).expect("readable");
        assert!(read > 0, "the server hung up");
        filled += read;
        // The answer is JSON in one object.
        if buffer[filled - 1] == b'}' {
            assert!(buffer.starts_with(b"HTTP/1.1 200"), "no token");
            return &buffer[..filled];
        }
    }
}

fn verify_sample(address: SocketAddr, request: &str, pair: &KeyPair) {
    let mut stream = connect(address);
    let jwk = serde_json::to_value(pair.public_jwk()).expect("JSON");
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(jwk).expect("a JWK");
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).expect("a key");
    let name = pair.algorithm().name().parse().expect("known");
    let mut validation = jsonwebtoken::Validation::new(name);
    validation.set_audience(&["https://api.example.com"]);
    for _ in 0..20 {
        let mut buffer = [0; 4096];
        let answer = ask(&mut stream, request, &mut buffer);
        let at = answer.iter().position(|b| *b == b'{').expect("JSON");
        let json: serde_json::Value = serde_json::from_slice(&answer[at..]).expect("JSON");
        let token = json["access_token"].as_str().expect("a token");
        jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation).expect("verifies");
    }
}

/// The child: one client, one key, the real server.
fn serve(algorithm: Algorithm) {
    pin(0);
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).expect("read");
    let (secret, pem) = input.split_once('\n').expect("a secret and a key");
    let pair = Arc::new(KeyPair::from_pem(algorithm, pem).expect("a key pair"));
    let clock = clock::system();
    let store = SnapshotStore::new(Arc::clone(&clock));
    store.publish(snapshot(&pair, secret));
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::register(&mut registry));
    let readiness = Readiness::waiting_for([]);
    let app = App::new(Parts {
        settings: Arc::new(Settings {
            issuer: "https://id.example.com".into(),
            throttle: ThrottleSettings {
                token_rate: Rate::per_second(999_999),
                max_token_rate: Rate::per_second(999_999),
                ..ThrottleSettings::default()
            },
            ..Settings::default()
        }),
        snapshots: store,
        clock,
        readiness: readiness.clone(),
        metrics,
        hash_limits: HashLimits::default(),
        replay_limits: chancery::serve::replay::ReplayLimits::default(),
        body_timeout: BODY_TIMEOUT,
        outbox: Arc::new(chancery::outbox::channel().0),
        keys_wanted: Arc::new(()),
        enrolments: Arc::new(chancery::outbox::channel().0),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let bind = || tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = bind().await.expect("a port");
        println!("{}", listener.local_addr().expect("bound"));
        let admin = Admin::new(readiness.clone(), Arc::new(registry));
        let serving = Serving {
            public: Some(Public {
                behind_proxy: false,
                listener,
                tls: None,
                app,
            }),
            admin: (bind().await.expect("a port"), Arc::new(admin)),
            readiness,
            drain_delay: Duration::ZERO,
            deadline: DEADLINE,
        };
        // On the worker thread, as in the program.
        tokio::spawn(serving.run(std::future::pending()))
            .await
            .expect("runs")
            .expect("serves");
    });
}

fn snapshot(pair: &Arc<KeyPair>, secret: &str) -> Snapshot {
    let keys = JwkSet {
        keys: vec![pair.public_jwk().clone()],
    };
    let any = || vec!["*".to_owned()];
    let subscription = SubscriptionFacts {
        namespace: "acme".into(),
        name: "main".into(),
        created: Timestamp::UNIX_EPOCH,
        uid: "uid".into(),
        environment: "default".into(),
        legal_entity_id: "le-acme".into(),
        legal_entity_name: "Acme".into(),
        tier: "Enterprise".into(),
        allowed: Allowed {
            scopes: any(),
            roles: any(),
            audiences: any(),
            client_ids: Vec::new(),
        },
        entitlements: std::collections::BTreeMap::default(),
        period_from: None,
        period_to: None,
    };
    let client = Client {
        id: CLIENT_ID.into(),
        family: Family::Integration,
        namespace: "acme".into(),
        name: "robot".into(),
        suspended: false,
        created_at: None,
        last_revocation: None,
        introspect: false,
        on_behalf_of: false,
        roles: vec!["READER".into(), "WRITER".into()],
        scopes: vec!["read".into(), "write".into()],
        audiences: vec!["https://api.example.com".into()],
        token_ttl: None,
        token_rate: None,
        signing_key: None,
        credentials: vec![StoredCredential {
            id: "c1".into(),
            hash: hash::hash(secret, GENERATED_COST).expect("hashed"),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
        }],
        companion: None,
        subscriptions: Arc::new(vec![subscription]),
    };
    Snapshot {
        jwks: Some(PublishedJwks {
            document: keys.to_document().into(),
            etag: "\"bench\"".into(),
            keys,
        }),
        client_rings: vec![Arc::new(Ring {
            name: "main".into(),
            active: Arc::clone(pair),
            standing: chancery::domain::preference::Standing::default(),
        })],
        clients: HashMap::from([(CLIENT_ID.to_owned(), Arc::new(client))]),
        ..Snapshot::default()
    }
}

/// Keeps the calling thread, and what it starts, on one core, if there is such a core.
fn pin(core: usize) {
    // SAFETY: the set is a plain bit mask on the stack, and the kernel only reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// CPU-seconds of the calling thread.
fn thread_cpu() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec into the one that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    #[allow(clippy::cast_precision_loss)]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    seconds
}

/// CPU-seconds of a process, user and system (proc(5), fields 14 and 15, in ticks of 10 ms).
fn process_cpu(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it lives");
    let after_name = stat.rsplit_once(')').expect("a name").1;
    let ticks: u32 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|t| t.parse::<u32>().expect("a number"))
        .sum();
    f64::from(ticks) / 100.0
}
