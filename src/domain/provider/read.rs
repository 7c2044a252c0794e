//! What stands in a token's claims: each of one form, or refused.

use serde_json::{Map, Value};

use super::claim_path::ClaimPath;
use super::refusal::Refusal;
use super::{LONGEST_LEGAL_ENTITY, LONGEST_SUBJECT};

/// The end of the year 9999, in seconds since 1970.
const LAST_TIME: i64 = 253_402_300_799;

/// Whether it is a bearer access token at all.
pub fn judge_kind(header: &Map<String, Value>, claims: &Map<String, Value>) -> Result<(), Refusal> {
    // What changes how a token is to be read (RFC 7515 §4.1.11, RFC 7797, RFC 7516), and keys that it
    // brings itself (RFC 8725 §3.10).
    for name in [
        "crit", "b64", "enc", "zip", "cty", "jku", "jwk", "x5u", "x5c",
    ] {
        if header.contains_key(name) {
            return Err(Refusal::Header(name));
        }
    }
    let access_token = is_typed(header)?;
    if !access_token {
        // What only ID tokens have (OpenID Connect Core §2, §3.1.3.6, §3.3.2.11).
        if ["nonce", "at_hash", "c_hash"]
            .iter()
            .any(|name| claims.contains_key(*name))
        {
            return Err(Refusal::Kind("an ID token"));
        }
        // Keycloak's way to tell its tokens apart.
        if claims.get("typ").is_some_and(|typ| typ != "Bearer") {
            return Err(Refusal::Kind("a token of another type (claim typ)"));
        }
    }
    if claims.contains_key("events") {
        return Err(Refusal::Kind("a security event (RFC 8417)"));
    }
    if claims.contains_key("cnf") {
        return Err(Refusal::Bound);
    }
    Ok(())
}

/// Whether the header says that it is an access token (RFC 9068 §2.1), or nothing of that.
fn is_typed(header: &Map<String, Value>) -> Result<bool, Refusal> {
    let typ = match header.get("typ") {
        None => String::new(),
        Some(Value::String(typ)) => typ.to_ascii_lowercase(),
        Some(_) => return Err(Refusal::Header("typ that is no text")),
    };
    match typ.strip_prefix("application/").unwrap_or(&typ) {
        "at+jwt" => Ok(true),
        "" | "jwt" => Ok(false),
        _ => Err(Refusal::Kind("a JWT of another type (typ)")),
    }
}

/// Where providers name the client that asked for a token: RFC 9068, `OpenID` Connect, Okta, Entra ID.
const CLIENTS: [&str; 4] = ["client_id", "azp", "cid", "appid"];

/// What tells an access token from an ID token, where neither says what it is. The bare ID token of some
/// providers has nothing but iss, sub, aud and times, and any ID token is for the client itself.
pub fn judge_marks(
    header: &Map<String, Value>,
    claims: &Map<String, Value>,
) -> Result<(), Refusal> {
    if is_typed(header)? || claims.get("typ").is_some_and(|typ| typ == "Bearer") {
        return Ok(());
    }
    let scoped = ["scope", "scp"]
        .iter()
        .any(|name| claims.contains_key(*name));
    let mut named = CLIENTS
        .iter()
        .filter_map(|name| claims.get(*name))
        .peekable();
    if !scoped && named.peek().is_none() && !claims.contains_key("jti") {
        return Err(Refusal::Kind(
            "something that may be an ID token, with neither typ at+jwt nor scope, client_id, azp or jti",
        ));
    }
    let is_for = |client: &Value| match claims.get("aud") {
        Some(Value::Array(all)) => all.contains(client),
        one => one == Some(client),
    };
    if !scoped && named.any(is_for) {
        return Err(Refusal::Kind("an ID token"));
    }
    Ok(())
}

/// Whether a client of the provider has the token for itself, as the providers say it.
pub fn is_of_client(claims: &Map<String, Value>) -> bool {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let sub = text("sub");
    let user = text("preferred_username");
    let of = |client: &str| {
        // RFC 9068 §2.2; Auth0; Keycloak, which has user names in lower case.
        sub == Some(client)
            || sub.and_then(|sub| sub.strip_suffix("@clients")) == Some(client)
            || user
                .and_then(|user| user.strip_prefix("service-account-"))
                .is_some_and(|name| name.eq_ignore_ascii_case(client))
    };
    let named = CLIENTS.iter().filter_map(|name| text(name)).any(of);
    // Keycloak's mappers of service accounts, where a token has no user name.
    let of_service_account = text("typ") == Some("Bearer") && claims.contains_key("clientAddress");
    // Entra ID: said by idtyp, or to be seen, as sub of a person differs from application to application.
    let of_application = text("idtyp") == Some("app")
        || sub.is_some() && text("oid") == sub && !claims.contains_key("scp");
    named || of_service_account || of_application || text("gty") == Some("client-credentials")
}

/// A registered claim that is a text, where it is there.
pub fn optional_text(
    claims: &Map<String, Value>,
    name: &'static str,
) -> Result<Option<String>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::Malformed(name)),
    }
}

