//! The state that a root context shares with its HTTP contexts.

use crate::bodies::Bodies;
use crate::cuttable::CuttableStreams;
use crate::deferred::DeferredReads;
use crate::host::{self, Method};
use crate::metrics::{self, Metrics};
use crate::reserve::ReserveCalls;
use crate::stream::Stream;
use engine::clock::Clock;
use engine::config::PluginConfig;
use engine::exchange::{ActivePlan, RecordStamp, ReservationId, SettledRecord};
use engine::health::Health;
use engine::leases::{LeaseReport, Leases};
use engine::metric::Metric;
use engine::outbox::{Outbox, Raise, Settlement};
use engine::stream::LeaseNotice;
use llm::memory::MemoryBudget;
use policy::gateway;
use policy::model::UsageReporting;
use policy::plan::{LearnedOutputs, Plan};
use policy::validation_error::ValidationError;
use protocol::call::{CallFailure, POLICY_SERVICE, RATE_LIMIT_SERVICE, RESERVATION_SERVICE, USAGE_SERVICE};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

pub const RESERVE: Method = (RATE_LIMIT_SERVICE, "Reserve");
pub const COMMIT: Method = (RATE_LIMIT_SERVICE, "Commit");
pub const RESERVE_AND_COMMIT: Method = (RESERVATION_SERVICE, "ReserveAndCommit");
pub const GET_USAGE: Method = (USAGE_SERVICE, "GetUsage");
pub const RECORD_USAGE: Method = (USAGE_SERVICE, "RecordUsage");
pub const GET_PLAN: Method = (POLICY_SERVICE, "GetPlan");

/// The share of the memory for settlements while the adapter is unreachable. Of 128 MiB, it has room for tens
/// of thousands. It is reserved, so that client data cannot displace a charge.
const OUTBOX_SHARE: usize = 12;
/// The share of the memory for usage records while the adapter or its store is unavailable. It is reserved, too.
const RECORDS_SHARE: usize = 24;
/// How long settlements are collected before a Commit, in milliseconds. So a worker sends at most a thousand
/// calls a second at any load.
const GATHERING: u64 = 1;
/// How long a settlement waits for others if a lease has room for it, in milliseconds.
const LEASED_GATHERING: u64 = 50;
/// How often the memory gauge is updated, in milliseconds. A host call for each request would cost too much.
const SHOWING: u64 = 100;

/// The shared state.
pub struct Shared {
    /// The root context's id.
    pub root: u32,
    pub config: PluginConfig,
    pub metrics: Metrics,
    /// The memory budget of this VM's exchanges.
    pub memory: MemoryBudget,
    /// The queue of settlements for the adapter.
    pub outbox: RefCell<Outbox>,
    /// The queue of usage records for the adapter.
    pub records: RefCell<Outbox>,
    /// The name of the gateway, or `*`.
    pub gateway: String,
    /// Responses that have not been read yet.
    pub deferred: DeferredReads,
    /// Streams that are cut if the adapter has no room for them.
    pub cuttable: Rc<CuttableStreams>,
    /// Reserves in flight as separate calls.
    pub reserves: ReserveCalls,
    /// Whether request bodies arrive.
    pub bodies: Bodies,
    /// The stream to the adapter.
    pub stream: Stream,
    /// Recent failures of this worker's upstreams.
    pub health: RefCell<Health>,
    /// The output of this worker's responses.
    outputs: LearnedOutputs,
    /// Room from which requests are admitted without asking the adapter.
    pub leases: Leases,
    /// Unique to this root context.
    pub random: u128,
    in_force: RefCell<ActivePlan>,
    prefix: Arc<str>,
    reservations: Cell<u64>,
    /// This VM's contribution to the gauge, and when it was last updated.
    memory_shown: Cell<(u64, u64)>,
    clock: Clock,
    /// When `on_tick` is called next.
    awake_at: Cell<Option<u64>>,
}

