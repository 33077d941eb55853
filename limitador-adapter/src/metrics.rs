//! The adapter's metrics for Prometheus. No other file uses the exporter. There is no global recorder, so
//! several adapters in one process count separately.

use crate::ledger::{LedgerSize, StorageFault};
use crate::refusals::RefusalLog;
use crate::warned::WarningLog;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use policy::model::{Threshold, Unit};
use std::time::Duration;

/// The buckets of latency histograms in seconds, from a call that only accesses memory to one that is far too
/// slow.
const BUCKETS: [f64; 12] =
    [0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];

/// How a metric is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric of the adapter, for its exposition and the reference.
#[derive(Clone, Copy, Debug)]
pub struct AdapterMetric {
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// All metrics, in the order of the reference.
pub const METRICS: &[AdapterMetric] = &[
    AdapterMetric {
        name: "weir_reserves_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Reserve calls. Outcomes: `admitted`, `refused`, `repeated` (the reservation is held already), `late` (its commit came first), `unavailable`.",
    },
    AdapterMetric {
        name: "weir_refusals_total",
        kind: MetricKind::Counter,
        labels: &["policy", "limit"],
        help: "Reserve calls for which this limit had no room.",
    },
    AdapterMetric {
        name: "weir_excused_total",
        kind: MetricKind::Counter,
        labels: &["policy", "limit"],
        help: "The same for limits that refuse nothing (`boundary: Soft`, or an `enforceWhen` that is false).",
    },
    AdapterMetric {
        name: "weir_charged_total",
        kind: MetricKind::Counter,
        labels: &["policy", "limit", "unit"],
        help: "The charged amount in the unit. `usd` counts micro-USD.",
    },
    AdapterMetric {
        name: "weir_warnings_total",
        kind: MetricKind::Counter,
        labels: &["policy", "limit", "unit", "at"],
        help: "Counters that reached a threshold of their limit's `warnAt`, once per counter and window.",
    },
    AdapterMetric {
        name: "weir_webhook_deliveries_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Warnings for the webhook. Outcomes: `delivered`, `rejected` (the receiver answered 3xx or 4xx, so there is no retry), `failed` (all attempts failed), `dropped` (too many warnings were waiting).",
    },
    AdapterMetric {
        name: "weir_commits_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Settled reservations. Outcomes: `released` (settled, the normal case), `leased` (the same for a request that was admitted from leases), `unknown` (no such hold; charged anyway), `replayed` (settled before; not charged again), `parked` (waits for a result that is created in the background).",
    },
    AdapterMetric {
        name: "weir_leases_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Requests of workers for a lease of a counter. Outcomes: `granted`, `refused` (too little room, or `lease: Never`), `unavailable`.",
    },
    AdapterMetric {
        name: "weir_leased_running_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Running requests that were admitted from leases and have got holds of their own. Requests that end soon are only in `weir_commits_total`.",
    },
    AdapterMetric {
        name: "weir_recalls_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Reserve calls that found no room until leases were recalled. Outcomes: `room` (a lease gave room to the call), `no_room`.",
    },
    AdapterMetric {
        name: "weir_raises_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Holds raised for streams that outgrew them. Outcomes: `held`, `out_of_room` (beyond a limit with `overrun: Cut`), `unknown` (settled before), `unavailable`.",
    },
    AdapterMetric {
        name: "weir_hits_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "`CheckRateLimit`, `Report` and `ShouldRateLimit` calls. Outcomes: `admitted`, `refused`.",
    },
    AdapterMetric {
        name: "weir_unknown_limits_total",
        kind: MetricKind::Counter,
        labels: &["call"],
        help: "Descriptors that name a limit that is not in force.",
    },
    AdapterMetric {
        name: "weir_overflowed_total",
        kind: MetricKind::Counter,
        labels: &["policy", "limit"],
        help: "Calls that were counted in a limit's overflow counter because there was no room for another counter.",
    },
    AdapterMetric {
        name: "weir_gone_reservations_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Reservations that expired because their worker was gone.",
    },
    AdapterMetric {
        name: "weir_lapsed_holds_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Holds that ended without their request, because they expired or their worker was gone. Outcomes: `charged`, `released`. With Redis, every adapter exports the total of all.",
    },
    AdapterMetric {
        name: "weir_lapsed_charged_total",
        kind: MetricKind::Counter,
        labels: &["unit"],
        help: "What such holds have charged. `tokens` are of all kinds; `usd` counts micro-USD. A commit that arrives later charges or refunds the difference, which is not subtracted here.",
    },
    AdapterMetric {
        name: "weir_storage_up",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "1 if the storage works. If it is 0, a file of counters cannot be written, or a Redis does not answer. With Redis, the sizes of the storage and the numbers of holds, reservations and counters are then `NaN`.",
    },
    AdapterMetric {
        name: "weir_counting_since_timestamp_seconds",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Since when the storage has been counting without a loss. In memory, since the adapter started. Absent with Redis.",
    },
    AdapterMetric {
        name: "weir_storage_used_bytes",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "In memory, the size of the counters; in Redis, its used memory.",
    },
    AdapterMetric {
        name: "weir_storage_max_bytes",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "The maximum of `weir_storage_used_bytes`.",
    },
    AdapterMetric {
        name: "weir_storage_full",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "1 if the storage takes no further holds.",
    },
    AdapterMetric {
        name: "weir_storage_fault",
        kind: MetricKind::Gauge,
        labels: &["fault"],
        help: "1 for the storage's present fault: `full`; `unreachable` (it does not answer, or is not ready to); `read_only` (it takes no writes); `denied` (it rejects the credentials or a command); `unsupported` (it is too old, or lacks a command); `failed` (anything else).",
    },
    AdapterMetric {
        name: "weir_settled_forgotten_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Settled reservations that could not be remembered for half an hour. A late repetition of their commit would be charged again.",
    },
    AdapterMetric { name: "weir_holds", kind: MetricKind::Gauge, labels: &[], help: "Live holds." },
    AdapterMetric {
        name: "weir_reservations",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Reservations that wait for their commit.",
    },
    AdapterMetric {
        name: "weir_settled_reservations",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Settled reservations that are remembered. In memory only.",
    },
    AdapterMetric {
        name: "weir_counters",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Counters with usage or holds.",
    },
    AdapterMetric {
        name: "weir_policies_loaded",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Policies in force.",
    },
    AdapterMetric {
        name: "weir_policies_invalid",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Policies and files with errors.",
    },
    AdapterMetric {
        name: "weir_policy_watch_failures_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "How often the watch on the policies failed and was restarted.",
    },
    AdapterMetric {
        name: "weir_plan_version",
        kind: MetricKind::Gauge,
        labels: &["gateway"],
        help: "The plan of a gateway (`*` for all policies), as the number that its filters export too.",
    },
    AdapterMetric {
        name: "weir_plan_bytes",
        kind: MetricKind::Gauge,
        labels: &["gateway"],
        help: "The size of a gateway's plan when it was last sent.",
    },
    AdapterMetric {
        name: "weir_plan_changes_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "How often the policies in force have changed.",
    },
    AdapterMetric {
        name: "weir_plan_polls_total",
        kind: MetricKind::Counter,
        labels: &["answer"],
        help: "`GetPlan` calls. Answers: `changed`, `unchanged`.",
    },
    AdapterMetric {
        name: "weir_kubernetes_last_heard_timestamp_seconds",
        kind: MetricKind::Gauge,
        labels: &["resource"],
        help: "When the API server last answered a list or a watch. Normally at most 20 seconds ago.",
    },
    AdapterMetric {
        name: "weir_kubernetes_rival_installs",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "1 if another install writes statuses under the same controller name.",
    },
    AdapterMetric {
        name: "weir_unknown_gateways",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Gateways that filters ask for and that do not exist.",
    },
    AdapterMetric {
        name: "weir_usage_records_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Usage records. Outcomes: `written`, `repeated` (written before), `rejected` (invalid, and dropped), `expired` (deleted because of their age).",
    },
    AdapterMetric {
        name: "weir_usage_records_waiting",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Usage records that are not durable yet.",
    },
    AdapterMetric {
        name: "weir_usage_store_up",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "1 if the store of usage records works, 0 if filters have to keep their records. Absent without `--usage`.",
    },
    AdapterMetric {
        name: "weir_spans_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Spans for OpenTelemetry. Outcomes: `exported`, `failed` (the receiver did not accept them), `dropped` (too many spans were waiting).",
    },
    AdapterMetric {
        name: "weir_grpc_seconds",
        kind: MetricKind::Histogram,
        labels: &["call"],
        help: "How long a call took.",
    },
];

/// The state of the storage when the metrics are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageState {
    /// The size of the ledger, if it answers.
    pub size: Option<LedgerSize>,
    /// Why the storage does not work.
    pub fault: Option<StorageFault>,
    /// Since when it has been counting, as time since 1970.
    pub since: Option<Duration>,
}

