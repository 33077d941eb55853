//! The fields of a TokenRateLimitPolicy as the API server validates them. This is only a schema: `policy`
//! reads the object itself, validates everything again, and checks what a schema cannot express.

mod rules;

use super::status::PolicyStatus;
use kube::{CustomResource, KubeSchema};
use rules::{
    COUNT_NAMES, DISTINCT_RATES, EXTRACTED_ONCE, HEADER_NAMES, HEADER_VALUES, LIMIT_NAMES, ONE_LEVEL, PRICED,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A CEL expression. `policy` has the same maximum length.
type Cel = String;

/// Limits how many tokens, requests or dollars may be used, by whom, and over which time.
#[derive(Clone, Debug, CustomResource, KubeSchema, Serialize, Deserialize)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "TokenRateLimitPolicy",
    plural = "tokenratelimitpolicies",
    singular = "tokenratelimitpolicy",
    category = "gateway-api",
    namespaced,
    status = "PolicyStatus",
    doc = "Limits what may be used of LLM APIs behind a Gateway or an HTTPRoute.",
    label("gateway.networking.k8s.io/policy", "Inherited"),
    label("app.kubernetes.io/part-of", "weir"),
    printcolumn = r#"{"name": "Target", "type": "string", "jsonPath": ".spec.targetRef.kind"}"#,
    printcolumn = r#"{"name": "Name of target", "type": "string", "jsonPath": ".spec.targetRef.name"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].reason"}"#,
    printcolumn = r#"{"name": "Enforced", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Enforced\")].reason"}"#,
    printcolumn = r#"{"name": "Why accepted or not", "type": "string", "priority": 1, "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].message"}"#,
    printcolumn = r#"{"name": "Why enforced or not", "type": "string", "priority": 1, "jsonPath": ".status.conditions[?(@.type==\"Enforced\")].message"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.targetRef) != has(self.targetRefs)", "takes exactly one of targetRef and targetRefs"),
    validation = ("(has(self.limits) ? 1 : 0) + (has(self.defaults) ? 1 : 0) + (has(self.overrides) ? 1 : 0) == 1", "takes exactly one of limits, defaults and overrides"),
    validation = ("!has(self.when) || has(self.limits)", "when is valid only with limits; defaults and overrides have their own"),
    validation = ("!has(self.dataExtraction) || has(self.limits)", "dataExtraction is valid only with limits; defaults and overrides have their own"),
    validation = ("!has(self.tokenCompute) || has(self.limits)", "tokenCompute is valid only with limits; defaults and overrides have their own"),
    validation = EXTRACTED_ONCE,
    validation = PRICED,
)]
pub struct TokenRateLimitPolicySpec {
    /// What the policy applies to: a Gateway with all its routes, or one HTTPRoute or GRPCRoute. It must be in the policy's
    /// namespace.
    pub target_ref: Option<TargetReference>,
    /// Several targets that share one set of counters. All of them are Gateways, or all of them are routes.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = ONE_LEVEL)]
    pub target_refs: Option<Vec<TargetReference>>,
    /// Conditions for the whole policy. Its limits apply only to requests for which all are true.
    #[schemars(length(max = 32))]
    pub when: Option<Vec<Predicate>>,
    /// The limits, by name. A request must have room in every limit that applies to it.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 64))]
    #[x_kube(validation = LIMIT_NAMES)]
    pub limits: Option<BTreeMap<String, LimitSchema>>,
    /// Limits that a policy on a more specific target may replace.
    pub defaults: Option<MergedLimits>,
    /// Limits that take precedence over those of policies on more specific targets.
    pub overrides: Option<MergedLimits>,
    /// What happens to a request if the adapter does not answer in time: `Allow` admits it, `Deny` answers 503.
    pub failure_mode: Option<FailureModeSchema>,
    /// How usage is read from responses.
    pub usage: Option<UsageSchema>,
    /// Kuadrant's field for where a response reports its token counts. Mutually exclusive with `usage.pointers`.
    pub data_extraction: Option<DataExtractionSchema>,
    /// Kuadrant's field for the tokens that a response counts. A CEL expression over `tokens.NAME`, the counts of
    /// `dataExtraction.response`, and `tokens.totalTokens`. It replaces the total in rates whose unit is tokens, unless they have
    /// a `cost`.
    #[schemars(length(min = 1, max = 4096))]
    pub token_compute: Option<Cel>,
    /// Kuadrant's field for reports of usage: where the policy applies, each exchange's usage is written to Envoy's filter state,
    /// for access logs.
    pub usage_reporting: Option<UsageReportingSchema>,
    /// Prices in USD per million tokens. The first entry with a matching `model` applies. If none matches, the highest prices apply.
    #[schemars(length(max = 256))]
    #[x_kube(validation = ("self.all(a, self.exists_one(b, a.model == b.model))", "two prices are for the same model"))]
    pub prices: Option<Vec<PriceSchema>>,
    /// Replaces parts of the refusal, which otherwise is the error of the API that was called.
    pub on_exceeded: Option<OnExceededSchema>,
}

