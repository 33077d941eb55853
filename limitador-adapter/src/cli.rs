//! The command line.

use crate::kubernetes::crd::Group;
use crate::redis::place::{Place, PlaceError};
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Token rate limits for LLM APIs: serves TokenRateLimitPolicies to Weir's filters and counts for them.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve policies, holds and charges.
    Serve(Serve),
    /// Tell every mistake in policies, without serving them.
    Check(Check),
    /// Say which limits match a request and why the others do not, what is held and what is charged.
    Explain(Explain),
    /// Print the CustomResourceDefinition of policies, as YAML.
    Crd(Crd),
}

/// Which definition to print.
#[derive(Clone, Copy, Debug, Args)]
pub struct Crd {
    /// The API group of the policies.
    #[arg(long, value_enum, default_value_t)]
    pub group: Group,
}

/// How to serve.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Files (YAML, several documents allowed, or JSON) or folders of them; watched for changes.
    #[arg(long, env = "WEIR_POLICIES", value_name = "PATH", num_args = 1.., required_unless_present = "kubernetes",
        conflicts_with = "kubernetes", value_delimiter = ',')]
    pub policies: Vec<PathBuf>,
    /// Take the policies from the Kubernetes cluster that this runs in, or that KUBECONFIG names, and follow its
    /// Gateways and HTTPRoutes.
    #[arg(long, env = "WEIR_KUBERNETES")]
    pub kubernetes: bool,
    /// Leave policies of kuadrant.io alone, where Kuadrant itself runs.
    #[arg(long, env = "WEIR_IGNORE_KUADRANT", requires = "kubernetes")]
    pub ignore_kuadrant: bool,
    /// Where to serve gRPC.
    #[arg(long, env = "WEIR_GRPC_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    pub grpc_listen: SocketAddr,
    /// The certificate (and those between it and its authority) to serve gRPC with, as PEM. Files that change are read
    /// again.
    #[arg(long, env = "WEIR_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key, as PEM.
    #[arg(long, env = "WEIR_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The authorities whose certificates callers must have, as PEM. Without it anybody may call.
    #[arg(long, env = "WEIR_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// The filter's module, to be served as /weir.wasm, its digest as /weir.wasm.sha256.
    #[arg(long, env = "WEIR_WASM", value_name = "FILE")]
    pub wasm: Option<PathBuf>,
    /// Where to serve health, metrics and what is in force.
    #[arg(long, env = "WEIR_HTTP_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub http_listen: SocketAddr,
    /// Where counters are kept: memory (of this process), or a Redis that several adapters share:
    /// redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], redis+cluster://HOST:PORT,HOST:PORT or
    /// redis+sentinel://HOST:PORT,HOST:PORT/MASTER[/DATABASE]; rediss for TLS.
    #[arg(
        long,
        env = "WEIR_STORAGE",
        hide_env_values = true,
        value_name = "STORAGE",
        default_value = "memory"
    )]
    pub storage: Storage,
    /// The most counters (one per limit, unit, window and user) that are kept at once. Beyond it, requests that need
    /// a new one cannot be decided, and the policy's failureMode applies.
    #[arg(long, env = "WEIR_MAX_COUNTERS", value_name = "NUMBER", default_value_t = 10_000_000)]
    pub max_counters: usize,
}

/// What to check.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// Files or folders.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// What to explain.
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// Files or folders.
    #[arg(long, env = "WEIR_POLICIES", value_name = "PATH", num_args = 1.., required = true, value_delimiter = ',')]
    pub policies: Vec<PathBuf>,
    /// The raw request: start line, headers, empty line, body.
    #[arg(long, value_name = "FILE")]
    pub request: PathBuf,
    /// The raw response: start line, headers, empty line, body.
    #[arg(long, value_name = "FILE")]
    pub response: Option<PathBuf>,
    /// Who is asking: the JSON object that the auth filter hands on; it is auth.identity.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// The name of Envoy's route for the request, for policies that target an HTTPRoute.
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// The filter is configured to read request bodies (requestBody.access: Buffer). Policies that need that say so
    /// themselves.
    #[arg(long)]
    pub reads_bodies: bool,
}

/// Where counters are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In this process.
    Memory,
    /// In a Redis, which several adapters may share.
    Redis(Place),
}

impl FromStr for Storage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "memory" {
            return Ok(Self::Memory);
        }
        if !text.starts_with("redis") {
            return Err("is not a storage: memory, or redis://HOST".to_owned());
        }
        text.parse().map(Self::Redis).map_err(|error: PlaceError| error.to_string())
    }
}
