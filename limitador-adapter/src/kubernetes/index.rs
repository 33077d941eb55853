//! The cluster's objects → the plans of its Gateways, and what is told about each policy. Pure: a change comes in, the
//! next [`Index::view`] shows what follows.

use super::attach::{Attached, Targeted, attached, placement};
use super::conditions::{Acceptance, Verdict};
use super::crd::Group;
use super::objects::{Gateway, Name, Route, Written};
use super::overridden;
use crate::policies::collection::{Collected, Entry, Good, Planned};
use policy::mistake::Mistake;
use policy::model::{Policy, TargetKind};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that is known of the cluster.
#[derive(Default)]
pub struct Index {
    policies: BTreeMap<(Name, Group), Known>,
    gateways: BTreeMap<Name, Gateway>,
    routes: BTreeMap<Name, Route>,
}

/// A policy, and how its last version that could be used was read.
struct Known {
    written: Written,
    mistakes: Vec<Mistake>,
    good: Option<(i64, Good)>,
}

/// Something in the cluster has changed.
#[derive(Debug)]
pub enum Change {
    /// A policy is new or another.
    Policy(Written),
    /// A policy is gone.
    NoPolicy(Group, Name),
    /// These, and no others, are the policies of that group.
    Policies(Group, Vec<Written>),
    /// A Gateway is new, another, or gone.
    Gateway(Name, Option<Gateway>),
    /// These, and no others, are the Gateways.
    Gateways(BTreeMap<Name, Gateway>),
    /// A route is new, another, or gone.
    Route(Name, Option<Route>),
    /// These, and no others, are the routes.
    Routes(BTreeMap<Name, Route>),
}

/// What the cluster's objects come to.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What comes into force.
    pub collected: Collected,
    /// What is to be told.
    pub verdicts: Vec<Verdict>,
}

impl Index {
    /// Takes a change in.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Policy(written) => self.write(written),
            Change::NoPolicy(group, name) => drop(self.policies.remove(&(name, group))),
            Change::Policies(group, all) => {
                let there: Vec<_> = all.iter().map(|written| written.name.clone()).collect();
                self.policies.retain(|(name, of), _| *of != group || there.contains(name));
                all.into_iter().for_each(|written| self.write(written));
            }
            Change::Gateway(name, gateway) => put(&mut self.gateways, name, gateway),
            Change::Gateways(all) => self.gateways = all,
            Change::Route(name, route) => put(&mut self.routes, name, route),
            Change::Routes(all) => self.routes = all,
        }
    }

    fn write(&mut self, written: Written) {
        let key = (written.name.clone(), written.group);
        let earlier = self.policies.remove(&key).filter(|known| known.written.uid == written.uid);
        if let Some(known) = earlier {
            if known.written.document == written.document {
                self.policies.insert(key, Known { written, ..known });
                return;
            }
            let mut now = Known::read(written);
            now.good = now.good.or(known.good);
            self.policies.insert(key, now);
        } else {
            self.policies.insert(key, Known::read(written));
        }
    }

    /// What all of it comes to.
    pub fn view(&self) -> View {
        let mut view = View::default();
        let mut targets = Targets::default();
        let in_force: Vec<_> = self.in_force().collect();
        for (place, (_, good)) in in_force.iter().enumerate() {
            targets.add(place, &good.policy);
            view.collected.policies.push((*good).clone());
        }
        let attached: BTreeMap<&Name, Vec<Attached<'_>>> = self
            .gateways
            .iter()
            .map(|(name, gateway)| (name, attached(name, gateway, &self.routes)))
            .collect();
        let mut plans = HashMap::new();
        for (name, routes) in &attached {
            if let Some(gateway) = self.gateways.get(name) {
                plans.insert(name.to_string(), targets.plan(name, gateway, routes));
            }
        }
        let overridden = overridden::find(&view.collected.policies, &plans);
        view.collected.plans = Some(plans);
        view.verdicts = self.policies.values().map(|known| self.verdict(known, &attached)).collect();
        for verdict in &mut view.verdicts {
            verdict.overridden = overridden.of(verdict);
        }
        view.collected.entries = self.policies.values().map(|known| self.entry(known)).collect();
        view
    }

    /// The policies that are enforced, by name.
    fn in_force(&self) -> impl Iterator<Item = (&Known, &Good)> {
        let own = |known: &&Known| self.conflict(known).is_none();
        self.policies.values().filter(own).filter_map(|known| Some((known, &known.good.as_ref()?.1)))
    }

    /// The policy of another group that has this one's name: limits are told apart by it.
    fn conflict(&self, known: &Known) -> Option<Group> {
        let other = (known.written.name.clone(), Group::Weir);
        (known.written.group != Group::Weir && self.policies.contains_key(&other)).then_some(Group::Weir)
    }

    fn entry(&self, known: &Known) -> Entry {
        let Written { group, name, .. } = &known.written;
        let mut mistakes = known.mistakes.clone();
        if let Some(other) = self.conflict(known) {
            let message = format!("a policy of {} has the same name, and that one is in force", other.name());
            mistakes.push(Mistake { path: "metadata.name".to_owned(), message });
        }
        let in_force = known.good.is_some() && self.conflict(known).is_none();
        let file = PathBuf::from(format!("tokenratelimitpolicies.{}/{name}", group.name()));
        let policy = Some(name.to_string().into());
        let warnings = known.good.as_ref().map(|(_, good)| good.policy.warnings()).unwrap_or_default();
        Entry { policy, file, document: None, in_force, mistakes, warnings }
    }

    fn verdict(&self, known: &Known, attached: &BTreeMap<&Name, Vec<Attached<'_>>>) -> Verdict {
        let mut verdict = Verdict::new(&known.written);
        verdict.enforced_generation = known.good.as_ref().map(|(generation, _)| *generation);
        if let Some(other) = self.conflict(known) {
            verdict.acceptance = Acceptance::Conflicted(other);
            verdict.enforced_generation = None;
            return verdict;
        }
        if !known.mistakes.is_empty() {
            verdict.acceptance = Acceptance::Invalid(known.mistakes.clone());
        }
        let Some((_, good)) = &known.good else { return verdict };
        verdict.needs_body = good.policy.needs_body.clone();
        let target = &good.policy.target;
        let name = Name { namespace: good.policy.namespace.clone(), name: target.name.clone() };
        match target.kind {
            TargetKind::Gateway => self.at_gateway(&mut verdict, name, target.section.as_deref(), attached),
            TargetKind::HttpRoute => self.at_route(&mut verdict, &name, target.section.as_deref(), attached),
        }
        verdict
    }

    fn at_gateway(
        &self,
        verdict: &mut Verdict,
        name: Name,
        section: Option<&str>,
        attached: &BTreeMap<&Name, Vec<Attached<'_>>>,
    ) {
        let Some(gateway) = self.gateways.get(&name) else {
            return verdict.not_found(format!("there is no Gateway {name}"));
        };
        if let Some(section) =
            section.filter(|section| !gateway.listeners.iter().any(|listener| listener.name == *section))
        {
            return verdict.not_found(format!("the Gateway {name} has no listener `{section}` for HTTP"));
        }
        if attached.get(&name).is_none_or(Vec::is_empty) {
            verdict.never = Some(format!("no HTTPRoute is attached to the Gateway {name}"));
        }
        verdict.gateways = vec![name];
    }

    fn at_route(
        &self,
        verdict: &mut Verdict,
        name: &Name,
        section: Option<&str>,
        attached: &BTreeMap<&Name, Vec<Attached<'_>>>,
    ) {
        let Some(route) = self.routes.get(name) else {
            return verdict.not_found(format!("there is no HTTPRoute {name}"));
        };
        let rules: Vec<_> =
            route.rules.iter().filter(|rule| section.is_none() || rule.name.as_deref() == section).collect();
        if let (Some(section), true) = (section, rules.is_empty()) {
            return verdict.not_found(format!("the HTTPRoute {name} has no rule `{section}`"));
        }
        let is_at = |(gateway, routes): (&&Name, &Vec<Attached<'_>>)| {
            routes.iter().any(|at| at.name == name).then(|| (*gateway).clone())
        };
        verdict.gateways = attached.iter().filter_map(is_at).collect();
        verdict.never = match rules.iter().find_map(|rule| rule.left_out.first()) {
            Some(why) => Some(format!("a match of the HTTPRoute {name} is left out: {why}")),
            None if verdict.gateways.is_empty() => Some(format!(
                "the HTTPRoute {name} is attached to no Gateway, or has no hostname of its listeners"
            )),
            None => None,
        };
    }
}

