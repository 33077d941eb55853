//! The files of the page, and the endpoints that it reads. `make test-page` tests the page itself in a browser.

use crate::server::{POLICY, Server, commit, descriptor, reserve, whole};
use limitador_adapter::admin::live::MAX_LISTENERS;
use limitador_adapter::cli::Storage;
use protocol::wire::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use protocol::wire::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const TOKEN: &str = "s3cret";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page")
}

async fn start(token: Option<&str>) -> Server {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("llm.yaml"), POLICY).unwrap();
    let mut config = Server::config(vec![folder.path().join("llm.yaml")], 200_000, Storage::Memory);
    if let Some(token) = token {
        std::fs::write(folder.path().join("token"), token).unwrap();
        config.admin_token_file = Some(folder.path().join("token"));
    }
    Server::configured(folder, config).await
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)))
        .map(|(_, value)| value)
}

/// Returns the files that a file refers to, as URLs relative to `/`.
fn referred(name: &str, text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for quoted in text.split(['"', '\'']) {
        if quoted.starts_with("page/") && !quoted.contains(' ') {
            found.insert(quoted.to_owned());
        } else if let Some(file) = quoted.strip_prefix("./").filter(|file| file.ends_with(".js")) {
            let folder = name.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
            found.insert(format!("{folder}{file}"));
        }
    }
    found
}

