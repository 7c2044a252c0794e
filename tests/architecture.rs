//! The layers, held by reading the sources: dependencies point inward, and what is pure stays so.

use regex::Regex;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A regular expression that is compiled once: there are some hundred files to read.
macro_rules! pattern {
    ($pattern:literal) => {{
        static PATTERN: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($pattern).expect("a pattern"));
        &*PATTERN
    }};
}

/// What a module at the top of `src` may use.
struct Layer {
    name: &'static str,
    /// The other modules of this crate, or `*` for any.
    of_ours: &'static [&'static str],
    /// Paths outside this crate that it never names.
    never: &'static [&'static str],
    why: &'static str,
}

const KUBERNETES: &[&str] = &["kube", "k8s_openapi"];
const NO_HTTP: &[&str] = &["axum", "hyper"];
/// Everything that is IO, time, chance or Kubernetes.
const PURE: &[&str] = &[
    "kube",
    "k8s_openapi",
    "axum",
    "hyper",
    "tower",
    "tokio",
    "aws_lc_rs",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::SystemTime",
    "std::time::Instant",
];

#[rustfmt::skip]
const LAYERS: &[Layer] = &[
    Layer { name: "domain", of_ours: &[], never: PURE,
        why: "decisions are pure, so that a search can try them all" },
    Layer { name: "clock", of_ours: &["domain"], never: KUBERNETES,
        why: "it is where time comes from, and no more" },
    Layer { name: "crypto", of_ours: &["domain"], never: KUBERNETES,
        why: "keys and hashes know nothing of where they are kept" },
    Layer { name: "api", of_ours: &["domain"], never: &["axum", "hyper", "tokio"],
        why: "the resources are data" },
    Layer { name: "objects", of_ours: &["api", "crypto", "domain"], never: NO_HTTP,
        why: "what the operator writes and the feed reads, in one place" },
    Layer { name: "stores", of_ours: &["api", "crypto", "domain", "objects"], never: NO_HTTP,
        why: "watches, for controllers and feed alike" },
    Layer { name: "outside", of_ours: &["crypto", "domain"], never: KUBERNETES,
        why: "what a tenant's resource has it ask knows nothing of where that is kept" },
    Layer { name: "tenancy", of_ours: &["api", "domain", "stores"], never: NO_HTTP,
        why: "which namespace is whose, for controllers and feed alike" },
    Layer { name: "serve", of_ours: &["clock", "crypto", "domain"], never: KUBERNETES,
        why: "a request makes no call to the API server" },
    Layer { name: "feed", never: NO_HTTP,
        of_ours: &["api", "clock", "crypto", "domain", "objects", "serve", "stores", "tenancy"],
        why: "it fills the server's snapshot from watches" },
    Layer { name: "ring_metrics", of_ours: &["api", "clock", "stores"], never: NO_HTTP,
        why: "what is measured of rings, for operator and server alike" },
    Layer { name: "user_metrics", of_ours: &["api", "domain", "stores", "tenancy"], never: NO_HTTP,
        why: "what is measured of technical users" },
    Layer { name: "provider_metrics", of_ours: &["api", "clock", "stores"], never: NO_HTTP,
        why: "what is measured of outside providers, for operator and server alike" },
    Layer { name: "leader", of_ours: &["clock", "crypto", "domain"], never: NO_HTTP,
        why: "an election knows nothing of what the leader does" },
    Layer { name: "outbox", never: NO_HTTP,
        of_ours: &["clock", "crypto", "domain", "objects", "serve", "stores"],
        why: "it writes what requests make durable, into the one object that is for that" },
    Layer { name: "wanted_keys", never: NO_HTTP,
        of_ours: &["clock", "crypto", "domain", "objects", "serve"],
        why: "it tells the operator, in the one object that is for that, which keys servers miss" },
    Layer { name: "contact", of_ours: &["clock", "domain", "serve", "stores"], never: NO_HTTP,
        why: "it says how far what the server serves can be believed" },
    Layer { name: "controllers", never: NO_HTTP,
        of_ours: &["api", "clock", "crypto", "domain", "leader", "objects", "outside", "stores", "tenancy"],
        why: "controllers and server meet in Kubernetes objects only" },
    Layer { name: "embedded", of_ours: &["clock", "crypto"], never: &["axum"],
        why: "an API server knows nothing of who uses it" },
    Layer { name: "cli", of_ours: &["*"], never: &[],
        why: "it puts the others together" },
    Layer { name: "main", of_ours: &["*"], never: &[],
        why: "it calls cli" },
    Layer { name: "lib", of_ours: &["*"], never: &[],
        why: "it lists the others" },
];

