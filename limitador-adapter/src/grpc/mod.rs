//! The gRPC server, for filters and other proxies.
//!
//! A [`server`] has the [`services`]: [`rate_limits`] (one call per message), [`stream`] (the same over one
//! stream per worker) and [`plans`]. The [`limiter`] handles the calls, or [`envoy`] for the protocol without
//! holds; both resolve [`descriptors`] against the policies. [`workers`] tracks who has a stream, and [`tls`]
//! decides who may connect.

pub mod descriptors;
pub mod envoy;
pub mod limiter;
pub mod observe;
pub mod plans;
pub mod rate_limits;
pub mod server;
pub mod services;
pub mod stream;
pub mod tls;
pub mod workers;
