//! The root context: reads the configuration, polls for the plan, and reports usage to the adapter in the
//! background.

use crate::bodies::{self, Watched};
use crate::caller::{Asker, ReserveReply};
use crate::host;
use crate::http::{Http, Unconfigured};
use crate::metrics;
use crate::reserve;
use crate::shared::{COMMIT, GET_PLAN, RECORD_USAGE, RESERVE_AND_COMMIT, Shared};
use engine::outbox::{CallNumber, Commit, CommitOutcome, CommitRoute};
use engine::stream::{Left, Unanswered};
use engine::watch::{self, PATIENCE, Watch};
use policy::validation_error::ValidationError;
use protocol::call::{self, CallFailure};
use protocol::wire::kuadrant::service::ratelimit::v1::CommitResponse;
use protocol::wire::weir::v1::GetPlanResponse;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use std::rc::Rc;
use std::time::Duration;

/// The timeout of a Commit. Nothing waits for it.
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);

/// The timeout for the last commits of a replaced configuration, in milliseconds.
const LAST_PATIENCE: u64 = 60_000;

/// One plugin on one worker.
pub struct Root {
    id: u32,
    configured: Option<Configured>,
}

struct Configured {
    shared: Rc<Shared>,
    /// The watch on the plan. `None` if the policies are in the configuration.
    watch: Option<Watch>,
    /// The token of the GetPlan call in flight.
    asking: Option<u32>,
    /// The token of the separate Commit in flight, and its number in the outbox.
    committing: Option<(u32, CallNumber)>,
    /// The token of the RecordUsage call in flight, and its number in the outbox of records.
    recording: Option<(u32, CallNumber)>,
    /// When this context agrees to be deleted, if Envoy has asked for that.
    leaving: Option<u64>,
}

impl Root {
    /// Creates the context before it is configured.
    pub fn new(id: u32) -> Self {
        Self { id, configured: None }
    }
}

impl Configured {
    fn new(root: u32, text: &[u8]) -> Result<Self, Vec<ValidationError>> {
        let shared = Shared::new(root, text)?;
        let watch = (!shared.has_plan())
            .then(|| Watch::new(&shared.gateway, shared.random).with_body(shared.config.request_body));
        let mut configured = Self {
            shared: Rc::new(shared),
            watch,
            asking: None,
            committing: None,
            recording: None,
            leaving: None,
        };
        configured.resume();
        Ok(configured)
    }

    /// Restores the stored plan. After an upgrade of the module, or in a new VM, requests may arrive before
    /// the adapter's reply.
    fn resume(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        let kept = host::shared(&watch.shared_name(&self.shared.config.cluster));
        if let Some(plan) = kept.and_then(|kept| watch.resume(&kept)) {
            self.planned(&plan);
        }
    }

    /// Sends what is due, and schedules the next call.
    fn work(&mut self) {
        // Reading the clock costs a host call.
        let now = self.shared.now();
        self.tend_stream(now);
        self.look_for_bodies(now);
        self.tend_leases(now);
        self.send_commits(now);
        self.send_records(now);
        self.ask_for_plan(now);
        // Exchanges that settle here are sent with the next Reserve or at the next call.
        self.shared.deferred.read();
        let commits = self.shared.sends_at();
        let plan = self.watch.as_ref().and_then(Watch::wake_at);
        let stream = self.shared.stream.wake_at();
        self.shared.show_memory(now);
        let bodies = self.shared.bodies.are_watched().then(|| now.saturating_add(bodies::INTERVAL));
        let (memory, leases) = (self.shared.memory_due(), self.shared.leases.review_at());
        self.shared.wake_at([commits, plan, stream, bodies, memory, leases].into_iter().flatten().min(), now);
        self.leave();
    }

    /// Agrees to be deleted if there is nothing left to send, or if sending takes too long.
    fn leave(&mut self) {
        let (left, records) = (self.shared.outbox.borrow().len(), self.shared.records.borrow().len());
        let told = left == 0 && records == 0 && self.shared.deferred.is_empty();
        if self.leaving.is_some_and(|end| told || end < self.shared.now()) {
            self.leaving = None;
            self.shared.metrics.add(metrics::COMMITS_DROPPED, left as u64);
            self.shared.metrics.add(metrics::RECORDS_DROPPED, records as u64);
            self.shared.stream.cancel(&self.shared, self.shared.now());
            host::done();
        }
    }

    /// Ends calls that take too long, and opens a stream if there is none.
    fn tend_stream(&mut self, now: u64) {
        let shared = Rc::clone(&self.shared);
        let (overdue, stuck) = shared.stream.overdue(now);
        overdue.into_iter().for_each(|asker| self.answer(asker, Err(CallFailure::Timeout)));
        if stuck {
            self.stream_failed(CallFailure::Timeout);
        }
        if let Err(failure) = shared.stream.open(&shared, now) {
            self.stream_failed(failure);
        }
    }

