//! Errors that are found before any request, with the messages that authors of policies see.

use expression::cel::{Expression, Phase, ResultType};

fn told(sources: &[&str], phase: Phase, purpose: ResultType) -> String {
    let mut told = String::new();
    for source in sources {
        let result = Expression::compile(source, phase, purpose);
        let error = result.err().unwrap_or_else(|| "IT COMPILES".to_owned());
        let source =
            if source.len() > 80 { format!("{}...", &source[..40]) } else { source.replace('\n', "\\n") };
        told.push_str(&format!("{source}\n    {error}\n"));
    }
    told
}

#[test]
fn what_is_written_as_in_another_language_is_told_with_cel_s_own() {
    insta::assert_snapshot!(told(
        &[
            "not auth.identity.admin",
            "NOT auth.identity.admin",
            "auth.identity.a == 'x' and auth.identity.b == 'y'",
            "auth.identity.a == 'x' OR auth.identity.b == 'and'",
            "auth.identity.a is 'x'",
            "auth.identity.a === 'x'",
            "auth.identity.a <> 'x'",
            "request.url_path like '/v1/%'",
            "request.url_path =~ '/v1/.*'",
            "request.url_path contains 'v1'",
            "request.headers.x-tier == 'gold'",
            "request.headers.x-user-tier.startsWith('g')",
            "has(request.headers['x'])",
            "has(auth.identity[\"plan-name\"])",
            "auth.identity.plan == free",
            "auth.identity.admin == True",
            "auth.identity.plan == None",
            "model == 'm'",
            "request.body.model == 'm'",
            "len(request.path) > 3",
            "request.path.toLowerCase() == '/v1'",
        ],
        Phase::Request,
        ResultType::Predicate
    ));
}

#[test]
fn syntax_is_told_with_its_place() {
    insta::assert_snapshot!(told(
        &[
            "",
            "  \n",
            "request.path ==",
            "request.path = 'a'",
            "(request.path == 'a'",
            "request.path == 'a')",
            "request.path == 'a",
            "request.path == 'a' and true",
            "true & false",
            "true | false",
            "a b",
            "1 2",
            "request.",
            "request..path",
            "[1, 2",
            "{1: 2",
            "f(1",
            "'\\q' == ''",
            "99999999999999999999 == 1",
            "1.2.3 == 1",
            "1a == 1",
            "$x",
            "é == 1",
            "true ?",
            "true ? 1",
            "if == 1",
            "true &&\n  request.path == )",
            "has(request)",
            "has()",
            "[1].exists(1, true)",
            "`a` == 1",
        ],
        Phase::Request,
        ResultType::Predicate
    ));
}

#[test]
fn an_unknown_name_is_told_with_the_known_ones() {
    insta::assert_snapshot!(told(
        &[
            "foo == 1",
            "requst.path == 'a'",
            "request.pth == 'a'",
            "request == 1",
            "request[auth.identity.x] == 1",
            "request.path.foo == 'a'",
            "request.headers.a.b == 'a'",
            "source.adress == 'a'",
            "destination.remote_address == 'a'",
            "connection.tls == 'a'",
            "llm == 1",
            "llm.modle == 'a'",
            "llm.estimate == 1",
            "llm.estimate.all == 1",
            "metadata == 1",
            "metadata.ns == 1",
            "xds.route_name == 'a'",
            "[1].exists(x, y == 1)",
            "[1].exists(request, true)",
            "x == 1 && y == 2 && x == 3",
            "foo(1)",
            "'a'.foo()",
            "'a'.format([1])",
            "size()",
            "size(1, 2)",
            "'a'.size(1)",
            "split('a', 'b')",
            "'5'.int()",
            "'a'.split()",
            "'a'.substring()",
            "[1].exists(x)",
            "has(request.path, 1)",
            "optional.foo(1)",
            "Foo{a: 1} == 1",
            "'a'.matches('(')",
            "'a'.matches(request.path)",
        ],
        Phase::Request,
        ResultType::Predicate
    ));
}

#[test]
fn what_is_not_known_in_a_phase_or_not_built_is_refused_by_name() {
    let sources = [
        "usage.total > 1",
        "response.code == 200",
        "llm.finished",
        "llm.model == 'a'",
        "llm.stream",
        "llm.maxOutput > 1",
        "llm.user == 'a'",
        "has(llm.session)",
        "llm.metadata['a'] == 'a'",
        "llm.operation == 'a'",
        "requestBodyJSON('model') == 'a'",
        "requestBodyJSON('/a' + 'b') == 'a'",
        "requestBodyJSON() == 'a'",
        "'/a'.requestBodyJSON() == 'a'",
        "llm.model.x == 'a'",
        "responseBodyJSON('/usage') == 1",
        "upstream.failuresLastMinute > 1",
        "filter_state == 'a'",
        "filter_state[request.path] == 'a'",
        "filter_state.a.b == 'a'",
    ];
    let before = told(&sources, Phase::Request, ResultType::Predicate);
    let after = told(&sources[..3], Phase::Response, ResultType::Predicate);
    insta::assert_snapshot!(format!("{before}-- in a response expression\n{after}"));
}