/// What is reported of each exchange's usage.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageReportingSchema {
    /// Whether usage is reported.
    pub enabled: Option<bool>,
    /// Whether cached and reasoning tokens are reported, too.
    pub include_details: Option<bool>,
}

/// A Gateway or an HTTPRoute.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetReference {
    /// The API group of the target.
    pub group: TargetGroup,
    /// The kind of the target.
    pub kind: TargetKindSchema,
    /// The name of the target.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// A listener of the Gateway, or a named rule of the route.
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// The API group of the target.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
pub enum TargetGroup {
    /// Gateway API.
    #[serde(rename = "gateway.networking.k8s.io")]
    GatewayApi,
}

/// The kind of the target.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
pub enum TargetKindSchema {
    /// All its routes.
    Gateway,
    /// One route.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// One route for gRPC.
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
}

/// A condition.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
pub struct Predicate {
    /// A CEL expression with a bool as its value.
    #[schemars(length(min = 1, max = 4096))]
    pub predicate: Cel,
}

/// One limit.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "!has(self.outputCap) || self.outputCap == 'None' || self.rates.exists(rate, !has(rate.unit) || rate.unit in ['tokens', 'outputTokens', 'usd'])",
        "outputCap needs a rate of tokens, outputTokens or usd: what it holds is the cap"
    ),
    validation = (
        "!has(self.overrun) || self.overrun == 'Continue' || self.rates.exists(rate, !has(rate.unit) || rate.unit in ['tokens', 'inputTokens', 'outputTokens', 'usd'])",
        "overrun needs a rate of tokens, inputTokens, outputTokens or usd"
    ),
    validation = (
        "!has(self.reservation) || !has(self.reservation.maxShare) || self.rates.exists(rate, !has(rate.unit) || rate.unit in ['tokens', 'inputTokens', 'outputTokens', 'usd'])",
        "reservation.maxShare needs a rate of tokens, inputTokens, outputTokens or usd"
    ),
    validation = (
        "!has(self.reservation) || !has(self.reservation.onLapse) || self.rates.exists(rate, !has(rate.unit) || rate.unit in ['tokens', 'inputTokens', 'outputTokens', 'usd'])",
        "reservation.onLapse needs a rate of tokens, inputTokens, outputTokens or usd"
    ),
    validation = (
        "!has(self.warnAt) || self.rates.exists(rate, !has(rate.unit) || rate.unit != 'concurrency')",
        "warnAt needs a rate other than concurrency"
    ),
    validation = ("!has(self.softSignal) || has(self.boundary) && self.boundary == 'Soft'", "softSignal goes with boundary: Soft"),
    validation = (
        "!has(self.boundary) || self.boundary == 'Hard' || (!has(self.overrun) || self.overrun == 'Continue') && (!has(self.outputCap) || self.outputCap == 'None')",
        "boundary: Soft takes neither overrun: Cut nor outputCap: Inject"
    )
)]
pub struct LimitSchema {
    /// Conditions. The limit applies only to requests for which all are true.
    #[schemars(length(max = 32))]
    pub when: Option<Vec<Predicate>>,
    /// What to count separately. There is one bucket per combination of values; without counters, one bucket for everybody.
    #[schemars(length(max = 16))]
    pub counters: Option<Vec<CounterSchema>>,
    /// How much may be used over which time. A request must have room in every rate.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = DISTINCT_RATES)]
    pub rates: Vec<RateSchema>,
    /// What a request holds while it runs. By default, its estimate.
    pub reservation: Option<ReservationSchema>,
    /// Whether a proxy that uses a counter often may hold room in it for several requests at once, and admit them without
    /// asking the adapter. The limit stays exact. `Never` makes every request ask.
    pub lease: Option<LeaseSchema>,
    /// What happens to a stream that outgrows its hold when the limit has no more room. `Cut` ends it as its API ends a
    /// stream at its maximum output.
    pub overrun: Option<OverrunSchema>,
    /// What happens once the limit is exceeded. `Hard` refuses requests; `Soft` counts and admits them, and sets the headers of
    /// `softSignal`.
    pub boundary: Option<BoundarySchema>,
    /// The headers of requests beyond a soft limit, set before a route is chosen, and of their responses. Weir removes clients'
    /// own copies from every request.
    pub soft_signal: Option<SoftSignalSchema>,
    /// The percentages of the limit at which Weir warns. When a counter reaches one, once per window, Weir increases a metric,
    /// writes a log line and calls the adapter's webhook. From then on, responses have the header `x-ratelimit-warning`.
    #[schemars(length(min = 1, max = 8), inner(length(max = 4), regex(pattern = "^([1-9][0-9]?|100)%$")))]
    #[x_kube(validation = ("self.all(one, self.exists_one(other, other == one))", "two thresholds are the same"))]
    pub warn_at: Option<Vec<String>>,
    /// Names the counters within the namespace, so that they survive when the policy or the limit is renamed or created again.
    /// By default, they are named after both.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$"))]
    pub counter_key: Option<String>,
    /// A CEL expression with a bool as its value. Where it is false, the limit counts but never refuses.
    #[schemars(length(min = 1, max = 4096))]
    pub enforce_when: Option<Cel>,
    /// `Inject` gives requests without a maximum output one: what was held for their output.
    pub output_cap: Option<OutputCap>,
}

