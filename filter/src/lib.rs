//! The Envoy filter: converts host callbacks to the engine's events, and the engine's effects to host calls.
//! Every decision is made in `engine`.
//!
//! For each worker and plugin, a root context stores what its HTTP contexts share, follows the plan and sends
//! the commits. For each request, an HTTP context drives an exchange. Envoy never re-enters the module during
//! a host call, so a `RefCell` that is borrowed for one statement is always free.

// The SDK's macro generates the module's entry points, which only Envoy calls.
#![allow(missing_docs)]

mod bodies;
mod caller;
mod cuttable;
mod deferred;
mod host;
mod http;
mod metrics;
mod record;
mod request;
mod reserve;
mod root;
mod shared;
mod stream;
#[cfg(test)]
mod tests;
mod trace;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Info);
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
