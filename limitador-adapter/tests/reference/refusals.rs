use crate::{code, head, page, table};
use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::refusal::{Denial, HeaderList, invalid_request};
use expression::facts::Facts;
use llm::request::Dialect;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::Plan;
use prost::Message;
use protocol::call;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{DescriptorStatus, ReserveResponse};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// 2026-11-28T09:30:00Z.
const NOW: u64 = 1_795_858_200_000;

/// The dialects, each with a path.
const PATHS: [(&str, Dialect, &str); 7] = [
    ("OpenAI", Dialect::OpenAi, "/v1/chat/completions"),
    ("Anthropic", Dialect::Anthropic, "/v1/messages"),
    ("Gemini", Dialect::Gemini, "/v1beta/models/m:generateContent"),
    ("Bedrock", Dialect::Bedrock, "/model/m/converse"),
    ("Cohere", Dialect::Cohere, "/v2/chat"),
    ("Ollama", Dialect::Ollama, "/api/chat"),
    ("Unknown", Dialect::Unknown, "/anything"),
];

/// The meaning of each header.
const HEADERS: &[(&str, &str)] = &[
    ("content-type", "`application/json`, unless the policy's own body is not JSON"),
    ("retry-after", "The number of seconds until there may be room. Absent if a retry does not help"),
    ("retry-after-ms", "The same in milliseconds"),
    ("x-amz-retry-after", "The same in milliseconds, for AWS SDKs"),
    ("x-amzn-errortype", "The type of the error, for AWS SDKs"),
    ("x-should-retry", "`false` if a retry does not help, or not within a minute"),
    ("x-ratelimit-limit-requests", "The limit of the most constrained rate of `requests`"),
    ("x-ratelimit-remaining-requests", "The remaining amount"),
    ("x-ratelimit-reset-requests", "When its window ends, as a duration"),
    ("x-ratelimit-limit-tokens", "The limit of the most constrained rate of `tokens`"),
    ("x-ratelimit-remaining-tokens", "The remaining amount"),
    ("x-ratelimit-reset-tokens", "When its window ends, as a duration"),
    ("anthropic-ratelimit-requests-limit", "The same as `x-ratelimit-*`, in Anthropic's own headers"),
    ("anthropic-ratelimit-requests-remaining", ""),
    ("anthropic-ratelimit-requests-reset", "A time instead of a duration"),
    ("anthropic-ratelimit-tokens-limit", ""),
    ("anthropic-ratelimit-tokens-remaining", ""),
    ("anthropic-ratelimit-tokens-reset", ""),
    ("anthropic-ratelimit-input-tokens-limit", "Rates of `inputTokens`"),
    ("anthropic-ratelimit-input-tokens-remaining", ""),
    ("anthropic-ratelimit-input-tokens-reset", ""),
    ("anthropic-ratelimit-output-tokens-limit", "Rates of `outputTokens`"),
    ("anthropic-ratelimit-output-tokens-remaining", ""),
    ("anthropic-ratelimit-output-tokens-reset", ""),
    (
        "ratelimit-policy",
        "The eight most constrained rates, by the IETF draft: quota `q` and window `w` in seconds",
    ),
    ("ratelimit", "The same rates: the remaining amount (`r`), and the seconds until the window ends (`t`)"),
    (
        "x-ratelimit-warning",
        "The limits that have reached a threshold of `warnAt`, each with the highest one; at most eight. Hidden by `quotaHeaders: None`",
    ),
];

fn policy() -> Policy {
    let rate = |limit: u64, unit: &str| json!({ "limit": limit, "window": "1h", "unit": unit });
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": { "name": "llm" },
        "spec": {
            "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g" },
            "failureMode": "Deny",
            "limits": { "free": { "warnAt": ["10%"], "rates": [
                rate(1000, "tokens"), rate(500, "inputTokens"), rate(800, "outputTokens"), rate(5, "requests"),
            ] } },
        },
    });
    Policy::read(&document).expect("a good policy")
}

/// Plays an exchange. Returns it and the effects of the adapter's reply. If `tokens` is `None`, there is no
/// reply.
fn reserved(path: &str, length: &str, tokens: Option<(Code, u64)>) -> (Exchange, Vec<Effect>) {
    let plan = ActivePlan::Plan(Arc::new(Plan::new(vec![policy()])));
    let mut exchange = Exchange::new(plan, ReservationId { prefix: "w".into(), number: 1 });
    let mut facts = Facts::default();
    facts.header(":path", path.as_bytes());
    facts.header(":method", b"POST");
    facts.header("content-length", length.as_bytes());
    exchange.handle(Event::Request { facts, bodiless: false });
    let reply = tokens.map(|(code, remaining)| {
        let status = |(code, limit, remaining): (Code, u64, u64)| DescriptorStatus {
            code: code.into(),
            limit,
            remaining,
            reset_ms: 90_000,
            used: Some(limit - remaining),
            exceeded: false,
        };
        let all = [(code, 1000, remaining), (Code::Ok, 500, 450), (Code::Ok, 800, 700), (Code::Ok, 5, 4)];
        ReserveResponse {
            code: code.into(),
            reservation_id: String::new(),
            statuses: all.into_iter().map(status).collect(),
            lease: None,
        }
        .encode_to_vec()
    });
    exchange.answered_at(NOW);
    let reply = match &reply {
        Some(bytes) => call::reply(Ok(bytes)),
        None => Err(call::CallFailure::Timeout),
    };
    let effects = exchange.handle(Event::Reply(reply));
    (exchange, effects)
}

