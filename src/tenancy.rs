//! Which namespace speaks for whom: judged once for all Subscriptions, and again only when
//! something has changed.

mod people;
mod providers;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::api::v1alpha1::TechnicalUser;
use crate::domain::settings::Settings;
use crate::domain::subscription::{self, Problem, SubscriptionFacts};
use crate::stores::Stores;

pub use people::PeopleCache;
pub use providers::{JudgedProvider, ProviderProblem};

/// The judgement of all Subscriptions and outside providers, and who claims which client id.
#[derive(Debug, Default)]
pub struct Tenancy {
    /// By namespace and name: what is wrong with it.
    pub problems: HashMap<(String, String), Option<Problem>>,
    /// By namespace: its sound Subscriptions of our environment.
    pub sound: BTreeMap<String, Vec<SubscriptionFacts>>,
    /// By namespace: the environment of its oldest Subscription that is bound.
    pub environments: BTreeMap<String, String>,
    /// By client id: the technical users that claim it, oldest first.
    pub claims: HashMap<String, Vec<Claim>>,
    /// By namespace and the name that a device wants for its companion agent: the device.
    pub companions: HashMap<(String, String), String>,
    /// By namespace and name: the outside providers that are this release's.
    pub providers: BTreeMap<(String, String), JudgedProvider>,
}

/// A technical user that claims a client id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// When it was created.
    pub created: Timestamp,
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Tenancy {
    /// Judges what the stores hold.
    pub fn judge(stores: &Stores, settings: &Settings) -> Self {
        let facts: Vec<SubscriptionFacts> = stores
            .subscriptions
            .state()
            .iter()
            .filter_map(|s| {
                s.0.as_ref()
                    .ok()
                    .map(crate::api::v1alpha1::Subscription::facts)
            })
            .collect();
        let mut tenancy = Self::default();
        for (facts, problem) in subscription::judge(&facts, settings) {
            let bound = !matches!(
                problem,
                Some(
                    Problem::InOperatorNamespace
                        | Problem::NamespaceBound { .. }
                        | Problem::LegalEntityBound { .. }
                )
            );
            if bound {
                tenancy
                    .environments
                    .entry(facts.namespace.clone())
                    .or_insert_with(|| facts.environment.clone());
            }
            if problem.is_none() && facts.environment == settings.environment {
                tenancy
                    .sound
                    .entry(facts.namespace.clone())
                    .or_default()
                    .push(facts.clone());
            }
            tenancy
                .problems
                .insert((facts.namespace.clone(), facts.name.clone()), problem);
        }
        for user in stores.technical_users.state() {
            if let Ok(user) = &user.0 {
                let claim = claim(user);
                if let Some(companion) = user.companion_name() {
                    let wanted = (claim.namespace.clone(), companion);
                    tenancy.companions.insert(wanted, claim.name.clone());
                }
                // Only who may have an id can claim it, else a stranger could take it away.
                if tenancy.may_have(&claim.namespace, &user.client_id()) {
                    tenancy
                        .claims
                        .entry(user.client_id())
                        .or_default()
                        .push(claim);
                }
            }
        }
        tenancy.claims.values_mut().for_each(|claims| claims.sort());
        tenancy.providers = providers::judge(stores, &tenancy, settings);
        tenancy
    }

    /// The sound Subscriptions of a namespace.
    pub fn of(&self, namespace: &str) -> &[SubscriptionFacts] {
        self.sound.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// Whether a technical user of that namespace may have that client id: it begins with the
    /// namespace, or a sound Subscription of it lists it.
    pub fn may_have(&self, namespace: &str, client_id: &str) -> bool {
        let own = client_id
            .strip_prefix(namespace)
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|rest| !rest.is_empty());
        own || self
            .of(namespace)
            .iter()
            .any(|s| s.allowed.client_ids.iter().any(|c| c == client_id))
    }

    /// Whether a client id can be one of that namespace's, by its name and as nobody else's: also
    /// where its technical user is gone, since its tokens live on.
    pub fn may_be_of(&self, namespace: &str, client_id: &str) -> bool {
        match self.claims.get(client_id).and_then(|claims| claims.first()) {
            Some(claim) => claim.namespace == namespace,
            None => self.may_have(namespace, client_id),
        }
    }

    /// Whether a technical user has the client id that it asks for. Nothing may be asked or settled by
    /// the client id of one that has not: it is another's.
    pub fn has_its_client_id(&self, user: &TechnicalUser) -> bool {
        let namespace = user.metadata.namespace.as_deref().unwrap_or_default();
        self.may_have(namespace, &user.client_id()) && self.rival(user).is_none()
    }

    /// The technical user that has a client id, where that is another than this one.
    pub fn rival(&self, user: &TechnicalUser) -> Option<&Claim> {
        let first = self.claims.get(&user.client_id())?.first()?;
        (*first != claim(user)).then_some(first)
    }
}

fn claim(user: &TechnicalUser) -> Claim {
    let meta = &user.metadata;
    Claim {
        created: meta
            .creation_timestamp
            .as_ref()
            .map_or(Timestamp::MAX, |t| t.0),
        uid: meta.uid.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

/// The judgement of a version of the stores.
#[derive(Debug, Default)]
pub struct TenancyCache(Mutex<Option<(u64, Arc<Tenancy>)>>);

impl TenancyCache {
    /// The judgement as of now.
    pub fn get(&self, stores: &Stores, settings: &Settings) -> Arc<Tenancy> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before judging: a change in between makes the next look judge again.
        let version = stores.tenancy_version();
        match &*cached {
            Some((of, tenancy)) if *of == version => tenancy.clone(),
            _ => {
                let tenancy = Arc::new(Tenancy::judge(stores, settings));
                *cached = Some((version, tenancy.clone()));
                tenancy
            }
        }
    }
}