/// Whose bucket.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
pub struct CounterSchema {
    /// A CEL expression with a string, number or bool as its value, or a list of them: the request then counts in the
    /// bucket of each element.
    #[schemars(length(min = 1, max = 4096))]
    pub expression: Cel,
}

/// A maximum per window.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.limit) != has(self.limitFrom)", "takes exactly one of limit and limitFrom"),
    validation = ("!has(self.unit) || self.unit != 'concurrency' || (!has(self.window) && !has(self.period))", "concurrency takes neither window nor period"),
    validation = ("has(self.unit) && self.unit == 'concurrency' || has(self.window) != has(self.period)", "takes exactly one of window and period"),
    validation = ("!has(self.windowType) || has(self.window)", "windowType requires window"),
    validation = ("!has(self.timeZone) || has(self.period)", "timeZone requires period"),
    validation = ("!has(self.limit) || type(self.limit) == int || has(self.unit) && self.unit == 'usd'", "limit is a whole number; only usd may be written as a text such as \"5.00\""),
    validation = ("!has(self.cost) || !has(self.unit) || self.unit != 'concurrency'", "concurrency has no cost")
)]
pub struct RateSchema {
    /// The most that may be used in one window: a whole number, or for `usd` also a decimal string such as "5.00".
    #[schemars(schema_with = "amount")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<serde_json::Value>,
    /// A CEL expression for the maximum, evaluated for each request. If it is null, the rate does not apply.
    #[schemars(length(min = 1, max = 4096))]
    pub limit_from: Option<Cel>,
    /// The length of a window, such as 24h, 1h30m or 7d. A window starts with the first charge after the last one ended.
    #[schemars(length(max = 28), regex(pattern = "^([0-9]{1,5}(ms|s|m|h|d|w)){1,4}$"))]
    #[x_kube(validation = ("!self.matches('^(0+(ms|s|m|h|d|w))+$')", "must be at least 1s"))]
    pub window: Option<String>,
    /// `Sliding` limits what is used during the last `window`, at any moment. `Fixed` windows follow one another.
    pub window_type: Option<WindowTypeSchema>,
    /// A window of the calendar. Weeks begin on Monday, quarters in January, April, July and October. `Lifetime` never ends.
    pub period: Option<PeriodSchema>,
    /// The time zone of `period`, by its IANA name.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9/_+-]+$"))]
    pub time_zone: Option<String>,
    /// What to count.
    pub unit: Option<UnitSchema>,
    /// A CEL expression for what a response costs, instead of the unit's own count. For `usd` in micro-USD.
    #[schemars(length(min = 1, max = 4096))]
    pub cost: Option<Cel>,
}

fn amount(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "minimum": 0,
        "maxLength": 19,
        "pattern": "^[0-9]{1,12}([.][0-9]{1,6})?$",
    })
}

