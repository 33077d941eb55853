//! HTTP for people and probes: [`http`] has the pages, [`access`] decides who may call `/api`, and [`module`] is the
//! filter's module for proxies that fetch it here.

pub mod access;
pub mod http;
pub mod module;
