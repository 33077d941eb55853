//! A caller's view of its own limits, served at the plugin configuration's `usagePath`. A question is judged
//! like the request that it describes, with the caller's own facts, so it finds exactly the buckets of that
//! request. The adapter then reads these buckets. Nothing is held, charged or counted.

mod answer;

use crate::exchange::read_body;
use crate::refusal::Denial;
use answer::{UsageRow, error};
use expression::facts::{Facts, Need};
use llm::memory::{Lease, MemoryBudget, Purpose};
use llm::spelling;
use policy::plan::{Hold, Plan};
use protocol::call::{self, CallFailure, Item, LONGEST_CALL};
use protocol::wire::weir::v1::GetUsageResponse;
use serde_json::json;
use std::time::Duration;

/// The path that the filter answers itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsagePath(String);

/// The longest path to answer, or to ask about, in bytes.
const LONGEST_PATH: usize = 2048;
/// The longest name of a model to ask about, in bytes.
const LONGEST_MODEL: usize = 256;
/// The path of the described request if the question has no `path`.
const DEFAULT_PATH: &str = "/v1/chat/completions";
/// The maximum number of buckets in one answer.
const MAX_ROWS: usize = 256;
/// The memory of a question in the shell and here, and of each of its buckets, in bytes.
const QUESTION: usize = 2 << 10;
const ROW: usize = 512;

impl UsagePath {
    /// `None` if no normalised path can equal it.
    pub fn parse(text: &str) -> Option<Self> {
        let is_path = is_path(text) && !text.contains('?') && text != "/";
        (is_path && spelling::path(text).is_none()).then(|| Self(text.to_owned()))
    }

    /// Whether a request is for this path, in any spelling.
    pub fn is(&self, facts: &Facts) -> bool {
        facts.url_path() == Some(self.0.as_str())
    }
}

/// Proxies accept only visible ASCII. A fragment never reaches a server.
fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= LONGEST_PATH
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// The request that a caller asks about. It has this path and model, and is otherwise the caller's own
/// request.
#[derive(Debug)]
pub struct UsageQuestion {
    path: String,
    model: Option<String>,
    body: Vec<u8>,
    length: String,
}

impl UsageQuestion {
    /// Parses the method and `:path` of the question. Returns an error response if they are not valid.
    pub fn parse(method: &str, target: &str) -> Result<Self, Denial> {
        if !matches!(method, "GET" | "HEAD") {
            let mut denial = error(405, "method_not_allowed", "Usage can only be read. Please use GET.");
            denial.headers.push(("allow".into(), "GET, HEAD".to_owned()));
            return Err(denial);
        }
        let query = target.split('#').next().and_then(|target| target.split_once('?'));
        let (mut path, mut model) = (None, None);
        for (name, value) in query.iter().flat_map(|(_, query)| query.split('&')).filter_map(parameter) {
            let known = match name {
                "path" if is_path(&value) => &mut path,
                "model" if (1..=LONGEST_MODEL).contains(&value.len()) => &mut model,
                "path" => return Err(invalid("`path` must be the path of a request, such as /v1/messages.")),
                "model" => return Err(invalid("`model` must be the name of a model.")),
                _ => continue,
            };
            if known.replace(value).is_some() {
                return Err(invalid("A parameter is given twice."));
            }
        }
        let path = path.unwrap_or_else(|| DEFAULT_PATH.to_owned());
        let mut body = json!({ "messages": [{ "role": "user", "content": "usage" }] });
        if let (Some(model), Some(body)) = (&model, body.as_object_mut()) {
            body.insert("model".to_owned(), model.clone().into());
        }
        let body = body.to_string().into_bytes();
        let length = body.len().to_string();
        Ok(Self { path, model, body, length })
    }

    /// Returns the value of a header in the described request, if it differs from the question's own. The
    /// inner `None` means that the described request does not have the header.
    pub fn header(&self, name: &str) -> Option<Option<&str>> {
        let (_, value) = self.headers().into_iter().find(|(own, _)| *own == name)?;
        Some(value)
    }

