//! Bodies with repeated fields, and calls that use no tokens: the holds or the refusal of each request.
// Clippy recognises tests by their attribute, and so misses functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::outbox::{CommitRoute, Outbox};
use expression::facts::Facts;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::{BodyAccess, Plan};
use prost::Message;
use protocol::call;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, ReserveRequest, ReserveResponse};
use serde_json::{Value, json};
use std::sync::Arc;

const CHAT: &str = "/v1/chat/completions";

fn plan(limits: &Value, more: &Value, access: BodyAccess) -> Plan {
    let mut document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "p"},
        "spec": {"targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"}},
    });
    document["spec"]["limits"] = limits.clone();
    for (key, value) in more.as_object().unwrap() {
        document["spec"][key] = value.clone();
    }
    Plan::new(vec![Policy::read(&document).expect("a good policy")]).with_body(access)
}

/// The outcome of a request: what it holds of each rate, or the status of its refusal.
fn outcome(plan: Plan, method: &str, path: &str, body: &str) -> Result<Vec<u64>, u16> {
    let mut facts = Facts::default();
    facts.header(":path", path.as_bytes());
    facts.header(":method", method.as_bytes());
    facts.header("content-type", b"application/json");
    if !body.is_empty() {
        facts.header("content-length", body.len().to_string().as_bytes());
    }
    outcome_of(plan, facts, body)
}

fn outcome_of(plan: Plan, facts: Facts, body: &str) -> Result<Vec<u64>, u16> {
    let id = ReservationId { prefix: "w".into(), number: 1 };
    let mut exchange = Exchange::new(ActivePlan::Plan(Arc::new(plan)), id);
    let mut effects = exchange.handle(Event::Request { facts, bodiless: body.is_empty() });
    if let [Effect::AwaitBody(_)] = effects.as_slice() {
        effects = exchange.handle(Event::RequestBody { body: body.as_bytes(), end: true });
    }
    let reserved = effects.iter().find_map(|effect| match effect {
        Effect::Reserve(call) => Some(ReserveRequest::decode(&**call).unwrap()),
        _ => None,
    });
    let refused = effects.iter().find_map(|effect| match effect {
        Effect::Deny(denial) => Some(denial.status),
        _ => None,
    });
    match (reserved, refused) {
        (None, Some(status)) => Err(status),
        (Some(call), None) => Ok(call.descriptors.iter().map(|one| one.hits_addend.unwrap()).collect()),
        (None, None) => Ok(Vec::new()),
        (Some(_), Some(_)) => panic!("{effects:?}"),
    }
}

fn tokens() -> Value {
    json!([{"limit": 100_000, "window": "1h"}])
}

