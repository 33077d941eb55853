//! Filters an arbitrary stream in pieces of the size that the first byte gives. The output does not depend on
//! the size, and is a subsequence of the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::request::UsageChunkFilter;

fn filtered(stream: &[u8], size: usize) -> Vec<u8> {
    let mut filter = UsageChunkFilter::default();
    let mut out = Vec::new();
    for piece in stream.chunks(size) {
        out.extend(filter.feed(piece, false).unwrap_or_else(|| piece.to_vec()));
    }
    out.extend(filter.feed(&[], true).unwrap_or_default());
    out
}

fuzz_target!(|bytes: &[u8]| {
    let Some((size, stream)) = bytes.split_first() else { return };
    let out = filtered(stream, usize::from(*size).max(1));
    let mut rest = stream.iter();
    assert!(out.iter().all(|byte| rest.any(|sent| sent == byte)));
    // The filter may decide about an event above the maximum before all of it has arrived.
    if stream.len() < 16 << 10 {
        assert_eq!(out, filtered(stream, stream.len().max(1)));
    }
});
