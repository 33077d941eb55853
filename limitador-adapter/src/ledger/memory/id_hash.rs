//! Hashes the names that callers choose. The hash is keyed, so that no caller can make two names collide. A
//! recorded state keeps the keys, and the algorithm does not depend on the standard library's version.

use siphasher::sip::SipHasher13;
use std::hash::{BuildHasher, Hasher, RandomState};

/// The keys of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdHash(pub [u64; 2]);

impl IdHash {
    /// Returns random keys.
    pub fn random() -> Self {
        Self([0, 1].map(|part: u64| RandomState::new().hash_one(part)))
    }

    /// Returns the hash of a name of several parts.
    pub fn of(self, parts: &[&str]) -> u64 {
        let Self([first, second]) = self;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        for part in parts {
            hasher.write(part.as_bytes());
            // No text contains this byte, so the parts of two names differ if the names do.
            hasher.write(&[0xff]);
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_same_in_every_process() {
        let hash = IdHash([1, 2]);
        assert_eq!(hash.of(&["a", "b"]), hash.of(&["a", "b"]));
        assert_ne!(hash.of(&["a", "b"]), hash.of(&["ab"]));
        assert_ne!(hash.of(&["a"]), IdHash([1, 3]).of(&["a"]));
        assert_ne!(IdHash::random(), IdHash::random());
    }
}
