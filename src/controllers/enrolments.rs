//! Makes Users of the people whom servers have noted as new, and of a legal entity that no namespace has a
//! namespace and a Subscription. A note is not believed: whether its provider may have somebody enrolled is
//! looked up here. What is made has a name that follows from the note and is only ever created, so that
//! a crash, or two operators, come to the same; then the note is taken away.

mod lately;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::operator::Context;
use super::outbox::leave_only;
use super::{Decision, Error, Fill, Key, Note, Object, Write};
use crate::domain::enrolment::{self, Newcomer, Notes};
use crate::domain::names::ENROLMENTS;
use crate::domain::provider::Provider;
use crate::domain::rate::Rate;
use crate::domain::reasons as r;
use crate::domain::settings::Settings;
use crate::domain::subscription;
use crate::domain::user::People;
use crate::objects::enrolments;
use crate::stores::Stores;
use crate::tenancy::Tenancy;

pub use lately::Lately;

/// So many objects are made in one visit: other tenants' notes come in between.
const MOST_MADE: usize = 50;
/// So many of what was refused are told one by one.
const MOST_TOLD: usize = 5;
/// How soon those come to their turn who came too fast.
const WAIT: SignedDuration = SignedDuration::from_secs(2);

/// What there is to see.
pub struct Seen {
    /// What servers have noted.
    pub outbox: Option<ConfigMap>,
    /// Subscriptions and providers.
    pub tenancy: Arc<Tenancy>,
    /// All Users.
    pub people: Arc<People>,
    /// The Users that are there already by namespace and name, of those that notes lead to.
    pub there: BTreeSet<(String, String)>,
    /// The tenants that notes are of.
    pub tenants: BTreeMap<String, Count>,
    /// The namespaces that are there, of those that notes of legal entities lead to.
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// The namespaces that were made for legal entities.
    pub legal_entities: Count,
    /// Of all Subscriptions: the namespace, the environment and the legal entity.
    pub subscriptions: BTreeSet<(String, String, String)>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// In all.
    pub all: usize,
    /// Enrolled within the window of the rate.
    pub lately: usize,
}

/// Whether something was made within the window of a rate.
fn is_late(created: Option<Timestamp>, rate: Rate, now: Timestamp) -> bool {
    let window = i64::try_from(rate.window_secs()).unwrap_or(i64::MAX);
    created.is_none_or(|at| now.as_second().saturating_sub(at.as_second()) < window)
}

/// Looks, and decides.
pub async fn look(cx: &Context, now: Timestamp) -> Result<(Decision, Option<String>), Error> {
    let Some(seen) = see(cx, now).await? else {
        return Ok((Decision::default(), None));
    };
    let decision = decide(&seen, &cx.settings, now);
    cx.enrolled.remember(&decision, now);
    Ok((decision, seen.outbox.as_ref().and_then(ResourceExt::uid)))
}

