//! Several adapters share one Redis. Limits apply across all of them, and a Redis outage is handled.

use e2e::adapter::Adapter;
use e2e::client::Request;
use e2e::redis::Redis;
use e2e::upstream::{Answer, Gate};
use e2e::world::{World, per_user, policy};
use e2e::{jwt, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

fn alice() -> Request {
    Request::chat(5).token(&jwt::token(&json!({ "userid": "alice" })))
}

fn limited(failure_mode: &str) -> String {
    policy("llm", json!({ "failureMode": failure_mode, "limits": { "per-user": per_user(1_000) } }))
}

fn world(redis: &Redis, failure_mode: &str) -> World {
    let world = World::build().policy(&limited(failure_mode)).storage(&redis.url(0)).start();
    world.upstream.on("100", Answer::used(100));
    world
}

#[test]
fn of_sixty_four_at_once_over_two_gateways_exactly_ten_pass() {
    let redis = Redis::start();
    let worlds = [world(&redis, "Deny"), world(&redis, "Deny")];
    let gate = Gate::default();
    for world in &worlds {
        world.upstream.on("slow", Answer::used(100).wait_first(&gate));
    }
    let on_their_way: Vec<_> = (0..64).map(|n| worlds[n % 2].open(&alice().answered_by("slow"))).collect();
    let passed = || worlds.iter().map(|world| world.upstream.calls()).sum::<usize>();
    wait::until("54 refusals", || {
        let answered = on_their_way.iter().filter(|request| request.answered()).count();
        (answered >= 54 && passed() >= 10).then_some(())
    });
    for world in &worlds {
        world.adapter.wait_for_bucket("per-user", "tokens", "alice", 0, 1_000);
    }
    assert_eq!(passed(), 10);
    gate.open();
    let statuses: Vec<_> = on_their_way.into_iter().map(|request| request.finish().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 54, "{statuses:?}");
    worlds[0].adapter.wait_for_bucket("per-user", "tokens", "alice", 1_000, 0);
    assert_eq!(worlds[1].send(&alice()).status, 429, "the other gateway knows");
}

#[test]
fn a_request_whose_adapter_dies_is_settled_by_the_other() {
    let redis = Redis::start();
    let policies = [limited("Deny")];
    let other = Adapter::start_on(&redis.url(0), &policies);
    let building = World::build().policy(&policies[0]).storage(&redis.url(0)).also_asks(&other);
    let mut world = building.start();
    let gate = Gate::default();
    world.upstream.on("slow", Answer::used(100).wait_first(&gate));
    let under_way: Vec<_> = (0..4).map(|_| world.open(&alice().answered_by("slow"))).collect();
    world.upstream.wait_for_calls(4);
    other.wait_for_bucket("per-user", "tokens", "alice", 0, 400);
    world.adapter.kill();
    gate.open();
    for request in under_way {
        assert_eq!(request.finish().status, 200);
    }
    other.wait_for_bucket("per-user", "tokens", "alice", 400, 0);
}

#[test]
fn without_its_redis_an_adapter_lets_pass_where_the_policy_allows_and_hears_of_it_later() {
    let mut redis = Redis::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    let world = world(&redis, "Allow");
    assert_eq!(world.send(&alice().answered_by("100")).status, 200);
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 100, 0);
    let gate = Gate::default();
    world.upstream.on("slow", Answer::used(100).wait_first(&gate));
    let under_way = world.open(&alice().answered_by("slow"));
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 100, 100);
    redis.kill();
    gate.open();
    assert_eq!(under_way.finish().status, 200, "an answer waits for no Redis");
    assert_eq!(world.send(&alice().answered_by("100")).status, 200);
    assert!(world.envoy.stats("weir_failed_open").lines().any(|line| line.ends_with(": 1")));
    assert_eq!(world.adapter.get("/readyz").status, 503);
    redis.restart();
    wait::until("the adapter", || (world.adapter.get("/readyz").status == 200).then_some(()));
    // The earlier hold became a charge, and each request that passed unchecked is charged once.
    world.adapter.wait_for_bucket("per-user", "tokens", "alice", 300, 0);
}

#[test]
fn without_its_redis_an_adapter_refuses_where_the_policy_denies_until_it_is_back() {
    let mut redis = Redis::start();
    let world = world(&redis, "Deny");
    assert_eq!(world.send(&alice().answered_by("100")).status, 200);
    redis.kill();
    let refused = world.send(&alice().answered_by("100"));
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["error"]["code"], "rate_limiter_unavailable");
    assert_eq!(world.upstream.calls(), 1);
    redis.restart();
    wait::until("a request that passes", || {
        (world.send(&alice().answered_by("100")).status == 200).then_some(())
    });
}

