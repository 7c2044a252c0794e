//! A technical user whose client secret a person supplies, in Secrets of its namespace. The operator reads
//! them, keeps hashes, and follows: there is nothing to make or deliver, and those Secrets are never written.

mod index;
mod look;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

pub use index::Index;
pub use look::{Comparisons, Found, Offered, SuppliedSeen, look};

use super::Visit;
use super::rotation::{Rotation, SERVERS_FOLLOW};
use crate::api::v1alpha1::{Conditions, ROTATE_ANNOTATION, SuppliedRef};
use crate::controllers::{Decision, Fill, Note};
use crate::crypto::{hash, supplied};
use crate::domain::client::StoredCredential;
use crate::domain::reasons as r;
use crate::domain::rotation::{Cause, MOST_SECRETS, Plan, Source};
use crate::domain::supply::{Followed, Supply, follow};
use crate::objects::credentials::{self, Known, SourceOf, Stored};
use crate::objects::write_time;

/// A client secret whose hash is to be stored.
pub struct ToStore {
    /// The secret, or its hash.
    pub offered: Offered,
    /// The bcrypt cost, where it is still to be hashed.
    pub cost: u32,
    /// What is stored with it; the hash is filled in.
    pub stored: Stored,
}

impl ToStore {
    /// With its hash. Blocks as bcrypt does.
    pub fn hashed(mut self) -> Result<Stored, String> {
        self.stored.credential.hash = match self.offered {
            Offered::Hash(hash) => hash,
            Offered::Plain(plain) => hash::hash(&plain, self.cost).map_err(|e| e.to_string())?,
        };
        Ok(self.stored)
    }
}

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
        let (rotation, followed, new) = self.followed(hashes);
        decision.wake_by(followed.wake_at);
        let stored = rotation.stored.iter();
        let known: BTreeSet<&str> = stored.map(|s| s.credential.id.as_str()).collect();
        let came: Vec<(String, SourceOf)> = new
            .iter()
            .filter_map(|new| {
                let id = &new.stored.credential.id;
                let source = new.stored.known.source.clone()?;
                (!known.contains(id.as_str())).then(|| (id.clone(), source))
            })
            .collect();
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

    /// What follows from what is supplied, with what is to be stored.
    fn followed(&self, hashes: Option<&Secret>) -> (Rotation<'_>, Followed, Vec<ToStore>) {
        let mut rotation = self.rotation(hashes, Source::Hold);
        // The engine of generated secrets has no say: one person decides what follows what.
        rotation.plan = Plan::default();
        rotation.keys = self.facts(&rotation.stored, None);
        let mut supply = Supply {
            servers_follow: SERVERS_FOLLOW,
            ..Supply::default()
        };
        let mut new: Vec<ToStore> = Vec::new();
        let mut highest = self.highest(&rotation.stored);
        for seen in &self.seen.supplied {
            let (id, source) = match &seen.found {
                Found::Stored(id, source) | Found::New(_, source, Some(id)) => (id, source),
                Found::New(offered, source, None) => {
                    // The same in both places is one client secret.
                    if new.iter().all(|n| n.offered != *offered) {
                        highest = highest.saturating_add(1);
                        new.push(self.to_store(offered, source, highest, &rotation));
                        supply.new += 1;
                    }
                    supply
                        .unseen
                        .extend(read_from(&rotation.stored, &seen.place).filter(
                            // Until the new one is stored, the old one counts as there.
                            |id| !supply.stands.contains(id),
                        ));
                    continue;
                }
                Found::Missing(_) | Found::Refused(_) => {
                    let unseen = read_from(&rotation.stored, &seen.place);
                    supply.unseen.extend(unseen);
                    continue;
                }
            };
            let twice = !supply.stands.insert(id.clone());
            let of_id = |s: &&mut Stored| s.credential.id == *id;
            if let Some(stored) = rotation.stored.iter_mut().find(of_id)
                && !twice
            {
                stored.known.source = Some(source.clone());
                if let Found::New(offered, ..) = &seen.found {
                    new.push(ToStore {
                        offered: offered.clone(),
                        cost: self.cost_of(offered),
                        stored: stored.clone(),
                    });
                }
            }
        }
        let followed = follow(&mut rotation.keys, &supply, &rotation.policy, self.moment);
        rotation.plan.ends.clone_from(&followed.ends);
        (rotation, followed, new)
    }

    fn cost_of(&self, offered: &Offered) -> u32 {
        match offered {
            Offered::Plain(plain) => supplied::cost(plain, self.settings.secrets),
            Offered::Hash(_) => self.settings.secrets.supplied_cost,
        }
    }

    fn to_store(
        &self,
        offered: &Offered,
        source: &SourceOf,
        number: i64,
        rotation: &Rotation<'_>,
    ) -> ToStore {
        let credential = StoredCredential {
            id: number.to_string(),
            hash: String::new(),
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
        ToStore {
            offered: offered.clone(),
            cost: self.cost_of(offered),
            stored,
        }
    }

    /// Writes the hashes, as far as there is something to write.
    fn store(
        &self,
        hashes: Option<&Secret>,
        rotation: &Rotation<'_>,
        new: Vec<ToStore>,
        decision: &mut Decision,
    ) {
        let mut after = self.hashes_after(hashes, rotation);
        if hashes.is_none() && new.is_empty() {
            return;
        }
        let fill = if new.is_empty() {
            Fill::Nothing
        } else {
            credentials::set_revoked(&mut after, None);
            Fill::Supplied(new)
        };
        Self::put_hashes(hashes, after, fill, decision);
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
                Found::Stored(..) | Found::New(..) => {}
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
        let unheard = (asked && !rotation.is_handled()).then(|| {
            let told = format!(
                "The annotation {ROTATE_ANNOTATION} asks for a new client secret, and with delivery Reference you supply it: change what your Secret holds, or name a second one in secretRefs."
            );
            (r::INVALID_SPEC, told)
        });
        let trouble = self.trouble_with_supply().map(|(reason, told)| {
            let told = format!("{told} What was supplied before goes on working until then.");
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
        let told = if now.is_empty() {
            format!("{id} gets tokens with the client secret that it had before.")
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
        matches!(self, Self::Stored(..) | Self::New(..))
    }

    /// Whether one stands there that works.
    fn works(&self, rotation: &Rotation<'_>) -> bool {
        let (Self::Stored(id, _) | Self::New(_, _, Some(id))) = self else {
            return false;
        };
        rotation.find(id).is_some_and(|key| key.life.may_sign())
    }
}

/// The ids of the client secrets that were read at that place last.
fn read_from<'s>(
    stored: &'s [Stored],
    place: &'s SuppliedRef,
) -> impl Iterator<Item = String> + use<'s> {
    let of = stored.iter().filter(move |s| {
        let source = s.known.source.as_ref();
        s.known.retired_at.is_none() && source.is_some_and(|source| source.is(place))
    });
    of.map(|s| s.credential.id.clone())
}
