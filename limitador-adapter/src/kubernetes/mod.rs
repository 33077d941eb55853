//! Policies as objects of a Kubernetes cluster.
//!
//! [`schema`] is what the API server checks, [`crd`] the definition that tells it so, [`status`] what is told back.

pub mod crd;
pub mod schema;
pub mod status;
