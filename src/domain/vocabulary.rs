//! What a person may write where a manifest asks for a name or a word: one rule each, in CEL, with
//! a sentence that says what to write instead. A bare `pattern` would be as strict, but the API
//! server answers it with the regular expression alone.
//!
//! Every text has a greatest length and every list a greatest number of entries, from which the
//! API server reckons what a rule can cost.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// A condition in CEL on `self`, and the sentence for who breaks it.
pub type Rule = (&'static str, &'static str);

/// The condition of a rule of a text, for the object whose field of that name the text is. The API server quotes
/// a text that breaks a rule of its own, and no object: this is for fields into which a person may paste a
/// secret, and whose refusal would then repeat it in logs.
pub fn unquoted(field: &str, (condition, _): Rule) -> String {
    let condition = condition.replace("self", &format!("self.{field}"));
    format!("!has(self.{field}) || ({condition})")
}

const SCOPE: Rule = (
    r"self.matches('^[!#-\\x5b\\x5d-~]+$')",
    "a scope is made of visible ASCII characters, without space, double quote or backslash: give each scope an entry of its own.",
);
const SCOPE_BY_NAME: Rule = (
    "!self.contains('*')",
    "a technical user's scopes are listed by name: * stands for all of them only in a Subscription's allowed.scopes.",
);
const SCOPE_OR_ALL: Rule = (
    "self == '*' || !self.contains('*')",
    "scopes are compared as they stand, and * is no pattern: it allows every scope as an entry of its own, and nothing within another.",
);
const ROLE: Rule = (
    r"self.matches('^[^\\p{Cc}\\p{Cf}\\p{Z},]([^\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp},]*[^\\p{Cc}\\p{Cf}\\p{Z},])?$')",
    "a role has no comma, no line break or invisible character, and no space at its beginning or end, since services join roles with commas: give each role an entry of its own.",
);
const ROLE_BY_NAME: Rule = (
    "!self.contains('*')",
    "a technical user's roles are listed by name: * stands for all of them only in a Subscription's allowed.roles.",
);
const ROLE_LISTED: Rule = (
    "!self.contains('*')",
    "the roles that people have here are listed by name: * stands for all of them only in a Subscription's allowed.roles.",
);
const ROLE_OR_ALL: Rule = (
    "self == '*' || !self.contains('*')",
    "roles are compared as they stand, and * is no pattern: it allows every role as an entry of its own, and nothing within another.",
);
const AUDIENCE: Rule = (
    "self.matches('^[!-~]+$')",
    "an audience is made of visible ASCII characters without a space, such as https://orders.example: give each audience an entry of its own.",
);
const AUDIENCE_BY_NAME: Rule = (
    "!self.contains('*')",
    "a technical user's audiences are listed by name: * stands for all of them only in a Subscription's allowed.audiences.",
);
const AUDIENCE_OR_ALL: Rule = (
    "self == '*' || !self.contains('*')",
    "audiences are compared as they stand, and * is no pattern: it allows every audience as an entry of its own, and nothing within another.",
);
const CLIENT_ID: Rule = (
    "self.matches('^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$')",
    "a client id is made of lower-case letters, digits, dots, dashes and underscores, and begins and ends with a letter or digit (colons are for the ids of people).",
);
/// On the name of an object, as [`unquoted`] has it.
pub const OBJECT_NAME: Rule = (
    r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
    "the name of an object is made of lower-case letters, digits, dashes and dots, and each part between dots begins and ends with a letter or digit.",
);
const KEY_ID: Rule = (
    "self.matches('^[A-Za-z0-9_-]{43}$')",
    "a key id is the kid of one of the ring's keys, 43 letters, digits, dashes and underscores, as status.keys shows it.",
);
/// On a key of a Secret, as [`unquoted`] has it.
pub const DATA_KEY: Rule = (
    "self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",
    "a key of a Secret is made of letters, digits, dashes, underscores and dots, is not a dot alone, and does not begin with two.",
);
const CONFIG_MAP_KEY: Rule = (
    "self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",
    "a key of a ConfigMap is made of letters, digits, dashes, underscores and dots, is not a dot alone, and does not begin with two.",
);
/// On an age recipient, as [`unquoted`] has it.
pub const AGE_RECIPIENT: Rule = (
    "self.matches('^age1[02-9ac-hj-np-z]{58}$')",
    "an age recipient is age1 and 58 lower-case letters and digits, as age-keygen -y prints it; its private key, which begins with AGE-SECRET-KEY, stays with you.",
);
const LABEL_VALUE: Rule = (
    "self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",
    "a label's value is empty, or made of letters, digits, dashes, underscores and dots, with a letter or digit at both ends.",
);
const NAMESPACE: Rule = (
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "a namespace's name is made of lower-case letters, digits and dashes, and begins and ends with a letter or digit: give each namespace an entry of its own.",
);
const ONE_NAMESPACE: Rule = (
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "the namespace of a ServiceAccount is made of lower-case letters, digits and dashes, and begins and ends with a letter or digit.",
);
const TOKEN_AUDIENCE: Rule = (
    "self.matches('^[!-~]+$')",
    "the audience of a token is made of visible ASCII characters without a space, as it stands where the token is projected.",
);
const NO_API_SERVER: Rule = (
    "!self.startsWith('https://kubernetes.default')",
    "that audience is the API server's own: a token for it gives access to the cluster, and is not for showing to others; take the field away for the issuer.",
);
/// On the issuer of a cluster's tokens, as [`unquoted`] has it.
pub const TOKEN_ISSUER: Rule = (
    "self.matches('^https://[!-~]+$')",
    "the issuer of a cluster's tokens is a URL that begins with https://, as its /.well-known/openid-configuration has it.",
);
const ENVIRONMENT: Rule = (
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "an environment's name is made of lower-case letters, digits and dashes, and begins and ends with a letter or digit.",
);
const LEGAL_ENTITY_ID: Rule = (
    "self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*$')",
    "a legal entity's id is made of letters, digits, dots, dashes and underscores, and begins with a letter or digit: it stands in every token.",
);
const DISPLAY_NAME: Rule = (
    r"self.matches('^[^\\p{Cc}\\p{Zl}\\p{Zp}]*$') && !self.matches('^[\\p{Z}]*$')",
    "a name for people is one line of text, without control characters, and not only spaces.",
);
const SUBJECT: Rule = (
    r"self.matches('^[^\\p{Cc}\\x{200b}-\\x{200f}\\x{2028}-\\x{202e}\\x{2060}-\\x{206f}\\x{feff}]+$')",
    "a subject is what stands in the provider's tokens, 1 to 255 bytes without control or invisible characters, as no token with another one is taken.",
);
const PROVIDER_NAME: Rule = (
    r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
    "the name of an OidcProvider is made of lower-case letters, digits, dashes and dots, and each part between dots begins and ends with a letter or digit.",
);
const TIER: Rule = (
    "self.matches('^[A-Za-z0-9]([A-Za-z0-9 ._-]*[A-Za-z0-9])?$')",
    "a tier's name is made of letters, digits, spaces, dots, dashes and underscores, and begins and ends with a letter or digit.",
);

