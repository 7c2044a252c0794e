//! Reading a request: which kind, which object, which verb, with which options.

use std::sync::Arc;

use http::{Method, Uri};
use percent_encoding::percent_decode_str;

use super::field::FieldError;
use super::kinds::{Kind, Kinds};
use super::selector::Selector;
use super::status::Refusal;

/// What a URL points at.
pub enum Target {
    /// All objects of a kind, or those of one namespace.
    Collection {
        /// The kind.
        kind: Arc<Kind>,
        /// The namespace; `None` for the whole cluster.
        namespace: Option<String>,
    },
    /// One object.
    Object {
        /// The kind.
        kind: Arc<Kind>,
        /// Its namespace; empty if it has none.
        namespace: String,
        /// Its name.
        name: String,
        /// Whether the `status` subresource of it is meant.
        status: bool,
    },
    /// Something that describes the server: its path.
    Discovery(Vec<String>),
}

/// The options that a query string carries.
#[derive(Default)]
pub struct Options {
    /// `watch`.
    pub watch: bool,
    /// `resourceVersion`; `None` if it is missing or empty.
    pub resource_version: Option<String>,
    /// `resourceVersionMatch`.
    pub resource_version_match: Option<String>,
    /// `sendInitialEvents`.
    pub send_initial_events: Option<bool>,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `timeoutSeconds`.
    pub timeout_seconds: Option<u64>,
    /// `limit`; 0 is none.
    pub limit: usize,
    /// `continue`.
    pub continue_token: Option<String>,
    /// `labelSelector` and `fieldSelector`.
    pub selector: Selector,
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `fieldValidation`.
    pub field_validation: FieldValidation,
    /// `propagationPolicy`.
    pub propagation: Option<String>,
}

/// What becomes of fields that no schema knows (they are dropped in any case).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Nothing is said.
    Ignore,
    /// A `Warning` header for each.
    #[default]
    Warn,
    /// The write is refused.
    Strict,
}

/// Where a path leads.
pub fn target(kinds: &Kinds, uri: &Uri) -> Result<Target, Refusal> {
    let mut segments = Vec::new();
    for segment in uri.path().split('/').filter(|s| !s.is_empty()) {
        let decoded = percent_decode_str(segment)
            .decode_utf8()
            .map_err(|_| Refusal::bad_request("the path is not UTF-8"))?;
        segments.push(decoded.into_owned());
    }
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts[..] {
        ["api", version, ref rest @ ..] if !rest.is_empty() => ("", version, rest.to_vec()),
        ["apis", group, version, ref rest @ ..] if !rest.is_empty() => {
            (group, version, rest.to_vec())
        }
        _ => return Ok(Target::Discovery(segments)),
    };
    let kind = |plural: &str, namespaced: bool| {
        kinds
            .find(group, version, plural)
            .filter(|k| k.namespaced == namespaced || !namespaced)
            .cloned()
            .ok_or_else(Refusal::no_such_path)
    };
    let object = |kind: Arc<Kind>, namespace: &str, name: &str, sub: Option<&str>| {
        let status = match sub {
            None => false,
            Some("status") if kind.status_subresource => true,
            Some(_) if kind.builtin().is_none() => return Err(Refusal::not_found(&kind, name)),
            Some(_) => return Err(Refusal::no_such_subresource()),
        };
        Ok(Target::Object {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            status,
        })
    };
    match rest[..] {
        // A namespace is itself an object: its path reads like the start of another.
        ["namespaces", name] if group.is_empty() => {
            object(kind("namespaces", false)?, "", name, None)
        }
        ["namespaces", name, "status"] if group.is_empty() => {
            object(kind("namespaces", false)?, "", name, Some("status"))
        }
        ["namespaces", namespace, plural] => Ok(Target::Collection {
            kind: kind(plural, true)?,
            namespace: Some(namespace.to_owned()),
        }),
        ["namespaces", namespace, plural, name] => {
            object(kind(plural, true)?, namespace, name, None)
        }
        ["namespaces", namespace, plural, name, sub] => {
            object(kind(plural, true)?, namespace, name, Some(sub))
        }
        [plural] => Ok(Target::Collection {
            kind: kind(plural, false)?,
            namespace: None,
        }),
        [plural, name] => {
            let kind = kind(plural, false)?;
            if kind.namespaced {
                return Err(Refusal::no_such_path());
            }
            object(kind, "", name, None)
        }
        [plural, name, sub] => {
            let kind = kind(plural, false)?;
            if kind.namespaced {
                return Err(Refusal::no_such_path());
            }
            object(kind, "", name, Some(sub))
        }
        _ => Err(Refusal::no_such_path()),
    }
}

