//! `chancery plan` as a person runs it: the built program, and manifests good and bad.

mod support;

use std::time::Duration;

use serde_json::Value;

use self::support::{Output, Scratch, chancery_bin, process};

const SOON: Duration = Duration::from_secs(30);

const RING: &str = "\
apiVersion: chancery.dev/v1alpha1
kind: SigningKey
metadata:
  name: main
spec:
  audience: client
  rotation:
    interval: 720h
";

struct Desk(Scratch);

impl Desk {
    fn new(purpose: &str, files: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new(purpose);
        for (name, text) in files {
            let path = scratch.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        Self(scratch)
    }

    fn plan(&self, args: &[&str]) -> Output {
        let mut program = std::process::Command::new(chancery_bin());
        program.arg("plan").args(args).current_dir(self.0.path());
        for setting in ["CONFIG", "ENVIRONMENT", "NAMESPACE"] {
            program.env_remove(format!("CHANCERY_{setting}"));
        }
        process::complete(program, b"", SOON)
    }

    #[track_caller]
    fn prints(&self, args: &[&str]) -> String {
        let output = self.plan(args);
        assert_eq!(output.stderr, "");
        output.expect_success("chancery plan")
    }

    /// Fails without a word on stdout; what it says on stderr.
    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let output = self.plan(args);
        assert!(!output.success(), "{args:?}: {}", output.stdout);
        assert_eq!(output.stdout, "");
        output.stderr
    }
}

#[test]
fn only_signing_keys_count() {
    let desk = Desk::new(
        "plan-mixed",
        &[
            ("m/ring.yaml", RING),
            (
                "m/deep/list.yaml",
                "kind: List\napiVersion: v1\nitems:\n- kind: SigningKey\n  apiVersion: chancery.dev/v1alpha1\n  metadata: {name: other, namespace: acme, uid: 1-2-3}\n  spec: {audience: human}\n  status: {activeKeyId: x}\n- {kind: Secret}\n",
            ),
            (
                "m/deployment.yaml",
                "apiVersion: apps/v1\nkind: Deployment\n---\nreplicas: 3\n---\n[1, 2]\n",
            ),
            ("m/notes.txt", "no: [yaml\n"),
        ],
    );
    let table = desk.prints(&["m", "--from", "2027-01-01", "--for", "30d"]);
    for part in [
        "2027-01-01T00:00:00Z  acme/other    #1   made",
        "2027-01-01T00:00:00Z  default/main  #1   signs",
        "2027-01-30T23:30:00Z  default/main  #2   published",
        "2027-01-31T00:00:00Z  default/main  #1   retired    #2 signs in its place",
        "acme/other (m/deep/list.yaml): no interval, publishLead 30m, gracePeriod 2h6m, retention 0s.",
        "up to a tenth of its interval (a day at most) earlier",
        "  metadata.namespace is absent: SigningKeys live in the operator's namespace, chancery-system, so apply it there.",
        "  SigningKeys live in the operator's namespace, chancery-system: in acme none reads it, so that no key is made and no condition says so.",
        "From 2027-01-01T00:00:00Z until 2027-01-31T00:00:00Z",
    ] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    let at_home = ["m/deep", "--namespace", "acme", "-o=json"];
    let json: Value = serde_json::from_str(&desk.prints(&at_home)).expect("JSON");
    assert_eq!(json["rings"][0]["notes"], Value::Array(vec![]));
    // A file that is named twice counts once; of rings in one namespace the name is enough.
    let table = desk.prints(&["m/ring.yaml", "./m/ring.yaml", "--for=1d"]);
    assert!(table.contains("Z  main  #1   made"), "{table}");
}