const KEY_TYPE: Rule = (
    "self in ['RSA', 'EC', 'OKP']",
    "kty is RSA, EC or OKP: a symmetric key (oct) has no public half, and would have to be kept secret here.",
);
const KEY_ALGORITHM: Rule = (
    "self in ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA']",
    "alg is one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA.",
);
const KEY_USE: Rule = (
    "self == 'sig'",
    "use is sig, where it is there: a key that encrypts signs nothing.",
);
const KEY_CURVE: Rule = (
    "self in ['P-256', 'P-384', 'P-521', 'Ed25519']",
    "crv is one of P-256, P-384, P-521 and Ed25519.",
);
const KEY_NAME: Rule = (
    "self.matches('^[!-~]+$')",
    "a kid here is made of visible ASCII characters without a space.",
);
const BASE64URL: Rule = (
    "self.matches('^[A-Za-z0-9_-]+$')",
    "a member of a key is base64url without padding: letters, digits, dashes and underscores.",
);
/// On a provider's wellKnownUri, as [`unquoted`] has it.
pub const WELL_KNOWN_URI: [Rule; 2] = [
    (
        r"self.matches('^https?://[^/?#@]+(/[^?#]*)?/\\.well-known/[^?#]+$') && self.matches('^[!-~]+$')",
        "wellKnownUri is where the provider's metadata is, such as https://login.example.com/.well-known/openid-configuration: a URL with /.well-known/ in it, without user, query or fragment.",
    ),
    (
        "!self.endsWith('/jwks.json')",
        "wellKnownUri is that of the metadata, which tells where the JWKS is, and not of the JWKS itself.",
    ),
];
const PROVIDER_ISSUER: Rule = (
    "self.matches('^[!-~]+$')",
    "an issuer is what stands as iss in the provider's tokens, byte for byte, made of visible ASCII characters without a space.",
);
const PROVIDER_AUDIENCE: Rule = (
    "self.matches('^[!-~]+$') && self != '*'",
    "an audience is what stands as aud in the tokens that are meant for this use, made of visible ASCII characters without a space; * is no pattern here.",
);
const CLAIM_PATH: Rule = (
    r"self.startsWith('https://') || self.startsWith('http://') || self.matches('^([^.\\\\]|\\\\[.\\\\])+([.]([^.\\\\]|\\\\[.\\\\])+){0,7}$')",
    r"a claim is named by at most 8 names with dots between them, such as realm_access.roles: a dot within a name is written \., a backslash \\.",
);
const REFUSAL: Rule = (
    "self in ['ProviderInactive', 'HeaderRefused', 'NoAccessToken', 'TokenBound', 'TokenOfClient', 'ClaimMissing', 'ClaimMalformed', 'OwnIssuer', 'WrongIssuer', 'WrongAudience', 'TokenExpired', 'TokenNotYetValid', 'IssuedInFuture', 'IssuedBeforeRegistration', 'SubjectMissing', 'SubjectUnsound', 'OrganisationUnsound', 'LegalEntityMissing', 'LegalEntityUnsound', 'RolesUnsound', 'RequiredClaim']",
    "refused is the word for why a token is not taken, one of ProviderInactive, HeaderRefused, NoAccessToken, TokenBound, TokenOfClient, ClaimMissing, ClaimMalformed, OwnIssuer, WrongIssuer, WrongAudience, TokenExpired, TokenNotYetValid, IssuedInFuture, IssuedBeforeRegistration, SubjectMissing, SubjectUnsound, OrganisationUnsound, LegalEntityMissing, LegalEntityUnsound, RolesUnsound and RequiredClaim.",
);
/// On a provider's caBundle, as [`unquoted`] has it.
pub const CA_BUNDLE: [Rule; 2] = [
    (
        "!self.contains('PRIVATE KEY')",
        "a private key does not belong here, and was not stored: take it for known, make another, and give the certificates alone.",
    ),
    (
        "self.contains('-----BEGIN CERTIFICATE-----')",
        "caBundle is one or more certificates in PEM, each of which begins with -----BEGIN CERTIFICATE-----.",
    ),
];
const MODULUS_OF_PROVIDER: Rule = (
    "self.size() <= 683",
    "an RSA key of more than 4096 bits is not taken from a provider, as it only costs time.",
);
/// On a key as a whole.
const KEY_RULES: [Rule; 5] = [
    (
        "!has(self.d) && !has(self.p) && !has(self.q) && !has(self.dp) && !has(self.dq) && !has(self.qi) && !has(self.k)",
        "a private or symmetric key does not belong here, and was not stored: take this one for known, make another, and give its public members alone.",
    ),
    (
        "self.kty != 'RSA' || (has(self.n) && has(self.e))",
        "an RSA key is made of n and e, and one of them is missing.",
    ),
    (
        "self.kty != 'RSA' || has(self.alg)",
        "an RSA key needs alg, such as RS256 or PS256, since a key is for one algorithm alone (RFC 8725 section 3.1).",
    ),
    (
        "self.kty != 'RSA' || !has(self.n) || self.n.size() >= 342",
        "an RSA key of less than 2048 bits is not taken: make one of 2048 bits or more.",
    ),
    (
        "self.kty == 'RSA' || (has(self.crv) && has(self.x) && (self.kty == 'OKP') == (self.crv == 'Ed25519') && (self.kty == 'OKP' || has(self.y)))",
        "an EC key is made of crv (P-256, P-384 or P-521), x and y, and an OKP key of crv (Ed25519) and x: something is missing, or does not go together.",
    ),
];

