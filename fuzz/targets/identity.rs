//! Reads arbitrary bytes as an identity header and as Envoy's dynamic metadata. The result is an `auth`
//! object, nothing, or an error.
#![no_main]

use expression::identity::IdentityEncoding;
use expression::identity::{from_header, from_metadata};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for encoding in [IdentityEncoding::Json, IdentityEncoding::Base64UrlJson] {
        if let Ok(auth) = from_header(bytes, encoding) {
            assert!(auth["identity"].is_object());
        }
    }
    for key in [None, Some("")] {
        if let Ok(Some(auth)) = from_metadata(bytes, "", key) {
            assert!(auth.is_object());
        }
    }
});