pub struct AdapterMetrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// Reserves that were admitted.
    pub admitted: Counter,
    /// Reserves that were refused.
    pub refused: Counter,
    /// Reserves with an id that already had holds.
    pub repeated: Counter,
    /// Reserves that arrived after their commit.
    pub late: Counter,
    /// Calls that could not be answered.
    pub unavailable: Counter,
    /// Commits that defer charges until a background result is seen.
    pub parked: Counter,
    /// Commits that released holds.
    pub released: Counter,
    /// Commits without a live hold. They were charged.
    pub charged: Counter,
    /// Repeated commits.
    pub replayed: Counter,
    /// Raises that had room.
    pub raises_held: Counter,
    /// Raises beyond a limit with `overrun: Cut`.
    pub raises_out_of_room: Counter,
    /// Raises of reservations that had ended.
    pub raises_unknown: Counter,
    /// Raises that the storage did not accept.
    pub raises_unavailable: Counter,
    /// Hits that were admitted.
    pub hits_admitted: Counter,
    /// Hits that were refused.
    pub hits_refused: Counter,
    /// Reservations ended because their worker was gone.
    pub released_of_gone: Counter,
    /// Requests that were admitted from leases and ended before they had holds of their own.
    pub leased: Counter,
    /// Leases that were granted.
    pub leases_granted: Counter,
    /// Leases for which there was too little room.
    pub leases_refused: Counter,
    /// Leases that the storage did not answer.
    pub leases_unavailable: Counter,
    /// Running requests that were admitted from leases.
    pub leased_running: Counter,
    /// Refused calls that found room in recalled leases.
    pub recalls_with_room: Counter,
    /// Refused calls that found none there.
    pub recalls_without_room: Counter,
    /// Usage records that were written.
    pub records_written: Counter,
    /// Usage records that had been written before.
    pub records_repeated: Counter,
    /// Usage records that were dropped because they are invalid.
    pub records_rejected: Counter,
    /// Usage records that were deleted because of their age.
    pub records_expired: Counter,
    /// Usage records that are not durable yet.
    pub records_waiting: Gauge,
    /// GetPlan calls with a new plan.
    pub polls_changed: Counter,
    /// GetPlan calls without a new plan.
    pub polls_unchanged: Counter,
    /// Changes of the policies in force.
    pub plan_changes: Counter,
    /// Warnings that the webhook accepted.
    pub webhook_delivered: Counter,
    /// Warnings that the webhook rejected.
    pub webhook_rejected: Counter,
    /// Warnings that did not reach the webhook.
    pub webhook_failed: Counter,
    /// Warnings for which the webhook's queue had no room.
    pub webhook_dropped: Counter,
    /// Spans that the receiver accepted.
    pub spans_exported: Counter,
    /// Spans that the receiver did not accept.
    pub spans_failed: Counter,
    /// Spans for which the queue had no room.
    pub spans_dropped: Counter,
    /// Failures of the watch for policies.
    pub watch_failures: Counter,
    /// Policies in force.
    pub loaded: Gauge,
    /// Policies and files with errors.
    pub invalid: Gauge,
    /// Why calls were refused, for `/api/refusals`.
    pub refusals: RefusalLog,
    /// The latest warnings, for `/api/warnings`.
    pub warnings: WarningLog,
}

