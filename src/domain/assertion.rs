//! Client assertions (RFC 7521, RFC 7523 as RFC 10070 updates it; `OpenID` Connect Core §9): what a
//! JWT must look like before a signature is worth verifying, and what its claims must say.
//!
//! All of it follows from the text that was presented, the time and the release's settings, and
//! nothing from which clients there are: so a client may be told what is wrong, and learns nothing.

use serde_json::{Map, Value};

use super::algorithm::Algorithm;

pub mod strict;

/// The `client_assertion_type` of a JWT (RFC 7523 §2.2).
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The longest assertion in bytes: a projected token has a tenth of it.
pub const MAX_BYTES: usize = 16 * 1024;
/// How far `exp` of a `private_key_jwt` may lie ahead, in seconds: for so long its `jti` is
/// remembered.
pub const LONGEST_LIFE: i64 = 300;
/// How far a client's clock may be off, in seconds. It does not lengthen [`LONGEST_LIFE`].
pub const LEEWAY: i64 = 30;
/// How long ago a `private_key_jwt` may have been issued, in seconds.
const OLDEST: i64 = 3600;
/// The longest `kid` and `jti` in bytes.
const LONGEST_ID: usize = 256;
/// What the subject of every `ServiceAccount` token begins with.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// What is wrong with an assertion: a sentence for the person who reads the client's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client_assertion: {0}.")]
pub struct Defect(pub &'static str);

/// What is needed of the JOSE header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it says that it was signed with.
    pub algorithm: Algorithm,
    /// Which key signed it.
    pub key_id: Option<String>,
}

/// An assertion of which nothing is verified yet.
#[derive(Clone, Debug)]
pub struct Assertion<'a> {
    /// The header.
    pub header: Header,
    /// The claims.
    pub claims: Claims,
    /// What the signature is of.
    pub signed: &'a str,
    /// The signature.
    pub signature: Vec<u8>,
}

/// The claims that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Who issued it.
    pub issuer: String,
    /// Whom it speaks of.
    pub subject: String,
    /// For whom it is.
    pub audience: Vec<String>,
    /// When it expires, in seconds since the epoch.
    pub expires: i64,
    /// From when on it is good.
    pub not_before: Option<i64>,
    /// When it was issued.
    pub issued_at: Option<i64>,
    /// Its own name.
    pub id: Option<String>,
    /// The workload that a `ServiceAccount` token speaks of.
    pub workload: Option<Workload>,
}

/// A Kubernetes `ServiceAccount`, as its token names it (`kubernetes.io`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The UID of the very object: another of the same name has another.
    pub uid: String,
}

/// What kind of assertion it is, which shows in its subject alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client has signed it with a key of its own (`private_key_jwt`).
    PrivateKey,
    /// A cluster has signed it for a workload.
    ServiceAccount,
}

impl<'a> Assertion<'a> {
    /// Takes a JWT in compact serialisation apart, strictly: what is odd is refused.
    pub fn parse(text: &'a str) -> Result<Self, Defect> {
        if text.len() > MAX_BYTES {
            return Err(Defect("it is longer than 16384 bytes"));
        }
        let mut parts = text.splitn(6, '.');
        let (Some(header), Some(claims), Some(signature)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(Defect(
                "it is no JWT of three parts in compact serialisation",
            ));
        };
        match parts.count() {
            0 => {}
            2 => return Err(Defect("it is encrypted (JWE): send a signed JWT (JWS)")),
            _ => {
                return Err(Defect(
                    "it is no JWT of three parts in compact serialisation",
                ));
            }
        }
        let signed = &text[..header.len() + 1 + claims.len()];
        let header = read_header(&object(
            header,
            "its header is no JSON object in base64url",
        )?)?;
        let claims = object(claims, "its claims are no JSON object in base64url")?;
        let signature = strict::base64url(signature)
            .filter(|signature| !signature.is_empty())
            .ok_or(Defect("its signature is missing, or no base64url"))?;
        Ok(Self {
            header,
            claims: read_claims(&claims)?,
            signed,
            signature,
        })
    }

    /// Checks all that can be checked of a `private_key_jwt` without its key: `issuer` is ours.
    pub fn check_private_key(&self, issuer: &str, now: i64) -> Result<(), Defect> {
        let claims = &self.claims;
        if claims.issuer != claims.subject {
            return Err(Defect("iss and sub must both be the client id"));
        }
        // RFC 10070: the issuer, and nothing beside it. An array of it alone says the same.
        if claims.audience.as_slice() != [issuer] {
            return Err(Defect(
                "aud must be the issuer of this server, as its sole value (RFC 10070)",
            ));
        }
        claims.check_times(now)?;
        if claims.expires.saturating_sub(now) > LONGEST_LIFE {
            return Err(Defect(
                "exp is more than 5 minutes ahead: make a new assertion for each request",
            ));
        }
        if claims
            .issued_at
            .is_some_and(|at| at < now.saturating_sub(OLDEST))
        {
            return Err(Defect("iat is more than an hour ago"));
        }
        match &claims.id {
            None => Err(Defect("jti is missing, which makes it good for one use")),
            Some(_) => Ok(()),
        }
    }

