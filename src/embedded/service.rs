//! HTTP in and out.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, DATE, WARNING};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::client::Body;
use serde_json::Value;
use tower::BoxError;

use super::request::{self, Options, Target, Verb};
use super::status::Refusal;
use super::watch::Watch;
use super::write::{Update, Whose, Written};
use super::{Inner, delete, discovery, gc, read, write};

/// The server as a service of requests.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

/// Bodies of answers: whole documents, or watches without end.
pub type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

impl Service {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }
}

impl tower::Service<Request<Body>> for Service {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = self.inner.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            Ok(inner.answer(&parts, &body))
        })
    }
}

enum Answer {
    Document(Written),
    Watch(Box<Watch>),
}

impl Inner {
    fn answer(
        self: &Arc<Self>,
        parts: &http::request::Parts,
        body: &[u8],
    ) -> Response<ResponseBody> {
        let answer = self.dispatch(parts, body).unwrap_or_else(|refusal| {
            let body = if refusal.is_plain_text() {
                Value::String(refusal.message)
            } else {
                refusal.to_value()
            };
            Answer::Document(Written {
                code: refusal.code,
                body,
                warnings: Vec::new(),
            })
        });
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Clients compare their clocks with this.
        let date = self
            .clock
            .now()
            .strftime("%a, %d %b %Y %H:%M:%S GMT")
            .to_string();
        if let Ok(date) = HeaderValue::from_str(&date) {
            headers.insert(DATE, date);
        }
        let (code, body) = match answer {
            Answer::Document(written) => {
                for warning in written.warnings {
                    let text = format!("299 - {}", super::field::go_quote(&warning));
                    if let Ok(value) = HeaderValue::from_str(&text) {
                        headers.append(WARNING, value);
                    }
                }
                (
                    written.code,
                    Full::new(Bytes::from(text(&written.body))).boxed_unsync(),
                )
            }
            Answer::Watch(watch) => (
                200,
                StreamBody::new(watch.map(|line| Ok(Frame::data(line)))).boxed_unsync(),
            ),
        };
        let mut response = Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
        *response.headers_mut() = headers;
        response
    }

    fn dispatch(
        self: &Arc<Self>,
        parts: &http::request::Parts,
        body: &[u8],
    ) -> Result<Answer, Refusal> {
        let verb = request::verb(&parts.method)?;
        let document = |written| Ok(Answer::Document(written));
        match request::target(&self.kinds, &parts.uri)? {
            Target::Discovery(path) => {
                if verb != Verb::Read {
                    return Err(Refusal::method_not_allowed());
                }
                document(whole(discovery::document(&self.kinds, &path)?))
            }
            Target::Collection { kind, namespace } => {
                let options = request::options(&parts.uri, verb, &kind)?;
                let namespace = namespace.as_deref();
                let mut state = self.state();
                match verb {
                    Verb::Read if options.watch => {
                        let watch = Watch::open(self, &mut state, &kind, namespace, options)?;
                        Ok(Answer::Watch(Box::new(watch)))
                    }
                    Verb::Read => {
                        let list = read::list(&state, &kind, namespace, &options)?;
                        let accept = parts.headers.get(ACCEPT).and_then(|v| v.to_str().ok());
                        document(whole(if accept.is_some_and(read::wants_metadata) {
                            read::metadata_only(list)
                        } else {
                            list
                        }))
                    }
                    Verb::Create if !kind.read_only() && namespace.is_some() == kind.namespaced => {
                        let namespace = namespace.unwrap_or_default();
                        let written =
                            write::create(self, &mut state, &kind, namespace, body, &options);
                        gc::collect(self, &mut state);
                        document(written?)
                    }
                    Verb::Create if kind.builtin().is_none() && namespace.is_none() => {
                        Err(Refusal::no_such_path())
                    }
                    _ => Err(Refusal::method_not_allowed()),
                }
            }
            Target::Object {
                kind,
                namespace,
                name,
                status,
            } => {
                let options = request::options(&parts.uri, verb, &kind)?;
                let whose = Whose {
                    kind: &kind,
                    namespace: &namespace,
                    name: &name,
                    status,
                };
                if verb == Verb::Read {
                    let state = self.state();
                    return document(whole(read::get(
                        &state, &kind, &namespace, &name, &options,
                    )?));
                }
                if kind.read_only() {
                    return Err(Refusal::method_not_allowed());
                }
                document(self.change(verb, &parts.headers, &whose, body, &options)?)
            }
        }
    }

    fn change(
        &self,
        verb: Verb,
        headers: &HeaderMap,
        whose: &Whose<'_>,
        body: &[u8],
        options: &Options,
    ) -> Result<Written, Refusal> {
        let mut state = self.state();
        let written = match verb {
            Verb::Replace => {
                write::update(self, &mut state, whose, &Update::Replace(body), options)
            }
            Verb::Patch => {
                let accepted = "application/merge-patch+json";
                let given = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
                if given.map(|v| v.split(';').next().unwrap_or_default().trim()) != Some(accepted) {
                    return Err(Refusal::unsupported_media_type(accepted));
                }
                write::update(self, &mut state, whose, &Update::MergePatch(body), options)
            }
            Verb::Delete if !whose.status => delete::delete(self, &mut state, whose, body, options),
            Verb::Delete => Err(Refusal::verb_not_supported(whose.kind, "delete")),
            _ => Err(Refusal::method_not_allowed()),
        };
        gc::collect(self, &mut state);
        written
    }
}

fn whole(body: Value) -> Written {
    Written {
        code: 200,
        body,
        warnings: Vec::new(),
    }
}

/// Documents are JSON; the health endpoints say a bare word.
fn text(body: &Value) -> String {
    match body {
        Value::String(word) => word.clone(),
        other => other.to_string(),
    }
}
