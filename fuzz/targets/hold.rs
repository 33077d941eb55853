//! Two bytes that select a path and a label, and a body. The hold is at least half of what a generous server would
//! spend on it, except for the documented exclusions, or the request is refused.
#![no_main]

use fuzz::{hold, reading};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let [path, label, body @ ..] = bytes else { return };
    let Some(held) = hold::held(*path, *label, body) else { return };
    // Servers differ in how they read. This one is strict and ignores every wrong label.
    let Ok(read) = serde_json::from_slice::<Value>(body) else { return };
    let least = reading::least(reading::characters(&read)).saturating_add(hold::output(*path, &read));
    assert!(held >= least, "{held} of {least} tokens");
});
