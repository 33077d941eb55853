//! Sends calls that wait at the same time as one call of a function, which saves Redis most of the work that a call
//! causes by itself. A call never waits for others to come: it is sent at once unless a batch is under way. Otherwise,
//! it is in the next batch.

use super::connection::Link;
use super::library::Function;
use crate::ledger::{StorageFault, Unavailable};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, oneshot};

/// The number of keys in a batch, unless its only call has more. So many take Redis one or two milliseconds, in which
/// it executes nothing else.
const KEYS: usize = 64;

/// A call of a batch.
pub struct BatchedCall {
    /// The arguments at the beginning of a batch, which are the same for all its calls.
    pub shared: [String; 2],
    pub keys: Vec<String>,
    pub arguments: Vec<String>,
}

struct WaitingCall {
    call: BatchedCall,
    reply: oneshot::Sender<Result<Vec<i64>, Unavailable>>,
}

/// The calls of one kind that wait to be sent.
pub struct Batches {
    function: Function,
    waiting: Mutex<VecDeque<WaitingCall>>,
    /// One batch is under way. Meanwhile, Redis works on other kinds of calls, and more calls gather for the next
    /// batch.
    under_way: Arc<Semaphore>,
}

impl Batches {
    /// Creates the batches of this function, which is a `batch_of` calls.
    pub fn new(function: Function) -> Arc<Self> {
        Arc::new(Self { function, waiting: Mutex::default(), under_way: Arc::new(Semaphore::new(1)) })
    }

    /// Runs a call in the next batch, and returns its reply. `common` returns the keys at the beginning of a batch.
    /// If the future is dropped before the call is sent, it is not sent.
    pub async fn run(
        self: &Arc<Self>,
        link: &Arc<Link>,
        common: impl FnOnce() -> Vec<String>,
        call: BatchedCall,
    ) -> Result<Vec<i64>, Unavailable> {
        let (reply, mut answered) = oneshot::channel();
        self.lock().push_back(WaitingCall { call, reply });
        let slot = tokio::time::timeout(link.timeout(), Arc::clone(&self.under_way).acquire_owned());
        tokio::select! {
            biased;
            // Another call has taken this one along.
            answer = &mut answered => return answer.unwrap_or_else(|_| Err(unanswered())),
            slot = slot => {
                let Ok(Ok(slot)) = slot else { return Err(unanswered()) };
                let batch = take_batch(&mut self.lock());
                if !batch.is_empty() {
                    let (batches, link, common) = (Arc::clone(self), Arc::clone(link), common());
                    // The caller may go away, but the others' answers are still needed.
                    tokio::spawn(async move {
                        send(batches.function, &link, common, batch).await;
                        drop(slot);
                    });
                }
            }
        }
        answered.await.unwrap_or_else(|_| Err(unanswered()))
    }

    /// A panic cannot leave the queue half changed.
    fn lock(&self) -> MutexGuard<'_, VecDeque<WaitingCall>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unanswered() -> Unavailable {
    Unavailable::new(StorageFault::Unreachable, "Redis does not answer in time")
}

/// Takes the calls of the next batch out of the queue, without those that nobody waits for any more.
fn take_batch(waiting: &mut VecDeque<WaitingCall>) -> Vec<WaitingCall> {
    let (mut batch, mut keys) = (Vec::<WaitingCall>::new(), 0);
    while let Some(next) = waiting.pop_front() {
        if next.reply.is_closed() {
            continue;
        }
        keys += next.call.keys.len();
        let fits = batch.first().is_none_or(|first| keys <= KEYS && first.call.shared == next.call.shared);
        if !fits {
            waiting.push_front(next);
            break;
        }
        batch.push(next);
    }
    batch
}

async fn send(function: Function, link: &Link, mut keys: Vec<String>, batch: Vec<WaitingCall>) {
    let (mut arguments, mut callers) = (Vec::new(), Vec::with_capacity(batch.len()));
    for WaitingCall { call, reply } in batch {
        if arguments.is_empty() {
            arguments.extend(call.shared);
        }
        keys.extend(call.keys);
        arguments.extend(call.arguments);
        callers.push(reply);
    }
    let mut replies = match link.run_batch(function, &keys, &arguments).await {
        Ok(replies) => replies,
        Err(error) => callers.iter().map(|_| Err(error.clone())).collect(),
    }
    .into_iter();
    for caller in callers {
        let reply = replies
            .next()
            .unwrap_or_else(|| Err(Unavailable::failed("unexpected reply from a Weir function")));
        // If the caller has gone, it does not need its answer.
        drop(caller.send(reply));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(keys: usize, shared: &str) -> (WaitingCall, oneshot::Receiver<Result<Vec<i64>, Unavailable>>) {
        let (reply, answered) = oneshot::channel();
        let shared = [shared.to_owned(), String::new()];
        (
            WaitingCall {
                call: BatchedCall { shared, keys: vec![String::new(); keys], arguments: vec![] },
                reply,
            },
            answered,
        )
    }

    /// Returns the number of keys of each call in each batch.
    fn batches(calls: Vec<WaitingCall>) -> Vec<Vec<usize>> {
        let mut queue = VecDeque::from(calls);
        let batches = std::iter::from_fn(|| Some(take_batch(&mut queue)).filter(|batch| !batch.is_empty()));
        batches.map(|batch| batch.iter().map(|one| one.call.keys.len()).collect()).collect()
    }

    #[test]
    fn a_batch_has_a_bounded_number_of_keys() {
        let (calls, _answered): (Vec<_>, Vec<_>) =
            [40, 24, 1, 100, 2].map(|keys| waiting(keys, "")).into_iter().unzip();
        assert_eq!(batches(calls), [vec![40, 24], vec![1], vec![100], vec![2]]);
    }

    #[test]
    fn the_calls_of_a_batch_have_the_same_time() {
        let (calls, _answered): (Vec<_>, Vec<_>) =
            [(2, "1"), (3, "1"), (4, "2")].map(|(keys, time)| waiting(keys, time)).into_iter().unzip();
        assert_eq!(batches(calls), [vec![2, 3], vec![4]]);
    }

    #[test]
    fn a_call_without_a_caller_is_not_sent() {
        let (mut calls, mut answered): (Vec<_>, Vec<_>) =
            [1, 2, 3].map(|keys| waiting(keys, "")).into_iter().unzip();
        drop(answered.remove(1));
        assert_eq!(batches(std::mem::take(&mut calls)), [vec![1, 3]]);
    }
}
