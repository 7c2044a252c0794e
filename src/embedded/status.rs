//! Refusals, in the words of a real API server: `metav1.Status` with its reasons, details and
//! causes (`k8s.io/apimachinery/pkg/api/errors` and `…/util/validation/field`).
//!
//! Controllers branch on the reason, and people read the message, so both are copied exactly
//! where the project has a use for them.

use serde_json::{Map, Value, json};

use super::field::{FieldError, go_quote};
use super::kinds::Kind;

/// A refusal: what becomes a `Status` document and its HTTP code.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The HTTP code.
    pub code: u16,
    /// `reason`: what programs branch on.
    pub reason: &'static str,
    /// `message`: a sentence for people.
    pub message: String,
    /// `details`, where the reason has any.
    pub details: Option<Value>,
    /// `metadata.continue`, for an expired page that can be taken up again.
    pub continue_token: Option<String>,
}

impl Refusal {
    /// A refusal without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            continue_token: None,
        }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = Some(details(&[
            ("name", name),
            ("group", &kind.group),
            ("kind", &kind.plural),
        ]));
        self
    }

    /// 400: the request does not make sense as a request.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 404 for an object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} \"{name}\" not found", kind.resource()),
        )
        .about(kind, name)
    }

    /// 404 for a path that no kind is served under.
    pub fn no_such_path() -> Self {
        Self::new(404, "", "404 page not found")
    }

    /// 404 for a subresource that a built-in kind does not have.
    pub fn no_such_subresource() -> Self {
        let mut refusal = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        refusal.details = Some(json!({}));
        refusal
    }

    /// Whether the real server says this in plain text: its router does, before any registry.
    pub fn is_plain_text(&self) -> bool {
        self.code == 404 && self.reason.is_empty()
    }

    /// 405 for a verb that an object or subresource does not have.
    pub fn verb_not_supported(kind: &Kind, verb: &str) -> Self {
        let mut refusal = Self::new(
            405,
            "MethodNotAllowed",
            format!(
                "{verb} is not supported on resources of kind \"{}\"",
                kind.resource()
            ),
        );
        refusal.details = Some(details(&[("group", &kind.group), ("kind", &kind.plural)]));
        refusal
    }

    /// 422 for an option of a request.
    pub fn invalid_option(options: &str, error: FieldError) -> Self {
        Self::invalid("meta.k8s.io", options, "", &[error])
    }

    /// 405: the kind is served, the verb is not.
    pub fn method_not_allowed() -> Self {
        let mut refusal = Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        refusal.details = Some(json!({}));
        refusal
    }

    /// 409 for a create of what is there.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", kind.resource()),
        )
        .about(kind, name)
    }

    /// 409 for a write that was meant for another state of the object.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} \"{name}\": {why}",
                kind.resource()
            ),
        )
        .about(kind, name)
    }

    /// 409 for a `resourceVersion` that is no longer the object's.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 for a failed precondition of a delete, which names the kind rather than the resource.
    pub fn precondition(kind: &Kind, name: &str, why: &str) -> Self {
        let mut refusal = Self::new(
            409,
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {} \"{name}\": {why}",
                qualified(&kind.kind, &kind.group)
            ),
        );
        refusal.details = Some(details(&[
            ("name", name),
            ("group", &kind.group),
            ("kind", &kind.kind),
        ]));
        refusal
    }

    /// 403, by a rule rather than for want of a right.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        Self::new(
            403,
            "Forbidden",
            format!("{} \"{name}\" is forbidden: {why}", kind.resource()),
        )
        .about(kind, name)
    }

    /// 410: the history that the request needs is gone.
    pub fn expired(message: &str) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 415: a patch type that is not served.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {accepted}"
            ),
        )
    }

    /// 422: the object breaks rules; one cause for each.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut seen = std::collections::BTreeSet::new();
        let mut messages = Vec::new();
        for error in errors {
            let text = format!("{}: {}", error.field, error.body());
            if seen.insert(text.clone()) {
                messages.push(text);
            }
        }
        let list = if messages.len() == 1 {
            messages.remove(0)
        } else {
            format!("[{}]", messages.join(", "))
        };
        let causes: Vec<Value> = errors
            .iter()
            .map(|e| json!({"reason": e.kind.reason(), "message": e.body(), "field": e.field}))
            .collect();
        let mut refusal = Self::new(
            422,
            "Invalid",
            format!(
                "{} {} is invalid: {list}",
                qualified(kind, group),
                go_quote(name)
            ),
        );
        let mut map = details(&[("name", name), ("group", group), ("kind", kind)]);
        map["causes"] = Value::Array(causes);
        refusal.details = Some(map);
        refusal
    }

    /// 500: a fault of this server (a full disk, say), not of the request.
    pub fn internal(why: &str) -> Self {
        let mut refusal = Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {why}"),
        );
        refusal.details = Some(json!({"causes": [{"message": why}]}));
        refusal
    }

    /// 504: a version that this server has not reached.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let mut refusal = Self::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        );
        refusal.details = Some(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }));
        refusal
    }

    /// The `Status` document.
    pub fn to_value(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".into(), json!(token));
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

fn details(fields: &[(&str, &str)]) -> Value {
    fields
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect::<Map<_, _>>()
        .into()
}

fn qualified(kind: &str, group: &str) -> String {
    if group.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}.{group}")
    }
}
