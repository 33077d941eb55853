//! The messages between filter and adapter, as `proto/` defines them.
#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/wire.rs"));
