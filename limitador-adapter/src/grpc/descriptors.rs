//! Resolves descriptors to rates in force and their buckets.

use crate::ledger::crossing::WarnAt;
use crate::ledger::moment::Moment;
use crate::ledger::stored::DeferredCharge;
use crate::ledger::{Key, LeasePart, LedgerOutcome, Status, worker_of};
use crate::policies::snapshot::{KnownLimit, KnownRate, PolicySnapshot};
use crate::refusals::RateRefusal;
use metrics::Counter;
use policy::model::{Tariff, Unit, UsageCost};
use protocol::wire::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use protocol::wire::envoy::extensions::common::ratelimit::v3::{self as wire, RateLimitDescriptor};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A resolved descriptor.
pub struct Named<'a> {
    pub limit: &'a KnownLimit,
    /// The rates and their buckets. There is exactly one if the descriptor names a unit and a window.
    pub rates: Vec<(&'a KnownRate, Arc<Key>)>,
    /// Whether the descriptor names the unit of its amount.
    pub unit_given: bool,
    /// The descriptor's `hits_addend`.
    pub amount: Option<u64>,
    /// The descriptor's ttl.
    pub ttl: Option<Duration>,
    /// The descriptor's maximum, for rates without a fixed one.
    pub max: Option<u64>,
    /// Whether the call is never refused for lack of room.
    pub unenforced: bool,
    /// The charge that waits until a result is seen.
    pub deferred: Option<DeferredCharge>,
    /// What comes out of a lease of the caller.
    pub draw: Option<wire::LeaseDraw>,
}

impl<'a> Named<'a> {
    /// Resolves a descriptor. Returns `None` if no such limit or rate is in force.
    pub fn find(descriptor: RateLimitDescriptor, in_force: &'a PolicySnapshot) -> Option<Self> {
        let amount = descriptor.hits_addend;
        let ttl = (descriptor.ttl_ms > 0).then(|| Duration::from_millis(descriptor.ttl_ms));
        let (max, unenforced, draw) = (descriptor.max, descriptor.unenforced, descriptor.draw);
        let deferred = descriptor.deferred.map(|wire| deferred_charge(&wire));
        let (mut limit, mut unit, mut window, mut period) = (None, None, None, None);
        let mut counters = Vec::with_capacity(descriptor.entries.len());
        for Entry { key, value } in descriptor.entries {
            let named = match key.as_str() {
                "limit" => &mut limit,
                "unit" => &mut unit,
                "window" => &mut window,
                "period" => &mut period,
                // Expressions are never empty, so no caller can name an overflow bucket.
                "" => return None,
                _ => {
                    counters.push((key, value));
                    continue;
                }
            };
            if named.replace(value).is_some() {
                return None;
            }
        }
        counters.sort();
        let limit = in_force.limit(&limit?)?;
        let counters: Arc<[_]> = counters.into();
        let wanted = |rate: &&KnownRate| {
            let is = |key, value: &Option<String>| {
                let own = rate.window_entry.as_ref().filter(|(own, _)| *own == key);
                value.as_ref().is_none_or(|value| own.is_some_and(|(_, own)| own == value))
            };
            unit.as_ref().is_none_or(|unit| unit == rate.unit.name())
                && is("window", &window)
                && is("period", &period)
        };
        let key = |rate: &KnownRate| Key {
            limit: Arc::clone(&limit.counted_as),
            unit: rate.unit,
            window: rate.window.clone(),
            counters: Arc::clone(&counters),
        };
        let rates: Vec<_> =
            limit.rates.iter().filter(wanted).map(|rate| (rate, Arc::new(key(rate)))).collect();
        let unit_given = unit.is_some();
        let named = Self { limit, rates, unit_given, amount, ttl, max, unenforced, deferred, draw };
        (!named.rates.is_empty()).then_some(named)
    }

    /// Returns whether the call is refused if there is no room. A soft limit never refuses any caller.
    pub fn refuses(&self) -> bool {
        !self.unenforced && !self.limit.is_soft
    }

    /// Converts an amount to a rate's unit. If the descriptor names a whole limit, its amount is in tokens,
    /// and any number of tokens counts as one request.
    pub fn amount_in(&self, rate: &KnownRate, amount: u64) -> u64 {
        match rate.unit {
            Unit::Requests if !self.unit_given => amount.min(1),
            Unit::Concurrency => 0,
            Unit::Requests | Unit::Tokens | Unit::InputTokens | Unit::OutputTokens | Unit::Usd => amount,
        }
    }

    /// Returns the part of a rate's charge that is deferred until a result is seen.
    pub fn deferred_in(&self, rate: &KnownRate) -> Option<DeferredCharge> {
        self.deferred.filter(|_| self.unit_given && rate.unit.is_of_usage())
    }

    /// Returns the thresholds of a rate. `None` if it has none, or if the call does not contain its maximum.
    pub fn warn_at(&self, rate: &KnownRate) -> Option<WarnAt> {
        let thresholds = self.limit.warn_at.as_ref()?;
        let max = rate.max.or(self.max)?;
        Some(WarnAt { max, thresholds: Arc::clone(thresholds) })
    }

