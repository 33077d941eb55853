//! The rate limit services. Each method forwards its message and records the latency.

use crate::grpc::envoy::{Ask, answer};
use crate::grpc::limiter::{CallError, Limiter};
use crate::grpc::services::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService as EnvoyService;
use crate::grpc::services::kuadrant::service::ratelimit::v1::rate_limit_service_server::RateLimitService as KuadrantService;
use crate::grpc::services::weir::v1::usage_service_server::UsageService;
use crate::ledger::StorageFault;
use crate::ledger::moment::Moment;
use crate::ledger::recalls::Recall;
use crate::ledger::stored::StoredId;
use crate::spans::{ReserveCall, Spans};
use crate::usage::completion::Completion;
use crate::usage::recorder::{RecordError, UsageRecorder};
use metrics::Histogram;
use protocol::trace::TraceContext;
use protocol::wire::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use protocol::wire::kuadrant::service::ratelimit::v1::{
    CommitRequest, CommitResponse, ReserveRequest, ReserveResponse, SeenResult,
};
use protocol::wire::weir::v1 as wire;
use protocol::wire::weir::v1::{GetUsageRequest, GetUsageResponse, RecordUsageResponse, SettledUsage};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::broadcast;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

type CallResult<T> = Result<Response<T>, Status>;

pub struct RateLimits {
    limiter: Arc<Limiter>,
    reserve: Histogram,
    commit: Histogram,
    check: Histogram,
    report: Histogram,
    should: Histogram,
    usage: Histogram,
    record: Histogram,
    recorder: Option<Arc<UsageRecorder>>,
    spans: Option<Spans>,
}

/// A Commit whose charges are made. They may not be durable yet.
pub struct ChargedCommit {
    charged: Result<CommitResponse, Status>,
    begun: Instant,
}

impl RateLimits {
    /// Creates the services of a limiter.
    pub fn new(limiter: Arc<Limiter>) -> Self {
        let latency = |call| limiter.metrics().latency(call);
        let (reserve, commit) = (latency("Reserve"), latency("Commit"));
        let (check, report) = (latency("CheckRateLimit"), latency("Report"));
        let (should, usage) = (latency("ShouldRateLimit"), latency("GetUsage"));
        let record = latency("RecordUsage");
        Self { limiter, reserve, commit, check, report, should, usage, record, recorder: None, spans: None }
    }

    /// Returns the recalls of leases that follow.
    pub fn recalls(&self) -> broadcast::Receiver<Recall> {
        self.limiter.recalls()
    }

    /// Whether there are leases.
    pub fn grants_leases(&self) -> bool {
        self.limiter.grants_leases()
    }

    /// Stores usage records with this recorder.
    pub fn recording_usage(self, recorder: Option<Arc<UsageRecorder>>) -> Self {
        Self { recorder, ..self }
    }

    /// Exports spans.
    pub fn tracing(self, spans: Option<Spans>) -> Self {
        Self { spans, ..self }
    }

    /// Handles a Reserve after the commits that it carries, and records the latency.
    pub async fn reserve_timed(
        &self,
        mut request: ReserveRequest,
        call: ReserveCall,
    ) -> Result<ReserveResponse, Status> {
        let span = self
            .spans
            .as_ref()
            .and_then(|spans| spans.reserve(call, &TraceContext::from_message(request.trace.as_ref()?)?));
        self.carried("Reserve", std::mem::take(&mut request.commits)).await;
        let now = Moment::now();
        let answered = self.limiter.reserve_observed(request, now, span.is_some()).await;
        self.reserve.record(now.instant.elapsed());
        let answered = answered.map_err(Status::from);
        match (span, &answered) {
            (Some(span), Ok((response, Some(observed)))) => span.answered(&response.reservation_id, observed),
            (Some(span), Err(status)) => span.failed(status.code()),
            (None, _) | (Some(_), Ok((_, None))) => {}
        }
        answered.map(|(response, _)| response)
    }

    /// Handles the commits that a call carries. They are copies, so the call is answered even if a commit
    /// fails or is not durable yet: the caller sends that commit again.
    async fn carried(&self, call: &str, commits: Vec<CommitRequest>) {
        let mut commits = commits.into_iter();
        if let Some(first) = commits.next()
            && let Err(status) =
                self.charge(CommitRequest { further: commits.collect(), ..first }).await.charged
        {
            tracing::debug!(%status, call, "a call is answered before the commits that it carries");
        }
    }

    /// Handles a Commit as far as later calls must see it. [`Self::acknowledge`] does the rest.
    pub async fn charge(&self, request: CommitRequest) -> ChargedCommit {
        let now = Moment::now();
        let charged = self.limiter.commit(request, now).await;
        ChargedCommit { charged: charged.map_err(Into::into), begun: now.instant }
    }

    /// Waits until the charges of a Commit are durable, and records the latency.
    pub async fn acknowledge(&self, commit: ChargedCommit) -> Result<CommitResponse, Status> {
        let durable = match commit.charged {
            Ok(response) => self.limiter.durable().await.map(|()| response).map_err(Into::into),
            Err(status) => Err(status),
        };
        self.commit.record(commit.begun.elapsed());
        durable
    }

