//! The cluster's objects → plans and verdicts, without a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use limitador_adapter::kubernetes::crd::Group;
use limitador_adapter::kubernetes::index::{Change, ClusterIndex};
use limitador_adapter::kubernetes::lease::{LeaseStep, decide};
use limitador_adapter::kubernetes::objects::{GatewayObject, HttpRoute, ObjectName, PolicyObject};
use limitador_adapter::metrics::AdapterMetrics;
use limitador_adapter::policies::snapshot::{GatewaySelector as Asked, PolicySnapshot};
use protocol::wire::weir::v1::{Placement, r#match::Path};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

fn object(name: &str, spec: Value) -> DynamicObject {
    let metadata = json!({ "name": name, "namespace": "default", "uid": name, "generation": 1 });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

fn gateway(of: &str, listeners: Value) -> Change {
    Change::Gateway(name(of), Some(GatewayObject::new(&object(of, json!({ "listeners": listeners })))))
}

fn route(of: &str, spec: Value) -> Change {
    Change::Route(name(of), Some(HttpRoute::new(&object(of, spec))))
}

fn policy(of: &str, target: Value) -> Change {
    let mut target = target;
    target["group"] = "gateway.networking.k8s.io".into();
    let limits = json!({ "all": { "rates": [{ "limit": 5, "window": "1h" }] } });
    Change::Policy(PolicyObject::new(
        Group::Weir,
        &object(of, json!({ "targetRef": target, "limits": limits })),
    ))
}

fn index(changes: Vec<Change>) -> ClusterIndex {
    let mut index = ClusterIndex::default();
    changes.into_iter().for_each(|change| index.apply(change));
    index
}

/// The plan of a gateway, as lines.
fn plan(index: &ClusterIndex, gateway: &str) -> String {
    plan_for(index, gateway, false)
}

fn plan_for(index: &ClusterIndex, gateway: &str, headers_alone: bool) -> String {
    let in_force = PolicySnapshot::new(index.view().collected, &AdapterMetrics::new().unwrap());
    let answer = in_force.plan(&Asked::parse(gateway).unwrap(), headers_alone);
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
    let mut text = format!("everywhere: {}\n", of(&placement.everywhere));
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
        writeln!(text, "{:?} {:?} {}: {}", rule.hostnames, rule.ports, paths.join(" "), of(&rule.policies))
            .unwrap();
    }
    text
}

fn statuses(index: &ClusterIndex, filters: &[&str]) -> String {
    let filters: BTreeSet<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
    let now = Time(Timestamp::UNIX_EPOCH);
    let mut text = String::new();
    for conditions in index.view().statuses {
        let status = conditions.status(&filters, &now).unwrap();
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

fn http() -> Value {
    json!([{ "name": "http", "protocol": "HTTP", "port": 80 }])
}

fn at(gateway: &str, path: &str) -> Value {
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