    /// Returns what comes out of a lease for the reservation with this id. A lease belongs to the same worker.
    pub fn draw(&self, reservation: &str) -> Option<LeasePart> {
        let wire::LeaseDraw { lease, amount } = self.draw?;
        let worker = worker_of(reservation)?;
        Some(LeasePart { lease: format!("{worker}-{lease:x}"), amount })
    }

    /// Returns the maximum of a rate.
    pub fn max_of(&self, rate: &KnownRate) -> u64 {
        rate.max.or(self.max).unwrap_or(0)
    }
}

fn deferred_charge(wire: &wire::DeferredCharge) -> DeferredCharge {
    let tariff = Tariff {
        input: wire.input,
        cached: wire.cached,
        cache_write: wire.cache_write,
        cache_write_1h: wire.cache_write_1h,
        output: wire.output,
    };
    let cost = UsageCost { base: wire.base, tariff, reasoning: wire.reasoning };
    DeferredCharge { now: wire.now, cost }
}

/// The descriptors of a call, resolved or unknown.
pub struct FoundDescriptors<'a> {
    /// The descriptors in the order of the call. `None` for unknown ones.
    pub descriptors: Vec<Option<Named<'a>>>,
    ranges: Vec<Range<usize>>,
}

impl<'a> FoundDescriptors<'a> {
    /// Resolves the descriptors of a call.
    pub fn find(descriptors: Vec<RateLimitDescriptor>, in_force: &'a PolicySnapshot) -> Self {
        let find = |descriptor| Named::find(descriptor, in_force);
        let descriptors: Vec<_> = descriptors.into_iter().map(find).collect();
        let mut end = 0;
        let ranges = descriptors.iter().map(|named| {
            let start = end;
            end += named.as_ref().map_or(0, |named| named.rates.len());
            start..end
        });
        let ranges = ranges.collect();
        Self { descriptors, ranges }
    }

    /// Returns the number of unknown descriptors.
    pub fn unknown(&self) -> usize {
        self.descriptors.iter().filter(|named| named.is_none()).count()
    }

    /// Returns each rate of each known descriptor, in the order in which they are passed to the ledger.
    pub fn rates(&self) -> impl Iterator<Item = (&Named<'a>, &'a KnownRate, &Arc<Key>)> {
        let known = self.descriptors.iter().flatten();
        known.flat_map(|named| named.rates.iter().map(move |(rate, key)| (named, *rate, key)))
    }

    /// Returns the status of the strictest rate of each descriptor, or `None` for unknown ones.
    pub fn statuses(&self, outcome: &LedgerOutcome) -> Vec<Option<(&'a KnownRate, Status)>> {
        let strictest = |(named, range): (&Option<Named<'a>>, &Range<usize>)| {
            let rates = named.iter().flat_map(|named| named.rates.iter().map(|(rate, _)| *rate));
            let statuses = outcome.statuses.get(range.clone()).unwrap_or_default();
            rates.zip(statuses.iter().copied()).min_by_key(|(_, status)| (!status.limited, status.remaining))
        };
        self.descriptors.iter().zip(&self.ranges).map(strictest).collect()
    }

    /// Counts the refusals of an outcome, once per limit.
    pub fn count_refusals(&self, outcome: &LedgerOutcome) {
        self.count_once(outcome, |status| status.limited, |limit| &limit.refused);
    }

    /// Counts calls without room in limits that never refuse, once per limit.
    pub fn count_excused(&self, outcome: &LedgerOutcome) {
        self.count_once(outcome, |status| status.excused, |limit| &limit.excused);
    }

    /// Counts calls in overflow buckets, once per limit.
    pub fn count_overflows(&self, outcome: &LedgerOutcome) {
        if outcome.statuses.iter().any(|status| status.overflowed) {
            self.count_once(outcome, |status| status.overflowed, |limit| &limit.overflowed);
        }
    }

    /// Returns the rates that refused a call. `needed` returns the room that a rate needed.
    pub fn refusals(
        &self,
        outcome: &LedgerOutcome,
        now: Moment,
        needed: impl Fn(&Named<'a>, &KnownRate) -> u64,
    ) -> Vec<RateRefusal> {
        let limited = self.rates().zip(&outcome.statuses).filter(|(_, status)| status.limited);
        limited
            .map(|((named, rate, key), status)| RateRefusal::new(key, needed(named, rate), status, now))
            .collect()
    }

    fn count_once(
        &self,
        outcome: &LedgerOutcome,
        concerned: impl Fn(&Status) -> bool,
        counter: impl Fn(&KnownLimit) -> &Counter,
    ) {
        let mut limits: Vec<&KnownLimit> = Vec::new();
        for (named, range) in self.descriptors.iter().zip(&self.ranges) {
            let statuses = outcome.statuses.get(range.clone()).unwrap_or_default();
            if let Some(named) = named
                && statuses.iter().any(&concerned)
                && !limits.iter().any(|limit| limit.key == named.limit.key)
            {
                limits.push(named.limit);
            }
        }
        limits.iter().for_each(|limit| counter(limit).increment(1));
    }
}
