//! The facts of a request, as plain data for CEL. The plan lists its needs ([`Need`]), and the shell fetches
//! only those and passes on the raw values. A value that the shell does not pass on is absent.
//!
//! Text that is not valid UTF-8 is kept, with U+FFFD in place of invalid bytes. If it were dropped, a client
//! could hide a header from the policy, although the upstream would see it.

mod attributes;
mod body;
mod headers;
mod kept;
mod needs;
mod properties;

pub(crate) use attributes::Spelling;
pub use attributes::{ATTRIBUTES, Attribute, AttributeType, Origin, find, root};
pub(crate) use attributes::{FactType, types};
pub use body::{ANSWERED, POINTED, depends_on_body, is_of_body, pointer, written};
pub use headers::HeaderMap;
pub use needs::Need;
pub use properties::without_port;

use crate::cel::FactPath;
use body::BodyFacts;
use llm::request::hiding::{self, UsageHiding};
use llm::request::{self, Condition, Dialect, Operation, RequestBody, Route};
use llm::response::Usage;
use llm::spelling;
use properties::Property;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The root of the named counts of a response.
pub const TOKENS: &str = "tokens";

/// The header in which a client asks for another method than that of its request. Google's APIs obey it.
const ASKED_METHOD: &str = "x-http-method-override";

/// The facts of one request.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    headers: HeaderMap,
    /// The original spelling of normalised values.
    spelled: Option<Box<Spelled>>,
    properties: Vec<(&'static Attribute, Property)>,
    route_name: Option<String>,
    /// Whether the route was chosen by a header that the filter has removed.
    route_in_doubt: bool,
    /// The header that the filter will remove from the request.
    lost_header: Option<String>,
    metadata: Option<Map<String, Value>>,
    /// Strings by key.
    filter_state: Map<String, Value>,
    auth: Option<Value>,
    /// Facts that exist but are too large to be read.
    too_large: TooLarge,
    estimate: Option<(u64, u64)>,
    failures: BTreeMap<String, u64>,
    answer: Option<Box<ResponseFacts>>,
    body: Option<Box<BodyFacts>>,
    /// Whether the request has a body, as far as its headers show.
    has_body: bool,
    /// Whether these are the facts of a message in a WebSocket.
    in_socket: bool,
    /// The input, in tokens, that earlier messages of the WebSocket add to this one.
    earlier_input: u64,
    /// The named counts of the response.
    counts: Option<Box<Map<String, Value>>>,
}

/// The normalised path and host, if they differ from the client's.
#[derive(Clone, Debug, Default)]
struct Spelled {
    /// The path, and the length of the part before the `?`.
    path: Option<(String, usize)>,
    host: Option<String>,
}

/// Facts that exist but are too large to be read. Expressions that use them fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TooLarge {
    auth: bool,
    metadata: bool,
    /// A part of the request's body.
    body: bool,
}

/// The facts of a response at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseFacts {
    /// The usage, possibly estimated.
    pub usage: Usage,
    /// The status code; 0 if there was none.
    pub code: u16,
    /// Whether it ended normally.
    pub finished: bool,
    /// The headers that the plan requested, by lower-case name.
    pub headers: HeaderMap,
    /// The values in the body at the pointers that the plan requested.
    pub pointed: Vec<(String, Value)>,
}

/// The value of one attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact<'a> {
    Text(&'a str),
    Number(i64),
    Bool(bool),
    Time(i64),
}

