//! What is told of a write that the API server refuses.

use jiff::Timestamp;
use tracing::debug;

use super::live;
use crate::api::v1alpha1::{Conditions, Observed};
use crate::controllers::apply::{Applied, Applier};
use crate::controllers::operator::Context;
use crate::controllers::{Error, Key, Kind, Write, status};
use crate::domain::reasons as r;

/// What of a status hangs on a write that was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HangsOn {
    /// It tells of what was to be written.
    This,
    /// All that it tells of was written before; but for whether all is well.
    WhatIsWritten,
    /// Nothing at all.
    Nothing,
}

/// A write that the API server refuses (a quota, an admission policy, a missing right) is for a
/// person to mend: status says so, beside the log. `decided` is the status that the visit came to.
pub(super) async fn tell_refusal(
    cx: &Context,
    key: &Key,
    error: &Error,
    (decided, hangs_on): (Option<Write>, HangsOn),
    now: Timestamp,
) {
    if matches!(key.kind, Kind::Outbox | Kind::Enrolments | Kind::WantedKeys) {
        // It has no status; the log tells of it.
        return;
    }
    let Ok(Some(live)) = live(cx, key).await else {
        return;
    };
    let message = format!("The API server refused what this needs: {error}. It is tried again.");
    let observed = Observed {
        generation: live.metadata.generation.unwrap_or(0),
        now,
    };
    let decided = match decided {
        Some(Write::Status {
            resource_version,
            status,
        }) if Some(&resource_version) == live.metadata.resource_version.as_ref() => Some(status),
        _ => None,
    };
    let rest = decided.as_ref().filter(|_| hangs_on != HangsOn::This);
    // Whether a client secret works, the visit has come to say before it was refused another one.
    let readiness = match key.kind {
        Kind::TechnicalUser => decided.as_ref(),
        _ => rest,
    };
    let ready = status::ready_in(readiness.unwrap_or(&live.data["status"]));
    let conditions = match (key.kind, ready) {
        // What works goes on working: a ring, a client secret, a provider's keys.
        (Kind::SigningKey | Kind::TechnicalUser | Kind::OidcProvider, Some(before)) => {
            let stalled = (r::WRITE_REFUSED, message.clone());
            Conditions::ready_but_stalled((r::SUCCEEDED, before), stalled)
        }
        _ => Conditions::stalled(r::WRITE_REFUSED, message.clone()),
    };
    let mut applier = Applier::new(cx, key);
    let writes = match hangs_on {
        HangsOn::Nothing => status::with_refusal(&live, rest, &message, observed),
        _ => status::with_conditions(&live, rest, &conditions, observed),
    };
    for write in writes {
        if let Write::Event(note) = write {
            let told = cx.events.tell(key, live.metadata.uid.clone(), note);
            cx.leadership.while_leading(told).await;
            continue;
        }
        match applier.apply(write).await {
            Ok(Applied::Done) => {}
            Ok(Applied::LookAgain) => return,
            Err(error) => {
                debug!(?key, %error, "the refusal could not be told in status either");
                return;
            }
        }
    }
}