impl Shared {
    /// Reads the plugin's configuration, or returns all of its errors.
    pub fn new(root: u32, text: &[u8]) -> Result<Self, Vec<ValidationError>> {
        let mut config = PluginConfig::read(text)?;
        let message = "the host must allow random_get: reservations are named with it".to_owned();
        let random = host::random().ok_or_else(|| vec![ValidationError { path: String::new(), message }])?;
        let in_force = RefCell::new(ActivePlan::Nothing(config.failure_mode));
        let policies = config.policies.take();
        let stream = Stream::new(config.timeout, random);
        let outbox_capacity = config.memory / OUTBOX_SHARE;
        let records_capacity = config.memory / RECORDS_SHARE;
        let reserved = outbox_capacity.saturating_add(records_capacity);
        let memory = MemoryBudget::new(config.memory.saturating_sub(reserved));
        let prefix: Arc<str> = format!("{random:032x}").into();
        let gateway = gateway::find(config.gateway.as_deref(), |path| host::property(path.to_vec()));
        let shared = Self {
            root,
            outputs: LearnedOutputs::within(&memory),
            leases: Leases::new(&prefix, &memory),
            memory,
            config,
            metrics: Metrics::new(),
            outbox: RefCell::new(Outbox::new(outbox_capacity).that_packs().with_jitter(random)),
            records: RefCell::new(Outbox::new(records_capacity).with_jitter(random)),
            gateway,
            memory_shown: Cell::default(),
            deferred: DeferredReads::default(),
            cuttable: Rc::default(),
            reserves: ReserveCalls::default(),
            bodies: Bodies::default(),
            stream,
            health: RefCell::default(),
            random,
            in_force,
            prefix,
            reservations: Cell::default(),
            clock: Clock::default(),
            awake_at: Cell::default(),
        };
        if let Some(policies) = policies {
            let plan = Plan::new(policies).with_body(shared.config.request_body);
            shared.set_plan(plan, 0);
        }
        Ok(shared)
    }

    /// Activates a plan for all later requests.
    pub fn set_plan(&self, plan: Plan, version: u64) {
        // A new plan knows what the previous ones have learned.
        let plan = plan.learning(self.outputs.clone());
        self.tell_of_leases(self.leases.reset());
        self.in_force.replace(ActivePlan::Plan(Arc::new(plan)));
        self.metrics.add(metrics::PLANS, 1);
        self.metrics.set(metrics::PLAN_VERSION, version);
    }

    /// The plan for new requests.
    pub fn in_force(&self) -> ActivePlan {
        self.in_force.borrow().clone()
    }

    /// What to report to Envoy's access log, regardless of the policies.
    pub fn reporting(&self) -> Option<UsageReporting> {
        self.config.access_log.then_some(UsageReporting::Details)
    }

    /// Whether a plan is in force.
    pub fn has_plan(&self) -> bool {
        matches!(*self.in_force.borrow(), ActivePlan::Plan(_))
    }

    /// The prefix of this worker's reservation ids.
    pub fn worker(&self) -> &str {
        &self.prefix
    }

    /// A unique id for a reservation.
    pub fn next_reservation(&self) -> ReservationId {
        let number = self.reservations.get();
        self.reservations.set(number.wrapping_add(1));
        ReservationId { prefix: self.prefix.clone(), number }
    }

    /// Updates the gauge of used memory, which all workers share, if it is due.
    pub fn show_memory(&self, now: u64) {
        if self.memory_due().is_some_and(|due| due <= now) {
            let used = self.memory_in_use();
            let (before, _) = self.memory_shown.replace((used, now));
            self.metrics.change(metrics::MEMORY, used, before);
        }
    }

    /// When the memory gauge is due for an update.
    pub fn memory_due(&self) -> Option<u64> {
        let (shown, at) = self.memory_shown.get();
        (self.memory_in_use() != shown).then_some(at.saturating_add(SHOWING))
    }

    /// Schedules an update of the memory gauge, unless `on_tick` is called earlier.
    pub fn show_memory_soon(&self) {
        if self.awake_at.get().is_none()
            && let Some(due) = self.memory_due()
        {
            self.wake_by(due, self.now());
        }
    }

    fn memory_in_use(&self) -> u64 {
        let queued = self.outbox.borrow().size().saturating_add(self.records.borrow().size());
        u64::try_from(self.memory.used().saturating_add(queued)).unwrap_or(u64::MAX)
    }

