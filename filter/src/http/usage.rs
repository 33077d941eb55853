//! Answers callers that ask for their own usage. Such requests never go upstream.

use super::Http;
use crate::host;
use crate::request;
use crate::shared::{GET_USAGE, Shared};
use engine::exchange::ActivePlan;
use engine::outbox::CommitRoute;
use engine::refusal::Denial;
use engine::usage::{self, UsageCall, UsageQuestion};
use protocol::call::{self, CallFailure};

/// The state of a question about usage. Its request stays paused.
pub enum UsageState {
    /// Waiting for the reply to the call with this token.
    Asking(u32, Box<UsageCall>),
    Answered,
}

impl Http {
    /// Asks the adapter, or answers at once if that is not possible.
    pub(super) fn tell_usage(&mut self, in_force: &ActivePlan) {
        let state = match ask(&self.shared, self.id, in_force) {
            Ok((token, call)) => UsageState::Asking(token, Box::new(call)),
            Err(answer) => {
                host::respond(&answer);
                UsageState::Answered
            }
        };
        self.usage = Some(state);
    }

    /// Handles a reply from the adapter. Returns false if the question does not wait for it.
    pub(super) fn usage_read(&mut self, token: u32, reply: Result<&[u8], CallFailure>) -> bool {
        let is_waiting =
            |state: &mut UsageState| matches!(state, UsageState::Asking(own, _) if *own == token);
        let Some(UsageState::Asking(_, call)) = self.usage.take_if(is_waiting) else { return false };
        self.usage = Some(UsageState::Answered);
        let reply = call::reply(reply).inspect_err(|failure| self.shared.call_failed(GET_USAGE, *failure));
        host::respond(&call.answer(reply));
        true
    }
}

/// Asks the adapter. An error contains the answer for the caller.
fn ask(shared: &Shared, context: u32, in_force: &ActivePlan) -> Result<(u32, UsageCall), Denial> {
    let header = |name| host::request_header(name).unwrap_or_default();
    let (method, target) = (header(":method"), header(":path"));
    let text = String::from_utf8_lossy;
    let question = UsageQuestion::parse(&text(&method), &text(&target))?;
    let ActivePlan::Plan(plan) = in_force else { return Err(usage::without_plan()) };
    let facts = request::described_facts(shared, plan, &question).ok_or_else(usage::unidentified)?;
    let (call, message) = question.ask(plan, facts, &shared.memory)?;
    // Exchanges whose end the caller has seen are charged first.
    shared.deferred.read_ended();
    let commits = shared.outbox.borrow();
    let message = call::with_commits(&message, &commits.copies(CommitRoute::Unary, shared.now()));
    drop(commits);
    let (service, timeout) = (&shared.config.grpc_service, shared.config.timeout);
    let sent = || host::call(service, GET_USAGE, &message, timeout);
    match host::as_context(shared.root, context, sent) {
        Ok(token) => Ok((token, call)),
        Err(failure) => {
            shared.call_failed(GET_USAGE, failure);
            Err(call.answer(Err(failure)))
        }
    }
}
