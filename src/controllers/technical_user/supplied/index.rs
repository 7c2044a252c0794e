//! Which technical users name a Secret: there may be as many Secrets in a cluster as there are technical
//! users, and each change of any is asked about.

use std::collections::HashMap;

use kube::ResourceExt;

use crate::stores::Stores;

/// The technical users by the Secrets that they name.
#[derive(Default)]
pub struct Index {
    /// For which [`Stores::tenancy_version`] it was made.
    version: Option<u64>,
    /// By namespace and name of the Secret.
    users: HashMap<(String, String), Vec<String>>,
}

impl Index {
    /// The names of the technical users of that namespace that name this Secret.
    pub fn named(&mut self, stores: &Stores, namespace: &str, secret: &str) -> &[String] {
        let version = stores.tenancy_version();
        if self.version != Some(version) {
            // Noted first: what changes meanwhile is looked at again.
            self.version = Some(version);
            self.users = all(stores);
        }
        let of = (namespace.to_owned(), secret.to_owned());
        self.users.get(&of).map_or(&[], Vec::as_slice)
    }
}

fn all(stores: &Stores) -> HashMap<(String, String), Vec<String>> {
    let mut users: HashMap<_, Vec<String>> = HashMap::new();
    for user in stores.technical_users.state() {
        let Ok(user) = &user.0 else { continue };
        let spec = user.secret_credential().filter(|s| s.is_supplied());
        for place in spec.iter().flat_map(|s| &s.secret_refs) {
            let of = (user.namespace().unwrap_or_default(), place.name.clone());
            users.entry(of).or_default().push(user.name_any());
        }
    }
    users
}
