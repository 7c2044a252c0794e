//! Whether a client secret is right, without telling anyone more than that.
//!
//! - **Remembered.** A secret that was verified once is remembered as HMAC-SHA256 under a key
//!   that lives as long as the process, bound to the very hash that it was verified against: the
//!   hot path costs no bcrypt. A request asks for the hashes of its own snapshot; what no
//!   snapshot needs any more is forgotten when the next one comes. Snapshots may follow each other
//!   faster than bcrypt runs: what was found under one serves the next, as far as the hashes are the
//!   same.
//! - **Refused at one price.** What a refusal costs follows from the shape of what was
//!   presented. Of the shape of a generated secret, by prefix and checksum: exactly [`COMPARISONS`]
//!   bcrypt comparisons of each cost that hashes of generated secrets have (one, but while a
//!   release changes it), against the client's hashes and, as far as it has fewer (or is
//!   unknown, or suspended), against dummies. Of the shape of a supplied one ([`supplied::shape`]): the
//!   same with the costs that hashes of supplied secrets have, which are others; none at all where
//!   nobody in the whole release has supplied one. Of neither shape: no hash at all. Which costs there
//!   are is the same for known and unknown clients. Dummies come last, so that the right
//!   secret costs one. The newest hashes count; more than [`COMPARISONS`] of one client never work.
//! - **Bounded.** bcrypt runs on few threads at once with a bounded queue before them; beyond
//!   that a request is turned away. Supplied secrets, whose checks take long, have threads and a queue
//!   of their own. Requests with the same secret share one check.

mod pool;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aws_lc_rs::{constant_time, hmac};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use jiff::Timestamp;

use super::client_auth::Authenticated;
use super::metrics::{Metrics, SecretCheck};
use super::snapshot::View;
use super::throttle::TooOften;
use crate::crypto::{hash, random, secret, supplied};
use crate::domain::client::Client;
use crate::domain::rotation::MOST_SECRETS;
use crate::domain::settings::SecretSettings;
use crate::domain::settings::secrets::HIGHEST_SUPPLIED_COST;

pub use pool::HashLimits;
use pool::Pool;

/// How many hashes a well-shaped secret is compared with before it is refused: as many as may work at
/// once. Equal for all, so that the time tells nothing about anyone.
pub const COMPARISONS: usize = MOST_SECRETS;

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

/// The bcrypt costs that the hashes of all clients have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Costs {
    /// Of generated secrets.
    generated: BTreeSet<u32>,
    /// Of supplied ones.
    supplied: BTreeSet<u32>,
}

impl Costs {
    /// Those of all these clients, suspended or not.
    pub(super) fn of(clients: &HashMap<String, Arc<Client>>) -> Self {
        let mut costs = Self::default();
        for credential in clients.values().flat_map(|c| &c.credentials) {
            match Shape::of_hash(&credential.hash) {
                Some((Shape::Generated, cost)) => costs.generated.insert(cost),
                Some((Shape::Supplied, cost)) => costs.supplied.insert(cost),
                None => false,
            };
        }
        costs
    }
}

/// What a secret looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Generated,
    Supplied,
}

impl Shape {
    fn of(presented: &str) -> Option<Self> {
        if secret::shape(presented).is_some() {
            Some(Self::Generated)
        } else {
            supplied::shape(presented).then_some(Self::Supplied)
        }
    }

    /// The shape that the secret of a hash has, with the hash's cost.
    fn of_hash(stored: &str) -> Option<(Self, u32)> {
        let cost = hash::cost_of(stored).filter(|cost| *cost <= HIGHEST_SUPPLIED_COST)?;
        let shape = if hash::is_of_generated(cost) {
            Self::Generated
        } else {
            Self::Supplied
        };
        Some((shape, cost))
    }
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
    /// Forgets what does not hold for these clients.
    pub(super) fn keep_for(&self, clients: &HashMap<String, Arc<Client>>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|id, of_client| {
            let client = clients.get(id).filter(|c| !c.suspended);
            of_client.retain(|v| client.is_some_and(|client| v.holds_for(client)));
            !of_client.is_empty()
        });
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

