//! Computes the status of a policy. Pure.

use super::crd::Group;
use super::objects::{ObjectName, PolicyObject};
use super::reason::ConditionReason;
use super::status::{Ancestor, AncestorReference, PolicyStatus};
use crate::policies::filters::without_bodies;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use policy::validation_error::ValidationError;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The maximum number of ancestors in a status.
const MAX_ANCESTORS: usize = 16;
/// The maximum number of doubts in a message.
const MAX_DOUBTS: usize = 3;
/// The maximum number of missing Gateways in a message.
const MAX_STRAYS: usize = 4;
/// The maximum length of a condition's message, in characters.
const MAX_TEXT: usize = 32_768;

/// The inputs of a status in addition to its policy.
#[derive(Clone, Copy, Debug)]
pub struct StatusContext<'a> {
    /// The controller's name in `ancestors`.
    pub controller: &'a str,
    /// The Gateways that filters follow, and `"*"` if a filter follows all of them. Gateways with a filter
    /// that does not read bodies are also listed under the name from [`without_bodies`].
    pub filters: &'a BTreeSet<String>,
    /// The Gateways that filters name but that do not exist.
    pub strays: &'a BTreeSet<String>,
    /// Another installation of the adapter that writes the same statuses under the same controller name.
    pub rival: Option<&'a str>,
    /// Whether another installation, under another controller name, writes the conditions of the policy as a
    /// whole.
    pub ancestors_alone: bool,
}

/// The outcome for a policy.
#[derive(Clone, Debug)]
pub struct PolicyConditions {
    /// The object.
    pub object: PolicyObject,
    /// Whether the object can be used.
    pub acceptance: Acceptance,
    /// The Gateways that it applies to.
    pub gateways: Vec<ObjectName>,
    /// The generation that is in force, if any.
    pub enforced_generation: Option<i64>,
    /// Why no request can match the policy. `None` if requests can match it.
    pub never: Option<String>,
    /// Why it may apply to more requests than those of its routes.
    pub doubts: Vec<String>,
    /// The parts that filters without access to bodies cannot evaluate.
    pub needs_body: Vec<ValidationError>,
    /// The Gateways where other policies replace it on every route, and those policies.
    pub overridden: Vec<(ObjectName, String)>,
}

/// Whether a policy can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    Accepted,
    /// It has these errors.
    Invalid(Vec<ValidationError>),
    /// Its target does not exist.
    TargetNotFound(String),
    /// A policy of this group has the same name.
    Conflicted(Group),
}

impl PolicyConditions {
    /// Creates the conditions of a policy without known problems.
    pub fn new(object: &PolicyObject) -> Self {
        Self {
            object: object.clone(),
            acceptance: Acceptance::Accepted,
            gateways: Vec::new(),
            enforced_generation: None,
            never: None,
            doubts: Vec::new(),
            needs_body: Vec::new(),
            overridden: Vec::new(),
        }
    }

    /// Marks the target as missing. Errors in the policy itself take precedence.
    pub fn not_found(&mut self, what: String) {
        if self.acceptance == Acceptance::Accepted {
            self.acceptance = Acceptance::TargetNotFound(what);
        }
    }

