//! The fields of a TokenRateLimitPolicy as the API server checks them. A schema only: what a policy means is read
//! from the object itself by `policy`, which checks again all that is said here, and the rest.

mod rules;

use super::status::PolicyStatus;
use kube::{CustomResource, KubeSchema};
use rules::{DISTINCT_RATES, EXTRACTED_ONCE, HEADER_NAMES, HEADER_VALUES, LIMIT_NAMES, ONE_LEVEL, PRICED};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A CEL expression; `policy` bounds it at the same length.
type Cel = String;

/// How many tokens, requests or dollars may be used, by whom, in which time.
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
    validation = ("!has(self.when) || has(self.limits)", "when goes with limits; defaults and overrides have their own"),
    validation = ("!has(self.dataExtraction) || has(self.limits)", "dataExtraction goes with limits; defaults and overrides have their own"),
    validation = EXTRACTED_ONCE,
    validation = PRICED,
)]
pub struct TokenRateLimitPolicySpec {
    /// What the policy applies to: a Gateway with all its routes, or one HTTPRoute or GRPCRoute, in the policy's namespace.
    pub target_ref: Option<TargetReference>,
    /// Several targets with one set of counters: all of them Gateways or all of them routes.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = ONE_LEVEL)]
    pub target_refs: Option<Vec<TargetReference>>,
    /// All must hold, or no limit of this policy applies.
    #[schemars(length(max = 32))]
    pub when: Option<Vec<Predicate>>,
    /// The limits by their names.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 64))]
    #[x_kube(validation = LIMIT_NAMES)]
    pub limits: Option<BTreeMap<String, LimitSchema>>,
    /// Limits that a policy closer to the route may replace.
    pub defaults: Option<MergedLimits>,
    /// Limits that no policy closer to the route can change.
    pub overrides: Option<MergedLimits>,
    /// What happens to a request if the adapter cannot answer in time; by default it goes on.
    pub failure_mode: Option<FailureModeSchema>,
    /// How responses are read.
    pub usage: Option<UsageSchema>,
    /// Kuadrant's way to say where a response tells its total.
    pub data_extraction: Option<DataExtraction>,
    /// USD per million tokens; the first whose model matches counts.
    #[schemars(length(max = 256))]
    #[x_kube(validation = ("self.all(a, self.exists_one(b, a.model == b.model))", "two prices are for the same model"))]
    pub prices: Option<Vec<PriceSchema>>,
    /// What a refused request is answered, in place of the caller's own dialect.
    pub on_exceeded: Option<OnExceededSchema>,
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
    /// A listener of the Gateway, or a named rule of the HTTPRoute.
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
    /// A CEL expression that gives a bool.
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
    )
)]
pub struct LimitSchema {
    /// All must hold, or the limit does not apply.
    #[schemars(length(max = 32))]
    pub when: Option<Vec<Predicate>>,
    /// Whose bucket; without any there is one bucket for all.
    #[schemars(length(max = 16))]
    pub counters: Option<Vec<CounterSchema>>,
    /// How much may be used in which time. All must have room.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = DISTINCT_RATES)]
    pub rates: Vec<RateSchema>,
    /// What is held for a request under way; by default an estimate.
    pub reservation: Option<ReservationSchema>,
    /// What happens to a stream that outgrows what was held and finds no room: it goes on, which is the default, or is cut
    /// as its API ends one that has reached its maximum output.
    pub overrun: Option<OverrunSchema>,
    /// A CEL bool: false counts and never refuses.
    #[schemars(length(min = 1, max = 4096))]
    pub enforce_when: Option<Cel>,
    /// Whether the output of a request without a maximum of its own is capped to what was held.
    pub output_cap: Option<OutputCap>,
}

/// Whose bucket.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
pub struct CounterSchema {
    /// A CEL expression that gives a string, number or bool.
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
    validation = ("!has(self.limit) || type(self.limit) == int || has(self.unit) && self.unit == 'usd'", "limit is a whole number; only usd may be written as a text such as \"5.00\""),
    validation = ("!has(self.cost) || !has(self.unit) || self.unit != 'concurrency'", "concurrency has no cost")
)]
pub struct RateSchema {
    /// The most that may be used in a window: a whole number, or for usd also a text with up to six decimals.
    #[schemars(schema_with = "amount")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<serde_json::Value>,
    /// A CEL int: the maximum for this request; null: the rate is absent.
    #[schemars(length(min = 1, max = 4096))]
    pub limit_from: Option<Cel>,
    /// How long a window lasts, such as 24h, 1h30m or 7d.
    #[schemars(length(max = 28), regex(pattern = "^([0-9]{1,5}(ms|s|m|h|d|w)){1,4}$"))]
    #[x_kube(validation = ("!self.matches('^(0+(ms|s|m|h|d|w))+$')", "must be at least 1s"))]
    pub window: Option<String>,
    /// A window of the UTC calendar; weeks begin on Monday.
    pub period: Option<PeriodSchema>,
    /// What is counted; by default tokens.
    pub unit: Option<UnitSchema>,
    /// A CEL number: what a response costs, where the unit's own count is not wanted.
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

/// A window of the UTC calendar.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum PeriodSchema {
    Day,
    Week,
    Month,
}