/// Looks at the notes at the API server, and at all else as its watch shows it. None where there is not even
/// the namespace.
async fn see(cx: &Context, now: Timestamp) -> Result<Option<Seen>, Error> {
    let (settings, stores) = (&cx.settings, &cx.stores);
    let operators = settings.operator_namespace.as_str();
    if stores.namespaces.get(&ObjectRef::new(operators)).is_none() {
        return Ok(None);
    }
    let outbox = cx.get::<ConfigMap>(operators, ENROLMENTS).await?;
    let mut seen = Seen {
        outbox,
        tenancy: cx.tenancy(),
        people: cx.people.get(stores),
        there: BTreeSet::new(),
        tenants: BTreeMap::new(),
        namespaces: BTreeMap::new(),
        legal_entities: Count::default(),
        subscriptions: BTreeSet::new(),
    };
    let notes = noted(&seen).0;
    if notes == Notes::default() {
        return Ok(Some(seen));
    }
    let created = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        meta.creation_timestamp.as_ref().map(|at| at.0)
    };
    for newcomer in notes.all() {
        match &newcomer {
            Newcomer::Person {
                namespace,
                provider,
                subject,
            } => {
                seen.tenants.entry(namespace.clone()).or_default();
                let name = enrolments::user_name(provider, subject);
                if Stores::get(&stores.users, namespace, &name).is_some() {
                    seen.there.insert((namespace.clone(), name));
                }
            }
            Newcomer::LegalEntity { id, .. } => {
                let name = enrolments::namespace_name(id, settings);
                if let Some(namespace) = stores.namespaces.get(&ObjectRef::new(&name)) {
                    seen.namespaces.insert(name, namespace);
                }
            }
        }
    }
    for user in stores.users.state() {
        let of = user.namespace().unwrap_or_default();
        if let Some(tenant) = seen.tenants.get_mut(&of) {
            let meta = kube::Resource::meta(&*user);
            let enrolled = enrolments::is_enrolled(meta);
            tenant.all += 1;
            let late = is_late(created(meta), settings.users.enrolment_rate, now);
            tenant.lately += usize::from(enrolled && late);
        }
    }
    for namespace in stores.namespaces.state() {
        if enrolments::is_made_for(&namespace, None, settings) {
            let rate = settings.legal_entities.enrolment_rate;
            let late = is_late(created(&namespace.metadata), rate, now);
            seen.legal_entities.all += 1;
            seen.legal_entities.lately += usize::from(late);
        }
    }
    let is_seen = |namespace: &str, name: &str| {
        if name.is_empty() {
            return stores.namespaces.get(&ObjectRef::new(namespace)).is_some();
        }
        Stores::get(&stores.users, namespace, name).is_some()
    };
    for (namespace, name) in cx.enrolled.unseen(is_seen, now) {
        let count = match name.as_str() {
            "" => Some(&mut seen.legal_entities),
            _ => seen.tenants.get_mut(&namespace),
        };
        if let Some(count) = count {
            count.all += 1;
            count.lately += 1;
        }
    }
    for subscription in stores.subscriptions.state() {
        if let Ok(subscription) = &subscription.0 {
            let facts = subscription.facts();
            let told = (facts.namespace, facts.environment, facts.legal_entity_id);
            seen.subscriptions.insert(told);
        }
    }
    Ok(Some(seen))
}

fn noted(seen: &Seen) -> (Notes, Vec<String>) {
    let noted = seen.outbox.as_ref().map(enrolments::noted);
    enrolment::read(&noted.unwrap_or_default())
}

