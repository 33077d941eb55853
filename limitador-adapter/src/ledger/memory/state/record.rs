//! The whole state as plain data.

use super::{LiveReservation, MemoryState};
use crate::ledger::Unavailable;
use crate::ledger::memory::changes::ReservationNumber;
use crate::ledger::memory::record::{
    AdvanceRecord, HoldRecord, RecordClock, RecordedState, StateChanges, UnixNanos,
};
use crate::ledger::memory::settled_ids::Id;
use serde::{Deserialize, Serialize};

/// A live reservation.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReservationRecord {
    id: Id,
    worker: u64,
    /// When its next hold lapses. Without holds, when the reservation does.
    lapses: UnixNanos,
    holds: Vec<HoldRecord>,
    charged: Vec<AdvanceRecord>,
    excused: Box<[usize]>,
}

impl ReservationRecord {
    fn of(id: Id, reservation: &LiveReservation, clock: RecordClock) -> Self {
        Self {
            id,
            worker: reservation.worker,
            lapses: clock.nanos(reservation.lapses),
            holds: reservation.holds.iter().map(|held| HoldRecord::of(held, clock)).collect(),
            charged: reservation.charged.iter().map(AdvanceRecord::from).collect(),
            excused: reservation.excused.clone(),
        }
    }
}

impl MemoryState {
    /// Records changes from now on.
    pub fn start_recording(&mut self) {
        self.buckets.start_recording();
        self.archive.start_recording();
        self.stored.start_recording();
        self.grants.changed.start();
        self.changed.changed.start();
    }

    /// Returns everything that has changed.
    pub fn changes(&mut self, clock: RecordClock) -> StateChanges {
        let (results, early) = self.stored.changes(clock);
        let grants = self.grants.changed.take();
        let grants = grants.into_iter().filter_map(|id| Some((id, clock.nanos(*self.grants.ends.get(&id)?))));
        StateChanges {
            grants: grants.collect(),
            buckets: self.buckets.changes(clock),
            reservations: self.changed_reservations(clock),
            ended: std::mem::take(&mut self.changed.ended),
            archive: self.archive.changes(clock),
            results,
            early,
            workers: Vec::new(),
        }
    }

    fn changed_reservations(&mut self, clock: RecordClock) -> Vec<(ReservationNumber, ReservationRecord)> {
        let mut records = Vec::new();
        for id in self.changed.changed.take() {
            let Some(reservation) = self.live.get_mut(&id) else { continue };
            let number = *reservation.number.get_or_insert_with(|| {
                self.changed.last = self.changed.last.saturating_add(1);
                self.changed.last
            });
            records.push((number, ReservationRecord::of(id, reservation, clock)));
        }
        records
    }

    /// Notes changes again that could not be recorded.
    pub fn note(&mut self, failed: StateChanges, clock: RecordClock) {
        failed.buckets.iter().for_each(|(place, _)| self.buckets.note(*place));
        failed.reservations.iter().for_each(|(_, record)| self.changed.changed.note(record.id));
        self.changed.ended.extend(failed.ended);
        self.archive.note(failed.archive, clock);
        self.stored.note(&failed.results, &failed.early);
        failed.grants.iter().for_each(|(id, _)| self.grants.changed.note(*id));
    }

    /// Restores an empty state.
    pub fn restore(&mut self, state: RecordedState, clock: RecordClock) -> Result<(), Unavailable> {
        self.buckets.restore(state.buckets, clock)?;
        for (number, record) in state.reservations {
            self.restore_reservation(number, record, clock);
        }
        self.archive.restore(state.archive, clock);
        for (id, record) in state.results {
            self.restore_result(id, record, clock);
        }
        self.stored.restore_early(state.early, clock);
        let grants = state.grants.into_iter().map(|(id, end)| (id, clock.instant(end)));
        self.grants.ends = grants.collect();
        self.buckets.forget_empty();
        // A charge before the commit may be of a window that has ended. No other window may get its id.
        let charged = self.live.values().map(|reservation| &reservation.charged);
        let charged =
            charged.chain(self.archive.lapsed_charges()).flatten().chain(self.stored.lapsed_charges());
        let last = charged.map(|advance| advance.window).max();
        self.buckets.skip_ids(last.unwrap_or_default());
        Ok(())
    }

    fn restore_reservation(
        &mut self,
        number: ReservationNumber,
        record: ReservationRecord,
        clock: RecordClock,
    ) {
        self.changed.last = self.changed.last.max(number);
        let holds = record.holds.into_iter().map(|hold| hold.restored(clock));
        let holds: Vec<_> = holds.filter(|held| self.buckets.restore_hold(held.place, held.amount)).collect();
        self.holds = self.holds.saturating_add(holds.len());
        holds
            .iter()
            .filter(|held| held.is_lease)
            .for_each(|held| self.buckets.lease(held.place, held.amount));
        let lapses = clock.instant(record.lapses);
        self.lapses.insert((lapses, record.id));
        let charged = record.charged.into_iter().map(Into::into).collect();
        let (excused, worker, number) = (record.excused, record.worker, Some(number));
        self.live.insert(record.id, LiveReservation { holds, charged, lapses, excused, worker, number });
    }
}
