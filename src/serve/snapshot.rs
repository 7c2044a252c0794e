//! What the server knows at one moment: immutable, built whole by the feed, swapped whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;

use super::secrets::{Costs, Remembered};
use super::trust::{OutsideProvider, Trusted};
use crate::clock::{Clock, SharedClock};
use crate::crypto::key_pair::KeyPair;
use crate::domain::client::Client;
use crate::domain::grant::RingChoice;
use crate::domain::jwk::JwkSet;
use crate::domain::period::Period;
use crate::domain::preference::{self, Standing};
use crate::domain::revocation::Index;
use crate::domain::staleness::Contact;
use crate::domain::subscription::SubscriptionFacts;
use crate::domain::user::{People, person_id};

/// Everything that a request may need.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The issuer's JWKS as it stands in its `ConfigMap`; none until there is one.
    pub jwks: Option<PublishedJwks>,
    /// The rings that can sign for technical users, the preferred one first.
    pub client_rings: Vec<Arc<Ring>>,
    /// The rings that can sign for people, the preferred one first.
    pub human_rings: Vec<Arc<Ring>>,
    /// The ids of all keys of such rings, also of those that verify alone: what they signed speaks for
    /// people, and nothing else does.
    pub human_keys: HashSet<String>,
    /// Technical users by client id. Suspended ones are among them; those without a sound
    /// Subscription have an empty list of Subscriptions.
    pub clients: HashMap<String, Arc<Client>>,
    /// By client id: whose signature the assertions of those must have that authenticate with one.
    pub trusted: HashMap<String, Arc<Trusted>>,
    /// The outside providers whose tokens are taken, in the order in which they are asked.
    pub providers: Vec<Arc<OutsideProvider>>,
    /// The ids of providers that are not active: what this issuer gave their people does not hold either.
    pub inactive_providers: HashSet<String>,
    /// By namespace: the sound Subscriptions of each tenant.
    pub tenants: BTreeMap<String, Arc<Vec<SubscriptionFacts>>>,
    /// The people whom tenants' Users name.
    pub people: Arc<People>,
    /// The ids of all legal entities that have a namespace.
    pub legal_entities: HashSet<String>,
    /// The shortest publish lead of all rings; none: there is no ring.
    pub shortest_publish_lead: Option<Period>,
    /// Access tokens that are revoked and have not expired.
    pub revoked: Arc<Index>,
}

impl Snapshot {
    /// The outside providers whose tokens a client of that namespace may bring: those for all tenants and the
    /// namespace's own; without those whose keys have become too old.
    pub fn providers_of<'a>(
        &'a self,
        namespace: &'a str,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a Arc<OutsideProvider>> {
        self.providers
            .iter()
            .filter(move |p| p.provider.serves(namespace) && p.is_good(now))
    }

    /// Whether a tenant keeps a person out: under that id, or under the one that another provider of the same
    /// issuer gives them.
    pub fn keeps_out(&self, namespace: &str, id: &str) -> bool {
        if !self.people.has_suspended(namespace) {
            return false;
        }
        if self.people.is_suspended(namespace, id) {
            return true;
        }
        let Some((provider, subject)) = id.split_once(':') else {
            return false;
        };
        let all = self.providers.iter().map(|p| &p.provider);
        let mut serving = all.filter(|p| p.serves(namespace));
        let Some(own) = serving.clone().find(|p| p.id() == provider) else {
            return false;
        };
        serving.any(|other| {
            let same = |issuer: &String| own.issuers.contains(issuer);
            other.issuers.iter().any(same)
                && self
                    .people
                    .is_suspended(namespace, &person_id(&other.id(), subject))
        })
    }

    /// Whether the provider whose person that is was made inactive.
    pub fn is_of_inactive_provider(&self, id: &str) -> bool {
        let provider = id.split_once(':').map_or("", |(provider, _)| provider);
        self.inactive_providers.contains(provider)
    }

    /// Whether the token of that client with that `jti`, issued at that time (`iat`, in seconds
    /// since 1970), is revoked. Whatever takes a bearer token asks this.
    pub fn is_revoked(&self, id: &str, client_id: &str, issued_at: i64) -> bool {
        self.revoked.is_revoked(id, client_id, issued_at)
    }
}

/// A ring with the key that signs.
#[derive(Debug)]
pub struct Ring {
    /// The `SigningKey`'s name.
    pub name: String,
    /// Its active key pair, parsed once. It stands in the snapshot's JWKS.
    pub active: Arc<KeyPair>,
    /// What decides whether it goes before others.
    pub standing: Standing,
}

/// The JWKS document that HTTP serves byte for byte.
#[derive(Debug, Clone)]
pub struct PublishedJwks {
    /// The bytes of the `ConfigMap`.
    pub document: Bytes,
    /// A strong entity tag of these bytes, quotes included (RFC 9110 §8.8.3).
    pub etag: String,
    /// The keys in it.
    pub keys: JwkSet,
}