fn rules(rules: &[Rule]) -> Value {
    let rule = |(rule, message): &Rule| json!({ "rule": rule, "message": message });
    rules.iter().map(rule).collect()
}

/// A public key as a JWK. Private members are known here only to be refused with a sentence.
fn public_key() -> Schema {
    public_key_up_to(&[])
}

/// The same with these rules for an RSA modulus.
fn public_key_up_to(modulus: &[Rule]) -> Schema {
    let member = |max_length, rules: &[Rule], description: &str| {
        let mut schema = text(max_length, rules);
        schema.insert("description".into(), description.into());
        schema
    };
    let private = json!({
        "type": "string",
        "description": "A private or secret member, which must not be given.",
    });
    // On the key, as whoever takes a member for a place for PEM would have it repeated.
    let unquoted = |(field, rule): (&str, &Rule)| json!({ "rule": unquoted(field, *rule), "message": rule.1, "fieldPath": format!(".{field}") });
    let members = ["n", "e", "x", "y"].map(|field| (field, &BASE64URL));
    let moduli = modulus.iter().map(|rule| ("n", rule));
    let mut all = rules(&KEY_RULES);
    if let Some(all) = all.as_array_mut() {
        all.extend(members.into_iter().chain(moduli).map(unquoted));
    }
    json_schema!({
        "type": "object",
        "description": "A public key as a JWK (RFC 7517).",
        "required": ["kty"],
        "properties": {
            "kty": member(16, &[KEY_TYPE], "The key type: RSA, EC or OKP."),
            "kid": member(256, &[KEY_NAME], "What assertions call the key by; its RFC 7638 thumbprint where absent."),
            "alg": member(16, &[KEY_ALGORITHM], "The one algorithm that it is for; that of the curve where absent."),
            "use": member(16, &[KEY_USE], "What it is for: sig."),
            "crv": member(16, &[KEY_CURVE], "The curve of an EC or OKP key."),
            "n": member(1366, &[], "The modulus of an RSA key."),
            "e": member(8, &[], "The public exponent of an RSA key, as a rule AQAB."),
            "x": member(88, &[], "The x coordinate of an EC key, or the whole of an OKP key."),
            "y": member(88, &[], "The y coordinate of an EC key."),
            "d": private, "p": private, "q": private, "dp": private, "dq": private, "qi": private,
            "k": private,
        },
        "x-kubernetes-validations": all,
    })
}

