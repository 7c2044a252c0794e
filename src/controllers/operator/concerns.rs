//! Whom a change concerns: which objects are visited because of it.

use kube::ResourceExt as _;
use tokio::time::Instant;

use super::Operator;
use crate::api::v1alpha1::{SigningKey, User};
use crate::controllers::queue::Queue;
use crate::controllers::{Key, Kind, signing_key, technical_user};
use crate::domain::names;
use crate::objects::jwks_map;
use crate::stores::{Change, Guarded, Stores, Watched};
use crate::tenancy::Claim;

impl Operator {
    /// Whom a change concerns.
    pub(super) fn enqueue(&mut self, change: &Change, queue: &mut Queue) {
        let now = Instant::now();
        let Change {
            kind,
            namespace,
            name,
            hints,
            spec,
        } = change;
        if *kind == Watched::SigningKeys {
            if *spec {
                // An emergency is not to wait for what failed before.
                queue.forgive(&ring_key(namespace, name));
            }
            self.weigh(namespace, name, queue);
        }
        let mut add = |kind, namespace: &str, name: &str| {
            queue.add(
                Key {
                    kind,
                    namespace: namespace.into(),
                    name: name.into(),
                },
                now,
            );
        };
        let operator_namespace = self.cx.settings.operator_namespace.as_str();
        let users = &self.cx.stores.technical_users;
        let companion = |namespace: &str, device: &str| {
            let device = Stores::get(users, namespace, device);
            device.and_then(|device| device.0.as_ref().ok()?.companion_name())
        };
        match kind {
            Watched::SigningKeys => {
                add(Kind::SigningKey, namespace, name);
                let rings = technical_user::signing_rings(&self.cx.stores);
                let others_sign = rings != self.signing_rings;
                let told = signing_key::all_told(&self.cx.stores);
                if told != self.told {
                    self.told = told;
                    // Another one may sign now.
                    for ring in self.cx.stores.signing_keys.state() {
                        add(Kind::SigningKey, operator_namespace, &ring.name_any());
                    }
                } else if *spec {
                    // What it publishes no more may be another's now.
                    for ring in signing_key::publishing(&self.cx.stores, None) {
                        add(Kind::SigningKey, operator_namespace, &ring);
                    }
                }
                if others_sign {
                    self.signing_rings = rings;
                    for user in self.cx.stores.technical_users.state() {
                        add(
                            Kind::TechnicalUser,
                            &user.namespace().unwrap_or_default(),
                            &user.name_any(),
                        );
                    }
                }
            }
            Watched::Subscriptions => {
                add(Kind::Subscription, namespace, name);
                if *spec {
                    // Its namespace, and whoever names the same legal entity.
                    for other in self.cx.stores.subscriptions.state() {
                        let Ok(other) = &other.0 else { continue };
                        let (of, id) = (
                            other.namespace().unwrap_or_default(),
                            &other.spec.legal_entity.id,
                        );
                        if of == *namespace || hints.contains(id) {
                            add(Kind::Subscription, &of, &other.name_any());
                        }
                    }
                    for user in self.cx.stores.technical_users.state() {
                        let of = user.namespace().unwrap_or_default();
                        if of == *namespace {
                            add(Kind::TechnicalUser, &of, &user.name_any());
                        }
                    }
                    // One that is a tenant's now, or no more, may stand in others' way.
                    self.providers(queue, None);
                    self.users(queue, |user| user.namespace().as_deref() == Some(namespace));
                    // Whose newcomers wait for it.
                    queue.add(self.enrolments(), now);
                }
            }
            Watched::OidcProviders => {
                add(Kind::OidcProvider, namespace, name);
                if *spec {
                    // Another one may give way to it now, or no more.
                    self.providers(queue, None);
                    let global = namespace == operator_namespace;
                    self.users(queue, |user| {
                        global || user.namespace().as_ref() == Some(namespace)
                    });
                }
            }
            Watched::Users => {
                add(Kind::User, namespace, name);
                if *spec {
                    // Whoever names the same person.
                    let same = |user: &User| {
                        user.namespace().as_ref() == Some(namespace)
                            && hints.contains(&user.person())
                    };
                    self.users(queue, |user| user.0.as_ref().is_ok_and(same));
                }
            }
            Watched::TechnicalUsers => {
                add(Kind::TechnicalUser, namespace, name);
                let (id, device) = (hints.first(), hints.get(1));
                if let Some(device) = device {
                    add(Kind::TechnicalUser, namespace, device);
                }
                if *spec {
                    let tenancy = self.cx.tenancy();
                    let claims = id.and_then(|id| tenancy.claims.get(id));
                    for Claim {
                        namespace, name, ..
                    } in claims.into_iter().flatten()
                    {
                        add(Kind::TechnicalUser, namespace, name);
                        // Without its client id a device has no agent either.
                        if let Some(agent) = companion(namespace, name) {
                            add(Kind::TechnicalUser, namespace, &agent);
                        }
                    }
                    // A device that waits for this name, and the agent that goes with this device.
                    let wanted = (namespace.clone(), name.clone());
                    let device = tenancy.companions.get(&wanted).cloned();
                    for other in device.into_iter().chain(companion(namespace, name)) {
                        add(Kind::TechnicalUser, namespace, &other);
                    }
                }
            }
            Watched::Secrets => match hints.as_slice() {
                [ring] => add(Kind::SigningKey, operator_namespace, ring),
                [namespace, name] => {
                    add(Kind::TechnicalUser, namespace, name);
                    // That a device is revoked, or back, stands there.
                    if let Some(agent) = companion(namespace, name) {
                        add(Kind::TechnicalUser, namespace, &agent);
                    }
                }
                _ => {}
            },
            Watched::ConfigMaps if name == names::ISSUER_JWKS => {
                let map = Stores::get(&self.cx.stores.config_maps, namespace, name);
                let environment = &self.cx.settings.environment;
                let ours = map.filter(|map| jwks_map::is_issuer_map(map, environment));
                let shares = ours.as_deref().map(jwks_map::shares).unwrap_or_default();
                let whole = ours.is_some_and(|map| jwks_map::is_whole(&map, &shares));
                let before = std::mem::replace(&mut self.shares, shares);
                let changed = |ring: &str| !whole || before.get(ring) != self.shares.get(ring);
                for ring in self.cx.stores.signing_keys.state() {
                    let ring_name = ring.name_any();
                    // One that brings its key may wait for another ring to give that up.
                    if brings_its_key(&ring) || changed(&ring_name) {
                        queue.add(ring_key(namespace, &ring_name), now);
                    }
                    self.weigh(namespace, &ring_name, queue);
                }
                // A ring that is gone may still have its share.
                for ring in self.shares.keys().filter(|ring| changed(ring)) {
                    queue.add(ring_key(namespace, ring), now);
                }
            }
            Watched::ConfigMaps if [names::OUTBOX, names::REVOCATIONS].contains(&name.as_str()) => {
                add(Kind::Outbox, operator_namespace, names::OUTBOX);
            }
            Watched::ConfigMaps if name == names::WANTED_KEYS => {
                add(Kind::WantedKeys, operator_namespace, names::WANTED_KEYS);
            }
            Watched::ConfigMaps if name == names::ENROLMENTS => {
                add(Kind::Enrolments, operator_namespace, names::ENROLMENTS);
            }
            Watched::ConfigMaps if name == names::CLUSTER_KEYS => {
                self.cx.cluster_keys.stir();
                self.with_service_accounts(queue, None);
            }
            Watched::ServiceAccounts => {
                self.with_service_accounts(queue, Some((namespace, name)));
            }
            Watched::ConfigMaps if hints.len() == 2 => {
                // With the keys of an outside provider.
                add(Kind::OidcProvider, &hints[0], &hints[1]);
            }
            Watched::ConfigMaps => {
                for ring in hints {
                    add(Kind::SigningKey, operator_namespace, ring);
                }
                // That a ring has given up a key is written down there last.
                let rings = self.cx.stores.signing_keys.state();
                for ring in rings.iter().filter(|ring| brings_its_key(ring)) {
                    add(Kind::SigningKey, operator_namespace, &ring.name_any());
                }
            }
            Watched::Namespaces => {
                if name == operator_namespace {
                    add(Kind::Outbox, operator_namespace, names::OUTBOX);
                    add(Kind::WantedKeys, operator_namespace, names::WANTED_KEYS);
                    add(Kind::Enrolments, operator_namespace, names::ENROLMENTS);
                }
                for ring in signing_key::publishing(&self.cx.stores, None) {
                    add(Kind::SigningKey, operator_namespace, &ring);
                }
            }
            Watched::Published => {
                let others = signing_key::publishing(&self.cx.stores, Some(name));
                for ring in hints.iter().chain(&others) {
                    add(Kind::SigningKey, operator_namespace, ring);
                }
            }
            Watched::NamedSecrets => {
                if namespace == operator_namespace {
                    for ring in signing_key::brought_from(&self.cx.stores, name) {
                        add(Kind::SigningKey, operator_namespace, &ring);
                    }
                }
                for user in self.supplied.named(&self.cx.stores, namespace, name) {
                    let key = Key {
                        kind: Kind::TechnicalUser,
                        namespace: namespace.clone(),
                        name: user.clone(),
                    };
                    // One that changes all the time is not looked at all the time.
                    let at = self.cx.paces.not_before(&key).unwrap_or(now);
                    queue.add(key, at.max(now));
                }
            }
            Watched::Deliveries => {
                for owner in hints {
                    add(Kind::TechnicalUser, namespace, owner);
                }
            }
        }
    }

