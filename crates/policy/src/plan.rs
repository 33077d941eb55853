//! Policies, compiled for judging requests: which facts to fetch, and what a request would hold.

mod body;
mod bucket;
mod cap;
mod compiled;
mod conflict;
mod estimate;
mod gate;
mod holding;
mod index;
mod judgement;
mod learned;
mod precedence;
mod tokens;
mod wanted;

use crate::model::{Policy, TargetKind};
use crate::routes::Routes;
pub use body::BodyAccess;
use bucket::RequestBuckets;
use compiled::CompiledPolicy;
pub use compiled::PlannedRate;
pub use estimate::Estimate;
use expression::facts::{Facts, Need, ResponseFacts};
use expression::small_sort;
pub use gate::FactRound;
use holding::Matching;
use index::PolicyIndex;
pub use judgement::{Doubt, DoubtCause, Failure, Hold, Judgement, Miss, PolicyPart};
pub use learned::{LearnedOutputs, OutputLesson};
use llm::request::Conflicts;
use llm::response::Pointers;
use std::sync::Arc;
pub use tokens::{TokenCompute, TokenRules};

/// All policies in force.
#[derive(Debug, Default)]
pub struct Plan {
    policies: Vec<CompiledPolicy>,
    /// `None` outside a cluster: a policy on an HTTPRoute then applies to the Envoy route with that name.
    routes: Option<Routes>,
    /// Finds the policies that apply on every route.
    index: PolicyIndex,
    needs: Vec<Need>,
    /// The order in which the needs are fetched.
    rounds: Vec<FactRound>,
    answer_headers: Vec<String>,
    signal_headers: Vec<String>,
    body: BodyAccess,
    /// Whether the adapter keeps records of usage.
    records_usage: bool,
    traces: bool,
    /// The JSON pointers of all expressions into requests.
    pointers: Vec<String>,
    /// The JSON pointers of all expressions into responses, and those of the policies' custom formats.
    answered: Arc<Pointers>,
    /// The length of earlier responses, if it is learned.
    outputs: Option<LearnedOutputs>,
}

/// The maximum number of headers to fetch one by one. Beyond it, all headers are fetched at once, which costs
/// about as much.
const MAX_SINGLE_HEADERS: usize = 16;

/// For each policy on a route: the names of the policies that replace it, if it has no effect there.
pub fn overridden(policies: impl IntoIterator<Item = Policy>) -> Vec<Vec<Arc<str>>> {
    let policies: Vec<CompiledPolicy> = policies.into_iter().map(CompiledPolicy::new).collect();
    precedence::overridden(&policies)
}

/// Removes repeated needs, because fetching a header twice would join its values twice. The routes' authors
/// choose the headers, so beyond a maximum, all headers are fetched at once.
fn without_repeats(needs: &mut Vec<Need>) {
    small_sort::sort(needs);
    needs.dedup();
    if needs.iter().filter(|need| matches!(need, Need::Header(_))).count() > MAX_SINGLE_HEADERS {
        needs.push(Need::Headers);
        small_sort::sort(needs);
    }
    if needs.contains(&Need::Headers) {
        needs.retain(|need| !matches!(need, Need::Header(_)));
    }
}

impl Plan {
    /// Compiles policies. If two of them refuse a request for equal reasons, the refusal names the earlier
    /// one.
    pub fn new(policies: Vec<Policy>) -> Self {
        let mut needs = wanted::needs(&policies);
        if policies.iter().any(|policy| policy.target.kind != TargetKind::Gateway) {
            needs.push(Need::Property(Facts::ROUTE_NAME.map(str::to_owned).to_vec()));
        }
        Self::arranged(policies, None, needs)
    }

    /// Compiles the policies of a gateway with known listeners and routes.
    pub fn placed(policies: Vec<Policy>, routes: Routes) -> Self {
        let mut needs = wanted::needs(&policies);
        needs.extend_from_slice(routes.needs());
        Self::arranged(policies, Some(routes), needs)
    }

