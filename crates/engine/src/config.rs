//! The filter's plugin configuration.

use crate::cluster;
use crate::usage::UsagePath;
use expression::identity::IdentityEncoding;
use expression::protobuf_struct;
use llm::memory;
use llm::tree::Allowance;
use policy::document::{self, DocumentNode, KnownFields, Reported, distinct};
use policy::gateway::is_gateway;
use policy::model::reader::{self, FAILURE_MODES};
use policy::model::{FailureMode, Policy};
use policy::plan::BodyAccess;
use policy::validation_error::ValidationError;
use serde_json::Value;
use std::time::Duration;

/// The configuration that Envoy passes to the module when it loads it.
#[derive(Clone, Debug)]
pub struct PluginConfig {
    /// The adapter's cluster in Envoy.
    pub cluster: String,
    /// The cluster, encoded for gRPC calls.
    pub grpc_service: String,
    /// The timeout of a Reserve.
    pub timeout: Duration,
    /// The Gateway that this Envoy serves: "NAMESPACE/NAME", or "*" for all. If it is `None`, the node's
    /// metadata names the Gateway.
    pub gateway: Option<String>,
    /// The failure mode until the first plan arrives.
    pub failure_mode: FailureMode,
    /// The source of `auth`. `None` means no identity.
    pub identity: Option<IdentitySource>,
    /// Whether request bodies are read.
    pub request_body: BodyAccess,
    /// The maximum number of bytes that all exchanges together may keep in memory.
    pub memory: usize,
    /// The path on which callers may read their own usage. `None` means that they cannot.
    pub usage_path: Option<UsagePath>,
    /// Whether every exchange to which a limit applies is reported to Envoy's access log.
    pub access_log: bool,
    /// Inline policies, at least one. `None` means that the adapter provides them.
    pub policies: Option<Vec<Policy>>,
}

/// The source of `auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// A header that the authentication filter before Weir sets and sanitises. It is not sent upstream.
    /// Provides `auth.identity`.
    Header {
        /// The name in lower case.
        name: String,
        /// How the JSON is encoded.
        encoding: IdentityEncoding,
    },
    /// Dynamic metadata set by the authentication filter before Weir.
    Metadata {
        /// For example `envoy.filters.http.ext_authz`. Its struct becomes `auth`, so its key `identity`
        /// becomes `auth.identity`.
        namespace: String,
        /// If set, this key's value becomes `auth.identity`.
        key: Option<String>,
    },
}

/// The default timeout of a Reserve.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(200);
/// The maximum timeout of a Reserve. It is bounded because requests wait for the Reserve.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The default maximum of a body: Envoy's own default buffer size.
const DEFAULT_BODY: usize = 1 << 20;
/// The largest configurable maximum of a body. A body is held twice: in the worker's memory and in the
/// module's.
const LARGEST_BODY: u64 = 64 << 20;

/// The minimum useful budget, and a maximum that stays below the 1 GiB at which Envoy terminates a VM.
const LEAST_MEMORY: usize = 16 << 20;
const MAX_MEMORY: usize = 768 << 20;
/// A request's body exists in several copies while it is read: see `exchange::request_body`.
const MEMORY_PER_BODY: usize = 8;

const ENCODINGS: &[(&str, IdentityEncoding)] =
    &[("json", IdentityEncoding::Json), ("base64url-json", IdentityEncoding::Base64UrlJson)];

const CONFIG: KnownFields = KnownFields {
    known: &[
        "adapter",
        "gateway",
        "failureMode",
        "identity",
        "requestBody",
        "memory",
        "usagePath",
        "accessLog",
        "policies",
    ],
    later: &[],
    ignored: &[],
};
const ADAPTER: KnownFields = KnownFields { known: &["cluster", "timeout"], later: &[], ignored: &[] };
const IDENTITY: KnownFields =
    KnownFields { known: &["header", "encoding", "metadata", "key"], later: &[], ignored: &[] };
