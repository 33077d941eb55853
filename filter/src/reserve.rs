//! Sends Reserves and handles their replies. Reserves use the stream while it is open, and separate calls
//! otherwise. Separate calls are retried while the adapter is unavailable. Every reply goes through
//! [`deliver`].

use crate::caller::{Caller, ReserveReply};
use crate::host;
use crate::shared::{RESERVE, Shared};
use crate::trace;
use engine::outbox::CommitRoute;
use engine::retry::Retry;
use protocol::call::{self, CallFailure};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Weak;

/// Separate calls, by token. Envoy delivers a reply to the context that made the call, or drops it if the
/// context is gone.
#[derive(Default)]
pub struct ReserveCalls {
    calls: RefCell<HashMap<u32, (Caller, Retry)>>,
    /// Above this number, calls without a waiting exchange are dropped.
    prune_at: Cell<usize>,
}

/// The part of the timeout that the adapter may wait for recalled leases. The rest is for the way there and back.
const RECALL_PART: u32 = 4;

/// Smaller tables are not checked.
const MIN_PRUNED: usize = 64;

impl ReserveCalls {
    fn insert(&self, token: u32, caller: Caller, retry: Retry) {
        let mut calls = self.calls.borrow_mut();
        if calls.len() >= self.prune_at.get().max(MIN_PRUNED) {
            calls.retain(|_, (caller, _)| caller.strong_count() > 0);
            self.prune_at.set(calls.len().saturating_mul(2));
        }
        calls.insert(token, (caller, retry));
    }
}

/// Sends a Reserve of the exchange in context `context`, after all pending settlements. If it fails at once,
/// the error takes the place of the reply.
pub fn send(shared: &Shared, context: u32, caller: &Caller, mut message: Vec<u8>) -> Result<(), CallFailure> {
    shared.deferred.read_ended();
    call::add_recall_time(&mut message, shared.config.timeout / RECALL_PART);
    if shared.stream.is_open() {
        let caller = Weak::clone(caller);
        host::as_context(shared.root, context, || shared.stream.reserve(shared, message, caller));
        return Ok(());
    }
    let timeout = u64::try_from(shared.config.timeout.as_millis()).unwrap_or(u64::MAX);
    call(shared, context, Weak::clone(caller), Retry::new(message, shared.now(), timeout))
}

/// Resends a Reserve as a separate call after the stream ended without a reply.
pub fn resend(shared: &Shared, caller: &Caller, message: Vec<u8>, timeout: u64) {
    // If the exchange has ended, it has already released its hold.
    if caller.strong_count() > 0 {
        let retry = Retry::new(message, shared.now(), timeout);
        if let Err(failure) = call(shared, shared.root, Weak::clone(caller), retry) {
            deliver(shared.root, caller, Err(failure));
        }
    }
}

/// Handles a reply that context `context` has received. Returns false if it does not belong to a Reserve.
pub fn answered(shared: &Shared, context: u32, token: u32, reply: Result<&[u8], CallFailure>) -> bool {
    let Some((caller, retry)) = shared.reserves.calls.borrow_mut().remove(&token) else { return false };
    let reply = match reply {
        Ok(message) => {
            shared.reached();
            call::reply(Ok(message))
        }
        Err(failure) => match retry.failed(failure, shared.now()) {
            Ok(retry) => match call(shared, context, Weak::clone(&caller), retry) {
                Ok(()) => return true,
                Err(failure) => Err(failure),
            },
            Err(failure) => Err(failure),
        },
    };
    deliver(context, &caller, reply);
    true
}

/// Passes a reply to the exchange that waits for it.
pub fn deliver(context: u32, caller: &Caller, reply: ReserveReply) {
    if let Some(exchange) = caller.upgrade() {
        let mut exchange = exchange.borrow_mut();
        host::as_context(exchange.context(), context, || exchange.reserved(reply));
    }
}

/// Passes the reply to a request for a lease on.
pub fn lease_answered(shared: &Shared, number: u64, reply: ReserveReply) {
    let returned = shared.leases.answered(number, reply, shared.now());
    returned.into_iter().for_each(|settlement| shared.commit(settlement));
}

fn call(shared: &Shared, context: u32, caller: Caller, retry: Retry) -> Result<(), CallFailure> {
    let now = shared.now();
    // Separate calls are not ordered, so the Reserve carries the settlements that must come before it.
    let message =
        call::with_commits(retry.message(), &shared.outbox.borrow().copies(CommitRoute::Unary, now));
    let (service, timeout) = (&shared.config.grpc_service, retry.patience(now));
    let trace = shared.in_force().traces().then(|| call::trace_of(retry.message())).flatten();
    let metadata = trace.as_ref().map(trace::metadata).unwrap_or_default();
    let token = host::as_context(shared.root, context, || {
        host::call_with(service, RESERVE, metadata, &message, timeout)
    })?;
    shared.reserves.insert(token, caller, retry);
    Ok(())
}
