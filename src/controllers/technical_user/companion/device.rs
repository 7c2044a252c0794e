//! What a companion agent sees of its device, without which it is nothing: what is suspended or revoked,
//! or may not have its client id, is so with its companion.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use super::live;
use crate::api::v1alpha1::{Conditions, ROTATE_ANNOTATION, RevokedStatus, TechnicalUser};
use crate::controllers::operator::Context;
use crate::controllers::technical_user::{FOREIGN_RECHECK, Sight, Visit};
use crate::controllers::{Decision, Error};
use crate::domain::client::Family;
use crate::domain::names::{COMPANION_LABEL, credentials_secret};
use crate::domain::reasons as r;
use crate::objects::{annotation, credentials};
use crate::stores::Stores;

/// The device of a companion.
#[derive(Clone, Debug, Default)]
pub enum Device {
    /// It is nobody's companion.
    #[default]
    None,
    /// Its device is gone, or being deleted.
    Gone(String),
    /// It was made as a companion, and no device owns it any more.
    Lost {
        /// The name of the device that it was made for.
        name: String,
        /// Whether a device of that name is there which asks for a companion of this name.
        adopts: bool,
    },
    /// Its device is there.
    There(DeviceSeen),
}

/// What a companion has to know of its device.
#[derive(Clone, Debug)]
pub struct DeviceSeen {
    /// Its name.
    pub name: String,
    /// Whether it is suspended.
    pub suspended: bool,
    /// Whether it asks for a companion at all.
    pub asks: bool,
    /// Whether its client id is its own.
    pub has_client_id: bool,
    /// That it is revoked.
    pub revoked: Option<RevokedStatus>,
    /// When it was last revoked, whether that is over or not.
    pub last_revocation: Option<Timestamp>,
}

pub(super) async fn see(
    cx: &Context,
    user: &TechnicalUser,
    namespace: &str,
    sight: Sight,
) -> Result<Device, Error> {
    let Some((name, uid)) = user.companion_of() else {
        return Ok(match user.orphan_of() {
            Some(name) => Device::Lost {
                adopts: asks_for(cx, namespace, name, user),
                name: name.to_owned(),
            },
            None => Device::None,
        });
    };
    let (own, hashes_name) = (
        cx.settings.operator_namespace.as_str(),
        credentials_secret(namespace, name),
    );
    let (device, hashes) = match sight {
        Sight::Watched => (
            Stores::get(&cx.stores.technical_users, namespace, name)
                .and_then(|found| found.0.as_ref().ok().cloned()),
            Stores::get(&cx.stores.secrets, own, &hashes_name),
        ),
        Sight::Live => (
            live(cx, namespace, name).await?,
            cx.get::<Secret>(own, &hashes_name).await?.map(Arc::new),
        ),
    };
    let there = device.filter(|device| {
        device.metadata.uid.as_deref() == Some(uid) && device.metadata.deletion_timestamp.is_none()
    });
    let Some(there) = there else {
        return Ok(Device::Gone(name.to_owned()));
    };
    let ours = |hashes: &Arc<Secret>| credentials::are_of_uid(hashes, Some(uid));
    let hashes = hashes.filter(ours);
    let revoked = revocation_of(&there, hashes.as_deref());
    let last = hashes.as_deref().and_then(credentials::last_revocation);
    let tenancy = cx.tenancy();
    Ok(Device::There(DeviceSeen {
        name: name.to_owned(),
        suspended: there.spec.suspended,
        asks: there.spec.companion_agent.is_some(),
        has_client_id: tenancy.has_its_client_id(&there),
        last_revocation: last.or(revoked.as_ref().map(|r| r.at.0)),
        revoked,
    }))
}

/// Whether the device is there, and asks for a companion of that technical user's name.
fn asks_for(cx: &Context, namespace: &str, device: &str, companion: &TechnicalUser) -> bool {
    let device = Stores::get(&cx.stores.technical_users, namespace, device);
    let device = device.as_deref().and_then(|found| found.0.as_ref().ok());
    device.is_some_and(|device| {
        device.metadata.deletion_timestamp.is_none()
            && companion.spec.family == Family::Agent
            && companion.owner_references().is_empty()
            && device.companion_name().as_ref() == Some(&companion.name_any())
    })
}

/// That a device is revoked, as far as that has been acted upon: its hashes say so, or its status, where a
/// backup of them was put back. Status is behind for a moment once a person has asked for the device back.
pub(super) fn revocation_of(
    device: &TechnicalUser,
    hashes: Option<&Secret>,
) -> Option<RevokedStatus> {
    let asked = annotation(&device.metadata, ROTATE_ANNOTATION).filter(|value| !value.is_empty());
    let told = || device.status.as_ref()?.revoked.clone();
    let stays = |revoked: &RevokedStatus| asked.is_none() || asked == revoked.rotate.as_deref();
    let noted = hashes.and_then(credentials::revoked);
    noted.or_else(|| told().filter(stays))
}

impl Visit<'_> {
    /// Of a companion: its device, if that is there.
    pub(in super::super) fn device(&self) -> Option<&DeviceSeen> {
        match &self.seen.companionship.device {
            Device::There(device) => Some(device),
            Device::None | Device::Gone(_) | Device::Lost { .. } => None,
        }
    }

    /// Of a companion that no device stands for: it gets no token, and nothing is done for it.
    pub(in super::super) fn on_its_own(&self, decision: &mut Decision) -> Option<Conditions> {
        if let Device::Lost { .. } = &self.seen.companionship.device {
            // A device that went, or has changed its mind, brings nobody here.
            self.recheck(FOREIGN_RECHECK, decision);
        }
        let waits = |why: String| {
            let message = format!("No token is issued: {why}.");
            Some(Conditions::reconciling(r::PROGRESSING, message))
        };
        match &self.seen.companionship.device {
            Device::Gone(device) => {
                waits(format!("its device {device} is gone, and it goes with it"))
            }
            Device::There(DeviceSeen { name, asks, .. }) if !asks => {
                waits(format!("its device {name} asks for no companion agent"))
            }
            Device::Lost { name, adopts: true } => {
                waits(format!("its device {name} is about to take it over"))
            }
            Device::Lost { name: device, .. } => {
                let (name, namespace) = (self.user.name_any(), self.user.namespace());
                let namespace = namespace.unwrap_or_default();
                Some(Conditions::stalled(
                    r::COMPANION_ORPHANED,
                    format!(
                        "No token is issued: this was made as the companion agent of device {device}, which does not own it any more, and no device of that name asks for it. Delete it; or make the device again, with spec.companionAgent.name {name}, and it is taken over; or, to keep it as a technical user of its own: kubectl label technicaluser {name} -n {namespace} {COMPANION_LABEL}-"
                    ),
                ))
            }
            Device::None | Device::There(_) => None,
        }
    }

    /// Of a companion: that its device could neither authenticate nor revoke it.
    pub(in super::super) fn nameless_device(&self) -> Option<(&'static str, String)> {
        let device = self.device().filter(|device| !device.has_client_id)?;
        Some((
            r::CLIENT_ID_NOT_ALLOWED,
            format!(
                "No token is issued: its device {} does not have its own client id, and could not revoke this agent. The status of that device says what to do.",
                device.name
            ),
        ))
    }
}
