//! Leases: room in busy buckets from which a worker admits requests without asking the adapter. The adapter counts a
//! lease as held, so no limit is exceeded.
//!
//! A lease is a reservation. What its requests use leaves it when they are settled. A request that runs for longer gets
//! a reservation of its own, which takes its amount out of the lease: so its hold can grow, and the adapter knows what
//! it holds if the worker dies. A lease is used for a few seconds, and is then returned by the commit that ends any
//! reservation. It is returned earlier if the bucket is idle, the plan changes, or the adapter recalls it because
//! another caller has found no room.
//!
//! The shell calls [`Leases::review`] every [`REVIEW`] while [`Leases::are_used`]. Times are milliseconds of any clock
//! that does not run backwards.

mod bucket;
mod sightings;
#[cfg(test)]
mod tests;

use crate::outbox::Settlement;
use bucket::{ClosedLease, LeasedBucket};
use llm::memory::{Lease, MemoryBudget, Purpose};
use policy::plan::Hold;
use protocol::call::{self, CallFailure, Entries, Item};
use protocol::wire::envoy::extensions::common::ratelimit::v3::LeaseDraw;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{DescriptorStatus, ReserveResponse};
use sightings::Sightings;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The interval between two reviews, in milliseconds. A request that is still running at the second review after its
/// admission gets a reservation of its own.
pub const REVIEW: u64 = 250;

/// Sightings are counted for this many reviews: 1 s.
const PERIOD: u64 = 4;

/// The part of its lifetime during which a lease is used: the adapter's clock may run at another speed, and the
/// worker may be late.
const USED_PERCENT: u64 = 60;

/// The maximum number of buckets with leases. Clients choose the buckets.
const MAX_BUCKETS: usize = 4096;

/// The size in bytes at which a settlement that lists running requests is full.
const ADMITTED_SIZE: usize = 16 << 10;

/// The leases of one worker. Clones share them. The default has none and never gets any.
#[derive(Clone, Debug, Default)]
pub struct Leases(Option<Arc<Mutex<LeaseTable>>>);

/// A request for a lease.
#[derive(Debug, PartialEq, Eq)]
pub struct LeaseCall {
    /// The number in the lease's reservation id, which identifies the reply.
    pub number: u64,
    /// An encoded `ReserveRequest`.
    pub message: Vec<u8>,
}

/// What the adapter and the metrics have to know.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LeaseReport {
    /// Ends the leases, after their running requests have got reservations of their own.
    pub settlements: Vec<Settlement>,
    /// The amount that was leased and not used, in units of any kind.
    pub unused: u64,
    /// The number of requests that were admitted from leases since the last review.
    pub admitted: u64,
}

#[derive(Debug)]
struct LeaseTable {
    /// The prefix of the worker's reservation ids.
    worker: Arc<str>,
    buckets: BTreeMap<BucketNumber, LeasedBucket>,
    numbers: BTreeMap<Entries, BucketNumber>,
    last: BucketNumber,
    /// The requests that were admitted from leases, by the number in their reservation ids. The others have reservations
    /// of their own.
    admitted: BTreeMap<u64, AdmittedRequest>,
    /// The requested leases, by number: their bucket, and when they were requested.
    asked: BTreeMap<u64, (BucketNumber, u64)>,
    /// The number of requests that were admitted since the last review.
    admissions: u64,
    /// Whether the adapter grants leases.
    are_granted: bool,
    sightings: Sightings,
    reviews: u64,
    /// When the last review was.
    reviewed: u64,
    /// The time of the request that is judged.
    now: u64,
    memory: Lease,
}

/// Identifies a bucket of this worker.
type BucketNumber = u64;

/// A request that was admitted from leases.
#[derive(Debug)]
struct AdmittedRequest {
    /// The number of reviews at that time.
    review: u64,
    /// One for each hold.
    parts: Vec<AdmittedPart>,
}

#[derive(Debug)]
struct AdmittedPart {
    bucket: BucketNumber,
    draw: LeaseDraw,
    ttl: Duration,
}

impl Leases {
    /// Creates the leases of a worker with this prefix of reservation ids.
    pub fn new(worker: &Arc<str>, memory: &MemoryBudget) -> Self {
        Self(Some(Arc::new(Mutex::new(LeaseTable {
            worker: Arc::clone(worker),
            buckets: BTreeMap::new(),
            numbers: BTreeMap::new(),
            last: 0,
            admitted: BTreeMap::new(),
            asked: BTreeMap::new(),
            admissions: 0,
            are_granted: true,
            sightings: Sightings::default(),
            reviews: 0,
            reviewed: 0,
            now: 0,
            memory: memory.empty(Purpose::Record),
        }))))
    }

