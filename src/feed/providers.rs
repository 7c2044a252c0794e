//! Which outside providers are trusted, with their keys.

use std::collections::HashSet;
use std::sync::Arc;

use kube::ResourceExt;

use super::Feed;
use crate::domain::provider::Provider;
use crate::objects::provider_keys;
use crate::serve::snapshot::PublishedJwks;
use crate::serve::trust::OutsideProvider;
use crate::stores::Stores;

impl Feed {
    /// The ids of those that are not active.
    pub(super) fn inactive_providers(&self) -> HashSet<String> {
        let tenancy = self.tenancy.get(&self.stores, &self.settings);
        let all = tenancy.providers.values();
        let all = all.filter_map(|judged| judged.provider.as_ref());
        all.filter(|p| !p.active).map(Provider::id).collect()
    }

    /// The active providers of this release against which nothing stands: without those whose keys were
    /// dropped, and with those that have not answered yet. `own` is what this server signs with: no other may
    /// have one of its keys.
    pub(super) fn providers(&mut self, own: Option<&PublishedJwks>) -> Vec<Arc<OutsideProvider>> {
        let tenancy = self.tenancy.get(&self.stores, &self.settings);
        let settings = self.settings.clone();
        let mut trusted = Vec::new();
        for ((namespace, name), judged) in &tenancy.providers {
            let stored = Stores::get(&self.stores.oidc_providers, namespace, name);
            let resource = stored.as_ref().and_then(|stored| stored.0.as_ref().ok());
            let same = resource.filter(|r| r.uid().as_ref() == Some(&judged.uid));
            let (Some(provider), Some(resource)) = (judged.trusted(), same) else {
                continue;
            };
            let fetched = resource.spec.well_known_uri.is_some();
            let (jwks, good_until) = if fetched {
                let map_name = provider_keys::name_of(namespace, name, &settings);
                let map = Stores::get(
                    &self.stores.config_maps,
                    &settings.operator_namespace,
                    &map_name,
                );
                let known = map.and_then(|map| provider_keys::read(&map, resource));
                let known = known.filter(|known| known.is_of(resource));
                let until = known.as_ref().map(|known| known.good_until(&settings));
                (known.map(|known| known.keys).unwrap_or_default(), until)
            } else {
                (resource.spec.jwks.keys.clone(), None)
            };
            let unanswered = fetched && good_until.is_none();
            let mut keys = self.client_keys.of_provider(&jwks);
            keys.0
                .retain(|key| own.is_none_or(|own| !own.keys.contains(key.key_id())));
            if keys.0.is_empty() && !unanswered {
                continue;
            }
            trusted.push(Arc::new(OutsideProvider {
                uid: judged.uid.clone(),
                provider: provider.clone(),
                keys,
                fetched,
                good_until,
            }));
        }
        trusted
    }
}