fn text(max_length: u32, rules: &[Rule]) -> Schema {
    let mut schema = json_schema!({ "type": "string", "maxLength": max_length });
    if !rules.is_empty() {
        schema.insert("x-kubernetes-validations".into(), self::rules(rules));
    }
    schema
}

/// A list in which nothing stands twice, so that server-side apply merges what two people add.
fn set(max_items: u32, item: &Schema) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": max_items,
        "items": item,
        "x-kubernetes-list-type": "set",
    })
}

/// Labels or annotations of a person's choosing: names that no tool of Kubernetes or ours gives a
/// meaning of its own. Their names have no greatest length in the schema, and the API server reckons
/// with few entries therefore.
fn chosen(what: &str, value: &Schema) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": value,
        "x-kubernetes-validations": [
            {
                "rule": r"self.all(k, k.matches('^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
                "message": format!("the name of {what} is made of at most 63 letters, digits, dashes, underscores and dots, with a letter or digit at both ends, after a lower-case domain and a slash if it has one."),
            },
            {
                "rule": r"self.all(k, !k.matches('^([^/]*\\.)?(kubernetes\\.io|k8s\\.io|chancery\\.dev)/'))",
                "message": format!("the name of {what} lies under kubernetes.io, k8s.io or chancery.dev, where names have a meaning that is not yours to give: choose one of a domain of your own, or without one."),
            },
        ],
    })
}

