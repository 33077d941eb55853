//! The replies of the scripts, and the records of buckets.

use super::{MAX_AMOUNT, key_name};
use crate::ledger::{CounterReading, Status, Unavailable};
use std::sync::Arc;
use std::time::Duration;

/// The reply of a script: integers.
pub struct ScriptReply(pub std::vec::IntoIter<i64>);

impl ScriptReply {
    /// Returns whether the server is in a different calendar period than the caller assumed. If so, its time
    /// is the next number.
    pub fn is_elsewhere(&mut self) -> bool {
        self.0.as_slice().first() == Some(&-1) && self.0.next().is_some()
    }

    pub fn next(&mut self) -> Result<u64, Unavailable> {
        let number = self.0.next().and_then(|number| u64::try_from(number).ok());
        number.ok_or_else(|| Unavailable::Storage("unexpected reply from a Weir script".to_owned()))
    }

    pub fn size(&mut self) -> Result<usize, Unavailable> {
        Ok(usize::try_from(self.next()?).unwrap_or(usize::MAX))
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
            Ok(Status { limited, excused, max, remaining, reset, used, overflowed })
        };
        buckets.map(status).collect()
    }
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
    amended: &str,
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
        granted,
        reset,
    })
}
