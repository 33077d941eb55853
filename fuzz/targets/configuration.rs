//! Any bytes as the filter's plugin configuration: read, or every mistake told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::config::Config;

fuzz_target!(|bytes: &[u8]| {
    if let Err(mistakes) = Config::read(bytes) {
        assert!(!mistakes.is_empty());
    }
});
