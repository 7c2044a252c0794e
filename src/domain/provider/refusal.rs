//! Why a provider's token is not taken.

/// Why a provider's token is not taken: a sentence for the log of whoever presents it. It quotes
/// nothing of the token but names of claims that the provider's own resource has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `spec.active` is false.
    #[error("the provider is not active: its tokens are not taken.")]
    Inactive,
    /// The header has something that changes what the token means, or brings its own key.
    #[error("the token's header has {0}, which is not taken.")]
    Header(&'static str),
    /// An ID token, a logout token or another JWT that is no access token.
    #[error("the token is no access token, but {0}: present the access token.")]
    Kind(&'static str),
    /// Bound to a key that its holder must show (RFC 7800), which can not be shown here.
    #[error(
        "the token is bound to a key of its holder (cnf), which can not be proven here: ask the provider for a bearer token."
    )]
    Bound,
    /// It speaks of a client, not of a person.
    #[error(
        "the token speaks of a client of the provider, which has it for itself, not of a person."
    )]
    OfClient,
    /// A claim that must be there is not.
    #[error("{0} is missing in the token.")]
    Missing(&'static str),
    /// A registered claim of another type than the RFCs have it.
    #[error("{0} in the token is not what RFC 7519, RFC 8693 and RFC 9068 make of it.")]
    Malformed(&'static str),
    /// It says that this server issued it, and another key signed it.
    #[error("the token says that this server issued it, but a provider's key signed it.")]
    OwnIssuer,
    /// None of the provider's issuers.
    #[error("iss in the token is none of the provider's issuers.")]
    Issuer,
    /// For none of the provider's audiences.
    #[error("aud in the token has none of the provider's audiences.")]
    Audience,
    /// `exp` is past.
    #[error("the token has expired (exp).")]
    Expired,
    /// `nbf` lies ahead.
    #[error("the token is not good yet (nbf).")]
    NotYet,
    /// `iat` lies ahead.
    #[error("iat in the token lies in the future.")]
    IssuedAhead,
    /// From before the provider was trusted.
    #[error("the token was issued (iat) before the provider was registered here: sign in again.")]
    BeforeRegistration,
    /// No subject.
    #[error("the token has no {0}, which names its subject.")]
    SubjectMissing(String),
    /// The subject is empty, too long, or has control characters.
    #[error("{0} in the token is no subject: 1 to 255 bytes without control characters are taken.")]
    Subject(String),
    /// The organisation is no sound text.
    #[error("{0} in the token is no organisation: a text of 1 to 255 bytes is taken.")]
    Organisation(String),
    /// No legal entity in a token of a provider for all tenants.
    #[error(
        "the token has no {0}, which names its legal entity: a provider for all tenants must say whose each token is."
    )]
    LegalEntityMissing(String),
    /// The legal entity is no id of one.
    #[error(
        "{0} in the token is no legal entity's id: letters, digits, dots, dashes and underscores are taken, 100 at most."
    )]
    LegalEntity(String),
    /// The roles are neither of the three forms.
    #[error(
        "{0} in the token is no list of roles: an array of texts, an object with the roles as its keys, or a text with spaces between them is taken."
    )]
    Roles(String),
    /// A required claim is missing, or has another value.
    #[error(
        "{0} is missing in the token, or has not the value that the provider's claims.required asks for."
    )]
    Required(String),
}

impl Refusal {
    /// All that [`Self::reason`] may say, in the order of the rules' descriptions.
    pub const REASONS: [&str; 21] = [
        "ProviderInactive",
        "HeaderRefused",
        "NoAccessToken",
        "TokenBound",
        "TokenOfClient",
        "ClaimMissing",
        "ClaimMalformed",
        "OwnIssuer",
        "WrongIssuer",
        "WrongAudience",
        "TokenExpired",
        "TokenNotYetValid",
        "IssuedInFuture",
        "IssuedBeforeRegistration",
        "SubjectMissing",
        "SubjectUnsound",
        "OrganisationUnsound",
        "LegalEntityMissing",
        "LegalEntityUnsound",
        "RolesUnsound",
        "RequiredClaim",
    ];

    /// One word that stays the same, for metrics and the audit log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Inactive => "ProviderInactive",
            Self::Header(_) => "HeaderRefused",
            Self::Kind(_) => "NoAccessToken",
            Self::Bound => "TokenBound",
            Self::OfClient => "TokenOfClient",
            Self::Missing(_) => "ClaimMissing",
            Self::Malformed(_) => "ClaimMalformed",
            Self::OwnIssuer => "OwnIssuer",
            Self::Issuer => "WrongIssuer",
            Self::Audience => "WrongAudience",
            Self::Expired => "TokenExpired",
            Self::NotYet => "TokenNotYetValid",
            Self::IssuedAhead => "IssuedInFuture",
            Self::BeforeRegistration => "IssuedBeforeRegistration",
            Self::SubjectMissing(_) => "SubjectMissing",
            Self::Subject(_) => "SubjectUnsound",
            Self::Organisation(_) => "OrganisationUnsound",
            Self::LegalEntityMissing(_) => "LegalEntityMissing",
            Self::LegalEntity(_) => "LegalEntityUnsound",
            Self::Roles(_) => "RolesUnsound",
            Self::Required(_) => "RequiredClaim",
        }
    }
}