impl Facts {
    /// Adds a request header. `:path`, `:method`, `:authority` and `:scheme` provide the `request.*` facts.
    /// Repeated values are joined with `,`, except for headers that HTTP allows only once.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        let name = lower_case(name);
        let value = String::from_utf8_lossy(value);
        match name.as_ref() {
            ":path" => self.spell(spelling::path(&value), |spelled| &mut spelled.path),
            ":authority" => self.spell(spelling::host(&value), |spelled| &mut spelled.host),
            _ => {}
        }
        let once = name.starts_with(':') || name == "content-length";
        match self.headers.get_mut(name.as_ref()) {
            Some(known) if once => *known = value.into_owned(),
            Some(known) => {
                known.push(',');
                known.push_str(&value);
            }
            None => {
                self.headers.insert(name.into_owned(), value.into_owned());
            }
        }
    }

    /// Sets the whole `auth` root, for example `{"identity": {..}}`.
    pub fn auth(&mut self, value: Value) {
        self.auth = Some(value);
    }

    /// Whether there is an identity.
    pub fn is_identified(&self) -> bool {
        self.auth.is_some()
    }

    /// Marks the identity as too large to be read. Expressions that use `auth` fail instead of finding no
    /// identity.
    pub fn auth_too_large(&mut self) {
        self.too_large.auth = true;
    }

    /// Whether this fact exists but is too large to be read.
    pub(crate) fn is_too_large(&self, path: &FactPath) -> bool {
        let TooLarge { auth, metadata, body } = self.too_large;
        if !(auth || metadata || body) {
            return false;
        }
        match path.first().map(String::as_str) {
            Some("auth") => auth,
            Some("request") => auth && path.get(1).is_some_and(|name| name == "auth"),
            Some("metadata") => metadata,
            _ => pointer(POINTED, path)
                .zip(self.body.as_ref())
                .is_some_and(|(pointer, body)| body.is_too_large(pointer)),
        }
    }

    /// Records that the request has a body. Without a `content-length`, its length is unknown until it was read.
    pub fn expect_body(&mut self) {
        self.has_body = true;
    }

    /// Sets the length of a body on the wire that was read to its end.
    pub fn set_body_length(&mut self, length: u64) {
        if let Some(body) = &mut self.body {
            body.length = Some(length);
        }
    }

    fn body_length(&self) -> Option<u64> {
        self.content_length().or_else(|| self.body.as_ref()?.length)
    }

    /// Whether the request has a body of unknown length.
    pub(crate) fn is_length_in_doubt(&self) -> bool {
        let is_read_in_part =
            |body: &RequestBody| matches!(body.condition, Condition::Unread | Condition::Cut);
        let in_doubt = self.read_body().map_or(self.has_body && !self.is_upgrade(), is_read_in_part);
        in_doubt && self.body_length().is_none()
    }

    /// Whether the expected usage is unknown. Calls that use no tokens are expected to use none.
    pub(crate) fn is_estimate_in_doubt(&self) -> bool {
        self.is_length_in_doubt() && !self.uses_no_tokens(false)
    }

    /// Sets `llm.estimate.*`.
    pub fn estimate(&mut self, input: u64, output: u64) {
        self.estimate = Some((input, output));
    }

    /// Sets how many responses of each model's upstreams failed in the last minute.
    pub fn failures(&mut self, by_model: BTreeMap<String, u64>) {
        self.failures = by_model;
    }

    /// Sets the response's facts.
    pub fn answer(&mut self, answer: ResponseFacts) {
        self.answer = Some(Box::new(answer));
    }

    /// Returns facts with nothing but the named counts of a response.
    pub fn of_counts(counts: impl Iterator<Item = (String, f64)>) -> Self {
        let counts = counts.map(|(name, count)| (name, count.into())).collect();
        Self { counts: Some(Box::new(counts)), ..Self::default() }
    }

    pub(crate) fn counts(&self) -> Option<&Map<String, Value>> {
        self.counts.as_deref()
    }

    /// Replaces the response's usage, if a policy's format differs.
    pub fn usage(&mut self, usage: Usage) {
        if let Some(answer) = &mut self.answer {
            answer.usage = usage;
        }
    }

    /// Returns the requested model, if it is known.
    pub fn model(&self) -> Option<String> {
        match self.read_body() {
            Some(body) => body.model.clone(),
            None => self.path().and_then(|path| Route::of(path).model),
        }
    }

    /// Returns the model that determines the price. It is empty if the request names none. Fails if the model
    /// cannot be determined.
    pub fn asked_model(&self) -> Result<String, &'static str> {
        match &self.body {
            Some(body) => body.model().map(|model| model.unwrap_or_default().to_owned()),
            None => {
                let route = self.path().map(Route::of).unwrap_or_default();
                let is_known =
                    !route.model_is_unsure && (route.model.is_some() || route.query_model.is_none());
                let model = is_known.then(|| route.model.unwrap_or_default());
                model.ok_or("the path or the query may name several models")
            }
        }
    }

    /// Adds the facts of the request's body. `text` is the body as it was read, and `pointers` are JSON
    /// pointers to further values in it.
    pub fn body(&mut self, body: RequestBody, text: &[u8], pointers: &[String]) {
        let facts = BodyFacts::new(body, text, pointers);
        self.too_large.body = facts.pointed.iter().any(|(_, value)| value.is_none());
        self.body = Some(Box::new(facts));
    }

    pub fn read_body(&self) -> Option<&RequestBody> {
        self.body.as_ref().map(|body| body.body())
    }

    /// Records that the forwarded body asks for this much output in total.
    pub fn cap_output(&mut self, cap: u64) {
        if let Some(facts) = &mut self.body {
            facts.capped(facts.body().share(cap));
            let input = facts.body().input.saturating_add(self.earlier_input);
            let output = facts.body().output(cap);
            self.estimate(input, output);
        }
    }

    /// Whether facts of the request's body are unknown, because it was not read to its end.
    pub(crate) fn is_body_in_doubt(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_in_doubt())
    }

    /// Returns a header, or an empty string if it was not fetched.
    pub fn fetched_header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_default()
    }

    /// Returns what the path shows, or with a body that asks for tokens, what both show.
    pub fn route(&self) -> Cow<'_, Route> {
        let generates = |body: &&RequestBody| body.route.operation.is_some_and(Operation::uses_tokens);
        match self.read_body().filter(generates) {
            Some(body) => Cow::Borrowed(&body.route),
            None => Cow::Owned(self.path().map(Route::of).unwrap_or_default()),
        }
    }

    /// Returns the dialect of the caller, if it is known.
    pub fn dialect(&self) -> Dialect {
        self.route().dialect
    }

    /// Envoy's attribute for the name of the matched route.
    pub const ROUTE_NAME: [&str; 2] = ["xds", "route_name"];

    /// Records that the filter removes this header from the request. Envoy then selects the route again.
    pub fn loses_header(&mut self, name: &str) {
        self.lost_header = Some(lower_case(name).into_owned());
    }

    /// Returns a header as Envoy's routes see it after the filter.
    pub fn routed_header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).filter(|_| self.lost_header.as_deref() != Some(name))
    }

    /// Records that Envoy has matched the route by a header that the filter has removed since. It is unknown
    /// which route the request takes, so the policies of all routes apply.
    pub fn doubt_route(&mut self) {
        self.route_in_doubt = true;
        self.route_name = None;
    }

    pub fn is_route_in_doubt(&self) -> bool {
        self.route_in_doubt
    }

    /// The name of the matched route, if it was fetched.
    pub fn route_name(&self) -> Option<&str> {
        self.route_name.as_deref()
    }

    /// `content-length`, if it was fetched and is a number.
    pub fn content_length(&self) -> Option<u64> {
        self.headers.get("content-length").and_then(|value| value.trim().parse().ok())
    }

    /// `:path`, if it was fetched.
    pub fn path(&self) -> Option<&str> {
        self.headers.get(":path")
    }

    /// The normalised path without its query, if it was fetched.
    pub fn url_path(&self) -> Option<&str> {
        let (path, length) = self.spelled_path()?;
        path.get(..length)
    }

    /// Whether the method is GET, if it was fetched.
    pub fn is_get(&self) -> bool {
        self.method() == Some("GET")
    }

    /// Whether the client keeps the request open until it is answered. WebSocket upgrades are such requests,
    /// and they are GETs. Envoy removes the header `upgrade` from other requests.
    pub fn is_upgrade(&self) -> bool {
        let upgrades = self.is_get() && self.headers.contains("upgrade");
        !self.in_socket && (self.method() == Some("CONNECT") || upgrades)
    }

    /// The facts of a message in the WebSocket that this request has opened. Predicates and counters see the
    /// upgrade's facts, with the message as the body.
    pub fn of_message(&self) -> Self {
        let mut facts = Self { in_socket: true, body: None, answer: None, ..self.clone() };
        for of_body in ["content-length", "content-type", "content-encoding"] {
            facts.headers.remove(of_body);
        }
        facts
    }

    /// Sets the input, in tokens, that earlier messages of the WebSocket add to this one.
    pub fn set_earlier_input(&mut self, tokens: u64) {
        self.earlier_input = tokens;
    }

    pub fn earlier_input(&self) -> u64 {
        self.earlier_input
    }

    /// Whether these are the facts of a message in a WebSocket.
    pub fn is_message(&self) -> bool {
        self.in_socket
    }

    /// The method with which to read the body. A message is read like the body of a POST.
    pub fn body_method(&self) -> &str {
        if self.in_socket { "POST" } else { self.fetched_header(":method") }
    }

    fn method(&self) -> Option<&str> {
        self.headers.get(":method")
    }

    /// Whether the request asks for another method than its own. Some servers obey.
    pub(crate) fn is_method_in_doubt(&self) -> bool {
        let asked = self.headers.get(ASKED_METHOD);
        let own = self.method().unwrap_or_default();
        asked.is_some_and(|asked| !asked.trim().eq_ignore_ascii_case(own))
    }

    /// Marks the body as unread. Only its announced length and the number of bytes that have arrived are
    /// known.
    pub fn unread_body(&mut self, come: u64) {
        let length = self.content_length().max((come > 0).then_some(come));
        let body = RequestBody::unread(self.path().unwrap_or_default(), length);
        self.body(body, &[], &[]);
    }

    fn spell<T>(&mut self, value: Option<T>, place: fn(&mut Spelled) -> &mut Option<T>) {
        if value.is_some() || self.spelled.is_some() {
            *place(self.spelled.get_or_insert_default()) = value;
        }
    }

    /// The normalised path, and the length of the part before the `?`.
    fn spelled_path(&self) -> Option<(&str, usize)> {
        match self.spelled.as_ref().and_then(|spelled| spelled.path.as_ref()) {
            Some((path, length)) => Some((path, *length)),
            None => self.path().map(|path| (path, path.find('?').unwrap_or(path.len()))),
        }
    }

    /// The header with which the request may hide the usage of its response.
    pub fn hiding_header(&self) -> Option<&'static str> {
        self.path().filter(|path| hiding::may_hide_usage(path)).map(|_| hiding::FIELD_MASK)
    }

    /// How the request hides the usage of its response.
    pub fn usage_hiding(&self, bodiless: bool) -> Option<UsageHiding> {
        let hiding = hiding::hides_usage(self.path()?, self.fetched_header(hiding::FIELD_MASK));
        hiding.filter(|_| !self.uses_no_tokens(bodiless))
    }

    /// Whether the call is known to use no tokens. `bodiless` is true if it has no body.
    pub fn uses_no_tokens(&self, bodiless: bool) -> bool {
        let method = self.body_method();
        self.path().is_some_and(|path| request::uses_no_tokens(method, path, !bodiless, self.read_body()))
    }

    /// The provider's id of the stored result that the request reads or cancels.
    pub fn stored_result(&self, bodiless: bool) -> Option<&str> {
        let id = request::read_result(self.body_method(), self.path()?, !bodiless)?;
        self.read_body().is_none_or(|body| !body.operation.uses_tokens()).then_some(id)
    }

    /// The unmodified `:authority`, if it was fetched.
    pub fn host(&self) -> Option<&str> {
        self.headers.get(":authority")
    }

    /// The value of a numeric attribute.
    pub fn number(&self, attribute: &Attribute) -> Option<i64> {
        match self.attribute(attribute)? {
            Fact::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The value of a text attribute.
    pub fn text(&self, attribute: &Attribute) -> Option<&str> {
        match self.attribute(attribute)? {
            Fact::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub fn answer_headers(&self) -> Option<&HeaderMap> {
        self.answer.as_ref().map(|answer| &answer.headers)
    }

    pub fn auth_root(&self) -> Option<&Value> {
        self.auth.as_ref()
    }

    pub fn filter_metadata(&self) -> Option<&Map<String, Value>> {
        self.metadata.as_ref()
    }

    pub fn filter_state(&self) -> &Map<String, Value> {
        &self.filter_state
    }

    pub fn llm_metadata(&self) -> Option<&Map<String, Value>> {
        self.body.as_ref().and_then(|body| body.metadata())
    }

    pub fn pointed(&self, pointer: &str) -> Option<&Value> {
        self.body.as_ref().and_then(|body| body.pointed(pointer))
    }

    pub fn answered(&self, pointer: &str) -> Option<&Value> {
        let pointed = &self.answer.as_ref()?.pointed;
        pointed.iter().find(|(known, _)| known == pointer).map(|(_, value)| value)
    }

    /// The value of an attribute, if this request has it.
    pub fn attribute(&self, attribute: &Attribute) -> Option<Fact<'_>> {
        match attribute.origin {
            Origin::Header(name) => self.headers.get(name).map(Fact::Text),
            Origin::Method if self.is_method_in_doubt() => None,
            Origin::Method => self.method().map(Fact::Text),
            Origin::Path => self.spelled_path().map(|(path, _)| Fact::Text(path)),
            Origin::UrlPath => self.url_path().map(Fact::Text),
            Origin::Query => {
                let (path, length) = self.spelled_path()?;
                path.get(length..).map(|query| Fact::Text(query.strip_prefix('?').unwrap_or(query)))
            }
            // If there are several hosts, it is unknown which one the upstream uses.
            Origin::Host => {
                let spelled = self.spelled.as_ref().and_then(|spelled| spelled.host.as_deref());
                let host = spelled.or(self.host())?;
                (!host.contains(',')).then_some(Fact::Text(host))
            }
            Origin::Size if self.is_length_in_doubt() => None,
            Origin::Size => Some(Fact::Number(number(self.body_length().unwrap_or_default()))),
            Origin::Property => self.fetched(attribute.root, attribute.name),
            Origin::Address => match self.fetched(attribute.root, "address")? {
                Fact::Text(address) => Some(Fact::Text(without_port(address))),
                _ => None,
            },
            Origin::Failures => {
                let model = self.asked_model().ok()?;
                Some(Fact::Number(number(self.failures.get(&model).copied().unwrap_or(0))))
            }
            Origin::Usage => self.answer.as_ref().map(|answer| {
                let usage = &answer.usage;
                Fact::Number(number(match attribute.name {
                    "input" => usage.input,
                    "output" => usage.output,
                    "cached" => usage.cached,
                    "cacheWrite" => usage.cache_write,
                    "cacheWrite1h" => usage.cache_write_1h,
                    "reasoning" => usage.reasoning,
                    _ => usage.total,
                }))
            }),
            Origin::Code => self.answer.as_ref().map(|answer| Fact::Number(answer.code.into())),
            Origin::Finished => self.answer.as_ref().map(|answer| Fact::Bool(answer.finished)),
            Origin::Body => self.body.as_ref()?.attribute(attribute.name),
            Origin::Estimate if self.is_estimate_in_doubt() => None,
            Origin::Estimate => {
                let (input, output) = self.estimate?;
                Some(Fact::Number(number(match attribute.name {
                    "input" => input,
                    "output" => output,
                    _ => input.saturating_add(output),
                })))
            }
        }
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Converts a header name to lower case, as in Envoy. Header names are case-insensitive.
pub fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}
