//! One request and its response as a state machine (events in, effects out), and the client side of the
//! adapter: retries, the outbox, the stream and the long poll for plans. The shells perform the effects.

pub mod backoff;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod exchange;
pub mod flow;
pub mod health;
pub mod leases;
pub mod metric;
pub mod outbox;
pub mod refusal;
pub mod retry;
pub mod socket;
pub mod stream;
pub mod usage;
pub mod watch;
