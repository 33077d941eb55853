//! Holds and charges per bucket, and the trait that every storage implements. [`memory`] keeps the buckets in
//! this process; [`redis`] keeps them in a Redis that several adapters share.
//!
//! The ledger does not know policies; each hold carries its maximum. The caller passes the time, and a
//! storage that has its own clock ignores it. Arithmetic on amounts saturates. A bucket of [`Window::Now`] is
//! a gauge: it is held but never charged.

pub mod calendar;
pub mod crossing;
pub mod fault;
pub mod key_text;
pub mod memory;
pub mod moment;
pub mod own_ids;
pub mod recalls;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "redis")]
pub mod sharded;
pub mod shares;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod stored;

pub use fault::{StorageFault, Unavailable};

use crossing::{Crossing, WarnAt};
use moment::Moment;
use policy::model::{Unit, Window};
use recalls::Recalls;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use stored::{CreationCharge, Parking, Seen, Sighting, StoredResult};

/// The key of a bucket: what is counted, and for whom. It does not include the maximum, so changing the
/// maximum keeps the counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// "NAMESPACE/POLICY/LIMIT", or "NAMESPACE//COUNTERKEY".
    pub limit: Arc<str>,
    pub unit: Unit,
    pub window: Window,
    /// Pairs of a counter expression's text and its value, sorted.
    pub counters: Arc<[(String, String)]>,
}

/// The counters of an overflow bucket. Expressions are never empty, and the limiter rejects descriptors with
/// an empty entry, so no caller can produce this key.
static OVERFLOW: LazyLock<Arc<[(String, String)]>> =
    LazyLock::new(|| Arc::from([(String::new(), "overflow".to_owned())]));

impl Key {
    /// Returns the overflow bucket of this rate. It counts all keys for which the limit has no room.
    pub fn overflow(&self) -> Self {
        Self { counters: Arc::clone(&OVERFLOW), ..self.clone() }
    }

    /// Returns whether this is the key of an overflow bucket.
    pub fn is_overflow(&self) -> bool {
        *self.counters == **OVERFLOW
    }

    /// Returns the total length of the counters' names and values, in bytes.
    pub fn text_len(&self) -> usize {
        self.counters.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum()
    }
}

/// An amount that is reserved before it is used.
#[derive(Clone, Debug)]
pub struct Hold {
    pub key: Arc<Key>,
    /// The amount; 0 counts as 1.
    pub amount: u64,
    /// The maximum for the sum of held and used amounts in the bucket.
    pub max: u64,
    /// The lifetime of the hold.
    pub ttl: Duration,
    pub charge_at: ChargeAt,
    /// Whether the call is refused if there is no room. If false, the amount is held and charged anyway.
    pub enforced: bool,
    /// The thresholds that a charge at admission may reach.
    pub warn_at: Option<WarnAt>,
    pub lease: LeaseUse,
}

/// How a hold relates to leases. A lease is a reservation of one bucket, from which its worker admits requests
/// without a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LeaseUse {
    /// Not at all.
    #[default]
    None,
    /// The hold is a lease.
    Lease,
    /// The amount, or part of it, comes out of a lease.
    Draw(LeasePart),
}

/// An amount that comes out of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasePart {
    /// The reservation id of the lease.
    pub lease: String,
    /// The amount. If the lease has less, it comes out of the room of the bucket.
    pub amount: u64,
}

/// The new total that a live reservation holds in one bucket.
#[derive(Clone, Debug)]
pub struct RaisedHold {
    pub key: Arc<Key>,
    /// The total to hold. If it is lower than the current total, nothing changes.
    pub total: u64,
    /// The maximum for the sum of held and used amounts in the bucket.
    pub max: u64,
    /// Whether lack of room is reported.
    pub enforced: bool,
}

/// The outcome of a raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// The amounts are held, and every enforced bucket has room for them.
    Held,
    /// The amounts are held, and an enforced bucket exceeds its maximum.
    OutOfRoom,
    /// The reservation has no live hold.
    Unknown,
}

