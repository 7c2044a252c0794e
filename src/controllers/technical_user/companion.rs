//! The companion agent of a device: a technical user that goes with it. The device's visit makes it,
//! keeps it as the device says, and deletes it where the device asks for it no more; that it goes with
//! the device is the garbage collector's work. Its own visits see its device: what is suspended or
//! revoked is so with its companion.
//!
//! A technical user of that name which was not made for the device is never touched. One that was, and that
//! nobody owns, as after a restore, is taken over.

mod device;

use std::sync::Arc;

use kube::ResourceExt;
use kube::api::ObjectMeta;

pub use self::device::{Device, DeviceSeen};
use super::{COLLECTED_RECHECK, FOREIGN_RECHECK, Sight, Visit};
use crate::api::v1alpha1::{
    CompanionAgent, CompanionStatus, Credential, SecretCredential, SecretRotation, TechnicalUser,
    TechnicalUserSpec,
};
use crate::controllers::operator::Context;
use crate::controllers::{Decision, Error, Fill, Note, Object, Write};
use crate::domain::client::Family;
use crate::domain::names::{COMPANION_LABEL, PART_COMPANION};
use crate::domain::reasons as r;
use crate::objects::{Ownership, labels, owner, ownership};
use crate::stores::Guarded;

/// What there is to see of a device's companions, and of a companion's device.
#[derive(Clone, Debug, Default)]
pub struct Companionship {
    /// Of a device: the technical users that it controls, and the one of the name that its companion is
    /// to have.
    pub agents: Vec<Arc<TechnicalUser>>,
    /// Of a companion: its device.
    pub device: Device,
}

/// Looks at them.
pub async fn see(
    cx: &Context,
    user: &TechnicalUser,
    namespace: &str,
    sight: Sight,
) -> Result<Companionship, Error> {
    Ok(Companionship {
        agents: agents(cx, user, namespace, sight).await?,
        device: device::see(cx, user, namespace, sight).await?,
    })
}

async fn agents(
    cx: &Context,
    user: &TechnicalUser,
    namespace: &str,
    sight: Sight,
) -> Result<Vec<Arc<TechnicalUser>>, Error> {
    if user.spec.family != Family::Device {
        return Ok(Vec::new());
    }
    let (uid, wanted) = (user.uid().unwrap_or_default(), user.companion_name());
    let users = cx.stores.technical_users.state().into_iter();
    let of_namespace = users.filter_map(|other| {
        let other = other.0.as_ref().ok()?;
        let here = other.metadata.namespace.as_deref() == Some(namespace);
        let named = wanted.as_ref() == Some(&other.name_any());
        let owned = || ownership(&other.metadata, &uid) == Ownership::Ours;
        (here && (named || owned())).then(|| other.clone())
    });
    let mut agents: Vec<TechnicalUser> = of_namespace.collect();
    agents.sort_by_key(ResourceExt::name_any);
    if sight == Sight::Live {
        let mut names: Vec<String> = agents.iter().map(ResourceExt::name_any).collect();
        names.extend(wanted.filter(|name| !names.contains(name)));
        agents.clear();
        for name in names {
            agents.extend(live(cx, namespace, &name).await?);
        }
    }
    Ok(agents.into_iter().map(Arc::new).collect())
}

async fn live(cx: &Context, namespace: &str, name: &str) -> Result<Option<TechnicalUser>, Error> {
    let found = cx.get::<Guarded<TechnicalUser>>(namespace, name).await?;
    Ok(found.and_then(|found| found.0.ok()))
}

