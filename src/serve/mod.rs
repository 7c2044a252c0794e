//! The HTTP side: the token endpoint, the metadata documents, the JWKS, and the admin port. It
//! knows a [`snapshot::Snapshot`] and nothing of Kubernetes; a request makes no API call.

pub mod snapshot;
