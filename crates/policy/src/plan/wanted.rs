//! Determines which facts of requests and responses the expressions of policies need.

use crate::model::{Limit, Policy};
use expression::cel::Expression;
use expression::facts::{self, Facts, Need};
use expression::small_sort;
use llm::response::{Pointers, UsagePointers};
use std::sync::Arc;

/// The headers that are needed to read a body and to send an edited body.
pub(super) const BODY_HEADERS: [&str; 6] =
    [":method", ":path", "accept-encoding", "content-encoding", "content-length", "content-type"];

fn all_expressions(policies: &[Policy]) -> impl Iterator<Item = &Expression> {
    let of_limits = policies.iter().flat_map(|policy| &policy.limits).flat_map(Limit::expressions);
    let of_policies = policies.iter().flat_map(|policy| {
        let body = policy.on_exceeded.as_ref().and_then(|own| own.body.as_ref());
        policy.when.iter().chain(body)
    });
    of_policies.chain(of_limits)
}

pub(super) fn pointers(policies: &[Policy]) -> Vec<String> {
    distinct(pointers_into(facts::POINTED, policies).map(str::to_owned))
}

fn pointers_into<'p>(body: &'static str, policies: &'p [Policy]) -> impl Iterator<Item = &'p str> {
    let paths = all_expressions(policies).flat_map(Expression::references);
    paths.filter_map(move |path| facts::pointer(body, path))
}

/// Returns the pointers to look up in responses.
pub(super) fn answered(policies: &[Policy]) -> Arc<Pointers> {
    let of_usage = policies.iter().filter_map(|policy| policy.usage.pointers.as_deref());
    let totals = policies.iter().filter_map(|policy| policy.extraction.as_ref()?.total()).map(Arc::as_ref);
    let of_usage = of_usage.chain(totals).flat_map(UsagePointers::pointers).map(String::as_str);
    // Another policy's `tokenCompute` may use the counts.
    let names = policies.iter().filter_map(|policy| policy.token_compute.as_ref()).flat_map(|it| it.counts());
    let counts = names
        .flat_map(|name| policies.iter().filter_map(move |policy| policy.extraction.as_ref()?.count(name)));
    let counted = counts.flat_map(|count| &count.pointers).map(String::as_str);
    let of_costs = pointers_into(facts::ANSWERED, policies);
    Arc::new(Pointers::new(distinct(of_usage.chain(counted).chain(of_costs).map(str::to_owned))))
}

pub(super) fn needs(policies: &[Policy]) -> Vec<Need> {
    let mut needs = Facts::needs(all_expressions(policies).flat_map(Expression::references));
    if !policies.is_empty() {
        // Needed to determine the dialect, and to identify calls that use no tokens.
        needs.push(Need::Header(":path".into()));
    }
    if policies.iter().flat_map(|p| &p.limits).flat_map(|l| &l.rates).any(|r| r.unit.is_of_usage()) {
        // Needed for the estimate, and to identify calls that use no tokens.
        needs.push(Need::Header("content-length".into()));
        needs.push(Need::Header(":method".into()));
    }
    needs
}

/// The headers that soft limits set.
pub(super) fn signal_headers(policies: &[Policy]) -> Vec<String> {
    let limits = policies.iter().flat_map(|policy| &policy.limits);
    let signals = limits.filter_map(|limit| limit.boundary.signal());
    distinct(signals.flat_map(|signal| &signal.headers).map(|(name, _)| name.clone()))
}

/// Sorted and without repeats.
fn distinct(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = all.collect();
    small_sort::sort(&mut all);
    all.dedup();
    all
}

pub(super) fn answer_headers(policies: &[Policy]) -> Vec<String> {
    let expressions = policies.iter().flat_map(|policy| &policy.limits).flat_map(Limit::expressions);
    distinct(expressions.flat_map(Expression::references).filter_map(|path| match path.as_slice() {
        [root, headers, name] if root == "response" && headers == "headers" => Some(name.clone()),
        _ => None,
    }))
}
