//! Delivered Secrets beside the one that delivers now: from before `secretName` was changed, a person
//! supplied the client secret, or something else took its place. What mounts them has a grace to follow;
//! none of them shows a client secret that does not work.

use jiff::Timestamp;
use kube::ResourceExt as _;

use super::rotation::Rotation;
use super::{DeliverySeen, Visit};
use crate::api::v1alpha1::FormerSecretStatus;
use crate::controllers::{Decision, Fill, Object, Write};
use crate::domain::rotation::later;
use crate::objects::{credentials, delivery};

/// Status tells of so many of them at most: a tenant can make any number.
const MOST_TOLD: usize = 16;

impl Visit<'_> {
    /// Secrets of ours, but for that of this name.
    fn former(&self, name: &str) -> impl Iterator<Item = &DeliverySeen> {
        let all = self.seen.deliveries.iter();
        all.filter(move |d| d.ours() && d.secret.name_any() != name)
    }

    /// Lets them go when the grace is over that begins when another one was seen to have taken their place.
    pub(super) fn retire_former(
        &self,
        name: &str,
        rotation: &Rotation<'_>,
        decision: &mut Decision,
    ) {
        let (now, sure) = (self.moment.now, self.moment.sure);
        for other in self.former(name) {
            if !is_alive(other, rotation) {
                // It goes anyway.
                continue;
            }
            // One ahead was written by a tenant or by another clock: it is put right, so that the end does
            // not move along.
            let noted = delivery::superseded_at(&other.secret);
            let since = noted.filter(|at| *at <= now).unwrap_or(now);
            let until = later(since, rotation.policy.grace);
            let mut after = (*other.secret).clone();
            if until <= now && sure {
                let gone = Object::Secret(Box::new(after));
                decision.writes.push(Write::Delete(gone));
                continue;
            }
            decision.wake_by([until].into_iter().filter(|until| *until > now));
            if sure && delivery::supersede(&mut after, since, until) {
                let object = Object::Secret(Box::new(after));
                decision.writes.push(Write::Replace(object, Fill::Nothing));
            }
        }
    }

    /// The same as [`Self::take_away_dead`], where there are hashes that tell what works: without them
    /// a delivered Secret may be all that is left.
    pub(super) fn take_away_ended(
        &self,
        name: &str,
        rotation: &Rotation<'_>,
        decision: &mut Decision,
    ) {
        if self.own_hashes().is_some() {
            self.take_away_dead(name, rotation, decision);
        }
    }

    /// Takes those away that show a client secret which does not work any more, or none of ours.
    pub(super) fn take_away_dead(
        &self,
        name: &str,
        rotation: &Rotation<'_>,
        decision: &mut Decision,
    ) {
        let dead = self.former(name).filter(|d| !is_alive(d, rotation));
        decision.writes.extend(dead.map(|delivered| {
            let secret = (*delivered.secret).clone();
            Write::Delete(Object::Secret(Box::new(secret)))
        }));
    }

    /// What status tells of them: all but the one that it names.
    pub(super) fn former_status(
        &self,
        named: Option<&str>,
        rotation: &Rotation<'_>,
    ) -> Vec<FormerSecretStatus> {
        let works_until = self.secret_until();
        let target = self.user.delivers_in();
        let former = self.former(target.as_deref().unwrap_or_default());
        let former = former.filter(|d| named != Some(d.secret.name_any().as_str()));
        let told = former.filter(|d| is_alive(d, rotation)).map(|d| {
            let goes = delivery::superseded_until(&d.secret);
            let ends = d.proves().and_then(|(_, id)| rotation.plan.ends.get(id));
            let until: Option<Timestamp> = [goes, ends.copied(), works_until]
                .into_iter()
                .flatten()
                .min();
            FormerSecretStatus {
                name: d.secret.name_any(),
                until: until.map(|until| credentials::whole_second(until).into()),
            }
        });
        told.take(MOST_TOLD).collect()
    }
}

/// Whether it shows a client secret that works.
fn is_alive(delivered: &DeliverySeen, rotation: &Rotation<'_>) -> bool {
    let shown = delivered.proves().and_then(|(_, id)| rotation.find(id));
    shown.is_some_and(|key| key.life.removed.is_none())
}
