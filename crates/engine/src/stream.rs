//! The stream of calls to the adapter: which calls are under way, which call a reply belongs to, which have
//! timed out, and when to open another stream. It performs no I/O. Times are milliseconds of any clock that
//! does not run backwards.
//!
//! Every call is answered, times out, or is returned when the stream ends, to be sent in another way. So no
//! call is lost, regardless of what the adapter does. `Caller` lets the shell identify who is waiting.

use crate::backoff::Backoff;
use crate::outbox::{CallNumber, Commit};
use prost::Message;
use protocol::call::{self, CallFailure};
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitResponse, ReserveResponse};
use protocol::wire::weir::v1::ReserveAndCommitResponse;
use std::collections::BTreeMap;

/// The timeout of a commit. Nothing waits for it.
const COMMIT_PATIENCE: u64 = 5_000;
/// The timeout of the stream's first message.
const HELLO_PATIENCE: u64 = 5_000;

/// Tracks the calls in one stream.
#[derive(Debug)]
pub struct CallStream<Caller> {
    /// The timeout of a Reserve.
    patience: u64,
    state: StreamState,
    /// The unanswered Reserves, in the order in which they were sent. They time out in the same order.
    reserves: BTreeMap<u64, PendingReserve<Caller>>,
    /// The unanswered commits by message number: when they were sent, and their numbers in the outbox.
    commits: BTreeMap<u64, (u64, CallNumber)>,
    /// The number of the last message.
    number: u64,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamState {
    /// No stream is open. The next is opened at this time.
    Closed(u64),
    /// Opened at this time; the adapter has not sent its first message.
    Opening(u64),
    /// The adapter last sent something at this time.
    Open(u64),
}

#[derive(Debug)]
struct PendingReserve<Caller> {
    sent: u64,
    message: Vec<u8>,
    caller: Caller,
}

/// The longest pause before the next stream of a worker with leases. Without a stream, it hears of no recall, so others
/// may find no room. This lasts for a few seconds at most, because then the leases expire.
const LEASED_PAUSE: u64 = 25;

/// What the adapter says about leases.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum LeaseNotice {
    #[default]
    None,
    /// A stream has begun. Earlier recalls may have been missed.
    Greeting {
        /// Whether the adapter grants leases.
        grants: bool,
    },
    /// The leases of these buckets are recalled.
    Recalled(Vec<u64>),
    /// All leases are recalled.
    AllRecalled,
}

/// The content of a reply on the stream.
#[derive(Debug, PartialEq)]
pub struct StreamReply<Caller> {
    /// The reply to a Reserve that is still waiting.
    pub reserve: Option<(Caller, Result<ReserveResponse, CallFailure>)>,
    /// The reply to a commit in flight.
    pub commit: Option<(CallNumber, Result<CommitResponse, CallFailure>)>,
    pub leases: LeaseNotice,
}

/// The calls to send in another way after a stream has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Left<Caller> {
    /// The unanswered Reserves.
    pub reserves: Vec<Unanswered<Caller>>,
    /// The unanswered commits, in order.
    pub commits: Vec<CallNumber>,
}

/// A Reserve to send again.
#[derive(Debug, PartialEq, Eq)]
pub struct Unanswered<Caller> {
    /// The caller.
    pub caller: Caller,
    /// The original message.
    pub message: Vec<u8>,
    /// The remaining time, in milliseconds.
    pub patience: u64,
}

impl<Caller> CallStream<Caller> {
    /// Creates a stream that is due to be opened at once. `patience` is the timeout of a Reserve, in
    /// milliseconds.
    pub fn new(patience: u64) -> Self {
        let (state, reserves, commits) = (StreamState::Closed(0), BTreeMap::new(), BTreeMap::new());
        Self { patience, state, reserves, commits, number: 0, backoff: Backoff::default() }
    }

    /// Seeds the jitter of its pauses.
    pub fn with_jitter(self, seed: u128) -> Self {
        Self { backoff: self.backoff.with_jitter(seed), ..self }
    }

    /// Returns whether to open a stream now. If so, the stream counts as opening from now on.
    pub fn open(&mut self, now: u64) -> bool {
        let due = matches!(self.state, StreamState::Closed(at) if at <= now);
        if due {
            self.state = StreamState::Opening(now);
        }
        due
    }

    /// Whether calls can be sent.
    pub fn is_open(&self) -> bool {
        matches!(self.state, StreamState::Open(_))
    }

