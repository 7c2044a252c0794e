//! Watches → snapshot: whenever something has changed, the whole of what the server knows is
//! built anew from the stores, and swapped. What is broken is left out and said; what it was
//! before stays where dropping it would be the greater harm.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::api::v1alpha1::{KeyAudience, SigningKey, TechnicalUser};
use crate::crypto::key_pair::KeyPair;
use crate::domain::client::Client;
use crate::domain::names::{self, ISSUER_JWKS};
use crate::domain::settings::Settings;
use crate::objects::{Ownership, credentials, jwks_map, key_secret, ownership};
use crate::serve::snapshot::{PublishedJwks, Ring, Snapshot};
use crate::stores::{Change, Stores};
use crate::tenancy::Tenancy;

/// How long changes are gathered before the snapshot is built: long enough for a burst, short
/// beside the two seconds that a suspension may take.
const GATHER: Duration = Duration::from_millis(10);

/// Builds snapshots.
pub struct Feed {
    stores: Stores,
    settings: Arc<Settings>,
    /// Parsed keys by the UID and resourceVersion of their Secrets.
    keys: HashMap<(String, String), Option<Arc<KeyPair>>>,
    tenancy: Option<(u64, Arc<Tenancy>)>,
}

impl Feed {
    /// A feed from these stores.
    pub fn new(stores: Stores, settings: Arc<Settings>) -> Self {
        Self { stores, settings, keys: HashMap::new(), tenancy: None }
    }

