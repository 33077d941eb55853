//! A sort with a small code size. In Wasm, the standard library's sorts take five kilobytes for each type,
//! and so does collecting into its ordered maps. The lists that are sorted here are short, or are sorted only
//! once per plan.

use std::cmp::Ordering;

/// Sorts items by their natural order.
pub fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, T::cmp);
}

/// Sorts in O(n log n) steps. The sort is not stable.
pub fn sort_by<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    for root in (0..items.len() / 2).rev() {
        sift(items, root, items.len(), &compare);
    }
    for end in (1..items.len()).rev() {
        items.swap(0, end);
        sift(items, 0, end, &compare);
    }
}

/// Restores the heap below `root`, with the largest item at the top.
fn sift<T>(items: &mut [T], mut root: usize, end: usize, compare: &impl Fn(&T, &T) -> Ordering) {
    let less = |items: &[T], a: usize, b: usize| {
        let both = items.get(a).zip(items.get(b).filter(|_| b < end));
        both.is_some_and(|(a, b)| compare(a, b) == Ordering::Less)
    };
    loop {
        let left = root.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        let largest = if less(items, left, right) { right } else { left };
        if !less(items, root, largest) {
            return;
        }
        items.swap(root, largest);
        root = largest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn everything_comes_into_its_order(mut items in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut wanted = items.clone();
            wanted.sort_unstable();
            sort(&mut items);
            prop_assert_eq!(items, wanted);
        }
    }
}
