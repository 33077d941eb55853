//! A policy's `usage`: how responses are read, and what is charged if they report nothing.

use crate::document::{DocumentNode, KnownFields, Reported};
use llm::response::{COUNTS, UsagePointers, pointer_mistake};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRules {
    /// The charge for a successful response that reports no usage.
    pub on_missing: OnMissing,
    /// Whether providers are asked for the usage of streams.
    pub stream_usage: StreamUsage,
    /// How WebSockets are handled if tokens or money are counted.
    pub web_socket: WebSocketMode,
    /// Where responses in a custom format report their usage.
    pub pointers: Option<Arc<UsagePointers>>,
}

/// How much of the usage of each exchange is reported, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageReporting {
    /// The input, output and total tokens.
    Totals,
    /// Also the parts of these: cached, cache writes and reasoning.
    Details,
}

/// The charge for a successful response that reports no usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMissing {
    /// Charges the estimate of its input, plus the delivered output.
    #[default]
    Estimate,
    /// Charges the amount that was held.
    Hold,
    /// Charges nothing.
    Zero,
}

/// Whether providers are asked for the usage of streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamUsage {
    /// The request's body is edited to ask for usage, if bodies are read.
    #[default]
    Request,
    /// The request is not edited.
    Leave,
}

/// How WebSockets are handled if tokens or money are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebSocketMode {
    /// Each call inside a WebSocket is judged and charged like a request. Upgrades that cannot be metered are
    /// refused.
    #[default]
    Meter,
    /// Every upgrade is refused.
    Refuse,
    /// Every upgrade is admitted, and the calls inside are not counted.
    Allow,
}

const USAGE: KnownFields =
    KnownFields { known: &["onMissing", "streamUsage", "webSocket", "pointers"], later: &[], ignored: &[] };
const REPORTING: KnownFields =
    KnownFields { known: &["enabled", "includeDetails"], later: &[], ignored: &[] };
const POINTERS: KnownFields = KnownFields { known: &COUNTS, later: &[], ignored: &[] };
const ON_MISSING: &[(&str, OnMissing)] =
    &[("Estimate", OnMissing::Estimate), ("Hold", OnMissing::Hold), ("Zero", OnMissing::Zero)];
const STREAM_USAGE: &[(&str, StreamUsage)] =
    &[("Request", StreamUsage::Request), ("Leave", StreamUsage::Leave)];

const WEB_SOCKET: &[(&str, WebSocketMode)] =
    &[("Meter", WebSocketMode::Meter), ("Refuse", WebSocketMode::Refuse), ("Allow", WebSocketMode::Allow)];

pub(super) fn usage_reporting(node: DocumentNode<'_>) -> Result<Option<UsageReporting>, Reported> {
    let reporting = node.object(&REPORTING)?;
    let flag = |name| reporting.optional(name).map(|node| node.flag()).transpose();
    let (enabled, details) = (flag("enabled"), flag("includeDetails"));
    let details = if details?.unwrap_or(false) { UsageReporting::Details } else { UsageReporting::Totals };
    Ok(enabled?.unwrap_or(false).then_some(details))
}

pub(super) fn usage(node: DocumentNode<'_>) -> Result<UsageRules, Reported> {
    let usage = node.object(&USAGE)?;
    let on_missing = usage.optional("onMissing").map(|node| node.word(ON_MISSING, &[])).transpose();
    let stream_usage = usage.optional("streamUsage").map(|node| node.word(STREAM_USAGE, &[])).transpose();
    let web_socket = usage.optional("webSocket").map(|node| node.word(WEB_SOCKET, &[])).transpose();
    let pointers = usage.optional("pointers").map(pointers).transpose();
    Ok(UsageRules {
        on_missing: on_missing?.unwrap_or_default(),
        stream_usage: stream_usage?.unwrap_or_default(),
        web_socket: web_socket?.unwrap_or_default(),
        pointers: pointers?.map(Arc::new),
    })
}

fn pointers(node: DocumentNode<'_>) -> Result<UsagePointers, Reported> {
    let object = node.clone().object(&POINTERS)?;
    let mut pointers = UsagePointers::default();
    for name in COUNTS {
        if let Some(node) = object.optional(name) {
            pointers.add(name, pointer(&node)?);
        }
    }
    if ["input", "output", "total"].iter().all(|name| object.optional(name).is_none()) {
        return Err(node.refuse("needs `total`, or `input` and `output`"));
    }
    Ok(pointers)
}

pub(super) fn pointer<'a>(node: &DocumentNode<'a>) -> Result<&'a str, Reported> {
    let pointer = node.text()?;
    pointer_mistake(pointer).map_or(Ok(pointer), |mistake| Err(node.refuse(mistake)))
}
