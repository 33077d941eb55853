//! What adapters do from time to time: measure, remove expired data, and end the holds of gone workers.

use super::library::Function;
use super::{RedisLedger, UNKNOWN_ROOM};
use crate::ledger::moment::Moment;
use crate::ledger::{LapsedTotals, LedgerSize, StorageBytes, Unavailable};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The number of reservations that one call inspects to find those of workers that are gone.
const RESERVATIONS: usize = 100;

pub(super) struct Swept {
    pub now: Duration,
    pub more: bool,
    pub size: LedgerSize,
}

impl RedisLedger {
    /// Returns the server's used memory and its maximum, if it has one.
    pub(super) async fn memory(&self) -> Result<Option<StorageBytes>, Unavailable> {
        let mut answer = self.run(Function::Memory, &self.keys([], []), &[]).await?;
        let (used, most, machine) = (answer.next()?, answer.next()?, answer.next()?);
        let shards = self.nodes.learn(self.shard, answer.next()?);
        let room = match (most, machine) {
            (0, 0) => UNKNOWN_ROOM,
            (0, machine) => machine / 4,
            (most, _) => most / 2,
        };
        self.room.store(room / shards, Ordering::Relaxed);
        Ok((most > 0).then_some(StorageBytes { used, most }))
    }

    /// Removes expired data from at most this many buckets, and returns the size of the ledger.
    pub(super) async fn sweep_some(&self, at_most: usize, now: Moment) -> Result<Swept, Unavailable> {
        let arguments = [self.time(now), self.room(), at_most.to_string()];
        let mut answer = self.run(Function::Sweep, &self.keys([], []), &arguments).await?;
        let (now, more) = (Duration::from_millis(answer.next()?), answer.next()? > 0);
        let (counters, reservations, holds) = (answer.size()?, answer.size()?, answer.size()?);
        let lapsed = LapsedTotals {
            released: answer.next()?,
            charged: answer.next()?,
            tokens: answer.next()?,
            micro_usd: answer.next()?,
        };
        let size = LedgerSize { counters, reservations, holds, lapsed, ..LedgerSize::default() };
        Ok(Swept { now, more, size })
    }

    /// Ends the holds of gone workers. Returns the number of their reservations.
    pub(super) async fn end_holds_of_gone(&self, now: Moment) -> Result<usize, Unavailable> {
        let keys = self.keys([self.names.workers()], []);
        let (mut decides, mut cursor, mut released) = (0, 0, 0_usize);
        loop {
            let position = [decides, cursor, RESERVATIONS as u64].map(|number| number.to_string());
            let arguments: Vec<_> = std::iter::once(self.time(now)).chain(position).collect();
            let mut answer = self.run(Function::Gone, &keys, &arguments).await?;
            (decides, cursor) = (answer.next()?, answer.next()?);
            released = released.saturating_add(answer.size()?);
            if cursor == 0 {
                return Ok(released);
            }
        }
    }
}
