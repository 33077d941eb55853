//! A refusal in the words of each dialect, as its client libraries read them.

use super::{Denial, HeaderList, RateStatus, seconds};
use llm::request::Dialect;
use serde_json::{Value, json};

/// What is to be said, in nobody's dialect.
pub(super) struct ErrorBody<'a> {
    pub status: u16,
    pub message: String,
    /// OpenAI's `type`: what has run out.
    pub kind: &'static str,
    /// OpenAI's `code`.
    pub code: &'static str,
    /// When there is room again; `None`: a retry does not help, or nobody knows.
    pub retry_ms: Option<u64>,
    /// What refused.
    pub rate_limit: Option<&'a RateStatus<'a>>,
}

impl ErrorBody<'_> {
    /// A limit has no room.
    pub fn over() -> Self {
        Self {
            status: 429,
            message: String::new(),
            kind: "",
            code: "rate_limit_exceeded",
            retry_ms: None,
            rate_limit: None,
        }
    }

    /// The request can never pass. Clients that repeat every 429 stop at these statuses.
    pub fn too_large(dialect: Dialect) -> Self {
        let status = match dialect {
            Dialect::OpenAi | Dialect::Anthropic => 413,
            Dialect::Gemini | Dialect::Bedrock | Dialect::Cohere | Dialect::Ollama | Dialect::Unknown => 400,
        };
        Self { status, ..Self::over() }
    }

    /// The limits could not be checked.
    pub fn unavailable() -> Self {
        Self {
            status: 503,
            message: String::new(),
            kind: "server_error",
            code: "rate_limiter_unavailable",
            retry_ms: Some(1000),
            rate_limit: None,
        }
    }

    /// The request cannot be served as it is.
    pub fn invalid() -> Self {
        Self {
            status: 400,
            message: String::new(),
            kind: "invalid_request_error",
            code: "invalid_request",
            retry_ms: None,
            rate_limit: None,
        }
    }

    /// The whole answer.
    pub fn denial(&self, dialect: Dialect, mut headers: HeaderList) -> Denial {
        headers.push(("content-type".into(), "application/json".into()));
        let body = match dialect {
            Dialect::Anthropic => self.anthropic(),
            Dialect::Gemini => self.gemini(),
            Dialect::Bedrock => {
                headers.push(("x-amzn-errortype".into(), self.exception().into()));
                // botocore honours no other.
                headers.extend(self.retry_ms.map(|ms| ("x-amz-retry-after".into(), ms.to_string())));
                self.with_details(json!({ "message": self.message }))
            }
            Dialect::Cohere => self.with_details(json!({ "message": self.message })),
            Dialect::Ollama => self.with_details(json!({ "error": self.message })),
            Dialect::OpenAi | Dialect::Unknown => self.openai(),
        };
        Denial { status: self.status, headers, body: body.to_string().into_bytes() }
    }

    fn openai(&self) -> Value {
        let error = json!({ "message": self.message, "type": self.kind, "param": null, "code": self.code });
        json!({ "error": self.with_details(error) })
    }

    fn anthropic(&self) -> Value {
        let kind = match self.status {
            400 => "invalid_request_error",
            413 => "request_too_large",
            503 => "api_error",
            _ => "rate_limit_error",
        };
        json!({ "type": "error", "error": self.with_details(json!({ "type": kind, "message": self.message })) })
    }

    /// `google.rpc.Status`. A client waits as long as `RetryInfo` says.
    fn gemini(&self) -> Value {
        let (status, reason) = match self.status {
            400 if self.rate_limit.is_some() => ("INVALID_ARGUMENT", "REQUEST_TOO_LARGE"),
            400 => ("INVALID_ARGUMENT", "INVALID_REQUEST"),
            503 => ("UNAVAILABLE", "RATE_LIMITER_UNAVAILABLE"),
            _ => ("RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED"),
        };
        let texts = self.rate_limit.map(|standing| {
            let fields = details(standing);
            let text = |(name, value): (&String, &Value)| {
                (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned).into())
            };
            fields.as_object().into_iter().flatten().map(text).collect::<serde_json::Map<_, _>>()
        });
        let mut extra = vec![json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "weir.dev",
            "metadata": texts.unwrap_or_default(),
        })];
        if let Some(ms) = self.retry_ms {
            let delay = format!("{}s", seconds(ms));
            extra.push(json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay }));
        }
        json!({ "error": {
            "code": self.status, "message": self.message, "status": status, "details": extra,
        } })
    }

    /// What botocore looks for: it repeats a call that is throttled, and none that is beyond a quota.
    fn exception(&self) -> &'static str {
        match self.status {
            400 if self.rate_limit.is_some() => "ServiceQuotaExceededException",
            400 => "ValidationException",
            503 => "ServiceUnavailableException",
            _ => "ThrottlingException",
        }
    }

    fn with_details(&self, mut error: Value) -> Value {
        if let (Some(standing), Some(fields)) = (self.rate_limit, error.as_object_mut()) {
            fields.insert("rate_limit".into(), details(standing));
        }
        error
    }
}

/// The names and numbers of what refused.
fn details(standing: &RateStatus<'_>) -> Value {
    let rate = &standing.hold.rate;
    if let (None, Some((most, _))) = (standing.status, standing.hold.most) {
        // The adapter was not asked: the request would hold more than its share.
        return json!({
            "policy": *rate.policy, "limit": rate.limit, "unit": rate.rate.unit.name(), "max": standing.max(),
            "reason": "maxShare", "max_per_request": most, "needed": standing.hold.amount,
        });
    }
    json!({
        "policy": *rate.policy, "limit": rate.limit, "unit": rate.rate.unit.name(), "max": standing.max(),
        "remaining": standing.remaining(), "needed": standing.hold.amount,
        "resets_in_seconds": seconds(standing.reset_ms()),
    })
}
