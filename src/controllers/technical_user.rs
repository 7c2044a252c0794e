//! The `TechnicalUser` controller: makes a client secret, keeps its hash, delivers it.
//!
//! The hash is written before the secret is delivered, so that what a client reads works. A crash
//! in between leaves a hash whose secret nobody holds: the next visit finds no delivery that
//! proves a hash, and makes a new one in its place.

mod assertions;
mod obstacles;
mod report;
mod revoked;
mod see;
mod service_account;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use zeroize::Zeroizing;

use super::{Decision, Fill, Note, Object, Write};
use crate::api::v1alpha1::{Conditions, TechnicalUser};
use crate::domain::client::StoredCredential;
use crate::domain::reasons as r;
use crate::domain::settings::Settings;
use crate::domain::subscription::{self, SubscriptionFacts};
use crate::objects::{Ownership, credentials};
use crate::tenancy::Tenancy;

pub use see::{Proofs, see, signing_rings};
pub use service_account::Workload;

/// The condition that tells of roles, scopes or audiences beyond the Subscription.
pub const RESTRICTED: &str = "Restricted";

/// How long to wait before looking again at something foreign, which is not watched.
const FOREIGN_RECHECK: SignedDuration = SignedDuration::from_secs(30);
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
    /// The `ServiceAccount` that authenticates it, if one does.
    pub workload: Workload,
    /// Whether the clock is believed: without that, nothing is deleted because of the time.
    pub clock_sure: bool,
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
pub fn decide(seen: &Seen, settings: &Settings, now: Timestamp) -> Decision {
    match &seen.user {
        None => Decision {
            writes: sweep(seen),
            wake_at: None,
        },
        Some(user) if user.metadata.deletion_timestamp.is_some() => Decision::default(),
        Some(user) => Visit {
            seen,
            user,
            settings,
            now,
        }
        .decide(),
    }
}

/// Hashes whose technical user is gone go too.
fn sweep(seen: &Seen) -> Vec<Write> {
    let hashes = seen
        .hashes
        .as_deref()
        .filter(|s| credentials::hashes_of(s).is_some());
    hashes
        .map(|s| Write::Delete(Object::Secret(Box::new(s.clone()))))
        .into_iter()
        .collect()
}

