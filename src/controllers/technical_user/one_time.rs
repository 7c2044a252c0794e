//! A client secret that is delivered once: nothing is made before somebody has given a public key, and
//! then it is sealed to that in the very write that stores its hash. Status shows the sealed text; what is
//! plain is nowhere, not even between two writes. (docs/decisions/2026-11-27-one-time.md)

use jiff::Timestamp;
use kube::ResourceExt as _;

use super::Visit;
use super::rotation::{Rotation, SERVERS_FOLLOW, ToMake};
use crate::api::v1alpha1::{
    CLAIM_ANNOTATION, Conditions, ROTATE_ANNOTATION, SealedBy, SealedStatus, SecretCredential,
};
use crate::controllers::{Decision, Note, SealTo, Write};
use crate::crypto::age::Recipient;
use crate::domain::client::DEFAULT_SECRET_GRACE;
use crate::domain::reasons as r;
use crate::domain::rotation::{Cause, KeyFacts, Source, later};
use crate::objects::credentials;

/// Whom the next client secret can be sealed to.
pub(super) enum Sealing {
    /// To this key.
    To(SealTo),
    /// To nobody yet.
    Unclaimed,
    /// What was given is no key.
    Faulty(String),
}

impl<'a> Visit<'a> {
    /// Makes client secrets for whoever claims them.
    pub(super) fn one_time(
        &self,
        violation: Option<Conditions>,
        decision: &mut Decision,
    ) -> (Rotation<'_>, Option<Conditions>) {
        let hashes = self.seen.hashes.as_deref();
        if let Some((rotation, barred)) = self.barred(decision) {
            if hashes.is_none_or(|hashes| self.is_ours(hashes)) {
                self.take_away_deliveries(&rotation, decision);
            }
            return (rotation, Some(violation.unwrap_or(barred)));
        }
        let mut rotation = match violation {
            Some(_) => self.rotation(hashes, Source::Hold),
            None => self.rotation(hashes, Source::Generate),
        };
        if self.lost_hashes() && rotation.stored.is_empty() {
            decision.writes.push(Note::warning(
                r::CREDENTIAL_REPLACED,
                "The stored hashes of the client secrets were emptied or altered by hand, so that none works any more: another one is made for whoever claims it.",
            ));
        }
        match (rotation.to_make(), self.sealing()) {
            (Some(make), Sealing::To(to)) => {
                rotation.claim = self.claim().map(str::to_owned);
                let told = self.made(&rotation, &make, &to);
                let seal = Some(to);
                self.write_down(hashes, &rotation, Some(ToMake { seal, ..make }), decision);
                decision.writes.push(told);
            }
            (Some(make), _) => {
                rotation = self.rotation(hashes, Source::Hold);
                rotation.awaits = Some(make.cause);
                self.write_down(hashes, &rotation, None, decision);
                // What is wrong with a recipient is told as that.
                if !self.has_recipient() && !self.is_told(r::CLAIM_AWAITED) {
                    let told = Note::normal(r::CLAIM_AWAITED, self.awaiting(make.cause));
                    decision.writes.push(told);
                }
            }
            (None, _) => {
                let waits = violation.is_some() || rotation.plan.crowded || !self.moment.sure;
                if let Some(claim) = self.new_claim().filter(|_| !waits) {
                    // Else it would have the next one, of which whoever claimed knows nothing.
                    rotation.claim = Some(claim.to_owned());
                }
                if hashes.is_some() {
                    self.write_down(hashes, &rotation, None, decision);
                }
                if let Some(claim) = &rotation.claim {
                    decision.writes.push(self.refused(claim, &rotation));
                }
            }
        }
        decision.wake_by(rotation.plan.wake_at);
        self.take_away_deliveries(&rotation, decision);
        let (_, shown_at) = self.to_show(&rotation);
        decision.wake_by(shown_at);
        let conditions = violation.or_else(|| self.lacking(&rotation));
        (rotation, conditions)
    }

    /// Why it can not authenticate, if it can not.
    fn lacking(&self, rotation: &Rotation<'_>) -> Option<Conditions> {
        if rotation.active().is_some() {
            return None;
        }
        Some(match (self.sealing(), rotation.awaits) {
            (Sealing::Faulty(why), _) => Conditions::stalled(r::INVALID_SPEC, why),
            (_, Some(cause)) => Conditions::reconciling(r::CLAIM_AWAITED, self.awaiting(cause)),
            _ => {
                Conditions::reconciling(r::PROGRESSING, "A client secret is being made and sealed.")
            }
        })
    }

