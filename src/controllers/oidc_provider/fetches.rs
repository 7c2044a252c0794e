//! Asks outside providers for their keys, now and then, beside the visits: one that is slow holds up no
//! one else. What they answer is remembered here, for the visits to read.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::info;

use crate::api::v1alpha1::{OidcProvider, RELOAD_ANNOTATION};
use crate::controllers::operator::Context;
use crate::crypto::random;
use crate::objects::annotation;
use crate::outside::{Fault, Fetched, Limits, Source, fetch};

/// So many are asked at once,
const CONCURRENCY: usize = 32;
/// and so many of one namespace, so that no tenant's slow providers fill all places.
const OF_NAMESPACE: usize = 4;
/// The shortest time between two questions to a provider, whatever its answers say.
const SHORTEST: Duration = Duration::from_secs(10);
/// The same where a person asks for it.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How soon one that failed is asked again; it doubles with each further failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest such wait.
const LONGEST_BACKOFF: Duration = Duration::from_mins(5);

/// Namespace and name.
type Name = (String, String);

/// What is asked of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    source: Source,
    refresh: Duration,
    reload: Option<String>,
}

impl Demand {
    /// Of a resource; none if its keys stand in its spec.
    pub fn of(provider: &OidcProvider) -> Option<Self> {
        let spec = &provider.spec;
        let refresh = u64::try_from(spec.jwks.refresh_interval.as_secs());
        Some(Self {
            source: Source {
                well_known_uri: spec.well_known_uri.clone()?,
                issuers: spec.issuers.clone(),
                require_https: spec.require_https,
                ca_bundle: spec.ca_bundle.clone(),
            },
            refresh: Duration::from_secs(refresh.unwrap_or(0)).max(SHORTEST),
            reload: annotation(&provider.metadata, RELOAD_ANNOTATION).map(str::to_owned),
        })
    }
}

/// What came of asking a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The value of the reload annotation when it was asked.
    pub reload: Option<String>,
    /// When it is asked next.
    pub next: Timestamp,
    /// The last good answer, and when it came.
    good: Option<(Timestamp, Fetched)>,
    /// Why there was none this time.
    fault: Option<Fault>,
}

impl Outcome {
    /// One without further ado.
    #[cfg(test)]
    pub fn new(at: Timestamp, answer: Result<Fetched, Fault>) -> Self {
        let fault = answer.as_ref().err().cloned();
        Self {
            reload: None,
            next: at,
            good: answer.ok().map(|fetched| (at, fetched)),
            fault,
        }
    }

    /// The last good answer, and when it came.
    pub fn fetched(&self) -> Option<(Timestamp, &Fetched)> {
        self.good.as_ref().map(|(at, fetched)| (*at, fetched))
    }

    /// Why the last try failed.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }
}

/// What is known of a provider that is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// What came of it last; none: it has not answered yet, or is not asked.
    pub outcome: Option<Outcome>,
}

/// All that are asked.
#[derive(Default)]
pub struct Fetches {
    all: Mutex<BTreeMap<Name, Entry>>,
    /// Another one is to be asked.
    stir: Notify,
    answered: Mutex<Vec<Name>>,
    /// `answered` has grown.
    news: Notify,
}

struct Entry {
    demand: Demand,
    due: Instant,
    started: Option<Instant>,
    running: bool,
    /// Its keys are wanted, and what is being asked now may have been answered before.
    wanted: bool,
    failures: u32,
    outcome: Option<Outcome>,
}

impl Entry {
    fn new(demand: Demand, due: Instant) -> Self {
        Self {
            demand,
            due,
            started: None,
            running: false,
            wanted: false,
            failures: 0,
            outcome: None,
        }
    }

    /// When it may be asked at the earliest because its keys are wanted: whoever sends tokens with keys of his
    /// own making has it asked no more often than that.
    fn soonest(&self, now: Instant) -> Instant {
        let started = self.started.map(|started| started + SHORTEST);
        started.map_or(now, |soonest| soonest.max(now))
    }

