//! The messages between filter and adapter, as defined in `proto/`, and the calls that carry them.

pub mod call;
pub mod trace;
pub mod wire;
