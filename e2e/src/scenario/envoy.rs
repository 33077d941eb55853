//! Plays stories through a real Envoy.

use super::{AdapterFate, Answer, Ending, Player, Request, Seen, Story};
use crate::client::{InFlight, Request as HttpRequest, Response};
use crate::upstream::{self, Answer as Script, Gate};
use crate::world::{self, Builder, World};
use crate::{jwt, wait};
use serde_json::{Value, json};
use std::time::Duration;

/// The maximum number of body bytes that Envoy buffers.
const BUFFER: usize = 4 << 20;

/// A world for stories with the same setting for reading bodies. The stories are played one after another.
pub struct ThroughEnvoy {
    world: World,
    requests: usize,
    frozen: bool,
    in_force: String,
    renewals: usize,
}

/// A request that waits for the provider.
pub struct Waiting {
    client: InFlight,
    gate: Gate,
    upstream_call: usize,
    asked: Option<u64>,
    /// The amount that this request holds.
    held: u64,
}

impl ThroughEnvoy {
    /// Starts everything except policies.
    pub fn start(story: &Story) -> Self {
        let mut world = World::build();
        match (&story.gateway, story.reads_bodies) {
            // A longer timeout, so that a busy machine does not change the outcome.
            (Some(file), _) => {
                world = world.config(&file.to_string_lossy());
                world = world.plugin(|plugin| plugin["adapter"]["timeout"] = "2s".into());
            }
            (None, Some(most)) => world = with_another_route(world).reading_bodies(most),
            (None, None) => world = with_another_route(world),
        }
        // Envoy must buffer more of a body than a story lets the filter read.
        world = world.change(|config| {
            config.all()["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] =
                BUFFER.into();
        });
        Self { world: world.start(), requests: 0, frozen: false, in_force: String::new(), renewals: 0 }
    }

    /// Prepares the world for another story. Waits until all exchanges of the last story have ended and are
    /// settled, and then restarts the adapter, which loses its counters. Envoy and its VMs keep running,
    /// because V8 takes seconds to compile the module.
    pub fn renew(&mut self) {
        wait::until("the end of every request", || (self.under_way() == 0).then_some(()));
        self.renewals += 1;
        let limit = format!("renewal-{}", self.renewals);
        // The plan is different each time, because a filter is slow to return to an earlier plan.
        let policy = world::policy(&limit, json!({ "limits": { limit.as_str(): world::per_user(1_000) } }));
        self.world.edit("0.yaml", &policy);
        self.in_force = policy;
        // A worker settles in order, so this request is charged after everything that ended before it.
        self.world.send(&HttpRequest::chat(10).token(&jwt::token(&json!({ "userid": "renewal" }))));
        let charged = || self.world.adapter.bucket(&limit, "tokens", "renewal");
        wait::until("every settlement", || {
            let (used, held) = charged();
            (used > 0 && held == 0).then_some(())
        });
        self.world.adapter.restart();
    }

    /// Prints the end of each log.
    pub fn show_logs(&self) {
        self.world.envoy.show_log();
        self.world.adapter.show_log();
    }

    /// Returns the number of requests that Envoy is handling.
    fn under_way(&self) -> u64 {
        self.world.envoy.stat("http.gateway.downstream_rq_active")
    }

    fn held(&self) -> u64 {
        if self.frozen { 0 } else { self.world.adapter.counters().iter().map(|counter| counter.held).sum() }
    }

    /// Returns how many pending results the adapter knows.
    fn parked(&self) -> u64 {
        if self.frozen {
            return 0;
        }
        self.world.adapter.metric("weir_commits_total", &["outcome=\"parked\""]) as u64
    }

    /// Returns how many Reserves the adapter has received, if it is reachable.
    fn reserves(&self) -> Option<u64> {
        (!self.frozen).then(|| self.world.adapter.metric("weir_reserves_total", &[]) as u64)
    }

    fn seen(
        &self,
        answered: Result<Response, std::io::Error>,
        upstream_call: Option<usize>,
        asked: Option<u64>,
    ) -> Seen {
        let reached = upstream_call.map(|call| self.world.upstream.seen()[call].clone());
        let (sent, sent_body) = reached.map(|seen| (seen.headers, seen.body)).unzip();
        match answered {
            Ok(Response { status, headers, body, cut, .. }) => {
                Seen { status, headers, body, cut: cut.is_some(), sent, sent_body, asked }
            }
            Err(_) => Seen { cut: true, sent, sent_body, asked, ..Seen::default() },
        }
    }

    fn request(&mut self, request: &Request, claims: Option<&Value>) -> HttpRequest {
        let mut http = HttpRequest::new(&request.method, &request.path).body(request.bytes());
        if request.is_chunked() {
            http = http.chunked();
        }
        if request.body.is_object() && !request.headers.contains_key("content-type") {
            http = http.header("content-type", "application/json");
        }
        for (name, value) in request.lines() {
            http = http.header(&name, value);
        }
        if let Some(claims) = claims {
            http = http.token(&jwt::token(claims));
        }
        http
    }
}

impl Player for ThroughEnvoy {
    type Open = Waiting;

