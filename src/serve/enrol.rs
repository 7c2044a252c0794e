//! What Users make of people whom outside providers vouch for: who is suspended is kept out, and who is new
//! is noted, where the provider enrols.
//!
//! A token for somebody new follows the write of the note ([`Enrolments`]); who is known costs no write.
//! The operator makes the User. Each tenant has a rate and a bound of its own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;

use super::app::App;
use super::metrics::Enrolment;
use super::reply::{Refusal, UNTIL_CHANGED};
use super::revoke::Unnoted;
use super::snapshot::View;
use crate::clock::SharedClock;
use crate::domain::enrolment::Newcomer;
use crate::domain::oauth_error::ErrorCode;
use crate::domain::provider::{Provider, Subject};
use crate::domain::rate::Rate;
use crate::domain::settings::Settings;

/// For so long somebody who was noted is not noted again: their User is there long before.
const REMEMBERED: u64 = 10 * 1_000_000_000;
/// So many are remembered; beyond that all are forgotten, which costs a write that changes nothing.
const MOST_REMEMBERED: usize = 8192;

/// Where people who are new are noted.
pub trait Enrolments: Send + Sync + 'static {
    /// Notes somebody: once this is `Ok`, it holds whatever crashes.
    fn note(&self, newcomer: Newcomer) -> BoxFuture<'static, Result<(), Unnoted>>;
}

/// The person whom an outside provider vouches for, with the roles that their tenant's User gives; none if one
/// keeps them out. [`super::outside_token`] asks here of every provider's token.
pub(super) fn admit(view: &View, namespace: &str, mut subject: Subject) -> Option<Subject> {
    if view.snapshot.keeps_out(namespace, &subject.id) {
        return None;
    }
    let Some(person) = view.snapshot.people.get(namespace, &subject.id) else {
        return Some(subject);
    };
    for role in &person.roles {
        if !subject.roles.contains(role) {
            subject.roles.push(role.clone());
        }
    }
    Some(subject)
}

/// Whether a person is not kept out by now.
///
/// # Errors
/// `access_denied`: a User keeps the person out.
pub(super) fn still_admitted(app: &App, namespace: &str, subject: &Subject) -> Result<(), Refusal> {
    let view = app.snapshots.load();
    if view.snapshot.keeps_out(namespace, &subject.id) {
        return Err(suspended());
    }
    Ok(())
}

/// What a client is told of a person whom a User keeps out.
pub(super) fn suspended() -> Refusal {
    Refusal::new(
        ErrorCode::AccessDenied,
        "the person is suspended here (User).",
    )
}

/// Notes a person of that tenant, if the provider enrols and the person is not known. To be called once all
/// else was granted, and before it is answered.
///
/// # Errors
/// 503: they could not be noted, or there are as many as may be.
pub(super) async fn enrol(
    app: &App,
    view: &View,
    namespace: &str,
    provider: &Provider,
    subject: &Subject,
) -> Result<(), Refusal> {
    let people = &view.snapshot.people;
    if !provider.auto_enroll.users || people.get(namespace, &subject.id).is_some() {
        return Ok(());
    }
    let full = || {
        Refusal::unavailable_for(
            UNTIL_CHANGED,
            "this tenant has as many Users as may be enrolled (users.maxPerTenant), and the person is \
             new: a platform administrator can allow more.",
        )
    };
    let most = usize::try_from(app.settings.users.max_per_tenant).unwrap_or(1);
    if people.users(namespace) >= most {
        app.metrics.enrolment(Enrolment::Full);
        return Err(full());
    }
    let newcomer = Newcomer::Person {
        namespace: namespace.to_owned(),
        provider: provider.id(),
        subject: subject.subject.clone(),
    };
    match note(app, newcomer).await {
        Ok(()) => Ok(()),
        Err(NotNoted::TooOften(after)) => Err(Refusal::unavailable_for(
            after,
            "too many people of this tenant are new at once (users.enrolmentRate): come again after \
             Retry-After.",
        )),
        // The operator makes room as it makes Users.
        Err(NotNoted::Because(Unnoted::Full)) => Err(Refusal::unavailable(
            "too many people of this tenant are new at once, and wait for their Users: come again.",
        )),
        Err(NotNoted::Because(Unnoted::Unreachable)) => Err(Refusal::unavailable(
            "the person is new, and can not be written down now: come again.",
        )),
    }
}

