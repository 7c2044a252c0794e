//! Answers: OAuth errors (RFC 6749 §5.2) and problems (RFC 9457).

use std::borrow::Cow;

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, PRAGMA, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::Serialize;

use super::throttle::TooOften;
use crate::domain::oauth_error::{ErrorCode, OAuthError};

/// Every answer of this server is made whole before it is sent.
pub type Reply = Response<Full<Bytes>>;

/// An answer with one body.
pub fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    set(&mut reply, CONTENT_TYPE, content_type);
    reply
}

/// Sets a header whose value never changes.
pub fn set(reply: &mut Reply, name: HeaderName, value: &'static str) {
    reply
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
}

/// A JSON answer of the token endpoint: never stored (RFC 6749 §5.1).
pub fn oauth_json(status: StatusCode, body: &impl Serialize) -> Reply {
    let mut json = Vec::with_capacity(1536);
    // Strings and numbers always serialise.
    let _ = serde_json::to_writer(&mut json, body);
    let mut reply = reply(status, "application/json", json);
    set(&mut reply, CACHE_CONTROL, "no-store");
    set(&mut reply, PRAGMA, "no-cache");
    reply
}

/// A revocation that holds: 200 and nothing else (RFC 7009 §2.2).
pub fn revoked() -> Reply {
    let mut reply = Response::new(Full::default());
    set(&mut reply, CACHE_CONTROL, "no-store");
    reply
}

/// An error of an OAuth endpoint (RFC 6749 section 5.2).
#[derive(Serialize, JsonSchema)]
pub struct ErrorBody<'a> {
    /// A code.
    error: &'a str,
    /// A sentence for the person who reads the client's log.
    error_description: &'a str,
}

/// A problem (RFC 9457).
#[derive(Serialize, JsonSchema)]
pub struct Problem<'a> {
    /// What the status is called.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// What is wrong here.
    detail: &'a str,
}

/// Why the token endpoint says no, and with which status.
#[derive(Debug)]
pub struct Refusal {
    /// What the client reads.
    pub error: OAuthError,
    status: StatusCode,
    /// Seconds after which the client may come again.
    retry_after: Option<u64>,
}

impl Refusal {
    /// A refusal with the status that the code calls for.
    pub fn new(code: ErrorCode, sentence: impl Into<Cow<'static, str>>) -> Self {
        OAuthError::new(code, sentence).into()
    }

    /// The client is not authenticated, whatever is wrong with what it presented.
    pub fn invalid_client() -> Self {
        Self::new(ErrorCode::InvalidClient, "client authentication failed.")
    }

    /// The request as such is wrong.
    pub fn invalid_request(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidRequest, sentence)
    }

    /// Not now; the client is to come again.
    pub fn unavailable(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::TemporarilyUnavailable, sentence)
    }

    /// Not for that time.
    pub fn unavailable_for(after: Duration, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after: Some(whole_seconds(after)),
            ..Self::unavailable(sentence)
        }
    }

    /// Too often (RFC 6585 §4), with the time after which the client may come again.
    pub fn too_often(after: Duration, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after: Some(whole_seconds(after)),
            ..Self::new(ErrorCode::SlowDown, sentence)
        }
    }

    /// Too many authentications have failed, of the client or from the source.
    pub(super) fn failed_too_often(TooOften(after): TooOften) -> Self {
        Self::too_often(
            after,
            "too many client authentications have failed: come again after Retry-After.",
        )
    }

    /// The status that it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The answer. `challenge` is the `WWW-Authenticate` that a 401 owes.
    pub fn into_reply(self, challenge: &HeaderValue) -> Reply {
        let mut reply = oauth_json(
            self.status,
            &ErrorBody {
                error: self.error.code().as_str(),
                error_description: self.error.description(),
            },
        );
        match self.status {
            StatusCode::UNAUTHORIZED => {
                reply
                    .headers_mut()
                    .insert(WWW_AUTHENTICATE, challenge.clone());
            }
            StatusCode::SERVICE_UNAVAILABLE => set(&mut reply, RETRY_AFTER, RETRY_SECONDS),
            _ => {}
        }
        if let Some(seconds) = self.retry_after {
            reply.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        reply
    }
}

/// After how many seconds a client may come again that met a 503.
const RETRY_SECONDS: &str = "2";
/// After how long to come again where a person has to change something first.
pub(super) const UNTIL_CHANGED: Duration = Duration::from_mins(1);

/// In seconds, rounded up, and never none.
fn whole_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

impl From<OAuthError> for Refusal {
    fn from(error: OAuthError) -> Self {
        let status = match error.code() {
            ErrorCode::InvalidClient => StatusCode::UNAUTHORIZED,
            ErrorCode::SlowDown => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        Self {
            error,
            status,
            retry_after: None,
        }
    }
}

/// An answer of all other endpoints that is no success (RFC 9457).
pub fn problem(status: StatusCode, detail: &str) -> Reply {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = Problem {
        title,
        status: status.as_u16(),
        detail,
    };
    let json = serde_json::to_vec(&body).unwrap_or_default();
    let mut reply = reply(status, "application/problem+json", json);
    set(&mut reply, CACHE_CONTROL, "no-store");
    if status == StatusCode::SERVICE_UNAVAILABLE {
        set(&mut reply, RETRY_AFTER, RETRY_SECONDS);
    }
    reply
}

/// 404.
pub fn not_found() -> Reply {
    problem(StatusCode::NOT_FOUND, "Nothing is served under this path.")
}

/// 405, with the methods that there are (RFC 9110 §15.5.6).
pub fn method_not_allowed(allow: &'static str) -> Reply {
    let mut reply = problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "This path does not serve that method.",
    );
    set(&mut reply, ALLOW, allow);
    reply
}

/// The methods of a path that is read.
pub const READ: &str = "GET, HEAD";

/// Whether the method reads.
pub fn reads(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}
