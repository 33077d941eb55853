//! Policies, from where they are written to what is in force.
//!
//! [`watch`] follows the files that [`sources`] reads, [`yaml`] parses them, [`read`] gives them their meaning, and a [`collection`] decides which version of
//! each policy counts. [`publish`] makes a [`snapshot`] of that, which filters get as plans and calls look limits up in.
//! [`filters`] knows which gateways' filters follow their plans here.

pub mod collection;
pub mod filters;
pub mod older;
pub mod publish;
pub mod read;
pub mod snapshot;
pub mod sources;
pub mod watch;
pub mod yaml;