    /// How long to wait until it is asked again.
    fn wait(&mut self, demand: &Demand, answer: &Result<Fetched, Fault>) -> Duration {
        if let Ok(fetched) = answer {
            self.failures = 0;
            let age = fetched.max_age.unwrap_or(demand.refresh);
            // Up to a tenth sooner, so that many do not come together.
            let sooner = 1.0 - 0.1 * random::fraction();
            let refresh = age.clamp(SHORTEST, demand.refresh).mul_f64(sooner);
            return refresh.max(SHORTEST);
        }
        let doubled = 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let longest = LONGEST_BACKOFF.min(demand.refresh);
        let wait = FIRST_BACKOFF.saturating_mul(doubled).min(longest);
        wait.mul_f64(1.0 + 0.5 * random::fraction())
    }
}

impl Fetches {
    /// Has a provider asked from now on, or asked no more where nothing is demanded; and what is known of
    /// it.
    pub fn ask(&self, name: &Name, demand: Option<Demand>) -> Asked {
        let mut all = lock(&self.all);
        let Some(demand) = demand else {
            all.remove(name);
            return Asked::default();
        };
        let now = Instant::now();
        let entry = all.entry(name.clone()).or_insert_with(|| {
            self.stir.notify_one();
            Entry::new(demand.clone(), now)
        });
        if entry.demand != demand {
            if entry.demand.source != demand.source {
                // What another place has answered says nothing of this one.
                entry.outcome = None;
            }
            entry.demand = demand;
            entry.failures = 0;
            let soonest = entry.started.map(|started| started + AT_ONCE);
            entry.due = soonest.map_or(now, |soonest| soonest.max(now));
            self.stir.notify_one();
        }
        Asked {
            outcome: entry.outcome.clone(),
        }
    }

    /// Has a provider asked soon, since a token names a key that it was not seen to have; one that is asked no
    /// more is left alone.
    pub fn want(&self, name: &Name) {
        let mut all = lock(&self.all);
        let Some(entry) = all.get_mut(name) else {
            return;
        };
        if entry.running {
            entry.wanted = true;
            return;
        }
        let soonest = entry.soonest(Instant::now());
        if soonest < entry.due {
            entry.due = soonest;
            self.stir.notify_one();
        }
    }

    /// Waits until one has answered, and gives all that have.
    pub async fn answered(&self) -> Vec<Name> {
        loop {
            let news = self.news.notified();
            let answered = std::mem::take(&mut *lock(&self.answered));
            if !answered.is_empty() {
                return answered;
            }
            news.await;
        }
    }

    /// One that is due and for which there is a place: it is being asked from now on.
    fn take(&self, now: Instant) -> Option<(Name, Demand)> {
        let mut all = lock(&self.all);
        let (due, name) = first(&all)?;
        let name = name.clone();
        let entry = all.get_mut(&name).filter(|_| due <= now)?;
        (entry.running, entry.started) = (true, Some(now));
        entry.wanted = false;
        Some((name, entry.demand.clone()))
    }

    /// When the next one is due for which there is a place.
    fn next_due(&self) -> Option<Instant> {
        first(&lock(&self.all)).map(|(due, _)| due)
    }

    /// Notes an answer.
    fn put(&self, name: Name, demand: &Demand, answer: Result<Fetched, Fault>, at: Timestamp) {
        let mut all = lock(&self.all);
        // Otherwise it is not to be asked any more.
        if let Some(entry) = all.get_mut(&name) {
            entry.running = false;
            if entry.demand.source != demand.source {
                // Its spec was changed meanwhile, and it is due already.
                return;
            }
            let wait = entry.wait(demand, &answer);
            let before = entry.outcome.take();
            tell(
                &name,
                before.as_ref().and_then(Outcome::fault),
                answer.as_ref().err(),
            );
            let fault = answer.as_ref().err().cloned();
            let good = answer.ok().map(|fetched| (at, fetched));
            let span = SignedDuration::try_from(wait).unwrap_or_default();
            entry.outcome = Some(Outcome {
                reload: demand.reload.clone(),
                next: at.saturating_add(span).unwrap_or(at),
                good: good.or_else(|| before.and_then(|before| before.good)),
                fault,
            });
            // A reload that came meanwhile has its own time.
            if entry.demand == *demand {
                let now = Instant::now();
                entry.due = now + wait;
                if entry.wanted {
                    entry.due = entry.due.min(entry.soonest(now));
                }
            }
        }
        drop(all);
        lock(&self.answered).push(name);
        self.news.notify_one();
    }

