//! Rules of a text that stand on the object which has it.

use kube::core::Rule;

use crate::domain::vocabulary;

/// A rule of the text in the field of that name, for the object that has it, so that the API server does not
/// quote a text that breaks it ([`vocabulary::unquoted`]).
pub fn unquoted(field: &str, rule: vocabulary::Rule) -> Rule {
    Rule::new(vocabulary::unquoted(field, rule))
        .message(rule.1)
        .field_path(format!(".{field}"))
}
