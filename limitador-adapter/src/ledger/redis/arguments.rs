//! The arguments of the functions, as they parse them.

use super::MAX_AMOUNT;
use crate::ledger::calendar;
use crate::ledger::crossing::WarnAt;
use crate::ledger::sharded::shard::Attempt;
use crate::ledger::stored::{DeferredCharge, StoredId, StoredResult};
use crate::ledger::{Charge, ChargeAt, Hold, LeasePart, LeaseUse};
use policy::model::{Tariff, UsageCost, Window};
use std::time::Duration;

/// Returns the id of a result's record among reservations.
pub fn stored(id: &StoredId) -> String {
    format!("stored:{}", id.as_str())
}

/// Formats the numbers as the functions parse them.
pub fn numbers(numbers: impl IntoIterator<Item = u64>) -> String {
    let texts: Vec<String> = numbers.into_iter().map(amount).collect();
    texts.join(" ")
}

/// Returns the amount to charge now and the cost, in the order that the functions expect.
fn deferred_numbers(deferred: &DeferredCharge) -> [u64; 8] {
    let UsageCost { base, tariff, reasoning } = deferred.cost;
    let Tariff { input, cached, cache_write, cache_write_1h, output } = tariff;
    [deferred.now, base, input, cached, cache_write, cache_write_1h, output, reasoning]
}

/// Formats an attempt to reserve in several shards.
pub fn numbers_of_attempt(attempt: &Attempt) -> String {
    // The functions compare this number as text.
    format!("{} {}", attempt.shards.bits(), attempt.number)
}

/// Joins the terms of a bucket. Many calls have the same terms, and the functions parse them once for a batch.
pub fn terms<const N: usize>(terms: [String; N]) -> String {
    terms.join(";")
}

/// Formats the thresholds of a bucket: the maximum and the percentages.
pub fn warn_rule(rule: &Option<WarnAt>) -> String {
    let Some(WarnAt { max, thresholds }) = rule else { return String::new() };
    let percents = thresholds.iter().map(|threshold| u64::from(threshold.percent()));
    numbers([*max].into_iter().chain(percents))
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

/// Formats the amount of a hold, and how it relates to leases.
pub fn held(hold: &Hold) -> String {
    let of = amount(hold.amount.max(1));
    match &hold.lease {
        LeaseUse::None => of,
        LeaseUse::Lease => format!("{of};lease"),
        LeaseUse::Draw(part) => format!("{of};{}", lease_part(part)),
    }
}

/// Formats the amount of a charge, what is deferred, and what leaves a lease.
pub fn charged(charge: &Charge, deferred: Option<DeferredCharge>) -> String {
    let of = amount(charge.amount);
    if deferred.is_none() && charge.draw.is_none() {
        return of;
    }
    let deferred = deferred.map(|deferred| numbers(deferred_numbers(&deferred))).unwrap_or_default();
    let draw = charge.draw.as_ref().map(lease_part).unwrap_or_default();
    format!("{of};{deferred};{draw}")
}

fn lease_part(part: &LeasePart) -> String {
    format!("{} {}", amount(part.amount), part.lease)
}

/// Formats the result that a reservation created.
pub fn created(result: Option<&StoredResult>) -> String {
    result.map(|result| format!("{} {}", amount(result.input), stored(&result.id))).unwrap_or_default()
}

pub fn flag(flag: bool) -> String {
    if flag { "1" } else { "0" }.to_owned()
}

pub fn amount(amount: u64) -> String {
    amount.min(MAX_AMOUNT).to_string()
}
