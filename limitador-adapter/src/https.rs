//! The TLS of outgoing HTTP calls.

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// Creates a connector. For `https` URLs, it trusts the root certificates of this machine, and fails if there are
/// none. Otherwise it needs none.
pub fn connector(is_https: bool) -> Result<HttpsConnector<HttpConnector>, String> {
    let builder = HttpsConnectorBuilder::new();
    if is_https {
        let trusting = builder
            .with_provider_and_native_roots(default_provider())
            .map_err(|error| format!("the root certificates of this machine: {error}"))?;
        return Ok(trusting.https_only().enable_http1().build());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok(builder.with_tls_config(config).https_or_http().enable_http1().build())
}
