//! Compiles a TokenRateLimitPolicy into a plan once per configuration, and judges request facts by it: which
//! limits apply, and what they hold.

pub mod document;
pub mod duration;
pub mod gateway;
pub mod model;
pub mod plan;
pub mod routes;
pub mod validation_error;
