//! The User controller: it writes nothing but status. Who is kept out, servers see for themselves.

use std::sync::Arc;

use jiff::Timestamp;

use super::technical_user::RESTRICTED;
use super::{Decision, status};
use crate::api::v1alpha1::{Conditions, Observed, User, UserStatus};
use crate::domain::names::is_object_name;
use crate::domain::reasons as r;
use crate::domain::settings::Settings;
use crate::domain::subscription::{self, cut_down};
use crate::domain::user::{People, ProviderScope};
use crate::tenancy::Tenancy;

/// What there is to see of a User.
pub struct Seen {
    /// The resource.
    pub user: Arc<User>,
    /// Subscriptions and providers.
    pub tenancy: Arc<Tenancy>,
    /// All Users together.
    pub people: Arc<People>,
}

/// What to say of it.
pub fn decide(seen: &Seen, settings: &Settings, now: Timestamp) -> Decision {
    let user = &seen.user;
    let namespace = user.metadata.namespace.as_deref().unwrap_or_default();
    let environment = seen.tenancy.environments.get(namespace);
    let anothers = environment.is_some_and(|of| *of != settings.environment);
    if anothers || user.metadata.deletion_timestamp.is_some() {
        return Decision::default();
    }
    let before = user.status.as_ref();
    let conditions = beyond(seen, namespace, now, conditions(seen, namespace, settings));
    let observed = Observed {
        generation: user.metadata.generation.unwrap_or(0),
        now,
    };
    let stood = before.map_or(&[][..], |status| &status.conditions);
    let after = UserStatus {
        observed_generation: observed.generation,
        conditions: conditions.write(stood, observed),
        id: Some(user.person()),
    };
    let events = status::warnings(stood, &conditions);
    Decision {
        writes: status::write(&**user, before, &after, events),
        wake_at: None,
    }
}

/// With the roles that the Subscription does not allow, as of a technical user.
fn beyond(seen: &Seen, namespace: &str, now: Timestamp, conditions: Conditions) -> Conditions {
    let Some(current) = subscription::current(seen.tenancy.of(namespace), now) else {
        return conditions;
    };
    let roles = &seen.user.spec.roles;
    let granted = cut_down(roles, &current.allowed.roles);
    let denied: Vec<_> = roles
        .iter()
        .map(String::as_str)
        .filter(|role| !granted.contains(role))
        .collect();
    if denied.is_empty() {
        return conditions;
    }
    let told = format!(
        "Subscription {} does not allow the roles {}, so that tokens go without.",
        current.name,
        denied.join(", ")
    );
    let conditions = conditions.ready_adds(&told);
    conditions.and(RESTRICTED, true, r::BEYOND_SUBSCRIPTION, told)
}

fn conditions(seen: &Seen, namespace: &str, settings: &Settings) -> Conditions {
    let Seen {
        user,
        tenancy,
        people,
    } = seen;
    if namespace == settings.operator_namespace {
        return Conditions::stalled(
            r::WRONG_NAMESPACE,
            format!(
                "{namespace} is the operator's own namespace and no tenant's: make the User in the namespace of its tenant."
            ),
        );
    }
    if tenancy.of(namespace).is_empty() {
        return Conditions::reconciling(
            r::NO_SUBSCRIPTION,
            format!(
                "Namespace {namespace} has no sound Subscription, so that it is no tenant's: a platform administrator has to make one."
            ),
        );
    }
    let person = user.person();
    let name = user.metadata.name.as_deref().unwrap_or_default();
    // Not among them yet: the next change brings us back.
    let first = people.get(namespace, &person);
    if let Some(first) = first.filter(|first| first.user != name) {
        let out = match (first.suspended, user.spec.suspended) {
            (true, true) => " As this one is suspended, the person is kept out all the same.",
            (true, false) => " The person is kept out, as one of their Users is suspended.",
            _ => "",
        };
        return Conditions::stalled(
            r::SUBJECT_CONFLICT,
            format!(
                "User {} names {person} too, and goes before: the older does, and of two of the same second the one with the smaller UID. The roles there hold, and not those here. Delete one of the two.{out}",
                first.user
            ),
        );
    }
    let spec = &user.spec.provider;
    let (of, whose) = match spec.scope {
        ProviderScope::Tenant => (namespace, "this namespace"),
        ProviderScope::Global => (&*settings.operator_namespace, "the operator's namespace"),
    };
    let key = (of.to_owned(), spec.name.clone());
    let provider = tenancy.providers.get(&key);
    let suspended = if user.spec.suspended || first.is_some_and(|first| first.suspended) {
        " The person is kept out."
    } else {
        ""
    };
    let Some(judged) = provider.filter(|_| is_object_name(&spec.name)) else {
        return Conditions::stalled(
            r::PROVIDER_NOT_FOUND,
            format!(
                "There is no OidcProvider {} in {whose}, so that no token speaks of {person}: make it, or make another User with the right provider (scope is Tenant or Global).{suspended}",
                spec.name
            ),
        );
    };
    if judged.problem.is_some() || judged.provider.is_none() {
        return Conditions::stalled(
            r::PROVIDER_NOT_USABLE,
            format!(
                "OidcProvider {} in {whose} is Stalled or not Ready, so that no token speaks of {person}: its own conditions tell why.{suspended}",
                spec.name
            ),
        );
    }
    if user.spec.suspended {
        return Conditions::ready(
            r::SUSPENDED,
            format!("{person} gets no token, until spec.suspended is taken away."),
        );
    }
    if first.is_some_and(|first| first.suspended) {
        return Conditions::ready(
            r::SUSPENDED,
            format!("{person} gets no token, as another User that names them is suspended."),
        );
    }
    if judged.trusted().is_none() {
        return Conditions::ready(
            r::INACTIVE,
            format!(
                "OidcProvider {} in {whose} is not active: no token speaks of {person}.",
                spec.name
            ),
        );
    }
    Conditions::ready(
        r::SUCCEEDED,
        format!(
            "Tokens of OidcProvider {} in {whose} speak of {person}.",
            spec.name
        ),
    )
}

#[cfg(test)]
#[path = "user/tests.rs"]
mod tests;
