//! Examples in a provider's resource: tokens, and what is to come of them.

use std::fmt::Debug;

use serde_json::{Map, Value};

use super::{Provider, Refusal, Subject, read};

/// A token's claims, and what is to come of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The claims. Of `iss`, `aud` and the times those that are left out count as right; the times that stand
    /// there are judged as at `iat`, and without one as at the provider's registration.
    pub token: Map<String, Value>,
    /// What is to come of them.
    pub expect: Expected,
}

/// What is to come of an example; what is left out may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// What the person is called here.
    pub id: Option<String>,
    /// The organisation; empty: none.
    pub organisation: Option<String>,
    /// The legal entity; empty: none, so that it is the tenant of the provider's namespace.
    pub legal_entity: Option<String>,
    /// The roles, in any order.
    pub roles: Option<Vec<String>>,
    /// That it is refused, by [`Refusal::reason`].
    pub refused: Option<String>,
}

impl Provider {
    /// How what comes of an example differs from what is expected: sentences without a full stop, none
    /// if nothing does. Whether the provider is active makes no difference.
    pub fn try_example(&self, example: &Example, own_issuer: &str) -> Vec<String> {
        let expect = &example.expect;
        match (self.outcome(&example.token, own_issuer), &expect.refused) {
            (Err(refusal), Some(reason)) => differs("refused", reason.as_str(), refusal.reason())
                .into_iter()
                .collect(),
            (Err(refusal), None) => {
                vec![format!(
                    "it is refused ({}): {}",
                    refusal.reason(),
                    refusal.to_string().trim_end_matches('.')
                )]
            }
            (Ok(_), Some(reason)) => vec![format!("it is taken, and {reason} is expected")],
            (Ok(subject), None) => expect.differences(&subject),
        }
    }

    fn outcome(&self, token: &Map<String, Value>, own_issuer: &str) -> Result<Subject, Refusal> {
        read::judge_kind(&Map::new(), token)?;
        if token.contains_key("iss") {
            let issuer = read::optional_text(token, "iss")?;
            self.judge_issuer(issuer.as_deref(), own_issuer)?;
        }
        if let Some(aud) = token.get("aud") {
            self.judge_audiences(&read::audiences(Some(aud))?)?;
        }
        self.judge_times_of_example(token)?;
        self.map(token)
    }
}

impl Provider {
    /// Judges the times that stand in an example as at its `iat`, or else as at the provider's registration: by
    /// the clock, and by when the resource was made anew, what was right would come to be wrong by itself.
    fn judge_times_of_example(&self, token: &Map<String, Value>) -> Result<(), Refusal> {
        let issued_at = read::time(token, "iat")?;
        let now = issued_at.unwrap_or(self.registered);
        if read::time(token, "exp")?.is_some_and(|expires| expires <= now) {
            return Err(Refusal::Expired);
        }
        if read::time(token, "nbf")?.is_some_and(|at| at > now) {
            return Err(Refusal::NotYet);
        }
        Ok(())
    }
}

impl Expected {
    fn differences(&self, subject: &Subject) -> Vec<String> {
        let text = |found: &Option<String>| found.clone().unwrap_or_default();
        let mut all = Vec::new();
        let mut compare = |name, expected: &Option<String>, found: String| {
            let expected = expected.as_ref();
            all.extend(expected.and_then(|e| differs(name, e, &found)));
        };
        compare("id", &self.id, subject.id.clone());
        compare(
            "organisation",
            &self.organisation,
            text(&subject.organisation),
        );
        compare(
            "legalEntity",
            &self.legal_entity,
            text(&subject.legal_entity),
        );
        if let Some(roles) = &self.roles {
            let sorted = |roles: &[String]| {
                let mut roles = roles.to_vec();
                roles.sort();
                roles.dedup();
                roles
            };
            all.extend(differs("roles", &sorted(roles), &sorted(&subject.roles)));
        }
        all
    }
}

fn differs<T: PartialEq + Debug + ?Sized>(name: &str, expected: &T, found: &T) -> Option<String> {
    (expected != found).then(|| format!("{name} is {found:?}, and {expected:?} is expected"))
}
