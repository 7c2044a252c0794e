//! Client secrets between the write of their hash and their delivery. Their plain text is here and
//! nowhere else: if the process dies, they are made again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::controllers::Key;

/// The secrets that this process has made and not delivered yet.
#[derive(Default)]
pub struct Made(Mutex<HashMap<Key, MadeSecret>>);

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
        self.lock().insert(of.clone(), secret);
    }

    /// The secret that was made for a technical user.
    pub fn get(&self, of: &Key) -> Option<MadeSecret> {
        self.lock().get(of).cloned()
    }

    /// It was delivered, or is not wanted any more.
    pub fn forget(&self, of: &Key) {
        self.lock().remove(of);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, MadeSecret>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
