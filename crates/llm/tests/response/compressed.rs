//! The corpus, compressed by the encoders that servers use, and bodies that only look compressed.

use crate::corpus::{Case, cases};
use crate::in_pieces;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use llm::response::{Cause, MeterReading, ResponseHead};
use proptest::prelude::*;
use std::io::Write;

/// Compresses a body that arrives in parts. Each part is flushed so that it can be read on arrival.
type Compress = fn(&[&[u8]]) -> Vec<u8>;

/// The encodings, each with its header.
const WAYS: &[(&str, &str, Compress)] = &[
    ("gzip", "gzip", |parts| {
        flushed(GzEncoder::new(Vec::new(), Compression::default()), parts).finish().unwrap()
    }),
    ("gzip, stored", "x-gzip", |parts| {
        flushed(GzEncoder::new(Vec::new(), Compression::none()), parts).finish().unwrap()
    }),
    ("gzip, every header field", "GZIP", |parts| {
        let header = flate2::GzBuilder::new().filename("body.json").comment("made up").extra(vec![7; 300]);
        flushed(header.write(Vec::new(), Compression::best()), parts).finish().unwrap()
    }),
    ("gzip, a member for each part", "identity, gzip", |parts| {
        let member =
            |part: &&[u8]| flushed(GzEncoder::new(Vec::new(), Compression::fast()), &[part]).finish();
        parts.iter().flat_map(|part| member(part).unwrap()).collect()
    }),
    ("deflate with zlib's header", "deflate", |parts| {
        flushed(ZlibEncoder::new(Vec::new(), Compression::default()), parts).finish().unwrap()
    }),
    ("bare deflate", "deflate", |parts| {
        flushed(DeflateEncoder::new(Vec::new(), Compression::default()), parts).finish().unwrap()
    }),
    ("brotli", "br", |parts| brotli(parts, 5, 22)),
    ("brotli, largest window", "br", |parts| brotli(parts, 9, 24)),
    ("zstd", "zstd", |parts| zstd(parts, 3, false)),
    ("zstd, with a checksum", "zstd", |parts| zstd(parts, 10, true)),
    ("zstd, a frame for each part", "zstd", |parts| {
        // Empty frames and skippable frames may occur anywhere.
        let skipped = b"\x53\x2a\x4d\x18\x03\0\0\0abc";
        parts
            .iter()
            .flat_map(|part| [&libzstd::encode_all(*part, 1).unwrap()[..], skipped].concat())
            .collect()
    }),
];

fn flushed<W: Write>(mut encoder: W, parts: &[&[u8]]) -> W {
    for part in parts {
        encoder.write_all(part).unwrap();
        encoder.flush().unwrap();
    }
    encoder
}

fn brotli(parts: &[&[u8]], quality: u32, window: u32) -> Vec<u8> {
    flushed(brotli_encoder::CompressorWriter::new(Vec::new(), 4096, quality, window), parts).into_inner()
}

fn zstd(parts: &[&[u8]], level: i32, checksum: bool) -> Vec<u8> {
    let mut encoder = libzstd::Encoder::new(Vec::new(), level).unwrap();
    encoder.include_checksum(checksum).unwrap();
    flushed(encoder, parts).finish().unwrap()
}

fn encoded(case: &Case, encoding: &str) -> ResponseHead {
    ResponseHead { content_encoding: encoding.to_owned(), ..case.head.clone() }
}

/// Returns the events of a stream, or else the whole body.
fn parts(case: &Case) -> Vec<&[u8]> {
    let mut begin = 0;
    let ends = case.ends.iter().copied().chain([case.body.len()]);
    ends.map(|end| &case.body[std::mem::replace(&mut begin, end)..end])
        .filter(|part| !part.is_empty())
        .collect()
}

#[test]
fn compression_makes_no_difference() {
    for case in cases() {
        for (way, encoding, compress) in WAYS {
            let head = encoded(case, encoding);
            for body in [compress(&[&case.body]), compress(&parts(case))] {
                for size in [usize::MAX, 1, 300] {
                    let read = in_pieces(&head, &body, size);
                    assert_eq!(read, case.expected, "{}, {way}, in pieces of {size}", case.name);
                }
            }
        }
    }
}

/// The meter reads everything that was flushed before the cut, even if the decoder keeps it for later
/// matches.
#[test]
fn a_compressed_stream_that_is_cut_tells_what_was_reported_until_then() {
    for case in cases().iter().filter(|case| case.ends.len() > 2).step_by(3) {
        let parts = parts(case);
        for (way, encoding, compress) in WAYS {
            for count in [1, parts.len() / 2, parts.len() - 1] {
                let until = case.ends[count - 1];
                let plain = in_pieces(&case.head, &case.body[..until], usize::MAX);
                // The encoder's final bytes are missing, so the flushed part is a common prefix.
                let (one, other) = (compress(&parts[..count]), compress(&parts[..count + 1]));
                let common = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
                let read = in_pieces(&encoded(case, encoding), &other[..common], 100);
                let same = MeterReading { broken: plain.broken, ..read };
                assert_eq!(same, plain, "{}, {way}, cut after {count}", case.name);
            }
        }
    }
}