#[test]
fn a_type_that_can_be_known_is_that_of_the_use() {
    let predicates = told(
        &[
            "'a'",
            "1",
            "null",
            "[true]",
            "{}",
            "request.path",
            "request.headers.a",
            "request.size",
            "llm.estimate.total",
            "1 + 1",
            "'a' + request.path",
            "1 * auth.identity.x",
            "'a'.trim()",
            "'a'.split(',')",
            "[1].map(x, x)",
            "size('a')",
            "true ? 1 : 2",
        ],
        Phase::Request,
        ResultType::Predicate,
    );
    let counters = told(&["null", "[1]", "{}", "'a'.split(',')"], Phase::Request, ResultType::Counter);
    let amounts =
        told(&["'a'", "true", "request.path", "has(auth.identity)"], Phase::Request, ResultType::Amount);
    insta::assert_snapshot!(format!("{predicates}-- counters\n{counters}-- amounts\n{amounts}"));
}

#[test]
fn an_expression_that_is_too_large_is_told_the_limit() {
    let repeat = |before: &str, middle: &str, after: &str, times: usize| {
        format!("{}{middle}{}", before.repeat(times), after.repeat(times))
    };
    let sources = [
        format!("'{}' == ''", "a".repeat(5000)),
        repeat("(", "true", ")", 2000),
        repeat("[", "1", "]", 40),
        repeat("!-", "1", "", 1000),
        format!("request.path{}", ".a".repeat(1500)),
        format!("[1]{} == 1", "[0]".repeat(300)),
        format!("1{} == 1", " + 1".repeat(100)),
        format!("{}true", "true ? true : ".repeat(200)),
        repeat("[1].exists(x, ", "true", ")", 9),
        "[1, 2]".to_owned() + &".map(x, [x, x])".repeat(9) + " == []",
    ];
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    insta::assert_snapshot!(told(&sources, Phase::Request, ResultType::Predicate));
}

/// Expressions that fail for every request.
#[test]
fn types_that_never_fit_are_refused() {
    let sources = [
        "request.headers['x-count'] > 100",
        "request.headers['x-count'] == 100",
        "request.headers[request.method] == 100",
        "request.headers.x != null",
        "request.headers > 100",
        "request.headers == 'a'",
        "request.auth == null",
        "request.size > '100'",
        "request.size == '100'",
        "request.size.startsWith('1')",
        "request.time > 1000",
        "request.time.getHours('Europe/Berlin') < 8",
        "request.time.getHours(1) < 8",
        "request.path.getHours() < 8",
        "request.path.exists(c, c == '/')",
        "request.path.split('/').exists(part, part > 1)",
        "request.headers.exists(name, name == 1)",
        "[1, 2].exists(n, n == 'a')",
        "request.path && true",
        "!request.path",
        "request.path ? true : false",
        "'a' in request.path",
        "request.method in ['GET', 1]",
        "request.method in []",
        "1 in request.headers",
        "'a' == 1",
        "'a' < 1",
        "[1] < [2]",
        "null > 1",
        "true + 1 == 2",
        "request.path + 1 == 'a'",
        "request.path * 2 == 4",
        "-request.path == 1",
        "request.time + request.time == request.time",
        "request.time - 1 == request.time",
        "connection.mtls == 'true'",
        "llm.model == 1",
        "llm.stream == 'true'",
        "llm.estimate.total == '1'",
        "size(request.size) > 1",
        "(request.path == '/' ? 'a' : 1) == true",
        "auth.identity.level > 1 / 0",
        "duration('1y') > duration('1s') && request.path == '/'",
        "timestamp('yesterday') < request.time",
        "int('many') > request.size",
        "'abc'.substring(5) == request.path",
        "request.path == '/' ? 'yes' : 'no'",
    ];
    insta::assert_snapshot!(told(&sources, Phase::Request, ResultType::Predicate));
}

/// An expression is accepted if its result depends on the request.
#[test]
fn what_may_fit_compiles() {
    for source in [
        "auth.identity.level > 1 && auth.identity.level == 'a' && auth.identity.level in [1, 'a']",
        "auth.identity == {} && auth.identity.a == null && auth.identity[0] == 1",
        "auth.identity.groups.exists(g, g == 1 || g == 'a') && auth.identity.groups + ['a'] == []",
        "requestBodyJSON('/a') > 1 || requestBodyJSON('/a') == null",
        "metadata.filter_metadata.a.b == 1 && metadata.filter_metadata['a'] == {}",
        "llm.metadata.a == 1 && llm.metadata[?'a'].orValue(1) == 1 && llm.metadata == {}",
        "request.time.getHours('+02:00') == 1 && request.time.getHours(auth.identity.zone) == 1",
        "request.time - duration('1h') > timestamp(0) && request.time - request.time < duration('1h')",
        "int(request.headers['a']) > 1 && double(request.size) > 0.5 && string(request.size) == '1'",
        "(auth.identity.a ? 1 : 'a') == 1 && dyn(request.path) == 1",
        "request.headers.exists(name, name.startsWith('x-') && request.headers[name] == 'a')",
        "request.path.split('/').map(part, size(part)).exists(length, length > 1)",
        "[1, 'a'].exists(x, x == request.path) && [].exists(x, x > 1)",
        "type(auth.identity.a) == string && 'a' in auth.identity && 'a' in request.headers",
        "request.size / 2 > 1.5 && -request.size < 0 && request.size % 2u == 0",
        "auth.?identity.?groups[?5].orValue('none') == 'none' && auth.identity.?a.b == optional.none()",
        "false && 1 / 0 == 1 || true",
    ] {
        Expression::compile(source, Phase::Request, ResultType::Predicate)
            .unwrap_or_else(|error| panic!("{source}: {error}"));
    }
}
