//! Programs built from the Go modules that stand beside the tests, once for all test binaries.

use super::{process, scratch::Scratch};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Names a folder for what is built, instead of `control-plane` in cargo's target folder, so that
/// several clones on one machine can share it.
pub const CACHE: &str = "CHANCERY_CONTROL_PLANE_CACHE";

/// A cold build of Kubernetes takes 5 minutes on two idle cores. This is for a busy machine.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// A Go module, and what to build of it.
pub struct GoModule {
    /// Its folder under `tests/`.
    pub folder: &'static str,
    /// What `go build` is told to build: `tool` for the tools that go.mod lists, or `.`.
    pub target: &'static str,
    pub ldflags: String,
    /// Programs whose name here differs from the one that Go gives: (Go's, ours).
    pub renames: &'static [(&'static str, &'static str)],
}

impl GoModule {
    /// The folder with the programs, built now unless they are there already.
    ///
    /// Its name is a hash of all that the result depends on. It appears by a rename, so that it is
    /// whole or not there at all, whenever somebody pulls the plug; and a lock makes everybody else
    /// wait who wants the same, rather than build it too.
    pub fn built(&self) -> PathBuf {
        let cache = cache();
        let finished = cache.join(format!("{}-{}", self.folder, self.fingerprint()));
        if finished.exists() {
            return finished;
        }
        std::fs::create_dir_all(&cache)
            .unwrap_or_else(|error| panic!("can not make {}: {error}", cache.display()));
        let lock = cache.join(format!("{}.lock", self.folder));
        let lock = File::create(&lock)
            .unwrap_or_else(|error| panic!("can not write {}: {error}", lock.display()));
        lock.lock().expect("a file of one's own can be locked");
        if !finished.exists() {
            self.build_into(&cache, &finished);
        }
        finished
    }

    fn build_into(&self, cache: &Path, finished: &Path) {
        say(&format!(
            "building the test programs of tests/{} (the first time takes minutes) ...",
            self.folder
        ));
        let start = Instant::now();
        let half_made = Scratch::inside(cache, self.folder);
        let mut go = go(&self.source());
        go.args(["build", "-trimpath", "-buildvcs=false", "-ldflags"])
            .arg(&self.ldflags)
            .arg("-o")
            // With the slash it is a folder, also for a single program.
            .arg(half_made.path().join(""))
            .arg(self.target);
        process::complete(go, b"", LIMIT).expect_success(&format!(
            "building the Go programs of tests/{}",
            self.folder
        ));
        for (theirs, ours) in self.renames {
            let program = |name: &str| half_made.path().join(name);
            std::fs::rename(program(theirs), program(ours))
                .unwrap_or_else(|error| panic!("go build made no {theirs}: {error}"));
        }
        std::fs::rename(half_made.path(), finished)
            .unwrap_or_else(|error| panic!("can not make {}: {error}", finished.display()));
        say(&format!(
            "built tests/{} in {:.0?}: {}",
            self.folder,
            start.elapsed(),
            finished.display()
        ));
    }

    pub fn source(&self) -> PathBuf {
        tests().join(self.folder)
    }

    /// A hash of the module's files, of what is built of it and how, and of the compiler.
    fn fingerprint(&self) -> String {
        let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut part = |bytes: &[u8]| {
            hash.update(&bytes.len().to_le_bytes());
            hash.update(bytes);
        };
        let mut go = go(&self.source());
        go.args(["env", "GOVERSION", "GOOS", "GOARCH"]);
        part(
            process::complete(go, b"", Duration::from_secs(60))
                .expect_success("asking go for its version")
                .as_bytes(),
        );
        part(self.target.as_bytes());
        part(self.ldflags.as_bytes());
        part(format!("{:?}", self.renames).as_bytes());
        let folder = std::fs::read_dir(self.source())
            .unwrap_or_else(|error| panic!("can not list tests/{}: {error}", self.folder));
        let mut files: Vec<PathBuf> = folder
            .map(|entry| entry.expect("a folder can be listed").path())
            .collect();
        files.sort();
        for file in files {
            part(file.file_name().unwrap_or_default().as_encoded_bytes());
            part(&std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())));
        }
        let digest = hash.finish();
        digest.as_ref()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// The folder `tests` of this package.
pub fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn cache() -> PathBuf {
    match std::env::var_os(CACHE) {
        Some(folder) => PathBuf::from(folder),
        // Cargo's folder for tests' files is `tmp` in the target folder, wherever that is.
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("control-plane"),
    }
}

/// The go command in a module's folder, without what the person's own settings could change.
fn go(module: &Path) -> Command {
    if let Err(error) = Command::new("go").arg("version").output() {
        panic!(
            "the tests build a real Kubernetes control plane, and Go is not there to do it \
             ({error}). Install Go 1.26 or newer and put `go` on the PATH."
        );
    }
    let mut go = Command::new("go");
    go.current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env_remove("GOOS")
        .env_remove("GOARCH");
    go
}

/// Tells the person who waits. Not with `eprintln!`, which the test harness captures.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "chancery tests: {line}");
}