    fn arranged(policies: Vec<Policy>, routes: Option<Routes>, mut needs: Vec<Need>) -> Self {
        without_repeats(&mut needs);
        let answer_headers = wanted::answer_headers(&policies);
        let signal_headers = wanted::signal_headers(&policies);
        let (pointers, answered) = (wanted::pointers(&policies), wanted::answered(&policies));
        let policies: Vec<CompiledPolicy> = policies.into_iter().map(CompiledPolicy::new).collect();
        let on_every_route = |planned: &CompiledPolicy| planned.policy.target.kind == TargetKind::Gateway;
        let places = match &routes {
            Some(routes) => routes.everywhere().to_vec(),
            None => {
                policies.iter().enumerate().filter(|(_, p)| on_every_route(p)).map(|(at, _)| at).collect()
            }
        };
        let index = PolicyIndex::new(&policies, &places, |_| true);
        let (rounds, body) = (gate::rounds(&policies, &needs), BodyAccess::None);
        Self {
            policies,
            routes,
            index,
            needs,
            rounds,
            answer_headers,
            signal_headers,
            body,
            records_usage: false,
            traces: false,
            pointers,
            answered,
            outputs: None,
        }
    }

    /// The response headers that a `cost` uses, with names in lower case.
    pub fn answer_headers(&self) -> &[String] {
        &self.answer_headers
    }

    /// The headers that soft limits set, with names in lower case. A client's own copies are removed from
    /// every request before anything else is fetched.
    pub fn signal_headers(&self) -> &[String] {
        &self.signal_headers
    }

    /// The pointers to look up in the response's body, in addition to its usage.
    pub fn answered(&self) -> &Arc<Pointers> {
        &self.answered
    }

    /// Sets whether request bodies are read. If not, expressions must not use facts of the body.
    pub fn with_body(mut self, access: BodyAccess) -> Self {
        self.body = access;
        let reads = self.policies.iter().any(|planned| planned.reads_body.contains(&true));
        if access != BodyAccess::None && reads {
            self.needs.extend(wanted::BODY_HEADERS.map(|name| Need::Header(name.to_owned())));
            without_repeats(&mut self.needs);
        }
        self.rounds = gate::rounds(&self.policies, &self.needs);
        self
    }

    /// Estimates the output of requests from earlier responses.
    pub fn learning(mut self, outputs: LearnedOutputs) -> Self {
        self.outputs = Some(outputs);
        self
    }

    /// Sets whether the adapter keeps records of usage.
    pub fn recording_usage(self, records_usage: bool) -> Self {
        Self { records_usage, ..self }
    }

    /// Whether the adapter keeps records of usage.
    pub fn records_usage(&self) -> bool {
        self.records_usage
    }

    /// Sets whether the adapter exports spans.
    pub fn tracing(self, traces: bool) -> Self {
        Self { traces, ..self }
    }

    /// Whether the adapter exports spans.
    pub fn traces(&self) -> bool {
        self.traces
    }