const MEMORY: KnownFields = KnownFields { known: &["maxBytes"], later: &[], ignored: &[] };
const REQUEST_BODY: KnownFields = KnownFields { known: &["access", "maxBytes"], later: &[], ignored: &[] };

impl PluginConfig {
    /// Reads JSON, or the `google.protobuf.Struct` that Envoy passes on unconverted, and reports every error.
    /// An empty list of `policies` is an error, because it would silently admit every request.
    pub fn read(text: &[u8]) -> Result<Self, Vec<ValidationError>> {
        let all = Allowance::new(usize::MAX);
        let structure = || {
            protobuf_struct::decode(text, &all).ok().filter(|fields| !fields.is_empty()).map(Value::Object)
        };
        let value = document::parse(text).or_else(|mistake| structure().ok_or_else(|| vec![mistake]))?;
        let (config, remarks) = document::read(&value, config)?;
        match config.request_body {
            BodyAccess::None if !remarks.notes.is_empty() => Err(remarks.notes),
            _ => Ok(config),
        }
    }
}

fn config(node: DocumentNode<'_>) -> Result<PluginConfig, Reported> {
    let config = node.object(&CONFIG)?;
    let adapter = config.required("adapter").and_then(adapter);
    let gateway = config.optional("gateway").map(|node| gateway(&node)).transpose();
    let failure_mode = config.optional("failureMode").map(|node| node.word(FAILURE_MODES, &[])).transpose();
    let identity = config.optional("identity").map(identity).transpose();
    let body = config.optional("requestBody").map(request_body).transpose();
    let least = match body.as_ref().ok().copied().flatten() {
        Some(BodyAccess::Buffer(most)) => most.saturating_mul(MEMORY_PER_BODY).max(LEAST_MEMORY),
        Some(BodyAccess::None) | None => LEAST_MEMORY,
    };
    let memory = config.optional("memory").map(|node| memory(node, least)).transpose();
    let usage_path = config.optional("usagePath").map(|node| usage_path(&node)).transpose();
    let access_log = config.optional("accessLog").map(|node| node.flag()).transpose();
    let policies = config.optional("policies").map(|node| policies(&node)).transpose();
    let (cluster, grpc_service, timeout) = adapter?;
    Ok(PluginConfig {
        cluster,
        grpc_service,
        timeout,
        gateway: gateway?,
        failure_mode: failure_mode?.unwrap_or_default(),
        identity: identity?,
        request_body: body?.unwrap_or_default(),
        memory: memory?.flatten().unwrap_or(memory::DEFAULT.max(least)),
        usage_path: usage_path?,
        access_log: access_log?.unwrap_or(false),
        policies: policies?.filter(|policies| !policies.is_empty()),
    })
}

fn adapter(node: DocumentNode<'_>) -> Result<(String, String, Duration), Reported> {
    let adapter = node.object(&ADAPTER)?;
    let cluster = adapter.required("cluster").and_then(|node| cluster(&node));
    let timeout = adapter
        .optional("timeout")
        .map(|node| node.duration(Duration::from_millis(1), LONGEST_TIMEOUT))
        .transpose();
    let (cluster, grpc_service) = cluster?;
    Ok((cluster, grpc_service, timeout?.unwrap_or(DEFAULT_TIMEOUT)))
}

fn cluster(node: &DocumentNode<'_>) -> Result<(String, String), Reported> {
    let name = node.text()?;
    let too_long = || node.refuse(format!("must not be longer than {} bytes", cluster::LONGEST));
    let grpc_service = cluster::grpc_service(name).ok_or_else(too_long)?;
    Ok((name.to_owned(), grpc_service))
}

fn gateway(node: &DocumentNode<'_>) -> Result<String, Reported> {
    let text = node.text()?;
    if is_gateway(text) || text == "*" {
        Ok(text.to_owned())
    } else {
        Err(node.refuse("must be `NAMESPACE/NAME` of a Gateway, or `*`: the policies of every gateway"))
    }
}