/// Where the clock may be read.
const CLOCK: &str = "src/clock.rs";
const CLOCKS: &[&str] = &[
    "Timestamp::now",
    "Zoned::now",
    "SystemTime::now",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// The longest file, without its tests, that a reader takes in at once.
const LONGEST: usize = 450;
/// Longer ones: to be split, and never to grow. (file, lines, why)
const LONGER: &[(&str, usize, &str)] = &[];

/// Tests that are not run by default. (file, the attribute's text, why)
const IGNORED: &[(&str, &str, &str)] = &[(
    "tests/harness.rs",
    "run by nothing_is_left_of_a_test_that_is_killed",
    "it is one process of another test",
)];

/// A source file: its path below the repository, and its text without comments and literals.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code: code_of(text),
        }
    }

    /// `src/serve/token.rs` is `["serve", "token"]`.
    fn module(&self) -> Vec<&str> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        path.trim_end_matches("/mod").split('/').collect()
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
    }

    /// The code before the module with the tests.
    fn without_tests(&self) -> &str {
        let tests = pattern!(r"#\[cfg\(test\)\]\s*mod \w+ \{");
        let end = tests
            .find(&self.code)
            .map_or(self.code.len(), |m| m.start());
        &self.code[..end]
    }

    /// Every path that it names, with the groups of `use` taken apart and `super` resolved.
    fn names(&self) -> Vec<String> {
        let statement = pattern!(r"\buse\s+([^;]+);");
        let mut names = Vec::new();
        for found in statement.captures_iter(&self.code) {
            let tree: String = found[1].split_whitespace().collect::<Vec<_>>().join(" ");
            expand("", &tree, &mut names);
        }
        let rest = statement.replace_all(&self.code, "");
        let path = pattern!(r"\b[a-z_][a-z0-9_]*(::[A-Za-z_][A-Za-z0-9_]*)+");
        names.extend(path.find_iter(&rest).map(|m| m.as_str().to_owned()));
        names.into_iter().map(|name| self.resolve(&name)).collect()
    }

    /// `super::x` as `crate::…::x`. In a module within the file it is one step too far, which no
    /// rule minds unless that leaves the layer.
    fn resolve(&self, name: &str) -> String {
        let mut module = self.module();
        let mut rest = name;
        if !rest.starts_with("super::") {
            return name.to_owned();
        }
        while let Some(outer) = rest.strip_prefix("super::") {
            module.pop();
            rest = outer;
        }
        let mut whole = vec!["crate"];
        whole.extend(module);
        whole.push(rest);
        whole.join("::")
    }
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn expand(before: &str, tree: &str, names: &mut Vec<String>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let name = tree.split(" as ").next().unwrap_or(tree).trim();
        names.push(format!("{before}{name}"));
        return;
    };
    let before = format!("{before}{}", &tree[..open]);
    let inner = tree[open + 1..].trim_end().trim_end_matches('}');
    // What belongs to an inner group lost its bracket above: count them instead of matching.
    let (mut depth, mut start) = (0_i32, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&before, &inner[start..at], names);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inner[start..].trim().is_empty() {
        expand(&before, &inner[start..], names);
    }
}

/// The code alone: comments and what stands between quotes would name what is not used.
fn code_of(text: &str) -> String {
    let noise = pattern!(
        r##"(?s)r#".*?"#|r"[^"]*"|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])'|//[^\n]*|/\*.*?\*/"##
    );
    noise.replace_all(text, "\"\"").into_owned()
}

fn complaints(source: &Source) -> String {
    let mut said = String::new();
    let path = &source.path;
    if path.starts_with("src/") {
        layers(source, &mut said);
        if path != CLOCK {
            let names = source.names();
            for clock in CLOCKS {
                let ends = format!("::{clock}");
                if names
                    .iter()
                    .any(|n| is_or_within(n, clock) || n.ends_with(&ends))
                    || source.without_tests().contains(&format!(" {clock}("))
                {
                    let _ = writeln!(said, "{path}: {clock}: only {CLOCK} reads the time");
                }
            }
        }
        if !source.is_test() && source.without_tests().contains(".unwrap()") {
            let _ = writeln!(
                said,
                "{path}: unwrap() says nothing when it fails: use expect"
            );
        }
        let before_tests = source.text.split("\n#[cfg(test)]\nmod ").next();
        let lines = before_tests.unwrap_or_default().lines().count();
        let most = LONGER.iter().find(|(file, ..)| file == path);
        let most = most.map_or(LONGEST, |(_, most, _)| *most);
        if lines > most && !source.is_test() {
            let _ = writeln!(
                said,
                "{path}: {lines} lines, and at most {most} are readable"
            );
        }
    }
    for word in ["todo!", "unimplemented!"] {
        if source.code.contains(word) {
            let _ = writeln!(said, "{path}: {word}");
        }
    }
    let ignore = pattern!(r"(?m)^\s*#\[ignore(.*)");
    for found in ignore.captures_iter(&source.text) {
        let excused = IGNORED
            .iter()
            .any(|(file, text, _)| file == path && found[1].contains(text));
        if !excused {
            let _ = writeln!(
                said,
                "{path}: a test is ignored without an entry in IGNORED"
            );
        }
    }
    said
}

