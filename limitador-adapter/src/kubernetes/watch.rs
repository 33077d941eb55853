//! Follows the cluster: applies every change to the [`ClusterIndex`] and publishes the result.
//!
//! Nothing is published before all kinds have been listed once. While the API server is unreachable,
//! everything stays as it is.

use super::crd::Group;
use super::index::{Change, ClusterIndex, View};
use super::objects::{
    GatewayObject, HttpRoute, ListenerSetObject, ObjectName, PolicyObject, RouteKind, SetName,
};
use engine::backoff;
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use kube::core::ResourceExt;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Changes that arrive within this time are processed together.
const GATHERING: Duration = Duration::from_millis(10);
/// The first pause between attempts to reach the API server, in milliseconds.
const MIN_BACKOFF: u64 = 200;
const MAX_BACKOFF: u64 = 3_000;

/// The API server ends a watch after this time, and the next watch continues from there. If the server does
/// not end it, the connection is dead.
const WATCH_SECONDS: u32 = 15;

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WatchedKind {
    Policy(Group),
    Gateway,
    Route(RouteKind),
    /// Whether it is the experimental kind.
    ListenerSet(bool),
    Class,
    Namespace,
}

/// The kinds to watch. If Kuadrant itself is installed, it handles its own policies.
fn kinds(kuadrant: bool) -> Vec<WatchedKind> {
    let policies = kuadrant.then_some(WatchedKind::Policy(Group::Kuadrant));
    let others = [
        WatchedKind::Policy(Group::Weir),
        WatchedKind::Gateway,
        WatchedKind::Route(RouteKind::Http),
        WatchedKind::Route(RouteKind::Grpc),
        WatchedKind::ListenerSet(false),
        WatchedKind::ListenerSet(true),
        WatchedKind::Class,
        WatchedKind::Namespace,
    ];
    others.into_iter().chain(policies).collect()
}

