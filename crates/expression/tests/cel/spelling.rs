//! Different spellings of a path or a host give the same fact.

use crate::{compile, predicate};
use expression::cel::ResultType;
use expression::facts::Facts;

fn judged(source: &str, path: &str, host: &str) -> String {
    let mut facts = Facts::default();
    facts.header(":path", path.as_bytes());
    facts.header(":authority", host.as_bytes());
    predicate(source, &facts)
}

#[test]
fn every_spelling_of_a_path_is_the_same_path() {
    for predicate in [
        "request.url_path == '/v1/chat/completions'",
        "'/v1/chat/completions' == request.url_path",
        "request.url_path in ['/v1/responses', '/v1/chat/completions']",
        "request.url_path == '/v1//chat/completions/'",
        "!(request.url_path != '/v1/chat/completions/')",
        "request.path == '/v1/chat/completions'",
        "request.path in ['/v1/responses', '/v1/chat/completions']",
        "request.path == '/v1/chat/completions' && auth.identity.userid == 'nobody' || request.path == '/v1/chat/completions'",
        "request.url_path.startsWith('/v1/chat/')",
        "request.path.startsWith('/v1/chat/')",
        "request.url_path.matches('^/v1/chat/completions$')",
        "request.url_path.endsWith('/completions')",
    ] {
        for path in [
            "/v1/chat/completions",
            "/v1/chat/completions?",
            "/v1/chat/completions?x=/y",
            "/v1/chat/completions/",
            "/v1/chat/completions;x",
            "/v1/chat/completions;x=y/?z",
            "//v1/chat//completions",
            "/v1/./chat/completions/.",
            "/v1/models/../chat/completions",
            "/v1/%2e/chat/completions",
            "/v1%2Fchat%2fcompletions",
            "/v1/chat/completion%73",
            "/v1\\chat\\completions",
        ] {
            assert_eq!(judged(predicate, path, "gw"), "true", "{predicate}: {path}");
        }
        for path in ["/v1/chat", "/v1/models", "/", "/v1/chat/completions/../../models"] {
            assert_eq!(judged(predicate, path, "gw"), "false", "{predicate}: {path}");
        }
    }
}

#[test]
fn a_query_counts_where_it_is_asked_for() {
    for (predicate, path, wanted) in [
        ("request.path == '/a?b=c'", "/a?b=c", true),
        ("request.path == '/a?b=c'", "//a/?b=c", true),
        ("request.path == '/a?b=c'", "/a", false),
        ("request.path in ['/a', '/b?c']", "/a", true),
        ("request.path in ['/a', '/b?c']", "/b?c", true),
        ("request.path == '/a'", "/b?/a", false),
        ("request.path != '/a'", "/a?b", false),
        ("request.path.endsWith('/a')", "/v1/a?b", true),
        ("!request.path.endsWith('/models')", "/v1/chat?x=/models", true),
        ("request.path.matches('^/v1/(a|b)$')", "/v1/b?c", true),
        ("!request.path.matches('/models$')", "/v1/chat?x=/models", true),
        ("request.path.lowerAscii() == '/v1/a'", "/V1/A?b", true),
        ("request.path.lowerAscii() in ['/v1/b', '/v1/a/']", "//V1/A/?b", true),
        ("request.path.lowerAscii().endsWith('/a')", "/V1/A?b", true),
        ("request.path.matches('^/v1/a/?$')", "/v1/a?b", true),
        ("request.path.matches('(?i)/A$')", "/v1/a?b", true),
        ("request.path.matches('/a[^?]*$')", "/v1/ab?c", true),
        ("request.path.matches(r'/a\\z')", "/v1/a?b", true),
        ("request.path.matches(r'/a\\?b$')", "/v1/a?b", true),
        ("request.path.endsWith('alt=sse')", "/a?alt=sse", true),
        ("request.path.endsWith('?a')", "/a?a", true),
        ("request.path.matches('/a[?]b$')", "/a?b", true),
        ("request.path.matches('[?&]x=/b$')", "/a?x=/b", true),
        ("request.path.contains('/b')", "/a?/b", true),
        ("!request.path.contains('/models')", "/v1/chat?x=/models", true),
        ("!request.path.contains('models')", "/v1/chat?models", true),
        ("!request.path.lowerAscii().contains('/models')", "/V1/Chat?/models", true),
        ("!request.path.matches('/models/?')", "/v1/chat?/models", true),
        ("!(request.path.contains('/a') || request.path.matches('^/x|/b'))", "/c?/a/b", true),
        ("!(request.path.contains('/c') && request.path.contains('/a'))", "/c?/a", true),
        ("!request.path.contains('/models')", "/v1/models?x", false),
        ("!request.path.contains('x=1')", "/v1/chat?x=1", false),
        ("!request.path.matches('[?&]x')", "/v1/chat?x", false),
        ("request.path.contains('/models') == false", "/v1/chat?/models", true),
        ("true != request.path.contains('/models')", "/v1/chat?/models", true),
        ("request.path.contains('/models') ? false : true", "/v1/chat?/models", true),
        ("request.path.contains('/b') == true", "/a?/b", true),
        ("request.path.indexOf('/models') < 0", "/v1/chat?/models", true),
        ("request.path.lastIndexOf('models') == -1", "/v1/chat?models", true),
        ("request.path.indexOf('?x') == 2", "/a?x", true),
        ("request.path.split('/')[2] == 'chat'", "/v1/chat?x", true),
        ("request.path.split('/').size() == 3", "/v1/chat?/x", true),
        ("!request.path.split('/').exists(part, part == 'models')", "/v1/chat?/models", true),
        ("request.path.split('?')[1] == 'x'", "/v1/chat?x", true),
        ("request.path.lowerAscii().replace('/v1', '') == '/chat'", "/V1/chat?x", true),
        ("request.path.replace('a=1', 'b') == '/a?b'", "/a?a=1", true),
        ("request.path.substring(3) == '/chat'", "/v1/chat?x", true),
        ("'/chat' == request.path.substring(1).substring(2)", "/v1/chat?x", true),
        ("request.path.substring(3) in ['/chat', '/responses']", "/v1/chat?x", true),
        ("!request.path.substring(3).contains('/models')", "/v1/chat?/models", true),
        ("request.path.substring(3) == 'x=1'", "/a?x=1", true),
        ("request.path.substring(request.path.indexOf('?')) == '?x'", "/a?x", true),
        ("request.query == 'b=%20;//'", "//a;x?b=%20;//", true),
        ("request.query == ''", "/a/", true),
        ("request.url_path + '?' + request.query == request.path", "/a%2F%2Fb?c?d", true),
        ("request.url_path == '/a?b'", "/a%3Fb?c", true),
    ] {
        assert_eq!(judged(predicate, path, "gw"), wanted.to_string(), "{predicate}: {path}");
    }
}

