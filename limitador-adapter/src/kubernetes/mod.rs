//! Policies as objects of a Kubernetes cluster.
//!
//! [`schema`] is what the API server checks, [`crd`] the definition that tells it so. The cluster's [`objects`] go into
//! the [`index`], which gives plans by what is [`attach`]ed to what, and the [`conditions`] of each policy. One
//! replica, the holder of a [`lease`], writes them as [`status`] ([`status_writer`]). [`source`] puts it together.

/// As which controller the adapter writes statuses, unless it is told otherwise.
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
