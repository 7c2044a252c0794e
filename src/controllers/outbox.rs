//! Brings home what servers have noted in the outbox: each entry is judged, what is sound goes into
//! the list that servers follow, and only then it leaves the outbox. A crash in between repeats
//! that, which comes to the same. What has expired leaves the list. That a companion agent is revoked
//! with its device follows from the note on the device's hashes, in the companion's own visits
//! (`technical_user/revoked.rs`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::operator::Context;
use super::{Decision, Error, Fill, Note, Object, Write};
use crate::api::v1alpha1::{ROTATE_ANNOTATION, RevokedStatus, TechnicalUser};
use crate::domain::client::Family;
use crate::domain::names::{OUTBOX, REVOCATIONS, credentials_secret};
use crate::domain::reasons as r;
use crate::domain::revocation::{Bounds, Device, Revocations, judge};
use crate::domain::rotation::LONGEST_REQUEST;
use crate::domain::settings::Settings;
use crate::objects::{annotation, credentials, revocations};
use crate::stores::Guarded;
use crate::tenancy::{Claim, Tenancy};

/// How long what has expired may stay: so that much of it goes in one write.
const TIDY: SignedDuration = SignedDuration::from_secs(15);
/// How soon to try again where there was no room.
const FULL: SignedDuration = SignedDuration::from_secs(30);
/// So many of what was refused are told one by one.
const MOST_TOLD: usize = 5;

/// What there is to see.
pub struct Seen {
    /// The outbox.
    pub outbox: Option<ConfigMap>,
    /// The list.
    pub list: Option<ConfigMap>,
    /// What a list held that was deleted since.
    pub lost: Revocations,
    /// Who may have which client id.
    pub tenancy: Arc<Tenancy>,
    /// The devices that have revoked themselves.
    pub devices: Vec<DeviceSeen>,
}

/// A device that has revoked itself.
pub struct DeviceSeen {
    /// It, if it is there.
    pub user: Option<TechnicalUser>,
    /// The Secret of the name that its hashes have.
    pub hashes: Option<Secret>,
    /// What the outbox says of it.
    pub noted: Device,
}

/// The list as this process last saw it, so that one that is deleted can be made again.
#[derive(Debug, Default)]
pub struct Remembered(Mutex<Option<(Option<String>, Revocations)>>);

impl Remembered {
    /// Compares with the list that stands there, which is remembered from now on: what it held before
    /// that was deleted, if it was. What somebody takes out of a list that stands is not lost.
    fn compare(&self, stands: Option<&ConfigMap>) -> Revocations {
        let mut before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = match (&*before, stands) {
            (Some((uid, _)), Some(stands)) if *uid == stands.uid() => Revocations::default(),
            (Some((_, held)), _) => held.clone(),
            (None, _) => Revocations::default(),
        };
        if let Some(stands) = stands {
            let (mut held, _) = revocations::read(stands);
            // Until it is written again.
            held.join(&lost);
            *before = Some((stands.uid(), held));
        }
        lost
    }
}

/// Looks at both at the API server: what is written is decided on what stands there. None where there
/// is not even the namespace.
pub async fn see(cx: &Context) -> Result<Option<Seen>, Error> {
    let namespace = cx.settings.operator_namespace.as_str();
    if cx
        .stores
        .namespaces
        .get(&ObjectRef::new(namespace))
        .is_none()
    {
        // Under `dev` a manifest brings it: its watch brings us back.
        return Ok(None);
    }
    // The outbox first: what another operator has brought home since then stands in the list.
    let mut seen = Seen {
        outbox: cx.get(namespace, OUTBOX).await?,
        list: cx.get(namespace, REVOCATIONS).await?,
        lost: Revocations::default(),
        tenancy: cx.tenancy(),
        devices: Vec::new(),
    };
    seen.lost = cx.revocations.compare(seen.list.as_ref());
    let now = cx.clock_guard.moment().now;
    for noted in judged(&seen, &Bounds::of(&cx.settings), now)
        .0
        .take_devices()
    {
        let claims = seen.tenancy.claims.get(&noted.client_id);
        let claim = claims.and_then(|claims| claims.first());
        let Some(Claim {
            namespace: of,
            name,
            ..
        }) = claim.cloned()
        else {
            // Its resource is gone, and its credential with it.
            continue;
        };
        let found = cx.get::<Guarded<TechnicalUser>>(&of, &name).await?;
        seen.devices.push(DeviceSeen {
            user: found.and_then(|user| user.0.ok()),
            hashes: cx.get(namespace, &credentials_secret(&of, &name)).await?,
            noted,
        });
    }
    Ok(Some(seen))
}

