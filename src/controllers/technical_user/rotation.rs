//! What is known of a technical user's client secrets, and what the engine that rotates signing keys
//! makes of it, with another policy: a secret that was delivered is used at once.
//!
//! The hash is stored first, then servers have a moment to learn of it, then the delivered Secret is
//! replaced. That it was delivered is *seen* before the old secret's grace begins.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use zeroize::Zeroizing;

use super::{DeliverySeen, Visit};
use crate::api::v1alpha1::{ROTATE_ANNOTATION, SecretCredential};
use crate::controllers::{Decision, Fill, Object, SealTo, Write};
use crate::domain::client::DEFAULT_SECRET_GRACE;
use crate::domain::moment::Moment;
use crate::domain::period::Period;
use crate::domain::rotation::{
    self, Cause, History, KeyFacts, LONGEST_REQUEST, Phase, Plan, Policy, Rotated, SecretId,
    Source, Step, carry_out, signer,
};
use crate::objects::credentials::{self, Stored};
use crate::objects::{annotation, write_time};

/// How long servers have to learn of a new hash before its secret is delivered: what each replica that
/// has contact needs at most.
pub const SERVERS_FOLLOW: SignedDuration = SignedDuration::from_secs(2);

/// What is known of one client secret.
pub type SecretFacts = KeyFacts<SecretId>;

/// A look at a technical user's client secrets, and what is to become of them.
pub(super) struct Rotation<'a> {
    /// As they are stored.
    pub stored: Vec<Stored>,
    /// With all that is written down now.
    pub keys: Vec<SecretFacts>,
    /// What bounds them.
    pub policy: Policy,
    /// What the engine wants.
    pub plan: Plan<SecretId>,
    /// What of the spec is not obeyed.
    pub slip: Option<String>,
    /// The value of the claim annotation that is looked at now, and counts no more then.
    pub claim: Option<String>,
    /// Why the next secret should be made, where nobody has claimed it yet.
    pub awaits: Option<Cause>,
    /// Whether a person supplies them: several can be the newest at once.
    pub supplied: bool,
    /// Whether status stays as it is for now.
    pub untold: bool,
    /// The newest secret that is delivered: where it stands, itself, and its id.
    pub current: Option<(&'a DeliverySeen, &'a Zeroizing<String>, &'a str)>,
}

/// A secret that is to be made.
pub(super) struct ToMake {
    pub id: String,
    pub cause: Cause,
    pub handled: Option<String>,
    pub seal: Option<SealTo>,
}

