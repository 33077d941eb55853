//! Requests whose bodies nobody reads, or not to their end: judged by what is known, and charged by what has passed.

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
    /// Whether the length of the request's body makes a difference, since nobody has read it.
    pub fn counts_request_body(&self) -> bool {
        let reservation = match &self.state {
            State::Waiting(reservation) | State::Admitted(reservation) => reservation,
            State::Responding(responding) => &responding.reservation,
            State::New | State::Reading { .. } | State::Over => return false,
        };
        reservation.unread
    }

    /// The request is judged without its body, of which so many bytes are known to have come.
    pub(super) fn without_body(&mut self, mut facts: Facts, come: u64) -> Vec<Effect> {
        let ActivePlan::Plan(plan) = &self.in_force else { return vec![Effect::Resume] };
        let plan = Arc::clone(plan);
        facts.unread_body(come);
        let mut effects = vec![Effect::Count(Metric::UnreadRequest(Condition::Unread.name()))];
        effects.extend(self.judged(&plan, facts, false, None));
        self.kept(effects)
    }

    /// A request that was kept for its body, and that nothing keeps any longer, goes on.
    pub(super) fn kept(&self, mut effects: Vec<Effect>) -> Vec<Effect> {
        if matches!(self.state, State::Over | State::Admitted(_))
            && !effects.iter().any(|effect| matches!(effect, Effect::Deny(_)))
        {
            effects.push(Effect::Resume);
        }
        effects
    }
}
