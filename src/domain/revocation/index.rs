//! What is revoked, as a server looks it up.

use std::collections::BTreeMap;

use super::{OfClient, Revocations};

/// What is revoked, by client id: what a server looks up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    clients: BTreeMap<String, OfClient>,
}

impl Index {
    /// That of these.
    pub fn of(all: &Revocations) -> Self {
        let mut clients = BTreeMap::<String, OfClient>::new();
        for (id, client) in all.0.values().flatten() {
            clients.entry(id.clone()).or_default().join(client);
        }
        Self { clients }
    }

    /// Whether the token of that client with that `jti`, issued at that second, is revoked.
    pub fn is_revoked(&self, id: &str, client_id: &str, issued_at: i64) -> bool {
        self.clients
            .get(client_id)
            .is_some_and(|client| client.holds(id, issued_at))
    }

    /// How many single tokens, and how many clients with all that they were issued until a time.
    pub fn count(&self) -> (usize, usize) {
        (
            self.clients.values().map(|c| c.tokens.len()).sum(),
            self.clients.values().filter(|c| c.before.is_some()).count(),
        )
    }
}
