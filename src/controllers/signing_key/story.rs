//! What events tell of a ring's keys: one sentence for each step of a key's life.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::writes::said;
use crate::api::v1alpha1::ROTATE_ANNOTATION;
use crate::controllers::{Note as Event, Write};
use crate::domain::reasons as r;
use crate::domain::rotation::{
    Cause, KeyFacts, Note, PATIENCE, Plan, Policy, Source, Step, later, signer,
};

/// The events of a visit, by key: each is told once what it tells of was written.
pub struct Story<'a> {
    events: BTreeMap<String, Vec<Write>>,
    before: &'a [KeyFacts],
    after: &'a [KeyFacts],
    plan: &'a Plan,
    policy: &'a Policy,
    now: Timestamp,
}

impl<'a> Story<'a> {
    /// What there is to tell of a plan that is carried out.
    pub fn new(
        before: &'a [KeyFacts],
        after: &'a [KeyFacts],
        plan: &'a Plan,
        policy: &'a Policy,
        now: Timestamp,
    ) -> Self {
        let mut story = Self {
            events: BTreeMap::new(),
            before,
            after,
            plan,
            policy,
            now,
        };
        for step in &plan.steps {
            let (kid, event) = match step {
                Step::Note { key_id, note } => (key_id, story.tell(key_id, note)),
                Step::Destroy { key_id } => (
                    key_id,
                    Some(Event::normal(
                        r::KEY_DELETED,
                        format!("The key pair {key_id} was deleted."),
                    )),
                ),
                _ => continue,
            };
            story.events.entry(kid.clone()).or_default().extend(event);
        }
        story
    }

    /// The events of one key.
    pub fn of(&mut self, kid: &str) -> Vec<Write> {
        self.events.remove(kid).unwrap_or_default()
    }

    /// The events that no write of a Secret goes with.
    pub fn rest(self) -> impl Iterator<Item = Write> {
        self.events.into_values().flatten()
    }

    fn tell(&self, kid: &str, note: &Note) -> Option<Write> {
        let cached = said(later(self.now, self.policy.cached_for));
        Some(match note {
            Note::Published => Event::normal(
                r::KEY_PUBLISHED,
                format!("Key {kid} stands in the issuer's JWKS."),
            ),
            Note::Activated {
                emergency: true, ..
            } => Event::warning(
                r::KEY_ACTIVATED,
                format!(
                    "Key {kid} signs at once, before its publishLead is over, {}. A verifier that cached the JWKS before may refuse its tokens until {cached}.",
                    self.why_activated(kid)
                ),
            ),
            Note::Activated { .. } => Event::normal(r::KEY_ACTIVATED, self.activated(kid)),
            Note::Retired if self.another_signs(kid) => Event::normal(
                r::KEY_RETIRED,
                format!(
                    "Key {kid} signs no more: another one does. It verifies until {}.",
                    self.until(kid)
                ),
            ),
            Note::Retired => Event::warning(
                r::KEY_RETIRED,
                format!(
                    "Key {kid} signs no more, as it was withdrawn, and no other key could take its place yet."
                ),
            ),
            Note::GivenUp => Event::normal(
                r::KEY_RETIRED,
                format!("Key {kid} is not needed any more; it never signed."),
            ),
            Note::Lost => Event::warning(r::KEY_MATERIAL_LOST, self.lost(kid)),
            Note::Withdrawn => Event::warning(r::KEY_WITHDRAWN, self.withdrawn(kid)),
            Note::Reactivated => Event::normal(r::KEY_REACTIVATED, self.reactivated(kid)),
            Note::Removed if find(self.after, kid).is_some_and(|k| k.life.withdrawn.is_some()) => {
                Event::warning(
                    r::KEY_REMOVED,
                    format!(
                        "Key {kid} leaves the JWKS, as it was withdrawn. A verifier that cached the JWKS before may accept it until {cached}."
                    ),
                )
            }
            Note::Removed => Event::normal(
                r::KEY_REMOVED,
                format!("Key {kid} leaves the JWKS: {}.", self.why_removed(kid)),
            ),
            Note::TimesCorrected { .. } => Event::warning(
                r::CLOCK_WAS_WRONG,
                format!(
                    "Times of key {kid} lay in the future, so a wrong clock wrote them; they were put right."
                ),
            ),
            Note::Unpublished | Note::Hastened { .. } | Note::LongerTokens(_) | Note::Window(_) => {
                return None;
            }
        })
    }

    /// Until when a key verifies, as far as that is settled.
    fn until(&self, kid: &str) -> String {
        let end = self.plan.ends.get(kid);
        end.map_or_else(|| "its tokens expire".to_owned(), |end| said(*end))
    }

    fn signed(&self, kid: &str) -> bool {
        find(self.before, kid).is_some_and(|k| k.life.activated.is_some())
    }

    fn another_signs(&self, kid: &str) -> bool {
        signer(self.after).is_some_and(|k| k.kid() != kid)
    }

