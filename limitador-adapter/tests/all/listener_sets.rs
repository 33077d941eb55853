//! Later additions to Gateway API: ListenerSets, GRPCRoutes, and policies with several targets.

use crate::kubernetes::{
    at, gateway, http, index, name, object, plan, policy, presence, route, route_with, status, statuses,
};
use limitador_adapter::kubernetes::crd::Group;
use limitador_adapter::kubernetes::index::{Change, ClusterIndex};
use limitador_adapter::kubernetes::objects::{
    GatewayObject, HttpRoute, ListenerSetObject, PolicyObject, SetName,
};
use serde_json::{Value, json};

fn grpc(of: &str, gateway: &str, hosts: Value, matches: Value) -> Change {
    let parent = json!({ "name": gateway });
    let accepted = status(&parent, "one.example/controller", "True", 1);
    let spec = json!({ "parentRefs": [parent], "hostnames": hosts, "rules": [{ "matches": matches }] });
    let mut route = object(of, spec);
    route.data["status"] = json!({ "parents": [accepted] });
    Change::GrpcRoute(name(of), Some(HttpRoute::grpc(&route)))
}

#[test]
fn a_grpc_route_takes_the_paths_of_its_methods_and_has_policies_of_its_own() {
    let matches = json!([
        { "method": { "service": "llm.v1.Chat", "method": "Complete" } },
        { "method": { "service": "llm.v1.Chat" } },
        { "method": { "method": "Embed" } },
        { "method": { "type": "RegularExpression", "service": "llm[.]v.*", "method": "" } },
        { "headers": [{ "name": "x-team", "value": "a" }] },
    ]);
    let index = index(vec![
        gateway("one", http()),
        // An object of another kind may have the same name.
        route(
            "chat",
            json!({ "parentRefs": [{ "name": "one" }], "hostnames": ["web.example.com"], "rules": [{}] }),
        ),
        grpc("chat", "one", json!(["grpc.example.com"]), matches),
        policy("for-grpc", json!({ "kind": "GRPCRoute", "name": "chat" })),
        policy("for-http", json!({ "kind": "HTTPRoute", "name": "chat" })),
        policy("for-none", json!({ "kind": "GRPCRoute", "name": "none" })),
    ]);
    insta::assert_snapshot!(plan(&index, "default/one"), @r#"
    everywhere: 
    ["web.example.com"] [] *: for-http
    ["grpc.example.com"] [] =/llm.v1.Chat/Complete /llm.v1.Chat* *: for-grpc
    in doubt ["grpc.example.com"] [] ~/[^/]+/(?:Embed) ~/(?:llm[.]v.*)/[^/]+: for-grpc
    "#);
    let told = statuses(&index, &["*"]);
    assert!(told.contains("there is no GRPCRoute default/none"), "{told}");
}

#[test]
fn a_grpc_route_at_the_host_of_an_http_route_takes_nothing_away_from_it() {
    let any = json!([{}]);
    let index = index(vec![
        gateway("one", http()),
        route(
            "chat",
            json!({ "parentRefs": [{ "name": "one" }], "hostnames": ["a.example.com"], "rules": [{}] }),
        ),
        grpc("raid", "one", json!(["a.example.com"]), any),
        policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
        policy("for-raid", json!({ "kind": "GRPCRoute", "name": "raid" })),
    ]);
    assert_eq!(presence(&index, "for-chat"), [r#"["a.example.com"] [] *"#]);
    assert_eq!(presence(&index, "for-raid"), [r#"in doubt ["a.example.com"] [] *"#]);
}

#[test]
fn a_listener_takes_grpc_routes_only_if_it_allows_them() {
    let listeners = json!([{ "name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": { "kinds": [{ "kind": "HTTPRoute" }] } }]);
    let index = index(vec![
        gateway("one", listeners),
        grpc("raid", "one", json!([]), json!([{}])),
        policy("for-raid", json!({ "kind": "GRPCRoute", "name": "raid" })),
    ]);
    assert_eq!(presence(&index, "for-raid"), [""; 0]);
}

fn set_name(of: &str, is_experimental: bool) -> SetName {
    SetName { name: name(of), is_experimental }
}

/// Returns a ListenerSet of the Gateway `one` with a listener for this host.
fn set(of: &str, is_experimental: bool, host: &str, accepted: Option<&str>) -> Change {
    let listener = json!({ "name": "own", "protocol": "HTTP", "port": 80, "hostname": host });
    let mut set = object(of, json!({ "parentRef": { "name": "one" }, "listeners": [listener] }));
    if let Some(accepted) = accepted {
        let condition = json!({ "type": "Accepted", "status": accepted, "observedGeneration": 1 });
        set.data["status"] = json!({ "conditions": [condition] });
    }
    let name = set_name(of, is_experimental);
    let set = ListenerSetObject::new(&name, &set);
    Change::ListenerSet(name, Some(set))
}

/// Returns a Gateway with a listener for `*.example.com` that accepts ListenerSets from these namespaces.
fn open_gateway(from: Value) -> Change {
    let listener = json!({ "name": "all", "protocol": "HTTP", "port": 80, "hostname": "*.example.com" });
    let spec = json!({ "listeners": [listener], "allowedListeners": { "namespaces": from } });
    Change::Gateway(name("one"), Some(GatewayObject::new(&object("one", spec))))
}

fn at_set(of: &str, kind: &str, group: &str) -> Change {
    let parent = json!({ "group": group, "kind": kind, "name": "team" });
    let accepted = status(&parent, "one.example/controller", "True", 1);
    route_with(of, json!({ "parentRefs": [parent], "rules": [{}] }), vec![accepted])
}

const STABLE: (&str, &str) = ("ListenerSet", "gateway.networking.k8s.io");
const EXPERIMENTAL: (&str, &str) = ("XListenerSet", "gateway.networking.x-k8s.io");

#[test]
fn a_route_of_a_listener_set_is_at_the_listeners_that_the_set_adds() {
    for (is_experimental, (kind, group)) in [(false, STABLE), (true, EXPERIMENTAL)] {
        let index = index(vec![
            open_gateway(json!({ "from": "Same" })),
            set("team", is_experimental, "llm.example.com", Some("True")),
            at_set("chat", kind, group),
            route("web", at("one", "/")),
            policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
            policy("for-web", json!({ "kind": "HTTPRoute", "name": "web" })),
            policy("for-all", json!({ "kind": "Gateway", "name": "one", "sectionName": "all" })),
        ]);
        assert_eq!(presence(&index, "for-chat"), [r#"["llm.example.com"] [] *"#], "{kind}");
        // A route with the Gateway as its parent is not attached to the listener of the set.
        assert_eq!(presence(&index, "for-web"), [r#"["*.example.com"] [] /*"#], "{kind}");
        let plan = plan(&index, "default/one");
        assert!(plan.contains("at `*.example.com` []: for-all\nat `llm.example.com` []: \n"), "{plan}");
        assert!(statuses(&index, &["*"]).contains("for-chat: Enforced=True"));
    }
}

#[test]
fn a_set_that_its_gateway_does_not_take_adds_nothing_and_one_in_doubt_takes_nothing_away() {
    let started = |allowed: Value, accepted: Option<&str>| {
        index(vec![
            open_gateway(allowed),
            set("team", false, "llm.example.com", accepted),
            at_set("chat", STABLE.0, STABLE.1),
            route(
                "web",
                json!({ "parentRefs": [{ "name": "one" }], "hostnames": ["llm.example.com"], "rules": [{}] }),
            ),
            policy("for-chat", json!({ "kind": "HTTPRoute", "name": "chat" })),
            policy("for-web", json!({ "kind": "HTTPRoute", "name": "web" })),
            policy("for-all", json!({ "kind": "Gateway", "name": "one", "sectionName": "all" })),
        ])
    };
    let nowhere = |index: &ClusterIndex| {
        assert_eq!(presence(index, "for-chat"), [""; 0]);
        assert_eq!(presence(index, "for-web"), [r#"["llm.example.com"] [] *"#]);
    };
    nowhere(&started(json!({}), Some("True")));
    nowhere(&started(json!({ "from": "None" }), Some("True")));
    nowhere(&started(json!({ "from": "Same" }), Some("False")));
    let pending = started(json!({ "from": "Same" }), None);
    assert_eq!(presence(&pending, "for-chat"), [r#"in doubt ["llm.example.com"] [] *"#]);
    let plan = plan(&pending, "default/one");
    assert!(!plan.contains("at `llm.example.com`"), "{plan}");
}

#[test]
fn a_policy_of_several_targets_applies_at_each_of_them_once() {
    let with_targets = |targets: Value| {
        let limits = json!({ "all": { "rates": [{ "limit": 5, "window": "1h" }] } });
        PolicyObject::new(Group::Weir, &object("p", json!({ "targetRefs": targets, "limits": limits })))
    };
    let target =
        |kind: &str, name: &str| json!({ "group": "gateway.networking.k8s.io", "kind": kind, "name": name });
    let mut index = index(vec![
        gateway("one", http()),
        route("chat", at("one", "/chat")),
        route("files", at("one", "/files")),
        route("other", at("one", "/other")),
        Change::Policy(with_targets(json!([target("HTTPRoute", "chat"), target("HTTPRoute", "files")]))),
    ]);
    insta::assert_snapshot!(plan(&index, "default/one"), @r#"
    everywhere: 
    [] [] /chat*: p
    [] [] /files*: p
    [] [] /other*: 
    "#);
    assert!(statuses(&index, &["*"]).contains("p: Enforced=True"));
    // A missing target is reported, and the policy applies to the others.
    index.apply(Change::Policy(with_targets(json!([
        target("HTTPRoute", "chat"),
        target("HTTPRoute", "none")
    ]))));
    let told = statuses(&index, &["*"]);
    assert!(told.contains("p: Accepted=False TargetNotFound: there is no HTTPRoute default/none"), "{told}");
    assert_eq!(presence(&index, "p"), ["[] [] /chat*"]);
    // Several Gateways share one set of counters.
    index.apply(gateway("two", http()));
    index.apply(Change::Policy(with_targets(json!([target("Gateway", "one"), target("Gateway", "two")]))));
    assert_eq!(plan(&index, "default/two"), "everywhere: p\n");
    assert_eq!(plan(&index, "default/one"), "everywhere: p\n");
    for (targets, why) in [
        (
            json!([target("Gateway", "one"), target("HTTPRoute", "chat")]),
            "differs in kind from the first target",
        ),
        (json!([target("Gateway", "one"), target("Gateway", "one")]), "is a duplicate"),
        (json!([]), "must not be empty"),
    ] {
        index.apply(Change::Policy(with_targets(targets)));
        let told = statuses(&index, &["*"]);
        assert!(told.contains("p: Accepted=False Invalid: spec.targetRefs") && told.contains(why), "{told}");
    }
}
