//! The key that signs next.

use jiff::Timestamp;

use super::Planner;
use crate::domain::rotation::policy::later;
use crate::domain::rotation::{Cause, Coming, KeyFacts, Note, Public, Rotated, Source, signer};

impl<P: Public> Planner<'_, P> {
    /// The key that could sign next: the one that is published longest.
    pub(super) fn candidate(&self) -> Option<String> {
        let wanted = |k: &&KeyFacts<P>| {
            let injected = matches!(&self.policy.source, Source::Inject(kid) if kid != k.kid());
            k.is_next() && k.fits && !injected && !self.withdraws(k.kid())
        };
        let longest = |k: &&KeyFacts<P>| (k.life.published.unwrap_or(Timestamp::MAX), k.sequence);
        let next = self.keys.iter().filter(wanted).min_by_key(longest)?;
        Some(next.kid().to_owned())
    }

    pub(super) fn can_make_one(&self) -> bool {
        match &self.policy.source {
            Source::Generate => true,
            Source::Inject(kid) => {
                let known = self.keys.iter().any(|k| k.kid() == kid);
                !known && !self.policy.history.spent.contains(kid)
            }
            Source::Hold => false,
        }
    }

    /// Nothing is left that its holder can use, and the most that may work at once do: of client
    /// secrets the one that would end first ends now.
    pub(super) fn make_room(&mut self) {
        if self.policy.rotated != Rotated::Secrets {
            return;
        }
        let standing = self.keys.iter().filter(|k| k.life.removed.is_none());
        let oldest =
            standing.min_by_key(|k| (k.life.retired.unwrap_or(Timestamp::MAX), k.sequence));
        if let Some(kid) = oldest.map(|k| k.kid().to_owned()) {
            self.note(&kid, Note::Removed);
        }
    }

    /// A next key is there: it signs now, or its time is known.
    pub(super) fn consider(&mut self, kid: &str, reason: Cause, urgent: bool) {
        let Some(key) = self.keys.iter().find(|k| k.kid() == kid).cloned() else {
            return;
        };
        // A client secret that stands where its holder finds it was there before somebody asked for
        // another one: who has stolen that one would keep it.
        let held = self.policy.rotated == Rotated::Secrets && key.in_jwks;
        if let Some(value) = self.unhandled().filter(|_| !held).cloned() {
            self.note(kid, Note::Hastened { value });
        }
        if !key.in_jwks {
            return;
        }
        if urgent {
            // Nothing else signs, so that no lead is owed.
            let led = key
                .life
                .published
                .is_some_and(|at| later(at, self.policy.lead()) <= self.now);
            self.activate(kid, reason == Cause::Emergency && !led);
            self.expect_successor();
            return;
        }
        let Some(published) = key.life.published else {
            return;
        };
        let mut at = later(published, self.policy.lead());
        if reason == Cause::Schedule {
            let due = signer(&self.keys).and_then(|active| self.policy.due(active));
            at = due.map_or(at, |due| due.max(at));
        }
        if at <= self.now && self.sure {
            self.activate(kid, false);
            self.expect_successor();
        } else {
            self.expect(at, Coming::Activate, Some(kid));
            self.plan.rotates_at = Some(at);
        }
    }

    pub(super) fn activate(&mut self, kid: &str, emergency: bool) {
        let max_ttl = self.policy.max_ttl;
        self.note(kid, Note::Activated { emergency, max_ttl });
    }

    /// When the schedule goes on, after a key was just activated: so that a ring that has come to be
    /// ready tells at once what comes next.
    fn expect_successor(&mut self) {
        let due = signer(&self.keys).and_then(|active| self.policy.due(active));
        let within = |due: &Timestamp| self.policy.window.to.is_none_or(|to| *due < to);
        if let Some(due) = due.filter(within) {
            let begin = due.saturating_sub(self.policy.lead()).unwrap_or(due);
            if begin > self.now {
                self.expect_made(begin, due);
            }
        }
    }

    /// Without a reason to rotate, a key that waits for its turn is not wanted any more.
    pub(super) fn give_up_unscheduled(&mut self) {
        if self.sure {
            for kid in self.kids(KeyFacts::is_next) {
                self.note(&kid, Note::GivenUp);
            }
        }
    }
}
