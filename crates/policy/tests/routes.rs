//! The route that matches a request, according to Gateway API's rules.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use expression::facts::{Facts, Need};
use policy::model::Policy;
use policy::plan::Plan;
use policy::routes::Routes;
use proptest::prelude::*;
use protocol::wire::weir::v1::{Field, Listener, Match, Placement, Rule, field, r#match::Path};
use serde_json::json;

fn exact(path: &str) -> Match {
    Match { path: Some(Path::Exact(path.into())), ..Match::default() }
}

fn prefix(path: &str) -> Match {
    Match { path: Some(Path::Prefix(path.into())), ..Match::default() }
}

fn regex(path: &str) -> Match {
    Match { path: Some(Path::Regex(path.into())), ..Match::default() }
}

fn with_method(found: Match, method: &str) -> Match {
    Match { method: method.into(), ..found }
}

fn is(name: &str, value: &str) -> Field {
    Field { name: name.into(), value: Some(field::Value::Exact(value.into())) }
}

fn like(name: &str, value: &str) -> Field {
    Field { name: name.into(), value: Some(field::Value::Regex(value.into())) }
}

fn headers(found: Match, headers: Vec<Field>) -> Match {
    Match { headers, ..found }
}

fn query(found: Match, query: Vec<Field>) -> Match {
    Match { query, ..found }
}

/// Builds rules. Each rule has one policy, whose number is the rule's position.
fn rules(rules: Vec<(&[&str], Vec<Match>)>) -> Routes {
    let count = rules.len();
    let rule = |(place, (hostnames, matches)): (usize, (&[&str], Vec<Match>))| Rule {
        hostnames: hostnames.iter().map(|host| (*host).to_owned()).collect(),
        matches,
        policies: vec![place as u32],
        ..Rule::default()
    };
    let rules = rules.into_iter().enumerate().map(rule).collect();
    Routes::compile(&Placement { rules, ..Placement::default() }, count).unwrap()
}

fn facts(method: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> Facts {
    let mut facts = Facts::default();
    for (name, value) in [(":method", method), (":authority", host), (":path", path)].iter().chain(headers) {
        facts.header(name, value.as_bytes());
    }
    facts
}

fn found(routes: &Routes, host: &str, path: &str) -> Vec<usize> {
    routes.find(&facts("GET", host, path, &[]))
}

#[test]
fn a_prefix_is_one_of_whole_segments() {
    let routes = rules(vec![(&[], vec![prefix("/foo")]), (&[], vec![prefix("/bar/")])]);
    for (path, wanted) in [
        ("/foo", Some(0)),
        ("/foo/", Some(0)),
        ("/foo/bar?a=b", Some(0)),
        ("/foo?a=/x", Some(0)),
        ("/foobar", None),
        ("/fo", None),
        ("/", None),
        ("", None),
        ("/bar", Some(1)),
        ("/bar/baz", Some(1)),
        ("/x/foo", None),
        ("/foo//////////////", Some(0)),
    ] {
        assert_eq!(found(&routes, "any", path), Vec::from_iter(wanted), "{path}");
    }
}

#[test]
fn the_most_specific_path_takes_the_request() {
    let routes = rules(vec![
        (&[], vec![prefix("/")]),
        (&[], vec![prefix("/v1")]),
        (&[], vec![exact("/v1/models")]),
        (&[], vec![prefix("/v1/chat")]),
        (&[], vec![regex("/v1/chat/.*")]),
        (&[], vec![regex("/v[0-9]")]),
    ]);
    for (path, wanted) in [
        ("/", 0),
        ("/v1/embeddings", 1),
        ("/v1/models", 2),
        ("/v1/models/", 1),
        ("/v1/chat", 3),
        ("/v1/chat/completions", 4),
        ("/v2", 5),
        ("/v22", 0),
        ("/v2/x", 0),
    ] {
        assert_eq!(found(&routes, "any", path), [wanted], "{path}");
    }
}

/// For any beginning of the path, and any way to look up the rule, the request belongs to the longest match.
#[test]
fn a_regular_expression_takes_what_it_matches_whatever_it_begins_with() {
    let all = [
        "/team/a/.*",
        "/team/a/(x|y)/[0-9]+",
        "/team/a|/other",
        "/team/b*/c",
        "/tea.*",
        "/team/(c|d)",
        r"/team/[|(]/e|/f",
        "(?i)/TEAM/H",
        "/team/i/?",
        "/team/j//+",
        "/.*/k",
        r"\*",
        "/team/l{0}m",
        "",
        "/team/n",
    ];
    let routes = rules(all.iter().map(|source| (&[] as &[&str], vec![regex(source)])).collect());
    let paths = [
        "/team/a/x",
        "/team/a/x/7",
        "/team/a",
        "/other",
        "/team/c",
        "/team/bb/c",
        "/team//c",
        "/teal",
        "/team/d",
        "/team/(/e",
        "/team/|/e",
        "/f",
        "/team/h",
        "/team/i",
        "/team/i/",
        "/team/j/",
        "/team/j//",
        "/team/j///",
        "/x/y/k",
        "/k",
        "/team/m",
        "",
        "/",
        "/team/n",
        "/team/n/",
        "/team//a/",
        "//team/a/x",
        "*",
    ];
    for path in paths {
        let matches =
            |source: &&&str| regex_lite::Regex::new(&format!("^(?:{source})$")).unwrap().is_match(path);
        // The longest comes first, then the first one.
        let longest = all.iter().filter(matches).rev().max_by_key(|source| source.len());
        let wanted = longest.map(|longest| all.iter().position(|source| source == longest).unwrap());
        assert_eq!(found(&routes, "any", path), Vec::from_iter(wanted), "{path}");
    }
}

#[test]
fn the_most_specific_host_takes_the_request_and_leaves_the_rest() {
    let routes = rules(vec![
        (&[], vec![prefix("/")]),
        (&["*.example.com"], vec![prefix("/")]),
        (&["*.llm.example.com", "other.example.com"], vec![prefix("/")]),
        (&["api.llm.example.com"], vec![exact("/only")]),
    ]);
    for (host, path, wanted) in [
        ("elsewhere", "/", 0),
        ("example.com", "/", 0),
        ("a.example.com", "/", 1),
        ("a.b.example.com:8080", "/", 1),
        ("x.llm.example.com", "/", 2),
        ("OTHER.example.com", "/", 2),
        ("api.llm.example.com", "/only", 3),
        ("api.llm.example.com", "/else", 2),
        ("[2001:db8::1]:80", "/", 0),
        ("", "/", 0),
    ] {
        assert_eq!(found(&routes, host, path), [wanted], "{host}{path}");
    }
}

#[test]
fn method_headers_and_query_must_all_match_and_more_of_them_win() {
    let chat = || prefix("/v1");
    let routes = rules(vec![
        (&[], vec![chat()]),
        (&[], vec![headers(chat(), vec![is("X-Tier", "gold")])]),
        (&[], vec![headers(chat(), vec![is("x-tier", "gold"), like("x-team", "a|b")])]),
        (&[], vec![with_method(chat(), "POST")]),
        (&[], vec![query(chat(), vec![is("beta", "1")])]),
        (&[], vec![query(headers(chat(), vec![is("x-tier", "gold")]), vec![is("beta", "1")])]),
    ]);
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], usize);
    let cases: [Case<'_>; 9] = [
        ("GET", "/v1", &[], 0),
        ("GET", "/v1", &[("x-tier", "gold")], 1),
        ("GET", "/v1", &[("x-tier", "gold"), ("x-team", "b")], 2),
        ("GET", "/v1", &[("x-tier", "gold"), ("x-team", "ab")], 1),
        ("POST", "/v1", &[("x-tier", "gold"), ("x-team", "b")], 3),
        ("GET", "/v1?beta=1", &[], 4),
        ("GET", "/v1?a&beta=1&beta=2", &[("x-tier", "gold")], 5),
        ("GET", "/v1?beta=2&beta=1", &[("x-tier", "gold")], 1),
        ("GET", "/v1", &[("x-tier", "silver")], 0),
    ];
    for (method, path, headers, wanted) in cases {
        assert_eq!(routes.find(&facts(method, "h", path, headers)), [wanted], "{method} {path} {headers:?}");
    }
    let names: Vec<_> = routes.needs().iter().map(|need| format!("{need:?}")).collect();
    assert_eq!(names.len(), 5, "the path, host, method and two headers: {names:?}");
}

