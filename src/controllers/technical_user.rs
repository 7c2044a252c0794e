//! The `TechnicalUser` controller: makes a client secret, keeps its hash, delivers it.
//!
//! The hash is written before the secret is delivered, so that what a client reads works. A crash
//! in between leaves a hash whose secret nobody holds: the next visit finds no delivery that
//! proves it, and makes a new one in its place. What follows what is decided by the engine of signing
//! keys (`rotation`); how a secret reaches its holder is in `delivery`.

mod adoption;
mod assertions;
mod companion;
mod delivering;
#[cfg(test)]
mod desk;
mod former;
mod made;
mod obstacles;
mod one_time;
mod report;
mod revoked;
mod rotation;
mod see;
mod service_account;
mod stored;
mod supplied;

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use zeroize::Zeroizing;

use super::{Decision, Object, Write};
use crate::api::v1alpha1::{Conditions, TechnicalUser};
use crate::domain::moment::Moment;
use crate::domain::reasons as r;
use crate::domain::rotation::{Source, later};
use crate::domain::settings::Settings;
use crate::domain::subscription::{self, SubscriptionFacts};
use crate::objects::{Ownership, credentials};
use crate::tenancy::Tenancy;

use rotation::Rotation;

pub use companion::{Companionship, DeviceSeen};
pub use made::{Made, MadeSecret};
pub use rotation::SERVERS_FOLLOW;
pub use see::{Proofs, Sight, see, signing_rings};
pub use service_account::Workload;
pub use supplied::{Found, Hashing, Index, Paces, SuppliedSeen};

/// The condition that tells of roles, scopes or audiences beyond the Subscription.
pub const RESTRICTED: &str = "Restricted";

/// How long to wait before looking again at something foreign, which is not watched.
const FOREIGN_RECHECK: SignedDuration = SignedDuration::from_secs(30);
/// How long another process has to deliver the secret that it has made, where an older one works
/// meanwhile. Longer than a call to the API server may take.
const OTHERS_DELIVER: SignedDuration = SignedDuration::from_secs(15);
/// The same for a Secret whose owner is just being collected.
const COLLECTED_RECHECK: SignedDuration = SignedDuration::from_secs(1);

/// What there is to see of a technical user.
pub struct Seen {
    /// The resource; none when it is gone.
    pub user: Option<Arc<TechnicalUser>>,
    /// The judgement of all Subscriptions and client ids.
    pub tenancy: Arc<Tenancy>,
    /// The rings that can sign for technical users.
    pub rings: Vec<String>,
    /// The Secret of the name that its hashes have.
    pub hashes: Option<Arc<Secret>>,
    /// The Secrets that deliver its credential, or stand where one should be.
    pub deliveries: Vec<DeliverySeen>,
    /// A secret that this process has made and not delivered yet.
    pub made: Option<MadeSeen>,
    /// Where a person supplies its client secrets, as the spec names the places.
    pub supplied: Vec<SuppliedSeen>,
    /// For how long this process has seen one that another has made, and that is not delivered.
    pub others_wait: Option<SignedDuration>,
    /// The `ServiceAccount` that authenticates it, if one does.
    pub workload: Workload,
    /// Its companions, or whose companion it is.
    pub companionship: Companionship,
}

/// A secret that was made and not delivered yet.
pub struct MadeSeen {
    /// What the credential is called.
    pub id: String,
    /// Its hash, as it was stored.
    pub hash: String,
    /// How long ago that was.
    pub age: SignedDuration,
}

/// A Secret in the technical user's namespace.
pub struct DeliverySeen {
    /// The Secret.
    pub secret: Arc<Secret>,
    /// Who owns it.
    pub ownership: Ownership,
    /// The generated secret in it, and the id of the stored credential that it proves, if any.
    pub plain: Option<(Zeroizing<String>, Option<String>)>,
}

impl DeliverySeen {
    fn ours(&self) -> bool {
        self.ownership == Ownership::Ours && self.secret.metadata.deletion_timestamp.is_none()
    }

    /// The stored credential that it proves, with the plain secret.
    fn proves(&self) -> Option<(&Zeroizing<String>, &str)> {
        let (plain, id) = self.plain.as_ref().filter(|_| self.ours())?;
        Some((plain, id.as_deref()?))
    }
}

