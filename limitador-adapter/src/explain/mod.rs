//! `explain`: shows what the policies mean for one request. It runs the code of the filter and the limiter
//! with empty counters.

pub mod explanation;
pub mod input;
pub mod live;
pub mod message;

use crate::check::{signal_text, warning_text};
use crate::explain::explanation::{
    EstimatedTokens, ExplainedLimit, ExplainedPolicy, ExplainedResponse, Explanation,
};
use crate::explain::input::{ExplainInput, Unexplained};
use crate::grpc::limiter::Limiter;
use crate::ledger::memory::MemoryLedger;
use crate::ledger::moment::Moment;
use crate::metrics::AdapterMetrics;
use crate::policies::collection::CollectedPolicies;
use crate::policies::snapshot::PolicySnapshot;
use engine::exchange::{self, ActivePlan as Plans, Effect, Event, Exchange, ReservationId};
use engine::metric::{Metric, UsageSource};
use engine::outbox::{CommitRoute, Outbox};
use expression::facts::Facts;
use llm::response::ResponseHead;
use policy::model::{FailureMode, Policy, Unit, Window};
use policy::plan::{BodyAccess, Doubt, DoubtCause, Failure, Hold, Judgement, Miss, Plan};
use prost::Message as _;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, ReserveRequest, ReserveResponse};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;

/// The maximum size of a body to decode, as in the shipped configurations.
const MAX_BODY: usize = 16 << 20;

/// Explains the input.
pub async fn explain(question: ExplainInput) -> Result<Explanation, Unexplained> {
    let policies: Vec<Policy> =
        question.collected.policies.iter().map(|good| (*good.policy).clone()).collect();
    let reads_bodies = question.reads_bodies || policies.iter().any(|policy| !policy.needs_body.is_empty());
    let access = match reads_bodies {
        true => BodyAccess::Buffer(question.request.body.len().max(MAX_BODY)),
        false => BodyAccess::None,
    };
    let plan = Arc::new(Plan::new(policies.clone()).with_body(access));
    let bodiless = question.request.body.is_empty();
    let (facts, unknown) = question.facts(plan.needs());
    let method_and_path: Vec<_> =
        question.request.pseudo.iter().take(2).map(|(_, value)| value.as_str()).collect();
    let request = format!("{}, {} bytes of body", method_and_path.join(" "), question.request.body.len());
    let mut with_body = facts.clone();
    exchange::read_body(&plan, &mut with_body, &question.request.body);
    let (estimate, explained) = judged(&plan, &policies, with_body, bodiless);
    let mut exchange =
        Exchange::new(Plans::Plan(plan), ReservationId { prefix: "explain".into(), number: 1 });
    let mut effects = exchange.handle(Event::Request { facts, bodiless });
    if matches!(effects.as_slice(), [Effect::AwaitBody(_)]) {
        effects = exchange.handle(Event::RequestBody { body: &question.request.body, end: true });
    }
    let changes = changes(&effects);
    let call = effects.iter().find_map(|effect| match effect {
        Effect::Reserve(call) => Some(call.as_slice()),
        _ => None,
    });
    if let Some(call) = call {
        let reply = reserve(question.collected, call).await?;
        effects = exchange.handle(Event::Reply(Ok(reply)));
    }
    let mut explanation = Explanation {
        request,
        unknown,
        estimate,
        policies: explained,
        decision: decision(&effects),
        changes: if exchange.is_over() { Vec::new() } else { changes },
        response: None,
    };
    if let (Some(response), false) = (question.response, exchange.is_over()) {
        let header = |name: &str| Some(response.header(name)).filter(|value| !value.is_empty());
        let head = ResponseHead::from_headers(response.status, exchange.answer_headers(), header);
        exchange.handle(Event::Response(head));
        let mut effects = exchange.handle(Event::Body { chunk: &response.body, end: true });
        effects.extend(exchange.handle(Event::Closed));
        explanation.response = charged(&policies, response.status, effects)?;
    }
    Ok(explanation)
}

/// Returns how the request is edited.
fn changes(effects: &[Effect]) -> Vec<String> {
    let change = |effect: &Effect| match effect {
        Effect::Count(Metric::OutputCapped) => Some("it gets a maximum output, equal to its hold for output"),
        Effect::Count(Metric::UsageAsked) => Some("it is changed to ask for the usage of its stream"),
        Effect::SetRequestHeader("accept-encoding", _) => {
            Some("it is changed to ask for an uncompressed response")
        }
        _ => None,
    };
    effects.iter().filter_map(change).map(str::to_owned).collect()
}

