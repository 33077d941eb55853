//! The CEL expressions of a policy, and the facts of requests and responses that they can name.

pub mod cel;
pub mod facts;
pub mod identity;
pub mod order;
pub mod structure;
pub mod suggest;
