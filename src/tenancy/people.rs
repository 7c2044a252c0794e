//! Whom Users name: gathered once for all of them, and again only when one has changed.

use std::sync::{Arc, Mutex, PoisonError};

use crate::api::v1alpha1::User;
use crate::domain::user::People;
use crate::stores::Stores;

/// The people of a version of the stores.
#[derive(Debug, Default)]
pub struct PeopleCache(Mutex<Option<(u64, Arc<People>)>>);

impl PeopleCache {
    /// The people as of now.
    pub fn get(&self, stores: &Stores) -> Arc<People> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before gathering: a change in between makes the next look gather again.
        let version = stores.people_version();
        match &*cached {
            Some((of, people)) if *of == version => people.clone(),
            _ => {
                let users = stores.users.state();
                let readable = users.iter().filter_map(|user| user.0.as_ref().ok());
                let people = Arc::new(People::of(readable.map(User::facts)));
                *cached = Some((version, people.clone()));
                people
            }
        }
    }
}
