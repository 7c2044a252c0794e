//! Two providers that would both take one token.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::Provider;

/// A provider, and what decides which of two gives way.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// The provider.
    pub provider: &'a Provider,
    /// When it was created.
    pub created: Timestamp,
    /// Its UID, which decides between those of the same second.
    pub uid: &'a str,
}

/// What a provider shares with one that comes before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The provider that comes before, as [`Provider::id`] has it. It is one for all tenants or of the
    /// same namespace, so to name it tells nothing of another tenant.
    pub with: String,
    /// The issuer that both list; none: one of them lists none.
    pub issuer: Option<String>,
    /// An audience that both list.
    pub audience: String,
}

/// Which providers give way, by their UID: in one tenant a token is of one provider. Those for all
/// tenants come before a tenant's, so that no tenant can take a provider away from all others; then the
/// older before the younger. One that gives way, or is not active, stands in no other's way.
pub fn conflicts<'a>(all: impl IntoIterator<Item = Standing<'a>>) -> BTreeMap<&'a str, Conflict> {
    let mut all: Vec<_> = all.into_iter().filter(|s| s.provider.active).collect();
    all.sort_by_key(|s| (s.provider.namespace.is_some(), s.created, s.uid));
    let mut accepted = Accepted::default();
    let mut conflicts = BTreeMap::new();
    for standing in all {
        if let Some(conflict) = accepted.conflict(standing.provider) {
            conflicts.insert(standing.uid, conflict);
        } else {
            accepted.add(standing.provider);
        }
    }
    conflicts
}

/// Those that give way to none, by what they take: there may be thousands, and each change asks anew.
#[derive(Default)]
struct Accepted<'a> {
    /// By the tenant's namespace (none: all tenants), issuer (none: any) and audience.
    taken: HashMap<(Option<&'a str>, Option<&'a str>, &'a str), &'a Provider>,
    /// By namespace and audience, whatever the issuer.
    audiences: HashMap<(Option<&'a str>, &'a str), &'a Provider>,
}

impl<'a> Accepted<'a> {
    fn add(&mut self, new: &'a Provider) {
        let of = new.namespace.as_deref();
        for audience in &new.audiences {
            self.audiences.entry((of, audience)).or_insert(new);
            for issuer in &new.issuers {
                self.taken.insert((of, Some(issuer), audience), new);
            }
            if new.issuers.is_empty() {
                self.taken.insert((of, None, audience), new);
            }
        }
    }

    fn conflict(&self, new: &Provider) -> Option<Conflict> {
        let own = new.namespace.as_deref();
        let scopes = [None, own].into_iter().take(1 + usize::from(own.is_some()));
        for scope in scopes {
            for audience in &new.audiences {
                let conflict = |with: &Provider, issuer: Option<&String>| Conflict {
                    with: with.id(),
                    issuer: issuer.cloned(),
                    audience: audience.clone(),
                };
                for issuer in &new.issuers {
                    if let Some(with) =
                        self.taken
                            .get(&(scope, Some(issuer.as_str()), audience.as_str()))
                    {
                        return Some(conflict(with, Some(issuer)));
                    }
                }
                // Without issuers either takes any.
                let any = match new.issuers.as_slice() {
                    [] => self.audiences.get(&(scope, audience.as_str())),
                    _ => self.taken.get(&(scope, None, audience.as_str())),
                };
                if let Some(with) = any {
                    return Some(conflict(with, None));
                }
            }
        }
        None
    }
}
