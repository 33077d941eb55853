//! The policies in force: plans by gateway for filters, and limits by name for the limiter.

use crate::ledger::Key;
use crate::metrics::AdapterMetrics;
use crate::policies::collection::{CollectedPolicies, GatewayPlan, PolicyReport, ValidPolicy};
use crate::policies::older;
use metrics::Counter;
use policy::model::{DEFAULT_TTL, OnLapse, Target, TargetKind, Threshold, Ttl, Unit, Window};
use prost::Message;
use protocol::wire::weir::v1::{GetPlanResponse, Placement};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// The policies in force.
#[derive(Default)]
pub struct PolicySnapshot {
    policies: Vec<ValidPolicy>,
    limits: HashMap<Arc<str>, KnownLimit>,
    /// The limits with a `counterKey`, by their counters' name.
    counted: HashMap<Arc<str>, Arc<str>>,
    plans: Option<HashMap<String, GatewayPlan>>,
    wanted: WantedReports,
    /// The reports about all sources, including errors.
    pub entries: Vec<PolicyReport>,
}

/// What filters send in addition to their calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WantedReports {
    /// Usage records of all exchanges.
    pub records: bool,
    /// The traces of requests, and usage records of sampled ones.
    pub traces: bool,
}

/// The abilities of a filter.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlanReader {
    /// The filter does not read request bodies.
    pub headers_alone: bool,
    /// The filter knows that rules of a placement may be in doubt.
    pub knows_doubt: bool,
}

impl PlanReader {
    /// Returns the abilities of a filter of this version.
    pub fn current(headers_alone: bool) -> Self {
        Self { headers_alone, knows_doubt: true }
    }
}

/// A limit that descriptors may name.
pub struct KnownLimit {
    /// "NAMESPACE/POLICY/LIMIT".
    pub key: Arc<str>,
    /// The name of its counters: the same, or "NAMESPACE//COUNTERKEY".
    pub counted_as: Arc<str>,
    /// "NAMESPACE/POLICY".
    pub policy: Arc<str>,
    /// Its name in the policy.
    pub name: String,
    /// The default lifetime of a hold.
    pub ttl: Duration,
    /// What a hold costs that lapses.
    pub on_lapse: OnLapse,
    /// Whether the limit never refuses (`boundary: Soft`).
    pub is_soft: bool,
    /// Whether workers may have leases of its counters.
    pub leases: bool,
    /// `warnAt`. `None` if the limit has none.
    pub warn_at: Option<Arc<[Threshold]>>,
    /// Has at least one element.
    pub rates: Vec<KnownRate>,
    /// Counts refusals.
    pub refused: Counter,
    /// Counts calls that had no room but were not refused.
    pub excused: Counter,
    /// Counts calls in its overflow bucket.
    pub overflowed: Counter,
}

/// A rate that descriptors may name.
pub struct KnownRate {
    pub unit: Unit,
    pub window: Window,
    /// The descriptor entry: `window` or `period`, and its value. `None` for `concurrency`.
    pub window_entry: Option<(&'static str, String)>,
    /// The maximum. `None` if each call carries it (`limitFrom`).
    pub max: Option<u64>,
    /// Counts the charges.
    pub charged: Counter,
}

impl PolicySnapshot {
    /// Puts collected policies into force.
    pub fn new(collected: CollectedPolicies, metrics: &AdapterMetrics) -> Self {
        let CollectedPolicies { policies, entries, plans } = collected;
        let limits = policies.iter().flat_map(|valid| limits(valid, metrics));
        let limits: HashMap<_, _> = limits.map(|limit| (Arc::clone(&limit.key), limit)).collect();
        let mut named: Vec<&KnownLimit> =
            limits.values().filter(|limit| limit.key != limit.counted_as).collect();
        // If several policies share a counter, the first one by name is shown.
        named.sort_by(|a, b| b.key.cmp(&a.key));
        let counted = named.iter().map(|limit| (Arc::clone(&limit.counted_as), Arc::clone(&limit.key)));
        Self {
            policies,
            counted: counted.collect(),
            limits,
            entries,
            plans,
            wanted: WantedReports::default(),
        }
    }