/// What a rate counts.
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
    /// A number, or a CEL expression that gives one.
    #[schemars(schema_with = "number")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<serde_json::Value>,
    /// How long a hold may live: a duration such as 15m, or a CEL expression.
    #[schemars(length(min = 1, max = 4096))]
    pub ttl: Option<String>,
    /// The most of the limit that one request may hold, such as 20%; by default all of it.
    #[schemars(length(max = 7), regex(pattern = "^[0-9]{1,3}([.][0-9]{1,2})?%$"))]
    #[x_kube(validation = ("self.matches('^(100([.]0{1,2})?|0{0,1}[0-9]{1,2}([.][0-9]{1,2})?)%$') && !self.matches('^0+([.]0+)?%$')", "must be above 0% and at most 100%"))]
    pub max_share: Option<String>,
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

/// What happens to a stream that outgrows its hold.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum OverrunSchema {
    Continue,
    Cut,
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
    /// Whether all limits are replaced together, which is the default, or each by its name.
    pub strategy: Option<StrategySchema>,
    /// All must hold, or none of these limits applies.
    #[schemars(length(max = 32))]
    pub when: Option<Vec<Predicate>>,
    /// The limits by their names.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 64))]
    #[x_kube(validation = LIMIT_NAMES)]
    pub limits: BTreeMap<String, LimitSchema>,
    /// Kuadrant's way to say where a response tells its total.
    pub data_extraction: Option<DataExtraction>,
}

/// Where a response tells its total.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataExtraction {
    /// Of the response's body.
    pub response: Option<ResponseDataExtraction>,
}

/// Of the response's body.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseDataExtraction {
    /// JSON pointers to the total; the first that leads to a number counts.
    #[schemars(length(min = 1, max = 8))]
    pub total_tokens: Option<Vec<Pointer>>,
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
    /// What a successful response without usage is charged; by default an estimate.
    pub on_missing: Option<OnMissingSchema>,
    /// Whether the provider is asked for usage in streams; by default it is.
    pub stream_usage: Option<StreamUsageSchema>,
    /// What happens to WebSockets where tokens or money are counted; by default each call inside is metered.
    pub web_socket: Option<WebSocketModeSchema>,
    /// Where usage stands in a format of your own.
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
    /// The tokens that came in.
    pub input: Option<Pointer>,
    /// The tokens that went out.
    pub output: Option<Pointer>,
    /// Both.
    pub total: Option<Pointer>,
    /// Of those that came in, the cached ones.
    pub cached: Option<Pointer>,
    /// Of those that went out, the reasoning.
    pub reasoning: Option<Pointer>,
}

/// What a model's tokens cost, in USD per million.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PriceSchema {
    /// The model's name; `*` stands for any text.
    #[schemars(length(min = 1, max = 256))]
    pub model: String,
    /// Of tokens that come in.
    #[schemars(length(max = 19), regex(pattern = "^[0-9]{1,12}([.][0-9]{1,6})?$"))]
    pub input: String,
    /// Of those among them that the provider had cached.
    #[schemars(length(max = 19), regex(pattern = "^[0-9]{1,12}([.][0-9]{1,6})?$"))]
    pub cached_input: Option<String>,
    /// Of those among them that were written to the provider's cache; by default the price of input.
    #[schemars(length(max = 19), regex(pattern = "^[0-9]{1,12}([.][0-9]{1,6})?$"))]
    pub cache_write: Option<String>,
    /// Of those among the written ones that stay there for an hour; by default the price of the others.
    #[schemars(length(max = 19), regex(pattern = "^[0-9]{1,12}([.][0-9]{1,6})?$"))]
    #[serde(rename = "cacheWrite1h")]
    pub cache_write_1h: Option<String>,
    /// Of tokens that go out.
    #[schemars(length(max = 19), regex(pattern = "^[0-9]{1,12}([.][0-9]{1,6})?$"))]
    pub output: String,
}

/// What a refused request is answered.
#[derive(Clone, Debug, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnExceededSchema {
    /// The status code.
    #[schemars(range(min = 400, max = 599))]
    pub status: Option<u16>,
    /// Further headers.
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    #[x_kube(validation = HEADER_NAMES, validation = HEADER_VALUES)]
    pub headers: Option<BTreeMap<String, String>>,
    /// A CEL string.
    #[schemars(length(min = 1, max = 4096))]
    pub body: Option<Cel>,
    /// Which rates of this policy the headers of every answer name: all, which is the default, the one of which the smallest
    /// share is left, or none.
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
