//! A ledger in several shards. Each bucket is in one of them, so the load spreads over the nodes of a cluster.
//!
//! A call to one shard is atomic. A call to several shards is not, but it never admits too much:
//!
//! - A reserve holds in all shards or in none ([`reserve`]).
//! - A commit names the buckets of all holds, and succeeds when all of their shards have answered. Each shard
//!   remembers the ids that it has settled, so repeating a commit after a failure charges nothing twice. If
//!   the adapter does not know a bucket any more, because its limit was removed, another shard of the
//!   reservation names its shard.
//! - A background result has a part in each shard with a deferred charge ([`park`]).
//! - A hit in several shards is a reserve followed by a commit ([`hit`]).

mod hit;
mod park;
mod reserve;
pub mod shard;
mod split;
mod unfinished;

use crate::ledger::crossing::Crossing;
use crate::ledger::moment::Moment;
use crate::ledger::own_ids::OwnIds;
use crate::ledger::recalls::Recalls;
use crate::ledger::stored::{CreationCharge, Parking, ResultCharges, Seen, Sighting, StoredResult};
use crate::ledger::{
    Charge, CounterReading, Durability, Grant, Granted, Hit, Hold, Key, Ledger, LedgerOutcome, LedgerSize,
    Raised, RaisedHold, Settled, StorageBytes, StorageFault, Unavailable, is_empty,
};
use futures::future::join_all;
use shard::{Attempt, SettledPart, Shard, ShardSet};
use split::{ShardPart, in_order};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use unfinished::UnfinishedCancellations;

/// A ledger in several shards.
pub struct ShardedLedger<S> {
    /// All adapters must have the same number of shards, in the same order.
    shards: Vec<S>,
    attempts: AtomicU64,
    unfinished: UnfinishedCancellations,
    /// The ids of hits in several shards.
    ids: OwnIds,
}

impl<S: Shard> ShardedLedger<S> {
    /// Composes a ledger of at most [`ShardSet::MOST`] shards.
    pub fn new(shards: Vec<S>) -> Self {
        // Adapters must not choose the same numbers for the same id.
        let (attempts, _) = uuid::Uuid::new_v4().as_u64_pair();
        let (unfinished, ids) = (UnfinishedCancellations::default(), OwnIds::default());
        Self { shards, attempts: AtomicU64::new(attempts), unfinished, ids }
    }

    fn next_attempt(&self, shards: ShardSet) -> Attempt {
        Attempt { number: self.attempts.fetch_add(1, Ordering::Relaxed), shards }
    }

    /// Calls all shards in parallel. Every shard is called, even if another one fails.
    async fn all<'a, T, F>(&'a self, call: impl Fn(&'a S) -> F) -> Result<Vec<T>, Unavailable>
    where
        F: Future<Output = Result<T, Unavailable>>,
    {
        join_all(self.shards.iter().map(call)).await.into_iter().collect()
    }

    /// Ends a reservation in these shards, without charges there.
    async fn end_in(&self, shards: ShardSet, id: &str, now: Moment) -> Result<Vec<SettledPart>, Unavailable> {
        let shards = self.shards.iter().enumerate().filter(|(index, _)| shards.contains(*index));
        let ended = join_all(shards.map(|(_, shard)| shard.commit_part(id, Vec::new(), now)));
        ended.await.into_iter().collect()
    }

    /// Repeats the cancellations that a shard has not acknowledged.
    async fn finish_cancellations(&self, index: usize, shard: &S, now: Moment) -> Result<(), Unavailable> {
        let mut error = None;
        for one in self.unfinished.take(index) {
            if error.is_none() {
                error = shard.cancel(&one.id, one.attempt, &[], now).await.err();
            }
            if error.is_some() {
                self.unfinished.push(index, &one.id, one.attempt);
            }
        }
        error.map_or(Ok(()), Err)
    }
}

/// Combines the outcomes of a commit. A part without a charge is remembered only briefly, so later it cannot
/// show that the commit is new.
fn settled(parts: impl Iterator<Item = (Settled, bool)> + Clone) -> Settled {
    let any = |settled: Settled, is_charged: bool| {
        parts.clone().any(|(of, charged)| of == settled && (charged || !is_charged))
    };
    if any(Settled::Released, false) {
        Settled::Released
    } else if any(Settled::AlreadySettled, false) && !any(Settled::Charged, true) {
        Settled::AlreadySettled
    } else {
        Settled::Charged
    }
}

/// Combines the readings of a limit's overflow buckets, of which each shard has one.
fn merge_overflows(readings: Vec<CounterReading>) -> Vec<CounterReading> {
    let mut overflows: HashMap<Arc<Key>, CounterReading> = HashMap::new();
    let mut all = Vec::with_capacity(readings.len());
    for reading in readings {
        if !reading.key.is_overflow() {
            all.push(reading);
            continue;
        }
        match overflows.entry(Arc::clone(&reading.key)) {
            Entry::Vacant(entry) => drop(entry.insert(reading)),
            Entry::Occupied(mut entry) => {
                let sum = entry.get_mut();
                sum.used = sum.used.saturating_add(reading.used);
                sum.held = sum.held.saturating_add(reading.held);
                sum.granted = sum.granted.saturating_add(reading.granted);
                sum.reset = sum.reset.max(reading.reset);
            }
        }
    }
    all.extend(overflows.into_values());
    all
}

/// Combines what the shards know about a result.
fn merge_seen(parts: Vec<Seen>) -> Seen {
    let mut all = Seen::default();
    for Seen { charged, result } in parts {
        all.charged.extend(charged);
        match (&mut all.result, result) {
            (Some(ResultCharges { charges, .. }), Some(more)) => charges.extend(more.charges),
            (known @ None, more) => *known = more,
            (Some(_), None) => {}
        }
    }
    all
}

/// Returns the fuller of two storages.
fn fuller(one: Option<StorageBytes>, other: Option<StorageBytes>) -> Option<StorageBytes> {
    let share = |bytes: &StorageBytes| u128::from(bytes.used) * 1_000_000 / u128::from(bytes.most.max(1));
    one.into_iter().chain(other).max_by_key(share)
}

#[tonic::async_trait]
impl<S: Shard> Ledger for ShardedLedger<S> {
    async fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        let mut parts = self.split(holds, |hold| &hold.key);
        if parts.len() > 1 {
            return self.reserve_in(id, parts, now).await;
        }
        match (parts.pop(), self.shards.first()) {
            (Some(ShardPart { shard, items, .. }), _) => shard.reserve(id, items, now).await,
            (None, Some(shard)) => shard.reserve(id, Vec::new(), now).await,
            (None, None) => Err(no_shards()),
        }
    }