    /// Returns the stored result that a request reads, if tokens or money are counted: its creator may have
    /// to be charged.
    pub fn stored_result<'f>(&self, facts: &'f Facts, bodiless: bool) -> Option<&'f str> {
        facts.stored_result(bodiless).filter(|_| self.policies.iter().any(CompiledPolicy::counts_usage))
    }

    /// Returns how many bytes of the body to read, if the request has a body and a limit that may apply needs
    /// it.
    pub fn body_wanted(&self, facts: &Facts) -> Option<usize> {
        let BodyAccess::Buffer(most) = self.body else { return None };
        let effective = precedence::effective(self.concerned(facts));
        effective.iter().any(|one| one.planned.wants_body(one, facts)).then_some(most)
    }

    /// The maximum number of bytes of a body to read, if bodies are read.
    pub fn most_of_body(&self) -> Option<usize> {
        match self.body {
            BodyAccess::Buffer(most) => Some(most),
            BodyAccess::None => None,
        }
    }

    /// The JSON pointers that expressions use to read a request's body, in addition to its facts.
    pub fn pointers(&self) -> &[String] {
        &self.pointers
    }

    /// The facts to fetch before a request can be judged.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// The order in which they are fetched, for as long as a limit may apply.
    pub fn rounds(&self) -> &[FactRound] {
        &self.rounds
    }

    /// Whether the plan knows the gateway's routes, so that it does not depend on the matched route's name.
    pub fn is_placed(&self) -> bool {
        self.routes.is_some()
    }

    /// Determines which limits apply, and what they would hold. `bodiless` is true if the request has no
    /// body.
    pub fn judge(&self, facts: &mut Facts, bodiless: bool) -> Judgement {
        let policies = self.concerned(facts);
        self.judged(policies, facts, bodiless, |_, _, _| {})
    }

    /// Like `judge`, but also calls `miss` for each limit that does not apply, with the policy, the limit and
    /// the reason.
    pub fn judge_with(
        &self,
        facts: &mut Facts,
        bodiless: bool,
        mut miss: impl FnMut(&str, &str, Miss),
    ) -> Judgement {
        let policies = self.targeted(facts, &mut miss);
        self.judged(policies, facts, bodiless, miss)
    }

    /// Determines which limits of these policies apply, and what they would hold.
    fn judged(
        &self,
        policies: Vec<&CompiledPolicy>,
        facts: &mut Facts,
        bodiless: bool,
        mut miss: impl FnMut(&str, &str, Miss),
    ) -> Judgement {
        if !bodiless {
            facts.expect_body();
        }
        let is_free = facts.uses_no_tokens(bodiless);
        let preliminary = Estimate::of(facts, bodiless, is_free, None);
        facts.estimate(preliminary.input, preliminary.output);
        let mut failures = Vec::new();
        let (mut matching, mut buckets) = (Vec::new(), RequestBuckets::default());
        let mut conflicts = Conflicts::default();
        for effective in precedence::effective(policies) {
            let planned = effective.planned;
            planned.matching(&effective, facts, &mut matching, &mut buckets, &mut conflicts, |limit, why| {
                if let Miss::Failed(failure) = &why {
                    failures.push(failure.clone());
                }
                miss(&planned.name, limit, why);
            });
        }
        let smallest = matching.iter().filter_map(Matching::smallest_output_limit).min();
        let estimate = Estimate::of(facts, bodiless, is_free, smallest);
        if estimate != preliminary {
            facts.estimate(estimate.input, estimate.output);
        }
        // A `cost` also determines the hold, which is the cost of the estimate.
        facts.answer(expected_answer(estimate));
        let has_maximum = facts.read_body().is_some_and(|body| !body.has_open_output());
        let max_output = has_maximum.then_some(estimate.output);
        let mut judgement =
            Judgement { is_free, estimate, failures, conflicts, max_output, ..Judgement::default() };
        judgement.holds.reserve(matching.len());
        let mut lesson = self.lesson(facts, max_output);
        for mut limit in matching {
            judgement.failures.append(&mut limit.failures);
            let learned = lesson.as_mut().and_then(|(lesson, model)| {
                let body = facts.read_body()?;
                let known = lesson.add(limit.output_key(model, body.max_output_fields)?);
                estimate.learned(known, body, smallest)
            });
            let Some(learned) = learned else {
                limit.hold(&buckets, facts, estimate, &[], is_free, &mut judgement);
                continue;
            };
            let bounds = limit.bounds(facts, estimate);
            facts.answer(expected_answer(learned));
            limit.hold(&buckets, facts, learned, &bounds, is_free, &mut judgement);
            facts.answer(expected_answer(estimate));
        }
        judgement.lesson = lesson.map(|(lesson, _)| lesson).filter(|lesson| !lesson.is_empty());
        judgement.output_cap = cap::of(&judgement.holds, estimate);
        judgement
    }
}

/// The response that is expected before there is one.
fn expected_answer(estimate: Estimate) -> ResponseFacts {
    ResponseFacts { usage: estimate.usage(), code: 200, finished: true, ..ResponseFacts::default() }
}

