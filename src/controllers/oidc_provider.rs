//! The `OidcProvider` controller. What a provider answers is fetched beside the visits (`fetches.rs`); a
//! visit hands it to the servers, in a ConfigMap, and says in status what there is to know.

mod fetches;
mod report;

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Resource as _, ResourceExt};

use super::operator::Context;
use super::{Decision, Error, Fill, Key, Note, Object, Write};
use crate::api::v1alpha1::OidcProvider;
use crate::domain::moment::Moment;
use crate::domain::reasons as r;
use crate::domain::settings::Settings;
use crate::objects::provider_keys::{self, Known};
use crate::stores::Stores;
use crate::tenancy::{JudgedProvider, Tenancy};

pub use fetches::{Asked, Fetches, Outcome, follow};

/// What there is to see of a provider.
pub struct Seen {
    /// Namespace and name.
    pub key: Key,
    /// The resource; none if it is gone.
    pub provider: Option<Arc<OidcProvider>>,
    /// What is to be said of it together with the others; none: it is another release's, or not judged yet.
    pub judged: Option<JudgedProvider>,
    /// The ConfigMap of the name that its keys have.
    pub map: Option<ConfigMap>,
    /// What it answered this process last.
    pub asked: Asked,
}

/// How the ConfigMap is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// As its watch shows it, which shows those that are ours alone.
    Watched,
    /// At the API server.
    Live,
}

/// Sees and decides; gives the UID of what it was decided for too.
pub async fn look(
    cx: &Context,
    key: &Key,
    provider: Option<Arc<OidcProvider>>,
) -> Result<(Decision, Option<String>), Error> {
    let uid = provider.as_ref().and_then(|p| p.uid());
    let mut decision = Decision::default();
    for sight in [Sight::Watched, Sight::Live] {
        let seen = see(cx, key, provider.clone(), sight).await?;
        decision = decide(&seen, &cx.settings, cx.clock_guard.moment());
        let only_told = |w: &Write| matches!(w, Write::Status { .. } | Write::Event(_));
        if decision.writes.iter().all(only_told) {
            break;
        }
    }
    Ok((decision, uid))
}

/// Looks; whoever is trusted is asked for its keys from now on.
async fn see(
    cx: &Context,
    key: &Key,
    provider: Option<Arc<OidcProvider>>,
    sight: Sight,
) -> Result<Seen, Error> {
    let Key {
        namespace, name, ..
    } = key;
    let tenancy: Arc<Tenancy> = cx.tenancy();
    let of = (namespace.clone(), name.clone());
    let judged = tenancy.providers.get(&of);
    let uid = provider.as_ref().and_then(|p| p.uid());
    let judged = judged.filter(|judged| Some(&judged.uid) == uid.as_ref());
    let operators = cx.settings.operator_namespace.as_str();
    let map_name = provider_keys::name_of(namespace, name, &cx.settings);
    let map = match sight {
        Sight::Watched => {
            let map = Stores::get(&cx.stores.config_maps, operators, &map_name);
            map.map(|map| (*map).clone())
        }
        Sight::Live => cx.get::<ConfigMap>(operators, &map_name).await?,
    };
    let trusted = judged.is_some_and(|judged| judged.trusted().is_some());
    let wanted = provider.as_deref().filter(|_| trusted);
    let asked = cx.providers.ask(&of, wanted.and_then(fetches::Demand::of));
    Ok(Seen {
        key: key.clone(),
        judged: judged.cloned(),
        provider,
        map,
        asked,
    })
}

/// What to do.
pub fn decide(seen: &Seen, settings: &Settings, moment: Moment) -> Decision {
    let Some(provider) = seen.provider.as_deref() else {
        return swept(seen);
    };
    if provider.meta().deletion_timestamp.is_some() {
        return Decision::default();
    }
    let Some(judged) = &seen.judged else {
        // It is another release's now: what was made for it goes.
        return swept(seen);
    };
    Visit {
        seen,
        provider,
        judged,
        settings,
        moment,
    }
    .decide()
}

/// Deletes the ConfigMap of a provider that is gone.
fn swept(seen: &Seen) -> Decision {
    let of = (seen.key.namespace.as_str(), seen.key.name.as_str());
    let ours = |map: &&ConfigMap| {
        provider_keys::keys_of(map).is_some_and(|(namespace, name, _)| (namespace, name) == of)
    };
    let map = seen.map.as_ref().filter(ours);
    Decision {
        writes: map
            .map(|map| Write::Delete(Object::ConfigMap(Box::new(map.clone()))))
            .into_iter()
            .collect(),
        wake_at: None,
    }
}

