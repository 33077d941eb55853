//! Requests with an arbitrary body. Two bytes of the input select the path and the labels. Either the request
//! is refused, or its hold is at least half of what a generous server would spend, apart from the documented
//! exclusions.
#![no_main]

use fuzz::{hold, reading};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let [path, label, body @ ..] = bytes else { return };
    let Some(held) = hold::held(*path, *label, body) else { return };
    // Assumes a server that parses strictly and ignores wrong labels.
    let Ok(read) = serde_json::from_slice::<Value>(body) else { return };
    let least = reading::least(reading::characters(&read)).saturating_add(hold::output(*path, &read));
    assert!(held >= least, "{held} of {least} tokens");
});