    /// Checks all that can be checked of a `ServiceAccount` token without its key: `audiences` are
    /// those that this release takes.
    pub fn check_service_account<'s>(
        &self,
        mut audiences: impl Iterator<Item = &'s str>,
        now: i64,
    ) -> Result<(), Defect> {
        let claims = &self.claims;
        let Some(workload) = &claims.workload else {
            return Err(Defect(
                "it names a ServiceAccount in sub, but none in kubernetes.io, as projected tokens do",
            ));
        };
        let subject = claims.subject.strip_prefix(SERVICE_ACCOUNT);
        if subject.and_then(|s| s.split_once(':')) != Some((&workload.namespace, &workload.name)) {
            return Err(Defect(
                "sub and kubernetes.io name different ServiceAccounts",
            ));
        }
        // The API server's own beside ours would make it good for both.
        let [audience] = claims.audience.as_slice() else {
            return Err(Defect("aud must have one value alone"));
        };
        if !audiences.any(|allowed| allowed == audience) {
            return Err(Defect(
                "aud is neither the issuer of this server nor one of its policy.serviceAccountAudiences: set audience where the token is projected",
            ));
        }
        claims.check_times(now)
    }
}

impl Claims {
    /// What kind of assertion it is.
    pub fn kind(&self) -> Kind {
        if self.subject.starts_with(SERVICE_ACCOUNT) {
            Kind::ServiceAccount
        } else {
            Kind::PrivateKey
        }
    }

    fn check_times(&self, now: i64) -> Result<(), Defect> {
        let latest = now.saturating_add(LEEWAY);
        if self.expires <= now.saturating_sub(LEEWAY) {
            return Err(Defect("it has expired (exp)"));
        }
        if self.not_before.is_some_and(|at| at > latest) {
            return Err(Defect("nbf is in the future"));
        }
        if self.issued_at.is_some_and(|at| at > latest) {
            return Err(Defect("iat is in the future"));
        }
        Ok(())
    }
}

fn object(part: &str, defect: &'static str) -> Result<Map<String, Value>, Defect> {
    let json = strict::base64url(part).ok_or(Defect(defect))?;
    strict::object(&json).ok_or(Defect(defect))
}

fn read_header(header: &Map<String, Value>) -> Result<Header, Defect> {
    for (name, defect) in [
        ("crit", "crit is not taken: no extension is known here"),
        ("b64", "b64 is not taken"),
        ("enc", "it is encrypted (JWE): send a signed JWT (JWS)"),
        ("zip", "zip is not taken"),
        ("cty", "a nested JWT (cty) is not taken"),
        (
            "jku",
            "jku is not taken: keys stand in the TechnicalUser alone",
        ),
        (
            "jwk",
            "jwk is not taken: keys stand in the TechnicalUser alone",
        ),
        (
            "x5u",
            "x5u is not taken: keys stand in the TechnicalUser alone",
        ),
        (
            "x5c",
            "x5c is not taken: keys stand in the TechnicalUser alone",
        ),
    ] {
        if header.contains_key(name) {
            return Err(Defect(defect));
        }
    }
    if let Some(typ) = header.get("typ") {
        let typ = typ.as_str().unwrap_or_default().to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        if !["jwt", "client-authentication+jwt"].contains(&typ) {
            return Err(Defect(
                "typ is neither JWT nor client-authentication+jwt: another kind of token is no assertion (RFC 8725 section 3.11)",
            ));
        }
    }
    let algorithm = header.get("alg").and_then(Value::as_str);
    let algorithm = algorithm.and_then(|name| name.parse().ok());
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= LONGEST_ID => Some(kid.clone()),
        Some(_) => return Err(Defect("kid is no text of at most 256 bytes")),
    };
    Ok(Header {
        algorithm: algorithm.ok_or(Defect(
            "alg is none of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA",
        ))?,
        key_id,
    })
}

fn read_claims(claims: &Map<String, Value>) -> Result<Claims, Defect> {
    let text = |name: &str, defect| match claims.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        _ => Err(Defect(defect)),
    };
    let time = |name: &str, defect| match claims.get(name) {
        None => Ok(None),
        Some(value) => numeric_date(value).map(Some).ok_or(Defect(defect)),
    };
    let audience = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => all
            .iter()
            .map(|one| one.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or(Defect("aud is no text or array of texts"))?,
        _ => return Err(Defect("aud is missing, or no text or array of texts")),
    };
    let id = match claims.get("jti") {
        None => None,
        Some(Value::String(id)) if (1..=LONGEST_ID).contains(&id.len()) => Some(id.clone()),
        Some(_) => return Err(Defect("jti is no text of 1 to 256 bytes")),
    };
    Ok(Claims {
        issuer: text("iss", "iss is missing, or no text")?,
        subject: text("sub", "sub is missing, or no text")?,
        audience,
        expires: time("exp", "exp is no number of seconds")?.ok_or(Defect("exp is missing"))?,
        not_before: time("nbf", "nbf is no number of seconds")?,
        issued_at: time("iat", "iat is no number of seconds")?,
        id,
        workload: claims.get("kubernetes.io").and_then(workload),
    })
}

/// A `NumericDate` (RFC 7519 §2) in whole seconds. What no calendar has is none.
fn numeric_date(value: &Value) -> Option<i64> {
    /// The end of the year 9999.
    const LAST: i64 = 253_402_300_799;
    #[allow(clippy::cast_possible_truncation)] // What is out of range saturates.
    let whole = || value.as_f64().map(|seconds| seconds.floor() as i64);
    let seconds = value.as_i64().or_else(whole)?;
    (0..=LAST).contains(&seconds).then_some(seconds)
}

/// What a bound token says of its `ServiceAccount`.
fn workload(kubernetes: &Value) -> Option<Workload> {
    let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    Some(Workload {
        namespace: text(&kubernetes["namespace"])?,
        name: text(&kubernetes["serviceaccount"]["name"])?,
        uid: text(&kubernetes["serviceaccount"]["uid"])?,
    })
}

#[cfg(test)]
mod tests;
