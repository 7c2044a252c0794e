//! A technical user whose client secret a person supplies, in Secrets of its namespace. The operator reads
//! them, keeps hashes, and follows: there is nothing to make or deliver, and those Secrets are never written.

mod hashing;
mod index;
mod look;
mod pace;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

pub use hashing::Hashing;
pub use index::Index;
pub use look::{Found, SuppliedSeen, look};
pub use pace::Paces;

use super::Visit;
use super::rotation::{Rotation, SERVERS_FOLLOW, number};
use crate::api::v1alpha1::{Conditions, ROTATE_ANNOTATION, SuppliedRef};
use crate::controllers::{Decision, Fill, Note};
use crate::domain::client::StoredCredential;
use crate::domain::reasons as r;
use crate::domain::rotation::{Cause, MOST_SECRETS, Plan, Source};
use crate::domain::supply::{Followed, Supply, follow};
use crate::objects::credentials::{self, Known, SourceOf, Stored};
use crate::objects::write_time;

impl Visit<'_> {
    /// Follows what is supplied.
    pub(super) fn supplied(
        &self,
        violation: Option<Conditions>,
        decision: &mut Decision,
    ) -> (Rotation<'_>, Option<Conditions>) {
        if let Some((rotation, barred)) = self.barred(decision) {
            return (rotation, Some(violation.unwrap_or(barred)));
        }
        let hashes = self.seen.hashes.as_deref();
        let (mut rotation, followed, new) = self.followed(hashes);
        rotation.untold = self.is_unjudged();
        decision.wake_by(followed.wake_at);
        for seen in &self.seen.supplied {
            if let Found::Pending(Some(wait)) = seen.found {
                self.recheck(wait, decision);
            }
        }
        let came = new.iter().filter_map(|new| {
            let source = new.known.source.clone()?;
            Some((new.credential.id.clone(), source))
        });
        let came: Vec<(String, SourceOf)> = came.collect();
        self.store(hashes, &rotation, new, decision);
        Self::tell_followed(&rotation, &followed, &came, decision);
        // What a generated secret was delivered in stays for a grace, as that secret does.
        let works = rotation.keys.iter().any(|k| {
            let supplied = |s: &Stored| s.known.source.is_some() && s.credential.id == k.kid();
            k.life.may_sign() && rotation.stored.iter().any(supplied)
        });
        if works {
            self.retire_former("", &rotation, decision);
        }
        self.take_away_ended("", &rotation, decision);
        let conditions = violation.or_else(|| self.waits(&rotation));
        (rotation, conditions)
    }

    /// Whether something that is supplied waits to be looked at, and status speaks of this spec: what that
    /// says stays until more is known, as another process may know it already.
    fn is_unjudged(&self) -> bool {
        let status = self.user.status.as_ref();
        let observed = status.map(|status| status.observed_generation);
        let mut seen = self.seen.supplied.iter();
        observed.is_some()
            && observed == self.user.metadata.generation
            && seen.any(|seen| matches!(seen.found, Found::Pending(_)))
    }

    /// What follows from what is supplied, with what is to be stored.
    fn followed(&self, hashes: Option<&Secret>) -> (Rotation<'_>, Followed, Vec<Stored>) {
        let mut rotation = self.rotation(hashes, Source::Hold);
        // The engine of generated secrets has no say: one person decides what follows what.
        rotation.plan = Plan::default();
        rotation.keys = self.facts(&rotation.stored, None);
        let mut supply = Supply {
            servers_follow: SERVERS_FOLLOW,
            ..Supply::default()
        };
        let mut new: Vec<Stored> = Vec::new();
        let mut highest = self.highest(&rotation.stored);
        for seen in &self.seen.supplied {
            let (id, source, hash) = match &seen.found {
                Found::Stored(id, source) => (id, source, None),
                Found::New(hash, source, Some(id)) => (id, source, Some(hash)),
                other => {
                    if let Found::New(hash, source, None) = other
                        // The same in both places is one client secret.
                        && new.iter().all(|n| n.credential.hash != *hash)
                    {
                        highest = highest.saturating_add(1);
                        new.push(self.to_store(hash, source, highest, &rotation));
                        supply.new += 1;
                    }
                    // Until a new one is stored, and where nothing can be seen, the old one counts as there.
                    let old = read_from(&rotation.stored, &seen.place);
                    let old = old.filter(|id| !supply.stands.contains(id));
                    supply.unseen.extend(old);
                    continue;
                }
            };
            let twice = !supply.stands.insert(id.clone());
            let of_id = |s: &&mut Stored| s.credential.id == *id;
            if let Some(stored) = rotation.stored.iter_mut().find(of_id)
                && !twice
            {
                stored.known.source = Some(source.clone());
                if let Some(hash) = hash {
                    stored.credential.hash.clone_from(hash);
                }
            }
        }
        let followed = follow(&mut rotation.keys, &supply, &rotation.policy, self.moment);
        new.truncate(followed.room);
        rotation.plan.ends.clone_from(&followed.ends);
        (rotation, followed, new)
    }

    fn to_store(
        &self,
        hash: &str,
        source: &SourceOf,
        number: i64,
        rotation: &Rotation<'_>,
    ) -> Stored {
        let credential = StoredCredential {
            id: number.to_string(),
            hash: hash.to_owned(),
            created_at: self.moment.now,
            expires_at: None,
        };
        let first = rotation.stored.is_empty();
        let cause = if first { Cause::First } else { Cause::Injected };
        // Who asks for another one and supplies it is heard.
        let handled = rotation.policy.rotate.clone();
        let handled = handled.or_else(|| rotation.policy.handled.clone());
        let mut stored = Stored::new(credential, cause, handled);
        stored.known = Known {
            source: Some(source.clone()),
            ..stored.known
        };
        stored
    }

    /// Writes the hashes, as far as there is something to write.
    fn store(
        &self,
        hashes: Option<&Secret>,
        rotation: &Rotation<'_>,
        new: Vec<Stored>,
        decision: &mut Decision,
    ) {
        let mut after = self.hashes_after(hashes, rotation);
        if hashes.is_none() && new.is_empty() {
            return;
        }
        if !new.is_empty() {
            credentials::set_revoked(&mut after, None);
        }
        for stored in new {
            credentials::put(&mut after, stored);
        }
        Self::put_hashes(hashes, after, Fill::Nothing, decision);
    }

    fn tell_followed(
        rotation: &Rotation<'_>,
        followed: &Followed,
        came: &[(String, SourceOf)],
        decision: &mut Decision,
    ) {
        for (id, SourceOf { secret, key, .. }) in came {
            decision.writes.push(Note::normal(
                r::CREDENTIAL_SUPPLIED,
                format!("Client secret {id} is the one that Secret {secret} holds under {key}."),
            ));
        }
        for id in &followed.retired {
            let until = followed.ends.get(id).map(|end| {
                let end = write_time(credentials::whole_second(*end));
                format!("it works until {end}")
            });
            let until = until.unwrap_or_else(|| "it ends at once".into());
            decision.writes.push(Note::normal(
                r::CREDENTIAL_ROTATED,
                format!("Client secret {id} is not the one that is supplied any more; {until}."),
            ));
        }
        for id in &followed.crowded_out {
            decision.writes.push(Note::warning(
                r::TOO_MANY_CREDENTIALS,
                format!("Client secret {id} was ended before its grace was over: a newer one is supplied, and {MOST_SECRETS} work at once at most."),
            ));
        }
        for id in &followed.overtaken {
            decision.writes.push(Note::warning(
                r::TOO_MANY_CREDENTIALS,
                format!("Client secret {id} was replaced before every server knew it, and does not work any more: a newer one is supplied, and {MOST_SECRETS} work at once at most. Wait until one is Active before you supply the next."),
            ));
        }
        let retired = |id: &&str| !followed.crowded_out.iter().any(|out| out == id);
        let gone = rotation.gone().filter(retired);
        let told = gone.map(|id| rotation.told_gone(id));
        decision.writes.extend(told);
    }

    /// Why it can not authenticate, if nothing works.
    fn waits(&self, rotation: &Rotation<'_>) -> Option<Conditions> {
        let works = |life: &crate::domain::rotation::Life| {
            life.activated.is_some() && life.removed.is_none()
        };
        if rotation.keys.iter().any(|k| works(&k.life)) {
            return None;
        }
        let Some((reason, told)) = self.trouble_with_supply() else {
            return Some(Conditions::reconciling(
                r::PROGRESSING,
                "The client secret that is supplied is being hashed.",
            ));
        };
        let told = format!("{told} No token is issued until then.");
        let waits = reason == r::SUPPLIED_SECRET_NOT_FOUND;
        Some(if waits {
            // Whatever makes it may just not be there yet.
            Conditions::reconciling(reason, told)
        } else {
            Conditions::stalled(reason, told)
        })
    }

    /// What is wrong with what is supplied, if anything is.
    pub(super) fn trouble_with_supply(&self) -> Option<(&'static str, String)> {
        let mut reason = None;
        let mut told = Vec::new();
        let or_else = match self.seen.supplied.as_slice() {
            [_, _] => "or take it out of secretRefs",
            _ => "or name another one in secretRefs",
        };
        for seen in &self.seen.supplied {
            match &seen.found {
                Found::Stored(..) | Found::New(..) | Found::Pending(_) => {}
                Found::Missing(sentence) => {
                    reason = reason.or(Some(r::SUPPLIED_SECRET_NOT_FOUND));
                    told.push(format!("{sentence} Make it, {or_else}."));
                }
                Found::Refused(sentence) => {
                    reason = Some(r::SUPPLIED_SECRET_REFUSED);
                    told.push(sentence.clone());
                }
            }
        }
        Some((reason?, told.join(" ")))
    }

    /// What a person asks for and can not have, where something works.
    pub(super) fn unheard_of_supply(
        &self,
        rotation: &Rotation<'_>,
    ) -> Option<(&'static str, String)> {
        let policy = &rotation.policy;
        let asked = policy.rotate.is_some() && policy.rotate != policy.handled;
        let mut seen = self.seen.supplied.iter();
        // It may be what is asked for.
        let pending = seen.any(|seen| matches!(seen.found, Found::Pending(_)));
        let asked = asked && !pending;
        let unheard = (asked && !rotation.is_handled()).then(|| {
            let told = format!(
                "The annotation {ROTATE_ANNOTATION} asks for a new client secret, and with delivery Reference you supply it: change what your Secret holds, or name a second one in secretRefs."
            );
            (r::INVALID_SPEC, told)
        });
        let trouble = self.trouble_with_supply().map(|(reason, told)| {
            let told = format!("{told} What it had before goes on working until then.");
            (reason, told)
        });
        match (trouble, unheard) {
            (Some((reason, told)), Some((_, also))) => Some((reason, format!("{told} {also}"))),
            (trouble, unheard) => trouble.or(unheard),
        }
    }

    /// With which client secret it gets tokens, in words, and what is supplied and does not work yet.
    pub(super) fn told_of_supply(&self, rotation: &Rotation<'_>) -> String {
        let id = self.user.client_id();
        let places = |which: &dyn Fn(&SuppliedSeen) -> bool| {
            let found = self.seen.supplied.iter().filter(|seen| which(seen));
            let found =
                found.map(|seen| format!("Secret {} (key {})", seen.place.name, seen.place.key()));
            found.collect::<Vec<_>>()
        };
        let works = |seen: &SuppliedSeen| seen.found.works(rotation);
        let (now, next) = (
            places(&works),
            places(&|seen| seen.found.is_usable() && !works(seen)),
        );
        let generated = rotation.current.filter(|(_, _, before)| {
            let key = rotation.find(before);
            key.is_some_and(|key| key.life.may_sign())
        });
        let told = if let Some((delivered, _, _)) = generated.filter(|_| now.is_empty()) {
            format!(
                "{id} gets tokens with the client secret that was generated before, in Secret {}.",
                delivered.secret.name_any()
            )
        } else if now.is_empty() {
            format!("{id} gets tokens with the client secret that was supplied before.")
        } else {
            let now = now.join(" or ");
            format!("{id} gets tokens with the client secret in {now}.")
        };
        if next.is_empty() {
            return told;
        }
        let next = next.join(" and ");
        format!("{told} That in {next} works in a moment, once every server knows it.")
    }

    /// The Secret with the client secret that works: the first that supplies one, and until it does, the
    /// one before.
    pub(super) fn supplied_by(&self, rotation: &Rotation<'_>) -> Option<String> {
        let mut seen = self.seen.supplied.iter();
        if let Some(seen) = seen.find(|seen| seen.found.works(rotation)) {
            return Some(seen.place.name.clone());
        }
        let generated = rotation.current.filter(|(_, _, id)| {
            let key = rotation.find(id);
            key.is_some_and(|key| key.life.may_sign())
        });
        if let Some((delivered, _, _)) = generated {
            return Some(delivered.secret.name_any());
        }
        // What is lost or spoilt holds none.
        let whole = self.seen.supplied.iter().all(|seen| seen.found.is_usable());
        let mut sources = rotation.stored.iter().filter(|s| {
            let key = rotation.find(&s.credential.id);
            whole && key.is_some_and(|k| k.life.may_sign())
        });
        sources.find_map(|s| Some(s.known.source.as_ref()?.secret.clone()))
    }
}

