//! The leases of one bucket.

use policy::model::Unit;
use policy::plan::Hold;
use protocol::call::Entries;
use protocol::wire::envoy::extensions::common::ratelimit::v3::LeaseDraw;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::DescriptorStatus;
use std::collections::VecDeque;

/// How many reviews the leases should last: 4 s. Another one is requested when what is left would last for less than
/// 3 s, so the worker can do without the adapter for that long.
const FULL: u64 = 16;
const LOW: u64 = 12;
/// The slots to request at first, if the bucket counts requests that run at once.
const FIRST_SLOTS: u64 = 8;
/// A bucket without requests for this many reviews returns its leases: 2 s.
const IDLE: u32 = 8;
/// How many reviews to wait after the first refused lease: 1 s. It doubles up to 64 s.
const PAUSE: u32 = 4;
const LONGEST_PAUSE: u32 = 256;
/// How many reviews to wait after a recall: 5 s.
const RECALL_PAUSE: u32 = 20;

/// The leases of one bucket, and what the worker knows about it.
#[derive(Debug)]
pub(super) struct LeasedBucket {
    pub entries: Entries,
    /// The maximum of the rate. Requests with another maximum have to ask.
    max: u64,
    /// The maximum for the adapter, if it cannot know it.
    pub max_to_tell: Option<u64>,
    /// The adapter's number of the bucket.
    pub counter: Option<u64>,
    /// From oldest to newest.
    leases: VecDeque<BucketLease>,
    /// The state of the bucket when the last lease was granted.
    status: DescriptorStatus,
    /// When that was, in milliseconds.
    status_at: u64,
    /// The amount charged since.
    charged: u64,
    /// The number of requests since the last review.
    requests: u64,
    /// The amount that has left the leases since the last review.
    spent: u64,
    /// The amount that leaves the leases between two reviews, on average.
    rate: u64,
    /// What running requests have taken from the leases, now and at most in recent reviews. What they do not use
    /// comes back.
    taken: u64,
    peak: u64,
    /// The number of reviews without a request.
    idle: u32,
    /// Whether a lease is requested and not yet granted or refused.
    pub is_asking: bool,
    /// The number of reviews before another lease may be requested.
    pause: u32,
    /// The last pause after a refusal.
    last_pause: u32,
}

/// One lease.
#[derive(Debug)]
struct BucketLease {
    /// The number in its reservation id.
    number: u64,
    /// What is left for requests.
    room: u64,
    /// When it is no longer used, in milliseconds.
    until: u64,
}

/// A lease that is no longer used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClosedLease {
    pub number: u64,
    /// What was left of it.
    pub room: u64,
}

impl LeasedBucket {
    /// Creates the state of a bucket without leases. `amount` is what requests have taken in a second.
    pub fn new(hold: &Hold, amount: u64) -> Self {
        // Slots come back when their requests end, and it is not known yet when that is.
        let (rate, peak) = match hold.rate.rate.unit {
            Unit::Concurrency => (0, FIRST_SLOTS),
            _ => (amount.div_ceil(u64::from(PAUSE)), 0),
        };
        Self {
            entries: hold.entries.clone(),
            max: hold.max,
            max_to_tell: hold.rate.rate.max.fixed().is_none().then_some(hold.max),
            counter: None,
            leases: VecDeque::new(),
            status: DescriptorStatus::default(),
            status_at: 0,
            charged: 0,
            requests: 1,
            spent: 0,
            rate,
            taken: 0,
            peak,
            idle: 0,
            is_asking: false,
            pause: 0,
            last_pause: 0,
        }
    }

    /// The size in memory, in bytes, with the key of the table.
    pub fn size(&self) -> usize {
        size_of::<Self>().saturating_add(self.entries.size().saturating_mul(2)).saturating_add(512)
    }

    fn room(&self) -> u64 {
        self.leases.iter().map(|lease| lease.room).fold(0, u64::saturating_add)
    }

    /// Takes the amount of a hold from the oldest lease that has enough room.
    pub fn take(&mut self, hold: &Hold, now: u64) -> Option<LeaseDraw> {
        if hold.max != self.max {
            return None;
        }
        let amount = hold.amount;
        let lease = self.leases.iter_mut().find(|lease| lease.room >= amount && lease.until > now)?;
        lease.room = lease.room.saturating_sub(amount);
        self.requests = self.requests.saturating_add(1);
        self.taken = self.taken.saturating_add(amount);
        self.peak = self.peak.max(self.taken);
        Some(LeaseDraw { lease: lease.number, amount })
    }

