//! Anything as a compressed body, of a request and of a response: no more comes out than was wanted, and the response's
//! pieces change nothing, unless it was damaged.
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
        // A label that is wrong is seen through, and so is one that is missing.
        let mislabeled = [plain, whole].iter().any(|reading| reading.broken == Some(Cause::Mislabeled));
        assert!(mislabeled || plain == whole, "{plain:?} {whole:?}");
    }
});

fn read(encoding: &str, body: &[u8], size: usize) -> MeterReading {
    let head = ResponseHead { content_encoding: encoding.to_owned(), ..ResponseHead::default() };
    let mut meter = Meter::new(&head);
    body.chunks(size).for_each(|piece| meter.feed(piece));
    meter.finish()
}
