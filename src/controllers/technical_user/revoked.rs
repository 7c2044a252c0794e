//! A technical user that was revoked: it stays so until a person asks for a new secret.

use k8s_openapi::api::core::v1::Secret;

use super::Visit;
use crate::api::v1alpha1::{Conditions, ROTATE_ANNOTATION, RevokedStatus};
use crate::controllers::{Decision, Fill, Object, Write};
use crate::domain::reasons as r;
use crate::objects::credentials;

impl Visit<'_> {
    /// That it was revoked: its hashes' Secret says so, or, where that is gone, its status.
    pub(super) fn was_revoked(&self) -> Option<RevokedStatus> {
        let ours = |hashes: &&Secret| self.is_ours(hashes);
        match self.seen.hashes.as_deref().filter(ours) {
            Some(hashes) => credentials::revoked(hashes),
            None => self.user.status.as_ref()?.revoked.clone(),
        }
    }

    /// The same, unless a person has asked for a new secret since: by another value of the annotation.
    /// Neither the same manifest applied again nor a schedule does.
    pub(super) fn revoked(&self) -> Option<RevokedStatus> {
        let (asked, _) = self.request();
        self.was_revoked()
            .filter(|revoked| asked.is_none() || asked == revoked.rotate.as_deref())
    }

    /// Sees that it stays so.
    pub(super) fn stay_revoked(
        &self,
        revoked: &RevokedStatus,
        hashes: Option<&Secret>,
        decision: &mut Decision,
    ) -> Conditions {
        if hashes.is_none() {
            // Somebody deleted it: status remembers.
            let mut secret = credentials::hashes_template(self.user, self.settings);
            credentials::set_revoked(&mut secret, Some(revoked));
            let object = Object::Secret(Box::new(secret));
            decision.writes.push(Write::Create(object, Fill::Nothing));
        }
        let then = if self.is_supplied() {
            "the one that is supplied works again"
        } else {
            "a new secret is made"
        };
        let mut message = format!(
            "{} revoked itself at {}: its secret is destroyed, and no token is issued. If it is found, annotate it with a new value of {ROTATE_ANNOTATION}: {then}.",
            self.user.client_id(),
            revoked.at.0
        );
        if self.is_supplied() {
            message.push_str(" You supply it, so change what your Secret holds before.");
        }
        if let (_, Some(slip)) = self.request() {
            message.push_str(" As it is, ");
            message.push_str(&slip);
        }
        Conditions::stalled(r::REVOKED_BY_DEVICE, message)
    }
}
