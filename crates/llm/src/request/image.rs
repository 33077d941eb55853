//! Determines the size of an image from the first bytes of its file: PNG, GIF, WebP and JPEG. The input is
//! the base64 text of the file, in chunks of any size. The output is the cost of the image by the formulas
//! that the providers publish. Only a few bytes are kept, wherever the size is in the file.
//!
//! | formula | tokens |
//! |---|---|
//! | [`ImageFormula::Tiles`], OpenAI | 85, and 170 for each tile of 512 x 512, after the image is scaled to fit into 2048 x 2048 and its shorter side into 768 |
//! | [`ImageFormula::Pixels`], Anthropic | width x height / 750, at most 1600 |
//! | [`ImageFormula::Crops`], Gemini | 258 up to 384 x 384, otherwise 258 for each square of two thirds of the shorter side (256 to 768) |

use crate::response::Base64;

/// How a provider counts images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageFormula {
    Tiles,
    Pixels,
    Crops,
}

/// Images of known size: their number, and their cost by each formula.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SizedImages {
    pub(super) count: u64,
    tiles: u64,
    pixels: u64,
    crops: u64,
}

impl SizedImages {
    pub(super) fn of((width, height): (u32, u32)) -> Self {
        let (width, height) = (u64::from(width), u64::from(height));
        Self {
            count: 1,
            tiles: tiles(width, height),
            pixels: pixels(width, height),
            crops: crops(width, height),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.tiles = self.tiles.saturating_add(other.tiles);
        self.pixels = self.pixels.saturating_add(other.pixels);
        self.crops = self.crops.saturating_add(other.crops);
    }

    pub(super) fn tokens(&self, formula: ImageFormula) -> u64 {
        match formula {
            ImageFormula::Tiles => self.tiles,
            ImageFormula::Pixels => self.pixels,
            ImageFormula::Crops => self.crops,
        }
    }
}

/// Scales one side by the ratio of two others, to at least 1.
fn scaled(side: u64, to: u64, of: u64) -> u64 {
    side.saturating_mul(to).checked_div(of).unwrap_or(side).max(1)
}

fn tiles(width: u64, height: u64) -> u64 {
    let (mut width, mut height) = (width, height);
    let longest = width.max(height);
    if longest > 2048 {
        (width, height) = (scaled(width, 2048, longest), scaled(height, 2048, longest));
    }
    let shortest = width.min(height);
    if shortest > 768 {
        (width, height) = (scaled(width, 768, shortest), scaled(height, 768, shortest));
    }
    let tiles = width.div_ceil(512).saturating_mul(height.div_ceil(512));
    tiles.saturating_mul(170).saturating_add(85)
}

fn pixels(width: u64, height: u64) -> u64 {
    width.saturating_mul(height).div_ceil(750).clamp(1, 1600)
}

fn crops(width: u64, height: u64) -> u64 {
    if width.max(height) <= 384 {
        return 258;
    }
    let side = (width.min(height).saturating_mul(2) / 3).clamp(256, 768);
    width.div_ceil(side).saturating_mul(height.div_ceil(side)).saturating_mul(258)
}

/// The length of the text that is examined at once: the prefix of a data URL, and the head of a PNG, GIF or
/// WebP.
const FIRST: usize = 96;
/// The length of text that contains the head of a JPEG segment at any offset.
const SEGMENT: usize = 16;
/// The maximum number of segments that may precede the size in a JPEG.
const MAX_SEGMENTS: u32 = 512;

/// Reads the size of one image.
#[derive(Clone, Debug)]
pub(super) struct ImageHead {
    /// The number of characters of the text that have been read.
    passed: u64,
    /// The start and the length of the part that is examined next.
    from: u64,
    wanted: usize,
    kept: [u8; FIRST],
    length: usize,
    /// The start of the base64.
    prefix: u64,
    /// The start of the next JPEG segment in the file.
    segment: u64,
    segments: u32,
    size: Option<(u32, u32)>,
    is_over: bool,
}

impl Default for ImageHead {
    fn default() -> Self {
        Self {
            passed: 0,
            from: 0,
            wanted: FIRST,
            kept: [0; FIRST],
            length: 0,
            prefix: 0,
            segment: 0,
            segments: 0,
            size: None,
            is_over: false,
        }
    }
}

impl ImageHead {
    /// Reads the next chunk of the text.
    pub(super) fn feed(&mut self, mut piece: &[u8]) {
        while !self.is_over && !piece.is_empty() {
            let skipped = self.from.saturating_add(self.length as u64).saturating_sub(self.passed);
            let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(piece.len());
            let (_, rest) = piece.split_at(skipped);
            let missing = self.wanted.saturating_sub(self.length).min(rest.len());
            let (now, rest) = rest.split_at(missing);
            let free = self.kept.get_mut(self.length..).unwrap_or_default();
            free.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.length = self.length.saturating_add(missing);
            self.passed = self.passed.saturating_add(skipped as u64).saturating_add(missing as u64);
            piece = rest;
            if self.length == self.wanted {
                self.look();
            }
        }
    }

