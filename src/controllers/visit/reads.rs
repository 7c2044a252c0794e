//! What a visit to a ring reads: from the stores, and from the API server itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, ListParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::api::v1alpha1::SigningKey;
use crate::controllers::operator::{Context, READ_LIMIT};
use crate::controllers::signing_key::{Copies, Elsewhere};
use crate::controllers::{Error, signing_key};
use crate::domain::algorithm::Algorithm;
use crate::domain::jwk::PublicJwk;
use crate::domain::moment::Moment;
use crate::domain::names::RING_LABEL;
use crate::objects::{jwks_map, key_secret, label};
use crate::stores::{Guarded, Stores};

impl signing_key::Reads for Context {
    fn moment(&self) -> Moment {
        self.clock_guard.moment()
    }

    async fn live_secret(&self, name: &str) -> Result<Option<Arc<Secret>>, Error> {
        let namespace = &self.settings.operator_namespace;
        Ok(self.get::<Secret>(namespace, name).await?.map(Arc::new))
    }

    async fn live_config_map(&self, name: &str) -> Result<Option<Arc<ConfigMap>>, Error> {
        let namespace = &self.settings.operator_namespace;
        Ok(self.get::<ConfigMap>(namespace, name).await?.map(Arc::new))
    }

    fn secrets(&self) -> Vec<Arc<Secret>> {
        self.stores.secrets.state()
    }

    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        Stores::get(
            &self.stores.config_maps,
            &self.settings.operator_namespace,
            name,
        )
    }

    fn others(&self, ring: &str) -> BTreeMap<String, Vec<PublicJwk>> {
        self.other_maps(ring)
            .filter_map(|(other, map)| Some((other, jwks_map::read(&map)?.keys)))
            .collect()
    }

    async fn live_key_pairs(&self) -> Result<Vec<Arc<Secret>>, Error> {
        let of_type = ListParams::default().fields(&format!("type={}", key_secret::TYPE));
        self.list(&of_type).await
    }

    async fn live_secrets(&self, ring: &str) -> Result<Vec<Arc<Secret>>, Error> {
        let of_ring = ListParams::default().labels(&format!("{RING_LABEL}={ring}"));
        self.list(&of_ring).await
    }

    async fn live_ring(&self, name: &str) -> Result<Option<Guarded<SigningKey>>, Error> {
        self.get(&self.settings.operator_namespace, name).await
    }

    fn key_of(&self, secret: &Secret, algorithm: Algorithm) -> Result<PublicJwk, String> {
        self.parsed_keys.key_of(secret, algorithm)
    }

    async fn copies(&self, name: &str, ring: Option<&SigningKey>) -> Result<Copies, Error> {
        signing_key::see_copies(self, name, ring).await
    }

    fn peers(&self, ring: &SigningKey) -> Vec<signing_key::Peer> {
        signing_key::peers(&self.stores, &self.settings, ring)
    }

    fn elsewhere(&self, ring: &str) -> Elsewhere {
        let mut elsewhere = Elsewhere::default();
        for (other, map) in self.other_maps(ring) {
            elsewhere.add(&other, &map, true);
        }
        elsewhere
    }

    async fn live_elsewhere(&self, ring: &str) -> Result<Elsewhere, Error> {
        let of_rings = ListParams::default().labels(&format!("{RING_LABEL},{RING_LABEL}!={ring}"));
        let maps: Vec<Arc<ConfigMap>> = self.list(&of_rings).await?;
        let mut elsewhere = Elsewhere::default();
        for map in maps {
            let other = label(&map.metadata, RING_LABEL).unwrap_or_default();
            elsewhere.add(other, &map, self.is_of(other, &map));
        }
        Ok(elsewhere)
    }
}

impl Context {
    /// The objects of the operator's namespace that are so selected, as the API server shows them.
    async fn list<K>(&self, selected: &ListParams) -> Result<Vec<Arc<K>>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let namespace = &self.settings.operator_namespace;
        let what = || format!("listing every {} of {namespace} that is ours", K::kind(&()));
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        match tokio::time::timeout(READ_LIMIT, api.list(selected)).await {
            Err(_) => Err(Error::Timeout(what())),
            Ok(Ok(list)) => Ok(list.items.into_iter().map(Arc::new).collect()),
            Ok(Err(source)) => Err(Error::Api {
                what: what(),
                source: Box::new(source),
            }),
        }
    }

    /// The other rings' own `ConfigMap`s, for those rings that are there.
    fn other_maps(&self, ring: &str) -> impl Iterator<Item = (String, Arc<ConfigMap>)> {
        let maps = self.stores.config_maps.state();
        maps.into_iter().filter_map(move |map| {
            let other = label(&map.metadata, RING_LABEL).filter(|other| *other != ring)?;
            let theirs = self.is_of(other, &map);
            theirs.then(|| (other.to_owned(), map.clone()))
        })
    }

    /// Whether a `ConfigMap` is that of a ring which is there.
    fn is_of(&self, ring: &str, map: &ConfigMap) -> bool {
        let namespace = self.settings.operator_namespace.as_str();
        let owner = Stores::get(&self.stores.signing_keys, namespace, ring);
        let owner = owner.as_deref().and_then(|owner| owner.0.as_ref().ok());
        let living = owner.filter(|owner| owner.metadata.deletion_timestamp.is_none());
        let uid = living.and_then(ResourceExt::uid);
        uid.is_some_and(|uid| jwks_map::is_ring_map(map, ring, &uid))
    }
}
