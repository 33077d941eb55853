//! Reserves and commits in one stream.

use crate::server::{POLICY, Server, commit, reserve, whole};
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::weir::v1::{ReserveAndCommitRequest, ReserveAndCommitResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code as Grpc, Status, Streaming};

struct Stream {
    requests: mpsc::UnboundedSender<ReserveAndCommitRequest>,
    answers: Streaming<ReserveAndCommitResponse>,
}

impl Stream {
    /// Opens a stream and hears the hello.
    async fn open(server: &Server) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        let answers = server.reservations().reserve_and_commit(UnboundedReceiverStream::new(receiver)).await;
        let mut stream = Self { requests, answers: answers.unwrap().into_inner() };
        assert_eq!(stream.hear().await, Some(ReserveAndCommitResponse::default()));
        stream
    }

    async fn hear(&mut self) -> Option<ReserveAndCommitResponse> {
        self.answers.message().await.unwrap()
    }
}

fn holding(number: u64, id: &str) -> ReserveAndCommitRequest {
    ReserveAndCommitRequest { number, reserve: Some(reserve(id, whole(400, 1))), commit: None }
}

#[tokio::test]
async fn each_request_is_answered_by_its_number() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    let mut stream = Stream::open(&server).await;
    stream.requests.send(holding(7, "a")).unwrap();
    let answer = stream.hear().await.unwrap();
    assert_eq!((answer.number, answer.reserve.unwrap().code(), answer.commit), (7, Code::Ok, None));

    let both = ReserveAndCommitRequest { commit: Some(commit("a", whole(150, 1))), ..holding(8, "b") };
    stream.requests.send(both).unwrap();
    let answer = stream.hear().await.unwrap();
    assert_eq!((answer.number, answer.reserve.unwrap().code()), (8, Code::Ok));
    assert_eq!(answer.commit.unwrap().settled, 1);
    assert_eq!(server.books("free", "tokens").await, [(150, 400)]);
}

#[tokio::test]
async fn a_request_that_fails_has_a_status_and_the_stream_goes_on() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    let mut stream = Stream::open(&server).await;
    let mut absurd = holding(1, "a");
    let descriptors = &mut absurd.reserve.as_mut().unwrap().descriptors;
    *descriptors = descriptors.iter().cycle().take(1_000).cloned().collect();
    stream.requests.send(absurd).unwrap();
    let answer = stream.hear().await.unwrap();
    let statuses = (answer.reserve_status, answer.commit_status);
    assert_eq!((answer.number, answer.reserve, statuses), (1, None, (Grpc::InvalidArgument as u32, 0)));
    stream.requests.send(holding(2, "b")).unwrap();
    assert_eq!(stream.hear().await.unwrap().reserve.unwrap().code(), Code::Ok);
}

#[tokio::test]
async fn a_drain_ends_a_stream_well() {
    let server = Server::start(&[("llm.yaml", POLICY)]).await;
    let mut stream = Stream::open(&server).await;
    let draining = tokio::spawn(server.serving.drain());
    let ended: Result<Option<_>, Status> = stream.answers.message().await;
    assert_eq!(ended.unwrap(), None);
    draining.await.unwrap();
}