    fn apply(&mut self, policies: &[Value]) {
        let documents: String = policies.iter().map(|policy| format!("---\n{policy}\n")).collect();
        // If the policies are unchanged, there is no new plan to wait for.
        if documents != self.in_force {
            self.world.edit("0.yaml", &documents);
            self.in_force = documents;
        }
    }

    fn open(&mut self, request: &Request, claims: Option<&Value>) -> Result<Waiting, Seen> {
        self.requests += 1;
        let (name, gate) = (format!("answer-{}", self.requests), Gate::default());
        self.world.upstream.on(&name, script(&request.answer, &gate));
        let (held, calls, reserves) = (self.held(), self.world.upstream.calls(), self.reserves());
        let http = self.request(request, claims).answered_by(&name);
        let mut client = self.world.open(&http);
        let mine = |seen: &upstream::Seen| {
            seen.headers.iter().any(|(key, value)| key == upstream::ANSWER && *value == name)
        };
        let reached = wait::until("the request at the provider, or its answer", || {
            // The order matters, because a request that the provider has answered has also reached it.
            let answered = client.answered();
            let call = self.world.upstream.seen()[calls..].iter().position(mine).map(|at| calls + at);
            (answered || call.is_some()).then_some(call)
        });
        let asked = self.reserves().zip(reserves).map(|(now, before)| now - before);
        let Some(upstream_call) = reached else {
            return Err(self.seen(client.try_finish(), None, asked));
        };
        let before = request.answer.pieces().iter().take(request.answer.before).map(Vec::len).sum();
        if before > 0 {
            client.body_of(before);
        }
        Ok(Waiting { client, gate, upstream_call, asked, held: self.held().saturating_sub(held) })
    }

    fn finish(&mut self, open: Waiting) -> Seen {
        let (held, parked) = (self.held(), self.parked());
        open.gate.open();
        let seen = self.seen(open.client.try_finish(), Some(open.upstream_call), open.asked);
        // This request must be settled before the next one, as when the story is played natively.
        if open.held > 0 && !self.frozen {
            // The holds of a parked result remain.
            let settled = || self.held() <= held.saturating_sub(open.held) || self.parked() > parked;
            wait::until("the settlement", || settled().then_some(()));
        }
        seen
    }

    fn hang_up(&mut self, open: Waiting) {
        let before = self.under_way();
        open.client.hang_up();
        // Envoy must notice the client's disconnect before the provider sends more chunks.
        wait::until("Envoy to see the client go", || (self.under_way() < before).then_some(()));
        open.gate.open();
    }

    fn counters(&mut self) -> Vec<Value> {
        self.world.adapter.get("/api/counters").json().as_array().cloned().unwrap_or_default()
    }

    fn settles_within(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn adapter(&mut self, fate: AdapterFate) {
        match fate {
            AdapterFate::Frozen => self.world.adapter.freeze(),
            AdapterFate::Thawed => self.world.adapter.thaw(),
            AdapterFate::Killed => self.world.adapter.kill(),
            AdapterFate::Restarted => self.world.adapter.restart(),
        }
        self.frozen = matches!(fate, AdapterFate::Frozen | AdapterFate::Killed);
    }

    fn pass(&mut self, time: Duration) {
        // This is the only place where a story sleeps.
        std::thread::sleep(time);
    }
}

/// Adds a second route, for policies on one route.
fn with_another_route(world: Builder) -> Builder {
    world.change(|config| {
        let manager = config.typed(".HttpConnectionManager");
        let routes = &mut manager["route_config"]["virtual_hosts"][0]["routes"];
        let mut elsewhere = routes[0].clone();
        elsewhere["name"] = "elsewhere".into();
        elsewhere["match"]["prefix"] = "/elsewhere/".into();
        routes.as_array_mut().expect("a list of routes").insert(0, elsewhere);
    })
}

fn script(answer: &Answer, gate: &Gate) -> Script {
    let mut script = Script::new(answer.status());
    for (name, value) in answer.headers() {
        script = script.header(&name, &value);
    }
    if answer.ending == Ending::NoHead {
        return script.wait(gate).reset();
    }
    let pieces = answer.pieces();
    for (index, piece) in pieces.iter().enumerate() {
        if index == answer.before {
            script = script.wait(gate);
        }
        script = script.bytes(piece.clone());
    }
    if answer.before >= pieces.len() {
        script = script.wait(gate);
    }
    match answer.ending {
        Ending::Whole | Ending::NoHead => script,
        Ending::Trailers => script.trailers(&[("x-ending", "trailers")]),
        Ending::Reset => script.reset(),
    }
}
