use crate::{code, codes, head, page, table};
use expression::cel::{Expression, Phase, ResultType, functions};
use expression::facts::{ATTRIBUTES, Attribute, AttributeType, Origin};
use llm::request::Operation;
use policy::model::Unit;
use std::collections::BTreeSet;

/// The description of each attribute.
const ATTRIBUTE_MEANINGS: &[(&str, &str)] = &[
    ("request.path", "The path with its query. The path is normalised, as that of `request.url_path`"),
    (
        "request.url_path",
        "The path without its query: percent-decoded once, without `.` and `..`, empty segments, `;x`, and a trailing slash",
    ),
    ("request.query", "The query of the path, as sent"),
    ("request.method", "The method. It is unknown if `x-http-method-override` names another one"),
    ("request.host", "The host, in lower case, without port, user information and trailing dot"),
    ("request.scheme", "The scheme"),
    ("request.useragent", "The header `user-agent`"),
    ("request.referer", "The header `referer`"),
    ("request.id", "The header `x-request-id`"),
    (
        "request.size",
        "The length of the body: the header `content-length`, or what was read; 0 without a body",
    ),
    ("request.time", "When the request began"),
    ("request.protocol", "The protocol, such as `HTTP/1.1`"),
    ("source.address", "The client's address and port"),
    ("source.port", "The client's port"),
    ("source.remote_address", "The client's address without the port, as Envoy determines it"),
    ("destination.address", "The address and port that the client connected to"),
    ("destination.port", "The port that the client connected to"),
    ("connection.id", "Envoy's number of the connection"),
    ("connection.mtls", "Whether the client has presented a valid certificate"),
    ("connection.requested_server_name", "The server name of the TLS handshake (SNI)"),
    ("connection.tls_version", "The TLS version"),
    ("connection.subject_local_certificate", "The subject of the gateway's certificate"),
    ("connection.subject_peer_certificate", "The subject of the client's certificate"),
    ("connection.dns_san_local_certificate", "The first DNS name of the gateway's certificate"),
    ("connection.dns_san_peer_certificate", "The first DNS name of the client's certificate"),
    ("connection.uri_san_local_certificate", "The first URI of the gateway's certificate"),
    ("connection.uri_san_peer_certificate", "The first URI of the client's certificate"),
    ("connection.sha256_peer_certificate_digest", "The SHA-256 digest of the client's certificate"),
    ("connection.peer_certificate", "The client's certificate, URL-encoded PEM"),
    ("connection.transport_failure_reason", "Why the TLS handshake failed"),
    ("llm.estimate.input", "The estimated input tokens"),
    ("llm.estimate.output", "The estimated output tokens: the client's maximum, if it gives one"),
    ("llm.estimate.total", "Both"),
    (
        "upstream.failuresLastMinute",
        "Failed responses for this model in the last minute, in this Envoy worker",
    ),
    ("usage.input", "Input tokens, cached ones included"),
    ("usage.output", "Output tokens, reasoning included"),
    ("usage.total", "Input and output tokens"),
    ("usage.cached", "Input tokens that were read from the provider's cache"),
    ("usage.cacheWrite", "Input tokens that were written to the provider's cache"),
    ("usage.cacheWrite1h", "Of these, the tokens that are kept for an hour"),
    ("usage.reasoning", "Output tokens that are reasoning"),
    ("response.code", "The status code"),
    ("llm.finished", "Whether the response came to its end"),
    (
        "llm.model",
        "The model that the request names, in its path or its body. An error if it names several, or if the provider has stored the name",
    ),
    ("llm.stream", "Whether the response is to be a stream"),
    ("llm.maxOutput", "The client's own maximum output"),
    ("llm.user", "The end user that the request names"),
    ("llm.session", "The session that the request names"),
    ("llm.operation", "What the request asks for; see below"),
];

