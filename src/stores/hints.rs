//! What an object points at: labels and owner names, by which a change is brought to whom it
//! concerns, and which are gone with a deleted object.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Resource, ResourceExt};

use super::Guarded;
use crate::api::v1alpha1::{Subscription, TechnicalUser, User};
use crate::domain::names::{RING_LABEL, is_object_name};

pub fn none<K>(_: &K) -> Vec<String> {
    Vec::new()
}

/// The technical user that controls a Secret. Tenants write owner references as they please: what
/// could be no technical user's name goes no further.
fn owning_user(secret: &Secret) -> Option<String> {
    let owners = secret.owner_references().iter();
    let mut ours = owners.filter(|o| {
        o.controller == Some(true)
            && o.kind == "TechnicalUser"
            && o.api_version.starts_with("chancery.dev/")
            && is_object_name(&o.name)
    });
    ours.next().map(|o| o.name.clone())
}

pub fn of_secret(secret: &Secret) -> Vec<String> {
    match crate::objects::credentials::hashes_of(secret) {
        Some((namespace, name, _)) => vec![namespace.to_owned(), name.to_owned()],
        None => ring_of(secret),
    }
}

pub fn of_subscription(subscription: &Guarded<Subscription>) -> Vec<String> {
    match &subscription.0 {
        Ok(subscription) => vec![subscription.spec.legal_entity.id.clone()],
        Err(_) => Vec::new(),
    }
}

/// Its client id, and its device, if it is a companion, or was made as one.
pub fn of_technical_user(user: &Guarded<TechnicalUser>) -> Vec<String> {
    match &user.0 {
        Ok(user) => {
            let device = user.companion_of().map(|(name, _)| name);
            let lost = || user.orphan_of().filter(|name| is_object_name(name));
            let device = device.or_else(lost).map(str::to_owned);
            [user.client_id()].into_iter().chain(device).collect()
        }
        Err(_) => Vec::new(),
    }
}

/// Whom it speaks of.
pub fn of_user(user: &Guarded<User>) -> Vec<String> {
    let person = user.0.as_ref().ok().map(User::person);
    person.into_iter().collect()
}

pub fn of_delivery(secret: &Secret) -> Vec<String> {
    owning_user(secret).into_iter().collect()
}

/// The ring, or namespace and name of the outside provider, whose keys are in it.
pub fn of_config_map(map: &ConfigMap) -> Vec<String> {
    match crate::objects::provider_keys::keys_of(map) {
        Some((namespace, name, _)) => vec![namespace.to_owned(), name.to_owned()],
        None => ring_of(map),
    }
}

pub fn ring_of<K: Resource>(object: &K) -> Vec<String> {
    let ring = object.labels().get(RING_LABEL);
    ring.cloned().into_iter().collect()
}
