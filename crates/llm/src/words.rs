//! Compares names eight bytes at a time. In Wasm, comparing slices reads single bytes.

/// Returns whether both names are equal.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    for (word, other) in words.iter().zip(other_words) {
        if u64::from_le_bytes(*word) != u64::from_le_bytes(*other) {
            return false;
        }
    }
    match (one.last_chunk::<8>(), other.last_chunk::<8>()) {
        // The last eight bytes may overlap those that were compared before.
        (Some(last), Some(other)) => u64::from_le_bytes(*last) == u64::from_le_bytes(*other),
        _ => rest.iter().zip(other_rest).all(|(byte, other)| byte == other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_byte_makes_a_difference() {
        for length in 0..40 {
            let bytes = vec![b'x'; length];
            assert!(is_same(&bytes, &bytes.clone()));
            assert!(!is_same(&bytes, &[&bytes[..], b"x"].concat()));
            for at in 0..length {
                let mut other = bytes.clone();
                other[at] = b'y';
                assert!(!is_same(&bytes, &other), "{at} of {length}");
            }
        }
    }
}
