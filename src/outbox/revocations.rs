//! Tokens that are revoked, and devices that revoke themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;

use super::{Answer, Book, Notes};
use crate::clock::SharedClock;
use crate::domain::names::{OUTBOX, REVOCATIONS};
use crate::domain::revocation::{self, Bounds, OfTenant, leeway};
use crate::domain::settings::Settings;
use crate::objects::revocations;
use crate::serve::revoke::{Note, Outbox, Unnoted, What};
use crate::stores::Stores;

impl Outbox for Notes<Note> {
    fn note(&self, note: Note) -> BoxFuture<'static, Answer> {
        self.take(note)
    }
}

/// How revocations are noted.
pub struct Revocations {
    /// The release's settings.
    pub settings: Arc<Settings>,
    /// The time.
    pub clock: SharedClock,
    /// What is home already counts towards the bounds.
    pub stores: Stores,
}

impl Book for Revocations {
    type Note = Note;
    const MAP: &'static str = OUTBOX;

    fn noted(
        &self,
        map: &ConfigMap,
        notes: &[Note],
    ) -> (Option<BTreeMap<String, String>>, Vec<Answer>) {
        let namespace = self.settings.operator_namespace.as_str();
        let home = Stores::get(&self.stores.config_maps, namespace, REVOCATIONS);
        let home = home
            .map(|map| revocations::read(&map).0)
            .unwrap_or_default();
        let before = revocations::noted(map);
        let mut outbox = revocation::Revocations::default();
        let mut foreign = 0;
        for (tenant, text) in &before {
            match serde_json::from_str::<OfTenant>(text) {
                Ok(clients) => outbox.join_tenant(tenant, &clients),
                // Somebody's by hand: the operator tells of it.
                Err(_) => foreign += tenant.len() + text.len(),
            }
        }
        let mut bounds = Bounds::of(&self.settings);
        bounds.bytes = bounds.bytes.saturating_sub(foreign);
        let with = (self.clock.now(), leeway(&self.settings), &bounds);
        let (mut changed, mut answers) = (false, Vec::with_capacity(notes.len()));
        for note in notes {
            let of = (note.namespace.as_str(), note.client_id.as_str());
            let outcome = match &note.what {
                What::Token(token) => outbox.revoke(&home, of, token, with),
                What::Device { companion, from } => {
                    let also = (companion.as_deref(), *from);
                    outbox.revoke_device(&home, of, also, (with.0, &bounds))
                }
            };
            changed |= outcome == Ok(true);
            answers.push(outcome.map(drop).map_err(|_| Unnoted::Full));
        }
        let mut data = before;
        data.extend(revocations::write(&outbox).unwrap_or_default());
        (changed.then_some(data), answers)
    }
}