    /// Sets what filters send in addition to their calls.
    pub fn wanting(self, wanted: WantedReports) -> Self {
        Self { wanted, ..self }
    }

    /// Returns the limit with the name "NAMESPACE/POLICY/LIMIT".
    pub fn limit(&self, key: &str) -> Option<&KnownLimit> {
        self.limits.get(key)
    }

    /// Returns the policy, as "NAMESPACE/POLICY", and the limit that a bucket belongs to. If the bucket
    /// belongs to no limit in force, returns its `counterKey` instead of the limit.
    pub fn names_of<'a>(&'a self, key: &'a Key) -> (&'a str, &'a str) {
        self.names_of_counters(&key.limit)
    }

    /// Like [`Self::names_of`], by [`Key::limit`].
    pub fn names_of_counters<'a>(&'a self, counted_as: &'a str) -> (&'a str, &'a str) {
        match self.limit_counted_as(counted_as) {
            Some(limit) => (&*limit.policy, limit.name.as_str()),
            None => counted_as.rsplit_once('/').unwrap_or(("", counted_as)),
        }
    }

    /// Returns the limit in force that a bucket belongs to.
    pub fn limit_of(&self, key: &Key) -> Option<&KnownLimit> {
        self.limit_counted_as(&key.limit)
    }

    fn limit_counted_as(&self, counted_as: &str) -> Option<&KnownLimit> {
        self.limit(self.counted.get(counted_as).map_or(counted_as, |key| key))
            .filter(|limit| &*limit.counted_as == counted_as)
    }

    /// Returns the limits in force, in no particular order.
    pub fn limits(&self) -> impl Iterator<Item = &KnownLimit> {
        self.limits.values()
    }

    /// Returns the counter expressions of each limit, by "NAMESPACE/POLICY/LIMIT".
    pub fn counters_by_limit(&self) -> HashMap<String, Vec<&str>> {
        let limits = self.policies.iter().flat_map(|valid| {
            valid.policy.limits.iter().map(move |limit| (format!("{}/{}", valid.name, limit.name), limit))
        });
        let counters = limits.map(|(name, limit)| {
            (name, limit.counters.iter().map(|counter| counter.source()).collect::<Vec<_>>())
        });
        counters.collect()
    }

    /// Returns the counter expressions of a limit, sorted.
    pub fn counters(&self, key: &str) -> Vec<&str> {
        let limits = self
            .policies
            .iter()
            .flat_map(|valid| valid.policy.limits.iter().map(move |limit| (valid, limit)));
        let limit = limits.into_iter().find(|(valid, limit)| {
            key.strip_prefix(&*valid.name).and_then(|rest| rest.strip_prefix('/'))
                == Some(limit.name.as_str())
        });
        let counters = limit.iter().flat_map(|(_, limit)| &limit.counters);
        let mut counters: Vec<_> = counters.map(|counter| counter.source()).collect();
        counters.sort_unstable();
        counters.dedup();
        counters
    }

    /// Returns the maximum of a bucket, if its rate is in force and has a fixed maximum.
    pub fn maximum(&self, key: &Key) -> Option<u64> {
        self.rate(key)?.max
    }

    /// Returns whether a bucket's rate is in force.
    pub fn has(&self, key: &Key) -> bool {
        self.rate(key).is_some()
    }

    fn rate(&self, key: &Key) -> Option<&KnownRate> {
        let rates = &self.limit_of(key)?.rates;
        rates.iter().find(|rate| rate.unit == key.unit && rate.window == key.window)
    }

    /// Returns the number of policies in force.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Returns the number of limits with counters. Each limit needs a share of the memory.
    pub fn counting_limits(&self) -> usize {
        let limits = self.policies.iter().flat_map(|valid| &valid.policy.limits);
        limits.filter(|limit| !limit.counters.is_empty()).count()
    }

    /// Returns whether no policy is in force.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Returns the number of policies and files with errors.
    pub fn invalid(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.mistakes.is_empty()).count()
    }

    /// Returns the version of a gateway's plan. Identical policies have the same version, except that the version
    /// also tells whether usage is recorded and spans are exported.
    pub fn version(&self, gateway: &GatewaySelector<'_>, reader: PlanReader) -> String {
        self.version_of(&self.planned(gateway, reader))
    }

    fn version_of(&self, (policies, placement): &(Vec<&ValidPolicy>, Option<Placement>)) -> String {
        let mut hasher = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        policies.iter().for_each(|policy| part(&policy.json));
        placement.iter().for_each(|placement| part(&placement.encode_to_vec()));
        // Without records and spans, the version is the same as that of adapters that have none.
        if self.wanted.records {
            part(b"records usage");
        }
        if self.wanted.traces {
            part(b"traces");
        }
        let digest: [u8; 32] = hasher.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Returns the plan of a gateway. In a cluster, a filter that reads only headers does not receive
    /// policies that need bodies, because it would have to reject the whole plan. The statuses of these
    /// policies report it.
    pub fn plan(&self, gateway: &GatewaySelector<'_>, reader: PlanReader) -> GetPlanResponse {
        let planned = self.planned(gateway, reader);
        let version = self.version_of(&planned);
        let policies = planned.0.iter().map(|policy| policy.json.to_vec()).collect();
        let WantedReports { records: records_usage, traces } = self.wanted;
        GetPlanResponse { version, policies, placement: planned.1, records_usage, traces }
    }

    fn planned(
        &self,
        gateway: &GatewaySelector<'_>,
        reader: PlanReader,
    ) -> (Vec<&ValidPolicy>, Option<Placement>) {
        let Some(plans) = &self.plans else { return (self.of(gateway).collect(), None) };
        let (mut policies, mut placement): (Vec<&ValidPolicy>, _) = match gateway {
            GatewaySelector::Named { namespace, name } => {
                let GatewayPlan { policies, placement, .. } =
                    plans.get(&format!("{namespace}/{name}")).cloned().unwrap_or_default();
                (policies.iter().filter_map(|place| self.policies.get(*place)).collect(), placement)
            }
            GatewaySelector::Any => (self.policies.iter().collect(), together(plans)),
        };
        let stays = |valid: &&ValidPolicy| !reader.headers_alone || valid.policy.needs_body.is_empty();
        if !policies.iter().all(stays) {
            let mut left = 0;
            let places = policies.iter().map(|valid| stays(valid).then_some(left).inspect(|_| left += 1));
            let places: Vec<Option<u32>> = places.collect();
            let place = |at: u32| places.get(usize::try_from(at).ok()?).copied().flatten();
            renamed(&mut placement, place);
            policies.retain(stays);
        }
        if !reader.knows_doubt {
            placement = older::placement(placement);
        }
        (policies, Some(placement))
    }

    /// Returns every gateway that a policy names, as NAMESPACE/NAME.
    pub fn gateways(&self) -> BTreeSet<String> {
        let targets = self
            .policies
            .iter()
            .flat_map(|valid| valid.policy.targets().map(move |target| (&valid.policy.namespace, target)));
        let gateways = targets.filter(|(_, target)| target.kind == TargetKind::Gateway);
        gateways.map(|(namespace, target)| format!("{namespace}/{}", target.name)).collect()
    }

    fn of(&self, gateway: &GatewaySelector<'_>) -> impl Iterator<Item = &ValidPolicy> {
        self.policies.iter().filter(|valid| {
            let mut targets = valid.policy.targets();
            targets.any(|target| gateway.serves(&valid.policy.namespace, target))
        })
    }
}

