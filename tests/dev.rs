//! `chancery dev` as a person runs it: the built program, a directory, and an editor.

// Real processes take real time.
#![allow(clippy::disallowed_methods)]

#[path = "dev/companion.rs"]
mod companion;
#[path = "dev/desk.rs"]
mod desk;
mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::desk::Desk;
use self::support::{Proc, Signal, eventually, process};

const SOON: Duration = Duration::from_secs(30);

#[track_caller]
fn line(process: &Proc, part: &str) -> String {
    process.wait_for_line(|line| line.contains(part), SOON)
}

fn curl_line(process: &Proc, client_id: &str) -> String {
    let part = format!("/{client_id}.conf ");
    line(process, &part).trim().to_owned()
}

#[track_caller]
fn ends(process: &Proc, signal: Signal) {
    process.signal(signal);
    assert_eq!(
        process.wait_exit(SOON).code(),
        Some(0),
        "{}",
        process.output()
    );
    assert!(
        process.stdout().contains("\nEnded. "),
        "{}",
        process.output()
    );
}

const SECOND: &str = "\
apiVersion: chancery.dev/v1alpha1
kind: TechnicalUser
metadata:
  name: billing
  namespace: acme
spec:
  audiences: [https://orders.acme.example]
  credential:
    secret: {}
";

#[test]
fn from_the_quickstart_to_a_verified_token_through_edits_mistakes_and_a_restart() {
    let desk = Desk::new("dev-story");
    let dev = desk.start();
    let curl = curl_line(&dev, "acme.orders");
    assert_eq!(
        curl,
        format!(
            "curl -sS --config .chancery/curl/acme.orders.conf --data grant_type=client_credentials http://127.0.0.1:{}/oauth/token",
            desk.port
        )
    );
    let (claims, kid) = desk.verified_token("acme.orders");
    assert_eq!(claims["sub"], "acme.orders");
    if Command::new("curl").arg("--version").output().is_ok() {
        let mut shell = Command::new("sh");
        shell.args(["-c", &curl]).current_dir(desk.path());
        let answer = process::complete(shell, b"", SOON).expect_success("curl");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert!(answer["access_token"].is_string(), "{answer}");
    }
    let (_, secret) = desk.credential("acme.orders").expect("a secret");

    // An edit, and back.
    let user = desk.read("30-technical-user.yaml");
    desk.save(
        "30-technical-user.yaml",
        &format!("{user}  suspended: true\n"),
    );
    eventually("it is suspended", SOON, || {
        match desk.token("acme.orders") {
            Err(error) if error == "invalid_client" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    desk.save("30-technical-user.yaml", &user);
    desk.verified_token("acme.orders");

    // A mistake: told with file, line, field; the rest goes on, also what is in the same file.
    let broken = user
        .replace("scopes:", "scoops:")
        .replace("secret: {}", "secret: {delivery: Pigeon}");
    desk.save("30-technical-user.yaml", &format!("{broken}---\n{SECOND}"));
    let told = line(&dev, "scoops");
    assert!(
        told.starts_with("m/30-technical-user.yaml:9: TechnicalUser acme/orders: spec.scoops: "),
        "{told}"
    );
    let told = line(&dev, "Pigeon");
    assert!(
        told.starts_with("m/30-technical-user.yaml:12: TechnicalUser acme/orders: spec.credential.secret.delivery: "),
        "{told}"
    );
    let kept = "m/30-technical-user.yaml: What was last accepted of it stays in force until that is mended.";
    line(&dev, kept);
    curl_line(&dev, "acme.billing");
    desk.verified_token("acme.billing");
    desk.verified_token("acme.orders");
    assert_eq!(
        dev.stderr().matches("scoops").count(),
        1,
        "{}",
        dev.stderr()
    );

    // A second mistake elsewhere, that is no YAML at all: nothing is deleted meanwhile.
    desk.save("99-new.yml", "kind: [\n");
    line(&dev, "m/99-new.yml:2: This is not YAML");
    desk.save("30-technical-user.yaml", &user);
    line(&dev, "m/30-technical-user.yaml: mended.");
    desk.verified_token("acme.billing");

    // Mended: what is in no file any more goes.
    std::fs::remove_file(desk.manifest("99-new.yml")).expect("removed");
    line(&dev, "TechnicalUser acme/billing: deleted");
    eventually("its file is gone", SOON, || {
        desk.credential("acme.billing")
            .map_or(Ok(()), |_| Err("it is there"))
    });
    desk.verified_token("acme.orders");
    desk.all_private();

    // Who comes second is refused, and says why.
    let second = desk.fails(&[
        "dev",
        "m",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    assert!(
        second.contains(".chancery is in use by another process"),
        "{second}"
    );
    let taken = format!("127.0.0.1:{}", desk.port);
    let third = desk.fails(&["dev", "m", "--listen", &taken, "--state", "other"]);
    assert!(
        third.contains(&format!("--listen {taken} can not be bound")),
        "{third}"
    );

    ends(&dev, Signal::Term);
    let never = "m/99-new.yml: What was last accepted";
    assert!(!dev.output().contains(never), "{}", dev.output());
    assert!(!dev.output().contains(&secret), "the secret was shown");

    let dev = desk.start();
    curl_line(&dev, "acme.orders");
    let (_, kid_after) = desk.verified_token("acme.orders");
    assert_eq!(kid_after, kid);
    assert_eq!(desk.credential("acme.orders").expect("a secret").1, secret);
    assert!(
        dev.stdout().contains("0 created, 0 changed, 5 unchanged."),
        "{}",
        dev.stdout()
    );

    // What was removed while nobody looked goes too.
    ends(&dev, Signal::Int);
    std::fs::remove_file(desk.manifest("30-technical-user.yaml")).expect("removed");
    let dev = desk.start();
    line(&dev, "TechnicalUser acme/orders: deleted");
    ends(&dev, Signal::Term);
}

#[test]
fn a_rotation_of_seconds_from_the_example_breaks_no_token() {
    let desk = Desk::new("dev-rotation");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rotation");
    for name in ["00-namespaces.yaml", "10-signing-key.yaml"] {
        let text = std::fs::read_to_string(examples.join(name)).expect("an example");
        // The quickstart beside it has the namespace and a ring of the same name too.
        let _ = std::fs::remove_file(desk.manifest(name));
        desk.save(&format!("rotation-{name}"), &text);
    }
    // What the quickstart's first file has besides.
    desk.save(
        "05-namespace.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: acme\n",
    );
    let dev = desk.start_with(&[
        "--jwks-max-age=1s",
        "--max-token-ttl=5s",
        "--default-token-ttl=5s",
        "--clock-leeway=0s",
        "--max-staleness=5s",
    ]);
    curl_line(&dev, "acme.orders");
    let (_, first) = desk.verified_token("acme.orders");
    assert_eq!(dev.stderr(), "");
    let ring = desk.read("rotation-10-signing-key.yaml");
    let ring = ring.replace("interval: 720h", "interval: 6s");
    let ring = ring.replace("publishLead: 48h", "publishLead: 2s");
    desk.save("rotation-10-signing-key.yaml", &ring);
    eventually("another key signs", SOON, || {
        let (_, kid) = desk.verified_token("acme.orders");
        if kid == first {
            Err("the first one does".to_owned())
        } else {
            Ok(())
        }
    });
    ends(&dev, Signal::Term);
}

#[test]
fn what_can_not_start_says_why() {
    let desk = Desk::new("dev-start");
    let told = desk.fails(&["dev", "nowhere"]);
    assert!(told.contains("nowhere can not be read"), "{told}");
    let told = desk.fails(&["dev", "m", "--listen", "0.0.0.0:0"]);
    assert!(told.contains("reachable from other machines"), "{told}");
    assert!(told.contains("give a loopback address"), "{told}");
    // Which it does not have.
    for other in ["--tls-cert", "--behind-proxy"] {
        assert!(!told.contains(other), "{told}");
    }
    let told = desk.fails(&[
        "dev",
        "m",
        "--state",
        "m",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    assert!(told.contains("choose another for the state"), "{told}");
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("an address").to_string();
    let listen = ["dev", "m", "--listen", "127.0.0.1:0", "--admin-listen"];
    let told = desk.fails(&[&listen[..], &[&taken]].concat());
    for part in [
        format!("--admin-listen {taken} can not be bound: Address already in use"),
        "choose another port with --admin-listen: port 0 takes any".to_owned(),
    ] {
        assert!(told.contains(&part), "{told}");
    }
    let help =
        process::complete(desk.command(&["dev", "--help"]), b"", SOON).expect_success("help");
    assert!(help.contains("chancery dev examples/quickstart"), "{help}");
}

#[test]
fn who_asks_a_second_time_need_not_wait() {
    let desk = Desk::empty("dev-twice");
    let config = "apiVersion: v1\nkind: Config\ncurrent-context: none\n\
        clusters: [{name: none, cluster: {server: \"http://127.0.0.1:9\"}}]\n\
        contexts: [{name: none, context: {cluster: none, user: none}}]\n\
        users: [{name: none, user: {}}]\n";
    std::fs::write(desk.path().join("config"), config).expect("written");
    let serve = |drain_delay: &str| {
        desk.command(&[
            "serve",
            "--kubeconfig=config",
            "--issuer=https://id.example.com",
            "--listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
            drain_delay,
        ])
    };
    let refused = process::complete(serve("--drain-delay=301"), b"", SOON);
    assert!(
        refused.stderr.contains("301 is not in 0..=300"),
        "{}",
        refused.stderr
    );
    for (signal, code) in [(Signal::Term, 143), (Signal::Int, 130)] {
        let process = Proc::start(
            &format!("twice-{code}"),
            serve("--drain-delay=300"),
            desk.path(),
        );
        line(&process, "serving health and metrics");
        // Twice at the same time is once.
        process.signal(Signal::Term);
        process.signal(Signal::Term);
        std::thread::sleep(Duration::from_secs(1));
        assert!(process.is_running(), "{}", process.output());
        process.signal(signal);
        assert_eq!(process.wait_exit(SOON).code(), Some(code));
    }
}

#[test]
fn each_refusal_is_told_where_it_stands() {
    let desk = Desk::new("dev-refusals");
    let user = desk.read("30-technical-user.yaml");
    let ring = desk.read("10-signing-key.yaml");
    let dev = desk.start();
    curl_line(&dev, "acme.orders");
    let cases = [
        (
            "a.yaml",
            SECOND.replace("namespace: acme", "namespace: nowhere"),
            "m/a.yaml:5: TechnicalUser nowhere/billing: metadata.namespace: There is no namespace nowhere",
        ),
        (
            "b.yaml",
            SECOND
                .replace(
                    "  audiences: [https://orders.acme.example]\n",
                    "  roles: []\n",
                )
                .replace("billing", "b"),
            "m/b.yaml:6: TechnicalUser acme/b: spec.audiences: It is missing",
        ),
        (
            "c.yaml",
            SECOND
                .replace("billing", "c")
                .replace("spec:", "spec:\n  tokenTtl: 0s"),
            "m/c.yaml:7: TechnicalUser acme/c: spec.tokenTtl: ",
        ),
        (
            "d.yaml",
            SECOND.replace("billing", "Not_A_Name"),
            "m/d.yaml:4: TechnicalUser acme/Not_A_Name: metadata.name: Invalid value",
        ),
        (
            "e.yaml",
            ring.replace("namespace: chancery-system", "namespace: acme"),
            "m/e.yaml:6: SigningKey acme/main: metadata.namespace: SigningKeys live",
        ),
        (
            "f.yaml",
            user.clone(),
            "m/f.yaml:2: TechnicalUser acme/orders: It is defined here and at m/30-technical-user.yaml:2",
        ),
        (
            "10-signing-key.yaml",
            ring.replace("client", "human"),
            "m/10-signing-key.yaml:8: SigningKey chancery-system/main: spec.audience: Invalid value: \"human\": audience can not be changed",
        ),
    ];
    for (file, text, _) in &cases {
        desk.save(file, text);
    }
    for (_, _, told) in &cases {
        line(&dev, told);
    }
    desk.verified_token("acme.orders");
    // Again and again the same is no news.
    std::thread::sleep(Duration::from_secs(2));
    for (_, _, told) in &cases {
        assert_eq!(
            dev.stderr().matches(told).count(),
            1,
            "{told}\n{}",
            dev.stderr()
        );
    }
    ends(&dev, Signal::Term);
}

#[test]
fn killed_at_any_moment_of_the_first_start_it_has_one_key_and_one_secret_after_the_next() {
    for round in 0..10_u64 {
        let desk = Desk::new("dev-kill");
        let dev = desk.start();
        // Spread over what a first start takes, and past it.
        std::thread::sleep(Duration::from_millis(round * 110));
        dev.signal(Signal::Kill);
        dev.wait_exit(SOON);
        let dev = desk.start();
        curl_line(&dev, "acme.orders");
        desk.verified_token("acme.orders");
        assert_eq!(
            desk.secrets("acme"),
            ["orders-credentials.yaml"],
            "round {round}"
        );
        assert_eq!(
            desk.secrets("chancery-system"),
            ["acme.orders-credentials.yaml", "main-1.yaml"],
            "round {round}"
        );
        desk.all_private();
        ends(&dev, Signal::Term);
    }
}

#[test]
fn whatever_lies_in_the_directory_it_runs_and_follows() {
    let desk = Desk::new("dev-rubbish");
    for (name, text) in [
        ("empty.yaml", String::new()),
        ("tabs.yaml", "a:\n\t- b\n".into()),
        ("comments.yaml", "# one\n# two\n".into()),
        ("marker.yaml", "---\n".into()),
        ("anchors.yaml", "x: &x {a: 1}\ny: *x\n".into()),
        ("deep.yaml", "[".repeat(5000)),
        ("twice.yaml", "kind: a\nkind: b\n".into()),
        (
            "crlf.yaml",
            SECOND.replace('\n', "\r\n").replace("billing", "crlf"),
        ),
        (
            "bom.yaml",
            format!("\u{feff}{}", SECOND.replace("billing", "bom")),
        ),
        ("list.json", "[1, 2, 3]".into()),
    ] {
        desk.save(name, &text);
    }
    std::fs::write(desk.manifest("binary.yaml"), [0, 159, 146, 150, 255, 0]).expect("written");
    std::fs::write(desk.manifest(".#30-technical-user.yaml"), "x: [").expect("written");
    let dev = desk.start();
    for id in ["acme.orders", "acme.crlf", "acme.bom"] {
        curl_line(&dev, id);
        desk.verified_token(id);
    }
    for told in [
        "m/tabs.yaml:2: ",
        "m/deep.yaml:1: ",
        "m/twice.yaml:2: kind stands here a second time",
        "m/binary.yaml: It is not text",
        "m/list.json:1: ",
        "m/anchors.yaml:1: ",
    ] {
        line(&dev, told);
    }
    assert!(!dev.output().contains("panicked"), "{}", dev.output());
    assert!(!dev.output().contains(".#30"), "{}", dev.output());
    ends(&dev, Signal::Term);
}

#[test]
fn a_file_that_is_written_bit_by_bit_is_read_once_it_is_whole() {
    let desk = Desk::new("dev-slow");
    let dev = desk.start();
    curl_line(&dev, "acme.orders");
    let mut file = std::fs::File::create(desk.manifest("slow.yaml")).expect("made");
    let text = format!("{SECOND}# the end\n");
    for part in text.as_bytes().chunks(12) {
        file.write_all(part).expect("written");
        file.flush().expect("flushed");
        std::thread::sleep(Duration::from_millis(20));
    }
    curl_line(&dev, "acme.billing");
    assert_eq!(dev.stderr(), "", "nothing half was told of");
    // The whole directory away for a moment: nothing is deleted.
    let (m, away) = (desk.path().join("m"), desk.path().join("away"));
    std::fs::rename(&m, &away).expect("renamed");
    line(&dev, "m: It can not be read");
    std::fs::rename(&away, &m).expect("renamed back");
    line(&dev, "m: mended.");
    assert!(!dev.stdout().contains("deleted"), "{}", dev.stdout());
    desk.verified_token("acme.billing");
    ends(&dev, Signal::Term);
}

#[test]
fn it_is_fast_from_exec_to_the_first_token() {
    let desk = Desk::new("dev-fast");
    for what in ["without keys", "with keys present"] {
        let begin = Instant::now();
        let dev = desk.start();
        loop {
            if desk.token("acme.orders").is_ok() {
                break;
            }
            assert!(begin.elapsed() < SOON, "{}", dev.output());
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("exec to the first token {what}: {:?}", begin.elapsed());
        ends(&dev, Signal::Term);
    }
}

/// A ring's JWKS in another namespace follows edits, and goes with the ring.
#[test]
fn what_is_published_follows_the_manifests() {
    let desk = Desk::new("dev-publish");
    let ring = desk.read("10-signing-key.yaml");
    let publish = |more: &str| {
        desk.save("10-signing-key.yaml", &format!("{ring}{more}"));
    };
    publish("  publish:\n  - namespaces: [acme, late]\n");
    let dev = desk.start();
    let map = |namespace: &str, name: &str| {
        let path = format!(".chancery/configmaps/{namespace}/{name}.yaml");
        std::fs::read_to_string(desk.path().join(path)).unwrap_or_default()
    };
    let has = |namespace: &str, name: &str| {
        eventually(&format!("{namespace}/{name} holds a JWKS"), SOON, || {
            let found = map(namespace, name);
            found.contains("RS256").then_some(()).ok_or(found)
        });
    };
    let gone = |namespace: &str, name: &str| {
        eventually(&format!("{namespace}/{name} is gone"), SOON, || {
            let found = map(namespace, name);
            found.is_empty().then_some(()).ok_or(found)
        });
    };
    has("acme", "main-jwks");
    desk.verified_token("acme.orders");
    line(&dev, "There is no namespace late");
    let late = "apiVersion: v1\nkind: Namespace\nmetadata: {name: late, labels: {jwks: wanted}}\n";
    desk.save("40-late.yaml", late);
    has("late", "main-jwks");
    publish(
        "  publish:\n  - configMapName: keys\n    namespaceSelector: {matchLabels: {jwks: wanted}}\n",
    );
    has("late", "keys");
    gone("late", "main-jwks");
    gone("acme", "main-jwks");
    desk.save("40-late.yaml", &late.replace("wanted", "unwanted"));
    gone("late", "keys");
    publish("  publish:\n  - namespaceSelector: {}\n");
    has("late", "main-jwks");
    has("acme", "main-jwks");
    desk.save("10-signing-key.yaml", "# Nothing any more.\n");
    gone("late", "main-jwks");
    gone("acme", "main-jwks");
    ends(&dev, Signal::Term);
}

/// No kubectl reaches what runs here: dev says how to come by a client secret that is delivered once.
#[test]
fn a_secret_that_is_delivered_once_is_told() {
    let desk = Desk::new("dev-one-time");
    let once = SECOND.replace("{}", "{delivery: OneTime}");
    desk.save("50-billing.yaml", &once);
    let dev = desk.start();
    curl_line(&dev, "acme.orders");
    line(&dev, "acme.billing is sealed to no key yet");
    let key = chancery::crypto::age::Identity::generate();
    let to = format!("{{delivery: OneTime, recipient: {}}}", key.recipient());
    desk.save("50-billing.yaml", &SECOND.replace("{}", &to));
    let told = line(
        &dev,
        "age --decrypt -i YOUR-KEY .chancery/curl/acme.billing.age",
    );
    assert!(told.contains("curl -sS --user \"acme.billing:$("), "{told}");
    let sealed = desk.path().join(".chancery/curl/acme.billing.age");
    let sealed = std::fs::read_to_string(sealed).expect("the sealed text");
    let secret = key.open(&sealed).expect("it opens");
    let secret = String::from_utf8(secret.to_vec()).expect("text");
    let url = format!("http://127.0.0.1:{}/oauth/token", desk.port);
    eventually("a token", SOON, || {
        let answer = support::http::token(&url, "acme.billing", &secret, "");
        let status = answer.map(|a| a.status).map_err(|e| e.to_string())?;
        (status == 200).then_some(()).ok_or(status.to_string())
    });
    desk.all_private();
    ends(&dev, Signal::Term);
}
