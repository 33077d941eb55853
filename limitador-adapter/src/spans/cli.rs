//! The options of `serve` for spans.

use super::SpanExport;
use clap::{Args, ValueEnum};

/// Where to send spans. The names of the environment variables are OpenTelemetry's.
#[derive(Clone, Debug, Default, Args)]
pub struct SpanArgs {
    /// Where to send spans over OTLP, such as http://collector:4318. Without it, there are no spans.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_name = "URL", value_parser = endpoint)]
    pub otlp_endpoint: Option<String>,
    /// The protocol of that URL: collectors use port 4318 for `http/protobuf`, and 4317 for `grpc`.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_PROTOCOL", value_name = "PROTOCOL", value_enum, default_value_t)]
    pub otlp_protocol: OtlpProtocol,
    /// Put the values of counters, such as user ids, into spans.
    #[arg(long, env = "WEIR_SPAN_COUNTERS")]
    pub span_counters: bool,
}

/// A protocol of OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OtlpProtocol {
    /// HTTP with protobuf messages.
    #[default]
    #[value(name = "http/protobuf")]
    Http,
    /// gRPC.
    #[value(name = "grpc")]
    Grpc,
}

/// The path that HTTP collectors take spans at.
const HTTP_PATH: &str = "/v1/traces";

impl SpanArgs {
    /// Returns where to send spans, if anywhere.
    pub fn export(&self) -> Option<SpanExport> {
        // An empty variable counts as absent, as OpenTelemetry specifies.
        let base = self.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty())?;
        let base = base.trim_end_matches('/');
        let path = match self.otlp_protocol {
            OtlpProtocol::Http => HTTP_PATH,
            OtlpProtocol::Grpc => "",
        };
        let endpoint = format!("{base}{path}");
        Some(SpanExport { endpoint, protocol: self.otlp_protocol, has_counters: self.span_counters })
    }
}

fn endpoint(text: &str) -> Result<String, &'static str> {
    let is_http = text.is_empty() || text.starts_with("http://") || text.starts_with("https://");
    is_http.then(|| text.to_owned()).ok_or("must be a URL that begins with http:// or https://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported(endpoint: Option<&str>, otlp_protocol: OtlpProtocol) -> Option<String> {
        let otlp_endpoint = endpoint.map(str::to_owned);
        let arguments = SpanArgs { otlp_endpoint, otlp_protocol, span_counters: false };
        arguments.export().map(|export| export.endpoint)
    }

    #[test]
    fn there_are_no_spans_without_an_endpoint() {
        assert_eq!(exported(None, OtlpProtocol::Http), None);
        assert_eq!(exported(Some(""), OtlpProtocol::Http), None);
    }

    #[test]
    fn an_http_endpoint_gets_the_path_for_spans() {
        let http = OtlpProtocol::Http;
        assert_eq!(exported(Some("http://c:4318"), http).as_deref(), Some("http://c:4318/v1/traces"));
        assert_eq!(exported(Some("https://c/otel/"), http).as_deref(), Some("https://c/otel/v1/traces"));
        let grpc = exported(Some("http://c:4317/"), OtlpProtocol::Grpc);
        assert_eq!(grpc.as_deref(), Some("http://c:4317"));
    }

    #[test]
    fn an_endpoint_must_be_a_url() {
        assert!(endpoint("collector:4317").is_err());
        assert!(endpoint("http://collector:4317").is_ok());
    }
}
