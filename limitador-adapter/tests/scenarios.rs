//! Plays every story of `e2e/scenarios` and every evasion of `e2e/evasions` natively: the core decides, and
//! the limiter and its ledger count. `e2e/tests/scenarios.rs` and `corpus.rs` play the same stories through a
//! real Envoy.
// Clippy recognises tests by their attribute, so it does not see that shared functions belong to tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use e2e::redis::Redis;
use e2e::scenario::{AdapterFate, Answer, Date, Ending, Evasion, Player, Request, Seen, Story, run};
use e2e::wait;
use engine::exchange::{ActivePlan as FilterPlan, Effect, Event, Exchange, ReservationId};
use engine::health::Health;
use engine::outbox::{CommitRoute, Outbox};
use engine::refusal::HeaderList;
use expression::facts::{Facts, Need};
use expression::identity;
use expression::identity::IdentityEncoding;
use libtest_mimic::{Arguments, Failed, Trial};
use limitador_adapter::grpc::limiter::Limiter;
use limitador_adapter::ledger::Ledger;
use limitador_adapter::ledger::memory::MemoryLedger;
use limitador_adapter::ledger::moment::Moment;
use limitador_adapter::ledger::redis::RedisLedger;
use limitador_adapter::metrics::AdapterMetrics;
use limitador_adapter::policies::collection::Collection;
use limitador_adapter::policies::snapshot::PolicySnapshot;
use llm::response::ResponseHead;
use policy::model::{FailureMode, Policy};
use policy::plan::{BodyAccess, LearnedOutputs, Plan};
use prost::Message;
use protocol::call::CallFailure;
use protocol::wire::kuadrant::service::ratelimit::v1::ReserveResponse;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;