    /// Stores the records that a plan asks for, and returns the number of all records.
    async fn store(&self, records: Vec<SettledUsage>) -> Result<u64, Status> {
        let settled = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let mut kept = records.into_iter().filter(|record| !record.for_trace);
        if let Some(first) = kept.next() {
            // The filter's plan may come from another replica. That replica can store the record.
            let Some(recorder) = &self.recorder else {
                return Err(Status::aborted("this adapter stores no usage records; use --usage"));
            };
            let kept = SettledUsage { further: kept.collect(), ..first };
            let all = std::iter::once(&kept).chain(&kept.further);
            let seen: Vec<_> = all.filter_map(|record| record.seen.clone()).collect();
            recorder.record(kept).await?;
            self.complete(recorder, seen).await?;
        }
        Ok(settled)
    }

    /// Completes the records of background results that were seen.
    async fn complete(&self, recorder: &UsageRecorder, seen: Vec<SeenResult>) -> Result<(), Status> {
        let (in_force, now) = (self.limiter.now_in_force(), Moment::now());
        let mut completions = Vec::new();
        for seen in seen {
            let (id, is_partial) = (StoredId::of(&seen.id), seen.partial);
            match self.limiter.see(seen, &in_force, now).await {
                Ok(Some(result)) => completions.push(Completion::new(&id, &result, is_partial, &in_force)),
                // Nobody created it here, or it was forgotten. Sending it again would not help.
                Ok(None) | Err(CallError::Invalid(_)) => {}
                Err(CallError::Unavailable(error)) => return Err(Status::aborted(error.to_string())),
            }
        }
        Ok(recorder.complete(completions).await?)
    }

    async fn ask(&self, ask: Ask, request: Request<RateLimitRequest>) -> CallResult<RateLimitResponse> {
        let now = Moment::now();
        let answered = answer(&self.limiter, ask, request.into_inner(), now).await;
        let latency = match ask {
            Ask::Should => &self.should,
            Ask::Check => &self.check,
            Ask::Report => &self.report,
        };
        latency.record(now.instant.elapsed());
        Ok(Response::new(answered?))
    }
}

/// The trace that a call's metadata names.
fn trace_of(metadata: &MetadataMap) -> Option<wire::TraceContext> {
    let value = |name: &str| metadata.get(name).map(|value| value.as_bytes());
    let trace = TraceContext::parse(value(TraceContext::PARENT)?)?;
    Some(trace.with_state(value(TraceContext::STATE).unwrap_or_default()).message())
}

#[tonic::async_trait]
impl KuadrantService for RateLimits {
    async fn check_rate_limit(&self, request: Request<RateLimitRequest>) -> CallResult<RateLimitResponse> {
        self.ask(Ask::Check, request).await
    }

    async fn report(&self, request: Request<RateLimitRequest>) -> CallResult<RateLimitResponse> {
        self.ask(Ask::Report, request).await
    }

    async fn reserve(&self, request: Request<ReserveRequest>) -> CallResult<ReserveResponse> {
        let trace = self.spans.as_ref().and_then(|_| trace_of(request.metadata()));
        let mut request = request.into_inner();
        request.trace = request.trace.or(trace);
        self.reserve_timed(request, ReserveCall::Unary).await.map(Response::new)
    }

    async fn commit(&self, request: Request<CommitRequest>) -> CallResult<CommitResponse> {
        let charged = self.charge(request.into_inner()).await;
        self.acknowledge(charged).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl UsageService for RateLimits {
    async fn get_usage(&self, request: Request<GetUsageRequest>) -> CallResult<GetUsageResponse> {
        let mut request = request.into_inner();
        self.carried("GetUsage", std::mem::take(&mut request.commits)).await;
        let now = Moment::now();
        let answered = self.limiter.usage(request, now).await;
        self.usage.record(now.instant.elapsed());
        Ok(Response::new(answered?))
    }

    async fn record_usage(&self, request: Request<SettledUsage>) -> CallResult<RecordUsageResponse> {
        let started = Instant::now();
        let mut first = request.into_inner();
        let further = std::mem::take(&mut first.further);
        let records: Vec<_> = std::iter::once(first).chain(further).collect();
        let of_trace = |record: &&SettledUsage| self.spans.is_some() && record.trace.is_some();
        let traced: Vec<_> = records.iter().filter(of_trace).cloned().collect();
        let answered = self.store(records).await;
        self.record.record(started.elapsed());
        let settled = answered?;
        // If the store did not answer, the caller sends the records again.
        if let Some(spans) = &self.spans {
            traced.iter().for_each(|record| spans.settled(record));
        }
        Ok(Response::new(RecordUsageResponse { settled }))
    }
}

/// Envoy counts UNAVAILABLE and other codes like 5xx as failures of the adapter. After a few of them, it would
/// eject the adapter, and Reserves would fail because of a database that they do not need.
impl From<RecordError> for Status {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::TooMany => Self::invalid_argument(error.to_string()),
            RecordError::Full => Self::resource_exhausted(error.to_string()),
            RecordError::Store(_) | RecordError::Late => Self::aborted(error.to_string()),
        }
    }
}

#[tonic::async_trait]
impl EnvoyService for RateLimits {
    async fn should_rate_limit(&self, request: Request<RateLimitRequest>) -> CallResult<RateLimitResponse> {
        self.ask(Ask::Should, request).await
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Invalid(message) => Self::invalid_argument(message),
            CallError::Unavailable(error) if error.fault == StorageFault::Full => {
                Self::resource_exhausted(error.to_string())
            }
            CallError::Unavailable(error) => Self::unavailable(error.to_string()),
        }
    }
}
