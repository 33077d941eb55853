//! Decides which rules of a request's policies apply. `defaults` yield to more specific policies, and
//! `overrides` prevail over them, either as a whole (atomic) or rule by rule (merge). As in Kuadrant,
//! policies merge pairwise, from most to least specific, and a policy that was replaced has no further
//! effect. `when`, `dataExtraction` and `tokenCompute` merge like limits, and then apply to both policies.
//! Plain `limits` apply in addition to all others. Policies on the same target apply together, too.

use super::{CompiledPolicy, Miss};
use crate::model::{Precedence, Strategy, Target, TargetKind};
use expression::small_sort;
use std::sync::Arc;

/// A policy and the parts of it that apply.
pub(super) struct Effective<'p> {
    pub planned: &'p CompiledPolicy,
    /// The policy that provides the `when`.
    pub when: &'p CompiledPolicy,
    /// The policy that provides the `dataExtraction`.
    pub extraction: &'p CompiledPolicy,
    /// The policy that provides the `tokenCompute`.
    pub compute: &'p CompiledPolicy,
    /// The policies that replace this one's limits of these names.
    replaced: Vec<(&'p str, &'p CompiledPolicy)>,
    /// The policy that replaces the whole policy.
    by: Option<&'p CompiledPolicy>,
}

impl<'p> Effective<'p> {
    /// Returns what replaces one of the policy's limits, if anything does.
    pub fn instead(&self, limit: &str) -> Option<Miss> {
        self.replacing(limit).map(|by| Miss::Replaced(by.name.to_string()))
    }

    fn replacing(&self, limit: &str) -> Option<&'p CompiledPolicy> {
        self.by.or_else(|| self.replaced.iter().find(|(name, _)| *name == limit).map(|(_, by)| *by))
    }

    /// Returns the policy that provides a rule.
    fn source(&mut self, rule: PolicyRule) -> &mut &'p CompiledPolicy {
        match rule {
            PolicyRule::When => &mut self.when,
            PolicyRule::Extraction => &mut self.extraction,
            PolicyRule::Compute => &mut self.compute,
        }
    }

    /// Returns the policy's limits that still apply.
    fn names(&self) -> impl Iterator<Item = (&'p str, &'p CompiledPolicy)> {
        let limits = self.planned.policy.limits.iter().map(|limit| limit.name.as_str());
        limits.filter(|limit| self.replacing(limit).is_none()).map(|limit| (limit, self.planned))
    }
}

/// A rule that applies to a policy as a whole.
#[derive(Clone, Copy)]
enum PolicyRule {
    When,
    Extraction,
    Compute,
}

impl PolicyRule {
    const ALL: [Self; 3] = [Self::When, Self::Extraction, Self::Compute];

    fn is_in(self, planned: &CompiledPolicy) -> bool {
        match self {
            Self::When => !planned.policy.when.is_empty(),
            Self::Extraction => planned.policy.extraction.is_some(),
            Self::Compute => planned.policy.token_compute.is_some(),
        }
    }
}

/// Returns the policies of a request, each with the parts that apply.
pub(super) fn effective<'p>(policies: Vec<&'p CompiledPolicy>) -> Vec<Effective<'p>> {
    let alone = |planned| Effective {
        planned,
        when: planned,
        extraction: planned,
        compute: planned,
        replaced: Vec::new(),
        by: None,
    };
    let mut all: Vec<Effective<'p>> = policies.iter().copied().map(alone).collect();
    for level in FROM_MOST_SPECIFIC {
        let merges =
            |one: &&&'p CompiledPolicy| one.policy.precedence != Precedence::Own && specificity(one) == level;
        for general in policies.iter().filter(merges) {
            let (mut at, mut below) = (None, Vec::new());
            for one in &mut all {
                if std::ptr::eq(one.planned, *general) {
                    at = Some(one);
                } else if one.by.is_none() && specificity(one.planned) > level {
                    below.push(one);
                }
            }
            if let (Some(general), false) = (at, below.is_empty()) {
                merge(general, below);
            }
        }
    }
    all
}

/// For each policy on a route: the policies that replace it, if none of its limits applies.
pub(super) fn overridden(policies: &[CompiledPolicy]) -> Vec<Vec<Arc<str>>> {
    let by = |one: Effective<'_>| {
        let limits = one.planned.policy.limits.iter();
        let by: Option<Vec<Arc<str>>> =
            limits.map(|limit| one.replacing(&limit.name).map(|by| by.name.clone())).collect();
        let mut by = by.unwrap_or_default();
        small_sort::sort(&mut by);
        by.dedup();
        by
    };
    effective(policies.iter().collect()).into_iter().map(by).collect()
}

/// For each policy: whether its rules always apply as written.
pub(super) fn stand_alone(policies: &[CompiledPolicy]) -> Vec<bool> {
    let general = policies.iter().filter(|planned| planned.policy.precedence != Precedence::Own);
    let most_general = general.map(specificity).min();
    let own = |planned: &CompiledPolicy| planned.policy.precedence == Precedence::Own;
    let alone = |planned| own(planned) && most_general.is_none_or(|least| specificity(planned) <= least);
    policies.iter().map(alone).collect()
}

/// Merges a policy with the more specific ones.
fn merge<'p>(general: &mut Effective<'p>, mut below: Vec<&mut Effective<'p>>) {
    let planned = general.planned;
    match planned.policy.precedence {
        Precedence::Own => return,
        Precedence::Defaults(Strategy::Atomic) => {
            general.by = below.first().map(|one| one.planned);
            return;
        }
        Precedence::Overrides(Strategy::Atomic) => {
            below.iter_mut().for_each(|one| one.by = Some(planned));
            return;
        }
        Precedence::Defaults(Strategy::Merge) => {
            general.replaced.extend(below.iter().flat_map(|one| one.names()));
        }
        Precedence::Overrides(Strategy::Merge) => {
            let names: Vec<_> = general.names().collect();
            below.iter_mut().for_each(|one| one.replaced.extend_from_slice(&names));
        }
    }
    for rule in PolicyRule::ALL {
        let own = rule.is_in(planned).then_some(planned);
        let theirs = below.iter_mut().map(|one| *one.source(rule)).find(|planned| rule.is_in(planned));
        let overrides = matches!(planned.policy.precedence, Precedence::Overrides(_));
        let for_all = own.filter(|_| overrides);
        *general.source(rule) = for_all.or(theirs).unwrap_or(planned);
        for one in &mut below {
            let source = one.source(rule);
            *source = match (for_all, rule.is_in(source)) {
                (Some(own), _) => own,
                (None, true) => *source,
                (None, false) => own.unwrap_or(*source),
            };
        }
    }
}

/// The order of [`specificity`].
const FROM_MOST_SPECIFIC: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

/// A route is more specific than its gateway, and a section is more specific than the whole.
fn specificity(planned: &CompiledPolicy) -> (bool, bool) {
    let Target { kind, section, .. } = &planned.policy.target;
    (*kind != TargetKind::Gateway, section.is_some())
}
