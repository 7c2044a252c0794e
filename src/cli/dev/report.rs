//! What dev tells the person in front of it: the story on stdout, problems on stderr.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use tokio::time::Instant;

use super::curl::{self, CurlFiles};
use crate::api::v1alpha1::{PUBLISHED, READY, STALLED, TechnicalUser};
use crate::domain::reasons::SUSPENDED;
use crate::objects::delivery::plain_secrets;
use crate::stores::{Guarded, Stores};

/// How long something may be on its way before that is worth a line.
const PATIENCE: Duration = Duration::from_millis(500);

/// Part of the story, to stdout. A reader that has gone is no error.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Something that a person has to mend, to stderr.
pub fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Follows the resources' conditions and secrets.
pub struct Report {
    stores: Stores,
    curl: CurlFiles,
    token_url: String,
    environment: String,
    looks: BTreeMap<Name, Look>,
    /// The clients whose line has been shown and still works.
    shown: BTreeSet<String>,
}

/// Kind, namespace and name.
type Name = (&'static str, String, String);

/// What was seen of a resource.
struct Look {
    state: State,
    since: Instant,
    told: bool,
}

/// How a resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// It works, or a person has to do something: not about to change by itself.
    settled: bool,
    text: String,
}

impl Report {
    /// Of what is in the stores.
    pub fn new(stores: Stores, curl: CurlFiles, token_url: String, environment: String) -> Self {
        Self {
            environment,
            token_url,
            stores,
            curl,
            looks: BTreeMap::new(),
            shown: BTreeSet::new(),
        }
    }

    /// Tells what has changed since it was called before.
    pub fn update(&mut self) {
        let mut seen = Vec::new();
        let stores = self.stores.clone();
        for ring in stores.signing_keys.state() {
            let conditions = |status: &crate::api::v1alpha1::SigningKeyStatus| {
                (status.observed_generation, status.conditions.clone())
            };
            let state = match &ring.0 {
                Ok(ring) => state(ring, ring.status.as_ref().map(conditions)),
                Err(error) => Some(unreadable(&error.error)),
            };
            seen.push((name("SigningKey", &*ring), state));
        }
        for subscription in stores.subscriptions.state() {
            let conditions = |status: &crate::api::v1alpha1::SubscriptionStatus| {
                (status.observed_generation, status.conditions.clone())
            };
            let state = match &subscription.0 {
                // Else nothing would ever be told of it, nor of its namespace.
                Ok(s) if s.spec.environment != self.environment => Some(State {
                    settled: true,
                    text: format!(
                        "it names environment {:?}, and this is {:?}: nothing here serves it or its namespace.",
                        s.spec.environment, self.environment
                    ),
                }),
                Ok(s) => state(s, s.status.as_ref().map(conditions)),
                Err(error) => Some(unreadable(&error.error)),
            };
            seen.push((name("Subscription", &*subscription), state));
        }
        for provider in stores.oidc_providers.state() {
            let conditions = |status: &crate::api::v1alpha1::OidcProviderStatus| {
                (status.observed_generation, status.conditions.clone())
            };
            let state = match &provider.0 {
                Ok(p) => state(p, p.status.as_ref().map(conditions)),
                Err(error) => Some(unreadable(&error.error)),
            };
            seen.push((name("OidcProvider", &*provider), state));
        }
        for user in stores.technical_users.state() {
            let conditions = |status: &crate::api::v1alpha1::TechnicalUserStatus| {
                (status.observed_generation, status.conditions.clone())
            };
            let state = match &user.0 {
                Ok(u) => state(u, u.status.as_ref().map(conditions)),
                Err(error) => Some(unreadable(&error.error)),
            };
            seen.push((name("TechnicalUser", &*user), state));
        }
        for user in stores.users.state() {
            let conditions = |status: &crate::api::v1alpha1::UserStatus| {
                (status.observed_generation, status.conditions.clone())
            };
            let state = match &user.0 {
                Ok(u) => state(u, u.status.as_ref().map(conditions)),
                Err(error) => Some(unreadable(&error.error)),
            };
            seen.push((name("User", &*user), state));
        }
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        let names: BTreeSet<Name> = seen.iter().map(|(name, _)| name.clone()).collect();
        self.looks.retain(|name, _| names.contains(name));
        for (name, state) in seen {
            if let Some(state) = state {
                self.look(name, state);
            }
        }
        self.secrets();
    }

    fn look(&mut self, name: Name, state: State) {
        let now = Instant::now();
        let look = self.looks.entry(name.clone()).or_insert_with(|| Look {
            state: state.clone(),
            since: now,
            told: false,
        });
        if look.state != state {
            *look = Look {
                state,
                since: now,
                told: false,
            };
        }
        // What is on its way will most likely have arrived before anybody could read of it.
        let due = look.state.settled || now - look.since >= PATIENCE;
        if !look.told && due {
            look.told = true;
            let (kind, namespace, name) = name;
            say(format_args!(
                "{kind} {namespace}/{name}: {}",
                look.state.text
            ));
        }
    }

