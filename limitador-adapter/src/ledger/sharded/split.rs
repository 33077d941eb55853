//! Assigns buckets to shards, and splits calls accordingly.

use super::ShardedLedger;
use super::shard::Shard;
use crate::ledger::Key;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// The items of a call that belong to one shard.
pub struct ShardPart<'a, S, T> {
    /// The number of the shard.
    pub index: usize,
    pub shard: &'a S,
    /// The positions of the items in the call.
    pub positions: Vec<usize>,
    pub items: Vec<T>,
}

impl<S: Shard> ShardedLedger<S> {
    /// Splits a call by shard. The order of items in the same shard stays.
    pub(super) fn split<T>(&self, items: Vec<T>, key: impl Fn(&T) -> &Key) -> Vec<ShardPart<'_, S, T>> {
        let numbered = items.into_iter().enumerate();
        let mut items: Vec<_> = numbered
            .map(|(position, item)| (shard_of(key(&item), self.shards.len()), position, item))
            .collect();
        items.sort_by_key(|(shard, ..)| *shard);
        let mut items = items.into_iter().peekable();
        let mut parts = Vec::new();
        for (index, shard) in self.shards.iter().enumerate() {
            let mut part = ShardPart { index, shard, positions: Vec::new(), items: Vec::new() };
            while let Some((_, position, item)) = items.next_if(|(of, ..)| *of == index) {
                part.positions.push(position);
                part.items.push(item);
            }
            if !part.items.is_empty() {
                parts.push(part);
            }
        }
        parts
    }
}

/// Puts the results of parts into the order of the call.
pub fn in_order<R>(parts: impl IntoIterator<Item = (Vec<usize>, Vec<R>)>) -> Vec<R> {
    let mut all: Vec<_> =
        parts.into_iter().flat_map(|(positions, results)| positions.into_iter().zip(results)).collect();
    all.sort_by_key(|(position, _)| *position);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Returns the number of the shard that stores a bucket. Counters are stored by it, so it must never change.
///
/// Buckets with the same counter values are in the same shard. So a request with several limits per user is
/// one call to one shard. Buckets without counters are spread by limit.
pub fn shard_of(key: &Key, shards: usize) -> usize {
    let mut hasher = SipHasher13::new();
    if key.counters.is_empty() {
        hasher.write(key.limit.as_bytes());
    }
    for (name, value) in key.counters.iter() {
        for text in [name, value] {
            hasher.write(text.as_bytes());
            // This byte is not in UTF-8, so it separates texts.
            hasher.write_u8(0xff);
        }
    }
    number(&hasher, shards)
}

/// Returns the number of the shard that stores what this text identifies.
pub fn shard_of_text(text: &str, shards: usize) -> usize {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    number(&hasher, shards)
}

fn number(hash: &SipHasher13, shards: usize) -> usize {
    let shards = u64::try_from(shards).unwrap_or(u64::MAX).max(1);
    usize::try_from(hash.finish() % shards).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::model::{Unit, Window};
    use std::time::Duration;

    fn key(limit: &str, unit: Unit, counters: &[(&str, &str)]) -> Key {
        let counters: Vec<_> = counters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let window = Window::Fixed(Duration::from_secs(60));
        Key { limit: limit.into(), unit, window, counters: counters.into() }
    }

    #[test]
    fn stored_counters_stay_in_their_shards() {
        let of = |key: &Key| shard_of(key, 24);
        assert_eq!(of(&key("default/llm/free", Unit::Tokens, &[("auth.identity.userid", "alice")])), ALICE);
        assert_eq!(of(&key("default/llm/all", Unit::Tokens, &[])), ALL);
    }

    /// As released.
    const ALICE: usize = 19;
    const ALL: usize = 7;

    #[test]
    fn limits_of_the_same_user_are_together_and_others_apart() {
        let alice: &[_] = &[("user", "alice")];
        let of = |key: Key| shard_of(&key, 24);
        assert_eq!(of(key("a", Unit::Tokens, alice)), of(key("b", Unit::Requests, alice)));
        let shards: std::collections::BTreeSet<_> =
            (0..200).map(|user| of(key("a", Unit::Tokens, &[("user", &user.to_string())]))).collect();
        assert_eq!(shards.len(), 24);
        let shards: std::collections::BTreeSet<_> =
            (0..200).map(|limit| of(key(&limit.to_string(), Unit::Tokens, &[]))).collect();
        assert_eq!(shards.len(), 24);
        // The border between two texts matters.
        let of_many = |key: Key| shard_of(&key, 1 << 30);
        let one = of_many(key("a", Unit::Tokens, &[("ab", "c")]));
        assert_ne!(one, of_many(key("a", Unit::Tokens, &[("a", "bc")])));
    }

    #[test]
    fn results_are_in_the_order_of_the_call() {
        let parts = [(vec![1, 3], vec!["b", "d"]), (vec![0, 2], vec!["a", "c"])];
        assert_eq!(in_order(parts), ["a", "b", "c", "d"]);
    }
}
