//! What is revoked, as the server knows it: what stands in the list, and what stands in the outbox
//! and is not home yet, judged as the operator judges it.
//!
//! What was seen once holds until it has expired, also where somebody deletes or alters the list:
//! a revocation that was answered is not taken back.

use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::names::{OUTBOX, REVOCATIONS};
use crate::domain::revocation::{Bounds, Index, Revocations, judge};
use crate::domain::settings::Settings;
use crate::objects::revocations;
use crate::stores::Stores;
use crate::tenancy::Tenancy;

/// All that was seen and has not expired.
#[derive(Default)]
pub struct Revoked {
    all: Revocations,
    index: Arc<Index>,
    /// The versions that were read last.
    versions: [Option<String>; 2],
}

impl Revoked {
    /// What is revoked now.
    pub fn of(
        &mut self,
        stores: &Stores,
        tenancy: &Tenancy,
        settings: &Settings,
        now: Timestamp,
    ) -> Arc<Index> {
        let namespace = settings.operator_namespace.as_str();
        let maps =
            [OUTBOX, REVOCATIONS].map(|name| Stores::get(&stores.config_maps, namespace, name));
        let versions = maps
            .each_ref()
            .map(|map| map.as_ref()?.metadata.resource_version.clone());
        let [outbox, list] = maps;
        let before = self.all.count();
        let mut changed = false;
        // The outbox each time: whose a client is may have become known since.
        if let Some(outbox) = outbox.filter(|map| map.data.is_some()) {
            let may_have = |tenant: &str, id: &str| tenancy.may_be_of(tenant, id);
            let bounds = Bounds::of(settings);
            let (sound, _) = judge(&revocations::noted(&outbox), may_have, now, &bounds);
            self.all.join(&sound);
            changed = true;
        }
        if let Some(list) = list.filter(|_| versions[1] != self.versions[1]) {
            self.all.join(&revocations::read(&list).0);
            changed = true;
        }
        self.versions = versions;
        self.all.forget(now);
        if changed || self.all.count() != before {
            self.index = Arc::new(Index::of(&self.all));
        }
        self.index.clone()
    }
}
