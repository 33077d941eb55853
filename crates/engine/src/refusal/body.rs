//! The content of a refusal. The files of `llm::providers` define how each API presents it.

use super::{Denial, HeaderList, RateStatus, seconds};
use llm::refusal::{RefusalFacts, RefusalReason};
use llm::request::Dialect;
use serde_json::{Value, json};

/// The content, independent of any dialect.
pub(super) struct ErrorBody<'a> {
    pub reason: RefusalReason,
    pub status: u16,
    pub message: String,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// OpenAI's `code`.
    pub code: &'static str,
    /// When there is room again. `None` if a retry does not help, or the time is unknown.
    pub retry_ms: Option<u64>,
    /// The rate that refused.
    pub rate_limit: Option<&'a RateStatus<'a>>,
}

impl ErrorBody<'_> {
    /// The refusal because a limit has no room.
    pub fn over() -> Self {
        Self {
            reason: RefusalReason::Exceeded,
            status: 429,
            message: String::new(),
            kind: "",
            code: "rate_limit_exceeded",
            retry_ms: None,
            rate_limit: None,
        }
    }

    /// The refusal of a request that can never pass. Clients that retry every 429 do not retry these
    /// statuses.
    pub fn too_large(dialect: Dialect) -> Self {
        let status = dialect.too_large_status();
        Self { reason: RefusalReason::TooLarge, status, ..Self::over() }
    }

    /// The refusal because the limits could not be checked.
    pub fn unavailable() -> Self {
        Self {
            reason: RefusalReason::Unavailable,
            status: 503,
            message: String::new(),
            kind: "server_error",
            code: "rate_limiter_unavailable",
            retry_ms: Some(1000),
            rate_limit: None,
        }
    }

    /// The refusal of an invalid request.
    pub fn invalid() -> Self {
        Self {
            reason: RefusalReason::Invalid,
            status: 400,
            message: String::new(),
            kind: "invalid_request_error",
            code: "invalid_request",
            retry_ms: None,
            rate_limit: None,
        }
    }

    /// Builds the response.
    pub fn denial(&self, dialect: Dialect, mut headers: HeaderList) -> Denial {
        let ErrorBody { reason, status, ref message, kind, code, retry_ms, .. } = *self;
        let details = self.rate_limit.map(details);
        let reply = dialect.refusal(&RefusalFacts { reason, status, message, kind, code, retry_ms, details });
        headers.push(("content-type".into(), "application/json".into()));
        headers.extend(reply.headers.into_iter().map(|(name, value)| (name.into(), value)));
        Denial { status, headers, body: reply.body.to_string().into_bytes() }
    }
}

/// The names and numbers of the rate that refused.
fn details(standing: &RateStatus<'_>) -> Value {
    let rate = &standing.hold.rate;
    if let (None, Some((most, _))) = (standing.status, standing.hold.most) {
        // The adapter was not asked, because the request would hold more than its share.
        return json!({
            "policy": *rate.policy, "limit": rate.limit, "unit": rate.rate.unit.name(), "max": standing.max(),
            "reason": "maxShare", "max_per_request": most, "needed": standing.hold.amount,
        });
    }
    json!({
        "policy": *rate.policy, "limit": rate.limit, "unit": rate.rate.unit.name(), "max": standing.max(),
        "remaining": standing.remaining(), "needed": standing.hold.amount,
        "resets_in_seconds": standing.reset_ms().map(seconds),
    })
}
