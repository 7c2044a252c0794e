//! The kinds of `chancery.dev/v1alpha1`, one file each. Doc comments here are what
//! `kubectl explain` prints, so they speak to the person who writes the manifest.
// Backticks would be printed too.
#![allow(clippy::doc_markdown)]

mod assertion;
mod companion;
mod conditions;
mod crds;
mod oidc_provider;
mod one_time;
mod publish;
mod secret_credential;
mod signing_key;
mod subscription;
mod technical_user;
mod unquoted;
mod user;

pub use assertion::*;
pub use companion::*;
pub use conditions::*;
pub use crds::{all_crds, to_yaml};
pub use oidc_provider::*;
pub use one_time::*;
pub use publish::*;
pub use secret_credential::*;
pub use signing_key::*;
pub use subscription::*;
pub use technical_user::*;
pub use user::*;