impl<'a> Visit<'a> {
    /// Looks, and asks the engine. `source`: whether a new secret can be made.
    pub(super) fn rotation(&self, hashes: Option<&Secret>, source: Source) -> Rotation<'a> {
        let mut stored = hashes.map(credentials::read).unwrap_or_default();
        let current = self.current(&stored);
        let mut keys = self.facts(&stored, current.map(|(_, _, id)| id));
        let (policy, slip) = self.policy(&stored, source);
        let mut plan = rotation::plan(&keys, &policy, self.moment);
        for step in &plan.steps {
            carry_out(&mut keys, step, self.moment.now);
        }
        if self.user.secret_credential().is_some() {
            for secret in &mut stored {
                let ends_at = plan.ends.get(&secret.credential.id).copied();
                if secret.known.ends_at.is_some() {
                    secret.credential.expires_at = None;
                }
                secret.known.ends_at = ends_at;
            }
        } else {
            self.own_ends(&mut stored, &mut keys, &mut plan);
        }
        Rotation {
            stored,
            keys,
            policy,
            plan,
            slip,
            claim: None,
            awaits: None,
            supplied: self.is_supplied(),
            untold: false,
            current,
        }
    }

    /// Where something else has taken the place of secrets: one that was old by then ends when it was to,
    /// and works no longer for that.
    fn own_ends(&self, stored: &mut [Stored], keys: &mut [SecretFacts], plan: &mut Plan<SecretId>) {
        let Moment { now, sure } = self.moment;
        for secret in stored {
            let Some(end) = secret.known.ends_at else {
                continue;
            };
            let id = &secret.credential.id;
            // Servers see to it by themselves.
            secret.credential.expires_at = Some(end);
            if end <= now && sure {
                plan.ends.remove(id);
                for key in keys.iter_mut().filter(|key| key.kid() == id) {
                    key.life.removed = key.life.removed.or(Some(now));
                }
            } else {
                let planned = plan.ends.entry(id.clone()).or_insert(end);
                *planned = end.min(*planned);
                let ahead = Some(end).filter(|end| *end > now);
                plan.wake_at = plan.wake_at.into_iter().chain(ahead).min();
            }
        }
    }

    /// Whether a person supplies its client secret.
    pub(super) fn is_supplied(&self) -> bool {
        let secret = self.user.secret_credential();
        secret.is_some_and(SecretCredential::is_supplied)
    }

    /// The newest secret that is delivered. What was moved to another Secret stands in the former one
    /// too; a retired one that somebody has put back counts least.
    fn current(
        &self,
        stored: &[Stored],
    ) -> Option<(&'a DeliverySeen, &'a Zeroizing<String>, &'a str)> {
        let target = self.user.secret_name();
        let proven = self.seen.deliveries.iter().filter_map(|d| {
            let (plain, id) = d.proves()?;
            let known = stored.iter().find(|s| s.credential.id == id)?;
            let lives = known.known.retired_at.is_none();
            let rank = (lives, number(id), d.secret.name_any() == target);
            Some((rank, (d, plain, id)))
        });
        let (_, newest) = proven.max_by_key(|(rank, _)| *rank)?;
        Some(newest)
    }

    pub(super) fn facts(&self, stored: &[Stored], current: Option<&str>) -> Vec<SecretFacts> {
        let one_time = self.user.one_time().is_some();
        let generates = self.user.secret_credential().is_some() && !self.is_supplied();
        let facts = stored.iter().map(|s| {
            let id = &s.credential.id;
            let mut life = s.life();
            let supplied = s.known.source.is_some();
            if supplied && !self.is_supplied() {
                // Somebody may hold it, however shortly it stood there.
                life.activated = life.activated.or(life.created);
            }
            let delivered = current == Some(id);
            let made = self.seen.made.as_ref();
            let made = made.is_some_and(|m| m.id == *id && m.hash == s.credential.hash);
            let made = made && life.is_fresh();
            let sealed = s.known.sealed.is_some();
            // Once it was delivered otherwise, its holder has it, and the operator need not.
            let held = sealed || one_time && life.activated.is_some();
            KeyFacts {
                sequence: number(id),
                jwk: SecretId(id.clone()),
                life,
                cause: s.cause(),
                handled: s.known.handled.clone(),
                edition: 0,
                // No token hangs on it.
                max_ttl: Some(SignedDuration::ZERO),
                window: rotation::Window::default(),
                // Delivered as the spec says; and a generated one is to take the place of one that a person
                // supplied.
                fits: !generates || !supplied && sealed == one_time,
                // Whoever holds a retired one holds it, as does who supplied one; from here it can not be
                // had, and need not.
                has_material: delivered || made || held || supplied || life.retired.is_some(),
                in_jwks: delivered || sealed && self.shows(id),
            }
        });
        facts.collect()
    }

    /// What bounds the secrets, and what of the spec is not obeyed.
    fn policy(&self, stored: &[Stored], source: Source) -> (Policy, Option<String>) {
        let grace = match self.user.secret_credential() {
            Some(spec) => spec.grace_period(),
            None => self.user.secret_grace().min(DEFAULT_SECRET_GRACE),
        };
        let interval = self.shortest_interval().or(self.interval());
        let (request, slip) = self.request();
        let status = self.user.status.as_ref();
        let policy = Policy {
            rotated: Rotated::Secrets,
            interval: interval.map(Period::as_duration),
            jitter: rotation::jitter(&self.user.uid().unwrap_or_default()),
            grace: grace.as_duration(),
            rotate: request.map(str::to_owned),
            handled: status.and_then(|s| s.last_handled_rotation.clone()),
            source,
            history: History {
                highest: self.highest(stored),
                ..History::default()
            },
            ..Policy::default()
        };
        (policy, slip)
    }

    /// The value of the rotate annotation that is obeyed, or why it is not.
    pub(super) fn request(&self) -> (Option<&'a str>, Option<String>) {
        let request = annotation(&self.user.metadata, ROTATE_ANNOTATION);
        match request.filter(|value| !value.is_empty()) {
            Some(value) if value.len() > LONGEST_REQUEST => {
                let slip = format!(
                    "the annotation {ROTATE_ANNOTATION} has {} characters, and at most {LONGEST_REQUEST} are remembered: use a short value, such as a date.",
                    value.len()
                );
                (None, Some(slip))
            }
            request => (request, None),
        }
    }

    /// The highest number of a credential that anything remembers: none is used again.
    pub(super) fn highest(&self, stored: &[Stored]) -> i64 {
        let stored = stored.iter().map(|s| s.credential.id.as_str());
        let delivered = self.seen.deliveries.iter();
        let delivered =
            delivered.filter_map(|d| crate::objects::delivery::credential_id(&d.secret));
        let last = self.user.status.as_ref();
        let last = last.and_then(|s| s.last_credential_id.as_deref());
        let all = stored.chain(self.remembered()).chain(delivered).chain(last);
        all.map(number).max().unwrap_or(0)
    }

    /// The ids of the credentials that status tells of.
    pub(super) fn remembered(&self) -> impl Iterator<Item = &str> {
        let status = self.user.status.iter();
        status.flat_map(|s| &s.credentials).map(|c| c.id.as_str())
    }

    /// The write of the stored hashes, as far as there is something to write; with a hash of a new
    /// secret, if one is to be made.
    pub(super) fn write_down(
        &self,
        hashes: Option<&Secret>,
        rotation: &Rotation<'_>,
        make: Option<ToMake>,
        decision: &mut Decision,
    ) {
        let mut after = self.hashes_after(hashes, rotation);
        let fill = match make {
            Some(make) => Fill::NewHash {
                family: self.user.spec.family,
                id: make.id,
                cause: make.cause,
                handled: make.handled,
                seal: make.seal,
                now: self.moment.now,
            },
            None if hashes.is_none() => return,
            None => Fill::Nothing,
        };
        if matches!(fill, Fill::NewHash { .. }) {
            credentials::set_revoked(&mut after, None);
            if let Some(last) = self.device().and_then(|device| device.last_revocation) {
                credentials::set_last_revocation(&mut after, last);
            }
        }
        Self::put_told(hashes, after, fill, rotation, decision);
    }

    /// Writes hashes as they are to be, unless that would change nothing, and tells of those that go.
    pub(super) fn put_told(
        hashes: Option<&Secret>,
        after: Secret,
        fill: Fill,
        rotation: &Rotation<'_>,
        decision: &mut Decision,
    ) {
        if Self::put_hashes(hashes, after, fill, decision) {
            let told = rotation.gone().map(|id| rotation.told_gone(id));
            decision.writes.extend(told);
        }
    }

    /// The Secret with the hashes as it should be, but for new ones.
    pub(super) fn hashes_after(&self, hashes: Option<&Secret>, rotation: &Rotation<'_>) -> Secret {
        let mut after = self.labelled(hashes);
        if self.user.secret_credential().is_some() {
            credentials::keep(&mut after);
        } else {
            let (begun, end) = self.exchange(&after);
            credentials::exchange(&mut after, begun, end);
        }
        credentials::write(&mut after, &rotation.list());
        if let Some(claim) = &rotation.claim {
            credentials::set_handled_claim(&mut after, claim);
        }
        after
    }

    /// The Secret with the hashes, with the labels without which the server would not find them.
    pub(super) fn labelled(&self, hashes: Option<&Secret>) -> Secret {
        let template = credentials::hashes_template(self.user, self.settings);
        let Some(mut hashes) = hashes.cloned() else {
            return template;
        };
        let all_labels = hashes.metadata.labels.get_or_insert_default();
        all_labels.extend(template.metadata.labels.unwrap_or_default());
        hashes
    }

    /// Writes it, unless that would change nothing; whether it does.
    pub(super) fn put_hashes(
        hashes: Option<&Secret>,
        after: Secret,
        fill: Fill,
        decision: &mut Decision,
    ) -> bool {
        let same = |before: &Secret| {
            before.data == after.data
                && before.metadata.labels == after.metadata.labels
                && before.metadata.annotations == after.metadata.annotations
        };
        if matches!(fill, Fill::Nothing) && hashes.is_some_and(same) {
            return false;
        }
        let object = Object::Secret(Box::new(after));
        decision.writes.push(match hashes {
            Some(_) => Write::Replace(object, fill),
            None => Write::Create(object, fill),
        });
        true
    }
}