/// What of the outbox can be believed, and what is said of the rest.
fn judged(seen: &Seen, bounds: &Bounds, now: Timestamp) -> (Revocations, Vec<String>) {
    let noted = seen.outbox.as_ref().map(revocations::noted);
    let may_have = |tenant: &str, id: &str| seen.tenancy.may_be_of(tenant, id);
    judge(&noted.unwrap_or_default(), may_have, now, bounds)
}

/// Destroys the hashes of a device that has revoked itself, and notes it in their place.
fn revoke_device(
    device: &DeviceSeen,
    settings: &Settings,
    decision: &mut Decision,
) -> Option<String> {
    let DeviceSeen {
        user,
        hashes,
        noted,
    } = device;
    let user = user.as_ref()?;
    let created = user.metadata.creation_timestamp.as_ref();
    if created.is_some_and(|created| created.0.as_second() > noted.at) {
        // Another one of that name: it has a credential of its own.
        return None;
    }
    if user.spec.family != Family::Device {
        return Some(format!("{} is no device", user.client_id()));
    }
    let uid = user.uid();
    let ours = |secret: &&Secret| credentials::are_of_uid(secret, uid.as_deref());
    let before = hashes.as_ref().filter(ours);
    if hashes.is_some() && before.is_none() {
        // Not its own: there is nothing that works. Its controller tells.
        return None;
    }
    if before.and_then(credentials::revoked).is_some() {
        return None;
    }
    // It is back since: an outbox that could not be emptied at once still tells of it.
    let last = before.and_then(credentials::last_revocation);
    if last.is_some_and(|last| last.as_second() >= noted.at) {
        return None;
    }
    let at = Timestamp::from_second(noted.at).unwrap_or_default();
    let revoked = RevokedStatus {
        at: Time(at),
        reason: r::REVOKED_BY_DEVICE.into(),
        // A tenant writes it: what is longer than a request can be is none.
        rotate: annotation(&user.metadata, ROTATE_ANNOTATION)
            .filter(|value| value.len() <= LONGEST_REQUEST)
            .map(str::to_owned),
    };
    let template = || credentials::hashes_template(user, settings);
    let mut after = before.cloned().unwrap_or_else(template);
    credentials::set_revoked(&mut after, Some(&revoked));
    let object = Object::Secret(Box::new(after));
    decision.writes.push(match before {
        Some(_) => Write::Replace(object, Fill::Nothing),
        None => Write::Create(object, Fill::Nothing),
    });
    None
}

/// What to do.
pub fn decide(seen: &Seen, settings: &Settings, now: Timestamp) -> Decision {
    let bounds = Bounds::of(settings);
    let mut decision = Decision::default();
    let (mut sound, mut refused) = judged(seen, &bounds, now);
    sound.take_devices();
    // First of all: it is what can not be mended by waiting.
    for device in &seen.devices {
        refused.extend(revoke_device(device, settings, &mut decision));
    }
    let (before, broken) = seen
        .list
        .as_ref()
        .map(revocations::read)
        .unwrap_or_default();

    let mut held = before.clone();
    held.join(&seen.lost);
    let mut after = held.clone();
    after.join(&sound);
    for client in after.0.values_mut().flat_map(|of| of.values_mut()) {
        if client.tokens.len() > bounds.tokens_per_client {
            client.revoke_all(now.as_second(), &bounds);
        }
    }
    after.forget(now);
    let has_room = after.fit(now.as_second(), &bounds).is_ok();
    if !has_room {
        // The outbox keeps what does not fit, and servers obey it there meanwhile.
        after = held;
        after.forget(now);
    }
    let at = |span| now.saturating_add(span).unwrap_or(Timestamp::MAX);
    write_list(seen, (&before, &after), &broken, settings, &mut decision);
    if has_room {
        write_outbox(seen, &refused, settings, &mut decision);
    } else {
        decision.writes.push(Note::warning(
            r::REVOCATIONS_FULL,
            "The list of revoked tokens is full. Those in the outbox hold, and further ones are answered 503 until some have expired.",
        ));
        decision.wake_at = Some(at(FULL));
    }
    let tidy = after
        .next_expiry()
        .and_then(|next| next.checked_add(TIDY).ok());
    decision.wake_by(tidy);
    decision
}