    /// Sets the time of the next calls of [`Self::admit`]. `now` is called only if there are leases.
    pub fn set_time(&self, now: impl FnOnce() -> u64) {
        let Some(mut table) = self.table().filter(|table| !table.buckets.is_empty()) else { return };
        table.now = now();
    }

    /// Admits the request with this number, if every hold has room in a lease. Returns the state of each bucket.
    /// Otherwise, the request has to ask the adapter, and the leases note that.
    pub fn admit(&self, number: u64, holds: &[Hold]) -> Option<Vec<DescriptorStatus>> {
        self.table()?.admit(number, holds)
    }

    /// Ends a request with these charges, one for each hold. Returns what leaves a lease with each charge. `None` if
    /// the request was not admitted from leases, or has a reservation of its own.
    pub fn settle(&self, number: u64, charges: &[u64]) -> Option<Vec<LeaseDraw>> {
        self.table()?.settle(number, charges)
    }

    /// Gives a running request a reservation of its own, if it has none yet.
    pub fn detach(&self, number: u64) -> Option<Settlement> {
        let mut table = self.table()?;
        let message = table.detach(number)?;
        Some(Settlement::new(call::admitted(&message)))
    }

    /// Whether [`Self::review`] has something to do.
    pub fn are_used(&self) -> bool {
        self.table().is_some_and(|table| !table.buckets.is_empty() || table.sightings.is_any())
    }

    /// The time of the next review, if there is one.
    pub fn review_at(&self) -> Option<u64> {
        let table = self.table()?;
        let is_used = !table.buckets.is_empty() || table.sightings.is_any();
        is_used.then(|| table.reviewed.saturating_add(REVIEW))
    }

    /// Reviews the leases, if it is time for that.
    pub fn review(&self, now: u64) -> LeaseReport {
        let table = self.table().filter(|table| table.reviewed.saturating_add(REVIEW) <= now);
        table.map(|mut table| table.review(now)).unwrap_or_default()
    }

    /// Returns the requests for leases to send now. `next` returns the number of a new reservation.
    pub fn calls(&self, now: u64, next: impl FnMut() -> u64) -> Vec<LeaseCall> {
        self.table().map(|mut table| table.calls(now, next)).unwrap_or_default()
    }

    /// Handles the reply to a request for a lease.
    pub fn answered(
        &self,
        number: u64,
        reply: Result<ReserveResponse, CallFailure>,
        now: u64,
    ) -> Option<Settlement> {
        self.table()?.answered(number, reply, now)
    }

    /// Returns the leases of these buckets, because others need their room.
    pub fn recalled(&self, counters: &[u64]) -> LeaseReport {
        let recalled = |bucket: &LeasedBucket| bucket.counter.is_some_and(|one| counters.contains(&one));
        self.table().map(|mut table| table.end(recalled, LeasedBucket::recalled)).unwrap_or_default()
    }

    /// Returns all leases, because a recall may have been missed. Their buckets may get others.
    pub fn return_all(&self) -> LeaseReport {
        self.table().map(|mut table| table.end(|_| true, LeasedBucket::closed)).unwrap_or_default()
    }

    /// Sets whether the adapter grants leases. If not, none are requested.
    pub fn set_granted(&self, are_granted: bool) {
        self.table().into_iter().for_each(|mut table| table.are_granted = are_granted);
    }

    /// Returns all leases and forgets their buckets, because the plan has changed or the worker ends.
    pub fn reset(&self) -> LeaseReport {
        let Some(mut table) = self.table() else { return LeaseReport::default() };
        let mut returned = table.end(|_| true, LeasedBucket::closed);
        returned.admitted = std::mem::take(&mut table.admissions);
        table.buckets.clear();
        table.numbers.clear();
        table.sightings.clear();
        table.memory.shrink(0);
        returned
    }

    /// Returns the number of buckets with leases.
    pub fn len(&self) -> usize {
        self.table().map_or(0, |table| table.buckets.len())
    }