#[test]
fn bodies_that_are_not_encoded_as_they_say_are_told_and_not_read() {
    let case = cases().iter().find(|case| case.name == "openai-chat.json").unwrap();
    let body: Vec<u8> = case.body.iter().map(|byte| byte ^ 0x80).collect();
    for (encoding, cause) in [
        ("gzip, br", Cause::Corrupt),
        ("gzip,gzip", Cause::Corrupt),
        ("compress", Cause::Encoding),
        ("dcb", Cause::Encoding),
        ("*", Cause::Encoding),
        ("gzip;q=1", Cause::Encoding),
    ] {
        let read = in_pieces(&encoded(case, encoding), &body, usize::MAX);
        assert_eq!((read.usage, read.broken), (None, Some(cause)), "{encoding}");
    }
    for encoding in ["", "identity", " Identity , ", ","] {
        let read = in_pieces(&encoded(case, encoding), &case.body, usize::MAX);
        assert_eq!(read, case.expected, "{encoding}");
    }
}

#[test]
fn what_is_not_compressed_as_announced_is_told() {
    let case = cases().iter().find(|case| case.name == "openai-chat.json").unwrap();
    // `exclusion.rs` tests mislabelled bodies that can be read anyway.
    let body: Vec<u8> = case.body.iter().map(|byte| byte ^ 0x80).collect();
    for encoding in ["gzip", "zstd", "deflate"] {
        let read = in_pieces(&encoded(case, encoding), &body, usize::MAX);
        assert_eq!((read.usage, read.broken), (None, Some(Cause::Corrupt)), "{encoding}");
    }
    for (_, encoding, _) in WAYS {
        assert_eq!(
            in_pieces(&encoded(case, encoding), b"", 1),
            MeterReading::default(),
            "a body that is not there"
        );
    }
}

#[test]
fn twenty_megabytes_that_compress_well_are_read() {
    let body = format!(r#"{{"pad":"{}","usage":{{"prompt_tokens":5}}}}"#, "x ".repeat(10 << 20));
    for (way, encoding, compress) in WAYS {
        let head = ResponseHead { content_encoding: (*encoding).to_owned(), ..ResponseHead::default() };
        let read = in_pieces(&head, &compress(&[body.as_bytes()]), 16 << 10);
        assert_eq!((read.usage.map(|usage| usage.input), read.broken), (Some(5), None), "{way}");
    }
}

#[test]
fn a_bomb_is_told_and_costs_no_more_than_its_budget() {
    let bomb = vec![b' '; 80 << 20];
    for (way, encoding, compress) in WAYS.iter().filter(|(way, ..)| ["gzip", "brotli", "zstd"].contains(way))
    {
        let head = ResponseHead { content_encoding: (*encoding).to_owned(), ..ResponseHead::default() };
        let read = in_pieces(&head, &compress(&[&bomb]), usize::MAX);
        assert_eq!(read.broken, Some(Cause::Bomb), "{way}");
    }
}

#[test]
fn a_window_larger_than_the_encoding_allows_is_refused() {
    // A frame with a window of 16 MiB, and one with a single segment of 1 GiB.
    for frame in [&b"\x28\xb5\x2f\xfd\x00\x70\x01\0\0"[..], b"\x28\xb5\x2f\xfd\xa0\0\0\0\x40\x01\0\0"] {
        let head = ResponseHead { content_encoding: "zstd".to_owned(), ..ResponseHead::default() };
        assert_eq!(in_pieces(&head, frame, 1).broken, Some(Cause::Window));
    }
    // Brotli's extension for windows above 16 MB.
    let head = ResponseHead { content_encoding: "br".to_owned(), ..ResponseHead::default() };
    assert_eq!(in_pieces(&head, b"\x11\x1e\0\0\0", 1).broken, Some(Cause::Corrupt));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_compressed_bodies_never_trap(
        seed in any::<prop::sample::Index>(),
        way in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        size in 1..500usize,
    ) {
        let case = seed.get(cases());
        let (_, encoding, compress) = way.get(WAYS);
        let mut body = compress(&parts(case));
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body.truncate(cut.index(body.len() * 2));
        let head = encoded(case, encoding);
        let (pieces, whole) = (in_pieces(&head, &body, size), in_pieces(&head, &body, usize::MAX));
        // Bytes just before the damage may be lost if they arrive together with it.
        prop_assert!(pieces == whole || pieces.broken.is_some() && whole.broken.is_some());
    }

    #[test]
    fn arbitrary_compressed_bytes_never_trap(bytes in prop::collection::vec(any::<u8>(), 0..200), way in any::<prop::sample::Index>()) {
        let (_, encoding, _) = way.get(WAYS);
        let head = ResponseHead { content_encoding: (*encoding).to_owned(), ..ResponseHead::default() };
        let (pieces, whole) = (in_pieces(&head, &bytes, 3), in_pieces(&head, &bytes, usize::MAX));
        prop_assert!(pieces == whole || pieces.broken.is_some() && whole.broken.is_some());
    }
}
