//! A bounded queue of settlements for the adapter. The timer sends one call at a time. Settlements that
//! arrive in the meantime go into the next call, so a busy gateway makes few calls. A Reserve does not wait
//! for the queue: earlier settlements are sent before it, so that no client is refused because of its own
//! finished request. Times are milliseconds of any clock that does not run backwards.

use crate::backoff::Backoff;
use protocol::call::{self, CallFailure};
use protocol::wire::kuadrant::service::ratelimit::v1::CommitResponse;
use std::collections::{BTreeMap, VecDeque};

/// Ends one reservation: an encoded `CommitRequest`. In an outbox of usage records, it is an encoded
/// `SettledUsage`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement(pub(crate) Vec<u8>);

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

impl Outbox {
    /// Creates an empty queue for at most `capacity` bytes of waiting settlements. It always accepts one
    /// settlement.
    pub fn new(capacity: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
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
        }
    }

    /// Seeds the jitter of its pauses.
    pub fn with_jitter(self, seed: u128) -> Self {
        Self { backoff: self.backoff.with_jitter(seed), ..self }
    }

    /// The number of bytes that are waiting or in flight.
    pub fn size(&self) -> usize {
        self.size.saturating_add(self.raises_size)
    }

    /// Queues a raise in place of the last one of its reservation. Returns false if there is no room for it
    /// and it is lost.
    pub fn raise(&mut self, raise: Raise) -> bool {
        self.raises_are_kept = false;
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

    /// Queues a settlement. Returns how many of the oldest had to be dropped.
    pub fn push(&mut self, settlement: Settlement) -> usize {
        self.size = self.size.saturating_add(settlement.0.len());
        let mut dropped = 0_usize;
        while self.size > self.capacity
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.size = self.size.saturating_sub(oldest.0.len());
            dropped = dropped.saturating_add(1);
        }
        self.waiting.push_back(settlement);
        dropped
    }

    /// Returns the timer's next call, if there is something to send, the last call was answered, and the
    /// queue is not paused.
    pub fn send(&mut self, route: CommitRoute, now: u64) -> Option<Commit> {
        if self.is_timed_under_way() || self.is_paused(now) {
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
        self.waiting.len() > BATCH
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
        let newest = self.waiting.iter().rev().chain(sent).map(|settlement| settlement.0.as_slice());
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
        ((!self.waiting.is_empty() || raises) && !self.is_timed_under_way()).then_some(self.not_before)
    }

    /// Returns the number of unacknowledged settlements.
    pub fn len(&self) -> usize {
        let sent = self.calls.values().map(|call| call.settlements.len());
        sent.fold(self.waiting.len(), usize::saturating_add)
    }

    /// Whether all settlements are acknowledged.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.calls.is_empty()
    }

    fn is_timed_under_way(&self) -> bool {
        self.calls.values().any(|call| call.is_timed)
    }

    fn is_paused(&self, now: u64) -> bool {
        now < self.not_before
    }

    fn take(&mut self, most: usize, route: CommitRoute, is_timed: bool) -> Option<Commit> {
        let first = self.waiting.pop_front();
        // A server that does not know raises reads a call with nothing else as an empty commit. Every adapter
        // that has streams accepts that.
        let is_bare = first.is_none();
        if is_bare && (self.raises.is_empty() || self.single || route == CommitRoute::Unary) {
            self.raises_are_kept = true;
            return None;
        }
        let mut message = first.as_ref().map(|first| first.0.clone()).unwrap_or_default();
        let mut settlements: Vec<Settlement> = first.into_iter().collect();
        let fits = |size: usize, next: &Settlement| size.saturating_add(next.0.len()) <= LONGEST;
        while !is_bare
            && settlements.len() < most
            && self.waiting.front().is_some_and(|next| fits(message.len(), next))
            && let Some(further) = self.waiting.pop_front()
        {
            call::add_further(&mut message, &further.0);
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
        let done = settlements.iter().take(settled).map(|settlement| settlement.0.len()).sum();
        self.size = self.size.saturating_sub(done);
        settlements
            .into_iter()
            .skip(settled)
            .rev()
            .for_each(|settlement| self.waiting.push_front(settlement));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use protocol::wire::kuadrant::service::ratelimit::v1::CommitRequest;

    fn settlement(id: &str) -> Settlement {
        Settlement(call::commit(id, std::iter::empty()))
    }

    fn send(outbox: &mut Outbox, now: u64) -> Option<Commit> {
        outbox.send(CommitRoute::Stream, now)
    }

    /// Handles the reply to the last call that was sent.
    fn answered(outbox: &mut Outbox, reply: Result<CommitResponse, CallFailure>, now: u64) -> CommitOutcome {
        outbox.answered(outbox.number, reply, now)
    }

    fn ids(commit: Option<Commit>) -> Vec<String> {
        let Some(commit) = commit else { return Vec::new() };
        let request = CommitRequest::decode(&*commit.message).unwrap();
        let further = request.further.into_iter().map(|commit| commit.reservation_id);
        std::iter::once(request.reservation_id).chain(further).collect()
    }

    fn reply(settled: u64) -> Result<CommitResponse, CallFailure> {
        Ok(CommitResponse { settled, ..CommitResponse::default() })
    }

    #[test]
    fn what_settles_during_a_call_goes_together_in_the_next() {
        let mut outbox = Outbox::new(1000);
        assert_eq!(outbox.push(settlement("a")), 0);
        assert_eq!(ids(send(&mut outbox, 0)), ["a"]);
        outbox.push(settlement("b"));
        outbox.push(settlement("c"));
        assert_eq!(send(&mut outbox, 0), None, "one call at a time");
        assert_eq!(answered(&mut outbox, reply(1), 1).settled, 1);
        assert_eq!(ids(send(&mut outbox, 1)), ["b", "c"]);
        assert_eq!(answered(&mut outbox, reply(2), 2).settled, 2);
        assert!(outbox.is_empty() && outbox.wake_at().is_none());
    }

    #[test]
    fn a_failed_call_is_sent_again_whole_after_a_growing_pause() {
        let mut outbox = Outbox::new(1000);
        outbox.push(settlement("a"));
        let mut now = 0;
        for longest in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            assert_eq!(ids(send(&mut outbox, now)), ["a"]);
            assert_eq!(answered(&mut outbox, Err(CallFailure::Unavailable), now).retried, 1);
            let wake = outbox.wake_at().unwrap();
            assert_eq!(send(&mut outbox, wake - 1), None);
            assert!((longest / 2..longest).contains(&(wake - now)), "{} of {longest}", wake - now);
            now = wake;
        }
        assert_eq!(ids(send(&mut outbox, now)), ["a"]);
        answered(&mut outbox, reply(1), now);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_full_queue_drops_the_oldest_that_is_not_under_way() {
        let mut outbox = Outbox::new(3 * settlement("a").0.len());
        outbox.push(settlement("a"));
        send(&mut outbox, 0);
        outbox.push(settlement("b"));
        outbox.push(settlement("c"));
        assert_eq!(outbox.push(settlement("d")), 1);
        answered(&mut outbox, reply(1), 0);
        assert_eq!(ids(send(&mut outbox, 0)), ["c", "d"]);
        assert_eq!(outbox.push(settlement(&"e".repeat(100))), 0, "except for settlements in flight");
        answered(&mut outbox, reply(2), 0);
        assert_eq!(outbox.push(settlement("f")), 1);
        assert_eq!(ids(send(&mut outbox, 0)), ["f"]);
    }

    #[test]
    fn a_call_is_no_longer_than_servers_take() {
        let mut outbox = Outbox::new(usize::MAX);
        for number in 0..10 {
            outbox.push(settlement(&format!("{number}{}", "x".repeat(300_000))));
        }
        let mut sent = Vec::new();
        while let Some(commit) = send(&mut outbox, 0) {
            assert!(commit.message.len() <= LONGEST);
            let count = ids(Some(commit)).len();
            sent.push(count);
            answered(&mut outbox, reply(count as u64), 0);
        }
        assert_eq!(sent, [3, 3, 3, 1]);
    }

    #[test]
    fn a_server_that_settles_only_the_first_gets_the_rest_again() {
        let mut outbox = Outbox::new(1000);
        for id in ["a", "b", "c"] {
            outbox.push(settlement(id));
        }
        assert_eq!(ids(send(&mut outbox, 0)), ["a", "b", "c"]);
        assert_eq!(answered(&mut outbox, Ok(CommitResponse::default()), 0).settled, 1);
        assert_eq!(ids(send(&mut outbox, 0)), ["b", "c"]);
        assert_eq!(answered(&mut outbox, reply(u64::MAX), 0).settled, 2, "never more than were sent");
    }

    #[test]
    fn one_that_the_adapter_will_never_take_does_not_stop_the_others() {
        let mut outbox = Outbox::new(1000);
        outbox.push(settlement("bad"));
        outbox.push(settlement("good"));
        let mut now = 0;
        assert_eq!(ids(send(&mut outbox, now)).len(), 2);
        assert_eq!(answered(&mut outbox, Err(CallFailure::Status(3)), now).retried, 2);
        now = outbox.wake_at().unwrap();
        assert_eq!(ids(send(&mut outbox, now)), ["bad"]);
        assert_eq!(answered(&mut outbox, Err(CallFailure::Status(3)), now).dropped, 1);
        assert_eq!(ids(send(&mut outbox, now)), ["good"]);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_a_failure() {
        let mut outbox = Outbox::new(1000);
        outbox.push(settlement("a"));
        send(&mut outbox, 0);
        assert_eq!(answered(&mut outbox, call::reply(Ok(&[0xff])), 0).retried, 1);
        assert_eq!(outbox.len(), 1);
    }

    fn copied(outbox: &Outbox, route: CommitRoute, now: u64) -> Vec<String> {
        let copies = outbox.copies(route, now).into_iter();
        copies.map(|copy| CommitRequest::decode(copy).unwrap().reservation_id).collect()
    }

    #[test]
    fn what_has_settled_goes_with_a_reserve_whatever_else_is_under_way() {
        let mut outbox = Outbox::new(1000);
        outbox.push(settlement("a"));
        let first = send(&mut outbox, 0).unwrap();
        outbox.push(settlement("b"));
        let second = outbox.send_before_reserve(0).unwrap();
        outbox.push(settlement("c"));
        assert_eq!(send(&mut outbox, 0), None, "the timer waits for its own call");
        let third = outbox.send_before_reserve(0).unwrap();
        assert_eq!(outbox.send_before_reserve(0), None);
        assert_eq!(
            copied(&outbox, CommitRoute::Stream, 0),
            Vec::<String>::new(),
            "the stream keeps the order"
        );
        assert_eq!(copied(&outbox, CommitRoute::Unary, 0), ["c", "b", "a"]);
        assert_eq!(outbox.answered(third.number, reply(1), 1).settled, 1);
        assert_eq!(
            outbox.answered(third.number, reply(1), 1),
            CommitOutcome::default(),
            "a reply counts only once"
        );
        assert_eq!(outbox.answered(first.number, reply(1), 1).settled, 1);
        assert_eq!(outbox.answered(second.number, Err(CallFailure::Unavailable), 1).retried, 1);
        assert_eq!(ids(send(&mut outbox, 1)), ["b"], "only the timer's own failures make it wait");
    }

    #[test]
    fn a_reserve_carries_copies_of_what_might_come_after_it() {
        let mut outbox = Outbox::new(usize::MAX);
        outbox.push(settlement("a"));
        let unary = outbox.send(CommitRoute::Unary, 0).unwrap();
        outbox.push(settlement("b"));
        let streamed = outbox.send_before_reserve(0).unwrap();
        assert_eq!(ids(Some(streamed)), ["b"]);
        assert_eq!(copied(&outbox, CommitRoute::Stream, 0), ["a"]);
        outbox.answered(unary.number, Err(CallFailure::Unavailable), 0);
        assert_eq!(outbox.send_before_reserve(0), None, "an adapter that fails gets no further calls");
        assert_eq!(
            copied(&outbox, CommitRoute::Stream, 0),
            ["a"],
            "except for settlements that a reserve depends on"
        );
        for number in 0..1000 {
            outbox.push(settlement(&format!("{number}{}", "x".repeat(1000))));
        }
        let sizes = [0, outbox.not_before].map(|now| {
            let copies = outbox.copies(CommitRoute::Unary, now);
            assert!(
                copies.first().is_some_and(|copy| *copy == settlement(&format!("999{}", "x".repeat(1000))).0)
            );
            copies.iter().map(|copy| copy.len()).sum::<usize>()
        });
        assert!(sizes[0] <= COPIED_AFTER_FAILURE && sizes[1] <= COPIED && sizes[1] > COPIED / 2, "{sizes:?}");
    }

    #[test]
    fn what_a_stream_leaves_is_sent_again_at_once_and_in_order() {
        let mut outbox = Outbox::new(1000);
        outbox.push(settlement("a"));
        let first = send(&mut outbox, 0).unwrap();
        outbox.push(settlement("b"));
        let second = outbox.send_before_reserve(0).unwrap();
        outbox.push(settlement("c"));
        assert_eq!(outbox.returned([first.number, second.number].into_iter()).retried, 2);
        assert_eq!(outbox.wake_at(), Some(0));
        assert_eq!(ids(outbox.send_before_reserve(0)), ["a", "b", "c"]);
    }

    #[test]
    fn a_raise_travels_once_in_the_stream_or_beside_a_commit_and_takes_no_settlement_s_place() {
        let raise = |id: &str, total: u8| Raise { id: id.to_owned(), message: vec![total], may_cut: false };
        let mut outbox = Outbox::new(160);
        assert!(outbox.raise(raise("a", 1)) && outbox.raise(raise("a", 2)) && outbox.raise(raise("b", 3)));
        // An adapter without streams may not know raises, so they are not sent to it alone.
        assert_eq!(outbox.send(CommitRoute::Unary, 0), None);
        assert_eq!(outbox.wake_at(), None);
        let commit = outbox.send(CommitRoute::Stream, 0).expect("the raises alone");
        let mut both = Vec::new();
        [[2], [3]].iter().for_each(|message| call::add_raised(&mut both, message));
        assert_eq!(commit.message, both, "the last of each");
        // If the call of a raise fails, the raise is not sent again.
        outbox.answered(commit.number, Err(CallFailure::Unavailable), 0);
        assert_eq!((outbox.wake_at(), outbox.size()), (None, 0));
        let kept = (0..100).filter(|at| outbox.raise(raise(&format!("{at:09}"), 1))).count();
        assert_eq!(kept, 2, "an eighth of the room");
        assert_eq!(outbox.push(Settlement(vec![0; 160])), 0);
    }
}
