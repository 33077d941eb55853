//! The CEL expressions of a policy, and the facts of requests and responses that they can name.

pub mod cel;
pub mod facts;
pub mod identity;
pub mod protobuf_struct;
pub mod small_sort;
pub mod suggest;
