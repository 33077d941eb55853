//! The gRPC services: each method hands its message on and counts its time.

use crate::envoy::{Ask, answer};
use crate::filters::Filters;
use crate::in_force::{Gateway, InForce};
use crate::ledger::Unavailable;
use crate::limiter::{CallError, Limiter};
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::services::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService as EnvoyService;
use crate::services::kuadrant::service::ratelimit::v1::rate_limit_service_server::RateLimitService as KuadrantService;
use crate::services::weir::v1::policy_service_server::PolicyService;
use metrics::Histogram;
use prost::Message as _;
use protocol::wire::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use protocol::wire::kuadrant::service::ratelimit::v1::{
    CommitRequest, CommitResponse, ReserveRequest, ReserveResponse,
};
use protocol::wire::weir::v1::{GetPlanRequest, GetPlanResponse};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// How long a GetPlan waits for a change.
const POLL: Duration = Duration::from_secs(30);

type Answer<T> = Result<Response<T>, Status>;

/// Holds and charges.
pub struct RateLimits {
    limiter: Arc<Limiter>,
    reserve: Histogram,
    commit: Histogram,
    check: Histogram,
    report: Histogram,
    should: Histogram,
}

impl RateLimits {
    /// The services of a limiter.
    pub fn new(limiter: Arc<Limiter>) -> Self {
        let latency = |call| limiter.metrics().latency(call);
        let (reserve, commit) = (latency("Reserve"), latency("Commit"));
        let (check, report) = (latency("CheckRateLimit"), latency("Report"));
        let should = latency("ShouldRateLimit");
        Self { limiter, reserve, commit, check, report, should }
    }

    /// Holds, after what the caller has seen end is settled, and counts its time.
    pub async fn reserve_timed(&self, mut request: ReserveRequest) -> Result<ReserveResponse, Status> {
        let mut commits = std::mem::take(&mut request.commits).into_iter();
        if let Some(first) = commits.next() {
            // They are copies: what fails here is sent again, and the reserve is judged without it.
            if let Err(status) =
                self.commit_timed(CommitRequest { further: commits.collect(), ..first }).await
            {
                tracing::warn!(%status, "a reserve is judged before the commits that it carries");
            }
        }
        let now = Moment::now();
        let answered = self.limiter.reserve(request, now).await;
        self.reserve.record(now.instant.elapsed());
        Ok(answered?)
    }

    /// Charges, and counts its time.
    pub async fn commit_timed(&self, request: CommitRequest) -> Result<CommitResponse, Status> {
        let now = Moment::now();
        let answered = self.limiter.commit(request, now).await;
        self.commit.record(now.instant.elapsed());
        Ok(answered?)
    }

    async fn ask(&self, ask: Ask, request: Request<RateLimitRequest>) -> Answer<RateLimitResponse> {
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

#[tonic::async_trait]
impl KuadrantService for RateLimits {
    async fn check_rate_limit(&self, request: Request<RateLimitRequest>) -> Answer<RateLimitResponse> {
        self.ask(Ask::Check, request).await
    }

    async fn report(&self, request: Request<RateLimitRequest>) -> Answer<RateLimitResponse> {
        self.ask(Ask::Report, request).await
    }

    async fn reserve(&self, request: Request<ReserveRequest>) -> Answer<ReserveResponse> {
        self.reserve_timed(request.into_inner()).await.map(Response::new)
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Answer<CommitResponse> {
        self.commit_timed(request.into_inner()).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl EnvoyService for RateLimits {
    async fn should_rate_limit(&self, request: Request<RateLimitRequest>) -> Answer<RateLimitResponse> {
        self.ask(Ask::Should, request).await
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Invalid(message) => Self::invalid_argument(message),
            CallError::Unavailable(error @ Unavailable::Full(_)) => {
                Self::resource_exhausted(error.to_string())
            }
            CallError::Unavailable(error) => Self::unavailable(error.to_string()),
        }
    }
}

/// Plans.
pub struct Plans {
    in_force: watch::Receiver<Arc<InForce>>,
    drain: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    filters: Arc<Filters>,
}

impl Plans {
    /// The plans of what is in force. A drain answers everyone who waits.
    pub fn new(
        in_force: watch::Receiver<Arc<InForce>>,
        drain: watch::Receiver<bool>,
        metrics: Arc<Metrics>,
        filters: Arc<Filters>,
    ) -> Self {
        Self { in_force, drain, metrics, filters }
    }
}

#[tonic::async_trait]
impl PolicyService for Plans {
    async fn get_plan(&self, request: Request<GetPlanRequest>) -> Answer<GetPlanResponse> {
        let GetPlanRequest { gateway, version, headers_alone } = request.into_inner();
        let Some(named) = Gateway::parse(&gateway) else {
            return Err(Status::invalid_argument(format!(
                "gateway: {gateway:?} is neither NAMESPACE/NAME nor *"
            )));
        };
        let asked = if named == Gateway::Any { "*".to_owned() } else { gateway.clone() };
        self.filters.ask(&asked, headers_alone);
        let gateway = named;
        let (mut in_force, mut drain) = (self.in_force.clone(), self.drain.clone());
        let deadline = tokio::time::Instant::now() + POLL;
        loop {
            let current = Arc::clone(&in_force.borrow_and_update());
            if current.version(&gateway, headers_alone) != version {
                self.metrics.polls_changed.increment(1);
                let plan = current.plan(&gateway, headers_alone);
                if !plan.policies.is_empty() {
                    self.metrics.plan_bytes(&asked).set(plan.encoded_len() as f64);
                }
                return Ok(Response::new(plan));
            }
            // A sender that is gone is a drain, too.
            let over = tokio::select! {
                changed = in_force.changed() => changed.is_err(),
                _ = drain.wait_for(|draining| *draining) => true,
                () = tokio::time::sleep_until(deadline) => true,
            };
            if over {
                self.metrics.polls_unchanged.increment(1);
                return Ok(Response::new(current.plan(&gateway, headers_alone)));
            }
        }
    }
}
