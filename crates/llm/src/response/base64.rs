//! Decodes base64 that arrives in chunks.

/// The bits of the last incomplete group.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Base64 {
    bits: u32,
    count: u8,
}

impl Base64 {
    /// Decodes a chunk. Characters that are not base64 digits, such as padding, are skipped. The decoded
    /// document is checked separately.
    pub(crate) fn feed(&mut self, piece: &[u8], to: &mut Vec<u8>) {
        for byte in piece {
            let Some(digit) = digit(*byte) else { continue };
            self.bits = (self.bits << 6) | digit;
            self.count = self.count.saturating_add(6);
            if self.count >= 8 {
                self.count = self.count.saturating_sub(8);
                to.push((self.bits >> self.count) as u8);
            }
        }
    }
}

fn digit(byte: u8) -> Option<u32> {
    let (base, first) = match byte {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => (b'+', 62),
        b'/' => (b'/', 63),
        _ => return None,
    };
    Some(u32::from(byte.saturating_sub(base)).saturating_add(first))
}