/// The options of a request. Unknown ones are let be, as in the real server.
pub fn options(uri: &Uri, verb: Verb, kind: &Kind) -> Result<Options, Refusal> {
    let mut options = Options::default();
    let mut labels = String::new();
    let mut fields = String::new();
    for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let text = || Some(value.clone().into_owned()).filter(|v| !v.is_empty());
        let flag = || !matches!(&*value, "false" | "0");
        let number = |what: &str| {
            value.parse::<u64>().map_err(|_| {
                Refusal::bad_request(format!(
                    "{what} must be a number of 0 or more, not {value:?}"
                ))
            })
        };
        match &*key {
            "watch" => options.watch = flag(),
            "resourceVersion" => options.resource_version = text(),
            "resourceVersionMatch" => options.resource_version_match = text(),
            "sendInitialEvents" => options.send_initial_events = Some(flag()),
            "allowWatchBookmarks" => options.bookmarks = flag(),
            "timeoutSeconds" => options.timeout_seconds = Some(number("timeoutSeconds")?),
            // A negative one is none, as in the real server.
            "limit" => {
                options.limit = value
                    .parse::<i64>()
                    .map_or(0, |n| usize::try_from(n).unwrap_or(0));
            }
            "continue" => options.continue_token = text(),
            "labelSelector" => labels = value.into_owned(),
            "fieldSelector" => fields = value.into_owned(),
            "propagationPolicy" => options.propagation = text(),
            "dryRun" if value == "All" => options.dry_run = true,
            "dryRun" => {
                let error = FieldError::not_supported("dryRun", &*value, &["All"]);
                return Err(Refusal::invalid_option(verb.options(), error));
            }
            "fieldValidation" => {
                options.field_validation = match &*value {
                    "Ignore" => FieldValidation::Ignore,
                    "Warn" | "" => FieldValidation::Warn,
                    "Strict" => FieldValidation::Strict,
                    other => {
                        let allowed = ["", "Ignore", "Strict", "Warn"];
                        let error = FieldError::not_supported("fieldValidation", other, &allowed);
                        return Err(Refusal::invalid_option(verb.options(), error));
                    }
                };
            }
            _ => {}
        }
    }
    options.selector = Selector::parse(&labels, &fields, Some(kind))?;
    Ok(options)
}

/// A verb, as far as a method tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// GET: get, list or watch.
    Read,
    /// POST: create.
    Create,
    /// PUT: replace.
    Replace,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

impl Verb {
    /// The kind of its options.
    fn options(self) -> &'static str {
        match self {
            Self::Read => "ListOptions",
            Self::Create => "CreateOptions",
            Self::Replace => "UpdateOptions",
            Self::Patch => "PatchOptions",
            Self::Delete => "DeleteOptions",
        }
    }
}

/// The verb of a method.
pub fn verb(method: &Method) -> Result<Verb, Refusal> {
    match *method {
        Method::GET => Ok(Verb::Read),
        Method::POST => Ok(Verb::Create),
        Method::PUT => Ok(Verb::Replace),
        Method::PATCH => Ok(Verb::Patch),
        Method::DELETE => Ok(Verb::Delete),
        _ => Err(Refusal::method_not_allowed()),
    }
}

/// The key of an object among those of its kind; the order of keys is that of etcd, so lists
/// come in the real server's order.
pub fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}
