//! What a person should know of a ring besides its timetable, in sentences.

use std::cmp::Reverse;

use super::{Ring, period};
use crate::api::v1alpha1::SigningKey;
use crate::cli::dev::manifests::Document;
use crate::domain::rotation::Policy;
use crate::domain::settings::Settings;

/// Of several rings for one audience one signs: the others' keys are active, and no token has them.
pub(super) fn tell_who_signs(rings: &mut [Ring]) {
    let first = |ring: &Ring, rings: &[Ring]| {
        let same = rings
            .iter()
            .filter(|r| (&r.namespace, r.audience) == (&ring.namespace, ring.audience));
        let first = same.min_by_key(|r| (Reverse(r.priority), r.name.clone()));
        first.map(|first| (first.name.clone(), first.priority))
    };
    let firsts: Vec<_> = rings.iter().map(|ring| first(ring, rings)).collect();
    for (ring, first) in rings.iter_mut().zip(firsts) {
        if let Some((name, priority)) = first.filter(|(name, _)| *name != ring.name) {
            ring.notes.push(format!(
                "SigningKey {name} (priority {priority}) goes before this one (priority {}) for the same audience: while both can sign, tokens have its keys, unless a technical user names this ring in spec.signingKey.",
                ring.priority
            ));
        }
    }
}

/// A ring outside of the operator's namespace would wait for ever, without a condition.
pub(super) fn misplaced(document: &Document, settings: &Settings) -> Option<String> {
    let (namespace, own) = (&document.id.namespace, &settings.operator_namespace);
    let says = document.node.to_json();
    if says["metadata"]["namespace"].is_null() {
        return Some(format!(
            "metadata.namespace is absent: SigningKeys live in the operator's namespace, {own}, so apply it there."
        ));
    }
    (namespace != own).then(|| {
        format!(
            "SigningKeys live in the operator's namespace, {own}: in {namespace} none reads it, so that no key is made and no condition says so. Write metadata.namespace: {own}, or give --namespace. What is planned here would happen there."
        )
    })
}

/// What holds for longer than the spec says, in sentences.
pub(super) fn raised(ring: &SigningKey, settings: &Settings, policy: &Policy) -> Vec<String> {
    let rotation = ring.spec.rotation.clone().unwrap_or_default();
    let mut notes = Vec::new();
    let (asked, lead) = (policy.publish_lead, policy.lead());
    if lead > asked {
        notes.push(format!(
            "publishLead is {}, and {} holds: longer than the JWKS's max-age of {}, for which verifiers cache it.",
            period(asked),
            period(lead),
            settings.jwks.max_age
        ));
    }
    let safe = policy.max_ttl.saturating_add(policy.margin);
    if let Some(grace) = rotation.grace_period
        && grace.as_duration() < safe
    {
        notes.push(format!(
            "gracePeriod is {grace}, and {} holds: the longest token life of {}, a clock leeway of {}, max-age of {} and maxStaleness of {} together.",
            period(safe),
            settings.tokens.max_ttl,
            settings.tokens.clock_leeway,
            settings.jwks.max_age,
            settings.serving.max_staleness
        ));
    }
    notes
}
