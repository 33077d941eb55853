//! Any bytes as the adapter's answer: decoded, or refused with an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::wire::kuadrant::service::ratelimit::v1::{CommitResponse, ReserveResponse};
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let _ = CommitResponse::decode(bytes);
    let _ = ReserveResponse::decode(bytes);
});