    /// Ends the text. Returns the size, if it was found.
    pub(super) fn finish(&mut self) -> Option<(u32, u32)> {
        if !self.is_over && self.length > 0 {
            self.look();
        }
        self.size.filter(|(width, height)| *width > 0 && *height > 0)
    }

    /// Examines the part that has been collected.
    fn look(&mut self) {
        if self.segment == 0 {
            self.first();
        }
        while !self.is_over && self.length >= SEGMENT {
            self.jpeg_segment();
        }
    }

    /// Examines the beginning of the file.
    fn first(&mut self) {
        let text = self.kept.get(..self.length).unwrap_or_default();
        let comma = text.starts_with(b"data:").then(|| text.iter().position(|byte| *byte == b','));
        let prefix = comma.flatten().map_or(0, |comma| comma.saturating_add(1));
        let head = decoded(text.get(prefix..).unwrap_or_default());
        if head.starts_with(&[0xff, 0xd8, 0xff]) {
            self.prefix = prefix as u64;
            return self.want_segment(2);
        }
        self.size = png(&head).or_else(|| gif(&head)).or_else(|| webp(&head));
        self.is_over = true;
    }

    /// Examines a marker and the length of its segment, and for a frame its precision, height and width.
    fn jpeg_segment(&mut self) {
        let bytes = decoded(self.kept.get(..self.length).unwrap_or_default());
        let skip = usize::try_from(self.segment % 3).unwrap_or_default();
        self.is_over = true;
        let [0xff, marker, high, low, rest @ ..] = bytes.get(skip..).unwrap_or_default() else { return };
        let is_frame = matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
        if let ([_, h1, h0, w1, w0, ..], true) = (rest, is_frame) {
            self.size = Some((u16::from_be_bytes([*w1, *w0]).into(), u16::from_be_bytes([*h1, *h0]).into()));
        }
        let length = u64::from(u16::from_be_bytes([*high, *low]));
        // No size follows the beginning of a scan.
        if !is_frame && length >= 2 && *marker != 0xda && self.segments < MAX_SEGMENTS {
            self.segments = self.segments.saturating_add(1);
            self.is_over = false;
            self.want_segment(self.segment.saturating_add(2).saturating_add(length));
        }
    }

