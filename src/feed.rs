//! Watches → snapshot: whenever something has changed, the whole of what the server knows is
//! built anew from the stores, and swapped. What is broken is left out and said; what it was
//! before stays where dropping it would be the greater harm.

mod companions;
mod keys;
mod providers;
mod revoked;
mod trust;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use self::keys::{ParsedPairs, RingKey, Verdict, judge};
use self::revoked::Revoked;
use self::trust::ParsedKeys;
use crate::api::v1alpha1::{KeyAudience, SigningKey, TechnicalUser};
use crate::clock::SharedClock;
use crate::crypto;
use crate::domain::client::{Client, StoredCredential};
use crate::domain::names::{CLUSTER_KEYS, ISSUER_JWKS};
use crate::domain::period::Period;
use crate::domain::preference::Standing;
use crate::domain::rotation::effective_lead;
use crate::domain::settings::Settings;
use crate::domain::staleness::Contact;
use crate::domain::subscription::SubscriptionFacts;
use crate::objects::cluster_keys::{self, ClusterKeys};
use crate::objects::{credentials, jwks_map};
use crate::serve::readiness::Readiness;
use crate::serve::snapshot::{PublishedJwks, Ring, Snapshot, SnapshotStore};
use crate::serve::trust::Trusted;
use crate::stores::{Change, Stores};
use crate::tenancy::{PeopleCache, TenancyCache};

/// How long changes are gathered before the snapshot is built: long enough for a burst, short
/// beside the two seconds that a suspension may take.
const GATHER: Duration = Duration::from_millis(10);

/// Builds snapshots.
pub struct Feed {
    stores: Stores,
    settings: Arc<Settings>,
    keys: ParsedPairs,
    client_keys: ParsedKeys,
    /// The cluster's own, as they were last seen whole: what is deleted or broken takes none away.
    cluster: Option<ClusterKeys>,
    tenancy: TenancyCache,
    people: PeopleCache,
    revoked: Revoked,
    clock: SharedClock,
    readiness: Readiness,
    /// What is wrong with the issuer's ConfigMap.
    trouble: Option<String>,
}

/// The part of readiness that waits for the stores.
pub const STORES: &str = "stores";
/// The part of readiness that waits for a JWKS to serve.
pub const JWKS: &str = "jwks";

impl Feed {
    /// A feed from these stores, which tells when there is something to serve.
    pub fn new(
        stores: Stores,
        settings: Arc<Settings>,
        clock: SharedClock,
        readiness: Readiness,
    ) -> Self {
        Self {
            stores,
            settings,
            keys: ParsedPairs::default(),
            client_keys: ParsedKeys::default(),
            cluster: None,
            tenancy: TenancyCache::default(),
            people: PeopleCache::default(),
            revoked: Revoked::default(),
            clock,
            readiness,
            trouble: None,
        }
    }

