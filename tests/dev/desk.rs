//! A directory in which a test works with `chancery dev` as a person does.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::SOON;
use super::support::{Output, Proc, Scratch, chancery_bin, eventually, free_port, process};

/// A directory to work in, with manifests in `m` and state in `.chancery`.
pub struct Desk {
    scratch: Scratch,
    pub port: u16,
    admin: u16,
    runs: std::cell::Cell<u32>,
}

impl Desk {
    pub fn new(purpose: &str) -> Self {
        let desk = Self::empty(purpose);
        let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart");
        for entry in std::fs::read_dir(quickstart).expect("the quickstart") {
            let path = entry.expect("an entry").path();
            let to = desk.manifest(&path.file_name().expect("a name").to_string_lossy());
            std::fs::copy(&path, to).expect("copied");
        }
        desk
    }

    pub fn empty(purpose: &str) -> Self {
        let scratch = Scratch::new(purpose);
        std::fs::create_dir(scratch.path().join("m")).expect("made");
        let port = free_port();
        let admin = loop {
            let other = free_port();
            if other != port {
                break other;
            }
        };
        Self {
            scratch,
            port,
            admin,
            runs: 0.into(),
        }
    }

    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    pub fn manifest(&self, name: &str) -> PathBuf {
        self.path().join("m").join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.manifest(name)).expect("a manifest")
    }

    /// Writes as editors do that rename into place.
    pub fn save(&self, name: &str, text: &str) {
        let beside = self.path().join("beside");
        std::fs::write(&beside, text).expect("written");
        std::fs::rename(&beside, self.manifest(name)).expect("renamed");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(chancery_bin());
        command
            .args(args)
            .current_dir(self.path())
            .env_remove("CHANCERY_LOG")
            .env_remove("KUBECONFIG");
        command
    }

    pub fn start(&self) -> Proc {
        self.start_with(&[])
    }

    /// The same with further flags.
    pub fn start_with(&self, flags: &[&str]) -> Proc {
        let listen = format!("127.0.0.1:{}", self.port);
        let admin = format!("127.0.0.1:{}", self.admin);
        let usual = ["dev", "m", "--listen", &listen, "--admin-listen", &admin];
        let command = self.command(&[&usual[..], flags].concat());
        // Each run has outputs of its own.
        self.runs.set(self.runs.get() + 1);
        Proc::start(&format!("dev-{}", self.runs.get()), command, self.path())
    }

    /// Runs to the end, for what does not start.
    pub fn fails(&self, args: &[&str]) -> String {
        let Output { status, stderr, .. } = process::complete(self.command(args), b"", SOON);
        assert_eq!(status.code(), Some(1), "{stderr}");
        stderr
    }

    /// The secret that the file for curl holds.
    pub fn credential(&self, client_id: &str) -> Option<(String, String)> {
        let path = self.path().join(format!(".chancery/curl/{client_id}.conf"));
        let text = std::fs::read_to_string(path).ok()?;
        let user = text.lines().find_map(|l| l.strip_prefix("user = \""))?;
        let (id, secret) = user.strip_suffix('"')?.split_once(':')?;
        Some((id.to_owned(), secret.to_owned()))
    }

    pub fn token(&self, client_id: &str) -> Result<String, String> {
        let (id, secret) = self.credential(client_id).ok_or("no file for curl")?;
        let basic = STANDARD.encode(format!("{id}:{secret}"));
        let body = "grant_type=client_credentials";
        let (status, body) = http(
            self.port,
            &format!(
                "POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Basic {basic}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        )?;
        match body["access_token"].as_str() {
            Some(token) if status == 200 => Ok(token.to_owned()),
            _ => Err(body["error"].as_str().unwrap_or("no error").to_owned()),
        }
    }

    /// Waits for a token, and verifies it as a service would.
    #[track_caller]
    pub fn verified_token(&self, client_id: &str) -> (Value, String) {
        let token = eventually("a token", SOON, || self.token(client_id));
        let (_, jwks) = http(
            self.port,
            "GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
        .expect("the JWKS");
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(jwks).expect("a JWKS");
        let header = jsonwebtoken::decode_header(&token).expect("a header");
        let kid = header.kid.expect("a kid");
        let key =
            jsonwebtoken::DecodingKey::from_jwk(set.find(&kid).expect("the key")).expect("a key");
        let mut rules = jsonwebtoken::Validation::new(header.alg);
        rules.set_audience(&["https://orders.acme.example"]);
        rules.set_issuer(&[format!("http://127.0.0.1:{}", self.port)]);
        let claims = jsonwebtoken::decode::<Value>(&token, &key, &rules).expect("it verifies");
        (claims.claims, kid)
    }

    pub fn all_private(&self) {
        fn walk(path: &Path) {
            let mode = std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
            if path.is_dir() {
                assert_eq!(mode, 0o700, "{}", path.display());
                for entry in std::fs::read_dir(path).expect("readable") {
                    walk(&entry.expect("an entry").path());
                }
            } else {
                assert_eq!(mode, 0o600, "{}", path.display());
            }
        }
        walk(&self.path().join(".chancery"));
    }

    /// The names of the Secrets of a namespace.
    pub fn secrets(&self, namespace: &str) -> Vec<String> {
        let dir = self.path().join(".chancery/secrets").join(namespace);
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .map(|entries| {
                let names = entries.flatten().map(|e| e.file_name());
                names.map(|n| n.to_string_lossy().into_owned()).collect()
            })
            .unwrap_or_default();
        names.sort();
        names
    }
}

pub fn http(port: u16, request: &str) -> Result<(u16, Value), String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
    stream
        .set_read_timeout(Some(SOON))
        .map_err(|e| e.to_string())?;
    stream
        .write_all(request.as_bytes())
        .map_err(|e| e.to_string())?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(|e| e.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .ok_or("no status")?;
    Ok((status, serde_json::from_str(body).unwrap_or_default()))
}