fn identity(node: DocumentNode<'_>) -> Result<IdentitySource, Reported> {
    let identity = node.object(&IDENTITY)?;
    let header = identity.optional("header").map(|node| header_name(&node)).transpose();
    let encoding = identity.optional("encoding").map(|node| node.word(ENCODINGS, &[])).transpose();
    let metadata = identity.optional("metadata").map(|node| node.text()).transpose();
    let key = identity.optional("key").map(|node| node.text()).transpose();
    let (header, encoding, metadata, key) = (header?, encoding?, metadata?, key?);
    let mistake = match (header, metadata) {
        (Some(name), None) if key.is_none() => {
            return Ok(IdentitySource::Header { name, encoding: encoding.unwrap_or_default() });
        }
        (None, Some(namespace)) if encoding.is_none() => {
            let (namespace, key) = (namespace.to_owned(), key.map(str::to_owned));
            return Ok(IdentitySource::Metadata { namespace, key });
        }
        (Some(_), None) => "`key` is valid only with `metadata`, not with `header`",
        (None, Some(_)) => "`encoding` is valid only with `header`, not with `metadata`",
        (Some(_), Some(_)) => "takes `header` or `metadata`, not both",
        (None, None) => "needs `header` or `metadata`",
    };
    Err(identity.node().refuse(mistake))
}

fn header_name(node: &DocumentNode<'_>) -> Result<String, Reported> {
    let name = node.text()?.to_ascii_lowercase();
    // RFC 9110, section 5.6.2. Excludes pseudo-headers, which cannot be removed.
    if name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)) {
        Ok(name)
    } else {
        Err(node.refuse("is not a header name"))
    }
}

fn request_body(node: DocumentNode<'_>) -> Result<BodyAccess, Reported> {
    let body = node.object(&REQUEST_BODY)?;
    let words = [("None", false), ("Buffer", true)];
    let buffers = body.optional("access").map(|node| node.word(&words, &[])).transpose();
    let most = body.optional("maxBytes").map(|node| most_of_body(&node)).transpose();
    let (buffers, most) = (buffers?, most?);
    let most = most.unwrap_or(DEFAULT_BODY);
    Ok(if buffers == Some(true) { BodyAccess::Buffer(most) } else { BodyAccess::None })
}

/// `least` is the memory needed to read one body.
fn memory(node: DocumentNode<'_>, least: usize) -> Result<Option<usize>, Reported> {
    let memory = node.object(&MEMORY)?;
    let bytes = |node: DocumentNode<'_>| {
        let beyond =
            format!("must be from {least}, eight times `requestBody.maxBytes` or 16 MiB, to {MAX_MEMORY}");
        let bytes = usize::try_from(node.whole_number()?).ok();
        bytes.filter(|bytes| (least..=MAX_MEMORY).contains(bytes)).ok_or_else(|| node.refuse(beyond))
    };
    memory.optional("maxBytes").map(bytes).transpose()
}

fn most_of_body(node: &DocumentNode<'_>) -> Result<usize, Reported> {
    let most = node.whole_number()?;
    let beyond = || node.refuse(format!("must be from 1 to {LARGEST_BODY}"));
    usize::try_from(most).ok().filter(|_| (1..=LARGEST_BODY).contains(&most)).ok_or_else(beyond)
}

fn usage_path(node: &DocumentNode<'_>) -> Result<UsagePath, Reported> {
    let wrong = "must be a path such as `/weir/usage`: visible ASCII without a query, percent-encoding, `;`, `.` segments \
                 or a trailing slash, and not `/`";
    UsagePath::parse(node.text()?).ok_or_else(|| node.refuse(wrong))
}

fn policies(node: &DocumentNode<'_>) -> Result<Vec<Policy>, Reported> {
    distinct(
        node.items()?.into_iter().map(|item| (item.clone(), reader::policy(item))),
        |policy, other| (&policy.namespace, &policy.name) == (&other.namespace, &other.name),
        |policy, first| format!("is `{}/{}` again, as policies[{first}]", policy.namespace, policy.name),
    )
}
