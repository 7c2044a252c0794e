//! The objects, their versions and the history that watches read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use serde_json::{Value, json};

use super::ids::Source;
use super::kinds::{Builtin, Kind, Kinds};
use super::meta;
use super::persist::Disk;
use super::request::key;
use super::status::Refusal;

/// How many changes watches and lists at an older version can look back.
const HISTORY_MAX: usize = 8192;
/// How many Events are kept: they are news, and nothing else bounds them.
const EVENTS_MAX: usize = 1000;

/// An object as one write left it.
pub struct Object {
    /// The document, with its `resourceVersion`.
    pub value: Value,
    /// The same version as a number.
    pub version: u64,
}

/// One write.
pub struct Change {
    /// The version it made.
    pub version: u64,
    /// Index of the kind.
    pub kind: usize,
    /// Key of the object.
    pub key: String,
    /// What was there.
    pub before: Option<Arc<Object>>,
    /// What is there; for a removal the last state, under the removal's version.
    pub now: Arc<Object>,
    /// Whether it was a removal.
    pub removed: bool,
}

/// Which object: index of its kind and its key.
pub type Place = (usize, String);

/// Everything the server holds.
pub struct State {
    objects: Vec<BTreeMap<String, Arc<Object>>>,
    uids: BTreeMap<String, Place>,
    dependents: BTreeMap<String, BTreeSet<Place>>,
    history: VecDeque<Arc<Change>>,
    forgotten: u64,
    version: u64,
    disk: Option<Disk>,
    /// Ids to come.
    pub ids: Source,
    /// Objects that garbage collection has yet to look at.
    pub pending: BTreeSet<Place>,
    /// Raised when every open watch is to end.
    pub epoch: u64,
    waiting: BTreeMap<u64, Waker>,
    next_watch: u64,
}

impl State {
    /// An empty server whose versions start after `version`.
    pub fn new(kinds: usize, version: u64, ids: Source, disk: Option<Disk>) -> Self {
        Self {
            objects: (0..kinds).map(|_| BTreeMap::new()).collect(),
            uids: BTreeMap::new(),
            dependents: BTreeMap::new(),
            history: VecDeque::new(),
            forgotten: version,
            version,
            disk,
            ids,
            pending: BTreeSet::new(),
            epoch: 0,
            waiting: BTreeMap::new(),
            next_watch: 0,
        }
    }

    /// The version of the newest write.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Changes after this version are remembered, older ones are not.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// One object.
    pub fn get(&self, kind: &Kind, key: &str) -> Option<&Arc<Object>> {
        self.objects[kind.index].get(key)
    }

    /// One object by its place.
    pub fn at(&self, place: &Place) -> Option<&Arc<Object>> {
        self.objects[place.0].get(&place.1)
    }

    /// Where the object with a UID is.
    pub fn by_uid(&self, uid: &str) -> Option<&Place> {
        self.uids.get(uid)
    }

