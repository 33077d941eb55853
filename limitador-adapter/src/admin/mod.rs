//! HTTP for people and probes: [`http`] has the endpoints, [`access`] controls access to `/api`, and [`module`]
//! serves the filter's module to proxies.

pub mod access;
pub mod http;
pub mod module;
