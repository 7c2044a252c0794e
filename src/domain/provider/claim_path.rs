//! Where a claim stands in a token.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

/// The most names in a path.
const DEEPEST: usize = 8;
/// The longest path in bytes.
const LONGEST: usize = 256;

/// The way to a claim: names with dots between them, as in `realm_access.roles`. A dot within a name
/// is written `\.`, a backslash `\\`. What begins with `https://` or `http://` is one name, as such
/// names are made to be unique (RFC 7519 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    text: String,
    names: Vec<String>,
}

/// Why a text is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// A name in it is empty, so it begins or ends with a dot, or has two side by side.
    #[error("a name between its dots is empty")]
    EmptyName,
    /// A backslash before something else than a dot or a backslash.
    #[error("a backslash stands before something else than a dot or a backslash")]
    Escape,
    /// Too deep.
    #[error("it has more than 8 names")]
    Depth,
    /// Too long.
    #[error("it has more than 256 bytes")]
    Length,
}

impl ClaimPath {
    /// What stands there; `null` is nothing.
    pub fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let (last, way) = self.names.split_last()?;
        let mut at = claims;
        for name in way {
            at = at.get(name)?.as_object()?;
        }
        at.get(last).filter(|value| !value.is_null())
    }
}

impl FromStr for ClaimPath {
    type Err = PathFault;

    fn from_str(text: &str) -> Result<Self, PathFault> {
        if text.len() > LONGEST {
            return Err(PathFault::Length);
        }
        let names = if text.starts_with("https://") || text.starts_with("http://") {
            vec![text.to_owned()]
        } else {
            split(text)?
        };
        if names.len() > DEEPEST {
            return Err(PathFault::Depth);
        }
        if names.iter().any(String::is_empty) {
            return Err(PathFault::EmptyName);
        }
        Ok(Self {
            text: text.to_owned(),
            names,
        })
    }
}

fn split(text: &str) -> Result<Vec<String>, PathFault> {
    let mut names = vec![String::new()];
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let plain = match c {
            '.' => {
                names.push(String::new());
                continue;
            }
            '\\' => rest
                .next()
                .filter(|c| matches!(c, '.' | '\\'))
                .ok_or(PathFault::Escape)?,
            other => other,
        };
        if let Some(name) = names.last_mut() {
            name.push(plain);
        }
    }
    Ok(names)
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_where_they_say() {
        let token = json!({
            "roles": ["top"],
            "realm_access": {"roles": ["a"], "deep": {"er": 1}, "nothing": null},
            "realm_access.roles": ["not this one"],
            "resource_access": {"my.client": {"roles": ["b"]}},
            "https://example.com/roles": ["c"],
            "back\\slash": ["d"],
            "": 1,
        });
        let token = token.as_object().expect("an object");
        for (path, expected) in [
            ("roles", Some(json!(["top"]))),
            ("realm_access.roles", Some(json!(["a"]))),
            ("realm_access.deep.er", Some(json!(1))),
            ("realm_access.nothing", None),
            ("realm_access.absent", None),
            ("realm_access.roles.0", None),
            (r"realm_access\.roles", Some(json!(["not this one"]))),
            (r"resource_access.my\.client.roles", Some(json!(["b"]))),
            ("https://example.com/roles", Some(json!(["c"]))),
            (r"back\\slash", Some(json!(["d"]))),
        ] {
            let path: ClaimPath = path.parse().expect("a path");
            assert_eq!(path.find(token), expected.as_ref(), "{path}");
        }
        for (odd, fault) in [
            ("", PathFault::EmptyName),
            (".", PathFault::EmptyName),
            ("a..b", PathFault::EmptyName),
            ("a.", PathFault::EmptyName),
            (r"a\", PathFault::Escape),
            (r"a\b", PathFault::Escape),
            ("a.b.c.d.e.f.g.h.i", PathFault::Depth),
            (&"a".repeat(257), PathFault::Length),
        ] {
            assert_eq!(odd.parse::<ClaimPath>(), Err(fault), "{odd:?}");
        }
    }
}
