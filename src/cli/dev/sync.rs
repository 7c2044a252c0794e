//! Keeps the API server's objects as the manifests say, pass by pass.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::kinds::Kinds;
use super::manifests::{self, Document, Found, Id, Manifests, Problem};
use super::objects::{Done, Objects};
use super::report::{complain, say};

/// The manifests, and what has become of them.
pub struct Sync {
    root: PathBuf,
    /// Where the state is, whole: it is no manifest.
    state: Option<PathBuf>,
    kinds: Arc<Kinds>,
    objects: Objects,
    operator_namespace: String,
    /// What dev has applied and not deleted.
    applied: BTreeSet<Id>,
    /// What has been said of each file, and of which content of it.
    told: BTreeMap<String, Told>,
    /// The files of which something was accepted.
    accepted: BTreeSet<String>,
    /// The objects that were refused when they were last looked at.
    refused: BTreeSet<Id>,
}

/// What has been said of a file.
#[derive(Default)]
struct Told {
    stamp: Option<manifests::Stamp>,
    problems: BTreeSet<Problem>,
}

/// What a pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// To begin with: a file may be half written, so that nothing is deleted and nothing
    /// unreadable is told of.
    First,
    /// The files have been at rest.
    Settled,
}

/// What came of a pass.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Objects made.
    pub created: usize,
    /// Objects changed.
    pub changed: usize,
    /// Objects that were so already.
    pub unchanged: usize,
    /// How many things are wrong.
    pub problems: usize,
    /// Something may work by itself in a while.
    pub again: bool,
}

impl Sync {
    /// Takes up where an earlier process on the same state ended.
    pub async fn new(
        root: PathBuf,
        state: Option<PathBuf>,
        kinds: Kinds,
        objects: Objects,
        operator_namespace: String,
    ) -> Result<Self, String> {
        let mut applied = BTreeSet::new();
        for kind in kinds.all() {
            applied.extend(objects.applied(kind).await?);
        }
        Ok(Self {
            root,
            state,
            kinds: Arc::new(kinds),
            objects,
            operator_namespace,
            applied,
            told: BTreeMap::new(),
            accepted: BTreeSet::new(),
            refused: BTreeSet::new(),
        })
    }

    /// The files as they are now.
    pub fn look(&self) -> Found {
        manifests::find(&self.root, self.state.as_deref())
    }

    /// Applies everything that can be.
    pub async fn pass(&mut self, found: &Found, pass: Pass) -> Result<Outcome, String> {
        let (files, kinds) = (found.clone(), self.kinds.clone());
        // Large files take a while, in which tokens are to be issued and the end is to be noticed.
        let mut manifests = tokio::task::spawn_blocking(move || manifests::read(&files, &kinds))
            .await
            .map_err(|e| format!("the manifests could not be read: {e}"))?;
        let readable = manifests.problems.is_empty();
        let mut outcome = Outcome::default();
        let mut refused = BTreeSet::new();
        let mut operator_namespace_made = false;
        let Manifests {
            documents,
            problems,
            ..
        } = &mut manifests;
        for document in documents.iter() {
            if document.id.kind.order() > 0 && !operator_namespace_made {
                self.operator_namespace().await?;
                operator_namespace_made = true;
            }
            if let Some(problem) = self.misplaced(document) {
                problems.push(problem);
                refused.insert(document.id.clone());
                continue;
            }
            let label = self.label(document);
            match self.objects.apply(document, &label).await {
                Ok(done) => {
                    self.applied.insert(document.id.clone());
                    self.count(&document.id, done, &mut outcome);
                }
                Err(refusal) => {
                    problems.extend(refusal.problems);
                    outcome.again |= refusal.again;
                    refused.insert(document.id.clone());
                }
            }
        }
        if !operator_namespace_made {
            self.operator_namespace().await?;
        }
        outcome.problems = problems.len();
        self.refused = refused;
        let sound = documents.iter().filter(|d| !self.refused.contains(&d.id));
        self.accepted.extend(sound.map(|d| d.file.clone()));
        if pass == Pass::Settled {
            if readable {
                self.prune(documents).await;
            }
            self.tell(found, problems);
        }
        Ok(outcome)
    }

