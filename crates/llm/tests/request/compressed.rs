//! Requests with a `content-encoding`.

use crate::CHAT;
use crate::corpus::corpus;
use llm::request::{self, Extent, Label, edit};
use llm::response::Cause;
use serde_json::json;
use std::io::Write as _;

pub(crate) fn compressed(encoding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap();
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(&mut out, flate2::Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap();
        }
        "br" => {
            let parameters = brotli_encoder::enc::BrotliEncoderParams::default();
            brotli_encoder::BrotliCompress(&mut &body[..], &mut out, &parameters).unwrap();
        }
        "zstd" => out = libzstd::encode_all(body, 3).unwrap(),
        _ => out = body.to_vec(),
    }
    out
}

#[test]
fn a_compressed_body_is_read_like_any_other() {
    const MOST: usize = 1 << 20;
    for sample in corpus() {
        let plain = sample.read();
        for encoding in ["", "identity", "gzip", "deflate", "br", "zstd", "GZIP"] {
            let wire = compressed(&encoding.to_ascii_lowercase(), &sample.body);
            let decoded = request::decode(encoding, &wire, Extent::Whole, MOST);
            assert_eq!((decoded.extent, decoded.cause), (Extent::Whole, None), "{} {encoding}", sample.name);
            assert_eq!(decoded.body, sample.body, "{} {encoding}", sample.name);
            let read = request::read(&sample.path, &sample.content_type, &decoded.body, decoded.extent);
            assert_eq!(read, plain, "{} {encoding}", sample.name);
        }
    }
}

#[test]
fn a_compressed_body_that_is_a_bomb_or_broken_is_judged_by_what_is_known() {
    const MOST: usize = 4096;
    let body = json!({"model": "m", "stream": true, "max_tokens": 9, "messages": [{"content": "x".repeat(10_000_000)}]});
    let text = format!("{{\"model\":\"m\",\"stream\":true,\"max_tokens\":9,{}", &body.to_string()[1..]);
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let wire = compressed(encoding, text.as_bytes());
        let decoded = request::decode(encoding, &wire, Extent::Whole, MOST);
        assert_eq!((decoded.extent, decoded.cause), (Extent::Cut(None), Some(Cause::Bomb)), "{encoding}");
        assert!(decoded.body.len() <= MOST, "{encoding}");

        let wire = compressed(encoding, b"{\"model\":\"m\",\"stream\":true}");
        for length in 1..wire.len() {
            let whole = request::decode(encoding, &wire[..length], Extent::Whole, MOST);
            assert!(whole.body.len() < MOST);
            let read = request::read(CHAT, "", &whole.body, whole.extent);
            let asked = edit::ask_for_usage(&read, &whole.body).unwrap();
            assert_eq!(asked.body.is_some(), whole.extent == Extent::Whole, "{encoding} {length}");
            let cut = request::decode(encoding, &wire[..length], Extent::Cut(None), MOST);
            assert_eq!((cut.extent, cut.cause), (Extent::Cut(None), None), "{encoding}");
        }
        let garbage = request::decode(encoding, b"model=m", Extent::Whole, MOST);
        assert!(garbage.cause.is_some() && garbage.extent != Extent::Whole, "{encoding}");
        assert_eq!(garbage.label, Label::Undecoded, "{encoding}");
    }
    for encoding in ["compress", "br, compress"] {
        let decoded = request::decode(encoding, b"what this is nob", Extent::Whole, MOST);
        assert_eq!(
            (decoded.extent, decoded.cause),
            (Extent::Cut(Some(16)), Some(Cause::Encoding)),
            "{encoding}"
        );
    }
}
