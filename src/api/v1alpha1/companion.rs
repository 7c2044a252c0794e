//! `spec.companionAgent` of a device: an agent that goes with it.

use kube::{KubeSchema, Resource as _, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TechnicalUser;
use crate::domain::names;
use crate::domain::period::Period;
use crate::domain::vocabulary;

/// An agent that goes with a device: a TechnicalUser of family Agent that the operator makes beside it,
/// with a client secret of its own. It is never given more than its device, is suspended and revoked
/// with it, and deleted with it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompanionAgent {
    /// The name of its TechnicalUser; <name of the device>-agent where absent. With another name it is
    /// another agent, and the former one is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::technical_user_name")]
    pub name: Option<String>,

    /// The roles in its tokens, each one of the device's.
    #[serde(default)]
    #[schemars(schema_with = "vocabulary::roles")]
    pub roles: Vec<String>,

    /// The scopes that it may ask for, each one of the device's.
    #[serde(default)]
    #[schemars(schema_with = "vocabulary::scopes")]
    pub scopes: Vec<String>,

    /// The audiences (aud) that it may ask for, each one of the device's; all of the device's where
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::audiences")]
    pub audiences: Option<Vec<String>>,

    /// How long its tokens live, such as 90s, 5m or 1h. The release's default for agents where absent,
    /// and never more than the release allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("!self.matches('^([0-9]{1,5}(h|m|s)){1,3}$') || duration(self) >= duration('1s')")
            .message("tokenTtl is zero: give tokens a life of at least 1s, or take the field away for the release's default."),
        validation = Rule::new("!self.matches('^([0-9]{1,5}(h|m|s)){1,3}$') || duration(self) <= duration('24h')")
            .message("tokenTtl is longer than 24h, which is more than any release allows: choose a shorter life."),
    )]
    pub token_ttl: Option<Period>,
}

/// The companion agent of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CompanionStatus {
    /// The name of its TechnicalUser.
    pub name: String,
    /// Its client id.
    pub client_id: String,
}

impl TechnicalUser {
    /// The name of the companion agent that it asks for, if it does.
    pub fn companion_name(&self) -> Option<String> {
        let companion = self.spec.companion_agent.as_ref()?;
        let chosen = companion.name.clone();
        Some(chosen.unwrap_or_else(|| names::default_companion(&self.name_any())))
    }

    /// Name and UID of the device whose companion it is, if it is one: of the technical user that
    /// controls it.
    pub fn companion_of(&self) -> Option<(&str, &str)> {
        let owners = self.owner_references().iter();
        let mut devices = owners.filter(|o| {
            o.controller == Some(true)
                && o.kind == Self::kind(&())
                && o.api_version.split('/').next() == Some(names::GROUP)
                && names::is_object_name(&o.name)
        });
        devices.next().map(|o| (o.name.as_str(), o.uid.as_str()))
    }

    /// The device that it was made for as a companion agent, as its labels say, where no device controls it:
    /// a restore, or a person, has taken the owner away.
    pub fn orphan_of(&self) -> Option<&str> {
        let labels = self.labels();
        let made = labels.get(names::PART_LABEL).map(String::as_str) == Some(names::PART_COMPANION);
        let device = labels.get(names::COMPANION_LABEL).filter(|_| made)?;
        self.companion_of().is_none().then_some(device)
    }
}
