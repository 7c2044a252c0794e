//! What is revoked, as the server knows it: what stands in the list, and what stands in the outbox
//! and is not home yet, judged as the operator judges it.
//!
//! What was seen once holds until it has expired, also where somebody deletes or alters the list:
//! a revocation that was answered is not taken back.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use crate::domain::client::{Client, Family};
use crate::domain::names::{OUTBOX, REVOCATIONS};
use crate::domain::revocation::{Bounds, Index, Revocations, judge};
use crate::domain::settings::Settings;
use crate::objects::{credentials, revocations};
use crate::stores::Stores;
use crate::tenancy::Tenancy;

/// All that was seen and has not expired.
#[derive(Default)]
pub struct Revoked {
    all: Revocations,
    index: Arc<Index>,
    /// Devices that have revoked themselves, which the operator has not written down yet, by namespace and
    /// client id.
    devices: BTreeMap<(String, String), i64>,
    /// The versions that were read last.
    versions: [Option<String>; 2],
}

impl Revoked {
    /// Whether a client has revoked itself, as far as only the outbox has told. That holds until its
    /// hashes' Secret says it too, which comes by another watch, or that it is over.
    pub fn is_revoked_device(
        &mut self,
        client: &Client,
        created: Option<Timestamp>,
        hashes: Option<&Secret>,
    ) -> bool {
        let device = (client.namespace.clone(), client.id.clone());
        let Some(at) = self.devices.get(&device) else {
            return false;
        };
        let newer = |time: Timestamp| time.as_second() > *at;
        // That a schedule has made another secret meanwhile does not settle it.
        let last = client.last_revocation.map(Timestamp::as_second);
        let back = last.is_some_and(|last| last >= *at);
        let noted = hashes.and_then(credentials::revoked).is_some();
        let settled = noted || back || created.is_some_and(newer);
        if settled {
            self.devices.remove(&device);
        }
        !settled && client.family == Family::Device
    }

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
            let (mut sound, _) = judge(&revocations::noted(&outbox), may_have, now, &bounds);
            let devices = sound.take_devices().into_iter();
            self.devices
                .extend(devices.map(|d| ((d.tenant, d.client_id), d.at)));
            self.all.join(&sound);
            changed = true;
        }
        if let Some(list) = list.filter(|_| versions[1] != self.versions[1]) {
            let mut listed = revocations::read(&list).0;
            listed.take_devices();
            self.all.join(&listed);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::v1alpha1::TechnicalUser;

    fn device(namespace: &str) -> Client {
        let user = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
            "metadata": {"name": "phone", "namespace": namespace},
            "spec": {
                "clientId": "vic.phone", "family": "Device", "audiences": ["a"],
                "credential": {"secret": {}},
            },
        });
        let user: TechnicalUser = serde_json::from_value(user).expect("a device");
        super::super::client(&user, None, Arc::default())
    }

    /// Another tenant's, of the same client id and made after it, settles nothing.
    #[test]
    fn what_is_noted_of_a_device_is_that_ones_alone() {
        let mut revoked = Revoked::default();
        let at = |second| Timestamp::from_second(second).ok();
        let key = ("vic".to_owned(), "vic.phone".to_owned());
        revoked.devices.insert(key, 100);
        assert!(!revoked.is_revoked_device(&device("mallory"), at(200), None));
        assert!(revoked.is_revoked_device(&device("vic"), at(50), None));
        // One that was made after it has a credential of its own.
        assert!(!revoked.is_revoked_device(&device("vic"), at(200), None));
    }
}