    /// Builds the message for a Reserve, with a commit that the adapter handles first. `copies` are further
    /// settlements that the Reserve itself carries.
    pub fn reserve(
        &mut self,
        message: Vec<u8>,
        copies: &[&[u8]],
        commit: Option<&Commit>,
        caller: Caller,
        now: u64,
    ) -> Vec<u8> {
        let number = self.next(commit, now);
        let commit = commit.map(|commit| commit.message.as_slice());
        let sent = match copies {
            [] => call::streamed(number, Some(&message), commit),
            copies => call::streamed(number, Some(&call::with_commits(&message, copies)), commit),
        };
        self.reserves.insert(number, PendingReserve { sent: now, message, caller });
        sent
    }

    /// Builds the message for a commit alone.
    pub fn commit(&mut self, commit: &Commit, now: u64) -> Vec<u8> {
        call::streamed(self.next(Some(commit), now), None, Some(&commit.message))
    }

    fn next(&mut self, commit: Option<&Commit>, now: u64) -> u64 {
        self.number = self.number.wrapping_add(1);
        if let Some(commit) = commit {
            self.commits.insert(self.number, (now, commit.number));
        }
        self.number
    }

    /// Handles a reply. An error means that the reply cannot be decoded, so the stream is unusable.
    pub fn heard(&mut self, answer: &[u8], now: u64) -> Result<StreamReply<Caller>, CallFailure> {
        let answer = ReserveAndCommitResponse::decode(answer).map_err(|_| CallFailure::Malformed)?;
        let is_greeting = matches!(self.state, StreamState::Opening(_));
        self.state = StreamState::Open(now);
        self.backoff.succeeded();
        let leases = match (is_greeting, answer.recalled) {
            (true, _) => LeaseNotice::Greeting { grants: answer.grants_leases },
            (false, _) if answer.all_recalled => LeaseNotice::AllRecalled,
            (false, recalled) if !recalled.is_empty() => LeaseNotice::Recalled(recalled),
            _ => LeaseNotice::None,
        };
        let waiting = self.reserves.remove(&answer.number);
        let reserve = waiting.map(|waiting| (waiting.caller, said(answer.reserve, answer.reserve_status)));
        // A reply without a commit does not concern the commits in flight.
        let of_commit = answer.commit.is_some() || answer.commit_status != 0;
        let committed = of_commit.then(|| self.commits.remove(&answer.number)).flatten();
        let commit = committed.map(|(_, number)| (number, said(answer.commit, answer.commit_status)));
        Ok(StreamReply { reserve, commit, leases })
    }

    /// Removes the Reserves that have timed out, and returns their callers.
    pub fn overdue(&mut self, now: u64) -> Vec<Caller> {
        let mut overdue = Vec::new();
        while let Some(first) = self.reserves.first_entry() {
            if now < first.get().sent.saturating_add(self.patience) {
                break;
            }
            overdue.push(first.remove().caller);
        }
        overdue
    }

    /// Whether to cancel the stream: a call is waiting, and nothing has arrived within the timeout of a call.
    pub fn is_stuck(&self, now: u64) -> bool {
        match self.state {
            StreamState::Closed(_) => false,
            StreamState::Opening(since) => now >= since.saturating_add(HELLO_PATIENCE),
            StreamState::Open(heard) => {
                let over = |sent: u64, patience: u64| now >= sent.max(heard).saturating_add(patience);
                self.reserves.values().next().is_some_and(|first| over(first.sent, self.patience))
                    || self.commits.values().next().is_some_and(|(sent, _)| over(*sent, COMMIT_PATIENCE))
            }
        }
    }

    /// Records that the stream has ended, for any reason. Returns the unanswered calls. If the stream worked,
    /// the next one is opened after a short pause. Otherwise the pause grows. A worker with leases does not wait for
    /// long in either case.
    pub fn closed(&mut self, now: u64, has_leases: bool) -> Left<Caller> {
        let worked = self.is_open();
        if worked {
            self.backoff.succeeded();
        }
        let pause = if worked { self.backoff.pause() } else { self.backoff.failed() };
        let pause = if has_leases { pause.min(LEASED_PAUSE) } else { pause };
        self.state = StreamState::Closed(now.saturating_add(pause));
        let unanswered = |PendingReserve { sent, message, caller }| {
            let patience = self.patience.saturating_sub(now.saturating_sub(sent));
            Unanswered { caller, message, patience }
        };
        let reserves = std::mem::take(&mut self.reserves).into_values().map(unanswered).collect();
        let commits = std::mem::take(&mut self.commits).into_values().map(|(_, number)| number).collect();
        Left { reserves, commits }
    }

    /// When to act next, even if nothing arrives.
    pub fn wake_at(&self) -> Option<u64> {
        let reserve = self.reserves.values().next().map(|first| first.sent.saturating_add(self.patience));
        let commit = self.commits.values().next().map(|(sent, _)| sent.saturating_add(COMMIT_PATIENCE));
        let state = match self.state {
            StreamState::Closed(at) => Some(at),
            StreamState::Opening(since) => Some(since.saturating_add(HELLO_PATIENCE)),
            StreamState::Open(_) => None,
        };
        [reserve, commit, state].into_iter().flatten().min()
    }
}

