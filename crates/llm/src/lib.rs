//! Reads the messages of LLM APIs. It extracts facts and an estimate of the usage from requests, and the
//! reported usage from responses.
//!
//! This crate knows nothing about policies and does no I/O: it uses no host, clock, network, files or logs.
//! Input may arrive in chunks of any size, and memory use is bounded.

mod json;
pub mod memory;
pub mod overview;
mod providers;
pub mod refusal;
pub mod request;
pub mod response;
pub mod spelling;
mod table;
pub mod websocket;
pub mod words;

pub use json::tree;
