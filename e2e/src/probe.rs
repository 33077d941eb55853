//! Observes a gateway as a user would while part of Weir is unavailable, with one policy and one request.

use crate::client::{Request, Response};
use crate::{jwt, wait};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The maximum time until limits are in force again after an outage.
pub const HEALED: Duration = Duration::from_secs(10);

/// The status and limit of a response if the limit is enforced.
pub const LIMITED: (u16, Option<&str>) = (200, Some("1000000000"));

/// The path on which the gateways of these tests answer callers. The manifests contain it as a comment.
pub const USAGE_PATH: &str = "/weir/usage";

/// The user who reads their own usage. Nobody else sends their requests, so no charge of theirs is still under way.
const READER: &str = "a-reader";

/// Returns a policy with a billion tokens per user, for a Gateway in the namespace `default`.
pub fn policy(gateway: &str, failure_mode: &str) -> String {
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "TokenRateLimitPolicy",
        "metadata": { "name": "per-user", "namespace": "default" },
        "spec": {
            "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway },
            "failureMode": failure_mode,
            "limits": { "per-user": {
                "counters": [{ "expression": "auth.identity.userid" }],
                "rates": [{ "limit": 1_000_000_000, "window": "1h" }],
            } },
        },
    })
    .to_string()
}

/// Returns a request that costs little.
pub fn alice() -> Request {
    Request::chat(5).token(&jwt::token(&jwt::kuadrant_user("alice", "free")))
}

/// Returns the status and the limit in a response.
pub fn told(answer: &Response) -> (u16, Option<&str>) {
    (answer.status, answer.header("x-ratelimit-limit-tokens"))
}

/// Waits until a request gets this response, and returns how long that took.
pub fn becomes(to: SocketAddr, wanted: (u16, Option<&str>)) -> Duration {
    let (start, mut last) = (Instant::now(), String::new());
    let reached = wait::within(wait::DEADLINE, || match alice().try_send(to) {
        Ok(answer) => {
            last = format!("{:?} {}", told(&answer), answer.text());
            (told(&answer) == wanted).then_some(())
        }
        Err(error) => {
            last = error.to_string();
            None
        }
    });
    assert!(reached.is_some(), "wanted {wanted:?}, the last answer was {last}");
    start.elapsed()
}

/// Sends this many requests. Each of them must get this response.
pub fn stays(to: SocketAddr, wanted: (u16, Option<&str>), requests: usize) {
    for _ in 0..requests {
        let answer = alice().send(to);
        assert_eq!(told(&answer), wanted, "{}", answer.text());
    }
}

/// Waits until limits are in force again, and fails if that takes longer than [`HEALED`].
pub fn heals(what: &str, to: SocketAddr) {
    let took = becomes(to, LIMITED);
    println!("{what}: limits are in force {took:?} after its return");
    assert!(took < HEALED, "{what}: {took:?}");
}

/// Checks that callers of a gateway with [`policy`] read their own usage at [`USAGE_PATH`], and that it costs nothing.
pub fn reads_usage(to: SocketAddr) {
    let ask = |request: Request| request.try_send(to).ok().filter(|answer| answer.status == 200);
    let used = |user: &str| {
        let token = jwt::token(&jwt::kuadrant_user(user, "free"));
        let answer = ask(Request::get(USAGE_PATH).token(&token))?;
        let usage: Value = serde_json::from_str(&answer.text()).ok()?;
        let [limit] = usage["limits"].as_array()?.as_slice() else { panic!("one limit: {usage}") };
        assert_eq!((&limit["limit"], &limit["max"]), (&json!("per-user"), &json!(1_000_000_000)), "{usage}");
        limit["used"].as_u64()
    };
    let before = wait::until("the usage", || used(READER));
    let token = jwt::token(&jwt::kuadrant_user(READER, "free"));
    assert_eq!(told(&Request::chat(5).token(&token).send(to)), LIMITED);
    let after = wait::until("the charge", || used(READER).filter(|after| *after > before));
    assert_eq!(used(READER), Some(after), "reading it costs nothing");
    assert_eq!(used("nobody-else"), Some(0));
    assert!(ask(Request::get(USAGE_PATH)).is_none(), "a stranger reads nothing");
}

/// Returns the serial numbers of the certificates for a name on Envoy's page `/certs`.
pub fn certificates(page: &Value, name: &str) -> Vec<Value> {
    let pairs = page["certificates"].as_array().into_iter().flatten();
    let chains = pairs.flat_map(|pair| pair["cert_chain"].as_array().into_iter().flatten());
    let ours = chains.filter(|certificate| certificate["subject_alt_names"].to_string().contains(name));
    ours.map(|certificate| certificate["serial_number"].clone()).collect()
}