/// Returns for every limit whether it applies, and either what it would hold or why it does not apply.
fn judged(
    plan: &Plan,
    policies: &[Policy],
    mut facts: Facts,
    bodiless: bool,
) -> (EstimatedTokens, Vec<ExplainedPolicy>) {
    let mut applying: BTreeSet<(String, String)> = BTreeSet::new();
    let mut limits: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let asked = facts.clone();
    let judgement = plan.judge_with(&mut facts, bodiless, |policy, limit, why| {
        limits.entry((policy.to_owned(), limit.to_owned())).or_default().push(reason(&why, &asked));
    });
    let Judgement { holds, estimate, .. } = &judgement;
    for hold in holds {
        let rate = &hold.rate;
        let key = (rate.policy.to_string(), rate.limit.clone());
        applying.insert(key.clone());
        let texts = limits.entry(key).or_default();
        if texts.is_empty() {
            let is_its_own = |doubt: &&Doubt| doubt.policy == rate.policy && doubt.limit == rate.limit;
            let doubts: Vec<&Doubt> = judgement.doubts.iter().filter(is_its_own).collect();
            texts.push("applies".to_owned());
            texts.extend(predicates(policies, &rate.policy, &rate.limit, &asked));
            texts.extend(doubts.into_iter().map(|doubt| doubted(doubt, &asked)));
            let failures = judgement.failures.iter();
            let failures = failures.filter(|one| one.policy == rate.policy && one.limit == rate.limit);
            texts.extend(failures.map(failed));
            texts.extend(hold.counters.iter().map(|(what, value)| format!("counts for {what} = {value}")));
            if let Some(signal) = &hold.signal {
                texts.push(format!(
                    "refuses nothing (boundary: Soft); once it is exceeded, {}",
                    signal_text(signal)
                ));
            } else if !hold.enforced {
                texts.push("counts, but refuses nothing: its enforceWhen is false".to_owned());
            }
            texts.extend(warning_text(&rate.warn_at));
        }
        let (max, unit) = (hold.max, rate.rate.unit);
        let amount = match unit {
            Unit::Usd => unit.quantity(hold.amount),
            _ => hold.amount.to_string(),
        };
        let (window, charge) = (per(&rate.rate.window), will_charge(hold));
        texts.push(format!("holds {amount} of {}{window}, {charge}", unit.quantity(max)));
    }
    // The rates of one limit are adjacent.
    let same_limit = |a: &Hold, b: &Hold| a.rate.policy == b.rate.policy && a.rate.limit == b.rate.limit;
    for holds in holds.chunk_by(same_limit) {
        let (Some(first), Some(outgrown)) = (holds.first(), outgrown(holds)) else { continue };
        let name = (first.rate.policy.to_string(), first.rate.limit.clone());
        limits.entry(name).or_default().push(outgrown.to_owned());
    }
    let explained = policies.iter().map(|policy| {
        let name = format!("{}/{}", policy.namespace, policy.name);
        let of_policy = policy.limits.iter().map(|limit| {
            let key = (name.clone(), limit.name.clone());
            let notes = limits.remove(&key);
            let applies = notes.is_none() || applying.contains(&key);
            // Rates that count usage but hold nothing have no note.
            let notes =
                notes.unwrap_or_else(|| vec!["applies, and holds nothing: the call uses no tokens".into()]);
            ExplainedLimit { limit: limit.name.clone(), applies, notes }
        });
        let limits = of_policy.collect();
        ExplainedPolicy { policy: name, limits }
    });
    let explained = explained.collect();
    (EstimatedTokens { input: estimate.input, output: estimate.output }, explained)
}

/// Returns why a limit applies: the predicates that are true, starting with the policy's predicates.
fn predicates<'p>(
    policies: &'p [Policy],
    name: &'p str,
    limit: &'p str,
    facts: &'p Facts,
) -> impl Iterator<Item = String> + use<'p> {
    let is_named = move |policy: &&Policy| format!("{}/{}", policy.namespace, policy.name) == name;
    policies.iter().filter(is_named).flat_map(move |policy| {
        let own = policy.limits.iter().filter(move |known| known.name == limit).flat_map(|known| &known.when);
        let held = policy.when.iter().chain(own).filter(|predicate| predicate.predicate(facts) == Ok(true));
        held.map(|true_one| format!("this is true: {}", true_one.source().trim()))
    })
}

