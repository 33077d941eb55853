//! The protocol without holds, as Envoy's own rate-limit filter uses it, and Kuadrant's two methods that
//! split it.

use crate::server::{POLICY, Server, descriptor, hits};
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit as Span;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::{Code, RateLimit};

const REQUESTS: Option<(&str, &str)> = Some(("requests", "60s"));
const TOKENS: Option<(&str, &str)> = Some(("tokens", "3600s"));

async fn started() -> Server {
    Server::start(&[("llm.yaml", POLICY)]).await
}

#[tokio::test]
async fn as_a_request_limiter() {
    let server = started().await;
    let mut client = server.envoy();
    let call = || hits(vec![descriptor("default/llm/free", REQUESTS, None)], 0);
    for remaining in [2, 1, 0] {
        let answer = client.should_rate_limit(call()).await.unwrap().into_inner();
        assert_eq!((answer.overall_code(), answer.statuses[0].limit_remaining), (Code::Ok, remaining));
    }
    let answer = client.should_rate_limit(call()).await.unwrap().into_inner();
    assert_eq!(answer.overall_code(), Code::OverLimit);
    let status = &answer.statuses[0];
    let name = "default/llm/free".to_owned();
    let limit = RateLimit { requests_per_unit: 3, unit: Span::Minute.into(), name };
    assert_eq!((status.code(), status.current_limit.as_ref()), (Code::OverLimit, Some(&limit)));
    let reset = status.duration_until_reset.unwrap();
    assert!((50..=60).contains(&reset.seconds), "{reset:?}");
    assert_eq!(server.books("free", "requests").await, [(3, 0)]);
    assert_eq!(server.metric(r#"weir_hits_total{outcome="refused"}"#).await, 1.0);
}

/// Envoy's filter as a token limiter. Before the request, its descriptor has `hits_addend: {number: 0}`.
/// After the request, with `apply_on_stream_done`, its descriptor has the usage.
#[tokio::test]
async fn as_a_token_limiter() {
    let server = started().await;
    let mut client = server.envoy();
    let before = || hits(vec![descriptor("default/llm/free", TOKENS, Some(0))], 0);
    let done = |tokens| hits(vec![descriptor("default/llm/free", TOKENS, Some(tokens))], 0);
    let mut code = async |call| client.should_rate_limit(call).await.unwrap().into_inner().overall_code();
    assert_eq!(code(before()).await, Code::Ok);
    assert_eq!(code(before()).await, Code::Ok);
    assert_eq!(code(done(0)).await, Code::Ok);
    assert_eq!(code(done(999)).await, Code::Ok);
    assert_eq!(code(before()).await, Code::Ok, "there is room for one");
    // Requests that were admitted together end one after another, and no usage is lost.
    assert_eq!(code(done(500)).await, Code::Ok);
    assert_eq!(code(done(500)).await, Code::OverLimit);
    assert_eq!(code(before()).await, Code::OverLimit);
    assert_eq!(server.books("free", "tokens").await, [(1999, 0)]);
}

/// Without `unit`, both rates of the limit count: one counts the tokens, and the other counts one request for
/// each call with tokens.
#[tokio::test]
async fn a_whole_limit_counts_in_both_units() {
    let server = started().await;
    let mut client = server.envoy();
    for (amount, of_request, tokens, requests) in
        [(Some(0), 0, 0, 0), (Some(120), 0, 120, 1), (None, 30, 150, 2), (None, 0, 151, 3)]
    {
        let call = hits(vec![descriptor("default/llm/free", None, amount)], of_request);
        let answer = client.should_rate_limit(call).await.unwrap().into_inner();
        assert_eq!(answer.overall_code(), Code::Ok);
        let used = |books: Vec<(u64, u64)>| books.first().map_or(0, |(used, _)| *used);
        assert_eq!(used(server.books("free", "tokens").await), tokens);
        assert_eq!(used(server.books("free", "requests").await), requests);
    }
    // No requests are left, so the next call is refused and charges no tokens.
    let call = hits(vec![descriptor("default/llm/free", None, None)], 0);
    let answer = client.should_rate_limit(call).await.unwrap().into_inner();
    assert_eq!((answer.overall_code(), answer.statuses.len()), (Code::OverLimit, 1));
    assert_eq!(server.books("free", "tokens").await, [(151, 0)]);
}

#[tokio::test]
async fn a_refused_call_costs_nothing_in_any_limit_and_an_unknown_limit_lifts_no_other() {
    let server = started().await;
    let mut client = server.envoy();
    let many = descriptor("default/llm/free", REQUESTS, Some(4));
    let all = descriptor("default/llm/all", None, None);
    let unknown = descriptor("default/llm/none", None, None);
    let call = hits(vec![all.clone(), unknown.clone(), many], 0);
    let answer = client.should_rate_limit(call).await.unwrap().into_inner();
    assert_eq!(answer.overall_code(), Code::OverLimit);
    let codes: Vec<_> = answer.statuses.iter().map(|status| status.code()).collect();
    assert_eq!(codes, [Code::Ok, Code::Unknown, Code::OverLimit]);
    assert_eq!(server.json("/api/counters").await, serde_json::json!([]));

    let answer = client.should_rate_limit(hits(vec![unknown, all], 0)).await.unwrap().into_inner();
    assert_eq!(answer.overall_code(), Code::Unknown);
    assert_eq!(server.books("all", "tokens").await, [(1, 0)]);
}

#[tokio::test]
async fn check_charges_nothing_and_report_refuses_nothing() {
    let server = started().await;
    let mut client = server.kuadrant();
    let one = |amount| vec![descriptor("default/llm/free", TOKENS, amount)];
    for (call, wanted) in [
        (hits(one(None), 0), Code::Ok),
        (hits(one(Some(1000)), 0), Code::Ok),
        (hits(one(Some(1001)), 0), Code::OverLimit),
        (hits(one(None), 1001), Code::OverLimit),
    ] {
        let answer = client.check_rate_limit(call).await.unwrap().into_inner();
        assert_eq!(answer.overall_code(), wanted);
        assert_eq!(server.json("/api/counters").await, serde_json::json!([]));
    }
    for (amount, of_request, used) in
        [(None, 0, 0), (Some(0), 7, 0), (None, 1000, 1000), (Some(500), 7, 1500)]
    {
        let answer = client.report(hits(one(amount), of_request)).await.unwrap().into_inner();
        assert_eq!(answer.overall_code(), Code::Ok);
        assert_eq!(server.books("free", "tokens").await.first().map_or(0, |(used, _)| *used), used);
    }
    let answer = client.check_rate_limit(hits(one(Some(0)), 0)).await.unwrap().into_inner();
    assert_eq!(answer.overall_code(), Code::OverLimit, "a debt leaves no room at all");
}
