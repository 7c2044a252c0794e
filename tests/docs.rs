//! The README, `docs/rotation.md`, `docs/technical-users.md`, `docs/revocation.md`,
//! `docs/introspection.md`, `docs/token-exchange.md`, `docs/audit.md`, `docs/client-assertions.md` and
//! `docs/providers.md`, run: every `sh` block of them, in order, as a newcomer would in a fresh
//! checkout. What is not to be run is marked otherwise (`text`, `yaml`, `json`).

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::process::complete;
use support::{Binaries, ControlPlane, Proc, Scratch, Signal, chancery_bin};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const LIMIT: Duration = Duration::from_secs(90);

/// The `sh` blocks under each second-level heading.
fn blocks(markdown: &str) -> Vec<(String, String)> {
    let (mut heading, mut block, mut found) = (String::new(), None::<String>, Vec::new());
    for line in markdown.lines() {
        match (&mut block, line) {
            (Some(text), "```") => {
                found.push((heading.clone(), std::mem::take(text)));
                block = None;
            }
            (Some(text), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, "```sh") => block = Some(String::new()),
            (None, line) => {
                if let Some(title) = line.strip_prefix("## ") {
                    title.clone_into(&mut heading);
                }
            }
        }
    }
    found
}

fn page(path: &str) -> String {
    let text = std::fs::read_to_string(format!("{ROOT}/{path}"));
    text.unwrap_or_else(|why| panic!("{path}: {why}"))
}

fn readme(heading: &str) -> Vec<String> {
    let of = blocks(&page("README.md"))
        .into_iter()
        .filter(|(h, _)| h == heading)
        .map(|(_, block)| block);
    let of: Vec<String> = of.collect();
    assert!(!of.is_empty(), "the README has commands under {heading:?}");
    of
}

/// A shell in which `cargo run --release -- …` runs the built program, and `kubectl` is ours.
fn shell(block: &str, folder: &Path, kubeconfig: Option<&Path>) -> Command {
    let mut command = Command::new("bash");
    let program = chancery_bin();
    // As a kubectl plugin it is called by another name.
    let plugins = folder.join(".plugins");
    let _ = std::fs::create_dir(&plugins);
    let _ = std::os::unix::fs::symlink(&program, plugins.join("kubectl-chancery"));
    let cargo = format!(
        "cargo() {{ shift 3; {} \"$@\"; }}; set -euo pipefail\n",
        program.display()
    );
    command.arg("-c").arg(cargo + block).current_dir(folder);
    if let Some(kubeconfig) = kubeconfig {
        let kubectl = Binaries::get()
            .kubectl
            .parent()
            .expect("a folder")
            .to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut tools = vec![kubectl.display().to_string()];
        if block.contains("kubectl chancery") || block.contains("age-keygen") {
            let age = support::binaries::age();
            tools.extend([&plugins, &age].map(|folder| folder.display().to_string()));
        }
        tools.push(path);
        command
            .env("PATH", tools.join(":"))
            .env("KUBECONFIG", kubeconfig);
    }
    command
}

/// A copy of what the README's commands need.
fn checkout(scratch: &Scratch) -> PathBuf {
    for folder in ["examples", "crds"] {
        let mut copy = Command::new("cp");
        copy.args(["-r", &format!("{ROOT}/{folder}")])
            .arg(scratch.path());
        complete(copy, b"", LIMIT).expect_success("copying the checkout");
    }
    scratch.path().to_owned()
}

/// Runs the blocks; one that starts `dev` or `run` goes on in the background. The ports of the
/// README are used as they stand, so that one of the tours runs at a time.
fn tour(blocks: Vec<String>, kubeconfig: Option<&Path>) -> Vec<String> {
    static PORTS: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = PORTS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let scratch = Scratch::new("readme");
    let folder = checkout(&scratch);
    let (mut printed, mut background) = (Vec::new(), None::<Proc>);
    for block in blocks {
        let mut command = shell(&block, &folder, kubeconfig);
        if let Some(rest) = block.strip_prefix("cargo run --release -- ")
            && !rest.starts_with("plan ")
        {
            let mut command = Command::new(chancery_bin());
            command.args(rest.split_whitespace()).current_dir(&folder);
            if let Some(kubeconfig) = kubeconfig {
                command.env("KUBECONFIG", kubeconfig);
            }
            let process = Proc::start("chancery", command, scratch.path());
            let sign = if rest.starts_with("dev") {
                "curl "
            } else {
                "serving tokens"
            };
            process.wait_for_line(|line| line.contains(sign), LIMIT);
            background = Some(process);
            continue;
        }
        command.env("LC_ALL", "C");
        printed.push(complete(command, b"", LIMIT).expect_success(&block));
    }
    if let Some(process) = background {
        process.signal(Signal::Term);
        assert!(process.wait_exit(LIMIT).success(), "{}", process.output());
    }
    printed
}

