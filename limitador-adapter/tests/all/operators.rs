//! `/api/counters`, and the command that calls it.

use crate::binary::adapter;
use crate::server::{POLICY, Server, commit, descriptor, head_and_body, reserve, whole};
use limitador_adapter::cli::Storage;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TOKEN: &str = "s3cret";

async fn start(with_token: bool, storage: Storage) -> Server {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("llm.yaml"), POLICY).unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let mut config = Server::config(vec![folder.path().join("llm.yaml")], 1000, storage);
    config.admin_token_file = with_token.then_some(token);
    Server::configured(folder, config).await
}

async fn call(server: &Server, method: &str, path: &str, token: &str, body: &str) -> (u16, String, String) {
    let to = SocketAddr::from(([127, 0, 0, 1], server.serving.http.port()));
    let mut stream = TcpStream::connect(to).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = head_and_body(&answer);
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head, body)
}

async fn post(server: &Server, path: &str, body: &Value) -> (u16, String) {
    let (status, _, body) = call(server, "POST", path, TOKEN, &body.to_string()).await;
    (status, body)
}

async fn list(server: &Server, query: &str) -> Vec<Value> {
    let (status, _, body) = call(server, "GET", &format!("/api/counters{query}"), TOKEN, "").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Charges alice 900 tokens and one request.
async fn charged(server: &Server) {
    server.kuadrant().reserve(reserve("1", whole(400, 1))).await.unwrap();
    server.kuadrant().commit(commit("1", whole(900, 1))).await.unwrap();
}

fn of_alice() -> Value {
    json!({"auth.identity.userid": "alice"})
}

#[tokio::test]
async fn changes_need_the_token_even_on_loopback() {
    let server = start(false, Storage::Memory).await;
    for path in ["/api/counters/reset", "/api/counters/grant"] {
        assert_eq!(call(&server, "POST", path, TOKEN, "{}").await.0, 403, "{path}");
    }
    assert_eq!(call(&server, "GET", "/api/counters", "", "").await.0, 200);
    let server = start(true, Storage::Memory).await;
    for path in ["/api/counters/reset", "/api/counters/grant"] {
        assert_eq!(call(&server, "POST", path, "wrong", "{}").await.0, 401, "{path}");
        assert_eq!(call(&server, "POST", path, TOKEN, "{}").await.0, 400, "{path}");
        assert_eq!(call(&server, "GET", path, TOKEN, "").await.0, 405, "{path}");
    }
}

#[tokio::test]
async fn a_reset_resets_what_it_names() {
    let server = start(true, Storage::Memory).await;
    for (body, count) in [
        (json!({"policy": "default/llm"}), 3),
        (json!({"policy": "default/llm", "limit": "free"}), 2),
        (json!({"policy": "default/llm", "limit": "free", "unit": "tokens"}), 1),
        (json!({"policy": "default/llm", "unit": "tokens"}), 2),
        (json!({"policy": "default/llm", "unit": "tokens", "window": "24h"}), 1),
        (json!({"policy": "default/llm", "counters": of_alice()}), 2),
        (json!({"policy": "default/llm", "counters": {"auth.identity.userid": "bob"}}), 0),
        (json!({"policy": "default/other"}), 0),
    ] {
        post(&server, "/api/counters/reset", &json!({"policy": "default/llm"})).await;
        charged(&server).await;
        server.kuadrant().commit(commit(&body.to_string(), whole(900, 1))).await.unwrap();
        assert_eq!(
            post(&server, "/api/counters/reset", &body).await,
            (200, json!({"reset": count}).to_string()),
            "{body}"
        );
        assert_eq!(list(&server, "").await.len(), 3 - count, "{body}");
    }
    for bad in
        [json!({}), json!({"policy": 1}), json!({"policy": "default/llm", "limits": "free"}), json!([])]
    {
        assert_eq!(post(&server, "/api/counters/reset", &bad).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_grant_is_seen_in_counters_and_in_statuses_and_counts_once() {
    let server = start(true, Storage::Memory).await;
    charged(&server).await;
    let body = json!({
        "policy": "default/llm", "limit": "free", "unit": "tokens", "counters": of_alice(), "amount": 500, "id": "ticket 1",
    });
    for _ in 0..2 {
        let (status, answer) = post(&server, "/api/counters/grant", &body).await;
        assert_eq!(status, 200, "{answer}");
        let bucket: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(bucket, list(&server, "?limit=free&unit=tokens").await[0]);
        assert_eq!((&bucket["max"], &bucket["used"]), (&json!(1000), &json!(900)));
        assert_eq!((&bucket["granted"], &bucket["remaining"]), (&json!(500), &json!(600)));
    }
    let reserved = server.kuadrant().reserve(reserve("2", whole(600, 1))).await.unwrap().into_inner();
    assert_eq!((reserved.statuses[0].limit, reserved.statuses[0].remaining), (1500, 0));
    let refused = server.kuadrant().reserve(reserve("3", whole(1, 1))).await.unwrap().into_inner();
    assert_eq!(refused.code, 2);
}

#[tokio::test]
async fn what_cannot_be_granted_is_refused_with_the_reason() {
    let server = start(true, Storage::Memory).await;
    let good = json!({
        "policy": "default/llm", "limit": "free", "unit": "tokens", "counters": of_alice(), "amount": 500, "id": "1",
    });
    for (field, value, status, reason) in [
        ("policy", json!("default/other"), 404, "no limit default/other/free is in force"),
        ("limit", json!("fre"), 404, "no limit default/llm/fre is in force"),
        ("unit", json!("token"), 400, "unit: unknown unit"),
        ("unit", json!("usd"), 404, "default/llm/free has no such rate"),
        ("unit", json!("concurrency"), 400, "concurrency has no window"),
        ("window", json!("24h"), 404, "has no such rate"),
        ("counters", json!({}), 400, "counters: must name [auth.identity.userid]"),
        ("counters", json!({"user": "alice"}), 400, "counters: must name [auth.identity.userid]"),
        ("amount", json!(0), 400, "amount: must be at least 1"),
        ("amount", json!(-1), 400, "invalid value"),
        ("id", json!(""), 400, "id: must be"),
        ("id", json!("x".repeat(257)), 400, "id: must be"),
        ("more", json!(1), 400, "unknown field `more`"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let (code, answer) = post(&server, "/api/counters/grant", &body).await;
        assert_eq!(code, status, "{body}: {answer}");
        assert!(answer.contains(reason), "{body}: {answer}");
    }
    assert_eq!(list(&server, "").await.len(), 0);
}

#[tokio::test]
async fn the_list_is_filtered_and_comes_in_pages() {
    let server = start(true, Storage::Memory).await;
    charged(&server).await;
    for (query, count) in [
        ("", 3),
        ("?limit=free", 2),
        ("?unit=tokens", 2),
        ("?policy=default%2Fllm&window=1m", 1),
        ("?counter=auth.identity.userid:alice", 2),
        ("?counter=auth.identity.userid:bob", 0),
    ] {
        assert_eq!(list(&server, query).await.len(), count, "{query}");
    }
    assert_eq!(call(&server, "GET", "/api/counters?units=tokens", TOKEN, "").await.0, 400);
    let (mut path, mut found) = ("/api/counters?count=1".to_owned(), Vec::new());
    loop {
        let (status, head, body) = call(&server, "GET", &path, TOKEN, "").await;
        assert_eq!(status, 200);
        let page: Vec<Value> = serde_json::from_str(&body).unwrap();
        assert_eq!(page.len(), 1);
        found.extend(page);
        let Some((_, link)) = head.split_once("link: <") else { break };
        path = link.split_once('>').unwrap().0.to_owned();
    }
    assert_eq!(found, list(&server, "").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_lists_resets_and_grants() {
    let server = start(true, Storage::Memory).await;
    charged(&server).await;
    let run = |arguments: &[&str]| {
        let output = adapter()
            .arg("counters")
            .args(arguments)
            .args(["--server", &format!("http://{}", server.serving.http), "--token-file"])
            .arg(server.folder.path().join("token"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    };
    let alice = "auth.identity.userid=alice";
    let (is_good, text) = run(&["list", "--limit", "free", "--unit", "tokens"]);
    assert!(is_good, "{text}");
    let line = "default/llm/free per 1h auth.identity.userid=alice: 900 tokens used, 0 tokens held, 0 tokens granted, \
                100 tokens remaining, resets in ";
    assert!(text.starts_with(line), "{text}");
    let grant =
        ["grant", "--policy", "default/llm", "--limit", "free", "--unit", "tokens", "--counter", alice];
    let (is_good, text) = run(&[&grant[..], &["--amount", "500", "--id", "1"]].concat());
    assert!(is_good && text.contains("500 tokens granted, 600 tokens remaining"), "{text}");
    let (is_good, text) = run(&["reset", "--policy", "default/llm", "--counter", alice]);
    assert_eq!((is_good, text.as_str()), (true, "2 counters reset\n"));
    assert_eq!(run(&["list", "--counter", alice]), (true, "no counters\n".to_owned()));
    let (is_good, text) = run(&["reset", "--policy", "default/llm", "--limit", "all", "--unit", "usd"]);
    assert_eq!((is_good, text.as_str()), (true, "0 counters reset\n"));
    let (is_good, text) = run(&[&grant[..7], &["--amount", "500"]].concat());
    assert!(!is_good && text.contains("counters: must name [auth.identity.userid]"), "{text}");
}

/// A sliding window never ends, so nothing can be granted until it ends. It can be reset.
#[tokio::test]
async fn a_sliding_window_takes_no_grant_and_can_be_reset() {
    let folder = tempfile::tempdir().unwrap();
    let policy = POLICY.replace("window: 24h}", "window: 24h, windowType: Sliding}");
    std::fs::write(folder.path().join("llm.yaml"), policy).unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let mut config = Server::config(vec![folder.path().join("llm.yaml")], 1000, Storage::Memory);
    config.admin_token_file = Some(token);
    let server = Server::configured(folder, config).await;
    let tokens =
        |amount| vec![descriptor("default/llm/all", Some(("tokens", "86400s-sliding")), Some(amount))];
    server.kuadrant().commit(commit("1", tokens(900))).await.unwrap();
    let of_all = |more: Value| {
        let mut body = json!({"policy": "default/llm", "limit": "all", "unit": "tokens"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for window in [json!({}), json!({"window": "24h (sliding)"})] {
        let mut body = of_all(json!({"amount": 500, "id": "1"}));
        body.as_object_mut().unwrap().extend(window.as_object().unwrap().clone());
        let (status, answer) = post(&server, "/api/counters/grant", &body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains("a sliding window does not end"), "{answer}");
    }
    let listed = list(&server, "?limit=all&unit=tokens").await;
    assert_eq!((&listed[0]["used"], &listed[0]["granted"]), (&json!(900), &json!(0)));
    let reset = post(&server, "/api/counters/reset", &of_all(json!({"window": "24h (sliding)"}))).await;
    assert_eq!(reset, (200, json!({"reset": 1}).to_string()));
    assert_eq!(list(&server, "?limit=all&unit=tokens").await, Vec::<Value>::new());
    // The window starts anew.
    server.kuadrant().commit(commit("2", tokens(70))).await.unwrap();
    assert_eq!(list(&server, "?limit=all&unit=tokens").await[0]["used"], json!(70));
}
