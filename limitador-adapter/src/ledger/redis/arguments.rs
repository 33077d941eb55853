//! The keys and arguments of the scripts, as they parse them.

use super::{MAX_AMOUNT, key_name};
use crate::ledger::calendar;
use crate::ledger::crossing::WarnAt;
use crate::ledger::stored::{DeferredCharge, StoredId};
use crate::ledger::{ChargeAt, Hold, Key};
use policy::model::{Tariff, UsageCost, Window};
use sha2::{Digest, Sha256};
use std::time::Duration;

pub fn reservation(id: &str) -> String {
    format!("{}r:{id}", key_name::PREFIX)
}

/// Returns the id of a result's record among reservations.
pub fn stored(id: &StoredId) -> String {
    format!("stored:{}", id.as_str())
}

/// Formats the numbers as the scripts parse them.
pub fn numbers(numbers: impl IntoIterator<Item = u64>) -> String {
    let texts: Vec<String> = numbers.into_iter().map(amount).collect();
    texts.join(" ")
}

/// Returns the amount to charge now and the cost, in the order that the scripts expect.
pub fn deferred_numbers(deferred: &DeferredCharge) -> [u64; 8] {
    let UsageCost { base, tariff, reasoning } = deferred.cost;
    let Tariff { input, cached, cache_write, cache_write_1h, output } = tariff;
    [deferred.now, base, input, cached, cache_write, cache_write_1h, output, reasoning]
}

/// Formats the thresholds of buckets. `first` is the position of the first bucket in KEYS.
pub fn warn_rules<'a>(first: usize, rules: impl Iterator<Item = &'a Option<WarnAt>>) -> String {
    let mut text = String::new();
    for (position, rule) in (first..).zip(rules) {
        let Some(WarnAt { max, thresholds }) = rule else { continue };
        let percents = thresholds.iter().map(|threshold| u64::from(threshold.percent()));
        let numbers = numbers([*max].into_iter().chain(percents));
        text.extend([&position.to_string(), " ", &numbers, ";"]);
    }
    text
}

/// Formats when a hold is charged. A hold that is charged when it lapses includes the ends of the calendar
/// periods in which that may happen: the current one, the next one, and the one in which it expires.
pub fn charge_at(hold: &Hold, server: Duration) -> String {
    match hold.charge_at {
        ChargeAt::Admission => "admission".to_owned(),
        ChargeAt::Commit => "commit".to_owned(),
        ChargeAt::CommitOrLapse => {
            let Window::Period(period, zone) = &hold.key.window else { return "lapse".to_owned() };
            let end = |time| calendar::around(*period, zone, time);
            let (now, last) = (end(server).end, end(server.saturating_add(hold.ttl)));
            let mut ends = vec![now, end(now).end, last.start, last.end];
            ends.sort_unstable();
            ends.dedup();
            let ends = ends.iter().filter(|end| **end > server).map(|end| end.as_millis().to_string());
            format!("lapse {}", ends.collect::<Vec<_>>().join(" "))
        }
    }
}

/// Returns the key of the sorted set of workers. Their scores are the times when they count as gone.
pub fn workers_key() -> String {
    format!("{}workers", key_name::PREFIX)
}

pub fn flag(flag: bool) -> String {
    if flag { "1" } else { "0" }.to_owned()
}

pub fn amount(amount: u64) -> String {
    amount.min(MAX_AMOUNT).to_string()
}

/// Returns the key of the record of an operator's changes to a bucket.
pub fn amendment(name: &str) -> String {
    format!("{}a:{name}", key_name::PREFIX)
}

/// Returns the key of the record of a grant's id. Hashing the id makes it short.
pub fn grant_record(key: &Key, id: &str) -> String {
    let digest = Sha256::digest(format!("{}\n{id}", key_name::of(key)));
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}g:{digest}", key_name::PREFIX)
}
