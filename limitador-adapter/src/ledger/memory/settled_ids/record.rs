//! Ended reservations as plain data.

use super::{Charged, EndedIds, Id, SettledIds};
use crate::ledger::memory::record::{AdvanceRecord, RecordClock, UnixNanos};

/// Ended reservations: all of them, or those that have ended since they were last recorded.
#[derive(Debug, Default)]
pub struct EndedRecords {
    /// The number of the young generation. Only this one and the one before it are remembered.
    pub generation: u64,
    /// When the young generation began.
    pub since: UnixNanos,
    /// The settled ids of the young generation, and in a recorded state of the old one.
    pub settled: Vec<Id>,
    pub old: Vec<Id>,
    /// Ids that were settled without a charge, and when each may be forgotten.
    pub brief: Vec<(Id, UnixNanos)>,
    /// What was charged before the commit for each lapsed id. `None` if it is no longer lapsed.
    pub lapsed: Vec<(Id, Option<LapsedRecord>)>,
}

/// A lapsed reservation.
#[derive(Debug)]
pub struct LapsedRecord {
    pub generation: u64,
    pub charged: Vec<AdvanceRecord>,
}

impl EndedRecords {
    pub fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.brief.is_empty() && self.lapsed.is_empty()
    }
}

impl SettledIds {
    /// Records changes from now on.
    pub fn start_recording(&mut self) {
        self.changed = Some(EndedIds::default());
    }

    /// Returns the ids that have ended. Those of a generation that ended in the meantime count as young, so
    /// they are remembered for a little longer.
    pub fn changes(&mut self, clock: RecordClock) -> EndedRecords {
        let EndedIds { settled, brief, lapsed } =
            self.changed.as_mut().map(std::mem::take).unwrap_or_default();
        let lapsed = lapsed.into_iter().map(|id| (id, self.lapsed(id))).collect();
        EndedRecords {
            generation: self.generation,
            since: clock.nanos(self.since),
            settled,
            old: Vec::new(),
            brief: brief.into_iter().map(|(id, end)| (id, clock.nanos(end))).collect(),
            lapsed,
        }
    }

    fn lapsed(&self, id: Id) -> Option<LapsedRecord> {
        let young = self.young.lapsed.get(&id).map(|charged| (self.generation, charged));
        let old = || self.old.lapsed.get(&id).map(|charged| (self.generation.saturating_sub(1), charged));
        let (generation, charged) = young.or_else(old)?;
        Some(LapsedRecord { generation, charged: charged.iter().map(AdvanceRecord::from).collect() })
    }

    /// Returns the charges of the lapsed ids.
    pub fn lapsed_charges(&self) -> impl Iterator<Item = &Charged> {
        self.young.lapsed.values().chain(self.old.lapsed.values())
    }

    /// Notes changes again that could not be recorded.
    pub fn note(&mut self, failed: EndedRecords, clock: RecordClock) {
        let Some(changed) = &mut self.changed else { return };
        let newer = std::mem::replace(&mut changed.settled, failed.settled);
        changed.settled.extend(newer);
        changed.brief.extend(failed.brief.into_iter().map(|(id, end)| (id, clock.instant(end))));
        changed.lapsed.extend(failed.lapsed.into_iter().map(|(id, _)| id));
    }

    /// Restores ended reservations in an empty set.
    pub fn restore(&mut self, records: EndedRecords, clock: RecordClock) {
        self.generation = records.generation.max(1);
        self.since = clock.instant(records.since).min(clock.now());
        self.young.settled = records.settled.into_iter().collect();
        self.old.settled = records.old.into_iter().collect();
        for (id, record) in records.lapsed {
            let Some(LapsedRecord { generation, charged }) = record else { continue };
            let of = if generation >= self.generation { &mut self.young } else { &mut self.old };
            of.lapsed.insert(id, charged.into_iter().map(Into::into).collect());
        }
        for (id, end) in records.brief {
            let end = clock.instant(end);
            self.brief.insert(id, end);
            self.ends.push_back((end, id));
        }
    }
}
