//! HTTP for people and probes. [`http`] has the endpoints, [`access`] controls access to `/api`, [`counters`]
//! lists and changes counters, [`live`] shows their state live, [`page`] serves the page that shows all of it, and
//! [`module`] serves the filter's modules to proxies.

pub mod access;
pub mod counters;
pub mod http;
pub mod live;
pub mod module;
mod overview;
mod page;
mod refused;
mod search;
pub mod usage;
mod warned;
