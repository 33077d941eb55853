//! The filter's metrics. Each is declared once, for the code that counts it and for
//! `docs/reference/metrics.md`.

/// One metric of the filter.
#[derive(Clone, Copy, Debug)]
pub struct FilterMetric {
    pub name: &'static str,
    /// Each label and its value are part of the metric's name, after dots.
    pub labels: &'static [&'static str],
    /// A gauge instead of a counter.
    pub is_gauge: bool,
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub const $constant: FilterMetric = FilterMetric {
            name: $name,
            labels: &[$($label),*],
            is_gauge: metrics!(@$kind),
            help: $help,
        };)*

        /// All metrics, in the order of the reference.
        pub const METRICS: &[FilterMetric] = &[$($constant),*];
    };
    (@counter) => { false };
    (@gauge) => { true };
}

metrics! {
    ADMITTED = counter "weir_admitted" []
        "Requests that at least one limit applies to and that were admitted after a check.";
    ADMITTED_FROM_LEASES = counter "weir_admitted_from_leases" []
        "The part of them that was admitted from leases, without asking the adapter. It is updated four times a second.";
    LEASES_UNUSED = counter "weir_leases_unused" []
        "The amount that was leased and returned without being used, in units of any kind.";
    REFUSED = counter "weir_refused" ["policy", "limit"]
        "Requests refused by this limit, calls inside WebSockets and upgrades that cannot be metered included. A request that two limits refuse counts for both.";
    OVER_SHARE = counter "weir_refused_by_max_share" ["policy", "limit"]
        "Refused requests that would have held more than the limit's `reservation.maxShare`.";
    SOFT_EXCEEDED = counter "weir_soft_exceeded" ["policy", "limit"]
        "Requests that were admitted although they exceed this limit, and that carry its signal (`boundary: Soft`).";
    FAILED_OPEN = counter "weir_failed_open" ["cause"]
        "Requests that passed unchecked. Causes: `no_plan`, `timeout`, `unavailable`, `status`, `malformed`, `unknown_limit`, `evaluation`.";
    FAILED_CLOSED = counter "weir_failed_closed" ["cause"]
        "Requests refused with 503, for the causes of `weir_failed_open`, or because more than 4096 rates apply to them (`too_many_rates`).";
    EVALUATION_ERRORS = counter "weir_evaluation_errors" ["policy", "part"]
        "A `limitFrom`, `amount`, `ttl`, `enforceWhen`, `cost`, `tokenCompute` or `onExceeded` that could not be evaluated for a request.";
    IN_DOUBT = counter "weir_in_doubt" ["policy", "limit", "cause"]
        "Requests that this limit applied to although something about them is unknown. Causes: `predicate` (it failed and counted as true), `counter_absent`, `counter_failed` and `counter_too_long` (the request counted in the `null` bucket), `price` (no price matches the model, so the highest applied), and the causes of `weir_request_errors`.";
    UNIDENTIFIED = counter "weir_unidentified" ["cause"]
        "Identities that could not be read. Causes: `encoding`, `json`, `not_an_object`, `metadata`, `too_large`.";
    CALL_ERRORS = counter "weir_call_errors" ["method", "cause"]
        "Failed calls of the adapter's `Reserve`, `Commit`, `GetPlan` and `GetUsage`.";
    REQUEST_ERRORS = counter "weir_request_errors" ["cause"]
        "Request bodies that could not be read completely (`cut`, `malformed`, `foreign`, `encoding`, `corrupt`, `truncated`, `unread`), that two servers would read differently (`ambiguous`), that a header describes incorrectly (`mislabeled`), or that contain no prompt (`silent`). The unknown part is estimated from their length. `websocket` counts sockets that were closed because they could not be read.";
    REQUEST_BODIES_MISSING = counter "weir_request_bodies_missing" []
        "Workers that receive no request bodies because `allow_on_headers_stop_iteration` is missing next to its `root_id`. Their requests are judged by their headers.";
    INVALID_REQUESTS = counter "weir_invalid_requests" ["cause"]
        "Requests refused with 400: their body contradicts itself (`ambiguous`, `conflict`), or has to be changed (`outputCap`, `streamUsage`) and cannot be (`incomplete`, `not_utf8`, `encoding`). Or they hide the usage of the response (`field_mask`, `format`).";
    USAGE_ASKED = counter "weir_usage_asked" []
        "Streams with requests that were changed so that the provider reports usage.";
    OUTPUTS_CAPPED = counter "weir_outputs_capped" []
        "Requests that were given a maximum output (`outputCap: Inject`).";
    USAGE_CHUNKS_KEPT = counter "weir_usage_chunks_kept" []
        "Streams that came compressed, so the usage chunk that the client had not asked for was left in them.";
    RESPONSE_BYTES_LOST = counter "weir_response_bytes_lost" []
        "Bytes of an unfinished event that were dropped when the response's trailers overtook them.";
    RAISES_REFUSED = counter "weir_raises_refused" []
        "Streams that outgrew their hold when a limit with `overrun: Cut` had no room.";
    STREAMS_CUT = counter "weir_streams_cut" []
        "Streams that were ended like responses at their maximum output, because their limit had no room (`overrun: Cut`).";
    STREAMS_RESET = counter "weir_streams_reset" []
        "Streams that were reset for the same reason, because they are compressed or of an unknown API.";
    RAISES_DROPPED = counter "weir_raises_dropped" []
        "Raised holds that were given up because too many were waiting. The charge is not affected.";
    RESPONSE_ERRORS = counter "weir_response_errors" ["cause"]
        "Responses that could not be read completely. The readable part is charged. Causes: `count`, `malformed`, `truncated`, `encoding`, `corrupt`, `bomb`.";
    TOKENS_CHARGED = counter "weir_tokens_charged" []
        "Tokens charged.";
    USAGE = counter "weir_usage" ["source"]
        "Finished exchanges, by the source of their usage: `reported` by the provider, `estimated`, `deferred` (created in the background and charged when the result is seen), or `none`.";
    COMMITS_RETRIED = counter "weir_commits_retried" []
        "Charges that had to be sent again.";
    COMMITS_PACKED = counter "weir_commits_packed" []
        "Charges that wait in a compact form, because the queue was full.";
    COMMITS_DROPPED = counter "weir_commits_dropped" []
        "Charges that were given up because the queue was full or the adapter rejected them. This usage is lost.";
    RECORDS_RETRIED = counter "weir_usage_records_retried" []
        "Usage records that had to be sent again, because the adapter or its store did not accept them.";
    RECORDS_DROPPED = counter "weir_usage_records_dropped" []
        "Usage records that were given up because the queue was full or the adapter rejected them. Charges are not affected.";
    MEMORY_REFUSED = counter "weir_memory_refused" ["for"]
        "Allocations beyond the memory budget: `facts` (a `cost` or `onExceeded` is evaluated without them), `request_body` (estimated by its length), `response_body` (charged by its bytes), `usage_chunk` (the client gets it), `holds` (the request is refused with 503).";
    MEMORY = gauge "weir_memory_bytes" []
        "Memory kept for requests in flight, over all workers. Each worker may use `memory.maxBytes`.";
    PLANS = counter "weir_plans" []
        "How often a worker, or Envoy's main thread, has put a plan into force.";
    PLANS_REFUSED = counter "weir_plans_refused" []
        "Plans that could not be compiled. The last good plan stays in force.";
    PLAN_VERSION = gauge "weir_plan_version" []
        "The first twelve hexadecimal digits of the plan's version, as a number. The adapter exports the same number.";
}

impl FilterMetric {
    /// The name in Envoy, with a value for each label.
    pub(crate) fn of(&self, values: &[&str]) -> String {
        let mut name = self.name.to_owned();
        for (label, value) in self.labels.iter().zip(values) {
            for part in [".", label, ".", value] {
                name.push_str(part);
            }
        }
        name
    }
}
