//! A bounded queue of settlements for the adapter. The timer sends one call at a time. Settlements that
//! arrive in the meantime go into the next call, so a busy gateway makes few calls. A Reserve does not wait
//! for the queue: earlier settlements are sent before it, so that no client is refused because of its own
//! finished request. When the queue is full, the oldest settlements are packed, and only then dropped. Times are
//! milliseconds of any clock that does not run backwards.

mod packed;

use crate::backoff::Backoff;
use packed::PackedSettlements;
use protocol::call::{self, CallFailure};
use protocol::wire::kuadrant::service::ratelimit::v1::CommitResponse;
use std::collections::{BTreeMap, VecDeque};

/// Ends one reservation: an encoded `CommitRequest`. In an outbox of usage records, it is an encoded
/// `SettledUsage`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    pub(crate) message: Vec<u8>,
    /// Whether it can wait a little for others: a lease has room for what it charges, so nobody else does.
    pub is_patient: bool,
}

impl Settlement {
    /// Creates a settlement of an encoded message.
    pub fn new(message: Vec<u8>) -> Self {
        Self { message, is_patient: false }
    }

    /// Creates one that can wait a little.
    pub fn patient(message: Vec<u8>) -> Self {
        Self { message, is_patient: true }
    }
}

/// Raises the holds of a reservation: an encoded `RaisedHolds`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raise {
    /// The reservation's id.
    pub id: String,
    pub(crate) message: Vec<u8>,
    /// Whether the stream is cut if there is no room.
    pub may_cut: bool,
}

impl Raise {
    fn size(&self) -> usize {
        self.message.len().saturating_add(self.id.len())
    }
}

/// The maximum size of one call, in settlements and in bytes. By default, gRPC servers accept 4 MB.
const BATCH: usize = 256;
const LONGEST: usize = 1 << 20;
/// Raises may take up an eighth of the capacity, in addition to the settlements.
const RAISES_SHARE: usize = 8;
/// The maximum size of the copied settlements in a Reserve, in bytes. It is lower while the adapter fails.
const COPIED: usize = 64 << 10;
const COPIED_AFTER_FAILURE: usize = 8 << 10;

#[derive(Debug)]
pub struct Outbox {
    waiting: VecDeque<Settlement>,
    /// The settlements before these, in a compact form. Empty unless the queue was full.
    packed: PackedSettlements,
    /// Whether a full queue packs settlements. Records of usage have nothing in common.
    packs: bool,
    /// The latest raise of each reservation. They do not displace settlements, and are not sent again.
    raises: BTreeMap<String, Raise>,
    raises_size: usize,
    /// Whether the raises have to wait, because no call can carry them now.
    raises_are_kept: bool,
    /// The calls without a reply.
    calls: BTreeMap<CallNumber, CommitCall>,
    number: CallNumber,
    /// The size of all settlements, and their maximum, in bytes.
    size: usize,
    capacity: usize,
    backoff: Backoff,
    /// Whether to send one settlement at a time, because the adapter rejected a call permanently and one of
    /// its settlements is at fault.
    single: bool,
    not_before: u64,
    /// When to send what is waiting, if all of it is patient.
    due: Option<u64>,
}

/// Identifies a call of an outbox.
pub type CallNumber = u64;

#[derive(Debug)]
struct CommitCall {
    settlements: Vec<Settlement>,
    route: CommitRoute,
    /// Whether the timer sent it. The timer sends one call at a time, and pauses after a failure.
    is_timed: bool,
}

/// How a commit is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitRoute {
    /// In the stream, where a later Reserve cannot overtake it.
    Stream,
    /// As a separate call, which may reach the adapter after a later Reserve.
    Unary,
}

/// A commit to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Commit {
    /// Identifies the commit when its reply arrives.
    pub number: CallNumber,
    /// An encoded `CommitRequest`.
    pub message: Vec<u8>,
}

/// The result of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitOutcome {
    /// The number of settlements that were acknowledged.
    pub settled: usize,
    /// The number of settlements that will be sent again.
    pub retried: usize,
    /// The number of settlements that the adapter rejected permanently. They are dropped.
    pub dropped: usize,
}

/// What became of the oldest settlements of a full queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Displaced {
    /// The number of settlements that were packed.
    pub packed: usize,
    /// The number of settlements that were dropped.
    pub dropped: usize,
}

