//! Who may use how much: holds and charges, by bucket. What every storage must do; [`memory`] is the one in
//! this process, [`redis`] the one that several adapters share.
//!
//! Nothing here knows policies: a hold brings its maximum. Time is an argument, which a storage with a clock of its own
//! leaves aside. All amounts saturate. A bucket of [`Window::Now`] is a gauge: only held, never charged.

pub mod calendar;
pub mod memory;
pub mod moment;
#[cfg(feature = "redis")]
pub mod redis;
pub mod shares;
pub mod stored;

use moment::Moment;
use policy::model::{Unit, Window};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use stored::{CreationCharge, Parking, SeenCharges, Sighting, StoredResult};

/// One bucket: what is counted, for whom. A rate's maximum is no part of it, so changing that keeps the counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// "NAMESPACE/POLICY/LIMIT", or "NAMESPACE//COUNTERKEY".
    pub limit: Arc<str>,
    /// What is counted.
    pub unit: Unit,
    /// Over which time.
    pub window: Window,
    /// (counter expression's text, value), sorted.
    pub counters: Arc<[(String, String)]>,
}

/// The counters of an overflow bucket. No expression is empty, and the limiter takes no descriptor whose entry is, so no
/// caller's value is the same.
static OVERFLOW: LazyLock<Arc<[(String, String)]>> =
    LazyLock::new(|| Arc::from([(String::new(), "overflow".to_owned())]));

impl Key {
    /// The bucket in which all those of this rate are counted together for which there is no room.
    pub fn overflow(&self) -> Self {
        Self { counters: Arc::clone(&OVERFLOW), ..self.clone() }
    }

    /// Whether it is such a bucket.
    pub fn is_overflow(&self) -> bool {
        *self.counters == **OVERFLOW
    }

    /// How many bytes its texts have.
    pub fn text_len(&self) -> usize {
        self.counters.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum()
    }
}

/// An amount wanted before it is used.
#[derive(Clone, Debug)]
pub struct Hold {
    /// From which bucket.
    pub key: Arc<Key>,
    /// How much; 0 counts as 1.
    pub amount: u64,
    /// What the bucket may hold and have used in all.
    pub max: u64,
    /// How long the hold may live.
    pub ttl: Duration,
    /// When the amount is charged.
    pub charge_at: ChargeAt,
    /// Whether it is refused for want of room. If not, it is held and charged all the same.
    pub enforced: bool,
}

/// What a reservation under way has come to hold of a bucket.
#[derive(Clone, Debug)]
pub struct RaisedHold {
    /// Of which bucket.
    pub key: Arc<Key>,
    /// How much in all. Less than it holds changes nothing.
    pub total: u64,
    /// What the bucket may hold and have used in all.
    pub max: u64,
    /// Whether it matters that there is no room.
    pub enforced: bool,
}

/// What became of a raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// It is held, and every bucket that is enforced has room for it.
    Held,
    /// It is held, beyond the maximum of a bucket that is enforced.
    OutOfRoom,
    /// No hold of this id lives.
    Unknown,
}

/// When an amount is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChargeAt {
    /// By the commit; it is held until then.
    Commit,
    /// By the admission itself. A commit for the same bucket is charged only what it adds.
    Admission,
}

/// An amount that was used.
#[derive(Clone, Debug)]
pub struct Charge {
    /// From which bucket.
    pub key: Arc<Key>,
    /// How much.
    pub amount: u64,
}

/// A question and a charge in one, for protocols without holds.
#[derive(Clone, Debug)]
pub struct Hit {
    /// Which bucket.
    pub key: Arc<Key>,
    /// The bucket's maximum.
    pub max: u64,
    /// The room without which the bucket refuses; 0 counts as 1.
    pub need: u64,
    /// What to charge.
    pub charge: u64,
    /// When to charge it.
    pub when: When,
    /// Whether it is refused for want of room.
    pub enforced: bool,
}