fn denial(path: &str, length: &str, tokens: Option<(Code, u64)>) -> Denial {
    let (_, effects) = reserved(path, length, tokens);
    let denial = effects.into_iter().find_map(|effect| match effect {
        Effect::Deny(denial) => Some(denial),
        _ => None,
    });
    denial.unwrap_or_else(|| panic!("{path} is not refused"))
}

/// Returns the headers of the response to an admitted request.
fn admitted(path: &str) -> HeaderList {
    let (mut exchange, _) = reserved(path, "400", Some((Code::Ok, 900)));
    let head = ResponseHead { status: 200, ..ResponseHead::default() };
    let effects = exchange.handle(Event::Response(head));
    let headers = effects.into_iter().find_map(|effect| match effect {
        Effect::SetHeaders(headers) => Some(headers),
        _ => None,
    });
    headers.unwrap_or_default()
}

fn shown(denial: &Denial) -> String {
    let own = |name: &str| {
        !name.starts_with("x-ratelimit") && !name.starts_with("anthropic-") && !name.starts_with("ratelimit")
    };
    let mut text = format!("```http\nHTTP/1.1 {}\n", denial.status);
    let headers = denial.headers.iter().filter(|(name, _)| own(name));
    headers.for_each(|(name, value)| text += &format!("{name}: {value}\n"));
    let body: Value = serde_json::from_slice(&denial.body).expect("it is JSON");
    text + &format!("\n{}\n```\n", serde_json::to_string_pretty(&body).unwrap())
}

#[test]
fn the_page_of_refusals() {
    let mut text = head(
        "Refusals",
        "A refused request is answered in the form of the API that was called, so that its client library understands it. \
         `onExceeded` in a policy replaces the status, headers or body. A refusal names the policy, the limit, and the numbers, \
         but never a counter's value. [Headers](headers.md) explains the headers; those that show quotas are left out here.\n",
    );
    for (name, dialect, path) in PATHS {
        text += &format!("\n## {name}\n\nA limit has no room:\n\n");
        text += &shown(&denial(path, "400", Some((Code::OverLimit, 100))));
        text += "\nThe request can never pass, whatever others use:\n\n";
        text += &shown(&denial(path, "40000", Some((Code::OverLimit, 1000))));
        text += "\nThe adapter did not answer in time, and `failureMode` is `Deny`:\n\n";
        text += &shown(&denial(path, "400", None));
        text += "\nThe body is ambiguous, or it has to be edited and cannot be edited:\n\n";
        text += &shown(&invalid_request(dialect, "The request body gives two models."));
    }
    page("reference/refusals.md", &text);
}

#[test]
fn the_page_of_headers() {
    let mut seen: BTreeMap<String, ([bool; 2], String)> = BTreeMap::new();
    for (_, _, path) in PATHS {
        let refused = [Some((Code::OverLimit, 100)), None].map(|reply| denial(path, "400", reply).headers);
        let never = denial(path, "40000", Some((Code::OverLimit, 1000))).headers;
        for (at, headers) in [(0, admitted(path)), (1, [refused.concat(), never].concat())] {
            for (name, value) in headers {
                let entry = seen.entry(name.into_owned()).or_insert_with(|| ([false; 2], value));
                entry.0[at] = true;
            }
        }
    }
    let described: Vec<_> = HEADERS.iter().map(|(name, _)| *name).collect();
    let known: Vec<_> = seen.keys().map(String::as_str).collect();
    let mut sorted = described.clone();
    sorted.sort_unstable();
    assert_eq!(known, sorted, "each header has a meaning, and no other");
    let mut text = head(
        "Headers",
        "Weir sets these headers on responses to requests that a limit applies to. `onExceeded.quotaHeaders` chooses which \
         rates of a policy they show. Weir removes the header that carries the identity before the request goes upstream.\n",
    );
    text += &table(
        ["Header", "Admitted", "Refused", "Example", "Meaning"],
        HEADERS.iter().map(|(name, about)| {
            let ([admitted, refused], example) = &seen[*name];
            let yes = |is: bool| if is { "yes".to_owned() } else { String::new() };
            [code(name), yes(*admitted), yes(*refused), code(example), (*about).to_owned()]
        }),
    );
    page("reference/headers.md", &text);
}
