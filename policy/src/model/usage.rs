//! A policy's `usage`: how responses are read, and what is charged where they report nothing.

use crate::document::{Fields, Node, Reported};

/// `usage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageRules {
    /// What a successful response without usage is charged.
    pub on_missing: OnMissing,
    /// Whether providers are asked for the usage of streams.
    pub stream_usage: StreamUsage,
}

/// What a successful response without usage is charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMissing {
    /// The estimate of its input, and what was delivered.
    #[default]
    Estimate,
    /// What was held for it.
    Hold,
    /// Nothing.
    Zero,
}

/// Whether providers are asked for the usage of streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamUsage {
    /// Where the request's body is read, it is changed to ask.
    #[default]
    Request,
    /// The request goes on as it came.
    Leave,
}

const USAGE: Fields =
    Fields { known: &["onMissing", "streamUsage"], later: &[("pointers", None)], ignored: &[] };
const ON_MISSING: &[(&str, OnMissing)] =
    &[("Estimate", OnMissing::Estimate), ("Hold", OnMissing::Hold), ("Zero", OnMissing::Zero)];
const STREAM_USAGE: &[(&str, StreamUsage)] =
    &[("Request", StreamUsage::Request), ("Leave", StreamUsage::Leave)];

pub(super) fn usage(node: Node<'_>) -> Result<UsageRules, Reported> {
    let usage = node.object(&USAGE)?;
    let on_missing = usage.optional("onMissing").map(|node| node.word(ON_MISSING, &[])).transpose();
    let stream_usage = usage.optional("streamUsage").map(|node| node.word(STREAM_USAGE, &[])).transpose();
    Ok(UsageRules {
        on_missing: on_missing?.unwrap_or_default(),
        stream_usage: stream_usage?.unwrap_or_default(),
    })
}