#[test]
fn the_first_of_equals_takes_the_request() {
    let routes = rules(vec![(&[], vec![exact("/other"), prefix("/a")]), (&[], vec![prefix("/a/")])]);
    assert_eq!(found(&routes, "h", "/a/b"), [0]);
}

#[test]
fn listeners_are_told_apart_by_host_and_by_port_where_the_port_is_known() {
    let listener = |hostname: &str, ports: &[u32], policies: &[u32]| Listener {
        hostname: hostname.into(),
        ports: ports.to_vec(),
        policies: policies.to_vec(),
    };
    let listeners = vec![
        listener("", &[80, 10080], &[1]),
        listener("", &[8443], &[2]),
        listener("*.a", &[80, 10080], &[3]),
    ];
    let placement = Placement { everywhere: vec![0], listeners, ..Placement::default() };
    let routes = Routes::compile(&placement, 4).unwrap();
    for (host, port, wanted) in [
        ("x", 80, &[0, 1][..]),
        ("x", 10080, &[0, 1]),
        ("x", 8443, &[0, 2]),
        ("x.a", 80, &[0, 3]),
        ("x.a", 8443, &[0, 2]),
        // The proxy's ports differ from the Gateway's, so any listener with this host may match.
        ("x", 15006, &[0, 1, 2]),
        ("x.a", 15006, &[0, 2, 3]),
    ] {
        let mut facts = facts("GET", host, "/", &[]);
        facts.property(&["destination".into(), "port".into()], &u64::to_le_bytes(port));
        assert_eq!(routes.find(&facts), wanted, "{host}:{port}");
    }
    assert!(routes.needs().contains(&Need::Property(vec!["destination".into(), "port".into()])));
}

