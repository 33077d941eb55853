//! The replies of the functions, and the records of buckets.

use super::{MAX_AMOUNT, key_name};
use crate::ledger::crossing::Crossing;
use crate::ledger::sharded::shard::ShardSet;
use crate::ledger::stored::{CreationCharge, SeenCharges};
use crate::ledger::{CounterReading, Key, Status, Unavailable};
use policy::model::Threshold;
use std::sync::Arc;
use std::time::Duration;

/// The reply of a function: integers.
pub struct FunctionReply(pub std::vec::IntoIter<i64>);

impl FunctionReply {
    /// Returns whether the server is in a different calendar period than the caller assumed. If so, its time
    /// is the next number.
    pub fn is_elsewhere(&mut self) -> bool {
        self.0.as_slice().first() == Some(&-1) && self.0.next().is_some()
    }

    pub fn next(&mut self) -> Result<u64, Unavailable> {
        let number = self.0.next().and_then(|number| u64::try_from(number).ok());
        number.ok_or_else(unexpected)
    }

    pub fn size(&mut self) -> Result<usize, Unavailable> {
        Ok(usize::try_from(self.next()?).unwrap_or(usize::MAX))
    }

    /// Parses a set of shards.
    pub fn shards(&mut self) -> Result<ShardSet, Unavailable> {
        u32::try_from(self.next()?).map(ShardSet::of_bits).map_err(|_| unexpected())
    }

    /// Parses the status of each bucket. `buckets` contains each bucket's maximum, and whether it refuses
    /// calls when it is full.
    pub fn statuses(
        &mut self,
        buckets: impl Iterator<Item = (u64, bool)>,
    ) -> Result<Vec<Status>, Unavailable> {
        let status = |(max, enforced)| {
            let full = self.next()? > 0;
            let (limited, excused) = (full && enforced, full && !enforced);
            let (remaining, reset) = (self.next()?, Duration::from_millis(self.next()?));
            let (used, overflowed) = (self.next()?, self.next()? > 0);
            let max = u64::saturating_add(max, self.next()?);
            let leased = self.next()?;
            Ok(Status { limited, excused, max, remaining, reset, used, overflowed, leased })
        };
        buckets.map(status).collect()
    }

    /// Parses the amount that an earlier read has charged for each deferred charge.
    pub fn deferred<'a>(
        &mut self,
        charges: impl Iterator<Item = &'a CreationCharge>,
    ) -> Result<SeenCharges, Unavailable> {
        let charged = charges.map(|one| Ok((Arc::clone(&one.charge.key), self.next()?)));
        charged.filter(|one| one.as_ref().map_or(true, |(_, more)| *more > 0)).collect()
    }

    /// Parses the thresholds that charges have reached, which are the rest of the reply.
    pub fn crossings<'a>(
        &mut self,
        buckets: impl Iterator<Item = &'a Arc<Key>> + Clone,
    ) -> Result<Vec<Crossing>, Unavailable> {
        let mut crossings = Vec::new();
        while !self.0.as_slice().is_empty() {
            let place = self.size()?.checked_sub(1);
            let key = place.and_then(|place| buckets.clone().nth(place)).ok_or_else(unexpected)?;
            let key = Arc::clone(key);
            let numbers = [self.next()?, self.next()?, self.next()?, self.next()?, self.next()?];
            crossings.push(crossing(key, numbers).ok_or_else(unexpected)?);
        }
        Ok(crossings)
    }
}

/// Returns a crossing of this bucket: whether its overflow bucket was charged, the percentage, the maximum,
/// the charged amount, and ms until the window ends. `None` if there is no such threshold.
pub fn crossing(key: Arc<Key>, numbers: [u64; 5]) -> Option<Crossing> {
    let [overflows, percent, max, used, reset] = numbers;
    let key = if overflows > 0 { Arc::new(key.overflow()) } else { key };
    let threshold = Threshold::of_percent(percent)?;
    Some(Crossing { key, threshold, max, used, reset: Duration::from_millis(reset) })
}

fn unexpected() -> Unavailable {
    Unavailable::failed("unexpected reply from a Weir function")
}

/// Returns the sum of the slots that still count.
pub fn slots_used(record: &str, length: Duration, now: Duration) -> u64 {
    let slots = record.split(';').filter_map(|slot| {
        let mut numbers = slot.split(' ').map(str::parse::<u64>);
        let mut number = || numbers.next()?.ok();
        let last = Duration::from_millis(number()?.saturating_add(number()?));
        (last.saturating_add(length) > now).then(number).flatten()
    });
    slots.fold(0, u64::saturating_add).min(MAX_AMOUNT)
}

/// Parses the records of a bucket. Returns `None` if the bucket has expired. `sliding` is the usage that
/// still counts in a sliding window.
pub fn reading(
    name: &str,
    record: &str,
    sliding: Option<u64>,
    (amended, leased): (&str, u64),
    now: Duration,
) -> Option<CounterReading> {
    let mut numbers = record.split(' ').map(str::parse::<u64>);
    let mut number = || numbers.next()?.ok();
    let (used, end, held) = (number()?, Duration::from_millis(number()?), number()?);
    let used = sliding.unwrap_or(used);
    let (used, reset) = if end > now { (used, Some(end - now)) } else { (0, None) };
    let mut amended = amended.split(' ').skip(1).map(|number| number.parse().unwrap_or_default());
    let granted = amended.next().unwrap_or_default();
    let is_of_this_window = reset.is_some() && amended.next().map(Duration::from_millis) == Some(end);
    let granted = if is_of_this_window { granted } else { 0 };
    (used > 0 || held > 0 || granted > 0).then_some(CounterReading {
        key: Arc::new(key_name::key(name)?),
        used,
        held,
        leased: leased.min(held),
        granted,
        reset,
    })
}
