//! Finds the policies that have no effect at a Gateway, because other policies replace their `defaults` or
//! prevail with `overrides` on every route. Pure. `crates/policy` decides which policy prevails on a route.

use super::conditions::{Acceptance, PolicyConditions};
use super::objects::ObjectName;
use crate::policies::collection::{GatewayPlan, ValidPolicy};
use policy::model::{Precedence, TargetKind};
use policy::plan;
use protocol::wire::weir::v1::Placement;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The policies that replace each policy at each Gateway, by policy and Gateway, both as NAMESPACE/NAME.
/// `None` if the policy has an effect somewhere at the Gateway.
#[derive(Default)]
pub struct Overridden(BTreeMap<(String, String), Option<BTreeSet<String>>>);

/// Computes the replacements at all Gateways.
pub fn find(policies: &[ValidPolicy], plans: &HashMap<String, GatewayPlan>) -> Overridden {
    let mut found = Overridden::default();
    if policies.iter().all(|valid| valid.policy.precedence == Precedence::Own) {
        return found;
    }
    for (gateway, planned) in plans {
        let of_plan: Vec<&ValidPolicy> = planned.policies.iter().filter_map(|at| policies.get(*at)).collect();
        for meeting in meetings(&planned.placement, &of_plan) {
            let met: Vec<&ValidPolicy> = meeting.iter().filter_map(|at| of_plan.get(*at).copied()).collect();
            let by = plan::overridden(met.iter().map(|valid| (*valid.policy).clone()));
            met.into_iter().zip(by).for_each(|(valid, by)| found.note(&valid.name, gateway, &by));
        }
    }
    found
}

/// Returns the sets of policies that meet on a route. Omits policies that take no part in replacements.
fn meetings(placement: &Placement, policies: &[&ValidPolicy]) -> BTreeSet<Vec<usize>> {
    let takes_part = |at: &usize| {
        policies.get(*at).is_some_and(|valid| {
            let (policy, target) = (&valid.policy, &valid.policy.target);
            policy.precedence != Precedence::Own
                || target.kind != TargetKind::Gateway
                || target.section.is_some()
        })
    };
    let none = (Vec::new(), Vec::new());
    let listeners = placement.listeners.iter().map(|at| (at.ports.clone(), at.policies.clone()));
    let listeners: Vec<(Vec<u32>, Vec<u32>)> = listeners.chain([none]).collect();
    let mut meetings = BTreeSet::new();
    for rule in &placement.rules {
        for (ports, of_listener) in &listeners {
            let reached = ports.is_empty() || rule.ports.is_empty();
            if reached || ports.iter().any(|port| rule.ports.contains(port)) {
                let all = placement.everywhere.iter().chain(of_listener).chain(&rule.policies);
                let all: BTreeSet<usize> = all.filter_map(|at| usize::try_from(*at).ok()).collect();
                meetings.insert(all.into_iter().filter(takes_part).collect());
            }
        }
    }
    meetings
}

impl Overridden {
    fn note(&mut self, policy: &str, gateway: &str, by: &[std::sync::Arc<str>]) {
        let key = (policy.to_owned(), gateway.to_owned());
        let known = self.0.entry(key).or_insert_with(|| Some(BTreeSet::new()));
        match known {
            Some(names) if !by.is_empty() => names.extend(by.iter().map(|name| name.to_string())),
            known => *known = None,
        }
    }

    /// Returns the Gateways where this policy has no effect, and the policies that replace it there.
    pub fn of(&self, conditions: &PolicyConditions) -> Vec<(ObjectName, String)> {
        if matches!(conditions.acceptance, Acceptance::Conflicted(_)) {
            return Vec::new();
        }
        let by = |gateway: &ObjectName| {
            let key = (conditions.object.name.to_string(), gateway.to_string());
            let names: Vec<_> = self.0.get(&key)?.as_ref()?.iter().cloned().collect();
            Some((gateway.clone(), names.join(", ")))
        };
        conditions.gateways.iter().filter_map(by).collect()
    }
}
