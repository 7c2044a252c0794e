//! A technical user that authenticates with assertions: there is nothing to make or deliver. What
//! there is to do is to let an earlier client secret work on through its grace, and to clean up then.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::rotation::Rotation;
use super::{OTHERS_DELIVER, Visit};
use crate::api::v1alpha1::{Conditions, Jwks};
use crate::controllers::{Decision, Fill, Note, Object, Write};
use crate::crypto::public_key::PublicKey;
use crate::domain::client_key::KeyFault;
use crate::domain::reasons as r;
use crate::domain::rotation::{Source, later};
use crate::domain::settings::Settings;
use crate::objects::credentials;

/// What the public keys of a technical user come to.
pub struct Judged {
    /// The ids of the keys that work.
    pub key_ids: Vec<String>,
    /// A sentence on each of the others.
    pub faults: Vec<(KeyFault, String)>,
}

/// Where a client's own keys stand.
pub const OWN: &str = "spec.credential.publicKey.jwks";

/// Judges keys, which stand at that place, as the feed does.
pub fn judge(jwks: &Jwks, place: &str, settings: &Settings) -> Judged {
    let mut judged = Judged {
        key_ids: Vec::new(),
        faults: Vec::new(),
    };
    for (index, jwk) in jwks.keys.iter().enumerate() {
        match PublicKey::allowed(jwk, &settings.policy) {
            Ok(key) if judged.key_ids.iter().any(|id| id == key.key_id()) => {}
            Ok(key) => judged.key_ids.push(key.key_id().to_owned()),
            Err(fault) => {
                let kid = jwk.kid.as_deref();
                let kid = kid.map_or_else(String::new, |kid| format!(" (kid {kid:?})"));
                let told = format!("{place}.keys[{index}]{kid}: {fault}.");
                judged.faults.push((fault, told));
            }
        }
    }
    judged
}