    /// Returns all such headers.
    pub fn headers(&self) -> [(&'static str, Option<&str>); 6] {
        [
            (":method", Some("POST")),
            (":path", Some(&self.path)),
            ("content-encoding", None),
            ("content-length", Some(&self.length)),
            ("content-type", Some("application/json")),
            ("upgrade", None),
        ]
    }

    /// The facts to fetch.
    pub fn needs<'p>(&self, plan: &'p Plan) -> impl Iterator<Item = &'p Need> {
        // The described request may have a different route.
        let own_route = |need: &&Need| match need {
            Need::Property(path) => path != &Facts::ROUTE_NAME,
            Need::Header(_) | Need::Headers | Need::Identity | Need::Failures => true,
        };
        let is_placed = plan.is_placed();
        plan.needs().iter().filter(move |need| !is_placed || own_route(need))
    }

    /// Finds the buckets of the described request, and returns the `GetUsage` call that reads them. If there
    /// is nothing to ask the adapter, returns the answer.
    pub fn ask(
        self,
        plan: &Plan,
        mut facts: Facts,
        memory: &MemoryBudget,
    ) -> Result<(UsageCall, Vec<u8>), Denial> {
        read_body(plan, &mut facts, &self.body);
        let judgement = plan.judge(&mut facts, false);
        if let Some(failure) = judgement.failures.first() {
            let message = format!(
                "The maximum of limit {} of policy {} could not be determined.",
                failure.limit, failure.policy
            );
            return Err(error(503, "usage_unavailable", &message));
        }
        // Limits in a dry run are hidden, as they are in response headers. Soft limits are shown, because
        // their maximum matters to callers.
        let is_shown = |hold: &Hold| hold.enforced || hold.signal.is_some();
        let mut holds: Vec<Hold> = judgement.holds.into_iter().filter(is_shown).collect();
        let omitted = holds.len().saturating_sub(MAX_ROWS);
        holds.truncate(MAX_ROWS);
        let rows: Vec<UsageRow> = holds.iter().map(UsageRow::new).collect();
        let items = holds.iter().zip(&rows).filter(|(_, row)| row.is_read).map(|(hold, _)| Item {
            entries: &hold.entries,
            amount: 0,
            ttl: Duration::ZERO,
            max: hold.rate.rate.max.fixed().is_none().then_some(hold.max),
            unenforced: false,
            draw: None,
        });
        let message = call::usage(items);
        let size = message.len().saturating_add(rows.len().saturating_mul(ROW)).saturating_add(QUESTION);
        let lease = memory.lease(Purpose::Keep, size);
        let Some(lease) = lease.filter(|_| message.len() <= LONGEST_CALL) else {
            return Err(error(503, "usage_unavailable", "The gateway has no memory left to show usage."));
        };
        let Self { path, model, .. } = self;
        let call = UsageCall { path, model, rows, omitted, _lease: lease };
        if message.is_empty() {
            return Err(call.answer(Ok(GetUsageResponse::default())));
        }
        Ok((call, message))
    }
}

/// A question that waits for the adapter.
#[derive(Debug)]
pub struct UsageCall {
    path: String,
    model: Option<String>,
    rows: Vec<UsageRow>,
    /// The number of buckets that are not shown.
    omitted: usize,
    _lease: Lease,
}

impl UsageCall {
    /// The answer for the caller.
    pub fn answer(self, reply: Result<GetUsageResponse, CallFailure>) -> Denial {
        /// The status with which gRPC servers answer calls of services that they do not have.
        const UNIMPLEMENTED: u32 = 12;
        let asked = self.rows.iter().filter(|row| row.is_read).count();
        match reply {
            Ok(response) if response.buckets.len() == asked => self.view(response.buckets),
            Err(CallFailure::Status(UNIMPLEMENTED)) => {
                error(503, "usage_unavailable", "The rate limiter is too old to show usage.")
            }
            Ok(_) | Err(_) => unavailable(),
        }
    }
}

/// The answer if no plan has arrived yet.
pub fn without_plan() -> Denial {
    error(503, "usage_unavailable", "The gateway has not received its rate limits yet. Please try again.")
}

/// The answer if the gateway identifies callers, but not this one.
pub fn unidentified() -> Denial {
    error(
        401,
        "unauthenticated",
        "Your identity is unknown. Please send the credentials that you use for requests.",
    )
}

/// The answer if the adapter is unreachable.
fn unavailable() -> Denial {
    error(503, "usage_unavailable", "The rate limiter cannot be reached. Please try again.")
}

fn invalid(message: &str) -> Denial {
    error(400, "invalid_parameter", message)
}

/// Decodes one parameter of a query.
fn parameter(text: &str) -> Option<(&str, String)> {
    let (name, value) = text.split_once('=')?;
    Some((name, spelling::percent_decoded(value).into_owned()))
}
