//! The corpus: `tests/corpus/bad`, each file a manifest that must be refused and the words that
//! must tell why, and `tests/corpus/good`.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A manifest that must be refused.
pub struct Bad {
    pub path: PathBuf,
    pub text: String,
    /// What the refusal must say: the `# expect:` lines.
    pub expect: Vec<String>,
    /// What it must not say: the `# unsaid:` lines.
    pub unsaid: Vec<String>,
    /// What must stand on the server before: the `# first:` line.
    pub first: Option<PathBuf>,
}

impl Bad {
    pub fn name(&self) -> String {
        stem(&self.path)
    }

    /// Read off the text, since not every bad manifest can be parsed.
    pub fn kind(&self) -> &str {
        let line = self.text.lines().find_map(|l| l.strip_prefix("kind: "));
        line.unwrap_or_else(|| panic!("{} names no kind", self.path.display()))
    }

    /// What of the expectation an answer does not say, or says against it.
    pub fn missing_in(&self, answer: &str) -> String {
        let mut missing = String::new();
        for text in self.expect.iter().filter(|text| !answer.contains(*text)) {
            let _ = writeln!(missing, "{}: does not say: {text}", self.name());
        }
        for text in self.unsaid.iter().filter(|text| answer.contains(*text)) {
            let _ = writeln!(missing, "{}: says: {text}", self.name());
        }
        if !missing.is_empty() {
            let _ = writeln!(missing, "  it says: {}", answer.trim());
        }
        missing
    }
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

pub fn bad() -> Vec<Bad> {
    let all: Vec<Bad> = files(&folder().join("bad")).into_iter().map(read).collect();
    assert!(all.len() >= 45, "the corpus has shrunk to {}", all.len());
    all
}

fn read(path: PathBuf) -> Bad {
    let text = text_of(&path);
    let header = |key: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(key));
        lines.map(|rest| rest.trim().to_owned()).collect::<Vec<_>>()
    };
    let expect = header("# expect:");
    assert!(!expect.is_empty(), "{}: no # expect:", path.display());
    let first = header("# first:")
        .pop()
        .map(|first| path.parent().expect("a folder").join(first));
    Bad {
        path,
        text,
        expect,
        unsaid: header("# unsaid:"),
        first,
    }
}

/// By name, so that `client.yaml` comes before `client-changed.yaml`.
pub fn good() -> Vec<PathBuf> {
    files(&folder().join("good"))
}

pub fn text_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// The manifests before which others are judged.
pub fn firsts(bad: &[Bad]) -> BTreeSet<PathBuf> {
    bad.iter().filter_map(|b| b.first.clone()).collect()
}

/// The objects of a file.
pub fn objects(text: &str) -> Result<Vec<Value>, String> {
    text.split("\n---\n")
        .map(|document| serde_saphyr::from_str(document).map_err(|why| why.to_string()))
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder);
    let entries = entries.unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort_by_key(|path| stem(path));
    files
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().expect("a file");
    stem.to_string_lossy().into_owned()
}