/// Combines the Gateways' placements. Policies are named by their positions among all policies, and stay
/// limited to their Gateway's hosts.
fn together(plans: &HashMap<String, GatewayPlan>) -> Placement {
    let mut names: Vec<_> = plans.keys().collect();
    names.sort();
    let plans = names.into_iter().filter_map(|name| plans.get(name)).filter(|plan| !plan.policies.is_empty());
    let gateways = plans.map(|GatewayPlan { policies, placement, hosts }| {
        let mut placement = placement.clone();
        renamed(&mut placement, |place| {
            policies.get(usize::try_from(place).ok()?).and_then(|place| u32::try_from(*place).ok())
        });
        if placement.listeners.is_empty() {
            placement.listeners.clone_from(hosts);
        }
        let everywhere = std::mem::take(&mut placement.everywhere);
        placement.listeners.iter_mut().for_each(|listener| listener.policies.extend(&everywhere));
        placement
    });
    Placement { gateways: gateways.collect(), ..Placement::default() }
}

/// Renumbers the policies. Drops those for which `place` returns `None`.
fn renamed(placement: &mut Placement, place: impl Fn(u32) -> Option<u32> + Copy) {
    placement.gateways.iter_mut().for_each(|gateway| renamed(gateway, place));
    let of_listeners = placement.listeners.iter_mut().map(|listener| &mut listener.policies);
    let of_rules = placement.rules.iter_mut().map(|rule| &mut rule.policies);
    for places in std::iter::once(&mut placement.everywhere).chain(of_listeners).chain(of_rules) {
        *places = places.iter().filter_map(|at| place(*at)).collect();
    }
}