/// Facts that are maps and functions that are facts: the notation, type, phase and description of each.
const MAPS: &[(&str, &str, &str, &str)] = &[
    (
        "auth.identity.NAME",
        "any",
        "request",
        "A claim of the identity. `auth` is what the filter's `identity` setting finds",
    ),
    ("request.auth.identity.NAME", "any", "request", "The same, under Kuadrant's name"),
    (
        "request.headers[\"x-name\"]",
        "string",
        "request",
        "A request header. Several values are joined by commas",
    ),
    (
        "metadata.filter_metadata[\"NAMESPACE\"].NAME",
        "any",
        "request",
        "Dynamic metadata of filters in front of Weir",
    ),
    ("filter_state[\"NAME\"]", "string", "request", "A value of Envoy's filter state"),
    ("llm.metadata.NAME", "any", "body", "A member of the body's `metadata`"),
    ("requestBodyJSON(\"/pointer\")", "any", "body", "The value at a JSON pointer into the body"),
    ("response.headers[\"x-name\"]", "string", "response", "A response header"),
    (
        "responseBodyJSON(\"/pointer\")",
        "any",
        "response",
        "The value at a JSON pointer into the response, from the last document that has one",
    ),
];

const OPERATIONS: [Operation; 13] = [
    Operation::Chat,
    Operation::Completion,
    Operation::Response,
    Operation::Message,
    Operation::Embedding,
    Operation::Rerank,
    Operation::Image,
    Operation::Audio,
    Operation::Moderation,
    Operation::CountTokens,
    Operation::Models,
    Operation::Manage,
    Operation::Other,
];

fn known_at(attribute: &Attribute) -> &'static str {
    match attribute.origin {
        Origin::Body => "body",
        Origin::Usage | Origin::Code | Origin::Finished => "response",
        Origin::Header(_)
        | Origin::Method
        | Origin::Path
        | Origin::Host
        | Origin::UrlPath
        | Origin::Query
        | Origin::Size
        | Origin::Property
        | Origin::Address
        | Origin::Estimate
        | Origin::Failures => "request",
    }
}

fn kind(attribute: &Attribute) -> &'static str {
    match attribute.kind {
        AttributeType::Text => "string",
        AttributeType::Number => "number",
        AttributeType::Bool => "bool",
        AttributeType::Time => "timestamp",
    }
}

fn name(attribute: &Attribute) -> String {
    format!("{}.{}", attribute.root, attribute.name)
}

fn written(fact: &str) -> String {
    fact.replace("NAMESPACE", "envoy.filters.http.jwt_authn").replace("NAME", "tier")
}

#[test]
fn the_page_of_facts() {
    let mut text = head(
        "Facts",
        "A fact is something that a CEL expression can name. The column *Known* says from when on:\n\n\
         - `request`: with the headers of the request. Every expression can use it.\n\
         - `body`: once the body has been read. Every expression can use it, but the filter must have \
         `requestBody: {access: Buffer}`.\n\
         - `response`: after the response. Only `cost` can use it.\n\n\
         A fact that a request does not have is *absent*. A test of an absent fact is false, except `!=`, which is true; `has()` asks \
         whether it is there. [How Weir decides in doubt](../how-it-works.md#in-doubt-the-limit-applies) has the other rules.\n",
    );
    let mut rows: Vec<[String; 4]> = MAPS
        .iter()
        .map(|(fact, kind, known, about)| [code(fact), (*kind).into(), (*known).into(), (*about).into()])
        .collect();
    let meaning =
        |name: &str| ATTRIBUTE_MEANINGS.iter().find(|(known, _)| *known == name).map(|(_, about)| *about);
    rows.extend(ATTRIBUTES.iter().map(|attribute| {
        let name = name(attribute);
        let about = meaning(&name).unwrap_or_else(|| panic!("{name} has no meaning here"));
        [code(&name), kind(attribute).into(), known_at(attribute).into(), about.into()]
    }));
    rows.sort();
    text += &table(["Fact", "Type", "Known", "Meaning"], rows);
    text += &format!(
        "\n`llm.operation` is one of {}. {} use no tokens: they are charged none and hold none.\n",
        codes(OPERATIONS.iter().map(|operation| operation.name())),
        codes(
            OPERATIONS.iter().filter(|operation| !operation.uses_tokens()).map(|operation| operation.name())
        ),
    );
    page("reference/facts.md", &text);
}