    /// The id of the credential that a secret is, where it is remembered.
    fn knows(&self, client: &Client, tag: &Tag, now: Timestamp) -> Option<String> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = all.get(&client.id)?.iter();
        let known = all.find(|v| {
            constant_time::verify_slices_are_equal(&v.tag, tag).is_ok() && v.works_for(client, now)
        });
        known.map(|v| v.credential_id.clone())
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

/// The checks that go on, by what is judged and the ids and hashes that it is compared with: an outcome is
/// good for the hashes that it is computed from.
type UnderWay = Mutex<HashMap<(Tag, Vec<(String, String)>), Check>>;

/// Checks client secrets.
#[derive(Debug)]
pub struct Secrets {
    key: hmac::Key,
    settings: SecretSettings,
    pool: Arc<Pool>,
    /// For secrets that people supply.
    slow_pool: Arc<Pool>,
    under_way: UnderWay,
    metrics: Arc<Metrics>,
    /// Whether a refusal costs the same for everyone: always, but in a benchmark that is to fail.
    equal: bool,
}

impl Secrets {
    /// A checker with a key of its own.
    pub fn new(limits: HashLimits, settings: SecretSettings, metrics: Arc<Metrics>) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()),
            settings,
            pool: Arc::new(Pool::new(limits, &metrics)),
            slow_pool: Arc::new(Pool::new(limits.of_supplied(), &metrics)),
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
    ) -> Result<Authenticated<'v>, Denied> {
        let client = view.active_client(client_id);
        let tag = self.tag(client_id, secret);
        if let Some(client) = client
            && let Some(credential) = view.remembered.knows(client, &tag, now)
        {
            self.metrics.checked(SecretCheck::Remembered);
            return Ok(Authenticated { client, credential });
        }
        let shape = Shape::of(secret).filter(|shape| {
            // That nobody at all has such a secret tells nothing about anyone.
            *shape == Shape::Generated || !view.costs.supplied.is_empty()
        });
        let Some(shape) = shape else {
            attempt().map_err(Denied::TooOften)?;
            self.metrics.checked(SecretCheck::Misshapen);
            return Err(Denied::Invalid);
        };
        let outcome = self
            .check_once(view, client, (tag, secret, shape), now, attempt)
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
        let credential = verified.credential_id.clone();
        view.remembered.remember(client_id, verified);
        Ok(Authenticated { client, credential })
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

    /// Joins the check of the same secret that is under way, or begins it.
    async fn check_once(
        &self,
        view: &View,
        client: Option<&Arc<Client>>,
        (tag, secret, shape): (Tag, &str, Shape),
        now: Timestamp,
        attempt: impl FnOnce() -> Result<(), TooOften>,
    ) -> Result<Option<Arc<Verified>>, Denied> {
        let candidates = candidates(client, shape, now);
        let key = (tag, candidates);
        let check = {
            let mut under_way = self
                .under_way
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match under_way.entry(key.clone()) {
                Entry::Occupied(joined) => joined.get().clone(),
                Entry::Vacant(place) => {
                    attempt().map_err(Denied::TooOften)?;
                    let check = self.check(&view.costs, (tag, secret, shape), key.1.clone());
                    place.insert(check).clone()
                }
            }
        };
        // Also when the client hangs up meanwhile: nothing is left behind.
        let _forget = Forget {
            under_way: &self.under_way,
            key,
            check: Some(check.clone()),
        };
        check.await
    }

    fn check(
        &self,
        costs: &Costs,
        (tag, secret, shape): (Tag, &str, Shape),
        candidates: Vec<(String, String)>,
    ) -> Check {
        let dummies = if self.equal {
            self.dummies(costs, shape, &candidates)
        } else {
            Vec::new()
        };
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
            for dummy in dummies {
                metrics.comparisons.inc();
                // Its result counts for nothing, whatever it is.
                std::hint::black_box(hash::verify(&secret, &dummy));
            }
            None
        };
        let pool = Arc::clone(match shape {
            Shape::Generated => &self.pool,
            Shape::Supplied => &self.slow_pool,
        });
        async move { pool.run(compare).await }.boxed().shared()
    }

    /// What is to be compared with besides, so that all cost the same.
    fn dummies(&self, costs: &Costs, shape: Shape, candidates: &[(String, String)]) -> Vec<String> {
        let usual = BTreeSet::from([self.settings.generated_cost]);
        let costs = match shape {
            Shape::Generated if costs.generated.is_empty() => &usual,
            Shape::Generated => &costs.generated,
            Shape::Supplied => &costs.supplied,
        };
        let of_cost = |cost: &u32| {
            let real = candidates.iter();
            let real = real.filter(|(_, stored)| hash::cost_of(stored) == Some(*cost));
            let missing = COMPARISONS.saturating_sub(real.count());
            std::iter::repeat_n(hash::of_nothing(*cost), missing)
        };
        costs.iter().flat_map(of_cost).collect()
    }
}

/// The ids and hashes that a secret of that shape is compared with: the newest ones that work.
fn candidates(client: Option<&Arc<Client>>, shape: Shape, now: Timestamp) -> Vec<(String, String)> {
    let mut credentials: Vec<_> = client.iter().flat_map(|c| &c.credentials).collect();
    let of_shape = |hash: &str| Shape::of_hash(hash).is_some_and(|(of, _)| of == shape);
    credentials.retain(|c| c.works_at(now) && of_shape(&c.hash));
    credentials.sort_by_key(|c| std::cmp::Reverse(c.created_at));
    credentials.truncate(COMPARISONS);
    let candidates = credentials.into_iter();
    candidates.map(|c| (c.id.clone(), c.hash.clone())).collect()
}

/// Takes a check off the list of those under way: once it is over, or nobody waits for it any more.
struct Forget<'a> {
    under_way: &'a UnderWay,
    key: (Tag, Vec<(String, String)>),
    check: Option<Check>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Before the lock is given back: of two that leave at once one is the last.
        drop(self.check.take());
        let over = |check: &Check| check.peek().is_some() || check.strong_count() == Some(1);
        if under_way.get(&self.key).is_some_and(over) {
            under_way.remove(&self.key);
        }
    }
}
