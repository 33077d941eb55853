//! For any source and any facts, evaluation does not crash and does not take long.

use crate::{compile, facts, predicate, text};
use expression::cel::{Expression, Phase, ResultType};
use expression::facts::{Facts, Need};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Compiles a source for every phase and result type, and evaluates it.
fn exercise(source: &str, facts: &Facts) {
    for purpose in [ResultType::Predicate, ResultType::Counter, ResultType::Amount] {
        for phase in [Phase::Request, Phase::Response] {
            if let Ok(expression) = Expression::compile(source, phase, purpose) {
                drop((expression.predicate(facts), expression.counter(facts), expression.amount(facts)));
                drop(Facts::needs(expression.references()));
            }
        }
    }
}

/// Fragments that form syntax trees of every kind when they are combined at random.
const PIECES: [&str; 68] = [
    "request",
    ".",
    "path",
    "headers",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ",",
    ":",
    "?",
    ".?",
    "[?",
    "&&",
    "||",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "in",
    "true",
    "false",
    "null",
    "1",
    "0",
    "2u",
    "1.5",
    "1e400",
    "'a'",
    "\"b\"",
    "b'c'",
    "r'\\d'",
    "'''",
    "'",
    "`",
    "x",
    "auth",
    "identity",
    "has",
    "map",
    "exists",
    "all",
    "filter",
    "exists_one",
    "size",
    "split",
    "replace",
    "matches",
    "optional",
    "of",
    "timestamp",
    "9223372036854775807",
    "//",
    "\n",
    " ",
    "\\",
    "é",
    "\0",
];

proptest! {
    #[test]
    fn any_text_is_an_expression_or_told(source in any::<String>()) {
        exercise(&source, &facts());
    }

    #[test]
    fn any_pieces_are_an_expression_or_told(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
        exercise(&pieces.concat(), &facts());
        exercise(&pieces.join(" "), &facts());
    }

    #[test]
    fn any_tree_is_evaluated(source in tree()) {
        exercise(&source, &facts());
        exercise(&source, &Facts::default());
    }

    #[test]
    fn any_header_is_text(name in "[a-zA-Z0-9-]{1,20}", value in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut facts = Facts::default();
        facts.header(&name, &value);
        let source = format!("request.headers[\"{}\"]", name.to_uppercase());
        prop_assert_eq!(text(&source, &facts), String::from_utf8_lossy(&value));
    }

    #[test]
    fn any_property_is_taken(
        path in prop::collection::vec("request|source|connection|metadata|headers|port|time|mtls|address|xds|route_name", 0..4),
        value in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut facts = Facts::default();
        facts.property(&path, &value);
        for source in [
            "source.port > 0 && source.remote_address == 'a' && connection.mtls",
            "request.time.getHours('+23:59') == 1 && request.time.getFullYear() == 1 && request.time.getDayOfYear() == 1",
            "request.time - duration('300000h') > request.time && has(metadata.filter_metadata)",
        ] {
            exercise(source, &facts);
        }
    }

    #[test]
    fn any_time_is_a_date(seconds in -62_135_596_800_i64..253_402_300_800) {
        let part = |name: &str| text(&format!("timestamp({seconds}).{name}()"), &Facts::default());
        let [year, date, hours, minutes, rest] =
            ["getFullYear", "getDate", "getHours", "getMinutes", "getSeconds"].map(part);
        let month: u8 = part("getMonth").parse().unwrap();
        let written = format!("{year:0>4}-{:02}-{date:0>2}T{hours:0>2}:{minutes:0>2}:{rest:0>2}Z", month + 1);
        prop_assert_eq!(text(&format!("int(timestamp('{written}'))"), &Facts::default()), seconds.to_string());
    }

    #[test]
    fn any_identity_is_looked_up(identity in identity()) {
        let mut facts = Facts::default();
        facts.auth(json!({"identity": identity}));
        for source in [
            "auth.identity.a.b == auth.identity.b",
            "auth.identity == auth.identity",
            "auth.identity.a + auth.identity.b == 1",
            "auth.identity.a < auth.identity.b || auth.identity.a in auth.identity.b",
            "auth.identity.exists(k, auth.identity[k] == auth.identity.a)",
            "auth.identity[?'a'].orValue(1) * 2 == size(auth.identity)",
            "auth.identity.a.split(',').map(x, [x, x]).exists(x, x == auth.identity.b)",
        ] {
            exercise(source, &facts);
        }
    }
}