impl Found {
    /// Whether a client secret stands there, as one should.
    fn is_usable(&self) -> bool {
        matches!(self, Self::Stored(..) | Self::New(..) | Self::Pending(_))
    }

    /// Whether one stands there that works.
    fn works(&self, rotation: &Rotation<'_>) -> bool {
        let (Self::Stored(id, _) | Self::New(_, _, Some(id))) = self else {
            return false;
        };
        rotation.find(id).is_some_and(|key| key.life.may_sign())
    }
}

/// The ids of the client secrets that were read at that place last: of those that work the newest, and
/// those that do not work yet.
fn read_from<'s>(
    stored: &'s [Stored],
    place: &'s SuppliedRef,
) -> impl Iterator<Item = String> + use<'s> {
    let of_place = move |s: &&Stored| {
        let source = s.known.source.as_ref();
        s.known.retired_at.is_none() && source.is_some_and(|source| source.is(place))
    };
    let all = stored.iter().filter(of_place);
    // While the clock is not believed several may be there.
    let rank = |s: &Stored| Some((s.known.activated_at?, number(&s.credential.id)));
    let newest = all.clone().filter_map(rank).max();
    let of = all.filter(move |s| rank(s).is_none_or(|rank| Some(rank) == newest));
    of.map(|s| s.credential.id.clone())
}

#[cfg(test)]
mod tests;
