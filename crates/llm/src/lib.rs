//! What LLM APIs say: request bytes → what is asked for and what it may cost; response bytes → what was used.
//!
//! It knows no policy, host, clock, network, file or log. Whatever arrives is read in any pieces and in bounded memory.

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
