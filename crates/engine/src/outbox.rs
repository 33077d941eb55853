//! What has to be told to the adapter after an exchange: a bounded queue of settlements, of which at most one call
//! is under way. What settles meanwhile goes in the next call, so an idle gateway waits for nothing and a busy one
//! sends few calls. Time is given in milliseconds of any clock that does not run backwards.

use protocol::call::{self, CallFailure};
use protocol::wire::kuadrant::service::ratelimit::v1::CommitResponse;
use std::collections::VecDeque;

/// An encoded `CommitRequest`: the end of one reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement(pub(crate) Vec<u8>);

/// The most that one call carries, in settlements and in bytes: gRPC servers take 4 MB.
const BATCH: usize = 256;
const LONGEST: usize = 1 << 20;
/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: u64 = 100;
/// The longest pause.
const LONGEST_PAUSE: u64 = 5_000;

/// The queue.
#[derive(Debug)]
pub struct Outbox {
    queue: VecDeque<Settlement>,
    /// How many bytes the settlements have together, and may have.
    size: usize,
    capacity: usize,
    /// How many at the front the call under way carries.
    under_way: usize,
    failures: u32,
    /// One at a time, after the adapter refused a call for good: one of them is at fault.
    single: bool,
    not_before: u64,
}

/// What an answer meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Settled for good.
    pub settled: usize,
    /// To be sent again.
    pub retried: usize,
    /// Refused by the adapter for good, and given up.
    pub dropped: usize,
}

impl Outbox {
    /// An empty queue for at most `capacity` bytes of settlements, beside those under way, and always for one.
    pub fn new(capacity: usize) -> Self {
        let queue = VecDeque::new();
        Self { queue, size: 0, capacity, under_way: 0, failures: 0, single: false, not_before: 0 }
    }

    /// Queues a settlement. How many of the oldest waiting ones had to be dropped for it.
    pub fn push(&mut self, settlement: Settlement) -> usize {
        self.size = self.size.saturating_add(settlement.0.len());
        let mut dropped = 0_usize;
        while self.size > self.capacity
            && let Some(oldest) = self.queue.remove(self.under_way)
        {
            self.size = self.size.saturating_sub(oldest.0.len());
            dropped = dropped.saturating_add(1);
        }
        self.queue.push_back(settlement);
        dropped
    }

    /// The next Commit call, if there is something to send, none is under way, and no pause is on.
    pub fn send(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.under_way > 0 || now < self.not_before {
            return None;
        }
        let batch = if self.single { 1 } else { BATCH };
        let mut waiting = self.queue.iter().take(batch);
        let mut call = waiting.next()?.0.clone();
        self.under_way = 1;
        for further in waiting {
            if call.len().saturating_add(further.0.len()) > LONGEST {
                break;
            }
            call::add_further(&mut call, &further.0);
            self.under_way = self.under_way.saturating_add(1);
        }
        Some(call)
    }

    /// The call under way has been answered, or has failed.
    pub fn answered(&mut self, reply: Result<CommitResponse, CallFailure>, now: u64) -> Answer {
        let sent = std::mem::take(&mut self.under_way);
        match reply {
            Ok(response) => {
                // A server that does not know `settled` leaves 0 and has settled the first alone.
                let settled =
                    usize::try_from(response.settled).unwrap_or(sent).clamp(1, sent.max(1)).min(sent);
                self.forget(settled);
                self.failures = 0;
                self.single = false;
                Answer { settled, ..Answer::default() }
            }
            Err(failure) if failure.is_final() && sent == 1 => {
                self.forget(1);
                Answer { dropped: 1, ..Answer::default() }
            }
            Err(failure) => {
                self.single = failure.is_final();
                let pause = FIRST_PAUSE << self.failures.min(16);
                self.not_before = now.saturating_add(pause.min(LONGEST_PAUSE));
                self.failures = self.failures.saturating_add(1);
                Answer { retried: sent, ..Answer::default() }
            }
        }
    }

    /// When something waits and only the time keeps it: when to send again.
    pub fn wake_at(&self) -> Option<u64> {
        (self.under_way == 0 && !self.queue.is_empty()).then_some(self.not_before)
    }

    /// How many have not been acknowledged.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether all has been acknowledged.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn forget(&mut self, count: usize) {
        let forgotten = self.queue.drain(..count.min(self.queue.len()));
        self.size = self.size.saturating_sub(forgotten.map(|settlement| settlement.0.len()).sum());
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

