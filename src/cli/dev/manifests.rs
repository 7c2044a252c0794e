//! The manifests of a directory: which files count, what is in them, and what is wrong before any
//! API server has seen them.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::kinds::{Kind, Kinds};
use super::yaml::{self, Data, Node};

/// Files beyond this are no manifests.
const FILE_MAX: u64 = 4 << 20;
/// Directories deeper than this are not looked into.
const DEPTH_MAX: usize = 32;

/// Something that is wrong in a file, told once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as a person would type it.
    pub file: String,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong and what to do.
    pub sentence: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.sentence),
            line => write!(f, "{}:{line}: {}", self.file, self.sentence),
        }
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    time: (i64, i64),
    len: u64,
    inode: u64,
}

/// The files that count, and what could not be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The files, in the order in which they are read.
    pub files: BTreeMap<PathBuf, Stamp>,
    /// Directories that can not be read.
    pub problems: Vec<Problem>,
}

/// Which object a document is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Its kind; kinds that others need come first.
    pub kind: Kind,
    /// Its namespace; empty if the kind has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// An object in a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Which object.
    pub id: Id,
    /// The file, as a person would type it.
    pub file: String,
    /// The object, with its positions.
    pub node: Node,
}

impl Document {
    /// What is wrong at a field of this document.
    pub fn problem(&self, path: &str, sentence: impl fmt::Display) -> Problem {
        let place = if path.is_empty() {
            String::new()
        } else {
            format!("{path}: ")
        };
        Problem {
            file: self.file.clone(),
            line: self.node.line_of(path),
            sentence: format!("{}: {place}{sentence}", self.id),
        }
    }
}

/// What the files say.
#[derive(Debug, Default)]
pub struct Manifests {
    /// The objects, in the order in which they are applied.
    pub documents: Vec<Document>,
    /// What could not be understood.
    pub problems: Vec<Problem>,
}

/// Finds the files under `root`, which may be one file. What lies in `except` (the state) does
/// not count, nor do hidden files and what editors leave beside a file.
pub fn find(root: &Path, except: Option<&Path>) -> Found {
    let mut found = Found::default();
    if root.is_dir() {
        walk(root, except, 0, &mut HashSet::new(), &mut found);
    } else {
        match fs::metadata(root) {
            Ok(meta) => {
                found.files.insert(root.to_owned(), stamp(&meta));
            }
            Err(why) => found.problems.push(unreadable(root, &why)),
        }
    }
    found
}

fn walk(
    dir: &Path,
    except: Option<&Path>,
    depth: usize,
    seen: &mut HashSet<PathBuf>,
    found: &mut Found,
) {
    let real = match fs::canonicalize(dir) {
        Ok(real) => real,
        Err(why) => return found.problems.push(unreadable(dir, &why)),
    };
    if except == Some(&*real) || depth > DEPTH_MAX || !seen.insert(real) {
        return;
    }
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(why) => return found.problems.push(unreadable(dir, &why)),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(['.', '#']) || name.ends_with('~') {
            continue;
        }
        // Follows links. What is gone by now is not there.
        let Ok(meta) = fs::metadata(&path) else {
            continue;
        };
        if meta.is_dir() {
            walk(&path, except, depth + 1, seen, found);
        } else if meta.is_file() && has_manifests(&path) {
            found.files.insert(path, stamp(&meta));
        }
    }
}

fn has_manifests(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| matches!(e, "yaml" | "yml" | "json"))
}

fn stamp(meta: &fs::Metadata) -> Stamp {
    Stamp {
        time: (meta.mtime(), meta.mtime_nsec()),
        len: meta.len(),
        inode: meta.ino(),
    }
}

fn unreadable(path: &Path, why: &std::io::Error) -> Problem {
    Problem {
        file: path.display().to_string(),
        line: 0,
        sentence: format!("It can not be read: {why}."),
    }
}

