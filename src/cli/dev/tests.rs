//! Manifests as people write them, well and badly, and where each mistake is told.

#![allow(clippy::format_collect, clippy::format_push_string)] // Small strings, once.

use std::path::Path;

use serde_json::json;

use super::kinds::Kinds;
use super::manifests::{self, Manifests};
use super::yaml::{self, Node};
use crate::api::v1alpha1::all_crds;

fn read(text: &str) -> Manifests {
    let mut all = Manifests::default();
    manifests::read_text("f.yaml", text, &Kinds::new(&all_crds()), &mut all);
    all
}

/// The only document of a text.
fn only(text: &str) -> Node {
    let mut documents = yaml::documents(text);
    assert_eq!(documents.len(), 1, "{documents:?}");
    documents.remove(0).expect("sound")
}

fn problems(text: &str) -> Vec<String> {
    read(text)
        .problems
        .iter()
        .map(ToString::to_string)
        .collect()
}

const USER: &str = "\
# A comment.
apiVersion: chancery.dev/v1alpha1
kind: TechnicalUser
metadata:
  name: orders
  namespace: acme
  annotations:
    example.com/note: hello
spec:
  roles: [clerk,
    auditor]
  scopes:
  - a
  - b
  credential:
    secret: {}
";

#[test]
fn fields_are_found_by_the_paths_of_the_api_server() {
    let node = only(USER);
    for (path, line) in [
        ("", 2),
        ("metadata.name", 5),
        (".metadata.name", 5),
        ("metadata.annotations.example.com/note", 8),
        ("metadata.annotations[example.com/note]", 8),
        ("metadata.labels", 4),
        ("spec.roles", 10),
        ("spec.roles[0]", 10),
        ("spec.roles[1]", 11),
        ("spec.scopes[1]", 14),
        ("spec.scopes[7]", 12),
        ("spec.audiences", 9),
        ("spec.credential.secret.keys.clientId", 16),
        ("status", 2),
        ("nothing.of.the.kind", 2),
    ] {
        assert_eq!(node.line_of(path), line, "{path:?}");
    }
}

#[test]
fn lines_count_through_documents_line_ends_and_byte_order_marks() {
    let text = format!(
        "\u{feff}# first\n---\n{USER}---\n# only a comment\n--- # another\n{USER}...\n---\n"
    );
    let lines = |text: &str| -> Vec<usize> {
        read(text)
            .documents
            .iter()
            .map(|d| d.node.line_of("metadata.name"))
            .chain(
                yaml::documents(text)
                    .iter()
                    .flatten()
                    .map(|n| n.line_of("spec.scopes[1]")),
            )
            .collect()
    };
    assert_eq!(lines(&text), [7, 16, 35]);
    assert_eq!(lines(&text.replace('\n', "\r\n")), [7, 16, 35]);
    assert_eq!(problems(&text).len(), 1, "the same object twice");
}

#[test]
fn values_are_those_that_kubectl_reads() {
    let node = only(
        "a: yes\nb: 'yes'\nc: 010\nd: !!str 5\ne: |\n  x\n  y\nf: >-\n  x\n  y\n1: 2\ng: {h: [1, null, ~]}\ni:\n",
    );
    assert_eq!(
        node.to_json(),
        json!({"a": true, "b": "yes", "c": 8, "d": "5", "e": "x\ny\n", "f": "x y", "1": 2,
               "g": {"h": [1, null, null]}, "i": null})
    );
}

#[test]
fn anchors_aliases_and_merge_keys_are_followed() {
    let node = only(
        "base: &base\n  x: 1\n  y: 2\nmore: &more {z: 3}\none:\n  <<: *base\n  y: 4\ntwo:\n  <<: [*base, *more]\nlist: *base\n",
    );
    let json = node.to_json();
    assert_eq!(json["one"], json!({"x": 1, "y": 4}));
    assert_eq!(json["two"], json!({"x": 1, "y": 2, "z": 3}));
    assert_eq!(json["list"], json!({"x": 1, "y": 2}));
    assert_eq!(node.line_of("list"), 10);
}

#[test]
fn a_document_that_is_no_yaml_leaves_the_others() {
    let text = format!("a: [1\n---\n{USER}---\nx: 1\nx: 2\n---\nkind: \"half\n");
    let all = read(&text);
    assert_eq!(all.documents.len(), 1);
    assert_eq!(all.documents[0].node.line_of("metadata.name"), 7);
    let told = problems(&text);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[0].starts_with("f.yaml:1: ") || told[0].starts_with("f.yaml:2: "),
        "{told:?}"
    );
    assert_eq!(
        told[1],
        "f.yaml:21: x stands here a second time, after line 20: keep one."
    );
    assert!(told[2].starts_with("f.yaml:2"), "{told:?}");
}

