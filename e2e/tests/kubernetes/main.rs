//! Against a real API server, and through a real Envoy.

mod schema;
