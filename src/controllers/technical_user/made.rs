//! Client secrets between the write of their hash and their delivery. Their plain text is here and
//! nowhere else: if the process dies, they are made again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::controllers::Key;

/// The secrets that this process has made and not delivered yet, and those that others may be about to
/// deliver.
#[derive(Default)]
pub struct Made {
    own: Mutex<HashMap<Key, MadeSecret>>,
    /// The hash of such a secret, and when it was first seen.
    others: Mutex<HashMap<Key, (String, Instant)>>,
}

/// A client secret whose hash is stored.
#[derive(Clone)]
pub struct MadeSecret {
    /// What the credential is called.
    pub id: String,
    /// Its hash, as it was stored.
    pub hash: String,
    /// The secret itself.
    pub plain: Zeroizing<String>,
    /// When its hash was stored.
    pub since: Instant,
}

impl Made {
    /// Remembers a secret, in the place of an earlier one.
    pub fn put(&self, of: &Key, secret: MadeSecret) {
        lock(&self.own).insert(of.clone(), secret);
    }

    /// The secret that was made for a technical user.
    pub fn get(&self, of: &Key) -> Option<MadeSecret> {
        lock(&self.own).get(of).cloned()
    }

    /// It was delivered, or is not wanted any more.
    pub fn forget(&self, of: &Key) {
        lock(&self.own).remove(of);
        lock(&self.others).remove(of);
    }

    /// How long ago the hash of a secret was first seen here that nobody has delivered yet, and that this
    /// process has not made: judged by this process's own time, whatever clocks say.
    pub fn others_wait(&self, of: &Key, hash: &str) -> Duration {
        let mut others = lock(&self.others);
        let seen = others.get(of).filter(|(known, _)| known == hash);
        let since = seen.map_or_else(Instant::now, |(_, since)| *since);
        others.insert(of.clone(), (hash.to_owned(), since));
        since.elapsed()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
