//! YAML with positions: what `kubectl apply` would read, and on which line each field stands.
//!
//! The documents of a file are told apart first, as kubectl does it, so that a mistake in one
//! leaves the others readable.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Value};

use super::scalar;

/// Deeper than any manifest; what is deeper still is a mistake or an attack.
const DEPTH_MAX: usize = 100;
/// How many values a document may have once its aliases are followed.
const NODES_MAX: usize = 200_000;

/// A value, and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its line, from 1.
    pub line: usize,
    /// The value.
    pub data: Data,
    /// How many values it is made of.
    size: usize,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Data {
    /// Text, a number, a boolean or null.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// An object, in the order of the file.
    Object(Vec<Entry>),
}

/// A field of an object.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// The line of the name.
    pub line: usize,
    /// Its value.
    pub node: Node,
}

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// A sentence.
    pub sentence: String,
}

impl Node {
    fn new(line: usize, data: Data) -> Self {
        let size = 1 + match &data {
            Data::Scalar(_) => 0,
            Data::List(items) => items.iter().map(|n| n.size).sum(),
            Data::Object(entries) => entries.iter().map(|e| e.node.size).sum(),
        };
        Self { line, data, size }
    }

    /// The value alone.
    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(items) => items.iter().map(Self::to_json).collect(),
            Data::Object(entries) => entries
                .iter()
                .map(|e| (e.key.clone(), e.node.to_json()))
                .collect::<Map<_, _>>()
                .into(),
        }
    }

    /// The line of a field by its path as the API server writes it (`spec.roles[1]`); of the
    /// nearest that is there, where it is missing.
    pub fn line_of(&self, path: &str) -> usize {
        let (mut node, mut line) = (self, self.line);
        let mut rest = path.trim_start_matches('.');
        loop {
            let next = match &node.data {
                Data::Scalar(_) => None,
                Data::List(items) => rest
                    .strip_prefix('[')
                    .and_then(|r| r.split_once(']'))
                    .and_then(|(index, after)| {
                        Some((items.get(index.parse::<usize>().ok()?)?, after))
                    })
                    .map(|(item, after)| (item, item.line, after)),
                // Keys may have dots in them: the longest that fits is meant.
                Data::Object(entries) => entries
                    .iter()
                    .filter_map(|e| Some((e, after_key(rest, &e.key)?)))
                    .max_by_key(|(e, _)| e.key.len())
                    .map(|(e, after)| (&e.node, e.line, after)),
            };
            let Some((found, at, after)) = next else {
                return line;
            };
            (node, line) = (found, at);
            rest = after.trim_start_matches('.');
        }
    }
}

/// What follows a key at the start of a path, if it stands there.
fn after_key<'a>(path: &'a str, key: &str) -> Option<&'a str> {
    if let Some(bracketed) = path.strip_prefix('[') {
        return bracketed.strip_prefix(key)?.strip_prefix(']');
    }
    let after = path.strip_prefix(key)?;
    (!key.is_empty() && (after.is_empty() || after.starts_with(['.', '[']))).then_some(after)
}

/// The documents of a file, each by itself; empty ones are left out.
pub fn documents(text: &str) -> Vec<Result<Node, Fault>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (offset, chunk) in chunks(text) {
        parse(chunk, offset, &mut found);
    }
    found
}

/// The file, cut before each line that begins a document, with the number of lines before each.
/// Directives and comments stay with the document that they precede.
fn chunks(text: &str) -> Vec<(usize, &str)> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 0, 0);
    let mut content = false;
    for (line, whole) in text.split_inclusive('\n').enumerate() {
        let marker = whole
            .strip_prefix("---")
            .is_some_and(|r| r.is_empty() || r.starts_with([' ', '\t', '\r', '\n']));
        if marker && content {
            chunks.push((start_line, &text[start..at]));
            (start, start_line) = (at, line);
        }
        let trimmed = whole.trim();
        content |=
            marker || !(trimmed.is_empty() || trimmed.starts_with('#') || whole.starts_with('%'));
        at += whole.len();
    }
    chunks.push((start_line, &text[start..]));
    chunks
}

fn parse(text: &str, offset: usize, found: &mut Vec<Result<Node, Fault>>) {
    let mut builder = Builder::new(offset);
    for event in Parser::new_from_str(text) {
        match event {
            Ok((Event::DocumentEnd, _)) => {
                let done = std::mem::replace(&mut builder, Builder::new(offset));
                match (done.fault, done.root) {
                    (Some(fault), _) => found.push(Err(fault)),
                    (None, Some(root)) if !is_null(&root) => found.push(Ok(root)),
                    _ => {}
                }
            }
            Ok((event, span)) => builder.take(event, span),
            Err(error) => {
                found.push(Err(builder.fault.take().unwrap_or_else(|| Fault {
                    line: offset + error.marker().line().max(1),
                    sentence: format!(
                        "This is not YAML (column {}): {}.",
                        error.marker().col() + 1,
                        error.info().trim_end_matches('.')
                    ),
                })));
                return;
            }
        }
    }
}

fn is_null(node: &Node) -> bool {
    matches!(&node.data, Data::Scalar(Value::Null))
}