/// A visit to a provider that is there.
struct Visit<'a> {
    seen: &'a Seen,
    provider: &'a OidcProvider,
    judged: &'a JudgedProvider,
    settings: &'a Settings,
    moment: Moment,
}

/// What stands where the keys should be.
enum Place {
    /// Nothing, or what was fetched before.
    Free(Option<Known>),
    /// What was fetched for an earlier provider of this name.
    Earlier,
    /// Something else.
    Foreign,
}

impl Visit<'_> {
    fn decide(&self) -> Decision {
        let mut decision = Decision::default();
        let place = self.place();
        let known = match &place {
            Place::Free(known) => known.as_ref().filter(|known| known.is_of(self.provider)),
            _ => None,
        };
        if let (Place::Earlier, Some(map)) = (&place, &self.seen.map) {
            let object = Object::ConfigMap(Box::new(map.clone()));
            decision.writes.push(Write::Delete(object));
            return decision;
        }
        if let Place::Free(_) = &place
            && let Some(next) = self.next(known)
        {
            self.write_keys(known, &next, &mut decision);
            // Status tells of what stands there: the ConfigMap's watch brings us back.
            return decision;
        }
        if self.judged.trusted().is_some() {
            decision.wake_by(
                known
                    .filter(|known| !known.keys.is_empty())
                    .map(|known| known.good_until(self.settings)),
            );
        }
        let foreign = matches!(place, Place::Foreign);
        self.report(known, foreign, &mut decision);
        decision
    }

    fn place(&self) -> Place {
        let Some(map) = &self.seen.map else {
            return Place::Free(None);
        };
        let uid = self.provider.uid().unwrap_or_default();
        let (namespace, name) = (&self.seen.key.namespace, &self.seen.key.name);
        match provider_keys::keys_of(map) {
            Some((of, called, whose)) if of == namespace && called == name => {
                if whose == uid {
                    Place::Free(provider_keys::read(map, self.provider))
                } else {
                    Place::Earlier
                }
            }
            _ => Place::Foreign,
        }
    }

    /// What is to stand there in the place of what does.
    fn next(&self, known: Option<&Known>) -> Option<Known> {
        // Whoever is not trusted is not asked, and keeps what there is until it is.
        self.judged.trusted()?;
        let outcome = self.seen.asked.outcome.as_ref();
        if let Some((at, fetched)) = outcome.and_then(Outcome::fetched) {
            let refreshed = provider_keys::whole_second(at);
            let fresh = Known {
                well_known_uri: self.provider.spec.well_known_uri.clone()?,
                issuer: fetched.issuer.clone(),
                jwks_uri: fetched.jwks_uri.clone(),
                refreshed,
                keys: fetched.keys.clone(),
            };
            // One that another process has fetched meanwhile may be newer.
            let newer = known.is_none_or(|known| known.refreshed < refreshed);
            if newer && fresh.is_of(self.provider) {
                return Some(fresh);
            }
        }
        let known = known?;
        let expired = known.good_until(self.settings) <= self.moment.now;
        (expired && self.moment.sure && !known.keys.is_empty())
            .then(|| known.clone().without_keys())
    }

    fn write_keys(&self, known: Option<&Known>, next: &Known, decision: &mut Decision) {
        let before = self.seen.map.as_ref();
        let after = provider_keys::write(next, self.provider, self.settings, before);
        let object = Object::ConfigMap(Box::new(after));
        decision.writes.push(match before {
            None => Write::Create(object, Fill::Nothing),
            Some(_) => Write::Replace(object, Fill::Nothing),
        });
        let ids = |known: &Known| report::key_ids(&known.keys);
        if next.keys.is_empty() {
            // Stalled tells of it too, and an event of that.
            return;
        }
        if known.map(ids) != Some(ids(next)) {
            decision.writes.push(Note::normal(
                r::PROVIDER_KEYS_CHANGED,
                format!(
                    "The keys of {} are trusted: {}.",
                    next.issuer,
                    ids(next).join(", ")
                ),
            ));
        }
    }
}

#[cfg(test)]
mod tests;
