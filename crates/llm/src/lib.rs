//! Reads the messages of LLM APIs: request bytes → what is requested and may be used; response bytes → what
//! was used.
//!
//! It knows no policies and does no I/O: no host, clock, network, file or log. It reads everything in any
//! chunks and in bounded memory.

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