/// Returns what the response will be charged.
fn will_charge(hold: &Hold) -> String {
    if let Some(compute) = &hold.tokens.compute {
        return format!("will charge {}", compute.source().trim());
    }
    let rate = &hold.rate.rate;
    match (&rate.cost, rate.unit) {
        (Some(cost), _) => format!("will charge {}", cost.source().trim()),
        (None, Unit::Requests) => "will charge 1".to_owned(),
        (None, Unit::Concurrency) => "will charge nothing".to_owned(),
        (None, Unit::Tokens) => "will charge usage.total".to_owned(),
        (None, Unit::InputTokens) => "will charge usage.input".to_owned(),
        (None, Unit::OutputTokens) => "will charge usage.output".to_owned(),
        (None, Unit::Usd) => "will charge the price of its usage".to_owned(),
    }
}

/// Returns what happens to a stream that exceeds its holds, if the limit counts usage.
fn outgrown(holds: &[Hold]) -> Option<&'static str> {
    let counts_usage = holds.iter().any(|hold| hold.rate.rate.unit.is_of_usage());
    counts_usage.then(|| match holds.iter().any(Hold::is_cut) {
        true => "a stream that outgrows its hold is cut when there is no room for more (overrun: Cut)",
        false => "a stream that outgrows its hold continues and may exceed the limit (overrun: Continue)",
    })
}

fn reason(why: &Miss, facts: &Facts) -> String {
    match why {
        Miss::OtherRoute => "does not apply: the policy targets another route".to_owned(),
        Miss::Replaced(policy) => format!("does not apply: {policy} takes its place here"),
        Miss::False(predicate) => match predicate.absent(facts) {
            Some(what) => {
                format!("does not apply: {what} is absent, so this is false: {}", predicate.source().trim())
            }
            None => format!("does not apply: this is false: {}", predicate.source().trim()),
        },
        Miss::NoMaximum => {
            "does not apply: it has no maximum for this request (limitFrom is null)".to_owned()
        }
        Miss::Failed(failure) => failed(failure),
    }
}

fn failed(Failure { part, cause, mode, .. }: &Failure) -> String {
    let consequence = match mode {
        FailureMode::Allow => "that rate does not count this request (failureMode: Allow)",
        FailureMode::Deny => "the request is refused (failureMode: Deny)",
    };
    format!("cannot be evaluated: its {}: {cause}; {consequence}", part.name())
}

/// Returns what is assumed for a limit that applies in doubt.
fn doubted(Doubt { cause, detail, .. }: &Doubt, facts: &Facts) -> String {
    match cause {
        DoubtCause::Predicate => format!("this fails, so it counts as true: {detail}"),
        DoubtCause::CounterAbsent | DoubtCause::CounterFailed => {
            format!("a counter has no value, so the request counts in the null bucket: {detail}")
        }
        DoubtCause::CounterTooLong => {
            format!("a counter names too many buckets, so the request counts in the null bucket: {detail}")
        }
        // The client chose the name, so it is quoted.
        DoubtCause::Price => match facts.asked_model() {
            Ok(model) if !model.is_empty() => {
                format!("no price is for the model {model:?}, so the highest price of the policy applies")
            }
            Ok(_) | Err(_) => format!("no price matches, so the highest one applies: {detail}"),
        },
        DoubtCause::Body(condition) => format!("the body is not known whole: {}", condition.name()),
    }
}

fn per(window: &Window) -> String {
    if *window == Window::Now { " at a time".to_owned() } else { format!(" per {window}") }
}

/// Returns what a new adapter with these policies would answer.
async fn reserve(collected: CollectedPolicies, call: &[u8]) -> Result<ReserveResponse, Unexplained> {
    let metrics = AdapterMetrics::new().map_err(|error| Unexplained(error.to_string()))?;
    let (_publish, in_force) = watch::channel(Arc::new(PolicySnapshot::new(collected, &metrics)));
    let now = Moment::now();
    let ledger = Arc::new(MemoryLedger::new(usize::MAX, now));
    let limiter = Limiter::new(ledger, in_force, Arc::new(metrics));
    let request = ReserveRequest::decode(call).map_err(|error| Unexplained(error.to_string()))?;
    limiter.reserve(request, now).await.map_err(|error| Unexplained(error.to_string()))
}