    /// Whom the next one is sealed to. The spec goes before a claim, and a claim counts once.
    pub(super) fn sealing(&self) -> Sealing {
        let spec = self.user.one_time().and_then(|s| s.recipient.as_deref());
        let (given, by) = match (spec, self.new_claim()) {
            (Some(recipient), _) => (recipient, SealedBy::Spec),
            (None, Some(claim)) => (claim, SealedBy::Claim),
            (None, None) => return Sealing::Unclaimed,
        };
        match (Recipient::parse(given), by) {
            (Ok(recipient), _) => Sealing::To(SealTo { recipient, by }),
            (Err(why), SealedBy::Spec) => Sealing::Faulty(format!(
                "spec.credential.secret.recipient is {given:?}: {why}."
            )),
            (Err(why), SealedBy::Claim) => Sealing::Faulty(format!(
                "The annotation {CLAIM_ANNOTATION} is no age recipient: {why}. Claim with: {}",
                self.command()
            )),
        }
    }

    /// Whom the claim annotation names.
    fn claim(&self) -> Option<&'a str> {
        self.user.claim()
    }

    /// The same, where it was not looked at yet.
    fn new_claim(&self) -> Option<&'a str> {
        let hashes = self.own_hashes().and_then(credentials::handled_claim);
        let status = self.user.status.as_ref();
        let status = status.and_then(|s| s.last_handled_claim.as_deref());
        let stored = self.own_hashes().map(credentials::read).unwrap_or_default();
        let mut sealed = stored.iter().filter_map(|s| s.known.sealed.as_ref());
        let claim = self.claim()?;
        let looked_at = [hashes, status].contains(&Some(claim));
        (!looked_at && sealed.all(|s| s.recipient != claim)).then_some(claim)
    }

    /// The last claim that was looked at, for status.
    pub(super) fn handled_claim(&self) -> Option<String> {
        let hashes = self.own_hashes().and_then(credentials::handled_claim);
        let status = self.user.status.as_ref();
        let before = || status.and_then(|s| s.last_handled_claim.clone());
        hashes.map(str::to_owned).or_else(before)
    }

    fn command(&self) -> String {
        let (name, namespace) = (self.user.name_any(), self.user.namespace());
        format!(
            "kubectl chancery claim {name} -n {}",
            namespace.unwrap_or_default()
        )
    }

    /// Why no other client secret is made: the reason, and the sentence.
    pub(super) fn paused(&self, cause: Cause) -> (&'static str, String) {
        let reason = if self.has_recipient() {
            r::INVALID_SPEC
        } else {
            r::CLAIM_AWAITED
        };
        (reason, self.awaiting(cause))
    }

    /// Whether the spec names whom it is sealed to, rightly or not: then a claim is of no use.
    fn has_recipient(&self) -> bool {
        let secret = self.user.one_time();
        secret.is_some_and(|secret| secret.recipient.is_some())
    }

    /// That somebody has to claim it, or to mend the recipient, and how.
    fn awaiting(&self, cause: Cause) -> String {
        let (how, first) = (self.command(), self.user.status.as_ref());
        let first = cause == Cause::First && first.is_none_or(|s| s.credentials.is_empty());
        if first {
            return format!(
                "No client secret is made before somebody claims it: {how} makes one and shows it to you alone. Or put an age recipient into spec.credential.secret.recipient."
            );
        }
        let why = match cause {
            Cause::Schedule => "as its turn has come",
            Cause::Request => "as a rotation was asked for",
            Cause::Algorithm => "as spec.credential.secret.delivery says so now",
            _ => "as none is there that works",
        };
        let once = if self.has_recipient() {
            "spec.credential.secret.recipient is an age recipient".to_owned()
        } else {
            format!("somebody claims it: {how}")
        };
        format!(
            "Another client secret is to be made, {why}, once {once}. Until then what works goes on working."
        )
    }

    fn is_told(&self, reason: &str) -> bool {
        let status = self.user.status.iter();
        let mut told = status.flat_map(|s| &s.conditions);
        told.any(|c| c.reason == reason)
    }

    /// That a client secret is made.
    fn made(&self, rotation: &Rotation<'_>, make: &ToMake, to: &SealTo) -> Write {
        let (id, recipient) = (&make.id, &to.recipient);
        let from = match to.by {
            SealedBy::Spec => "spec.credential.secret.recipient",
            SealedBy::Claim => "the claim",
        };
        let sealed = format!("Made client secret {id}, sealed to {recipient} of {from}");
        let shown = "it stands in status.sealed";
        let secret = self.user.one_time();
        let grace = secret.map_or(DEFAULT_SECRET_GRACE, SecretCredential::grace_period);
        match rotation.active() {
            None => Note::normal(r::CREDENTIAL_CREATED, format!("{sealed}: {shown}.")),
            Some(_) if rotation.at_once() => Note::normal(
                r::CREDENTIAL_ROTATED,
                format!("{sealed}: {shown}; the old one ends at once."),
            ),
            // From when on is known once servers know of the new one: status says until when then.
            Some(_) => Note::normal(
                r::CREDENTIAL_ROTATED,
                format!(
                    "{sealed}: {shown} in {} s, once servers know of it, and the old one works for {grace} from then.",
                    SERVERS_FOLLOW.as_secs()
                ),
            ),
        }
    }

    /// That a claim came when there was nothing to be claimed.
    fn refused(&self, claim: &str, rotation: &Rotation<'_>) -> Write {
        let recipient = self.user.one_time().and_then(|s| s.recipient.as_ref());
        let why = match self.to_show(rotation).0 {
            _ if recipient.is_some() => {
                "client secrets are for spec.credential.secret.recipient alone".to_owned()
            }
            Some(sealed) => format!(
                "client secret {} was claimed for {} at {}, and is kept nowhere",
                sealed.credential_id, sealed.recipient, sealed.sealed_at.0
            ),
            None => "the next client secret is just being made for another one".to_owned(),
        };
        let claim = repeated(claim);
        let then = if recipient.is_some() {
            "To have them claimed, take that away.".to_owned()
        } else {
            format!(
                "Lost means rotate: set the annotation {ROTATE_ANNOTATION} to a new value, and claim again."
            )
        };
        Note::warning(
            r::CLAIM_REFUSED,
            format!("The claim {claim} found nothing to be claimed: {why}. {then}"),
        )
    }

    /// Whether status shows that client secret.
    pub(super) fn shows(&self, id: &str) -> bool {
        let status = self.user.status.as_ref();
        let shown = status.and_then(|s| s.sealed.as_ref());
        shown.is_some_and(|shown| shown.credential_id == id)
    }

    /// The sealed client secret that status is to show; and when the next one is, which servers are still
    /// to learn of.
    pub(super) fn to_show<'r>(
        &self,
        rotation: &'r Rotation<'_>,
    ) -> (Option<&'r SealedStatus>, Option<Timestamp>) {
        let (mut show, mut waits) = (None, None);
        let now = self.moment.now;
        let mut standing: Vec<_> = rotation.keys.iter().filter(|k| is_standing(k)).collect();
        standing.sort_by_key(|k| k.sequence);
        for key in standing {
            let of = |s: &&credentials::Stored| s.credential.id == key.kid();
            let stored = rotation.stored.iter().find(of);
            let Some(sealed) = stored.and_then(|s| s.known.sealed.as_ref()) else {
                continue;
            };
            let created = key.life.created.unwrap_or(now);
            let known_at = later(created, SERVERS_FOLLOW);
            let delivered = key.life.activated.is_some() || self.shows(key.kid());
            // A time that lies ahead was written by another clock.
            let follows = known_at <= now || created > now;
            if delivered || follows || rotation.at_once() {
                show = Some(sealed);
            } else {
                waits = Some(known_at);
            }
        }
        (show, waits)
    }

    /// Secrets that deliver an earlier client secret stay for as long as that works.
    fn take_away_deliveries(&self, rotation: &Rotation<'_>, decision: &mut Decision) {
        if self.moment.sure {
            self.take_away_dead("", rotation, decision);
        }
    }

    /// What is told where one works.
    pub(super) fn of_one_time(&self, rotation: &Rotation<'_>) -> String {
        let id = self.user.client_id();
        match self.to_show(rotation).0 {
            Some(sealed) => {
                let end = match sealed.by {
                    SealedBy::Claim => "and is kept nowhere else",
                    SealedBy::Spec => {
                        "of the spec, and stands in status.sealed for the holder of that key alone"
                    }
                };
                format!(
                    "{id} gets tokens with client secret {}, which was sealed at {} to {} {end}.",
                    sealed.credential_id, sealed.sealed_at.0, sealed.recipient
                )
            }
            None => format!("{id} gets tokens with the client secret that was delivered before."),
        }
    }
}

/// Whether it was neither followed by another one nor struck off.
fn is_standing<P>(key: &KeyFacts<P>) -> bool {
    key.life.retired.is_none() && key.life.removed.is_none()
}

/// What a message repeats of a claim annotation: a recipient alone. Whoever may annotate writes it, and may have
/// taken the private key for it.
fn repeated(claim: &str) -> &str {
    match Recipient::parse(claim) {
        Ok(_) => claim,
        Err(_) => "(which is no age recipient)",
    }
}

#[cfg(test)]
mod tests;
