//! Whether a client secret is right, without telling anyone more than that.
//!
//! - **Remembered.** A secret that was verified once is remembered as HMAC-SHA256 under a key
//!   that lives as long as the process, bound to the very hash that it was verified against: the
//!   hot path costs no bcrypt. What is remembered belongs to a snapshot and is carried over to
//!   the next one as far as client and hash are still there.
//! - **Refused at one price.** What a refusal costs follows from the shape of what was
//!   presented. Not one of our generated secrets by prefix and checksum: no hash at all, for
//!   known and unknown clients alike. Of their shape: exactly [`COMPARISONS`] bcrypt comparisons
//!   at [`GENERATED_COST`], against the client's hashes and, as far as it has fewer (or is
//!   unknown, or suspended), against dummies made at start. Dummies come last, so that the right
//!   secret costs one. The newest hashes count; more than [`COMPARISONS`] of one client never
//!   work, nor does one of another cost.
//! - **Bounded.** bcrypt runs on few threads at once with a bounded queue before them; beyond
//!   that a request is turned away. Requests with the same secret share one check.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aws_lc_rs::{constant_time, hmac};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::metrics::{Metrics, SecretCheck};
use super::snapshot::View;
use super::throttle::TooOften;
use crate::crypto::hash::{self, GENERATED_COST};
use crate::crypto::{random, secret};
use crate::domain::client::{Client, Family};
use crate::domain::rotation::MOST_SECRETS;

/// How many hashes a well-shaped secret is compared with before it is refused: as many as may work at
/// once. Equal for all, so that the time tells nothing about anyone.
pub const COMPARISONS: usize = MOST_SECRETS;

/// How much bcrypt may go on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashLimits {
    /// Checks that run at once.
    pub running: usize,
    /// Checks that wait beside them; what comes on top is turned away.
    pub waiting: usize,
}

impl Default for HashLimits {
    /// All cores but one, and a queue of about 200 ms.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let running = cores.saturating_sub(1).max(1);
        Self {
            running,
            waiting: running * 32,
        }
    }
}

/// Why a client is not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Unknown client, wrong secret or suspended: no one learns which.
    Invalid,
    /// Too many checks wait already.
    Busy,
    /// Too many have failed.
    TooOften(TooOften),
}

type Tag = [u8; 32];

/// A secret that was right.
#[derive(Debug)]
pub(super) struct Verified {
    credential_id: String,
    hash: String,
    tag: Tag,
}

impl Verified {
    fn holds_for(&self, client: &Client) -> bool {
        client
            .credentials
            .iter()
            .any(|c| c.id == self.credential_id && c.hash == self.hash)
    }

    fn works_for(&self, client: &Client, now: Timestamp) -> bool {
        client
            .credentials
            .iter()
            .any(|c| c.id == self.credential_id && c.hash == self.hash && c.works_at(now))
    }
}

/// The secrets that were right, by client id: at most one for each stored credential.
#[derive(Debug, Default)]
pub(super) struct Remembered(RwLock<HashMap<String, Vec<Arc<Verified>>>>);

impl Remembered {
    /// What still holds for these clients.
    pub(super) fn carried_over(&self, clients: &HashMap<String, Arc<Client>>) -> Self {
        let old = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let still = |(id, all): (&String, &Vec<Arc<Verified>>)| {
            let client = clients.get(id).filter(|c| !c.suspended)?;
            let held: Vec<_> = all
                .iter()
                .filter(|v| v.holds_for(client))
                .cloned()
                .collect();
            (!held.is_empty()).then(|| (id.clone(), held))
        };
        Self(RwLock::new(old.iter().filter_map(still).collect()))
    }

    /// How many secrets are remembered.
    pub(super) fn len(&self) -> usize {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(Vec::len)
            .sum()
    }

    fn knows(&self, client: &Client, tag: &Tag, now: Timestamp) -> bool {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&client.id).is_some_and(|all| {
            all.iter().any(|v| {
                constant_time::verify_slices_are_equal(&v.tag, tag).is_ok()
                    && v.works_for(client, now)
            })
        })
    }

    fn remember(&self, client_id: &str, verified: Arc<Verified>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let of_client = all.entry(client_id.to_owned()).or_default();
        of_client.retain(|v| v.credential_id != verified.credential_id);
        of_client.push(verified);
    }
}

/// The outcome of a check that several requests may wait for.
type Check = Shared<BoxFuture<'static, Result<Option<Arc<Verified>>, Denied>>>;

/// Checks client secrets.
#[derive(Debug)]
pub struct Secrets {
    key: hmac::Key,
    dummy_hash: String,
    pool: Arc<Pool>,
    under_way: Mutex<HashMap<(u64, Tag), Check>>,
    metrics: Arc<Metrics>,
    /// Whether a refusal costs the same for everyone: always, but in a benchmark that is to fail.
    equal: bool,
}