/// What is to become of a note.
enum Verdict {
    /// Nothing: it is known by now.
    Known,
    /// Nothing, for that reason.
    Refused(&'static str),
    /// Nothing, as there are as many as may be.
    Full,
    /// It stays, and is looked at again.
    Waits,
    /// These are made.
    Make(Vec<Object>),
}

/// What to do.
pub fn decide(seen: &Seen, settings: &Settings, now: Timestamp) -> Decision {
    let (notes, mut refused) = noted(seen);
    let mut decision = Decision::default();
    let (mut tenants, mut legal_entities) = (seen.tenants.clone(), seen.legal_entities);
    let (mut left, mut full, mut enrolled) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    for newcomer in notes.all() {
        let place = newcomer.place().to_owned();
        let (count, verdict) = match &newcomer {
            Newcomer::Person { namespace, .. } => {
                let count = tenants.entry(namespace.clone()).or_default();
                let verdict = person(seen, &newcomer, *count, settings, now);
                (count, verdict)
            }
            Newcomer::LegalEntity { provider, id } => {
                let verdict = legal_entity(seen, (provider, id), legal_entities, settings);
                (&mut legal_entities, verdict)
            }
        };
        let made = decision.writes.len();
        match verdict {
            Verdict::Known => {}
            Verdict::Refused(why) => refused.push(format!("one of {place:?}: {why}")),
            Verdict::Full => {
                full.insert(place);
            }
            Verdict::Make(objects) if made + objects.len() <= MOST_MADE => {
                count.all += 1;
                count.lately += 1;
                if count.all >= most(&newcomer, settings) {
                    full.insert(place.clone());
                }
                *enrolled.entry(place).or_insert(0) += 1;
                let create = |object| Write::Create(object, Fill::Nothing);
                decision.writes.extend(objects.into_iter().map(create));
            }
            Verdict::Make(_) | Verdict::Waits => left.push(newcomer),
        }
    }
    if !left.is_empty() {
        decision.wake_by(now.checked_add(WAIT).ok());
    }
    let left = left.into_iter().collect();
    write_outbox(seen, &left, settings, &mut decision);
    tell(&enrolled, &full, &refused, settings, &mut decision);
    decision
}

/// With how many nobody is enrolled any more.
fn most(newcomer: &Newcomer, settings: &Settings) -> usize {
    let most = match newcomer {
        Newcomer::Person { .. } => settings.users.max_per_tenant,
        Newcomer::LegalEntity { .. } => settings.legal_entities.max,
    };
    usize::try_from(most).unwrap_or(1)
}

/// The provider, if its tokens are taken now.
fn provider<'s>(seen: &'s Seen, id: &str, settings: &Settings) -> Option<&'s Provider> {
    let (namespace, name) = id
        .split_once('/')
        .unwrap_or((&settings.operator_namespace, id));
    let key = (namespace.to_owned(), name.to_owned());
    let trusted = seen.tenancy.providers.get(&key)?.trusted()?;
    (trusted.id() == id).then_some(trusted)
}

fn person(
    seen: &Seen,
    newcomer: &Newcomer,
    count: Count,
    settings: &Settings,
    now: Timestamp,
) -> Verdict {
    let Newcomer::Person {
        namespace,
        provider: provider_id,
        subject,
    } = newcomer
    else {
        return Verdict::Known;
    };
    if subscription::current(seen.tenancy.of(namespace), now).is_none() {
        return Verdict::Refused("its namespace has no current Subscription");
    }
    match provider(seen, provider_id, settings) {
        Some(provider) if provider.auto_enroll.users && provider.serves(namespace) => {}
        _ => return Verdict::Refused("its provider is not there, not trusted, or enrols nobody"),
    }
    let id = crate::domain::user::person_id(provider_id, subject);
    let user = enrolments::user(namespace, provider_id, subject, settings);
    let there = (namespace.clone(), user.name_any());
    if seen.people.get(namespace, &id).is_some() || seen.there.contains(&there) {
        return Verdict::Known;
    }
    if count.all >= most(newcomer, settings) {
        return Verdict::Full;
    }
    if !within(count, settings.users.enrolment_rate) {
        return Verdict::Waits;
    }
    Verdict::Make(vec![Object::User(Box::new(user))])
}

fn legal_entity(
    seen: &Seen,
    (provider_id, id): (&str, &str),
    count: Count,
    settings: &Settings,
) -> Verdict {
    if !settings.legal_entities.auto_enroll {
        return Verdict::Refused("this release enrols no legal entities");
    }
    match provider(seen, provider_id, settings) {
        Some(provider) if provider.auto_enroll.legal_entities && provider.namespace.is_none() => {}
        _ => {
            return Verdict::Refused(
                "its provider is not there, not trusted, or enrols no legal entities",
            );
        }
    }
    // Also one that is Stalled, or has ended: a person wrote it, or keeps the legal entity out so.
    let ours = |(_, environment, of): &&(String, String, String)| {
        *environment == settings.environment && of == id
    };
    if seen.subscriptions.iter().any(|s| ours(&s)) {
        return Verdict::Known;
    }
    let name = enrolments::namespace_name(id, settings);
    if seen.subscriptions.iter().any(|(of, ..)| *of == name) {
        return Verdict::Refused("the namespace for it has a Subscription of another one");
    }
    let subscription = Object::Subscription(Box::new(enrolments::subscription(id, settings)));
    match seen.namespaces.get(&name) {
        Some(there) if there.metadata.deletion_timestamp.is_some() => Verdict::Waits,
        // Nobody else's namespace becomes a tenant's by what a token says.
        Some(there) if !enrolments::is_made_for(there, Some(id), settings) => {
            Verdict::Refused("the namespace for it is there already, and was not made for it")
        }
        Some(_) => Verdict::Make(vec![subscription]),
        None if count.all >= usize::try_from(settings.legal_entities.max).unwrap_or(1) => {
            Verdict::Full
        }
        None if !within(count, settings.legal_entities.enrolment_rate) => Verdict::Waits,
        None => {
            let namespace = Object::Namespace(Box::new(enrolments::namespace(id, settings)));
            Verdict::Make(vec![namespace, subscription])
        }
    }
}

