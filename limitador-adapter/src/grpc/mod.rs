//! The gRPC server, for filters and other proxies.
//!
//! The [`server`] has the [`services`]: [`rate_limits`] (one call per message), [`stream`] (one stream per
//! worker) and [`plans`]. The [`limiter`] handles the calls of both; [`envoy`] handles the protocol without
//! holds, and [`leases`] grants and recalls room for several requests. Both protocols resolve [`descriptors`] against
//! the policies. [`workers`] tracks which workers have a stream, and [`tls`] decides who may connect.

pub mod descriptors;
pub mod envoy;
pub mod leases;
pub mod limiter;
pub mod observe;
pub mod plans;
pub mod rate_limits;
pub mod recall_pacer;
pub mod server;
pub mod services;
pub mod stream;
pub mod tls;
pub mod workers;