#[test]
fn five_minutes_without_a_cluster() {
    let printed = tour(readme("Five minutes, no cluster"), None);
    assert!(printed[0].contains("\"access_token\""), "{printed:?}");
    let claims: serde_json::Value =
        serde_json::from_str(printed[1].trim()).expect("decoded claims");
    assert_eq!(claims["scope"], "orders.read");
    // What the README shows is what comes, but for what changes each time.
    let text = page("README.md");
    let shown = text
        .split("```json\n")
        .nth(1)
        .and_then(|t| t.split("```").next())
        .expect("a token");
    let mut shown: serde_json::Value = serde_json::from_str(shown).expect("JSON");
    for changing in ["iat", "exp", "jti"] {
        shown[changing] = claims[changing].clone();
    }
    assert_eq!(shown, claims);
    assert!(printed[2].contains("token_endpoint") && printed[2].contains("\"keys\""));
}

#[test]
fn the_same_on_a_cluster() {
    let cluster = ControlPlane::start();
    let commands = readme("The same on a cluster");
    let printed = tour(commands, Some(cluster.admin_kubeconfig()));
    let all = printed.join("\n");
    for part in [
        "signingkey.chancery.dev/main",
        "\"access_token\"",
        "\"keys\"",
        "KeyActivated",
    ] {
        assert!(all.contains(part), "{part} in\n{all}");
    }
}

#[test]
fn when_keys_rotate() {
    let printed = tour(readme("When keys rotate"), None);
    let readme = page("README.md");
    let shown = readme.split("```text\nTIME").nth(1);
    let shown = shown.and_then(|t| t.split("```").next()).expect("a table");
    assert!(
        printed[0].starts_with(&format!("TIME{shown}")),
        "{}",
        printed[0]
    );
    let mut plan = Command::new(chancery_bin());
    plan.args([
        "plan",
        "examples/rotation",
        "--from",
        "2027-01-01",
        "-o",
        "svg",
    ])
    .current_dir(ROOT);
    let drawn = complete(plan, b"", LIMIT).expect_success("chancery plan");
    assert!(
        drawn == page("docs/images/rotation.svg"),
        "docs/images/rotation.svg is not what chancery plan draws: CONTRIBUTING.md tells how to make it anew"
    );
}

/// What a page's commands print, on a cluster with what the first blocks of the README leave there.
fn page_tour(name: &str, at_least: usize, of_readme: usize) -> String {
    let text = page(name);
    let mut commands: Vec<String> = blocks(&text).into_iter().map(|(_, block)| block).collect();
    assert!(commands.len() >= at_least, "{commands:?}");
    let first = readme("The same on a cluster").into_iter().take(of_readme);
    commands.splice(0..0, first);
    let cluster = ControlPlane::start();
    tour(commands, Some(cluster.admin_kubeconfig())).join("\n")
}

fn tells(printed: &str, parts: &[&str]) {
    for part in parts {
        assert!(printed.contains(part), "{part} in\n{printed}");
    }
}

#[test]
fn how_keys_rotate() {
    let printed = page_tour("docs/rotation.md", 10, 1);
    tells(
        &printed,
        &["#1   leaves the JWKS", "Publish", "after-the-audit"],
    );
}

#[test]
fn how_tokens_are_revoked() {
    let printed = page_tour("docs/revocation.md", 7, 1);
    let told = [
        "200\n",
        "\"revocation_endpoint\":\"http://127.0.0.1:8080/oauth/revoke\"",
        "chancery_revoked_tokens 1",
        "\"acme.orders\":{\"tokens\"",
        "OutboxEntryRefused",
        "\"reason\":\"RevokedByDevice\"",
    ];
    tells(&printed, &told);
}