#[test]
fn the_release_bounds_what_is_planned() {
    let short = RING.replace(
        "720h",
        "1h\n    publishLead: 1s\n    gracePeriod: 0s\n    retention: 1h",
    );
    let desk = Desk::new(
        "plan-bounds",
        &[
            ("ring.yaml", &short),
            (
                "release.yaml",
                "policy:\n  longestRotationInterval: 30m\n  allowedAlgorithms: [ES256]\n",
            ),
        ],
    );
    let table = desk.prints(&["ring.yaml", "--for", "1d"]);
    for part in [
        "publishLead is 1s, and 5m1s holds: longer than the JWKS's max-age of 5m",
        "gracePeriod is 0s, and 2h6m holds: the longest token life of 1h, a clock leeway of 1m, max-age of 5m and maxStaleness of 1h together.",
        "interval 1h, publishLead 5m1s, gracePeriod 2h6m, retention 1h",
    ] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    let flags = [
        "--jwks-max-age=0s",
        "--max-token-ttl=5m",
        "--clock-leeway=0s",
        "--max-staleness=1s",
    ];
    let json = desk.prints(&[&flags[..], &["ring.yaml", "-o", "json", "--for=1h"]].concat());
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let policy = &json["rings"][0]["policy"];
    assert_eq!(policy["publishLead"], "1s");
    assert_eq!(policy["gracePeriod"], "5m1s");
    let table = desk.prints(&["ring.yaml", "--config", "release.yaml"]);
    for part in ["is 1h, and this release", "No key is made."] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    let told = desk.fails(&["ring.yaml", "--max-token-ttl", "0s"]);
    assert!(told.contains("tokens.maxTtl is 0s"), "{told}");
}