/// When an amount is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChargeAt {
    /// At the commit. The amount is held until then. If the hold lapses, it is released.
    Commit,
    /// At the commit. The amount is held until then. If the hold lapses, it is charged, because the caller may
    /// have used it. A commit that arrives later charges or refunds the difference.
    CommitOrLapse,
    /// At admission. The commit charges only the difference for the same bucket.
    Admission,
}

/// An amount that was used.
#[derive(Clone, Debug)]
pub struct Charge {
    pub key: Arc<Key>,
    pub amount: u64,
    /// The thresholds that the charge may reach.
    pub warn_at: Option<WarnAt>,
    /// What leaves a lease with this charge, unless the reservation is known: then it has taken its part already.
    pub draw: Option<LeasePart>,
}

/// A check and a charge in one call, for protocols without holds.
#[derive(Clone, Debug)]
pub struct Hit {
    pub key: Arc<Key>,
    pub max: u64,
    /// The required room; 0 counts as 1.
    pub need: u64,
    /// The amount to charge.
    pub charge: u64,
    pub when: When,
    /// Whether the call is refused if there is no room.
    pub enforced: bool,
    /// The thresholds that the charge may reach.
    pub warn_at: Option<WarnAt>,
}

/// When a hit is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Only if no bucket refuses the call, because the usage has not happened yet.
    Admitted,
    /// Always, because the usage has already happened.
    Always,
}

/// The status of a bucket after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The bucket had no room, so the call is refused.
    pub limited: bool,
    /// The bucket had no room, but its rate is not enforced.
    pub excused: bool,
    pub max: u64,
    /// The maximum minus usage and holds; 0 if the bucket is in debt.
    pub remaining: u64,
    /// The time until the window ends. If no window is running, the time until a window that starts now would
    /// end. One second if the unit has no window.
    pub reset: Duration,
    /// The charged amount. The remainder of `max - remaining` is held.
    pub used: u64,
    /// Whether this is the limit's overflow bucket. It is used if there is no room for a separate bucket.
    pub overflowed: bool,
    /// The part of the held amount that is in leases. Only known if the bucket refuses the call.
    pub leased: u64,
}

/// The answer to a reserve or a hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerOutcome {
    /// Whether every enforced bucket had room. If not, nothing is held or charged.
    pub admitted: bool,
    pub idempotency: Idempotency,
    /// One status per hold or hit, in order.
    pub statuses: Vec<Status>,
}

/// Whether a reservation id is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// The id is new.
    First,
    /// The id already has holds. They stay unchanged.
    Repeated,
    /// The commit arrived first. The call is admitted and holds nothing.
    Late,
}

/// The outcome of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The holds are released, and the charges are made.
    Released,
    /// There was no live hold. The charges are made.
    Charged,
    /// The reservation was settled before. Nothing changes.
    AlreadySettled,
}

/// The state of a bucket for the list of counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterReading {
    pub key: Arc<Key>,
    /// The amount charged in this window.
    pub used: u64,
    /// The amount held now.
    pub held: u64,
    /// The part of `held` that is in leases.
    pub leased: u64,
    /// The amount granted in this window, in addition to the maximum.
    pub granted: u64,
    /// The time until the window ends. `None` if no window is running.
    pub reset: Option<Duration>,
}

/// Raises the maximum of one bucket until its window ends.
#[derive(Clone, Debug)]
pub struct Grant {
    pub key: Arc<Key>,
    /// The amount to add to the maximum.
    pub amount: u64,
    /// The caller chooses the id. Repeating a grant with the same id changes nothing.
    pub id: String,
}

/// The state of a bucket after a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub reading: CounterReading,
    /// Whether a grant with this id was made before.
    pub is_repeated: bool,
}