#[test]
fn while_one_of_two_adapters_is_killed_nobody_is_refused_wrongly_or_goes_free() {
    let redis = Redis::start();
    let policies =
        [policy("llm", json!({ "failureMode": "Deny", "limits": { "per-user": per_user(20_000) } }))];
    let other = Adapter::start_on(&redis.url(0), &policies);
    let building = World::build().policy(&policies[0]).storage(&redis.url(0)).also_asks(&other).workers(2);
    let mut world = building.start();
    world.upstream.on("100", Answer::used(100));
    let ask = |world: &World| world.send(&alice().answered_by("100")).status;
    let mut statuses: Vec<u16> = (0..20).map(|_| ask(&world)).collect();
    let more = |world: &World, count: usize| -> Vec<u16> {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| scope.spawn(move || (0..count / 4).map(|_| ask(world)).collect::<Vec<_>>()))
                .collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        })
    };
    let killed = world.adapter.pid();
    let during = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            wait::until("some requests", || (world.upstream.calls() > 60).then_some(()));
            rustix::process::kill_process(rustix::process::Pid::from_raw(killed).unwrap(), Signal::KILL)
        });
        let during = more(&world, 160);
        killer.join().unwrap().unwrap();
        during
    });
    world.adapter.kill();
    statuses.extend(during);
    let count = |statuses: &[u16], wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!(count(&statuses, 200), statuses.len(), "within the limit: {statuses:?}");
    let after = more(&world, 40);
    assert_eq!((count(&after, 200), count(&after, 429)), (20, 20), "{after:?}");
    other.wait_for_bucket("per-user", "tokens", "alice", 20_000, 0);
}

#[test]
fn while_two_adapters_have_different_plans_the_limits_that_both_have_hold_and_filters_keep_to_one_plan() {
    let redis = Redis::start();
    let requests = |max: u64| json!({ "rates": [{ "limit": max, "window": "1h", "unit": "requests" }] });
    let plan =
        |other: &str| policy("llm", json!({ "limits": { "all": requests(20), other: requests(1_000) } }));
    let other = Adapter::start_on(&redis.url(0), &[plan("before")]);
    let building = World::build().policy(&plan("before")).storage(&redis.url(0)).also_asks(&other);
    let world = building.workers(2).start();
    // The edit reaches one adapter first, and the other one much later.
    world.adapter.write("0.yaml", &plan("after"));
    wait::until("the edit", || {
        let told = world.adapter.get("/api/policies");
        (told.status == 200 && world.adapter.metric("weir_plan_changes_total", &[]) >= 2.0).then_some(())
    });
    let statuses: Vec<u16> = (0..60).map(|_| world.send(&alice()).status).collect();
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(passed, 20, "{statuses:?}");
    let plans = world.envoy.plans();
    std::thread::sleep(std::time::Duration::from_secs(3));
    let flips = world.envoy.plans() - plans;
    assert!(flips <= 3, "each worker, and the main thread, may still take the edit: {flips}");
    other.write("0.yaml", &plan("after"));
    let last = plans + flips;
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(world.envoy.plans() - last <= 3, "{} plans", world.envoy.plans() - last);
}

#[test]
fn a_background_result_of_one_gateway_is_charged_once_to_its_creator_when_another_gateway_reads_it() {
    let redis = Redis::start();
    let response = |status: &str, usage: Value| {
        Answer::json(
            200,
            &json!({ "id": "resp_1", "object": "response", "status": status, "background": true, "usage": usage }),
        )
    };
    let usage = json!({ "input_tokens": 30, "output_tokens": 70, "total_tokens": 100 });
    let worlds = [(); 2].map(|()| {
        let world =
            World::build().policy(&limited("Deny")).storage(&redis.url(0)).reading_bodies(10_000).start();
        world.upstream.on("100", Answer::used(100));
        world.upstream.on("queued", response("queued", Value::Null));
        world.upstream.on("completed", response("completed", usage.clone()));
        world
    });
    let [creating, reading] = &worlds;
    let of = |who: &str, request: Request| request.token(&jwt::token(&json!({ "userid": who })));
    let create = json!({ "model": "gpt-5", "input": "hello", "background": true });
    let created = of("alice", Request::post("/v1/responses", &create)).answered_by("queued");
    assert_eq!(creating.send(&created).status, 200);
    for world in &worlds {
        world.adapter.wait_for_bucket("per-user", "tokens", "alice", 0, 100);
    }
    let read = |who: &str| of(who, Request::get("/v1/responses/resp_1"));
    assert_eq!(reading.send(&read("bob").answered_by("queued")).status, 200);
    assert_eq!(reading.send(&read("bob").answered_by("completed")).status, 200);
    for world in &worlds {
        world.adapter.wait_for_bucket("per-user", "tokens", "alice", 100, 0);
    }
    // Each gateway reads the result again. A later request from Alice shows that the reads are settled.
    for world in [reading, creating, reading] {
        assert_eq!(world.send(&read("alice").answered_by("completed")).status, 200);
        assert_eq!(world.send(&alice().answered_by("100")).status, 200);
    }
    for world in &worlds {
        world.adapter.wait_for_bucket("per-user", "tokens", "alice", 400, 0);
        world.adapter.wait_for_bucket("per-user", "tokens", "bob", 0, 0);
    }
}
