//! get and list.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::field::FieldError;
use super::kinds::Kind;
use super::request::{Options, key};
use super::status::Refusal;
use super::store::{Object, State};

/// One object.
pub fn get(
    state: &State,
    kind: &Kind,
    namespace: &str,
    name: &str,
    options: &Options,
) -> Result<Value, Refusal> {
    if let Some(version) = asked_version(options)? {
        not_ahead(state, version)?;
    }
    state
        .get(kind, &key(namespace, name))
        .map(|object| object.value.clone())
        .ok_or_else(|| Refusal::not_found(kind, name))
}

/// A `resourceVersion` as a number; "0" means any version, as `None` does.
pub fn parse_version(text: Option<&str>) -> Result<Option<u64>, FieldError> {
    match text {
        None | Some("0") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
            FieldError::invalid("resourceVersion", text, why)
        }),
    }
}

fn asked_version(options: &Options) -> Result<Option<u64>, Refusal> {
    parse_version(options.resource_version.as_deref()).map_err(|error| {
        Refusal::bad_request(format!(
            "invalid resource version: {}: {}",
            error.field,
            error.body()
        ))
    })
}

fn not_ahead(state: &State, version: u64) -> Result<(), Refusal> {
    if version > state.version() {
        return Err(Refusal::too_large_resource_version(
            version,
            state.version(),
        ));
    }
    Ok(())
}

/// A list, whole or one page of it.
pub fn list(
    state: &State,
    kind: &Kind,
    namespace: Option<&str>,
    options: &Options,
) -> Result<Value, Refusal> {
    if options.send_initial_events.is_some() {
        return Err(list_options(&[FieldError::forbidden(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        )]));
    }
    let asked = asked_version(options)?;
    let matching = options.resource_version_match.as_deref();
    if matching.is_some() && options.resource_version.is_none() {
        return Err(list_options(&[FieldError::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )]));
    }
    let mut version = state.version();
    let mut start = Bound::Unbounded;
    if let Some(token) = &options.continue_token {
        let (from, at) = decode_token(token)?;
        start = Bound::Excluded(from);
        // -1 stands in a token that an "Expired" answer gave: go on with what is there now.
        version = at.unwrap_or(version);
    } else if let Some(asked) = asked {
        not_ahead(state, asked)?;
        let paged = options.limit > 0 && matching.is_none();
        if matching == Some("Exact") || paged {
            version = asked;
        }
    }
    let snapshot;
    let objects: &BTreeMap<String, Arc<Object>> = if version == state.version() {
        state.all(kind)
    } else {
        snapshot = state
            .all_at(kind, version)
            .ok_or_else(|| expired(options))?;
        &snapshot
    };
    let prefix = namespace.map(|n| format!("{n}/")).unwrap_or_default();
    let from = match (&start, prefix.as_str()) {
        (Bound::Unbounded, prefix) if !prefix.is_empty() => Bound::Included(prefix.to_owned()),
        _ => start,
    };
    let mut selected = objects
        .range((from, Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(&prefix))
        .filter(|(_, object)| options.selector.matches(&object.value));
    let mut items = Vec::new();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    let mut last = None;
    let limit = if options.limit == 0 {
        usize::MAX
    } else {
        options.limit
    };
    for (key, object) in selected.by_ref().take(limit) {
        let mut item = object.value.clone();
        if kind.builtin().is_some()
            && let Value::Object(map) = &mut item
        {
            // The real server leaves these out of the items of built-in kinds' lists.
            map.remove("apiVersion");
            map.remove("kind");
        }
        items.push(item);
        last = Some(key);
    }
    let remaining = selected.count();
    if let (Some(last), true) = (last, remaining > 0) {
        metadata["continue"] = json!(encode_token(last, i64::try_from(version).unwrap_or(-1)));
        if options.selector.is_empty() {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    Ok(json!({
        "kind": format!("{}List", kind.kind),
        "apiVersion": kind.api_version(),
        "metadata": metadata,
        "items": items,
    }))
}

/// Whether an `Accept` asks for no more than the metadata of what is listed.
pub fn wants_metadata(accept: &str) -> bool {
    let mut parameters = accept.split(';').map(str::trim);
    parameters.any(|p| p == "as=PartialObjectMetadataList")
}

/// A list with the metadata of its items alone.
pub fn metadata_only(mut list: Value) -> Value {
    list["kind"] = json!("PartialObjectMetadataList");
    list["apiVersion"] = json!("meta.k8s.io/v1");
    for item in list["items"].as_array_mut().into_iter().flatten() {
        *item = json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": item["metadata"].take(),
        });
    }
    list
}

fn list_options(errors: &[FieldError]) -> Refusal {
    Refusal::invalid("meta.k8s.io", "ListOptions", "", errors)
}

fn expired(options: &Options) -> Refusal {
    let Some((from, _)) = options
        .continue_token
        .as_deref()
        .and_then(|t| decode_token(t).ok())
    else {
        return Refusal::expired("The resourceVersion for the provided list is too old.");
    };
    let mut refusal = Refusal::expired(
        "The provided continue parameter is too old to display a consistent list result. You can \
         start a new list without the continue parameter, or use the continue token in this response \
         to retrieve the remainder of the results. Continuing with the provided token results in an \
         inconsistent list - objects that were created, modified, or deleted between the time the \
         first chunk was returned and now may show up in the list.",
    );
    refusal.continue_token = Some(encode_token(&from, -1));
    refusal
}

fn encode_token(last: &str, version: i64) -> String {
    URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": version, "start": last}).to_string())
}

fn decode_token(token: &str) -> Result<(String, Option<u64>), Refusal> {
    let read = || -> Option<(String, i64)> {
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        Some((value["start"].as_str()?.to_owned(), value["rv"].as_i64()?))
    };
    let (start, version) = read().ok_or_else(|| {
        Refusal::bad_request("continue key is not valid: it is not one of this server's")
    })?;
    Ok((start, u64::try_from(version).ok()))
}
