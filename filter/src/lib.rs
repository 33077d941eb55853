//! The Envoy filter: turns host callbacks into the core's events, and the core's effects into host calls. Every
//! decision is made in `engine`.
//!
//! A root context for each worker and plugin keeps what its HTTP contexts share, follows the plan and sends the
//! commits; an HTTP context for each request drives an exchange. Envoy does not enter the module again before a host
//! call of it has returned, so a `RefCell` that is borrowed for one statement is always free.

// What the SDK's macro makes is the module's entry, for Envoy alone.
#![allow(missing_docs)]

mod bodies;
mod caller;
mod cuttable;
mod deferred;
mod host;
mod http;
mod metrics;
mod request;
mod reserve;
mod root;
mod shared;
mod stream;
#[cfg(test)]
mod tests;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Info);
    proxy_wasm::set_root_context(|id| Box::new(root::Root::new(id)));
}}
