//! What a watch tells, as changes.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

use super::{Change, Watched};

/// Remembers what was there, so that what vanished between two lists is noticed.
pub struct Known<K> {
    kind: Watched,
    hints: fn(&K) -> Vec<String>,
    objects: BTreeMap<(String, String), Memory>,
    listed: BTreeMap<(String, String), Memory>,
}

#[derive(Clone, PartialEq, Eq)]
struct Memory {
    hints: Vec<String>,
    /// What changes with the spec, and not with the status.
    identity: (Option<String>, Option<i64>, bool),
}

impl<K: Resource> Known<K> {
    /// Of nothing yet.
    pub fn new(kind: Watched, hints: fn(&K) -> Vec<String>) -> Self {
        Self {
            kind,
            hints,
            objects: BTreeMap::new(),
            listed: BTreeMap::new(),
        }
    }

    /// What an event changes.
    pub fn take(&mut self, event: &Event<K>) -> Vec<Change> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                // The store shows it from InitDone on.
                let (name, memory) = self.remember(object);
                self.listed.insert(name, memory);
                Vec::new()
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut self.objects, std::mem::take(&mut self.listed));
                let mut all = before;
                all.extend(self.objects.clone());
                all.into_iter()
                    .map(|(name, memory)| self.change(name, memory.hints, true))
                    .collect()
            }
            Event::Apply(object) => {
                let (name, memory) = self.remember(object);
                let before = self.objects.insert(name.clone(), memory.clone());
                let spec = before.is_none_or(|before| before != memory);
                vec![self.change(name, memory.hints, spec)]
            }
            Event::Delete(object) => {
                let (name, memory) = self.remember(object);
                self.objects.remove(&name);
                vec![self.change(name, memory.hints, true)]
            }
        }
    }

    fn remember(&self, object: &K) -> ((String, String), Memory) {
        let meta = object.meta();
        let identity = (
            meta.uid.clone(),
            meta.generation,
            meta.deletion_timestamp.is_some(),
        );
        let name = (object.namespace().unwrap_or_default(), object.name_any());
        (
            name,
            Memory {
                hints: (self.hints)(object),
                identity,
            },
        )
    }

    fn change(
        &self,
        (namespace, name): (String, String),
        hints: Vec<String>,
        spec: bool,
    ) -> Change {
        Change {
            kind: self.kind,
            namespace,
            name,
            hints,
            spec,
        }
    }
}
