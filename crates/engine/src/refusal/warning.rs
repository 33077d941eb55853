//! The header that shows which limits of a request have reached a threshold of their `warnAt`.

use super::{MAX_LISTED, RateStatus};
use expression::small_sort;
use policy::model::{QuotaHeaders, Threshold};
use policy::plan::PlannedRate;
use std::borrow::Cow;

const WARNING: &str = "x-ratelimit-warning";

/// Returns the header, for example `x-ratelimit-warning: team;at=95%, free;at=80%`. It has each limit once,
/// with the highest threshold that one of its rates has reached. `None` if no limit has reached one.
pub(crate) fn header(standings: &[RateStatus<'_>]) -> Option<(Cow<'static, str>, String)> {
    let mut reached: Vec<(&PlannedRate, Threshold)> = Vec::new();
    for standing in standings {
        let Some(threshold) = reached_threshold(standing) else { continue };
        let rate = &*standing.hold.rate;
        match reached.last_mut() {
            // The rates and buckets of one limit are adjacent.
            Some((last, highest)) if (&last.policy, &last.limit) == (&rate.policy, &rate.limit) => {
                *highest = threshold.max(*highest);
            }
            _ => reached.push((rate, threshold)),
        }
    }
    small_sort::sort_by(&mut reached, |(a, at_a), (b, at_b)| {
        at_b.cmp(at_a).then_with(|| (&a.limit, &a.policy).cmp(&(&b.limit, &b.policy)))
    });
    let members = reached.iter().take(MAX_LISTED).map(|(rate, at)| format!("{};at={at}", rate.limit));
    let members: Vec<String> = members.collect();
    (!members.is_empty()).then(|| (WARNING.into(), members.join(", ")))
}

/// Returns the highest threshold that a rate has reached, if clients may know it. Clients are not shown dry
/// runs, nor policies that hide their quotas.
fn reached_threshold(standing: &RateStatus<'_>) -> Option<Threshold> {
    let (hold, rate) = (standing.hold, &standing.hold.rate);
    // Most limits have no thresholds.
    let mut thresholds = rate.warn_at.iter().rev().peekable();
    thresholds.peek()?;
    let status = standing.status?;
    let used = status.used?;
    let is_shown = hold.enforced || hold.signal.is_some();
    let is_hidden = rate.on_exceeded.as_ref().is_some_and(|own| own.quota_headers == QuotaHeaders::None);
    let highest = thresholds.find(|threshold| threshold.is_reached(used, status.limit));
    highest.copied().filter(|_| is_shown && !is_hidden)
}