    async fn raise(&self, id: &str, holds: Vec<RaisedHold>, now: Moment) -> Result<Raised, Unavailable> {
        let parts = self.split(holds, |hold| &hold.key);
        let raised = join_all(parts.into_iter().map(|part| part.shard.raise(id, part.items, now))).await;
        let raised: Vec<_> = raised.into_iter().collect::<Result<_, _>>()?;
        let any = |outcome| raised.contains(&outcome);
        Ok(match (any(Raised::OutOfRoom), any(Raised::Held)) {
            (true, _) => Raised::OutOfRoom,
            (false, true) => Raised::Held,
            (false, false) => Raised::Unknown,
        })
    }

    async fn commit(&self, id: &str, charges: Vec<Charge>, now: Moment) -> Result<Settled, Unavailable> {
        let parts = self.split(charges, |charge| &charge.key);
        let named: ShardSet = parts.iter().map(|part| part.index).collect();
        let charged: Vec<_> = parts.iter().map(|part| !is_empty(&part.items)).collect();
        let parts = join_all(parts.into_iter().map(|part| part.shard.commit_part(id, part.items, now))).await;
        let mut parts: Vec<_> = parts.into_iter().collect::<Result<_, _>>()?;
        let all = (0..self.shards.len()).collect();
        let others = match parts.is_empty() {
            // The limits of all holds may have been removed, so they may be anywhere.
            true => all,
            false => {
                parts.iter().fold(ShardSet::default(), |all, part| all.union(part.shards)).without(named)
            }
        };
        parts.extend(self.end_in(others, id, now).await?);
        let charged = charged.into_iter().chain(std::iter::repeat(false));
        Ok(settled(parts.iter().map(|part| part.settled).zip(charged)))
    }

    async fn park(
        &self,
        id: &str,
        result: StoredResult,
        charges: Vec<CreationCharge>,
        now: Moment,
    ) -> Result<Parking, Unavailable> {
        self.park_in(id, result, charges, now).await
    }

    /// Any shard may know the result, or may have to learn of it before its creation.
    async fn see(&self, sighting: Sighting, now: Moment) -> Result<Seen, Unavailable> {
        Ok(merge_seen(self.all(|shard| shard.see(sighting.clone(), now)).await?))
    }

    async fn hit(&self, hits: Vec<Hit>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        self.hit_in(self.split(hits, |hit| &hit.key), now).await
    }

