//! Conditions as the Kubernetes API conventions and kstatus want them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::ISSUER_VALIDATED;
use crate::domain::reasons::PROGRESSING;

/// The type that every kind has.
pub const READY: &str = "Ready";
/// Present only while true: the operator is on its way (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// Present only while true: a person has to do something (kstatus).
pub const STALLED: &str = "Stalled";

/// Of a ring, present only while true: a longer grace than the spec's holds, since that is not safe.
pub const GRACE_PERIOD_RAISED: &str = "GracePeriodRaised";
/// Of a ring, present only while true: a longer publish lead than the spec's holds.
pub const PUBLISH_LEAD_RAISED: &str = "PublishLeadRaised";
/// Of a ring, present only while true: the schedule waits.
pub const ROTATION_PAUSED: &str = "RotationPaused";
/// Of a ring, present only while true: its `validTo` is near.
pub const EXPIRES_SOON: &str = "ExpiresSoon";
/// Of a ring, present only while `spec.publish` says something: whether all of that stands.
pub const PUBLISHED: &str = "Published";

/// Of a ring, always present: whether it is the one that signs for its audience.
pub const SIGNING: &str = "Signing";

/// All that a ring may have.
pub const RING_CONDITIONS: [&str; 9] = [
    READY,
    RECONCILING,
    STALLED,
    GRACE_PERIOD_RAISED,
    PUBLISH_LEAD_RAISED,
    ROTATION_PAUSED,
    EXPIRES_SOON,
    PUBLISHED,
    SIGNING,
];

/// The conditions that an object should have now.
#[derive(Clone, Debug, Default)]
pub struct Conditions(Vec<(&'static str, bool, &'static str, String)>);

/// What a status says of the visit that wrote it.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// The object's `metadata.generation`.
    pub generation: i64,
    /// The time of the visit.
    pub now: Timestamp,
}

impl Conditions {
    /// All is well.
    pub fn ready(reason: &'static str, message: impl Into<String>) -> Self {
        Self(vec![(READY, true, reason, message.into())])
    }

    /// Not yet, and the operator (or time) is at work on it.
    pub fn reconciling(reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(vec![
            (READY, false, reason, message.clone()),
            (RECONCILING, true, reason, message),
        ])
    }

    /// Not until a person does something.
    pub fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(vec![
            (READY, false, reason, message.clone()),
            (STALLED, true, reason, message),
        ])
    }

    /// It works as it was, but a person has asked for something that can not be done. `Ready` says both,
    /// since a table shows its message alone.
    pub fn ready_but_stalled(
        (ready, told): (&'static str, String),
        (stalled, why): (&'static str, String),
    ) -> Self {
        let told = told + " " + &why;
        Self(vec![
            (READY, true, ready, told),
            (STALLED, true, stalled, why),
        ])
    }

    /// The same where `Ready` is true and nothing else needs a person: what does, is told first.
    #[must_use]
    pub fn ready_though(self, reason: &'static str, why: String) -> Self {
        let ready = self
            .0
            .iter()
            .any(|(kind, holds, ..)| *kind == READY && *holds);
        if !ready
            || self
                .0
                .iter()
                .any(|(kind, holds, ..)| *kind == STALLED && *holds)
        {
            return self;
        }
        self.ready_adds(&why).and(STALLED, true, reason, why)
    }

    /// With a further condition.
    #[must_use]
    pub fn and(
        mut self,
        kind: &'static str,
        holds: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        self.0.push((kind, holds, reason, message.into()));
        self
    }

    /// With more to be read where `Ready` is true.
    #[must_use]
    pub fn ready_adds(mut self, more: &str) -> Self {
        for (kind, holds, _, message) in &mut self.0 {
            if *kind == READY && *holds {
                message.push(' ');
                message.push_str(more);
            }
        }
        self
    }

    /// What a person has to do something about: the conditions' types, reasons and sentences.
    pub fn troubles(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let troubles = self
            .0
            .iter()
            .filter(|(kind, holds, reason, _)| match *kind {
                STALLED => *holds,
                ISSUER_VALIDATED => !*holds,
                // What is on its way needs nobody.
                PUBLISHED => !*holds && *reason != PROGRESSING,
                _ => false,
            });
        troubles.map(|(kind, _, reason, message)| (*kind, *reason, message.as_str()))
    }

    /// As they stand in status: the time of the last transition is kept where the condition's
    /// status is unchanged.
    pub fn write(&self, before: &[Condition], observed: Observed) -> Vec<Condition> {
        self.0
            .iter()
            .map(|(kind, holds, reason, message)| {
                let status = if *holds { "True" } else { "False" };
                let last_transition_time = before
                    .iter()
                    .find(|c| c.type_ == *kind && c.status == status)
                    .map_or_else(
                        || Time(whole_second(observed.now)),
                        |c| c.last_transition_time.clone(),
                    );
                Condition {
                    type_: (*kind).to_owned(),
                    status: status.to_owned(),
                    reason: (*reason).to_owned(),
                    message: message.clone(),
                    observed_generation: Some(observed.generation),
                    last_transition_time,
                }
            })
            .collect()
    }
}

/// Kubernetes writes times without fractions.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;

    use super::*;
    use crate::api::v1alpha1::SigningKey;

    /// `kubectl explain signingkey.status.conditions` names all that there are.
    #[test]
    fn the_crd_tells_of_every_condition_of_a_ring() {
        let crd = serde_json::to_value(SigningKey::crd()).expect("JSON");
        let told = crd
            .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/conditions/description");
        let told = told.and_then(|d| d.as_str()).expect("a description");
        for condition in RING_CONDITIONS {
            assert!(told.contains(condition), "{condition} in {told:?}");
        }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let at = |s| Observed {
            generation: s,
            now: Timestamp::from_second(s).expect("a time"),
        };
        let first = Conditions::reconciling("Progressing", "one").write(&[], at(1));
        let second = Conditions::reconciling("Other", "two").write(&first, at(2));
        assert_eq!(
            second[0].last_transition_time,
            first[0].last_transition_time
        );
        assert_eq!(second[0].message, "two");
        let third = Conditions::ready("Succeeded", "three").write(&second, at(3));
        assert_eq!(third.len(), 1);
        assert_eq!(third[0].last_transition_time.0.as_second(), 3);
    }
}