    /// Publishes a snapshot once the stores are synced, and a new one after each change, until
    /// the watches end.
    pub async fn run(
        mut self,
        mut changes: mpsc::UnboundedReceiver<Change>,
        out: watch::Sender<Arc<Snapshot>>,
    ) {
        self.stores.synced().await;
        loop {
            while changes.try_recv().is_ok() {}
            let snapshot = self.build(&out.borrow().clone());
            out.send_replace(Arc::new(snapshot));
            if changes.recv().await.is_none() {
                return;
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// The snapshot of what the stores hold now.
    pub fn build(&mut self, before: &Snapshot) -> Snapshot {
        let jwks = self.jwks(before);
        let client_rings = match &jwks {
            Some(jwks) => self.rings(jwks),
            None => Vec::new(),
        };
        Snapshot { client_rings, clients: self.clients(), jwks }
    }

    /// The issuer's JWKS. One that is gone or broken leaves the last good one: an empty set would
    /// fail every verifier at once.
    fn jwks(&self, before: &Snapshot) -> Option<PublishedJwks> {
        let Settings { operator_namespace, environment, .. } = &*self.settings;
        let map = Stores::get(&self.stores.config_maps, operator_namespace, ISSUER_JWKS)
            .filter(|m| jwks_map::is_issuer_map(m, environment));
        let document = map.as_ref().and_then(|m| m.data.as_ref()?.get(jwks_map::JWKS_JSON));
        let keys = map.as_ref().and_then(|m| jwks_map::read(m));
        match (document, keys) {
            (Some(document), Some(keys)) => {
                if let Some(before) = before.jwks.as_ref().filter(|b| b.document == *document) {
                    return Some(before.clone());
                }
                Some(PublishedJwks::new(document.clone(), keys))
            }
            _ => {
                if before.jwks.is_some() {
                    warn!("ConfigMap {operator_namespace}/{ISSUER_JWKS} is gone or holds no JWKS: the last good one is served");
                }
                before.jwks.clone()
            }
        }
    }

    /// The rings that sign for technical users: highest priority first, then by name.
    fn rings(&mut self, jwks: &PublishedJwks) -> Vec<Arc<Ring>> {
        let mut secrets: HashMap<String, Vec<Arc<Secret>>> = HashMap::new();
        let mut seen = HashMap::new();
        for secret in self.stores.secrets.state() {
            if let Some(ring) = crate::objects::label(&secret.metadata, names::RING_LABEL) {
                secrets.entry(ring.to_owned()).or_default().push(secret.clone());
            }
        }
        let mut rings = Vec::new();
        for ring in self.stores.signing_keys.state() {
            let Ok(ring) = &ring.0 else { continue };
            if ring.spec.audience != KeyAudience::Client {
                continue;
            }
            let active = secrets
                .get(&ring.name_any())
                .into_iter()
                .flatten()
                .filter_map(|secret| self.active(ring, secret, jwks, &mut seen))
                .max_by_key(|(sequence, _)| *sequence);
            if let Some((_, active)) = active {
                rings.push((ring.spec.priority, Ring { name: ring.name_any(), active }));
            }
        }
        self.keys = seen;
        rings.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
        rings.into_iter().map(|(_, ring)| Arc::new(ring)).collect()
    }

    /// A ring's key, if its Secret says that it signs, the ring has not retired it, and it stands
    /// in the JWKS.
    fn active(
        &self,
        ring: &SigningKey,
        secret: &Secret,
        jwks: &PublishedJwks,
        seen: &mut HashMap<(String, String), Option<Arc<KeyPair>>>,
    ) -> Option<(i64, Arc<KeyPair>)> {
        let sequence = names::key_sequence(&ring.name_any(), &secret.name_any())?;
        let ours = ownership(&secret.metadata, &ring.uid()?) == Ownership::Ours;
        if !ours || key_secret::life(secret).activated.is_none() {
            return None;
        }
        let id = (secret.uid()?, secret.resource_version()?);
        let pair = self.keys.get(&id).cloned().unwrap_or_else(|| {
            match key_secret::key_pair(secret, ring.spec.algorithm) {
                Ok(pair) => Some(Arc::new(pair)),
                Err(error) => {
                    warn!(secret = %secret.name_any(), %error, "a key pair can not be used");
                    None
                }
            }
        });
        seen.insert(id, pair.clone());
        let pair = pair?;
        let retired = ring.status.iter().flat_map(|s| &s.keys).any(|k| {
            k.key_id == pair.key_id() && k.retired_at.is_some()
        });
        (!retired && jwks.keys.contains(pair.key_id())).then_some((sequence, pair))
    }

    fn tenancy(&mut self) -> Arc<Tenancy> {
        let version = self.stores.tenancy_version();
        match &self.tenancy {
            Some((of, tenancy)) if *of == version => tenancy.clone(),
            _ => {
                let tenancy = Arc::new(Tenancy::judge(&self.stores, &self.settings));
                self.tenancy = Some((version, tenancy.clone()));
                tenancy
            }
        }
    }

    /// The technical users of this environment's tenants that have their client id to themselves.
    fn clients(&mut self) -> HashMap<String, Arc<Client>> {
        let tenancy = self.tenancy();
        let subscriptions: HashMap<&String, Arc<Vec<_>>> =
            tenancy.sound.iter().map(|(ns, of)| (ns, Arc::new(of.clone()))).collect();
        let operator_namespace = self.settings.operator_namespace.as_str();
        let mut clients = HashMap::new();
        for user in self.stores.technical_users.state() {
            let Ok(user) = &user.0 else { continue };
            let (namespace, name) = (user.namespace().unwrap_or_default(), user.name_any());
            let Some(subscriptions) = subscriptions.get(&namespace) else { continue };
            let dying = user.metadata.deletion_timestamp.is_some();
            if dying || !tenancy.may_have(&namespace, &user.client_id()) || tenancy.rival(user).is_some() {
                continue;
            }
            let hashes = Stores::get(
                &self.stores.secrets,
                operator_namespace,
                &names::credentials_secret(&namespace, &name),
            );
            let client = client(user, hashes.as_deref(), subscriptions.clone());
            clients.insert(client.id.clone(), Arc::new(client));
        }
        clients
    }
}

fn client(
    user: &TechnicalUser,
    hashes: Option<&Secret>,
    subscriptions: Arc<Vec<crate::domain::subscription::SubscriptionFacts>>,
) -> Client {
    let mine = |h: &&Secret| {
        credentials::hashes_of(h).is_some_and(|(_, _, uid)| Some(uid) == user.uid().as_deref())
    };
    let spec = &user.spec;
    Client {
        id: user.client_id(),
        family: spec.family,
        namespace: user.namespace().unwrap_or_default(),
        name: user.name_any(),
        suspended: spec.suspended,
        roles: spec.roles.clone(),
        scopes: spec.scopes.clone(),
        audiences: spec.audiences.clone(),
        token_ttl: spec.token_ttl,
        signing_key: spec.signing_key.clone(),
        credentials: hashes.filter(mine).and_then(credentials::read_hashes).unwrap_or_default(),
        subscriptions,
    }
}

/// Starts the feed of a process; the snapshot is empty until the stores are synced.
pub fn start(
    stores: Stores,
    changes: mpsc::UnboundedReceiver<Change>,
    settings: Arc<Settings>,
) -> (watch::Receiver<Arc<Snapshot>>, tokio::task::JoinHandle<()>) {
    let (out, snapshots) = watch::channel(Arc::new(Snapshot::default()));
    let feed = Feed::new(stores, settings);
    let task = tokio::spawn(async move {
        feed.run(changes, out).await;
        info!("the watches have ended: the snapshot stays as it is");
    });
    (snapshots, task)
}