#[test]
fn a_model_given_twice_is_refused_where_a_limit_depends_on_it() {
    let message = r#""messages":[{"role":"user","content":"hi"}],"max_tokens":5"#;
    let of = |model: &str| format!("{{{model},{message}}}");
    let conflicts = [
        r#""model":"cheap","model":"dear""#,
        r#""model":"dear","model":"cheap""#,
        r#""model":"cheap","MODEL":"dear""#,
        r#""MODEL":"dear","model":"cheap""#,
        r#""Model":"cheap","mOdel":"dear""#,
        r#""model":"cheap","mod\u0065l":"dear""#,
        r#""model":"cheap","model":null"#,
        r#""model":"","model":"dear""#,
        r#""model":"cheap","model":["dear"]"#,
        r#""model":"cheap","model":7,"model":"cheap""#,
    ];
    let depending = [
        json!({"l": {"when": [{"predicate": "llm.model == 'dear'"}], "rates": tokens()}}),
        json!({"l": {"when": [{"predicate": "llm.model != 'dear'"}], "rates": tokens()}}),
        json!({"l": {"when": [{"predicate": "requestBodyJSON('/model') == 'dear'"}], "rates": tokens()}}),
        json!({"l": {"counters": [{"expression": "llm.model"}], "rates": tokens()}}),
        json!({"l": {"rates": [{"limitFrom": "llm.model == 'dear' ? 5 : 50", "window": "1h"}]}}),
        json!({"l": {"rates": [{"limitFrom": "llm.model == 'dear' ? 5 : null", "window": "1h"}]}}),
        json!({"l": {"rates": [{"limit": "5.00", "window": "1h", "unit": "usd"}]}}),
    ];
    let prices = json!({"prices": [{"model": "*", "input": "3.00", "output": "15.00"}]});
    let buffer = BodyAccess::Buffer(1 << 20);
    for model in conflicts {
        for limits in &depending {
            assert_eq!(
                outcome(plan(limits, &prices, buffer), "POST", CHAT, &of(model)),
                Err(400),
                "{model} {limits}"
            );
        }
        let free = json!({"l": {"rates": tokens()}});
        let held = outcome(plan(&free, &json!({}), buffer), "POST", CHAT, &of(model));
        assert!(held.is_ok(), "{model}: nothing depends on it");
        let elsewhere = json!({"l": {"when": [{"predicate": "request.path == '/x'"}, {"predicate": "llm.model == 'dear'"}],
            "rates": tokens()}});
        assert_eq!(
            outcome(plan(&elsewhere, &json!({}), buffer), "POST", CHAT, &of(model)),
            Ok(vec![]),
            "{model}"
        );
        let named = "/openai/deployments/gpt/chat/completions";
        assert!(
            outcome(plan(&depending[1], &json!({}), buffer), "POST", named, &of(model)).is_ok(),
            "{model}: by path"
        );
    }
    for model in [
        r#""model":"dear""#,
        r#""model":"dear","model":"dear""#,
        r#""model":"dear","MODEL":"dear""#,
        r#""model":"dear","modelId":"cheap""#,
        r#""modelId":"cheap","model":"dear""#,
        r#""model":"dear","modelId":"""#,
        r#""MODEL":"dear""#,
        r#""model":"dear","models":["cheap"]"#,
        r#""model":"dear","metadata":{"model":"cheap"}"#,
    ] {
        let held = outcome(plan(&depending[0], &json!({}), buffer), "POST", CHAT, &of(model));
        assert_eq!(held, Ok(vec![6]), "{model}");
    }
}

