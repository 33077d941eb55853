//! The names of the keys in Redis. All keys of a shard have the same hash tag, so a cluster keeps them in one
//! slot. This is necessary because one function accesses all limits of a request in the shard.
//!
//! The key of a bucket is, for example, `{weir}:b:` and the text of the bucket's key.

use crate::digest::sha256;
use crate::ledger::Key;
use crate::ledger::{calendar, key_text};
use policy::model::Window;
use std::time::Duration;

/// The hash tags of a cluster's shards. Their slots divide the slot space evenly, so each node of a cluster
/// whose nodes have equal ranges of slots has equally many shards. Counters are stored under these tags, so
/// they must never change.
pub const SHARD_TAGS: [&str; 24] = [
    "weir00tz", "weir01th", "weir02la", "weir03kk", "weir04ju", "weir05is", "weir06ku", "weir07hs",
    "weir08ot", "weir09xg", "weir10sh", "weir11pn", "weir12sp", "weir13pv", "weir14qh", "weir15yc",
    "weir16aj", "weir17ny", "weir18pe", "weir19sc", "weir20sc", "weir21ti", "weir22ca", "weir23cs",
];

/// The keys of one shard, or of a Redis that is not sharded.
#[derive(Clone)]
pub struct KeyNames {
    /// The installation's prefix, the hash tag in braces, and a colon.
    prefix: String,
}

/// The hash tag if there are no shards.
pub const ONLY_TAG: &str = "weir";

impl KeyNames {
    /// Returns the names of a shard. `prefix` separates installations that share a server. It is outside of the
    /// hash tag, so it does not change the slot.
    pub fn new(prefix: &str, tag: &str) -> Self {
        Self { prefix: format!("{prefix}{{{tag}}}:") }
    }

    /// Returns the key of a record that exists once.
    pub fn own(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn bucket(&self, key: &Key) -> String {
        format!("{}b:{}", self.prefix, key_text::of(key))
    }

    pub fn reservation(&self, id: &str) -> String {
        format!("{}r:{id}", self.prefix)
    }

    /// Returns the key of the sorted set of workers. Their scores are the times when they count as gone.
    pub fn workers(&self) -> String {
        self.own("workers")
    }

    /// Returns the key of the record of an operator's changes to a bucket.
    pub fn amendment(&self, bucket: &str) -> String {
        format!("{}a:{bucket}", self.prefix)
    }

    /// Returns the key of the record of a grant's id. Hashing the id makes it short.
    pub fn grant(&self, key: &Key, id: &str) -> String {
        format!("{}g:{}", self.prefix, sha256(format!("{}\n{id}", self.bucket(key))))
    }
}

/// Parses the key of a bucket. Returns `None` if it is not one.
pub fn key(name: &str) -> Option<Key> {
    let (_, text) = name.split_once("}:b:")?;
    key_text::parse(text)
}

/// Returns the keys of a sliding bucket's newest slot and of its other slots, and the length of its window.
pub fn slots(name: &str) -> Option<([String; 2], Duration)> {
    match key(name)?.window {
        Window::Sliding(length) => Some(([":s:", ":o:"].map(|kind| name.replacen(":b:", kind, 1)), length)),
        Window::Fixed(_) | Window::Period(..) | Window::Now => None,
    }
}

/// Formats a window as an argument of a function. A calendar period includes the bounds of the period that contains
/// the server's time.
pub fn window_at(of: &Window, server: Duration) -> String {
    let name = key_text::window(of);
    match of {
        Window::Period(period, zone) => {
            let around = calendar::around(*period, zone, server);
            format!("{name} {} {}", around.start.as_millis(), around.end.as_millis())
        }
        Window::Fixed(_) | Window::Sliding(_) | Window::Now => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::model::Unit;
    use std::sync::Arc;

    #[test]
    fn a_name_is_its_key() {
        let counters = Arc::from([("a".to_owned(), "\"},[{weir}:b:".to_owned())]);
        let window = Window::Fixed(Duration::from_millis(1500));
        let bucket = Key { limit: "default/llm/free".into(), unit: Unit::Usd, window, counters };
        for names in [KeyNames::new("", ONLY_TAG), KeyNames::new("staging:", SHARD_TAGS[23])] {
            assert_eq!(key(&names.bucket(&bucket)).as_ref(), Some(&bucket));
        }
        assert_eq!(key("{weir}:b:[]"), None);
        assert_eq!(key("another"), None);
    }

    /// Computes CRC-16/XMODEM, as Redis does for slots.
    fn slot(tag: &str) -> usize {
        let shift = |sum: u16, _| if sum & 0x8000 > 0 { sum << 1 ^ 0x1021 } else { sum << 1 };
        let sum = tag.bytes().fold(0, |sum, byte| (0..8).fold(sum ^ u16::from(byte) << 8, shift));
        usize::from(sum) % 16384
    }

    #[test]
    fn the_shards_divide_the_slots_evenly() {
        assert_eq!(slot("123456789"), 0x31c3, "the algorithm's check value");
        for masters in [1, 2, 3, 4, 6, 8, 12, 24] {
            let mut shards = vec![0; masters];
            // As Redis divides the slots.
            SHARD_TAGS.iter().for_each(|tag| shards[slot(tag) * masters / 16384] += 1);
            assert_eq!(shards, vec![24 / masters; masters]);
        }
    }
}