#[tokio::test]
async fn the_page_loads_without_a_token_and_only_from_here() {
    let server = start(Some(TOKEN)).await;
    let mut queue = VecDeque::from([("index.html".to_owned(), "/".to_owned())]);
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    while let Some((name, path)) = queue.pop_front() {
        let (head, body) = server.get_with(&path, "host: weir.example\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        let media_type = match path.rsplit_once('.').map_or("html", |(_, end)| end) {
            "html" => "text/html; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "text/javascript; charset=utf-8",
        };
        assert_eq!(header(&head, "content-type"), Some(media_type), "{path}");
        assert_eq!(header(&head, "x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(header(&head, "referrer-policy"), Some("no-referrer"), "{path}");
        let policy = header(&head, "content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        let tag = header(&head, "etag").unwrap();
        for known in [tag.to_owned(), format!("\"other\", W/{tag}")] {
            let (head, body) =
                server.get_with(&path, &format!("host: a\r\nif-none-match: {known}\r\n")).await;
            assert!(head.starts_with("HTTP/1.1 304") && body.is_empty(), "{path}: {head}");
            assert!(header(&head, "content-security-policy").is_some(), "{head}");
        }
        let (head, _) = server.get_with(&path, "host: a\r\nif-none-match: \"other\"\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        bytes += body.len();
        for file in referred(&path[1..], &body) {
            if seen.insert(file.clone()) {
                queue.push_back((file.clone(), format!("/{file}")));
            }
        }
        assert!(!body.contains(TOKEN), "{name}");
    }
    // Every file of the folder is used, and nothing else is served.
    let mut files = BTreeSet::new();
    for entry in
        std::fs::read_dir(folder()).unwrap().chain(std::fs::read_dir(folder().join("vendor")).unwrap())
    {
        let path = entry.unwrap().path();
        if path.is_file() {
            files.insert(format!("page/{}", path.strip_prefix(folder()).unwrap().display()));
        }
    }
    for unserved in ["index.html", "vendor/package.json", "vendor/package-lock.json", "vendor/SHA256SUMS"] {
        assert!(files.remove(&format!("page/{unserved}")), "{unserved}");
    }
    seen.insert("page/vendor/LICENSES.txt".to_owned());
    assert_eq!(seen, files);
    assert!(bytes < 200_000, "{bytes} bytes");
    for path in [
        "/page/",
        "/page/nothing.js",
        "/page/vendor/package.json",
        "/page/../page.rs",
        "/page/%2e%2e/page.rs",
    ] {
        assert_eq!(server.get(path).await.0, 404, "{path}");
    }
    assert_eq!(server.get("/page/vendor/LICENSES.txt").await.0, 200);
}

/// The page's text, so that a value can never become markup or code.
#[test]
fn no_script_of_the_page_writes_markup() {
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "js") {
            let text = std::fs::read_to_string(&path).unwrap();
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "javascript:",
            ] {
                assert!(!text.contains(forbidden), "{}: {forbidden}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn the_api_of_the_page_needs_what_the_counters_need() {
    let server = start(Some(TOKEN)).await;
    for path in ["/api/overview", "/api/events", "/api/refusals", "/api/warnings"] {
        let (head, _) = server.get_with(path, "host: localhost\r\n").await;
        assert!(head.starts_with("HTTP/1.1 401"), "{path}: {head}");
        assert_eq!(header(&head, "cache-control"), Some("no-store"), "{path}");
    }
    let bearer = format!("host: localhost\r\nauthorization: Bearer {TOKEN}\r\n");
    let (head, _) = server.get_with("/api/overview", &bearer).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(header(&head, "cache-control"), Some("no-store"));
    assert_eq!(header(&head, "x-content-type-options"), Some("nosniff"));
    let open = start(None).await;
    assert_eq!(open.get("/api/overview").await.0, 200);
    // A foreign page that is open in the same browser.
    let (head, _) = open.get_with("/api/overview", "host: localhost\r\nsec-fetch-site: cross-site\r\n").await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
}

fn of(who: &str, amount: u64) -> RateLimitDescriptor {
    let mut descriptor = descriptor("default/llm/free", Some(("tokens", "3600s")), Some(amount));
    descriptor.entries.retain(|entry| entry.key != "auth.identity.userid");
    descriptor.entries.push(Entry { key: "auth.identity.userid".into(), value: who.into() });
    descriptor
}

#[tokio::test]
async fn the_overview_sums_the_buckets_of_each_rate() {
    let server = start(Some(TOKEN)).await;
    let used = vec![of("full", 1000), of("over", 1200), of("close", 800), of("nearly", 799), of("free", 1)];
    server.kuadrant().commit(commit("1", used)).await.unwrap();
    server.kuadrant().reserve(reserve("2", vec![of("close", 150), of("held", 100)])).await.unwrap();
    let overview = api(&server, "/api/overview").await;
    assert_eq!(
        (&overview["buckets"], &overview["full"], &overview["close"]),
        (&json!(6), &json!(2), &json!(1))
    );
    assert_eq!(overview["canChange"], true);
    assert_eq!(overview["policies"], json!({"inForce": 1, "invalid": 0, "warned": 0}));
    let none = json!({"usedUp": 0, "inFlight": 0, "tooLarge": 0});
    let rate = |limit, unit, window, max: u64, sums: Value| {
        let mut rate = json!({
            "policy": "default/llm", "limit": limit, "unit": unit, "window": window, "max": max, "inForce": true, "refused": none,
            "counters": if limit == "all" { json!([]) } else { json!(["auth.identity.userid"]) },
        });
        rate.as_object_mut().unwrap().extend(sums.as_object().unwrap().clone());
        rate
    };
    let empty = json!({"buckets": 0, "close": 0, "full": 0, "used": 0, "held": 0});
    let sums = json!({"buckets": 6, "close": 1, "full": 2, "used": 3800, "held": 250});
    let rates = json!([
        rate("all", "tokens", "24h", 100_000, empty.clone()),
        rate("free", "requests", "1m", 3, empty),
        rate("free", "tokens", "1h", 1000, sums),
    ]);
    assert_eq!(overview["rates"], rates);
    let closest: Vec<_> = overview["closest"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bucket| &bucket["counters"]["auth.identity.userid"])
        .collect();
    assert_eq!(closest, ["over", "full", "close", "nearly", "held", "free"]);
    let listed = api(&server, "/api/counters?sort=share").await;
    assert_eq!(listed, overview["closest"]);
}

async fn api(server: &Server, path: &str) -> Value {
    let (head, body) =
        server.get_with(path, &format!("host: localhost\r\nauthorization: Bearer {TOKEN}\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}{body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[tokio::test]
async fn refusals_are_told_with_their_causes() {
    let server = start(Some(TOKEN)).await;
    let mut client = server.kuadrant();
    client.commit(commit("1", vec![of("used", 990)])).await.unwrap();
    client.reserve(reserve("2", vec![of("held", 990)])).await.unwrap();
    for (id, who, amount) in [("3", "used", 11), ("4", "held", 11), ("5", "large", 1001)] {
        // The other limits of a refused call have room.
        let call = [vec![of(who, amount)], whole(1, 1)[2..].to_vec()].concat();
        let answer = client.reserve(reserve(id, call)).await.unwrap().into_inner();
        assert_eq!(answer.code, 2, "{who}");
    }
    let refusals = api(&server, "/api/refusals").await;
    let one = |used, held, large| json!({"usedUp": used, "inFlight": held, "tooLarge": large});
    let mut rate = json!({"policy": "default/llm", "limit": "free", "unit": "tokens", "window": "1h"});
    rate.as_object_mut().unwrap().extend(one(1, 1, 1).as_object().unwrap().clone());
    assert_eq!(refusals["rates"], json!([rate]));
    let latest = refusals["latest"].as_array().unwrap();
    let row = |one: &Value| {
        (
            one["counters"]["auth.identity.userid"].clone(),
            one["cause"].clone(),
            one["needed"].clone(),
            one["used"].clone(),
            one["held"].clone(),
        )
    };
    let rows: Vec<_> = latest.iter().map(row).collect();
    let wanted =
        [("large", "tooLarge", 1001, 0, 0), ("held", "inFlight", 11, 0, 990), ("used", "usedUp", 11, 990, 0)];
    assert_eq!(
        rows,
        wanted.map(|(who, cause, needed, used, held)| (
            json!(who),
            json!(cause),
            json!(needed),
            json!(used),
            json!(held)
        ))
    );
    assert_eq!(latest[0]["retryInSeconds"], Value::Null);
    assert!(latest[2]["retryInSeconds"].as_u64().unwrap() > 3500);
    let minutes = refusals["minutes"].as_array().unwrap();
    let total: u64 = minutes
        .iter()
        .flat_map(|minute| ["usedUp", "inFlight", "tooLarge"].map(|cause| minute[cause].as_u64().unwrap()))
        .sum();
    assert_eq!((minutes.len(), total), (60, 3));
    let overview = api(&server, "/api/overview").await;
    assert_eq!((&overview["refused"], &overview["rates"][2]["refused"]), (&one(1, 1, 1), &one(1, 1, 1)));
}

#[tokio::test]
async fn warnings_are_listed_the_newest_first() {
    let policy = POLICY.replacen("    free:\n", "    free:\n      warnAt: [\"80%\", \"100%\"]\n", 1);
    assert_ne!(policy, POLICY);
    let server = Server::start(&[("llm.yaml", &policy)]).await;
    for (id, who, amount) in [("1", "alice", 799), ("2", "bob", 800), ("3", "alice", 201)] {
        server.kuadrant().commit(commit(id, vec![of(who, amount)])).await.unwrap();
    }
    let (_, body) = server.get("/api/warnings").await;
    let warnings: Value = serde_json::from_str(&body).unwrap();
    let row = |one: &Value| {
        let who = one["counters"]["auth.identity.userid"].as_str().unwrap().to_owned();
        (who, one["threshold"].as_str().unwrap().to_owned(), one["used"].as_u64().unwrap())
    };
    let latest = warnings["latest"].as_array().unwrap();
    let mut rows: Vec<_> = latest.iter().map(row).collect();
    // One charge has reached both thresholds.
    rows.get_mut(..2).unwrap().sort();
    let wanted = [("alice", "100%", 1000), ("alice", "80%", 1000), ("bob", "80%", 800)];
    assert_eq!(rows, wanted.map(|(who, threshold, used)| (who.to_owned(), threshold.to_owned(), used)));
    let bob = latest.get(2).unwrap();
    assert_eq!((&bob["policy"], &bob["limit"]), (&json!("default/llm"), &json!("free")));
    assert_eq!((&bob["unit"], &bob["window"], &bob["max"]), (&json!("tokens"), &json!("1h"), &json!(1000)));
    assert!((3595..=3600).contains(&bob["resetsInSeconds"].as_u64().unwrap()), "{bob}");
    assert!(bob["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{bob}");
}

#[tokio::test]
async fn the_list_is_searched_and_sorted_by_the_adapter() {
    let server = start(Some(TOKEN)).await;
    let users: Vec<_> = (0..60_u64).map(|n| of(&format!("User {n:02}"), (n * 37) % 1000 + 1)).collect();
    server.kuadrant().commit(commit("1", users)).await.unwrap();
    server.kuadrant().reserve(reserve("2", vec![of("User 07", 5)])).await.unwrap();
    for (query, count) in [
        ("search=user%2007", 1),
        ("search=USER", 60),
        ("search=nobody", 0),
        ("minHeld=1", 1),
        ("minShare=80", 12),
        ("minShare=80&search=free", 12),
        ("limit=free&search=user%200&sort=used&maxAge=5", 15),
    ] {
        let list = api(&server, &format!("/api/counters?{query}")).await;
        assert_eq!(list.as_array().unwrap().len(), count, "{query}");
    }
    for bad in ["sort=name", "minShare=x", "maxAge=-1", "sort=used&after=x", "after=x"] {
        let bearer = format!("host: localhost\r\nauthorization: Bearer {TOKEN}\r\n");
        let (head, body) = server.get_with(&format!("/api/counters?{bad}"), &bearer).await;
        assert!(head.starts_with("HTTP/1.1 400"), "{bad}: {head}");
        assert!(body.contains(": must be"), "{bad}: {body}");
    }
    let bearer = format!("host: localhost\r\nauthorization: Bearer {TOKEN}\r\n");
    let (mut path, mut found) = ("/api/counters?sort=used&count=25".to_owned(), Vec::new());
    loop {
        let (head, body) = server.get_with(&path, &bearer).await;
        assert_eq!(header(&head, "x-total-count"), Some("60"));
        found.extend(serde_json::from_str::<Vec<Value>>(&body).unwrap());
        let Some(link) = header(&head, "link") else { break };
        path = link.trim_start_matches('<').split_once('>').unwrap().0.to_owned();
    }
    assert_eq!(json!(found), api(&server, "/api/counters?sort=used").await);
    assert_eq!(found.len(), 60);
    let used: Vec<_> = found.iter().map(|bucket| bucket["used"].as_u64().unwrap()).collect();
    assert!(used.is_sorted_by(|a, b| a >= b), "{used:?}");
}

/// Reads `/api/events` line by line.
struct EventStream(BufReader<TcpStream>);

impl EventStream {
    async fn open(server: &Server) -> (Self, String) {
        let to = SocketAddr::from(([127, 0, 0, 1], server.serving.http.port()));
        let mut stream = TcpStream::connect(to).await.unwrap();
        let head = format!(
            "GET /api/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut events = Self(BufReader::new(stream));
        let (mut answer, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            answer.push_str(&line);
            line = events.line().await.unwrap();
        }
        (events, answer)
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.0.read_line(&mut line).await.unwrap_or(0);
        (length > 0).then_some(line)
    }

    async fn next(&mut self) -> Option<(String, Value)> {
        let mut event = String::new();
        loop {
            let line = self.line().await?;
            if let Some(name) = line.strip_prefix("event: ") {
                event = name.trim().to_owned();
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some((event, serde_json::from_str(data).unwrap()));
            }
        }
    }

    async fn until(&mut self, condition: impl Fn(&Value) -> bool) {
        loop {
            let (event, data) = self.next().await.unwrap();
            assert_eq!(event, "overview");
            if condition(&data) {
                return;
            }
        }
    }
}

#[tokio::test]
async fn events_follow_the_counters() {
    let server = start(Some(TOKEN)).await;
    let (mut first, head) = EventStream::open(&server).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(header(&head, "content-type"), Some("text/event-stream"));
    first.until(|data| data["buckets"] == 0).await;
    server.kuadrant().commit(commit("1", vec![of("alice", 7)])).await.unwrap();
    let (mut second, _) = EventStream::open(&server).await;
    for events in [&mut first, &mut second] {
        events.until(|data| data["rates"][2]["used"] == 7).await;
    }
    // A list that accepts older readings gets those of the events.
    server.kuadrant().commit(commit("2", vec![of("alice", 1)])).await.unwrap();
    assert_eq!(api(&server, "/api/counters?sort=used").await[0]["used"], 8);
    first.until(|data| data["rates"][2]["used"] == 8).await;
    assert_eq!(api(&server, "/api/counters?sort=used&maxAge=60").await[0]["used"], 8);
}

#[tokio::test]
async fn events_end_with_the_token_and_in_a_drain() {
    let server = start(Some(TOKEN)).await;
    let (mut events, _) = EventStream::open(&server).await;
    events.next().await.unwrap();
    std::fs::write(server.folder.path().join("token"), "another").unwrap();
    while events.next().await.is_some() {}
    std::fs::write(server.folder.path().join("token"), TOKEN).unwrap();
    let (mut events, _) = EventStream::open(&server).await;
    events.next().await.unwrap();
    let Server { serving, folder: _folder } = server;
    let drained = tokio::spawn(serving.drain());
    while events.next().await.is_some() {}
    drained.await.unwrap();
}

#[tokio::test]
async fn there_are_only_so_many_listeners() {
    let server = start(Some(TOKEN)).await;
    let mut all = Vec::new();
    for _ in 0..MAX_LISTENERS {
        let (events, head) = EventStream::open(&server).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        all.push(events);
    }
    let (_, head) = EventStream::open(&server).await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    // A listener that leaves makes room.
    all.pop();
    loop {
        let (_, head) = EventStream::open(&server).await;
        if head.starts_with("HTTP/1.1 200") {
            break;
        }
    }
}

/// Prints how long the API takes with 100,000 buckets, and how long a Reserve takes meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_buckets_are_listed_in_pages() {
    let server = start(Some(TOKEN)).await;
    let mut client = server.kuadrant();
    for batch in 0..100_u64 {
        let users = (0..1000)
            .map(|n| of(&format!("user-{:05}", batch * 1000 + n), (batch * 7919 + n * 31) % 1000 + 1));
        client.commit(commit(&batch.to_string(), users.collect())).await.unwrap();
    }
    for path in [
        "/api/overview",
        "/api/counters?sort=share&count=50",
        "/api/counters?sort=share&count=50&search=user-012",
        "/api/counters?count=50",
    ] {
        let start = Instant::now();
        let length = api(&server, path).await.to_string().len();
        println!("{path}: {:?}, {length} bytes", start.elapsed());
    }
    let listing = tokio::spawn(async move {
        for _ in 0..2 {
            api(&server, "/api/counters?sort=share&count=50").await;
        }
        server
    });
    let (mut slowest, mut count) = (std::time::Duration::ZERO, 0);
    while !listing.is_finished() {
        let start = Instant::now();
        client.reserve(reserve(&format!("r{count}"), vec![of("user-00001", 1)])).await.unwrap();
        (slowest, count) = (slowest.max(start.elapsed()), count + 1);
    }
    println!("{count} reserves meanwhile, the slowest {slowest:?}");
    let server = listing.await.unwrap();
    let overview = api(&server, "/api/overview").await;
    assert_eq!(overview["buckets"], 100_000);
    let first = api(&server, "/api/counters?sort=used&count=3").await;
    assert_eq!(
        first.as_array().unwrap().iter().map(|bucket| &bucket["used"]).collect::<Vec<_>>(),
        [1000, 1000, 1000]
    );
}
