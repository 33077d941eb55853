//! Policies in files and folders that people and programs edit.

use crate::server::{POLICY, Server};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::time::Duration;

fn bad() -> String {
    POLICY.replace("limit: 3", "limit: three")
}

fn in_force(policies: &Value, name: &str) -> bool {
    let all = policies.as_array().unwrap().iter();
    all.filter(|entry| entry["policy"] == name).any(|entry| entry["inForce"] == true)
}

fn mistakes(policies: &Value) -> Vec<&str> {
    let all = policies.as_array().unwrap().iter();
    all.flat_map(|entry| entry["mistakes"].as_array().unwrap())
        .map(|mistake| mistake.as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn edits_of_every_kind_are_in_force_within_a_second() {
    let server =
        Server::start(&[("a.yaml", POLICY), ("notes.txt", "no policy"), (".hidden.yaml", "a: [")]).await;
    let b = POLICY.replace("name: llm", "name: b");
    let folder = server.folder.path().to_owned();
    let file = folder.join("b.yaml");
    let second = Duration::from_secs(1);

    std::fs::write(&file, &b).unwrap();
    let took = server.policies_until("a new file", |told| in_force(told, "default/b")).await;
    assert!(took < second, "{took:?}");
    std::fs::write(&file, b.replace("name: b", "name: c")).unwrap();
    let took = server.policies_until("an edit in place", |told| in_force(told, "default/c")).await;
    assert!(took < second, "{took:?}");
    server.replace("b.yaml", &b.replace("name: b", "name: d"));
    let took = server.policies_until("an atomic rename", |told| in_force(told, "default/d")).await;
    assert!(took < second, "{took:?}");
    std::fs::rename(&file, folder.join("moved.yml")).unwrap();
    let moved = |told: &Value| in_force(told, "default/d") && !told.to_string().contains("b.yaml");
    server.policies_until("a file that moves", moved).await;
    std::fs::remove_file(folder.join("moved.yml")).unwrap();
    let took = server.policies_until("a deletion", |told| told.as_array().unwrap().len() == 1).await;
    assert!(took < second, "{took:?}");
    assert!(in_force(&server.json("/api/policies").await, "default/llm"));
    assert_eq!(server.metric("weir_policies_loaded").await, 1.0);
}

#[tokio::test]
async fn a_mistake_leaves_the_last_good_version_in_force_and_is_told() {
    let two = format!("{POLICY}---\n{}", POLICY.replace("name: llm", "name: b"));
    let server = Server::start(&[("a.yaml", &two)]).await;
    let broken = format!("{}---\n{}", bad(), POLICY.replace("name: llm", "name: b2"));
    server.replace("a.yaml", &broken);
    server.policies_until("the mistake", |told| !mistakes(told).is_empty()).await;
    let file = server.folder.path().join("a.yaml").display().to_string();
    let mistake =
        "spec.limits.free.rates[1].limit: must be a whole number, 0 or more, but is the string `three`";
    let told = json!([
        {"policy": "default/llm", "file": file, "document": 1, "inForce": true, "mistakes": [mistake]},
        {"policy": "default/b2", "file": file, "document": 2, "inForce": true, "mistakes": []},
    ]);
    assert_eq!(server.json("/api/policies").await, told);
    assert_eq!(server.metric("weir_policies_invalid").await, 1.0);
    assert_eq!(server.metric("weir_policies_loaded").await, 2.0);
    assert_eq!(server.get("/readyz").await.0, 200);

    server.replace("a.yaml", "spec: [unclosed");
    server.policies_until("no YAML", |told| mistakes(told).iter().any(|told| told.contains("YAML"))).await;
    let told = server.json("/api/policies").await;
    assert!(in_force(&told, "default/llm") && in_force(&told, "default/b2"), "{told:#}");

    // The name itself is wrong, so the document could be any policy. All policies stay in force.
    server.replace("a.yaml", &POLICY.replace("{name: llm}", "{nome: llm}"));
    server.policies_until("no name", |told| mistakes(told).iter().any(|told| told.contains("nome"))).await;
    let told = server.json("/api/policies").await;
    assert!(in_force(&told, "default/llm") && in_force(&told, "default/b2"), "{told:#}");

    server.replace("a.yaml", POLICY);
    server.policies_until("all good", |told| mistakes(told).is_empty()).await;
    assert_eq!(server.metric("weir_policies_loaded").await, 1.0);
    assert_eq!(server.metric("weir_policies_invalid").await, 0.0);
}

#[tokio::test]
async fn a_policy_that_was_never_good_is_not_in_force_and_the_others_are() {
    let server =
        Server::start(&[("a.yaml", &bad()), ("b.yaml", &POLICY.replace("name: llm", "name: b"))]).await;
    let told = server.json("/api/policies").await;
    assert!(!in_force(&told, "default/llm") && in_force(&told, "default/b"));
    assert_eq!(server.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn a_policy_whose_clients_choose_their_buckets_is_in_force_and_warned_of() {
    let by_body = POLICY.replace("auth.identity.userid", "llm.user");
    let server = Server::start(&[("a.yaml", &by_body)]).await;
    let told = server.json("/api/policies").await;
    assert!(in_force(&told, "default/llm") && mistakes(&told).is_empty(), "{told:#}");
    let warning = told[0]["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with("spec.limits.free.counters: depends on nothing but the request's body"),
        "{warning}"
    );
}

#[tokio::test]
async fn of_two_policies_of_one_name_the_first_is_in_force() {
    let server = Server::start(&[("a.yaml", POLICY), ("b.yaml", POLICY)]).await;
    let told = server.json("/api/policies").await;
    let first = server.folder.path().join("a.yaml").display().to_string();
    let mistake = format!(
        "metadata.name: default/llm is written in {first}, document 1, too, and that one is in force"
    );
    assert_eq!(mistakes(&told), [mistake]);
    assert_eq!((&told[0]["inForce"], &told[1]["inForce"]), (&json!(true), &json!(false)));
    assert_eq!(server.metric("weir_policies_loaded").await, 1.0);
    std::fs::remove_file(server.folder.path().join("a.yaml")).unwrap();
    server.policies_until("the second takes over", |told| mistakes(told).is_empty()).await;
}

#[tokio::test]
async fn a_path_that_was_named_and_vanishes_takes_no_policy_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (file, inner) = (folder.path().join("a.yaml"), folder.path().join("inner"));
    std::fs::write(&file, POLICY).unwrap();
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("b.yaml"), POLICY.replace("name: llm", "name: b")).unwrap();
    let server = Server::with(vec![file.clone(), inner.clone()], folder, 100).await;
    std::fs::remove_file(&file).unwrap();
    std::fs::rename(&inner, server.folder.path().join("away")).unwrap();
    server.policies_until("two mistakes", |told| mistakes(told).len() == 2).await;
    let told = server.json("/api/policies").await;
    assert!(in_force(&told, "default/llm") && in_force(&told, "default/b"), "{told:#}");
    assert_eq!(mistakes(&told), ["No such file or directory (os error 2)"; 2]);

    std::fs::rename(server.folder.path().join("away"), &inner).unwrap();
    std::fs::write(&file, POLICY).unwrap();
    server.policies_until("all is back", |told| mistakes(told).is_empty()).await;
}

/// `policies.yaml` links to `..data/policies.yaml`, and `..data` links to a separate folder for each version.
#[tokio::test]
async fn a_config_map_is_followed_through_its_links() {
    let folder = tempfile::tempdir().unwrap();
    let version = |name: &str, policy: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("policies.yaml"), policy).unwrap();
    };
    version("..v1", POLICY);
    version("..v2", &POLICY.replace("name: llm", "name: b"));
    symlink("..v1", folder.path().join("..data")).unwrap();
    symlink("..data/policies.yaml", folder.path().join("policies.yaml")).unwrap();
    let server = Server::with(vec![folder.path().to_owned()], folder, 100).await;
    assert!(in_force(&server.json("/api/policies").await, "default/llm"));
    symlink("..v2", server.folder.path().join("..new")).unwrap();
    std::fs::rename(server.folder.path().join("..new"), server.folder.path().join("..data")).unwrap();
    let swapped = |told: &Value| in_force(told, "default/b") && !in_force(told, "default/llm");
    let took = server.policies_until("the new version", swapped).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_changed_maximum_keeps_what_was_used() {
    use crate::server::{descriptor, hits};
    let server = Server::start(&[("a.yaml", POLICY)]).await;
    let mut client = server.kuadrant();
    let used = || hits(vec![descriptor("default/llm/all", None, Some(600))], 0);
    client.report(used()).await.unwrap();
    server.replace("a.yaml", &POLICY.replace("limit: 100000", "limit: 500").replace("24h", "1d"));
    server.policies_until("the edit", |_| true).await;
    let start = std::time::Instant::now();
    loop {
        let counters = server.json("/api/counters").await;
        let all = counters.as_array().unwrap().iter().find(|counter| counter["limit"] == "all").unwrap();
        assert_eq!(all["used"], 600);
        if all["max"] == 500 {
            assert_eq!(all["remaining"], 0);
            break;
        }
        assert!(start.elapsed() < crate::server::DEADLINE);
    }
}