fn tree() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "true",
        "false",
        "null",
        "0",
        "1",
        "-1",
        "2u",
        "1.5",
        "9223372036854775807",
        "'a,b'",
        "''",
        "b'a'",
        "[]",
        "{}",
        "request.path",
        "request.size",
        "request.headers",
        "request.headers['x-list']",
        "request.time",
        "auth.identity",
        "auth.identity.groups",
        "auth.identity.nothing",
        "auth.identity.large",
        "auth.none",
        "source.port",
        "x",
        "y",
        "duration('1h')",
        "optional.none()",
        "llm.estimate.total",
        "connection.mtls",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(6, 40, 3, |inner| {
        let operator = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "&&", "||",
        ]);
        let member = prop::sample::select(vec![
            "size()",
            "trim()",
            "lowerAscii()",
            "reverse()",
            "split('')",
            "split(',')",
            "join()",
            "matches('a*')",
            "getHours()",
            "getDayOfWeek('-08:00')",
            "hasValue()",
            "value()",
            "charAt(1)",
            "substring(1)",
        ]);
        let with = prop::sample::select(vec![
            "contains",
            "startsWith",
            "split",
            "join",
            "indexOf",
            "lastIndexOf",
            "orValue",
            "substring",
            "or",
            "charAt",
        ]);
        let global = prop::sample::select(vec![
            "size", "string", "int", "uint", "double", "type", "dyn", "bool", "bytes",
        ]);
        let repeat = prop::sample::select(vec!["map", "filter", "exists", "all", "exists_one"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone())
                .prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            (inner.clone(), member).prop_map(|(a, member)| format!("({a}).{member}")),
            (inner.clone(), with, inner.clone()).prop_map(|(a, with, b)| format!("({a}).{with}({b})")),
            (global, inner.clone()).prop_map(|(global, a)| format!("{global}({a})")),
            (inner.clone(), repeat, inner.clone())
                .prop_map(|(a, repeat, b)| format!("({a}).{repeat}(x, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}).replace({b}, 'xyz', 3)")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[?{b}]")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            inner.clone().prop_map(|a| format!("!({a})")),
            inner.clone().prop_map(|a| format!("-({a})")),
            inner.prop_map(|a| format!("optional.of({a})")),
        ]
    })
}

