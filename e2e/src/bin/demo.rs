//! `make demo`: plays a story about Kuadrant's announced policy in a real Envoy.
//!
//! It starts a scripted LLM, the adapter and Envoy, plays the story, prints working curl commands, and runs
//! until Ctrl-C. With `--once`, it exits after the story. With `--policy FILE`, it only starts a gateway with
//! these policies.

use e2e::adapter::Counter;
use e2e::client::{Request, Response};
use e2e::jwt::{self, kuadrant_user};
use e2e::playground::Playground;
use e2e::wait;
use e2e::world::World;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const EXAMPLE: &str = "examples/kuadrant";
/// The maximum output of each request. Four requests fit into the free plan.
const MAX_TOKENS: u64 = 4_900;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, policies] = arguments.as_slice()
        && flag == "--policy"
    {
        let playground = Playground::start(policies.as_ref());
        playground.introduce(policies.as_ref());
        wait_for_the_end(&ended());
        return;
    }
    let once = arguments.iter().any(|argument| argument == "--once");
    // Each demo begins with unused limits.
    let counters = tempfile::tempdir().expect("a temporary folder can be made");
    let world = start(&counters.path().join("counters.db"));
    // Until this point, a signal ends the process at once. From here on, everything is shut down in order.
    let over = ended();
    introduce(&world);
    tell(&world, "alice", "free");
    tell(&world, "bob", "gold");
    println!("\nWhat the adapter has counted ({}/api/counters)", url(world.adapter.http()));
    print!("{}", table(&world.adapter.counters()));
    println!("\nThe LLM saw {} requests: the refused one never got there.", world.upstream.calls());
    invite(&world);
    if !once {
        wait_for_the_end(&over);
    }
}

/// Returns a flag that is set when a signal asks the demo to end.
fn ended() -> Arc<AtomicBool> {
    let over = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&over)).expect("a signal can be listened to");
    }
    over
}

fn wait_for_the_end(over: &AtomicBool) {
    println!("\nPress Ctrl-C to stop it.");
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start(counters: &Path) -> World {
    let policy = e2e::artefacts::root().join(EXAMPLE).join("policy.yaml");
    let policy = std::fs::read_to_string(policy).expect("the example has a policy");
    let storage = format!("sqlite:{}", counters.display());
    World::build().policy(&policy).config(&format!("{EXAMPLE}/envoy.yaml")).storage(&storage).start()
}

fn introduce(world: &World) {
    println!("\nWeir holds a token limit in front of an LLM.\n");
    println!(
        "  policy   {EXAMPLE}/policy.yaml: 20000 tokens a day on the free plan, 200000 on gold, per user"
    );
    println!("  gateway  {}  Envoy with jwt_authn and weir.wasm", url(world.envoy.address()));
    println!("  adapter  {}  counts in a file, so a restart loses nothing", url(world.adapter.http()));
    println!(
        "  LLM      {}  scripted; every answer uses about {MAX_TOKENS} tokens",
        url(world.upstream.address())
    );
}

fn tell(world: &World, who: &str, plan: &str) {
    println!("\n{who}, on the {plan} plan, asks five times");
    let request = ask(who, plan);
    for time in 1..=5 {
        let before = bucket(world, plan, who).map_or(0, |counter| counter.used);
        let answer = world.send(&request);
        println!("  {time}  {}  {}", answer.status, outcome(world, plan, who, before, &answer));
    }
}

fn ask(who: &str, plan: &str) -> Request {
    Request::chat(MAX_TOKENS).token(&jwt::token(&kuadrant_user(who, plan)))
}

fn outcome(world: &World, plan: &str, who: &str, before: u64, answer: &Response) -> String {
    if answer.status != 200 {
        let message =
            answer.json()["error"]["message"].as_str().unwrap_or_default().replace(". ", ".\n          ");
        return message;
    }
    let settled = || bucket(world, plan, who).filter(|counter| counter.used > before && counter.held == 0);
    let counter = wait::until("the charge", settled);
    format!("{} tokens used, {} of {} left", counter.used - before, counter.remaining, counter.max)
}

fn bucket(world: &World, limit: &str, who: &str) -> Option<Counter> {
    let mut all = world.adapter.counters().into_iter();
    all.find(|counter| counter.limit == limit && counter.counters.values().any(|value| value == who))
}

fn table(counters: &[Counter]) -> String {
    let mut table =
        format!("  {:<28}{:<8}{:<8}{:>8}{:>8}{:>8}\n", "policy", "limit", "who", "max", "used", "left");
    for counter in counters {
        let who: Vec<_> = counter.counters.values().map(String::as_str).collect();
        table += &format!(
            "  {:<28}{:<8}{:<8}{:>8}{:>8}{:>8}\n",
            counter.policy,
            counter.limit,
            who.join(", "),
            counter.max,
            counter.used,
            counter.remaining
        );
    }
    table
}

fn invite(world: &World) {
    println!("\nTry it (these tokens are valid):");
    for (who, plan) in [("alice", "free"), ("bob", "gold")] {
        let token = jwt::token(&kuadrant_user(who, plan));
        let address = url(world.envoy.address());
        println!("\n  # {who}, {plan}");
        println!("  curl -i {address}/v1/chat/completions -H 'content-type: application/json' \\");
        println!("    -H 'authorization: Bearer {token}' \\");
        println!(
            "    -d '{{\"model\": \"gpt-4o\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hi\"}}], \"max_tokens\": 500}}'"
        );
    }
    println!("\n  curl {}/api/counters", url(world.adapter.http()));
}

fn url(address: std::net::SocketAddr) -> String {
    format!("http://{address}")
}