    async fn reset(&self, keys: Vec<Arc<Key>>, now: Moment) -> Result<Vec<Arc<Key>>, Unavailable> {
        let (overflows, keys): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.is_overflow());
        let parts = self.split(keys, |key| key);
        let reset = join_all(parts.into_iter().map(|part| part.shard.reset(part.items, now))).await;
        let mut reset = reset.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        if !overflows.is_empty() {
            let all = self.all(|shard| shard.reset(overflows.clone(), now)).await?.concat();
            reset.extend(overflows.into_iter().filter(|key| all.contains(key)));
        }
        Ok(reset)
    }

    async fn grant(&self, grant: Grant, now: Moment) -> Result<Granted, Unavailable> {
        let part = self.split(vec![grant], |grant| &grant.key).pop();
        let grant = part.and_then(|mut part| Some((part.shard, part.items.pop()?)));
        let (shard, grant) = grant.ok_or_else(no_shards)?;
        shard.grant(grant, now).await
    }

    async fn read(&self, keys: &[Arc<Key>], now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        let parts = self.split(keys.to_vec(), |key| key);
        let readings = join_all(parts.into_iter().map(async |part| {
            part.shard.read(&part.items, now).await.map(|readings| (part.positions, readings))
        }));
        Ok(in_order(readings.await.into_iter().collect::<Result<Vec<_>, _>>()?))
    }

    async fn readings(&self, now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        Ok(merge_overflows(self.all(|shard| shard.readings(now)).await?.concat()))
    }

    /// Returns the sums over the shards. A reservation in several shards counts in each of them. The bytes
    /// are those of the fullest node.
    async fn size(&self) -> Result<LedgerSize, Unavailable> {
        let sizes = self.all(|shard| shard.size()).await?;
        Ok(sizes.into_iter().fold(LedgerSize::default(), |sum, size| LedgerSize {
            counters: sum.counters.saturating_add(size.counters),
            bytes: fuller(sum.bytes, size.bytes),
            reservations: sum.reservations.saturating_add(size.reservations),
            holds: sum.holds.saturating_add(size.holds),
            settled: size.settled.map(|settled| sum.settled.unwrap_or_default().saturating_add(settled)),
            forgotten: sum.forgotten.saturating_add(size.forgotten),
            lapsed: sum.lapsed.plus(size.lapsed),
        }))
    }

    async fn sweep(&self, now: Moment) -> Result<(), Unavailable> {
        let swept = self.shards.iter().enumerate().map(async |(index, shard)| {
            self.finish_cancellations(index, shard, now).await?;
            shard.sweep(now).await
        });
        join_all(swept).await.into_iter().collect()
    }

    /// Lists the shards that cannot take holds. The buckets of the others still work.
    async fn ready(&self) -> Result<(), Unavailable> {
        let answers = join_all(self.shards.iter().map(|shard| shard.ready())).await;
        let failed =
            answers.into_iter().enumerate().filter_map(|(index, answer)| Some((index, answer.err()?)));
        let failed: Vec<_> = failed.collect();
        let numbers: Vec<_> = failed.iter().map(|(index, _)| index.to_string()).collect();
        let shards = format!("shards {} of {}: ", numbers.join(", "), self.shards.len());
        let is_full = |error: &Unavailable| error.fault == StorageFault::Full;
        // A shard that does not answer is worse than a full one.
        match failed.into_iter().map(|(_, error)| error).min_by_key(is_full) {
            None => Ok(()),
            Some(error) => Err(Unavailable::new(error.fault, shards + &error.message)),
        }
    }

    async fn durable(&self) -> Result<(), Unavailable> {
        self.all(|shard| shard.durable()).await.map(drop)
    }

    fn durability(&self) -> Durability {
        self.shards.first().map_or(Durability::Elsewhere, Ledger::durability)
    }

    fn counting_since(&self) -> Option<Duration> {
        self.shards.iter().map(Ledger::counting_since).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    fn take_crossings(&self) -> Vec<Crossing> {
        self.shards.iter().flat_map(Ledger::take_crossings).collect()
    }

    async fn recall(&self, buckets: &[u64]) {
        // The shards share a channel.
        if let Some(first) = self.shards.first() {
            first.recall(buckets).await;
        }
    }

    fn recalls(&self) -> Arc<Recalls> {
        self.shards.first().map_or_else(Arc::default, Ledger::recalls)
    }

    fn share_among(&self, limits: usize) {
        self.shards.iter().for_each(|shard| shard.share_among(limits));
    }

    async fn attend(&self, workers: &[String], lives: Duration, now: Moment) -> Result<(), Unavailable> {
        self.all(|shard| shard.attend(workers, lives, now)).await.map(drop)
    }

    /// Returns the sum over the shards. A reservation in several shards counts in each of them.
    async fn release_gone(&self, now: Moment) -> Result<usize, Unavailable> {
        let released = self.all(|shard| shard.release_gone(now)).await?;
        Ok(released.into_iter().fold(0, usize::saturating_add))
    }
}

fn no_shards() -> Unavailable {
    Unavailable::failed("the ledger has no shards")
}
