//! How client secrets are hashed.

use serde::{Deserialize, Serialize};

/// The bcrypt costs of client secrets. Each step doubles what a check takes: 3 ms at 5, 0.4 s at 12.
/// Secrets that are stored already stay as they are until they are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SecretSettings {
    /// Of secrets that the operator generates, from [`LOWEST_GENERATED_COST`] to
    /// [`HIGHEST_GENERATED_COST`].
    pub generated_cost: u32,
    /// Of secrets that people supply, from [`LOWEST_SUPPLIED_COST`] to [`HIGHEST_SUPPLIED_COST`].
    pub supplied_cost: u32,
}

/// The cost of generated secrets where a release sets none: they hold 256 random bits, which no one
/// guesses at any cost.
pub const GENERATED_COST: u32 = 5;
/// The least that bcrypt has.
pub const LOWEST_GENERATED_COST: u32 = 4;
/// Generated secrets gain nothing by more.
pub const HIGHEST_GENERATED_COST: u32 = 9;
/// Below that a supplied secret is guessed too soon, once its hash is stolen.
pub const LOWEST_SUPPLIED_COST: u32 = 10;
/// Beyond that each refusal would cost the server seconds.
pub const HIGHEST_SUPPLIED_COST: u32 = 14;

impl Default for SecretSettings {
    fn default() -> Self {
        Self {
            generated_cost: GENERATED_COST,
            supplied_cost: 12,
        }
    }
}

impl SecretSettings {
    /// Every mistake, as [`super::Settings::problems`].
    pub(super) fn problems(self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(LOWEST_GENERATED_COST..=HIGHEST_GENERATED_COST).contains(&self.generated_cost) {
            problems.push(format!(
                "secrets.generatedCost is {}: set it between {LOWEST_GENERATED_COST} and \
                 {HIGHEST_GENERATED_COST}, as a generated secret is not to be guessed at any cost.",
                self.generated_cost
            ));
        }
        if !(LOWEST_SUPPLIED_COST..=HIGHEST_SUPPLIED_COST).contains(&self.supplied_cost) {
            problems.push(format!(
                "secrets.suppliedCost is {}: set it between {LOWEST_SUPPLIED_COST}, below which a \
                 stolen hash gives its secret away too soon, and {HIGHEST_SUPPLIED_COST}, beyond \
                 which a refusal would cost the server seconds.",
                self.supplied_cost
            ));
        }
        problems
    }
}
