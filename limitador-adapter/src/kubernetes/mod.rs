//! Policies as objects of a Kubernetes cluster.
//!
//! [`schema`] is what the API server validates, and [`crd`] is the definition that contains it. The [`index`]
//! receives the cluster's [`objects`]. It computes plans from the routes that are [`attach`]ed to each
//! Gateway, and the [`conditions`] of each policy. The replica that holds the [`lease`] writes them as
//! [`status`] ([`status_writer`]). [`source`] connects these parts.

/// The default controller name in statuses.
pub const DEFAULT_CONTROLLER: &str = "weir.dev/limitador-adapter";

pub mod attach;
pub mod conditions;
pub mod crd;
pub mod heard;
pub mod index;
pub mod lease;
pub mod objects;
pub mod overridden;
pub mod reason;
pub mod rivals;
pub mod schema;
pub mod source;
pub mod status;
pub mod status_writer;
pub mod watch;
