//! The messages between filter and adapter, as defined in `proto/`.
#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/wire.rs"));
