//! Whose turn it is among objects whose time has come: kinds take turns, and within a kind namespaces
//! do. A tenant with many objects makes its own wait, and no other's.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use tokio::time::Instant;

use crate::controllers::{Key, Kind};

/// Objects whose time has come.
#[derive(Debug, Default)]
pub struct Turns {
    kinds: BTreeMap<Kind, OfKind>,
    taken: u64,
}

/// Those of one kind.
#[derive(Debug, Default)]
struct OfKind {
    /// How many of all kinds had been taken when one of this was.
    last: u64,
    /// The namespaces that have one, in the order of their turns.
    order: VecDeque<String>,
    /// Times and names, by namespace; none is empty.
    due: HashMap<String, BTreeSet<(Instant, String)>>,
}

impl Turns {
    /// This one's time, which is that, has come. A namespace that had none comes last.
    pub fn add(&mut self, at: Instant, key: Key) {
        let of_kind = self.kinds.entry(key.kind).or_default();
        let due = of_kind.due.entry(key.namespace.clone()).or_default();
        if due.is_empty() {
            of_kind.order.push_back(key.namespace);
        }
        due.insert((at, key.name));
    }

    /// Takes one out, if it is here.
    pub fn remove(&mut self, at: Instant, key: &Key) {
        let Some(of_kind) = self.kinds.get_mut(&key.kind) else {
            return;
        };
        let Some(due) = of_kind.due.get_mut(&key.namespace) else {
            return;
        };
        due.remove(&(at, key.name.clone()));
        if due.is_empty() {
            of_kind.due.remove(&key.namespace);
            of_kind.order.retain(|of| *of != key.namespace);
        }
    }

    /// Whether there is one of a kind that is not held.
    pub fn any(&self, held: &BTreeSet<Kind>) -> bool {
        self.ready(held).next().is_some()
    }

    fn ready(&self, held: &BTreeSet<Kind>) -> impl Iterator<Item = (&Kind, &OfKind)> {
        let ready = self.kinds.iter();
        ready.filter(|(kind, of)| !of.order.is_empty() && !held.contains(kind))
    }

    /// The one whose turn it is, of a kind that is not held.
    pub fn take(&mut self, held: &BTreeSet<Kind>) -> Option<Key> {
        let (kind, _) = self.ready(held).min_by_key(|(_, of)| of.last)?;
        let kind = *kind;
        let of_kind = self.kinds.get_mut(&kind)?;
        self.taken += 1;
        of_kind.last = self.taken;
        let namespace = of_kind.order.pop_front()?;
        let due = of_kind.due.get_mut(&namespace)?;
        let (_, name) = due.pop_first()?;
        if due.is_empty() {
            of_kind.due.remove(&namespace);
        } else {
            of_kind.order.push_back(namespace.clone());
        }
        Some(Key {
            kind,
            namespace,
            name,
        })
    }
}
