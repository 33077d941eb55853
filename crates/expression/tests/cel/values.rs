//! The results of expressions.

use crate::{compile, facts, predicate, text};
use expression::cel::ResultType;
use expression::facts::Facts;

#[test]
fn a_predicate_is_true() {
    let facts = facts();
    let table = [
        // Kuadrant's announcement.
        r#"request.path == "/v1/chat/completions?a=b&c=d?""#,
        r#"request.auth.identity.metadata.annotations["kuadrant.io/groups"].split(",").exists(g, g == "free")"#,
        // The request.
        r#"request.url_path == "/v1/chat/completions""#,
        r#"request.query == "a=b&c=d?""#,
        r#"request.method == "POST" && request.host == "llm.example.com" && request.scheme == "https""#,
        r#"request.id == "0af7" && request.useragent.startsWith("openai/") && request.protocol == "HTTP/2""#,
        "request.size == 400 && request.size > 399.5",
        "!has(request.referer)",
        "has(request.headers) && has(request.headers.host) == false",
        r#"request.headers["x-tenant"] == "blue" && request.headers["X-Tenant"] == "blue""#,
        r#"request.headers.exists(name, name == "x-tenant")"#,
        r#""x-tenant" in request.headers && !("x-other" in request.headers)"#,
        r#"size(request.headers) == 9"#,
        r#"request.headers["x-list"].split(",").map(x, x.trim()) == ["a", "b", "c"]"#,
        // The connection.
        r#"source.address == "[2001:db8::7]:4321" && source.port == 4321"#,
        r#"source.remote_address == "2001:db8::7""#,
        r#"destination.address == "192.0.2.1:443" && !has(destination.port)"#,
        "connection.mtls && !has(connection.tls_version)",
        // The identity.
        r#"auth.identity.userid == "alice" && request.auth.identity.userid == "alice""#,
        "has(auth.identity) && has(request.auth) && !has(auth.identity.email)",
        r#"auth.identity["plan"] in ["gold", "platinum"]"#,
        r#""beta" in auth.identity.groups && auth.identity.groups[0] == "free" && size(auth.identity.groups) == 2"#,
        r#"auth.identity.groups == ["free", "beta"] && ["free", "beta"] == auth.identity.groups"#,
        r#"auth.metadata.quota == {"tokens": 500} && {"tokens": 500} == auth.metadata.quota"#,
        r#"auth.identity.nothing == null"#,
        r#"auth.identity.admin"#,
        r#"auth.identity.?plan.orValue("free") == "gold" && auth.identity[?"level"].orValue("none") == "none""#,
        r#"auth.?identity.?groups[?5].orValue("none") == "none""#,
        r#"auth.identity.exists(key, key == "plan")"#,
        // The estimate.
        "llm.estimate.input == 100 && llm.estimate.output == 1024 && llm.estimate.total == 1124",
        // Numbers mix.
        "1 + 1.5 == 2.5 && 1.5 + 1 == 2.5 && 2 * 0.5 == 1 && 3 - 0.5 == 2.5 && 1 / 2.0 == 0.5",
        "1u + 1 == 2 && 1 - 2u == -1 && 3u * 2.0 == 6.0 && 7 % 4u == 3 && 1u + 1u == 2u",
        "auth.identity.number * 0.1 < 1 && auth.identity.half + 1 == 1.5 && auth.identity.large > 1.0",
        "7 / 2 == 3 && -7 / 2 == -3 && 7 % -4 == 3",
        "1 == 1.0 && 1u == 1 && 1 in [1.0] && 1 < 1.5 && 2u > 1.5",
        "-9223372036854775808 < 0 && --1 == 1 && !!true && - -1 == 1",
        // Strings.
        r#"" A b ".trim().lowerAscii() == "a b" && "abc".upperAscii() == "ABC""#,
        r#""a-b-c".replace("-", "+") == "a+b+c" && "a-b-c".replace("-", "", 1) == "ab-c""#,
        r#""abc".replace("", "-") == "-a-b-c-" && "aXa".replace("a", "bb", -1) == "bbXbb""#,
        r#""abc".substring(1) == "bc" && "abc".substring(0, 2) == "ab" && "abc".charAt(1) == "b""#,
        r#""abcb".indexOf("b") == 1 && "abcb".lastIndexOf("b") == 3 && "abcb".indexOf("b", 2) == 3"#,
        r#""éaéa".indexOf("a") == 1 && "éaéa".lastIndexOf("éa") == 2 && "éaéa".lastIndexOf("éa", 1) == 0 && "é".indexOf("a") == -1"#,
        r#""abc".indexOf("", 7) == 3 && "abc".lastIndexOf("") == 3 && "abc".lastIndexOf("b", 1) == 1 && "abc".lastIndexOf("c", 1) == -1"#,
        r#"["a", "b"].join() == "ab" && ["a", "b"].join("-") == "a-b" && [].join("-") == """#,
        r#""abc".contains("b") && "abc".endsWith("c") && "abc".reverse() == "cba" && size("é") == 1"#,
        r#""a" + "b" == "ab" && [1] + [2] == [1, 2] && b"a" + b"b" == b"ab""#,
        r#""gpt-4o-mini".matches("^gpt-4o(-[a-z]+)?$") && matches("abc", "b")"#,
        // Macros, conversions and everything else.
        "[1, 2, 3].all(x, x > 0) && [1, 2, 3].exists_one(x, x == 2) && [1, 2, 3].existsOne(x, x == 2)",
        "[1, 2, 3].filter(x, x > 1) == [2, 3] && [1, 2].map(x, x * 2) == [2, 4] && [1, 2].map(x, x > 1, x) == [2]",
        r#"int("5") == 5 && double("0.5") == 0.5 && string(1) == "1" && bool("true") && uint(1) == 1u"#,
        r#"type(1) == int && type("a") == string && dyn(1) == 1"#,
        r#"has({"a": 1}.a) && {"a": 1}["a"] == 1 && "a" in {"a": 1} && {"a": {"b": [1]}}.a.b[0] == 1"#,
        r#"(true ? 1 : 2) == 1 && optional.of(1).value() == 1 && !optional.none().hasValue()"#,
        r#"[1, 2].map(x, optional.of(x).value()) == [1, 2] && [[1], [2]].exists(x, x[?0].orValue(0) == 2)"#,
        "false && 1 / 0 == 1 || true || 1 / 0 == 1",
        r#"'single' == "single" && r"\d" == "\\d" && "\u00e9" == "é""#,
        // Times.
        "request.time.getFullYear() == 2025 && request.time.getMonth() == 2 && request.time.getDate() == 1",
        "request.time.getDayOfMonth() == 0 && request.time.getDayOfYear() == 59 && request.time.getDayOfWeek() == 6",
        "request.time.getHours() == 13 && request.time.getMinutes() == 45 && request.time.getSeconds() == 10",
        r#"request.time.getMilliseconds() == 250 && request.time.getHours("-14:00") == 23"#,
        r#"request.time.getDate("+11:00") == 2 && request.time.getHours("UTC") == 13"#,
        r#"request.time == timestamp("2025-03-01T14:45:10.25+01:00") && int(request.time) == 1740836710"#,
        r#"request.time > timestamp("2025-01-01T00:00:00Z") && request.time < timestamp(1740836711)"#,
        r#"request.time - duration("1h30m") < request.time && duration("1h") > duration("59m59.9s")"#,
        r#"request.time - timestamp("2025-03-01T12:45:10.25Z") == duration("1h") && duration("90m").getHours() == 1"#,
        r#"timestamp("0001-01-01T00:00:00Z").getDayOfWeek() == 1 && timestamp("9999-12-31T23:59:59Z").getMonth() == 11"#,
        r#"timestamp("2000-02-29T00:00:00Z").getDayOfYear() == 59 && duration("-1.5s") + duration("2s") == duration("500ms")"#,
    ];
    for source in table {
        assert_eq!(predicate(source, &facts), "true", "{source}");
    }
}