fn layers(source: &Source, said: &mut String) {
    let path = &source.path;
    let own = source.module()[0].to_owned();
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == own) else {
        let _ = writeln!(said, "{path}: LAYERS says nothing of the module {own}");
        return;
    };
    let top: Vec<&str> = LAYERS.iter().map(|layer| layer.name).collect();
    for name in source.names() {
        // Tests within a layer may build what it needs; its code may not.
        if let Some(ours) = name.strip_prefix("crate::") {
            let other = ours.split("::").next().unwrap_or_default();
            let allowed = other == own
                || layer.of_ours.contains(&"*")
                || layer.of_ours.contains(&other)
                || !top.contains(&other);
            if !allowed {
                let _ = writeln!(said, "{path}: {name}: {}", layer.why);
            }
        }
        let outside = layer.never.iter().any(|never| is_or_within(&name, never));
        if outside && !source.is_test() {
            let _ = writeln!(said, "{path}: {name}: {}", layer.why);
        }
    }
    let function = pattern!(r"\basync\s+(fn|move|\{)");
    if own == "domain" && function.is_match(&source.code) {
        let _ = writeln!(said, "{path}: async: {}", layer.why);
    }
}

fn is_or_within(name: &str, path: &str) -> bool {
    name.strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the repository that is not made from others.
fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        if entry.file_type().expect("a type").is_dir() {
            let made = ["target", ".git", ".chancery"].iter().any(|n| name == *n);
            if !made {
                files(&entry.path(), all);
            }
        } else if name != ".git" {
            all.push(entry.path());
        }
    }
}

fn below_root(path: &Path) -> String {
    let below = path
        .strip_prefix(root())
        .expect("it lies in the repository");
    below.to_string_lossy().into_owned()
}

fn sources() -> Vec<Source> {
    let mut all = Vec::new();
    for folder in ["src", "tests"] {
        files(&root().join(folder), &mut all);
    }
    all.retain(|path| path.extension().is_some_and(|e| e == "rs"));
    all.sort();
    all.iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).expect("UTF-8");
            Source::new(&below_root(path), &text)
        })
        .collect()
}

#[test]
fn the_layers_hold() {
    let sources = sources();
    assert!(
        sources.len() > 50,
        "only {} sources were found",
        sources.len()
    );
    let said: String = sources
        .iter()
        // This file is full of bad samples.
        .filter(|source| source.path != "tests/architecture.rs")
        .map(complaints)
        .collect();
    assert!(said.is_empty(), "{said}");
}

#[test]
fn each_layer_and_each_exception_is_still_there() {
    let sources = sources();
    let find = |path: &str| sources.iter().find(|source| source.path == path);
    for layer in LAYERS {
        let there = sources
            .iter()
            .any(|s| s.path.starts_with("src/") && s.module()[0] == layer.name);
        assert!(there, "there is no module {}", layer.name);
        for other in layer.of_ours.iter().filter(|other| **other != "*") {
            assert!(LAYERS.iter().any(|l| l.name == *other), "{other}");
        }
    }
    for (path, ..) in LONGER {
        assert!(
            find(path).is_some(),
            "{path} is gone: take it out of LONGER"
        );
    }
    for (path, text, _) in IGNORED {
        let there = find(path).is_some_and(|source| source.text.contains(text));
        assert!(there, "{path}: {text} is gone: take it out of IGNORED");
    }
}

