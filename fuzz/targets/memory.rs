//! Drives several concurrent exchanges with arbitrary events and an arbitrary budget. They never exceed the
//! budget, and return all of it.
#![no_main]

use engine::exchange::{Event, Exchange};
use fuzz::Pieces;
use libfuzzer_sys::fuzz_target;
use llm::memory::MemoryBudget;
use llm::response::ResponseHead;
use protocol::call::{self, CallFailure};

/// The content encodings of responses.
const ENCODINGS: [&str; 5] = ["", "gzip", "deflate", "br", "zstd"];

fuzz_target!(|bytes: &[u8]| {
    let Some((size, bytes)) = bytes.split_first_chunk::<2>() else { return };
    // The budget is between 0 and 16 MB.
    let max = usize::from(u16::from_le_bytes(*size)) << 8;
    let memory = MemoryBudget::new(max);
    let mut exchanges: Vec<Exchange> = (0..4).map(|_| fuzz::exchange().within(&memory)).collect();
    for piece in Pieces(bytes) {
        let Some((kind, rest)) = piece.split_first() else { continue };
        let Some(exchange) = exchanges.get_mut(usize::from(kind >> 6)) else { continue };
        let encoding = rest.first().map_or("", |first| ENCODINGS[usize::from(*first) % ENCODINGS.len()]);
        let mut room = None;
        exchange.handle(match kind & 15 {
            0 => Event::Request { facts: fuzz::facts(), bodiless: false },
            1 => Event::Request { facts: fuzz::facts(), bodiless: true },
            2 | 3 => {
                room = exchange.room_for_body(rest.len());
                match &room {
                    Some(_) => Event::RequestBody { body: rest, end: kind & 32 == 0 },
                    None => Event::UnreadBody { size: rest.len() },
                }
            }
            4 => Event::Reply(call::reply(Ok(rest))),
            5 | 6 => Event::Reply(call::reply(Ok(&[]))),
            7 => Event::Reply(Err(CallFailure::Timeout)),
            8 | 9 => Event::Response(ResponseHead {
                status: 200,
                content_type: String::from_utf8_lossy(rest).into_owned(),
                content_encoding: encoding.to_owned(),
                usage_headers: Vec::new(),
            }),
            10 => Event::Passing { chunk: rest, end: false },
            11 => Event::PassingUnread,
            12 => Event::Closed,
            _ => Event::Body { chunk: rest, end: kind & 32 != 0 },
        });
        drop(room);
        assert!(memory.used() <= max, "{} of {max}", memory.used());
    }
    for exchange in &mut exchanges {
        exchange.handle(Event::Closed);
        assert!(exchange.is_over());
    }
    assert_eq!(memory.used(), 0);
});
