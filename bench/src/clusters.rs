//! Measures a cluster with a thousand policies on five hundred routes, compared with one policy on one route: the
//! plan's size, the cost of loading it into a VM, memory, and the cost of a request. Requires a real API server, and is
//! skipped if none has been built.

use crate::case::{self, Case, Ends, weir};
use crate::{cost, load, report};
use anyhow::{Context, Result};
use e2e::adapter::Adapter;
use e2e::artefacts;
use e2e::cluster::Cluster;
use e2e::envoy::Envoy;
use e2e::wait;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const NAME: &str = "a thousand policies on five hundred routes";
const ROUTES: usize = 500;
const MEASURED: Duration = Duration::from_secs(2);
/// The number of VMs: one for the worker, and one for Envoy's main thread.
const MACHINES: u32 = 2;

const CASE: Case = case::case(NAME, weir("llm"));

/// The measurements for one cluster size. Times are in microseconds, and memory is in bytes.
struct Size {
    policies: usize,
    routes: usize,
    plan: f64,
    taken: f64,
    adapter: u64,
    envoy: u64,
    limited: f64,
    unlimited: f64,
}

/// Runs the benchmark if it is selected and there is a kube-apiserver.
pub fn run(rounds: usize, is_wanted: impl Fn(&str) -> bool, everything: bool, ends: Ends) -> Result<()> {
    if !is_wanted(NAME) {
        return Ok(());
    }
    if !artefacts::has_kubernetes() {
        eprintln!("{NAME}: skipped, because there is no kube-apiserver (make test-k8s builds one)");
        return Ok(());
    }
    let text = measure(rounds, ends)?;
    println!("{text}");
    if everything || std::env::var("BENCH_CASES").is_ok_and(|wanted| NAME.starts_with(&wanted)) {
        report::keep(HEADING, &text)?;
    }
    Ok(())
}

const HEADING: &str = "## What a thousand policies cost";

fn measure(rounds: usize, ends: Ends) -> Result<String> {
    let cluster = Cluster::start();
    let adapter = Adapter::start_in_cluster(&cluster.install(), &[]);
    cluster.run(&["create", "namespace", "bench"]);
    let listeners = json!([{ "name": "http", "protocol": "HTTP", "port": 80 }]);
    let gateway = json!({ "gatewayClassName": "bench", "listeners": listeners });
    apply(&cluster, [object("gateway.networking.k8s.io/v1", "Gateway", "llm", gateway), route(0), chat(10)]);
    let envoy = CASE.config(Ends { adapter: adapter.grpc(), ..ends })?.start(1);
    let few = size(&cluster, &adapter, &envoy, (1, 1), rounds)?;
    let others = (1..ROUTES).flat_map(|at| [route(at), on_route(at), on_gateway(at)]);
    apply(&cluster, others.chain([on_gateway(ROUTES)]));
    let many = size(&cluster, &adapter, &envoy, (2 * ROUTES, ROUTES), rounds)?;
    Ok(table(rounds, &[few, many]))
}

/// Waits until every policy is in force and no further plan arrives.
fn settled(adapter: &Adapter, envoy: &Envoy, policies: usize) {
    wait::until("every policy", || {
        (adapter.metric("weir_policies_loaded", &[]) == policies as f64).then_some(())
    });
    let mut last = (envoy.plans(), Instant::now());
    wait::until("the last plan", || {
        let now = envoy.plans();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(2)).then_some(())
    });
}

fn size(
    cluster: &Cluster,
    adapter: &Adapter,
    envoy: &Envoy,
    (policies, routes): (usize, usize),
    rounds: usize,
) -> Result<Size> {
    settled(adapter, envoy, policies);
    let shown = |max: usize| move |head: &String| head.contains(&format!("x-ratelimit-limit-tokens: {max}"));
    wait::until("the limit", || load::once(envoy.address()).ok().filter(shown(1_000_000_010)));
    let (adapter_memory, envoy_memory) = (cost::memory(adapter.pid())?, cost::memory(envoy.pid())?);
    let limited = per_request(envoy, rounds)?;
    // When one policy is edited, every VM loads a whole plan.
    let mut taken = Vec::new();
    for round in 0..rounds.max(2) {
        let (before, plans) = (cost::cpu(envoy.pid())?, envoy.plans());
        apply(cluster, [chat(11 + round)]);
        wait::until("the plan", || (envoy.plans() >= plans + u64::from(MACHINES)).then_some(()));
        taken.push((cost::cpu(envoy.pid())? - before).as_secs_f64() * 1e6 / f64::from(MACHINES));
    }
    let plan = adapter.metric("weir_plan_bytes", &["bench/llm"]);
    cluster.run(&["-n", "bench", "delete", "wtrlp", "chat"]);
    wait::until("no limit", || {
        load::once(envoy.address()).ok().filter(|head| !head.contains("x-ratelimit-limit-tokens"))
    });
    settled(adapter, envoy, policies - 1);
    let unlimited = per_request(envoy, rounds)?;
    apply(cluster, [chat(10)]);
    settled(adapter, envoy, policies);
    let taken = report::median(taken);
    Ok(Size {
        policies,
        routes,
        plan,
        taken,
        adapter: adapter_memory,
        envoy: envoy_memory,
        limited,
        unlimited,
    })
}

