//! The plan service: a call waits until its gateway's plan differs from the caller's.

use crate::grpc::services::weir::v1::policy_service_server::PolicyService;
use crate::metrics::AdapterMetrics;
use crate::policies::filters::Filters;
use crate::policies::snapshot::{GatewaySelector, PlanReader, PolicySnapshot};
use prost::Message as _;
use protocol::wire::weir::v1::{GetPlanRequest, GetPlanResponse};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// How long a GetPlan waits for a change.
const POLL: Duration = Duration::from_secs(30);

pub struct Plans {
    in_force: watch::Receiver<Arc<PolicySnapshot>>,
    drain: watch::Receiver<bool>,
    metrics: Arc<AdapterMetrics>,
    filters: Arc<Filters>,
}

impl Plans {
    /// Serves the plans in force. A drain ends every waiting call.
    pub fn new(
        in_force: watch::Receiver<Arc<PolicySnapshot>>,
        drain: watch::Receiver<bool>,
        metrics: Arc<AdapterMetrics>,
        filters: Arc<Filters>,
    ) -> Self {
        Self { in_force, drain, metrics, filters }
    }
}

#[tonic::async_trait]
impl PolicyService for Plans {
    async fn get_plan(&self, request: Request<GetPlanRequest>) -> Result<Response<GetPlanResponse>, Status> {
        let GetPlanRequest { gateway, version, headers_alone, knows_doubt } = request.into_inner();
        let reader = PlanReader { headers_alone, knows_doubt };
        let Some(named) = GatewaySelector::parse(&gateway) else {
            return Err(Status::invalid_argument(format!(
                "gateway: {gateway:?} is neither NAMESPACE/NAME nor *"
            )));
        };
        let asked = if named == GatewaySelector::Any { "*".to_owned() } else { gateway.clone() };
        self.filters.ask(&asked, headers_alone);
        let gateway = named;
        let (mut in_force, mut drain) = (self.in_force.clone(), self.drain.clone());
        let deadline = tokio::time::Instant::now() + POLL;
        loop {
            let current = Arc::clone(&in_force.borrow_and_update());
            if current.version(&gateway, reader) != version {
                self.metrics.polls_changed.increment(1);
                let plan = current.plan(&gateway, reader);
                if !plan.policies.is_empty() {
                    self.metrics.plan_bytes(&asked).set(plan.encoded_len() as f64);
                }
                return Ok(Response::new(plan));
            }
            // A closed channel counts as a drain.
            let over = tokio::select! {
                changed = in_force.changed() => changed.is_err(),
                _ = drain.wait_for(|draining| *draining) => true,
                () = tokio::time::sleep_until(deadline) => true,
            };
            if over {
                self.metrics.polls_unchanged.increment(1);
                return Ok(Response::new(current.plan(&gateway, reader)));
            }
        }
    }
}
