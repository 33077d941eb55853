//! The meter, with responses from all kinds of providers and networks.

#[cfg(test)]
mod compressed;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod data_stream;
#[cfg(test)]
mod exclusion;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod list;
#[cfg(test)]
mod named;
mod nasty;
#[cfg(test)]
mod pointers;
#[cfg(test)]
mod providers;
#[cfg(test)]
mod repeated;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod splits;
mod stored;
#[cfg(test)]
mod zstd;

use llm::response::{Meter, MeterReading, ResponseHead};

/// Returns what the meter reads of `body` if it arrives in pieces of `size` bytes.
fn in_pieces(head: &ResponseHead, body: &[u8], size: usize) -> MeterReading {
    let mut meter = Meter::new(head);
    for piece in body.chunks(size) {
        meter.feed(piece);
    }
    meter.finish()
}

/// Returns the weight of a text's characters, from [`llm`]'s table of scripts.
pub fn weight(text: &str) -> u64 {
    let of = |character: char| match u32::from(character) {
        0..0x80 => 1,
        0x80..0x800 => 2,
        0x800..0x3000 => 3,
        0x3000..0x10000 => 4,
        _ => 8,
    };
    text.chars().map(of).sum()
}
