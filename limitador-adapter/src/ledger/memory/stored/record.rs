//! Background results as plain data.

use super::{DeferredRate, RememberedResult, StoredResults};
use crate::ledger::crossing::WarnAt;
use crate::ledger::memory::record::{AdvanceRecord, HoldRecord, KeyRecord, RecordClock, UnixNanos};
use crate::ledger::memory::settled_ids::{Advance, Id};
use crate::ledger::memory::state::MemoryState;
use crate::ledger::stored::{Sighting, StoredId};
use llm::response::Usage;
use policy::model::{Tariff, Threshold, UsageCost};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A result.
#[derive(Debug, Serialize, Deserialize)]
pub struct ResultRecord {
    creator: Id,
    input: u64,
    seen: bool,
    ends: UnixNanos,
    rates: Vec<RateRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RateRecord {
    key: KeyRecord,
    cost: CostRecord,
    charged: u64,
    hold: Option<HoldRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lapsed: Option<AdvanceRecord>,
    /// The maximum, and the thresholds in percent.
    warn_at: Option<(u64, Vec<u8>)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CostRecord {
    base: u64,
    input: u64,
    cached: u64,
    cache_write: u64,
    cache_write_1h: u64,
    output: u64,
    reasoning: u64,
}

/// A read of an unknown result.
#[derive(Debug, Serialize, Deserialize)]
pub struct EarlyRecord {
    ends: UnixNanos,
    result: String,
    input: u64,
    output: u64,
    total: u64,
    cached: u64,
    cache_write: u64,
    cache_write_1h: u64,
    reasoning: u64,
    is_partial: bool,
    is_complete: bool,
}

impl From<&UsageCost> for CostRecord {
    fn from(UsageCost { base, tariff, reasoning }: &UsageCost) -> Self {
        let Tariff { input, cached, cache_write, cache_write_1h, output } = *tariff;
        Self { base: *base, input, cached, cache_write, cache_write_1h, output, reasoning: *reasoning }
    }
}

impl From<CostRecord> for UsageCost {
    fn from(record: CostRecord) -> Self {
        let CostRecord { base, input, cached, cache_write, cache_write_1h, output, reasoning } = record;
        Self { base, tariff: Tariff { input, cached, cache_write, cache_write_1h, output }, reasoning }
    }
}

impl RateRecord {
    fn of(rate: &DeferredRate, clock: RecordClock) -> Self {
        let percents = |warn_at: &WarnAt| warn_at.thresholds.iter().map(|one| one.percent()).collect();
        Self {
            key: KeyRecord(Arc::clone(&rate.key)),
            cost: CostRecord::from(&rate.cost),
            charged: rate.charged,
            hold: rate.hold.as_ref().map(|held| HoldRecord::of(held, clock)),
            lapsed: rate.lapsed.as_ref().map(AdvanceRecord::from),
            warn_at: rate.warn_at.as_ref().map(|warn_at| (warn_at.max, percents(warn_at))),
        }
    }

    fn restored(self, clock: RecordClock) -> DeferredRate {
        let warn_at = self.warn_at.map(|(max, percents)| {
            let thresholds = percents.into_iter().filter_map(|one| Threshold::of_percent(one.into()));
            WarnAt { max, thresholds: thresholds.collect() }
        });
        let hold = self.hold.map(|hold| hold.restored(clock));
        let (key, cost, lapsed) = (self.key.0, self.cost.into(), self.lapsed.map(Into::into));
        DeferredRate { key, cost, charged: self.charged, hold, lapsed, warn_at }
    }
}

impl ResultRecord {
    fn of(result: &RememberedResult, clock: RecordClock) -> Self {
        let rates = result.rates.iter().map(|rate| RateRecord::of(rate, clock)).collect();
        let RememberedResult { creator, input, seen, ends, .. } = *result;
        Self { creator, input, seen, ends: clock.nanos(ends), rates }
    }
}

impl EarlyRecord {
    fn of(sighting: &Sighting, ends: UnixNanos) -> Self {
        let Usage { input, output, total, cached, cache_write, cache_write_1h, reasoning } = sighting.usage;
        Self {
            ends,
            result: sighting.id.as_str().to_owned(),
            input,
            output,
            total,
            cached,
            cache_write,
            cache_write_1h,
            reasoning,
            is_partial: sighting.is_partial,
            is_complete: sighting.ends,
        }
    }

    fn restored(self) -> Sighting {
        let Self { input, output, total, cached, cache_write, cache_write_1h, reasoning, .. } = self;
        let usage = Usage { input, output, total, cached, cache_write, cache_write_1h, reasoning };
        let id = StoredId::recorded(self.result);
        Sighting { id, usage, is_partial: self.is_partial, ends: self.is_complete }
    }
}

/// The changed results, and the changed reads of unknown ones.
type ResultChanges = (Vec<(Id, Option<ResultRecord>)>, Vec<(Id, Option<EarlyRecord>)>);

impl StoredResults {
    /// Records changes from now on.
    pub fn start_recording(&mut self) {
        self.changed.start();
        self.early_changed.start();
    }

    /// Returns what has changed.
    pub fn changes(&mut self, clock: RecordClock) -> ResultChanges {
        let result = |id| (id, self.results.get(&id).map(|result| ResultRecord::of(result, clock)));
        let results = self.changed.take().into_iter().map(result).collect();
        let early = |id| {
            let record = self.early.get(&id);
            (id, record.map(|(end, sighting)| EarlyRecord::of(sighting, clock.nanos(*end))))
        };
        (results, self.early_changed.take().into_iter().map(early).collect())
    }

    /// Notes changes again that could not be recorded.
    pub fn note(&mut self, results: &[(Id, Option<ResultRecord>)], early: &[(Id, Option<EarlyRecord>)]) {
        results.iter().for_each(|(id, _)| self.changed.note(*id));
        early.iter().for_each(|(id, _)| self.early_changed.note(*id));
    }

    /// Returns the charges that were made when holds of results lapsed.
    pub fn lapsed_charges(&self) -> impl Iterator<Item = &Advance> {
        self.results.values().flat_map(|result| &result.rates).filter_map(|rate| rate.lapsed.as_ref())
    }

    /// Restores reads of unknown results.
    pub fn restore_early(&mut self, mut records: Vec<(Id, EarlyRecord)>, clock: RecordClock) {
        records.sort_by_key(|(_, record)| record.ends);
        for (id, record) in records {
            let end = clock.instant(record.ends);
            self.early.insert(id, (end, record.restored()));
            self.early_ends.push_back((end, id));
        }
    }
}

impl MemoryState {
    /// Restores a result with its holds.
    pub fn restore_result(&mut self, id: Id, record: ResultRecord, clock: RecordClock) {
        let mut rates: Vec<_> = record.rates.into_iter().map(|rate| rate.restored(clock)).collect();
        for rate in &mut rates {
            rate.hold.take_if(|held| !self.buckets.restore_hold(held.place, held.amount));
            self.holds = self.holds.saturating_add(usize::from(rate.hold.is_some()));
        }
        let ResultRecord { creator, input, seen, ends, .. } = record;
        let ends = clock.instant(ends);
        self.stored.insert(id, RememberedResult { creator, input, seen, ends, rates });
    }
}