impl Secrets {
    /// A checker with a key of its own. Blocks for one bcrypt of a few milliseconds.
    pub fn new(limits: HashLimits, metrics: Arc<Metrics>) -> Self {
        let dummy_hash = hash::hash(&secret::generate(Family::Integration), GENERATED_COST)
            .expect("a generated secret can be hashed");
        let pool = Pool {
            permits: Arc::new(Semaphore::new(limits.running)),
            waiting: AtomicUsize::new(0),
            limits,
            metrics: Arc::clone(&metrics),
        };
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()),
            dummy_hash,
            pool: Arc::new(pool),
            under_way: Mutex::default(),
            metrics,
            equal: true,
        }
    }

    /// One that compares with no dummies: a broken one, to see that it would be noticed.
    #[doc(hidden)]
    #[must_use]
    pub fn without_dummies(self) -> Self {
        Self {
            equal: false,
            ..self
        }
    }

    /// The client with that id, if the secret is one of its own and it is not suspended. `attempt`
    /// is asked before a secret is judged that is not remembered, unless the very same is being
    /// judged already.
    pub async fn authenticate<'v>(
        &self,
        view: &'v View,
        client_id: &str,
        secret: &str,
        now: Timestamp,
        attempt: impl FnOnce() -> Result<(), TooOften>,
    ) -> Result<&'v Arc<Client>, Denied> {
        let client = view.active_client(client_id);
        let tag = self.tag(client_id, secret);
        if let Some(client) = client
            && view.remembered.knows(client, &tag, now)
        {
            self.metrics.checked(SecretCheck::Remembered);
            return Ok(client);
        }
        if secret::shape(secret).is_none() {
            attempt().map_err(Denied::TooOften)?;
            self.metrics.checked(SecretCheck::Misshapen);
            return Err(Denied::Invalid);
        }
        let outcome = self
            .check_once(view, client, (tag, secret), now, attempt)
            .await;
        let verified = outcome.inspect_err(|denied| {
            if *denied == Denied::Busy {
                self.metrics.checked(SecretCheck::Shed);
            }
        })?;
        let Some((client, verified)) = client.zip(verified) else {
            self.metrics.checked(SecretCheck::Wrong);
            return Err(Denied::Invalid);
        };
        self.metrics.checked(SecretCheck::Verified);
        view.remembered.remember(client_id, verified);
        Ok(client)
    }

    fn tag(&self, client_id: &str, secret: &str) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(client_id.as_bytes());
        context.update(&[0]);
        context.update(secret.as_bytes());
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// Joins the check of the same secret that is under way, or begins it. The key holds the
    /// snapshot's generation: an outcome is good for the hashes that it was computed from.
    async fn check_once(
        &self,
        view: &View,
        client: Option<&Arc<Client>>,
        (tag, secret): (Tag, &str),
        now: Timestamp,
        attempt: impl FnOnce() -> Result<(), TooOften>,
    ) -> Result<Option<Arc<Verified>>, Denied> {
        let key = (view.generation, tag);
        let check = {
            let mut under_way = self
                .under_way
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match under_way.entry(key) {
                Entry::Occupied(joined) => joined.get().clone(),
                Entry::Vacant(place) => {
                    attempt().map_err(Denied::TooOften)?;
                    place.insert(self.check(client, (tag, secret), now)).clone()
                }
            }
        };
        // Also when the client hangs up meanwhile: nothing is left behind.
        let _forget = Forget {
            under_way: &self.under_way,
            key,
        };
        check.await
    }

    fn check(
        &self,
        client: Option<&Arc<Client>>,
        (tag, secret): (Tag, &str),
        now: Timestamp,
    ) -> Check {
        let mut credentials: Vec<_> = client.iter().flat_map(|c| &c.credentials).collect();
        credentials.retain(|c| c.works_at(now) && hash::cost_of(&c.hash) == Some(GENERATED_COST));
        credentials.sort_by_key(|c| std::cmp::Reverse(c.created_at));
        credentials.truncate(COMPARISONS);
        let candidates: Vec<_> = credentials
            .into_iter()
            .map(|c| (c.id.clone(), c.hash.clone()))
            .collect();
        let dummies = COMPARISONS - candidates.len();
        let (dummy_hash, equal) = (self.dummy_hash.clone(), self.equal);
        let secret = zeroize::Zeroizing::new(secret.to_owned());
        let metrics = Arc::clone(&self.metrics);
        let compare = move || {
            for (credential_id, stored) in candidates {
                metrics.comparisons.inc();
                if hash::verify(&secret, &stored) {
                    return Some(Arc::new(Verified {
                        credential_id,
                        hash: stored,
                        tag,
                    }));
                }
            }
            for _ in 0..if equal { dummies } else { 0 } {
                metrics.comparisons.inc();
                // Its result counts for nothing, whatever it is.
                std::hint::black_box(hash::verify(&secret, &dummy_hash));
            }
            None
        };
        let pool = Arc::clone(&self.pool);
        async move { pool.run(compare).await }.boxed().shared()
    }
}

/// Takes a check off the list of those under way.
struct Forget<'a> {
    under_way: &'a Mutex<HashMap<(u64, Tag), Check>>,
    key: (u64, Tag),
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

/// Few threads at once, few waiting before them.
#[derive(Debug)]
struct Pool {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    limits: HashLimits,
    metrics: Arc<Metrics>,
}

impl Pool {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Denied> {
        let permit = if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            permit
        } else {
            let _place = self.queue().ok_or(Denied::Busy)?;
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            permit.map_err(|_| Denied::Busy)?
        };
        let metrics = Arc::clone(&self.metrics);
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            metrics.hashing.inc();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            metrics.hashing.dec();
            result
        });
        done.await.ok().and_then(Result::ok).ok_or(Denied::Busy)
    }

    fn queue(&self) -> Option<Place<'_>> {
        let place = Place(self);
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        self.metrics.hash_queue.inc();
        // Dropping the place gives it back.
        (before < self.limits.waiting).then_some(place)
    }
}

/// A place in the queue, given back when it is dropped.
struct Place<'a>(&'a Pool);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.hash_queue.dec();
    }
}
