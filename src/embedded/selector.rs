//! Label and field selectors.

use serde_json::Value;

use super::kinds::Kind;
use super::status::Refusal;

/// Which objects a list or watch is about.
#[derive(Clone, Default)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Compare { greater: bool, than: i64 },
}

impl Selector {
    /// Reads both selectors; a field that the kind can not be selected by is refused.
    pub fn parse(labels: &str, fields: &str, kind: Option<&Kind>) -> Result<Self, Refusal> {
        let labels = parse_labels(labels)
            .map_err(|why| Refusal::bad_request(format!("unable to parse requirement: {why}")))?;
        let mut parsed = Vec::new();
        for term in fields.split(',').filter(|t| !t.is_empty()) {
            let (field, equal, value) = if let Some((field, value)) = term.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) =
                term.split_once("==").or_else(|| term.split_once('='))
            {
                (field, true, value)
            } else {
                return Err(Refusal::bad_request(format!(
                    "invalid selector: '{fields}'; can't understand '{term}'"
                )));
            };
            let known = matches!(field, "metadata.name" | "metadata.namespace")
                || kind.is_some_and(|k| k.selectable_fields.iter().any(|f| f == field));
            if !known {
                let plain =
                    kind.is_some_and(|k| k.builtin().is_some() && k.selectable_fields.is_empty());
                return Err(Refusal::bad_request(if plain {
                    format!(
                        "\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                } else {
                    format!("field label not supported: {field}")
                }));
            }
            parsed.push((field.to_owned(), equal, value.to_owned()));
        }
        Ok(Self {
            labels,
            fields: parsed,
        })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether it selects this object.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|r| {
            let value = labels[&r.key].as_str();
            match &r.test {
                Test::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
                Test::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
                Test::Exists => value.is_some(),
                Test::DoesNotExist => value.is_none(),
                Test::Compare { greater, than } => value
                    .and_then(|v| v.parse::<i64>().ok())
                    .is_some_and(|v| if *greater { v > *than } else { v < *than }),
            }
        }) && self.fields.iter().all(|(field, equal, value)| {
            let mut place = object;
            for part in field.split('.') {
                place = &place[part];
            }
            let found = match place {
                Value::String(s) => s.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            (found == *value) == *equal
        })
    }
}

/// Splits at commas outside parentheses.
fn terms(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    terms(text)
        .into_iter()
        .map(|term| requirement(term.trim()))
        .collect()
}

fn requirement(term: &str) -> Result<Requirement, String> {
    let of = |key: &str, test: Test| {
        let key = key.trim();
        if let Some(wrong) = super::names::label_key(key).first() {
            return Err(format!("<nil>: Invalid value: \"{key}\": {wrong}"));
        }
        Ok(Requirement {
            key: key.to_owned(),
            test,
        })
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some(key) = term.strip_prefix('!') {
        return of(key, Test::DoesNotExist);
    }
    if let Some((head, list)) = term.split_once('(') {
        let list = list
            .strip_suffix(')')
            .ok_or_else(|| format!("found '{list}', expected: ',', or ')'"))?;
        let values: Vec<String> = list.split(',').map(|v| v.trim().to_owned()).collect();
        return match head.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => of(key, Test::In(values)),
            [key, "notin"] => of(key, Test::NotIn(values)),
            [_, other] => Err(format!(
                "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
            )),
            _ => Err(format!(
                "found '{head}', expected: in, notin, =, ==, !=, gt, lt"
            )),
        };
    }
    if let Some((key, value)) = term.split_once("!=") {
        return of(key, Test::NotIn(one(value)));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return of(key, Test::In(one(value)));
    }
    for (sign, greater) in [('>', true), ('<', false)] {
        if let Some((key, value)) = term.split_once(sign) {
            let than = value
                .trim()
                .parse()
                .map_err(|_| format!("'{value}' is not a whole number"))?;
            return of(key, Test::Compare { greater, than });
        }
    }
    if term.contains(char::is_whitespace) {
        return Err(format!("'{term}' is not a requirement"));
    }
    of(term, Test::Exists)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn set_based_selectors() {
        let object = json!({"metadata": {"name": "a", "labels": {"tier": "gold", "n": "5"}}});
        for (selector, matches) in [
            ("tier=gold", true),
            ("tier==gold,n", true),
            ("tier in (gold, silver)", true),
            ("tier notin (gold)", false),
            ("other notin (gold)", true),
            ("!tier", false),
            ("!other", true),
            ("tier!=gold", false),
            ("n>4", true),
            ("n<5", false),
        ] {
            let parsed = Selector::parse(selector, "", None).unwrap_or_default();
            assert!(!parsed.is_empty(), "{selector} can not be read");
            assert_eq!(parsed.matches(&object), matches, "{selector}");
        }
        for wrong in ["a in (b", "a b", "=x", "a n (b)", "a/b/c"] {
            assert!(Selector::parse(wrong, "", None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn field_selectors() {
        let object = json!({"metadata": {"name": "a", "namespace": "n"}});
        let of = |text: &str| Selector::parse("", text, None);
        assert!(of("metadata.name=a,metadata.namespace!=m").is_ok_and(|s| s.matches(&object)));
        assert!(of("metadata.name=b").is_ok_and(|s| !s.matches(&object)));
        assert!(of("spec.colour=red").is_err());
    }
}
