//! `content-encoding` of requests: the body as it is to be read, and as it is sent on if it has to be edited. Some
//! clients compress by default. What needs no edit goes on as it came.

use super::{Extent, length};
use crate::meter::Cause;
use crate::meter::decode::{Budget, Decoder, Sink};
use std::borrow::Cow;

/// A body without its `content-encoding`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// As much as was decoded.
    pub body: Cow<'a, [u8]>,
    /// Whether that is all. Only then may it be edited; an edited body goes on without `content-encoding`.
    pub extent: Extent,
    /// Why that is not all, though all of it was here.
    pub cause: Option<Cause>,
}

/// Decodes a body, but no more than `most` bytes of it. A body in an encoding that is not known stays as it is.
pub fn decode<'a>(content_encoding: &str, body: &'a [u8], extent: Extent, most: usize) -> Decoded<'a> {
    let mut decoder = match Decoder::new(content_encoding) {
        Ok(Decoder::Identity) => return Decoded { body: Cow::Borrowed(body), extent, cause: None },
        Ok(decoder) => decoder,
        Err(cause) => {
            let extent = Extent::Cut(Some(length(body)));
            return Decoded { body: Cow::Borrowed(body), extent, cause: Some(cause) };
        }
    };
    let mut budget = Budget::of(u64::try_from(most).unwrap_or(u64::MAX));
    let mut decoded = Collected { bytes: Vec::new(), most };
    let mut outcome = decoder.feed(body, &mut budget, &mut decoded);
    if extent == Extent::Whole && outcome.is_ok() {
        outcome = decoder.finish(&budget);
    }
    let extent = if outcome.is_ok() { extent } else { Extent::Cut(None) };
    Decoded { body: Cow::Owned(decoded.bytes), extent, cause: outcome.err() }
}

struct Collected {
    bytes: Vec<u8>,
    most: usize,
}

impl Sink for Collected {
    fn take(&mut self, bytes: &[u8]) {
        let room = self.most.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }
}