/// How a window moves.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum WindowTypeSchema {
    Fixed,
    Sliding,
}

/// A window of the calendar.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum PeriodSchema {
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Lifetime,
}

/// The unit of a rate.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum UnitSchema {
    Requests,
    Tokens,
    InputTokens,
    OutputTokens,
    Usd,
    Concurrency,
}

/// What is held for a request under way.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReservationSchema {
    /// How much to hold: a number, or a CEL expression with a number as its value. For `usd` in micro-USD.
    #[schemars(schema_with = "number")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<serde_json::Value>,
    /// How long a hold may last: a duration such as 15m, or a CEL expression.
    #[schemars(length(min = 1, max = 4096))]
    pub ttl: Option<String>,
    /// The largest share of the limit that one request may hold, such as 20%. Larger requests are refused.
    #[schemars(length(max = 7), regex(pattern = "^[0-9]{1,3}([.][0-9]{1,2})?%$"))]
    #[x_kube(validation = ("self.matches('^(100([.]0{1,2})?|0{0,1}[0-9]{1,2}([.][0-9]{1,2})?)%$') && !self.matches('^0+([.]0+)?%$')", "must be above 0% and at most 100%"))]
    pub max_share: Option<String>,
    /// What a hold of tokens or money costs that ends without its request, because it expires or because Envoy died. `Charge`
    /// charges the held amount, and corrects the charge if the usage arrives later; `Release` charges nothing.
    pub on_lapse: Option<OnLapseSchema>,
}

/// What a hold costs that lapses.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum OnLapseSchema {
    Charge,
    Release,
}

fn number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "minimum": 0,
        "minLength": 1,
        "maxLength": 4096,
    })
}

/// Whether there may be leases.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum LeaseSchema {
    Auto,
    Never,
}

/// What happens to a stream that outgrows its hold.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum OverrunSchema {
    Continue,
    Cut,
}

/// What happens once a limit is exceeded.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum BoundarySchema {
    Hard,
    Soft,
}

/// What marks a request that exceeds a soft limit.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
pub struct SoftSignalSchema {
    /// The headers to set. If several exceeded limits set the same one, the first limit's value applies.
    #[schemars(length(min = 1, max = 8))]
    pub headers: Vec<SignalHeaderSchema>,
}

/// One header of a signal.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
pub struct SignalHeaderSchema {
    /// The name of the header, such as x-weir-budget. Names that HTTP, proxies or providers use are refused.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub name: String,
    /// Its value: ASCII, without spaces at either end.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[!-~]([ -~]*[!-~])?$"))]
    pub value: String,
}

/// Whether outputs are capped.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum OutputCap {
    None,
    Inject,
}

/// Limits that merge with those of other policies.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MergedLimits {
    /// `atomic` replaces all limits of the other policy; `merge` replaces those of the same name.
    pub strategy: Option<StrategySchema>,
    /// Conditions. These limits apply only to requests for which all are true.
    #[schemars(length(max = 32))]
    pub when: Option<Vec<Predicate>>,
    /// The limits, by name.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 64))]
    #[x_kube(validation = LIMIT_NAMES)]
    pub limits: BTreeMap<String, LimitSchema>,
    /// Kuadrant's field for where a response reports its token counts. Mutually exclusive with `usage.pointers`.
    pub data_extraction: Option<DataExtractionSchema>,
    /// Kuadrant's field for the tokens that a response counts. A CEL expression over `tokens.NAME`, the counts of
    /// `dataExtraction.response`, and `tokens.totalTokens`. It replaces the total in rates whose unit is tokens, unless they have
    /// a `cost`.
    #[schemars(length(min = 1, max = 4096))]
    pub token_compute: Option<Cel>,
}

/// Where a response reports its token counts.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataExtractionSchema {
    /// Counts in the response's body: a name, and JSON pointers of which the first one that leads to a number other than zero
    /// counts. `totalTokens` is the total. `tokenCompute` may use all of them. If a response has none of the values, Weir's own
    /// reading replaces the count, if a name in the pointers or the count's name says which one it is.
    #[schemars(extend("maxProperties" = 16))]
    #[x_kube(validation = COUNT_NAMES)]
    pub response: Option<BTreeMap<String, PointerList>>,
}

/// JSON pointers to one value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PointerList(Vec<Pointer>);

impl JsonSchema for PointerList {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PointerList".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let pointer = generator.subschema_for::<Pointer>();
        json_schema!({ "type": "array", "minItems": 1, "maxItems": 8, "items": pointer })
    }
}

