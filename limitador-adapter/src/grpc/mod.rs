//! The gRPC side, for filters and other proxies.
//!
//! A [`server`] has the [`services`]: [`rate_limits`] (one call per message), [`stream`] (the same over one stream per
//! worker) and [`plans`]. What a call means is up to the [`limiter`], or [`envoy`] for the protocol without holds; both look
//! [`descriptors`] up in the policies. [`workers`] notes who has a stream, and [`tls`] who may call.

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
