//! What a request holds, from the adapter's answer to the charge that ends it.

use super::Effect;
use crate::count::UsageSource;
use crate::outbox::Settlement;
use crate::refusal::Standing;
use expression::facts::{Answer, Facts, Need};
use llm::meter::{CHARACTERS_PER_TOKEN, Usage};
use llm::request::Dialect;
use policy::model::StreamUsage;
use policy::plan::{Estimate, Hold, Judgement, Plan};
use protocol::call::{self, Item};
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{DescriptorStatus, ReserveResponse};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Reservation {
    id: String,
    pub(super) holds: Vec<Hold>,
    pub(super) estimate: Estimate,
    /// The call is known to use no tokens.
    pub(super) tokenless: bool,
    /// Nobody has read the request's body, or not to its end.
    pub(super) unread: bool,
    /// How much of that body has passed, in bytes.
    pub(super) passed: u64,
    /// In which a refusal is told.
    pub(super) dialect: Dialect,
    /// For a `cost` or the body of `onExceeded`, if there is one.
    pub(super) facts: Option<Box<Facts>>,
    /// For `upstream.failuresLastMinute`, if a policy asks for it; empty where the model is not known.
    pub(super) model: Option<String>,
    /// The provider is asked for the stream's usage, and the client did not do that.
    pub(super) usage_unasked: bool,
    /// Beside `holds`; empty if the adapter did not say.
    statuses: Vec<DescriptorStatus>,
}

impl Reservation {
    pub(super) fn new(id: String, plan: &Plan, judgement: Judgement, facts: &Facts, bodiless: bool) -> Self {
        let Judgement { holds, estimate, .. } = judgement;
        let tokenless = bodiless || facts.path().is_some_and(uses_no_tokens);
        let model = plan.needs().contains(&Need::Failures).then(|| facts.model().unwrap_or_default());
        let unread = facts.read_body().is_none_or(|body| body.condition.hides_facts());
        let dialect = facts.dialect();
        let (facts, usage_unasked, statuses) = (None, false, Vec::new());
        Self {
            id,
            holds,
            estimate,
            tokenless,
            unread,
            passed: 0,
            dialect,
            facts,
            model,
            usage_unasked,
            statuses,
        }
    }

    /// Keeps what a `cost` or the body of `onExceeded` may ask for.
    pub(super) fn keep(&mut self, facts: Facts) {
        let asks = |hold: &Hold| hold.rate.rate.cost.is_some() || hold.rate.on_exceeded.is_some();
        self.facts = self.holds.iter().any(asks).then(|| Box::new(facts));
    }

    /// Whether somebody wants the provider to tell the usage of a stream.
    pub(super) fn asks_for_usage(&self) -> bool {
        let rates = self.holds.iter().map(|hold| &hold.rate);
        let mut of_usage = rates.filter(|rate| rate.rate.unit.is_of_usage());
        of_usage.any(|rate| rate.usage.stream_usage == StreamUsage::Request)
    }

    pub(super) fn counts_tokens(&self) -> bool {
        self.holds.iter().any(|hold| hold.rate.rate.unit.is_of_usage())
    }

    pub(super) fn reserve(&self) -> Vec<u8> {
        let items = self.holds.iter();
        let items = items.map(|hold| Item {
            entries: &hold.entries,
            amount: hold.amount,
            ttl: hold.ttl,
            max: hold.rate.rate.max.fixed().is_none().then_some(hold.max),
            unenforced: !hold.enforced,
        });
        call::reserve(&self.id, items)
    }

    /// A server that chose an id of its own knows no other.
    pub(super) fn answered(&mut self, response: ReserveResponse) {
        if !response.reservation_id.is_empty() {
            self.id = response.reservation_id;
        }
        self.statuses = response.statuses;
    }

    /// Each hold beside what the adapter said of it, if it did.
    pub(super) fn standings(&self) -> Vec<Standing<'_>> {
        let statuses = self.statuses.iter().map(Some).chain(std::iter::repeat(None));
        self.holds.iter().zip(statuses).map(|(hold, status)| Standing { hold, status }).collect()
    }

    /// The holds that were refused; all, if the adapter did not say which.
    pub(super) fn refusing(&self) -> impl Iterator<Item = &Hold> {
        let named = self.statuses.iter().any(|status| status.code() == Code::OverLimit);
        self.standings()
            .into_iter()
            .filter(move |standing| !named || standing.is_over())
            .map(|standing| standing.hold)
    }

    /// The request never went on.
    pub(super) fn release(&self) -> Effect {
        self.commit(self.holds.iter().map(|_| 0))
    }

    /// The request went on, and the client left before any answer: the input was sent.
    pub(super) fn unanswered(mut self) -> Vec<Effect> {
        let usage = if self.tokenless { Usage::default() } else { estimated(self.input(), 0) };
        self.charge(Answer { usage, ..Answer::default() }, UsageSource::Estimated)
    }

    /// What the provider was sent, in tokens, as far as anybody knows: of a body that was not read, what has passed.
    pub(super) fn input(&self) -> u64 {
        let passed = if self.unread { self.passed / CHARACTERS_PER_TOKEN } else { 0 };
        self.estimate.input.max(passed)
    }

    /// Ends it with these charges, one for each hold.
    pub(super) fn commit(&self, charges: impl Iterator<Item = u64>) -> Effect {
        let items = self.holds.iter().zip(charges).map(|(hold, amount)| Item {
            entries: &hold.entries,
            amount,
            ttl: Duration::ZERO,
            max: None,
            unenforced: false,
        });
        Effect::Commit(Settlement(call::commit(&self.id, items)))
    }
}

/// The usage of an exchange whose provider told none.
pub(super) fn estimated(input: u64, output: u64) -> Usage {
    Usage { input, output, total: input.saturating_add(output), ..Usage::default() }
}

/// Operations that use no tokens, by the end of their path.
fn uses_no_tokens(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path).trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or(path);
    matches!(last, "models" | "count_tokens" | "moderations") || last.ends_with(":countTokens")
}