impl WatchedKind {
    fn resource(self) -> ApiResource {
        let of = |group: &str, version, kind, plural| {
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
        };
        match self {
            Self::Policy(group) => {
                of(group.name(), "v1alpha1", "TokenRateLimitPolicy", "tokenratelimitpolicies")
            }
            Self::Gateway => of("gateway.networking.k8s.io", "v1", "Gateway", "gateways"),
            Self::Route(RouteKind::Http) => of("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::Route(RouteKind::Grpc) => of("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes"),
            Self::ListenerSet(false) => of("gateway.networking.k8s.io", "v1", "ListenerSet", "listenersets"),
            Self::ListenerSet(true) => {
                of("gateway.networking.x-k8s.io", "v1alpha1", "XListenerSet", "xlistenersets")
            }
            Self::Class => of("gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses"),
            Self::Namespace => of("", "v1", "Namespace", "namespaces"),
        }
    }

    /// Returns the change for the complete list of objects.
    fn all(self, objects: &[DynamicObject]) -> Change {
        match self {
            Self::Policy(group) => Change::Policies(
                group,
                objects.iter().map(|object| PolicyObject::new(group, object)).collect(),
            ),
            Self::Gateway => Change::Gateways(
                objects.iter().map(|object| (ObjectName::of(object), GatewayObject::new(object))).collect(),
            ),
            Self::Route(RouteKind::Http) => Change::Routes(
                objects.iter().map(|object| (ObjectName::of(object), HttpRoute::new(object))).collect(),
            ),
            Self::Route(RouteKind::Grpc) => Change::GrpcRoutes(
                objects.iter().map(|object| (ObjectName::of(object), HttpRoute::grpc(object))).collect(),
            ),
            Self::ListenerSet(are_experimental) => {
                let set = |object| {
                    let name = set_name(object, are_experimental);
                    let set = ListenerSetObject::new(&name, object);
                    (name, set)
                };
                Change::ListenerSets(are_experimental, objects.iter().map(set).collect())
            }
            Self::Class => Change::Classes(
                objects.iter().map(|object| (object.name_any(), controller(object))).collect(),
            ),
            Self::Namespace => Change::Namespaces(Some(
                objects.iter().map(|object| (object.name_any(), object.labels().clone())).collect(),
            )),
        }
    }

    /// Returns the change for a kind that cannot be read, or `None` if the kind is required. Kinds are
    /// optional if they only reduce doubts about routes.
    fn none(self) -> Option<Change> {
        match self {
            Self::Class => Some(Change::Classes(BTreeMap::new())),
            Self::Namespace => Some(Change::Namespaces(None)),
            Self::Route(RouteKind::Grpc) => Some(Change::GrpcRoutes(BTreeMap::new())),
            Self::ListenerSet(are_experimental) => {
                Some(Change::ListenerSets(are_experimental, BTreeMap::new()))
            }
            Self::Policy(_) | Self::Gateway | Self::Route(RouteKind::Http) => None,
        }
    }

    /// Returns the change for one object that was added, changed or deleted.
    fn one(self, object: &DynamicObject, there: bool) -> Change {
        let name = ObjectName::of(object);
        match self {
            Self::Policy(group) if there => Change::Policy(PolicyObject::new(group, object)),
            Self::Policy(group) => Change::NoPolicy(group, name),
            Self::Gateway => Change::Gateway(name, there.then(|| GatewayObject::new(object))),
            Self::Route(RouteKind::Http) => Change::Route(name, there.then(|| HttpRoute::new(object))),
            Self::Route(RouteKind::Grpc) => Change::GrpcRoute(name, there.then(|| HttpRoute::grpc(object))),
            Self::ListenerSet(is_experimental) => {
                let name = set_name(object, is_experimental);
                let set = there.then(|| ListenerSetObject::new(&name, object));
                Change::ListenerSet(name, set)
            }
            Self::Class => Change::Class(name.name, there.then(|| controller(object))),
            Self::Namespace => Change::Namespace(name.name, there.then(|| object.labels().clone())),
        }
    }
}

type WatchEvent = (WatchedKind, Result<Event<DynamicObject>, watcher::Error>);

/// Follows the cluster. Never returns.
pub async fn follow(client: Client, kuadrant: bool, mut publish: impl FnMut(View)) {
    let kinds = kinds(kuadrant);
    let mut streams: SelectAll<BoxStream<'static, WatchEvent>> = kinds
        .iter()
        .copied()
        .map(|kind| {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
            watcher(api, watcher::Config::default().timeout(WATCH_SECONDS))
                .backoff(Pauses::default())
                .map(move |heard| (kind, heard))
                .boxed()
        })
        .collect();
    let mut following = Following::default();
    while let Some(heard) = streams.next().await {
        let mut changed = following.hear(heard);
        let gathered = tokio::time::Instant::now() + GATHERING;
        while let Ok(Some(heard)) = tokio::time::timeout_at(gathered, streams.next()).await {
            changed |= following.hear(heard);
        }
        // Only what has already arrived is processed now, so that a flood of changes does not delay the first
        // one.
        while let Some(Some(heard)) = streams.next().now_or_never() {
            changed |= following.hear(heard);
            if tokio::time::Instant::now() > gathered + 10 * GATHERING {
                break;
            }
        }
        if changed && following.listed.len() == kinds.len() {
            publish(following.index.view());
        }
    }
}

#[derive(Default)]
struct Following {
    index: ClusterIndex,
    /// The lists that are still being received.
    lists: Vec<(WatchedKind, Vec<DynamicObject>)>,
    listed: BTreeSet<WatchedKind>,
}

impl Following {
    /// Handles an event. Returns true if it changes anything.
    fn hear(&mut self, (kind, heard): WatchEvent) -> bool {
        match heard {
            Ok(Event::Init) => {
                self.lists.retain(|(other, _)| *other != kind);
                self.lists.push((kind, Vec::new()));
                false
            }
            Ok(Event::InitApply(object)) => {
                self.lists
                    .iter_mut()
                    .filter(|(other, _)| *other == kind)
                    .for_each(|(_, list)| list.push(object.clone()));
                false
            }
            Ok(Event::InitDone) => {
                let list =
                    self.lists.iter().position(|(other, _)| *other == kind).map(|at| self.lists.remove(at).1);
                self.change(kind, kind.all(&list.unwrap_or_default()))
            }
            Ok(Event::Apply(object)) => self.change(kind, kind.one(&object, true)),
            Ok(Event::Delete(object)) => self.change(kind, kind.one(&object, false)),
            Err(error) if is_undefined(&error) => {
                // A cluster may not have Kuadrant's policies, or may not have Gateway API yet.
                let news = !self.listed.contains(&kind);
                news && self.change(kind, kind.all(&[]))
            }
            Err(error) if is_forbidden(&error) && !self.listed.contains(&kind) && kind.none().is_some() => {
                tracing::warn!(
                    kind = kind.resource().plural,
                    "the adapter may not read these; routes that depend on them count in doubt"
                );
                kind.none().is_some_and(|none| self.change(kind, none))
            }
            Err(error) => {
                tracing::warn!(kind = kind.resource().plural, %error, "the cluster cannot be watched; what is in force stays");
                false
            }
        }
    }

    fn change(&mut self, kind: WatchedKind, change: Change) -> bool {
        self.index.apply(change);
        self.listed.insert(kind);
        true
    }
}

/// Returns whether the API server does not know this kind.
fn is_undefined(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.code == 403,
        _ => false,
    }
}

fn set_name(object: &DynamicObject, is_experimental: bool) -> SetName {
    SetName { name: ObjectName::of(object), is_experimental }
}

fn controller(class: &DynamicObject) -> String {
    let name = class.data.pointer("/spec/controllerName").and_then(Value::as_str);
    name.unwrap_or_default().to_owned()
}

/// A backoff with jitter for watches.
struct Pauses(backoff::Backoff);

impl Default for Pauses {
    fn default() -> Self {
        let pauses = backoff::Backoff::between(MIN_BACKOFF, MAX_BACKOFF);
        Self(pauses.with_jitter(uuid::Uuid::new_v4().as_u128()))
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(self.0.failed()))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.succeeded();
    }
}
