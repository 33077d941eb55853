//! The filter's plugin configuration.

use crate::mistake::Mistake;
use crate::model::{FailureMode, Policy};
use std::time::Duration;

/// What the module is told when it is loaded.
#[derive(Clone, Debug)]
pub struct Config {
    /// Envoy's name for the adapter's cluster.
    pub cluster: String,
    /// How long a Reserve may take.
    pub timeout: Duration,
    /// Which Gateway this Envoy is, "NAMESPACE/NAME" or "*".
    pub gateway: String,
    /// Until the first plan is there.
    pub failure_mode: FailureMode,
    /// Where `auth` comes from. `None`: no identity.
    pub identity: Option<IdentitySource>,
    /// Inline policies; `None`: the adapter's.
    pub policies: Option<Vec<Policy>>,
}

/// Where `auth` comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// A header that the auth filter before us writes and sanitises; it does not go upstream. Gives `auth.identity`.
    Header {
        /// Lower case.
        name: String,
        /// How the JSON is written.
        encoding: Encoding,
    },
    /// Dynamic metadata of the auth filter before us.
    Metadata {
        /// e.g. `envoy.filters.http.ext_authz`. Its struct is `auth`, so `auth.identity` is its key `identity`.
        namespace: String,
        /// If given, `auth.identity` is this key's value.
        key: Option<String>,
    },
}

/// How an identity header writes its JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Plain JSON.
    #[default]
    Json,
    /// base64url (padded or not) of JSON.
    Base64UrlJson,
}

impl Config {
    /// Reads the JSON text, with every mistake.
    pub fn read(_text: &[u8]) -> Result<Self, Vec<Mistake>> {
        Err(vec![])
    }
}
