//! The ledger in Redis (version 7 or newer) or Valkey. Several adapters share every bucket and every hold
//! exactly.
//!
//! Each call is decided by a function that Redis runs ([`library`]), so it is atomic and takes one round trip for any
//! number of limits. Calls that wait at the same time are sent together ([`batches`]). The server's clock decides
//! ([`clock`]). `common.lua` describes the records. Reserve and commit can be repeated, even at another adapter. A hit has no
//! id, so if its reply is lost, it may have been charged.

mod arguments;
mod batches;
mod channel;
mod clock;
mod connect;
mod connection;
pub mod credentials;
mod errors;
mod key_name;
mod library;
mod nodes;
mod reply;
mod sentinels;
pub mod shards;
pub mod url;

use crate::ledger::crossing::{Crossing, Crossings};
use crate::ledger::key_text;
use crate::ledger::moment::Moment;
use crate::ledger::recalls::Recalls;
use crate::ledger::sharded::shard::{Attempt, SettledPart};
use crate::ledger::shares::Capacity;
use crate::ledger::stored::{
    CreationCharge, DeferredCharge, Parking, ResultCharges, Seen, Sighting, StoredResult,
};
use crate::ledger::{
    Charge, CounterReading, Durability, GRANT_REMEMBERED, Grant, Granted, Hit, Hold, Idempotency, Key,
    LapsedTotals, Ledger, LedgerOutcome, LedgerSize, Raised, RaisedHold, Settled, StorageBytes, Unavailable,
    When, is_worker,
};
use arguments::{
    amount, charge_at, deferred_numbers, flag, lease_part, lease_use, numbers, numbers_of_attempt, stored,
    warn_rules,
};
use batches::{BatchedCall, Batches};
use clock::ServerClock;
use connection::Link;
use credentials::CredentialFiles;
use key_name::{KeyNames, ONLY_TAG};
use library::Function;
use nodes::ShardNodes;
use policy::model::Window;
use reply::{ScriptReply, crossing, reading, slots_used};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use url::RedisUrl;

/// The largest number that the functions represent exactly. Larger numbers are capped to it.
pub const MAX_AMOUNT: u64 = (1 << 53) - 1;

/// The maximum lifetime of a hold.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The number of buckets that one call inspects during a traversal. It blocks other calls for a
/// millisecond or two.
const BATCH: usize = 500;

/// The number of reservations that one call inspects to find those of workers that are gone.
const RESERVATIONS: usize = 100;

/// The room for counters in bytes if the server does not report its memory.
const UNKNOWN_ROOM: u64 = 4 << 30;

/// Holds and charges in Redis.
pub struct RedisLedger {
    link: Arc<Link>,
    prefix: String,
    names: KeyNames,
    /// The number of this shard; 0 if the ledger is not sharded.
    shard: usize,
    /// Where all shards are.
    nodes: Arc<ShardNodes>,
    /// The configured capacity. `None` means a part of the server's memory.
    capacity: Option<Capacity>,
    /// The capacity in bytes, derived from what the server last reported.
    room: AtomicU64,
    limits: AtomicUsize,
    clock: WhoseTime,
    server: ServerClock,
    crossings: Crossings,
    batches: CallBatches,
}

/// The most frequent calls, which are sent in batches.
struct CallBatches {
    reserve: Arc<Batches>,
    commit: Arc<Batches>,
    hit: Arc<Batches>,
}

impl Default for CallBatches {
    fn default() -> Self {
        Self {
            reserve: Batches::new(Function::Reserve),
            commit: Batches::new(Function::Commit),
            hit: Batches::new(Function::Hit),
        }
    }
}

/// Which clock decides when windows begin and end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhoseTime {
    Server,
    Caller,
}

impl RedisLedger {
    /// Creates a ledger with this capacity. The server need not be reachable yet.
    pub fn new(place: RedisUrl, capacity: Option<Capacity>) -> Result<Self, String> {
        Ok(Self {
            link: Arc::new(Link::new(place)?),
            prefix: String::new(),
            names: KeyNames::new("", ONLY_TAG),
            shard: 0,
            nodes: Arc::default(),
            capacity,
            room: AtomicU64::new(UNKNOWN_ROOM),
            limits: AtomicUsize::new(1),
            clock: WhoseTime::Server,
            server: ServerClock::default(),
            crossings: Crossings::default(),
            batches: CallBatches::default(),
        })
    }

