//! HTTP for people and probes. [`http`] has the endpoints, [`access`] controls access to `/api`, [`counters`]
//! lists and changes counters, and [`module`] serves the filter's modules to proxies.

pub mod access;
pub mod counters;
pub mod http;
pub mod module;
pub mod usage;
