//! `boundary` and `softSignal`: what happens once a limit is exceeded.

use std::sync::Arc;

/// What happens to a request for which a limit has no room.
#[derive(Clone, Debug, Default)]
pub enum Boundary {
    /// It is refused.
    #[default]
    Hard,
    /// It is admitted, and carries this signal.
    Soft(Arc<SoftSignal>),
}

/// The headers to set on a request that a soft limit admits beyond its maximum, and on its response. The
/// names are in lower case and unique.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoftSignal {
    pub headers: Vec<(String, String)>,
}

impl Boundary {
    /// Returns the signal if the limit is soft.
    pub fn signal(&self) -> Option<&Arc<SoftSignal>> {
        match self {
            Self::Hard => None,
            Self::Soft(signal) => Some(signal),
        }
    }

    pub fn is_soft(&self) -> bool {
        self.signal().is_some()
    }
}

/// Returns why a soft limit cannot set a header, if it cannot. The client's own copies are removed from every
/// request, so a header that clients, proxies or providers use for something else would be lost.
pub(super) fn reserved(name: &str) -> Option<&'static str> {
    let kinds = [
        (CREDENTIALS, CREDENTIAL_PREFIXES, "carries credentials"),
        (CONNECTION, CONNECTION_PREFIXES, "describes the connection or the body"),
        (STANDARD, STANDARD_PREFIXES, "has a meaning of its own in HTTP or for proxies"),
        (QUOTAS, QUOTA_PREFIXES, "is one of the rate limit headers"),
    ];
    let is_of = |(names, prefixes, _): &(&[&str], &[&str], _)| {
        names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    kinds.into_iter().find(is_of).map(|(_, _, why)| why)
}

const CREDENTIALS: &[&str] = &[
    "api-key",
    "authentication",
    "authorization",
    "cookie",
    "cookie2",
    "ocp-apim-subscription-key",
    "set-cookie",
    "set-cookie2",
    "www-authenticate",
    "x-api-key",
    "x-auth-token",
    "x-goog-api-key",
];
const CREDENTIAL_PREFIXES: &[&str] = &["proxy-auth", "x-amz-", "x-goog-iam-"];
const CONNECTION: &[&str] = &[
    "accept",
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const CONNECTION_PREFIXES: &[&str] = &["accept-", "content-", "grpc-", "sec-"];
const STANDARD: &[&str] = &[
    "age",
    "allow",
    "baggage",
    "cache-control",
    "date",
    "etag",
    "expires",
    "forwarded",
    "last-modified",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "referer",
    "server",
    "traceparent",
    "tracestate",
    "user-agent",
    "vary",
    "via",
    "x-real-ip",
    "x-request-id",
];
const STANDARD_PREFIXES: &[&str] =
    &["access-control-", "anthropic-", "if-", "openai-", "x-b3-", "x-envoy-", "x-forwarded-", "x-stainless-"];
const QUOTAS: &[&str] = &["ratelimit", "ratelimit-policy", "retry-after", "retry-after-ms", "x-should-retry"];
const QUOTA_PREFIXES: &[&str] = &["x-ratelimit-"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_others_use_are_reserved() {
        for name in [
            "authorization",
            "proxy-authorization",
            "x-amz-security-token",
            "transfer-encoding",
            "content-type",
            "accept-encoding",
            "x-forwarded-for",
            "x-ratelimit-limit-tokens",
            "anthropic-ratelimit-tokens-limit",
        ] {
            assert!(reserved(name).is_some(), "{name}");
        }
        for name in ["x-weir-budget", "x-budget", "budget-exceeded", "x-model-tier"] {
            assert_eq!(reserved(name), None, "{name}");
        }
    }
}
