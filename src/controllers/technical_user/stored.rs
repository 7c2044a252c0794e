//! What people do to the Secret with the hashes, and how it is mended: its labels, without which no server
//! finds it, and the hashes themselves. The intervals at which they are replaced are bounded here too.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use super::rotation::Rotation;
use super::{COLLECTED_RECHECK, DeliverySeen, Visit};
use crate::controllers::{Decision, Fill, Note, Object, Write};
use crate::crypto::hash;
use crate::domain::client::StoredCredential;
use crate::domain::period::Period;
use crate::domain::reasons as r;
use crate::objects::{credentials, delivery};

/// Whether no secret can have this hash: somebody has altered it.
fn is_broken(credential: &StoredCredential) -> bool {
    hash::cost_of(&credential.hash).is_none()
}

impl Visit<'_> {
    /// Hashes without the labels that tell whose they are: where status proves that they are this technical
    /// user's, they get them back, and where status proves that they are lost, they are deleted, so that
    /// others are made. Whether there is something to mend; where status proves neither a person has to
    /// decide.
    pub(super) fn relabel(&self, decision: &mut Decision) -> bool {
        let Some(hashes) = self.seen.hashes.as_deref() else {
            return false;
        };
        let ours = hashes.type_.as_deref() == Some(credentials::HASHES_TYPE);
        let labelled = credentials::hashes_of(hashes).is_some();
        if !ours || labelled || hashes.metadata.deletion_timestamp.is_some() {
            return false;
        }
        let name = hashes.name_any();
        if self.remembers(hashes) {
            let object = Object::Secret(Box::new(self.labelled(Some(hashes))));
            decision.writes.push(Write::Replace(object, Fill::Nothing));
            decision.writes.push(Note::warning(
                r::SECRET_REPAIRED,
                format!("Secret {name} in the operator's namespace had lost the labels by which servers find the hashes: it has them again, and clients go on."),
            ));
        } else if self.remembered().next().is_some() && credentials::revoked(hashes).is_none() {
            let object = Object::Secret(Box::new(hashes.clone()));
            decision.writes.push(Write::Delete(object));
            decision.writes.push(Note::warning(
                r::SECRET_REPAIRED,
                format!("Secret {name} in the operator's namespace had lost its labels, and holds none of the hashes of this technical user: it is deleted and made again."),
            ));
        } else {
            return false;
        }
        // Without labels it is not watched.
        self.recheck(COLLECTED_RECHECK, decision);
        true
    }

    /// Whether status, which is this very technical user's, tells of what is stored there.
    fn remembers(&self, hashes: &Secret) -> bool {
        let Some(status) = &self.user.status else {
            return false;
        };
        let noted = credentials::revoked(hashes);
        let told = |stored: &credentials::Stored| {
            let created = credentials::whole_second(stored.credential.created_at);
            let mut told = status.credentials.iter();
            told.any(|c| c.id == stored.credential.id && c.created_at.0 == created)
        };
        credentials::read(hashes).iter().any(told)
            || noted.is_some_and(|noted| {
                let revoked = status.revoked.as_ref();
                revoked.is_some_and(|revoked| revoked.at == noted.at)
            })
    }

    /// Only the hash was lost: it is made again from the delivered Secret. Only of a secret that we have
    /// delivered before: what somebody else has put there first is no credential.
    pub(super) fn hash_again(
        &self,
        hashes: Option<&Secret>,
        standing: Option<&DeliverySeen>,
        decision: &mut Decision,
    ) -> bool {
        let standing = standing.filter(|s| s.proves().is_none());
        let Some((standing, (plain, _))) = standing.and_then(|s| Some((s, s.plain.as_ref()?)))
        else {
            return false;
        };
        let id = delivery::credential_id(&standing.secret);
        let Some(id) = id.filter(|id| self.remembered().any(|known| known == *id)) else {
            return false;
        };
        let stored = hashes.map(credentials::read).unwrap_or_default();
        let (lost, others) = match stored.iter().find(|s| s.credential.id == id) {
            // One that is not the newest any more has its end.
            Some(s) => (
                s.known.retired_at.is_none() && is_broken(&s.credential),
                stored.len() > 1,
            ),
            None => (stored.is_empty(), false),
        };
        if !lost {
            return false;
        }
        let fill = Fill::HashOf {
            plain: plain.clone(),
            id: id.to_owned(),
            now: self.moment.now,
        };
        let object = Object::Secret(Box::new(self.labelled(hashes)));
        decision.writes.push(match hashes {
            Some(_) => Write::Replace(object, fill),
            None => Write::Create(object, fill),
        });
        let mut told = "The hash of the client secret was lost or altered by hand, and was made again from the delivered Secret: clients that use what stands there go on.".to_owned();
        if !others {
            told.push_str(" Older client secrets, in their grace, have ended.");
        }
        decision
            .writes
            .push(Note::warning(r::SECRET_REPAIRED, told));
        true
    }

    /// Whether the hashes are there, and not that of the secret which is delivered, as status tells:
    /// somebody has emptied or altered them.
    pub(super) fn lost_hashes(&self) -> bool {
        let Some(hashes) = self.own_hashes() else {
            return false;
        };
        let stored = credentials::read(hashes);
        let known = self.remembered().next().is_some();
        let broken = |s: &credentials::Stored| is_broken(&s.credential);
        known && (stored.is_empty() || stored.iter().any(broken))
    }

    /// The interval that the spec gives to secrets that are generated.
    pub(super) fn interval(&self) -> Option<Period> {
        let spec = self.user.secret_credential()?;
        let interval = spec.rotation.as_ref()?.interval;
        interval.filter(|_| !spec.is_supplied())
    }

    /// The shortest that the release allows, where the spec gives one that is shorter.
    pub(super) fn shortest_interval(&self) -> Option<Period> {
        let shortest = self.settings.policy.shortest_secret_rotation_interval?;
        let shorter = self.interval().is_some_and(|interval| interval < shortest);
        shorter.then_some(shortest)
    }

    /// That the interval is shorter than the release allows, if it is.
    pub(super) fn too_often(&self) -> Option<String> {
        let (interval, shortest) = (self.interval()?, self.shortest_interval()?);
        Some(format!(
            "spec.credential.secret.rotation.interval is {interval}, and this release has client secrets rotated at most every {shortest} (policy.shortestSecretRotationInterval): set it to that or more. Until then {shortest} holds."
        ))
    }

    /// What is asked for while a client secret works on beside what has taken its place, and does not
    /// happen: no other is made or delivered then.
    pub(super) fn unheard_amid_exchange(&self, rotation: &Rotation<'_>) -> Option<String> {
        let until = self
            .secret_until()
            .filter(|until| self.moment.now < *until)?;
        let status = self.user.status.as_ref();
        let handled = status.and_then(|s| s.last_handled_rotation.as_ref());
        let asked = rotation.policy.rotate.as_ref();
        let asks = asked.is_some() && asked != handled && !rotation.is_handled();
        let generated = rotation.stored.iter().filter(|s| {
            let known = &s.known;
            known.source.is_none() && known.sealed.is_none() && known.delivered_at.is_some()
        });
        let newest = generated.max_by_key(|s| s.credential.created_at);
        let lost = newest.is_some() && rotation.current.is_none();
        let what = match (asks, lost) {
            (false, false) => return None,
            (true, false) => "The rotation that an annotation asks for does not take place",
            (false, true) => {
                "The Secret that delivered the client secret was deleted or altered, and it is not put there again"
            }
            (true, true) => {
                "The Secret that delivered the client secret was deleted or altered, and neither is it put there again nor does the rotation that an annotation asks for take place"
            }
        };
        let until = credentials::whole_second(until);
        Some(format!(
            "{what}, as spec.credential says another way to authenticate: whoever has the client secret may use it until {until}. For another one say credential.secret again."
        ))
    }
}

#[cfg(test)]
mod tests;