/// Measures Envoy's CPU time per request in a closed loop.
fn per_request(envoy: &Envoy, rounds: usize) -> Result<f64> {
    let round = |_| {
        load::closed(envoy.address(), |answers| {
            std::thread::sleep(Duration::from_millis(300));
            let (first, before) = (answers.load(Ordering::Relaxed), cost::cpu(envoy.pid())?);
            std::thread::sleep(MEASURED);
            let used = (cost::cpu(envoy.pid())? - before).as_secs_f64() * 1e6;
            Ok(used / (answers.load(Ordering::Relaxed) - first) as f64)
        })
    };
    Ok(report::median((0..rounds).map(round).collect::<Result<_>>().context("requests")?))
}

fn table(rounds: usize, sizes: &[Size]) -> String {
    let mut text = format!(
        "{HEADING}\n\n`BENCH_CASES='{NAME}' make bench` on {}, {}: medians of {rounds} rounds. The policies and routes \
         are in a real API server. The first policy's limit applies to the requests. Half of the other policies are on \
         other routes, and half are on the gateway, but for other groups. *Request, limited* is Envoy's total CPU time per \
         request in a closed loop, in microseconds. *No limit* is the same without the first policy (so in the first row, \
         without any policy). *Taking a plan* is Envoy's CPU time per VM to read and compile the whole plan after one \
         policy is edited. Envoy has one worker, and therefore two VMs.\n\n\
         | policies | routes | plan kB | taking a plan ms | adapter MB | Envoy MB | request, limited us | no limit us |\n\
         |---|---|---|---|---|---|---|---|\n",
        std::env::var("BENCH_DATE").unwrap_or_else(|_| "an unknown day".into()),
        report::machine(),
    );
    for size in sizes {
        let Size { policies, routes, limited, unlimited, .. } = size;
        let _ = writeln!(
            text,
            "| {policies} | {routes} | {:.0} | {:.0} | {} | {} | {limited:.0} | {unlimited:.0} |",
            size.plan / 1e3,
            size.taken / 1e3,
            size.adapter / 1_000_000,
            size.envoy / 1_000_000,
        );
    }
    text
}

fn apply(cluster: &Cluster, objects: impl IntoIterator<Item = Value>) {
    let items: Vec<Value> = objects.into_iter().collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    cluster.run_with(&["apply", "--server-side", "-f", "-"], &list.to_string());
}

fn object(version: &str, kind: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({ "name": name, "namespace": "bench" });
    json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec })
}

fn route(at: usize) -> Value {
    let path = if at == 0 { "/v1/chat".to_owned() } else { format!("/team-{at}/v1/chat") };
    let rules = json!([{ "matches": [{ "path": { "type": "PathPrefix", "value": path } }] }]);
    let spec = json!({ "parentRefs": [{ "name": "llm" }], "rules": rules });
    object("gateway.networking.k8s.io/v1", "HTTPRoute", &format!("route-{at}"), spec)
}

fn policy(name: &str, kind: &str, target: &str, group: &str, max: usize) -> Value {
    let target = json!({ "group": "gateway.networking.k8s.io", "kind": kind, "name": target });
    let free = json!({
        "when": [
            { "predicate": "request.path.startsWith(\"/\")" },
            { "predicate": format!("auth.identity.group == {group:?}") },
        ],
        "counters": [{ "expression": "auth.identity.userid" }],
        "rates": [{ "limit": max, "window": "24h" }],
    });
    object(
        "weir.dev/v1alpha1",
        "TokenRateLimitPolicy",
        name,
        json!({ "targetRef": target, "limits": { "free": free } }),
    )
}

/// Returns the policy that applies. A different maximum results in a different plan.
fn chat(max: usize) -> Value {
    policy("chat", "HTTPRoute", "route-0", "free", 1_000_000_000 + max)
}

fn on_route(at: usize) -> Value {
    policy(&format!("route-{at}"), "HTTPRoute", &format!("route-{at}"), "free", 1_000_000)
}

fn on_gateway(at: usize) -> Value {
    policy(&format!("group-{at}"), "Gateway", "llm", &format!("group-{at}"), 1_000_000)
}
