//! Passwords never appear in messages, whichever part of the input contains them.

use crate::binary::adapter;
use crate::server::POLICY;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

const SECRET: &str = "hunter2hunter2";

fn is_shown(output: &Output) -> bool {
    [&output.stdout, &output.stderr].iter().any(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        text.contains(SECRET) || text.contains("hunter")
    })
}

fn storages() -> Vec<String> {
    [
        "SECRET",
        "memory:SECRET",
        "SECRET://host",
        "http://user:SECRET@host",
        "postgres://user:SECRET@host/db",
        "redis:user:SECRET@host",
        "redis:/user:SECRET@host",
        "redis//user:SECRET@host",
        "redis+SECRET://host",
        "redis+socket://:SECRET@host",
        "redis://user:SECRET",
        "redis://:SECRET",
        "redis://user:SECRET@",
        "redis://user:SECRET@/0",
        "redis://user:SECRET@host:port",
        "redis://host:SECRET",
        "redis://user:SECRET/0@host/x",
        "redis://user@host:SECRET@host:1:2",
        "redis://[SECRET]",
        "redis://user:SECRET@[::1",
        "redis://host SECRET",
        "redis://host/SECRET",
        "redis://host/0/SECRET",
        "redis://user:SECRET@host/SECRET",
        "redis://host?password=SECRET",
        "redis://host/0?username=a&password=SECRET",
        "redis://host#SECRET",
        "redis://user:SECRET@one,another",
        "redis://one,SECRET",
        "redis+cluster://user:SECRET@host/1",
        "redis+cluster://user:SECRET@host:x,b",
        "redis+sentinel://user:SECRET@host",
        "redis+sentinel://user:SECRET@host/",
        "redis+sentinel://user:SECRET@host/main/SECRET",
        "redis+sentinel://user:SECRET@host/main/0?sentinel_password=SECRET",
        "rediss://user:SECRET@host/x",
    ]
    .iter()
    .map(|text| text.replace("SECRET", SECRET))
    .collect()
}

