//! Writes manifests to the API server as `kubectl apply` would, and says what came of it.

use http::{Method, Request};
use kube::Client;
use kube::core::Status;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::kinds::Kind;
use super::manifests::{Document, Id, Problem};

/// On what dev applied: the file that it came from. Only such objects are ever deleted by dev.
pub const MANIFEST: &str = "chancery.dev/dev-manifest";
/// On what dev applied: which labels and annotations the manifest had, so that those that it no
/// longer has are taken away, and those of others stay.
const OWN_KEYS: &str = "chancery.dev/dev-manifest-keys";
/// How often a write that another one overtook is tried.
const TRIES: usize = 8;

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was not there.
    Created,
    /// It was different.
    Changed,
    /// It was so already.
    Unchanged,
}

/// Why an object is not as its manifest says.
#[derive(Debug)]
pub struct Refused {
    /// What is wrong, each with its place.
    pub problems: Vec<Problem>,
    /// It may work by itself in a while.
    pub again: bool,
}

/// An API server's objects of any kind.
#[derive(Clone)]
pub struct Objects {
    client: Client,
}

impl Objects {
    /// Those of this server.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Makes the object so.
    pub async fn apply(&self, document: &Document, label: &str) -> Result<Done, Refused> {
        let manifest = document.node.to_json();
        let mut last = None;
        for _ in 0..TRIES {
            match self.apply_once(&document.id, &manifest, label).await {
                Ok(done) => return Ok(done),
                // Another write was faster, such as that of a status.
                Err(kube::Error::Api(status)) if status.code == 409 => last = Some(*status),
                Err(kube::Error::Api(status)) => return Err(refused(document, &status)),
                Err(other) => {
                    return Err(Refused {
                        problems: vec![document.problem("", format_args!("{other}"))],
                        again: true,
                    });
                }
            }
        }
        Err(refused(document, &last.unwrap_or_default()))
    }

    async fn apply_once(
        &self,
        id: &Id,
        manifest: &Value,
        label: &str,
    ) -> Result<Done, kube::Error> {
        let strict = "?fieldValidation=Strict";
        let Some(live) = self.get(id).await? else {
            let object = wanted(manifest, None, label);
            let path = collection(&id.kind, &id.namespace);
            self.call(Method::POST, &format!("{path}{strict}"), Some(&object))
                .await?;
            return Ok(Done::Created);
        };
        let object = wanted(manifest, Some(&live), label);
        let path = format!("{}{strict}", one(id));
        let after = self.call(Method::PUT, &path, Some(&object)).await?;
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        Ok(if version(&after) == version(&live) {
            Done::Unchanged
        } else {
            Done::Changed
        })
    }