#[test]
fn what_every_manifest_needs_is_asked_for_where_it_belongs() {
    for (text, told) in [
        (
            "kind: SigningKey",
            "f.yaml:1: apiVersion is missing: give one, such as chancery.dev/v1alpha1.",
        ),
        (
            "\napiVersion: v1\nspec: 1",
            "f.yaml:2: kind is missing: give one, such as TechnicalUser.",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata:\n  namespace: a",
            "f.yaml:3: metadata.name is missing: give one, such as orders.",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata:\n  namespace: a\n  name: 5",
            "f.yaml:5: metadata.name is 5, which is no text: put it in quotes if that is meant.",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}",
            "f.yaml:2: kind: \"Pod\" of \"v1\" is no kind that chancery dev serves: those are Namespace, ConfigMap, Secret, ServiceAccount, SigningKey, Subscription, OidcProvider, TechnicalUser, User.",
        ),
        (
            "apiVersion: v1\nkind: SigningKey\nmetadata: {name: a}",
            "f.yaml:1: apiVersion: \"v1\" has no SigningKey: write chancery.dev/v1alpha1.",
        ),
        (
            "just text",
            "f.yaml:1: A manifest is an object with apiVersion, kind, metadata and spec: this is none.",
        ),
        (
            "? [a]\n: b",
            "f.yaml:1: A field's name must be text: here stands a list or an object in its place.",
        ),
        (
            "a: &x [*x]",
            "f.yaml:1: This alias stands inside of what it repeats.",
        ),
    ] {
        assert_eq!(problems(text), [told], "{text}");
    }
}

#[test]
fn one_object_in_two_places_is_told_of_with_both() {
    let all = read(&format!("{USER}---\n{USER}"));
    assert_eq!(all.documents.len(), 1);
    assert_eq!(
        all.problems[0].to_string(),
        "f.yaml:19: TechnicalUser acme/orders: It is defined here and at f.yaml:2, which is the one that counts: keep one of them."
    );
}

#[test]
fn a_list_is_its_items() {
    let all = read(
        "kind: List\napiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: b}\n",
    );
    let ids: Vec<String> = all.documents.iter().map(|d| d.id.to_string()).collect();
    assert_eq!(ids, ["Namespace a", "ConfigMap default/b"]);
    assert_eq!(all.documents[1].node.line_of("kind"), 8);
}

#[test]
fn whatever_a_file_holds_nothing_breaks() {
    let deep = "[".repeat(10_000);
    let deep_block: String = (0..500).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    let laughs = {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let before = format!("*a{}", i - 1);
            text += &format!("a{i}: &a{i} [{}]\n", [&*before; 9].join(", "));
        }
        text
    };
    for (text, told) in [
        ("", 0),
        ("\n\n\n", 0),
        ("# only\n# comments\n", 0),
        ("---\n", 0),
        ("---\n---\n---", 0),
        ("...\n", 0),
        ("\u{feff}", 0),
        ("%YAML 1.2\n---\n", 0),
        ("null", 0),
        ("a:\n\t- b\n", 1),
        ("\t", 0),
        (
            "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"x\"}\n}\n",
            0,
        ),
        ("a: [1, 2\n", 1),
        ("a: 'x\n", 1),
        ("a: *nothing\n", 1),
        (": : :\n", 1),
        ("@", 1),
        ("\0\0\0", 1),
        ("a: \u{7f}\u{1}\n", 1),
        (&deep, 1),
        (&deep_block, 1),
        (&laughs, 1),
    ] {
        let shown: String = text.chars().take(60).collect();
        let found = problems(text);
        assert_eq!(found.len(), told, "{shown:?}: {found:?}");
    }
}

/// With a search through all that was before, these take minutes.
#[test]
fn a_mapping_of_very_many_keys_is_read_in_no_time() {
    let text: String = (0..150_000).map(|i| format!("k{i}: 1\n")).collect();
    let twice = format!("{text}k7: 2\n");
    assert_eq!(
        problems(&twice),
        ["f.yaml:150001: k7 stands here a second time, after line 8: keep one."]
    );
    let indented: String = text.lines().map(|line| format!("  {line}\n")).collect();
    let merged = only(&format!(
        "base: &base\n{indented}all:\n  <<: *base\n  k7: 2\n"
    ));
    let all = &merged.to_json()["all"];
    assert_eq!(all.as_object().map(serde_json::Map::len), Some(150_000));
    assert_eq!(all["k7"], 2);
}

#[test]
fn hidden_files_what_editors_leave_and_the_state_do_not_count() {
    let dir = std::env::temp_dir().join(format!("chancery-find-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    for name in [
        "b.yaml",
        "a.yml",
        "c.json",
        "deep/er/d.yaml",
        ".hidden.yaml",
        ".git/x.yaml",
        "e.yaml~",
        "#f.yaml#",
        "g.yaml.swp",
        "h.txt",
        "state/secrets/i.yaml",
        "README.md",
    ] {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, "").expect("written");
    }
    std::os::unix::fs::symlink(&dir, dir.join("loop")).expect("linked");
    let state = std::fs::canonicalize(dir.join("state")).expect("there");
    let found = manifests::find(&dir, Some(&state));
    let names: Vec<String> = found
        .files
        .keys()
        .map(|p| p.strip_prefix(&dir).unwrap_or(p).display().to_string())
        .collect();
    assert_eq!(names, ["a.yml", "b.yaml", "c.json", "deep/er/d.yaml"]);
    assert_eq!(found.problems, []);

    let one = manifests::find(&dir.join("h.txt"), None);
    assert_eq!(
        one.files.len(),
        1,
        "a file that is named counts, whatever its ending"
    );
    let none = manifests::find(Path::new("/nowhere/at/all"), None);
    assert_eq!(none.problems.len(), 1);
    std::fs::remove_dir_all(&dir).expect("removed");
}