#[test]
fn a_storage_that_is_none_is_refused_without_being_repeated() {
    for storage in storages() {
        let by_flag =
            adapter().args(["serve", "--policies", "none", "--storage", &storage]).output().unwrap();
        let joined = format!("--storage={storage}");
        let by_joined_flag = adapter().args(["serve", "--policies", "none", &joined]).output().unwrap();
        let mut by_environment = adapter();
        by_environment.args(["serve", "--policies", "none"]).env("WEIR_STORAGE", &storage);
        let by_environment = by_environment.output().unwrap();
        for output in [by_flag, by_joined_flag, by_environment] {
            assert_eq!(output.status.code(), Some(2), "{storage}");
            assert!(!is_shown(&output), "{storage}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(String::from_utf8_lossy(&output.stderr).contains("WEIR_STORAGE"), "{storage}");
        }
    }
}

#[test]
fn a_webhook_that_is_none_is_refused_without_being_repeated() {
    for url in [
        "SECRET",
        "hooks.example.com/SECRET",
        "/SECRET",
        "ftp://host/SECRET",
        "https://user:SECRET@host/",
        "https://SECRET@host/",
        "https://host/a SECRET",
        "https:/host/SECRET",
    ] {
        let url = url.replace("SECRET", SECRET);
        let by_flag = adapter().args(["serve", "--policies", "none", "--webhook", &url]).output().unwrap();
        let mut by_environment = adapter();
        by_environment.args(["serve", "--policies", "none"]).env("WEIR_WEBHOOK", &url);
        for output in [by_flag, by_environment.output().unwrap()] {
            assert_eq!(output.status.code(), Some(2), "{url}");
            assert!(!is_shown(&output), "{url}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(String::from_utf8_lossy(&output.stderr).contains("WEIR_WEBHOOK"), "{url}");
        }
    }
}

#[test]
fn a_storage_in_the_wrong_place_is_not_repeated() {
    let url = format!("redis://user:{SECRET}@host:6379/0");
    let joined = [format!("--storag={url}"), format!("--storage={url}"), format!("--wasm={url}")];
    for arguments in [
        vec![url.as_str()],
        vec!["serve", &url],
        vec!["serve", "--policies", &url],
        vec!["serve", "--policies", "none", &url],
        vec!["serve", "--policies", "none", "--storag", &url],
        vec!["serve", "--policies", "none", &joined[0]],
        vec!["serve", "--policies", "none", &joined[1], &joined[1]],
        vec!["serve", "--policies", "none", &joined[2]],
        vec!["serve", "--policies", "none", "--grpc-listen", &url],
        vec!["serve", "--policies", "none", "--max-counters", &url],
        vec!["check", &url],
        vec!["explain", "--policies", &url, "--request", &url],
    ] {
        let output = adapter().args(&arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!is_shown(&output), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for variable in ["WEIR_POLICIES", "WEIR_WASM", "WEIR_GRPC_LISTEN", "WEIR_MAX_COUNTERS"] {
        let mut command = adapter();
        let output = command.args(["serve", "--policies", "none"]).env(variable, &url);
        assert!(!is_shown(&output.output().unwrap()), "{variable}");
    }
}

#[test]
fn the_help_does_not_show_the_environment_s_secrets() {
    let mut command = adapter();
    command.args(["serve", "--help"]).env("WEIR_STORAGE", format!("redis://user:{SECRET}@host"));
    command.env("WEIR_WEBHOOK", format!("https://host/{SECRET}"));
    let output = command.output().unwrap();
    assert!(output.status.success() && !is_shown(&output));
}

/// Starts a fake Redis that repeats unknown commands in its errors, as a real one does.
fn parrot() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let told =
                format!("-ERR unknown command 'AUTH', with args beginning with: 'user' '{SECRET}'\r\n");
            let other = format!("-ERR I do not like {SECRET}\r\n");
            let mut stream = stream;
            for message in [told, other.clone(), other.clone(), other] {
                drop(stream.write_all(message.as_bytes()));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    address
}

#[test]
fn what_the_server_repeats_of_a_password_is_not_shown() {
    let folder = crate::binary::folder(&[("a.yaml", POLICY)]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = adapter();
    command.args(["serve", "--http-listen", &free.to_string(), "--grpc-listen", "127.0.0.1:0"]);
    command.env("WEIR_POLICIES", folder.path()).env("WEIR_LOG", "debug");
    command.env("WEIR_STORAGE", format!("redis://user:{SECRET}@{}", parrot()));
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let told = loop {
        assert!(start.elapsed() < crate::server::DEADLINE, "no answer");
        if let Some(told) = crate::binary::get(free, "/readyz").filter(|told| told.contains("503")) {
            break told;
        }
        std::thread::yield_now();
    };
    // Several calls, because each one may be logged.
    for _ in 0..5 {
        drop(crate::binary::get(free, "/metrics"));
    }
    process.kill().unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(
        !told.contains("hunter") && told.contains("Redis") | told.contains("ERR") | told.contains("-"),
        "{told}"
    );
    assert!(!is_shown(&output), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Invalid keys, such as a key that lost its line breaks in an environment variable.
#[test]
fn a_key_that_is_no_pem_is_not_repeated() {
    let line = format!("-----BEGIN PRIVATE KEY----- {SECRET}");
    let section = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}!\n-----END PRIVATE KEY-----\n");
    let unended = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n");
    for key in [line, section, unended, SECRET.to_owned()] {
        let folder = crate::binary::folder(&[("a.yaml", POLICY), ("key.pem", &key)]);
        let mut command = adapter();
        command.args(["serve", "--policies", "a.yaml", "--tls-cert", "key.pem", "--tls-key", "key.pem"]);
        let output = command.current_dir(folder.path()).output().unwrap();
        assert!(!output.status.success());
        let told = String::from_utf8_lossy(&output.stderr);
        let bytes = format!("{:?}", SECRET.as_bytes());
        assert!(!is_shown(&output) && !told.contains(bytes.trim_matches(['[', ']'])), "{told}");
        assert!(told.contains("key.pem"), "{told}");
    }
}

#[test]
fn a_kubeconfig_that_is_none_is_not_repeated() {
    let config = format!("apiVersion: v1\nkind: Config\nusers:\n- name: a\n  user: {SECRET}\n");
    let folder = crate::binary::folder(&[("kubeconfig", &config)]);
    let mut command = adapter();
    command.args(["serve", "--kubernetes"]).env("KUBECONFIG", folder.path().join("kubeconfig"));
    let output = command.output().unwrap();
    assert!(!output.status.success());
    assert!(!is_shown(&output), "{}", String::from_utf8_lossy(&output.stderr));
}
