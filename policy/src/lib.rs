//! What a TokenRateLimitPolicy means: every decision of Weir, without any I/O.
//!
//! Policy → plan, once per configuration; request facts → decision; response bytes → usage → charge. The crate
//! takes events and returns effects; the filter and the adapter perform them. It knows no host, no clock, no
//! network, no file and no log.

pub mod attempts;
pub mod call;
pub mod cel;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod count;
mod document;
mod duration;
pub mod exchange;
pub mod facts;
pub mod gateway;
pub mod health;
pub mod identity;
mod json;
pub mod memory;
pub mod meter;
pub mod mistake;
pub mod model;
mod order;
pub mod outbox;
pub mod plan;
pub mod refusal;
pub mod request;
pub mod routes;
pub mod stream;
mod structure;
pub mod watch;
pub mod wire;