    /// Whether there are no leases.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn table(&self) -> Option<MutexGuard<'_, LeaseTable>> {
        Some(self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl LeaseTable {
    fn admit(&mut self, number: u64, holds: &[Hold]) -> Option<Vec<DescriptorStatus>> {
        if holds.is_empty() || !holds.iter().all(|hold| hold.rate.leases) {
            return None;
        }
        let mut parts: Vec<AdmittedPart> = Vec::with_capacity(holds.len());
        for hold in holds {
            let Some(part) = self.take(hold) else {
                parts.iter().for_each(|part| self.give_back(part, 0));
                self.missed(holds);
                return None;
            };
            parts.push(part);
        }
        let status = |part: &AdmittedPart| Some(self.buckets.get(&part.bucket)?.status(self.now));
        let statuses = parts.iter().filter_map(status).collect();
        self.admissions = self.admissions.saturating_add(1);
        self.admitted.insert(number, AdmittedRequest { review: self.reviews, parts });
        Some(statuses)
    }

    fn take(&mut self, hold: &Hold) -> Option<AdmittedPart> {
        let bucket = *self.numbers.get(&hold.entries)?;
        let draw = self.buckets.get_mut(&bucket)?.take(hold, self.now)?;
        Some(AdmittedPart { bucket, draw, ttl: hold.ttl })
    }

    fn give_back(&mut self, part: &AdmittedPart, used: u64) {
        if let Some(bucket) = self.buckets.get_mut(&part.bucket) {
            bucket.end(part.draw, used);
        }
    }

    /// Notes a request that has to ask. If all of its buckets are busy, leases of them are of use.
    fn missed(&mut self, holds: &[Hold]) {
        if !self.are_granted {
            return;
        }
        let Some(amounts) = self.sightings.count(holds) else { return };
        for (hold, amount) in holds.iter().zip(amounts) {
            let known = self.numbers.get(&hold.entries).and_then(|number| self.buckets.get_mut(number));
            match known {
                Some(bucket) => bucket.missed(),
                None => self.insert(LeasedBucket::new(hold, amount)),
            }
        }
    }

    fn insert(&mut self, bucket: LeasedBucket) {
        let size = self.memory.bytes().saturating_add(bucket.size());
        if self.buckets.len() < MAX_BUCKETS && self.memory.resize(size) {
            self.last = self.last.wrapping_add(1);
            self.numbers.insert(bucket.entries.clone(), self.last);
            self.buckets.insert(self.last, bucket);
        }
    }

    fn settle(&mut self, number: u64, charges: &[u64]) -> Option<Vec<LeaseDraw>> {
        let parts = self.admitted.remove(&number)?.parts;
        let settled = |(part, charge): (&AdmittedPart, &u64)| {
            let used = part.draw.amount.min(*charge);
            self.give_back(part, used);
            self.buckets.get_mut(&part.bucket).into_iter().for_each(|bucket| bucket.charge(*charge));
            LeaseDraw { amount: used, ..part.draw }
        };
        Some(parts.iter().zip(charges).map(settled).collect())
    }

    /// Returns the encoded reservation of a request that takes its amounts out of its leases.
    fn detach(&mut self, number: u64) -> Option<Vec<u8>> {
        let parts = self.admitted.remove(&number)?.parts;
        parts.iter().for_each(|part| self.give_back(part, part.draw.amount));
        let of_bucket = |part: &AdmittedPart| Some((self.buckets.get(&part.bucket)?, part.draw, part.ttl));
        let known: Vec<_> = parts.iter().filter_map(of_bucket).collect();
        let items = known.iter().map(|(bucket, draw, ttl)| Item {
            entries: &bucket.entries,
            amount: draw.amount,
            ttl: *ttl,
            max: bucket.max_to_tell,
            unenforced: true,
            draw: Some(*draw),
        });
        Some(call::reserve(&self.id(number), items))
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number:x}", self.worker)
    }

    fn review(&mut self, now: u64) -> LeaseReport {
        (self.reviewed, self.now) = (now, now);
        self.reviews = self.reviews.saturating_add(1);
        if self.reviews.is_multiple_of(PERIOD) {
            self.sightings.clear();
        }
        let young = self.reviews.saturating_sub(1);
        let old = self.admitted.iter().filter(|(_, request)| request.review < young);
        let old: Vec<u64> = old.map(|(number, _)| *number).collect();
        let mut settlements = self.detached(old);
        let closed = self.end(|_| true, |bucket| bucket.review(now));
        settlements.extend(closed.settlements);
        self.forget_idle();
        LeaseReport { settlements, unused: closed.unused, admitted: std::mem::take(&mut self.admissions) }
    }

    fn forget_idle(&mut self) {
        let over: Vec<_> =
            self.buckets.iter().filter(|(_, bucket)| bucket.is_over()).map(|(number, _)| *number).collect();
        for number in over {
            if let Some(bucket) = self.buckets.remove(&number) {
                self.numbers.remove(&bucket.entries);
                self.memory.shrink(self.memory.bytes().saturating_sub(bucket.size()));
            }
        }
    }

    /// Gives these requests reservations of their own.
    fn detached(&mut self, numbers: Vec<u64>) -> Vec<Settlement> {
        let mut messages: Vec<Vec<u8>> = Vec::new();
        for request in numbers.into_iter().filter_map(|number| self.detach(number)) {
            match messages.last_mut().filter(|message| message.len() < ADMITTED_SIZE) {
                Some(message) => call::add_admitted(message, &request),
                None => messages.push(call::admitted(&request)),
            }
        }
        messages.into_iter().map(Settlement::new).collect()
    }

    /// Ends the leases that `close` returns for each of these buckets.
    fn end(
        &mut self,
        is_concerned: impl Fn(&LeasedBucket) -> bool,
        close: impl FnMut(&mut LeasedBucket) -> Vec<ClosedLease>,
    ) -> LeaseReport {
        let concerned = self.buckets.values_mut().filter(|bucket| is_concerned(bucket));
        let closed: Vec<ClosedLease> = concerned.flat_map(close).collect();
        if closed.is_empty() {
            return LeaseReport::default();
        }
        let numbers: BTreeSet<u64> = closed.iter().map(|lease| lease.number).collect();
        let is_over = |part: &AdmittedPart| numbers.contains(&part.draw.lease);
        let running = self.admitted.iter().filter(|(_, request)| request.parts.iter().any(is_over));
        let running: Vec<u64> = running.map(|(number, _)| *number).collect();
        let mut settlements = self.detached(running);
        let ends = closed.iter().map(|lease| self.ended(lease.number));
        settlements.extend(ends);
        let unused = closed.iter().map(|lease| lease.room).fold(0, u64::saturating_add);
        LeaseReport { settlements, unused, admitted: 0 }
    }

    /// Ends a lease.
    fn ended(&self, number: u64) -> Settlement {
        Settlement::new(call::commit(&self.id(number), std::iter::empty()))
    }

    fn calls(&mut self, now: u64, mut next: impl FnMut() -> u64) -> Vec<LeaseCall> {
        let mut calls = Vec::new();
        if !self.are_granted {
            return calls;
        }
        for (bucket_number, bucket) in &mut self.buckets {
            let Some(amount) = bucket.wanted() else { continue };
            let number = next();
            let item = Item {
                entries: &bucket.entries,
                amount,
                ttl: Duration::ZERO,
                max: bucket.max_to_tell,
                unenforced: false,
                draw: None,
            };
            let message = call::lease(&format!("{}-{number:x}", self.worker), item);
            bucket.is_asking = true;
            self.asked.insert(number, (*bucket_number, now));
            calls.push(LeaseCall { number, message });
        }
        calls
    }

    fn answered(
        &mut self,
        number: u64,
        reply: Result<ReserveResponse, CallFailure>,
        now: u64,
    ) -> Option<Settlement> {
        let (bucket, sent) = self.asked.remove(&number)?;
        let bucket = self.buckets.get_mut(&bucket);
        // Without a reply, it may have been granted.
        let may_be_held = reply.as_ref().map_or(true, |response| response.code() == Code::Ok);
        let granted = reply.ok().filter(|response| response.code() == Code::Ok);
        let granted =
            granted.and_then(|response| Some((response.lease?, response.statuses.first().cloned()?)));
        match (bucket, granted) {
            (Some(bucket), Some((lease, status))) => {
                let used = lease.ttl_ms.saturating_mul(USED_PERCENT) / 100;
                let until = sent.saturating_add(used);
                bucket.granted(number, lease.amount, lease.counter, status, (now, until));
                None
            }
            (bucket, _) => {
                bucket.into_iter().for_each(LeasedBucket::refused);
                may_be_held.then(|| self.ended(number))
            }
        }
    }
}