/// Puts a document together from the parser's events.
struct Builder {
    offset: usize,
    open: Vec<(Frame, usize)>,
    anchors: HashMap<usize, Node>,
    /// How many values aliases have brought.
    copied: usize,
    root: Option<Node>,
    /// The first thing that is wrong; what follows is skipped.
    fault: Option<Fault>,
}

/// A list or an object that has not ended yet.
enum Frame {
    List(usize, Vec<Node>),
    Object {
        line: usize,
        entries: Vec<Entry>,
        /// The names so far, as looking through the entries takes too long where they are many.
        names: HashSet<String>,
        key: Option<(String, usize)>,
    },
}

impl Builder {
    fn new(offset: usize) -> Self {
        Self {
            offset,
            open: Vec::new(),
            anchors: HashMap::new(),
            copied: 0,
            root: None,
            fault: None,
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span) {
        if self.fault.is_some() {
            return;
        }
        let line = self.offset + span.start.line();
        if let Err(sentence) = self.add(event, line) {
            self.fault = Some(Fault { line, sentence });
        }
    }

    fn add(&mut self, event: Event<'_>, line: usize) -> Result<(), String> {
        match event {
            Event::SequenceStart(anchor, _) => self.open(Frame::List(line, Vec::new()), anchor),
            Event::MappingStart(anchor, _) => self.open(
                Frame::Object {
                    line,
                    entries: Vec::new(),
                    names: HashSet::new(),
                    key: None,
                },
                anchor,
            ),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some((Frame::List(line, items), anchor)) => {
                    self.put(Node::new(line, Data::List(items)), anchor)
                }
                Some((Frame::Object { line, entries, .. }, anchor)) => {
                    self.put(Node::new(line, Data::Object(merged(entries)?)), anchor)
                }
                None => Ok(()),
            },
            Event::Scalar(text, style, anchor, tag) => {
                if let Some((
                    Frame::Object {
                        entries,
                        names,
                        key,
                        ..
                    },
                    _,
                )) = self.open.last_mut()
                    && key.is_none()
                {
                    *key = Some((new_key(entries, names, &text, style)?, line));
                    return Ok(());
                }
                let value = scalar_value(&text, style, tag.as_deref())?;
                self.put(Node::new(line, Data::Scalar(value)), anchor)
            }
            Event::Alias(anchor) => {
                let copy = self.anchors.get(&anchor).cloned();
                let Some(mut copy) = copy else {
                    return Err("This alias stands inside of what it repeats.".into());
                };
                self.copied += copy.size;
                if self.copied > NODES_MAX {
                    return Err(format!(
                        "The aliases of this document repeat more than {NODES_MAX} values."
                    ));
                }
                copy.line = line;
                self.put(copy, 0)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, frame: Frame, anchor: usize) -> Result<(), String> {
        if let Some((Frame::Object { key: None, .. }, _)) = self.open.last() {
            return Err(
                "A field's name must be text: here stands a list or an object in its place.".into(),
            );
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(format!(
                "Lists and objects are nested more than {DEPTH_MAX} deep here."
            ));
        }
        self.open.push((frame, anchor));
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((Frame::List(_, items), _)) => items.push(node),
            Some((Frame::Object { entries, key, .. }, _)) => {
                let Some((key, line)) = key.take() else {
                    return Err(
                        "A field's name must be text: here stands an alias in its place.".into(),
                    );
                };
                entries.push(Entry { key, line, node });
            }
        }
        Ok(())
    }
}

/// A field's name, if the object does not have it yet.
fn new_key(
    entries: &[Entry],
    names: &mut HashSet<String>,
    text: &str,
    style: ScalarStyle,
) -> Result<String, String> {
    if text.is_empty() && style == ScalarStyle::Plain {
        return Err("A field's name is missing before the colon.".into());
    }
    if names.insert(text.to_owned()) {
        return Ok(text.to_owned());
    }
    let first = entries.iter().find(|e| e.key == text);
    Err(format!(
        "{text} stands here a second time, after line {}: keep one.",
        first.map_or(0, |e| e.line)
    ))
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let core = tag
        .filter(|t| t.is_yaml_core_schema())
        .map(|t| t.suffix.as_str());
    match (core, style) {
        (Some("str" | "binary"), _) => Ok(text.into()),
        (None, ScalarStyle::Plain) | (Some(_), _) => scalar::plain(text),
        _ => Ok(text.into()),
    }
}

/// Merge keys (`<<: *defaults`): what they bring, where the object does not say it itself.
fn merged(entries: Vec<Entry>) -> Result<Vec<Entry>, String> {
    let (merges, mut own): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|e| e.key == "<<");
    if merges.is_empty() {
        return Ok(own);
    }
    let mut names: HashSet<String> = own.iter().map(|e| e.key.clone()).collect();
    for merge in merges {
        let sources = match merge.node.data {
            Data::List(items) => items,
            data => vec![Node::new(merge.line, data)],
        };
        for source in sources {
            let Data::Object(entries) = source.data else {
                return Err(
                    "`<<` merges objects: give it an alias of one, or a list of those.".into(),
                );
            };
            for entry in entries {
                if names.insert(entry.key.clone()) {
                    own.push(entry);
                }
            }
        }
    }
    Ok(own)
}
