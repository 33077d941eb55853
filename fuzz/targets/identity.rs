//! Any bytes as what the auth filter left: an identity that is an object, or none and why.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::config::Encoding;
use policy::identity;

fuzz_target!(|bytes: &[u8]| {
    let found = [
        identity::from_header(bytes, Encoding::Json).ok(),
        identity::from_header(bytes, Encoding::Base64UrlJson).ok(),
        identity::from_metadata(bytes, "a", None).ok().flatten(),
        identity::from_metadata(bytes, "a", Some("b")).ok().flatten(),
    ];
    assert!(found.iter().flatten().all(|auth| auth.is_object()));
});
