//! Where supplied client secrets are compared and hashed: beside the visits, as each comparison takes a
//! quarter of a second and more. A visit asks, and is made again once the answer is there.
//!
//! - **Few threads**, all cores but one, so that whatever else there is to do goes on.
//! - **In turns.** Namespaces take turns, one job each: a tenant whose client secrets change all the time makes
//!   its own wait. A technical user has at most [`MOST_JOBS`] waiting; what is newer takes the place of
//!   what is older.
//! - **Once.** Which hash is of which client secret is remembered for as long as the process lives, by an
//!   HMAC under a key of the process: what it has hashed or compared itself it need not compare again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use aws_lc_rs::hmac;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::controllers::{Error, Key};
use crate::crypto::{hash, random};

/// How many jobs of one technical user wait: one for each Secret that it may name.
const MOST_JOBS: usize = 2;
/// How many facts are remembered of one technical user, besides those of stored hashes.
const MOST_FACTS: usize = 16;

type Tag = [u8; 32];

/// What is known of a client secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It is the one with that stored hash, which has the cost that is wanted.
    Same(String),
    /// This is its hash. `instead_of`: the stored one, which has another cost.
    New {
        /// Its hash.
        hash: String,
        /// The stored one.
        instead_of: Option<String>,
    },
    /// Nothing yet: the technical user is visited again once there is.
    Pending,
}

/// What is asked of a client secret.
pub struct Question<'a> {
    /// The technical user.
    pub of: &'a Key,
    /// Where it stands: the Secret's name and the key in it.
    pub place: (&'a str, &'a str),
    /// Itself.
    pub plain: &'a Zeroizing<String>,
    /// The stored hashes that may be its own.
    pub stored: &'a [String],
    /// The bcrypt cost that its hash is to have.
    pub cost: u32,
}

/// Compares and hashes.
pub struct Hashing {
    key: hmac::Key,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    finished: Notify,
    threads: usize,
}

#[derive(Default)]
struct State {
    /// The namespaces for which jobs wait, in the order of their turns.
    turns: VecDeque<String>,
    /// By namespace; none is empty.
    waiting: HashMap<String, VecDeque<Job>>,
    running: HashSet<(Key, Tag)>,
    threads: usize,
    facts: HashMap<Key, VecDeque<Fact>>,
    faults: HashMap<Key, String>,
    /// Whose jobs are done.
    finished: Vec<Key>,
}

/// Whether a hash is of a client secret.
struct Fact {
    tag: Tag,
    hash: String,
    fits: bool,
}

struct Job {
    of: Key,
    place: (String, String),
    tag: Tag,
    plain: Zeroizing<String>,
    /// What it is to be compared with.
    compare: Vec<String>,
    /// All that is stored.
    stored: Vec<String>,
    /// The cost of the hash that is to be made, if it is none of those.
    make: Option<u32>,
}

impl Default for Hashing {
    /// With all cores but one.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::with_threads(cores.saturating_sub(1).max(1))
    }
}

