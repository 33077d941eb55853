//! Reading and editing requests: the corpus in `requests/`, worked examples, and hostile requests.
// Clippy recognises tests by their attribute, and so misses functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod compressed;
mod corpus;
mod doubt;
mod edits;
mod estimate;
mod exclusion;
mod generous;
mod held;
mod labels;
mod nasty;
mod properties;
mod scripts;
mod stream;

use llm::request::{self, Extent, RequestBody};
use serde_json::Value;

const CHAT: &str = "/v1/chat/completions";

fn read(path: &str, body: impl AsRef<[u8]>) -> RequestBody {
    request::read(path, "application/json", body.as_ref(), Extent::Whole)
}

fn chat(body: &Value) -> RequestBody {
    read(CHAT, body.to_string())
}

/// Returns the only difference between two texts: its position, the old text, and the new text.
fn difference<'a>(old: &'a [u8], new: &'a [u8]) -> (usize, &'a [u8], &'a [u8]) {
    let prefix = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[prefix..], &new[prefix..]);
    let suffix = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    (prefix, &old[..old.len() - suffix], &new[..new.len() - suffix])
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