/// The schemas, to be named by `schema_with`.
macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident = $schema:expr;)*) => {
        $($(#[$doc])* pub fn $name(_: &mut SchemaGenerator) -> Schema { $schema })*
    };
}

schemas! {
    /// The scopes of a technical user.
    scopes = set(64, &text(256, &[SCOPE, SCOPE_BY_NAME]));
    /// The scopes that a Subscription allows.
    allowed_scopes = set(256, &text(256, &[SCOPE, SCOPE_OR_ALL]));
    /// The roles of a technical user.
    roles = set(64, &text(256, &[ROLE, ROLE_BY_NAME]));
    /// The roles that a Subscription allows.
    allowed_roles = set(256, &text(256, &[ROLE, ROLE_OR_ALL]));
    /// The audiences of a technical user: the first is the default, so one is needed.
    audiences = {
        let mut list = set(32, &text(512, &[AUDIENCE, AUDIENCE_BY_NAME]));
        list.insert("minItems".into(), json!(1));
        list
    };
    /// The audiences that a Subscription allows.
    allowed_audiences = set(256, &text(512, &[AUDIENCE, AUDIENCE_OR_ALL]));
    /// A client id that a technical user chooses.
    client_id = text(253, &[CLIENT_ID]);
    /// The client ids that a Subscription allows besides those with its namespace.
    allowed_client_ids = set(256, &text(253, &[CLIENT_ID]));
    /// The kid of a key.
    key_id = text(64, &[KEY_ID]);
    /// The name of an object.
    object_name = text(253, &[OBJECT_NAME]);
    /// The name of a Secret.
    secret_name = text(253, &[]);
    /// The name of a technical user, which is shorter, since others follow from it.
    technical_user_name = text(63, &[OBJECT_NAME]);
    /// The name of a `SigningKey`, which is shorter, since others follow from it.
    signing_key_name = text(52, &[OBJECT_NAME]);
    /// A key in a Secret's data.
    data_key = text(253, &[]);
    /// The keys of a `ConfigMap`'s data that a document stands under.
    config_map_keys = {
        let mut list = set(8, &text(253, &[CONFIG_MAP_KEY]));
        list.insert("minItems".into(), json!(1));
        list
    };
    /// Whom a client secret is sealed to.
    age_recipient = text(128, &[]);
    /// Labels of a person's choosing.
    chosen_labels = chosen("a label", &text(63, &[LABEL_VALUE]));
    /// Annotations of a person's choosing.
    chosen_annotations = chosen("an annotation", &text(1024, &[]));
    /// Namespaces by name.
    namespaces = set(64, &text(63, &[NAMESPACE]));
    /// The values that a label is compared with.
    label_values = set(64, &text(63, &[]));
    /// A `ServiceAccount`'s namespace.
    namespace = text(63, &[ONE_NAMESPACE]);
    /// The audience of a `ServiceAccount`'s tokens.
    token_audience = text(512, &[TOKEN_AUDIENCE, NO_API_SERVER]);
    /// Who issues another cluster's tokens.
    token_issuer = text(512, &[]);
    /// The public keys that a client, or a cluster, signs with.
    public_keys = json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 16,
        "items": public_key(),
        "x-kubernetes-list-type": "atomic",
        "x-kubernetes-validations": rules(&[(
            "self.all(a, !has(a.kid) || self.exists_one(b, has(b.kid) && b.kid == a.kid))",
            "two keys have the same kid, by which assertions call them: give each a name of its own.",
        )]),
    });
    /// Where a provider's metadata is.
    well_known_uri = text(1000, &[]);
    /// What a provider's tokens may say as `iss`.
    provider_issuers = set(10, &text(512, &[PROVIDER_ISSUER]));
    /// Of what a provider's tokens must have one as `aud`.
    provider_audiences = {
        let mut list = set(32, &text(512, &[PROVIDER_AUDIENCE]));
        list.insert("minItems".into(), json!(1));
        list
    };
    /// Certificates in PEM.
    ca_bundle = text(65_536, &[]);
    /// Where a claim stands.
    claim_path = text(256, &[CLAIM_PATH]);
    /// What a claim must be.
    claim_value = text(256, &[]);
    /// A provider's role.
    provider_role = text(256, &[]);
    /// Our roles for one of a provider's.
    mapped_roles = set(16, &text(256, &[ROLE, ROLE_LISTED]));
    /// The roles of a person.
    person_roles = set(64, &text(256, &[ROLE, ROLE_LISTED]));
    /// The claims of a token that is an example.
    example_token = json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
    });
    /// A text that is to come of an example.
    example_text = text(512, &[]);
    /// The roles that are to come of an example.
    example_roles = set(64, &text(256, &[]));
    /// Why an example is to be refused.
    example_refusal = text(64, &[REFUSAL]);
    /// The public keys that a provider signs with.
    provider_keys = json_schema!({
        "type": "array",
        "maxItems": 20,
        "items": public_key_up_to(&[MODULUS_OF_PROVIDER]),
        "x-kubernetes-list-type": "atomic",
        "x-kubernetes-validations": rules(&[(
            "self.all(a, !has(a.kid) || self.exists_one(b, has(b.kid) && b.kid == a.kid))",
            "two keys have the same kid, by which tokens call them: give each a name of its own.",
        )]),
    });
    /// What a provider calls a person.
    subject = text(255, &[SUBJECT]);
    /// The name of an `OidcProvider`.
    provider_name = text(63, &[PROVIDER_NAME]);
    /// The name of a release's environment.
    environment = text(63, &[ENVIRONMENT]);
    /// A legal entity's id.
    legal_entity_id = text(100, &[LEGAL_ENTITY_ID]);
    /// A legal entity's name.
    display_name = text(256, &[DISPLAY_NAME]);
    /// A tier's name.
    tier_name = text(63, &[TIER]);
}
