//! The server's outbox: the one object that it may write. What requests make durable is noted in
//! it, several at once in one write, and the operator brings it home ([`crate::controllers`] tells
//! how it is judged there).

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::clock::SharedClock;
use crate::domain::names::{OUTBOX, REVOCATIONS};
use crate::domain::revocation::{Bounds, OfTenant, Revocations, leeway};
use crate::domain::settings::Settings;
use crate::objects::revocations;
use crate::serve::revoke::{Note, Outbox, Unnoted, What};
use crate::stores::Stores;

/// How long notes are gathered into one write, which also bounds how often is written.
const GATHER: Duration = Duration::from_millis(20);
/// So many may wait; what comes on top is turned away.
const MOST_WAITING: usize = 1024;
/// How long a write may take, with all that it meets.
const LIMIT: Duration = Duration::from_secs(8);
/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(3);
/// How often a write is tried that meets another replica's.
const TRIES: u32 = 12;

type Answer = Result<(), Unnoted>;
type Waiting = (Note, oneshot::Sender<Answer>);

/// Takes notes, for requests.
#[derive(Clone)]
pub struct Notes(mpsc::Sender<Waiting>);

impl Outbox for Notes {
    fn note(&self, note: Note) -> BoxFuture<'static, Answer> {
        let (tell, told) = oneshot::channel();
        let taken = self.0.try_send((note, tell));
        async move {
            taken.map_err(|_| Unnoted::Unreachable)?;
            told.await.unwrap_or(Err(Unnoted::Unreachable))
        }
        .boxed()
    }
}

/// Writes notes, as long as it runs.
pub struct Writer {
    client: Client,
    settings: Arc<Settings>,
    clock: SharedClock,
    stores: Stores,
    waiting: mpsc::Receiver<Waiting>,
}

/// Where notes are taken, before there is anything that writes them.
pub struct Taken(mpsc::Receiver<Waiting>);

/// What takes notes, and what a [`Writer`] is made of.
pub fn channel() -> (Notes, Taken) {
    let (notes, taken) = mpsc::channel(MOST_WAITING);
    (Notes(notes), Taken(taken))
}

impl Writer {
    /// One that writes what was taken.
    pub fn new(
        client: Client,
        settings: Arc<Settings>,
        clock: SharedClock,
        stores: Stores,
        Taken(waiting): Taken,
    ) -> Self {
        Self {
            client,
            settings,
            clock,
            stores,
            waiting,
        }
    }

    /// Writes until nobody takes notes any more.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        while self.waiting.recv_many(&mut batch, MOST_WAITING).await > 0 {
            sleep(GATHER).await;
            while let Ok(more) = self.waiting.try_recv() {
                batch.push(more);
            }
            let (notes, tell): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
            let answers = match timeout(LIMIT, self.write(&notes)).await {
                Ok(answers) => answers,
                Err(_) => vec![Err(Unnoted::Unreachable); notes.len()],
            };
            for (tell, answer) in tell.into_iter().zip(answers) {
                // Who has hung up meanwhile need not know.
                let _ = tell.send(answer);
            }
        }
    }

    /// Writes all of them, or none of those that it says so of.
    async fn write(&self, notes: &[Note]) -> Vec<Answer> {
        let none = || vec![Err(Unnoted::Unreachable); notes.len()];
        let namespace = &self.settings.operator_namespace;
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        for turn in 0..TRIES {
            let mut map = match timeout(CALL_LIMIT, api.get(OUTBOX)).await {
                Ok(Ok(map)) => map,
                Ok(Err(error)) => {
                    warn!(%error, "the outbox can not be read");
                    return none();
                }
                Err(_) => return none(),
            };
            let (data, answers) = self.noted(&map, notes);
            let Some(data) = data else {
                return answers;
            };
            map.data = Some(data);
            map.metadata.managed_fields = None;
            let params = PostParams::default();
            match timeout(CALL_LIMIT, api.replace(OUTBOX, &params, &map)).await {
                Ok(Ok(_)) => return answers,
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                    debug!(turn, "another replica, or the operator, was first");
                    let luck = u64::from(crate::crypto::random::bytes::<1>()[0]);
                    sleep(Duration::from_millis(luck * u64::from(turn + 1) / 8)).await;
                }
                Ok(Err(error)) => {
                    warn!(%error, "the outbox can not be written");
                    return none();
                }
                // It may have been written, or not: to ask again is harmless.
                Err(_) => return none(),
            }
        }
        none()
    }

    /// The outbox's data with the notes in it, if that differs, and what to answer once it stands.
    fn noted(
        &self,
        map: &ConfigMap,
        notes: &[Note],
    ) -> (
        Option<std::collections::BTreeMap<String, String>>,
        Vec<Answer>,
    ) {
        let namespace = self.settings.operator_namespace.as_str();
        let home = Stores::get(&self.stores.config_maps, namespace, REVOCATIONS);
        let home = home
            .map(|map| revocations::read(&map).0)
            .unwrap_or_default();
        let before = revocations::noted(map);
        let mut outbox = Revocations::default();
        let mut foreign = 0;
        for (tenant, text) in &before {
            match serde_json::from_str::<OfTenant>(text) {
                Ok(clients) => outbox.join_tenant(tenant, &clients),
                // Somebody's by hand: the operator tells of it.
                Err(_) => foreign += tenant.len() + text.len(),
            }
        }
        let mut bounds = Bounds::of(&self.settings);
        bounds.bytes = bounds.bytes.saturating_sub(foreign);
        let with = (self.clock.now(), leeway(&self.settings), &bounds);
        let (mut changed, mut answers) = (false, Vec::with_capacity(notes.len()));
        for note in notes {
            let of = (note.namespace.as_str(), note.client_id.as_str());
            let outcome = match &note.what {
                What::Token(token) => outbox.revoke(&home, of, token, with),
                What::Device { companion, from } => {
                    let also = (companion.as_deref(), *from);
                    outbox.revoke_device(&home, of, also, (with.0, &bounds))
                }
            };
            changed |= outcome == Ok(true);
            answers.push(outcome.map(drop).map_err(|_| Unnoted::Full));
        }
        let mut data = before;
        data.extend(revocations::write(&outbox).unwrap_or_default());
        (changed.then_some(data), answers)
    }
}
