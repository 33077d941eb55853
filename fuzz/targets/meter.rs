//! Meters an arbitrary response. The reading does not depend on how the body is split, unless a compressed
//! body is damaged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::memory::MemoryBudget;
use llm::response::{Cause, Found, Meter, MeterReading, Pointers, ResponseHead};
use std::sync::Arc;

fuzz_target!(|input: &[u8]| {
    let [content_type, encoding, size, body @ ..] = input else { return };
    let types = ["", "text/event-stream", "application/vnd.amazon.eventstream", "application/json"];
    let encodings = ["", "gzip", "deflate", "br", "zstd"];
    let pick = |names: &[&str], at: &u8| names[usize::from(*at) % names.len()].to_owned();
    let head = ResponseHead {
        content_type: pick(&types, content_type),
        content_encoding: pick(&encodings, encoding),
        ..ResponseHead::default()
    };
    let whole = read(&head, body, usize::MAX);
    let pieces = read(&head, body, usize::from(*size) + 1);
    // The position of a decompression error depends on how far the decoder has read ahead.
    let damaged = whole.broken >= Some(Cause::Encoding) && pieces.broken >= Some(Cause::Encoding)
        || !head.content_encoding.is_empty() && whole.broken.is_some() && pieces.broken.is_some();
    assert!(whole == pieces || damaged, "{whole:?} {pieces:?}");
    let (whole, pieces) = (found(&head, body, usize::MAX), found(&head, body, usize::from(*size) + 1));
    assert!(whole == pieces || damaged, "{whole:?} {pieces:?}");
});

fn found(head: &ResponseHead, body: &[u8], size: usize) -> Found {
    let pointers = ["/usage/total_tokens", "/usage", "/choices/0/text", "/choices/1", "/a/0/b"];
    let pointers = Arc::new(Pointers::new(pointers.map(str::to_owned).to_vec()));
    let mut meter = Meter::looking_for(&pointers, head, &MemoryBudget::default());
    for piece in body.chunks(size) {
        meter.feed(piece);
    }
    meter.found()
}

fn read(head: &ResponseHead, body: &[u8], size: usize) -> MeterReading {
    let mut meter = Meter::new(head);
    for piece in body.chunks(size) {
        meter.feed(piece);
    }
    meter.finish()
}