/// When a hit is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// If no bucket of the call refuses: the use is still to come.
    Admitted,
    /// In any case: it has been used.
    Always,
}

/// How a bucket stands after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// This bucket had no room, and refuses.
    pub limited: bool,
    /// It had no room, and lets pass all the same: it is not enforced.
    pub excused: bool,
    /// Its maximum.
    pub max: u64,
    /// What is left, holds taken off; 0 in debt.
    pub remaining: u64,
    /// Until the window ends, or one that would begin now. A second for what is no matter of time.
    pub reset: Duration,
    /// What is charged; whatever else is not left is held, by this call and others.
    pub used: u64,
    /// The bucket is the overflow bucket of its limit, since there is no room for one of its own.
    pub overflowed: bool,
}

/// The answer to a reserve or a hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerOutcome {
    /// Every bucket that is enforced had room. If not, nothing is held and nothing charged.
    pub admitted: bool,
    /// Whether the id is new.
    pub idempotency: Idempotency,
    /// One per hold or hit, in order.
    pub statuses: Vec<Status>,
}

/// Whether a reservation id has been seen before, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// The first time.
    First,
    /// A repetition: what was granted stands.
    Repeated,
    /// The commit came first: admitted, nothing held.
    Late,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Let the holds go, and charged.
    Released,
    /// No hold of this id lives: charged alone.
    Charged,
    /// Nothing: the id was settled before.
    AlreadySettled,
}

/// One bucket as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterReading {
    /// Which.
    pub key: Arc<Key>,
    /// Charged in this window.
    pub used: u64,
    /// Held now.
    pub held: u64,
    /// Granted in this window, in addition to the maximum.
    pub granted: u64,
    /// Until the window ends; `None`: none has begun.
    pub reset: Option<Duration>,
}

/// Raises the maximum of one bucket until its window ends.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The bucket.
    pub key: Arc<Key>,
    /// How much to add to its maximum.
    pub amount: u64,
    /// Chosen by the caller. A repeated grant with the same id changes nothing.
    pub id: String,
}

/// The bucket of a grant after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The bucket.
    pub reading: CounterReading,
    /// Whether a grant with this id was made before.
    pub is_repeated: bool,
}

/// How much the ledger remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerSize {
    /// Buckets with usage or holds.
    pub counters: usize,
    /// What the storage has of room: taken and in all, in bytes. In memory, what counters take; in Redis, all that it has
    /// stored. `None`: it sets no limit.
    pub bytes: Option<StorageBytes>,
    /// Reservations that wait for their commit.
    pub reservations: usize,
    /// Their holds.
    pub holds: usize,
    /// Settled ids that are remembered so that a replay does nothing. `None`: the storage does not count them.
    pub settled: Option<usize>,
    /// Settled ids that had to be forgotten before their time.
    pub forgotten: u64,
}

/// How full a storage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageBytes {
    /// So many are taken.
    pub used: u64,
    /// So many may be.
    pub most: u64,
}

/// Why the ledger cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// It has no memory left to hold anything.
    #[error("the counter storage is full: {0}")]
    Full(String),
    /// It failed.
    #[error("the counter storage failed: {0}")]
    Storage(String),
}

/// A settlement without charges is remembered for so long: until no reserve can come any more that was sent before.
pub const REMEMBERED_BRIEFLY: Duration = Duration::from_secs(10);

/// How long the id of a grant is remembered after the grant has ended.
pub const GRANT_REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether repeating a commit would charge nothing.
pub fn is_empty(charges: &[Charge]) -> bool {
    charges.iter().all(|charge| charge.amount == 0 || charge.key.window == Window::Now)
}

/// The worker that a reservation is of, by its id; `None`: the caller is no worker of ours.
pub fn worker_of(id: &str) -> Option<&str> {
    id.split_once('-').map(|(worker, _)| worker).filter(|worker| is_worker(worker))
}