#[test]
fn a_rule_in_doubt_adds_its_policies_and_takes_nothing_away() {
    let rule = |hostname: &str, matches: Vec<Match>, policy: u32, in_doubt: bool| Rule {
        hostnames: vec![hostname.into()],
        matches,
        policies: vec![policy],
        in_doubt,
        ..Rule::default()
    };
    let rules = vec![
        rule("llm.example.com", vec![prefix("/")], 0, false),
        rule("llm.example.com", vec![exact("/v1/chat/completions")], 1, true),
        rule("*.example.com", vec![regex("/v1/.*")], 2, true),
        rule("llm.example.com", vec![exact("/health")], 3, false),
        rule("", vec![prefix("/v1"), prefix("/v1/chat")], 4, true),
    ];
    let routes = Routes::compile(&Placement { rules, ..Placement::default() }, 5).unwrap();
    for (host, path, wanted) in [
        ("llm.example.com", "/v1/chat/completions", &[0, 1, 2, 4][..]),
        ("llm.example.com", "/v1/models", &[0, 2, 4]),
        ("llm.example.com", "/health", &[3]),
        ("LLM.example.com:443", "/else", &[0]),
        ("a.example.com", "/v1/chat", &[2, 4]),
        ("elsewhere", "/v1/chat/completions", &[4]),
        ("elsewhere", "/", &[]),
    ] {
        assert_eq!(found(&routes, host, path), wanted, "{host}{path}");
    }
}

#[test]
fn a_rule_of_some_ports_takes_nothing_away_where_the_port_is_not_known() {
    let rule = |matches: Match, ports: &[u32], policy: u32| Rule {
        matches: vec![matches],
        ports: ports.to_vec(),
        policies: vec![policy],
        ..Rule::default()
    };
    let rules = vec![
        rule(prefix("/v1"), &[80, 10080], 0),
        rule(exact("/v1/chat"), &[8443], 1),
        rule(prefix("/"), &[], 2),
        rule(exact("/health"), &[], 3),
    ];
    let routes = Routes::compile(&Placement { rules, ..Placement::default() }, 4).unwrap();
    for (path, port, wanted) in [
        ("/v1/chat", 80, &[0][..]),
        ("/v1/chat", 8443, &[1]),
        ("/v1/chat", 18443, &[0, 1, 2]),
        ("/v1", 18443, &[0, 2]),
        ("/health", 18443, &[3]),
        ("/", 18443, &[2]),
    ] {
        let mut facts = facts("GET", "h", path, &[]);
        facts.property(&["destination".into(), "port".into()], &u64::to_le_bytes(port));
        assert_eq!(routes.find(&facts), wanted, "{path} at {port}");
    }
}

