//! The filter played natively: a scripted host takes Envoy's part, and an adapter that the test drives answers.

mod exchanges;
mod host;
mod plans;
mod play;
mod signals;
mod sockets;
mod usage;
