//! Plays the filter natively. A scripted host stands in for Envoy, and the test drives the adapter's replies.

mod exchanges;
mod host;
mod leases;
mod plans;
mod play;
mod signals;
mod sockets;
mod traces;
mod usage;