/// Each line would break a rule, and so the checker must say so of each.
#[test]
fn the_checker_can_fail() {
    for (path, bad) in [
        ("src/domain/a.rs", "use kube::Api;"),
        ("src/domain/a.rs", "use std::{collections::BTreeMap, fs};"),
        ("src/domain/a.rs", "use std::time::{Duration, SystemTime};"),
        ("src/domain/a.rs", "fn a() { std::env::var(\"A\"); }"),
        ("src/domain/a.rs", "pub async fn a() {}"),
        ("src/domain/a.rs", "use crate::crypto::hash;"),
        ("src/domain/a/b.rs", "use super::super::super::serve::app;"),
        (
            "src/crypto/a.rs",
            "use crate::{domain::jwk, api::v1alpha1};",
        ),
        ("src/serve/a.rs", "use crate::{crypto, feed};"),
        ("src/serve/a.rs", "use k8s_openapi::api::core::v1::Secret;"),
        (
            "src/controllers/a.rs",
            "use crate::serve::snapshot::Snapshot;",
        ),
        ("src/controllers.rs", "fn a() { crate::embedded::open(); }"),
        ("src/feed.rs", "use crate::controllers;"),
        ("src/embedded/a.rs", "use crate::domain::names;"),
        ("src/unheard_of.rs", "fn a() {}"),
        ("src/serve/a.rs", "fn a() { let now = Timestamp::now(); }"),
        ("src/serve/a.rs", "use std::time::{Duration, Instant};"),
        ("src/serve/a.rs", "fn a() { jiff::Timestamp::now(); }"),
        ("src/serve/a.rs", "fn a() { b.unwrap() }"),
        ("src/serve/a.rs", "fn a() { todo!() }"),
        ("tests/a.rs", "fn a() { unimplemented!() }"),
        ("tests/a.rs", "#[test]\n#[ignore]\nfn a() {}"),
    ] {
        let said = complaints(&Source::new(path, bad));
        assert!(said.starts_with(path), "{path}: {bad}: nothing was said");
    }
    let long = "fn a() {}\n".repeat(LONGEST + 1);
    assert!(complaints(&Source::new("src/serve/a.rs", &long)).contains("lines"));
    for (path, good) in [
        (
            "src/domain/a.rs",
            "// use kube::Api;\nconst A: &str = \"std::fs\";",
        ),
        (
            "src/domain/a.rs",
            "use super::names;\nuse std::time::Duration;",
        ),
        (
            "src/serve/a.rs",
            "use tokio::time::Instant;\nfn a() { Instant::now(); }",
        ),
        (
            "src/serve/a.rs",
            "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { c.unwrap() }\n}",
        ),
        ("src/clock.rs", "fn a() { jiff::Timestamp::now(); }"),
    ] {
        assert_eq!(complaints(&Source::new(path, good)), "", "{good}");
    }
}

/// What everybody can reach, and so what a fresh clone can be built from.
const PUBLIC: &[&str] = &[
    "github.com",
    "crates.io",
    "proxy.golang.org",
    "sum.golang.org",
    "localhost",
    "127.0.0.1",
];

/// The hosts that this machine gets its packages and connections from.
fn hosts_of_this_machine() -> Vec<String> {
    let mut settings = String::new();
    for (name, value) in std::env::vars() {
        let name = name.to_uppercase();
        if ["PROXY", "REGISTR", "INDEX_URL", "MIRROR"]
            .iter()
            .any(|w| name.contains(w))
        {
            let _ = writeln!(settings, "{value}");
        }
    }
    let home = std::env::var("HOME").unwrap_or_default();
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    for file in [
        format!("{cargo}/config.toml"),
        format!("{cargo}/config"),
        format!("{home}/.config/go/env"),
        format!("{home}/.config/pip/pip.conf"),
        format!("{home}/.npmrc"),
    ] {
        settings += &std::fs::read_to_string(file).unwrap_or_default();
    }
    hosts(&settings)
}

fn hosts(settings: &str) -> Vec<String> {
    let host = pattern!(r"https?://(?:[^/@\s]*@)?([A-Za-z0-9.-]+)");
    let mut hosts: Vec<String> = host
        .captures_iter(settings)
        .map(|found| found[1].to_lowercase())
        .filter(|host| {
            let public = |p: &str| host == p || host.ends_with(&format!(".{p}"));
            !PUBLIC.iter().any(|p| public(p))
        })
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

#[test]
fn no_file_names_the_registry_of_one_machine() {
    let sample = "[source.x]\nregistry = \"sparse+https://me@packages.example/index/\"\nhttps://static.crates.io";
    assert_eq!(hosts(sample), ["packages.example"]);

    let hosts = hosts_of_this_machine();
    let mut all = Vec::new();
    files(root(), &mut all);
    for path in all {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        for host in &hosts {
            // The host itself is not printed: a log is a file too.
            assert!(!text.contains(host.as_str()), "{}", below_root(&path));
        }
        if path.ends_with("Cargo.lock") {
            let foreign = text.lines().find(|line| {
                line.starts_with("source = ")
                    && !line.contains("registry+https://github.com/rust-lang/crates.io-index")
            });
            assert_eq!(foreign, None, "only crates.io is everybody's");
        }
    }
}