    /// Returns the status to write, or `None` if it is already written.
    pub fn status(&self, context: StatusContext<'_>, now: &Time) -> Option<PolicyStatus> {
        let before = PolicyStatus::deserialize(&self.object.status).unwrap_or_default();
        let generation = self.object.generation;
        let condition = |kind: &str, (good, reason, message): ConditionState, before: &[Condition]| {
            let status = if good { "True" } else { "False" };
            let same = before.iter().find(|condition| condition.type_ == kind && condition.status == status);
            Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.name().to_owned(),
                message: shortened(message),
                observed_generation: Some(generation),
                last_transition_time: same
                    .map_or_else(|| now.clone(), |same| same.last_transition_time.clone()),
            }
        };
        let both = |enforced: ConditionState, before: &[Condition]| {
            vec![
                condition("Accepted", self.accepted(context.rival), before),
                condition("Enforced", enforced, before),
            ]
        };
        let ours = |ancestor: &&Ancestor| ancestor.controller_name == context.controller;
        let own = self.gateways.iter().map(|gateway| {
            let ancestor_ref = reference(gateway);
            let known =
                before.ancestors.iter().filter(ours).find(|ancestor| ancestor.ancestor_ref == ancestor_ref);
            let known = known.map(|ancestor| ancestor.conditions.as_slice()).unwrap_or_default();
            let conditions = both(self.enforced(std::slice::from_ref(gateway), context), known);
            Ancestor { ancestor_ref, controller_name: context.controller.to_owned(), conditions }
        });
        // Each entry keeps its position. Otherwise controllers would keep reordering each other's entries.
        let mut own: Vec<Ancestor> = own.collect();
        let mut ancestors = Vec::with_capacity(before.ancestors.len());
        for ancestor in &before.ancestors {
            let now = own.iter().position(|now| now.ancestor_ref == ancestor.ancestor_ref);
            match now {
                _ if !ours(&ancestor) => ancestors.push(ancestor.clone()),
                Some(now) => ancestors.push(own.remove(now)),
                None => {}
            }
        }
        ancestors.append(&mut own);
        let unlisted = ancestors.len().saturating_sub(MAX_ANCESTORS);
        ancestors.truncate(MAX_ANCESTORS);
        if context.ancestors_alone {
            let status = PolicyStatus { ancestors, ..before.clone() };
            return (status != before).then_some(status);
        }
        let (good, reason, mut message) = self.enforced(&self.gateways, context);
        if unlisted > 0 {
            message = format!("{message} ({unlisted} more Gateways than `ancestors` can list)");
        }
        let conditions = both((good, reason, message), &before.conditions);
        let status = PolicyStatus { observed_generation: Some(generation), conditions, ancestors };
        (status != before).then_some(status)
    }

    fn accepted(&self, rival: Option<&str>) -> ConditionState {
        match &self.acceptance {
            Acceptance::Accepted => {
                let also = rival.map(|rival| {
                    format!(
                        "; the install {rival} writes statuses under the same controller name: \
                         give it another --controller-name"
                    )
                });
                (
                    true,
                    ConditionReason::Accepted,
                    format!("the policy is accepted{}", also.unwrap_or_default()),
                )
            }
            Acceptance::Invalid(mistakes) => {
                let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
                (false, ConditionReason::Invalid, lines.join("\n"))
            }
            Acceptance::TargetNotFound(what) => (false, ConditionReason::TargetNotFound, what.clone()),
            Acceptance::Conflicted(group) => (
                false,
                ConditionReason::Conflicted,
                format!("a policy of {} has the same name, and that one is in force", group.name()),
            ),
        }
    }

    fn is_overridden(&self, gateways: &[ObjectName]) -> bool {
        let at = |gateway: &ObjectName| self.overridden.iter().any(|(known, _)| known == gateway);
        !gateways.is_empty() && gateways.iter().all(at)
    }

    /// Computes the `Enforced` condition at these Gateways.
    fn enforced(&self, gateways: &[ObjectName], context: StatusContext<'_>) -> ConditionState {
        let StatusContext { filters, strays, .. } = context;
        let unfiltered =
            gateways.iter().find(|gateway| !filters.contains(&gateway.to_string()) && !filters.contains("*"));
        let is_blind = |gateway: &&ObjectName| {
            [gateway.to_string(), "*".to_owned()].iter().any(|name| filters.contains(&without_bodies(name)))
        };
        let blind = gateways.iter().filter(|_| !self.needs_body.is_empty()).find(is_blind);
        match (&self.acceptance, self.enforced_generation) {
            (Acceptance::Conflicted(group), _) => (
                false,
                ConditionReason::Overridden,
                format!("by the policy {} of {}", self.object.name, group.name()),
            ),
            (Acceptance::TargetNotFound(_), _) => {
                (false, ConditionReason::TargetNotFound, "the target does not exist".to_owned())
            }
            (_, None) => {
                (false, ConditionReason::Invalid, "no valid version of this policy has been seen".to_owned())
            }
            _ if self.never.is_some() => {
                (false, ConditionReason::NeverMatches, self.never.clone().unwrap_or_default())
            }
            _ if self.is_overridden(gateways) => {
                let at = self.overridden.iter().filter(|(gateway, _)| gateways.contains(gateway));
                let by: BTreeSet<&str> = at.map(|(_, by)| by.as_str()).collect();
                let by: Vec<&str> = by.into_iter().collect();
                (false, ConditionReason::Overridden, format!("by {}, on every route", by.join("; ")))
            }
            _ if unfiltered.is_some() => {
                let gateway = unfiltered.map(ToString::to_string).unwrap_or_default();
                let mut message = format!("no filter of the Gateway {gateway} has asked for its plan");
                if !strays.is_empty() {
                    let strays: Vec<&str> = strays.iter().take(MAX_STRAYS).map(String::as_str).collect();
                    let strays = strays.join(", ");
                    message = format!("{message}; filters ask for Gateways that do not exist: {strays}");
                }
                (false, ConditionReason::NoFilter, message)
            }
            _ if blind.is_some() => {
                let gateway = blind.map(ToString::to_string).unwrap_or_default();
                let lines: Vec<_> = self.needs_body.iter().map(ToString::to_string).collect();
                let message = format!(
                    "a filter of the Gateway {gateway} does not read request bodies:\n{}",
                    lines.join("\n")
                );
                (false, ConditionReason::NoBodyAccess, message)
            }
            (_, Some(generation)) if generation != self.object.generation => (
                false,
                ConditionReason::Stale,
                format!("generation {generation} stays in force until the errors are corrected"),
            ),
            _ => {
                let told = std::iter::once("filters have the policy in their plan")
                    .chain(self.doubts.iter().take(MAX_DOUBTS).map(String::as_str));
                (true, ConditionReason::Enforced, told.collect::<Vec<_>>().join("; "))
            }
        }
    }
}

/// Whether the condition is true, its reason, and its message.
type ConditionState = (bool, ConditionReason, String);

fn reference(gateway: &ObjectName) -> AncestorReference {
    AncestorReference {
        group: "gateway.networking.k8s.io".to_owned(),
        kind: "Gateway".to_owned(),
        namespace: gateway.namespace.clone(),
        name: gateway.name.clone(),
        section_name: None,
    }
}

fn shortened(message: String) -> String {
    match message.char_indices().nth(MAX_TEXT - 4) {
        Some((end, _)) => format!("{}...", message.get(..end).unwrap_or_default()),
        None => message,
    }
}
