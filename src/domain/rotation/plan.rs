//! The plan itself. Read [`Planner::plan`] first: it is the order of what is considered.

mod destroy;
mod successor;

use jiff::{SignedDuration, Timestamp};

use super::carry_out::{carry_out, is_ahead};
use super::policy::later;
use super::{
    Cause, Coming, KeyFacts, Note, PATIENCE, Plan, Policy, Public, Rotated, SKEW, Source, Step,
    Transition, signer,
};
use crate::domain::moment::Moment;

/// How soon to look again while the clock can not be relied upon.
const UNSURE_RECHECK: SignedDuration = SignedDuration::from_secs(30);

/// What to do with a ring now. The same facts and the same time give the same plan, and a plan
/// that was carried out in full leaves nothing to do but wait.
pub fn plan<P: Public>(keys: &[KeyFacts<P>], policy: &Policy, moment: Moment) -> Plan<P> {
    let mut keys = keys.to_vec();
    keys.sort_by_key(|k| k.sequence);
    Planner {
        keys,
        policy,
        now: moment.now,
        sure: moment.sure,
        plan: Plan::default(),
        coming: Vec::new(),
        wakes: Vec::new(),
    }
    .plan()
}

/// For how long the JWKS may hold a key that is to leave it before that is noted anew.
const LAG: SignedDuration = SignedDuration::from_secs(2);

struct Planner<'a, P> {
    /// What is known, with the steps planned so far carried out on it.
    keys: Vec<KeyFacts<P>>,
    policy: &'a Policy,
    now: Timestamp,
    sure: bool,
    plan: Plan<P>,
    coming: Vec<Transition>,
    wakes: Vec<Timestamp>,
}