    /// Sets the prefix of all keys, which separates installations that share a server.
    pub fn with_prefix(self, prefix: &str) -> Self {
        let (prefix, names) = (prefix.to_owned(), KeyNames::new(prefix, ONLY_TAG));
        let link = self.link.another().with_prefix(&prefix);
        Self { link: Arc::new(link), prefix, names, ..self }
    }

    /// Sets the files with credentials.
    pub fn with_credentials(self, files: CredentialFiles) -> Self {
        let link = self.link.another().with_credentials(files);
        Self { link: Arc::new(link), ..self }
    }

    /// Uses the time of the calls instead of the server's time, for tests that cannot wait for the end of a
    /// month.
    pub fn with_the_callers_time(self) -> Self {
        Self { clock: WhoseTime::Caller, ..self }
    }

    /// Pretends that this machine's clock is ahead by this many milliseconds, for tests of wrong clocks.
    pub fn with_a_clock_that_is_ahead(self, milliseconds: i64) -> Self {
        Self { server: ServerClock::of_a_machine_ahead(milliseconds), ..self }
    }

    /// Sets the timeout for replies and connections, for tests on busy machines.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        let link = self.link.another().with_timeout(timeout);
        Self { link: Arc::new(link), ..self }
    }

    /// Returns the first argument of every function.
    fn time(&self, now: Moment) -> String {
        match self.clock {
            WhoseTime::Server => String::new(),
            WhoseTime::Caller => now.unix.as_millis().to_string(),
        }
    }

    async fn run(
        &self,
        function: Function,
        keys: &[String],
        arguments: &[String],
    ) -> Result<ScriptReply, Unavailable> {
        Ok(ScriptReply(self.link.run::<Vec<i64>>(function, keys, arguments).await?.into_iter()))
    }

    /// Runs a call in a batch. `keys` ends with the buckets, and `arguments` begins with their number.
    async fn run_in_batch(
        &self,
        batches: &Arc<Batches>,
        keys: &[String],
        arguments: Vec<String>,
        now: Moment,
    ) -> Result<ScriptReply, Unavailable> {
        let call = BatchedCall { shared: [self.time(now), self.room()], keys: keys.to_vec(), arguments };
        let reply = batches.run(&self.link, || self.keys([], []), call).await?;
        Ok(ScriptReply(reply.into_iter()))
    }

    /// Calls a function that needs the calendar. `run` receives the server's estimated time. If the server is in
    /// another period, it replies with its time, and the call is repeated.
    async fn run_by_calendar<R>(
        &self,
        now: Moment,
        run: impl Fn(Duration) -> R,
    ) -> Result<ScriptReply, Unavailable>
    where
        R: Future<Output = Result<ScriptReply, Unavailable>>,
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

    /// Holds every amount, or none. `attempt` is present if the reservation is in several shards.
    async fn hold(
        &self,
        id: &str,
        holds: Vec<Hold>,
        attempt: Option<Attempt>,
        now: Moment,
    ) -> Result<LedgerOutcome, Unavailable> {
        let keys = self.keys_of_call([self.names.reservation(id)], holds.iter().map(|hold| &hold.key));
        let rules = warn_rules(holds.iter().map(|hold| &hold.warn_at));
        let attempt = attempt.map(|attempt| numbers_of_attempt(&attempt)).unwrap_or_default();
        let run = |server: Duration| {
            let mut arguments = vec![holds.len().to_string(), rules.clone(), attempt.clone()];
            for hold in &holds {
                arguments.extend([
                    key_name::window_at(&hold.key.window, server),
                    amount(hold.amount.max(1)),
                    amount(hold.max),
                    hold.ttl.min(YEAR).as_millis().to_string(),
                    flag(hold.enforced),
                    charge_at(hold, server),
                    lease_use(&hold.lease),
                ]);
            }
            self.run_in_batch(&self.batches.reserve, &keys, arguments, now)
        };
        let mut answer = self.run_by_calendar(now, run).await?;
        let admitted = answer.next()? > 0;
        let idempotency = match answer.next()? {
            0 => Idempotency::First,
            1 => Idempotency::Repeated,
            _ => Idempotency::Late,
        };
        let statuses = answer.statuses(holds.iter().map(|hold| (hold.max, hold.enforced)))?;
        self.report(answer, holds.iter().map(|hold| &hold.key))?;
        Ok(LedgerOutcome { admitted, idempotency, statuses })
    }

    /// Ends a reservation and makes its charges.
    async fn settle(&self, id: &str, charges: Vec<Charge>, now: Moment) -> Result<SettledPart, Unavailable> {
        let all = charges.iter().map(|charge| (charge, None));
        let mut answer = self.end(id, None, all, now).await?;
        let settled = match answer.next()? {
            0 => Settled::Released,
            1 => Settled::Charged,
            _ => Settled::AlreadySettled,
        };
        let shards = answer.shards()?;
        self.report(answer, charges.iter().map(|charge| &charge.key))?;
        Ok(SettledPart { settled, shards })
    }

    /// Ends a reservation. If it created a result, some of its charges are deferred.
    async fn end<'a>(
        &self,
        id: &str,
        result: Option<&StoredResult>,
        charges: impl Iterator<Item = (&'a Charge, Option<DeferredCharge>)> + Clone,
        now: Moment,
    ) -> Result<ScriptReply, Unavailable> {
        let keys =
            self.keys_of_call([self.names.reservation(id)], charges.clone().map(|(charge, _)| &charge.key));
        let stored = result.map(|result| stored(&result.id)).unwrap_or_default();
        let input = amount(result.map_or(0, |result| result.input));
        let rules = warn_rules(charges.clone().map(|(charge, _)| &charge.warn_at));
        let buckets = charges.clone().count().to_string();
        let run = |server: Duration| {
            let mut arguments = vec![buckets.clone(), stored.clone(), input.clone(), rules.clone()];
            for (charge, deferred) in charges.clone() {
                let deferred =
                    deferred.map(|deferred| numbers(deferred_numbers(&deferred))).unwrap_or_default();
                let window = key_name::window_at(&charge.key.window, server);
                let draw = lease_part(charge.draw.as_ref());
                arguments.extend([window, amount(charge.amount), deferred, draw]);
            }
            self.run_in_batch(&self.batches.commit, &keys, arguments, now)
        };
        self.run_by_calendar(now, run).await
    }

    /// Makes the thresholds available that a call's charges have reached.
    fn report<'a>(
        &self,
        mut reply: ScriptReply,
        buckets: impl Iterator<Item = &'a Arc<Key>> + Clone,
    ) -> Result<(), Unavailable> {
        let crossings = reply.crossings(buckets)?;
        crossings.into_iter().for_each(|crossing| self.crossings.push(crossing));
        Ok(())
    }

    /// Returns the keys of a function: the common keys, its own, and the buckets.
    fn keys<'a>(
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
    fn keys_of_call<'a>(
        &self,
        own: impl IntoIterator<Item = String>,
        buckets: impl IntoIterator<Item = &'a Arc<Key>>,
    ) -> Vec<String> {
        own.into_iter().chain(buckets.into_iter().map(|key| self.names.bucket(key))).collect()
    }

    /// Formats the room for counters as the functions read it.
    fn room(&self) -> String {
        let (total, each) = match self.capacity {
            Some(Capacity::Counters(total)) => (total, 1),
            Some(Capacity::Bytes(total)) => (total, 0),
            None => (self.room.load(Ordering::Relaxed), 0),
        };
        format!("{} {each} {}", total.min(MAX_AMOUNT), self.limits.load(Ordering::Relaxed).max(1))
    }

    /// Returns the server's used memory and its maximum, if it has one.
    async fn memory(&self) -> Result<Option<StorageBytes>, Unavailable> {
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
    async fn sweep_some(&self, at_most: usize, now: Moment) -> Result<Swept, Unavailable> {
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
}

struct Swept {
    now: Duration,
    more: bool,
    size: LedgerSize,
}

#[tonic::async_trait]
impl Ledger for RedisLedger {
    async fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        self.hold(id, holds, None, now).await
    }

    async fn raise(&self, id: &str, holds: Vec<RaisedHold>, now: Moment) -> Result<Raised, Unavailable> {
        let keys = self.keys([self.names.reservation(id)], holds.iter().map(|hold| &hold.key));
        let mut arguments = vec![self.time(now)];
        for hold in &holds {
            arguments.extend([amount(hold.total), amount(hold.max), flag(hold.enforced)]);
        }
        Ok(match self.run(Function::Raise, &keys, &arguments).await?.next()? {
            0 => Raised::Held,
            1 => Raised::OutOfRoom,
            _ => Raised::Unknown,
        })
    }

    async fn commit(&self, id: &str, charges: Vec<Charge>, now: Moment) -> Result<Settled, Unavailable> {
        Ok(self.settle(id, charges, now).await?.settled)
    }

    async fn park(
        &self,
        id: &str,
        result: StoredResult,
        charges: Vec<CreationCharge>,
        now: Moment,
    ) -> Result<Parking, Unavailable> {
        let all = charges.iter().map(|one| (&one.charge, one.deferred));
        let mut answer = self.end(id, Some(&result), all, now).await?;
        let parking = answer.next()?;
        answer.shards()?;
        let parking = match parking {
            2 => Parking::AlreadySettled,
            3 => {
                let seen = answer.deferred(charges.iter().filter(|one| one.deferred.is_some()))?;
                Parking::Parked(seen)
            }
            _ => Parking::Charged,
        };
        self.report(answer, charges.iter().map(|one| &one.charge.key))?;
        Ok(parking)
    }

    async fn see(&self, sighting: Sighting, now: Moment) -> Result<Seen, Unavailable> {
        let Sighting { id, usage, is_partial, ends } = &sighting;
        let numbers_of_usage = [
            u64::from(*is_partial),
            usage.input,
            usage.cached,
            usage.cache_write,
            usage.cache_write_1h,
            usage.output,
            usage.reasoning,
            usage.total,
            u64::from(*ends),
        ];
        // Only the result's record contains the periods to charge. The server replies with them if they are
        // missing.
        let mut periods: Vec<Window> = Vec::new();
        for _ in 0..=clock::ATTEMPTS {
            let mut arguments = vec![self.time(now), stored(id), self.room(), numbers(numbers_of_usage)];
            let server = self.server.time(now);
            arguments.extend(periods.iter().map(|period| key_name::window_at(period, server)));
            let told: Vec<String> = self.link.run(Function::See, &self.keys([], []), &arguments).await?;
            if let [first, server, missing @ ..] = told.as_slice()
                && first == "-1"
            {
                self.server.learn(server.parse().unwrap_or_default(), now);
                periods = missing.iter().filter_map(|name| key_text::window_named(name)).collect();
                continue;
            }
            let end = told.iter().position(String::is_empty).unwrap_or(told.len());
            let (charged, crossed) = told.split_at_checked(end).unwrap_or((told.as_slice(), &[]));
            for [name, numbers @ ..] in crossed.get(1..).unwrap_or_default().as_chunks::<6>().0 {
                let numbers = numbers.each_ref().map(|number| number.parse().unwrap_or_default());
                let key = key_name::key(name).map(Arc::new);
                let crossing = key.and_then(|key| crossing(key, numbers));
                crossing.into_iter().for_each(|crossing| self.crossings.push(crossing));
            }
            let Some((input, rates)) = charged.split_first() else { return Ok(Seen::default()) };
            let rate = |[name, more, total]: &[String; 3]| {
                Some((Arc::new(key_name::key(name)?), more.parse().ok()?, total.parse().ok()?))
            };
            let rates: Vec<(Arc<Key>, u64, u64)> = rates.as_chunks::<3>().0.iter().filter_map(rate).collect();
            let charged = rates.iter().filter(|(_, more, _)| *more > 0);
            let charged = charged.map(|(key, more, _)| (Arc::clone(key), *more)).collect();
            let charges = rates.into_iter().map(|(key, _, total)| (key, total)).collect();
            let usage = sighting.usage_with(input.parse().unwrap_or_default());
            return Ok(Seen { charged, result: Some(ResultCharges { usage, charges }) });
        }
        Err(clock::jumps())
    }

    async fn hit(&self, hits: Vec<Hit>, now: Moment) -> Result<LedgerOutcome, Unavailable> {
        let keys = self.keys_of_call([], hits.iter().map(|hit| &hit.key));
        let rules = warn_rules(hits.iter().map(|hit| &hit.warn_at));
        let run = |server: Duration| {
            let mut arguments = vec![hits.len().to_string(), rules.clone()];
            for hit in &hits {
                arguments.extend([
                    key_name::window_at(&hit.key.window, server),
                    amount(hit.need.max(1)),
                    amount(hit.max),
                    amount(hit.charge),
                    flag(hit.when == When::Always),
                    flag(hit.enforced),
                ]);
            }
            self.run_in_batch(&self.batches.hit, &keys, arguments, now)
        };
        let mut answer = self.run_by_calendar(now, run).await?;
        let admitted = answer.next()? > 0;
        let statuses = answer.statuses(hits.iter().map(|hit| (hit.max, hit.enforced)))?;
        self.report(answer, hits.iter().map(|hit| &hit.key))?;
        Ok(LedgerOutcome { admitted, idempotency: Idempotency::First, statuses })
    }

    async fn reset(&self, keys: Vec<Arc<Key>>, now: Moment) -> Result<Vec<Arc<Key>>, Unavailable> {
        let mut reset = Vec::new();
        for batch in keys.chunks(BATCH) {
            let mut answer = self.run(Function::Reset, &self.keys([], batch), &[self.time(now)]).await?;
            for key in batch {
                if answer.next()? > 0 {
                    reset.push(Arc::clone(key));
                }
            }
        }
        Ok(reset)
    }

    async fn grant(&self, grant: Grant, now: Moment) -> Result<Granted, Unavailable> {
        let Grant { key, amount: more, id } = grant;
        let keys = self.keys([self.names.bucket(&key), self.names.grant(&key, &id)], []);
        let remembered = GRANT_REMEMBERED.as_millis().to_string();
        let run = async |server: Duration| {
            let window = key_name::window_at(&key.window, server);
            let arguments = [self.time(now), self.room(), window, amount(more), remembered.clone()];
            self.run(Function::Grant, &keys, &arguments).await
        };
        let mut answer = self.run_by_calendar(now, run).await?;
        let is_repeated = match answer.next()? {
            0 => false,
            1 => true,
            _ => return Err(Unavailable::full("the limit has no room for another counter")),
        };
        let (used, held) = (answer.next()?, answer.next()?);
        let (leased, granted) = (answer.next()?, answer.next()?);
        let reset = Some(Duration::from_millis(answer.next()?)).filter(|reset| !reset.is_zero());
        Ok(Granted { reading: CounterReading { key, used, held, leased, granted, reset }, is_repeated })
    }

    async fn read(&self, keys: &[Arc<Key>], now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        let names = self.keys([], keys);
        let run = async |server: Duration| {
            let windows = keys.iter().map(|key| key_name::window_at(&key.window, server));
            let arguments: Vec<_> = [self.time(now), self.room()].into_iter().chain(windows).collect();
            self.run(Function::Read, &names, &arguments).await
        };
        let mut answer = self.run_by_calendar(now, run).await?;
        let reading = |key: &Arc<Key>| {
            let overflows = answer.next()? > 0;
            let key = if overflows { Arc::new(key.overflow()) } else { Arc::clone(key) };
            let (used, held) = (answer.next()?, answer.next()?);
            let (leased, granted) = (answer.next()?, answer.next()?);
            let reset = Some(Duration::from_millis(answer.next()?));
            Ok(CounterReading { key, used, held, leased, granted, reset })
        };
        keys.iter().map(reading).collect()
    }

    async fn readings(&self, now: Moment) -> Result<Vec<CounterReading>, Unavailable> {
        let now = self.sweep_some(0, now).await?.now;
        let all = self.names.own("buckets");
        let (mut readings, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let asked = ["ZSCAN", &all, &cursor, "COUNT", &BATCH.to_string()];
            let (next, page): (String, Vec<(String, f64)>) = self.link.ask(&asked).await?;
            let names: Vec<_> = page.iter().map(|(name, _)| name.as_str()).collect();
            if !names.is_empty() {
                // Sliding windows have slots.
                let slots: Vec<_> = names.iter().map(|name| key_name::slots(name)).collect();
                let of_slots = slots.iter().flatten().flat_map(|(names, _)| names).map(String::as_str);
                let asked: Vec<_> =
                    std::iter::once("MGET").chain(names.iter().copied()).chain(of_slots).collect();
                let mut records: Vec<Option<String>> = self.link.ask(&asked).await?;
                let mut of_slots = records.split_off(names.len().min(records.len())).into_iter();
                let amended: Vec<_> = names.iter().map(|name| self.names.amendment(name)).collect();
                let asked: Vec<_> =
                    std::iter::once("MGET").chain(amended.iter().map(String::as_str)).collect();
                let amended: Vec<Option<String>> = self.link.ask(&asked).await?;
                let leases = self.names.own("leased");
                let asked: Vec<_> =
                    ["HMGET", leases.as_str()].into_iter().chain(names.iter().copied()).collect();
                let leased: Vec<Option<u64>> = self.link.ask(&asked).await?;
                let records = names.iter().zip(records).zip(&slots).zip(amended.into_iter().zip(leased));
                for (((name, record), slots), (amended, leased)) in records {
                    let sliding = slots.as_ref().map(|(_, length)| {
                        let records: Vec<String> = of_slots.by_ref().take(2).flatten().collect();
                        slots_used(&records.join(";"), *length, now)
                    });
                    let further = (amended.unwrap_or_default(), leased.unwrap_or_default());
                    let further = (further.0.as_str(), further.1);
                    readings.extend(record.and_then(|record| reading(name, &record, sliding, further, now)));
                }
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        // SCAN may return a key twice.
        readings.sort_by(|a, b| a.key.cmp(&b.key));
        readings.dedup_by(|a, b| a.key == b.key);
        Ok(readings)
    }

    async fn size(&self) -> Result<LedgerSize, Unavailable> {
        let size = self.sweep_some(0, Moment::now()).await?.size;
        Ok(LedgerSize { bytes: self.memory().await?, ..size })
    }

    async fn sweep(&self, now: Moment) -> Result<(), Unavailable> {
        while self.sweep_some(BATCH, now).await?.more {}
        if self.capacity.is_none() {
            self.memory().await?;
        }
        Ok(())
    }

    async fn ready(&self) -> Result<(), Unavailable> {
        self.run(Function::Ready, &self.keys([], []), &[]).await.map(drop)
    }

    /// Every call waits for the server.
    async fn durable(&self) -> Result<(), Unavailable> {
        Ok(())
    }

    fn durability(&self) -> Durability {
        Durability::Elsewhere
    }

    fn counting_since(&self) -> Option<Duration> {
        None
    }

    fn take_crossings(&self) -> Vec<Crossing> {
        self.crossings.take()
    }

    async fn recall(&self, buckets: &[u64]) {
        self.link.recall(buckets).await;
    }

    fn recalls(&self) -> Arc<Recalls> {
        self.link.recalls()
    }

    fn share_among(&self, limits: usize) {
        self.limits.store(limits, Ordering::Relaxed);
    }

    async fn attend(&self, workers: &[String], lives: Duration, now: Moment) -> Result<(), Unavailable> {
        let mut arguments = vec![self.time(now), lives.as_millis().to_string()];
        arguments.extend(workers.iter().filter(|worker| is_worker(worker)).cloned());
        self.run(Function::Attend, &self.keys([self.names.workers()], []), &arguments).await.map(drop)
    }

    async fn release_gone(&self, now: Moment) -> Result<usize, Unavailable> {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    /// Returns the commands that these sources call.
    fn commands<'s>(source: &'s str, call: &str) -> BTreeSet<&'s str> {
        source.split(call).skip(1).filter_map(|rest| rest.split(['\'', '"']).next()).collect()
    }

    #[test]
    fn the_probe_calls_every_command() {
        let probe = commands(include_str!("probe.lua"), "redis.call('");
        let mut used = BTreeSet::new();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ledger/redis");
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "lua") {
                continue;
            }
            let source = fs::read_to_string(path).unwrap();
            used.extend(commands(&source, "redis.call('").into_iter().map(str::to_owned));
        }
        // `readings` calls these directly.
        used.extend(["ZSCAN", "MGET"].map(str::to_owned));
        let probe: BTreeSet<_> = probe.into_iter().map(str::to_owned).collect();
        assert_eq!(probe, used);
    }
}
