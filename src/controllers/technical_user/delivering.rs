//! How a client secret comes to stand where its holder finds it, and stays there.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use zeroize::Zeroizing;

use super::rotation::{Rotation, SERVERS_FOLLOW, ToMake};
use super::{DeliverySeen, Visit};
use crate::controllers::{Decision, Fill, Note, Object, Write};
use crate::domain::reasons as r;
use crate::domain::rotation::{Cause, later};
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
            Some(_) => {
                decision.writes.push(Write::Replace(object, fill));
                decision.writes.push(Note::normal(
                    r::SECRET_REPAIRED,
                    format!(
                        "Secret {name} was brought up to date; the client secret in it is the same."
                    ),
                ));
            }
            None => {
                decision.writes.push(Write::Create(object, fill));
                decision.writes.push(Note::normal(
                    r::SECRET_REPAIRED,
                    format!("The client secret stands in Secret {name} now; it is the same."),
                ));
            }
        }
        if before.is_some() {
            self.retire_former(&name, rotation, decision);
        }
    }

    /// Secrets of ours under another name, from before `secretName` was changed: what mounts them has a
    /// grace to follow.
    pub(super) fn retire_former(
        &self,
        name: &str,
        rotation: &Rotation<'_>,
        decision: &mut Decision,
    ) {
        let now = self.moment.now;
        let former = self.seen.deliveries.iter();
        for other in former.filter(|d| d.ours() && d.secret.name_any() != name) {
            let until = later(now, rotation.policy.grace);
            let written = delivery::superseded_until(&other.secret);
            let until = written.map_or(until, |written| written.min(until));
            let mut after = (*other.secret).clone();
            if until <= now && self.moment.sure {
                decision
                    .writes
                    .push(Write::Delete(Object::Secret(Box::new(after))));
                continue;
            }
            decision.wake_at = decision.wake_at.into_iter().chain([until]).min();
            if written.is_none() && self.moment.sure {
                delivery::supersede(&mut after, until);
                let object = Object::Secret(Box::new(after));
                decision.writes.push(Write::Replace(object, Fill::Nothing));
            }
        }
    }

    pub(super) fn delivery(&self, id: &str, before: Option<&Secret>) -> Delivery {
        delivery::delivery(self.user, self.settings, id, before, self.moment.now)
    }
}
