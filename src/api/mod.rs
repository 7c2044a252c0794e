//! The custom resources, group `chancery.dev`.

pub mod v1alpha1;
