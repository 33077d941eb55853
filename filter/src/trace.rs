//! The trace of a request. It is fetched only if the adapter exports spans, because each look-up of a header is a
//! host call.

use crate::host;
use engine::exchange::ActivePlan;
use protocol::trace::TraceContext;

/// The trace of the current request, if it has a valid one.
pub fn context(in_force: &ActivePlan) -> Option<Box<TraceContext>> {
    if !in_force.traces() {
        return None;
    }
    let trace = TraceContext::parse(&host::request_header(TraceContext::PARENT)?)?;
    let trace = match host::request_header(TraceContext::STATE) {
        Some(state) => trace.with_state(&state),
        None => trace,
    };
    Some(Box::new(trace))
}

/// The metadata of a call that belongs to this trace.
pub fn metadata(trace: &TraceContext) -> Vec<(&str, &[u8])> {
    let state = Some(trace.state()).filter(|state| !state.is_empty());
    let state = state.map(|state| (TraceContext::STATE, state.as_bytes()));
    [(TraceContext::PARENT, trace.parent().as_bytes())].into_iter().chain(state).collect()
}
