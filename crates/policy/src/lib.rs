//! What a TokenRateLimitPolicy means: policy → plan, once per configuration; request facts → which limits apply and
//! what they hold.

pub mod document;
pub mod duration;
pub mod gateway;
pub mod model;
pub mod plan;
pub mod routes;
pub mod validation_error;
