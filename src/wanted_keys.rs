//! Tells the operator that a token names a key which its provider is not known to have: notes it, off the
//! way of the request, in the one object that is for that. However many such tokens come, a replica writes
//! seldom, and little ([`crate::controllers`] tells what comes of it).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::clock::SharedClock;
use crate::domain::names::WANTED_KEYS;
use crate::domain::settings::Settings;
use crate::objects::wanted_keys;
use crate::serve::outside_token::KeysWanted;
use crate::serve::trust::OutsideProvider;

/// How long it is not noted again that the keys of one provider are wanted. The operator waits longer between
/// two questions to one.
const PAUSE: Duration = Duration::from_secs(5);
/// How long notes are gathered into one write.
const GATHER: Duration = Duration::from_millis(50);
/// The shortest time between two writes, whatever comes.
const BETWEEN: Duration = Duration::from_secs(1);
/// So many wait to be written; what comes on top is dropped, and the next token notes it.
const MOST_WAITING: usize = 256;
/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(3);
/// How often a write is tried that meets another replica's, or the operator's.
const TRIES: u32 = 5;

/// Takes notes, for requests.
pub struct Notes {
    to: mpsc::Sender<String>,
    /// When each provider, by its UID, was noted last. Only those of the snapshot come here, and old entries
    /// go: it is bounded by them.
    last: Mutex<HashMap<String, Instant>>,
}

impl KeysWanted for Notes {
    fn want(&self, provider: &OutsideProvider) {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = &provider.uid;
        if last.get(uid).is_some_and(|at| now < *at + PAUSE) {
            return;
        }
        last.retain(|_, at| now < *at + PAUSE);
        if self.to.try_send(uid.clone()).is_ok() {
            last.insert(uid.clone(), now);
            debug!(
                provider = provider.provider.id(),
                "a token names a key that is not known here: the operator is told"
            );
        }
    }
}

/// Where notes are taken, before there is anything that writes them.
pub struct Taken(mpsc::Receiver<String>);

/// What takes notes, and what a [`Writer`] is made of.
pub fn channel() -> (Notes, Taken) {
    let (to, taken) = mpsc::channel(MOST_WAITING);
    let last = Mutex::default();
    (Notes { to, last }, Taken(taken))
}

/// Writes notes, as long as it runs.
pub struct Writer {
    api: Api<ConfigMap>,
    clock: SharedClock,
    taken: mpsc::Receiver<String>,
}

impl Writer {
    /// One that writes what was taken.
    pub fn new(
        client: Client,
        settings: &Arc<Settings>,
        clock: SharedClock,
        Taken(taken): Taken,
    ) -> Self {
        Self {
            api: Api::namespaced(client, &settings.operator_namespace),
            clock,
            taken,
        }
    }

    /// Writes until nobody takes notes any more.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        while self.taken.recv_many(&mut batch, MOST_WAITING).await > 0 {
            sleep(GATHER).await;
            while let Ok(more) = self.taken.try_recv() {
                batch.push(more);
            }
            self.write(&batch).await;
            batch.clear();
            sleep(BETWEEN).await;
        }
    }

    /// What can not be written is lost: the next token notes it again.
    async fn write(&self, uids: &[String]) {
        for turn in 0..TRIES {
            let mut map = match timeout(CALL_LIMIT, self.api.get(WANTED_KEYS)).await {
                Ok(Ok(map)) => map,
                Ok(Err(error)) => {
                    return warn!(%error, "which providers' keys are wanted can not be read");
                }
                Err(_) => return,
            };
            let uids = uids.iter().map(String::as_str);
            if !wanted_keys::note(&mut map, uids, self.clock.now()) {
                return;
            }
            map.metadata.managed_fields = None;
            let params = PostParams::default();
            let written = self.api.replace(WANTED_KEYS, &params, &map);
            match timeout(CALL_LIMIT, written).await {
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                    let luck = u64::from(crate::crypto::random::bytes::<1>()[0]);
                    sleep(Duration::from_millis(luck * u64::from(turn + 1) / 8)).await;
                }
                Ok(Err(error)) => {
                    return warn!(%error, "which providers' keys are wanted can not be noted");
                }
                Ok(Ok(_)) | Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::provider::{AutoEnroll, ClaimPaths, Provider};
    use crate::serve::trust::Keys;

    fn provider(uid: &str) -> OutsideProvider {
        let path = |text: &str| text.parse().expect("a path");
        OutsideProvider {
            uid: uid.into(),
            provider: Provider {
                namespace: None,
                name: "corp".into(),
                registered: 0,
                active: true,
                issuers: Vec::new(),
                audiences: Vec::new(),
                claims: ClaimPaths {
                    subject: path("sub"),
                    organisation: path("org_id"),
                    legal_entity: path("caas_org_id"),
                    roles: path("roles"),
                },
                required: Vec::new(),
                role_mappings: Vec::new(),
                auto_enroll: AutoEnroll::default(),
            },
            keys: Keys::default(),
            fetched: true,
            good_until: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_note_now_and_then() {
        let (notes, Taken(mut taken)) = channel();
        let (one, other) = (provider("one"), provider("other"));
        for _ in 0..10_000 {
            notes.want(&one);
        }
        notes.want(&other);
        assert_eq!(taken.try_recv().ok().as_deref(), Some("one"));
        assert_eq!(taken.try_recv().ok().as_deref(), Some("other"));
        assert!(taken.try_recv().is_err());
        tokio::time::advance(PAUSE).await;
        notes.want(&one);
        assert_eq!(taken.try_recv().ok().as_deref(), Some("one"));
        assert_eq!(notes.last.lock().expect("no panic").len(), 1, "old ones go");
        // Nobody writes them: what is too much is dropped, and remembered by nobody.
        for n in 0..2 * MOST_WAITING {
            notes.want(&provider(&format!("p{n}")));
        }
        assert_eq!(taken.len(), MOST_WAITING);
        assert_eq!(notes.last.lock().expect("no panic").len(), MOST_WAITING + 1);
    }
}
