//! Decides how to handle a request that asks for a WebSocket.

use super::Socket;
use crate::exchange::ActivePlan;
use crate::metric::Metric;
use crate::refusal::{self, Denial};
use expression::facts::Facts;
use llm::memory::MemoryBudget;
use llm::websocket::SocketApi;
use policy::model::WebSocketMode;
use policy::plan::{Hold, Plan};

/// The decision.
#[derive(Debug)]
pub enum Upgrade {
    /// An ordinary request. What passes inside is not read.
    Request(Facts),
    /// A WebSocket that carries an LLM API. Each call inside is judged as a request.
    Socket(Box<Socket>),
    /// Refused, so that the client falls back to HTTP requests.
    Refused(Denial, Metric),
}

/// Judges an upgrade by the limits that may apply to calls inside it. `mask` consists of unpredictable bytes.
pub fn judge_upgrade(in_force: &ActivePlan, facts: Facts, memory: &MemoryBudget, mask: [u8; 4]) -> Upgrade {
    let ActivePlan::Plan(plan) = in_force else { return Upgrade::Request(facts) };
    if !facts.fetched_header("upgrade").eq_ignore_ascii_case("websocket") {
        return Upgrade::Request(facts);
    }
    let holds = holds(plan, &facts);
    let counts_usage = |hold: &&Hold| hold.rate.rate.unit.is_of_usage();
    let modes = || holds.iter().filter(counts_usage).map(|hold| hold.rate.usage.web_socket);
    let refuses = |mode: WebSocketMode| {
        let of_mode = |hold: &&Hold| hold.rate.usage.web_socket == mode && hold.enforced;
        holds.iter().filter(counts_usage).find(of_mode)
    };
    if let Some(hold) = refuses(WebSocketMode::Refuse) {
        return refused(hold, &facts);
    }
    let is_allowed = modes().next().is_some() && modes().all(|mode| mode == WebSocketMode::Allow);
    if holds.is_empty() || is_allowed {
        return Upgrade::Request(facts);
    }
    // A request that announces a body is not a WebSocket upgrade.
    let api =
        facts.path().and_then(SocketApi::of).filter(|_| facts.content_length().unwrap_or_default() == 0);
    match (api, refuses(WebSocketMode::Meter)) {
        (None, Some(hold)) => refused(hold, &facts),
        (None, None) => Upgrade::Request(facts),
        (Some(api), hold) => match Socket::new(api, in_force.clone(), facts.clone(), memory, mask) {
            Some(socket) => Upgrade::Socket(Box::new(socket)),
            None if hold.is_some() => {
                Upgrade::Refused(refusal::overloaded(facts.dialect()), super::no_memory())
            }
            None => Upgrade::Request(facts),
        },
    }
}

/// Returns what a call inside may hold, regardless of its content.
fn holds(plan: &Plan, facts: &Facts) -> Vec<Hold> {
    let mut facts = facts.of_message();
    facts.unread_body(0);
    plan.judge(&mut facts, false).holds
}

fn refused(hold: &Hold, facts: &Facts) -> Upgrade {
    let (limit, policy) = (&hold.rate.limit, &hold.rate.policy);
    let message = format!(
        "Limit {limit} of policy {policy} counts what a call uses, which is not possible in this WebSocket. Please use \
         HTTP requests instead."
    );
    let mut denial = refusal::invalid_request(facts.dialect(), &message);
    denial.status = 426;
    denial.headers.push(("upgrade".into(), "HTTP/1.1".to_owned()));
    denial.headers.push(("connection".into(), "upgrade".to_owned()));
    Upgrade::Refused(denial, Metric::refused(hold))
}