/// The size of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerSize {
    /// Buckets with usage or holds.
    pub counters: usize,
    /// The used and available bytes. In memory, these are the bytes for counters; in Redis, the bytes for
    /// everything that the server stores. `None` if the storage has no limit.
    pub bytes: Option<StorageBytes>,
    /// Reservations without a commit.
    pub reservations: usize,
    /// The holds of these reservations.
    pub holds: usize,
    /// Settled ids that are remembered to recognise repeated commits. `None` if the storage does not count
    /// them.
    pub settled: Option<usize>,
    /// Settled ids that were dropped early.
    pub forgotten: u64,
    /// The holds that have lapsed.
    pub lapsed: LapsedTotals,
}

/// The holds that have ended without a commit, because they expired or their worker was gone. In memory, these
/// are counted since the start; in Redis, since its data was created, by all adapters together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LapsedTotals {
    /// The number of holds that were only released.
    pub released: u64,
    /// The number of holds that were charged.
    pub charged: u64,
    /// The charged tokens of all kinds.
    pub tokens: u64,
    /// The charged amount in micro-USD.
    pub micro_usd: u64,
}

impl LapsedTotals {
    pub fn plus(self, more: Self) -> Self {
        Self {
            released: self.released.saturating_add(more.released),
            charged: self.charged.saturating_add(more.charged),
            tokens: self.tokens.saturating_add(more.tokens),
            micro_usd: self.micro_usd.saturating_add(more.micro_usd),
        }
    }

    /// Counts a lapsed hold. `None` means that it was not charged.
    pub fn count(&mut self, charged: Option<(Unit, u64)>) {
        let Some((unit, amount)) = charged else {
            self.released = self.released.saturating_add(1);
            return;
        };
        self.charged = self.charged.saturating_add(1);
        let sum = match unit {
            Unit::Tokens | Unit::InputTokens | Unit::OutputTokens => &mut self.tokens,
            Unit::Usd => &mut self.micro_usd,
            Unit::Requests | Unit::Concurrency => return,
        };
        *sum = sum.saturating_add(amount);
    }
}

/// How full a storage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageBytes {
    pub used: u64,
    /// The available bytes.
    pub most: u64,
}

/// How long a settlement without charges is remembered. After this time, its reserve can no longer arrive.
pub const REMEMBERED_BRIEFLY: Duration = Duration::from_secs(10);

/// How long the id of a grant is remembered after the grant ends.
pub const GRANT_REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns whether repeating a commit would charge nothing.
pub fn is_empty(charges: &[Charge]) -> bool {
    charges.iter().all(|charge| charge.amount == 0 || charge.key.window == Window::Now)
}

/// Returns the worker that a reservation id names, or `None` if the caller is not a Weir worker.
pub fn worker_of(id: &str) -> Option<&str> {
    id.split_once('-').map(|(worker, _)| worker).filter(|worker| is_worker(worker))
}

/// Returns whether this can be the name of a worker: 128 bits in hexadecimal.
pub fn is_worker(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What the data of a storage survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A restart of this process forgets everything.
    UntilRestart,
    /// A restart of this process loses nothing that was acknowledged.
    Durable,
    /// Another process keeps the data, and its configuration decides.
    Elsewhere,
}