/// What to do with a technical user.
pub fn decide(seen: &Seen, settings: &Settings, moment: Moment) -> Decision {
    match &seen.user {
        None => sweep(seen, moment),
        Some(user) if user.metadata.deletion_timestamp.is_some() => Decision::default(),
        Some(user) => Visit {
            seen,
            user,
            settings,
            moment,
        }
        .decide(),
    }
}

/// Hashes whose technical user is gone go too.
fn sweep(seen: &Seen, moment: Moment) -> Decision {
    let mut decision = Decision::default();
    let hashes = seen.hashes.as_deref();
    if let Some(hashes) = hashes.filter(|s| credentials::hashes_of(s).is_some()) {
        match adoption::awaited_until(hashes) {
            Some(until) if moment.now < until => decision.wake_by([until]),
            _ => {
                let object = Object::Secret(Box::new(hashes.clone()));
                decision.writes.push(Write::Delete(object));
            }
        }
    }
    decision
}

struct Visit<'a> {
    seen: &'a Seen,
    user: &'a TechnicalUser,
    settings: &'a Settings,
    moment: Moment,
}

/// What the namespace's Subscriptions come to.
enum Tenant<'a> {
    /// Another release serves the namespace.
    AnothersNamespace,
    /// Nothing binds the namespace.
    None,
    /// It is bound, and this Subscription holds now.
    Current(&'a SubscriptionFacts),
    /// It is bound, and no sound Subscription holds now.
    NotCurrent,
}

