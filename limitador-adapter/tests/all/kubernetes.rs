//! Plans and statuses computed from a cluster's objects, without a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use limitador_adapter::kubernetes::conditions::{PolicyConditions, StatusContext};
use limitador_adapter::kubernetes::crd::Group;
use limitador_adapter::kubernetes::index::{Change, ClusterIndex};
use limitador_adapter::kubernetes::lease::{LeaseStep, decide};
use limitador_adapter::kubernetes::objects::{GatewayObject, HttpRoute, ObjectName, PolicyObject};
use limitador_adapter::kubernetes::rivals::{Rivals, Turn};
use limitador_adapter::kubernetes::status::PolicyStatus;
use limitador_adapter::metrics::AdapterMetrics;
use limitador_adapter::policies::snapshot::{GatewaySelector as Asked, PlanReader, PolicySnapshot};
use protocol::wire::weir::v1::{Placement, r#match::Path};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

pub fn object(name: &str, spec: Value) -> DynamicObject {
    let metadata = json!({ "name": name, "namespace": "default", "uid": name, "generation": 1 });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

pub fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

pub fn gateway(of: &str, listeners: Value) -> Change {
    Change::Gateway(name(of), Some(GatewayObject::new(&object(of, json!({ "listeners": listeners })))))
}

/// A route that the controller `one.example/controller` has accepted at all its parents.
pub fn route(of: &str, spec: Value) -> Change {
    let parents = spec["parentRefs"].as_array().cloned().unwrap_or_default();
    let statuses = parents.iter().map(|parent| status(parent, "one.example/controller", "True", 1)).collect();
    route_with(of, spec, statuses)
}

pub fn route_with(of: &str, spec: Value, statuses: Vec<Value>) -> Change {
    let mut route = object(of, spec);
    route.data["status"] = json!({ "parents": statuses });
    Change::Route(name(of), Some(HttpRoute::new(&route)))
}

/// A controller's status of a route at a parent, with the parent's defaults filled in.
pub fn status(parent: &Value, controller: &str, accepted: &str, generation: i64) -> Value {
    let mut parent = parent.clone();
    for (field, default) in
        [("group", "gateway.networking.k8s.io"), ("kind", "Gateway"), ("namespace", "default")]
    {
        parent.as_object_mut().unwrap().entry(field).or_insert(default.into());
    }
    let condition = json!({ "type": "Accepted", "status": accepted, "observedGeneration": generation });
    json!({ "parentRef": parent, "controllerName": controller, "conditions": [condition] })
}

pub fn policy(of: &str, target: Value) -> Change {
    let mut target = target;
    target["group"] = "gateway.networking.k8s.io".into();
    let limits = json!({ "all": { "rates": [{ "limit": 5, "window": "1h" }] } });
    Change::Policy(PolicyObject::new(
        Group::Weir,
        &object(of, json!({ "targetRef": target, "limits": limits })),
    ))
}

pub fn index(changes: Vec<Change>) -> ClusterIndex {
    let mut index = ClusterIndex::default();
    changes.into_iter().for_each(|change| index.apply(change));
    index
}

/// The plan of a gateway as lines of text.
pub fn plan(index: &ClusterIndex, gateway: &str) -> String {
    plan_for(index, gateway, false)
}

fn plan_for(index: &ClusterIndex, gateway: &str, headers_alone: bool) -> String {
    let in_force = PolicySnapshot::new(index.view().collected, &AdapterMetrics::new().unwrap());
    let answer = in_force.plan(&Asked::parse(gateway).unwrap(), PlanReader::current(headers_alone));
    let names: Vec<String> = answer
        .policies
        .iter()
        .map(|policy| {
            serde_json::from_slice::<Value>(policy).unwrap()["metadata"]["name"].as_str().unwrap().into()
        })
        .collect();
    told(&answer.placement.unwrap(), &names)
}

fn told(placement: &Placement, names: &[String]) -> String {
    let of = |places: &[u32]| {
        places.iter().map(|place| names[*place as usize].as_str()).collect::<Vec<_>>().join(" ")
    };
    let mut text = String::new();
    for gateway in &placement.gateways {
        write!(text, "of a gateway, {}", told(gateway, names)).unwrap();
    }
    if placement.gateways.is_empty() {
        writeln!(text, "everywhere: {}", of(&placement.everywhere)).unwrap();
    }
    for listener in &placement.listeners {
        writeln!(text, "at `{}` {:?}: {}", listener.hostname, listener.ports, of(&listener.policies))
            .unwrap();
    }
    for rule in &placement.rules {
        let paths: Vec<_> = rule
            .matches
            .iter()
            .map(|found| match &found.path {
                Some(Path::Exact(path)) => format!("={path}"),
                Some(Path::Prefix(path)) => format!("{path}*"),
                Some(Path::Regex(path)) => format!("~{path}"),
                None => "*".to_owned(),
            })
            .collect();
        let doubt = if rule.in_doubt { "in doubt " } else { "" };
        let paths = paths.join(" ");
        writeln!(text, "{doubt}{:?} {:?} {paths}: {}", rule.hostnames, rule.ports, of(&rule.policies))
            .unwrap();
    }
    text
}

fn status_of(conditions: &PolicyConditions, filters: &[&str], strays: &[&str]) -> Option<PolicyStatus> {
    let [filters, strays]: [BTreeSet<String>; 2] =
        [filters, strays].map(|names| names.iter().map(|&name| name.to_owned()).collect());
    let context = StatusContext {
        controller: "weir.dev/limitador-adapter",
        filters: &filters,
        strays: &strays,
        rival: None,
        ancestors_alone: false,
    };
    conditions.status(context, &Time(Timestamp::UNIX_EPOCH))
}

pub fn statuses(index: &ClusterIndex, filters: &[&str]) -> String {
    let mut text = String::new();
    for conditions in index.view().statuses {
        let status = status_of(&conditions, filters, &[]).unwrap();
        for condition in status.conditions {
            let (kind, reason, message) = (condition.type_, condition.reason, condition.message);
            writeln!(
                text,
                "{}: {kind}={} {reason}: {message}",
                conditions.object.name.name, condition.status
            )
            .unwrap();
        }
    }
    text
}

pub fn http() -> Value {
    json!([{ "name": "http", "protocol": "HTTP", "port": 80 }])
}

pub fn at(gateway: &str, path: &str) -> Value {
    json!({ "parentRefs": [{ "name": gateway }], "rules": [{ "matches": [{ "path": { "type": "PathPrefix", "value": path } }] }] })
}

#[test]
fn a_plan_holds_what_applies_at_its_gateway_and_the_routes_that_could_take_its_requests() {
    let index = index(vec![
        gateway("one", http()),
        gateway("two", http()),
        route("chat", at("one", "/chat")),
        route("other", at("one", "/")),
        route("elsewhere", at("two", "/chat")),
        policy("for-one", json!({ "kind": "Gateway", "name": "one" })),
        policy("for-two", json!({ "kind": "Gateway", "name": "two" })),
        policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
    ]);
    insta::assert_snapshot!(plan(&index, "default/one"));
    insta::assert_snapshot!(plan(&index, "default/two"));
    insta::assert_snapshot!(plan(&index, "*"));
}

#[test]
fn hosts_and_ports_are_those_that_listener_and_route_share() {
    let listeners = json!([
        { "name": "http", "protocol": "HTTP", "port": 80, "hostname": "*.example.com" },
        { "name": "inner", "protocol": "HTTPS", "port": 8443, "allowedRoutes": { "namespaces": { "from": "All" } } },
        { "name": "raw", "protocol": "TCP", "port": 9000 },
    ]);
    let mut both = at("one", "/both");
    both["hostnames"] = json!(["llm.example.com", "example.org"]);
    let mut inner = at("one", "/inner");
    inner["parentRefs"][0]["sectionName"] = json!("inner");
    let mut none = at("one", "/none");
    none["hostnames"] = json!(["example.org"]);
    none["parentRefs"][0]["sectionName"] = json!("http");
    let index = index(vec![
        gateway("one", listeners),
        route("both", both),
        route("inner", inner),
        route("none", none),
        policy("for-inner", json!({ "kind": "Gateway", "name": "one", "sectionName": "inner" })),
        policy("for-both", json!({ "kind": "HTTPRoute", "name": "both" })),
        policy("for-none", json!({ "kind": "HTTPRoute", "name": "none" })),
    ]);
    insta::assert_snapshot!(plan(&index, "default/one"));
    insta::assert_snapshot!(statuses(&index, &["default/one"]));
}

/// Two listeners on one port, and a policy for the route at the inner one.
fn shared_gateway(allowed: Value) -> Vec<Change> {
    let listeners = json!([
        { "name": "any", "protocol": "HTTP", "port": 80, "hostname": "*.example.com",
          "allowedRoutes": { "namespaces": allowed } },
        { "name": "llm", "protocol": "HTTP", "port": 80, "hostname": "llm.example.com" },
    ]);
    let mut llm = at("one", "/");
    llm["parentRefs"][0]["sectionName"] = json!("llm");
    vec![
        gateway("one", listeners),
        route("llm", llm),
        policy("for-llm", json!({ "kind": "HTTPRoute", "name": "llm" })),
    ]
}

/// Returns another team's route for the host of the inner listener, attached to the outer listener.
fn intruder(namespace: &str) -> (ObjectName, Value) {
    let parent = json!({ "name": "one", "namespace": "default", "sectionName": "any" });
    let path = json!({ "type": "Exact", "value": "/v1/chat/completions" });
    let rules = json!([{ "matches": [{ "path": path }] }]);
    let spec = json!({ "parentRefs": [parent], "hostnames": ["llm.example.com"], "rules": rules });
    (ObjectName { namespace: namespace.into(), name: "intruder".into() }, spec)
}

fn intrude((name, spec): (ObjectName, Value), statuses: Vec<Value>) -> Change {
    let mut route = object(&name.name, spec);
    route.data["status"] = json!({ "parents": statuses });
    Change::Route(name, Some(HttpRoute::new(&route)))
}

#[test]
fn a_route_at_another_listener_takes_no_requests_from_the_listener_that_owns_the_host() {
    let mut index = index(shared_gateway(json!({ "from": "All" })));
    let (name, spec) = intruder("other");
    let accepted = status(&spec["parentRefs"][0], "one.example/controller", "True", 1);
    index.apply(intrude((name, spec), vec![accepted]));
    let plan = plan(&index, "default/one");
    assert!(plan.contains("in doubt [\"llm.example.com\"] [] =/v1/chat/completions: \n"), "{plan}");
    assert!(plan.contains("\n[\"llm.example.com\"] [] /*: for-llm\n"), "{plan}");
}

#[test]
fn a_route_takes_requests_at_the_ports_of_its_own_listeners_only() {
    let listener = |name: &str, port: u32, host: &str, from: &str| {
        json!({ "name": name, "protocol": "HTTP", "port": port, "hostname": host,
            "allowedRoutes": { "namespaces": { "from": from } } })
    };
    let listeners = json!([
        listener("plain", 80, "", "All"),
        listener("secure", 443, "", "Selector"),
        listener("other", 443, "b.example.com", "All"),
    ]);
    let mut index = index(vec![gateway("one", listeners)]);
    index.apply(policy("for-one", json!({ "kind": "Gateway", "name": "one" })));
    index.apply(policy("for-intruder", json!({ "kind": "HTTPRoute", "name": "intruder" })));
    let mut spec = at("one", "/v1");
    spec["hostnames"] = json!(["a.example.com"]);
    index.apply(route("intruder", spec));
    let plan = plan(&index, "default/one");
    assert!(plan.contains("\n[\"a.example.com\"] [80, 10080] /v1*: for-intruder\n"), "{plan}");
    assert!(plan.contains("\nin doubt [\"a.example.com\"] [443, 10443] /v1*: for-intruder\n"), "{plan}");
}

#[test]
fn a_listener_takes_the_routes_of_the_namespaces_that_it_selects() {
    let labels = |team: &str| [("team".to_owned(), team.to_owned())].into();
    let mut index = index(shared_gateway(
        json!({ "from": "Selector", "selector": { "matchLabels": { "team": "llm" } } }),
    ));
    let (name, mut spec) = intruder("other");
    spec["hostnames"] = json!(["b.example.com"]);
    spec["parentRefs"][0].as_object_mut().unwrap().remove("sectionName");
    let accepted = status(&spec["parentRefs"][0], "one.example/controller", "True", 1);
    index.apply(intrude((name, spec), vec![accepted]));
    let intruders = |index: &ClusterIndex| {
        plan(index, "default/one")
            .lines()
            .filter(|line| line.contains("=/v1"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(intruders(&index), [r#"in doubt ["b.example.com"] [] =/v1/chat/completions: "#]);
    index.apply(Change::Namespaces(Some([("other".to_owned(), labels("else"))].into())));
    assert_eq!(intruders(&index), Vec::<String>::new());
    index.apply(Change::Namespace("other".into(), Some(labels("llm"))));
    assert_eq!(intruders(&index), [r#"["b.example.com"] [] =/v1/chat/completions: "#]);
}

#[test]
fn only_the_gateway_s_own_controller_says_whether_it_takes_a_route() {
    let classed = |class: &str| {
        let spec = json!({ "gatewayClassName": class, "listeners": http() });
        Change::Gateway(name("one"), Some(GatewayObject::new(&object("one", spec))))
    };
    let spec = at("one", "/");
    let partial = |mut status: Value| {
        let some = json!({ "type": "PartiallyInvalid", "status": "True", "observedGeneration": 1 });
        status["conditions"].as_array_mut().unwrap().push(some);
        status
    };
    let says = |controller: &str, accepted: &str, generation: i64| {
        status(&spec["parentRefs"][0], controller, accepted, generation)
    };
    let cases = [
        (vec![], "in doubt "),
        (vec![says("new", "True", 1)], ""),
        (vec![says("new", "True", 1), says("old", "False", 1)], ""),
        (vec![says("new", "False", 1), says("old", "True", 1)], "not there"),
        (vec![says("old", "True", 1)], "in doubt "),
        // The status is about an earlier generation of the route.
        (vec![says("new", "True", 0)], "in doubt "),
        (vec![says("new", "False", 0)], "in doubt "),
        // The controller has not decided yet, so the proxy may still use the route.
        (vec![says("new", "Unknown", 1)], "in doubt "),
        (vec![partial(says("new", "True", 1))], "in doubt "),
    ];
    for (statuses, expected) in cases {
        let index = index(vec![
            Change::Classes([("new-class".to_owned(), "new".to_owned())].into()),
            classed("new-class"),
            route_with("chat", spec.clone(), statuses.clone()),
            policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
        ]);
        let plan = plan(&index, "default/one");
        match expected {
            "not there" => assert!(!plan.contains("for-chat"), "{statuses:?}\n{plan}"),
            doubt => assert!(plan.contains(&format!("\n{doubt}[] [] /*: for-chat")), "{statuses:?}\n{plan}"),
        }
    }
}

/// Returns how a policy's rules appear in the plan of the Gateway `one`: the beginnings of their lines.
pub fn presence(index: &ClusterIndex, policy: &str) -> Vec<String> {
    let plan = plan(index, "default/one");
    let lines = plan.lines().filter_map(|line| line.strip_suffix(&format!(": {policy}")));
    lines.filter(|line| line.contains('[')).map(str::to_owned).collect()
}

#[test]
fn a_route_is_no_surer_at_a_host_than_at_the_listener_that_owns_it() {
    let mut index = index(shared_gateway(json!({ "from": "All" })));
    // The controller has accepted the route at the outer listener, and has not decided at the inner one.
    let (name, mut spec) = intruder("default");
    let mut inner = spec["parentRefs"][0].clone();
    inner["sectionName"] = json!("llm");
    spec["parentRefs"].as_array_mut().unwrap().push(inner.clone());
    let accepted = status(&spec["parentRefs"][0], "one.example/controller", "True", 1);
    index.apply(intrude((name.clone(), spec.clone()), vec![accepted.clone()]));
    index.apply(policy("for-intruder", json!({ "kind": "HTTPRoute", "name": "intruder" })));
    let doubt = [r#"in doubt ["llm.example.com"] [] =/v1/chat/completions"#];
    assert_eq!(presence(&index, "for-intruder"), doubt);
    let both = vec![accepted, status(&inner, "one.example/controller", "True", 1)];
    index.apply(intrude((name, spec), both));
    assert_eq!(presence(&index, "for-intruder"), [r#"["llm.example.com"] [] =/v1/chat/completions"#]);
}

#[test]
fn a_route_that_its_controller_has_accepted_is_there_whatever_its_listener_says_here() {
    let classed = |from: &str| {
        let listener = json!({ "name": "http", "protocol": "HTTP", "port": 80,
            "allowedRoutes": { "namespaces": { "from": from } } });
        let spec = json!({ "gatewayClassName": "class", "listeners": [listener] });
        Change::Gateway(name("one"), Some(GatewayObject::new(&object("one", spec))))
    };
    let mut index = index(vec![
        Change::Classes([("class".to_owned(), "one.example/controller".to_owned())].into()),
        classed("None"),
        route("chat", at("one", "/")),
        policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
    ]);
    assert_eq!(presence(&index, "for-chat"), ["in doubt [] [] /*"]);
    index.apply(classed("Same"));
    assert_eq!(presence(&index, "for-chat"), ["[] [] /*"]);
    // No controller has accepted the route, and the listener does not allow it.
    index.apply(classed("None"));
    index.apply(route_with("chat", at("one", "/"), Vec::new()));
    assert_eq!(presence(&index, "for-chat"), [""; 0]);
}

#[test]
fn where_the_controller_is_not_known_a_refusal_may_be_another_one_s() {
    let spec = at("one", "/");
    let refused = status(&spec["parentRefs"][0], "old.example/controller", "False", 1);
    let index = index(vec![
        gateway("one", http()),
        route_with("chat", spec, vec![refused]),
        policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
    ]);
    assert_eq!(presence(&index, "for-chat"), ["in doubt [] [] /*"]);
}

#[test]
fn a_selector_that_is_missing_selects_no_namespace_and_an_empty_one_all() {
    for (selector, wanted) in
        [(json!({ "from": "Selector" }), 0), (json!({ "from": "Selector", "selector": {} }), 1)]
    {
        let mut index = index(shared_gateway(selector));
        index.apply(Change::Namespaces(Some([("other".to_owned(), Default::default())].into())));
        let (name, mut spec) = intruder("other");
        spec["hostnames"] = json!(["b.example.com"]);
        let accepted = status(&spec["parentRefs"][0], "one.example/controller", "True", 1);
        index.apply(intrude((name, spec), vec![accepted]));
        let plan = plan(&index, "default/one");
        assert_eq!(plan.matches("=/v1/chat/completions").count(), wanted, "{plan}");
    }
}

#[test]
fn a_selector_s_expressions_are_followed() {
    let selector = json!({ "from": "Selector", "selector": { "matchExpressions": [
        { "key": "team", "operator": "In", "values": ["llm", "ml"] },
        { "key": "suspended", "operator": "DoesNotExist" },
    ] } });
    let mut index = index(shared_gateway(selector));
    let (name, mut spec) = intruder("other");
    spec["hostnames"] = json!(["b.example.com"]);
    let accepted = status(&spec["parentRefs"][0], "one.example/controller", "True", 1);
    index.apply(intrude((name, spec), vec![accepted]));
    for (labels, wanted) in [
        (json!({ "team": "ml" }), 1),
        (json!({ "team": "web" }), 0),
        (json!({ "team": "ml", "suspended": "" }), 0),
        (json!({}), 0),
    ] {
        let labels = serde_json::from_value(labels).unwrap();
        index.apply(Change::Namespace("other".into(), Some(labels)));
        let plan = plan(&index, "default/one");
        assert_eq!(plan.matches("=/v1/chat/completions").count(), wanted, "{plan}");
    }
}

/// At a listener with a host, a route without hosts gets that host. It has the same rank as routes that name
/// the host.
#[test]
fn a_route_without_hosts_is_at_each_listener_s_own() {
    let listeners = json!([
        { "name": "any", "protocol": "HTTP", "port": 80 },
        { "name": "llm", "protocol": "HTTP", "port": 80, "hostname": "llm.example.com" },
    ]);
    let index = index(vec![
        gateway("one", listeners),
        route("chat", at("one", "/v1/chat")),
        policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
    ]);
    assert_eq!(presence(&index, "for-chat"), ["[] [] /v1/chat*", r#"["llm.example.com"] [] /v1/chat*"#]);
}

#[test]
fn what_is_passed_through_takes_no_route_and_no_request() {
    let listeners = json!([
        { "name": "all", "protocol": "HTTPS", "port": 443, "hostname": "*.example.com" },
        { "name": "raw", "protocol": "TLS", "port": 443, "hostname": "llm.example.com" },
        { "name": "own", "protocol": "example.com/http", "port": 8443 },
    ]);
    let index = index(vec![
        gateway("one", listeners),
        route("chat", at("one", "/")),
        policy("for-all", json!({ "kind": "Gateway", "name": "one", "sectionName": "all" })),
        policy("for-raw", json!({ "kind": "Gateway", "name": "one", "sectionName": "raw" })),
        policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
    ]);
    insta::assert_snapshot!(plan(&index, "default/one"), @r#"
    everywhere: 
    at `*.example.com` [443, 10443]: for-all
    at `` [8443]: 
    ["*.example.com"] [443, 10443] /*: for-chat
    in doubt [] [8443] /*: for-chat
    "#);
    assert!(statuses(&index, &["*"]).contains("the Gateway default/one has no listener `raw` for HTTP"));
}

#[test]
fn regular_expressions_are_in_doubt_where_nobody_knows_when_the_proxy_asks_them() {
    for (controller, doubt, last) in [
        ("istio.io/gateway-controller", "", true),
        ("gateway.envoyproxy.io/gatewayclass-controller", "", false),
        ("other.example/controller", "in doubt ", false),
    ] {
        let spec = json!({ "gatewayClassName": "class", "listeners": http() });
        let mut route = at("one", "/v1");
        let regex = json!({ "path": { "type": "RegularExpression", "value": "/v[0-9]/.*" } });
        route["rules"][0]["matches"].as_array_mut().unwrap().push(regex);
        let accepted = status(&route["parentRefs"][0], controller, "True", 1);
        let index = index(vec![
            Change::Class("class".into(), Some(controller.to_owned())),
            Change::Gateway(name("one"), Some(GatewayObject::new(&object("one", spec)))),
            route_with("chat", route, vec![accepted]),
            policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
        ]);
        let wanted = match doubt {
            "" => vec!["[] [] /v1* ~/v[0-9]/.*"],
            _ => vec!["[] [] /v1*", "in doubt [] [] ~/v[0-9]/.*"],
        };
        assert_eq!(presence(&index, "for-chat"), wanted, "{controller}");
        let in_force = PolicySnapshot::new(index.view().collected, &AdapterMetrics::new().unwrap());
        let placement = in_force
            .plan(&Asked::parse("default/one").unwrap(), PlanReader::current(false))
            .placement
            .unwrap();
        assert_eq!(placement.regexes_last, last, "{controller}");
        assert!(placement.rules.iter().all(|rule| rule.route_name.is_empty()), "nothing is in doubt there");
        assert_eq!(placement.methods_are_headers, controller.starts_with("gateway.envoyproxy.io/"));
    }
}

/// Envoy Gateway's proxies name the route that they select. So a route in doubt does not apply to another
/// route's request.
#[test]
fn a_route_in_doubt_has_the_name_that_envoy_gateway_s_proxies_give_it() {
    for (controller, wanted) in [
        ("gateway.envoyproxy.io/gatewayclass-controller", "httproute/default/chat/"),
        ("istio.io/gateway-controller", ""),
        ("other.example/controller", ""),
    ] {
        let spec = json!({ "gatewayClassName": "class", "listeners": http() });
        let index = index(vec![
            Change::Class("class".into(), Some(controller.to_owned())),
            Change::Gateway(name("one"), Some(GatewayObject::new(&object("one", spec)))),
            route_with("chat", at("one", "/v1"), Vec::new()),
            policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
        ]);
        let in_force = PolicySnapshot::new(index.view().collected, &AdapterMetrics::new().unwrap());
        let placement = in_force
            .plan(&Asked::parse("default/one").unwrap(), PlanReader::current(false))
            .placement
            .unwrap();
        let told: Vec<_> =
            placement.rules.iter().map(|rule| (rule.in_doubt, rule.route_name.as_str())).collect();
        assert_eq!(told, [(true, wanted)], "{controller}");
    }
}

/// If proxies require both values, the route takes no requests. So it must not take any away from another
/// route's policy.
#[test]
fn a_header_that_is_matched_twice_leaves_the_match_in_doubt() {
    let headers = json!([{ "name": "X-Team", "value": "a" }, { "name": "x-team", "value": "b" }]);
    let mut route = at("one", "/v1");
    route["rules"][0]["matches"][0]["headers"] = headers;
    let index = index(vec![
        gateway("one", http()),
        self::route("chat", route),
        policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
    ]);
    assert_eq!(presence(&index, "for-chat"), ["in doubt [] [] /v1*"]);
    let told = statuses(&index, &["default/one"]);
    assert!(told.contains("the header `x-team` is matched more than once"), "{told}");
}

#[test]
fn a_regular_expression_that_cannot_be_compiled_leaves_the_policy_in_doubt_and_not_out() {
    let path = json!({ "type": "RegularExpression", "value": "/v[0-9]/(?=chat)" });
    let header = json!([{ "type": "RegularExpression", "name": "x-team", "value": "(" }]);
    let mut route = at("one", "/v1");
    let matches =
        json!([{ "path": path, "method": "POST" }, { "path": { "value": "/v2" }, "headers": header }]);
    route["rules"] = json!([{ "matches": matches }]);
    let controller = "istio.io/gateway-controller";
    let accepted = status(&route["parentRefs"][0], controller, "True", 1);
    let spec = json!({ "gatewayClassName": "class", "listeners": http() });
    let index = index(vec![
        Change::Class("class".into(), Some(controller.to_owned())),
        Change::Gateway(name("one"), Some(GatewayObject::new(&object("one", spec)))),
        route_with("chat", route, vec![accepted]),
        policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
    ]);
    assert_eq!(presence(&index, "for-chat"), ["in doubt [] [] * /v2*"]);
    let told = statuses(&index, &["default/one"]);
    assert!(told.contains("is in doubt: the regular expression `(` cannot be matched"), "{told}");
}

#[test]
fn whoever_follows_all_gateways_keeps_each_policy_at_its_own_gateway_s_hosts() {
    let hosted = |host: &str| json!([{ "name": "http", "protocol": "HTTP", "port": 80, "hostname": host }]);
    let index = index(vec![
        gateway("a", hosted("a.example.com")),
        gateway("b", hosted("b.example.com")),
        gateway("without-policies", http()),
        route("chat", at("b", "/chat")),
        policy("for-a", json!({ "kind": "Gateway", "name": "a" })),
        policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
    ]);
    insta::assert_snapshot!(plan(&index, "*"), @r#"
    of a gateway, everywhere: 
    at `a.example.com` []: for-a
    of a gateway, everywhere: 
    at `b.example.com` []: 
    ["b.example.com"] [] /chat*: for-chat
    "#);
}

#[test]
fn a_rule_without_a_name_is_called_after_its_place() {
    let mut spec = at("one", "/first");
    spec["rules"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "matches": [{ "path": { "type": "PathPrefix", "value": "/second" } }] }));
    let index = index(vec![
        gateway("one", http()),
        route("chat", spec),
        policy("for-second", json!({ "kind": "HTTPRoute", "name": "chat", "sectionName": "rule-2" })),
        policy("for-none", json!({ "kind": "HTTPRoute", "name": "chat", "sectionName": "rule-3" })),
    ]);
    let plan = plan(&index, "default/one");
    assert!(plan.contains("/second*: for-second\n") && plan.contains("/first*: \n"), "{plan}");
    assert!(statuses(&index, &["*"]).contains("the HTTPRoute default/chat has no rule `rule-3`"));
}

#[test]
fn a_mistake_keeps_the_version_before_and_what_came_anew_does_not_inherit() {
    let mut index = index(vec![gateway("one", http()), route("all", at("one", "/"))]);
    index.apply(policy("p", json!({ "kind": "Gateway", "name": "one" })));
    let broken = |uid: &str| {
        let mut written = object(
            "p",
            json!({ "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "one" }, "limits": {} }),
        );
        written.metadata.generation = Some(2);
        written.metadata.uid = Some(uid.to_owned());
        Change::Policy(PolicyObject::new(Group::Weir, &written))
    };
    index.apply(broken("p"));
    assert_eq!(plan(&index, "default/one"), "everywhere: p\n");
    insta::assert_snapshot!(statuses(&index, &["*"]));
    index.apply(broken("another"));
    assert_eq!(plan(&index, "default/one"), "everywhere: \n");
    index.apply(Change::Policies(Group::Weir, Vec::new()));
    assert_eq!(statuses(&index, &["*"]), "");
}

#[test]
fn a_policy_that_has_no_say_on_any_route_is_overridden_and_by_whom_is_told() {
    let rules = |of: &str, target: (&str, &str), rules: &str, strategy: Option<&str>| {
        let limits = json!({ "all": { "rates": [{ "limit": 5, "window": "1h" }] } });
        let (kind, name) = target;
        let target = json!({ "group": "gateway.networking.k8s.io", "kind": kind, "name": name });
        let mut spec = json!({ "targetRef": target });
        match strategy {
            Some(strategy) => spec[rules] = json!({ "strategy": strategy, "limits": limits }),
            None => spec[rules] = limits,
        }
        Change::Policy(PolicyObject::new(Group::Weir, &object(of, spec)))
    };
    let mut index = index(vec![
        gateway("one", http()),
        route("chat", at("one", "/chat")),
        route("other", at("one", "/other")),
        rules("defaults", ("Gateway", "one"), "defaults", Some("atomic")),
        rules("for-chat", ("HTTPRoute", "chat"), "limits", None),
    ]);
    let mut told = format!("one route without a policy of its own:\n{}", statuses(&index, &["*"]));
    index.apply(rules("for-other", ("HTTPRoute", "other"), "limits", None));
    write!(told, "\nnone:\n{}", statuses(&index, &["*"])).unwrap();
    index.apply(rules("defaults", ("Gateway", "one"), "overrides", Some("merge")));
    write!(told, "\nits limits prevail over those of their names:\n{}", statuses(&index, &["*"])).unwrap();
    insta::assert_snapshot!(told);
}

#[test]
fn a_filter_that_reads_headers_alone_gets_no_policy_of_bodies_and_its_status_tells() {
    let of_bodies = |of: &str, kind: &str, target: &str| {
        let target = json!({ "group": "gateway.networking.k8s.io", "kind": kind, "name": target });
        let when = json!([{ "predicate": "llm.model == 'gpt-4o'" }]);
        let limits = json!({ "all": { "when": when, "rates": [{ "limit": 5, "window": "1h" }] } });
        let spec = json!({ "targetRef": target, "limits": limits });
        Change::Policy(PolicyObject::new(Group::Weir, &object(of, spec)))
    };
    let index = index(vec![
        gateway("one", http()),
        route("chat", at("one", "/chat")),
        of_bodies("a", "Gateway", "one"),
        policy("b", json!({ "kind": "Gateway", "name": "one" })),
        of_bodies("c", "HTTPRoute", "chat"),
        policy("d", json!({ "kind": "HTTPRoute", "name": "chat" })),
    ]);
    let told = format!(
        "with bodies:\n{}\nheaders alone:\n{}\nthe same, asked for all:\n{}\n{}",
        plan_for(&index, "default/one", false),
        plan_for(&index, "default/one", true),
        plan_for(&index, "*", true),
        statuses(&index, &["default/one", "default/one:headers"])
    );
    insta::assert_snapshot!(told);
}

#[test]
fn a_lease_is_taken_from_nobody_who_renews_it() {
    let spec = |holder: &str| {
        serde_json::from_value(json!({ "holderIdentity": holder, "leaseDurationSeconds": 15 })).unwrap()
    };
    for (holder, unchanged, wanted) in [
        ("me", 0, LeaseStep::Hold),
        ("", 0, LeaseStep::Hold),
        ("other", 9, LeaseStep::Wait),
        ("other", 10, LeaseStep::Hold),
    ] {
        assert_eq!(
            decide(&spec(holder), "me", Duration::from_secs(unchanged)),
            wanted,
            "{holder} {unchanged}"
        );
    }
}

#[test]
fn a_policy_that_is_being_deleted_is_enforced_as_it_is() {
    let mut index = index(vec![gateway("one", http()), route("all", at("one", "/"))]);
    index.apply(policy("p", json!({ "kind": "Gateway", "name": "one" })));
    // Deletion increments the generation. The spec stays the same while a finalizer keeps the object.
    let Change::Policy(mut deleted) = policy("p", json!({ "kind": "Gateway", "name": "one" })) else {
        panic!()
    };
    deleted.generation = 2;
    index.apply(Change::Policy(deleted));
    let told = statuses(&index, &["*"]);
    assert!(told.contains("p: Enforced=True Enforced"), "{told}");
}

#[test]
fn the_gateways_that_ancestors_cannot_list_are_mentioned() {
    let mut changes = vec![policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" }))];
    let gateways: Vec<String> = (1..=18).map(|number| format!("g{number}")).collect();
    changes.extend(gateways.iter().map(|name| gateway(name, http())));
    let parents: Vec<Value> = gateways.iter().map(|name| json!({ "name": name })).collect();
    changes.push(route("chat", json!({ "parentRefs": parents, "rules": [{}] })));
    let index = index(changes);
    let told = statuses(&index, &["*"]);
    assert!(told.contains("Enforced: filters have the policy in their plan (2 more Gateways than"), "{told}");
    let status = status_of(&index.view().statuses[0], &["*"], &[]).unwrap();
    assert_eq!(status.ancestors.len(), 16);
}

#[test]
fn a_gateway_that_filters_ask_for_in_vain_is_named_where_one_is_missed() {
    let index = index(vec![
        gateway("llm", http()),
        route("chat", at("llm", "/")),
        policy("p", json!({ "kind": "Gateway", "name": "llm" })),
    ]);
    let status = status_of(&index.view().statuses[0], &["default/lmm"], &["default/lmm"]).unwrap();
    let enforced = &status.conditions[1];
    assert_eq!(enforced.reason, "NoFilter");
    assert_eq!(
        enforced.message,
        "no filter of the Gateway default/llm has asked for its plan; filters ask for Gateways that do not exist: default/lmm"
    );
    assert_eq!(index.view().gateways, BTreeSet::from(["default/llm".to_owned()]));
}

/// Two installations write their statuses in turn. The test merges them like the API server.
#[test]
fn of_two_installs_of_one_name_one_gives_way_and_both_know() {
    let mut installs = [("a", Rivals::new("weir.dev/x", "a")), ("b", Rivals::new("weir.dev/x", "b"))];
    let Change::Policy(mut object) = policy("p", json!({ "kind": "Gateway", "name": "one" })) else {
        panic!()
    };
    let (mut writes, mut managers) = (Vec::new(), Vec::<Value>::new());
    let start = Instant::now();
    for second in 0..20 {
        for (name, rivals) in &mut installs {
            let status = PolicyStatus { observed_generation: Some(1), ..PolicyStatus::default() };
            let ancestors = json!([{ "ancestorRef": { "group": "g", "kind": "Gateway", "namespace": "default", "name": *name },
                "controllerName": "weir.dev/x", "conditions": [] }]);
            let status = PolicyStatus { ancestors: serde_json::from_value(ancestors).unwrap(), ..status };
            let turn = rivals.look(&object, start + Duration::from_secs(second));
            if turn == Turn::Leave || object.status == serde_json::to_value(&status).unwrap() {
                continue;
            }
            writes.push((*name).to_owned());
            managers.retain(|manager| manager["manager"] != rivals.own());
            managers.push(json!({ "manager": rivals.own(), "subresource": "status",
                "time": format!("2026-11-28T00:00:{second:02}Z"), "fieldsV1": { "f:status": { "f:conditions": {} } } }));
            let mut written = serde_json::to_value(self::object("p", json!({}))).unwrap();
            written["metadata"]["managedFields"] = json!(managers);
            let written: DynamicObject = serde_json::from_value(written).unwrap();
            object.writers = PolicyObject::new(Group::Weir, &written).writers;
            object.status = serde_json::to_value(&status).unwrap();
            rivals.wrote(&status, &object);
        }
    }
    assert_eq!(writes, ["a", "b", "a"], "then the second one gives way");
    assert_eq!(
        installs.map(|(_, rivals)| rivals.rival().map(str::to_owned)),
        [Some("b".into()), Some("a".into())]
    );
}

#[test]
fn an_install_of_another_name_leaves_the_policy_s_own_conditions_to_one_and_an_install_that_is_gone_to_nobody()
 {
    let Change::Policy(mut object) = policy("p", json!({ "kind": "Gateway", "name": "one" })) else {
        panic!()
    };
    let manager = |name: &str| {
        json!({ "manager": name, "subresource": "status", "time": "2026-11-28T00:00:00Z",
        "fieldsV1": { "f:status": { "f:conditions": {} } } })
    };
    let mut written = serde_json::to_value(self::object("p", json!({}))).unwrap();
    written["metadata"]["managedFields"] = json!([manager("weir/weir.dev/m/ns"), manager("kubectl")]);
    object.writers = PolicyObject::new(Group::Weir, &serde_json::from_value(written).unwrap()).writers;
    assert_eq!(object.writers.len(), 1);
    object.status = json!({ "observedGeneration": 1 });
    let turn =
        |controller: &str, object: &PolicyObject| Rivals::new(controller, "ns").look(object, Instant::now());
    assert_eq!(turn("weir.dev/a", &object), Turn::Whole);
    assert_eq!(turn("weir.dev/z", &object), Turn::Ancestors);
    assert_eq!(turn("weir.dev/m", &object), Turn::Whole, "its own");
    // The other one no longer follows the policy.
    object.generation = 2;
    assert_eq!(turn("weir.dev/z", &object), Turn::Whole);
    // An installation that is gone has left its status.
    object.generation = 1;
    let mut moved = Rivals::new("weir.dev/m", "zz");
    assert_eq!(moved.look(&object, Instant::now()), Turn::Whole);
    assert_eq!(moved.rival(), None);
}
