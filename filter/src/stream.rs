//! The root context's stream to the adapter. Reserves and commits use it while it is open, because a separate
//! call costs Envoy more than all other work for a limit.

use crate::caller::{Asker, Caller};
use crate::host;
use crate::shared::{RESERVE_AND_COMMIT, Shared};
use engine::leases::LeaseCall;
use engine::outbox::{Commit, CommitRoute};
use engine::stream::{CallStream, Left, StreamReply};
use protocol::call::{self, CallFailure};
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// How many commit messages may precede one Reserve. There is more than one only after an outage.
const COMMITS_BEFORE: usize = 4;

/// The stream of one root context.
pub struct Stream {
    calls: RefCell<CallStream<Asker>>,
    /// The token of the current stream, open or opening.
    token: Cell<Option<u32>>,
}

impl Stream {
    /// Creates a closed stream. [`Stream::open`] opens it.
    pub fn new(patience: Duration, seed: u128) -> Self {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        Self { calls: RefCell::new(CallStream::new(patience).with_jitter(seed)), token: Cell::default() }
    }

    /// Whether calls can be sent.
    pub fn is_open(&self) -> bool {
        self.calls.borrow().is_open()
    }

    /// Whether this is the current stream.
    pub fn is(&self, token: u32) -> bool {
        self.token.get() == Some(token)
    }

    /// Sends a Reserve after all pending settlements. Called in the root context.
    pub fn reserve(&self, shared: &Shared, message: Vec<u8>, caller: Caller) {
        let now = shared.now();
        for _ in 0..COMMITS_BEFORE {
            let mut outbox = shared.outbox.borrow_mut();
            if !outbox.exceeds_a_call() {
                break;
            }
            let Some(commit) = outbox.send_before_reserve(now) else { break };
            drop(outbox);
            self.commit(&commit, now);
        }
        let mut outbox = shared.outbox.borrow_mut();
        let commit = outbox.send_before_reserve(now);
        let copies = outbox.copies(CommitRoute::Stream, now);
        let asker = Asker::Exchange(caller);
        let message = self.calls.borrow_mut().reserve(message, &copies, commit.as_ref(), asker, now);
        drop(outbox);
        self.send(&message);
        shared.wake_by(self.wake_at().unwrap_or(now), now);
    }

    /// Requests a lease. Called in the root context.
    pub fn lease(&self, call: LeaseCall, now: u64) {
        let asker = Asker::Lease(call.number);
        let message = self.calls.borrow_mut().reserve(call.message, &[], None, asker, now);
        self.send(&message);
    }

    /// Sends a commit. Called in the root context.
    pub fn commit(&self, commit: &Commit, now: u64) {
        let message = self.calls.borrow_mut().commit(commit, now);
        self.send(&message);
    }

    fn send(&self, message: &[u8]) {
        if let Some(token) = self.token.get() {
            host::send(token, message);
        }
    }

    /// Handles a message.
    pub fn heard(&self, message: &[u8], now: u64) -> Result<StreamReply<Asker>, CallFailure> {
        self.calls.borrow_mut().heard(message, now)
    }

    /// Opens the stream if it is due.
    pub fn open(&self, shared: &Shared, now: u64) -> Result<(), CallFailure> {
        if self.calls.borrow_mut().open(now) {
            let token = host::open_stream(&shared.config.grpc_service, RESERVE_AND_COMMIT)?;
            self.token.set(Some(token));
            host::send(token, &call::introduction(shared.worker()));
        }
        Ok(())
    }

    /// Returns the Reserves that have timed out, and whether the stream should be cancelled.
    pub fn overdue(&self, now: u64) -> (Vec<Asker>, bool) {
        let mut calls = self.calls.borrow_mut();
        let stuck = calls.is_stuck(now);
        (calls.overdue(now), stuck)
    }

    /// Handles a stream that the adapter has ended.
    pub fn ended(&self, shared: &Shared, now: u64) -> Left<Asker> {
        self.token.set(None);
        self.calls.borrow_mut().closed(now, !shared.leases.is_empty())
    }

    /// Ends the stream.
    pub fn cancel(&self, shared: &Shared, now: u64) -> Left<Asker> {
        if let Some(token) = self.token.take() {
            host::cancel_stream(token);
        }
        self.ended(shared, now)
    }

    /// Returns when to act next, even if nothing arrives.
    pub fn wake_at(&self) -> Option<u64> {
        self.calls.borrow().wake_at()
    }
}
