//! A timetable for programs. The names of the fields do not change; docs/rotation.md tells of them.

use jiff::Timestamp;
use serde::Serialize;

use super::{Plan, Ring, period};
use crate::domain::rotation::timetable::{Event, KeyTimes};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    from: Timestamp,
    until: Timestamp,
    rings: Vec<RingJson<'a>>,
    transitions: Vec<TransitionJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RingJson<'a> {
    namespace: &'a str,
    name: &'a str,
    file: &'a str,
    policy: PolicyJson,
    keys: Vec<KeyJson>,
    /// Where it ends early.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_at: Option<Timestamp>,
    notes: &'a [String],
}

/// What holds, which may be longer than what the spec says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase", rename = "Policy")]
struct PolicyJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    publish_lead: String,
    grace_period: String,
    retention: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_to: Option<Timestamp>,
}

/// The times of a key; what does not happen in time is absent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyJson {
    key: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    made_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signs_from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retired_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leaves_jwks_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct TransitionJson<'a> {
    at: Timestamp,
    namespace: &'a str,
    ring: &'a str,
    key: i64,
    what: &'static str,
    why: String,
}

/// The document, indented.
pub fn render(plan: &Plan) -> Result<String, String> {
    let transitions = plan.rows().into_iter().map(|(ring, row)| TransitionJson {
        at: row.at,
        namespace: &ring.namespace,
        ring: &ring.name,
        key: row.key,
        what: row.event.name(),
        why: row.why.to_string(),
    });
    let document = Document {
        from: plan.from,
        until: plan.until,
        rings: plan.rings.iter().map(ring_json).collect(),
        transitions: transitions.collect(),
    };
    let text = serde_json::to_string_pretty(&document).map_err(|e| e.to_string())?;
    Ok(text + "\n")
}

fn ring_json(ring: &Ring) -> RingJson<'_> {
    let policy = &ring.policy;
    RingJson {
        namespace: &ring.namespace,
        name: &ring.name,
        file: &ring.file,
        policy: PolicyJson {
            interval: policy.interval.map(|i| period(i).to_string()),
            publish_lead: period(policy.lead()).to_string(),
            grace_period: period(ring.grace()).to_string(),
            retention: period(policy.retention).to_string(),
            valid_from: policy.window.from,
            valid_to: policy.window.to,
        },
        keys: ring.timetable.keys().iter().map(key_json).collect(),
        cut_at: ring.timetable.cut,
        notes: &ring.notes,
    }
}

fn key_json(key: &KeyTimes) -> KeyJson {
    KeyJson {
        key: key.key,
        made_at: key.at(Event::Made),
        published_at: key.at(Event::Published),
        signs_from: key.at(Event::Signs),
        retired_at: key.at(Event::Retired),
        leaves_jwks_at: key.at(Event::LeavesJwks),
        deleted_at: key.at(Event::Deleted),
    }
}
