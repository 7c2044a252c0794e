//! Two providers that would both take one token.

use std::collections::BTreeMap;

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
    let mut accepted: Vec<&Provider> = Vec::new();
    let mut conflicts = BTreeMap::new();
    for standing in all {
        let new = standing.provider;
        if let Some(conflict) = accepted.iter().find_map(|old| between(old, new)) {
            conflicts.insert(standing.uid, conflict);
        } else {
            accepted.push(new);
        }
    }
    conflicts
}

fn between(old: &Provider, new: &Provider) -> Option<Conflict> {
    let apart =
        old.namespace.is_some() && new.namespace.is_some() && old.namespace != new.namespace;
    if apart {
        return None;
    }
    let issuer = old.issuers.iter().find(|i| new.issuers.contains(i));
    // Without issuers it takes any.
    if issuer.is_none() && !old.issuers.is_empty() && !new.issuers.is_empty() {
        return None;
    }
    let audience = old.audiences.iter().find(|a| new.audiences.contains(a))?;
    Some(Conflict {
        with: old.id(),
        issuer: issuer.cloned(),
        audience: audience.clone(),
    })
}
