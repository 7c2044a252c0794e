//! The reasons of conditions and events, in one place: people alert on them, so that they change
//! only with a note in the changelog. `docs/reasons.md` is written for people from this list.

/// All is as the spec wants it.
pub const SUCCEEDED: &str = "Succeeded";
/// The operator is at work on it.
pub const PROGRESSING: &str = "Progressing";
/// The spec asks for what the release, or this version, does not do.
pub const INVALID_SPEC: &str = "InvalidSpec";
/// The release's policy forbids what the spec asks for.
pub const POLICY_VIOLATION: &str = "PolicyViolation";
/// The resource stands in a namespace where its kind has no meaning.
pub const WRONG_NAMESPACE: &str = "WrongNamespace";

/// The API server refused a write: a quota, an admission policy, a missing right.
pub const WRITE_REFUSED: &str = "WriteRefused";
/// A Secret of the name that we need is not ours.
pub const SECRET_NAME_CONFLICT: &str = "SecretNameConflict";
/// A ConfigMap of the name that we need is not ours.
pub const CONFIG_MAP_NAME_CONFLICT: &str = "ConfigMapNameConflict";

/// A namespace to publish in does not exist.
pub const NAMESPACE_NOT_FOUND: &str = "NamespaceNotFound";
/// A namespace to publish in is being deleted.
pub const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";
/// An older ring publishes under the same name in the same namespace.
pub const CONFIG_MAP_CLAIMED: &str = "ConfigMapClaimed";

/// A key pair was made.
pub const KEY_CREATED: &str = "KeyCreated";
/// A key pair that nobody owned was taken over.
pub const KEY_ADOPTED: &str = "KeyAdopted";
/// A key stands in the issuer's JWKS.
pub const KEY_PUBLISHED: &str = "KeyPublished";
/// A key began to sign.
pub const KEY_ACTIVATED: &str = "KeyActivated";
/// The Secret with a private key is gone.
pub const KEY_MATERIAL_LOST: &str = "KeyMaterialLost";
/// A key ceased to sign.
pub const KEY_RETIRED: &str = "KeyRetired";
/// A key left the JWKS.
pub const KEY_REMOVED: &str = "KeyRemoved";
/// A key pair was deleted.
pub const KEY_DELETED: &str = "KeyDeleted";
/// A person withdrew a key.
pub const KEY_WITHDRAWN: &str = "KeyWithdrawn";
/// A withdrawal was taken back.
pub const KEY_REACTIVATED: &str = "KeyReactivated";
/// A spec names a key that the ring does not have.
pub const UNKNOWN_KEY: &str = "UnknownKey";
/// The key that a person injects can not be used.
pub const INJECTED_KEY_REFUSED: &str = "InjectedKeyRefused";
/// A `validTo` had passed before it was ever in force.
pub const VALIDITY_REFUSED: &str = "ValidityRefused";
/// The ring's `validTo` has passed.
pub const VALIDITY_ENDED: &str = "ValidityEnded";
/// The ring's `validTo` is near.
pub const VALIDITY_ENDS_SOON: &str = "ValidityEndsSoon";
/// Of several rings for one audience this one signs.
pub const PREFERRED: &str = "Preferred";
/// Of several rings for one audience another one signs.
pub const OUTRANKED: &str = "Outranked";
/// A span of time was shorter than is safe, and a longer one holds.
pub const BELOW_SAFE_MINIMUM: &str = "BelowSafeMinimum";
/// `signWith` is obeyed.
pub const SIGN_WITH: &str = "SignWith";
/// As many keys are published as a ring may publish.
pub const TOO_MANY_KEYS: &str = "TooManyKeys";
/// A wrong clock wrote times that were put right.
pub const CLOCK_WAS_WRONG: &str = "ClockWasWrong";
/// A JWKS ConfigMap was put right.
pub const JWKS_REPAIRED: &str = "JwksRepaired";

