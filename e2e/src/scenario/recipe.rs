//! Short descriptions of bytes that are large, binary or encoded.

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde::Deserialize;
use std::io::Write as _;

/// A sequence of pieces. Each piece is a text, [`Piece::Repeat`], or [`Piece::Base64`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
pub enum Recipe {
    #[default]
    Nothing,
    One(Piece),
    Several(Vec<Piece>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Piece {
    /// A literal text.
    Text(String),
    /// A repeated text. Each `#` is replaced with the index of the repetition, starting at 0.
    Repeat {
        repeat: String,
        /// The number of repetitions.
        times: usize,
    },
    /// Arbitrary bytes.
    Base64 {
        /// The bytes in base64.
        base64: String,
    },
}

/// A transformation of a recipe's bytes before they are sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    Gzip,
    /// The content coding `deflate` with zlib's header, as in RFC 9110.
    Zlib,
    /// The content coding `deflate` without a header, as some clients implement it.
    RawDeflate,
    Br,
    Zstd,
    /// Text encodings have no byte order mark.
    Utf16le,
    Utf16be,
    Utf32le,
    Utf32be,
    /// Keeps only this many bytes.
    Cut(usize),
    /// Appends bytes.
    Append(Recipe),
    /// Prepends bytes.
    Prepend(Recipe),
}

impl Recipe {
    /// Returns all bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::One(piece) => piece.bytes(),
            Self::Several(pieces) => pieces.iter().flat_map(Piece::bytes).collect(),
        }
    }

    /// Returns the bytes as text, for headers.
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes()).expect("a header is text")
    }
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        use base64::Engine as _;
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Repeat { repeat, times } if repeat.contains('#') => {
                (0..*times).flat_map(|at| repeat.replace('#', &at.to_string()).into_bytes()).collect()
            }
            Self::Repeat { repeat, times } => repeat.repeat(*times).into_bytes(),
            Self::Base64 { base64 } => {
                base64::engine::general_purpose::STANDARD.decode(base64).expect("base64 is well-formed")
            }
        }
    }
}

impl Encoding {
    /// Encodes the bytes.
    pub fn apply(&self, bytes: Vec<u8>) -> Vec<u8> {
        let packed = "memory takes bytes";
        let text = || String::from_utf8(bytes.clone()).expect("only text has other encodings of text");
        let utf16 = |unit: fn(u16) -> [u8; 2]| text().encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        let utf32 =
            |unit: fn(u32) -> [u8; 4]| text().chars().map(u32::from).flat_map(unit).collect::<Vec<u8>>();
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&bytes).expect(packed);
                encoder.finish().expect(packed)
            }
            Self::Zlib => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&bytes).expect(packed);
                encoder.finish().expect(packed)
            }
            Self::RawDeflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&bytes).expect(packed);
                encoder.finish().expect(packed)
            }
            Self::Br => {
                let mut encoded = Vec::new();
                let parameters =
                    brotli_encoder::enc::BrotliEncoderParams { quality: 5, ..Default::default() };
                brotli_encoder::BrotliCompress(&mut &*bytes, &mut encoded, &parameters).expect(packed);
                encoded
            }
            Self::Zstd => libzstd::encode_all(&*bytes, 3).expect(packed),
            Self::Utf16le => utf16(u16::to_le_bytes),
            Self::Utf16be => utf16(u16::to_be_bytes),
            Self::Utf32le => utf32(u32::to_le_bytes),
            Self::Utf32be => utf32(u32::to_be_bytes),
            Self::Cut(length) => bytes.get(..*length).unwrap_or(&bytes).to_vec(),
            Self::Append(more) => [bytes, more.bytes()].concat(),
            Self::Prepend(more) => [more.bytes(), bytes].concat(),
        }
    }
}