fn within(count: Count, rate: Rate) -> bool {
    u64::try_from(count.lately).is_ok_and(|lately| lately < rate.burst())
}

/// Takes away all notes but those that wait.
fn write_outbox(seen: &Seen, left: &Notes, settings: &Settings, decision: &mut Decision) {
    let template = enrolments::outbox(settings);
    leave_only(seen.outbox.as_ref(), left.write(), template, decision);
}

/// Says what was done. Nobody is named: who comes when is a person's own affair.
fn tell(
    enrolled: &BTreeMap<String, usize>,
    full: &BTreeSet<String>,
    refused: &[String],
    settings: &Settings,
    decision: &mut Decision,
) {
    for (place, count) in enrolled {
        let told = match place.as_str() {
            enrolment::LEGAL_ENTITIES if *count == 1 => "A legal entity was enrolled.".to_owned(),
            enrolment::LEGAL_ENTITIES => format!("{count} legal entities were enrolled."),
            _ if *count == 1 => format!("A person of {place} was enrolled."),
            _ => format!("{count} people of {place} were enrolled."),
        };
        decision.writes.push(Note::normal(r::ENROLLED, told));
    }
    for place in full {
        decision.writes.push(if place == enrolment::LEGAL_ENTITIES {
            Note::warning(
                r::LEGAL_ENTITIES_FULL,
                format!(
                    "{} legal entities are enrolled (legalEntities.max): no further one is, until one of their namespaces is deleted or the release allows more.",
                    settings.legal_entities.max
                ),
            )
        } else {
            Note::warning(
                r::USERS_FULL,
                format!(
                    "Namespace {place} has {} Users (users.maxPerTenant): nobody is enrolled there any more, and who is new gets no token of a provider that enrols, until some are deleted or the release allows more.",
                    settings.users.max_per_tenant
                ),
            )
        });
    }
    for told in refused.iter().take(MOST_TOLD) {
        decision.writes.push(Note::warning(
            r::ENROLMENT_REFUSED,
            format!("What stood in ConfigMap {ENROLMENTS} was refused: {told}."),
        ));
    }
    if refused.len() > MOST_TOLD {
        decision.writes.push(Note::warning(
            r::ENROLMENT_REFUSED,
            format!(
                "{} more entries of ConfigMap {ENROLMENTS} were refused.",
                refused.len() - MOST_TOLD
            ),
        ));
    }
}

/// Tells that the API server refused to make somebody's User: a quota, a namespace that goes. It holds up
/// nobody else, and they are noted again when they come again.
pub async fn tell_refused(cx: &Context, key: &Key, uid: Option<String>, error: &Error) {
    tracing::warn!(%error, "somebody could not be enrolled");
    let note = Note {
        warning: true,
        reason: r::ENROLMENT_REFUSED,
        message: format!("Somebody could not be enrolled: {error}."),
    };
    let told = cx.events.tell(key, uid, note);
    cx.leadership.while_leading(told).await;
}

#[cfg(test)]
#[path = "enrolments/tests.rs"]
mod tests;