impl Rotation<'_> {
    /// The secret that the engine wants made.
    pub(super) fn to_make(&self) -> Option<ToMake> {
        self.plan.steps.iter().find_map(|step| match step {
            Step::Generate { sequence, cause } => Some(ToMake {
                id: sequence.to_string(),
                cause: *cause,
                handled: self.policy.rotate.clone().or(self.policy.handled.clone()),
                seal: None,
            }),
            Step::Restore { key_id } => {
                let key = self.find(key_id)?;
                Some(ToMake {
                    id: key_id.clone(),
                    cause: key.cause,
                    handled: key.handled.clone(),
                    seal: None,
                })
            }
            _ => None,
        })
    }

    pub(super) fn find(&self, id: &str) -> Option<&SecretFacts> {
        self.keys.iter().find(|k| k.kid() == id)
    }

    /// The secret that holds now, once it was seen to be delivered.
    pub(super) fn active(&self) -> Option<&SecretFacts> {
        signer(&self.keys)
    }

    /// Whether one works whose holder has it, or finds it.
    pub(super) fn works(&self) -> bool {
        let sealed = |id: &str| {
            let mut sealed = self.stored.iter().filter(|s| s.known.sealed.is_some());
            sealed.any(|s| s.credential.id == id)
        };
        let active = self.active();
        active.is_some_and(|k| self.current.is_some() || sealed(k.kid()))
    }

    /// Whether a new secret need not wait for servers to learn of its hash: nobody has another one, or
    /// the old one is to end at once.
    pub(super) fn at_once(&self) -> bool {
        self.policy.grace.is_zero() || self.active().is_none()
    }

    /// What is to be stored.
    pub(super) fn list(&self) -> Vec<Stored> {
        let stands = self.stored.iter().filter_map(|s| {
            let key = self.find(&s.credential.id)?;
            let mut after = s.clone();
            after.set(&key.life, key.cause, key.handled.clone());
            key.life.removed.is_none().then_some(after)
        });
        stands.collect()
    }

    /// The secrets that were delivered once, and are struck off now.
    pub(super) fn gone(&self) -> impl Iterator<Item = &str> {
        let gone = self.keys.iter().filter(|k| k.life.removed.is_some());
        let gone = gone.filter(|k| k.life.activated.is_some());
        gone.map(KeyFacts::kid)
    }

    /// Where a secret is in its life.
    pub(super) fn phase(&self, key: &SecretFacts) -> Phase {
        if self.supplied && key.life.may_sign() {
            return Phase::Active;
        }
        key.phase(self.active().map(KeyFacts::kid))
    }

    /// The Secret that a client secret was read from, where a person supplies it.
    pub(super) fn read_from(&self, id: &str) -> Option<String> {
        let stored = self.stored.iter().find(|s| s.credential.id == id)?;
        Some(stored.known.source.as_ref()?.secret.clone())
    }

    /// When the next secret is made by the clock.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.active().and_then(|k| self.policy.due(k))
    }

    /// Whether the rotation that the annotation asks for was made.
    pub(super) fn is_handled(&self) -> bool {
        let value = self.policy.rotate.as_ref();
        value.is_some_and(|value| self.keys.iter().any(|k| k.handled.as_ref() == Some(value)))
    }

    /// Until when the old secret works, as half a sentence.
    pub(super) fn old_until(&self, now: Timestamp) -> String {
        let grace = self.policy.grace;
        if grace.is_zero() {
            return "the old one ends at once".into();
        }
        let until = rotation::later(now, grace);
        let whole = Timestamp::from_second(until.as_second()).unwrap_or(until);
        format!("the old one works until {}", write_time(whole))
    }
}

/// Credentials are numbered; one of another name counts as none.
pub(super) fn number(id: &str) -> i64 {
    id.parse().unwrap_or(0)
}
