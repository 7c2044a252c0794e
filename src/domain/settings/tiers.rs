//! The tiers that a release defines.

use super::super::tier::{Catalogue, EntitlementId};

/// Every mistake, as [`super::Settings::problems`].
pub(super) fn problems(tiers: &Catalogue) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, tier) in tiers {
        for id in EntitlementId::ALL {
            match tier.entitlements.get(&id) {
                Some(limit) if limit.is_valid() => {}
                _ => problems.push(format!(
                    "tiers.{name}.entitlements.{} must say either `limit` or `unlimited: true`.",
                    serde_json::to_value(id)
                        .ok()
                        .and_then(|v| v.as_str().map(str::to_owned))
                        .unwrap_or_default()
                )),
            }
        }
    }
    problems
}
