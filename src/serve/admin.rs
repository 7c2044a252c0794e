//! The admin port: `/livez`, `/readyz`, `/metrics`. For kubelets and Prometheus; not public.

use std::fmt::Write as _;
use std::sync::Arc;

use http::header::CACHE_CONTROL;
use http::{Request, StatusCode};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::readiness::Readiness;
use super::reply::{READ, Reply, method_not_allowed, not_found, problem, reads, reply, set};

/// What the admin port serves.
pub struct Admin {
    readiness: Readiness,
    registry: Arc<Registry>,
    before_scrape: Vec<Box<dyn Fn() + Send + Sync>>,
    told: Vec<Box<dyn Fn() -> String + Send + Sync>>,
}

impl Admin {
    /// An admin port that tells these.
    pub fn new(readiness: Readiness, registry: Arc<Registry>) -> Self {
        Self {
            readiness,
            registry,
            before_scrape: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Has something done before each scrape, such as bringing gauges up to date.
    #[must_use]
    pub fn before_scrape(mut self, what: impl Fn() + Send + Sync + 'static) -> Self {
        self.before_scrape.push(Box::new(what));
        self
    }

    /// Has a line told by `/readyz?verbose`, whether ready or not.
    #[must_use]
    pub fn telling(mut self, line: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.told.push(Box::new(line));
        self
    }

    /// Answers a request.
    pub fn respond<B>(&self, request: &Request<B>) -> Reply {
        let uri = request.uri();
        let path = uri.path();
        if !["/livez", "/readyz", "/metrics"].contains(&path) {
            return not_found();
        }
        if !reads(request.method()) {
            return method_not_allowed(READ);
        }
        match path {
            "/readyz" => self.ready(uri.query().unwrap_or_default()),
            "/metrics" => self.metrics(),
            _ => plain(StatusCode::OK, "ok\n".into()),
        }
    }

    /// 200, or 503 with the reasons; `?verbose` tells more.
    fn ready(&self, query: &str) -> Reply {
        let reasons = self.readiness.reasons();
        let ready = reasons.is_empty();
        let mut body = String::new();
        for (part, sentence) in reasons {
            let _ = writeln!(body, "{part}: {sentence}");
        }
        if query
            .split('&')
            .any(|p| p == "verbose" || p.starts_with("verbose="))
        {
            for line in &self.told {
                let _ = writeln!(body, "{}", line());
            }
        }
        body.push_str(if ready { "ready\n" } else { "not ready\n" });
        plain(
            if ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            },
            body,
        )
    }

    fn metrics(&self) -> Reply {
        self.before_scrape.iter().for_each(|refresh| refresh());
        let mut body = String::new();
        if text::encode(&mut body, &self.registry).is_err() {
            return problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The metrics could not be written.",
            );
        }
        reply(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            body,
        )
    }
}

fn plain(status: StatusCode, body: String) -> Reply {
    let mut reply = reply(status, "text/plain; charset=utf-8", body);
    set(&mut reply, CACHE_CONTROL, "no-store");
    reply
}
