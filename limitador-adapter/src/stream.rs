//! Reserves and commits in one stream: each request is answered by itself, as soon as the ledger has.

use crate::grpc::RateLimits;
use crate::services::weir::v1::reservation_service_server::ReservationService;
use futures::stream::{Stream, StreamExt, once};
use protocol::wire::weir::v1::{ReserveAndCommitRequest, ReserveAndCommitResponse};
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

/// A stream that is older is ended, so that replicas that come later get their share.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// Requests of one stream that wait for the ledger at once. Further ones wait to be read.
const AT_ONCE: usize = 1024;

/// See the module.
pub struct Reservations {
    limits: Arc<RateLimits>,
    drain: watch::Receiver<bool>,
}

impl Reservations {
    /// Answered by these services. A drain ends every stream when what was read of it is answered.
    pub fn new(limits: Arc<RateLimits>, drain: watch::Receiver<bool>) -> Self {
        Self { limits, drain }
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
        let (limits, mut drain) = (Arc::clone(&self.limits), self.drain.clone());
        let over = async move {
            let draining = async { drop(drain.wait_for(|draining| *draining).await) };
            drop(tokio::time::timeout(LONGEST, draining).await);
        };
        // A request that cannot be read, or a caller that is gone, is the end of the stream.
        let requests = requests.into_inner().take_while(|request| ready(request.is_ok()));
        let answers = requests.take_until(Box::pin(over)).filter_map(|request| ready(request.ok()));
        let answers = answers
            .map(move |request| {
                let limits = Arc::clone(&limits);
                async move { Ok(answer(&limits, request).await) }
            })
            .buffer_unordered(AT_ONCE);
        let hello = once(ready(Ok(ReserveAndCommitResponse::default())));
        Ok(Response::new(Box::pin(hello.chain(answers))))
    }
}

async fn answer(limits: &RateLimits, request: ReserveAndCommitRequest) -> ReserveAndCommitResponse {
    let ReserveAndCommitRequest { number, reserve, commit } = request;
    let reserve = async {
        match reserve {
            Some(request) => Some(limits.reserve_timed(request).await),
            None => None,
        }
    };
    let commit = async {
        match commit {
            Some(request) => Some(limits.commit_timed(request).await),
            None => None,
        }
    };
    let (reserve, commit) = tokio::join!(reserve, commit);
    let (reserve, reserve_status) = split(reserve);
    let (commit, commit_status) = split(commit);
    ReserveAndCommitResponse { number, reserve, commit, reserve_status, commit_status }
}

/// The response, or the number of the status.
fn split<T>(answer: Option<Result<T, Status>>) -> (Option<T>, u32) {
    match answer {
        None => (None, 0),
        Some(Ok(response)) => (Some(response), 0),
        Some(Err(status)) => (None, status.code() as u32),
    }
}