impl Known {
    fn read(written: Written) -> Self {
        match Policy::read_in_cluster(&written.document) {
            Ok(policy) => {
                let good = Good {
                    name: written.name.to_string().into(),
                    document: 1,
                    policy: Arc::new(policy),
                    json: written.document.to_string().into_bytes().into(),
                };
                Self { good: Some((written.generation, good)), written, mistakes: Vec::new() }
            }
            Err(mistakes) => Self { written, mistakes, good: None },
        }
    }
}

fn put<T>(known: &mut BTreeMap<Name, T>, name: Name, value: Option<T>) {
    match value {
        Some(value) => drop(known.insert(name, value)),
        None => drop(known.remove(&name)),
    }
}

/// The policies in force by what they target, as places among all of them.
#[derive(Default)]
struct Targets {
    gateways: BTreeMap<Name, Sections>,
    routes: BTreeMap<Name, Sections>,
}

type Sections = Vec<(usize, Option<String>)>;

impl Targets {
    fn add(&mut self, place: usize, policy: &Policy) {
        let name = Name { namespace: policy.namespace.clone(), name: policy.target.name.clone() };
        let targets = match policy.target.kind {
            TargetKind::Gateway => &mut self.gateways,
            TargetKind::HttpRoute => &mut self.routes,
        };
        targets.entry(name).or_default().push((place, policy.target.section.clone()));
    }

    /// The plan of a Gateway names policies by their places in that plan.
    fn plan(&self, name: &Name, gateway: &Gateway, routes: &[Attached<'_>]) -> Planned {
        let own = self.gateways.get(name);
        let of_routes: BTreeMap<&Name, &Sections> = routes
            .iter()
            .filter_map(|attached| Some((attached.name, self.routes.get(attached.name)?)))
            .collect();
        let all = own.into_iter().chain(of_routes.values().copied()).flatten();
        let mut policies: Vec<usize> = all.map(|(place, _)| *place).collect();
        policies.sort_unstable();
        let targeted = |sections: &Sections| {
            let mut targeted = Targeted::default();
            for (place, section) in sections {
                let place = policies.binary_search(place).ok().and_then(|place| u32::try_from(place).ok());
                match section {
                    None => targeted.whole.extend(place),
                    Some(section) => targeted.sections.entry(section.clone()).or_default().extend(place),
                }
            }
            targeted
        };
        let own = own.map(targeted).unwrap_or_default();
        let of_routes =
            of_routes.into_iter().map(|(name, sections)| (name.clone(), targeted(sections))).collect();
        let placement = placement(gateway, &own, routes, &of_routes);
        Planned { policies, placement }
    }
}
