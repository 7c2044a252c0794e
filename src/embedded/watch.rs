//! Watches: lines of `{"type", "object"}`, read from the history at the pace of the reader.
//!
//! A watch holds a version and looks for the changes after it whenever it is polled, so that a
//! slow reader costs no memory; one that falls behind what is remembered gets a 410, as a real
//! watcher does. That 410 is an ERROR event in an answer of 200: kube never lists anew after a
//! plain HTTP 410.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::time::{Sleep, sleep};

use super::Inner;
use super::field::FieldError;
use super::kinds::Kind;
use super::read::parse_version;
use super::request::Options;
use super::selector::Selector;
use super::status::Refusal;
use super::store::{Change, State};

/// An open watch.
pub struct Watch {
    inner: Arc<Inner>,
    id: u64,
    epoch: u64,
    kind: Arc<Kind>,
    prefix: String,
    selector: Selector,
    bookmarks: bool,
    seen: u64,
    ready: VecDeque<Bytes>,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Watch {
    /// Opens a watch; what the request itself gets wrong is refused at once.
    pub fn open(
        inner: &Arc<Inner>,
        state: &mut State,
        kind: &Arc<Kind>,
        namespace: Option<&str>,
        options: Options,
    ) -> Result<Self, Refusal> {
        // The real server, too, takes this for a fault of its own.
        let from = parse_version(options.resource_version.as_deref())
            .map_err(|error| Refusal::new(500, "", format!("{}: {}", error.field, error.body())))?;
        check(&options)?;
        let mut watch = Self {
            inner: inner.clone(),
            id: state.new_watch(),
            epoch: state.epoch,
            kind: kind.clone(),
            prefix: namespace.map(|n| format!("{n}/")).unwrap_or_default(),
            selector: options.selector,
            bookmarks: options.bookmarks,
            seen: state.version(),
            ready: VecDeque::new(),
            deadline: options
                .timeout_seconds
                .filter(|s| *s > 0)
                .map(|s| Box::pin(sleep(Duration::from_secs(s)))),
            ended: false,
        };
        let initial = options.send_initial_events.unwrap_or(from.is_none());
        if initial {
            let objects: Vec<_> = state
                .all(kind)
                .iter()
                .filter(|(key, object)| {
                    key.starts_with(&watch.prefix) && watch.selector.matches(&object.value)
                })
                .map(|(_, object)| object.clone())
                .collect();
            for object in objects {
                watch.say("ADDED", &object.value);
            }
            if options.send_initial_events == Some(true) && watch.bookmarks {
                watch.bookmark(true);
            }
        } else if let Some(from) = from {
            watch.seen = from;
        }
        Ok(watch)
    }

    fn say(&mut self, event: &str, object: &Value) {
        let mut line = json!({"type": event, "object": object}).to_string();
        line.push('\n');
        self.ready.push_back(line.into());
    }

    fn bookmark(&mut self, initial_events_end: bool) {
        let mut metadata = json!({"resourceVersion": self.seen.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({
            "kind": self.kind.kind,
            "apiVersion": self.kind.api_version(),
            "metadata": metadata,
        });
        self.say("BOOKMARK", &object);
    }

    /// Takes in what has happened since it last looked.
    fn catch_up(&mut self, state: &State) {
        if self.epoch != state.epoch {
            self.ended = true;
            return;
        }
        if self.seen < state.forgotten() {
            let gone = Refusal::expired(&format!(
                "too old resource version: {} ({})",
                self.seen,
                state.forgotten()
            ));
            self.say("ERROR", &gone.to_value());
            self.ended = true;
            return;
        }
        for change in state.changes_after(self.seen) {
            if change.kind == self.kind.index && change.key.starts_with(&self.prefix) {
                self.tell(change);
            }
            self.seen = change.version;
        }
    }

    /// An object that leaves the selection is told of as deleted, and one that enters it as
    /// added: the reader knows the selection only.
    fn tell(&mut self, change: &Change) {
        let was = change
            .before
            .as_ref()
            .is_some_and(|b| self.selector.matches(&b.value));
        let is = !change.removed && self.selector.matches(&change.now.value);
        match (was, is) {
            (false, true) => self.say("ADDED", &change.now.value),
            (true, true) => self.say("MODIFIED", &change.now.value),
            (true, false) => {
                let mut last = change
                    .before
                    .as_ref()
                    .map_or(Value::Null, |b| b.value.clone());
                super::meta::metadata(&mut last)
                    .insert("resourceVersion".into(), json!(change.version.to_string()));
                self.say("DELETED", &last);
            }
            (false, false) => {}
        }
    }
}

fn check(options: &Options) -> Result<(), Refusal> {
    let mut errors = Vec::new();
    let matching = options.resource_version_match.as_deref();
    if options.send_initial_events.is_some() && matching != Some("NotOlderThan") {
        errors.push(FieldError::forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    } else if options.send_initial_events.is_none() && matching.is_some() {
        errors.push(FieldError::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid("meta.k8s.io", "ListOptions", "", &errors))
}

impl Stream for Watch {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        if let Some(line) = this.ready.pop_front() {
            return Poll::Ready(Some(line));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        let inner = this.inner.clone();
        let mut state = inner.state();
        this.catch_up(&state);
        if this.ready.is_empty() && !this.ended {
            let late = this
                .deadline
                .as_mut()
                .is_some_and(|d| d.as_mut().poll(cx).is_ready());
            if !late {
                state.wait(this.id, cx.waker().clone());
                return Poll::Pending;
            }
            // The reader learns how far it got, so that its next watch starts from there.
            if this.bookmarks {
                this.bookmark(false);
            }
            this.ended = true;
        }
        Poll::Ready(this.ready.pop_front())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.inner.state().forget_watch(self.id);
    }
}