/// Reads the files that were found.
pub fn read(found: &Found, kinds: &Kinds) -> Manifests {
    let mut all = Manifests {
        problems: found.problems.clone(),
        ..Manifests::default()
    };
    for (path, stamp) in &found.files {
        let file = path.display().to_string();
        let text = if stamp.len > FILE_MAX {
            Err(format!(
                "It has {} bytes, and a manifest has at most {FILE_MAX}.",
                stamp.len
            ))
        } else {
            match fs::read(path) {
                Ok(bytes) => String::from_utf8(bytes)
                    .map_err(|_| "It is not text in UTF-8, as YAML is.".to_owned()),
                Err(why) => Err(format!("It can not be read: {why}.")),
            }
        };
        match text {
            Ok(text) => read_text(&file, &text, kinds, &mut all),
            Err(sentence) => all.problems.push(Problem {
                file,
                line: 0,
                sentence,
            }),
        }
    }
    all.documents.sort_by_key(|d| d.id.kind.order());
    all
}

/// Reads one file's text.
pub fn read_text(file: &str, text: &str, kinds: &Kinds, all: &mut Manifests) {
    for document in yaml::documents(text) {
        match document {
            Ok(node) => take(file, node, kinds, all),
            Err(fault) => all.problems.push(Problem {
                file: file.to_owned(),
                line: fault.line,
                sentence: fault.sentence,
            }),
        }
    }
}

fn take(file: &str, node: Node, kinds: &Kinds, all: &mut Manifests) {
    if let Some(items) = list_items(&node) {
        for item in items {
            take(file, item, kinds, all);
        }
        return;
    }
    if kinds.passes_over(kind_of(&node)) {
        return;
    }
    let id = match identify(&node, kinds) {
        Ok(id) => id,
        Err((path, sentence)) => {
            all.problems.push(Problem {
                file: file.to_owned(),
                line: node.line_of(path),
                sentence,
            });
            return;
        }
    };
    let document = Document {
        id,
        file: file.to_owned(),
        node,
    };
    match all.documents.iter().find(|d| d.id == document.id) {
        Some(first) => all.problems.push(document.problem(
            "",
            format_args!(
                "It is defined here and at {}:{}, which is the one that counts: keep one of them.",
                first.file, first.node.line
            ),
        )),
        None => all.documents.push(document),
    }
}

/// The objects of a `List`, as `kubectl get -o yaml` writes one.
fn list_items(node: &Node) -> Option<Vec<Node>> {
    let Data::Object(entries) = &node.data else {
        return None;
    };
    let is_list = kind_of(node) == Some("List");
    let items = entries.iter().find(|e| e.key == "items")?;
    match &items.node.data {
        Data::List(items) if is_list => Some(items.clone()),
        _ => None,
    }
}

/// What a document says of its kind, if it is text.
fn kind_of(node: &Node) -> Option<&str> {
    let Data::Object(entries) = &node.data else {
        return None;
    };
    let kind = entries.iter().find(|e| e.key == "kind")?;
    match &kind.node.data {
        Data::Scalar(Value::String(kind)) => Some(kind),
        _ => None,
    }
}

/// Which object a document is about; else the field that does not say so, and a sentence.
fn identify(node: &Node, kinds: &Kinds) -> Result<Id, (&'static str, String)> {
    let object = node.to_json();
    if !object.is_object() {
        return Err((
            "",
            "A manifest is an object with apiVersion, kind, metadata and spec: this is none."
                .into(),
        ));
    }
    let text = |value: &Value, path: &'static str, example: &str| match value {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        Value::Null => Err((
            path,
            format!("{path} is missing: give one, such as {example}."),
        )),
        other => Err((
            path,
            format!(
                "{path} is {}, which is no text: put it in quotes if that is meant.",
                brief(other)
            ),
        )),
    };
    let version = text(&object["apiVersion"], "apiVersion", "chancery.dev/v1alpha1")?;
    let kind = text(&object["kind"], "kind", "TechnicalUser")?;
    let kind = kinds
        .find(&version, &kind)
        .map_err(|(path, sentence)| (path, format!("{path}: {sentence}")))?;
    let metadata = &object["metadata"];
    let name = text(&metadata["name"], "metadata.name", "orders")?;
    let namespace = match &metadata["namespace"] {
        _ if !kind.namespaced() => String::new(),
        Value::Null => "default".to_owned(),
        given => text(given, "metadata.namespace", "acme")?,
    };
    Ok(Id {
        kind,
        namespace,
        name,
    })
}

/// A value that is quoted in a sentence: never much of it.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        other => other.to_string().chars().take(40).collect(),
    }
}
