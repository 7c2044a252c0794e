//! A visit's look, call by call: it is played again from its beginning with the answers that it has
//! had so far, up to the next call. So what a replica is amid is a list of answers, and a state of
//! the search can be copied.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use chancery::api::v1alpha1::SigningKey;
use chancery::controllers::{Error, Looked, PlanFn, Reads, look_at_ring};
use chancery::domain::algorithm::Algorithm;
use chancery::domain::jwk::PublicJwk;
use chancery::domain::moment::Moment;
use chancery::domain::names;
use chancery::domain::settings::Settings;
use chancery::stores::Guarded;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::shelf::{Id, Objects, SLOTS, Shelf};

/// The ring of the search.
pub const RING: &str = "main";

/// A call to the API server that reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Ring,
    RingMap,
    IssuerMap,
    Secrets,
    /// The Secret of that slot; one beyond the last is never there.
    Secret(usize),
}

/// What came back: the numbers of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    One(Id),
    Many([Id; SLOTS]),
}

impl Call {
    pub fn answer(self, objects: &Objects) -> Answer {
        match self {
            Self::Ring => Answer::One(objects.ring),
            Self::RingMap => Answer::One(objects.ring_map),
            Self::IssuerMap => Answer::One(objects.issuer_map),
            Self::Secrets => Answer::Many(objects.secrets),
            Self::Secret(slot) => Answer::One(objects.secrets.get(slot).copied().unwrap_or(0)),
        }
    }
}

/// How far a look has come.
#[allow(clippy::large_enum_variant)] // It lives for a moment, on the stack.
pub enum Progress {
    Calls(Call),
    Ends(Looked),
}

struct Replay<'a> {
    things: &'a Shelf,
    view: Objects,
    answers: RefCell<VecDeque<Answer>>,
    asks: Cell<Option<Call>>,
    /// What the clock says when it is asked for the first time, and then.
    times: Cell<(Timestamp, Timestamp)>,
}

/// Plays a look with these answers.
pub fn play(
    things: &Shelf,
    view: Objects,
    answers: &[(Call, Answer)],
    times: (Timestamp, Timestamp),
    by: (&Settings, PlanFn),
) -> Progress {
    let replay = Replay {
        things,
        view,
        answers: RefCell::new(answers.iter().map(|(_, answer)| *answer).collect()),
        asks: Cell::new(None),
        times: Cell::new(times),
    };
    let stored = things.ring(view.ring).cloned();
    let mut look = pin!(look_at_ring(&replay, stored, RING, by));
    match look.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(looked) => Progress::Ends(looked.expect("no call fails")),
        Poll::Pending => Progress::Calls(replay.asks.get().expect("it waits for a call")),
    }
}

impl Replay<'_> {
    async fn call(&self, call: Call) -> Answer {
        let next = self.answers.borrow_mut().pop_front();
        if let Some(answer) = next {
            return answer;
        }
        self.asks.set(Some(call));
        std::future::pending().await
    }

    async fn one(&self, call: Call) -> Id {
        match self.call(call).await {
            Answer::One(id) => id,
            Answer::Many(_) => unreachable!("the same call gets the same kind of answer"),
        }
    }

    fn some(&self, secrets: [Id; SLOTS]) -> Vec<Arc<Secret>> {
        let there = secrets.iter().filter_map(|id| self.things.secret(*id));
        there.cloned().collect()
    }

    async fn list(&self) -> Vec<Arc<Secret>> {
        match self.call(Call::Secrets).await {
            Answer::Many(secrets) => self.some(secrets),
            Answer::One(_) => unreachable!("the same call gets the same kind of answer"),
        }
    }
}

impl Reads for Replay<'_> {
    fn moment(&self) -> Moment {
        let (now, then) = self.times.get();
        self.times.set((then, then));
        Moment { now, sure: true }
    }

    async fn live_ring(&self, _: &str) -> Result<Option<Guarded<SigningKey>>, Error> {
        let ring = self.things.ring(self.one(Call::Ring).await);
        Ok(ring.map(|ring| Guarded(Ok((**ring).clone()))))
    }

    async fn live_secret(&self, name: &str) -> Result<Option<Arc<Secret>>, Error> {
        let sequence = names::key_sequence(RING, name).expect("a key pair's name");
        let slot = usize::try_from(sequence - 1).expect("a number");
        let id = self.one(Call::Secret(slot)).await;
        Ok(self.things.secret(id).cloned())
    }

    async fn live_secrets(&self, _: &str) -> Result<Vec<Arc<Secret>>, Error> {
        Ok(self.list().await)
    }

    async fn live_key_pairs(&self) -> Result<Vec<Arc<Secret>>, Error> {
        Ok(self.list().await)
    }

    async fn live_config_map(&self, name: &str) -> Result<Option<Arc<ConfigMap>>, Error> {
        let call = if name == names::ISSUER_JWKS {
            Call::IssuerMap
        } else {
            Call::RingMap
        };
        let id = self.one(call).await;
        Ok(self.things.map(id).cloned())
    }

    fn secrets(&self) -> Vec<Arc<Secret>> {
        self.some(self.view.secrets)
    }

    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        let id = if name == names::ISSUER_JWKS {
            self.view.issuer_map
        } else {
            self.view.ring_map
        };
        self.things.map(id).cloned()
    }

    fn others(&self, _: &str) -> BTreeMap<String, Vec<PublicJwk>> {
        BTreeMap::new()
    }

    fn key_of(&self, secret: &Secret, _: Algorithm) -> Result<PublicJwk, String> {
        let pair = self.things.pair_in(secret).ok_or("no key pair")?;
        Ok(self.things.pairs[pair].jwk.clone())
    }
}