    /// Whether this very plan has the key leave the JWKS.
    fn leaves(&self, kid: &str) -> bool {
        self.plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::Note { key_id, note: Note::Removed } if key_id == kid))
    }

    fn activated(&self, kid: &str) -> String {
        let from = match self.policy.window.from.filter(|from| *from > self.now) {
            Some(from) => format!("{} (spec.validFrom)", said(from)),
            None => "now".to_owned(),
        };
        if self.before.iter().all(|k| k.life.activated.is_none()) {
            format!("Key {kid} signs from {from} on; it is the ring's first.")
        } else {
            format!(
                "Key {kid} signs from {from} on, {}.",
                self.why_activated(kid)
            )
        }
    }

    /// Half a sentence: why the key takes over.
    fn why_activated(&self, kid: &str) -> String {
        if self.plan.paused && self.policy.sign_with.as_deref() == Some(kid) {
            return "as spec.signWith says".into();
        }
        let last = self.before.iter().filter(|k| k.life.activated.is_some());
        let Some(last) = last.max_by_key(|k| (k.life.activated, k.sequence)) else {
            return "since no other key of this ring can".into();
        };
        let key = find(self.after, kid);
        let signs = signer(self.before).is_some();
        if last.life.withdrawn.is_some() || self.policy.withdrawals.contains_key(last.kid()) {
            format!("since key {} was withdrawn", last.kid())
        } else if !signs && !last.has_material {
            format!("since the private key of {} is lost", last.kid())
        } else if !signs {
            "since no other key of this ring can".into()
        } else if key.is_some_and(|k| k.cause == Cause::Request) {
            let value = key.and_then(|k| k.handled.as_deref()).unwrap_or_default();
            format!("as the annotation {ROTATE_ANNOTATION} asks ({value})")
        } else if !last.fits {
            "as the ring's algorithm or key size has changed".into()
        } else if matches!(&self.policy.source, Source::Inject(injected) if injected == kid) {
            "as it is the new content of the Secret of spec.privateKey".into()
        } else if self.policy.interval.is_some() {
            format!("as the interval of key {} is over", last.kid())
        } else {
            "as its turn has come".into()
        }
    }

    fn lost(&self, kid: &str) -> String {
        let what = format!("The Secret with the private key of {kid} is gone or spoilt");
        if !self.signed(kid) {
            return format!(
                "{what}. The key never signed, so that no token is lost with it: it leaves the JWKS."
            );
        }
        let signed_until_now = signed_last(self.before).is_some_and(|k| k.kid() == kid);
        let next = if !signed_until_now {
            "it had ceased to sign already"
        } else if self.another_signs(kid) {
            "another key signs from now on"
        } else {
            "nothing signs until another key takes its place"
        };
        let tokens = if self.leaves(kid) {
            "It leaves the JWKS at once, and tokens that it signed verify no more.".to_owned()
        } else {
            format!("Tokens that it signed verify until {}.", self.until(kid))
        };
        format!("{what}: {next}. {tokens}")
    }

    fn withdrawn(&self, kid: &str) -> String {
        let signed_until_now = signer(self.before).is_some_and(|k| k.kid() == kid);
        let signs_still = signer(self.after).is_some_and(|k| k.kid() == kid);
        let at_once = self.policy.withdrawals.get(kid) == Some(&Some(SignedDuration::ZERO));
        let verifies = format!("verifies until {}", self.until(kid));
        let what = match (self.leaves(kid), at_once) {
            (true, true) => "it leaves the JWKS at once, and its key pair is deleted".to_owned(),
            (true, false) => "it leaves the JWKS at once".to_owned(),
            (false, true) if signs_still => format!(
                "it leaves the JWKS as soon as another key signs, after {} seconds at the latest, and its key pair is deleted",
                PATIENCE.as_secs()
            ),
            (false, _) if signs_still => {
                format!("it signs no more as soon as another key does, and {verifies}")
            }
            (false, _) if signed_until_now => {
                format!("another key signs from now on, and it {verifies}")
            }
            (false, _) if self.signed(kid) => {
                format!("it had ceased to sign already, and {verifies}")
            }
            (false, _) => format!("it never signed and never will, and {verifies}"),
        };
        format!("Key {kid} was withdrawn: {what}.")
    }

    fn reactivated(&self, kid: &str) -> String {
        let out = find(self.before, kid).is_some_and(|k| k.life.removed.is_some());
        let what = if signer(self.after).is_some_and(|k| k.kid() == kid) {
            "it goes on signing".to_owned()
        } else if !self.signed(kid) {
            "it has never signed, and may do so when its turn comes".to_owned()
        } else if self.leaves(kid) {
            "its grace is over, and it leaves the JWKS all the same".to_owned()
        } else if out {
            format!(
                "it comes back into the JWKS, and verifies until {}",
                self.until(kid)
            )
        } else {
            format!(
                "it stands in the JWKS as before, and verifies until {}",
                self.until(kid)
            )
        };
        format!("The withdrawal of key {kid} was taken back: {what}.")
    }

    fn why_removed(&self, kid: &str) -> &'static str {
        if self.policy.window.to.is_some_and(|to| to <= self.now) {
            "the ring's validTo has passed"
        } else if self.signed(kid) {
            "its grace is over"
        } else {
            "it is not needed"
        }
    }
}

fn find<'a>(keys: &'a [KeyFacts], kid: &str) -> Option<&'a KeyFacts> {
    keys.iter().find(|k| k.kid() == kid)
}

/// The key that signs, or that would, were its private key there.
fn signed_last(keys: &[KeyFacts]) -> Option<&KeyFacts> {
    keys.iter()
        .filter(|k| k.life.may_sign())
        .max_by_key(|k| (k.life.activated, k.sequence))
}

#[cfg(test)]
mod tests;