impl AdapterMetrics {
    /// Creates the metrics. All start at zero.
    pub fn new() -> Result<Self, BuildError> {
        let latency = Matcher::Full("weir_grpc_seconds".to_owned());
        let recorder = PrometheusBuilder::new().set_buckets_for_metric(latency, &BUCKETS)?.build_recorder();
        for AdapterMetric { name, kind, help, .. } in METRICS {
            let (name, help) = (KeyName::from_const_str(name), SharedString::const_str(help));
            match kind {
                MetricKind::Counter => recorder.describe_counter(name, None, help),
                MetricKind::Gauge => recorder.describe_gauge(name, None, help),
                MetricKind::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
        let count = |name, label, value: &'static str| counter(&recorder, name, &[(label, value)]);
        Ok(Self {
            handle: recorder.handle(),
            admitted: count("weir_reserves_total", "outcome", "admitted"),
            refused: count("weir_reserves_total", "outcome", "refused"),
            repeated: count("weir_reserves_total", "outcome", "repeated"),
            late: count("weir_reserves_total", "outcome", "late"),
            unavailable: count("weir_reserves_total", "outcome", "unavailable"),
            parked: count("weir_commits_total", "outcome", "parked"),
            released: count("weir_commits_total", "outcome", "released"),
            charged: count("weir_commits_total", "outcome", "unknown"),
            replayed: count("weir_commits_total", "outcome", "replayed"),
            leased: count("weir_commits_total", "outcome", "leased"),
            leases_granted: count("weir_leases_total", "outcome", "granted"),
            leases_refused: count("weir_leases_total", "outcome", "refused"),
            leases_unavailable: count("weir_leases_total", "outcome", "unavailable"),
            leased_running: counter(&recorder, "weir_leased_running_total", &[]),
            recalls_with_room: count("weir_recalls_total", "outcome", "room"),
            recalls_without_room: count("weir_recalls_total", "outcome", "no_room"),
            raises_held: count("weir_raises_total", "outcome", "held"),
            raises_out_of_room: count("weir_raises_total", "outcome", "out_of_room"),
            raises_unknown: count("weir_raises_total", "outcome", "unknown"),
            raises_unavailable: count("weir_raises_total", "outcome", "unavailable"),
            hits_admitted: count("weir_hits_total", "outcome", "admitted"),
            hits_refused: count("weir_hits_total", "outcome", "refused"),
            released_of_gone: counter(&recorder, "weir_gone_reservations_total", &[]),
            records_written: count("weir_usage_records_total", "outcome", "written"),
            records_repeated: count("weir_usage_records_total", "outcome", "repeated"),
            records_rejected: count("weir_usage_records_total", "outcome", "rejected"),
            records_expired: count("weir_usage_records_total", "outcome", "expired"),
            records_waiting: gauge(&recorder, "weir_usage_records_waiting", &[]),
            polls_changed: count("weir_plan_polls_total", "answer", "changed"),
            polls_unchanged: count("weir_plan_polls_total", "answer", "unchanged"),
            plan_changes: counter(&recorder, "weir_plan_changes_total", &[]),
            webhook_delivered: count("weir_webhook_deliveries_total", "outcome", "delivered"),
            webhook_rejected: count("weir_webhook_deliveries_total", "outcome", "rejected"),
            webhook_failed: count("weir_webhook_deliveries_total", "outcome", "failed"),
            webhook_dropped: count("weir_webhook_deliveries_total", "outcome", "dropped"),
            spans_exported: count("weir_spans_total", "outcome", "exported"),
            spans_failed: count("weir_spans_total", "outcome", "failed"),
            spans_dropped: count("weir_spans_total", "outcome", "dropped"),
            watch_failures: counter(&recorder, "weir_policy_watch_failures_total", &[]),
            loaded: gauge(&recorder, "weir_policies_loaded", &[]),
            invalid: gauge(&recorder, "weir_policies_invalid", &[]),
            refusals: RefusalLog::default(),
            warnings: WarningLog::default(),
            recorder,
        })
    }

    /// The time when the API server last answered about a resource.
    pub fn last_heard(&self, resource: &str) -> Gauge {
        let name = "weir_kubernetes_last_heard_timestamp_seconds";
        gauge(&self.recorder, name, &[("resource", resource)])
    }

    /// Whether another installation has the same controller name.
    pub fn rivals(&self) -> Gauge {
        gauge(&self.recorder, "weir_kubernetes_rival_installs", &[])
    }

    /// Whether the store of usage records works.
    pub fn usage_store_up(&self) -> Gauge {
        gauge(&self.recorder, "weir_usage_store_up", &[])
    }

    /// The number of Gateways that filters name but that do not exist.
    pub fn unknown_gateways(&self) -> Gauge {
        gauge(&self.recorder, "weir_unknown_gateways", &[])
    }

    /// The number of calls that a limit refused.
    pub fn refused(&self, policy: &str, limit: &str) -> Counter {
        counter(&self.recorder, "weir_refusals_total", &[("policy", policy), ("limit", limit)])
    }

    /// The number of calls that had no room but were not refused.
    pub fn excused(&self, policy: &str, limit: &str) -> Counter {
        counter(&self.recorder, "weir_excused_total", &[("policy", policy), ("limit", limit)])
    }

    /// The number of calls that were counted in a limit's overflow bucket.
    pub fn overflowed(&self, policy: &str, limit: &str) -> Counter {
        counter(&self.recorder, "weir_overflowed_total", &[("policy", policy), ("limit", limit)])
    }

    /// The amount that a limit was charged.
    pub fn charged(&self, policy: &str, limit: &str, unit: Unit) -> Counter {
        let labels = [("policy", policy), ("limit", limit), ("unit", unit.name())];
        counter(&self.recorder, "weir_charged_total", &labels)
    }

    /// The number of buckets of a limit that reached a threshold.
    pub fn warned(&self, policy: &str, limit: &str, unit: Unit, at: Threshold) -> Counter {
        let at = at.to_string();
        let labels = [("policy", policy), ("limit", limit), ("unit", unit.name()), ("at", at.as_str())];
        counter(&self.recorder, "weir_warnings_total", &labels)
    }

    /// The number of descriptors without a known limit.
    pub fn unknown_limits(&self, call: &'static str) -> Counter {
        counter(&self.recorder, "weir_unknown_limits_total", &[("call", call)])
    }

    /// The size of a gateway's plan, as last sent.
    pub fn plan_bytes(&self, gateway: &str) -> Gauge {
        gauge(&self.recorder, "weir_plan_bytes", &[("gateway", gateway)])
    }

    /// The version of a gateway's plan.
    pub fn plan_version(&self, gateway: &str) -> Gauge {
        gauge(&self.recorder, "weir_plan_version", &[("gateway", gateway)])
    }

    /// How long a call takes.
    pub fn latency(&self, call: &'static str) -> Histogram {
        self.recorder.register_histogram(&key("weir_grpc_seconds", &[("call", call)]), &METADATA)
    }

    /// Drains the buffers of the histograms. Call it every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Renders the exposition. A size that is no longer known is NaN, because the last one would look as if it
    /// were current.
    pub fn render(&self, storage: &StorageState) -> String {
        let StorageState { size, fault, since } = *storage;
        let set = |name, value: f64| gauge(&self.recorder, name, &[]).set(value);
        let of = |part: fn(LedgerSize) -> usize| size.map_or(f64::NAN, |size| part(size) as f64);
        set("weir_holds", of(|size| size.holds));
        set("weir_reservations", of(|size| size.reservations));
        set("weir_counters", of(|size| size.counters));
        if let Some(settled) = size.and_then(|size| size.settled) {
            set("weir_settled_reservations", settled as f64);
        }
        let bytes = match size {
            Some(size) => size.bytes.map(|bytes| (bytes.used as f64, bytes.most as f64)),
            None => Some((f64::NAN, f64::NAN)),
        };
        if let Some((used, most)) = bytes {
            set("weir_storage_used_bytes", used);
            set("weir_storage_max_bytes", most);
        }
        let flag = |is: bool| f64::from(u8::from(is));
        set("weir_storage_up", flag(fault.is_none_or(|fault| fault == StorageFault::Full)));
        set("weir_storage_full", flag(fault == Some(StorageFault::Full)));
        for possible in StorageFault::ALL {
            let gauge = gauge(&self.recorder, "weir_storage_fault", &[("fault", possible.name())]);
            gauge.set(flag(fault == Some(possible)));
        }
        if let Some(since) = since {
            set("weir_counting_since_timestamp_seconds", since.as_secs_f64());
        }
        let forgotten = size.map_or(0, |size| size.forgotten);
        counter(&self.recorder, "weir_settled_forgotten_total", &[]).absolute(forgotten);
        if let Some(LedgerSize { lapsed, .. }) = size {
            let count = |name, label, total| counter(&self.recorder, name, &[label]).absolute(total);
            count("weir_lapsed_holds_total", ("outcome", "charged"), lapsed.charged);
            count("weir_lapsed_holds_total", ("outcome", "released"), lapsed.released);
            count("weir_lapsed_charged_total", ("unit", Unit::Tokens.name()), lapsed.tokens);
            count("weir_lapsed_charged_total", ("unit", Unit::Usd.name()), lapsed.micro_usd);
        }
        self.handle.render()
    }
}

static METADATA: Metadata<'static> = Metadata::new("weir", Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels = labels.iter().map(|(label, value)| Label::new(*label, (*value).to_owned()));
    Key::from_parts(name, labels.collect::<Vec<_>>())
}

fn counter(recorder: &PrometheusRecorder, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
    recorder.register_counter(&key(name, labels), &METADATA)
}

fn gauge(recorder: &PrometheusRecorder, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
    recorder.register_gauge(&key(name, labels), &METADATA)
}