/// The companion as the device wants it, over what is there.
fn agent(
    device: &TechnicalUser,
    wanted: &CompanionAgent,
    before: Option<&TechnicalUser>,
    environment: &str,
) -> TechnicalUser {
    let mut after = before.cloned().unwrap_or_else(|| TechnicalUser {
        metadata: ObjectMeta {
            name: device.companion_name(),
            namespace: device.namespace(),
            ..ObjectMeta::default()
        },
        spec: TechnicalUserSpec {
            client_id: None,
            family: Family::Agent,
            roles: Vec::new(),
            scopes: Vec::new(),
            audiences: Vec::new(),
            token_ttl: None,
            token_rate: None,
            signing_key: None,
            suspended: false,
            introspect: false,
            on_behalf_of: false,
            companion_agent: None,
            credential: Credential {
                secret: Some(SecretCredential::default()),
                ..Credential::default()
            },
        },
        status: None,
    });
    after.metadata.owner_references = owner(device);
    let all_labels = after.metadata.labels.get_or_insert_default();
    all_labels.extend(labels(environment, PART_COMPANION));
    all_labels.insert(COMPANION_LABEL.into(), device.name_any());
    let (spec, of_device) = (&mut after.spec, &device.spec);
    spec.roles.clone_from(&wanted.roles);
    spec.scopes.clone_from(&wanted.scopes);
    let audiences = wanted.audiences.as_ref();
    spec.audiences
        .clone_from(audiences.unwrap_or(&of_device.audiences));
    spec.token_ttl = wanted.token_ttl;
    // No companion has them: they are not among what a device can pass on.
    spec.introspect = false;
    spec.on_behalf_of = false;
    spec.signing_key.clone_from(&of_device.signing_key);
    if let Some(secret) = &mut spec.credential.secret {
        secret.rotation = rotation_of(device, secret);
    }
    after
}

/// The rotation of a device's client secret, as far as its companion's can have it: by whoever supplies
/// that it is rotated too.
fn rotation_of(device: &TechnicalUser, agents: &SecretCredential) -> Option<SecretRotation> {
    let rotation = device.secret_credential()?.rotation.clone()?;
    if !agents.is_supplied() {
        return Some(rotation);
    }
    rotation.grace_period.map(|grace_period| SecretRotation {
        interval: None,
        grace_period: Some(grace_period),
    })
}

/// What of a companion is not as its device says.
fn differs(before: &TechnicalUser, after: &TechnicalUser) -> Vec<&'static str> {
    let (b, a) = (&before.spec, &after.spec);
    let rotation = |user: &TechnicalUser| {
        let secret = user.secret_credential();
        secret.and_then(|secret| secret.rotation.clone())
    };
    [
        ("labels", before.metadata.labels != after.metadata.labels),
        (
            "its owner",
            before.metadata.owner_references != after.metadata.owner_references,
        ),
        ("roles", b.roles != a.roles),
        ("scopes", b.scopes != a.scopes),
        ("audiences", b.audiences != a.audiences),
        ("introspect", b.introspect != a.introspect),
        ("onBehalfOf", b.on_behalf_of != a.on_behalf_of),
        ("tokenTtl", b.token_ttl != a.token_ttl),
        ("signingKey", b.signing_key != a.signing_key),
        (
            "credential.secret.rotation",
            rotation(before) != rotation(after),
        ),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}