    /// Waits for the text that encodes the segment at this byte of the file. Some of it may have arrived
    /// already.
    fn want_segment(&mut self, at: u64) {
        let from = self.prefix.saturating_add((at / 3).saturating_mul(4));
        let skip = usize::try_from(from.saturating_sub(self.from)).unwrap_or(usize::MAX).min(self.length);
        let kept = self.kept;
        let here = kept.get(skip..self.length).unwrap_or_default();
        self.kept.iter_mut().zip(here).for_each(|(to, from)| *to = *from);
        (self.segment, self.from, self.length) = (at, from, here.len());
        self.wanted = self.length.max(SEGMENT);
    }
}

/// Decodes base64 up to the first character that does not belong to it.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The URL-safe alphabet is not supported.
    if !text.iter().any(|byte| matches!(byte, b'-' | b'_' | b'\r' | b'\n')) {
        Base64::default().feed(text, &mut bytes);
    }
    bytes
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn png(head: &[u8]) -> Option<(u32, u32)> {
    head.starts_with(b"\x89PNG\r\n\x1a\n").then_some(())?;
    Some((number(head.get(16..20)?), number(head.get(20..24)?)))
}

fn gif(head: &[u8]) -> Option<(u32, u32)> {
    let [b'G', b'I', b'F', b'8', _, _, w0, w1, h0, h1, ..] = head else { return None };
    Some((number(&[*w1, *w0]), number(&[*h1, *h0])))
}

/// Reads a RIFF file with one of three kinds of frames.
fn webp(head: &[u8]) -> Option<(u32, u32)> {
    let is_webp = head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP");
    is_webp.then_some(())?;
    match (head.get(12..16)?, head.get(20..30)?) {
        (b"VP8 ", [.., w0, w1, h0, h1]) => Some((number(&[*w1 & 0x3f, *w0]), number(&[*h1 & 0x3f, *h0]))),
        (b"VP8L", [0x2f, a, b, c, d, ..]) => {
            let bits = number(&[*d, *c, *b, *a]);
            Some(((bits & 0x3fff).saturating_add(1), (bits >> 14 & 0x3fff).saturating_add(1)))
        }
        (b"VP8X", [_, _, _, _, w0, w1, w2, h0, h1, h2]) => {
            let side = |bytes: [&u8; 3]| number(&bytes.map(|byte| *byte)).saturating_add(1);
            Some((side([w2, w1, w0]), side([h2, h1, h0])))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    fn base64(bytes: &[u8]) -> String {
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let mut padded = [0; 3];
            padded[..group.len()].copy_from_slice(group);
            let bits = number(&padded);
            for at in 0..4 {
                let digit = ALPHABET[(bits >> (18 - 6 * at) & 0x3f) as usize];
                text.push(if at > group.len() { '=' } else { char::from(digit) });
            }
        }
        text
    }

    fn size(text: &str, piece: usize) -> Option<(u32, u32)> {
        let mut head = ImageHead::default();
        text.as_bytes().chunks(piece).for_each(|piece| head.feed(piece));
        head.finish()
    }

    fn jpeg(segments: &[usize], width: u16, height: u16) -> Vec<u8> {
        let mut file = vec![0xff, 0xd8];
        for (number, length) in segments.iter().enumerate() {
            file.extend([0xff, 0xe0 + u8::try_from(number % 16).unwrap()]);
            file.extend(u16::try_from(length + 2).unwrap().to_be_bytes());
            file.extend(std::iter::repeat_n(0xff, *length));
        }
        file.extend([0xff, 0xc2, 0, 17, 8]);
        file.extend(height.to_be_bytes());
        file.extend(width.to_be_bytes());
        file.extend([0; 400]);
        file
    }

    #[test]
    fn the_size_is_found_in_any_pieces() {
        let png = [&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], &[0, 0, 4, 0, 0, 0, 3, 0], &[0; 50]].concat();
        let gif = [&b"GIF89a"[..], &[64, 1, 200, 0], &[0; 60]].concat();
        let vp8 = [&b"RIFF\0\0\0\0WEBPVP8 "[..], &[0; 4], &[0, 0, 0, 0x9d, 1, 0x2a, 64, 1, 200, 0], &[0; 40]]
            .concat();
        let vp8x = [&b"RIFF\0\0\0\0WEBPVP8X"[..], &[0; 8], &[63, 1, 0, 199, 0, 0], &[0; 40]].concat();
        let table = [
            (png, Some((1024, 768))),
            (gif, Some((320, 200))),
            (vp8, Some((320, 200))),
            (vp8x, Some((320, 200))),
            (jpeg(&[], 640, 480), Some((640, 480))),
            (jpeg(&[16, 67, 67], 640, 480), Some((640, 480))),
            (jpeg(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 640, 480), Some((640, 480))),
            (jpeg(&[16, 65_000, 12_345, 1, 0, 2], 4032, 3024), Some((4032, 3024))),
            (vec![0xff, 0xd8, 0xff], None),
            (b"%PDF-1.7 and so on".to_vec(), None),
            (Vec::new(), None),
        ];
        for (number, (file, expected)) in table.iter().enumerate() {
            for prefix in ["", "data:image/any;base64,", "data:image/x;p=12345;base64,"] {
                let text = format!("{prefix}{}", base64(file));
                for piece in [1, 3, 7, 64, 4096, usize::MAX] {
                    assert_eq!(
                        size(&text, piece),
                        *expected,
                        "file {number} behind {prefix:?} in pieces of {piece}"
                    );
                }
            }
        }
    }

    #[test]
    fn images_cost_what_the_providers_publish() {
        let table = [
            ((1024, 1024), [765, 1399, 1032]),
            ((2048, 4096), [1105, 1600, 4644]),
            ((512, 512), [255, 350, 1032]),
            ((200, 200), [255, 54, 258]),
            ((960, 540), [765, 692, 1548]),
            ((1, 1), [255, 1, 258]),
        ];
        for (size, [tiles, pixels, crops]) in table {
            let images = SizedImages::of(size);
            assert_eq!(images.tokens(ImageFormula::Tiles), tiles, "{size:?}");
            assert_eq!(images.tokens(ImageFormula::Pixels), pixels, "{size:?}");
            assert_eq!(images.tokens(ImageFormula::Crops), crops, "{size:?}");
        }
        assert!(SizedImages::of((u32::MAX, u32::MAX)).tokens(ImageFormula::Crops) > 258);
    }
}
