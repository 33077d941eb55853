//! Reads arbitrary bytes as the filter's plugin configuration. The result is a configuration or an error.
#![no_main]

use engine::config::PluginConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match PluginConfig::read(bytes) {
        Ok(config) => assert!(!config.cluster.is_empty() && !config.timeout.is_zero()),
        Err(mistakes) => assert!(!mistakes.is_empty()),
    }
});