impl Visit<'_> {
    /// Client secrets that were there before work on until their grace is over.
    pub(super) fn without_secret(
        &self,
        violation: Option<Conditions>,
        decision: &mut Decision,
    ) -> (Rotation<'_>, Option<Conditions>) {
        let nothing = || self.rotation(None, Source::Hold);
        let own = self.own_hashes();
        if let Some(revoked) = self.revoked().or_else(|| self.overtaken(own)) {
            let revoked = match self.seen.hashes.as_deref() {
                Some(foreign) if own.is_none() => self.foreign_hashes(foreign, decision),
                _ => self.stay_revoked(&revoked, own, decision),
            };
            return (nothing(), Some(violation.unwrap_or(revoked)));
        }
        if let Some(hashes) = own.filter(|own| Self::is_back(own)) {
            self.bring_back(hashes, decision);
            self.clean_up(decision);
            return (nothing(), violation);
        }
        let hashes = match self.seen.hashes.as_deref() {
            Some(hashes) if self.is_ours(hashes) => hashes,
            Some(hashes) if credentials::hashes_of(hashes).is_some() => {
                let swept = self.foreign_hashes(hashes, decision);
                return (nothing(), Some(violation.unwrap_or(swept)));
            }
            // What is foreign is in nobody's way here.
            _ => {
                self.clean_up(decision);
                return (nothing(), violation);
            }
        };
        let mut rotation = self.rotation(Some(hashes), Source::Hold);
        // What would take the secrets' place does not work: they do, until that is mended.
        if violation.is_some() && credentials::exchanged_at(hashes).is_none() {
            // Those that had been rotated out before end as they were to.
            let mut after = self.labelled(Some(hashes));
            credentials::write(&mut after, &rotation.list());
            Self::put_told(Some(hashes), after, Fill::Nothing, &rotation, decision);
            self.take_away_ended("", &rotation, decision);
            decision.wake_by(rotation.plan.wake_at);
            return (rotation, violation);
        }
        let grace = self.user.secret_grace();
        let begun = credentials::exchanged_at(hashes);
        let (_, end) = self.exchange(hashes);
        // What is deleted can not be had again; where the clock is not believed, servers refuse it.
        if self.moment.now >= end && self.moment.sure {
            let gone = Object::Secret(Box::new(hashes.clone()));
            decision.writes.push(Write::Delete(gone));
            self.clean_up(decision);
            let why = if grace.as_duration().is_zero() {
                "there is no grace (spec.credential.gracePeriod is 0s)"
            } else {
                "its grace is over"
            };
            decision.writes.push(Note::normal(
                r::CREDENTIAL_REMOVED,
                format!("The client secret does not work any more, as something else has taken its place, and {why}."),
            ));
            return (nothing(), violation);
        }
        let none_held = !rotation.stored.is_empty() && rotation.gone().next().is_none();
        self.drop_undelivered(&mut rotation, decision);
        if none_held && rotation.list().is_empty() {
            let unheld = Object::Secret(Box::new(hashes.clone()));
            decision.writes.push(Write::Delete(unheld));
            self.clean_up(decision);
            return (nothing(), violation);
        }
        // Of those that had been rotated out before, each has an end of its own.
        self.write_down(Some(hashes), &rotation, None, decision);
        self.take_away_ended("", &rotation, decision);
        decision.wake_by(rotation.plan.wake_at);
        if begun.is_none() {
            decision.writes.push(Note::normal(
                r::CREDENTIAL_EXCHANGED,
                format!(
                    "The client secret works beside what took its place until {}, for {grace} (spec.credential.gracePeriod).",
                    credentials::whole_second(end)
                ),
            ));
        }
        if self.moment.now >= end {
            self.recheck(super::FOREIGN_RECHECK, decision);
        } else {
            decision.wake_by([end]);
        }
        (rotation, violation)
    }

    /// One that was being made when something else took the place of secrets: nobody has it, and nobody
    /// will.
    fn drop_undelivered(&self, rotation: &mut Rotation<'_>, decision: &mut Decision) {
        let undelivered = rotation.keys.iter_mut().filter(|key| {
            let life = &key.life;
            life.is_fresh() && life.retired.is_none() && !key.in_jwks
        });
        // Sealed ones are delivered once servers have followed, and who supplies one has it.
        let held: Vec<&str> = rotation
            .stored
            .iter()
            .filter(|s| s.known.sealed.is_some() || s.known.source.is_some())
            .map(|s| s.credential.id.as_str())
            .collect();
        let left = self.seen.others_wait.map(|waited| {
            // Another process may be about to deliver it.
            OTHERS_DELIVER.saturating_sub(waited)
        });
        for key in undelivered.filter(|key| !held.contains(&key.kid())) {
            if let Some(left) = left.filter(SignedDuration::is_positive) {
                self.recheck(left, decision);
                continue;
            }
            key.life.removed = Some(self.moment.now);
            decision.writes.push(Note::normal(
                r::CREDENTIAL_REMOVED,
                format!("Client secret {} was being made when something else took the place of client secrets: it is dropped, and was never delivered.", key.kid()),
            ));
        }
    }

    /// Since when another way to authenticate has taken the place of client secrets, and when they
    /// therefore cease to work.
    pub(super) fn exchange(&self, hashes: &Secret) -> (Timestamp, Timestamp) {
        let begun = credentials::exchanged_at(hashes).unwrap_or(self.moment.now);
        (begun, later(begun, self.user.secret_grace().as_duration()))
    }

    /// Deletes what delivers a client secret that works no more.
    fn clean_up(&self, decision: &mut Decision) {
        let ours = self.seen.deliveries.iter().filter(|d| d.ours());
        decision.writes.extend(ours.map(|delivered| {
            let secret: Secret = (*delivered.secret).clone();
            Write::Delete(Object::Secret(Box::new(secret)))
        }));
    }

    /// Until when an earlier client secret works.
    pub(super) fn secret_until(&self) -> Option<Timestamp> {
        let hashes = self.seen.hashes.as_deref().filter(|h| self.is_ours(h))?;
        match self.user.secret_credential() {
            Some(_) => None,
            None => credentials::works_until(hashes),
        }
    }

    /// What is told of public keys, where all else is well.
    pub(super) fn of_public_keys(&self, jwks: &Jwks) -> Conditions {
        let id = self.user.client_id();
        let key_ids = judge(jwks, OWN, self.settings).key_ids;
        let keys = match key_ids.as_slice() {
            [one] => format!("key {one}"),
            several => format!("keys {}", several.join(", ")),
        };
        let mut message =
            format!("{id} gets tokens with assertions that it signs with its {keys}.");
        self.tell_secret(&mut message);
        self.with_faults(message, jwks, OWN)
    }

    /// The same with what is wrong with keys that stand at that place.
    pub(super) fn with_faults(&self, message: String, jwks: &Jwks, place: &str) -> Conditions {
        let Judged { key_ids, faults } = judge(jwks, place, self.settings);
        if faults.is_empty() {
            return Conditions::ready(r::SUCCEEDED, message);
        }
        let forbidden = |(fault, _): &(KeyFault, String)| matches!(fault, KeyFault::Forbidden(_));
        let reason = if faults.iter().all(forbidden) {
            r::POLICY_VIOLATION
        } else {
            r::PUBLIC_KEY_REFUSED
        };
        let told: Vec<String> = faults.into_iter().map(|(_, told)| told).collect();
        let told = format!("{} Mend the key, or take it away.", told.join(" "));
        if key_ids.is_empty() {
            return Conditions::stalled(reason, told);
        }
        Conditions::ready_but_stalled((r::SUCCEEDED, message), (reason, told))
    }

    /// That an earlier client secret still works, if it does.
    pub(super) fn tell_secret(&self, message: &mut String) {
        if let Some(until) = self.secret_until().filter(|until| self.moment.now < *until) {
            let until = credentials::whole_second(until);
            let more = format!(" The earlier client secret works too, until {until}.");
            message.push_str(&more);
        }
    }

    /// The first of the Secrets that still deliver a client secret.
    pub(super) fn delivered(&self) -> Option<String> {
        let mut ours = self.seen.deliveries.iter().filter(|d| d.ours());
        ours.next().map(|d| d.secret.name_any())
    }
}

#[cfg(test)]
mod tests;
