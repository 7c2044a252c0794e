//! What stands where the delivered Secret should be.

use kube::ResourceExt;

use super::{COLLECTED_RECHECK, DeliverySeen, FOREIGN_RECHECK, Visit};
use crate::api::v1alpha1::Conditions;
use crate::controllers::Decision;
use crate::domain::reasons as r;
use crate::objects::credentials;

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

    /// The operator namespace that a delivered Secret of ours names, where that is another.
    pub(super) fn served_from_elsewhere(&self) -> Option<&str> {
        let target = self.user.secret_credential();
        let target = target.map(|_| self.user.secret_name());
        let delivered = self.seen.deliveries.iter().filter(|d| d.ours());
        delivered
            .filter(|d| {
                target
                    .as_ref()
                    .is_none_or(|name| *name == d.secret.name_any())
            })
            .find_map(|d| credentials::delivered_from(&d.secret))
            .filter(|from| *from != self.settings.operator_namespace)
    }
}
