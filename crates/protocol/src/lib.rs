//! The messages between filter and adapter as `proto/` defines them, and the calls that carry them.

pub mod call;
pub mod wire;