impl Hashing {
    fn with_threads(threads: usize) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()),
            shared: Arc::new(Shared {
                state: Mutex::default(),
                finished: Notify::new(),
                threads,
            }),
        }
    }

    /// What is known of a client secret; what is not is found out, beside all else. Within a Tokio
    /// runtime.
    pub fn judge(&self, question: &Question<'_>) -> Result<Judged, Error> {
        let &Question {
            of, stored, cost, ..
        } = question;
        let mut tag = [0; 32];
        tag.copy_from_slice(hmac::sign(&self.key, question.plain.as_bytes()).as_ref());
        let mut state = self.shared.state();
        if let Some(fault) = state.faults.remove(of) {
            return Err(Error::Material(fault));
        }
        let facts = state.facts.get(of);
        let facts = || facts.into_iter().flatten();
        let fits = |hash: &String| {
            let mut of_hash = facts().filter(|f| f.hash == *hash);
            // What fits another one does not fit this.
            of_hash.find_map(|f| (f.tag == tag || f.fits).then_some(f.tag == tag && f.fits))
        };
        let is_wanted = |stored: &str| hash::cost_of(stored) == Some(cost);
        let same = stored.iter().find(|hash| fits(hash) == Some(true));
        let mut made = facts().filter(|f| f.fits && f.tag == tag && is_wanted(&f.hash));
        let made = made.next().map(|f| f.hash.clone());
        let unknown = stored.iter().filter(|hash| fits(hash).is_none());
        let compare: Vec<String> = match same {
            Some(_) => Vec::new(),
            None => unknown.cloned().collect(),
        };
        let wanted = made.is_none().then_some(cost);
        match (same, made) {
            (Some(same), _) if is_wanted(same) => return Ok(Judged::Same(same.clone())),
            (_, Some(hash)) if compare.is_empty() => {
                let instead_of = same.cloned();
                return Ok(Judged::New { hash, instead_of });
            }
            _ => {}
        }
        let (secret, key) = question.place;
        state.submit(Job {
            of: of.clone(),
            place: (secret.to_owned(), key.to_owned()),
            tag,
            plain: question.plain.clone(),
            compare,
            stored: stored.to_vec(),
            make: wanted,
        });
        if state.threads < self.shared.threads {
            state.threads += 1;
            let shared = Arc::downgrade(&self.shared);
            tokio::task::spawn_blocking(move || work(&shared));
        }
        Ok(Judged::Pending)
    }

    /// Waits until jobs are done, and gives the technical users that had them.
    pub async fn finished(&self) -> Vec<Key> {
        self.shared.finished.notified().await;
        std::mem::take(&mut self.shared.state().finished)
    }

    /// The technical user is gone, or nobody supplies its client secrets any more.
    pub fn forget(&self, of: &Key) {
        let mut state = self.shared.state();
        state.facts.remove(of);
        state.faults.remove(of);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn submit(&mut self, job: Job) {
        if self.running.contains(&(job.of.clone(), job.tag)) {
            return;
        }
        let namespace = job.of.namespace.clone();
        let waiting = self.waiting.entry(namespace.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(namespace);
        }
        let same = |other: &&mut Job| other.of == job.of && other.place == job.place;
        if let Some(older) = waiting.iter_mut().find(same) {
            *older = job;
            return;
        }
        // Of places that are not named any more.
        if waiting.iter().filter(|other| other.of == job.of).count() >= MOST_JOBS
            && let Some(oldest) = waiting.iter().position(|other| other.of == job.of)
        {
            waiting.remove(oldest);
        }
        waiting.push_back(job);
    }

    /// The job whose turn it is.
    fn take(&mut self) -> Option<Job> {
        let namespace = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&namespace)?;
        let job = waiting.pop_front()?;
        if waiting.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.turns.push_back(namespace);
        }
        self.running.insert((job.of.clone(), job.tag));
        Some(job)
    }

    fn settle(&mut self, job: Job, outcome: Result<Vec<Fact>, String>) {
        self.running.remove(&(job.of.clone(), job.tag));
        match outcome {
            Ok(new) => {
                let facts = self.facts.entry(job.of.clone()).or_default();
                facts.extend(new);
                let spare = |f: &Fact| !f.fits || !job.stored.contains(&f.hash);
                let mut over = facts.iter().filter(|f| spare(f)).count();
                facts.retain(|f| {
                    let goes = over > MOST_FACTS && spare(f);
                    over -= usize::from(goes);
                    !goes
                });
            }
            Err(fault) => {
                self.faults.insert(job.of.clone(), fault);
            }
        }
        if !self.finished.contains(&job.of) {
            self.finished.push(job.of);
        }
    }
}

impl Job {
    /// Blocks as bcrypt does.
    fn run(&self) -> Result<Vec<Fact>, String> {
        let fact = |hash: &str, fits| Fact {
            tag: self.tag,
            hash: hash.to_owned(),
            fits,
        };
        let mut facts = Vec::new();
        for stored in &self.compare {
            let fits = hash::verify(&self.plain, stored);
            facts.push(fact(stored, fits));
            if fits {
                return Ok(facts);
            }
        }
        if let Some(cost) = self.make {
            let made = hash::hash(&self.plain, cost).map_err(|e| e.to_string())?;
            facts.push(fact(&made, true));
        }
        Ok(facts)
    }
}

/// Works off what waits, as long as anybody wants it.
fn work(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let job = {
            let mut state = shared.state();
            let Some(job) = state.take() else {
                state.threads -= 1;
                return;
            };
            job
        };
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| job.run()));
        let outcome = outcome.unwrap_or_else(|_| Err("hashing a client secret panicked".into()));
        shared.state().settle(job, outcome);
        shared.finished.notify_one();
    }
}

#[cfg(test)]
mod tests;
