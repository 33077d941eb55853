//! The gRPC services of `proto/`, on the messages of `protocol::wire`.
#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/services.rs"));

/// The files of `proto/`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
