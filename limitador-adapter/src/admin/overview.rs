//! The state of all buckets at a glance: numbers per rate, and the buckets that are closest to their maximum.

use super::http::CounterView;
use crate::ledger::moment::Moment;
use crate::ledger::{CounterReading, Key};
use crate::policies::snapshot::{KnownLimit, KnownRate, PolicySnapshot};
use crate::refusals::{CauseCounts, RateKey, RefusedLately};
use jiff::Timestamp;
use policy::model::{Unit, Window};
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// The number of buckets in `closest`.
const CLOSEST: usize = 10;

/// From this share of its maximum on, a bucket is close to its limit.
const CLOSE: u64 = 80 * PERCENT;

/// The number of units of a share in one percent. Shares are integers, so that they have an order.
pub(super) const PERCENT: u64 = 10_000;

/// The answer of `/api/overview`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Overview<'a> {
    /// The adapter's version.
    version: &'static str,
    /// When the numbers were read.
    time: Option<String>,
    /// Whether counters can be reset and raised, which needs a configured token.
    can_change: bool,
    policies: PolicyCounts,
    /// The number of buckets.
    buckets: usize,
    /// The number of buckets with at least 80 % of their maximum, without those in `full`.
    close: usize,
    /// The number of buckets without room.
    full: usize,
    /// The number of calls that were refused during the last hour.
    refused: RefusalsView,
    /// The rates in force, and other rates that still have buckets.
    rates: Vec<RateOverview<'a>>,
    /// The buckets with the largest shares of their maximum.
    closest: Vec<CounterView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyCounts {
    in_force: usize,
    /// The number of policies and files with errors.
    invalid: usize,
    /// The number of policies with warnings.
    warned: usize,
}

/// One rate, and the sums over its buckets.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RateOverview<'a> {
    #[serde(flatten)]
    rate: RateView,
    /// Omitted if each request has its own (`limitFrom`).
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    /// `Soft` if the limit never refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    boundary: Option<&'static str>,
    in_force: bool,
    /// The expressions of its counters.
    counters: Vec<&'a str>,
    #[serde(flatten)]
    sums: RateSums,
    /// The number of calls that it refused during the last hour.
    refused: RefusalsView,
}

#[derive(Clone, Copy, Default, Serialize)]
struct RateSums {
    buckets: usize,
    close: usize,
    full: usize,
    used: u64,
    held: u64,
}

/// The name of a rate, as in `/api/counters`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RateView {
    policy: String,
    limit: String,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
}

/// The name of a bucket, as in `/api/counters`.
#[derive(Serialize)]
pub(super) struct BucketNameView {
    #[serde(flatten)]
    rate: RateView,
    /// Empty for an overflow bucket.
    counters: BTreeMap<String, String>,
    /// Omitted if false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    overflow: bool,
}

/// The number of refusals by cause.
#[derive(Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefusalsView {
    used_up: u64,
    in_flight: u64,
    too_large: u64,
}

impl From<CauseCounts> for RefusalsView {
    fn from(CauseCounts { in_flight, used_up, too_large }: CauseCounts) -> Self {
        Self { used_up, in_flight, too_large }
    }
}

impl RateView {
    pub(super) fn new((policy, limit): (&str, &str), unit: Unit, window: &Window) -> Self {
        let (period, zone) = match window {
            Window::Period(period, zone) => (Some(period.name()), Some(zone).filter(|zone| !zone.is_utc())),
            Window::Fixed(_) | Window::Sliding(_) | Window::Now => (None, None),
        };
        let is_length = matches!(window, Window::Fixed(_) | Window::Sliding(_));
        Self {
            policy: policy.to_owned(),
            limit: limit.to_owned(),
            unit: unit.name(),
            window: is_length.then(|| window.to_string()),
            period,
            time_zone: zone.map(|zone| zone.name().to_owned()),
        }
    }
}

impl BucketNameView {
    pub(super) fn new(key: &Key, in_force: &PolicySnapshot) -> Self {
        let overflow = key.is_overflow();
        Self {
            rate: RateView::new(in_force.names_of(key), key.unit, &key.window),
            counters: key.counters.iter().filter(|_| !overflow).cloned().collect(),
            overflow,
        }
    }
}

/// Returns the share of its maximum that a bucket uses and holds, in units of [`PERCENT`]. `None` if its maximum
/// is unknown.
pub(super) fn share(reading: &CounterReading, max: Option<u64>) -> Option<u64> {
    let max = u128::from(max?.saturating_add(reading.granted));
    let taken = u128::from(reading.used.saturating_add(reading.held));
    let share = taken.saturating_mul(u128::from(100 * PERCENT)).checked_div(max);
    Some(share.map_or(100 * PERCENT, |share| u64::try_from(share).unwrap_or(u64::MAX)))
}

/// What is needed besides the readings.
pub(super) struct OverviewInput<'a> {
    pub(super) in_force: &'a PolicySnapshot,
    pub(super) refused: RefusedLately,
    pub(super) can_change: bool,
    /// Since when the storage has been counting.
    pub(super) since: Option<Duration>,
    pub(super) now: Moment,
}