struct Visit<'a> {
    seen: &'a Seen,
    user: &'a TechnicalUser,
    settings: &'a Settings,
    now: Timestamp,
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
            Some(_) => match subscription::current(subscriptions, self.now) {
                Some(current) => Tenant::Current(current),
                None => Tenant::NotCurrent,
            },
        };
        let mut decision = Decision {
            writes: Vec::new(),
            wake_at: subscription::next_change(subscriptions, self.now),
        };
        let conditions = match tenant {
            Tenant::AnothersNamespace => return Decision::default(),
            Tenant::None => Conditions::reconciling(
                r::NO_SUBSCRIPTION,
                format!(
                    "Namespace {namespace} has no Subscription, so that there is no legal entity to speak for: a platform administrator makes one."
                ),
            ),
            Tenant::Current(_) | Tenant::NotCurrent => match self.violation() {
                Some((reason, message)) => Conditions::stalled(reason, message),
                None => match self.credential(&mut decision) {
                    Ok(()) => self.conditions(&tenant),
                    Err(conditions) => conditions,
                },
            },
        };
        let current = match tenant {
            Tenant::Current(current) => Some(current),
            _ => None,
        };
        decision.writes.extend(self.status(&conditions, current));
        decision
    }

    fn credential(&self, decision: &mut Decision) -> Result<(), Conditions> {
        match self.user.secret_credential() {
            Some(_) => self.secret(decision),
            None => self.without_secret(decision),
        }
    }

    /// Brings hash and delivery to where one proves the other.
    fn secret(&self, decision: &mut Decision) -> Result<(), Conditions> {
        let target = self.user.secret_name();
        let standing = self
            .seen
            .deliveries
            .iter()
            .find(|d| d.secret.name_any() == target);
        if let Some(standing) = standing.filter(|s| !s.ours()) {
            return Err(self.in_the_way(standing, decision));
        }
        if let Some(conditions) = standing.and_then(|s| self.unwritable(s, decision)) {
            return Err(conditions);
        }
        let hashes = match self.seen.hashes.as_deref() {
            Some(hashes) if !self.is_ours(hashes) => {
                if credentials::hashes_of(hashes).is_some() {
                    // Of a technical user of that name that was deleted: it is swept first.
                    decision
                        .writes
                        .push(Write::Delete(Object::Secret(Box::new(hashes.clone()))));
                    return Err(Conditions::reconciling(
                        r::PROGRESSING,
                        "The hashes of an earlier technical user of this name are being deleted.",
                    ));
                }
                self.recheck(FOREIGN_RECHECK, decision);
                return Err(Conditions::stalled(
                    r::SECRET_NAME_CONFLICT,
                    "A Secret in the operator's namespace is in the way of this technical user's hashes, and was left as it is: a platform administrator has to delete it.",
                ));
            }
            hashes => hashes,
        };
        if let Some(revoked) = self.revoked() {
            return Err(self.stay_revoked(&revoked, hashes, decision));
        }
        // The target first: where two deliveries prove the hash, the one in use stays.
        let proof = standing
            .into_iter()
            .chain(&self.seen.deliveries)
            .find_map(DeliverySeen::proves);
        if let Some((plain, id)) = proof {
            if let Some(hashes) = hashes {
                self.relabel(hashes, decision);
            }
            self.deliver(standing, plain, id, decision);
            return Ok(());
        }
        self.renew(hashes, standing, decision);
        // Ready comes with the visit that sees it, so that status tells of what is there.
        Err(Conditions::reconciling(
            r::PROGRESSING,
            "A client secret is being made and delivered.",
        ))
    }

    /// Without their labels the server would not find the hashes; and they are no longer on their way
    /// out, if they were.
    fn relabel(&self, hashes: &Secret, decision: &mut Decision) {
        let mut after = hashes.clone();
        let template = credentials::hashes_template(self.user, self.settings)
            .metadata
            .labels;
        after
            .metadata
            .labels
            .get_or_insert_default()
            .extend(template.unwrap_or_default());
        credentials::keep(&mut after);
        if after.metadata != hashes.metadata {
            let object = Object::Secret(Box::new(after));
            decision.writes.push(Write::Replace(object, Fill::Nothing));
        }
    }

    fn is_ours(&self, hashes: &Secret) -> bool {
        credentials::hashes_of(hashes)
            .is_some_and(|(_, _, uid)| Some(uid) == self.user.uid().as_deref())
    }

    fn recheck(&self, after: SignedDuration, decision: &mut Decision) {
        let at = self.now.saturating_add(after).unwrap_or(Timestamp::MAX);
        decision.wake_at = decision.wake_at.into_iter().chain([at]).min();
    }

    /// A delivered secret works: it stands in the Secret of the right name with the right keys,
    /// and nowhere else.
    fn deliver(
        &self,
        standing: Option<&DeliverySeen>,
        plain: &Zeroizing<String>,
        id: &str,
        decision: &mut Decision,
    ) {
        let before = standing.map(|s| &*s.secret);
        let key = &self.user.secret_keys().client_secret;
        let after = self.delivery(id, before);
        let mut whole = after.clone();
        credentials::fill_delivery(&mut whole, key, plain);
        let fill = || Fill::Secret(key.clone(), plain.clone());
        let name = after.name_any();
        match before {
            Some(before) if credentials::same_delivery(before, &whole) => {}
            Some(_) => {
                decision
                    .writes
                    .push(Write::Replace(Object::Secret(Box::new(after)), fill()));
                decision.writes.push(Note::normal(
                    r::SECRET_REPAIRED,
                    format!(
                        "Secret {name} was brought up to date; the client secret in it is the same."
                    ),
                ));
            }
            None => {
                decision
                    .writes
                    .push(Write::Create(Object::Secret(Box::new(after)), fill()));
                decision.writes.push(Note::normal(
                    r::SECRET_REPAIRED,
                    format!("The client secret stands in Secret {name} now; it is the same."),
                ));
            }
        }
        if before.is_some() {
            for other in self
                .seen
                .deliveries
                .iter()
                .filter(|d| d.ours() && d.secret.name_any() != name)
            {
                decision.writes.push(Write::Delete(Object::Secret(Box::new(
                    (*other.secret).clone(),
                ))));
            }
        }
    }

    /// No delivered secret works: a new one is made, unless only the hash was lost.
    fn renew(
        &self,
        hashes: Option<&Secret>,
        standing: Option<&DeliverySeen>,
        decision: &mut Decision,
    ) {
        let stored = hashes
            .and_then(credentials::read_hashes)
            .unwrap_or_default();
        let id = self.next_id(&stored);
        let family = self.user.spec.family;
        let delivered = standing.and_then(|s| s.plain.as_ref());
        // Only a secret that we have delivered before: what somebody else has put there first is
        // no credential.
        let remembered = standing
            .and_then(|s| credentials::credential_id(&s.secret))
            .is_some_and(|id| self.remembered().any(|known| known == id));
        let only_the_hash_is_lost =
            self.was_revoked().is_none() && hashes.is_none() && delivered.is_some() && remembered;
        let mut after = hashes
            .cloned()
            .unwrap_or_else(|| credentials::hashes_template(self.user, self.settings));
        let template = credentials::hashes_template(self.user, self.settings);
        after.metadata.labels = template.metadata.labels;
        credentials::keep(&mut after);
        credentials::set_revoked(&mut after, None);
        let put = |fill| match hashes {
            Some(_) => Write::Replace(Object::Secret(Box::new(after)), fill),
            None => Write::Create(Object::Secret(Box::new(after)), fill),
        };
        let now = self.now;
        if let Some((plain, _)) = delivered.filter(|_| only_the_hash_is_lost) {
            let id = standing
                .and_then(|s| credentials::credential_id(&s.secret))
                .map_or(id, str::to_owned);
            decision.writes.push(put(Fill::HashOf {
                plain: plain.clone(),
                id,
                now,
            }));
            decision.writes.push(Note::warning(r::SECRET_REPAIRED, "The hash of the client secret was lost, and was made again from the delivered Secret: clients go on as before."));
            return;
        }
        let key = self.user.secret_keys().client_secret;
        let delivery = self.delivery(&id, standing.map(|s| &*s.secret));
        let name = delivery.name_any();
        let known = self
            .user
            .status
            .as_ref()
            .is_some_and(|s| !s.credentials.is_empty());
        // A hash is replaced only where its secret can be delivered: else a quota, say, would take
        // away what works.
        decision
            .writes
            .push(Write::TryOut(Object::Secret(Box::new(delivery.clone()))));
        decision.writes.push(put(Fill::NewHash { family, id, now }));
        decision.writes.push(match standing {
            Some(_) => Write::Replace(Object::Secret(Box::new(delivery)), Fill::NewSecret(key)),
            None => Write::Create(Object::Secret(Box::new(delivery)), Fill::NewSecret(key)),
        });
        decision.writes.push(if self.was_revoked().is_some() {
            Note::normal(r::CREDENTIAL_CREATED, format!("Made a new client secret after the revocation, as the annotation asks; it stands in Secret {name}."))
        } else if known {
            let what = if standing.is_some() { "altered" } else { "deleted" };
            Note::warning(r::CREDENTIAL_REPLACED, format!("Secret {name} was {what}, and the client secret in it is kept nowhere else: a new one stands there now, and the old one no longer works. The client id is the same."))
        } else {
            Note::normal(r::CREDENTIAL_CREATED, format!("Made a client secret; it stands in Secret {name}."))
        });
    }

    /// Credentials are numbered; a number is not used again while anything remembers it.
    fn next_id(&self, stored: &[StoredCredential]) -> String {
        let delivered = self
            .seen
            .deliveries
            .iter()
            .filter_map(|d| credentials::credential_id(&d.secret));
        let ids = stored
            .iter()
            .map(|c| c.id.as_str())
            .chain(self.remembered())
            .chain(delivered);
        let highest = ids
            .filter_map(|id| id.parse::<u32>().ok())
            .max()
            .unwrap_or(0);
        u64::from(highest).saturating_add(1).to_string()
    }

    /// The ids of the credentials that status tells of.
    fn remembered(&self) -> impl Iterator<Item = &str> {
        let status = self.user.status.iter();
        status.flat_map(|s| &s.credentials).map(|c| c.id.as_str())
    }

    fn delivery(&self, id: &str, before: Option<&Secret>) -> Secret {
        credentials::delivery(self.user, self.settings, id, before)
    }
}