/// Whether this can be the name of a worker: 128 bits in hexadecimal digits.
pub fn is_worker(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Counts and holds. Every call is atomic: no other call sees half of it.
#[tonic::async_trait]
pub trait Ledger: Send + Sync {
    /// Holds every amount, or none. `id` is the caller's; repeating a call holds nothing twice. A refused id is not
    /// remembered: a repetition asks again.
    async fn reserve(&self, id: &str, holds: Vec<Hold>, now: Moment) -> Result<LedgerOutcome, Unavailable>;
    /// Raises the holds of a reservation that has come to use more, whether there is room or not: what is used is used. It
    /// lowers nothing, lives as long as it would have, and does nothing to an id that is settled or unknown, so repeating
    /// it changes nothing.
    async fn raise(&self, id: &str, holds: Vec<RaisedHold>, now: Moment) -> Result<Raised, Unavailable>;
    /// Ends a reservation: its holds go, `charges` are charged, once. An unknown id is charged as well, and a later
    /// reserve of it holds nothing. An empty id cannot be remembered; one without charges is remembered only for as long as
    /// its reserve may still come, since repeating it changes nothing.
    async fn commit(&self, id: &str, charges: Vec<Charge>, now: Moment) -> Result<Settled, Unavailable>;
    /// Ends a reservation that created a result in the background. What is deferred goes on holding, for as long as it would
    /// have, until the result is seen; everything else is charged. The holds are no longer the worker's. Repeating it
    /// changes nothing.
    async fn park(
        &self,
        id: &str,
        result: StoredResult,
        charges: Vec<CreationCharge>,
        now: Moment,
    ) -> Result<Parking, Unavailable>;
    /// Somebody has seen a result: what was deferred is charged, unless it was before. Repeating it changes nothing, and a
    /// result that nobody created is remembered for [`stored::EARLY`].
    async fn see(&self, sighting: Sighting, now: Moment) -> Result<SeenCharges, Unavailable>;
    /// Asks and charges without a hold.
    async fn hit(&self, hits: Vec<Hit>, now: Moment) -> Result<LedgerOutcome, Unavailable>;
    /// Resets buckets: their charges and grants are gone, and their windows start anew. Holds stay. Returns the buckets
    /// that had a charge or a grant.
    async fn reset(&self, keys: Vec<Arc<Key>>, now: Moment) -> Result<Vec<Arc<Key>>, Unavailable>;
    /// Raises the maximum of a bucket until its window ends. Starts the window if none is running. An id is remembered
    /// for [`GRANT_REMEMBERED`] after the window ends.
    async fn grant(&self, grant: Grant, now: Moment) -> Result<Granted, Unavailable>;
    /// The buckets in which these keys are counted now, in order. Their `reset` is never absent: without a window, it is that of
    /// one that would begin now. Changes nothing.
    async fn read(&self, keys: &[Arc<Key>], now: Moment) -> Result<Vec<CounterReading>, Unavailable>;
    /// Every bucket, in no order.
    async fn readings(&self, now: Moment) -> Result<Vec<CounterReading>, Unavailable>;
    /// How much there is. Fails if the storage does not answer.
    async fn size(&self) -> Result<LedgerSize, Unavailable>;
    /// Forgets what is over. To be called about once a second; nothing is wrong in between, only larger.
    async fn sweep(&self, now: Moment) -> Result<(), Unavailable>;
    /// Fails if no hold can be taken now.
    async fn ready(&self) -> Result<(), Unavailable>;
    /// So many limits are in force: each has a part of the room for counters.
    fn share_among(&self, limits: usize);
    /// These workers live, and will for so long. A worker is named by what the ids of its reservations begin with.
    async fn attend(&self, workers: &[String], lives: Duration, now: Moment) -> Result<(), Unavailable>;
    /// Ends the holds of the workers whose time is over: they are gone. What they charged stays, and a commit of theirs that
    /// comes after all is charged. How many reservations ended.
    async fn release_gone(&self, now: Moment) -> Result<usize, Unavailable>;
}
