//! Measures what different estimates of the output do: how far charges exceed the limit, and how much of the limit
//! is idle when the first request is refused. Exchanges, limiter and ledger are the real ones; the streams are
//! simulated.

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::outbox::{CommitRoute, Outbox};
use expression::facts::Facts;
use fastrand::Rng;
use limitador_adapter::grpc::limiter::Limiter;
use limitador_adapter::ledger::Ledger;
use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::metrics::AdapterMetrics;
use limitador_adapter::policies::collection::Collection;
use limitador_adapter::policies::snapshot::PolicySnapshot;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::{BodyAccess, LearnedOutputs, Plan};
use prost::Message;
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

const LIMIT: u64 = 100_000;
const AT_ONCE: [usize; 3] = [16, 64, 256];
const RUNS: u64 = 5;
/// The median of the outputs in tokens, and the standard deviation of their logarithms. So 90 % of the outputs have
/// at most 900 tokens, and the mean is 410.
const MEDIAN: f64 = 250.0;
const DEVIATION: f64 = 1.0;
const LARGEST: u64 = 8192;
/// The tokens that a stream delivers in one step, and the characters of a token.
const TOKENS: usize = 20;
const CHARACTERS: usize = 4;
/// The responses that a worker has seen before.
const SEEN: usize = 200;

const POLICY: &str = r#"{
    "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "p"},
    "spec": {
        "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
        "limits": {"all": {
            "counters": [{"expression": "request.headers['x-user']"}],
            "rates": [{"limit": 100000, "window": "1h", "unit": "outputTokens"}]
        }}
    }
}"#;

/// What the client's request says about its output.
#[derive(Clone, Copy, PartialEq)]
enum Estimate {
    Exact,
    Third,
    Floor,
    Learned,
}

/// Returns the section's table.
pub fn table(runtime: &tokio::runtime::Runtime) -> String {
    let mut table = format!(
        "This table shows what estimates do to a limit of {LIMIT} output tokens, with outputs as long as those of chats: log-normal, median {MEDIAN:.0}, 90th percentile 900, mean 410. Each of 16 to 256 clients sends the next request as soon as its stream has ended, until the limit is used up. *Over* is how far charges exceed the limit. *Idle* is the part of the limit that is still unused when the first request is refused, although every running stream is counted with its whole output. Both are in percent of the limit, and means of {RUNS} runs. *Exact* and *a third* are the client's own maximum: the exact output, or a third of it that the provider ignores. *Floor* and *learned* are requests without a maximum, before and after {SEEN} responses. With *live holds*, a stream's hold grows with what it delivers, as in every release.\n\n\
        | estimate | live holds | 16: over | idle | 64: over | idle | 256: over | idle |\n|---|---|---|---|---|---|---|---|\n"
    );
    let estimates = [
        ("exact", Estimate::Exact),
        ("a third", Estimate::Third),
        ("floor", Estimate::Floor),
        ("learned", Estimate::Learned),
    ];
    for (name, estimate) in estimates {
        for live in [false, true] {
            write!(table, "| {name} | {} |", if live { "yes" } else { "no" }).expect("a text grows");
            for at_once in AT_ONCE {
                let run = |seed| Worker::new(runtime, estimate, live, seed).spend(at_once);
                let runs: Vec<(f64, f64)> = (1..=RUNS).map(run).collect();
                let over: f64 = runs.iter().map(|(over, _)| over).sum::<f64>() / RUNS as f64;
                let idle: f64 = runs.iter().map(|(_, idle)| idle).sum::<f64>() / RUNS as f64;
                write!(table, " {over:.1} % | {idle:.1} % |").expect("a text grows");
            }
            table.push('\n');
        }
    }
    table
}

/// A filter's worker with its adapter.
struct Worker<'r> {
    runtime: &'r tokio::runtime::Runtime,
    ledger: Arc<dyn Ledger>,
    limiter: Limiter,
    plan: ActivePlan,
    outbox: Outbox,
    now: Moment,
    estimate: Estimate,
    live: bool,
    random: Rng,
    requests: u64,
}

/// A response on its way to the client.
struct Stream {
    exchange: Exchange,
    /// The output in tokens, and how much of it was delivered.
    output: u64,
    delivered: u64,
}

