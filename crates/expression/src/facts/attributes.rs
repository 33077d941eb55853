//! Envoy's attributes that a policy may use, their types, and their cheapest sources.

use llm::spelling;

/// The type of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeType {
    Text,
    Number,
    Bool,
    /// Nanoseconds since the epoch.
    Time,
}

/// The source of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This header, which may be absent.
    Header(&'static str),
    /// `:method`, unless the request asks for another one.
    Method,
    /// The normalised `:path`.
    Path,
    /// The normalised `:authority`.
    Host,
    /// The part of the path before the `?`.
    UrlPath,
    /// The part of `:path` after the `?`.
    Query,
    /// `content-length`. As in Envoy, 0 if there is none.
    Size,
    /// The property with the attribute's name.
    Property,
    /// The property `source.address`, without the port.
    Address,
    /// The request's expected usage, from `content-length` or the body.
    Estimate,
    /// Recent failures of the model's upstreams.
    Failures,
    /// The response's usage.
    Usage,
    /// The response's status code.
    Code,
    /// Whether the response ended normally.
    Finished,
    /// The request's body.
    Body,
}

/// One attribute.
#[derive(Debug, PartialEq, Eq)]
pub struct Attribute {
    pub root: &'static str,
    pub name: &'static str,
    pub kind: AttributeType,
    pub origin: Origin,
}

/// A normalisation of a fact's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    Path,
    Host,
}

impl Spelling {
    /// Normalises a text that the fact is compared with. `None` if it is already normalised.
    pub(crate) fn of_literal(self, text: &str) -> Option<String> {
        match self {
            Self::Path => spelling::path(text).map(|(spelled, _)| spelled),
            Self::Host => spelling::host(text),
        }
    }
}

impl Attribute {
    /// The normalisation of its values, if there is one.
    pub(crate) fn spelling(&self) -> Option<Spelling> {
        match self.origin {
            Origin::Path | Origin::UrlPath => Some(Spelling::Path),
            Origin::Host => Some(Spelling::Host),
            _ => None,
        }
    }
}

const fn text(root: &'static str, name: &'static str, origin: Origin) -> Attribute {
    Attribute { root, name, kind: AttributeType::Text, origin }
}

const fn property(root: &'static str, name: &'static str, kind: AttributeType) -> Attribute {
    Attribute { root, name, kind, origin: Origin::Property }
}

const fn usage(name: &'static str) -> Attribute {
    Attribute { root: "usage", name, kind: AttributeType::Number, origin: Origin::Usage }
}

const fn estimate(name: &'static str) -> Attribute {
    Attribute { root: "llm.estimate", name, kind: AttributeType::Number, origin: Origin::Estimate }
}

const fn body(name: &'static str, kind: AttributeType) -> Attribute {
    Attribute { root: "llm", name, kind, origin: Origin::Body }
}

/// All attributes except `request.headers` and `llm.metadata`, which are maps. The list follows "Attributes"
/// in Envoy's documentation.
pub static ATTRIBUTES: [Attribute; 49] = [
    text("request", "path", Origin::Path),
    text("request", "url_path", Origin::UrlPath),
    text("request", "query", Origin::Query),
    text("request", "method", Origin::Method),
    text("request", "host", Origin::Host),
    text("request", "scheme", Origin::Header(":scheme")),
    text("request", "useragent", Origin::Header("user-agent")),
    text("request", "referer", Origin::Header("referer")),
    text("request", "id", Origin::Header("x-request-id")),
    Attribute { root: "request", name: "size", kind: AttributeType::Number, origin: Origin::Size },
    property("request", "time", AttributeType::Time),
    property("request", "protocol", AttributeType::Text),
    property("source", "address", AttributeType::Text),
    property("source", "port", AttributeType::Number),
    text("source", "remote_address", Origin::Address),
    property("destination", "address", AttributeType::Text),
    property("destination", "port", AttributeType::Number),
    property("connection", "id", AttributeType::Number),
    property("connection", "mtls", AttributeType::Bool),
    property("connection", "requested_server_name", AttributeType::Text),
    property("connection", "tls_version", AttributeType::Text),
    property("connection", "subject_local_certificate", AttributeType::Text),
    property("connection", "subject_peer_certificate", AttributeType::Text),
    property("connection", "dns_san_local_certificate", AttributeType::Text),
    property("connection", "dns_san_peer_certificate", AttributeType::Text),
    property("connection", "uri_san_local_certificate", AttributeType::Text),
    property("connection", "uri_san_peer_certificate", AttributeType::Text),
    property("connection", "sha256_peer_certificate_digest", AttributeType::Text),
    property("connection", "peer_certificate", AttributeType::Text),
    property("connection", "transport_failure_reason", AttributeType::Text),
    estimate("input"),
    estimate("output"),
    estimate("total"),
    Attribute {
        root: "upstream",
        name: "failuresLastMinute",
        kind: AttributeType::Number,
        origin: Origin::Failures,
    },
    usage("input"),
    usage("output"),
    usage("total"),
    usage("cached"),
    usage("cacheWrite"),
    usage("cacheWrite1h"),
    usage("reasoning"),
    Attribute { root: "response", name: "code", kind: AttributeType::Number, origin: Origin::Code },
    Attribute { root: "llm", name: "finished", kind: AttributeType::Bool, origin: Origin::Finished },
    body("model", AttributeType::Text),
    body("stream", AttributeType::Bool),
    body("maxOutput", AttributeType::Number),
    body("user", AttributeType::Text),
    body("session", AttributeType::Text),
    body("operation", AttributeType::Text),
];

/// Returns the attribute with this name.
pub fn find(root: &str, name: &str) -> Option<&'static Attribute> {
    ATTRIBUTES.iter().find(|attribute| attribute.root == root && attribute.name == name)
}

/// The roots that consist of attributes.
static ROOTS: [&str; 9] =
    ["request", "source", "destination", "connection", "llm", "metadata", "upstream", "usage", "response"];

/// Returns the root with this name.
pub fn root(name: &str) -> Option<&'static str> {
    ROOTS.iter().find(|root| **root == name).copied()
}

/// The type of a fact, if it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FactType {
    /// A map with any values.
    Map,
    /// A plain value.
    Of(AttributeType),
}

/// Returns the type of a fact. `None` if it is known only at run time.
pub(crate) fn types(path: &[String]) -> Option<FactType> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["auth"]
        | ["request", "auth" | "headers"]
        | ["metadata", "filter_metadata"]
        | ["llm", "metadata"] => Some(FactType::Map),
        ["request" | "response", "headers", _] | ["filter_state", _] => {
            Some(FactType::Of(AttributeType::Text))
        }
        [super::TOKENS, _] => Some(FactType::Of(AttributeType::Number)),
        ["llm", "estimate", name] => find("llm.estimate", name).map(|found| FactType::Of(found.kind)),
        [name] => root(name).map(|_| FactType::Map),
        [root, name] => find(root, name).map(|found| FactType::Of(found.kind)),
        _ => None,
    }
}