#[test]
fn what_would_never_end_ends_and_says_so() {
    let ring = RING.replace("720h", "2s\n    publishLead: 1s");
    let desk = Desk::new("plan-endless", &[("ring.yaml", &ring)]);
    let json = desk.prints(&["ring.yaml", "--from=2027-01-01", "--for=36500d", "-o=json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let ring = &json["rings"][0];
    assert_eq!(ring["keys"].as_array().map(Vec::len), Some(500));
    assert!(ring["cutAt"].is_string(), "{}", ring["cutAt"]);
    let notes = ring["notes"].to_string();
    assert!(
        notes.contains("after 500 keys: give a shorter --for"),
        "{notes}"
    );
    // The picture ends with it.
    let svg = desk.prints(&["ring.yaml", "--from=2027-01-01", "--for=36500d", "-o=svg"]);
    assert!(svg.starts_with("<svg ") && svg.len() < 100_000);
    assert_eq!(svg.matches("<g><title>").count(), 60);
    for part in [
        "Signing keys from 2027-01-01T00:00:00Z until 2027-01-01T04:55:59Z",
        "Ends at 2027-01-01T04:55:59Z, before #61 of main: 60 keys fit. For what follows give a later --from",
    ] {
        assert!(svg.contains(part), "{part} in\n{svg}");
    }
}

#[test]
fn what_is_no_plan_says_why() {
    let desk = Desk::new(
        "plan-refusals",
        &[
            ("ring.yaml", RING),
            ("empty/readme.txt", ""),
            ("settings.yaml", "jwks:\n  maxAge: 5d\n"),
            (
                "others/ns.yaml",
                "apiVersion: v1\nkind: Namespace\nmetadata: {name: acme}\n",
            ),
            ("broken/a.yaml", "kind: [\n"),
            ("broken/b.yaml", &RING.replace("720h", "30d")),
            (
                "broken/c.yaml",
                &RING
                    .replace("interval: 720h", "interval: 20m")
                    .replace("main", "c"),
            ),
            (
                "broken/d.yaml",
                &RING.replace("rotation", "rotations").replace("main", "d"),
            ),
            ("broken/e.yaml", &RING.replace("v1alpha1", "v1")),
            (
                "broken/f.yaml",
                &format!("{RING}---\n{RING}").replace("main", "f"),
            ),
            (
                "broken/g.yaml",
                &RING.replace("  name: main", "  name: g\n  namespace: Not_One"),
            ),
            (
                "late.yaml",
                &RING.replace(
                    "  rotation",
                    "  validTo: \"2026-01-01T00:00:00Z\"\n  rotation",
                ),
            ),
        ],
    );
    for (args, told) in [
        (&[][..], "<PATH>"),
        (&["nowhere"], "nowhere: It can not be read: No such file"),
        (
            &["nowhere"],
            "nothing is planned for the problem above, and no SigningKey",
        ),
        (
            &["ring.yaml", "--config", "settings.yaml"],
            "--config can not be understood. settings.yaml:2: \"5d\" is not a duration: write hours, minutes and seconds such as 90s, 5m or 1h30m; a day is 24h. Mend that line",
        ),
        (
            &["ring.yaml", "--jwks-max-age", "5d"],
            "5m or 1h30m; a day is 24h",
        ),
        (
            &["ring.yaml", "nowhere"],
            "nothing is planned until the problem above is mended",
        ),
        (
            &["empty"],
            "no SigningKey that could be planned is in empty (no file there is called *.yaml, *.yml or *.json): give files or directories",
        ),
        (
            &["others", "empty"],
            "no SigningKey that could be planned is in others, empty (1 file was read): give",
        ),
        (
            &["ring.yaml", "--from", "tomorrow"],
            "'tomorrow' for '--from <TIME>': that is no time",
        ),
        (
            &["ring.yaml", "--from", "2027-02-30"],
            "such as 2027-01-01T00:00:00Z, or a date",
        ),
        (&["ring.yaml", "--from", "-1"], "that is no time"),
        (
            &["ring.yaml", "--from", "9999-12-01"],
            "ends after the year 9999",
        ),
        (
            &["ring.yaml", "--for", "-5d"],
            "'-5d' for '--for <DURATION>': that is no duration",
        ),
        (&["ring.yaml", "--for", "0s"], "give at least 1s"),
        (
            &["ring.yaml", "--for", "99999999999999999999d"],
            "give at most 36500d",
        ),
        (
            &["ring.yaml", "--for", "soon"],
            "give days (of 24h), hours, minutes and seconds, such as 90d, 36h or 1d12h",
        ),
        (
            &["ring.yaml", "--out", "nowhere/plan.svg"],
            "--out nowhere/plan.svg can not be written: No such file",
        ),
        (
            &["ring.yaml", "-o", "yaml"],
            "[possible values: table, json, svg]",
        ),
    ] {
        let said = desk.fails(args);
        assert!(said.contains(told), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    // Nothing is written where something is wrong, also into no file.
    desk.fails(&["broken", "-o", "svg", "--out", "plan.svg"]);
    assert!(!desk.0.path().join("plan.svg").exists());
    let svg = desk.prints(&["ring.yaml", "-o", "svg", "--from", "2027-01-01"]);
    let to_file = ["ring.yaml", "-o", "svg", "--from", "2027-01-01", "--out"];
    assert_eq!(desk.prints(&[&to_file[..], &["plan.svg"]].concat()), "");
    let written = || std::fs::read_to_string(desk.0.path().join("plan.svg"));
    assert_eq!(written().expect("the picture"), svg);
    desk.fails(&["broken", "-o", "svg", "--out", "plan.svg"]);
    assert_eq!(written().expect("the picture of before"), svg);

    let said = desk.fails(&["broken"]);
    for told in [
        "broken/a.yaml:2: This is not YAML",
        "broken/b.yaml:8: SigningKey default/main: spec.rotation.interval: Invalid value: \"30d\": a duration is made of",
        "broken/c.yaml:7: SigningKey default/c: spec.rotation.publishLead: publishLead (30m where absent) is not shorter than interval",
        "broken/d.yaml:7: SigningKey default/d: spec.rotations: SigningKey has no such field",
        "broken/e.yaml:1: apiVersion: \"chancery.dev/v1\" has no SigningKey: write chancery.dev/v1alpha1.",
        "broken/f.yaml:10: SigningKey default/f: It is defined here and at broken/f.yaml:1",
        "broken/g.yaml:5: SigningKey Not_One/g: metadata.namespace: No namespace can have this name",
        "nothing is planned until the 7 problems above are mended",
    ] {
        assert!(said.contains(told), "{told} in\n{said}");
    }
    // A window that is over is no mistake of form: it is told in the plan.
    let table = desk.prints(&["late.yaml", "--from", "2027-01-01"]);
    assert!(
        table
            .contains("validTo is 2026-01-01T00:00:00Z, which had passed by then: no key is made."),
        "{table}"
    );
    let help = desk.prints(&["--help"]);
    assert!(
        help.contains("chancery plan examples/rotation --from 2027-01-01"),
        "{help}"
    );
}

/// A timetable that could not be written whole is no success: a full disk, say.
#[cfg(target_os = "linux")]
#[test]
fn what_can_not_be_written_is_no_success() {
    let desk = Desk::new("plan-full", &[("ring.yaml", RING)]);
    let mut program = std::process::Command::new(chancery_bin());
    program
        .args(["plan", "ring.yaml"])
        .current_dir(desk.0.path());
    let full = std::fs::File::options().write(true).open("/dev/full");
    program.stdout(full.expect("/dev/full"));
    let output = program.output().expect("it ran");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("stdout"), "{told}");
}