    /// The outside providers, or those of a namespace.
    fn providers(&self, queue: &mut Queue, of: Option<&str>) {
        let all = self.cx.stores.oidc_providers.state();
        let names = all.iter().map(|provider| {
            let namespace = provider.namespace().unwrap_or_default();
            (namespace, provider.name_any())
        });
        with_providers(queue, names.filter(|(ns, _)| of.is_none_or(|of| of == ns)));
    }

    /// The Users of that kind.
    fn users(&self, queue: &mut Queue, which: impl Fn(&Guarded<User>) -> bool) {
        for user in self.cx.stores.users.state() {
            if which(&user) {
                let key = Key {
                    kind: Kind::User,
                    namespace: user.namespace().unwrap_or_default(),
                    name: user.name_any(),
                };
                queue.add(key, Instant::now());
            }
        }
    }

    pub(super) fn enrolments(&self) -> Key {
        Key {
            kind: Kind::Enrolments,
            namespace: self.cx.settings.operator_namespace.clone(),
            name: names::ENROLMENTS.to_owned(),
        }
    }

    /// Whether a ring goes before all others.
    fn weigh(&self, namespace: &str, name: &str, queue: &mut Queue) {
        let rings = &self.cx.stores.signing_keys;
        let ring = Stores::get(rings, namespace, name);
        let ring = ring.as_ref().and_then(|ring| ring.0.as_ref().ok());
        let share = self.shares.get(name);
        let urgent = ring.is_some_and(|ring| signing_key::is_urgent(ring, share));
        queue.set_urgent(ring_key(namespace, name), urgent);
    }

