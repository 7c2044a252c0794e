//! A technical user that was revoked: it stays so until a person asks for a new secret. A companion agent
//! is revoked as long as its device is, and is back with it, with a new secret: its hashes' Secret tells
//! which revocation of the device it has followed.

use k8s_openapi::api::core::v1::Secret;

use super::rotation::Rotation;
use super::{DeviceSeen, Visit};
use crate::api::v1alpha1::{Conditions, ROTATE_ANNOTATION, RevokedStatus};
use crate::controllers::{Decision, Fill, Note, Object, Write};
use crate::domain::reasons as r;
use crate::domain::rotation::Source;
use crate::objects::credentials;

impl Visit<'_> {
    /// What keeps it from having secrets at all, however they are delivered: their hashes' Secret is not
    /// ours, or it was revoked.
    pub(super) fn barred(&self, decision: &mut Decision) -> Option<(Rotation<'_>, Conditions)> {
        let hashes = self.seen.hashes.as_deref();
        if let Some(foreign) = hashes.filter(|h| !self.is_ours(h)) {
            let conditions = self.foreign_hashes(foreign, decision);
            return Some((self.rotation(None, Source::Hold), conditions));
        }
        let revoked = self.revoked().or_else(|| self.overtaken(hashes))?;
        let conditions = self.stay_revoked(&revoked, hashes, decision);
        Some((self.rotation(hashes, Source::Hold), conditions))
    }

    /// That it was revoked: its hashes' Secret says so, or its status, where a backup of that Secret was
    /// put back, or it is gone.
    pub(super) fn was_revoked(&self) -> Option<RevokedStatus> {
        let noted = self.own_hashes().and_then(credentials::revoked);
        noted.or_else(|| self.user.status.as_ref()?.revoked.clone())
    }

    /// The same, unless a person has asked for a new secret since: by another value of the annotation.
    /// Neither the same manifest applied again nor a schedule does. A companion is revoked with its
    /// device, whatever its own annotation says.
    pub(super) fn revoked(&self) -> Option<RevokedStatus> {
        if let Some(device) = self.device() {
            return device.revoked.as_ref().map(with_its_device);
        }
        let (asked, _) = self.request();
        self.was_revoked()
            .filter(|revoked| asked.is_none() || asked == revoked.rotate.as_deref())
    }

    /// Of a companion: that its device was revoked, and is back, and its own hashes are those from before.
    /// They are destroyed all the same.
    pub(super) fn overtaken(&self, hashes: Option<&Secret>) -> Option<RevokedStatus> {
        let at = self.device()?.last_revocation?;
        let overtaken = credentials::last_revocation(hashes?) != Some(at);
        overtaken.then(|| RevokedStatus {
            at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at),
            reason: r::REVOKED_BY_DEVICE.into(),
            rotate: None,
        })
    }

    /// Whether it was revoked, or its device was: a delivered secret may be one from before.
    pub(super) fn was_ever_revoked(&self) -> bool {
        let device = self.device().and_then(|device| device.last_revocation);
        device.is_some() || self.was_revoked().is_some()
    }

    /// Of what authenticates with assertions, and was revoked once: its hashes' Secret holds no more than
    /// the note of that.
    pub(super) fn is_back(hashes: &Secret) -> bool {
        credentials::last_revocation(hashes).is_some() && credentials::read(hashes).is_empty()
    }

    /// Takes the note back, as a person has asked for it.
    pub(super) fn bring_back(&self, hashes: &Secret, decision: &mut Decision) {
        if credentials::revoked(hashes).is_none() {
            return;
        }
        let mut after = hashes.clone();
        credentials::set_revoked(&mut after, None);
        let object = Object::Secret(Box::new(after));
        decision.writes.push(Write::Replace(object, Fill::Nothing));
        decision.writes.push(Note::normal(
            r::REVOCATION_ENDED,
            format!(
                "{} is no longer revoked, as the annotation {ROTATE_ANNOTATION} asks: what it authenticates with is taken again.",
                self.user.client_id()
            ),
        ));
    }

    /// Sees that it stays so.
    pub(super) fn stay_revoked(
        &self,
        revoked: &RevokedStatus,
        hashes: Option<&Secret>,
        decision: &mut Decision,
    ) -> Conditions {
        let noted = hashes.and_then(credentials::revoked);
        if noted.is_none_or(|noted| noted.at != revoked.at) {
            // Somebody deleted it, and status remembers; or it is a companion's.
            let template = || credentials::hashes_template(self.user, self.settings);
            let mut secret = hashes.cloned().unwrap_or_else(template);
            credentials::set_revoked(&mut secret, Some(revoked));
            let object = Object::Secret(Box::new(secret));
            decision.writes.push(match hashes {
                Some(_) => Write::Replace(object, Fill::Nothing),
                None => Write::Create(object, Fill::Nothing),
            });
        }
        if let Some(DeviceSeen { name, .. }) = self.device() {
            return Conditions::stalled(
                r::REVOKED_BY_DEVICE,
                format!(
                    "Its device {name} revoked itself at {}, and it is revoked with it: its secret is destroyed, and no token is issued. It is back with a new secret once its device is: annotate that, and not this, with a new value of {ROTATE_ANNOTATION}.",
                    revoked.at.0
                ),
            );
        }
        let (gone, back) = match self.user.secret_credential() {
            Some(_) if self.is_supplied() => (
                "its secret is destroyed",
                "the one that is supplied works again",
            ),
            Some(_) => ("its secret is destroyed", "a new secret is made"),
            None => (
                "nothing that it authenticates with is taken",
                "it is taken again, so give it another key before",
            ),
        };
        let mut message = format!(
            "{} revoked itself at {}: {gone}, and no token is issued. If it is found, annotate it with a new value of {ROTATE_ANNOTATION}: {back}.",
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

fn with_its_device(revoked: &RevokedStatus) -> RevokedStatus {
    RevokedStatus {
        rotate: None,
        ..revoked.clone()
    }
}