/// A registered claim that is an object, where it is there.
pub fn object(
    claims: &Map<String, Value>,
    name: &'static str,
) -> Result<Option<Map<String, Value>>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object.clone())),
        Some(_) => Err(Refusal::Malformed(name)),
    }
}

/// A `NumericDate` (RFC 7519 §2) in whole seconds, where it is there. A text is none, and what no
/// calendar has is none.
pub fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    #[allow(clippy::cast_possible_truncation)] // What is out of range saturates.
    let whole = || value.as_f64().map(|seconds| seconds.floor() as i64);
    let seconds = value.as_i64().or_else(whole);
    match seconds.filter(|seconds| (0..=LAST_TIME).contains(seconds)) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Refusal::Malformed(name)),
    }
}

/// `aud`: a text or an array of texts (RFC 7519 §4.1.3), each once.
pub fn audiences(aud: Option<&Value>) -> Result<Vec<String>, Refusal> {
    match aud {
        None => Err(Refusal::Missing("aud")),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(all)) => texts(all).ok_or(Refusal::Malformed("aud")),
        Some(_) => Err(Refusal::Malformed("aud")),
    }
}

/// What the token is limited to: `scope` (RFC 8693 §4.2), or `scp`, as some providers call it. Where it
/// has both, what stands in both.
pub fn scopes(claims: &Map<String, Value>) -> Result<Option<Vec<String>>, Refusal> {
    let read = |name| match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(words(text))),
        Some(Value::Array(all)) => texts(all).map(Some).ok_or(Refusal::Malformed(name)),
        Some(_) => Err(Refusal::Malformed(name)),
    };
    Ok(match (read("scope")?, read("scp")?) {
        (Some(mut scope), Some(scp)) => {
            scope.retain(|one| scp.contains(one));
            Some(scope)
        }
        (scope, scp) => scope.or(scp),
    })
}

/// Whom the token speaks of. A number is none: two of them can be read as one.
pub fn subject(path: &ClaimPath, claims: &Map<String, Value>) -> Result<String, Refusal> {
    match path.find(claims) {
        None => Err(Refusal::SubjectMissing(path.to_string())),
        Some(Value::String(text)) if is_line(text) => Ok(text.clone()),
        Some(_) => Err(Refusal::Subject(path.to_string())),
    }
}

/// The organisation, where it is there.
pub fn organisation(
    path: &ClaimPath,
    claims: &Map<String, Value>,
) -> Result<Option<String>, Refusal> {
    match path.find(claims) {
        None => Ok(None),
        Some(Value::String(text)) if is_line(text) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::Organisation(path.to_string())),
    }
}

/// The legal entity, where it is there.
pub fn legal_entity(
    path: &ClaimPath,
    claims: &Map<String, Value>,
) -> Result<Option<String>, Refusal> {
    match path.find(claims) {
        None => Ok(None),
        Some(Value::String(text)) if is_legal_entity(text) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::LegalEntity(path.to_string())),
    }
}

/// The provider's roles: an array, an object's keys, or a text with spaces between them. Not there:
/// none.
pub fn roles(path: &ClaimPath, claims: &Map<String, Value>) -> Result<Vec<String>, Refusal> {
    match path.find(claims) {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(words(text)),
        Some(Value::Array(all)) => texts(all).ok_or_else(|| Refusal::Roles(path.to_string())),
        Some(Value::Object(object)) => Ok(object.keys().cloned().collect()),
        Some(_) => Err(Refusal::Roles(path.to_string())),
    }
}

/// Whether a claim is there and has the value asked for, or has it among its entries.
pub fn satisfies(found: Option<&Value>, value: Option<&str>) -> bool {
    let Some(found) = found else {
        return false;
    };
    let Some(value) = value else {
        return true;
    };
    let is = |one: &Value| match one {
        Value::String(text) => text == value,
        Value::Bool(truth) => value == if *truth { "true" } else { "false" },
        Value::Number(number) => number.to_string() == value,
        _ => false,
    };
    match found {
        Value::Array(all) => all.iter().any(is),
        one => is(one),
    }
}

/// Each once, as they come.
pub fn unique(all: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    all.into_iter()
        .filter(|one| seen.insert(one.clone()))
        .collect()
}

/// Whether a text can be a role here: services join roles with commas.
pub fn is_role(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && text.trim() == text
        && !text.contains(|c: char| c == ',' || c.is_control() || is_invisible(c))
}

/// Whether a text can be a subject: 1 to 255 bytes, and nothing that a log would show as something else.
pub fn is_line(text: &str) -> bool {
    (1..=LONGEST_SUBJECT).contains(&text.len())
        && !text.contains(|c: char| c.is_control() || is_invisible(c))
}

/// Line and paragraph separators, and what turns the direction of writing: in a log they show another
/// text than stands there.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Whether a text can be a legal entity's id, as in a Subscription.
pub fn is_legal_entity(text: &str) -> bool {
    (1..=LONGEST_LEGAL_ENTITY).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn words(text: &str) -> Vec<String> {
    unique(
        text.split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned),
    )
}

fn texts(all: &[Value]) -> Option<Vec<String>> {
    let all: Option<Vec<_>> = all
        .iter()
        .map(|one| one.as_str().map(str::to_owned))
        .collect();
    all.map(unique)
}