    /// Which objects name a UID as owner.
    pub fn dependents(&self, uid: &str) -> Vec<Place> {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// All objects of a kind, in the order of their keys.
    pub fn all(&self, kind: &Kind) -> &BTreeMap<String, Arc<Object>> {
        &self.objects[kind.index]
    }

    /// Everything in a namespace.
    pub fn in_namespace(&self, kinds: &Kinds, namespace: &str) -> Vec<Place> {
        let prefix = format!("{namespace}/");
        let namespaced = kinds.all().iter().filter(|k| k.namespaced);
        namespaced
            .flat_map(|kind| {
                self.objects[kind.index]
                    .range(prefix.clone()..)
                    .take_while(|(key, _)| key.starts_with(&prefix))
                    .map(|(key, _)| (kind.index, key.clone()))
            })
            .collect()
    }

    /// All objects of a kind as they were at a version; `None` if that is forgotten.
    pub fn all_at(&self, kind: &Kind, version: u64) -> Option<BTreeMap<String, Arc<Object>>> {
        if version < self.forgotten {
            return None;
        }
        let mut objects = self.objects[kind.index].clone();
        for change in self
            .history
            .iter()
            .rev()
            .take_while(|c| c.version > version)
        {
            if change.kind == kind.index {
                match &change.before {
                    Some(before) => objects.insert(change.key.clone(), before.clone()),
                    None => objects.remove(&change.key),
                };
            }
        }
        Some(objects)
    }

    /// The first change after a version, and its place for the next call's start.
    pub fn changes_after(&self, version: u64) -> impl Iterator<Item = &Arc<Change>> {
        let start = self.history.partition_point(|c| c.version <= version);
        self.history.range(start..)
    }

    /// Keeps an object. Nothing has happened if the disk fails.
    pub fn put(&mut self, kind: &Kind, mut value: Value) -> Result<Arc<Object>, Refusal> {
        let key = key(meta::text(&value, "namespace"), meta::text(&value, "name"));
        let version = self.version + 1;
        meta::metadata(&mut value).insert("resourceVersion".into(), json!(version.to_string()));
        if let Some(disk) = &mut self.disk {
            disk.reserve(version).map_err(|why| disk_error(&why))?;
            if kind.persisted() {
                let (namespace, name) =
                    (meta::text(&value, "namespace"), meta::text(&value, "name"));
                disk.put(&kind.plural, namespace, name, &value)
                    .map_err(|why| disk_error(&why))?;
            }
        }
        let now = Arc::new(Object { value, version });
        let before = self.insert(kind, &key, &now);
        self.record(kind, key, before, now.clone(), false);
        if kind.builtin() == Some(Builtin::Event) && self.objects[kind.index].len() > EVENTS_MAX {
            self.drop_oldest(kind)?;
        }
        Ok(now)
    }

    /// Removes an object. Nothing has happened if the disk fails.
    pub fn remove(&mut self, kind: &Kind, key: &str) -> Result<(), Refusal> {
        let Some(before) = self.objects[kind.index].get(key).cloned() else {
            return Ok(());
        };
        let version = self.version + 1;
        if let Some(disk) = &mut self.disk {
            disk.reserve(version).map_err(|why| disk_error(&why))?;
            if kind.persisted() {
                let (namespace, name) = (
                    meta::text(&before.value, "namespace"),
                    meta::text(&before.value, "name"),
                );
                disk.remove(&kind.plural, namespace, name)
                    .map_err(|why| disk_error(&why))?;
            }
        }
        self.objects[kind.index].remove(key);
        let uid = meta::text(&before.value, "uid");
        self.uids.remove(uid);
        self.unlink(&(kind.index, key.to_owned()), &before.value);
        // Whatever it owned, and the namespace it was in, may be able to go now.
        self.pending.extend(self.dependents(uid));
        let mut value = before.value.clone();
        meta::metadata(&mut value).insert("resourceVersion".into(), json!(version.to_string()));
        let now = Arc::new(Object { value, version });
        self.record(kind, key.to_owned(), Some(before), now, true);
        Ok(())
    }

    /// Takes in an object without a trace in the history: at start.
    pub fn load(&mut self, kind: &Kind, value: Value, version: u64) {
        let key = key(meta::text(&value, "namespace"), meta::text(&value, "name"));
        self.insert(kind, &key, &Arc::new(Object { value, version }));
    }

    fn insert(&mut self, kind: &Kind, key: &str, now: &Arc<Object>) -> Option<Arc<Object>> {
        let place = (kind.index, key.to_owned());
        let before = self.objects[kind.index].insert(key.to_owned(), now.clone());
        if let Some(before) = &before {
            self.unlink(&place, &before.value);
        }
        self.uids
            .insert(meta::text(&now.value, "uid").to_owned(), place.clone());
        let mut owned = false;
        for reference in now.value["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let uid = reference["uid"].as_str().unwrap_or_default().to_owned();
            self.dependents
                .entry(uid)
                .or_default()
                .insert(place.clone());
            owned = true;
        }
        if owned {
            self.pending.insert(place);
        }
        before
    }

    fn unlink(&mut self, place: &Place, value: &Value) {
        for reference in value["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let uid = reference["uid"].as_str().unwrap_or_default();
            if let Some(places) = self.dependents.get_mut(uid) {
                places.remove(place);
                if places.is_empty() {
                    self.dependents.remove(uid);
                }
            }
        }
    }

    fn record(
        &mut self,
        kind: &Kind,
        key: String,
        before: Option<Arc<Object>>,
        now: Arc<Object>,
        removed: bool,
    ) {
        self.version = now.version;
        self.history.push_back(Arc::new(Change {
            version: now.version,
            kind: kind.index,
            key,
            before,
            now,
            removed,
        }));
        while self.history.len() > HISTORY_MAX {
            if let Some(old) = self.history.pop_front() {
                self.forgotten = old.version;
            }
        }
        self.wake();
    }

    fn drop_oldest(&mut self, kind: &Kind) -> Result<(), Refusal> {
        let oldest = self.objects[kind.index]
            .iter()
            .min_by_key(|(_, object)| object.version)
            .map(|(key, _)| key.clone());
        oldest.map_or(Ok(()), |key| self.remove(kind, &key))
    }

    /// Forgets all changes.
    pub fn compact(&mut self) {
        self.history.clear();
        self.forgotten = self.version;
        self.wake();
    }

    /// A number for a new watch; watches are woken in the order of their numbers, so that the
    /// same run wakes them in the same order.
    pub fn new_watch(&mut self) -> u64 {
        self.next_watch += 1;
        self.next_watch
    }

    /// Has a watch woken at the next change.
    pub fn wait(&mut self, watch: u64, waker: Waker) {
        self.waiting.insert(watch, waker);
    }

    /// A watch that has gone.
    pub fn forget_watch(&mut self, watch: u64) {
        self.waiting.remove(&watch);
    }

    /// Wakes every watch.
    pub fn wake(&mut self) {
        for (_, waker) in std::mem::take(&mut self.waiting) {
            waker.wake();
        }
    }
}

fn disk_error(why: &std::io::Error) -> Refusal {
    tracing::error!(error = %why, "the state directory can not be written");
    Refusal::internal(&format!("the state directory can not be written: {why}"))
}