#[test]
fn every_attribute_has_a_meaning_and_the_other_way_round() {
    let known: BTreeSet<String> = ATTRIBUTES.iter().map(name).collect();
    let described: BTreeSet<String> = ATTRIBUTE_MEANINGS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(known, described);
}

#[test]
fn every_fact_can_be_named_when_the_page_says_that_it_is_known() {
    let attributes = ATTRIBUTES.iter().map(|attribute| (name(attribute), known_at(attribute)));
    let maps = MAPS.iter().map(|(fact, _, known, _)| (written(fact), *known));
    for (fact, known) in attributes.chain(maps) {
        let named = format!("type({fact}) == string");
        let before = Expression::compile(&named, Phase::Request, ResultType::Predicate);
        match known {
            "response" => assert!(before.is_err(), "{fact} is known before the response"),
            _ => {
                let before = before.unwrap_or_else(|error| panic!("{fact}: {error}"));
                assert_eq!(before.fact_of_body().is_some(), known == "body", "{fact}");
            }
        }
        let after = Expression::compile(&format!("{named} ? 1 : 2"), Phase::Response, ResultType::Cost);
        assert!(after.is_ok(), "{fact}: {after:?}");
    }
}

#[test]
fn the_page_of_expressions() {
    let mut text = head(
        "Expressions",
        "Predicates, counters, `limitFrom`, `reservation.amount`, `reservation.ttl`, `enforceWhen`, `cost` and `onExceeded.body` are \
         [CEL](https://cel.dev) expressions over [facts](facts.md). A policy with an unknown fact or function, a wrong number of \
         arguments, or a type error is refused when it is loaded.\n\n\
         Weir's CEL differs from the specification in these points:\n\n\
         - Integers, unsigned integers and doubles can be mixed in arithmetic and comparisons.\n\
         - An absent fact makes a test false (`!=` true) instead of an error.\n\
         - The pattern of `matches` and the pointer of `requestBodyJSON` and `responseBodyJSON` must be literals.\n\
         - Header names are case-insensitive, and texts compared with a path or host are normalised like it.\n\
         - So that a client cannot evade a limit with a query, `request.path` ignores it in comparisons, in tests of its end, in \
         negated searches, and in `split`, `replace`, `indexOf` and `lastIndexOf`, unless the text contains `?` (or, except in \
         comparisons of the whole path, `=` or `&`).\n\
         - A comparison of `requestBodyJSON` with a number or boolean fails if the body has a scalar of another kind there, because \
         many servers convert it. A predicate that fails counts as true.\n\n\
         ## Functions and macros\n\n\
         An argument in brackets is optional.\n",
    );
    text += &table(
        ["Usage", "Value"],
        functions().into_iter().map(|function| {
            let gives = match function.gives.as_str() {
                "" => "(macro)".to_owned(),
                gives => gives.trim_start_matches("a ").trim_start_matches("an ").replace(" or a ", " or "),
            };
            [code(&function.usage), gives]
        }),
    );
    page("reference/expressions.md", &text);
}

#[test]
fn the_page_of_units() {
    let mut text = head(
        "Units",
        "The `unit` of a rate says what it counts. `reservation.amount` and `cost` are in the same unit, except that those of `usd` \
         are in micro-USD (a millionth of a US dollar).\n",
    );
    text += &table(
        ["Unit", "Counts", "Known before the response", "Default"],
        Unit::NAMED.iter().map(|(name, unit)| {
            let known = if unit.is_of_usage() { "no: the estimate is held" } else { "yes: 1" };
            let default = if *unit == Unit::default() { "yes" } else { "" };
            [code(name), unit.about().into(), known.into(), default.into()]
        }),
    );
    page("reference/units.md", &text);
}
