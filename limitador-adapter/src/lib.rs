//! Serves TokenRateLimitPolicies: hands out plans, holds and charges.
//!
//! Files → [`sources`] → [`collection`] → [`in_force`], which filters get as plans and the [`limiter`] looks limits
//! up in. Calls → [`grpc`] → [`limiter`] or [`envoy`] → [`ledger`], which [`memory`] keeps (holds itself, charges
//! in [`counters`]), or [`redis`] for several adapters.

pub mod admin;
pub mod archive;
pub mod buckets;
pub mod cli;
pub mod collection;
pub mod counters;
pub mod descriptors;
pub mod documents;
pub mod envoy;
pub mod explain;
pub mod filters;
pub mod follow;
pub mod grpc;
pub mod http;
pub mod in_force;
pub mod kubernetes;
pub mod ledger;
pub mod limiter;
pub mod memory;
pub mod message;
pub mod metrics;
pub mod moment;
pub mod question;
pub mod redis;
pub mod room;
pub mod secret;
pub mod serve;
pub mod shares;
pub mod sources;
pub mod stream;
pub mod tls;
pub mod wasm;
pub mod workers;

/// The gRPC services of `proto/`, on the messages of `protocol::wire`.
#[allow(missing_docs, clippy::all)]
pub mod services {
    include!(concat!(env!("OUT_DIR"), "/services.rs"));

    /// The files of `proto/`, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
