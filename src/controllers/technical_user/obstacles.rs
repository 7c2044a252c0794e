//! What stands where the delivered Secret should be.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::{COLLECTED_RECHECK, DeliverySeen, FOREIGN_RECHECK, Visit};
use crate::api::v1alpha1::Conditions;
use crate::controllers::{Decision, Object, Write};
use crate::domain::reasons as r;
use crate::objects::{credentials, delivery};

impl Visit<'_> {
    pub(super) fn in_the_way(
        &self,
        standing: &DeliverySeen,
        decision: &mut Decision,
    ) -> Conditions {
        let name = standing.secret.name_any();
        let earlier = standing.secret.owner_references().iter().any(|o| {
            o.kind == "TechnicalUser"
                && o.name == self.user.name_any()
                && Some(&o.uid) != self.user.metadata.uid.as_ref()
        });
        if earlier || standing.secret.metadata.deletion_timestamp.is_some() {
            self.recheck(COLLECTED_RECHECK, decision);
            return Conditions::reconciling(
                r::PROGRESSING,
                format!(
                    "Secret {name} of an earlier technical user of this name is being deleted."
                ),
            );
        }
        self.recheck(FOREIGN_RECHECK, decision);
        Conditions::stalled(
            r::SECRET_NAME_CONFLICT,
            format!(
                "Secret {name} exists, was not made for this technical user, and was left as it is: set credential.secret.secretName to another name, or delete that Secret."
            ),
        )
    }

    /// A Secret of ours that someone has made such that it can not be replaced.
    pub(super) fn unwritable(
        &self,
        standing: &DeliverySeen,
        decision: &mut Decision,
    ) -> Option<Conditions> {
        let secret = &standing.secret;
        let opaque = secret.type_.as_deref() == Some("Opaque");
        if opaque && (secret.immutable != Some(true) || standing.proves().is_some()) {
            return None;
        }
        self.recheck(FOREIGN_RECHECK, decision);
        let name = secret.name_any();
        let why = if opaque {
            "immutable"
        } else {
            "not of type Opaque"
        };
        Some(Conditions::stalled(
            r::SECRET_NAME_CONFLICT,
            format!(
                "Secret {name} is {why}, so that the client secret can not be put there: delete it, and a new one is made."
            ),
        ))
    }

    /// What works stands in a Secret that somebody has made immutable: no other can be put there.
    pub(super) fn is_frozen(standing: Option<&DeliverySeen>) -> bool {
        standing.is_some_and(|s| s.secret.immutable == Some(true))
    }

    /// A Secret with other hashes stands where this technical user's should be.
    pub(super) fn foreign_hashes(&self, hashes: &Secret, decision: &mut Decision) -> Conditions {
        if credentials::hashes_of(hashes).is_some() {
            // Of a technical user of that name that was deleted: it is swept first.
            let object = Object::Secret(Box::new(hashes.clone()));
            decision.writes.push(Write::Delete(object));
            return Conditions::reconciling(
                r::PROGRESSING,
                "The hashes of an earlier technical user of this name are being deleted.",
            );
        }
        self.recheck(FOREIGN_RECHECK, decision);
        let name = hashes.name_any();
        Conditions::stalled(
            r::SECRET_NAME_CONFLICT,
            format!(
                "Secret {name} in the operator's namespace is in the way of this technical user's hashes, tells by no label whose it is, and was left as it is: a platform administrator has to delete it."
            ),
        )
    }

    /// The operator namespace that a delivered Secret of ours names, where that is another.
    pub(super) fn served_from_elsewhere(&self) -> Option<&str> {
        let target = self.user.delivers_in();
        let delivered = self.seen.deliveries.iter().filter(|d| d.ours());
        delivered
            .filter(|d| {
                target
                    .as_ref()
                    .is_none_or(|name| *name == d.secret.name_any())
            })
            .find_map(|d| delivery::delivered_from(&d.secret))
            .filter(|from| *from != self.settings.operator_namespace)
    }
}