/// A JSON pointer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pointer(String);

impl JsonSchema for Pointer {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pointer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 256, "pattern": "^(/([^/~]|~[01])+)+$" })
    }
}

/// Whether all limits are replaced together, or each by its name.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum StrategySchema {
    Atomic,
    Merge,
}

/// What happens to a request if the adapter cannot answer in time.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum FailureModeSchema {
    Allow,
    Deny,
}

/// How responses are read.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageSchema {
    /// What a successful response without usage is charged: an estimate from what was sent and delivered, what was held,
    /// or nothing.
    pub on_missing: Option<OnMissingSchema>,
    /// `Request` asks OpenAI-style providers for the usage of streams, and refuses requests to Google's APIs that
    /// hide the usage; `Leave` does neither.
    pub stream_usage: Option<StreamUsageSchema>,
    /// What happens to WebSockets where a limit counts tokens or money: each call inside is metered, the upgrade is refused
    /// with 426, or the socket passes unread.
    pub web_socket: Option<WebSocketModeSchema>,
    /// Where responses in a format of your own report their usage. Takes `total`, or `input` and `output`.
    pub pointers: Option<PointersSchema>,
}

/// What a successful response without usage is charged.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum OnMissingSchema {
    Estimate,
    Hold,
    Zero,
}

/// Whether the provider is asked for usage in streams.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum StreamUsageSchema {
    Request,
    Leave,
}

/// What happens to WebSockets where tokens or money are counted.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum WebSocketModeSchema {
    Meter,
    Refuse,
    Allow,
}

/// JSON pointers into a response.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[x_kube(validation = ("has(self.total) || has(self.input) || has(self.output)", "takes total, or input and output"))]
pub struct PointersSchema {
    /// JSON pointer to the input tokens.
    pub input: Option<Pointer>,
    /// JSON pointer to the output tokens.
    pub output: Option<Pointer>,
    /// JSON pointer to the total.
    pub total: Option<Pointer>,
    /// JSON pointer to the cached tokens, which are part of the input.
    pub cached: Option<Pointer>,
    /// JSON pointer to the reasoning tokens, which are part of the output.
    pub reasoning: Option<Pointer>,
}

/// What a model's tokens cost, in USD per million.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PriceSchema {
    /// The name of the model. `*` matches any text.
    #[schemars(length(min = 1, max = 256))]
    pub model: String,
    /// The price of input tokens.
    #[schemars(length(max = 19), regex(pattern = "^[0-9]{1,12}([.][0-9]{1,6})?$"))]
    pub input: String,
    /// The price of cached input tokens. By default, the price of input.
    #[schemars(length(max = 19), regex(pattern = "^[0-9]{1,12}([.][0-9]{1,6})?$"))]
    pub cached_input: Option<String>,
    /// The price of tokens written to the provider's cache. By default, the price of input.
    #[schemars(length(max = 19), regex(pattern = "^[0-9]{1,12}([.][0-9]{1,6})?$"))]
    pub cache_write: Option<String>,
    /// The price of tokens written to the cache for an hour. By default, `cacheWrite`.
    #[schemars(length(max = 19), regex(pattern = "^[0-9]{1,12}([.][0-9]{1,6})?$"))]
    #[serde(rename = "cacheWrite1h")]
    pub cache_write_1h: Option<String>,
    /// The price of output tokens.
    #[schemars(length(max = 19), regex(pattern = "^[0-9]{1,12}([.][0-9]{1,6})?$"))]
    pub output: String,
}

/// The response to a refused request.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnExceededSchema {
    /// The status code, instead of 429.
    #[schemars(range(min = 400, max = 599))]
    pub status: Option<u16>,
    /// Headers to set on the refusal.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    #[x_kube(validation = HEADER_NAMES, validation = HEADER_VALUES)]
    pub headers: Option<BTreeMap<String, String>>,
    /// A CEL expression with a string as its value: the body of the refusal.
    #[schemars(length(min = 1, max = 4096))]
    pub body: Option<Cel>,
    /// Which rates of this policy the rate-limit headers of every response show: all, only the one with the smallest share
    /// left, or none.
    pub quota_headers: Option<QuotaHeadersSchema>,
}

/// Which rates the headers of an answer name.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum QuotaHeadersSchema {
    All,
    Constrained,
    None,
}