    /// Returns leases that are no longer used, and requests new ones.
    fn tend_leases(&self, now: u64) {
        let shared = &self.shared;
        shared.tell_of_leases(shared.leases.review(now));
        if shared.stream.is_open() && self.leaving.is_none() {
            let calls = shared.leases.calls(now, || shared.next_reservation().number);
            calls.into_iter().for_each(|call| shared.stream.lease(call, now));
        }
    }

    /// Resumes requests that wait for a body that Envoy does not pass on.
    fn look_for_bodies(&self, now: u64) {
        let Shared { root, bodies, metrics, .. } = &*self.shared;
        let mut grown = false;
        let still_waits = |watched: &Watched| {
            let size = bodies::size(&watched.caller, *root);
            grown |= size.is_some_and(|size| size > watched.size);
            size.is_some()
        };
        let mut watched = bodies.take();
        watched.retain(still_waits);
        if grown && bodies.are_untried() {
            log::error!(
                "request bodies do not reach the filter: set `allow_on_headers_stop_iteration: true` next to its \
                 `root_id` (Envoy 1.36 or later); until then requests are judged by their headers"
            );
            metrics.add(metrics::BODIES_MISSING, 1);
            bodies.are_found_missing();
        }
        for watched in watched {
            if bodies.are_missing() || watched.until <= now {
                bodies::missing(&watched.caller, *root);
            } else {
                bodies.watch(watched);
            }
        }
    }

    fn stream_failed(&mut self, failure: CallFailure) {
        self.shared.call_failed(RESERVE_AND_COMMIT, failure);
        let left = self.shared.stream.cancel(&self.shared, self.shared.now());
        self.stream_left(left);
    }

    /// Resends unanswered messages of an ended stream as separate calls.
    fn stream_left(&mut self, left: Left<Asker>) {
        // Must come before the Reserves, which carry copies of the commits.
        let returned = self.shared.outbox.borrow_mut().returned(left.commits.into_iter());
        self.count(returned);
        for Unanswered { caller, message, patience } in left.reserves {
            match caller {
                Asker::Exchange(caller) => reserve::resend(&self.shared, &caller, message, patience),
                Asker::Lease(_) => self.answer(caller, Err(CallFailure::Unavailable)),
            }
        }
    }

    /// Passes the reply to a Reserve in the stream on.
    fn answer(&self, asker: Asker, reply: ReserveReply) {
        match asker {
            Asker::Exchange(caller) => reserve::deliver(self.shared.root, &caller, reply),
            Asker::Lease(number) => reserve::lease_answered(&self.shared, number, reply),
        }
    }

    fn stream_heard(&mut self, message: &[u8]) {
        match self.shared.stream.heard(message, self.shared.now()) {
            Ok(heard) => {
                if let Some((asker, reply)) = heard.reserve {
                    self.answer(asker, reply);
                }
                self.shared.noticed(&heard.leases);
                if let Some((number, reply)) = heard.commit {
                    self.committed(number, reply);
                    self.shared.wake();
                    self.leave();
                }
            }
            Err(failure) => self.stream_failed(failure),
        }
    }

    fn send_commits(&mut self, now: u64) {
        let is_open = self.shared.stream.is_open();
        let route = if is_open { CommitRoute::Stream } else { CommitRoute::Unary };
        let commit = self.shared.outbox.borrow_mut().send(route, now);
        let Some(commit) = commit else { return };
        if is_open {
            return self.shared.stream.commit(&commit, now);
        }
        match host::call(&self.shared.config.grpc_service, COMMIT, &commit.message, COMMIT_PATIENCE) {
            Ok(token) => self.committing = Some((token, commit.number)),
            Err(failure) => self.committed(commit.number, Err(failure)),
        }
    }

    /// Records are sent in separate calls, because their store may be unavailable while charging works.
    fn send_records(&mut self, now: u64) {
        let records = self.shared.records.borrow_mut().send(CommitRoute::Unary, now);
        let Some(Commit { number, message }) = records else { return };
        match host::call(&self.shared.config.grpc_service, RECORD_USAGE, &message, COMMIT_PATIENCE) {
            Ok(token) => self.recording = Some((token, number)),
            Err(failure) => self.recorded(number, Err(failure)),
        }
    }

    fn recorded(&mut self, number: CallNumber, reply: Result<CommitResponse, CallFailure>) {
        if let Err(failure) = reply {
            self.shared.call_failed(RECORD_USAGE, failure);
        }
        let answer = self.shared.records.borrow_mut().answered(number, reply, self.shared.now());
        self.shared.metrics.add(metrics::RECORDS_RETRIED, answer.retried as u64);
        self.shared.metrics.add(metrics::RECORDS_DROPPED, answer.dropped as u64);
        self.shared.show_memory_soon();
    }