    /// The object, if it is there.
    pub async fn get(&self, id: &Id) -> Result<Option<Value>, kube::Error> {
        match self.call(Method::GET, &one(id), None).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Makes a namespace if it is not there.
    pub async fn namespace(&self, kind: &Kind, name: &str) -> Result<(), String> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        match self
            .call(Method::POST, &collection(kind, ""), Some(&object))
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(other) => Err(format!("namespace {name} could not be made: {other}")),
        }
    }

    /// The objects of a kind that dev has applied, now or before a restart.
    pub async fn applied(&self, kind: &Kind) -> Result<Vec<Id>, String> {
        let list = self
            .call(Method::GET, &collection(kind, ""), None)
            .await
            .map_err(|e| format!("the {kind}s could not be listed: {e}"))?;
        let items = list["items"].as_array().into_iter().flatten();
        Ok(items
            .filter(|o| o["metadata"]["annotations"][MANIFEST].is_string())
            .map(|o| {
                let text = |field: &str| o["metadata"][field].as_str().unwrap_or_default();
                Id {
                    kind: kind.clone(),
                    namespace: text("namespace").to_owned(),
                    name: text("name").to_owned(),
                }
            })
            .collect())
    }

    /// Deletes the object; one that is not there is no error.
    pub async fn delete(&self, id: &Id) -> Result<(), String> {
        match self.call(Method::DELETE, &one(id), None).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(other) => Err(format!("{id} could not be deleted: {other}")),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        object: Option<&Value>,
    ) -> Result<Value, kube::Error> {
        let body = match object {
            Some(object) => serde_json::to_vec(object).map_err(kube::Error::SerdeError)?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}

fn collection(kind: &Kind, namespace: &str) -> String {
    kind.path(&utf8_percent_encode(namespace, NON_ALPHANUMERIC).to_string())
}

fn one(id: &Id) -> String {
    let name = utf8_percent_encode(&id.name, NON_ALPHANUMERIC);
    format!("{}/{name}", collection(&id.kind, &id.namespace))
}

/// What to write: what the manifest says, over what the server and others have added.
fn wanted(manifest: &Value, live: Option<&Value>, label: &str) -> Value {
    let mut object = manifest.clone();
    if let Value::Object(map) = &mut object {
        // A manifest that came from `kubectl get -o yaml` has one; it is the operator's to write.
        map.remove("status");
    }
    let empty = Value::Null;
    let before = live.map_or(&empty, |l| &l["metadata"]);
    let own: Value = before["annotations"][OWN_KEYS]
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let mut keys = Map::new();
    let given = object["metadata"].take();
    let mut metadata = before.as_object().cloned().unwrap_or_default();
    for (field, value) in given.as_object().into_iter().flatten() {
        if !SYSTEM_FIELDS.contains(&&**field) {
            metadata.insert(field.clone(), value.clone());
        }
    }
    for field in ["labels", "annotations"] {
        let Some(given) = given[field].as_object().cloned().or_else(|| {
            let none = given[field].is_null();
            none.then(Map::new)
        }) else {
            // Of the wrong type: the server says so.
            continue;
        };
        let mut merged = before[field].as_object().cloned().unwrap_or_default();
        for key in own[field].as_array().into_iter().flatten() {
            merged.remove(key.as_str().unwrap_or_default());
        }
        if !given.is_empty() {
            keys.insert(field.into(), given.keys().cloned().collect());
        }
        merged.extend(given);
        if field == "annotations" {
            merged.insert(MANIFEST.into(), label.into());
            merged.remove(OWN_KEYS);
            if !keys.is_empty() {
                merged.insert(
                    OWN_KEYS.into(),
                    Value::Object(keys.clone()).to_string().into(),
                );
            }
        }
        metadata.insert(field.into(), merged.into());
    }
    object["metadata"] = metadata.into();
    object
}

/// What only the server sets; a manifest that was exported from a cluster has them all the same.
const SYSTEM_FIELDS: [&str; 9] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
    "namespace",
];

/// What the server has against a manifest, put where it stands in the file.
fn refused(document: &Document, status: &Status) -> Refused {
    let details = status.details.as_ref();
    let terminating = |s: &Status| s.message.contains("being terminated");
    let mut problems = Vec::new();
    let causes = details.map(|d| &*d.causes).unwrap_or_default();
    let whole = causes.iter().any(|c| !is_field(&c.field));
    for cause in causes.iter().filter(|c| is_field(&c.field)) {
        problems.push(document.problem(&cause.field, sentence(document, &cause.message)));
    }
    if problems.is_empty() {
        for path in unknown_fields(&status.message) {
            problems.push(document.problem(
                path,
                format_args!(
                    "{} has no such field: mend its name, or take it away.",
                    document.id.kind
                ),
            ));
        }
    }
    if problems.is_empty() && status.code == 404 {
        problems.push(document.problem(
            "metadata.namespace",
            format_args!(
                "There is no namespace {}: add a manifest of kind Namespace for it, or name another.",
                document.id.namespace
            ),
        ));
    }
    if problems.is_empty() && whole && !causes.is_empty() {
        problems.push(document.problem("", sentence(document, &causes[0].message)));
    }
    if problems.is_empty() {
        let metadata = status.message.contains("metadata can not be read");
        let place = if metadata { "metadata" } else { "" };
        problems.push(document.problem(place, &status.message));
    }
    problems.dedup();
    Refused {
        problems,
        again: status.code == 409 || status.code >= 500 || terminating(status),
    }
}

fn is_field(path: &str) -> bool {
    !path.is_empty() && path != "<nil>"
}

/// The server's own words, but for values of Secrets, and for `Invalid value: "object"`, which
/// tells nobody anything.
fn sentence(document: &Document, message: &str) -> String {
    if document.id.kind.name() == "Secret" {
        let what = message.split(':').next().unwrap_or_default();
        return format!("{what} (it is not shown, since it is a Secret's).");
    }
    message
        .strip_prefix("Invalid value: \"object\": ")
        .or_else(|| message.strip_prefix("Invalid value: null: "))
        .unwrap_or(message)
        .to_owned()
}

/// The paths in `strict decoding error: unknown field "spec.a", unknown field "spec.b"`.
fn unknown_fields(message: &str) -> impl Iterator<Item = &str> {
    message
        .split("unknown field \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
}