/// Stores holds and charges. Every call is atomic: no other call sees a partial change. In several shards, this
/// holds for each shard, and [`sharded`] describes what other calls may see.
#[tonic::async_trait]
pub trait Ledger: Send + Sync {
    /// Holds every amount, or none. The caller chooses `id`. Repeating a call does not hold anything twice. A
    /// refused id is not remembered, so a repeated call is decided again. What comes out of a lease leaves it with
    /// the first call.
    async fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<LedgerOutcome, Unavailable>;
    /// Raises the holds of a reservation that uses more than it holds, even if there is no room, because the
    /// amount is already used. A raise never lowers a hold or extends its lifetime. It ignores settled and
    /// unknown ids, so it can be repeated.
    async fn raise(&self, id: &str, holds: Vec<RaisedHold>, now: Moment) -> Result<Raised, Unavailable>;
    /// Ends a reservation: releases its holds and makes the charges once. An unknown id is charged as well,
    /// and a later reserve with this id holds nothing. An empty id cannot be remembered. An id without
    /// charges is remembered only until its reserve can no longer arrive, because repeating such a commit
    /// changes nothing.
    async fn commit(&self, id: &str, charges: Vec<Charge>, now: Moment) -> Result<Settled, Unavailable>;
    /// Ends a reservation that created a background result. Holds of deferred charges stay until the result
    /// is seen or the hold expires. Everything else is charged at once. The holds no longer belong to the
    /// worker. Repeating the call changes nothing.
    async fn park(
        &self,
        id: &str,
        result: StoredResult,
        charges: Vec<CreationCharge>,
        now: Moment,
    ) -> Result<Parking, Unavailable>;
    /// Records that a result was seen, and makes its deferred charges once. A result without a known creation
    /// is remembered for [`stored::EARLY`].
    async fn see(&self, sighting: Sighting, now: Moment) -> Result<Seen, Unavailable>;
    /// Checks and charges without a hold.
    async fn hit(&self, hits: Vec<Hit>, now: Moment) -> Result<LedgerOutcome, Unavailable>;
    /// Resets buckets: removes their charges and grants, and ends their windows. Holds stay. Returns the
    /// buckets that had a charge or a grant.
    async fn reset(&self, keys: Vec<Arc<Key>>, now: Moment) -> Result<Vec<Arc<Key>>, Unavailable>;
    /// Raises the maximum of a bucket until its window ends. Starts the window if none is running. The id is
    /// remembered for [`GRANT_REMEMBERED`] after the window ends.
    async fn grant(&self, grant: Grant, now: Moment) -> Result<Granted, Unavailable>;
    /// Returns the current reading of the bucket that counts each key, in order. `reset` is always present:
    /// if no window is running, it is that of a window that starts now. Changes nothing.
    async fn read(&self, keys: &[Arc<Key>], now: Moment) -> Result<Vec<CounterReading>, Unavailable>;
    /// Returns a reading of every bucket, in no particular order.
    async fn readings(&self, now: Moment) -> Result<Vec<CounterReading>, Unavailable>;
    /// Returns the size of the ledger. Fails if the storage does not answer.
    async fn size(&self) -> Result<LedgerSize, Unavailable>;
    /// Ends expired holds, and removes expired data. Call this about once a second. A late call costs memory,
    /// and holds count for longer. A hold whose window would be over by then is no longer charged.
    async fn sweep(&self, now: Moment) -> Result<(), Unavailable>;
    /// Fails if the storage cannot take holds now.
    async fn ready(&self) -> Result<(), Unavailable>;
    /// Waits until everything that earlier calls have changed survives a crash of this process. Do not
    /// acknowledge a charge before: a caller that repeats it after a failure must find it exactly once.
    async fn durable(&self) -> Result<(), Unavailable>;
    /// Returns what the data survives.
    fn durability(&self) -> Durability;
    /// Returns since when the storage has been counting without a loss, as time since 1970. `None` if the
    /// storage does not know.
    fn counting_since(&self) -> Option<Duration>;
    /// Removes and returns the thresholds that charges have reached. Each is returned once per bucket and
    /// window, over all ledgers that share the storage: by the ledger that made the charge. If the storage's
    /// reply to a charge is lost, its crossings are lost too.
    fn take_crossings(&self) -> Vec<Crossing>;
    /// Asks all workers that have leases of these buckets to return them, at whatever adapter they are. See
    /// [`Recalls`].
    async fn recall(&self, buckets: &[u64]);
    /// Returns what this and other ledgers with the same storage recall.
    fn recalls(&self) -> Arc<Recalls>;
    /// Sets the number of limits in force, each of which has a guaranteed share of the memory for counters.
    fn share_among(&self, limits: usize);
    /// Records that these workers are alive for this long. The name of a worker is the prefix of its
    /// reservation ids.
    async fn attend(&self, workers: &[String], lives: Duration, now: Moment) -> Result<(), Unavailable>;
    /// Ends the holds of workers that are gone as if they lapsed now, and returns the number of ended
    /// reservations. A commit that arrives later is settled as after a lapse.
    async fn release_gone(&self, now: Moment) -> Result<usize, Unavailable>;
}
