//! Users: what is noted here of a person whom an outside provider names, for one tenant. It gives them
//! roles, or keeps them out.

use std::collections::HashMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose provider a User names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ProviderScope {
    /// One of the User's own namespace, for this tenant alone.
    #[default]
    Tenant,
    /// One of the operator's namespace, for every tenant.
    Global,
}

/// What a provider is called in the ids of its people: `<name>` or `<namespace>/<name>`.
pub fn provider_id(scope: ProviderScope, namespace: &str, name: &str) -> String {
    match scope {
        ProviderScope::Global => name.to_owned(),
        ProviderScope::Tenant => format!("{namespace}/{name}"),
    }
}

/// What a person is called here, and in tokens (`sub`). Neither names nor namespaces have a colon, so that the
/// first one ends the provider.
pub fn person_id(provider_id: &str, subject: &str) -> String {
    format!("{provider_id}:{subject}")
}

/// What a User says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFacts {
    /// The tenant's namespace.
    pub namespace: String,
    /// The resource's name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whom it speaks of ([`person_id`]).
    pub id: String,
    /// What people call the person.
    pub display_name: Option<String>,
    /// The roles that somebody gave the person here.
    pub roles: Vec<String>,
    /// Whether somebody keeps the person out.
    pub suspended: bool,
}

impl UserFacts {
    fn seniority(&self) -> (Timestamp, &str, &str) {
        (self.created, &self.uid, &self.name)
    }
}

/// A person of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// What people call the person, by the oldest User that names them.
    pub display_name: Option<String>,
    /// The roles in the oldest User that names them.
    pub roles: Vec<String>,
    /// Whether any User that names them is suspended.
    pub suspended: bool,
    /// The name of the oldest User.
    pub user: String,
}

/// All people of all tenants that Users name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People(HashMap<String, OfTenant>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OfTenant {
    users: usize,
    suspended: bool,
    people: HashMap<String, Person>,
}

impl People {
    /// What these Users, in any order, come to.
    pub fn of(users: impl IntoIterator<Item = UserFacts>) -> Self {
        let mut users: Vec<_> = users.into_iter().collect();
        users.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
        let mut all = Self::default();
        for user in users {
            let tenant = all.0.entry(user.namespace).or_default();
            tenant.users += 1;
            tenant.suspended |= user.suspended;
            match tenant.people.entry(user.id) {
                std::collections::hash_map::Entry::Occupied(mut known) => {
                    known.get_mut().suspended |= user.suspended;
                }
                std::collections::hash_map::Entry::Vacant(unknown) => {
                    unknown.insert(Person {
                        display_name: user.display_name,
                        roles: user.roles,
                        suspended: user.suspended,
                        user: user.name,
                    });
                }
            }
        }
        all
    }

    /// The person of that id, as the tenant of that namespace knows them. No tenant sees another's.
    pub fn get(&self, namespace: &str, id: &str) -> Option<&Person> {
        self.0.get(namespace)?.people.get(id)
    }

    /// Whether a tenant keeps that person out.
    pub fn is_suspended(&self, namespace: &str, id: &str) -> bool {
        self.get(namespace, id)
            .is_some_and(|person| person.suspended)
    }

    /// Whether a tenant keeps anybody out.
    pub fn has_suspended(&self, namespace: &str) -> bool {
        self.0.get(namespace).is_some_and(|tenant| tenant.suspended)
    }

    /// How many Users a tenant has.
    pub fn users(&self, namespace: &str) -> usize {
        self.0.get(namespace).map_or(0, |tenant| tenant.users)
    }

    /// How many Users there are, and how many people they keep out.
    pub fn count(&self) -> (usize, usize) {
        let people = self.0.values().flat_map(|tenant| tenant.people.values());
        (
            self.0.values().map(|tenant| tenant.users).sum(),
            people.filter(|person| person.suspended).count(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(namespace: &str, name: &str, second: i64, id: &str) -> UserFacts {
        UserFacts {
            namespace: namespace.into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            created: Timestamp::from_second(second).expect("a time"),
            id: id.into(),
            display_name: Some(name.to_owned()),
            roles: vec![name.to_uppercase()],
            suspended: false,
        }
    }

    #[test]
    fn ids_are_told_apart() {
        let tenants = provider_id(ProviderScope::Tenant, "acme", "corp");
        let global = provider_id(ProviderScope::Global, "acme", "corp");
        assert_eq!(person_id(&tenants, "ann"), "acme/corp:ann");
        assert_eq!(person_id(&global, "a:b"), "corp:a:b");
    }

    #[test]
    fn the_oldest_gives_roles_and_any_keeps_out() {
        let (old, young) = (user("acme", "b", 1, "p:x"), user("acme", "a", 2, "p:x"));
        for suspended in [None, Some(0), Some(1)] {
            let mut both = [old.clone(), young.clone()];
            for (n, user) in both.iter_mut().enumerate() {
                user.suspended = suspended == Some(n);
            }
            for order in [both.clone(), [both[1].clone(), both[0].clone()]] {
                let people = People::of(order);
                let person = people.get("acme", "p:x").expect("known");
                assert_eq!(
                    (&*person.user, &*person.roles),
                    ("b", &["B".to_owned()][..])
                );
                assert_eq!(person.display_name.as_deref(), Some("b"));
                assert_eq!(person.suspended, suspended.is_some());
                assert_eq!(people.users("acme"), 2);
            }
        }
    }

    #[test]
    fn no_tenant_keeps_anothers_people_out() {
        let mut out = user("acme", "a", 1, "p:x");
        out.suspended = true;
        let people = People::of([out, user("globex", "a", 0, "p:x")]);
        assert!(people.is_suspended("acme", "p:x"));
        assert!(!people.is_suspended("globex", "p:x"));
        assert!(!people.is_suspended("acme", "p:y"));
        assert_eq!(people.get("initech", "p:x"), None);
        assert_eq!(people.count(), (2, 1));
    }

    proptest! {
        /// Whatever there is in whatever order: who is suspended in any User is kept out, and nobody else.
        #[test]
        fn suspended_by_any_and_by_no_other(
            all in prop::collection::vec((0..3_u8, 0..4_u8, 0..3_i64, any::<bool>()), 0..20),
            turn in 0..20_usize,
        ) {
            let facts: Vec<_> = all
                .iter()
                .enumerate()
                .map(|(n, (namespace, id, second, suspended))| UserFacts {
                    suspended: *suspended,
                    ..user(&format!("n{namespace}"), &format!("u{n}"), *second, &format!("p:{id}"))
                })
                .collect();
            let people = People::of(facts.clone());
            let mut turned = facts.clone();
            turned.rotate_left(turn % facts.len().max(1));
            prop_assert_eq!(&People::of(turned), &people);
            for namespace in 0..3_u8 {
                let namespace = format!("n{namespace}");
                for id in 0..4_u8 {
                    let id = format!("p:{id}");
                    let of = || facts.iter().filter(|f| f.namespace == namespace && f.id == id);
                    prop_assert_eq!(people.is_suspended(&namespace, &id), of().any(|f| f.suspended));
                    let first = of().min_by(|a, b| a.seniority().cmp(&b.seniority()));
                    let person = people.get(&namespace, &id);
                    prop_assert_eq!(person.map(|p| &p.user), first.map(|f| &f.name));
                }
            }
        }
    }
}