fn decision(effects: &[Effect]) -> String {
    let denial = effects.iter().find_map(|effect| match effect {
        Effect::Deny(denial) => Some(denial),
        _ => None,
    });
    match denial {
        Some(denial) => {
            let body: Value = serde_json::from_slice(&denial.body).unwrap_or_default();
            let message = body
                .pointer("/error/message")
                .or(body.get("message"))
                .and_then(Value::as_str)
                .unwrap_or_default();
            format!("the request is refused, even with nothing used: {}: {message}", denial.status)
        }
        None if effects.iter().any(|effect| matches!(effect, Effect::Signal(_))) => {
            "the request goes on and carries the signal of a soft limit that it exceeds, even with nothing used"
                .to_owned()
        }
        None if effects.contains(&Effect::Resume) => {
            "the request passes if all of them have room".to_owned()
        }
        None => "the request passes; no limit counts it".to_owned(),
    }
}

/// Returns what a response is charged, computed from the call that the filter would make.
fn charged(
    policies: &[Policy],
    status: u16,
    effects: Vec<Effect>,
) -> Result<Option<ExplainedResponse>, Unexplained> {
    let mut outbox = Outbox::new(1);
    let mut source = "";
    let mut trouble = String::new();
    for effect in effects {
        match effect {
            Effect::Commit(settlement) => {
                outbox.push(settlement);
            }
            Effect::Count(Metric::Usage(UsageSource::Reported)) => source = " as its usage says",
            Effect::Count(Metric::Usage(UsageSource::Estimated)) => {
                source = " by estimate, since it reports no usage"
            }
            Effect::Count(Metric::Usage(UsageSource::Deferred)) => {
                source = " when somebody reads the result that it names"
            }
            Effect::Count(Metric::Usage(UsageSource::None)) => source = ": it used nothing",
            Effect::Count(Metric::Unreadable(cause)) => trouble = format!(" (unreadable: {})", cause.name()),
            _ => {}
        }
    }
    let Some(call) = outbox.send(CommitRoute::Unary, 0) else { return Ok(None) };
    let commit =
        CommitRequest::decode(call.message.as_slice()).map_err(|error| Unexplained(error.to_string()))?;
    let mut charges = Vec::new();
    for descriptor in commit.descriptors {
        let value = |wanted: &str| {
            let entry = descriptor.entries.iter().find(|entry| entry.key == wanted);
            entry.map(|entry| entry.value.as_str()).unwrap_or_default()
        };
        let amount = descriptor.hits_addend.unwrap_or_default();
        let mut rates = policies.iter().flat_map(|policy| &policy.limits).flat_map(|limit| &limit.rates);
        let rate = rates.find(|rate| {
            let entry = rate.window.entry();
            rate.unit.name() == value("unit")
                && ["window", "period"].iter().all(|key| {
                    entry.as_ref().map_or("", |(own, text)| if own == key { text } else { "" }) == value(key)
                })
        });
        let window = rate.map(|rate| per(&rate.window)).unwrap_or_default();
        let charged = Unit::named(value("unit"));
        if charged == Some(Unit::Concurrency) {
            charges.push(format!("{}: its slot is free again", value("limit")));
            continue;
        }
        if let Some(deferred) = descriptor.deferred.filter(|deferred| deferred.now == 0) {
            let base = charged.filter(|_| deferred.base > 0).map(|unit| unit.quantity(deferred.base));
            let least = base.map(|base| format!(", at least {base}")).unwrap_or_default();
            charges.push(format!("{}: waits for its usage{least}", value("limit")));
            continue;
        }
        let amount = descriptor.deferred.map_or(amount, |deferred| deferred.now);
        let charged = charged.map_or_else(|| amount.to_string(), |unit| unit.quantity(amount));
        charges.push(format!("{}: {charged}{window}", value("limit")));
    }
    Ok(Some(ExplainedResponse { status, source: format!("{source}{trouble}"), charges }))
}