#[test]
fn every_spelling_of_a_host_is_the_same_host() {
    for predicate in [
        "request.host == 'gw.example'",
        "request.host == 'GW.example:8080'",
        "request.host in ['gw.example.']",
        "request.host.endsWith('.example')",
        "!(request.host != 'gw.example:443')",
    ] {
        for host in [
            "gw.example",
            "GW.Example",
            "gw.example:80",
            "gw.example:",
            "gw.example.",
            "gw.example.:8443",
            "user@gw.example",
            "gw%2eexample",
        ] {
            assert_eq!(judged(predicate, "/", host), "true", "{predicate}: {host}");
        }
        assert_eq!(judged(predicate, "/", "other"), "false", "{predicate}");
    }
}

/// Envoy joins the hosts with a comma, and it is unknown which one the upstream uses.
#[test]
fn a_request_with_two_hosts_fails_the_predicate() {
    let mut facts = Facts::default();
    facts.header(":authority", b"gw,other");
    let expression = compile("request.host == 'gw'", ResultType::Predicate).unwrap();
    let told = expression.predicate(&facts).unwrap_err().to_string();
    assert_eq!(told, "the request names several hosts");
}

#[test]
fn exact_comparisons_of_what_a_client_chooses_are_found() {
    for (source, wanted) in [
        ("request.path == '/a'", "request.path [/a]"),
        ("'/a' == request['url_path']", "request.url_path [/a]"),
        ("request.host in ['a', 'b'] && true", "request.host [a b]"),
        ("request.host == request.headers['x-host']", "request.host [] request.headers.x-host []"),
        ("!(request.url_path != '/a')", "request.url_path [/a]"),
        ("['/a'].exists(path, path == request.path)", "request.path []"),
        ("request.path == '/a' ? request.host == 'b' : false", "request.path [/a] request.host [b]"),
        ("!(request.path == '/a')", ""),
        ("request.path != '/a'", ""),
        ("request.url_path.startsWith('/a') || request.path.matches('b')", ""),
    ] {
        let expression = compile(source, ResultType::Predicate).unwrap();
        let found = expression.exact_comparisons().iter();
        let found = found.map(|exact| format!("{} [{}]", exact.fact.join("."), exact.texts.join(" ")));
        assert_eq!(found.collect::<Vec<_>>().join(" "), wanted, "{source}");
    }
}