impl Plan {
    /// Returns what the response will teach, and the model, if the output is a guess or has a maximum that the server
    /// may ignore.
    fn lesson(&self, facts: &Facts, max_output: Option<u64>) -> Option<(OutputLesson, String)> {
        let outputs = self.outputs.as_ref()?;
        let body =
            facts.read_body().filter(|body| body.has_open_output() || body.max_output_fields.is_any())?;
        let model = facts.asked_model().unwrap_or_default();
        Some((OutputLesson::new(outputs.clone(), body.completions, max_output), model))
    }

    /// Returns the policies that the request may concern: those on its route, except those that its facts
    /// rule out.
    fn concerned(&self, facts: &Facts) -> Vec<&CompiledPolicy> {
        let mut places = self.index.find(facts);
        match (&self.routes, facts.route_name()) {
            (Some(routes), _) => places.extend(routes.find_here(facts)),
            (None, Some(name)) => places.extend(self.on_route(name)),
            (None, None) if facts.is_route_in_doubt() => places.extend(self.on_any_route()),
            (None, None) => {}
        }
        small_sort::sort(&mut places);
        places.into_iter().filter_map(|place| self.policies.get(place)).collect()
    }

    fn on_route<'p>(&'p self, name: &'p str) -> impl Iterator<Item = usize> + 'p {
        let is_for = move |(_, planned): &(usize, &CompiledPolicy)| {
            let mut targets = planned.policy.targets();
            targets.any(|target| target.kind != TargetKind::Gateway && target.name == name)
        };
        self.policies.iter().enumerate().filter(is_for).map(|(place, _)| place)
    }

    fn on_any_route(&self) -> impl Iterator<Item = usize> {
        let of_route = |planned: &CompiledPolicy| {
            planned.policy.targets().any(|target| target.kind != TargetKind::Gateway)
        };
        self.policies.iter().enumerate().filter(move |(_, planned)| of_route(planned)).map(|(place, _)| place)
    }

    /// Returns the policies on the request's route.
    fn targeted(&self, facts: &Facts, miss: &mut impl FnMut(&str, &str, Miss)) -> Vec<&CompiledPolicy> {
        if let Some(routes) = &self.routes {
            return routes.find(facts).into_iter().filter_map(|place| self.policies.get(place)).collect();
        }
        let (here, elsewhere): (Vec<_>, Vec<_>) = self.policies.iter().partition(|planned| {
            let mut targets = planned.policy.targets();
            targets
                .any(|target| target.kind == TargetKind::Gateway || facts.route_name() == Some(&target.name))
        });
        for planned in elsewhere {
            planned.policy.limits.iter().for_each(|limit| miss(&planned.name, &limit.name, Miss::OtherRoute));
        }
        here
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Plan;
    use crate::model::Policy;
    use expression::facts::Facts;
    use serde_json::json;

    /// However many policies there are, a request examines only those for its own values.
    #[test]
    fn a_request_examines_no_policies_for_other_values() {
        let of_path = |index| format!("request.path.startsWith('/{index}/')");
        let of_header = |index| format!("request.headers['x-team'] == '{index}' && request.method == 'POST'");
        let of_user = |index| format!("auth.identity.userid == '{index}'");
        let predicates: [fn(usize) -> String; 3] = [of_path, of_header, of_user];
        for predicate in predicates {
            let policy = |index| {
                let document = json!({
                    "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy",
                    "metadata": { "name": format!("p{index}") },
                    "spec": {
                        "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g" },
                        "when": [{ "predicate": predicate(index) }],
                        "limits": { "a": { "rates": [{ "limit": 1, "window": "1h" }] } },
                    },
                });
                Policy::read(&document).unwrap()
            };
            let plan = Plan::new((0..1_000).map(policy).collect());
            let examined = |value: &str| {
                let mut facts = Facts::default();
                let path = format!("/{value}/chat");
                for (name, of) in [(":path", path.as_str()), ("x-team", value), (":method", "POST")] {
                    facts.header(name, of.as_bytes());
                }
                facts.auth(json!({ "identity": { "userid": value } }));
                plan.concerned(&facts).len()
            };
            assert_eq!((examined("7"), examined("none")), (1, 0), "{}", predicate(7));
        }
    }
}