fn write_list(
    seen: &Seen,
    (before, after): (&Revocations, &Revocations),
    broken: &[String],
    settings: &Settings,
    decision: &mut Decision,
) {
    let template = revocations::list(settings);
    let stands = seen.list.as_ref();
    let mut map = stands.cloned().unwrap_or_else(|| template.clone());
    let relabelled = relabel(&mut map, &template);
    map.data = revocations::write(after);
    if !broken.is_empty() {
        decision.writes.push(Note::warning(
            r::OUTBOX_ENTRY_REFUSED,
            format!(
                "{} shares of ConfigMap {REVOCATIONS} were altered by hand and can not be read: they are taken away, and servers go on with what they have seen of them.",
                broken.len()
            ),
        ));
    }
    let object = Object::ConfigMap(Box::new(map));
    match stands {
        None => decision.writes.push(Write::Create(object, Fill::Nothing)),
        Some(_) if relabelled || before != after || !broken.is_empty() => {
            decision.writes.push(Write::Replace(object, Fill::Nothing));
        }
        Some(_) => {}
    }
}

/// Empties the outbox of all that was judged: what is sound stands in the list by then.
fn write_outbox(seen: &Seen, refused: &[String], settings: &Settings, decision: &mut Decision) {
    let template = revocations::outbox(settings);
    leave_only(seen.outbox.as_ref(), BTreeMap::new(), template, decision);
    for told in refused.iter().take(MOST_TOLD) {
        decision.writes.push(Note::warning(
            r::OUTBOX_ENTRY_REFUSED,
            format!("What stood in the outbox was refused: {told}."),
        ));
    }
    if refused.len() > MOST_TOLD {
        let more = refused.len() - MOST_TOLD;
        decision.writes.push(Note::warning(
            r::OUTBOX_ENTRY_REFUSED,
            format!("{more} more entries of the outbox were refused."),
        ));
    }
}

/// Takes away all that servers have noted in an outbox but `left`, unless that is how it stands. One that is
/// not there is made.
pub(super) fn leave_only(
    stands: Option<&ConfigMap>,
    left: BTreeMap<String, String>,
    template: ConfigMap,
    decision: &mut Decision,
) {
    let Some(stands) = stands else {
        let object = Object::ConfigMap(Box::new(template));
        decision.writes.push(Write::Create(object, Fill::Nothing));
        return;
    };
    let mut map = stands.clone();
    let relabelled = relabel(&mut map, &template);
    let before = map.data.take().unwrap_or_default();
    let same = before == left && map.binary_data.is_none();
    (map.data, map.binary_data) = (Some(left).filter(|left| !left.is_empty()), None);
    if relabelled || !same {
        let object = Object::ConfigMap(Box::new(map));
        decision.writes.push(Write::Replace(object, Fill::Nothing));
    }
}

/// Without their labels servers would not see them. Whether there was anything to put right.
fn relabel(map: &mut ConfigMap, template: &ConfigMap) -> bool {
    let before = map.metadata.labels.clone();
    let ours = template.metadata.labels.clone().unwrap_or_default();
    map.metadata.labels.get_or_insert_default().extend(ours);
    map.metadata.labels != before
}

#[cfg(test)]
#[path = "outbox/tests.rs"]
mod tests;