/// A connection's server name selects the listener of a port, so a request for another listener's host
/// follows the first listener's routes.
#[test]
fn a_client_that_names_another_host_in_its_handshake_meets_the_policies_of_both() {
    let rule = |hostname: &str, policy: u32| Rule {
        hostnames: vec![hostname.into()],
        matches: vec![prefix("/")],
        policies: vec![policy],
        ..Rule::default()
    };
    let listener = |hostname: &str, policy: u32| Listener {
        hostname: hostname.into(),
        policies: vec![policy],
        ..Listener::default()
    };
    let placement = Placement {
        listeners: vec![listener("*.example.com", 0), listener("docs.example.com", 1)],
        rules: vec![rule("*.example.com", 2), rule("docs.example.com", 3)],
        ..Placement::default()
    };
    let routes = Routes::compile(&placement, 4).unwrap();
    let server_name = vec!["connection".to_owned(), "requested_server_name".to_owned()];
    assert!(routes.needs().contains(&Need::Property(server_name.clone())));
    for (name, host, wanted) in [
        ("docs.example.com", "docs.example.com", &[1, 3][..]),
        ("DOCS.example.com", "docs.example.com:443", &[1, 3]),
        ("llm.example.com", "llm.example.com", &[0, 2]),
        ("llm.example.com", "docs.example.com", &[0, 1, 2, 3]),
        ("docs.example.com", "llm.example.com", &[0, 1, 2]),
        ("", "docs.example.com", &[1, 3]),
    ] {
        let mut facts = facts("GET", host, "/", &[]);
        facts.property(&server_name, name.as_bytes());
        assert_eq!(routes.find(&facts), wanted, "{name}: {host}");
    }
}

#[test]
fn regular_expressions_come_where_the_proxy_asks_them() {
    let rule = |matches: Match, policy: u32| Rule {
        matches: vec![matches],
        policies: vec![policy],
        ..Rule::default()
    };
    for regexes_last in [false, true] {
        let rules = vec![rule(regex("/v1/.*"), 0), rule(prefix("/v1"), 1), rule(exact("/v1/chat"), 2)];
        let placement = Placement { rules, regexes_last, ..Placement::default() };
        let routes = Routes::compile(&placement, 3).unwrap();
        assert_eq!(found(&routes, "h", "/v1/models"), [usize::from(regexes_last)]);
        assert_eq!(found(&routes, "h", "/v1/chat"), [2]);
        assert_eq!(found(&routes, "h", "/v1"), [1]);
    }
}

/// In Envoy Gateway, the first of each pair matches the request. In Gateway API's order, the second would.
#[test]
fn matches_of_one_path_are_ranked_as_the_proxy_ranks_them() {
    let post = || with_method(prefix("/v1"), "POST");
    let pairs = [
        ("older, and as many headers", [headers(prefix("/v1"), vec![is("x-team", "llm")]), post()]),
        ("more headers", [headers(prefix("/v1"), vec![is("x-team", "llm"), is("x-b", "c")]), post()]),
        ("longer as it is written", [prefix("/v1/"), post()]),
    ];
    for (why, pair) in pairs {
        for methods_are_headers in [true, false] {
            let rule = |(place, found): (usize, &Match)| Rule {
                matches: vec![found.clone()],
                policies: vec![place as u32],
                ..Rule::default()
            };
            let rules = pair.iter().enumerate().map(rule).collect();
            let placement = Placement { rules, methods_are_headers, ..Placement::default() };
            let routes = Routes::compile(&placement, 2).unwrap();
            let facts = facts("POST", "h", "/v1/chat", &[("x-team", "llm"), ("x-b", "c")]);
            assert_eq!(routes.find(&facts), [usize::from(!methods_are_headers)], "{why}");
        }
    }
}

