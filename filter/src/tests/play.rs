//! Stands in for Envoy: streams with events in the order of the test, and an adapter that replies on demand.

use super::host::module::*;
use super::host::{self, GrpcCall, HttpStream};
use crate::root::Root;
use prost::Message;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{
    CommitRequest, CommitResponse, DescriptorStatus, GrantedLease, ReserveRequest, ReserveResponse,
};
use protocol::wire::weir::v1::{
    BucketUsage, GetUsageRequest, GetUsageResponse, ReserveAndCommitRequest, ReserveAndCommitResponse,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The counter of all leases.
const COUNTER: u64 = 7;

/// The root context.
pub const ROOT: u32 = 1;

/// A worker with the filter.
pub struct Worker {
    contexts: u32,
    streams: BTreeMap<u32, Progress>,
    /// The unanswered calls to the adapter.
    pub waiting: Vec<Asked>,
    /// The tokens of the unanswered questions about usage, with the number of buckets of each.
    pub questions: Vec<(u32, usize)>,
    /// Reservations that were requested, that were refused, and that have ended.
    pub asked: BTreeSet<String>,
    pub refused: BTreeSet<String>,
    pub ended: BTreeMap<String, u64>,
    /// Running requests that were admitted from leases.
    pub detached: BTreeSet<String>,
}

/// A call to the adapter.
#[derive(Debug)]
pub struct Asked {
    token: u32,
    /// The number of the message in a stream.
    number: Option<u64>,
    reserve: Option<ReserveRequest>,
    commits: Vec<CommitRequest>,
}

/// The progress of a stream.
#[derive(Debug, Default)]
pub struct Progress {
    request_ended: bool,
    response: Phase,
    /// The filter holds back the request's headers or body.
    held: bool,
    /// The bytes that went upstream, and the bytes that reached the client.
    pub upstream: Vec<u8>,
    pub client: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    None,
    Body,
    Ended,
}

/// How the adapter replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Ok,
    /// The request passes although the limit has no room.
    Exceeded,
    OverLimit,
    /// With this gRPC status.
    Fail(u32),
}

