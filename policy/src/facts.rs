//! What is known of a request, as plain data for CEL. The plan lists what it needs ([`Need`]); the shell fetches
//! just that and hands the raw values over.

use crate::cel::FactPath;

/// Something the shell must fetch before a request can be decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A request header by its lower-case name; `:path` and its kind included.
    Header(String),
    /// All request headers.
    Headers,
    /// An Envoy attribute by its path, e.g. `["source", "address"]`.
    Property(Vec<String>),
    /// Who is asking (`auth`), from where the plugin configuration says.
    Identity,
}

/// The facts of one request.
#[derive(Clone, Debug, Default)]
pub struct Facts {}

impl Facts {
    /// What must be fetched so that expressions that name these facts can be evaluated. Sorted, without repeats.
    pub fn needs<'a>(_references: impl IntoIterator<Item = &'a FactPath>) -> Vec<Need> {
        Vec::new()
    }

    /// A request header; `:path`, `:method`, `:authority` and `:scheme` give the `request.*` facts.
    pub fn header(&mut self, _name: &str, _value: &[u8]) {}

    /// An Envoy attribute, as the host returned it.
    pub fn property(&mut self, _path: &[String], _value: &[u8]) {}

    /// The whole `auth` root, e.g. `{"identity": {..}}`.
    pub fn auth(&mut self, _value: serde_json::Value) {}

    /// The estimate's facts, `llm.estimate.*`.
    pub fn estimate(&mut self, _input: u64, _output: u64) {}

    /// Envoy's attribute for the name of the matched route.
    pub const ROUTE_NAME: [&str; 2] = ["xds", "route_name"];

    /// The name of the matched route, if it was fetched.
    pub fn route_name(&self) -> Option<&str> {
        None
    }

    /// `content-length`, if it was fetched and is a number.
    pub fn content_length(&self) -> Option<u64> {
        None
    }

    /// `:path`, if it was fetched.
    pub fn path(&self) -> Option<&str> {
        None
    }
}