/// A reply without a response or a status is invalid.
fn said<T>(response: Option<T>, status: u32) -> Result<T, CallFailure> {
    match (response, status) {
        (Some(response), _) => Ok(response),
        (None, 0) => Err(CallFailure::Malformed),
        (None, status) => Err(status.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::wire::weir::v1::ReserveAndCommitRequest;

    fn open() -> CallStream<u32> {
        let mut stream = CallStream::new(200);
        assert!(stream.open(0));
        hello(&mut stream, 0);
        stream
    }

    fn hello(stream: &mut CallStream<u32>, now: u64) {
        assert_eq!(
            stream.heard(&[], now),
            Ok(StreamReply { reserve: None, commit: None, leases: LeaseNotice::Greeting { grants: false } })
        );
        assert!(stream.is_open());
    }

    fn commit(number: CallNumber) -> Commit {
        Commit { number, message: Vec::new() }
    }

    fn answer(number: u64, commit: bool) -> Vec<u8> {
        let reserve = Some(ReserveResponse::default());
        let commit = commit.then(CommitResponse::default);
        ReserveAndCommitResponse { number, reserve, commit, ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn it_takes_calls_when_the_adapter_has_said_hello() {
        let mut stream = CallStream::<u32>::new(200);
        assert!(stream.open(0) && !stream.open(0), "one at a time");
        assert!(!stream.is_open());
        hello(&mut stream, 3);
        assert_eq!(stream.wake_at(), None);
    }

    #[test]
    fn a_reserve_carries_a_commit_and_each_is_answered() {
        let mut stream = open();
        let sent = stream.reserve(call::reserve("a", std::iter::empty()), &[], Some(&commit(5)), 7, 10);
        let sent = ReserveAndCommitRequest::decode(&*sent).unwrap();
        assert_eq!((sent.number, sent.reserve.unwrap().reservation_id.as_str()), (1, "a"));
        assert!(sent.commit.is_some());
        let heard = stream.heard(&answer(1, true), 11).unwrap();
        assert_eq!(heard.reserve, Some((7, Ok(ReserveResponse::default()))));
        assert_eq!(heard.commit, Some((5, Ok(CommitResponse::default()))));
        let again = stream.heard(&answer(1, true), 12).unwrap();
        assert_eq!(
            again,
            StreamReply { reserve: None, commit: None, leases: LeaseNotice::None },
            "no call is answered twice"
        );
    }

    #[test]
    fn several_commits_may_be_under_way_and_each_is_told_from_the_others() {
        let mut stream = open();
        for number in [5, 6, 7] {
            let sent = stream.commit(&commit(number), number);
            assert_eq!(ReserveAndCommitRequest::decode(&*sent).unwrap().number, number - 4);
        }
        assert_eq!(stream.heard(&answer(2, true), 10).unwrap().commit.unwrap().0, 6);
        assert_eq!(stream.heard(&answer(2, true), 10).unwrap().commit, None);
        assert_eq!(stream.heard(&answer(9, true), 10).unwrap().commit, None);
        assert_eq!(stream.wake_at(), Some(5 + COMMIT_PATIENCE));
        assert_eq!(stream.closed(11, false).commits, [5, 7]);
    }

    #[test]
    fn a_reserve_carries_what_might_come_after_it_and_is_left_without() {
        let mut stream = open();
        let before = call::commit("b", std::iter::empty());
        let message = call::reserve("a", std::iter::empty());
        let sent = stream.reserve(message.clone(), &[&before], None, 7, 0);
        let reserve = ReserveAndCommitRequest::decode(&*sent).unwrap().reserve.unwrap();
        assert_eq!((reserve.reservation_id.as_str(), reserve.commits.len()), ("a", 1));
        assert_eq!(reserve.commits[0].reservation_id, "b");
        assert_eq!(stream.closed(1, false).reserves[0].message, message);
    }

    #[test]
    fn a_status_is_a_failure_and_silence_is_none() {
        let mut stream = open();
        stream.reserve(Vec::new(), &[], Some(&commit(3)), 7, 0);
        let failed = |number, reserve_status, commit_status| {
            ReserveAndCommitResponse { number, reserve_status, commit_status, ..Default::default() }
                .encode_to_vec()
        };
        let heard = stream.heard(&failed(1, 14, 3), 1).unwrap();
        assert_eq!(heard.reserve, Some((7, Err(CallFailure::Unavailable))));
        assert_eq!(heard.commit, Some((3, Err(CallFailure::Status(3)))));
        stream.reserve(Vec::new(), &[], None, 8, 0);
        let heard = stream.heard(&failed(2, 0, 0), 1).unwrap();
        assert_eq!(heard.reserve, Some((8, Err(CallFailure::Malformed))));
        assert_eq!(stream.heard(&[0xff], 2), Err(CallFailure::Malformed));
    }

    #[test]
    fn one_late_answer_is_a_timeout_and_a_silent_stream_is_stuck() {
        let mut stream = open();
        stream.reserve(Vec::new(), &[], None, 1, 0);
        stream.reserve(Vec::new(), &[], None, 2, 50);
        stream.heard(&answer(2, false), 60).unwrap();
        assert_eq!(stream.wake_at(), Some(200));
        assert!(!stream.is_stuck(200), "others are answered");
        assert_eq!((stream.overdue(199), stream.overdue(200)), (vec![], vec![1]));
        stream.reserve(Vec::new(), &[], None, 3, 300);
        assert!(!stream.is_stuck(499) && stream.is_stuck(500));
    }

    #[test]
    fn what_a_stream_leaves_has_the_rest_of_its_time() {
        let mut stream = open();
        stream.reserve(b"one".to_vec(), &[], Some(&commit(9)), 1, 0);
        stream.reserve(b"two".to_vec(), &[], None, 2, 150);
        let left = stream.closed(160, false);
        let unanswered =
            |caller, message: &[u8], patience| Unanswered { caller, message: message.to_vec(), patience };
        assert_eq!(left.reserves, [unanswered(1, b"one", 40), unanswered(2, b"two", 190)]);
        assert_eq!(left.commits, [9]);
        let again = stream.wake_at().unwrap();
        assert!((210..260).contains(&again), "{again}");
        assert!(!stream.open(again - 1) && stream.open(again));
    }

    #[test]
    fn a_server_without_streams_is_asked_less_and_less_often() {
        let mut stream = CallStream::<u32>::new(200);
        let mut now = 0;
        for longest in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            assert!(stream.open(now));
            stream.closed(now, false);
            let wake = stream.wake_at().unwrap();
            assert!((longest / 2..longest).contains(&(wake - now)), "{} of {longest}", wake - now);
            now = wake;
        }
        assert!(stream.open(now));
        assert!(!stream.is_stuck(now + HELLO_PATIENCE - 1) && stream.is_stuck(now + HELLO_PATIENCE));
    }

    #[derive(Clone, Debug)]
    enum Happening {
        Reserve(bool),
        Answer(u64, bool),
        Pass(u64),
        End,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            3 => any::<bool>().prop_map(Happening::Reserve),
            3 => (0..20u64, any::<bool>()).prop_map(|(number, commit)| Happening::Answer(number, commit)),
            2 => (0..120u64).prop_map(Happening::Pass),
            1 => Just(Happening::End),
        ]
    }

    proptest! {
        #[test]
        fn every_caller_hears_once_and_in_time(story in proptest::collection::vec(happening(), 0..60)) {
            let (mut stream, mut now) = (open(), 0);
            let (mut asked, mut heard) = (Vec::new(), Vec::new());
            for happening in story {
                match happening {
                    Happening::Reserve(commit) if stream.is_open() => {
                        let caller = asked.len() as u32;
                        asked.push(now);
                        let commit = commit.then(|| super::tests::commit(now));
                        stream.reserve(Vec::new(), &[], commit.as_ref(), caller, now);
                    }
                    Happening::Answer(number, commit) if stream.is_open() => {
                        let told = stream.heard(&answer(number, commit), now).unwrap();
                        heard.extend(told.reserve.map(|(caller, _)| caller));
                    }
                    Happening::Pass(time) => {
                        now += time;
                        if stream.open(now) {
                            hello(&mut stream, now);
                        }
                        let stuck = stream.is_stuck(now);
                        heard.extend(stream.overdue(now));
                        if stuck {
                            heard.extend(stream.closed(now, false).reserves.into_iter().map(|one| one.caller));
                        }
                    }
                    Happening::End if stream.is_open() => {
                        heard.extend(stream.closed(now, false).reserves.into_iter().map(|one| one.caller));
                    }
                    _ => {}
                }
                let waiting: Vec<_> = (0..asked.len() as u32).filter(|caller| !heard.contains(caller)).collect();
                for caller in waiting {
                    let over = asked[caller as usize] + 200;
                    prop_assert!(stream.wake_at().is_some_and(|wake| wake <= over), "{caller} is forgotten");
                }
            }
            heard.extend(stream.closed(now, false).reserves.into_iter().map(|one| one.caller));
            heard.sort_unstable();
            prop_assert_eq!(heard, (0..asked.len() as u32).collect::<Vec<_>>());
        }
    }
}