/// The snapshot that is served now. The feed publishes, requests load: without a lock.
pub struct SnapshotStore {
    current: ArcSwap<View>,
    /// Held while a successor is made, so that two publishers never lose a generation.
    publishing: Mutex<()>,
    clock: SharedClock,
}

/// A snapshot with what follows from it.
#[derive(Debug)]
pub struct View {
    /// The snapshot itself.
    pub snapshot: Snapshot,
    /// How many were published before it.
    pub generation: u64,
    /// When it was published; none before the first.
    pub published_at: Option<Timestamp>,
    /// The API server knew no more than this snapshot at that time.
    pub contact: Contact,
    /// The rings whose active key stands in the JWKS: only they sign.
    rings: Vec<Arc<Ring>>,
    human_rings: Vec<Arc<Ring>>,
    /// Secrets that were verified against hashes of this snapshot or another one.
    pub(super) remembered: Arc<Remembered>,
    /// What the hashes of all clients cost.
    pub(super) costs: Costs,
    /// The metadata document, written at its first use.
    pub(super) metadata: OnceLock<Bytes>,
}

impl SnapshotStore {
    /// A store with an empty snapshot, which answers 503 to all.
    pub fn new(clock: SharedClock) -> Arc<Self> {
        // Whatever is published will have been read later than this.
        let contact = Contact {
            wall: clock.now(),
            elapsed: clock.elapsed(),
        };
        let empty = View::new(Snapshot::default(), 0, None, contact, Arc::default());
        Arc::new(Self {
            current: ArcSwap::from_pointee(empty),
            publishing: Mutex::new(()),
            clock,
        })
    }

    /// Serves this snapshot from now on. Remembered secrets live on where their client is active
    /// and still has the very hash; the others are forgotten.
    pub fn publish(&self, snapshot: Snapshot) {
        self.publish_with(snapshot, None);
    }

    /// The same for a snapshot that holds all that the API server knew at `contact`. A request
    /// that has begun keeps the contact of its own snapshot.
    pub fn publish_proven(&self, snapshot: Snapshot, contact: Contact) {
        self.publish_with(snapshot, Some(contact));
    }

    fn publish_with(&self, snapshot: Snapshot, contact: Option<Contact>) {
        let _one_at_a_time = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let old = self.current.load();
        old.remembered.keep_for(&snapshot.clients);
        let view = View::new(
            snapshot,
            old.generation + 1,
            Some(self.clock.now()),
            contact.unwrap_or(old.contact),
            Arc::clone(&old.remembered),
        );
        self.current.store(Arc::new(view));
    }

    /// What is served now.
    pub fn load(&self) -> Arc<View> {
        self.current.load_full()
    }
}

impl View {
    fn new(
        snapshot: Snapshot,
        generation: u64,
        published_at: Option<Timestamp>,
        contact: Contact,
        remembered: Arc<Remembered>,
    ) -> Self {
        let stands = |ring: &&Arc<Ring>| {
            let key_id = ring.active.key_id();
            let stands = snapshot
                .jwks
                .as_ref()
                .is_some_and(|j| j.keys.contains(key_id));
            if !stands {
                tracing::warn!(
                    ring = ring.name,
                    key_id,
                    "The ring's active key does not stand in the issuer's JWKS, so it does not sign."
                );
            }
            stands
        };
        let standing = |rings: &[Arc<Ring>]| rings.iter().filter(stands).cloned().collect();
        let rings = standing(&snapshot.client_rings);
        let human_rings = standing(&snapshot.human_rings);
        let metadata = OnceLock::new();
        let costs = Costs::of(&snapshot.clients);
        Self {
            snapshot,
            generation,
            published_at,
            contact,
            rings,
            human_rings,
            remembered,
            costs,
            metadata,
        }
    }

    /// The rings that may sign for people now, the preferred one first.
    pub fn human_rings(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Ring>> {
        preference::in_order(&self.human_rings, |ring| &ring.standing, now)
    }

    /// The rings that may sign for technical users now, the preferred one first.
    pub fn rings(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Ring>> {
        preference::in_order(&self.rings, |ring| &ring.standing, now)
    }

    /// The ring that signs now where that is the choice.
    pub fn chosen(&self, choice: RingChoice<'_>, now: Timestamp) -> Option<&Arc<Ring>> {
        match choice {
            RingChoice::Named(name) => self.rings(now).find(|r| r.name == name),
            RingChoice::Preferred => self.rings(now).next(),
        }
    }

    /// How long ago the API server knew no more than this snapshot.
    pub fn contact_age(&self, clock: &dyn Clock) -> Duration {
        self.contact.age(clock.now(), clock.elapsed())
    }

    /// The technical user with that client id, if it may have tokens: a suspended one is as if
    /// it were not there.
    pub fn active_client(&self, client_id: &str) -> Option<&Arc<Client>> {
        self.snapshot
            .clients
            .get(client_id)
            .filter(|c| !c.suspended)
    }
}

impl fmt::Debug for SnapshotStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotStore")
            .field("generation", &self.current.load().generation)
            .finish_non_exhaustive()
    }
}
