//! What can become of what is counted: each is a label's value.

/// What became of a client secret that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretCheck {
    /// Right, and known to be so without a hash.
    Remembered,
    /// Right, by its hash.
    Verified,
    /// Wrong, by a hash.
    Wrong,
    /// Not of the shape of any of our secrets: no hash was computed.
    Misshapen,
    /// Not looked at: too many checks wait.
    Shed,
}

impl SecretCheck {
    pub(super) const ALL: [(Self, &'static str); 5] = [
        (Self::Remembered, "remembered"),
        (Self::Verified, "verified"),
        (Self::Wrong, "wrong"),
        (Self::Misshapen, "misshapen"),
        (Self::Shed, "shed"),
    ];
}

/// What turned a request away that came too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThrottledBy {
    /// Failures under its client id.
    Client,
    /// Failures from its address.
    Source,
    /// The client's rate of tokens.
    TokenRate,
}

impl ThrottledBy {
    pub(super) const ALL: [(Self, &'static str); 3] = [
        (Self::Client, "client"),
        (Self::Source, "source"),
        (Self::TokenRate, "token_rate"),
    ];
}

/// What became of a request to revoke a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It was noted.
    Noted,
    /// There was nothing to note: not a token of that client's which lives, or revoked before.
    Nothing,
    /// The request, or the client's authentication, was wrong, or too often.
    Refused,
    /// It could not be noted: 503.
    Unavailable,
}

impl Revocation {
    pub(super) const ALL: [(Self, &'static str); 4] = [
        (Self::Noted, "noted"),
        (Self::Nothing, "nothing"),
        (Self::Refused, "refused"),
        (Self::Unavailable, "unavailable"),
    ];
}

/// What became of a request to introspect a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introspection {
    /// The token holds.
    Active,
    /// It does not, or is none of the tenant's.
    Inactive,
    /// The request, or the client, was refused.
    Refused,
    /// 503.
    Unavailable,
}

impl Introspection {
    pub(super) const ALL: [(Self, &'static str); 4] = [
        (Self::Active, "active"),
        (Self::Inactive, "inactive"),
        (Self::Refused, "refused"),
        (Self::Unavailable, "unavailable"),
    ];
}

/// What became of somebody who was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// A person, who was noted.
    Noted,
    /// A person, who came too fast after others, or when the tenant had as many as may be: 503.
    Full,
    /// A person, who could not be noted: 503.
    Unavailable,
    /// A legal entity, which was noted.
    LegalEntity,
}

impl Enrolment {
    pub(super) const ALL: [(Self, &'static str); 4] = [
        (Self::Noted, "noted"),
        (Self::Full, "full"),
        (Self::Unavailable, "unavailable"),
        (Self::LegalEntity, "legal_entity"),
    ];
}

/// What became of a client assertion that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertionCheck {
    /// Right.
    Verified,
    /// By its text no assertion for this server.
    Malformed,
    /// An unknown client, another key, a wrong signature.
    Wrong,
    /// Used before.
    Replayed,
    /// Not taken: no more can be remembered.
    Shed,
}

impl AssertionCheck {
    pub(super) const ALL: [(Self, &'static str); 5] = [
        (Self::Verified, "verified"),
        (Self::Malformed, "malformed"),
        (Self::Wrong, "wrong"),
        (Self::Replayed, "replayed"),
        (Self::Shed, "shed"),
    ];
}