/// A client secret was made and delivered.
pub const CREDENTIAL_CREATED: &str = "CredentialCreated";
/// The delivered Secret was deleted or altered, so that a new client secret was made.
pub const CREDENTIAL_REPLACED: &str = "CredentialReplaced";
/// Another client secret was delivered in a rotation; the old one works through its grace.
pub const CREDENTIAL_ROTATED: &str = "CredentialRotated";
/// The grace of a client secret is over, after a rotation or an exchange: it does not work any more.
pub const CREDENTIAL_REMOVED: &str = "CredentialRemoved";
/// As many client secrets work as may work at once.
pub const TOO_MANY_CREDENTIALS: &str = "TooManyCredentials";
/// A client secret is made once somebody claims it.
pub const CLAIM_AWAITED: &str = "ClaimAwaited";
/// There was no client secret to be claimed.
pub const CLAIM_REFUSED: &str = "ClaimRefused";
/// Another way to authenticate took the place of the client secret, which works on through its grace.
pub const CREDENTIAL_EXCHANGED: &str = "CredentialExchanged";
/// A device's companion agent was made.
pub const COMPANION_CREATED: &str = "CompanionCreated";
/// A device's companion agent was brought to what the device says of it.
pub const COMPANION_UPDATED: &str = "CompanionUpdated";
/// A device's companion agent was deleted, as the device asks for none, or for another one.
pub const COMPANION_DELETED: &str = "CompanionDeleted";
/// A companion agent that nobody owned was taken over by its device.
pub const COMPANION_ADOPTED: &str = "CompanionAdopted";
/// A companion agent that no device owns, and that none asks for.
pub const COMPANION_ORPHANED: &str = "CompanionOrphaned";
/// A technical user of the name that a device's companion agent should have was not made for it.
pub const COMPANION_NAME_CONFLICT: &str = "CompanionNameConflict";
/// A client secret that a restore brought back was taken over.
pub const CREDENTIAL_ADOPTED: &str = "CredentialAdopted";
/// A client secret that a person supplies was read.
pub const CREDENTIAL_SUPPLIED: &str = "CredentialSupplied";
/// The Secret, or the key in it, that is to supply a client secret is not there.
pub const SUPPLIED_SECRET_NOT_FOUND: &str = "SuppliedSecretNotFound";
/// What is supplied can not be used as a client secret.
pub const SUPPLIED_SECRET_REFUSED: &str = "SuppliedSecretRefused";
/// The `ServiceAccount` that authenticates is not there.
pub const SERVICE_ACCOUNT_NOT_FOUND: &str = "ServiceAccountNotFound";
/// The `ServiceAccount` that authenticates was seen.
pub const SERVICE_ACCOUNT_BOUND: &str = "ServiceAccountBound";
/// The keys that sign the cluster's `ServiceAccount` tokens are not known.
pub const CLUSTER_KEYS_UNKNOWN: &str = "ClusterKeysUnknown";
/// A public key can not be used.
pub const PUBLIC_KEY_REFUSED: &str = "PublicKeyRefused";
/// The delivered Secret follows the spec, around the same client secret.
pub const SECRET_UPDATED: &str = "SecretUpdated";
/// The delivered Secret was put right around a client secret that still works.
pub const SECRET_REPAIRED: &str = "SecretRepaired";
/// The technical user is suspended.
pub const SUSPENDED: &str = "Suspended";
/// Another technical user has the client id.
pub const CLIENT_ID_CONFLICT: &str = "ClientIdConflict";
/// The client id is not the namespace's to give.
pub const CLIENT_ID_NOT_ALLOWED: &str = "ClientIdNotAllowed";
/// Some roles, scopes or audiences go beyond the Subscription.
pub const BEYOND_SUBSCRIPTION: &str = "BeyondSubscription";
/// No `SigningKey` signs for it.
pub const NO_SIGNING_KEY: &str = "NoSigningKey";

