//! The meter, fed with whatever providers and networks come up with.

mod shapes;

use policy::meter::{Meter, Reading, ResponseHead};

/// What the meter reads of `body` when it comes in pieces of `size` bytes.
fn in_pieces(head: &ResponseHead, body: &[u8], size: usize) -> Reading {
    let mut meter = Meter::new(head);
    for piece in body.chunks(size) {
        meter.feed(piece);
    }
    meter.finish()
}
