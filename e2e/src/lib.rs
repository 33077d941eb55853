//! End-to-end tests: a real Envoy with the real module, the real adapter, and a scripted LLM.
//!
//! The tests use the built artefacts ([`artefacts`]) and Envoy configurations as users would write them. They
//! check what the client received, what the upstream received, and what the counters show. They do not depend
//! on Weir's code. Nothing here sleeps for a fixed time ([`wait`]), uses a fixed port, or outlives the test
//! that started it.

pub mod adapter;
pub mod ai_gateway;
pub mod artefacts;
pub mod certificates;
pub mod chance;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod envoy;
pub mod installed;
pub mod jwt;
pub mod llm;
pub mod load;
pub mod metering;
pub mod module;
pub mod network;
pub mod outage;
pub mod playground;
pub mod pod;
pub mod postgres;
pub mod probe;
pub mod process;
pub mod readme;
pub mod redis;
pub mod scenario;
pub mod shared_world;
pub mod socket;
pub mod upstream;
pub mod wait;
pub mod wire;
pub mod world;