    async fn operator_namespace(&self) -> Result<(), String> {
        self.objects
            .namespace(self.kinds.namespace(), &self.operator_namespace)
            .await
    }

    fn count(&self, id: &Id, done: Done, outcome: &mut Outcome) {
        let (counter, what) = match done {
            Done::Created => (&mut outcome.created, "created"),
            Done::Changed => (&mut outcome.changed, "changed"),
            Done::Unchanged => (&mut outcome.unchanged, "accepted again"),
        };
        *counter += 1;
        // An object that was refused and is now as it was before has been mended too.
        if done != Done::Unchanged || self.refused.contains(id) {
            say(format_args!("{id}: {what}."));
        }
    }

    /// A ring outside of the operator's namespace would wait for ever, and nobody would say why.
    fn misplaced(&self, document: &Document) -> Option<Problem> {
        let id = &document.id;
        let elsewhere = id.kind.name() == "SigningKey" && id.namespace != self.operator_namespace;
        elsewhere.then(|| {
            document.problem(
                "metadata.namespace",
                format_args!(
                    "SigningKeys live in the operator's namespace: write {}.",
                    self.operator_namespace
                ),
            )
        })
    }

    /// The file's name within the directory.
    fn label(&self, document: &Document) -> String {
        let path = std::path::Path::new(&document.file);
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        if inside.as_os_str().is_empty() {
            document.file.clone()
        } else {
            inside.display().to_string()
        }
    }

    /// Deletes what dev applied and no manifest has any more. The namespaces that dev itself
    /// needs stay.
    async fn prune(&mut self, documents: &[Document]) {
        let wanted: BTreeSet<&Id> = documents.iter().map(|d| &d.id).collect();
        let gone: Vec<Id> = self
            .applied
            .iter()
            .filter(|id| !wanted.contains(id))
            .cloned()
            .collect();
        // What others need goes last.
        for id in gone.into_iter().rev() {
            let needed = id.kind.order() == 0
                && (id.name == self.operator_namespace || id.name == "default");
            if needed {
                self.applied.remove(&id);
                continue;
            }
            match self.objects.delete(&id).await {
                Ok(()) => {
                    say(format_args!("{id}: deleted, as its manifest is gone."));
                    self.applied.remove(&id);
                }
                Err(sentence) => complain(format_args!("{sentence}")),
            }
        }
    }

    /// Tells of each problem once, of all of a file's again when the file has changed, and when a
    /// file has none any more.
    fn tell(&mut self, found: &Found, problems: &[Problem]) {
        let mut before = std::mem::take(&mut self.told);
        let mut now: BTreeMap<String, Told> = BTreeMap::new();
        for (path, stamp) in &found.files {
            now.entry(path.display().to_string()).or_default().stamp = Some(*stamp);
        }
        for problem in problems {
            let told = now.entry(problem.file.clone()).or_default();
            told.problems.insert(problem.clone());
        }
        for (file, told) in &now {
            let earlier = before.remove(file).unwrap_or_default();
            let same = earlier.stamp == told.stamp;
            let news = |p: &&Problem| !(same && earlier.problems.contains(*p));
            let news: Vec<&Problem> = told.problems.iter().filter(news).collect();
            for problem in &news {
                complain(format_args!("{problem}"));
            }
            if !news.is_empty() && self.accepted.contains(file) {
                complain(format_args!(
                    "{file}: What was last accepted of it stays in force until that is mended."
                ));
            }
            if told.problems.is_empty() && !earlier.problems.is_empty() {
                say(format_args!("{file}: mended."));
            }
        }
        // What is no file, such as a directory that could not be read, and now can.
        for (file, earlier) in before {
            if !earlier.problems.is_empty() && std::path::Path::new(&file).is_dir() {
                say(format_args!("{file}: mended."));
            }
        }
        self.told = now;
    }
}
