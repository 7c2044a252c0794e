//! After a restore a technical user has another UID, and neither its hashes nor its delivered Secret are its
//! own. They are adopted if one proves the other: the delivered Secret, which nobody owns, holds a
//! generated secret of which the operator's own Secret, of that namespace and name, has the hash.
//!
//! Nobody can forge that: the hashes stand in the operator's namespace, under a name that follows from
//! the technical user's, and who puts a client secret of theirs into a Secret has that client secret
//! already. One that the garbage collector is to have, as it still names an owner, is not adopted: that is what
//! deleting and making again leaves, and then a person wants new credentials.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::{DeliverySeen, Visit};
use crate::api::v1alpha1::{Conditions, TechnicalUser};
use crate::controllers::{Decision, Fill, Note, Object, Write};
use crate::domain::reasons as r;
use crate::domain::rotation::later;
use crate::objects::{Ownership, credentials, delivery, owner};

/// How long restored hashes wait for their technical user, which a restore brings last.
const RESTORE_TAKES: SignedDuration = SignedDuration::from_mins(10);
/// Hashes that are older than their Secret by this were restored. That one is made with the first of them,
/// and deleted with the last.
const RESTORED_LATER: SignedDuration = SignedDuration::from_mins(1);

/// Whether hashes, which are there or none, are those of a technical user of this namespace and name,
/// whatever its UID was.
pub fn are_of(hashes: &Secret, user: &TechnicalUser) -> bool {
    credentials::hashes_of(hashes).is_some_and(|(namespace, name, _)| {
        Some(namespace) == user.namespace().as_deref() && name == user.name_any()
    })
}

/// Until when hashes of a technical user that is not there are left: it may be about to be restored.
pub(super) fn awaited_until(hashes: &Secret) -> Option<Timestamp> {
    let made = hashes.metadata.creation_timestamp.as_ref()?.0;
    let stored = credentials::read_hashes(hashes)?;
    let newest = stored.iter().map(|s| s.created_at).max()?;
    (later(newest, RESTORED_LATER) <= made).then(|| later(made, RESTORE_TAKES))
}

impl Visit<'_> {
    /// Adopts what a restore has brought back, if it proves itself.
    pub(super) fn adopt(
        &self,
        standing: Option<&DeliverySeen>,
        decision: &mut Decision,
    ) -> Option<Conditions> {
        let (delivered, hashes) = (standing?, self.seen.hashes.as_deref()?);
        if !delivered.may_be_adopted(self.settings) || !are_of(hashes, self.user) {
            return None;
        }
        let hashes_dying = hashes.metadata.deletion_timestamp.is_some();
        if hashes_dying || credentials::revoked(hashes).is_some() {
            return None;
        }
        let (_, id) = delivered.plain.as_ref()?;
        let id = id.as_deref()?;
        if !self.is_ours(hashes) {
            let object = Object::Secret(Box::new(self.labelled(Some(hashes))));
            decision.writes.push(Write::Replace(object, Fill::Nothing));
        }
        // Seen again next, with all that follows; clients go on meanwhile.
        let mut after = (*delivered.secret).clone();
        after.metadata.owner_references = owner(self.user);
        let name = after.name_any();
        let object = Object::Secret(Box::new(after));
        decision.writes.push(Write::Replace(object, Fill::Nothing));
        decision.writes.push(Note::normal(
            r::CREDENTIAL_ADOPTED,
            format!("Secret {name} had no owner, as after a restore, and holds client secret {id}, of which the operator has the hash: both are this technical user's again, and clients go on as before."),
        ));
        Some(Conditions::reconciling(
            r::PROGRESSING,
            format!("Secret {name} and the client secret in it are being taken over."),
        ))
    }
}

impl DeliverySeen {
    /// Whether it may be one that a restore has brought back: delivered from here, and nobody's.
    fn may_be_adopted(&self, settings: &crate::domain::settings::Settings) -> bool {
        self.ownership == Ownership::Nobodys
            && self.secret.metadata.deletion_timestamp.is_none()
            && self.secret.type_.as_deref() == Some("Opaque")
            && delivery::was_delivered(&self.secret, settings)
    }
}
