//! Any JSON as a policy: read, or every mistake told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::model::Policy;

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = serde_json::from_slice(bytes) else { return };
    if let Err(mistakes) = Policy::read(&document) {
        assert!(!mistakes.is_empty());
    }
});
