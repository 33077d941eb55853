//! Reads the messages of LLM APIs: from a request, its facts and its expected usage; from a response, its
//! reported usage.
//!
//! It knows no policies and does no I/O: no host, clock, network, file or log. It accepts input in any chunks
//! and needs bounded memory.

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
