//! Which rules of a request's policies stand: `defaults` give way to what is more specific, `overrides` prevail over it,
//! whole (atomic) or limit by limit (merge), as in Kuadrant. Plain `limits` stand beside all others.

use super::{Miss, Planned};
use crate::model::{Precedence, Strategy, Target, TargetKind};

/// A policy, as far as it stands.
pub(super) struct Effective<'p> {
    pub planned: &'p Planned,
    /// Whose `when` it is under.
    pub when: &'p Planned,
    /// The policies that stand in the place of this one's limits of these names.
    replaced: Vec<(&'p str, &'p Planned)>,
    /// The policy that stands in the place of all of it.
    by: Option<&'p Planned>,
}

impl<'p> Effective<'p> {
    /// What stands in the place of one of its limits.
    pub fn instead(&self, limit: &str) -> Option<Miss> {
        let by = self.by.or_else(|| self.replaced.iter().find(|(name, _)| *name == limit).map(|(_, by)| *by));
        by.map(|by| Miss::Replaced(by.name.to_string()))
    }
}

/// The policies of a request, each as far as it stands.
pub(super) fn effective<'p>(policies: Vec<&'p Planned>) -> Vec<Effective<'p>> {
    let alone = |planned| Effective { planned, when: planned, replaced: Vec::new(), by: None };
    let mut all: Vec<Effective<'p>> = policies.iter().copied().map(alone).collect();
    for general in policies.iter().copied().filter(|general| general.policy.precedence != Precedence::Own) {
        let is_below = |other: &&&'p Planned| specificity(other) > specificity(general);
        for specific in policies.iter().filter(is_below).copied() {
            let (winner, loser, strategy) = match general.policy.precedence {
                Precedence::Defaults(strategy) => (specific, general, strategy),
                Precedence::Overrides(strategy) => (general, specific, strategy),
                Precedence::Own => continue,
            };
            apply(&mut all, winner, loser, strategy);
        }
    }
    all
}

fn apply<'p>(all: &mut [Effective<'p>], winner: &'p Planned, loser: &'p Planned, strategy: Strategy) {
    // A `when` is a rule like any other: the winner's own, or else the loser's, is for both.
    let when = if winner.policy.when.is_empty() { loser } else { winner };
    for effective in all.iter_mut() {
        let is = |planned: &Planned| std::ptr::eq(effective.planned, planned);
        match strategy {
            Strategy::Atomic if is(loser) => effective.by = Some(winner),
            Strategy::Atomic => {}
            Strategy::Merge if is(loser) => {
                effective.when = when;
                let names = winner.policy.limits.iter().map(|limit| (limit.name.as_str(), winner));
                effective.replaced.extend(names);
            }
            Strategy::Merge if is(winner) => effective.when = when,
            Strategy::Merge => {}
        }
    }
}

/// A route is more specific than its gateway, and a section than the whole.
fn specificity(planned: &Planned) -> (bool, bool) {
    let Target { kind, section, .. } = &planned.policy.target;
    (*kind == TargetKind::HttpRoute, section.is_some())
}
