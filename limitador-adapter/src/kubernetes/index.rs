//! Computes the plans of the Gateways and the status of each policy from the cluster's objects. Pure: after a
//! change is applied, [`ClusterIndex::view`] returns the result.

use super::attach::{Attached, Surroundings, Targeted, attached, placement};
use super::conditions::{Acceptance, PolicyConditions};
use super::crd::Group;
use super::objects::{
    GatewayObject, HttpRoute, Labels, ListenerSetObject, ObjectName, PolicyObject, RouteKind, RouteName,
    SetName,
};
use super::overridden;
use crate::policies::collection::{CollectedPolicies, GatewayPlan, PolicyReport, ValidPolicy};
use crate::policies::read;
use policy::model::{Policy, TargetKind};
use policy::validation_error::ValidationError;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

/// The known objects of the cluster.
#[derive(Default)]
pub struct ClusterIndex {
    policies: BTreeMap<(ObjectName, Group), Known>,
    gateways: BTreeMap<ObjectName, GatewayObject>,
    routes: BTreeMap<RouteName, HttpRoute>,
    sets: BTreeMap<SetName, ListenerSetObject>,
    /// The controller of each GatewayClass.
    classes: BTreeMap<String, String>,
    /// `None` if namespaces cannot be read.
    namespaces: Option<BTreeMap<String, Labels>>,
}

/// A policy and its last valid version.
struct Known {
    object: PolicyObject,
    mistakes: Vec<ValidationError>,
    valid: Option<(i64, ValidPolicy)>,
}

/// A change in the cluster.
#[derive(Debug)]
pub enum Change {
    /// A policy was added or changed.
    Policy(PolicyObject),
    /// A policy was deleted.
    NoPolicy(Group, ObjectName),
    /// The complete list of a group's policies.
    Policies(Group, Vec<PolicyObject>),
    /// A Gateway was added, changed or deleted.
    Gateway(ObjectName, Option<GatewayObject>),
    /// The complete list of Gateways.
    Gateways(BTreeMap<ObjectName, GatewayObject>),
    /// An HTTPRoute was added, changed or deleted.
    Route(ObjectName, Option<HttpRoute>),
    /// The complete list of HTTPRoutes.
    Routes(BTreeMap<ObjectName, HttpRoute>),
    /// A GRPCRoute was added, changed or deleted.
    GrpcRoute(ObjectName, Option<HttpRoute>),
    /// The complete list of GRPCRoutes.
    GrpcRoutes(BTreeMap<ObjectName, HttpRoute>),
    /// A ListenerSet or XListenerSet was added, changed or deleted.
    ListenerSet(SetName, Option<ListenerSetObject>),
    /// The complete list of ListenerSets or XListenerSets.
    ListenerSets(bool, BTreeMap<SetName, ListenerSetObject>),
    /// A GatewayClass has this controller, or was deleted.
    Class(String, Option<String>),
    /// The complete list of GatewayClasses with their controllers.
    Classes(BTreeMap<String, String>),
    /// A namespace has these labels, or was deleted.
    Namespace(String, Option<Labels>),
    /// The complete list of namespaces. `None` if they cannot be read.
    Namespaces(Option<BTreeMap<String, Labels>>),
}

/// The result of evaluating all objects.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The policies to enforce.
    pub collected: CollectedPolicies,
    /// The statuses to write.
    pub statuses: Vec<PolicyConditions>,
    /// All Gateways, as NAMESPACE/NAME.
    pub gateways: BTreeSet<String>,
}

