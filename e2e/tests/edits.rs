//! Policies change while requests are running. Invalid policies are reported and change nothing.

use e2e::client::Request;
use e2e::envoy::Config;
use e2e::world::{CONFIG, World, per_user, policy};
use e2e::{jwt, wait};
use serde_json::json;
use std::time::{Duration, Instant};

fn alice() -> Request {
    Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" })))
}

fn limited_to(max: u64) -> String {
    policy("llm", json!({ "limits": { "per-user": per_user(max) } }))
}

/// Returns the limit that applies to a request through this Envoy. Each request uses a new connection, so any
/// worker may handle it.
fn limit_in_force(world: &World) -> Option<String> {
    let answer = world.send(&alice());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-ratelimit-limit-tokens").map(str::to_owned)
}

#[test]
fn an_edit_is_in_force_within_a_second_and_keeps_the_count() {
    let world = World::build().policy(&limited_to(100_000)).workers(2).start();
    assert_eq!(limit_in_force(&world).as_deref(), Some("100000"));
    for max in [200_000, 300_000, 400_000] {
        let edited = Instant::now();
        world.adapter.write("0.yaml", &limited_to(max));
        let mut last_old = Duration::ZERO;
        let mut in_a_row = 0;
        wait::until("the new limit", || {
            if limit_in_force(&world) == Some(max.to_string()) {
                in_a_row += 1;
            } else {
                (last_old, in_a_row) = (edited.elapsed(), 0);
            }
            (in_a_row == 12).then_some(())
        });
        println!("the edit to {max} was in force after {last_old:?}");
        assert!(last_old < Duration::from_secs(1), "{last_old:?}");
    }
    let used: u64 = world.upstream.calls() as u64 * used_by_one();
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", used, 0);
}

/// Returns the usage that the upstream reports for [`alice`]'s request.
fn used_by_one() -> u64 {
    json!([{ "role": "user", "content": "Hi" }]).to_string().len() as u64 / 4 + 5
}

#[test]
fn an_edit_drops_no_request_under_way() {
    let world = World::with(&limited_to(100_000));
    let gate = e2e::upstream::Gate::default();
    world.upstream.on("slow", e2e::upstream::Answer::used(50).wait_first(&gate));
    let request = world.open(&alice().answered_by("slow"));
    world.upstream.wait_for_calls(1);
    world.edit("0.yaml", &policy("other", json!({ "limits": { "other": per_user(5) } })));
    gate.open();
    assert_eq!(request.finish().status, 200);
    let metric = "the settlement under the old plan, or its policy's end";
    wait::until(metric, || world.adapter.counters().iter().all(|counter| counter.held == 0).then_some(()));
}

#[test]
fn a_removed_policy_limits_nothing() {
    let world = World::with(&limited_to(50));
    assert_eq!(world.send(&alice()).status, 413, "100 are held of 50");
    world.adapter.remove("0.yaml");
    wait::until("the end of the limit", || (world.send(&alice()).status == 200).then_some(()));
}

#[test]
fn a_broken_edit_changes_nothing_and_is_told() {
    let world = World::with(&limited_to(100_000));
    let broken = limited_to(5).replace("auth.identity.userid", "auth.identity.");
    world.adapter.write("0.yaml", &broken);
    let told = wait::until("the mistake in /api/policies", || {
        let told = world.adapter.policies().to_string();
        told.contains("spec.limits.per-user.counters[0].expression").then_some(told)
    });
    assert!(told.contains("0.yaml"), "{told}");
    assert!(
        world.adapter.log().contains("spec.limits.per-user.counters[0].expression"),
        "{}",
        world.adapter.log()
    );
    assert_eq!(world.adapter.metric("weir_policies_invalid", &[]), 1.0);
    assert_eq!(limit_in_force(&world).as_deref(), Some("100000"), "the last good plan stays");
    world.adapter.write("0.yaml", &limited_to(200_000));
    wait::until("the corrected limit", || {
        (limit_in_force(&world).as_deref() == Some("200000")).then_some(())
    });
}

#[test]
fn a_broken_plugin_configuration_is_refused_by_envoy_with_our_message() {
    let mut config = Config::read(CONFIG);
    config.plugin(|plugin| *plugin = json!({ "adapter": { "timeout": "soon" }, "gatway": "*" }));
    let wanted = ["adapter.cluster", "adapter.timeout", "gatway"];
    for complaint in [config.validate().unwrap_err(), config.try_start(1).err().unwrap()] {
        for path in wanted {
            assert!(complaint.contains(path), "{path} is not named in: {complaint}");
        }
    }
}

#[test]
fn inline_policies_need_no_plan_from_the_adapter() {
    let inline: serde_json::Value = serde_json::from_str(&limited_to(100_000)).unwrap();
    let world = World::build()
        .policy(&limited_to(100_000))
        .plugin(|plugin| plugin["policies"] = json!([inline]))
        .start();
    assert_eq!(limit_in_force(&world).as_deref(), Some("100000"));
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", used_by_one(), 0);
}