    pub(super) fn outbox(&self) -> Key {
        Key {
            kind: Kind::Outbox,
            namespace: self.cx.settings.operator_namespace.clone(),
            name: names::OUTBOX.to_owned(),
        }
    }

    pub(super) fn wanted_keys(&self) -> Key {
        Key {
            kind: Kind::WantedKeys,
            namespace: self.cx.settings.operator_namespace.clone(),
            name: names::WANTED_KEYS.to_owned(),
        }
    }

    /// The technical users that authenticate with a `ServiceAccount`, or with that one.
    pub(super) fn with_service_accounts(&self, queue: &mut Queue, which: Option<(&str, &str)>) {
        for user in self.cx.stores.technical_users.state() {
            let Ok(user) = &user.0 else { continue };
            let Some(credential) = &user.spec.credential.service_account else {
                continue;
            };
            let of = user.namespace().unwrap_or_default();
            let account = (
                credential.namespace.as_deref().unwrap_or(&of),
                credential.name.as_str(),
            );
            if which.is_none_or(|which| which == account) {
                let key = Key {
                    kind: Kind::TechnicalUser,
                    namespace: of.clone(),
                    name: user.name_any(),
                };
                queue.add(key, Instant::now());
            }
        }
    }
}

fn brings_its_key(ring: &Guarded<SigningKey>) -> bool {
    let ring = ring.0.as_ref();
    ring.is_ok_and(|ring| ring.spec.private_key.is_some())
}

/// Visits these outside providers.
pub(super) fn with_providers(queue: &mut Queue, names: impl IntoIterator<Item = (String, String)>) {
    for (namespace, name) in names {
        let key = Key {
            kind: Kind::OidcProvider,
            namespace,
            name,
        };
        queue.add(key, Instant::now());
    }
}

fn ring_key(namespace: &str, name: &str) -> Key {
    Key {
        kind: Kind::SigningKey,
        namespace: namespace.into(),
        name: name.into(),
    }
}
