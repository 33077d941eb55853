//! Who may call `/api/*`.

use crate::server::{POLICY, Server};
use limitador_adapter::cli::Storage;
use std::net::SocketAddr;

const API: [&str; 3] = ["/api/counters", "/api/policies", "/api/nothing"];
const OPEN: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/weir.wasm.sha256"];

async fn start(listen: &str, token: Option<&str>) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("llm.yaml"), POLICY).unwrap();
    let module = folder.path().join("module");
    std::fs::write(&module, b"\0asm").unwrap();
    let mut config = Server::config(vec![policies], 1000, Storage::Memory);
    config.http_listen = listen.parse::<SocketAddr>().unwrap();
    config.wasm = Some(module);
    if let Some(token) = token {
        let file = folder.path().join("token");
        std::fs::write(&file, token).unwrap();
        config.admin_token_file = Some(file);
    }
    Server::configured(folder, config).await
}

async fn status(server: &Server, path: &str, headers: &str) -> (u16, String) {
    let (head, _) = server.get_with(path, headers).await;
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase())
}

fn bearer(token: &str) -> String {
    format!("host: weir.example:8080\r\nauthorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn beyond_loopback_nobody_is_answered_without_a_token() {
    let server = start("0.0.0.0:0", None).await;
    for path in API {
        for headers in ["host: localhost\r\n", &bearer("anything"), &bearer("")] {
            assert_eq!(status(&server, path, headers).await.0, 403, "{path}");
        }
    }
    for path in OPEN {
        assert_eq!(status(&server, path, "host: weir.example\r\n").await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn a_token_opens_the_api_wherever_it_listens() {
    for listen in ["0.0.0.0:0", "127.0.0.1:0"] {
        let server = start(listen, Some("s3cret-token\n")).await;
        for path in API {
            let found = if path == "/api/nothing" { 404 } else { 200 };
            assert_eq!(status(&server, path, &bearer("s3cret-token")).await.0, found, "{listen} {path}");
            let (code, head) = status(&server, path, "host: localhost\r\n").await;
            assert_eq!(code, 401, "{listen} {path}");
            assert!(head.contains("\r\nwww-authenticate: bearer realm="), "{head}");
            for wrong in ["s3cret-toke", "s3cret-token2", "S3cret-token", "s3cret-token x", "\u{e9}"] {
                let (code, head) = status(&server, path, &bearer(wrong)).await;
                assert_eq!(code, 401, "{listen} {path} {wrong}");
                assert!(head.contains("error=\"invalid_token\""), "{head}");
            }
            for other in [
                "host: a\r\nauthorization: Basic s3cret-token\r\n",
                "host: a\r\nauthorization: s3cret-token\r\n",
                "host: a\r\nauthorization: Bearer s3cret-token\r\nauthorization: Bearer x\r\n",
            ] {
                assert_eq!(status(&server, path, other).await.0, 401, "{other}");
            }
        }
        for path in OPEN {
            assert_eq!(status(&server, path, "host: weir.example\r\n").await.0, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn another_token_counts_at_once_and_none_closes_the_api() {
    let server = start("127.0.0.1:0", Some("first")).await;
    let file = server.folder.path().join("token");
    for (token, first, second) in [
        ("first", 200, 401),
        ("  second\n\n", 401, 200),
        ("", 403, 403),
        ("\n", 403, 403),
        ("two words", 403, 403),
        (&"x".repeat(5000), 403, 403),
        ("first", 200, 401),
    ] {
        std::fs::write(&file, token).unwrap();
        assert_eq!(status(&server, "/api/counters", &bearer("first")).await.0, first, "{token}");
        assert_eq!(status(&server, "/api/counters", &bearer("second")).await.0, second, "{token}");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(status(&server, "/api/counters", &bearer("first")).await.0, 403);
}

#[tokio::test]
async fn on_loopback_no_token_is_needed_but_no_proxy_and_no_foreign_page_is_answered() {
    let server = start("127.0.0.1:0", None).await;
    for headers in
        ["host: localhost:8080\r\n", "host: 127.0.0.1\r\n", "host: [::1]:80\r\n", "host: adapter\r\n"]
    {
        assert_eq!(status(&server, "/api/counters", headers).await.0, 200, "{headers}");
    }
    for headers in [
        "host: evil.example\r\n",
        "host: 127.0.0.1.evil.example:8080\r\n",
        "host: localhost\r\nx-forwarded-for: 192.0.2.1\r\n",
        "host: localhost\r\nforwarded: for=192.0.2.1\r\n",
        "host: localhost\r\nvia: 1.1 proxy\r\n",
    ] {
        assert_eq!(status(&server, "/api/counters", headers).await.0, 403, "{headers}");
        assert_eq!(status(&server, "/metrics", headers).await.0, 200, "{headers}");
    }
}