    /// Publishes a snapshot once the stores are synced, and a new one after each change and each
    /// of `proofs` that the stores lack nothing, until the watches end.
    pub async fn run(
        mut self,
        mut changes: mpsc::UnboundedReceiver<Change>,
        mut proofs: watch::Receiver<Option<Contact>>,
        out: Arc<SnapshotStore>,
    ) {
        self.stores.synced().await;
        loop {
            while changes.try_recv().is_ok() {}
            // Taken before the stores are read: they are proved for that time, or better.
            let proof = *proofs.borrow_and_update();
            let snapshot = self.build(out.load().snapshot.jwks.as_ref());
            let has_jwks = snapshot.jwks.is_some();
            match proof {
                Some(contact) => out.publish_proven(snapshot, contact),
                None => out.publish(snapshot),
            }
            self.readiness.ready(STORES);
            if has_jwks {
                self.readiness.ready(JWKS);
            } else if let Some(trouble) = &self.trouble {
                self.readiness.not_ready(JWKS, trouble);
            }
            tokio::select! {
                change = changes.recv() => if change.is_none() {
                    return;
                },
                Ok(()) = proofs.changed() => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// The snapshot of what the stores hold now.
    pub fn build(&mut self, before: Option<&PublishedJwks>) -> Snapshot {
        let keys = self.keys.of(&self.stores);
        let jwks = self.jwks(before, &keys);
        let rings = |audience| match &jwks {
            Some(jwks) => self.rings(audience, jwks, &keys),
            None => Vec::new(),
        };
        let (client_rings, human_rings) = (rings(KeyAudience::Client), rings(KeyAudience::Human));
        let human_keys = self.keys_of(KeyAudience::Human, &keys);
        let tenancy = self.tenancy.get(&self.stores, &self.settings);
        let now = self.clock.now();
        // Before the clients: it tells which devices have just revoked themselves.
        let revoked = (self.revoked).of(&self.stores, &tenancy, &self.settings, now);
        self.client_keys.begin();
        let tenants: BTreeMap<String, Arc<Vec<_>>> = tenancy
            .sound
            .iter()
            .map(|(ns, of)| (ns.clone(), Arc::new(of.clone())))
            .collect();
        let (clients, trusted) = self.clients(&tenants);
        let providers = self.providers(jwks.as_ref());
        let inactive_providers = self.inactive_providers();
        let legal_entities = tenancy.sound.values().flatten();
        self.client_keys.end();
        Snapshot {
            revoked,
            inactive_providers,
            client_rings,
            human_rings,
            human_keys,
            clients,
            trusted,
            tenants,
            providers,
            people: self.people.get(&self.stores),
            legal_entities: legal_entities.map(|s| s.legal_entity_id.clone()).collect(),
            jwks,
            shortest_publish_lead: self.shortest_publish_lead(),
        }
    }

    /// The shortest publish lead: of all rings, as all stand in the JWKS.
    fn shortest_publish_lead(&self) -> Option<Period> {
        let rings = self.stores.signing_keys.state();
        let rings = rings.iter().filter_map(|ring| ring.0.as_ref().ok());
        rings.map(|ring| ring.spec.publish_lead()).min()
    }

    /// The issuer's JWKS. One that is gone or broken leaves the last good one: an empty set would
    /// fail every verifier at once.
    fn jwks(
        &mut self,
        before: Option<&PublishedJwks>,
        of_rings: &[RingKey],
    ) -> Option<PublishedJwks> {
        let settings = self.settings.clone();
        let Settings {
            operator_namespace,
            environment,
            ..
        } = &*settings;
        let map = Stores::get(&self.stores.config_maps, operator_namespace, ISSUER_JWKS)
            .filter(|m| jwks_map::is_issuer_map(m, environment));
        let document = map
            .as_ref()
            .and_then(|m| m.data.as_ref()?.get(jwks_map::JWKS_JSON));
        let keys = map.as_ref().and_then(|m| jwks_map::read(m));
        if let (Some(map), Some(document), Some(keys)) = (&map, document, keys) {
            if let Some(before) = before.filter(|b| b.document == *document) {
                self.trouble = None;
                return Some(before.clone());
            }
            let served = before.map(|b| &b.keys);
            let told = |why: &str, done: &str| {
                format!(
                    "ConfigMap {operator_namespace}/{ISSUER_JWKS} {why}, as if it had been deleted or altered by hand: {done} until it is mended."
                )
            };
            let (keys, document) = match judge(served, (map, &keys), of_rings, &self.stores) {
                Verdict::Sound => {
                    self.trouble = None;
                    (keys, document.clone())
                }
                Verdict::Amended(keys, why) => {
                    let done = "what is served has every key that a ring has, and no other,";
                    self.say(told(&why, done));
                    let document = keys.to_document();
                    (keys, document)
                }
                Verdict::Doubtful(why) => {
                    self.say(told(&why, "no JWKS is served"));
                    return None;
                }
            };
            if let Some(before) = before.filter(|b| b.document == *document) {
                return Some(before.clone());
            }
            let document = Bytes::from(document);
            let etag = format!("\"{}\"", crypto::sha256_base64url(&document));
            return Some(PublishedJwks {
                document,
                etag,
                keys,
            });
        }
        if before.is_some() {
            self.say(format!(
                "ConfigMap {operator_namespace}/{ISSUER_JWKS} is gone or holds no JWKS: the last good one is served."
            ));
        }
        before.cloned()
    }

    /// Once for each trouble, and not with each change of anything.
    fn say(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            warn!("{trouble}");
        }
        self.trouble = Some(trouble);
    }

    /// The ids of all keys of rings for that audience, whether they sign or verify alone.
    fn keys_of(&self, audience: KeyAudience, keys: &[RingKey]) -> HashSet<String> {
        let rings = self.stores.signing_keys.state();
        let rings = rings.iter().filter_map(|ring| ring.0.as_ref().ok());
        let rings = rings.filter(|ring| ring.spec.audience == audience);
        let rings: HashSet<String> = rings.map(ResourceExt::name_any).collect();
        let keys = keys.iter().filter(|key| rings.contains(&key.ring));
        let pairs = keys.filter_map(|key| key.pair.as_ref());
        pairs.map(|pair| pair.key_id().to_owned()).collect()
    }

    /// The rings that sign for that audience: highest priority first, then by name.
    fn rings(
        &self,
        audience: KeyAudience,
        jwks: &PublishedJwks,
        keys: &[RingKey],
    ) -> Vec<Arc<Ring>> {
        let mut of_rings: HashMap<&str, Vec<&RingKey>> = HashMap::new();
        for key in keys {
            of_rings.entry(&key.ring).or_default().push(key);
        }
        let mut rings = Vec::new();
        for ring in self.stores.signing_keys.state() {
            let Ok(ring) = &ring.0 else { continue };
            if ring.spec.audience != audience {
                continue;
            }
            let keys = of_rings.get(ring.name_any().as_str());
            let active = keys.and_then(|keys| self.active(ring, keys, jwks));
            rings.extend(active.map(|active| (ring.spec.priority, active)));
        }
        rings.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
        rings.into_iter().map(|(_, ring)| Arc::new(ring)).collect()
    }

    /// The ring with the key that its Secrets call active, if that stands in the JWKS.
    fn active(&self, ring: &SigningKey, keys: &[&RingKey], jwks: &PublishedJwks) -> Option<Ring> {
        let may_sign = |key: &&&RingKey| key.owned && key.written.life.may_sign();
        let signers = keys.iter().filter(may_sign);
        // As `rotation::signer` chooses.
        let active = signers.max_by_key(|key| (key.written.life.activated, key.sequence))?;
        let pair = active.pair.clone()?;
        let lead = effective_lead(
            ring.spec.publish_lead().as_duration(),
            self.settings.jwks.max_age.as_duration(),
        );
        let written = &active.written;
        jwks.keys.contains(pair.key_id()).then(|| Ring {
            name: ring.name_any(),
            active: pair,
            standing: Standing::of(written.window, written.life.published, lead),
        })
    }

    /// The technical users of this environment's tenants that have their client id to themselves.
    fn clients(
        &mut self,
        subscriptions: &BTreeMap<String, Arc<Vec<SubscriptionFacts>>>,
    ) -> (HashMap<String, Arc<Client>>, HashMap<String, Arc<Trusted>>) {
        let tenancy = self.tenancy.get(&self.stores, &self.settings);
        let operator_namespace = self.settings.operator_namespace.as_str();
        let (mut clients, mut trusted) = (HashMap::new(), HashMap::new());
        let cluster = Stores::get(&self.stores.config_maps, operator_namespace, CLUSTER_KEYS);
        self.cluster = cluster
            .and_then(|map| cluster_keys::read(&map))
            .or(self.cluster.take());
        for user in self.stores.technical_users.state() {
            let Ok(user) = &user.0 else { continue };
            let namespace = user.namespace().unwrap_or_default();
            let Some(subscriptions) = subscriptions.get(&namespace) else {
                continue;
            };
            if user.metadata.deletion_timestamp.is_some() || !tenancy.has_its_client_id(user) {
                continue;
            }
            let hashes = self.hashes(user);
            let hashes = hashes.as_deref();
            let mut client = client(user, hashes, subscriptions.clone());
            client.suspended |= self.is_revoked(user, &client, hashes);
            client.companion = self.companion(user);
            self.go_with_device(user, hashes, &tenancy, &mut client);
            if let Some(trust) =
                self.client_keys
                    .trusted(user, &self.settings, self.cluster.as_ref())
            {
                trusted.insert(client.id.clone(), Arc::new(trust));
            }
            clients.insert(client.id.clone(), Arc::new(client));
        }
        (clients, trusted)
    }
}

/// Whether these are the hashes of that very technical user.
fn mine(user: &TechnicalUser, hashes: &Secret) -> bool {
    credentials::are_of_uid(hashes, user.uid().as_deref())
}

/// A technical user with its own hashes.
fn client(
    user: &TechnicalUser,
    hashes: Option<&Secret>,
    subscriptions: Arc<Vec<SubscriptionFacts>>,
) -> Client {
    let spec = &user.spec;
    Client {
        id: user.client_id(),
        family: spec.family,
        namespace: user.namespace().unwrap_or_default(),
        name: user.name_any(),
        suspended: spec.suspended,
        created_at: user.metadata.creation_timestamp.as_ref().map(|at| at.0),
        last_revocation: hashes.and_then(credentials::last_revocation),
        introspect: spec.introspect,
        on_behalf_of: spec.on_behalf_of,
        roles: spec.roles.clone(),
        scopes: spec.scopes.clone(),
        audiences: spec.audiences.clone(),
        token_ttl: spec.token_ttl,
        token_rate: spec.token_rate,
        signing_key: spec.signing_key.clone(),
        credentials: hashes.map(stored).unwrap_or_default(),
        companion: None,
        subscriptions,
    }
}

/// The hashes in a Secret, with the time when they cease to work.
fn stored(hashes: &Secret) -> Vec<StoredCredential> {
    let mut stored = credentials::read_hashes(hashes).unwrap_or_default();
    if let Some(until) = credentials::works_until(hashes) {
        for credential in &mut stored {
            credential.expires_at = credential.expires_at.into_iter().chain([until]).min();
        }
    }
    stored
}
