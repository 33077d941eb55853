//! Reserves and commits in one stream. Each request is answered separately, as soon as the ledger has
//! answered. A Reserve waits only for the commits before it, and only until they count: if they are not
//! durable yet, the Reserve of a message is answered first, and its commit in a second reply.

use crate::grpc::rate_limits::RateLimits;
use crate::grpc::services::weir::v1::reservation_service_server::ReservationService;
use crate::grpc::workers::{Presence, StreamEnd, Workers};
use crate::ledger::recalls::Recall;
use crate::spans::ReserveCall;
use futures::future::{FutureExt, Shared};
use futures::stream::{Stream, StreamExt, iter, once, select, unfold};
use protocol::wire::weir::v1::{ReserveAndCommitRequest, ReserveAndCommitResponse};
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, oneshot, watch};
use tonic::{Request, Response, Status, Streaming};

/// The maximum age of a stream. Older streams are ended, so that new replicas get their share of the streams.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// The number of requests of one stream that may wait for the ledger at once. Further requests stay unread.
const AT_ONCE: usize = 1024;

/// Serves `ReserveAndCommit`.
pub struct Reservations {
    limits: Arc<RateLimits>,
    workers: Arc<Workers>,
    drain: watch::Receiver<bool>,
}

impl Reservations {
    /// Creates a stream of these services. A drain ends every stream after its last request is answered.
    pub fn new(limits: Arc<RateLimits>, workers: Arc<Workers>, drain: watch::Receiver<bool>) -> Self {
        Self { limits, workers, drain }
    }
}

#[tonic::async_trait]
impl ReservationService for Reservations {
    type ReserveAndCommitStream =
        Pin<Box<dyn Stream<Item = Result<ReserveAndCommitResponse, Status>> + Send>>;

    async fn reserve_and_commit(
        &self,
        requests: Request<Streaming<ReserveAndCommitRequest>>,
    ) -> Result<Response<Self::ReserveAndCommitStream>, Status> {
        let (limits, workers, mut drain) =
            (Arc::clone(&self.limits), Arc::clone(&self.workers), self.drain.clone());
        let end = StreamEnd::default();
        let ending = end.clone();
        let over = async move {
            let draining = async { drop(drain.wait_for(|draining| *draining).await) };
            drop(tokio::time::timeout(LONGEST, draining).await);
            ending.set_ours();
        };
        // The stream ends at the first request that cannot be read, or when the caller disconnects.
        let requests = requests.into_inner().take_while(|request| ready(request.is_ok()));
        let answers = requests.take_until(Box::pin(over)).filter_map(|request| ready(request.ok()));
        let mut settled: Option<CommitsDone> = None;
        // The guard is dropped with the stream. Then the worker no longer counts as present here.
        let mut presence: Option<Presence> = None;
        let answers = answers
            .flat_map_unordered(AT_ONCE, move |request| {
                let (limits, workers) = (Arc::clone(&limits), Arc::clone(&workers));
                let mut entered = None;
                if presence.is_none() && !request.worker.is_empty() {
                    presence = workers.enter(&request.worker, end.clone());
                    entered = presence.as_ref().map(|presence| presence.worker().to_owned());
                }
                // A Reserve waits for every commit before it, so that no client is refused because of a
                // commit that is still in progress.
                let before = settled.clone();
                let done = request.commit.is_some().then(oneshot::channel::<()>).map(|(done, is_done)| {
                    settled = Some(is_done.shared());
                    done
                });
                let replies = async move {
                    if let Some(worker) = entered {
                        workers.attend(&worker).await;
                    }
                    answer(limits, request, before, done).await
                };
                let replies = once(replies);
                replies
                    .flat_map(|(first, second)| once(ready(first)).chain(iter(second).then(|one| one)))
                    .boxed()
            })
            .map(Ok);
        let grants_leases = self.limits.grants_leases();
        let hello = once(ready(Ok(ReserveAndCommitResponse { grants_leases, ..Default::default() })));
        let (answers, ended) = until_ended(answers);
        let recalls = recalls(self.limits.recalls()).take_until(ended);
        Ok(Response::new(Box::pin(hello.chain(select(answers, recalls)))))
    }
}

/// Returns the recalls as messages of a stream.
fn recalls(
    recalls: broadcast::Receiver<Recall>,
) -> impl Stream<Item = Result<ReserveAndCommitResponse, Status>> + Send {
    unfold(recalls, |mut recalls| async move {
        let reply = match recalls.recv().await {
            Ok(Recall::Bucket(bucket)) => {
                ReserveAndCommitResponse { recalled: vec![bucket], ..Default::default() }
            }
            // Some are lost.
            Ok(Recall::All) | Err(RecvError::Lagged(_)) => {
                ReserveAndCommitResponse { all_recalled: true, ..Default::default() }
            }
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(reply), recalls))
    })
}

/// Returns the stream, and a future that resolves when the stream has ended.
fn until_ended<T: Send>(
    stream: impl Stream<Item = T> + Send,
) -> (impl Stream<Item = T> + Send, impl Future<Output = ()> + Send) {
    let (ends, ended) = oneshot::channel::<()>();
    // The sender is dropped with the last item.
    let stream = stream.map(Some).chain(once(ready(None))).scan(ends, |_, item| ready(item));
    (stream, async { drop(ended.await) })
}

/// Resolves when every commit up to this message of the stream has been handled.
type CommitsDone = Shared<oneshot::Receiver<()>>;

/// A reply that waits until a commit is durable.
type SecondReply = Pin<Box<dyn Future<Output = ReserveAndCommitResponse> + Send>>;

async fn answer(
    limits: Arc<RateLimits>,
    request: ReserveAndCommitRequest,
    before: Option<CommitsDone>,
    done: Option<oneshot::Sender<()>>,
) -> (ReserveAndCommitResponse, Option<SecondReply>) {
    let ReserveAndCommitRequest { number, reserve, commit, .. } = request;
    let commit = match commit {
        Some(request) => Some(limits.charge(request).await),
        None => None,
    };
    // If the earlier commits were dropped without an answer, there is nothing to wait for.
    if let Some(before) = before {
        drop(before.await);
    }
    if let Some(done) = done {
        // The receiver may be gone.
        done.send(()).unwrap_or_default();
    }
    let (reserve, reserve_status) = split(match reserve {
        Some(request) => Some(limits.reserve_timed(request, ReserveCall::Streamed).await),
        None => None,
    });
    let is_reserve = reserve.is_some() || reserve_status != 0;
    let reply = ReserveAndCommitResponse { number, reserve, reserve_status, ..Default::default() };
    let Some(commit) = commit else { return (reply, None) };
    let mut acknowledged: SecondReply = Box::pin(async move {
        let (commit, commit_status) = split(Some(limits.acknowledge(commit).await));
        ReserveAndCommitResponse { number, commit, commit_status, ..Default::default() }
    });
    if !is_reserve {
        return (acknowledged.await, None);
    }
    // Without a storage that has to write, there is nothing to wait for, and one reply is enough.
    match (&mut acknowledged).now_or_never() {
        Some(ReserveAndCommitResponse { commit, commit_status, .. }) => {
            (ReserveAndCommitResponse { commit, commit_status, ..reply }, None)
        }
        None => (reply, Some(acknowledged)),
    }
}

/// Splits a result into the response and the status code.
fn split<T>(answer: Option<Result<T, Status>>) -> (Option<T>, u32) {
    match answer {
        None => (None, 0),
        Some(Ok(response)) => (Some(response), 0),
        Some(Err(status)) => (None, status.code() as u32),
    }
}