impl ClusterIndex {
    /// Applies a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Policy(object) => self.write(object),
            Change::NoPolicy(group, name) => drop(self.policies.remove(&(name, group))),
            Change::Policies(group, all) => {
                let there: Vec<_> = all.iter().map(|object| object.name.clone()).collect();
                self.policies.retain(|(name, of), _| *of != group || there.contains(name));
                all.into_iter().for_each(|object| self.write(object));
            }
            Change::Gateway(name, gateway) => put(&mut self.gateways, name, gateway),
            Change::Gateways(all) => self.gateways = all,
            Change::Route(name, route) => {
                put(&mut self.routes, RouteName { name, kind: RouteKind::Http }, route);
            }
            Change::Routes(all) => self.replace_routes(RouteKind::Http, all),
            Change::GrpcRoute(name, route) => {
                put(&mut self.routes, RouteName { name, kind: RouteKind::Grpc }, route);
            }
            Change::GrpcRoutes(all) => self.replace_routes(RouteKind::Grpc, all),
            Change::ListenerSet(name, set) => put(&mut self.sets, name, set),
            Change::ListenerSets(are_experimental, all) => {
                self.sets.retain(|name, _| name.is_experimental != are_experimental);
                self.sets.extend(all);
            }
            Change::Class(name, controller) => put(&mut self.classes, name, controller),
            Change::Classes(all) => self.classes = all,
            Change::Namespace(name, labels) => put(self.namespaces.get_or_insert_default(), name, labels),
            Change::Namespaces(all) => self.namespaces = all,
        }
    }

    fn replace_routes(&mut self, kind: RouteKind, all: BTreeMap<ObjectName, HttpRoute>) {
        self.routes.retain(|name, _| name.kind != kind);
        self.routes.extend(all.into_iter().map(|(name, route)| (RouteName { name, kind }, route)));
    }

    fn write(&mut self, object: PolicyObject) {
        let key = (object.name.clone(), object.group);
        let earlier = self.policies.remove(&key).filter(|known| known.object.uid == object.uid);
        if let Some(known) = earlier {
            if known.object.document == object.document {
                // Deletion changes the generation but not the spec.
                let is_valid = known.mistakes.is_empty();
                let generation = object.generation;
                let valid = known.valid.map(|(of, valid)| (if is_valid { generation } else { of }, valid));
                self.policies.insert(key, Known { object, valid, mistakes: known.mistakes });
                return;
            }
            let mut now = Known::read(object);
            now.valid = now.valid.or(known.valid);
            self.policies.insert(key, now);
        } else {
            self.policies.insert(key, Known::read(object));
        }
    }

    /// Evaluates everything that is known.
    pub fn view(&self) -> View {
        let mut view = View::default();
        let mut targets = Targets::default();
        let in_force: Vec<_> = self.in_force().collect();
        for (place, (_, valid)) in in_force.iter().enumerate() {
            targets.add(place, &valid.policy);
            view.collected.policies.push((*valid).clone());
        }
        let gateways: BTreeMap<&ObjectName, GatewayObject> = self
            .gateways
            .iter()
            .map(|(name, gateway)| {
                (name, gateway.with_sets(name, self.sets.iter(), self.namespaces.as_ref()))
            })
            .collect();
        let attached: BTreeMap<&ObjectName, Vec<Attached<'_>>> = gateways
            .iter()
            .map(|(name, gateway)| (*name, attached(name, gateway, self.around(gateway), &self.routes)))
            .collect();
        let mut plans = HashMap::new();
        for (name, routes) in &attached {
            if let Some(gateway) = gateways.get(name) {
                let plan = targets.plan(name, gateway, self.around(gateway), routes);
                plans.insert(name.to_string(), plan);
            }
        }
        let overridden = overridden::find(&view.collected.policies, &plans);
        view.collected.plans = Some(plans);
        view.statuses = self.policies.values().map(|known| self.conditions(known, &attached)).collect();
        for conditions in &mut view.statuses {
            conditions.overridden = overridden.of(conditions);
        }
        view.gateways = self.gateways.keys().map(ToString::to_string).collect();
        view.collected.entries = self.policies.values().map(|known| self.entry(known)).collect();
        view
    }

    fn around(&self, gateway: &GatewayObject) -> Surroundings<'_> {
        let controller = self.classes.get(&gateway.class).map(String::as_str);
        Surroundings { controller, namespaces: self.namespaces.as_ref() }
    }

    /// The policies in force, by name.
    fn in_force(&self) -> impl Iterator<Item = (&Known, &ValidPolicy)> {
        let own = |known: &&Known| self.conflict(known).is_none();
        self.policies.values().filter(own).filter_map(|known| Some((known, &known.valid.as_ref()?.1)))
    }

    /// Returns the policy of another group with the same name. Limits are identified by name, so only one of
    /// the two can be in force.
    fn conflict(&self, known: &Known) -> Option<Group> {
        let other = (known.object.name.clone(), Group::Weir);
        (known.object.group != Group::Weir && self.policies.contains_key(&other)).then_some(Group::Weir)
    }

    fn entry(&self, known: &Known) -> PolicyReport {
        let PolicyObject { group, name, .. } = &known.object;
        let mut mistakes = known.mistakes.clone();
        if let Some(other) = self.conflict(known) {
            let message = format!("a policy of {} has the same name, and that one is in force", other.name());
            mistakes.push(ValidationError { path: "metadata.name".to_owned(), message });
        }
        let in_force = known.valid.is_some() && self.conflict(known).is_none();
        let file = PathBuf::from(format!("tokenratelimitpolicies.{}/{name}", group.name()));
        let policy = Some(name.to_string().into());
        let warnings = known.valid.as_ref().map(|(_, valid)| valid.policy.warnings()).unwrap_or_default();
        PolicyReport { policy, file, document: None, in_force, mistakes, warnings }
    }

    fn conditions(
        &self,
        known: &Known,
        attached: &BTreeMap<&ObjectName, Vec<Attached<'_>>>,
    ) -> PolicyConditions {
        let mut conditions = PolicyConditions::new(&known.object);
        conditions.enforced_generation = known.valid.as_ref().map(|(generation, _)| *generation);
        if let Some(other) = self.conflict(known) {
            conditions.acceptance = Acceptance::Conflicted(other);
            conditions.enforced_generation = None;
            return conditions;
        }
        if !known.mistakes.is_empty() {
            conditions.acceptance = Acceptance::Invalid(known.mistakes.clone());
        }
        let Some((_, valid)) = &known.valid else { return conditions };
        conditions.needs_body = valid.policy.needs_body.clone();
        let mut never = Vec::new();
        for target in valid.policy.targets() {
            let name = ObjectName { namespace: valid.policy.namespace.clone(), name: target.name.clone() };
            let section = target.section.as_deref();
            match route_kind(target.kind) {
                None => self.at_gateway(&mut conditions, name, section, attached),
                Some(kind) => self.at_route(&mut conditions, &RouteName { name, kind }, section, attached),
            }
            never.push(conditions.never.take());
        }
        // A policy takes effect if requests can reach at least one of its targets.
        conditions.never = never.into_iter().collect::<Option<Vec<String>>>().map(|why| why.join("; "));
        conditions.gateways.sort();
        conditions.gateways.dedup();
        conditions
    }

    fn at_gateway(
        &self,
        conditions: &mut PolicyConditions,
        name: ObjectName,
        section: Option<&str>,
        attached: &BTreeMap<&ObjectName, Vec<Attached<'_>>>,
    ) {
        let Some(gateway) = self.gateways.get(&name) else {
            return conditions.not_found(format!("there is no Gateway {name}"));
        };
        if let Some(section) =
            section.filter(|section| !gateway.http_listeners().any(|listener| listener.name == *section))
        {
            return conditions.not_found(format!("the Gateway {name} has no listener `{section}` for HTTP"));
        }
        if attached.get(&name).is_none_or(Vec::is_empty) {
            conditions.never = Some(format!("no HTTPRoute is attached to the Gateway {name}"));
        }
        conditions.gateways.push(name);
    }

    fn at_route(
        &self,
        conditions: &mut PolicyConditions,
        name: &RouteName,
        section: Option<&str>,
        attached: &BTreeMap<&ObjectName, Vec<Attached<'_>>>,
    ) {
        let Some(route) = self.routes.get(name) else {
            return conditions.not_found(format!("there is no {name}"));
        };
        let rules: Vec<_> =
            route.rules.iter().filter(|rule| section.is_none_or(|section| rule.name == section)).collect();
        if let (Some(section), true) = (section, rules.is_empty()) {
            return conditions.not_found(format!("the {name} has no rule `{section}`"));
        }
        let is_at = |(gateway, routes): (&&ObjectName, &Vec<Attached<'_>>)| {
            routes.iter().any(|at| at.name == name).then(|| (*gateway).clone())
        };
        let gateways: Vec<ObjectName> = attached.iter().filter_map(is_at).collect();
        let doubts = rules.iter().flat_map(|rule| &rule.doubts);
        conditions.doubts.extend(doubts.map(|why| format!("a match of the {name} is in doubt: {why}")));
        conditions.never = gateways.is_empty().then(|| {
            format!(
                "the {name} is not attached to a Gateway, or has no hostname in common with its listeners"
            )
        });
        conditions.gateways.extend(gateways);
    }
}

