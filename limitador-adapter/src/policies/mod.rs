//! Policies, from their source to the snapshot in force.
//!
//! [`watch`] follows the files that [`sources`] reads, [`yaml`] parses them, [`read`] interprets them, and a
//! [`collection`] decides which version of each policy applies. [`publish`] turns the result into a
//! [`snapshot`]. Filters receive plans from it, and calls are resolved against it. [`filters`] tracks which
//! gateways' plans filters follow here.

pub mod audit;
pub mod collection;
pub mod filters;
pub mod older;
pub mod publish;
pub mod read;
pub mod snapshot;
pub mod sources;
pub mod watch;
pub mod yaml;
