//! Between a replica and the API server: each call waits for the scheduler's verdict.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use chancery::embedded::Service;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use tokio::sync::{mpsc, oneshot};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// Refused with this status, not done.
    Refused(u16),
    /// Done, and answered with this status.
    AnswerLost(u16),
    /// The connection breaks before it is done.
    Broken,
    /// The connection breaks once it is done.
    BrokenAfter,
}

/// What may go wrong with a call.
pub const FAULTS: [Verdict; 5] = [
    Verdict::Refused(429),
    Verdict::Refused(503),
    Verdict::AnswerLost(504),
    Verdict::Broken,
    Verdict::BrokenAfter,
];

/// What replicas tell the scheduler.
pub enum Told {
    /// A call waits for its verdict.
    Call {
        replica: usize,
        life: u64,
        line: String,
        verdict: oneshot::Sender<Verdict>,
    },
    /// A visit has ended.
    Done {
        replica: usize,
        life: u64,
        /// When to come back; an error is a failed visit.
        outcome: Result<chancery::controllers::Outcome, String>,
    },
}

#[derive(Clone)]
pub struct Gate {
    pub inner: Arc<Mutex<Service>>,
    pub desk: mpsc::UnboundedSender<Told>,
    pub replica: usize,
    pub life: u64,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl tower::Service<Request<Body>> for Gate {
    type Response = <Service as tower::Service<Request<Body>>>::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let line = format!("{} {}", request.method(), request.uri().path());
        let inner = self.inner.clone();
        let call = move || inner.lock().expect("no panic").call(request);
        if line.contains("/events") {
            // What is told changes nothing.
            return Box::pin(async move { call().await });
        }
        let (verdict, decided) = oneshot::channel();
        let told = Told::Call {
            replica: self.replica,
            life: self.life,
            line,
            verdict,
        };
        let sent = self.desk.send(told).is_ok();
        Box::pin(async move {
            let verdict = match decided.await {
                Ok(verdict) if sent => verdict,
                // The scheduler has ended, and with it this replica.
                _ => std::future::pending().await,
            };
            let with = |status: u16, answer: Response<_>| {
                let (mut parts, body) = answer.into_parts();
                parts.status = StatusCode::from_u16(status).expect("a status");
                Response::from_parts(parts, body)
            };
            match verdict {
                Verdict::Go => call().await,
                Verdict::AnswerLost(status) => Ok(with(status, call().await?)),
                Verdict::BrokenAfter => {
                    call().await?;
                    Err("the connection broke".into())
                }
                Verdict::Broken => Err("the connection broke".into()),
                Verdict::Refused(status) => {
                    let body = format!(
                        r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Simulated","message":"refused","code":{status}}}"#
                    );
                    let body = Full::new(Bytes::from(body)).boxed_unsync();
                    Ok(with(status, Response::new(body)))
                }
            }
        })
    }
}