#[test]
fn what_is_absent_is_named() {
    let anonymous = Facts::default();
    let facts = facts();
    let table = [
        ("no identity", &anonymous, r#"auth.identity.userid == "alice""#, Some("auth.identity")),
        ("no identity", &anonymous, r#"request.auth.identity.userid == "a""#, Some("request.auth")),
        ("no identity", &anonymous, "has(auth.identity)", None),
        ("no claim", &facts, r#"auth.identity.email == "a""#, Some("auth.identity.email")),
        ("no claim, computed", &facts, r#"auth.identity[request.method] == "a""#, Some("POST")),
        ("no claim deeper", &facts, "auth.metadata.quota.requests > 1", Some("auth.metadata.quota.requests")),
        (
            "no claim to go over",
            &facts,
            r#"auth.identity.roles.exists(r, r == "a")"#,
            Some("auth.identity.roles"),
        ),
        ("no part of null", &facts, "auth.identity.nothing.x == 1", Some("auth.identity.nothing")),
        ("nothing in null", &facts, "auth.identity.nothing.exists(x, true)", Some("a value (it is null)")),
        ("no header", &facts, r#"request.headers["X-Plan"] == "a""#, Some("request.headers.X-Plan")),
        ("no header", &facts, r#"!request.headers.xplan.startsWith("a")"#, Some("request.headers.xplan")),
        ("no header by another name", &facts, r#"request.referer == "a""#, Some("request.referer")),
        ("no element", &facts, "auth.identity.groups[7] == 'a'", Some("an element of a list")),
        ("no key", &facts, r#"{"a": 1}[request.method] == 1"#, Some("POST")),
        ("no attribute", &facts, "destination.port == 1", Some("destination.port")),
        ("no metadata", &facts, "metadata.filter_metadata.ns.key == 1", Some("metadata.filter_metadata.ns")),
        ("what decides comes first", &facts, r#"request.referer == "a" || true"#, None),
        ("what decides comes last", &facts, r#"request.referer == "a" && false"#, None),
    ];
    for (name, facts, source, expected) in table {
        let expression = compile(source, ResultType::Predicate).unwrap();
        assert_eq!(expression.absent(facts).as_deref(), expected, "{name}: {source}");
    }
}

#[test]
fn whatever_else_goes_wrong_has_failed_and_shows_no_value() {
    let facts = facts();
    let mut told = String::new();
    for source in [
        r#"auth.identity.userid.first == "a""#,
        "auth.identity.userid",
        "auth.identity.groups.exists(g, g > 1)",
        "auth.identity.userid + 1 == 2",
        "auth.identity.userid > 1",
        "auth.identity.userid * 2.0 > 1",
        "!auth.identity.userid",
        "-auth.identity.userid == 1",
        "auth.identity.number && true",
        "1 / 0 == 1",
        "1 % 0 == 1",
        "9223372036854775807 + 1 == 1",
        "-(-9223372036854775807 - 1) == 1",
        "-9223372036854775808 / -1 == 1",
        "auth.identity.large + auth.identity.large == 1",
        "int(auth.identity.userid) == 1",
        "int(1e300) == 1",
        "'abc'.substring(5) == ''",
        "'abc'.indexOf('c', 3) == 1",
        "'abc'.indexOf('c', -1) == 1",
        "'abc'.indexOf(1) == 1",
        "auth.identity.userid.join() == ''",
        "auth.identity.number.replace('a', 'b') == ''",
        "auth.identity.number.matches('a')",
        "timestamp(auth.identity.userid) == request.time",
        "duration('1y') == duration('1s')",
        "request.time.getHours('Europe/Berlin') == 1",
        "request.time + request.time == request.time",
        "{'a': 1, 'a': 2}.a == 1",
        "[1, 2].exists(x, x)",
        "auth.identity.userid ? true : false",
        "auth.identity.groups == 1 || auth.identity.userid.exists(x, true)",
        "optional.of(1) + 1 == 1",
        "{null: 1} == {}",
    ] {
        told.push_str(&format!("{source}\n    {}\n", predicate(source, &facts)));
    }
    insta::assert_snapshot!(told);
}

#[test]
fn a_counter_is_text() {
    let facts = facts();
    let table = [
        ("a string", "auth.identity.userid", "alice"),
        ("an int", "auth.identity.number", "7"),
        ("an int that was a double", "auth.identity.number * 1.0", "7"),
        ("a double", "auth.identity.half", "0.5"),
        ("a negative zero", "-0.0", "0"),
        ("a sum of doubles", "0.1 + 0.2", "0.30000000000000004"),
        ("a large double", "1e21", "1e21"),
        ("an unsigned int", "auth.identity.large", "18446744073709551615"),
        ("a bool", "auth.identity.admin", "true"),
        ("nothing in it", "''", ""),
        ("null", "auth.identity.nothing", "error: a value (it is null) is absent"),
        ("a list", "auth.identity.groups", r#"[Some("free"), Some("beta")]"#),
        (
            "a list with others in it",
            "auth.identity.groups.filter(g, false) + ['a', 1, 'a', null, {}, 1.0]",
            r#"[Some("a"), Some("1"), None]"#,
        ),
        (
            "a list without elements",
            "auth.identity.groups.filter(g, g == '')",
            "error: an element of a list is absent",
        ),
        (
            "a map",
            "auth.identity",
            "error: the value is of type map, and must be a string, number or bool, or a list of them",
        ),
        ("not a number", "0.0 / 0.0", "error: the value is not a finite number"),
        ("absent", "auth.identity.email", "error: auth.identity.email is absent"),
    ];
    for (name, source, expected) in table {
        assert_eq!(text(source, &facts), expected, "{name}");
    }
}

#[test]
fn metadata_is_that_of_the_filters_before_us() {
    // envoy.config.core.v3.Metadata {filter_metadata: {"ns": {"plan": "gold", "count": 2}}}
    let entry = |name: &[u8], value: &[u8]| {
        let mut entry = vec![0x0a, name.len() as u8];
        entry.extend(name);
        entry.extend([0x12, value.len() as u8]);
        entry.extend(value);
        let mut field = vec![0x0a, entry.len() as u8];
        field.extend(entry);
        field
    };
    let mut text = vec![0x1a, 4];
    text.extend(b"gold");
    let mut number = vec![0x11];
    number.extend(2_f64.to_le_bytes());
    let fields = [entry(b"plan", &text), entry(b"count", &number)].concat();
    let mut facts = Facts::default();
    facts.property(&["metadata".to_owned()], &entry(b"ns", &fields));
    let source =
        r#"metadata.filter_metadata["ns"].plan == "gold" && metadata.filter_metadata.ns.count + 1 == 3"#;
    assert_eq!(predicate(source, &facts), "true");
    assert_eq!(predicate("has(metadata.filter_metadata.other)", &facts), "false");
    let missing = predicate("metadata.filter_metadata.other.plan == 'gold'", &facts);
    assert_eq!(missing, "false");
}

/// The facts of a body, and what it does not reveal.
#[test]
fn a_body_s_facts_are_what_it_says() {
    let body = |text: &str| {
        let mut facts = facts();
        let read = llm::request::read(
            "/v1/chat/completions",
            "application/json",
            text.as_bytes(),
            llm::request::Extent::Whole,
        );
        facts.body(read, text.as_bytes(), &["/metadata", "/tools/1/name", "/n", ""].map(str::to_owned));
        facts
    };
    let told = body(
        r#"{"model":"m","stream":true,"max_tokens":7,"user":"u","litellm_session_id":"s","n":2,
            "metadata":{"team":"red","seats":3},"tools":[{"name":"a"},{"name":"b"}],"messages":"hi"}"#,
    );
    for (source, expected) in [
        ("llm.model", "m"),
        ("llm.stream", "true"),
        ("llm.maxOutput + 1", "8"),
        ("llm.user", "u"),
        ("llm.session", "s"),
        ("llm.operation", "chat"),
        ("llm.metadata.team", "red"),
        ("llm.metadata['seats'] * 0.5", "1.5"),
        ("llm.metadata.exists(key, key == 'team')", "true"),
        ("has(llm.metadata.team) && has(llm.metadata) && has(llm.user)", "true"),
        ("requestBodyJSON('/tools/1/name')", "b"),
        ("requestBodyJSON('/n') + 1", "3"),
        ("requestBodyJSON('').model", "m"),
        ("llm.metadata.nobody", "error: llm.metadata.nobody is absent"),
        ("llm.metadata.team.x", "error: `llm.metadata.team` is a string and has no parts"),
    ] {
        assert_eq!(text(source, &told), expected, "{source}");
    }
    let untold = body(r#"{"messages":[]}"#);
    for (source, expected) in [
        ("llm.model", "error: llm.model is absent"),
        ("llm.stream", "false"),
        ("llm.maxOutput", "error: llm.maxOutput is absent"),
        ("has(llm.user) || has(llm.metadata) || has(llm.metadata.team)", "false"),
        ("llm.metadata[?'team'].orValue('none')", "none"),
        ("requestBodyJSON('/n')", "error: requestBodyJSON('/n') is absent"),
    ] {
        assert_eq!(text(source, &untold), expected, "{source}");
    }
}