    /// The files for curl, and the lines that use them.
    fn secrets(&mut self) {
        let mut known = BTreeSet::new();
        let mut working = BTreeSet::new();
        let mut users = self.stores.technical_users.state();
        users.sort_by_key(|u| (u.namespace(), u.name_any()));
        for user in &users {
            let Ok(user) = &user.0 else { continue };
            let id = user.client_id();
            known.insert(id.clone());
            let Some(ready) = is_ready(user) else {
                // Not looked at since it was changed: as it was.
                working.extend(self.shown.get(&id).cloned());
                continue;
            };
            if user.one_time().is_some() {
                self.one_time(user, &id);
                working.insert(id);
                continue;
            }
            let Some(secret) = ready.then(|| self.secret(user)).flatten() else {
                continue;
            };
            match self.curl.write(&id, &secret) {
                Ok(written) if written && self.shown.contains(&id) => say(format_args!(
                    "{id} has a new secret, which its curl line reads from now on."
                )),
                Ok(_) => {}
                Err(why) => {
                    complain(format_args!(
                        "{}: it can not be written: {why}.",
                        self.curl.path(&id).display()
                    ));
                    continue;
                }
            }
            if is_suspended(user) {
                continue;
            }
            if !self.shown.contains(&id) {
                let line = curl::line(&self.curl.path(&id), &self.token_url);
                say(format_args!("  {line}"));
            }
            working.insert(id);
        }
        self.shown = working;
        self.curl.keep(&known);
    }

    /// A client secret that is delivered once: how to come by it, where no kubectl reaches.
    fn one_time(&self, user: &TechnicalUser, id: &str) {
        let sealed = user.status.as_ref().and_then(|s| s.sealed.as_ref());
        let path = self.curl.sealed_path(id);
        match sealed.map(|sealed| self.curl.write_sealed(id, &sealed.ciphertext)) {
            Some(Ok(written)) if written || !self.shown.contains(id) => {
                let line = curl::sealed_line(id, &path, &self.token_url);
                say(format_args!("  {line}"));
            }
            Some(Ok(_)) => {}
            Some(Err(why)) => complain(format_args!(
                "{}: it can not be written: {why}.",
                path.display()
            )),
            None if self.shown.contains(id) => {}
            None => say(format_args!(
                "  {id} is sealed to no key yet, and kubectl reaches nothing here: age-keygen makes one; put what age-keygen -y prints into credential.secret.recipient of its manifest."
            )),
        }
    }

    fn secret(&self, user: &TechnicalUser) -> Option<zeroize::Zeroizing<String>> {
        let namespace = user.namespace().unwrap_or_default();
        let key = &user.secret_credential()?.keys.client_secret;
        let secret = Stores::get(&self.stores.deliveries, &namespace, &user.secret_name())?;
        plain_secrets(&secret, key).into_iter().next()
    }
}

fn name<K: Resource<DynamicType = ()>>(kind: &'static str, object: &Guarded<K>) -> Name
where
    Guarded<K>: ResourceExt,
{
    (
        kind,
        object.namespace().unwrap_or_default(),
        object.name_any(),
    )
}

fn unreadable(error: &str) -> State {
    State {
        settled: true,
        text: format!("it can not be read: {error}"),
    }
}

/// Whether it is ready as it is now; `None` before the operator has looked at it.
fn is_ready(user: &TechnicalUser) -> Option<bool> {
    let status = user.status.as_ref()?;
    (Some(status.observed_generation) == user.metadata.generation).then(|| {
        status
            .conditions
            .iter()
            .any(|c| c.type_ == READY && c.status == "True")
    })
}

/// Whether it is suspended, by itself or with its device.
fn is_suspended(user: &TechnicalUser) -> bool {
    let conditions = user.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|c| c.type_ == READY);
    user.spec.suspended || ready.any(|c| c.reason == SUSPENDED)
}

/// What the conditions say, if they speak of the object as it is now.
fn state<K: Resource>(object: &K, status: Option<(i64, Vec<Condition>)>) -> Option<State> {
    let (observed, conditions) = status?;
    if Some(observed) != object.meta().generation {
        return None;
    }
    let holds = |kind: &str| {
        conditions
            .iter()
            .find(|c| c.type_ == kind && c.status == "True")
    };
    if let Some(stalled) = holds(STALLED) {
        return Some(State {
            settled: true,
            text: format!("stalled ({}): {}", stalled.reason, stalled.message),
        });
    }
    let ready = conditions.iter().find(|c| c.type_ == READY)?;
    let works = ready.status == "True";
    let word = if works { "ready" } else { "not ready" };
    let mut state = State {
        settled: works,
        text: if works && ready.reason == crate::domain::reasons::SUCCEEDED {
            format!("{word}. {}", ready.message)
        } else {
            format!("{word} ({}): {}", ready.reason, ready.message)
        },
    };
    let lacking = conditions.iter().find(|c| c.type_ == PUBLISHED);
    if let Some(lacking) = lacking.filter(|c| c.status != "True") {
        let (before, reason, message) = (&state.text, &lacking.reason, &lacking.message);
        state = State {
            settled: false,
            text: format!("{before} Not all is published ({reason}): {message}"),
        };
    }
    Some(state)
}
