//! The result of `explain`, as data and as text.

use serde::Serialize;
use std::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The method, path and length.
    pub request: String,
    /// Facts that only Envoy knows.
    pub unknown: Vec<String>,
    pub estimate: EstimatedTokens,
    pub policies: Vec<ExplainedPolicy>,
    /// Whether the request is admitted.
    pub decision: String,
    /// How the request is edited.
    pub changes: Vec<String>,
    pub response: Option<ExplainedResponse>,
}

/// The expected usage of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EstimatedTokens {
    pub input: u64,
    pub output: u64,
}

/// A policy and its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedPolicy {
    /// "NAMESPACE/NAME".
    pub policy: String,
    pub limits: Vec<ExplainedLimit>,
}

/// Whether a limit applies, why, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedLimit {
    pub limit: String,
    pub applies: bool,
    /// The first note says whether it applies.
    pub notes: Vec<String>,
}

/// The charges of a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedResponse {
    pub status: u16,
    /// The source of the usage.
    pub source: String,
    /// Entries of the form "NAMESPACE/NAME/LIMIT: amount".
    pub charges: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.request.trim_end())?;
        if !self.unknown.is_empty() {
            writeln!(f, "known to Envoy only, so absent here: {}", self.unknown.join(", "))?;
        }
        writeln!(f, "estimate: {} tokens in, {} out", self.estimate.input, self.estimate.output)?;
        for policy in &self.policies {
            writeln!(f, "\n{}", policy.policy)?;
            for limit in &policy.limits {
                writeln!(f, "  {}: {}", limit.limit, limit.notes.join("\n    ").trim_end())?;
            }
        }
        writeln!(f, "\n{}", self.decision.trim_end())?;
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        if let Some(response) = &self.response {
            writeln!(f, "\nthe response ({}) is charged{}", response.status, response.source)?;
            for charge in &response.charges {
                writeln!(f, "  {charge}")?;
            }
        }
        Ok(())
    }
}
