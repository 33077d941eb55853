//! How the ledger calls its functions: alone or in a batch, with their keys and their common arguments.

use super::batches::{BatchedCall, Batches};
use super::clock;
use super::library::Function;
use super::reply::FunctionReply;
use super::{MAX_AMOUNT, RedisLedger, WhoseTime};
use crate::ledger::moment::Moment;
use crate::ledger::shares::Capacity;
use crate::ledger::{Key, Unavailable};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl RedisLedger {
    /// Returns the first argument of every function.
    pub(super) fn time(&self, now: Moment) -> String {
        match self.clock {
            WhoseTime::Server => String::new(),
            WhoseTime::Caller => now.unix.as_millis().to_string(),
        }
    }

    pub(super) async fn run(
        &self,
        function: Function,
        keys: &[String],
        arguments: &[String],
    ) -> Result<FunctionReply, Unavailable> {
        Ok(FunctionReply(self.link.run::<Vec<i64>>(function, keys, arguments).await?.into_iter()))
    }

    /// Runs a call in a batch. `keys` ends with the buckets, and `arguments` begins with their number.
    pub(super) async fn run_in_batch(
        &self,
        batches: &Arc<Batches>,
        keys: &[String],
        arguments: Vec<String>,
        now: Moment,
    ) -> Result<FunctionReply, Unavailable> {
        let call = BatchedCall { shared: [self.time(now), self.room()], keys: keys.to_vec(), arguments };
        let reply = batches.run(&self.link, || self.keys([], []), call).await?;
        Ok(FunctionReply(reply.into_iter()))
    }

    /// Calls a function that needs the calendar. `run` receives the server's estimated time. If the server is in
    /// another period, it replies with its time, and the call is repeated.
    pub(super) async fn run_by_calendar<R>(
        &self,
        now: Moment,
        run: impl Fn(Duration) -> R,
    ) -> Result<FunctionReply, Unavailable>
    where
        R: Future<Output = Result<FunctionReply, Unavailable>>,
    {
        for _ in 0..clock::ATTEMPTS {
            let mut reply = run(self.server.time(now)).await?;
            if !reply.is_elsewhere() {
                return Ok(reply);
            }
            self.server.learn(reply.next()?, now);
        }
        Err(clock::jumps())
    }

    /// Makes the thresholds available that a call's charges have reached.
    pub(super) fn report<'a>(
        &self,
        mut reply: FunctionReply,
        buckets: impl Iterator<Item = &'a Arc<Key>> + Clone,
    ) -> Result<(), Unavailable> {
        let crossings = reply.crossings(buckets)?;
        crossings.into_iter().for_each(|crossing| self.crossings.push(crossing));
        Ok(())
    }

    /// Returns the keys of a function: the common keys, its own, and the buckets.
    pub(super) fn keys<'a>(
        &self,
        own: impl IntoIterator<Item = String>,
        buckets: impl IntoIterator<Item = &'a Arc<Key>>,
    ) -> Vec<String> {
        // Counters and bytes cannot be compared, so they are stored under different keys.
        let limits = match self.capacity {
            Some(Capacity::Counters(_)) => "limits",
            _ => "limit-bytes",
        };
        let common = ["lapses", "buckets", "holds", limits].map(|own| self.names.own(own));
        let mut keys = Vec::from(common);
        keys.extend(self.keys_of_call(own, buckets));
        keys
    }

    /// Returns the keys of a call in a batch: its own, and the buckets.
    pub(super) fn keys_of_call<'a>(
        &self,
        own: impl IntoIterator<Item = String>,
        buckets: impl IntoIterator<Item = &'a Arc<Key>>,
    ) -> Vec<String> {
        own.into_iter().chain(buckets.into_iter().map(|key| self.names.bucket(key))).collect()
    }

    /// Formats the room for counters as the functions read it.
    pub(super) fn room(&self) -> String {
        let (total, each) = match self.capacity {
            Some(Capacity::Counters(total)) => (total, 1),
            Some(Capacity::Bytes(total)) => (total, 0),
            None => (self.room.load(Ordering::Relaxed), 0),
        };
        format!("{} {each} {}", total.min(MAX_AMOUNT), self.limits.load(Ordering::Relaxed).max(1))
    }
}
