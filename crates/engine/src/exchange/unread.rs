//! Handles requests with a body that is not read, or is read only in part. They are judged by the known facts
//! and charged for the bytes that pass.

use super::reservation::Reservation;
use super::{ActivePlan, Effect, Exchange, State};
use crate::metric::Metric;
use expression::facts::Facts;
use llm::request::Condition;
use std::sync::Arc;

impl State {
    pub(super) fn reservation(&mut self) -> Option<&mut Reservation> {
        match self {
            State::Waiting(reservation) | State::Admitted(reservation) => Some(reservation),
            State::Responding(responding) => Some(&mut responding.reservation),
            State::New | State::Reading { .. } | State::Over => None,
        }
    }
}

impl Exchange {
    /// Returns whether the length of the request's body matters, because the body was not read.
    pub fn counts_request_body(&self) -> bool {
        let reservation = match &self.state {
            State::Waiting(reservation) | State::Admitted(reservation) => reservation,
            State::Responding(responding) => &responding.reservation,
            State::New | State::Reading { .. } | State::Over => return false,
        };
        reservation.unread
    }

    /// Adds input that reaches the model while the call is running. It is charged if no usage is reported.
    pub fn add_input(&mut self, tokens: u64) {
        if let Some(reservation) = self.state.reservation() {
            let estimate = &mut reservation.estimate;
            estimate.input = estimate.input.saturating_add(tokens);
        }
    }

    /// Judges the request without its body, if at least `come` bytes of the body have arrived.
    pub(super) fn without_body(&mut self, mut facts: Facts, come: u64) -> Vec<Effect> {
        let ActivePlan::Plan(plan) = &self.in_force else { return vec![Effect::Resume] };
        let plan = Arc::clone(plan);
        facts.unread_body(come);
        let mut effects = vec![Effect::Count(Metric::UnreadRequest(Condition::Unread.name()))];
        effects.extend(self.judged(&plan, facts, false, None));
        self.kept(effects)
    }

    /// Resumes a request that was paused for its body, if nothing else pauses it.
    pub(super) fn kept(&self, mut effects: Vec<Effect>) -> Vec<Effect> {
        if matches!(self.state, State::Over | State::Admitted(_))
            && !effects.iter().any(|effect| matches!(effect, Effect::Deny(_)))
        {
            effects.push(Effect::Resume);
        }
        effects
    }
}