#[test]
fn a_pattern_of_a_route_has_a_bounded_size() {
    let usual = "/v[0-9]+/(chat/completions|completions|embeddings|responses|messages)(/[a-zA-Z0-9_-]+)?";
    assert_eq!(policy::routes::check_pattern(usual), Ok(()));
    assert!(policy::routes::check_pattern("([a-z]{30}){30}").is_err());
}

/// Envoy selects the route again after the identity header is removed, so a route that matches this header
/// gets no requests.
#[test]
fn a_header_that_the_filter_removes_matches_no_route() {
    let with_identity = headers(prefix("/"), vec![like("x-jwt-payload", ".*")]);
    let routes = rules(vec![(&[], vec![prefix("/")]), (&[], vec![with_identity])]);
    let mut facts = facts("POST", "h", "/v1/chat", &[("x-jwt-payload", "e30")]);
    assert_eq!(routes.find(&facts), [1]);
    facts.loses_header("X-JWT-Payload");
    assert_eq!(routes.find(&facts), [0]);
}

/// Many people may write routes. The fields that routes need are fetched once, so that requests stay cheap.
#[test]
fn many_headers_of_routes_are_fetched_at_once_and_none_twice() {
    let placed = |count: usize, predicate: &str| {
        let target = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g" });
        let limit =
            json!({ "when": [{ "predicate": predicate }], "rates": [{ "limit": 1, "window": "1h" }] });
        let policy = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": { "name": "p" },
            "spec": { "targetRef": target, "limits": { "all": limit } },
        });
        let policy = Policy::read(&policy).unwrap();
        let rule = |index: usize| Rule {
            matches: vec![headers(prefix("/"), vec![is(&format!("x-{index}"), "a")])],
            policies: vec![0],
            ..Rule::default()
        };
        let placement = Placement { rules: (0..count).map(rule).collect(), ..Placement::default() };
        let plan = Plan::placed(vec![policy], Routes::compile(&placement, 1).unwrap());
        plan.rounds().iter().flat_map(|round| round.needs().to_vec()).collect::<Vec<Need>>()
    };
    let singles = |needs: &[Need]| needs.iter().filter(|need| matches!(need, Need::Header(_))).count();
    let few = placed(3, "request.method == 'POST'");
    assert!(singles(&few) > 3 && !few.contains(&Need::Headers), "{few:?}");
    let many = placed(100, "request.method == 'POST'");
    assert_eq!((singles(&many), many.contains(&Need::Headers)), (0, true), "{many:?}");
    let all = placed(3, "request.headers.exists(name, name == 'x-a')");
    assert_eq!((singles(&all), all.contains(&Need::Headers)), (0, true), "{all:?}");
}

/// If the proxy names the selected route, an uncertain rule does not apply to requests of other routes.
#[test]
fn a_rule_in_doubt_does_not_apply_where_the_proxy_names_another_route() {
    let rule = |route_name: &str, policy: u32, in_doubt: bool| Rule {
        matches: vec![prefix("/")],
        policies: vec![policy],
        in_doubt,
        route_name: route_name.into(),
        ..Rule::default()
    };
    let mine = rule("httproute/mine/llm/", 0, false);
    let other = rule("httproute/other/llm/", 1, true);
    let placement = Placement { rules: vec![mine, other], ..Placement::default() };
    let routes = Routes::compile(&placement, 2).unwrap();
    let name = Facts::ROUTE_NAME.map(str::to_owned);
    assert!(routes.needs().contains(&Need::Property(name.to_vec())));
    for (chosen, wanted) in [
        (Some("httproute/mine/llm/rule/0/match/0/*"), vec![0]),
        (Some("httproute/other/llm/rule/0/match/0/*"), vec![0, 1]),
        (Some("httproute/other/llm-2/rule/0/match/0/*"), vec![0]),
        // The name has another format or is missing, so the route is unknown.
        (Some("custom"), vec![0, 1]),
        (Some("grpcroute/other/llm/rule/0/match/0/*"), vec![0, 1]),
        (Some(""), vec![0, 1]),
        (None, vec![0, 1]),
    ] {
        let mut facts = facts("POST", "h", "/v1/chat", &[]);
        if let Some(chosen) = chosen {
            facts.property(&name, chosen.as_bytes());
        }
        assert_eq!(routes.find(&facts), wanted, "{chosen:?}");
    }
}