/// Notes a legal entity that a provider for all tenants vouches for, if the provider enrols them and no
/// namespace has it. Nobody waits for that, so that the answer takes as long for every other tenant's
/// person.
pub(super) fn enrol_legal_entity(app: &App, view: &View, provider: &Provider, subject: &Subject) {
    let enrols = provider.auto_enroll.legal_entities && provider.namespace.is_none();
    let Some(id) = subject.legal_entity.as_deref().filter(|_| enrols) else {
        return;
    };
    if !app.settings.legal_entities.auto_enroll || view.snapshot.legal_entities.contains(id) {
        return;
    }
    let newcomer = Newcomer::LegalEntity {
        provider: provider.id(),
        id: id.to_owned(),
    };
    if app.newcomers.begin(&newcomer) == Begin::Note {
        // Taken at once, or turned away; what becomes of it nobody is told.
        drop(app.enrolments.note(newcomer));
        app.metrics.enrolment(Enrolment::LegalEntity);
    }
}

/// Why somebody was not noted.
enum NotNoted {
    /// By the tenant's rate: the time until it allows one more.
    TooOften(Duration),
    /// Where notes are kept they were not taken.
    Because(Unnoted),
}

async fn note(app: &App, newcomer: Newcomer) -> Result<(), NotNoted> {
    let outcome = match app.newcomers.begin(&newcomer) {
        Begin::Noted => return Ok(()),
        Begin::TooOften(after) => Err(NotNoted::TooOften(after)),
        Begin::Note => {
            let noted = app.enrolments.note(newcomer.clone()).await;
            noted.map_err(NotNoted::Because)
        }
    };
    app.metrics.enrolment(match outcome {
        Ok(()) => Enrolment::Noted,
        Err(NotNoted::TooOften(_) | NotNoted::Because(Unnoted::Full)) => Enrolment::Full,
        Err(NotNoted::Because(Unnoted::Unreachable)) => Enrolment::Unavailable,
    });
    if outcome.is_ok() {
        app.newcomers.noted(newcomer);
    }
    outcome
}

/// Whether somebody is to be noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// They were, a moment ago.
    Noted,
    /// Now.
    Note,
    /// Too many others were: the time until one more may be.
    TooOften(Duration),
}

/// Who was noted a moment ago, and how many.
pub struct Newcomers {
    clock: SharedClock,
    people: Rate,
    legal_entities: Rate,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Until when each is remembered, and whether the note is written.
    remembered: HashMap<Newcomer, (u64, bool)>,
    /// By place: when its bucket is empty. There are no more of them than tenants.
    buckets: HashMap<String, u64>,
}

impl Newcomers {
    /// Nobody was noted yet.
    pub fn new(settings: &Settings, clock: SharedClock) -> Self {
        Self {
            clock,
            people: settings.users.enrolment_rate,
            legal_entities: settings.legal_entities.enrolment_rate,
            state: Mutex::default(),
        }
    }

    /// Whether to note somebody. Many requests for one person count as one.
    fn begin(&self, newcomer: &Newcomer) -> Begin {
        let now = self.now();
        let mut state = self.state();
        match state.remembered.get(newcomer) {
            Some((until, noted)) if now < *until => {
                return if *noted { Begin::Noted } else { Begin::Note };
            }
            _ => {}
        }
        let rate = match newcomer {
            Newcomer::Person { .. } => self.people,
            Newcomer::LegalEntity { .. } => self.legal_entities,
        };
        let bucket = state
            .buckets
            .entry(newcomer.place().to_owned())
            .or_default();
        let empty_at = match rate.take(*bucket, now) {
            Ok(empty_at) => empty_at,
            Err(wait) => return Begin::TooOften(Duration::from_nanos(wait)),
        };
        *bucket = empty_at;
        if state.remembered.len() >= MOST_REMEMBERED {
            state.remembered.retain(|_, (until, _)| now < *until);
            if state.remembered.len() >= MOST_REMEMBERED {
                state.remembered.clear();
            }
        }
        let until = now.saturating_add(REMEMBERED);
        let noted = matches!(newcomer, Newcomer::LegalEntity { .. });
        state.remembered.insert(newcomer.clone(), (until, noted));
        Begin::Note
    }

    fn noted(&self, newcomer: Newcomer) {
        let until = self.now().saturating_add(REMEMBERED);
        self.state().remembered.insert(newcomer, (until, true));
    }

    fn now(&self) -> u64 {
        let elapsed = self.clock.elapsed().as_nanos();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
