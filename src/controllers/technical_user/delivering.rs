//! How a client secret comes to stand where its holder finds it, and stays there.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use zeroize::Zeroizing;

use super::rotation::{Rotation, SERVERS_FOLLOW, ToMake};
use super::{DeliverySeen, Visit};
use crate::controllers::{Decision, Fill, Note, Object, Write};
use crate::domain::reasons as r;
use crate::domain::rotation::{Cause, MOST_SECRETS};
use crate::objects::delivery::{self, Delivery};

impl Visit<'_> {
    /// Makes a new secret: its hash is stored, and it is delivered now or by a later visit.
    pub(super) fn make(
        &self,
        hashes: Option<&Secret>,
        standing: Option<&DeliverySeen>,
        rotation: &Rotation<'_>,
        make: ToMake,
        decision: &mut Decision,
    ) {
        let before = standing.map(|s| &*s.secret);
        let Delivery { secret, .. } = self.delivery(&make.id, before);
        // A hash is stored only where its secret can be delivered: else a quota, say, would take
        // away what works.
        let object = Object::Secret(Box::new(secret));
        decision.writes.push(Write::TryOut(object));
        let (id, cause) = (make.id.clone(), make.cause);
        self.write_down(hashes, rotation, Some(make), decision);
        if rotation.at_once() {
            self.hand_over(standing, rotation, (&id, cause), decision);
        } else {
            self.recheck(SERVERS_FOLLOW, decision);
        }
    }

    /// Delivers a secret that was made by an earlier visit, once servers know its hash. Whether it did.
    pub(super) fn deliver_made(
        &self,
        standing: Option<&DeliverySeen>,
        rotation: &Rotation<'_>,
        decision: &mut Decision,
    ) -> bool {
        let Some(made) = &self.seen.made else {
            return false;
        };
        let waits = rotation.find(&made.id).filter(|k| {
            let stored = rotation.stored.iter().find(|s| s.credential.id == made.id);
            let same = stored.is_some_and(|s| s.credential.hash == made.hash);
            same && !k.in_jwks && k.is_next()
        });
        let Some(key) = waits else { return false };
        let left = SERVERS_FOLLOW.saturating_sub(made.age);
        if left > SignedDuration::ZERO && !rotation.at_once() {
            self.recheck(left, decision);
            return false;
        }
        self.hand_over(standing, rotation, (&made.id, key.cause), decision);
        true
    }

    /// Replaces the delivered Secret by one with the new secret, in one write.
    fn hand_over(
        &self,
        standing: Option<&DeliverySeen>,
        rotation: &Rotation<'_>,
        (id, cause): (&str, Cause),
        decision: &mut Decision,
    ) {
        let before = standing.map(|s| &*s.secret);
        let Delivery { secret, under, .. } = self.delivery(id, before);
        let name = secret.name_any();
        let object = Object::Secret(Box::new(secret));
        decision.writes.push(match before {
            Some(_) => Write::Replace(object, Fill::NewSecret(under)),
            None => Write::Create(object, Fill::NewSecret(under)),
        });
        let old = rotation.old_until(self.moment.now);
        let known = self.remembered().next().is_some();
        decision.writes.push(match cause {
            _ if self.was_revoked().is_some() => {
                let why = match self.device() {
                    Some(_) => "as its device is back",
                    None => "as the annotation asks",
                };
                Note::normal(
                    r::CREDENTIAL_CREATED,
                    format!("Made a new client secret after the revocation, {why}; it stands in Secret {name}."),
                )
            }
            Cause::Schedule => Note::normal(
                r::CREDENTIAL_ROTATED,
                format!("Client secret {id} stands in Secret {name}, as its turn has come; {old}."),
            ),
            Cause::Algorithm => Note::normal(
                r::CREDENTIAL_EXCHANGED,
                format!("Client secret {id} was generated, and stands in Secret {name}, as spec.credential.secret.delivery says so now; {old}."),
            ),
            Cause::Request => Note::normal(
                r::CREDENTIAL_ROTATED,
                format!("Client secret {id} stands in Secret {name}, as a rotation was asked for; {old}."),
            ),
            _ if known && self.lost_hashes() => Note::warning(
                r::CREDENTIAL_REPLACED,
                format!("The stored hashes of the client secrets were emptied or altered by hand, so that what was delivered works no more: a new client secret stands in Secret {name}. The client id is the same."),
            ),
            _ if known => {
                let what = if standing.is_some() { "altered" } else { "deleted" };
                Note::warning(
                    r::CREDENTIAL_REPLACED,
                    format!("Secret {name} was {what}, and the client secret in it is kept nowhere else: a new one stands there now; {old}. The client id is the same."),
                )
            }
            _ => Note::normal(
                r::CREDENTIAL_CREATED,
                format!("Made a client secret; it stands in Secret {name}."),
            ),
        });
    }

    /// A delivered secret stands in the Secret of the right name with the right keys, and in no other
    /// for longer than a grace.
    pub(super) fn keep_delivered(
        &self,
        standing: Option<&DeliverySeen>,
        (plain, id): (&Zeroizing<String>, &str),
        rotation: &Rotation<'_>,
        decision: &mut Decision,
    ) {
        let before = standing.map(|s| &*s.secret);
        let Delivery {
            secret,
            under,
            wake_at,
        } = self.delivery(id, before);
        decision.wake_by(wake_at);
        let mut whole = secret.clone();
        delivery::fill(&mut whole, &under, plain);
        let name = secret.name_any();
        let object = Object::Secret(Box::new(secret));
        let fill = Fill::Secret(under, plain.clone());
        match before {
            Some(before) if delivery::same(before, &whole) => {}
            Some(before) => {
                let (reason, what) = if self.is_edited() || delivery::follows(before, &whole) {
                    (r::SECRET_UPDATED, "follows the spec")
                } else {
                    (r::SECRET_REPAIRED, "was altered, and is put right")
                };
                decision.writes.push(Write::Replace(object, fill));
                decision.writes.push(Note::normal(
                    reason,
                    format!("Secret {name} {what}; the client secret in it is the same."),
                ));
            }
            None => {
                let mut others = self.seen.deliveries.iter().filter(|d| d.ours());
                // Where it has stood before, the others were told so.
                let moved = others.all(|d| delivery::superseded_at(&d.secret).is_none());
                let (reason, what) = if moved {
                    (
                        r::SECRET_UPDATED,
                        "as spec.credential.secret.secretName says",
                    )
                } else {
                    (r::SECRET_REPAIRED, "again, as it was deleted")
                };
                decision.writes.push(Write::Create(object, fill));
                decision.writes.push(Note::normal(
                    reason,
                    format!(
                        "The client secret stands in Secret {name} now, {what}; it is the same."
                    ),
                ));
            }
        }
        if before.is_some() {
            self.retire_former(&name, rotation, decision);
        }
    }

    /// Whether the spec was edited since it was looked at last.
    fn is_edited(&self) -> bool {
        let status = self.user.status.as_ref();
        let observed = status.map_or(-1, |s| s.observed_generation);
        self.user
            .metadata
            .generation
            .is_some_and(|now| now != observed)
    }

    pub(super) fn delivery(&self, id: &str, before: Option<&Secret>) -> Delivery {
        delivery::delivery(self.user, self.settings, id, before, self.moment.now)
    }
}

impl Rotation<'_> {
    /// That a client secret is struck off, and why.
    pub(super) fn told_gone(&self, id: &str) -> Write {
        let stored = self.stored.iter().find(|s| s.credential.id == id);
        // Where something else took its place, its end was settled before.
        let settled = stored.is_some_and(|s| s.known.ends_at.is_some());
        let early = self.find(id).is_some_and(|key| {
            let end = self.policy.end(key, true);
            !settled && end > key.life.removed
        });
        if early {
            return Note::warning(
                r::TOO_MANY_CREDENTIALS,
                format!(
                    "Client secret {id} was ended before its grace was over: another one is delivered, and {MOST_SECRETS} work at once at most."
                ),
            );
        }
        let why = if self.policy.grace.is_zero() {
            "there is no grace (gracePeriod is 0s)"
        } else {
            "its grace is over"
        };
        Note::normal(
            r::CREDENTIAL_REMOVED,
            format!("Client secret {id} does not work any more: {why}."),
        )
    }
}
