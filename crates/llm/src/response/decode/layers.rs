//! Decodes a body with several encodings, whether `content-encoding` lists them or not. Each layer has the
//! encoding that its label names, unless its first bytes contradict the label ([`sniff`]). The output of each
//! layer is examined in the same way.

use super::super::body::Body;
use super::super::cause::Cause;
use super::{Budget, Decoder, Encoding, Sink, sniff};
use crate::memory::MemoryBudget;

/// The maximum number of layers that are decoded. The bytes of further layers are read without decoding.
const MAX_LAYERS: usize = 3;

#[derive(Debug)]
pub(in crate::response) struct Layers {
    layers: [DecoderLayer; MAX_LAYERS],
    memory: MemoryBudget,
}

#[derive(Debug)]
struct DecoderLayer {
    /// The encodings in `content-encoding`.
    label: Result<Encoding, Cause>,
    /// Another encoding in the header, which is used if this layer is missing.
    other: Option<Encoding>,
    /// The first bytes, while there are too few to decide.
    head: [u8; sniff::HEAD],
    length: usize,
    decoder: Option<Decoder>,
    budget: Budget,
}

impl Layers {
    /// Creates the layers. Decoders reserve memory before they allocate it. If the budget refuses, the rest
    /// of the body is not decoded.
    pub(in crate::response) fn new(content_encoding: &str, memory: &MemoryBudget) -> Self {
        // The encoding that was applied last is removed first.
        let names = || content_encoding.rsplit(',').map(str::trim).filter(|name| Encoding::is_any(name));
        let plain = content_encoding.is_empty();
        let label = |at| names().nth(at).map_or(Ok(Encoding::Identity), Encoding::of);
        let other = |at: usize| names().skip(at.saturating_add(1)).find_map(|name| Encoding::of(name).ok());
        let layer = |at| DecoderLayer {
            label: if plain { Ok(Encoding::Identity) } else { label(at) },
            other: if plain { None } else { other(at) },
            head: [0; sniff::HEAD],
            length: 0,
            decoder: None,
            budget: Budget::default(),
        };
        Self { layers: [layer(0), layer(1), layer(2)], memory: memory.clone() }
    }

    /// Reads the next bytes from the wire.
    pub(in crate::response) fn feed(&mut self, bytes: &[u8], to: &mut Body) {
        Inner { layers: &mut self.layers, memory: &self.memory, to }.take(bytes);
    }

    /// Handles the end of the body.
    pub(in crate::response) fn finish(&mut self, to: &mut Body) {
        let mut layers = self.layers.as_mut_slice();
        while let Some((layer, inner)) = layers.split_first_mut() {
            let is_last = matches!(layer.decoder, Some(Decoder::Identity));
            layer.finish(&mut Inner { layers: &mut *inner, memory: &self.memory, to });
            layers = if is_last { &mut [] } else { inner };
        }
    }
}

/// Receives the output of a layer and passes it to the next layer, or to the body.
struct Inner<'a> {
    layers: &'a mut [DecoderLayer],
    memory: &'a MemoryBudget,
    to: &'a mut Body,
}

impl Sink for Inner<'_> {
    fn take(&mut self, bytes: &[u8]) {
        match self.layers.split_first_mut() {
            Some((layer, layers)) => {
                layer.feed(bytes, &mut Inner { layers, memory: self.memory, to: self.to });
            }
            None => self.to.take(bytes),
        }
    }
}

impl DecoderLayer {
    fn feed(&mut self, bytes: &[u8], inner: &mut Inner<'_>) {
        if self.decoder.is_some() {
            return self.decode(bytes, inner);
        }
        let begun = bytes.get(..sniff::HEAD).unwrap_or(bytes);
        if self.length == 0 && sniff::is_enough(self.label, begun) {
            self.begin(begun, inner);
            return self.decode(bytes, inner);
        }
        let free = self.head.get_mut(self.length..).unwrap_or_default();
        let (first, rest) = bytes.split_at(bytes.len().min(free.len()));
        free.iter_mut().zip(first).for_each(|(place, byte)| *place = *byte);
        self.length = self.length.saturating_add(first.len());
        if self.length == sniff::HEAD {
            self.begin_with_head(inner);
            self.decode(rest, inner);
        }
    }

    /// Chooses the decoder for a layer that begins with these bytes.
    fn begin(&mut self, begun: &[u8], inner: &mut Inner<'_>) {
        let encoding = match begun {
            [] => Ok(Encoding::Identity),
            _ => sniff::encoding(self.label, self.other, begun),
        };
        if !begun.is_empty() && encoding != self.label {
            inner.to.broken(Cause::Mislabeled);
        }
        let decoder = encoding.and_then(|encoding| Decoder::of(encoding, inner.memory));
        self.decoder = Some(decoder.unwrap_or_else(|cause| {
            inner.to.broken(cause);
            Decoder::Over
        }));
    }

    fn begin_with_head(&mut self, inner: &mut Inner<'_>) {
        let head = self.head;
        let begun = head.get(..self.length).unwrap_or_default();
        self.begin(begun, inner);
        self.decode(begun, inner);
    }

    fn decode(&mut self, bytes: &[u8], inner: &mut Inner<'_>) {
        match &mut self.decoder {
            None => {}
            Some(Decoder::Identity) => inner.to.take(bytes),
            Some(Decoder::Over) => inner.to.undecoded(bytes),
            Some(decoder) => {
                if let Err(cause) = decoder.feed(bytes, &mut self.budget, inner) {
                    inner.to.broken(cause);
                    // It is unknown how many of these bytes were decoded, so all of them count as undecoded.
                    inner.to.undecoded(bytes);
                }
            }
        }
    }

    fn finish(&mut self, inner: &mut Inner<'_>) {
        if self.decoder.is_none() {
            self.begin_with_head(inner);
        }
        let outcome = self.decoder.as_mut().map(|decoder| decoder.finish(&self.budget));
        if let Some(Err(cause)) = outcome {
            inner.to.broken(cause);
        }
    }
}