fn limits(valid: &ValidPolicy, metrics: &AdapterMetrics) -> Vec<KnownLimit> {
    let limits = valid.policy.limits.iter().map(|limit| KnownLimit {
        key: format!("{}/{}", valid.name, limit.name).into(),
        counted_as: match &limit.counter_key {
            // This cannot equal the name of another limit, because policy names are never empty.
            Some(key) => format!("{}//{key}", valid.policy.namespace).into(),
            None => format!("{}/{}", valid.name, limit.name).into(),
        },
        policy: Arc::clone(&valid.name),
        name: limit.name.clone(),
        ttl: match limit.ttl {
            Ttl::Fixed(ttl) => ttl,
            Ttl::From(_) => DEFAULT_TTL,
        },
        on_lapse: limit.on_lapse,
        leases: limit.leases,
        is_soft: limit.boundary.is_soft(),
        warn_at: (!limit.warn_at.is_empty()).then(|| Arc::clone(&limit.warn_at)),
        rates: limit
            .rates
            .iter()
            .map(|rate| KnownRate {
                unit: rate.unit,
                window: rate.window.clone(),
                window_entry: rate.window.entry(),
                max: rate.max.fixed(),
                charged: metrics.charged(&valid.name, &limit.name, rate.unit),
            })
            .inspect(|rate| {
                // Prometheus sees an increase only if the counter existed before.
                let thresholds = limit.warn_at.iter().filter(|_| rate.window != Window::Now);
                thresholds.for_each(|at| {
                    metrics.warned(&valid.name, &limit.name, rate.unit, *at).increment(0);
                });
            })
            .collect(),
        refused: metrics.refused(&valid.name, &limit.name),
        excused: metrics.excused(&valid.name, &limit.name),
        overflowed: metrics.overflowed(&valid.name, &limit.name),
    });
    limits.collect()
}

/// The gateway that a filter serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewaySelector<'a> {
    /// All policies apply.
    Any,
    /// The policies of one gateway apply.
    Named { namespace: &'a str, name: &'a str },
}

impl<'a> GatewaySelector<'a> {
    /// Parses "NAMESPACE/NAME" or "*". An empty text means "*".
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.is_empty() || text == "*" {
            return Some(Self::Any);
        }
        let (namespace, name) = text.split_once('/')?;
        let plain = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
        plain.then_some(Self::Named { namespace, name })
    }

    /// Returns whether this gateway receives a policy. Only the filter can see which route a request takes,
    /// so every gateway receives the policies of routes.
    fn serves(&self, policy_namespace: &str, target: &Target) -> bool {
        match self {
            Self::Named { namespace, name } if target.kind == TargetKind::Gateway => {
                *namespace == policy_namespace && *name == target.name
            }
            _ => true,
        }
    }
}