#[test]
fn a_stream_given_twice_is_refused_where_it_is_asked_for_its_usage() {
    let buffer = BodyAccess::Buffer(1 << 20);
    let of = |stream: &str| format!(r#"{{{stream},"model":"m","messages":[{{"content":"hi"}}]}}"#);
    let limits = json!({"l": {"rates": tokens()}});
    let leave = json!({"usage": {"streamUsage": "Leave"}});
    for stream in [
        r#""stream":false,"stream":true"#,
        r#""stream":true,"stream":null"#,
        r#""stream":true,"STREAM":false"#,
        r#""stream":true,"ſtream":false"#,
        r#""stream":true,"Stream_Options":{"include_usage":false}"#,
    ] {
        assert_eq!(
            outcome(plan(&limits, &json!({}), buffer), "POST", CHAT, &of(stream)),
            Err(400),
            "{stream}"
        );
        assert!(outcome(plan(&limits, &leave, buffer), "POST", CHAT, &of(stream)).is_ok(), "{stream}");
        assert!(
            outcome(plan(&limits, &json!({}), buffer), "POST", "/v1/messages", &of(stream)).is_ok(),
            "{stream}"
        );
        let requests = json!({"l": {"rates": [{"limit": 5, "window": "1h", "unit": "requests"}]}});
        assert!(outcome(plan(&requests, &json!({}), buffer), "POST", CHAT, &of(stream)).is_ok(), "{stream}");
    }
    let named = json!({"l": {"when": [{"predicate": "llm.stream"}], "rates": tokens()}});
    let twice = of(r#""stream":true,"stream":false"#);
    assert_eq!(outcome(plan(&named, &leave, buffer), "POST", "/v1/messages", &twice), Err(400));
    assert!(
        outcome(plan(&named, &leave, buffer), "POST", CHAT, &of(r#""stream":true,"stream":true"#)).is_ok()
    );
}

#[test]
fn a_maximum_given_twice_is_refused_where_a_limit_depends_on_it() {
    let buffer = BodyAccess::Buffer(1 << 20);
    let of = |maxima: &str| format!(r#"{{{maxima},"model":"m","messages":[{{"content":"hi"}}]}}"#);
    let limits = json!({"l": {"rates": tokens()}});
    let capped = json!({"l": {"rates": tokens(), "outputCap": "Inject"}});
    let named = json!({"l": {"when": [{"predicate": "llm.maxOutput < 100"}], "rates": tokens()}});
    let fixed = json!({"l": {"reservation": {"amount": "7"}, "rates": tokens()}});
    for (maxima, held) in [
        (r#""max_tokens":5,"max_tokens":9000"#, Err(400)),
        (r#""max_tokens":9000,"max_tokens":5"#, Err(400)),
        (r#""max_tokens":5,"MAX_TOKENS":9000"#, Err(400)),
        (r#""max_tokens":5,"max_toKens":9000"#, Err(400)),
        (r#""max_tokens":5,"max_tokens":null"#, Err(400)),
        (r#""max_tokens":5,"max_tokens":-1"#, Err(400)),
        (r#""max_tokens":5,"max_tokens":"9000""#, Err(400)),
        (r#""MAX_TOKENS":5"#, Ok(vec![1025])),
        (r#""MAX_TOKENS":9000"#, Ok(vec![9001])),
    ] {
        assert_eq!(outcome(plan(&limits, &json!({}), buffer), "POST", CHAT, &of(maxima)), held, "{maxima}");
        assert_eq!(
            outcome(plan(&fixed, &json!({}), buffer), "POST", CHAT, &of(maxima)),
            Ok(vec![7]),
            "{maxima}"
        );
        assert_eq!(
            outcome(plan(&capped, &json!({}), buffer), "POST", CHAT, &of(maxima)),
            Err(400),
            "{maxima}"
        );
        assert_eq!(
            outcome(plan(&named, &json!({}), buffer), "POST", CHAT, &of(maxima)),
            Err(400),
            "{maxima}"
        );
    }
    for (maxima, held) in [
        (r#""max_tokens":5,"max_tokens":5.0"#, 6),
        (r#""max_tokens":5,"max_completion_tokens":9"#, 10),
        (r#""max_tokens":5,"maxTokens":9"#, 10),
        (r#""max_tokens":"9000""#, 9001),
        (r#""max_tokens":"5""#, 1025),
    ] {
        assert_eq!(
            outcome(plan(&limits, &json!({}), buffer), "POST", CHAT, &of(maxima)),
            Ok(vec![held]),
            "{maxima}"
        );
        assert!(outcome(plan(&capped, &json!({}), buffer), "POST", CHAT, &of(maxima)).is_ok(), "{maxima}");
    }
}

/// A body whose model is unknown.
const IN_DOUBT: &str = r#"{"model":["dear"],"messages":[{"content":"hi"}],"max_tokens":5}"#;

#[test]
fn a_maximum_that_depends_on_what_is_unknown_is_the_smallest() {
    let buffer = BodyAccess::Buffer(1 << 20);
    let usd = json!({"prices": [{"model": "*", "input": "3.00", "output": "15.00"}]});
    for (rate, body, held) in [
        (json!({"limitFrom": "llm.model == 'dear' ? 5 : 50"}), IN_DOUBT, vec![6]),
        (json!({"limitFrom": "llm.model == 'dear' ? 5 : null"}), IN_DOUBT, vec![6]),
        (json!({"limitFrom": "llm.model == 'free' ? null : 5"}), IN_DOUBT, vec![6]),
        (json!({"limitFrom": "llm.model == 'dear' ? '0.5' : '5.00'", "unit": "usd"}), IN_DOUBT, vec![78]),
        (json!({"limitFrom": "llm.model == 'dear' ? 5 : 50", "unit": "requests"}), IN_DOUBT, vec![1]),
        (json!({"limitFrom": "llm.model == 'dear' ? 5 : null"}), r#"{"model":"m"}"#, vec![]),
    ] {
        let mut rate = rate;
        rate["window"] = json!("1h");
        let limits = json!({"l": {"rates": [rate]}});
        assert_eq!(outcome(plan(&limits, &usd, buffer), "POST", CHAT, body), Ok(held), "{limits}");
    }
    let of = |most: &str| {
        let rates =
            json!([{"limitFrom": "llm.model == 'a' ? 1000 : llm.model == 'b' ? 50 : 2000", "window": "1h"}]);
        let limits = json!({"l": {"reservation": {"maxShare": most}, "rates": rates}});
        outcome(plan(&limits, &json!({}), buffer), "POST", CHAT, IN_DOUBT)
    };
    assert_eq!((of("20%"), of("10%")), (Ok(vec![6]), Err(413)), "the maximum is 50");
}

/// If all facts are known, the identity provider is at fault, and the policy's `failureMode` decides.
#[test]
fn a_maximum_that_fails_because_of_an_unknown_fact_is_zero() {
    let buffer = BodyAccess::Buffer(1 << 20);
    let readable = r#"{"model":"m","messages":[{"content":"hi"}],"max_tokens":5}"#;
    for (from, body, number, expected) in [
        ("size(llm.model)", IN_DOUBT, "5", Err(413)),
        ("auth.identity.limits[llm.model]", IN_DOUBT, "5", Err(413)),
        ("int(request.headers['x-number'])", readable, "abc", Ok(vec![])),
        ("int(request.headers['x-number'])", readable, "100", Ok(vec![6])),
        ("auth.identity.limits[llm.model]", readable, "5", Ok(vec![6])),
        ("auth.identity.wrong[llm.model]", readable, "5", Ok(vec![])),
        ("auth.identity.wrong", IN_DOUBT, "5", Ok(vec![])),
        // Without the value, the rate does not exist.
        ("int(request.headers['x-other'])", readable, "5", Ok(vec![])),
    ] {
        let rates = json!([{"limitFrom": from, "window": "1h"}]);
        let limits = json!({"l": {"reservation": {"maxShare": "50%"}, "rates": rates}});
        let mut facts = Facts::default();
        facts.header(":path", CHAT.as_bytes());
        facts.header(":method", b"POST");
        facts.header("content-length", body.len().to_string().as_bytes());
        facts.header("x-number", number.as_bytes());
        facts.auth(json!({"identity": {"limits": {"m": 100}, "wrong": {"m": "lots"}}}));
        let outcome = outcome_of(plan(&limits, &json!({}), buffer), facts, body);
        assert_eq!(outcome, expected, "{from} {body}");
    }
}

#[test]
fn a_cost_that_depends_on_what_is_unknown_is_the_largest() {
    let buffer = BodyAccess::Buffer(1 << 20);
    for (cost, held) in [
        ("llm.model == 'dear' ? usage.total * 10 : usage.total", 60),
        ("usage.total * (llm.model.startsWith('cheap') ? 1 : 10)", 60),
        ("usage.total * size(llm.model)", 6),
    ] {
        let limits = json!({"l": {"rates": [{"limit": 1000, "window": "1h", "cost": cost}]}});
        let held = Ok(vec![held]);
        assert_eq!(outcome(plan(&limits, &json!({}), buffer), "POST", CHAT, IN_DOUBT), held, "{cost}");
    }
}

/// Without a `content-length`, the length of a body is unknown until it was read.
#[test]
fn a_predicate_about_the_length_applies_to_a_body_of_unknown_length() {
    let body =
        |words: usize| format!(r#"{{"model":"m","messages":[{{"content":"{}"}}]}}"#, "word ".repeat(words));
    let (long, short, buffer) = (body(20_000), body(2), BodyAccess::Buffer(1 << 20));
    for when in ["request.size > 10000", "llm.estimate.input > 1000", "llm.estimate.total > 5000"] {
        let of = |unit: &str, access| {
            let rates = json!([{"limit": 1_000_000, "window": "1h", "unit": unit}]);
            plan(&json!({"l": {"when": [{"predicate": when}], "rates": rates}}), &json!({}), access)
        };
        let applies = |plan: Plan, headers: &[(&str, &str)], body: &str| {
            let mut facts = Facts::default();
            let common = [(":path", CHAT), (":method", "POST"), ("content-type", "application/json")];
            common.iter().chain(headers).for_each(|(name, value)| facts.header(name, value.as_bytes()));
            assert!(plan.rounds().iter().all(|round| round.is_open(&facts)), "{when}");
            outcome_of(plan, facts, body).unwrap().len() == 1
        };
        for unit in ["tokens", "requests"] {
            assert!(applies(of(unit, buffer), &[], &long), "{when} {unit}");
            assert!(applies(of(unit, BodyAccess::None), &[], &long), "{when} {unit}: unread");
            let length = long.len().to_string();
            assert!(
                applies(of(unit, BodyAccess::None), &[("content-length", &length)], &long),
                "{when} {unit}"
            );
            let length = short.len().to_string();
            assert!(
                !applies(of(unit, BodyAccess::None), &[("content-length", &length)], &short),
                "{when} {unit}"
            );
            assert!(!applies(of(unit, buffer), &[], ""), "{when} {unit}: no body");
        }
        assert!(!applies(of("tokens", buffer), &[], &short), "{when}");
    }
    let rates = json!([{"limit": 9, "window": "1h", "unit": "requests"}]);
    let limits = json!({"l": {"when": [{"predicate": "llm.estimate.input > 1000"}], "rates": rates}});
    let mut upload = Facts::default();
    upload.header(":path", b"/v1/files");
    upload.header(":method", b"POST");
    let upload = outcome_of(plan(&limits, &json!({}), BodyAccess::None), upload, &long);
    assert_eq!(upload, Ok(vec![]), "an upload uses no tokens");
}

#[test]
fn failures_of_an_unknown_model_are_unknown() {
    let buffer = BodyAccess::Buffer(1 << 20);
    let of = |model: &str| format!(r#"{{"model":{model},"messages":[{{"content":"hi"}}],"max_tokens":5}}"#);
    let failing = "upstream.failuresLastMinute > 5";
    for (limit, applies) in [
        (json!({"when": [{"predicate": failing}], "rates": tokens()}), Ok(vec![6])),
        (
            json!({"when": [{"predicate": failing}], "rates": [{"limit": 9, "window": "1h", "unit": "requests"}]}),
            Ok(vec![1]),
        ),
        (
            json!({"enforceWhen": failing, "reservation": {"maxShare": "1%"}, "rates": [{"limit": 100, "window": "1h"}]}),
            Err(413),
        ),
    ] {
        let limits = json!({"l": limit});
        let asked = |body: &str| {
            let mut facts = Facts::default();
            facts.failures([("dear".to_owned(), 9)].into_iter().collect());
            let length = body.len().to_string();
            for (name, value) in [
                (":path", CHAT),
                (":method", "POST"),
                ("content-type", "application/json"),
                ("content-length", &length),
            ] {
                facts.header(name, value.as_bytes());
            }
            outcome_of(plan(&limits, &json!({}), buffer), facts, body)
        };
        assert_eq!(asked(&of(r#""dear""#)), applies, "{limits}");
        assert_eq!(asked(&of(r#"["dear"]"#)), applies, "{limits}");
        assert_ne!(asked(&of(r#""cheap""#)), applies, "{limits}");
    }
}

#[test]
fn enforcement_is_off_only_if_that_is_certain() {
    let twice = r#"{"model":"dear","model":"cheap","messages":[{"content":"hi"}],"max_tokens":5}"#;
    for (when, refused) in [
        ("auth.identity.live == 'yes'", true),
        ("request.headers['x-live'] == 'yes'", true),
        ("request.headers['x-live'] == 'yes' && int(request.headers['content-type']) > 5", true),
        ("int(request.headers['content-type']) > 5 && request.headers['x-live'] == 'yes'", true),
        ("request.headers['content-type'] == 'yes'", false),
    ] {
        let limits = json!({"l": {"enforceWhen": when, "counters": [{"expression": "llm.model"}],
            "reservation": {"maxShare": "1%"}, "rates": [{"limit": 100, "window": "1h"}]}});
        for (body, status) in [(IN_DOUBT, 413), (twice, 400)] {
            let outcome = outcome(plan(&limits, &json!({}), BodyAccess::Buffer(1 << 20)), "POST", CHAT, body);
            assert_eq!(outcome.err(), refused.then_some(status), "{when}: {body}");
        }
    }
}

#[test]
fn what_uses_no_tokens_holds_none_in_every_access_mode() {
    let limits = json!({"l": {"reservation": {"amount": "100"}, "rates": [
        {"limit": 1000, "window": "1h"},
        {"limit": 1000, "window": "1h", "unit": "outputTokens"},
        {"limit": 5, "window": "1h", "unit": "requests"},
    ]}});
    let long = json!({"model": "m", "input": "x".repeat(4000), "messages": [{"content": "x".repeat(4000)}]})
        .to_string();
    for access in [BodyAccess::None, BodyAccess::Buffer(1 << 20)] {
        for (method, path, body) in [
            ("GET", "/v1/models", ""),
            ("GET", "/v1/responses/resp_1", ""),
            ("DELETE", "/v1/files/file-1", ""),
            ("POST", "/v1/responses/input_tokens", &long),
            ("POST", "/v1/messages/count_tokens", &long),
            ("POST", "/model/m/count-tokens", &long),
            ("POST", "/v1beta/models/g:countTokens", &long),
            ("POST", "/tokenize", &long),
            ("POST", "/api/show", &long),
            ("POST", "/v1/moderations", &long),
            ("POST", "/v1/files", &long),
            ("POST", "/v1/batches", &long),
        ] {
            let held = outcome(plan(&limits, &json!({}), access), method, path, body);
            assert_eq!(held, Ok(vec![1]), "{access:?} {method} {path}");
        }
        for (method, path) in [
            ("POST", "/v1/models"),
            ("POST", "/custom/models"),
            ("POST", "/v1/chat/completions/models"),
            ("POST", "/v1/moderations;x"),
            ("POST", "/v1//moderations"),
            ("POST", "/v1/Moderations"),
            ("POST", "/v1%2Fmoderations"),
            ("GET", "/v1/chat/completions"),
        ] {
            let held = outcome(plan(&limits, &json!({}), access), method, path, &long);
            assert_eq!(held, Ok(vec![100, 100, 1]), "{access:?} {method} {path}");
        }
    }
}

#[test]
fn a_conversation_is_kept_for_nothing_only_if_its_body_says_so() {
    let limits = json!({"l": {"reservation": {"amount": "100"}, "rates": [{"limit": 1000, "window": "1h"}]}});
    let (kept, answered) = (r#"{"items": [{"content": "hello"}]}"#, r#"{"model": "m", "inputs": "hello"}"#);
    let buffer = BodyAccess::Buffer(1 << 20);
    for path in ["/v1/conversations", "/v1/conversations/conv_1"] {
        for (access, body, held) in [
            (buffer, kept, vec![]),
            (buffer, answered, vec![100]),
            // OpenAI ignores the field; Mistral supports it.
            (BodyAccess::None, kept, vec![100]),
            (BodyAccess::None, answered, vec![100]),
        ] {
            let outcome = outcome(plan(&limits, &json!({}), access), "POST", path, body);
            assert_eq!(outcome, Ok(held), "{access:?} {path} {body}");
        }
    }
}

#[test]
fn a_cost_is_charged_for_what_uses_no_tokens_too() {
    let limits = json!({"l": {"rates": [{"limit": 1000, "window": "1h", "cost": "7"}]}});
    let held = outcome(plan(&limits, &json!({}), BodyAccess::None), "GET", "/v1/models", "");
    assert_eq!(held, Ok(vec![7]));
}

/// What a request for `mini` holds of a limit for the model `big`, and of a limit in micro-USD.
fn holds_of_big(path: &str, body: &Value, access: BodyAccess) -> (Vec<u64>, Vec<u64>) {
    let only_big = json!({"l": {"when": [{"predicate": "llm.model == 'big'"}], "rates": tokens()}});
    let usd = json!({"l": {"rates": [{"limit": "10.00", "unit": "usd", "window": "1h"}]}});
    let prices = json!({"prices": [
        {"model": "mini*", "input": "1", "output": "1"},
        {"model": "big", "input": "100", "output": "100"},
        {"model": "*", "input": "50", "output": "50"},
    ]});
    let held = |limits: &Value, more: &Value| {
        outcome(plan(limits, more, access), "POST", path, &body.to_string()).unwrap()
    };
    (held(&only_big, &json!({})), held(&usd, &prices))
}

#[test]
fn a_model_that_servers_read_differently_in_the_path_may_be_any() {
    let buffer = BodyAccess::Buffer(1 << 20);
    let body =
        json!({"model": "mini", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100});
    for path in [
        // An upstream such as nginx resolves these.
        "/openai/deployments/mini/../big/chat/completions",
        "/openai/deployments/mini%2F..%2Fbig/chat/completions",
        "/v1beta/models/mini%2F..%2Fbig:generateContent",
        "/model/mini/../big/converse",
        // FastAPI decodes these, and LiteLLM uses the path's model.
        "/openai/deployments%2Fbig/chat/completions",
        "/openai/deployments/big%2Fchat%2Fcompletions",
        // Azure ignores the case.
        "/openai/Deployments/big/chat/completions",
        // LiteLLM prefers the query's model, and others ignore it.
        "/v1/chat/completions?model=big",
        "/v1/chat%2Fcompletions?mod%65l=big",
        "/v1/chat/completions?model=mini&model=big",
    ] {
        let (tokens, usd) = holds_of_big(path, &body, buffer);
        assert!(tokens.len() == 1 && usd[0] >= 10_000, "{path}: {tokens:?} {usd:?}");
        let (_, usd) = holds_of_big(path, &body, BodyAccess::None);
        assert!(usd[0] >= 10_000, "{path} without its body: {usd:?}");
    }
    let without = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100});
    let not_mini = json!({"l": {"when": [{"predicate": "llm.model != 'mini'"}], "rates": tokens()}});
    let path = "/v1/chat/completions?model=mini";
    let held = outcome(plan(&not_mini, &json!({}), buffer), "POST", path, &without.to_string());
    assert_eq!(held.unwrap().len(), 1, "a server may use its default model");

    for path in [
        "/openai/deployments/mini/chat/completions",
        "/openai//deployments/mini/chat/completions/?api-version=1",
        "/v1/chat/completions?model=mini",
        "/v1/./chat/completions",
    ] {
        assert_eq!(holds_of_big(path, &body, buffer), (vec![], vec![101]), "{path}");
    }
}

/// The charges if the client leaves before the response.
fn charge_of_left(path: &str, body: &Value) -> Vec<u64> {
    charge_without_answer(path, body, [Event::Closed])
}

/// The charges if these events follow instead of the upstream's response.
fn charge_without_answer<const N: usize>(path: &str, body: &Value, events: [Event<'_>; N]) -> Vec<u64> {
    let limits = json!({"l": {"rates": tokens()}});
    let plan = plan(&limits, &json!({}), BodyAccess::Buffer(1 << 20));
    let id = ReservationId { prefix: "w".into(), number: 1 };
    let mut exchange = Exchange::new(ActivePlan::Plan(Arc::new(plan)), id);
    let mut facts = Facts::default();
    facts.header(":path", path.as_bytes());
    facts.header(":method", b"POST");
    exchange.handle(Event::Request { facts, bodiless: false });
    exchange.handle(Event::RequestBody { body: body.to_string().as_bytes(), end: true });
    let reply = ReserveResponse { code: Code::Ok.into(), ..ReserveResponse::default() }.encode_to_vec();
    exchange.handle(Event::Reply(call::reply(Ok(&reply))));
    let mut outbox = Outbox::new(1);
    for effect in events.into_iter().flat_map(|event| exchange.handle(event)) {
        if let Effect::Commit(settlement) = effect {
            outbox.push(settlement);
        }
    }
    let commit = CommitRequest::decode(&*outbox.send(CommitRoute::Unary, 0).unwrap().message).unwrap();
    commit.descriptors.iter().map(|one| one.hits_addend.unwrap_or_default()).collect()
}

/// Requests with results that clients can find without the response: in a thread, a conversation or a list.
fn findable() -> [(&'static str, Value); 5] {
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5000});
    let with = |body: &Value, name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        body
    };
    let response = json!({"input": "hello", "max_output_tokens": 5000});
    [
        ("/v1/threads/t/runs", json!({"instructions": "hello", "max_completion_tokens": 5000})),
        ("/v1/responses", with(&response, "background", json!(true))),
        ("/v1/responses", with(&response, "conversation", json!("conv_1"))),
        ("/v1/chat/completions", with(&chat, "store", json!(true))),
        ("/async/chat/completions", json!({"request": chat})),
    ]
}

#[test]
fn a_findable_result_is_charged_if_envoy_stops_waiting() {
    let head = || ResponseHead { status: 504, ..ResponseHead::default() };
    for (path, body) in findable() {
        assert!(charge_without_answer(path, &body, [Event::TimedOut(head())])[0] > 5000, "{path}");
        // The upstream's own timeout.
        let end = Event::Body { chunk: b"", end: true };
        assert_eq!(charge_without_answer(path, &body, [Event::Response(head()), end]), [0], "{path}");
    }
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]});
    let end = Event::Body { chunk: b"", end: true };
    assert_eq!(charge_without_answer("/v1/chat/completions", &chat, [Event::TimedOut(head()), end]), [0]);
}

#[test]
fn a_findable_result_is_charged_if_its_creator_leaves_at_once() {
    for (path, body) in findable() {
        assert!(charge_of_left(path, &body)[0] > 5000, "{path}");
    }
    let chat =
        json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5000, "store": false});
    let response = json!({"input": "hello", "max_output_tokens": 5000});
    for (path, body) in [("/v1/chat/completions", chat), ("/v1/responses", response)] {
        assert_eq!(charge_of_left(path, &body), [1], "{path}");
    }
}
