//! Finds the buckets that this worker uses often.

use policy::plan::Hold;
use protocol::call::Entries;

/// The number of requests for a bucket in one period that make it busy.
const OFTEN: u32 = 16;
/// The number of buckets that are counted at once, in pairs of places. A bucket has the choice of the two places of a
/// pair, and replaces the one that was seen less often. So a bucket may get its lease later, or not at all, if at least
/// two others of its pair are busy.
const PLACES: usize = 512;

/// The requests of one period that had to ask the adapter, by bucket. The period ends with [`Sightings::clear`].
#[derive(Debug, Default)]
pub struct Sightings {
    /// Empty until a bucket is seen.
    places: Vec<BucketSighting>,
    is_any: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct BucketSighting {
    hash: u64,
    requests: u32,
    amount: u64,
}

impl Sightings {
    /// Whether a bucket was seen in this period.
    pub fn is_any(&self) -> bool {
        self.is_any
    }

    pub fn clear(&mut self) {
        self.places = Vec::new();
        self.is_any = false;
    }

    /// Counts a request. Returns the amount that this period's requests have taken from each bucket, if all of them are
    /// busy: a lease is of use only if the request then needs no other bucket.
    pub fn count(&mut self, holds: &[Hold]) -> Option<Vec<u64>> {
        self.is_any = true;
        self.places.resize(PLACES, BucketSighting::default());
        let mut are_busy = true;
        let mut amounts = Vec::with_capacity(holds.len());
        for hold in holds {
            let hash = hash(&hold.entries);
            let first = usize::try_from(hash % PLACES as u64).unwrap_or_default() & !1;
            let pair = self.places.get_mut(first..=first.saturating_add(1))?;
            let sighting = pair.iter_mut().min_by_key(|one| (one.hash != hash, one.requests))?;
            if sighting.hash != hash {
                *sighting = BucketSighting { hash, ..BucketSighting::default() };
            }
            sighting.requests = sighting.requests.saturating_add(1);
            sighting.amount = sighting.amount.saturating_add(hold.amount);
            are_busy &= sighting.requests >= OFTEN;
            amounts.push(sighting.amount);
        }
        are_busy.then_some(amounts)
    }
}

/// A fast hash. Clients choose counter values, so they can make two buckets share a place, but that only costs them
/// their own leases.
fn hash(entries: &Entries) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = entries.bytes().as_chunks::<8>();
    let mixed = |hash: u64, word: u64| (hash ^ word).wrapping_mul(MULTIPLIER).rotate_left(29);
    let hash = words.iter().fold(rest.len() as u64, |hash, word| mixed(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |hash, byte| mixed(hash, u64::from(*byte))) | 1
}