    /// Passes what the leases report to the root context and the metrics.
    pub fn tell_of_leases(&self, report: LeaseReport) {
        self.metrics.add(metrics::ADMITTED_FROM_LEASES, report.admitted);
        self.metrics.add(metrics::LEASES_UNUSED, report.unused);
        report.settlements.into_iter().for_each(|settlement| self.commit(settlement));
    }

    /// Does what the adapter says about leases.
    pub fn noticed(&self, notice: &LeaseNotice) {
        match notice {
            LeaseNotice::None => {}
            LeaseNotice::Greeting { grants } => {
                self.leases.set_granted(*grants);
                self.tell_of_leases(self.leases.return_all());
            }
            LeaseNotice::Recalled(buckets) => self.tell_of_leases(self.leases.recalled(buckets)),
            LeaseNotice::AllRecalled => self.tell_of_leases(self.leases.return_all()),
        }
    }

    /// Returns all leases if there is no stream. Called when an adapter has answered: others can use it too, and may
    /// need the room, but without a stream this worker does not hear of recalls. While no adapter answers, the leases
    /// are kept.
    pub fn reached(&self) {
        if !self.stream.is_open() {
            self.tell_of_leases(self.leases.return_all());
        }
    }

    /// Passes a settlement to the root context.
    pub fn commit(&self, settlement: Settlement) {
        let due = || self.now().saturating_add(LEASED_GATHERING);
        let displaced = self.outbox.borrow_mut().push_by(settlement, due);
        self.metrics.add(metrics::COMMITS_PACKED, displaced.packed as u64);
        self.metrics.add(metrics::COMMITS_DROPPED, displaced.dropped as u64);
        self.wake();
    }

    /// Passes a usage record to the root context.
    pub fn record(&self, record: SettledRecord, stamp: RecordStamp) {
        let displaced = self.records.borrow_mut().push(record.stamped(stamp));
        self.metrics.add(metrics::RECORDS_DROPPED, displaced.dropped as u64);
        self.wake();
    }

    /// Passes a raise to the root context.
    pub fn raise(&self, raise: Raise) {
        let kept = self.outbox.borrow_mut().raise(raise);
        self.metrics.add(metrics::RAISES_DROPPED, u64::from(!kept));
        self.wake();
    }

    /// Schedules the root context's `on_tick`, if there is something to send.
    pub fn wake(&self) {
        let is_awake_by = |time: u64| self.awake_at.get().is_some_and(|awake| awake <= time);
        if let Some(time) = self.sends_at().filter(|time| !is_awake_by(*time)) {
            let now = self.now();
            self.wake_by(time.max(now.saturating_add(GATHERING)), now);
        }
    }

    /// When the next settlement or usage record can be sent, if there is one.
    pub fn sends_at(&self) -> Option<u64> {
        let (settlements, records) = (self.outbox.borrow().wake_at(), self.records.borrow().wake_at());
        settlements.into_iter().chain(records).min()
    }

    /// Schedules the root context's `on_tick` for when the current bytes have passed.
    pub fn wake_soon(&self) {
        // Zero is the earliest time, so the clock is not needed.
        if self.awake_at.replace(Some(0)) != Some(0) {
            host::tick_every(GATHERING);
        }
    }

    /// Schedules the root context's `on_tick` for this time or earlier.
    pub fn wake_by(&self, time: u64, now: u64) {
        if self.awake_at.get().is_none_or(|awake| time < awake) {
            self.wake_at(Some(time), now);
        }
    }

    /// Schedules the root context's `on_tick` for exactly this time.
    pub fn wake_at(&self, time: Option<u64>, now: u64) {
        self.awake_at.set(time);
        host::tick_every(time.map_or(0, |time| time.saturating_sub(now).max(1)));
    }

    /// Milliseconds of a clock that does not run backwards.
    pub fn now(&self) -> u64 {
        self.clock.at(host::wall_clock())
    }

    /// Counts a failed call to the adapter.
    pub fn call_failed(&self, (_, method): Method, failure: CallFailure) {
        self.metrics.count(&Metric::Call { method, failure });
    }
}
