//! How often clients may ask, and fail: bounded in memory, and with nothing in it that an attacker
//! could push out.
//!
//! - **Failures**, by client id and by source address, are counted in two tables of a fixed size
//!   ([`Sketch`]). Nothing is ever evicted from them: whoever fills them with other names only
//!   makes them stricter. A client id is counted whether there is such a client or not, so that a
//!   429 tells nothing.
//! - **Tokens** are counted by client, exactly, and only once a client is authenticated: so that
//!   there are no more entries than technical users.
//!
//! A secret that is remembered as verified ([`super::secrets`]) is asked about neither failures
//! nor sources. Why it is done so: `docs/decisions/2026-11-26-throttles.md`.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::metrics::{Metrics, ThrottledBy};
use crate::clock::SharedClock;
use crate::domain::rate::Rate;
use crate::domain::settings::ThrottleSettings;

/// Rows of a sketch: a name is refused by mistake only where others fill its cell in all of them.
const ROWS: usize = 4;
/// Cells in a row: half a megabyte for a sketch.
const CELLS: usize = 1 << 14;
/// So many clients are counted before those are looked for that need not be.
const FEW_CLIENTS: usize = 1024;

/// Too often: come again after so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOften(pub Duration);

/// What an attempt was counted with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    by_client: Raised,
    by_source: Raised,
}

/// By how much it has raised which cells.
type Raised = [(usize, u64); ROWS];

/// All that is throttled in this process.
pub struct Throttle {
    settings: ThrottleSettings,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    by_client: Sketch,
    by_source: Sketch,
    tokens: Mutex<Tokens>,
}

impl Throttle {
    /// Nothing is counted yet.
    pub fn new(settings: ThrottleSettings, clock: SharedClock, metrics: Arc<Metrics>) -> Self {
        Self {
            settings,
            clock,
            metrics,
            by_client: Sketch::new(),
            by_source: Sketch::new(),
            tokens: Mutex::default(),
        }
    }

    /// Before a secret is judged that is not remembered: counts the attempt for both client id and
    /// source. One that turns out to be right has been counted too; it is remembered from then on.
    /// Also counts an assertion that has proved nothing.
    ///
    /// # Errors
    /// One of them has failed too often. No bcrypt may be spent on it.
    pub fn attempt(
        &self,
        client_id: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<Attempt, TooOften> {
        let mut attempt = Attempt::default();
        let now = self.now();
        let source = source.map(network);
        let per_source = self.settings.failures_per_source;
        let by_source = |wait| self.refuse(ThrottledBy::Source, wait);
        // Looked at first, so that who is refused for its address counts against no client; and
        // counted last, so that who is refused for others' failures is not blamed for it.
        if let Some(source) = &source {
            self.by_source
                .look(source, per_source, now)
                .map_err(by_source)?;
        }
        if let Some(client_id) = client_id {
            attempt.by_client = self
                .by_client
                .take(client_id, self.settings.failures_per_client, now)
                .map_err(|wait| self.refuse(ThrottledBy::Client, wait))?;
        }
        if let Some(source) = &source {
            attempt.by_source = self
                .by_source
                .take(source, per_source, now)
                .map_err(by_source)?;
        }
        Ok(attempt)
    }

    /// An attempt that was counted has succeeded: it is taken back, so that many clients behind one
    /// address can begin at the same time.
    pub fn succeeded(&self, attempt: Attempt) {
        self.by_client.give_back(attempt.by_client);
        self.by_source.give_back(attempt.by_source);
    }

    /// Counts a token that an authenticated client asks for.
    ///
    /// # Errors
    /// It has asked for more than its rate, or the release's, allows.
    pub fn token(&self, client_id: &str, own: Option<Rate>) -> Result<(), TooOften> {
        let now = self.now();
        let rate = self.token_rate(own);
        let mut tokens = lock(&self.tokens);
        tokens
            .take(client_id, rate, now)
            .map_err(|wait| self.refuse(ThrottledBy::TokenRate, wait))
    }

    /// The rate that holds for a client which has one of its own, or none.
    pub fn token_rate(&self, own: Option<Rate>) -> Rate {
        let most = self.settings.max_token_rate;
        let rate = own.unwrap_or(self.settings.token_rate);
        if rate.exceeds(most) { most } else { rate }
    }

    fn refuse(&self, by: ThrottledBy, wait: u64) -> TooOften {
        self.metrics.throttled(by);
        TooOften(Duration::from_nanos(wait))
    }

    fn now(&self) -> u64 {
        self.clock
            .elapsed()
            .as_nanos()
            .try_into()
            .unwrap_or(u64::MAX)
    }
}

/// What an address is counted as: an IPv4 address, or the /64 of an IPv6 address, since one host
/// has a whole one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A count-min sketch of leaky buckets: each name has one cell in each row, found by a keyed hash,
/// and a cell says when the bucket would be empty. A name's own count is never above the least of
/// its cells, so that others can add to what is held against it and never take away.
struct Sketch {
    hasher: RandomState,
    cells: Mutex<Box<[u64]>>,
}

impl Sketch {
    fn new() -> Self {
        Self {
            // Its key is random, so that nobody can choose names that fall together.
            hasher: RandomState::new(),
            cells: Mutex::new(vec![0; ROWS * CELLS].into()),
        }
    }

