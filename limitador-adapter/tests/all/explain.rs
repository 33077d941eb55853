//! The output of `explain`.

use crate::binary::{adapter, folder, told};

const KUADRANT: &str = r#"
apiVersion: kuadrant.io/v1alpha1
kind: TokenRateLimitPolicy
metadata: {name: llm-token-limits}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: api-gateway}
  limits:
    free:
      rates: [{limit: 20000, window: 24h}]
      when:
      - predicate: request.path == "/v1/chat/completions"
      - predicate: >
          request.auth.identity.metadata.annotations["kuadrant.io/groups"].split(",").exists(g, g == "free")
      counters: [{expression: auth.identity.userid}]
    gold:
      rates: [{limit: 200000, window: 24h}]
      when:
      - predicate: request.path == "/v1/chat/completions"
      - predicate: >
          request.auth.identity.metadata.annotations["kuadrant.io/groups"].split(",").exists(g, g == "gold")
      counters: [{expression: auth.identity.userid}]
"#;

const STRICT: &str = r#"
apiVersion: weir.dev/v1alpha1
kind: TokenRateLimitPolicy
metadata: {name: strict, namespace: team}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: chat}
  failureMode: Deny
  limits:
    tenant:
      when: [{predicate: 'request.headers["x-tenant"] != "internal"'}]
      counters: [{expression: 'request.headers["x-tenant"]'}, {expression: source.remote_address}]
      rates: [{limit: 10, window: 90s, unit: requests}, {limit: 50, window: 1500ms}]
      reservation: {amount: "1"}
"#;

const ALICE: &str = r#"{"userid": "alice", "metadata": {"annotations": {"kuadrant.io/groups": "a,free"}}}"#;

