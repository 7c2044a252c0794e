//! A companion agent as the server knows it: never more than its device, whatever the operator has come
//! to write down. With its device it is suspended, revoked, and gone.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::{Feed, client, mine};
use crate::api::v1alpha1::TechnicalUser;
use crate::domain::client::Client;
use crate::domain::names::credentials_secret;
use crate::domain::subscription::cut_down;
use crate::objects::{Ownership, credentials, ownership};
use crate::stores::Stores;
use crate::tenancy::Tenancy;

impl Feed {
    /// A technical user's own hashes.
    pub(super) fn hashes(&self, user: &TechnicalUser) -> Option<Arc<Secret>> {
        let name = credentials_secret(&user.namespace().unwrap_or_default(), &user.name_any());
        let namespace = &self.settings.operator_namespace;
        Stores::get(&self.stores.secrets, namespace, &name).filter(|hashes| mine(user, hashes))
    }

    /// Whether a technical user revoked itself.
    pub(super) fn is_revoked(
        &mut self,
        user: &TechnicalUser,
        client: &Client,
        hashes: Option<&Secret>,
    ) -> bool {
        // What authenticates with a key is not destroyed: the note alone keeps it out.
        let noted = hashes.and_then(credentials::revoked).is_some();
        let created = user.metadata.creation_timestamp.as_ref().map(|at| at.0);
        self.revoked.is_revoked_device(client, created, hashes) || noted
    }

    /// Holds a companion to what its device has, and is.
    pub(super) fn go_with_device(
        &mut self,
        user: &TechnicalUser,
        hashes: Option<&Secret>,
        tenancy: &Tenancy,
        agent: &mut Client,
    ) {
        let Some((name, uid)) = user.companion_of() else {
            // Nothing bounds one that has lost its device, before a device adopts it.
            agent.suspended |= user.orphan_of().is_some();
            return;
        };
        let device = Stores::get(&self.stores.technical_users, &agent.namespace, name);
        let device = device.and_then(|device| device.0.as_ref().ok().cloned());
        // One without its client id could neither authenticate nor revoke its agent.
        let there = device.filter(|device| {
            device.metadata.uid.as_deref() == Some(uid)
                && device.metadata.deletion_timestamp.is_none()
                && tenancy.has_its_client_id(device)
        });
        let Some((device, wanted)) =
            there.and_then(|device| Some((device.clone(), device.spec.companion_agent?)))
        else {
            agent.suspended = true;
            return;
        };
        let of_device = self.hashes(&device);
        let of_device = of_device.as_deref();
        let its = client(&device, of_device, agent.subscriptions.clone());
        // Its device was revoked, and its own hashes are those from before.
        let last = of_device.and_then(credentials::last_revocation);
        let overtaken = last.is_some()
            && hashes.is_some_and(|hashes| credentials::last_revocation(hashes) != last);
        let revoked = self.is_revoked(&device, &its, of_device);
        agent.suspended |= its.suspended || revoked || overtaken;
        agent.introspect = false;
        agent.on_behalf_of = false;
        // Whoever edits the agent is not faster than the operator, which puts these back.
        agent.token_ttl = wanted.token_ttl;
        agent.signing_key.clone_from(&its.signing_key);
        let audiences = wanted.audiences.as_ref().unwrap_or(&its.audiences);
        for (agents, allowed) in [
            (&mut agent.roles, [&its.roles, &wanted.roles]),
            (&mut agent.scopes, [&its.scopes, &wanted.scopes]),
            (&mut agent.audiences, [&its.audiences, audiences]),
        ] {
            for allowed in allowed {
                let kept = cut_down(agents, allowed).into_iter();
                *agents = kept.map(str::to_owned).collect();
            }
        }
    }

    /// The client id of a device's companion, if it is there.
    pub(super) fn companion(&self, device: &TechnicalUser) -> Option<String> {
        let namespace = device.namespace().unwrap_or_default();
        let agent = Stores::get(
            &self.stores.technical_users,
            &namespace,
            &device.companion_name()?,
        )?;
        let agent = agent.0.as_ref().ok()?;
        let its = ownership(&agent.metadata, &device.uid()?) == Ownership::Ours;
        its.then(|| agent.client_id())
    }
}