/// Returns the kind of route, or `None` for a Gateway.
fn route_kind(kind: TargetKind) -> Option<RouteKind> {
    match kind {
        TargetKind::Gateway => None,
        TargetKind::HttpRoute => Some(RouteKind::Http),
        TargetKind::GrpcRoute => Some(RouteKind::Grpc),
    }
}

impl Known {
    fn read(object: PolicyObject) -> Self {
        match read::policy_in_cluster(&object.document) {
            Ok(policy) => {
                let valid = ValidPolicy {
                    name: object.name.to_string().into(),
                    document: 1,
                    policy: Arc::new(policy),
                    json: object.document.to_string().into_bytes().into(),
                };
                Self { valid: Some((object.generation, valid)), object, mistakes: Vec::new() }
            }
            Err(mistakes) => Self { object, mistakes, valid: None },
        }
    }
}

fn put<K: Ord, T>(known: &mut BTreeMap<K, T>, name: K, value: Option<T>) {
    match value {
        Some(value) => drop(known.insert(name, value)),
        None => drop(known.remove(&name)),
    }
}

/// The policies in force by target. Each policy is identified by its position among all policies in force.
#[derive(Default)]
struct Targets {
    gateways: BTreeMap<ObjectName, Sections>,
    routes: BTreeMap<RouteName, Sections>,
}