impl<'a> Overview<'a> {
    pub(super) fn new(readings: &[CounterReading], input: OverviewInput<'a>) -> Self {
        let OverviewInput { in_force, refused, can_change, since, now } = input;
        let mut rates: HashMap<RateName<'_>, RateSums> = HashMap::new();
        let mut shares = Vec::with_capacity(readings.len());
        for reading in readings {
            let share = share(reading, in_force.maximum(&reading.key));
            let sums = rates.entry(RateName::of(&reading.key)).or_default();
            sums.add(reading, share);
            shares.push((share, reading));
        }
        let by_rate: HashMap<RateName<'_>, CauseCounts> =
            refused.rates.iter().map(|(rate, counts)| (RateName::from(rate), *counts)).collect();
        let total = |count: fn(&RateSums) -> usize| rates.values().map(count).sum();
        let calls = refused.minutes.iter().fold(CauseCounts::default(), |sum, (_, counts)| sum.plus(*counts));
        let counters = in_force.counters_by_limit();
        let all = all_rates(in_force, &rates);
        let rate = |name: &RateName<'_>, known: Option<(&KnownLimit, &KnownRate)>| RateOverview {
            rate: name.view(in_force, known.map(|(limit, _)| limit)),
            max: known.and_then(|(_, rate)| rate.max),
            boundary: known.filter(|(limit, _)| limit.is_soft).map(|_| "Soft"),
            in_force: known.is_some(),
            counters: known.and_then(|(limit, _)| counters.get(&*limit.key).cloned()).unwrap_or_default(),
            sums: rates.get(name).copied().unwrap_or_default(),
            refused: by_rate.get(name).copied().unwrap_or_default().into(),
        };
        let mut overviews: Vec<_> = all.iter().map(|(name, known)| rate(name, *known)).collect();
        overviews.sort_by(|a, b| a.rate.cmp(&b.rate));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            time: rfc3339(now.unix),
            can_change,
            policies: PolicyCounts {
                in_force: in_force.len(),
                invalid: in_force.invalid(),
                warned: in_force.entries.iter().filter(|entry| !entry.warnings.is_empty()).count(),
            },
            buckets: readings.len(),
            close: total(|sums| sums.close),
            full: total(|sums| sums.full),
            refused: calls.into(),
            rates: overviews,
            closest: closest(shares).map(|reading| CounterView::new(reading, in_force, since, now)).collect(),
        }
    }
}

/// Returns the readings with the largest shares.
fn closest(mut shares: Vec<(Option<u64>, &CounterReading)>) -> impl Iterator<Item = &CounterReading> {
    shares.retain(|(share, _)| share.is_some_and(|share| share > 0));
    top(&mut shares, CLOSEST, |(a, x), (b, y)| b.cmp(a).then_with(|| x.key.cmp(&y.key)));
    shares.into_iter().map(|(_, reading)| reading)
}

/// Keeps the first `count` elements in this order, sorted.
pub(super) fn top<T>(all: &mut Vec<T>, count: usize, order: impl Fn(&T, &T) -> Ordering) {
    if count < all.len() {
        all.select_nth_unstable_by(count, &order);
        all.truncate(count);
    }
    all.sort_unstable_by(order);
}

/// Returns the rates in force and those that have buckets.
fn all_rates<'a>(
    in_force: &'a PolicySnapshot,
    rates: &HashMap<RateName<'a>, RateSums>,
) -> Vec<(RateName<'a>, Option<(&'a KnownLimit, &'a KnownRate)>)> {
    let known: Vec<_> = in_force
        .limits()
        .flat_map(|limit| limit.rates.iter().map(move |rate| (RateName::known(limit, rate), limit, rate)))
        .collect();
    let names: HashSet<_> = known.iter().map(|(name, ..)| *name).collect();
    let gone = rates.keys().filter(|name| !names.contains(*name)).map(|name| (*name, None));
    known.iter().map(|(name, limit, rate)| (*name, Some((*limit, *rate)))).chain(gone).collect()
}

impl RateSums {
    fn add(&mut self, reading: &CounterReading, share: Option<u64>) {
        self.buckets = self.buckets.saturating_add(1);
        self.used = self.used.saturating_add(reading.used);
        self.held = self.held.saturating_add(reading.held);
        let kind = match share {
            Some(share) if share >= 100 * PERCENT => &mut self.full,
            Some(share) if share >= CLOSE => &mut self.close,
            Some(_) | None => return,
        };
        *kind = kind.saturating_add(1);
    }
}

/// A [`RateKey`] without allocations.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RateName<'a> {
    limit: &'a str,
    unit: Unit,
    window: &'a Window,
}

impl<'a> RateName<'a> {
    fn of(key: &'a Key) -> Self {
        Self { limit: &key.limit, unit: key.unit, window: &key.window }
    }

    fn known(limit: &'a KnownLimit, rate: &'a KnownRate) -> Self {
        Self { limit: &limit.counted_as, unit: rate.unit, window: &rate.window }
    }

    /// Returns the name to show. Limits that share their counters have different names.
    pub(super) fn view(&self, in_force: &PolicySnapshot, limit: Option<&KnownLimit>) -> RateView {
        let names = match limit {
            Some(limit) => (&*limit.policy, limit.name.as_str()),
            None => in_force.names_of_counters(self.limit),
        };
        RateView::new(names, self.unit, self.window)
    }
}

impl<'a> From<&'a RateKey> for RateName<'a> {
    fn from(rate: &'a RateKey) -> Self {
        Self { limit: &rate.limit, unit: rate.unit, window: &rate.window }
    }
}

/// Formats a time since 1970 in whole seconds.
pub(super) fn rfc3339(unix: Duration) -> Option<String> {
    let seconds = i64::try_from(unix.as_secs()).ok()?;
    Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}