    fn committed(&mut self, number: CallNumber, mut reply: Result<CommitResponse, CallFailure>) {
        if let Ok(response) = &mut reply {
            self.shared.reached();
            self.shared.cuttable.cut(&std::mem::take(&mut response.out_of_room), self.shared.root);
        }
        if let Err(failure) = reply {
            self.shared.call_failed(COMMIT, failure);
        }
        let answer = self.shared.outbox.borrow_mut().answered(number, reply, self.shared.now());
        self.count(answer);
    }

    fn count(&self, answer: CommitOutcome) {
        self.shared.metrics.add(metrics::COMMITS_RETRIED, answer.retried as u64);
        self.shared.metrics.add(metrics::COMMITS_DROPPED, answer.dropped as u64);
        self.shared.show_memory_soon();
    }

    fn ask_for_plan(&mut self, now: u64) {
        let Some(question) = self.watch.as_mut().and_then(|watch| watch.ask(now)) else { return };
        match host::call(&self.shared.config.grpc_service, GET_PLAN, &question, PATIENCE) {
            Ok(token) => self.asking = Some(token),
            Err(failure) => self.answered(Err(failure)),
        }
    }

    fn answered(&mut self, reply: Result<&[u8], CallFailure>) {
        self.asking = None;
        let Some(watch) = &mut self.watch else { return };
        let name = watch.shared_name(&self.shared.config.cluster);
        match watch.answered(reply, self.shared.now()) {
            Ok(None) => {}
            Ok(Some(plan)) => {
                if self.planned(&plan) {
                    host::share(&name, reply.unwrap_or_default());
                }
            }
            Err(failure) => {
                self.shared.call_failed(GET_PLAN, failure);
                if watch.failures() == 1 {
                    let cluster = &self.shared.config.cluster;
                    log::warn!("no plan from the cluster {cluster} ({}); asking again", failure.name());
                }
            }
        }
    }

    /// Puts the plan into force, if it compiles.
    fn planned(&self, answer: &GetPlanResponse) -> bool {
        let version = &answer.version;
        let compiled = watch::compile(answer, self.shared.config.request_body);
        let is_good = compiled.is_ok();
        match compiled {
            Ok(plan) => {
                log::info!("plan {version} is in force: {} policies", answer.policies.len());
                self.shared.set_plan(plan, watch::number(version));
            }
            Err(mistakes) => {
                self.shared.metrics.add(metrics::PLANS_REFUSED, 1);
                tell(&format!("plan {version} is refused; the last good one stays in force"), &mistakes);
            }
        }
        is_good
    }
}

fn tell(what: &str, mistakes: &[ValidationError]) {
    log::error!("{what}");
    mistakes.iter().for_each(|mistake| log::error!("{mistake}"));
}

impl Context for Root {
    fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
        let Some(configured) = &mut self.configured else { return };
        let body = host::reply(size);
        let reply = if status == 0 { Ok(&*body) } else { Err(CallFailure::from(status)) };
        if configured.asking == Some(token) {
            configured.answered(reply);
            configured.work();
        } else if let Some((_, number)) = configured.committing.take_if(|(commit, _)| *commit == token) {
            configured.committed(number, call::reply(reply));
            configured.shared.wake();
            configured.leave();
        } else if let Some((_, number)) = configured.recording.take_if(|(call, _)| *call == token) {
            configured.recorded(number, call::reply(reply));
            configured.shared.wake();
            configured.leave();
        } else {
            reserve::answered(&configured.shared, configured.shared.root, token, reply);
        }
    }

    fn on_grpc_stream_message(&mut self, token: u32, size: usize) {
        if let Some(configured) = &mut self.configured
            && configured.shared.stream.is(token)
        {
            configured.stream_heard(&host::reply(size));
        }
    }

    fn on_grpc_stream_close(&mut self, token: u32, status: u32) {
        let Some(configured) = &mut self.configured else { return };
        if !configured.shared.stream.is(token) {
            return;
        }
        if status != 0 {
            configured.shared.call_failed(RESERVE_AND_COMMIT, status.into());
        }
        let left = configured.shared.stream.ended(&configured.shared, configured.shared.now());
        configured.stream_left(left);
        configured.work();
    }

    fn on_done(&mut self) -> bool {
        let Some(configured) = &mut self.configured else { return true };
        configured.watch = None;
        configured.shared.deferred.read();
        configured.shared.tell_of_leases(configured.shared.leases.reset());
        if configured.shared.outbox.borrow().is_empty() && configured.shared.records.borrow().is_empty() {
            configured.shared.stream.cancel(&configured.shared, configured.shared.now());
            return true;
        }
        configured.leaving = Some(configured.shared.now().saturating_add(LAST_PATIENCE));
        configured.shared.wake();
        false
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        match Configured::new(self.id, &host::configuration(size)) {
            Ok(mut configured) => {
                configured.work();
                self.configured = Some(configured);
                true
            }
            Err(mistakes) => {
                tell("the plugin's configuration is refused", &mistakes);
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(configured) = &mut self.configured {
            configured.work();
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(match &self.configured {
            Some(configured) => Box::new(Http::new(id, &configured.shared)),
            None => Box::new(Unconfigured),
        })
    }
}
