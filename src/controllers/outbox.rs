//! Brings home what servers have noted in the outbox: each entry is judged, what is sound goes into
//! the list that servers follow, and only then it leaves the outbox. A crash in between repeats
//! that, which comes to the same. What has expired leaves the list.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;

use super::operator::Context;
use super::{Decision, Error, Fill, Note, Object, Write};
use crate::domain::names::{OUTBOX, REVOCATIONS};
use crate::domain::reasons as r;
use crate::domain::revocation::{Bounds, Revocations, judge};
use crate::domain::settings::Settings;
use crate::objects::revocations;
use crate::tenancy::Tenancy;

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
    /// Who may have which client id.
    pub tenancy: Arc<Tenancy>,
}

/// Looks at both at the API server: what is written is decided on what stands there.
pub async fn see(cx: &Context) -> Result<Seen, Error> {
    let namespace = cx.settings.operator_namespace.as_str();
    // The outbox first: what another operator has brought home since then stands in the list.
    Ok(Seen {
        outbox: cx.get(namespace, OUTBOX).await?,
        list: cx.get(namespace, REVOCATIONS).await?,
        tenancy: cx.tenancy(),
    })
}

/// What to do.
pub fn decide(seen: &Seen, settings: &Settings, now: Timestamp) -> Decision {
    let bounds = Bounds::of(settings);
    let mut decision = Decision::default();
    let noted = seen.outbox.as_ref().map(revocations::noted);
    let noted = noted.unwrap_or_default();
    let may_have = |tenant: &str, id: &str| seen.tenancy.may_be_of(tenant, id);
    let (sound, refused) = judge(&noted, may_have, now, &bounds);
    let (before, broken) = seen
        .list
        .as_ref()
        .map(revocations::read)
        .unwrap_or_default();

    let mut after = before.clone();
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
        after = before.clone();
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
    decision.wake_at = decision.wake_at.into_iter().chain(tidy).min();
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
    let Some(stands) = &seen.outbox else {
        let object = Object::ConfigMap(Box::new(template));
        decision.writes.push(Write::Create(object, Fill::Nothing));
        return;
    };
    let mut map = stands.clone();
    let relabelled = relabel(&mut map, &template);
    let empty = map.data.as_ref().is_none_or(|data| data.is_empty()) && map.binary_data.is_none();
    (map.data, map.binary_data) = (None, None);
    if relabelled || !empty {
        let object = Object::ConfigMap(Box::new(map));
        decision.writes.push(Write::Replace(object, Fill::Nothing));
    }
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

/// Without their labels servers would not see them. Whether there was anything to put right.
fn relabel(map: &mut ConfigMap, template: &ConfigMap) -> bool {
    let before = map.metadata.labels.clone();
    let ours = template.metadata.labels.clone().unwrap_or_default();
    map.metadata.labels.get_or_insert_default().extend(ours);
    map.metadata.labels != before
}
