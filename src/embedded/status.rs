//! Refusals, in the words of a real API server: `metav1.Status` with its reasons, details and
//! causes (`k8s.io/apimachinery/pkg/api/errors` and `…/util/validation/field`).
//!
//! Controllers branch on the reason, and people read the message, so both are copied exactly
//! where the project has a use for them.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

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

/// What sort of rule a field breaks (`field.ErrorType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A malformed value.
    Invalid,
    /// A value of the wrong JSON type.
    TypeInvalid,
    /// A value outside an enumeration.
    NotSupported,
    /// A missing value.
    Required,
    /// A value that something else already has.
    Duplicate,
    /// A well-formed value that is not permitted here.
    Forbidden,
    /// Too many bytes.
    TooLong,
    /// Too many items.
    TooMany,
}

impl Broken {
    fn reason(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }

    /// Whether CEL rules are not even tried on an object with this error.
    pub fn blocks_rules(self) -> bool {
        matches!(
            self,
            Self::NotSupported | Self::Required | Self::TooLong | Self::TooMany | Self::TypeInvalid
        )
    }
}

/// One field that breaks one rule (`field.Error`).
#[derive(Clone, Debug)]
pub struct FieldError {
    /// What sort of rule.
    pub kind: Broken,
    /// The field's path.
    pub field: String,
    /// The offending value; `None` where it is not quoted.
    pub value: Option<Value>,
    /// The sentence.
    pub detail: String,
}

impl FieldError {
    /// `Invalid value: <value>: <detail>`.
    pub fn invalid(
        field: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::of(Broken::Invalid, field, Some(value.into()), detail)
    }

    /// `Invalid value: <detail>`: objects and lists are not quoted.
    pub fn invalid_unquoted(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::of(Broken::Invalid, field, None, detail)
    }

    /// `Required value`.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::of(Broken::Required, field, None, detail)
    }

    /// `Forbidden: <detail>`.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::of(Broken::Forbidden, field, None, detail)
    }

    /// `Duplicate value: <value>`.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::of(Broken::Duplicate, field, Some(value.into()), "")
    }

    /// `Too long: may not be more than <max> bytes`.
    pub fn too_long(field: impl Into<String>, max: u64) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::of(
            Broken::TooLong,
            field,
            None,
            format!("may not be more than {max} {unit}"),
        )
    }

    /// `Too many: <actual>: must have at most <max> items`.
    pub fn too_many(field: impl Into<String>, actual: usize, max: u64) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::of(
            Broken::TooMany,
            field,
            Some(json!(actual)),
            format!("must have at most {max} {unit}"),
        )
    }

    /// `Unsupported value: <value>: supported values: …`.
    pub fn not_supported(
        field: impl Into<String>,
        value: impl Into<Value>,
        allowed: &[&str],
    ) -> Self {
        let allowed: Vec<String> = allowed.iter().map(|a| go_quote(a)).collect();
        let detail = format!("supported values: {}", allowed.join(", "));
        Self::of(Broken::NotSupported, field, Some(value.into()), detail)
    }

    /// An error of any sort.
    pub fn of(
        kind: Broken,
        field: impl Into<String>,
        value: Option<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            field: field.into(),
            value,
            detail: detail.into(),
        }
    }

    /// The message without the field's path (`ErrorBody`).
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if let Some(value) = &self.value {
            let _ = write!(text, ": {}", go_value(value));
        }
        if !self.detail.is_empty() {
            let _ = write!(text, ": {}", self.detail);
        }
        text
    }
}

fn go_value(value: &Value) -> String {
    match value {
        Value::String(s) => go_quote(s),
        Value::Number(n) if n.is_f64() => go_float(n.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

/// A number as Go's `%v` writes it, within the sizes that anybody uses.
pub fn go_float(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e21 {
        format!("{number:.0}")
    } else {
        number.to_string()
    }
}

/// A string as Go's `%q` writes it.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