impl Outbox {
    /// Creates an empty queue for at most `capacity` bytes of waiting settlements. It always accepts one
    /// settlement.
    pub fn new(capacity: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            packed: PackedSettlements::default(),
            packs: false,
            raises: BTreeMap::new(),
            raises_size: 0,
            raises_are_kept: false,
            calls: BTreeMap::new(),
            number: 0,
            size: 0,
            capacity,
            backoff: Backoff::default(),
            single: false,
            not_before: 0,
            due: None,
        }
    }

    /// Packs the oldest settlements when the queue is full. It then has room for many times as many.
    pub fn that_packs(self) -> Self {
        Self { packs: true, ..self }
    }

    /// Seeds the jitter of its pauses.
    pub fn with_jitter(self, seed: u128) -> Self {
        Self { backoff: self.backoff.with_jitter(seed), ..self }
    }

    /// The number of bytes that are waiting or in flight.
    pub fn size(&self) -> usize {
        self.settlements_size().saturating_add(self.raises_size)
    }

    fn settlements_size(&self) -> usize {
        self.size.saturating_add(self.packed.size())
    }

    /// Queues a raise in place of the last one of its reservation. Returns false if there is no room for it
    /// and it is lost.
    pub fn raise(&mut self, raise: Raise) -> bool {
        (self.raises_are_kept, self.due) = (false, None);
        if let Some(last) = self.raises.remove(&raise.id) {
            self.raises_size = self.raises_size.saturating_sub(last.size());
        }
        let size = self.raises_size.saturating_add(raise.size());
        let has_room = size <= self.capacity / RAISES_SHARE;
        if has_room {
            self.raises_size = size;
            self.raises.insert(raise.id.clone(), raise);
        }
        has_room
    }

    /// Queues a settlement. If it is patient and the first in the queue, it is sent when `due` returns, or earlier
    /// with others. Returns what became of the oldest, if the queue was full.
    pub fn push_by(&mut self, settlement: Settlement, due: impl FnOnce() -> u64) -> Displaced {
        let due = match settlement.is_patient {
            true if !self.has_waiting() => Some(due()),
            true => self.due,
            false => None,
        };
        let displaced = self.push(settlement);
        self.due = due;
        displaced
    }

    /// Queues a settlement that is sent at once. Returns what became of the oldest, if the queue was full.
    pub fn push(&mut self, settlement: Settlement) -> Displaced {
        self.due = None;
        self.size = self.size.saturating_add(settlement.message.len());
        let mut displaced = Displaced::default();
        while self.settlements_size() > self.capacity {
            // The newest stay as they are, because Reserves carry copies of them.
            if self.packs && self.waiting.len() > BATCH {
                displaced.packed = displaced.packed.saturating_add(self.pack_oldest());
                continue;
            }
            let dropped = match self.packed.drop_oldest() {
                0 => self.pop_waiting().map_or(0, |_| 1),
                dropped => dropped,
            };
            if dropped == 0 {
                break;
            }
            displaced.dropped = displaced.dropped.saturating_add(dropped);
        }
        self.waiting.push_back(settlement);
        displaced
    }

    fn pack_oldest(&mut self) -> usize {
        let Some(oldest) = self.pop_waiting() else { return 0 };
        self.packed.push(&oldest);
        1
    }

    fn pop_waiting(&mut self) -> Option<Settlement> {
        let oldest = self.waiting.pop_front()?;
        self.size = self.size.saturating_sub(oldest.message.len());
        Some(oldest)
    }

    /// Removes the oldest settlement in order to send it. It still counts in `size`.
    fn pop_oldest(&mut self) -> Option<Settlement> {
        let Some(unpacked) = self.packed.pop() else { return self.waiting.pop_front() };
        self.size = self.size.saturating_add(unpacked.message.len());
        Some(unpacked)
    }

    /// Returns the timer's next call, if there is something to send, the last call was answered, and the
    /// queue is not paused.
    pub fn send(&mut self, route: CommitRoute, now: u64) -> Option<Commit> {
        if self.is_timed_under_way() || self.is_paused(now) || self.due.is_some_and(|due| now < due) {
            return None;
        }
        self.take(if self.single { 1 } else { BATCH }, route, true)
    }

    /// Returns a call to send in the stream right before a Reserve, regardless of other calls in flight.
    pub fn send_before_reserve(&mut self, now: u64) -> Option<Commit> {
        if self.single || self.is_paused(now) {
            return None;
        }
        self.take(BATCH, CommitRoute::Stream, false)
    }

    /// Returns whether more settlements are waiting than one call can carry.
    pub fn exceeds_a_call(&self) -> bool {
        self.waiting.len().saturating_add(self.packed.len()) > BATCH
    }

    /// Returns the settlements to copy into a Reserve that is sent by this route, because the adapter could
    /// judge the Reserve before they arrive. Settling twice has no effect. The newest settlements are copied,
    /// because a client may have just seen these exchanges end.
    pub fn copies(&self, route: CommitRoute, now: u64) -> Vec<&[u8]> {
        let may_be_late =
            |call: &&CommitCall| route == CommitRoute::Unary || call.route == CommitRoute::Unary;
        let overtaken = self.calls.values().rev().filter(may_be_late);
        let sent = overtaken.flat_map(|call| call.settlements.iter().rev());
        let most = if self.is_paused(now) { COPIED_AFTER_FAILURE } else { COPIED };
        let mut size = 0_usize;
        let newest = self.waiting.iter().rev().chain(sent).map(|settlement| settlement.message.as_slice());
        let fits = |settlement: &&[u8]| {
            size = size.saturating_add(settlement.len());
            size <= most
        };
        newest.take(BATCH).take_while(fits).collect()
    }

    /// Handles the reply to a call, or its failure.
    pub fn answered(
        &mut self,
        number: CallNumber,
        reply: Result<CommitResponse, CallFailure>,
        now: u64,
    ) -> CommitOutcome {
        let Some(call) = self.calls.remove(&number) else { return CommitOutcome::default() };
        let sent = call.settlements.len();
        match reply {
            Ok(response) => {
                // A server that does not know `settled` returns 0, and has settled only the first.
                let settled =
                    usize::try_from(response.settled).unwrap_or(sent).clamp(1, sent.max(1)).min(sent);
                self.put_back(call.settlements, settled);
                if call.is_timed {
                    self.backoff.succeeded();
                    self.single = false;
                }
                CommitOutcome { settled, ..CommitOutcome::default() }
            }
            Err(failure) if failure.is_final() && sent == 1 => {
                self.put_back(call.settlements, 1);
                CommitOutcome { dropped: 1, ..CommitOutcome::default() }
            }
            Err(failure) => {
                self.put_back(call.settlements, 0);
                if call.is_timed {
                    self.single = failure.is_final();
                    self.not_before = now.saturating_add(self.backoff.failed());
                }
                CommitOutcome { retried: sent, ..CommitOutcome::default() }
            }
        }
    }

    /// Handles a stream that ended before these calls were answered. The adapter may be healthy, so their
    /// settlements are sent again at once.
    pub fn returned(&mut self, numbers: impl DoubleEndedIterator<Item = CallNumber>) -> CommitOutcome {
        let mut retried = 0_usize;
        for number in numbers.rev() {
            if let Some(call) = self.calls.remove(&number) {
                retried = retried.saturating_add(call.settlements.len());
                self.put_back(call.settlements, 0);
            }
        }
        CommitOutcome { retried, ..CommitOutcome::default() }
    }

    /// Returns when to send again, if only the pause delays the next call.
    pub fn wake_at(&self) -> Option<u64> {
        let raises = !self.raises.is_empty() && !self.raises_are_kept;
        let time = self.due.map_or(self.not_before, |due| due.max(self.not_before));
        ((self.has_waiting() || raises) && !self.is_timed_under_way()).then_some(time)
    }

    /// Returns the number of unacknowledged settlements.
    pub fn len(&self) -> usize {
        let sent = self.calls.values().map(|call| call.settlements.len());
        sent.fold(self.waiting.len().saturating_add(self.packed.len()), usize::saturating_add)
    }

    /// Whether all settlements are acknowledged.
    pub fn is_empty(&self) -> bool {
        !self.has_waiting() && self.calls.is_empty()
    }

    fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.packed.is_empty()
    }

    fn is_timed_under_way(&self) -> bool {
        self.calls.values().any(|call| call.is_timed)
    }

    fn is_paused(&self, now: u64) -> bool {
        now < self.not_before
    }

    fn take(&mut self, most: usize, route: CommitRoute, is_timed: bool) -> Option<Commit> {
        let first = self.pop_oldest();
        // A server that does not know raises reads a call with nothing else as an empty commit. Every adapter
        // that has streams accepts that.
        let is_bare = first.is_none();
        if is_bare && (self.raises.is_empty() || self.single || route == CommitRoute::Unary) {
            self.raises_are_kept = true;
            return None;
        }
        let mut message = first.as_ref().map(|first| first.message.clone()).unwrap_or_default();
        let mut settlements: Vec<Settlement> = first.into_iter().collect();
        let fits = |size: usize, next: &Settlement| size.saturating_add(next.message.len()) <= LONGEST;
        while !is_bare
            && settlements.len() < most
            && let Some(further) = self.pop_oldest()
        {
            if !fits(message.len(), &further) {
                self.waiting.push_front(further);
                break;
            }
            call::add_further(&mut message, &further.message);
            settlements.push(further);
        }
        while !self.single
            && let Some(raise) = self.raises.first_entry()
            && message.len().saturating_add(raise.get().message.len()) <= LONGEST
        {
            let raise = raise.remove();
            self.raises_size = self.raises_size.saturating_sub(raise.size());
            call::add_raised(&mut message, &raise.message);
        }
        self.number = self.number.wrapping_add(1);
        self.calls.insert(self.number, CommitCall { settlements, route, is_timed });
        Some(Commit { number: self.number, message })
    }

    /// Drops the first `settled` settlements, which are done, and returns the others to the front of the
    /// queue.
    fn put_back(&mut self, settlements: Vec<Settlement>, settled: usize) {
        self.due = self.due.filter(|_| settled == settlements.len());
        let done = settlements.iter().take(settled).map(|settlement| settlement.message.len()).sum();
        self.size = self.size.saturating_sub(done);
        settlements
            .into_iter()
            .skip(settled)
            .rev()
            .for_each(|settlement| self.waiting.push_front(settlement));
    }
}

#[cfg(test)]
mod tests;