/// A device revoked itself.
pub const REVOKED_BY_DEVICE: &str = "RevokedByDevice";
/// A technical user that had been revoked, and authenticates with assertions, is taken again.
pub const REVOCATION_ENDED: &str = "RevocationEnded";
/// What stood in the outbox, or in the list of revoked tokens, could not be believed.
pub const OUTBOX_ENTRY_REFUSED: &str = "OutboxEntryRefused";
/// The list of revoked tokens has no room.
pub const REVOCATIONS_FULL: &str = "RevocationsFull";

/// The outside provider is not active.
pub const INACTIVE: &str = "Inactive";
/// The outside provider could not be asked.
pub const PROVIDER_UNREACHABLE: &str = "ProviderUnreachable";
/// What the outside provider answers can not be used, or it may not be asked where it is.
pub const PROVIDER_REFUSED: &str = "ProviderRefused";
/// The outside provider says that it is another issuer than it may be.
pub const ISSUER_MISMATCH: &str = "IssuerMismatch";
/// The outside provider's tokens may say any issuer.
pub const ISSUER_NOT_VALIDATED: &str = "IssuerNotValidated";
/// The outside provider could not be asked for so long that its keys are not trusted any more.
pub const PROVIDER_KEYS_EXPIRED: &str = "ProviderKeysExpired";
/// The outside provider's keys are others than before.
pub const PROVIDER_KEYS_CHANGED: &str = "ProviderKeysChanged";
/// Another outside provider takes the same tokens.
pub const PROVIDER_CONFLICT: &str = "ProviderConflict";
/// The namespace has as many outside providers as may be.
pub const TOO_MANY_PROVIDERS: &str = "TooManyProviders";
/// What comes of an example is not what it expects.
pub const EXAMPLE_FAILED: &str = "ExampleFailed";

/// There is no outside provider of the name that a User gives.
pub const PROVIDER_NOT_FOUND: &str = "ProviderNotFound";
/// Something stands against the outside provider that a User names.
pub const PROVIDER_NOT_USABLE: &str = "ProviderNotUsable";
/// An older User names the same person.
pub const SUBJECT_CONFLICT: &str = "SubjectConflict";
/// People, or a legal entity, were enrolled.
pub const ENROLLED: &str = "Enrolled";
/// What a server noted of somebody new could not be believed, or can not be done.
pub const ENROLMENT_REFUSED: &str = "EnrolmentRefused";
/// A tenant has as many Users as it may have for anybody to be enrolled.
pub const USERS_FULL: &str = "UsersFull";
/// As many legal entities are enrolled as may be.
pub const LEGAL_ENTITIES_FULL: &str = "LegalEntitiesFull";

/// The namespace has no Subscription.
pub const NO_SUBSCRIPTION: &str = "NoSubscription";
/// None of the namespace's Subscriptions is current.
pub const SUBSCRIPTION_NOT_CURRENT: &str = "SubscriptionNotCurrent";
/// The Subscription holds now.
pub const CURRENT: &str = "Current";
/// Another release serves the namespace.
pub const ANOTHER_ENVIRONMENT: &str = "AnotherEnvironment";
/// The Subscription is sound, and another one of its namespace holds now.
pub const NOT_CURRENT: &str = "NotCurrent";
/// The Subscription's period has not begun.
pub const SCHEDULED: &str = "Scheduled";
/// The Subscription's period is over.
pub const EXPIRED: &str = "Expired";
/// An older Subscription binds the namespace to something else.
pub const NAMESPACE_BOUND: &str = "NamespaceBound";
/// Another namespace has the legal entity.
pub const LEGAL_ENTITY_BOUND: &str = "LegalEntityBound";
/// The catalogue has no such tier.
pub const UNKNOWN_TIER: &str = "UnknownTier";
/// The tier is a draft.
pub const DRAFT_TIER: &str = "DraftTier";