fn main() {
    let arguments = Arguments::from_args();
    let redis = Arc::new(LazyLock::new(Redis::start as fn() -> Redis));
    let memory = || -> Arc<dyn Ledger> { Arc::new(MemoryLedger::new(10_000_usize, Moment::now())) };
    let mut trials = Vec::new();
    for (database, (name, path)) in (1..).zip(Story::all()) {
        let (own, redis) = (path.clone(), Arc::clone(&redis));
        trials.push(Trial::test(format!("memory/{name}"), move || play(Story::read(&path), memory)));
        let on_redis = move || -> Arc<dyn Ledger> {
            let place = redis.url(database).parse().unwrap();
            let ledger = RedisLedger::new(place, Some(10_000_usize.into())).unwrap();
            Arc::new(ledger.with_the_callers_time().with_timeout(10 * wait::DEADLINE))
        };
        trials.push(Trial::test(format!("redis/{name}"), move || play(Story::read(&own), on_redis)));
    }
    for (name, path) in Evasion::all() {
        let story = Evasion::read(&path).map(|evasion| evasion.story(&name));
        trials.push(Trial::test(format!("evasion/{name}"), move || play(story, memory)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // `exit` runs no destructors, so the Redis process would keep running.
    drop(redis);
    conclusion.exit();
}

/// Plays a story with a separate ledger.
fn play(story: Result<Story, String>, ledger: impl FnOnce() -> Arc<dyn Ledger>) -> Result<(), Failed> {
    let story = story?;
    Ok(run(&story, &mut Native::new(&story, ledger()))?)
}

/// A filter and an adapter without a network in between, and with a simulated clock.
struct Native {
    runtime: Runtime,
    ledger: Arc<dyn Ledger>,
    limiter: Limiter,
    in_force: watch::Sender<Arc<PolicySnapshot>>,
    metrics: Arc<AdapterMetrics>,
    plan: FilterPlan,
    outbox: Outbox,
    begun: Moment,
    now: Moment,
    away: bool,
    requests: u64,
    health: Health,
    access: BodyAccess,
    outputs: LearnedOutputs,
    /// The replacement for the current chunk.
    replaced: Option<Vec<u8>>,
}

/// A request that waits for the provider.
struct Open {
    exchange: Exchange,
    answer: Answer,
    seen: Seen,
    /// The number of delivered chunks. `None` if not even the head was delivered.
    delivered: Option<usize>,
}

impl Native {
    fn new(story: &Story, ledger: Arc<dyn Ledger>) -> Self {
        let access = story.reads_bodies.map_or(BodyAccess::None, BodyAccess::Buffer);
        let mut begun = Moment::now();
        begun.unix = story.begins.map_or(begun.unix, Date::since_1970);
        let metrics = Arc::new(AdapterMetrics::new().unwrap());
        let (in_force, known) = watch::channel(Arc::new(PolicySnapshot::default()));
        let limiter = Limiter::new(Arc::clone(&ledger), known, Arc::clone(&metrics));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (plan, outbox) = (FilterPlan::Nothing(FailureMode::Allow), Outbox::new(1 << 20));
        let (now, away, requests) = (begun, false, 0);
        Self {
            runtime,
            ledger,
            limiter,
            in_force,
            metrics,
            plan,
            outbox,
            begun,
            now,
            away,
            requests,
            health: Health::default(),
            access,
            outputs: LearnedOutputs::default(),
            replaced: None,
        }
    }

    /// Performs the effects of an event, and the effects that follow from them.
    fn handle(&mut self, exchange: &mut Exchange, seen: &mut Seen, event: Event<'_>) {
        for effect in exchange.handle(event) {
            match effect {
                Effect::AwaitBody(most) => {
                    let body = seen.sent_body.clone().unwrap_or_default();
                    let end = body.len() <= most;
                    let body = body.get(..most).unwrap_or(&body);
                    self.handle(exchange, seen, Event::RequestBody { body, end });
                }
                Effect::Edit(edit) => {
                    for (name, value) in edit.headers {
                        seen.sent.iter_mut().flatten().filter(|(key, _)| key == name).for_each(|header| {
                            header.1.clone_from(&value.clone().unwrap_or_default());
                        });
                        seen.sent.iter_mut().for_each(|sent| {
                            sent.retain(|(key, _)| key != name || value.is_some());
                        });
                    }
                    seen.sent_body = Some(edit.body);
                }
                Effect::SetRequestHeader(name, value) => {
                    if let Some(sent) = &mut seen.sent {
                        sent.retain(|(key, _)| key != name);
                        sent.push((name.to_owned(), value.to_owned()));
                    }
                }
                Effect::Signal(headers) => {
                    if let Some(sent) = &mut seen.sent {
                        sent.retain(|(key, _)| !headers.iter().any(|(name, _)| name == key));
                        sent.extend(headers.into_iter().map(|(name, value)| (name.into_owned(), value)));
                    }
                }
                Effect::Reserve(call) => {
                    seen.asked = seen.asked.map(|asked| asked + 1);
                    let reply = self.reserve(&call);
                    self.handle(exchange, seen, Event::Reply(reply));
                }
                Effect::Deny(denial) => {
                    seen.status = denial.status;
                    seen.body = denial.body;
                    set(seen, &denial.headers);
                }
                Effect::SetHeaders(headers) => set(seen, &headers),
                Effect::RemoveHeader(name) => seen.headers.retain(|(key, _)| key != name),
                Effect::ReplaceChunk(bytes) => self.replaced = Some(bytes),
                Effect::KeepChunk(_) | Effect::Reset => self.replaced = Some(Vec::new()),
                Effect::Commit(settlement) => {
                    assert_eq!(self.outbox.push(settlement).dropped, 0, "the queue is full")
                }
                Effect::Raise(raise) => assert!(self.outbox.raise(raise), "too many raises wait"),
                Effect::UpstreamFailed(model) => self.health.failed(&model, self.milliseconds()),
                Effect::Resume | Effect::Record(_) | Effect::RecordUsage(_) | Effect::Count(_) => {}
            }
        }
        if !self.tell().is_empty() {
            exchange.handle(Event::OutOfRoom);
        }
    }

    fn reserve(&self, call: &[u8]) -> Result<ReserveResponse, CallFailure> {
        if self.away {
            return Err(CallFailure::Timeout);
        }
        let answer = self.runtime.block_on(self.limiter.reserve(Message::decode(call).unwrap(), self.now));
        Ok(answer.unwrap())
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from((self.now.instant - self.begun.instant).as_millis()).unwrap()
    }

    /// Sends waiting commits and raises to the adapter, if it is available. Returns the exchanges that have
    /// no room for their raised holds.
    fn tell(&mut self) -> Vec<String> {
        let mut out_of_room = Vec::new();
        let ms = self.milliseconds();
        while let Some(call) = self.outbox.send(CommitRoute::Stream, ms) {
            if self.away {
                self.outbox.answered(call.number, Err(CallFailure::Timeout), ms);
                return out_of_room;
            }
            let answer = self
                .runtime
                .block_on(self.limiter.commit(Message::decode(&*call.message).unwrap(), self.now));
            let mut answer = answer.unwrap();
            out_of_room.append(&mut answer.out_of_room);
            self.outbox.answered(call.number, Ok(answer), ms);
        }
        out_of_room
    }

    fn facts(&mut self, request: &Request, claims: Option<&Value>, needs: &[Need]) -> Facts {
        let signals = self.plan.signal_headers();
        let (forged, headers): (Vec<_>, Vec<_>) =
            headers(request).into_iter().partition(|(name, _)| signals.contains(name));
        let mut facts = Facts::default();
        if !forged.is_empty() {
            facts.doubt_route();
        }
        for need in needs {
            match need {
                Need::Header(name) => {
                    for (_, value) in headers.iter().filter(|(key, _)| key == name) {
                        facts.header(name, value.as_bytes());
                    }
                }
                Need::Headers => {
                    headers.iter().for_each(|(name, value)| facts.header(name, value.as_bytes()))
                }
                Need::Failures => facts.failures(self.health.counts(self.milliseconds())),
                Need::Property(path) => facts.property(path, attribute(path, request)),
                Need::Identity => {
                    if let Some(claims) = claims {
                        facts.auth(
                            identity::from_header(claims.to_string().as_bytes(), IdentityEncoding::Json)
                                .unwrap(),
                        );
                    }
                }
            }
        }
        if let Some(hiding) = facts.hiding_header() {
            headers
                .iter()
                .filter(|(name, _)| name == hiding)
                .for_each(|(name, value)| facts.header(name, value.as_bytes()));
        }
        facts
    }

    /// Delivers the head of the answer and this many of its chunks.
    fn deliver(&mut self, open: &mut Open, pieces: usize) {
        let from = open.delivered.unwrap_or_else(|| {
            let (status, headers) = (open.answer.status(), open.answer.headers());
            self.head(open, status, headers);
            0
        });
        for piece in open.answer.pieces().iter().take(pieces).skip(from) {
            self.body(&mut open.exchange, &mut open.seen, piece, false);
            open.seen.body.extend_from_slice(self.replaced.take().as_deref().unwrap_or(piece));
        }
        open.delivered = Some(pieces);
    }

    /// Passes a chunk to the exchange, which may replace it and then reads it.
    fn body(&mut self, exchange: &mut Exchange, seen: &mut Seen, chunk: &[u8], end: bool) {
        if exchange.edits_body() {
            self.handle(exchange, seen, Event::Passing { chunk, end });
        }
        self.handle(exchange, seen, Event::Body { chunk, end });
    }

    fn head(&mut self, open: &mut Open, status: u16, headers: Vec<(String, String)>) {
        open.seen.status = status;
        let value = |name: &str| e2e::wire::header(&headers, name).map(str::to_owned);
        let head = ResponseHead::from_headers(status, open.exchange.answer_headers(), value);
        open.seen.headers = headers;
        self.handle(&mut open.exchange, &mut open.seen, Event::Response(head));
    }
}

impl Player for Native {
    type Open = Open;

    fn apply(&mut self, policies: &[Value]) {
        let mut collection = Collection::default();
        let documents: String = policies.iter().map(|policy| format!("---\n{policy}\n")).collect();
        collection.update(Path::new("story.yaml"), Ok(documents.as_bytes()));
        let collected = collection.collect();
        let mistakes: Vec<_> = collected.entries.iter().flat_map(|entry| entry.messages()).collect();
        assert!(mistakes.is_empty(), "{mistakes:#?}");
        let read: Vec<_> = collected.policies.iter().map(|good| Policy::clone(&good.policy)).collect();
        let plan = Plan::new(read).with_body(self.access).learning(self.outputs.clone());
        self.plan = FilterPlan::Plan(Arc::new(plan));
        self.in_force.send_replace(Arc::new(PolicySnapshot::new(collected, &self.metrics)));
    }

    fn open(&mut self, request: &Request, claims: Option<&Value>) -> Result<Open, Seen> {
        self.requests += 1;
        let id = ReservationId { prefix: "story".into(), number: self.requests };
        let mut exchange = Exchange::new(self.plan.clone(), id);
        // The filter removes the identity header, which only the authentication filter may set.
        let is_sent = |name: &String| name != "x-jwt-payload" && !self.plan.signal_headers().contains(name);
        let sent = headers(request).into_iter().filter(|(name, _)| is_sent(name)).collect();
        let mut seen =
            Seen { sent: Some(sent), sent_body: Some(request.bytes()), asked: Some(0), ..Seen::default() };
        let (mut needs, mut facts) = (Vec::new(), Facts::default());
        let plan = self.plan.clone();
        let concerned = plan.rounds().iter().all(|round| {
            needs.extend_from_slice(round.needs());
            facts = self.facts(request, claims, &needs);
            round.is_open(&facts)
        });
        if concerned {
            let bodiless = request.bytes().is_empty();
            self.handle(&mut exchange, &mut seen, Event::Request { facts, bodiless });
        }
        if exchange.counts_request_body() {
            let passed = u64::try_from(request.bytes().len()).unwrap();
            self.handle(&mut exchange, &mut seen, Event::RequestPassed(passed));
        }
        if seen.status != 0 {
            return Err(Seen { sent: None, sent_body: None, ..seen });
        }
        let mut open = Open { exchange, answer: request.answer.clone(), seen, delivered: None };
        if request.answer.before > 0 {
            self.deliver(&mut open, request.answer.before);
        }
        Ok(open)
    }

    fn finish(&mut self, mut open: Open) -> Seen {
        let ending = open.answer.ending;
        if ending == Ending::NoHead {
            // The headers that Envoy sets itself.
            self.head(&mut open, 503, vec![("content-type".into(), "text/plain".into())]);
            self.body(&mut open.exchange, &mut open.seen, b"reset", true);
        } else {
            let all = open.answer.pieces().len();
            self.deliver(&mut open, all);
            if ending == Ending::Reset {
                open.seen.cut = true;
            } else {
                self.body(&mut open.exchange, &mut open.seen, b"", true);
                open.seen.body.extend(self.replaced.take().unwrap_or_default());
            }
        }
        self.handle(&mut open.exchange, &mut open.seen, Event::Closed);
        assert!(open.exchange.is_over());
        open.seen
    }

    fn hang_up(&mut self, mut open: Open) {
        self.handle(&mut open.exchange, &mut open.seen, Event::Closed);
    }

    fn counters(&mut self) -> Vec<Value> {
        self.tell();
        let in_force = Arc::clone(&self.in_force.borrow());
        let readings = self.runtime.block_on(self.ledger.readings(self.now)).unwrap();
        let bucket = |reading: limitador_adapter::ledger::CounterReading| {
            let (key, limit) = (&reading.key, in_force.limit_of(&reading.key)?);
            let counters: serde_json::Map<_, _> =
                key.counters.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
            let max = in_force.maximum(key);
            Some(json!({
                "policy": *limit.policy, "limit": limit.name, "unit": key.unit.name(), "counters": counters,
                "max": max, "used": reading.used, "held": reading.held,
                "remaining": max.map(|max| max.saturating_sub(reading.used.saturating_add(reading.held))),
            }))
        };
        readings.into_iter().filter_map(bucket).collect()
    }

    fn settles_within(&self) -> Duration {
        Duration::ZERO
    }

    fn adapter(&mut self, fate: AdapterFate) {
        self.away = matches!(fate, AdapterFate::Frozen | AdapterFate::Killed);
        assert_ne!(fate, AdapterFate::Killed, "what the memory held is not forgotten here");
        if !self.away {
            // The longest pause before the filter retries commits.
            self.now = self.now + Duration::from_secs(5);
            self.tell();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }
}

/// Returns the value of an attribute that Envoy provides, for the routes of `scenario::envoy` and a client on
/// the same machine.
fn attribute(path: &[String], request: &Request) -> &'static [u8] {
    match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        name if name == Facts::ROUTE_NAME && request.path.starts_with("/elsewhere/") => b"elsewhere",
        name if name == Facts::ROUTE_NAME => b"llm",
        ["source", "address"] => b"127.0.0.1:40000",
        other => panic!("no story knows the attribute {}", other.join(".")),
    }
}

fn headers(request: &Request) -> Vec<(String, String)> {
    let mut headers = vec![
        (":method".to_owned(), request.method.clone()),
        (":path".to_owned(), request.path.clone()),
        (":authority".to_owned(), "llm.example".to_owned()),
        (":scheme".to_owned(), "http".to_owned()),
    ];
    let length = request.bytes().len();
    if length > 0 && !request.is_chunked() {
        headers.push(("content-length".to_owned(), length.to_string()));
    }
    headers.extend(request.lines().into_iter().map(|(name, value)| (name.to_lowercase(), value)));
    headers
}

fn set(seen: &mut Seen, headers: &HeaderList) {
    for (name, value) in headers {
        seen.headers.retain(|(key, _)| key != name);
        seen.headers.push((name.to_string(), value.clone()));
    }
}