    /// Whether one more would pass; else after how many nanoseconds it would.
    fn look(&self, name: &impl Name, rate: Rate, now: u64) -> Result<(), u64> {
        let places = self.places(name);
        let cells = lock(&self.cells);
        rate.take(least(&cells, places), now).map(drop)
    }

    fn take<N: Name + ?Sized>(&self, name: &N, rate: Rate, now: u64) -> Result<Raised, u64> {
        let places = self.places(name);
        let mut cells = lock(&self.cells);
        let after = rate.take(least(&cells, places), now)?;
        Ok(places.map(|place| {
            let before = cells[place].max(now);
            // Only as far as this name needs: others that share the cell lose no more than that.
            cells[place] = cells[place].max(after);
            (place, after.saturating_sub(before))
        }))
    }

    /// No more than was taken, so that nobody gains room by it.
    fn give_back(&self, raised: Raised) {
        let mut cells = lock(&self.cells);
        for (place, by) in raised {
            cells[place] = cells[place].saturating_sub(by);
        }
    }

    fn places<N: Name + ?Sized>(&self, name: &N) -> [usize; ROWS] {
        let hash = self.hasher.hash_one(name);
        // 4 × 14 of its 64 bits.
        std::array::from_fn(|row| {
            let bits = usize::try_from((hash >> (row * 14)) & (CELLS as u64 - 1));
            row * CELLS + bits.unwrap_or_default()
        })
    }
}

/// What a sketch counts.
trait Name: std::hash::Hash {}
impl Name for str {}
impl Name for IpAddr {}

fn least(cells: &[u64], places: [usize; ROWS]) -> u64 {
    places.map(|p| cells[p]).into_iter().min().unwrap_or(0)
}

/// When the bucket of each client that was authenticated lately would be empty.
#[derive(Default)]
struct Tokens {
    empty_at: HashMap<String, u64>,
    /// At so many entries those are dropped whose bucket is empty.
    tidy_at: usize,
}

impl Tokens {
    fn take(&mut self, client_id: &str, rate: Rate, now: u64) -> Result<(), u64> {
        if let Some(empty_at) = self.empty_at.get_mut(client_id) {
            *empty_at = rate.take(*empty_at, now)?;
            return Ok(());
        }
        if self.empty_at.len() >= self.tidy_at.max(FEW_CLIENTS) {
            // One whose bucket is empty counts like one that never asked.
            self.empty_at.retain(|_, empty_at| *empty_at > now);
            self.tidy_at = self.empty_at.len() * 2;
        }
        let empty_at = rate.take(0, now)?;
        self.empty_at.insert(client_id.to_owned(), empty_at);
        Ok(())
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "throttle/tests.rs"]
mod tests;
