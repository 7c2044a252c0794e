//! What requests make durable: each kind of it is noted in an object of its own, the only ones that the
//! server may write, several notes at once in one write; and the operator brings it home
//! ([`crate::controllers`] tells how it is judged there).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::serve::revoke::Unnoted;

mod enrolments;
mod revocations;

pub use enrolments::Enrolments;
pub use revocations::Revocations;

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

/// What became of a note.
pub type Answer = Result<(), Unnoted>;

/// How notes of a kind are written down.
pub trait Book: Send + Sync + 'static {
    /// What is noted.
    type Note: Send + 'static;
    /// The ConfigMap.
    const MAP: &'static str;

    /// The ConfigMap's data with the notes in it, if that differs, and what to answer once it stands.
    fn noted(
        &self,
        map: &ConfigMap,
        notes: &[Self::Note],
    ) -> (Option<BTreeMap<String, String>>, Vec<Answer>);
}

type Waiting<N> = (N, oneshot::Sender<Answer>);

/// Takes notes, for requests.
pub struct Notes<N>(mpsc::Sender<Waiting<N>>);

impl<N: Send + 'static> Notes<N> {
    /// Takes one, at once; what becomes of it comes later.
    fn take(&self, note: N) -> BoxFuture<'static, Answer> {
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
pub struct Writer<B: Book> {
    client: Client,
    namespace: String,
    book: B,
    waiting: mpsc::Receiver<Waiting<B::Note>>,
}

/// Where notes are taken, before there is anything that writes them.
pub struct Taken<N>(mpsc::Receiver<Waiting<N>>);

/// What takes notes, and what a [`Writer`] is made of.
pub fn channel<N>() -> (Notes<N>, Taken<N>) {
    let (notes, taken) = mpsc::channel(MOST_WAITING);
    (Notes(notes), Taken(taken))
}

impl<B: Book> Writer<B> {
    /// One that writes what was taken into the book, in the operator's namespace.
    pub fn new(client: Client, namespace: &str, book: B, Taken(waiting): Taken<B::Note>) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            book,
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
    async fn write(&self, notes: &[B::Note]) -> Vec<Answer> {
        let none = || vec![Err(Unnoted::Unreachable); notes.len()];
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        for turn in 0..TRIES {
            let mut map = match timeout(CALL_LIMIT, api.get(B::MAP)).await {
                Ok(Ok(map)) => map,
                Ok(Err(error)) => {
                    warn!(%error, map = B::MAP, "an outbox can not be read");
                    return none();
                }
                Err(_) => return none(),
            };
            let (data, answers) = self.book.noted(&map, notes);
            let Some(data) = data else {
                return answers;
            };
            map.data = Some(data);
            map.metadata.managed_fields = None;
            let params = PostParams::default();
            match timeout(CALL_LIMIT, api.replace(B::MAP, &params, &map)).await {
                Ok(Ok(_)) => return answers,
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                    debug!(turn, "another replica, or the operator, was first");
                    let luck = u64::from(crate::crypto::random::bytes::<1>()[0]);
                    sleep(Duration::from_millis(luck * u64::from(turn + 1) / 8)).await;
                }
                Ok(Err(error)) => {
                    warn!(%error, map = B::MAP, "an outbox can not be written");
                    return none();
                }
                // It may have been written, or not: to ask again is harmless.
                Err(_) => return none(),
            }
        }
        none()
    }
}
