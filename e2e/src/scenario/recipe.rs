//! Bytes as a file describes them: large, binary or encoded ones in a few words.

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use serde::Deserialize;
use std::io::Write as _;

/// Pieces one after another. A piece is a text, or [`Piece::Repeat`], or [`Piece::Base64`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
pub enum Recipe {
    /// No bytes.
    #[default]
    Nothing,
    /// One piece.
    One(Piece),
    /// Several.
    Several(Vec<Piece>),
}

/// A piece of a [`Recipe`].
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Piece {
    /// Itself.
    Text(String),
    /// A text many times. `#` in it is the number of each time, from 0.
    Repeat {
        /// The text.
        repeat: String,
        /// How often.
        times: usize,
    },
    /// Any bytes.
    Base64 {
        /// In base64.
        base64: String,
    },
}

/// What is done with the bytes of a recipe before they are sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// A content coding.
    Gzip,
    /// The content coding `deflate`, as RFC 9110 means it.
    Zlib,
    /// The content coding `deflate`, as some clients mean it.
    RawDeflate,
    /// A content coding.
    Br,
    /// A content coding.
    Zstd,
    /// Without a byte order mark, as the others.
    Utf16le,
    /// Of text.
    Utf16be,
    /// Of text.
    Utf32le,
    /// Of text.
    Utf32be,
    /// Only so many bytes of it.
    Cut(usize),
    /// More bytes behind it.
    Append(Recipe),
    /// More bytes before it.
    Prepend(Recipe),
}

impl Recipe {
    /// All of them.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::One(piece) => piece.bytes(),
            Self::Several(pieces) => pieces.iter().flat_map(Piece::bytes).collect(),
        }
    }

    /// As text, which headers are.
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
    /// The bytes in this encoding.
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