    fn ids(call: Option<Vec<u8>>) -> Vec<String> {
        let Some(call) = call else { return Vec::new() };
        let request = CommitRequest::decode(&*call).unwrap();
        let further = request.further.into_iter().map(|commit| commit.reservation_id);
        std::iter::once(request.reservation_id).chain(further).collect()
    }

    fn reply(settled: u64) -> Result<CommitResponse, CallFailure> {
        Ok(CommitResponse { reservation_released: true, settled })
    }

    #[test]
    fn what_settles_during_a_call_goes_together_in_the_next() {
        let mut outbox = Outbox::new(1000);
        assert_eq!(outbox.push(settlement("a")), 0);
        assert_eq!(ids(outbox.send(0)), ["a"]);
        outbox.push(settlement("b"));
        outbox.push(settlement("c"));
        assert_eq!(outbox.send(0), None, "one call at a time");
        assert_eq!(outbox.answered(reply(1), 1).settled, 1);
        assert_eq!(ids(outbox.send(1)), ["b", "c"]);
        assert_eq!(outbox.answered(reply(2), 2).settled, 2);
        assert!(outbox.is_empty() && outbox.wake_at().is_none());
    }

    #[test]
    fn a_failed_call_is_sent_again_whole_after_a_growing_pause() {
        let mut outbox = Outbox::new(1000);
        outbox.push(settlement("a"));
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(ids(outbox.send(now)), ["a"]);
            assert_eq!(outbox.answered(Err(CallFailure::Unavailable), now).retried, 1);
            let wake = outbox.wake_at().unwrap();
            assert_eq!(outbox.send(wake - 1), None);
            pauses.push(wake - now);
            now = wake;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(ids(outbox.send(now)), ["a"]);
        outbox.answered(reply(1), now);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_full_queue_drops_the_oldest_that_is_not_under_way() {
        let mut outbox = Outbox::new(3 * settlement("a").0.len());
        outbox.push(settlement("a"));
        outbox.send(0);
        outbox.push(settlement("b"));
        outbox.push(settlement("c"));
        assert_eq!(outbox.push(settlement("d")), 1);
        outbox.answered(reply(1), 0);
        assert_eq!(ids(outbox.send(0)), ["c", "d"]);
        assert_eq!(outbox.push(settlement(&"e".repeat(100))), 0, "but for what is under way");
        outbox.answered(reply(2), 0);
        assert_eq!(outbox.push(settlement("f")), 1);
        assert_eq!(ids(outbox.send(0)), ["f"]);
    }

    #[test]
    fn a_call_is_no_longer_than_servers_take() {
        let mut outbox = Outbox::new(usize::MAX);
        for number in 0..10 {
            outbox.push(settlement(&format!("{number}{}", "x".repeat(300_000))));
        }
        let mut sent = Vec::new();
        while let Some(call) = outbox.send(0) {
            assert!(call.len() <= LONGEST);
            let count = ids(Some(call)).len();
            sent.push(count);
            outbox.answered(reply(count as u64), 0);
        }
        assert_eq!(sent, [3, 3, 3, 1]);
    }

    #[test]
    fn a_server_that_settles_only_the_first_gets_the_rest_again() {
        let mut outbox = Outbox::new(1000);
        for id in ["a", "b", "c"] {
            outbox.push(settlement(id));
        }
        assert_eq!(ids(outbox.send(0)), ["a", "b", "c"]);
        assert_eq!(outbox.answered(Ok(CommitResponse::default()), 0).settled, 1);
        assert_eq!(ids(outbox.send(0)), ["b", "c"]);
        assert_eq!(outbox.answered(reply(u64::MAX), 0).settled, 2, "never more than were sent");
    }

    #[test]
    fn one_that_the_adapter_will_never_take_does_not_stop_the_others() {
        let mut outbox = Outbox::new(1000);
        outbox.push(settlement("bad"));
        outbox.push(settlement("good"));
        let mut now = 0;
        assert_eq!(ids(outbox.send(now)).len(), 2);
        assert_eq!(outbox.answered(Err(CallFailure::Status(3)), now).retried, 2);
        now = outbox.wake_at().unwrap();
        assert_eq!(ids(outbox.send(now)), ["bad"]);
        assert_eq!(outbox.answered(Err(CallFailure::Status(3)), now).dropped, 1);
        assert_eq!(ids(outbox.send(now)), ["good"]);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_a_failure() {
        let mut outbox = Outbox::new(1000);
        outbox.push(settlement("a"));
        outbox.send(0);
        assert_eq!(outbox.answered(call::reply(Ok(&[0xff])), 0).retried, 1);
        assert_eq!(outbox.len(), 1);
    }
}