    fn forget_all(&self) {
        lock(&self.all).clear();
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Once for each trouble.
fn tell((namespace, name): &Name, before: Option<&Fault>, now: Option<&Fault>) {
    match (before, now) {
        (before, Some(why)) if before != Some(why) => {
            info!(?namespace, ?name, why = ?why.to_string(), "a provider's keys can not be read");
        }
        (Some(_), None) => info!(?namespace, ?name, "a provider's keys can be read again"),
        _ => {}
    }
}

/// The first in time that is not being asked, of a namespace that has a place.
fn first(all: &BTreeMap<Name, Entry>) -> Option<(Instant, &Name)> {
    let mut running: BTreeMap<&str, usize> = BTreeMap::new();
    for ((namespace, _), _) in all.iter().filter(|(_, entry)| entry.running) {
        *running.entry(namespace).or_default() += 1;
    }
    if running.values().sum::<usize>() >= CONCURRENCY {
        return None;
    }
    let idle = all.iter().filter(|((namespace, _), entry)| {
        let busy = running.get(namespace.as_str()).copied().unwrap_or(0);
        !entry.running && busy < OF_NAMESPACE
    });
    idle.map(|(name, entry)| (entry.due, name)).min()
}

/// Asks whoever is due while this process leads. Without an end.
pub async fn follow(cx: &Context) {
    let fetches = &cx.providers;
    let allowed = cx.settings.providers.allowed();
    let mut running = FuturesUnordered::new();
    loop {
        if !cx.leadership.leads() {
            running.clear();
            fetches.forget_all();
            cx.leadership.becomes(true).await;
            continue;
        }
        while let Some((name, demand)) = fetches.take(Instant::now()) {
            let allowed = &allowed;
            running.push(async move {
                // A bug in one is its failure, and not the end of them all.
                let asked = fetch(&demand.source, allowed, Limits::default());
                let answer = AssertUnwindSafe(asked).catch_unwind().await;
                let answer = answer.unwrap_or_else(|_| {
                    let bug = "asking it met a bug, which the log tells of";
                    Err(Fault::Unreachable(bug.into()))
                });
                (name, demand, answer)
            });
        }
        let due = fetches.next_due();
        tokio::select! {
            Some((name, demand, answer)) = running.next(), if !running.is_empty() => {
                let at = cx.clock_guard.moment().now;
                fetches.put(name, &demand, answer, at);
            }
            () = fetches.stir.notified() => {}
            () = cx.leadership.becomes(false) => {}
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(namespace: &str, name: &str) -> Name {
        (namespace.into(), name.into())
    }

    fn demand(uri: &str, reload: Option<&str>) -> Demand {
        Demand {
            source: Source {
                well_known_uri: uri.into(),
                issuers: Vec::new(),
                require_https: true,
                ca_bundle: None,
            },
            refresh: Duration::from_mins(5),
            reload: reload.map(str::to_owned),
        }
    }

    fn fetched(max_age: Option<u64>) -> Fetched {
        Fetched {
            issuer: "i".into(),
            jwks_uri: "j".into(),
            keys: Vec::new(),
            max_age: max_age.map(Duration::from_secs),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// How long until the next one is due.
    fn wait(fetches: &Fetches) -> Duration {
        fetches
            .next_due()
            .expect("due")
            .duration_since(Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn refreshes_honour_the_answer_within_bounds() {
        for (max_age, least, most) in [
            (None, 270, 300),
            (Some(0), 10, 10),
            (Some(60), 54, 60),
            (Some(86400), 270, 300),
        ] {
            let fetches = Fetches::default();
            let one = name("acme", "corp");
            fetches.ask(&one, Some(demand("u", None)));
            let (_, demanded) = fetches.take(Instant::now()).expect("due");
            fetches.put(one.clone(), &demanded, Ok(fetched(max_age)), at(1000));
            let wait = wait(&fetches);
            let bounds = Duration::from_secs(least)..=Duration::from_secs(most);
            assert!(bounds.contains(&wait), "{max_age:?}: {wait:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_a_reload_does_not() {
        let fetches = Fetches::default();
        let one = name("acme", "corp");
        let answer = async |answer: Result<Fetched, Fault>, second| {
            tokio::time::sleep_until(fetches.next_due().expect("due")).await;
            let (_, demanded) = fetches.take(Instant::now()).expect("due");
            fetches.put(one.clone(), &demanded, answer, at(second));
        };
        let fault = || Err(Fault::Unreachable("no".into()));
        let outcome = |reload| {
            let asked = fetches.ask(&one, Some(demand("u", reload)));
            asked.outcome.expect("known")
        };
        fetches.ask(&one, Some(demand("u", None)));
        let mut waits = Vec::new();
        for _ in 0..12 {
            answer(fault(), 1000).await;
            waits.push(wait(&fetches));
        }
        assert!(waits[0] < Duration::from_millis(1501), "{waits:?}");
        let last = Duration::from_mins(5)..Duration::from_secs(451);
        assert!(last.contains(&waits[11]), "{waits:?}");
        assert!(outcome(Some("now")).fault().is_some());
        assert!(wait(&fetches) <= AT_ONCE, "a person asks for it");
        answer(Ok(fetched(None)), 2000).await;
        let now = outcome(Some("now"));
        assert_eq!((now.reload.as_deref(), now.fault()), (Some("now"), None));
        // What it said last is kept through a failure, and not through a change of place.
        answer(fault(), 3000).await;
        let now = outcome(Some("now"));
        assert_eq!(now.fetched().map(|(at, _)| at.as_second()), Some(2000));
        assert!(now.fault().is_some());
        let elsewhere = fetches.ask(&one, Some(demand("v", None)));
        assert_eq!(elsewhere, Asked::default());
        assert_eq!(fetches.ask(&one, None), Asked::default());
        assert_eq!(fetches.next_due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_are_wanted_are_asked_for_soon_and_seldom() {
        let fetches = Fetches::default();
        let one = name("acme", "corp");
        fetches.want(&one);
        assert_eq!(fetches.next_due(), None, "nobody is asked for no one");
        fetches.ask(&one, Some(demand("u", None)));
        let begun = Instant::now();
        let mut asked = 0;
        // A flood of notes, for ten minutes.
        while begun.elapsed() < Duration::from_mins(10) {
            fetches.want(&one);
            if let Some((name, demanded)) = fetches.take(Instant::now()) {
                asked += 1;
                fetches.want(&one);
                tokio::time::advance(Duration::from_secs(1)).await;
                let answer = if asked % 2 == 0 {
                    Err(Fault::Unreachable("no".into()))
                } else {
                    Ok(fetched(None))
                };
                fetches.put(name, &demanded, answer, at(1000));
            }
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        // One that fails is asked again by its own backoff, once in between.
        assert!((40..=121).contains(&asked), "{asked}");
        // Asked long ago: at once. It was being asked meanwhile: once more.
        let (name, demanded) = loop {
            tokio::time::advance(Duration::from_secs(1)).await;
            if let Some(taken) = fetches.take(Instant::now()) {
                break taken;
            }
        };
        fetches.put(name.clone(), &demanded, Ok(fetched(None)), at(1000));
        assert!(wait(&fetches) > Duration::from_mins(4));
        tokio::time::advance(SHORTEST).await;
        fetches.want(&one);
        assert_eq!(wait(&fetches), Duration::ZERO);
        let (name, demanded) = fetches.take(Instant::now()).expect("due");
        fetches.want(&one);
        fetches.put(name, &demanded, Ok(fetched(None)), at(1000));
        assert_eq!(wait(&fetches), SHORTEST);
    }

    #[tokio::test(start_paused = true)]
    async fn one_tenants_slow_providers_leave_places_to_others() {
        let fetches = Fetches::default();
        for number in 0..20 {
            fetches.ask(
                &name("greedy", &number.to_string()),
                Some(demand("u", None)),
            );
        }
        let taken = std::iter::from_fn(|| fetches.take(Instant::now())).count();
        assert_eq!(taken, OF_NAMESPACE);
        fetches.ask(&name("modest", "one"), Some(demand("u", None)));
        let next = fetches.take(Instant::now()).expect("due").0;
        assert_eq!(next, name("modest", "one"));
    }
}