    /// Notes a request that found no room in the leases.
    pub fn missed(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// Gives back what a request has taken, except for what it has used.
    pub fn end(&mut self, draw: LeaseDraw, used: u64) {
        self.taken = self.taken.saturating_sub(draw.amount);
        self.spent = self.spent.saturating_add(used);
        if let Some(lease) = self.leases.iter_mut().find(|lease| lease.number == draw.lease) {
            lease.room = lease.room.saturating_add(draw.amount.saturating_sub(used));
        }
    }

    /// Notes a charge.
    pub fn charge(&mut self, amount: u64) {
        self.charged = self.charged.saturating_add(amount);
    }

    /// Returns the state of the bucket for the client, as far as the worker knows it.
    pub fn status(&self, now: u64) -> DescriptorStatus {
        let used = self.status.used.map(|used| used.saturating_add(self.charged));
        DescriptorStatus {
            code: Code::Ok.into(),
            remaining: self.status.remaining.saturating_add(self.room()),
            reset_ms: self.status.reset_ms.saturating_sub(now.saturating_sub(self.status_at)),
            used,
            ..self.status
        }
    }

    /// Adds a lease that may be used until this time.
    pub fn granted(
        &mut self,
        number: u64,
        room: u64,
        counter: u64,
        status: DescriptorStatus,
        (now, until): (u64, u64),
    ) {
        self.leases.push_back(BucketLease { number, room, until });
        (self.counter, self.status, self.status_at, self.charged) = (Some(counter), status, now, 0);
        (self.is_asking, self.pause, self.last_pause) = (false, 0, 0);
    }

    /// Notes that no lease was granted.
    pub fn refused(&mut self) {
        self.is_asking = false;
        self.last_pause = self.last_pause.saturating_mul(2).clamp(PAUSE, LONGEST_PAUSE);
        self.pause = self.last_pause;
    }

    /// Returns the leases that have expired, or all if the bucket is idle. They are no longer used.
    pub fn review(&mut self, now: u64) -> Vec<ClosedLease> {
        self.pause = self.pause.saturating_sub(1);
        self.idle = if self.requests == 0 { self.idle.saturating_add(1) } else { 0 };
        self.rate = self.rate.saturating_mul(3).saturating_add(self.spent).div_ceil(4);
        self.peak = self.taken.max(self.peak.saturating_mul(3) / 4);
        (self.requests, self.spent) = (0, 0);
        match self.is_idle() {
            true => self.close(|_| true),
            false => self.close(|lease| lease.until <= now),
        }
    }

    /// Returns all leases, because others need their room. They are no longer used.
    pub fn recalled(&mut self) -> Vec<ClosedLease> {
        self.pause = self.pause.max(RECALL_PAUSE);
        self.close(|_| true)
    }

    /// Returns all leases, because they are no longer used.
    pub fn closed(&mut self) -> Vec<ClosedLease> {
        self.close(|_| true)
    }

    fn close(&mut self, is_over: impl Fn(&BucketLease) -> bool) -> Vec<ClosedLease> {
        let (over, left) = std::mem::take(&mut self.leases).into_iter().partition(is_over);
        self.leases = left;
        let over: VecDeque<BucketLease> = over;
        over.iter().map(|lease| ClosedLease { number: lease.number, room: lease.room }).collect()
    }

    fn is_idle(&self) -> bool {
        self.idle >= IDLE
    }

    /// Whether nothing has to be remembered.
    pub fn is_over(&self) -> bool {
        self.is_idle() && self.leases.is_empty() && !self.is_asking && self.pause == 0
    }

    /// Returns how much to request, if a lease should be requested now.
    pub fn wanted(&self) -> Option<u64> {
        let room = self.room();
        let wants = !self.is_asking && self.pause == 0 && !self.is_idle();
        let enough = |reviews: u64| self.rate.saturating_mul(reviews).saturating_add(self.peak);
        (wants && room < enough(LOW)).then(|| enough(FULL).saturating_sub(room))
    }
}
