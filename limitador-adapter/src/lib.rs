//! Serves TokenRateLimitPolicies: distributes plans, and keeps holds and charges.
//!
//! [`serve`] starts everything. [`policies`] come from files, or from a cluster through [`kubernetes`].
//! Filters receive them as plans and send their calls over [`grpc`], which resolves limits against the
//! policies and counts in a [`ledger`]. [`admin`] is HTTP for people and probes. On the command line,
//! [`check`] summarises policies, [`explain`] shows their effect on a request, and [`cluster_status`] shows
//! the state of Weir in a cluster. [`warnings`] go to the log, the metrics and a webhook, and [`spans`] to a
//! collector of traces.
//!
//! Modules depend on each other in one direction only: `ledger`, `refusals`, `warned`, `observed` and `metrics` <-
//! `policies` <- `kubernetes`, `warnings`, `usage`, `spans` <- `grpc` <- `admin`, `explain` <- `serve`.

pub mod admin;
pub mod check;
pub mod cli;
#[cfg(feature = "kubernetes")]
pub mod cluster_status;
pub mod counters;
mod digest;
pub mod explain;
pub mod grpc;
pub mod https;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod ledger;
pub mod metrics;
pub mod observed;
pub mod policies;
pub mod refusals;
pub mod secret;
pub mod serve;
pub mod spans;
pub mod sqlite_path;
pub mod storage;
pub mod usage;
pub mod warned;
pub mod warnings;