const CHAT: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: llm\r\nX-Tenant: acme\r\n\r\n\
    {\"model\": \"gpt-4o\", \"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}";

const USAGE: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n\
    {\"choices\": [], \"usage\": {\"prompt_tokens\": 15, \"completion_tokens\": 85, \"total_tokens\": 100}}";

/// Runs `explain` on these files with these arguments.
fn explained(files: &[(&str, &str)], arguments: &[&str]) -> String {
    let folder = folder(files);
    let mut command = adapter();
    command.arg("explain").args(arguments).current_dir(folder.path());
    told(&command.output().unwrap(), folder.path())
}

fn of_alice(request: &str, more: &[(&str, &str)], arguments: &[&str]) -> String {
    let mut files = vec![("policy.yaml", KUADRANT), ("request", request), ("alice.json", ALICE)];
    files.extend(more);
    let basic = ["--policies", "policy.yaml", "--request", "request", "--identity", "alice.json"];
    explained(&files, &[&basic, arguments].concat())
}

#[test]
fn a_request_that_matches_and_its_response() {
    insta::assert_snapshot!(of_alice(CHAT, &[("response", USAGE)], &["--response", "response"]));
}

#[test]
fn a_stream_without_usage_and_a_failed_call() {
    let stream = "HTTP/2 200 \r\ncontent-type: text/event-stream\r\n\r\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"twelve chars\"}}]}\n\ndata: [DONE]\n\n";
    let failed = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\n\r\noh no";
    let last = |response| {
        let told = of_alice(CHAT, &[("response", response)], &["--response", "response"]);
        told[told.find("the response").unwrap()..].to_owned()
    };
    insta::assert_snapshot!([stream, failed].map(last).join("\n"));
}

#[test]
fn a_request_that_nothing_counts() {
    let without = explained(
        &[("policy.yaml", KUADRANT), ("request", CHAT)],
        &["--policies", "policy.yaml", "--request", "request"],
    );
    let elsewhere = of_alice("GET /v1/models HTTP/1.1\n\n", &[], &[]);
    insta::assert_snapshot!([without, elsewhere].join("\n"));
}

#[test]
fn a_request_that_can_never_pass() {
    let request = format!("POST /v1/chat/completions HTTP/1.1\r\n\r\n{}", "x".repeat(100_000));
    insta::assert_snapshot!(of_alice(&request, &[("response", USAGE)], &["--response", "response"]));
}

#[test]
fn a_request_that_is_changed() {
    let capping = KUADRANT.replace("counters:", "outputCap: Inject\n      counters:");
    let stream = CHAT.replace("\"model\"", "\"stream\": true, \"model\"");
    let files = [("policy.yaml", capping.as_str()), ("request", &stream), ("alice.json", ALICE)];
    let basic = ["--policies", "policy.yaml", "--request", "request", "--identity", "alice.json"];
    insta::assert_snapshot!(explained(&files, &basic));
}

#[test]
fn a_policy_of_a_route_whose_counter_cannot_be_evaluated() {
    let files = [("strict.yaml", STRICT), ("request", CHAT)];
    let basic = ["--policies", "strict.yaml", "--request", "request"];
    let elsewhere = explained(&files, &basic);
    let here = explained(&files, &[&basic[..], &["--route", "chat"]].concat());
    insta::assert_snapshot!([elsewhere, here].join("\n"));
}

#[test]
fn what_cannot_be_explained_is_told() {
    let bad = KUADRANT.replace("20000", "many");
    let files =
        [("policy.yaml", bad.as_str()), ("request", CHAT), ("list.json", "[]"), ("request.json", "{}")];
    let all = [
        explained(&files, &["--policies", "none.yaml", "--request", "request"]),
        explained(&files, &["--policies", "policy.yaml", "--request", "none"]),
        explained(&files, &["--policies", "policy.yaml", "--request", "request.json"]),
        explained(&files, &["--policies", "policy.yaml", "--request", "request", "--identity", "list.json"]),
        explained(&files, &["--policies", "policy.yaml", "--request", "request"]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_stream_that_outgrows_its_hold() {
    let cutting = KUADRANT.replace("kuadrant.io/v1alpha1", "weir.dev/v1alpha1").replacen(
        "counters:",
        "overrun: Cut\n      counters:",
        1,
    );
    let stream = CHAT.replace("\"model\"", "\"stream\": true, \"model\"");
    let told = |policy: &str| {
        let files = [("policy.yaml", policy), ("request", &stream), ("alice.json", ALICE)];
        let basic = ["--policies", "policy.yaml", "--request", "request", "--identity", "alice.json"];
        explained(&files, &basic)
    };
    let dry_run = cutting.replace("overrun: Cut", "overrun: Cut\n      enforceWhen: \"false\"");
    insta::assert_snapshot!([told(&cutting), told(&dry_run)].join("\n"));
}

#[test]
fn without_a_valid_policy_there_is_nothing_to_explain() {
    let invalid = STRICT.replace("rates:", "rate:");
    let files = [("policy.yaml", invalid.as_str()), ("request", CHAT)];
    let explained = explained(&files, &["--policies", "policy.yaml", "--request", "request"]);
    assert!(explained.starts_with("exit Some(1)"), "{explained}");
    assert!(explained.contains("rate: "), "{explained}");
    assert!(explained.ends_with("no valid policy to explain\n"), "{explained}");
}

#[test]
fn a_model_without_a_price_is_named() {
    let policy = r#"
apiVersion: weir.dev/v1alpha1
kind: TokenRateLimitPolicy
metadata: {name: budget}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: api-gateway}
  prices: [{model: "gpt-4*", input: "2.50", output: "10.00"}]
  limits:
    all:
      rates: [{limit: "5.00", window: 24h, unit: usd}]
"#;
    let of_model = |model: &str| {
        let chat = CHAT.replace("gpt-4o", model);
        let files = [("policy.yaml", policy), ("request", chat.as_str())];
        explained(&files, &["--policies", "policy.yaml", "--request", "request", "--reads-bodies"])
    };
    let told = of_model("mystery-1");
    assert!(
        told.contains("no price is for the model \"mystery-1\", so the highest price of the policy applies"),
        "{told}"
    );
    assert!(!of_model("gpt-4o").contains("no price"));
    assert!(of_model("").contains("no price matches, so the highest one applies: no model is named"));
}

/// A `tokenCompute` replaces the total.
#[test]
fn computed_tokens_are_shown() {
    let policy = include_str!("../../../docs/recipes/weighted-tokens.yaml");
    let arguments = ["--policies", "policy.yaml", "--request", "request", "--identity", "alice"];
    let alice = r#"{"sub": "alice"}"#;
    let told = explained(&[("policy.yaml", policy), ("request", CHAT), ("alice", alice)], &arguments);
    assert!(told.contains("will charge tokens.inputTokens + 4.0 * tokens.outputTokens"), "{told}");
}
