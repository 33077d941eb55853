//! Encodes the few frames that a filter adds to a socket.

use super::Opcode;
use super::frame::mask as apply_mask;

/// The maximum length of a close frame's reason in bytes.
pub const MAX_REASON: usize = 123;

/// Encodes a whole message or a control frame as one frame. Frames from a client are masked.
pub fn frame(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len().saturating_add(14));
    bytes.push(0x80 | opcode.bits());
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        // The length is less than 126, so the cast is lossless.
        length @ ..126 => bytes.push(masked | length as u8),
        length => match u16::try_from(length) {
            Ok(length) => {
                bytes.push(masked | 126);
                bytes.extend(length.to_be_bytes());
            }
            Err(_) => {
                bytes.push(masked | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        },
    }
    bytes.extend(mask.unwrap_or_default().iter().filter(|_| mask.is_some()));
    let begin = bytes.len();
    bytes.extend(payload);
    if let (Some(key), Some(payload)) = (mask, bytes.get_mut(begin..)) {
        apply_mask(payload, key, 0);
    }
    bytes
}

/// Encodes a close frame. A reason that is too long is truncated.
pub fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let end = (0..=MAX_REASON).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or_default();
    let reason = reason.get(..end.min(reason.len())).unwrap_or(reason);
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    self::frame(Opcode::Close, &payload, mask)
}