impl Worker {
    pub fn new(spec: Value, failure_mode: &str, reads_bodies: bool) -> Self {
        let mut spec = spec;
        spec["targetRef"] =
            json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway" });
        spec["failureMode"] = failure_mode.into();
        let policy = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy",
            "metadata": { "name": "llm" }, "spec": spec,
        });
        let access = if reads_bodies { "Buffer" } else { "None" };
        let configuration = json!({
            "adapter": { "cluster": "adapter" }, "requestBody": { "access": access }, "policies": [policy],
            "usagePath": "/usage",
        });
        host::with(|host| {
            host.reset();
            host.now = 1_000_000_000;
            host.configuration = configuration.to_string().into_bytes();
            host.enter(ROOT);
        });
        proxy_wasm::set_root_context(|id| Box::new(Root::new(id)));
        proxy_on_context_create(ROOT, 0);
        let size = host::with(|host| host.configuration.len());
        assert!(proxy_on_configure(ROOT, size), "the configuration is accepted");
        let mut worker = Self {
            contexts: ROOT,
            streams: BTreeMap::new(),
            waiting: Vec::new(),
            questions: Vec::new(),
            asked: BTreeSet::new(),
            refused: BTreeSet::new(),
            ended: BTreeMap::new(),
            detached: BTreeSet::new(),
        };
        worker.hear();
        worker
    }

    /// Sends the greeting of an adapter that grants leases. From here on, the filter uses the stream.
    pub fn open_stream(&mut self) {
        self.say(&ReserveAndCommitResponse { grants_leases: true, ..Default::default() });
    }

    /// Sends a message in the open stream.
    pub fn say(&mut self, message: &ReserveAndCommitResponse) {
        let open = host::with(|host| host.open.iter().next().copied());
        open.into_iter().for_each(|token| self.receive(token, &message.encode_to_vec()));
    }

    /// Ends the stream to the adapter.
    pub fn close_stream(&mut self, status: u32) {
        let open = host::with(|host| host.open.iter().next().copied());
        if let Some(token) = open {
            host::with(|host| host.open.remove(&token));
            self.waiting.retain(|asked| asked.token != token || asked.number.is_none());
            self.enter(ROOT);
            proxy_on_grpc_close(0, token, status);
            self.hear();
        }
    }

    pub fn advance(&mut self, milliseconds: u64) {
        host::with(|host| host.now += milliseconds * 1_000_000);
        self.enter(ROOT);
        proxy_on_tick(ROOT);
        self.hear();
    }

    /// Delivers a request's headers.
    pub fn request(&mut self, headers: &[(&str, &str)], end: bool) -> u32 {
        self.contexts += 1;
        let context = self.contexts;
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        let count = headers.len();
        host::with(|host| {
            host.streams.insert(context, HttpStream { request_headers: headers, ..HttpStream::default() });
        });
        self.enter(context);
        proxy_on_context_create(context, ROOT);
        self.streams.insert(context, Progress { request_ended: end, ..Progress::default() });
        self.enter(context);
        let held = proxy_on_request_headers(context, count, end) == 1;
        self.went(context, held);
        self.hear();
        context
    }

    /// Delivers more of a request's body.
    pub fn body(&mut self, context: u32, bytes: &[u8], end: bool) {
        let Some(progress) = self.streams.get_mut(&context).filter(|progress| !progress.request_ended) else {
            return;
        };
        progress.request_ended = end;
        if Self::is_replied(context) {
            return;
        }
        let size = host::with(|host| {
            let body = &mut host.streams.get_mut(&context).unwrap().request_body;
            body.extend(bytes);
            body.len()
        });
        self.enter(context);
        let held = proxy_on_request_body(context, size, end) == 1;
        self.went(context, held);
        self.hear();
    }

    pub fn request_trailers(&mut self, context: u32) {
        let Some(progress) = self.streams.get_mut(&context).filter(|progress| !progress.request_ended) else {
            return;
        };
        progress.request_ended = true;
        if !Self::is_replied(context) {
            self.enter(context);
            let held = proxy_on_request_trailers(context, 0) == 1;
            self.went(context, held);
            self.hear();
        }
    }

    /// Delivers the upstream's response, if the request was forwarded.
    pub fn respond(&mut self, context: u32, headers: &[(&str, &str)], end: bool) {
        let Some(progress) = self.streams.get_mut(&context) else { return };
        if progress.held || progress.response != Phase::None {
            return;
        }
        progress.response = if end { Phase::Ended } else { Phase::Body };
        host::with(|host| {
            let stream = host.streams.get_mut(&context).unwrap();
            stream.response_headers =
                headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        });
        self.enter(context);
        proxy_on_response_headers(context, headers.len(), end);
        self.hear();
    }

    /// Delivers the response to an upgrade whose headers were forwarded, even if later bytes are held back.
    pub fn respond_early(&mut self, context: u32, headers: &[(&str, &str)]) {
        if let Some(progress) = self.streams.get_mut(&context) {
            let held = std::mem::take(&mut progress.held);
            self.respond(context, headers, false);
            if let Some(progress) = self.streams.get_mut(&context) {
                progress.held |= held && host::with(|host| !host.streams[&context].resumed);
            }
        }
    }

    pub fn response_body(&mut self, context: u32, bytes: &[u8], end: bool) {
        let Some(progress) =
            self.streams.get_mut(&context).filter(|progress| progress.response == Phase::Body)
        else {
            return;
        };
        if end {
            progress.response = Phase::Ended;
        }
        let size = host::with(|host| {
            let body = &mut host.streams.get_mut(&context).unwrap().response_body;
            body.extend(bytes);
            body.len()
        });
        self.enter(context);
        if proxy_on_response_body(context, size, end) == 0 {
            let passed =
                host::with(|host| std::mem::take(&mut host.streams.get_mut(&context).unwrap().response_body));
            self.streams.get_mut(&context).unwrap().client.extend(passed);
        }
        self.hear();
    }

    pub fn response_trailers(&mut self, context: u32) {
        let Some(progress) =
            self.streams.get_mut(&context).filter(|progress| progress.response == Phase::Body)
        else {
            return;
        };
        progress.response = Phase::Ended;
        self.enter(context);
        proxy_on_response_trailers(context, 0);
        self.hear();
    }

    /// Ends the stream in any state.
    pub fn end(&mut self, context: u32) -> Option<Progress> {
        let progress = self.streams.remove(&context)?;
        self.enter(context);
        proxy_on_done(context);
        self.enter(context);
        proxy_on_log(context);
        self.enter(context);
        proxy_on_delete(context);
        host::with(|host| host.streams.remove(&context));
        self.hear();
        Some(progress)
    }

    pub fn is_held(&self, context: u32) -> bool {
        self.streams[&context].held
    }

    pub fn upstream(&self, context: u32) -> &[u8] {
        &self.streams[&context].upstream
    }

    pub fn client(&self, context: u32) -> &[u8] {
        &self.streams[&context].client
    }

    /// Returns the status of the filter's local reply.
    pub fn replied(context: u32) -> Option<u32> {
        host::with(|host| host.streams[&context].replied.as_ref().map(|(status, _)| *status))
    }

    fn is_replied(context: u32) -> bool {
        Self::replied(context).is_some()
    }

    /// Returns the contexts of the open streams.
    pub fn contexts(&self) -> Vec<u32> {
        self.streams.keys().copied().collect()
    }

    /// Grants a lease of what was asked.
    fn granted(response: ReserveResponse, amount: u64) -> ReserveResponse {
        let status =
            DescriptorStatus { code: Code::Ok.into(), limit: 1000, remaining: 0, ..Default::default() };
        let lease = GrantedLease { amount, ttl_ms: 10_000, counter: COUNTER };
        ReserveResponse { statuses: vec![status], lease: Some(lease), ..response }
    }

    /// Recalls the leases of the counter.
    pub fn recall(&mut self) {
        self.say(&ReserveAndCommitResponse { recalled: vec![COUNTER], ..Default::default() });
    }

    /// Replies to the calls in the order in which they were made.
    pub fn answer(&mut self, place: usize, reply: Reply) {
        if place >= self.waiting.len() {
            return;
        }
        let asked = self.waiting.remove(place);
        // A commit that arrived takes effect even if its reply is lost.
        for commit in &asked.commits {
            self.commit(commit);
        }
        let id = asked.reserve.as_ref().map(|reserve| reserve.reservation_id.clone()).unwrap_or_default();
        if let (Some(_), Reply::OverLimit) = (&asked.reserve, reply) {
            self.refused.insert(id.clone());
        }
        let code = if reply == Reply::OverLimit { Code::OverLimit } else { Code::Ok };
        let exceeded =
            DescriptorStatus { exceeded: true, code: Code::Ok.into(), ..DescriptorStatus::default() };
        let leased = asked.reserve.as_ref().filter(|reserve| reply == Reply::Ok && reserve.lease);
        let leased = leased.map(|reserve| reserve.amount);
        let reserve = asked.reserve.map(|reserve| ReserveResponse {
            code: code.into(),
            reservation_id: id,
            statuses: match reply {
                Reply::Exceeded => vec![exceeded; reserve.descriptors.len()],
                Reply::Ok | Reply::OverLimit | Reply::Fail(_) => Vec::new(),
            },
            lease: None,
        });
        let reserve = reserve.map(|response| match leased {
            Some(amount) => Self::granted(response, amount),
            None => response,
        });
        let settled = asked.commits.iter().map(|commit| 1 + commit.further.len() as u64).sum::<u64>();
        let commit = (settled > 0).then_some(CommitResponse { settled, ..CommitResponse::default() });
        match (asked.number, reply) {
            (None, Reply::Fail(status)) => {
                self.enter(ROOT);
                proxy_on_grpc_close(0, asked.token, status);
                self.hear();
            }
            (None, _) => {
                let message = match (reserve, commit) {
                    (Some(reserve), _) => reserve.encode_to_vec(),
                    (None, commit) => commit.unwrap_or_default().encode_to_vec(),
                };
                self.receive(asked.token, &message);
            }
            (Some(number), reply) => {
                let (has_reserve, has_commit) = (reserve.is_some(), commit.is_some());
                let mut response = ReserveAndCommitResponse { number, ..ReserveAndCommitResponse::default() };
                if let Reply::Fail(status) = reply {
                    response.reserve_status = if has_reserve { status } else { 0 };
                    response.commit_status = if has_commit { status } else { 0 };
                } else {
                    (response.reserve, response.commit) = (reserve, commit);
                }
                self.receive(asked.token, &response.encode_to_vec());
            }
        }
    }

    /// Answers the oldest question about usage, as the adapter.
    pub fn tell_usage(&mut self, reply: Reply) {
        if self.questions.is_empty() {
            return;
        }
        let (token, size) = self.questions.remove(0);
        if let Reply::Fail(status) = reply {
            self.enter(ROOT);
            proxy_on_grpc_close(0, token, status);
            return self.hear();
        }
        let buckets = vec![BucketUsage { known: true, max: 7, ..BucketUsage::default() }; size];
        self.receive(token, &GetUsageResponse { buckets }.encode_to_vec());
    }

    fn receive(&mut self, token: u32, message: &[u8]) {
        host::with(|host| host.received = message.to_vec());
        self.enter(ROOT);
        proxy_on_grpc_receive(0, token, message.len());
        self.hear();
    }

    fn commit(&mut self, commit: &CommitRequest) {
        for commit in commit.further.iter().chain([commit]) {
            self.detached.extend(commit.admitted.iter().map(|one| one.reservation_id.clone()));
            if commit.reservation_id.is_empty() {
                continue;
            }
            let charged = commit.descriptors.iter().map(|one| one.hits_addend.unwrap_or_default());
            self.ended.entry(commit.reservation_id.clone()).or_insert_with(|| charged.sum());
        }
    }

    fn enter(&self, context: u32) {
        host::with(|host| host.enter(context));
    }

    /// Records the bytes that the filter has passed on, in a callback or later.
    fn went(&mut self, context: u32, held: bool) {
        let progress = self.streams.get_mut(&context).unwrap();
        progress.held = held;
        host::with(|host| {
            let stream = host.streams.get_mut(&context).unwrap();
            if !held {
                progress.upstream.append(&mut stream.request_body);
            }
            stream.resumed = false;
        });
    }

    /// Handles the filter's new calls to the adapter, and the requests that it has resumed.
    fn hear(&mut self) {
        let resumed: Vec<u32> = host::with(|host| {
            host.streams.iter().filter(|(_, stream)| stream.resumed).map(|(id, _)| *id).collect()
        });
        for context in resumed {
            if self.streams.contains_key(&context) {
                self.went(context, false);
            }
        }
        for GrpcCall { token, method, message, .. } in host::with(|host| std::mem::take(&mut host.sent)) {
            let mut asked = Asked { token, number: None, reserve: None, commits: Vec::new() };
            match method.as_str() {
                "Reserve" => asked.reserve = Some(ReserveRequest::decode(message.as_slice()).unwrap()),
                "Commit" => asked.commits.push(CommitRequest::decode(message.as_slice()).unwrap()),
                "ReserveAndCommit" => {
                    let message = ReserveAndCommitRequest::decode(message.as_slice()).unwrap();
                    asked.number = Some(message.number);
                    asked.reserve = message.reserve;
                    asked.commits.extend(message.commit);
                }
                "GetUsage" => {
                    let question = GetUsageRequest::decode(message.as_slice()).unwrap();
                    question.commits.iter().for_each(|commit| self.commit(commit));
                    self.questions.push((token, question.descriptors.len()));
                    continue;
                }
                method => panic!("{method} is called"),
            }
            if let Some(reserve) = &asked.reserve {
                self.asked.insert(reserve.reservation_id.clone());
            }
            if asked.reserve.is_some() || !asked.commits.is_empty() {
                self.waiting.push(asked);
            }
        }
    }

    /// Ends everything, and replies to all calls.
    pub fn finish(&mut self) {
        host::with(|host| host.unreachable = false);
        for context in self.contexts() {
            self.end(context);
        }
        // The maximum length of a backoff.
        for _ in 0..30 {
            self.advance(10_000);
            while !self.waiting.is_empty() {
                self.answer(0, Reply::Ok);
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.finish();
        self.enter(ROOT);
        proxy_on_done(ROOT);
        self.hear();
        proxy_on_delete(ROOT);
    }
}