#[test]
fn envoy_gateway_asks_the_match_with_more_exact_values_first() {
    let newer = headers(prefix("/v1"), vec![is("x-team", "llm")]);
    let older = headers(prefix("/v1"), vec![like("x-team", ".*")]);
    let rule = |matches: Match, policy: u32| Rule {
        matches: vec![matches],
        policies: vec![policy],
        ..Rule::default()
    };
    let rules = vec![rule(older, 0), rule(newer, 1)];
    let placement = Placement { rules, methods_are_headers: true, ..Placement::default() };
    let routes = Routes::compile(&placement, 2).unwrap();
    assert_eq!(routes.find(&facts("POST", "h", "/v1/chat", &[("x-team", "llm")])), [1]);
}

#[test]
fn of_several_gateways_each_one_s_policies_stay_at_its_own_hosts() {
    let gateway = |hostname: &str, policy: u32| {
        let listener = Listener { hostname: hostname.into(), policies: vec![policy], ..Listener::default() };
        let rule = Rule {
            hostnames: vec![hostname.into()],
            matches: vec![prefix("/chat")],
            policies: vec![policy + 1],
            ..Rule::default()
        };
        Placement { listeners: vec![listener], rules: vec![rule], ..Placement::default() }
    };
    let gateways = vec![gateway("a.example.com", 0), gateway("*.example.com", 2), gateway("", 4)];
    let routes = Routes::compile(&Placement { gateways, ..Placement::default() }, 6).unwrap();
    for (host, path, wanted) in [
        ("a.example.com", "/chat", &[0, 1, 2, 3, 4, 5][..]),
        ("b.example.com", "/chat", &[2, 3, 4, 5]),
        ("b.example.com", "/", &[2, 4]),
        ("elsewhere", "/chat", &[4, 5]),
    ] {
        assert_eq!(found(&routes, host, path), wanted, "{host}{path}");
    }
    assert!(routes.needs().contains(&Need::Header(":authority".into())));
    let inner = Placement { gateways: vec![Placement::default()], ..Placement::default() };
    let nested = Placement { gateways: vec![inner], ..Placement::default() };
    let mistakes = Routes::compile(&nested, 0).unwrap_err();
    assert_eq!(mistakes[0].to_string(), "placement.gateways[0].gateways[0]: is inside another gateway's");
}

#[test]
fn what_cannot_be_placed_is_told() {
    let rule = Rule { matches: vec![regex("(")], ..Rule::default() };
    let placement = Placement { everywhere: vec![1], rules: vec![rule], ..Placement::default() };
    let told: Vec<_> = Routes::compile(&placement, 1).unwrap_err().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    placement.rules[0]: found open group without closing ')'
    placement: names a policy that the plan does not have
    ");
}

proptest! {
    /// The input may be anything. A path that consists of slashes costs no more than other paths.
    #[test]
    fn no_request_brings_it_down(host in ".{0,40}", path in "[/a.?&=é]{0,60}") {
        let routes = rules(vec![
            (&["*.a"], vec![prefix("/a"), exact("/a/a")]),
            (&[], vec![query(regex("/[a/]*"), vec![is("a", "")])]),
        ]);
        prop_assert!(found(&routes, &host, &path).len() <= 1);
    }

    /// The order of rules matters only if their ranks are equal.
    #[test]
    fn a_longer_prefix_wins_wherever_it_is_written(order in Just([0usize, 1, 2, 3]).prop_shuffle()) {
        let paths = ["/", "/a", "/a/b", "/a/b/c"];
        let shuffled = order.iter().map(|index| (&[] as &[&str], vec![prefix(paths[*index])])).collect();
        let routes = rules(shuffled);
        for (index, path) in paths.iter().enumerate() {
            let place = order.iter().position(|at| *at == index).unwrap();
            prop_assert_eq!(found(&routes, "h", path), [place]);
        }
    }
}
