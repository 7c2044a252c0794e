//! How the OAuth endpoints say no (RFC 6749 §5.2).

use std::borrow::Cow;

/// An error code on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request is malformed (RFC 6749 §5.2).
    InvalidRequest,
    /// The client is not authenticated (RFC 6749 §5.2).
    InvalidClient,
    /// The grant that was presented is not valid (RFC 6749 §5.2).
    InvalidGrant,
    /// The client may not use this grant (RFC 6749 §5.2).
    UnauthorizedClient,
    /// The server knows no such grant (RFC 6749 §5.2).
    UnsupportedGrantType,
    /// A scope is malformed, or not this client's (RFC 6749 §5.2).
    InvalidScope,
    /// A resource or audience is malformed, or not this client's (RFC 8707 §2).
    InvalidTarget,
    /// What is asked for is another tenant's (RFC 6749 §4.1.2.1).
    AccessDenied,
    /// The client asks too often (RFC 8628 §3.5).
    SlowDown,
    /// Not now: try again (RFC 6749 §4.1.2.1).
    TemporarilyUnavailable,
    /// The server is at fault (RFC 6749 §4.1.2.1).
    ServerError,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [Self; 11] = [
        Self::InvalidRequest,
        Self::InvalidClient,
        Self::InvalidGrant,
        Self::UnauthorizedClient,
        Self::UnsupportedGrantType,
        Self::InvalidScope,
        Self::InvalidTarget,
        Self::AccessDenied,
        Self::SlowDown,
        Self::TemporarilyUnavailable,
        Self::ServerError,
    ];

    /// The code as it stands in `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::AccessDenied => "access_denied",
            Self::SlowDown => "slow_down",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }
}

/// A code with a sentence for the person who reads the client's log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {description}", code.as_str())]
pub struct OAuthError {
    code: ErrorCode,
    description: Cow<'static, str>,
}

impl OAuthError {
    /// An error with this description. Characters that RFC 6749 §5.2 does not allow there become
    /// `'` (quotes) or `?`.
    pub fn new(code: ErrorCode, description: impl Into<Cow<'static, str>>) -> Self {
        let mut description = description.into();
        if !description.chars().all(is_description_char) {
            description = description
                .chars()
                .map(|c| match c {
                    '"' => '\'',
                    c if is_description_char(c) => c,
                    _ => '?',
                })
                .collect::<String>()
                .into();
        }
        Self { code, description }
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The sentence, of the characters that `error_description` may hold.
    pub fn description(&self) -> &str {
        &self.description
    }
}

/// `%x20-21 / %x23-5B / %x5D-7E` (RFC 6749 §5.2).
fn is_description_char(c: char) -> bool {
    matches!(c, ' '..='~') && c != '"' && c != '\\'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_hold_only_what_may_stand_there() {
        let error = OAuthError::new(ErrorCode::InvalidScope, "no \"x\\y\"\r\nSet-Cookie: ключ");
        assert_eq!(error.description(), "no 'x?y'??Set-Cookie: ????");
        assert_eq!(
            error.to_string(),
            "invalid_scope: no 'x?y'??Set-Cookie: ????"
        );
    }

    #[test]
    fn codes_differ() {
        let codes: std::collections::HashSet<_> =
            ErrorCode::ALL.into_iter().map(ErrorCode::as_str).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
    }
}