#[test]
fn how_to_ask_about_a_token() {
    let printed = page_tour("docs/introspection.md", 5, 1);
    let told = [
        "{\"active\":true",
        "{\"active\":false}\n",
        "\"token_introspection\":{\"active\":false}",
        "\"introspection_endpoint\"",
        "\"userAccountInfo\"",
        "\"status\":\"ACTIVE\"",
        "Bearer realm=",
    ];
    tells(&printed, &told);
}

#[test]
fn what_the_audit_log_says() {
    let printed = page_tour("docs/audit.md", 2, 1);
    let told = [
        "\"event\":\"issued\"",
        "\"event\":\"refused\"",
        "\"event\":\"revoked\"",
        "\"tenant\":\"",
    ];
    tells(&printed, &told);
}

#[test]
fn how_a_client_acts_for_a_person() {
    let printed = page_tour("docs/token-exchange.md", 3, 1);
    let told = [
        "token-exchange\"",
        "\"invalid_request\"",
        "it speaks of no person",
    ];
    tells(&printed, &told);
}

#[test]
fn how_client_secrets_rotate() {
    // With the program that the README runs.
    let printed = page_tour("docs/technical-users.md", 5, 3);
    let told = [
        "OLD UNTIL",
        "CredentialRotated",
        "as a rotation was asked for",
        "\"access_token\"",
        "till",
        "OneTime",
    ];
    tells(&printed, &told);
}

#[test]
fn how_clients_do_without_a_secret() {
    let printed = page_tour("docs/client-assertions.md", 6, 3);
    let tokens = printed.matches("\"access_token\"").count();
    assert_eq!(tokens, 2, "{printed}");
    tells(&printed, &["The earlier client secret works too, until"]);
}

#[test]
fn how_outside_providers_are_trusted() {
    let printed = page_tour("docs/providers.md", 6, 3);
    let told = [
        r#"roles is ["boss"], and ["clerk"] is expected"#,
        "its host is at a private address",
    ];
    tells(&printed, &told);
}

#[test]
fn who_is_let_in() {
    let printed = page_tour("docs/users.md", 5, 3);
    let told = [
        "acme/staff:ada",
        "\"user_roles\":[\"clerk\"]",
        "\"access_denied\"",
    ];
    tells(&printed, &told);
}

/// `docs/reasons.md` knows every reason, and every reason is given somewhere.
#[test]
fn the_reasons_are_documented_and_given() {
    let source = std::fs::read_to_string(format!("{ROOT}/src/domain/reasons.rs")).expect("reasons");
    let page = std::fs::read_to_string(format!("{ROOT}/docs/reasons.md")).expect("the page");
    let mut controllers = String::new();
    for file in walk(&PathBuf::from(format!("{ROOT}/src/controllers"))) {
        controllers += &std::fs::read_to_string(file).expect("a source");
    }
    let mut seen = 0;
    for line in source.lines().filter_map(|l| l.strip_prefix("pub const ")) {
        let (name, rest) = line.split_once(':').expect("a constant");
        let value = rest.split('"').nth(1).expect("its value");
        assert!(
            page.contains(&format!("`{value}`")),
            "docs/reasons.md tells of {value}"
        );
        assert!(
            controllers.contains(&format!("r::{name}")),
            "something gives the reason {name}"
        );
        seen += 1;
    }
    assert!(seen > 20, "{seen} reasons were found");
}

/// Every link of our pages to a file of ours leads somewhere.
#[test]
fn links_lead_somewhere() {
    for page in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/client-assertions.md",
        "docs/providers.md",
        "docs/reasons.md",
        "docs/rotation.md",
        "docs/revocation.md",
        "docs/technical-users.md",
        "docs/users.md",
    ] {
        let text = self::page(page);
        let folder = Path::new(ROOT)
            .join(page)
            .parent()
            .expect("a folder")
            .to_owned();
        for link in text.split("](").skip(1).filter_map(|t| t.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            assert!(folder.join(file).exists(), "{page} links to {link}");
            if !place.is_empty() {
                assert!(
                    file.is_empty(),
                    "{page} links to {link}: within a page only"
                );
                assert!(text.lines().any(|l| anchor(l) == place), "{page}: {link}");
            }
        }
    }
}

/// What a heading is called in links.
fn anchor(line: &str) -> String {
    let title = line.trim_start_matches('#').trim().to_lowercase();
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || " -".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files
}
