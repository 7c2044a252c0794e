//! The Subscription controller: it writes nothing but status.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Decision, Note, Write, status};
use crate::api::v1alpha1::{Conditions, Entitlement, Observed, Subscription, SubscriptionStatus};
use crate::domain::reasons as r;
use crate::domain::settings::Settings;
use crate::domain::subscription::{self, Problem, SubscriptionFacts};
use crate::tenancy::Tenancy;

/// What there is to see of a Subscription.
pub struct Seen {
    /// The resource.
    pub subscription: Arc<Subscription>,
    /// The judgement of all of them.
    pub tenancy: Arc<Tenancy>,
}

/// What to say of it.
pub fn decide(seen: &Seen, settings: &Settings, now: Timestamp) -> Decision {
    let Seen {
        subscription,
        tenancy,
    } = seen;
    let facts = subscription.facts();
    if facts.environment != settings.environment
        || subscription.metadata.deletion_timestamp.is_some()
    {
        return Decision::default();
    }
    let siblings = tenancy.of(&facts.namespace);
    let current = subscription::current(siblings, now);
    let is_current = current.is_some_and(|c| c.uid == facts.uid);
    let key = (facts.namespace.clone(), facts.name.clone());
    let conditions = match tenancy.problems.get(&key) {
        // Not judged yet: the next change brings us back.
        None => return Decision::default(),
        Some(Some(problem)) => stalled(problem, &facts, settings),
        Some(None) if is_current => Conditions::ready(
            r::SUCCEEDED,
            format!(
                "Namespace {} speaks for {} ({}), tier {}.",
                facts.namespace, facts.legal_entity_id, facts.legal_entity_name, facts.tier
            ),
        ),
        Some(None) => not_current(&facts, current, now),
    };
    let before = subscription.status.as_ref();
    let observed = Observed {
        generation: subscription.metadata.generation.unwrap_or(0),
        now,
    };
    let stood = before.map_or(&[][..], |s| &s.conditions);
    let after = SubscriptionStatus {
        observed_generation: observed.generation,
        conditions: conditions.write(stood, observed),
        current: is_current,
        entitlements: Entitlement::list(&facts.effective_entitlements(settings)),
    };
    let mut events = status::warnings(stood, &conditions);
    let was_current = before.is_some_and(|status| status.current);
    events.extend(turned(&facts, was_current, is_current, current));
    Decision {
        writes: status::write(&**subscription, before, &after, events),
        wake_at: subscription::next_change(siblings, now),
    }
}

/// What is told where a Subscription begins to hold, or ceases to.
fn turned(
    facts: &SubscriptionFacts,
    was_current: bool,
    is_current: bool,
    current: Option<&SubscriptionFacts>,
) -> Option<Write> {
    let SubscriptionFacts {
        namespace, name, ..
    } = facts;
    match (was_current, is_current, current) {
        (false, true, _) => Some(Note::normal(
            r::CURRENT,
            format!("Namespace {namespace} gets tokens by Subscription {name} from now on."),
        )),
        (true, false, Some(other)) => Some(Note::normal(
            r::NOT_CURRENT,
            format!("Subscription {} holds from now on.", other.name),
        )),
        (true, false, None) => Some(Note::warning(
            r::NOT_CURRENT,
            format!(
                "It holds no more, and no other one does: namespace {namespace} gets no tokens until one is current again."
            ),
        )),
        _ => None,
    }
}

fn stalled(problem: &Problem, facts: &SubscriptionFacts, settings: &Settings) -> Conditions {
    let SubscriptionFacts {
        namespace,
        legal_entity_id,
        tier,
        ..
    } = facts;
    match problem {
        Problem::InOperatorNamespace => Conditions::stalled(
            r::WRONG_NAMESPACE,
            format!(
                "{namespace} is the operator's own namespace and can be no tenant's: make the Subscription in the tenant's namespace."
            ),
        ),
        Problem::NamespaceBound {
            by,
            legal_entity,
            environment,
        } => Conditions::stalled(
            r::NAMESPACE_BOUND,
            format!(
                "Namespace {namespace} is bound to legal entity {legal_entity} in environment {environment} by the older Subscription {by}, and a namespace has one of each: use a namespace of its own for {legal_entity_id} in {}.",
                facts.environment
            ),
        ),
        Problem::LegalEntityBound { namespace: other } => Conditions::stalled(
            r::LEGAL_ENTITY_BOUND,
            format!(
                "Legal entity {legal_entity_id} is bound to namespace {other} by an older Subscription, and a legal entity has one namespace in an environment: use that one, or delete its Subscription first; where the id is a mistake, delete this one and make it again."
            ),
        ),
        Problem::UnknownTier { known } => Conditions::stalled(
            r::UNKNOWN_TIER,
            format!(
                "There is no tier {tier:?}: use one of {}.",
                known.join(", ")
            ),
        ),
        Problem::DraftTier => Conditions::stalled(
            r::DRAFT_TIER,
            format!(
                "Tier {tier} is a draft, and environment {} does not allow drafts: use another tier, or set policy.allowDraftTiers in the release.",
                settings.environment
            ),
        ),
    }
}

fn not_current(
    facts: &SubscriptionFacts,
    current: Option<&SubscriptionFacts>,
    now: Timestamp,
) -> Conditions {
    let (reason, message) = if let Some(from) = facts.period_from.filter(|from| *from > now) {
        (r::SCHEDULED, format!("It begins at {from}."))
    } else if let Some(to) = facts.period_to.filter(|to| *to <= now) {
        (r::EXPIRED, format!("It ended at {to}."))
    } else {
        (
            r::NOT_CURRENT,
            format!(
                "Subscription {} holds, which began later.",
                current.map_or("another", |c| &c.name)
            ),
        )
    };
    // As the spec wants it: an upgrade committed ahead of its date keeps GitOps green.
    Conditions::ready(reason, message)
}