type Sections = Vec<(usize, Option<String>)>;

impl Targets {
    fn add(&mut self, place: usize, policy: &Policy) {
        for target in policy.targets() {
            let name = ObjectName { namespace: policy.namespace.clone(), name: target.name.clone() };
            let targeted = match route_kind(target.kind) {
                None => self.gateways.entry(name).or_default(),
                Some(kind) => self.routes.entry(RouteName { name, kind }).or_default(),
            };
            targeted.push((place, target.section.clone()));
        }
    }

    /// Creates the plan of a Gateway. Positions are converted, because the plan identifies policies by their
    /// positions in the plan.
    fn plan(
        &self,
        name: &ObjectName,
        gateway: &GatewayObject,
        around: Surroundings<'_>,
        routes: &[Attached<'_>],
    ) -> GatewayPlan {
        let own = self.gateways.get(name);
        let of_routes: BTreeMap<&RouteName, &Sections> = routes
            .iter()
            .filter_map(|attached| Some((attached.name, self.routes.get(attached.name)?)))
            .collect();
        let all = own.into_iter().chain(of_routes.values().copied()).flatten();
        let mut policies: Vec<usize> = all.map(|(place, _)| *place).collect();
        policies.sort_unstable();
        policies.dedup();
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
        let placement = placement(gateway, &own, routes, &of_routes, around.regex_order());
        GatewayPlan { policies, placement, hosts: gateway.hosts() }
    }
}