impl Visit<'_> {
    /// Brings a device's companion to what the device says of it. Gives what stands against that.
    pub(super) fn companion(&self, decision: &mut Decision) -> Option<(&'static str, String)> {
        let name = self.user.companion_name();
        let agents = &self.seen.companionship.agents;
        let is_wanted = |agent: &TechnicalUser| name.as_ref() == Some(&agent.name_any());
        let standing = agents.iter().find(|agent| is_wanted(agent));
        if let Some(taken) = standing.filter(|standing| self.is_taken(standing)) {
            return Some(self.taken(taken, decision));
        }
        let Some((wanted, name)) = self.user.spec.companion_agent.as_ref().zip(name.as_ref())
        else {
            self.delete_formers("as spec.companionAgent asks for it no more", decision);
            return None;
        };
        let environment = &self.settings.environment;
        let Some(standing) = standing else {
            let agent = agent(self.user, wanted, None, environment);
            let object = Object::TechnicalUser(Box::new(agent));
            decision.writes.push(Write::Create(object, Fill::Nothing));
            let told = format!("Made the companion agent {name}, as spec.companionAgent asks.");
            decision
                .writes
                .push(Note::normal(r::COMPANION_CREATED, told));
            return None;
        };
        if standing.metadata.deletion_timestamp.is_some() || self.is_of_earlier(standing) {
            // It is being collected: of an earlier device of this name, say.
            self.recheck(COLLECTED_RECHECK, decision);
            return None;
        }
        self.keep(standing, wanted, decision);
        // Last: that the new one could not be made is no reason to take away what works.
        self.delete_formers("as it is another one now", decision);
        None
    }

    fn delete_formers(&self, why: &str, decision: &mut Decision) {
        for former in self.formers() {
            let object = Object::TechnicalUser(Box::new((**former).clone()));
            decision.writes.push(Write::Delete(object));
            let name = former.name_any();
            decision.writes.push(Note::normal(
                r::COMPANION_DELETED,
                format!("Deleted the companion agent {name}, {why}: it gets no more tokens."),
            ));
        }
    }

    /// Brings a companion to what the device says of it.
    fn keep(&self, standing: &TechnicalUser, wanted: &CompanionAgent, decision: &mut Decision) {
        let after = agent(
            self.user,
            wanted,
            Some(standing),
            &self.settings.environment,
        );
        let changed = differs(standing, &after);
        if changed.is_empty() {
            return;
        }
        let object = Object::TechnicalUser(Box::new(after));
        decision.writes.push(Write::Replace(object, Fill::Nothing));
        let name = standing.name_any();
        decision.writes.push(if self.is_lost(standing) {
            Note::normal(
                r::COMPANION_ADOPTED,
                format!("Took over the companion agent {name}, which was made for a device of this name and had no owner, as after a restore: it goes with this device."),
            )
        } else {
            let changed = changed.join(", ");
            Note::normal(
                r::COMPANION_UPDATED,
                format!("Brought the companion agent {name} to what this device says of it: {changed}."),
            )
        });
    }

    /// The name that the companion is to have is another's. One that was made under another name goes on.
    fn taken(&self, standing: &TechnicalUser, decision: &mut Decision) -> (&'static str, String) {
        self.recheck(FOREIGN_RECHECK, decision);
        let mut goes_on = None;
        for former in self.formers() {
            if let Some(wanted) = &self.user.spec.companion_agent {
                self.keep(former, wanted, decision);
            }
            goes_on = goes_on.or(Some(former.name_any()));
        }
        let what = match goes_on {
            Some(former) => format!("The companion agent goes on as {former}"),
            None => "There is no companion agent".to_owned(),
        };
        let name = standing.name_any();
        (
            r::COMPANION_NAME_CONFLICT,
            format!(
                "{what}: TechnicalUser {name} exists, was not made for this device, and was left as it is. Set companionAgent.name to another name, or delete that TechnicalUser."
            ),
        )
    }

    /// Companions of this device that have another name than it asks for.
    fn formers(&self) -> impl Iterator<Item = &Arc<TechnicalUser>> {
        let name = self.user.companion_name();
        let agents = self.seen.companionship.agents.iter();
        agents.filter(move |agent| {
            name.as_ref() != Some(&agent.name_any())
                && self.is_mine(agent)
                && agent.metadata.deletion_timestamp.is_none()
        })
    }

    /// Whether a technical user is neither this device's nor about to go.
    fn is_taken(&self, standing: &TechnicalUser) -> bool {
        let goes = standing.metadata.deletion_timestamp.is_some() || self.is_of_earlier(standing);
        !self.is_mine(standing) && !self.is_lost(standing) && !goes
    }

    /// Whether it was made for a device of this name, and nobody owns it.
    fn is_lost(&self, agent: &TechnicalUser) -> bool {
        agent.owner_references().is_empty()
            && agent.orphan_of() == Some(&self.user.name_any())
            && agent.spec.family == Family::Agent
    }

    /// Whether it is of an earlier device of this name, and is being collected.
    fn is_of_earlier(&self, agent: &TechnicalUser) -> bool {
        agent.companion_of().is_some_and(|(of, uid)| {
            of == self.user.name_any() && self.user.uid().as_deref() != Some(uid)
        })
    }

    /// What status tells of the companion, once it is there.
    pub(super) fn companion_status(&self) -> Option<CompanionStatus> {
        let name = self.user.companion_name()?;
        let agents = &self.seen.companionship.agents;
        let taken = |agent: &&Arc<TechnicalUser>| agent.name_any() == name && self.is_taken(agent);
        let standing = if agents.iter().any(|agent| taken(&agent)) {
            self.formers().next()
        } else {
            let mut mine = agents.iter().filter(|agent| self.is_mine(agent));
            mine.find(|agent| agent.name_any() == name)
        }?;
        Some(CompanionStatus {
            client_id: standing.client_id(),
            name: standing.name_any(),
        })
    }

    fn is_mine(&self, agent: &TechnicalUser) -> bool {
        let uid = self.user.uid().unwrap_or_default();
        ownership(&agent.metadata, &uid) == Ownership::Ours
    }
}

#[cfg(test)]
mod tests;
