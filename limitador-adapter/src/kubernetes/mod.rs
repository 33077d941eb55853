//! Policies as objects of a Kubernetes cluster.
//!
//! [`schema`] is what the API server checks, [`crd`] the definition that tells it so. The cluster's [`objects`] go into
//! the [`index`], which gives plans by what is [`attach`]ed to what, and a [`verdict`] on each policy; its [`status`]
//! is what one replica, the holder of a [`lease`], [`tell`]s.

pub mod attach;
pub mod crd;
pub mod index;
pub mod lease;
pub mod objects;
pub mod overridden;
pub mod schema;
pub mod status;
pub mod tell;
pub mod verdict;
pub mod watch;
