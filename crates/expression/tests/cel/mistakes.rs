//! What can be known to be wrong before any request, in the words that the author of a policy reads.

use expression::cel::{Expression, Phase, Use};

fn told(sources: &[&str], phase: Phase, purpose: Use) -> String {
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
        Use::Predicate
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
        Use::Predicate
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
    let before = told(&sources, Phase::Request, Use::Predicate);
    let after = told(&sources[..3], Phase::Response, Use::Predicate);
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
        Use::Predicate,
    );
    let counters = told(&["null", "[1]", "{}", "'a'.split(',')"], Phase::Request, Use::Counter);
    let amounts = told(&["'a'", "true", "request.path", "has(auth.identity)"], Phase::Request, Use::Amount);
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
    insta::assert_snapshot!(told(&sources, Phase::Request, Use::Predicate));
}