impl<P: Public> Planner<'_, P> {
    fn plan(mut self) -> Plan<P> {
        // Of what was seen, not of what is written down below: a key leaves the JWKS only when its
        // Secret was seen to say so.
        let stands = |k: &&KeyFacts<P>| k.life.removed.is_none();
        self.plan.publish = self
            .keys
            .iter()
            .filter(stands)
            .map(|k| (k.jwk.clone(), k.edition))
            .collect();
        let signed = signer(&self.keys).map(|k| k.kid().to_owned());
        self.correct_times();
        self.lost();
        self.withdrawals();
        self.windows();
        self.publication();
        let ended = self.policy.window.to.is_some_and(|to| to <= self.now);
        let restores = |s: &Step| matches!(s, Step::Restore { .. });
        if !ended && !self.plan.steps.iter().any(restores) {
            self.choose_signer();
        }
        self.longer_tokens();
        self.retire(signed.as_deref());
        self.opening();
        self.remove();
        self.destroy();
        self.finish()
    }

    fn step(&mut self, step: Step) {
        carry_out(&mut self.keys, &step, self.now);
        self.plan.steps.push(step);
    }

    fn note(&mut self, key_id: &str, note: Note) {
        self.step(Step::Note {
            key_id: key_id.to_owned(),
            note,
        });
    }

    /// The kids of the keys for which this holds.
    fn kids(&self, which: impl Fn(&KeyFacts<P>) -> bool) -> Vec<String> {
        let kids = self.keys.iter().filter(|k| which(k));
        kids.map(|k| k.kid().to_owned()).collect()
    }

    /// If one time is wrong, all that lie ahead are doubtful; which key was activated last stays.
    fn correct_times(&mut self) {
        let skewed = later(self.now, SKEW);
        if !self.sure || !self.keys.iter().any(|k| is_ahead(&k.life, skewed)) {
            return;
        }
        let ahead = self.keys.iter().filter(|k| is_ahead(&k.life, self.now));
        let mut ahead: Vec<_> = ahead
            .map(|k| (k.life.activated, k.sequence, k.kid().to_owned()))
            .collect();
        ahead.sort();
        for (rank, (_, _, kid)) in (1..).zip(ahead) {
            self.note(&kid, Note::TimesCorrected { rank });
        }
    }

    /// Keys whose Secret is gone. One that a person injects is made again; the others verify
    /// through their grace. Without a clock to rely on the grace does not begin to run.
    fn lost(&mut self) {
        let nothing_signs = signer(&self.keys).is_none();
        let gone = |k: &KeyFacts<P>| !k.has_material && k.life.removed.is_none();
        for kid in self.kids(gone) {
            let retired = |k: &KeyFacts<P>| k.kid() == kid && k.life.retired.is_some();
            let retired = self.keys.iter().any(retired);
            let injected = self.policy.source == Source::Inject(kid.clone());
            // Its holder never saw it, and the rotation that it was made for goes on.
            let undelivered = |k: &KeyFacts<P>| k.kid() == kid && k.life.is_fresh();
            let anew = self.policy.rotated == Rotated::Secrets
                && self.keys.iter().any(undelivered)
                && !retired;
            if anew && self.policy.source == Source::Hold {
                continue;
            }
            if (injected || anew) && !self.withdraws(&kid) && (!retired || nothing_signs) {
                // Seen again first; then it goes on where it was.
                self.plan.steps.push(Step::Restore { key_id: kid });
            } else if self.sure && !retired {
                self.note(&kid, Note::Lost);
            }
        }
    }

    fn withdraws(&self, kid: &str) -> bool {
        self.policy.withdrawals.contains_key(kid)
    }

    fn withdrawals(&mut self) {
        let (policy, sure) = (self.policy, self.sure);
        let ordered = |k: &KeyFacts<P>| {
            let order = policy.withdrawals.get(k.kid());
            // A grace is counted on a clock that is right; grace 0 needs none.
            let countable = order.is_some_and(|g| sure || *g == Some(SignedDuration::ZERO));
            countable && k.life.withdrawn.is_none() && k.life.removed.is_none()
        };
        for kid in self.kids(ordered) {
            self.note(&kid, Note::Withdrawn);
        }
        let taken_back = |k: &KeyFacts<P>| {
            // Where it is out of the JWKS, its grace begins anew: on a clock that is right.
            let whole = k.life.removed.is_none() || k.has_material && sure;
            k.life.withdrawn.is_some() && !policy.withdrawals.contains_key(k.kid()) && whole
        };
        for kid in self.kids(taken_back) {
            self.note(&kid, Note::Reactivated);
        }
    }

    fn windows(&mut self) {
        let window = self.policy.window;
        let other =
            |k: &KeyFacts<P>| k.has_material && k.life.removed.is_none() && k.window != window;
        for kid in self.kids(other) {
            self.note(&kid, Note::Window(window));
        }
    }

    fn publication(&mut self) {
        let vanished = |k: &KeyFacts<P>| k.is_next() && !k.in_jwks && k.life.published.is_some();
        for kid in self.kids(vanished) {
            self.note(&kid, Note::Unpublished);
        }
        // The lead is counted from here, on a clock that is right.
        if self.sure {
            let appeared = |k: &KeyFacts<P>| {
                k.has_material
                    && k.in_jwks
                    && k.life.published.is_none()
                    && k.life.removed.is_none()
            };
            for kid in self.kids(appeared) {
                self.note(&kid, Note::Published);
            }
        }
    }

    /// Which key should sign, and whether another one is needed.
    fn choose_signer(&mut self) {
        if let Some(named) = self.policy.sign_with.clone() {
            if self.may_sign(&named) {
                self.plan.paused = true;
                if signer(&self.keys).map(KeyFacts::kid) != Some(&named) {
                    self.activate(&named, false);
                }
                return;
            }
            self.plan.sign_with_waits = true;
        }
        let Some(reason) = self.reason() else {
            self.give_up_unscheduled();
            return;
        };
        let urgent = matches!(reason, Cause::First | Cause::Emergency);
        match self.candidate() {
            Some(kid) => self.consider(&kid, reason, urgent),
            None if self.can_make_one() => {
                if self.plan.publish.len() >= self.policy.most() {
                    if !urgent {
                        self.plan.crowded = true;
                        return;
                    }
                    self.make_room();
                }
                let known = self.keys.last().map_or(0, |k| k.sequence);
                self.step(Step::Generate {
                    sequence: known.max(self.policy.history.highest).saturating_add(1),
                    cause: reason,
                });
            }
            None => {}
        }
    }

    /// Whether a person may have this key sign: published for its lead, or a signer before.
    fn may_sign(&self, kid: &str) -> bool {
        let Some(key) = self.keys.iter().find(|k| k.kid() == kid) else {
            return false;
        };
        let life = &key.life;
        let led = life
            .published
            .is_some_and(|at| later(at, self.policy.lead()) <= self.now);
        let stands = key.has_material
            && key.in_jwks
            && life.removed.is_none()
            && life.withdrawn.is_none()
            && life.published.is_some()
            && !self.withdraws(kid);
        stands && self.sure && (life.activated.is_some() || life.retired.is_none() && led)
            // It signs already: nothing has to be sure for that to go on.
            || stands && signer(&self.keys).map(KeyFacts::kid) == Some(kid)
    }

    /// Why a new key is to sign, if one is.
    fn reason(&mut self) -> Option<Cause> {
        if self.keys.is_empty() {
            return Some(Cause::First);
        }
        let Some(active) = signer(&self.keys).cloned() else {
            let none_signed = self.keys.iter().all(|k| k.life.activated.is_none());
            let first = none_signed && self.policy.history.spent.is_empty();
            return Some(if first {
                Cause::First
            } else {
                Cause::Emergency
            });
        };
        if active.life.withdrawn.is_some() || self.withdraws(active.kid()) {
            return Some(Cause::Emergency);
        }
        if self.unhandled().is_some() {
            return Some(Cause::Request);
        }
        // A key that was asked for is on its way.
        let next = self.candidate();
        let asked = |k: &KeyFacts<P>| next.as_deref() == Some(k.kid()) && k.cause == Cause::Request;
        if self.keys.iter().any(asked) {
            return Some(Cause::Request);
        }
        if !active.fits {
            return Some(Cause::Algorithm);
        }
        if matches!(&self.policy.source, Source::Inject(kid) if kid != active.kid()) {
            return Some(Cause::Injected);
        }
        let due = self.policy.due(&active)?;
        let begin = due.saturating_sub(self.policy.lead()).unwrap_or(due);
        if self.policy.window.to.is_some_and(|to| due >= to) {
            return None;
        }
        if begin <= self.now && self.sure {
            self.plan.rotates_at = Some(due);
            return Some(Cause::Schedule);
        }
        self.expect_made(begin, due);
        None
    }

    /// The value of the rotate annotation, if it is not handled yet.
    fn unhandled(&self) -> Option<&String> {
        let value = self.policy.rotate.as_ref()?;
        let handled = self.policy.handled.as_ref() == Some(value)
            || self.keys.iter().any(|k| k.handled.as_ref() == Some(value));
        (!handled).then_some(value)
    }

    fn longer_tokens(&mut self) {
        let max_ttl = self.policy.max_ttl;
        let active = signer(&self.keys).filter(|k| k.max_ttl.is_none_or(|before| before < max_ttl));
        if let Some(kid) = active.map(|k| k.kid().to_owned()) {
            self.note(&kid, Note::LongerTokens(max_ttl));
        }
    }

    /// Keys that have been followed by another, and next keys that were overtaken. `signed`: which
    /// key was seen to sign. That another was activated is seen first: were both written down at once,
    /// by a process that is stopped before it writes, the old key would go on signing past the time
    /// that its grace is counted from.
    fn retire(&mut self, signed: Option<&str>) {
        let active = signer(&self.keys).map(|k| k.kid().to_owned());
        if let Some(kid) = &active
            && let Some(key) = self.keys.iter().find(|k| k.kid() == kid)
            && let Some(withdrawn) = key.life.withdrawn
        {
            let patience = later(withdrawn, PATIENCE);
            if patience <= self.now {
                // Its successor does not come: the order goes before the tokens.
                self.note(&kid.clone(), Note::Retired);
            } else {
                self.wakes.push(patience);
            }
        }
        if !self.sure {
            // A wrong time here would end its grace too early.
            return;
        }
        let followed = |k: &KeyFacts<P>| {
            let follows = active.is_some() && active.as_deref() == signed;
            let signs = active.as_deref() == Some(k.kid());
            k.is_usable() && k.life.activated.is_some() && follows && !signs
        };
        for kid in self.kids(followed) {
            self.note(&kid, Note::Retired);
        }
        // One is kept in reserve for its turn; more come of two operators at work at once, or of
        // a change of mind.
        let reserve = self.candidate();
        let spare = |k: &KeyFacts<P>| k.is_next() && reserve.as_deref() != Some(k.kid());
        for kid in self.kids(spare) {
            self.note(&kid, Note::GivenUp);
        }
    }

    fn remove(&mut self) {
        let active = signer(&self.keys).map(|k| k.kid().to_owned());
        for key in self.keys.clone() {
            let kid = key.kid();
            if let Some(removed) = key.life.removed {
                // The JWKS is slow to change, as where an API server refuses that: caches are filled with
                // this key still, and what is said of them counts from its end.
                if self.sure && key.in_jwks && later(removed, LAG) <= self.now {
                    self.note(kid, Note::Removed);
                }
                continue;
            }
            let superseded = active.as_deref().is_some_and(|active| active != kid);
            let Some(end) = self.policy.end(&key, superseded) else {
                continue;
            };
            let at_once = self.policy.withdrawals.get(kid) == Some(&Some(SignedDuration::ZERO))
                && key.life.withdrawn.is_some();
            if end <= self.now && (self.sure || at_once) {
                self.note(kid, Note::Removed);
            } else {
                self.plan.ends.insert(kid.to_owned(), end);
                self.expect(end, Coming::Remove, Some(kid));
            }
        }
    }

    /// Whether this very plan writes something down of the key, or deletes its Secret.
    fn noted_now(&self, kid: &str) -> bool {
        self.plan.steps.iter().any(|step| match step {
            Step::Note { key_id, .. } | Step::Destroy { key_id } => key_id == kid,
            _ => false,
        })
    }

    /// The next key is made then, and signs when the active one is due.
    fn expect_made(&mut self, begin: Timestamp, due: Timestamp) {
        self.expect(begin, Coming::Generate, None);
        self.plan.rotates_at = Some(due);
    }

    /// From when on the active key signs, where that lies ahead.
    fn opening(&mut self) {
        let from = self.policy.window.from.filter(|from| *from > self.now);
        let active = signer(&self.keys).map(|k| k.kid().to_owned());
        if let (Some(from), Some(active)) = (from, active) {
            self.expect(from, Coming::Open, Some(&active));
        }
    }

    fn expect(&mut self, at: Timestamp, what: Coming, key_id: Option<&str>) {
        let key_id = key_id.map(str::to_owned);
        self.coming.push(Transition { at, what, key_id });
    }

    fn finish(mut self) -> Plan<P> {
        let times = self.coming.iter().map(|c| c.at).chain(self.wakes);
        let unsure = (!self.sure).then(|| later(self.now, UNSURE_RECHECK));
        let now = self.now;
        self.plan.wake_at = times.chain(unsure).filter(|at| *at > now).min();
        self.plan.next = self.coming.into_iter().min();
        self.plan
    }
}
