//! Binary event streams, which the corpus has in a readable form.

use serde::Deserialize;

/// One frame of an event stream in readable form.
#[derive(Deserialize)]
struct Frame {
    headers: Vec<(String, String)>,
    payload: serde_json::Value,
}

/// Returns the frames as sent over the wire, and the end of each.
pub fn encode(readable: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let frames: Vec<Frame> = serde_json::from_slice(readable).unwrap();
    let mut body = Vec::new();
    let mut ends = Vec::new();
    for frame in frames {
        let headers = frame.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        body.extend(encode_frame(headers, frame.payload.to_string().as_bytes()));
        ends.push(body.len());
    }
    (body, ends)
}

pub fn encode_frame<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>, payload: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(name.len() as u8);
        block.extend(name.as_bytes());
        block.push(7);
        block.extend((value.len() as u16).to_be_bytes());
        block.extend(value.as_bytes());
    }
    let total = (12 + block.len() + payload.len() + 4) as u32;
    let mut frame = Vec::new();
    frame.extend(total.to_be_bytes());
    frame.extend((block.len() as u32).to_be_bytes());
    frame.extend(crc32(&frame).to_be_bytes());
    frame.extend(block);
    frame.extend(payload);
    frame.extend(crc32(&frame).to_be_bytes());
    frame
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (0u32.wrapping_sub(crc & 1)));
        }
    }
    !crc
}