fn identity() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec(("[a-d]", inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Uses sources of the maximum depth. The module has a stack of 1 MiB.
#[test]
fn the_deepest_expressions_fit_on_a_small_stack() {
    // Without optimisation, the evaluator's stack frames are twenty times as large.
    const STACK: usize = if cfg!(debug_assertions) { 2 << 20 } else { 256 << 10 };
    let nested = |before: &str, middle: &str, after: &str, times: usize| {
        format!("{}{middle}{}", before.repeat(times), after.repeat(times))
    };
    let mut sources = Vec::new();
    for times in [8, 15, 30, 60, 120, 250, 500, 1000, 2000] {
        sources.push(nested("(", "true", ")", times));
        sources.push(nested("[", "1", "]", times) + " == []");
        sources.push(nested("{1: ", "1", "}", times) + " == {}");
        sources.push(nested("size(", "1", ")", times) + " == 1");
        sources.push(nested("(true ? ", "true", " : false)", times));
        sources.push(nested("true ? ", "true", " : true", times));
        sources.push("true ? true : ".repeat(times) + "true");
        sources.push("!-".repeat(times) + "1 == 1");
        sources.push("- ".repeat(times) + "1 == 1");
        sources.push("1 + ".repeat(times) + "1 == 1");
        sources.push("true && ".repeat(times) + "true");
        sources.push("1 < ".repeat(times) + "1");
        sources.push("auth".to_owned() + &".a".repeat(times) + " == 1");
        sources.push("auth".to_owned() + &".a".repeat(times) + "{a: 1} == 1");
        sources.push("auth".to_owned() + &"[0]".repeat(times) + " == 1");
        sources.push("auth".to_owned() + &"[?0]".repeat(times) + " == 1");
        sources.push("'a'".to_owned() + &".trim()".repeat(times) + " == 'a'");
        sources.push(nested("[1].exists(x, ", "true", ")", times));
        // Comparisons with an absent value have a defined result.
        sources.push(nested("[1].exists(x, ", "auth.none == x", ")", times));
        sources.push(nested("[1].all(x, !(", "auth.none == x", "))", times));
        sources.push(nested("[1].filter(x, ", "auth.none == x", ").size() == 1", times));
        sources.push(nested("(", "auth.none", " == true)", times));
        sources.push(nested("[", "auth.none == 1", "] == [true]", times));
        sources.push(nested("!(auth.none == 1 && ", "auth.none != 1", ")", times));
        sources.push("[[1]]".to_owned() + &".map(x, [x])".repeat(times) + " == []");
        sources.push(
            "[1]".to_owned()
                + &format!(".map(x, {}x{})", "[".repeat(25), "]".repeat(25)).repeat(times)
                + " == []",
        );
    }
    let run = move || sources.iter().for_each(|source| exercise(source, &facts()));
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(run).unwrap();
    assert!(thread.join().is_ok());
}

#[test]
fn an_evaluation_that_does_too_much_ends() {
    let mut facts = facts();
    facts.header("x-many", ["a"; 5000].join(",").as_bytes());
    facts.header("x-long", "a".repeat(60_000).as_bytes());
    facts.auth(json!({"identity": {"groups": (0..1000).map(|n| format!("group-{n}")).collect::<Vec<_>>()}}));
    let many = "request.headers['x-many'].split(',')";
    let long = "request.headers['x-long']";
    let too_much = [
        format!("{many}.exists(a, {many}.exists(b, a != b && b == 'x'))"),
        format!("{many}.all(a, {many}.all(b, {many}.all(c, true)))"),
        format!("{many}.all(a, size({long}) > 0)"),
        format!("{many}.all(a, !('b' in {many}))"),
        format!("{many}.all(a, !{long}.contains('b'))"),
        format!("{many}.all(a, !{long}.matches('b'))"),
        format!("{many}.map(a, {many}).size() == 1"),
        format!("{many}.map(a, {{'a': {many}}}).size() == 1"),
        format!("{many}.map(a, {long} + a).size() == 1"),
        format!("{long}.replace('a', {long}) == ''"),
        format!("{many}.join({long}) == ''"),
        format!("{many}.all(a, {long}.indexOf('b') < 0)"),
        format!("[{long}]{}.size() == 1", ".map(x, x + x)".repeat(8)),
        format!("[1]{}.size() == 1", ".map(x, [x, x, x, x, x, x, x, x, x, x])".repeat(8)),
        format!("[1]{}.size() == 1", ".map(x, optional.of([x, x, x, x, x, x, x, x, x, x]))".repeat(8)),
        format!("[[1]]{}.size() == 1", ".map(x, x + x + x + x + x + x + x + x + x + x)".repeat(8)),
    ];
    for source in too_much {
        let told = predicate(&source, &facts);
        assert_eq!(told, "the expression does too much: its lists or texts are too long", "{source}");
    }
    let enough = [
        "auth.identity.groups.exists(g, g == 'group-999')",
        "auth.identity.groups.filter(g, g.endsWith('7')).size() == 100",
        "request.headers['x-list'].split(',').all(a, auth.identity.groups.exists(g, g != a))",
        "!auth.identity.groups.exists(g, g in request.headers['x-list'].split(','))",
        "request.headers['x-long'].indexOf(request.headers['x-long'] + 'b') == -1",
        "size(request.headers['x-long'].replace('a', 'bb')) == 120000",
    ];
    for source in enough {
        assert_eq!(predicate(source, &facts), "true", "{source}");
    }
}

#[test]
fn references_are_facts_and_not_a_macros_variables() {
    let table: [(&str, &[&str]); 12] = [
        ("true", &[]),
        ("request.path == 'a' && request.path != request.method", &["request.method", "request.path"]),
        ("[1].map(x, x * 2) == [2] && [1].exists(y, [2].exists(z, y < z))", &[]),
        ("auth.identity.groups.exists(g, g == request.host)", &["auth.identity.groups", "request.host"]),
        ("auth.identity[request.method].a == 1", &["auth.identity", "request.method"]),
        ("auth.identity['a'].b[0].c == 1 && has(auth.identity.d)", &["auth.identity.a.b", "auth.identity.d"]),
        ("auth.?identity.?a[?'b'].orValue(1) == 1", &["auth.identity.a.b"]),
        ("request.headers['X-A'] == request.headers.b", &["request.headers.b", "request.headers.x-a"]),
        ("request.headers[request.auth.h] == 'a'", &["request.auth.h", "request.headers"]),
        ("has(request.headers['a']) || 'a' in request.headers", &["request.headers", "request.headers.a"]),
        ("llm.estimate.total > 1 && source.port == 1", &["llm.estimate.total", "source.port"]),
        ("metadata.filter_metadata['a.b'].c == 1", &["metadata.filter_metadata.a.b.c"]),
    ];
    for (source, expected) in table {
        let source = source.replace("has(request.headers['a'])", "has(request.headers.a)");
        let expression = compile(&source, ResultType::Predicate).unwrap();
        let found: Vec<String> = expression.references().iter().map(|path| path.join(".")).collect();
        assert_eq!(found, expected, "{source}");
    }
}

#[test]
fn each_fact_is_fetched_where_it_is_cheapest() {
    let header = |name: &str| Need::Header(name.to_owned());
    let property = |path: &[&str]| Need::Property(path.iter().map(|part| (*part).to_owned()).collect());
    let table = [
        ("request.path == request.url_path && request.query == ''", vec![header(":path")]),
        (
            "request.method == request.host",
            vec![header(":authority"), header(":method"), header("x-http-method-override")],
        ),
        ("request.scheme == request.useragent", vec![header(":scheme"), header("user-agent")]),
        ("request.referer == request.id", vec![header("referer"), header("x-request-id")]),
        ("request.size > 1 || llm.estimate.total > 1", vec![header("content-length")]),
        ("request.headers['X-A'] == 'a'", vec![header("x-a")]),
        ("'a' in request.headers && request.path == 'a'", vec![Need::Headers]),
        ("has(auth.identity) && has(request.auth.identity.a)", vec![Need::Identity]),
        (
            "request.protocol == 'a' && request.time > timestamp(0)",
            vec![property(&["request", "protocol"]), property(&["request", "time"])],
        ),
        ("source.remote_address == source.address", vec![property(&["source", "address"])]),
        (
            "connection.mtls && metadata.filter_metadata.a == 1",
            vec![property(&["connection", "mtls"]), property(&["metadata"])],
        ),
        ("true", vec![]),
    ];
    for (source, expected) in table {
        let expression = compile(source, ResultType::Predicate).unwrap();
        assert_eq!(Facts::needs(expression.references()), expected, "{source}");
    }
}

#[test]
fn facts_are_what_the_host_gave() {
    type Headers<'a> = &'a [(&'a str, &'a [u8])];
    let table: [(Headers<'_>, &str, &str); 12] = [
        (&[("x", b"a"), ("X", b"b")], "request.headers.x", "a,b"),
        (&[("x", b"\xff\xfea")], "request.headers.x", "\u{fffd}\u{fffd}a"),
        (&[(":path", b"/a"), (":path", b"/b?c")], "request.path", "/b?c"),
        (&[(":path", b"/a?b?c")], "request.url_path + ' ' + request.query", "/a b?c"),
        (&[(":path", b"/a")], "request.query", ""),
        (&[("content-length", b" 12 ")], "request.size", "12"),
        (&[("content-length", b"-1")], "request.size", "0"),
        (&[("content-length", b"99999999999999999999999")], "request.size", "0"),
        (&[], "request.size", "0"),
        (&[], "request.path", "error: request.path is absent"),
        (&[], "llm.estimate.total", "error: llm.estimate.total is absent"),
        (&[], "source.address", "error: source.address is absent"),
    ];
    for (headers, source, expected) in table {
        let mut facts = Facts::default();
        headers.iter().for_each(|(name, value)| facts.header(name, value));
        assert_eq!(text(source, &facts), expected, "{headers:?} {source}");
    }
}

#[test]
fn an_address_is_without_its_port() {
    for (address, expected) in [
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("192.0.2.1", "192.0.2.1"),
        ("/tmp/pipe", "/tmp/pipe"),
        ("@name:x", "@name:x"),
        ("[", "["),
        (":", ":"),
        ("", ""),
    ] {
        let mut facts = Facts::default();
        facts.property(&["source".to_owned(), "address".to_owned()], address.as_bytes());
        assert_eq!(text("source.remote_address", &facts), expected);
    }
}
