//! What events tell of a ring's keys: one sentence for each step of a key's life.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::writes::said;
use crate::controllers::{Note as Event, Write};
use crate::domain::reasons as r;
use crate::domain::rotation::{KeyFacts, Note, Plan, Policy, Step, later};

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
        let until = self
            .plan
            .ends
            .get(kid)
            .map_or_else(|| "its tokens expire".to_owned(), |end| said(*end));
        let cached = said(later(self.now, self.policy.cached_for));
        let withdrawn = self
            .after
            .iter()
            .any(|k| k.kid() == kid && k.life.withdrawn.is_some());
        let first = self.before.iter().all(|k| k.life.activated.is_none());
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
                    "Key {kid} signs at once, before its publishLead is over, since no other key can. A verifier that cached the JWKS before may refuse its tokens until {cached}."
                ),
            ),
            Note::Activated { .. } if first => Event::normal(
                r::KEY_ACTIVATED,
                format!("Key {kid} signs from now on; it is the ring's first."),
            ),
            Note::Activated { .. } => {
                Event::normal(r::KEY_ACTIVATED, format!("Key {kid} signs from now on."))
            }
            Note::Retired
                if self
                    .after
                    .iter()
                    .any(|k| k.kid() != kid && k.life.may_sign()) =>
            {
                Event::normal(
                    r::KEY_RETIRED,
                    format!(
                        "Key {kid} signs no more: another one does. It verifies until {until}."
                    ),
                )
            }
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
            Note::Lost => Event::warning(
                r::KEY_MATERIAL_LOST,
                format!(
                    "The Secret with the private key of {kid} is gone or spoilt: another key signs from now on. Tokens that it signed verify until {until}."
                ),
            ),
            Note::Withdrawn => Event::warning(
                r::KEY_WITHDRAWN,
                format!(
                    "Key {kid} was withdrawn: it signs no more as soon as another key does, and verifies until {until}."
                ),
            ),
            Note::Reactivated => Event::normal(
                r::KEY_REACTIVATED,
                format!("The withdrawal of key {kid} was taken back: it verifies again."),
            ),
            Note::Removed if withdrawn => Event::warning(
                r::KEY_REMOVED,
                format!(
                    "Key {kid} leaves the JWKS, as it was withdrawn. A verifier that cached the JWKS before may accept it until {cached}."
                ),
            ),
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

    fn why_removed(&self, kid: &str) -> &'static str {
        let signed = self
            .before
            .iter()
            .any(|k| k.kid() == kid && k.life.activated.is_some());
        if self.policy.window.to.is_some_and(|to| to <= self.now) {
            "the ring's validTo has passed"
        } else if signed {
            "its grace is over"
        } else {
            "it is not needed"
        }
    }
}
