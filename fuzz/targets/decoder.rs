//! Decodes arbitrary bytes as a compressed request body and response body. The output never exceeds the
//! requested size, and splitting the response does not change the result, unless the body is damaged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::request::{self, Extent, Label};
use llm::response::{Cause, Meter, MeterReading, ResponseHead};
use std::borrow::Cow;

const MOST: usize = 1 << 16;

fuzz_target!(|input: &[u8]| {
    let [encoding, size, body @ ..] = input else { return };
    let encodings = ["", "gzip", "deflate", "br", "zstd"];
    let encoding = encodings[usize::from(*encoding) % encodings.len()];
    let decoded = request::decode(encoding, body, Extent::Whole, MOST);
    assert!(matches!(decoded.body, Cow::Borrowed(_)) || decoded.body.len() <= MOST);
    let whole = read(encoding, body, usize::MAX);
    let pieces = read(encoding, body, usize::from(*size) + 1);
    assert!(whole == pieces || whole.broken.is_some() && pieces.broken.is_some(), "{whole:?} {pieces:?}");
    if decoded.cause.is_none() && decoded.extent == Extent::Whole && decoded.label == Label::True {
        let plain = read("", &decoded.body, usize::MAX);
        // A request body without the end of its encoding is complete if its JSON document is complete. A
        // response body is not.
        let broken = whole.broken.filter(|cause| *cause != Cause::Truncated);
        let whole = MeterReading { broken: broken.or(plain.broken), ..whole };
        // Wrong or missing labels are recognised.
        let mislabeled = [plain, whole].iter().any(|reading| reading.broken == Some(Cause::Mislabeled));
        // A response that begins with the signature of another encoding is read only in that encoding.
        let misled = whole.broken.is_some() && sign(body).is_some_and(|sign| sign != encoding);
        assert!(mislabeled || misled || plain == whole, "{plain:?} {whole:?}");
    }
});

/// Detects the encoding by the signature at the beginning of the body.
fn sign(body: &[u8]) -> Option<&'static str> {
    match body {
        [0x1f, 0x8b, 8, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some("zstd"),
        [0x78, ..] => Some("deflate"),
        _ => None,
    }
}

fn read(encoding: &str, body: &[u8], size: usize) -> MeterReading {
    let head = ResponseHead { content_encoding: encoding.to_owned(), ..ResponseHead::default() };
    let mut meter = Meter::new(&head);
    body.chunks(size).for_each(|piece| meter.feed(piece));
    meter.finish()
}