impl<'r> Worker<'r> {
    fn new(runtime: &'r tokio::runtime::Runtime, estimate: Estimate, live: bool, seed: u64) -> Self {
        let mut collection = Collection::default();
        collection.update(Path::new("p.yaml"), Ok(POLICY.as_bytes()));
        let collected = collection.collect();
        let policies: Vec<_> = collected.policies.iter().map(|valid| Policy::clone(&valid.policy)).collect();
        let mut plan = Plan::new(policies).with_body(BodyAccess::Buffer(1 << 20));
        if estimate == Estimate::Learned {
            plan = plan.learning(LearnedOutputs::default());
        }
        let metrics = Arc::new(AdapterMetrics::new().expect("metrics"));
        let (_, known) = watch::channel(Arc::new(PolicySnapshot::new(collected, &metrics)));
        let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new(1000_usize, Moment::now()));
        Self {
            runtime,
            limiter: Limiter::new(Arc::clone(&ledger), known, metrics),
            ledger,
            plan: ActivePlan::Plan(Arc::new(plan)),
            outbox: Outbox::new(1 << 20),
            now: Moment::now(),
            estimate,
            live,
            random: Rng::with_seed(seed),
            requests: 0,
        }
    }

    /// Spends the limit with this many requests at once. Returns what was charged beyond it, and what was unused when
    /// the first request was refused, in percent.
    fn spend(mut self, at_once: usize) -> (f64, f64) {
        for number in 0..SEEN {
            let stream = self.start(&format!("other-{number}")).expect("another bucket has room");
            self.finish(stream);
        }
        let (mut streams, mut idle): (Vec<Stream>, Option<u64>) = (Vec::new(), None);
        loop {
            while streams.len() < at_once {
                let Some(stream) = self.start("user") else {
                    let running: u64 = streams.iter().map(|stream| stream.output).sum();
                    idle.get_or_insert(LIMIT.saturating_sub(self.used() + running));
                    break;
                };
                streams.push(stream);
            }
            if streams.is_empty() {
                break;
            }
            for mut stream in std::mem::take(&mut streams) {
                self.deliver(&mut stream);
                if stream.delivered < stream.output {
                    streams.push(stream);
                } else {
                    self.finish(stream);
                }
            }
        }
        let percent = |tokens: u64| tokens as f64 * 100.0 / LIMIT as f64;
        (percent(self.used().saturating_sub(LIMIT)), percent(idle.unwrap_or_default()))
    }

    /// Sends a request. Returns `None` if it is refused.
    fn start(&mut self, user: &str) -> Option<Stream> {
        self.requests += 1;
        let output = self.output();
        let mut body =
            json!({ "model": "m", "stream": true, "messages": [{ "role": "user", "content": "hello" }] });
        match self.estimate {
            Estimate::Exact => body["max_tokens"] = output.into(),
            Estimate::Third => body["max_tokens"] = (output / 3).max(1).into(),
            Estimate::Floor | Estimate::Learned => {}
        }
        let body = body.to_string();
        let mut facts = Facts::default();
        facts.header(":path", b"/v1/chat/completions");
        facts.header("content-length", body.len().to_string().as_bytes());
        facts.header("x-user", user.as_bytes());
        let id = ReservationId { prefix: "w".into(), number: self.requests };
        let mut exchange = Exchange::new(self.plan.clone(), id);
        exchange.handle(Event::Request { facts, bodiless: false });
        let effects = exchange.handle(Event::RequestBody { body: body.as_bytes(), end: true });
        let call = effects.iter().find_map(|effect| match effect {
            Effect::Reserve(call) => Some(call.clone()),
            _ => None,
        });
        let call = Message::decode(&*call.expect("a reserve")).expect("a message");
        let reply = self.runtime.block_on(self.limiter.reserve(call, self.now)).expect("a reply");
        let effects = exchange.handle(Event::Reply(Ok(reply)));
        if effects.iter().any(|effect| matches!(effect, Effect::Deny(_))) {
            return None;
        }
        let head =
            ResponseHead { status: 200, content_type: "text/event-stream".into(), ..ResponseHead::default() };
        self.perform(exchange.handle(Event::Response(head)));
        Some(Stream { exchange, output, delivered: 0 })
    }

    /// Delivers the next part of a stream.
    fn deliver(&mut self, stream: &mut Stream) {
        let tokens = usize::try_from(stream.output - stream.delivered).unwrap_or(TOKENS).min(TOKENS);
        stream.delivered += tokens as u64;
        let delta = json!({ "choices": [{ "delta": { "content": "a".repeat(tokens * CHARACTERS) } }] });
        let chunk = format!("data: {delta}\n\n");
        self.perform(stream.exchange.handle(Event::Body { chunk: chunk.as_bytes(), end: false }));
    }

    /// Reports the stream's usage, and ends it.
    fn finish(&mut self, mut stream: Stream) {
        let output = stream.output;
        let usage = json!({ "prompt_tokens": 2, "completion_tokens": output, "total_tokens": output + 2 });
        let chunk = format!("data: {}\n\ndata: [DONE]\n\n", json!({ "choices": [], "usage": usage }));
        self.perform(stream.exchange.handle(Event::Body { chunk: chunk.as_bytes(), end: true }));
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Commit(settlement) => {
                    assert_eq!(self.outbox.push(settlement).dropped, 0, "the queue is full")
                }
                Effect::Raise(raise) if self.live => assert!(self.outbox.raise(raise), "the queue is full"),
                _ => {}
            }
        }
        while let Some(call) = self.outbox.send(CommitRoute::Stream, 0) {
            let message = Message::decode(&*call.message).expect("a message");
            let answer = self.runtime.block_on(self.limiter.commit(message, self.now)).expect("a reply");
            self.outbox.answered(call.number, Ok(answer), 0);
        }
    }

    /// The tokens charged to the measured user.
    fn used(&self) -> u64 {
        let readings = self.runtime.block_on(self.ledger.readings(self.now)).expect("an answer");
        let of_user = |value: &str| value == "user";
        let is_measured = |counters: &[(String, String)]| counters.iter().any(|(_, value)| of_user(value));
        readings.iter().filter(|reading| is_measured(&reading.key.counters)).map(|reading| reading.used).sum()
    }

    /// The output of the next response.
    fn output(&mut self) -> u64 {
        // The sum of twelve uniform numbers is close to normal.
        let normal: f64 = (0..12).map(|_| self.random.f64()).sum::<f64>() - 6.0;
        let output = (MEDIAN * (DEVIATION * normal).exp()) as u64;
        output.clamp(1, LARGEST)
    }
}