impl Visit<'_> {
    fn decide(&self) -> Decision {
        let namespace = self.user.namespace().unwrap_or_default();
        let subscriptions = self.seen.tenancy.of(&namespace);
        if let Some(other) = self.served_from_elsewhere() {
            // It writes this status too: two of us would write it without end.
            let name = self.user.name_any();
            tracing::warn!(%namespace, %name, other, "another release of this environment, in that namespace, has delivered this technical user's credential: give each release an environment of its own, or delete the delivered Secret");
            return Decision::default();
        }
        let tenant = match self.seen.tenancy.environments.get(&namespace) {
            Some(environment) if *environment != self.settings.environment => {
                Tenant::AnothersNamespace
            }
            // Every release sees that there is none, and says the same.
            None if self
                .seen
                .tenancy
                .problems
                .keys()
                .any(|(of, _)| *of == namespace) =>
            {
                Tenant::NotCurrent
            }
            None => Tenant::None,
            Some(_) => match subscription::current(subscriptions, self.moment.now) {
                Some(current) => Tenant::Current(current),
                None => Tenant::NotCurrent,
            },
        };
        let mut decision = Decision {
            writes: Vec::new(),
            wake_at: subscription::next_change(subscriptions, self.moment.now),
        };
        let ours = !matches!(tenant, Tenant::AnothersNamespace);
        if ours && self.relabel(&mut decision) {
            // Status is what proves it, and stays as it is until then.
            return decision;
        }
        let (rotation, conditions) = match tenant {
            Tenant::AnothersNamespace => {
                return Decision {
                    writes: self.left_to_another(&namespace),
                    wake_at: None,
                };
            }
            Tenant::None => (
                self.rotation(self.own_hashes(), Source::Hold),
                Some(Conditions::reconciling(
                    r::NO_SUBSCRIPTION,
                    format!(
                        "Namespace {namespace} has no Subscription, so that there is no legal entity to speak for: a platform administrator makes one."
                    ),
                )),
            ),
            Tenant::Current(_) | Tenant::NotCurrent => match self.on_its_own(&mut decision) {
                Some(gone) => (self.rotation(self.own_hashes(), Source::Hold), Some(gone)),
                None => self.credential(&mut decision),
            },
        };
        let mut conditions = conditions.unwrap_or_else(|| self.conditions(&tenant, &rotation));
        if !matches!(tenant, Tenant::None)
            && let Some((reason, why)) = self.companion(&mut decision)
        {
            conditions = conditions.ready_though(reason, why);
        }
        if let Some(why) = self.excess() {
            conditions = conditions.ready_though(r::POLICY_VIOLATION, why);
        }
        let current = match tenant {
            Tenant::Current(current) => Some(current),
            _ => None,
        };
        if !rotation.untold {
            let status = self.status(&conditions, &rotation, current);
            decision.writes.extend(status);
        }
        decision
    }

    fn own_hashes(&self) -> Option<&Secret> {
        let hashes = self.seen.hashes.as_deref();
        hashes.filter(|h| self.is_ours(h))
    }

    /// Does what its way to authenticate asks for. Gives what is known of client secrets, with the
    /// conditions that hold if it can not authenticate.
    fn credential(&self, decision: &mut Decision) -> (Rotation<'_>, Option<Conditions>) {
        let violation = self.violation();
        let violation = violation.map(|(reason, message)| Conditions::stalled(reason, message));
        match self.user.secret_credential() {
            Some(_) if self.user.one_time().is_some() => self.one_time(violation, decision),
            Some(secret) if secret.is_supplied() => self.supplied(violation, decision),
            Some(_) => self.secret(violation, decision),
            None => self.without_secret(violation, decision),
        }
    }

    /// Brings hashes and delivery to where one proves the other, and rotates.
    fn secret(
        &self,
        violation: Option<Conditions>,
        decision: &mut Decision,
    ) -> (Rotation<'_>, Option<Conditions>) {
        let target = self.user.secret_name();
        let mut deliveries = self.seen.deliveries.iter();
        let standing = deliveries.find(|d| d.secret.name_any() == target);
        if let Some(adopted) = self.adopt(standing, decision) {
            let conditions = violation.unwrap_or(adopted);
            return (self.rotation(None, Source::Hold), Some(conditions));
        }
        let foreign = standing.filter(|s| !s.ours());
        let mut obstacle = foreign.map(|s| self.in_the_way(s, decision));
        if obstacle.is_none() {
            obstacle = standing.and_then(|s| self.unwritable(s, decision));
        }
        let obstacle = violation.or(obstacle);
        if let Some((rotation, barred)) = self.barred(decision) {
            return (rotation, Some(obstacle.unwrap_or(barred)));
        }
        let hashes = self.seen.hashes.as_deref();
        let held = obstacle.is_some() || Self::is_frozen(standing);
        let source = if held { Source::Hold } else { Source::Generate };
        let mut rotation = self.rotation(hashes, source);
        decision.wake_by(rotation.plan.wake_at);
        if held {
            // What was promised of old secrets is kept: they end, whatever stands in the way of new ones.
            if hashes.is_some() {
                self.write_down(hashes, &rotation, None, decision);
            }
            if obstacle.is_some() {
                self.take_away_ended(&target, &rotation, decision);
                return (rotation, obstacle);
            }
        } else if !self.was_ever_revoked() && self.hash_again(hashes, standing, decision) {
            // What status knows is what proves the secret, should somebody take the hash away again.
            rotation.untold = true;
            return (rotation, Some(being_made()));
        } else if let Some(left) = self.others_turn(&rotation) {
            self.recheck(left, decision);
        } else if let Some(make) = rotation.to_make() {
            self.make(hashes, standing, &rotation, make, decision);
        } else {
            self.write_down(hashes, &rotation, None, decision);
            if self.deliver_made(standing, &rotation, decision) {
                let works = rotation.active().is_some();
                return (rotation, (!works).then(being_made));
            }
        }
        self.take_away_ended(&target, &rotation, decision);
        let settled = self.moment.sure || standing.is_none();
        if let Some((_, plain, id)) = rotation.current.filter(|_| settled) {
            self.keep_delivered(standing, (plain, id), &rotation, decision);
        }
        // Ready comes with the visit that sees it, so that status tells of what is there.
        let works = rotation.works();
        (rotation, (!works).then(being_made))
    }

    /// How long another process still has to deliver what it has made: one that was killed never will,
    /// and one that was only slow would deliver a secret whose hash is gone.
    fn others_turn(&self, rotation: &Rotation<'_>) -> Option<SignedDuration> {
        let waited = self.seen.others_wait?;
        let patience = match rotation.active() {
            Some(_) => OTHERS_DELIVER,
            None => SERVERS_FOLLOW,
        };
        rotation.to_make()?;
        Some(patience.saturating_sub(waited)).filter(SignedDuration::is_positive)
    }

    fn is_ours(&self, hashes: &Secret) -> bool {
        credentials::are_of_uid(hashes, self.user.uid().as_deref())
    }

    fn recheck(&self, after: SignedDuration, decision: &mut Decision) {
        decision.wake_by([later(self.moment.now, after)]);
    }
}

fn being_made() -> Conditions {
    Conditions::reconciling(
        r::PROGRESSING,
        "A client secret is being made and delivered.",
    )
}
