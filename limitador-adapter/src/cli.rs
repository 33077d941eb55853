//! The command line.

use crate::grpc::leases::LeaseTerms;
#[cfg(feature = "kubernetes")]
use crate::kubernetes::{DEFAULT_CONTROLLER, crd::Group};
use crate::ledger::memory::budget;
use crate::ledger::shares::Capacity;
use crate::secret::without;
pub use crate::spans::{OtlpProtocol, SpanArgs};
pub use crate::storage::{Storage, StorageAccessArgs, StorageError};
pub use crate::usage::cli::{UsageArgs, UsageFormat, UsageStoreArgs};
use crate::warnings::url::{WebhookUrl, WebhookUrlError};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use std::convert::Infallible;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Token rate limits for LLM APIs. Serves TokenRateLimitPolicies to Weir's filters and counts usage.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve policies to filters, and hold and charge for them.
    Serve(Box<ServeArgs>),
    /// Check policies: print every error and warning, and a summary of what the policies limit.
    Check(CheckArgs),
    /// Explain a request: which limits apply and why the others do not, what is held, and what is charged.
    Explain(ExplainArgs),
    /// Show what a cluster has of Weir: adapters, the filters of each Gateway, and what is wrong, with the next command.
    #[cfg(feature = "kubernetes")]
    Status(StatusArgs),
    /// Show and change the counters of a running adapter.
    Counters(CountersArgs),
    /// Show what was used, from the usage records of a running adapter.
    Usage(UsageArgs),
    /// Print the CustomResourceDefinition of policies, as YAML.
    #[cfg(feature = "kubernetes")]
    Crd(CrdArgs),
}

/// Which definition to print.
#[cfg(feature = "kubernetes")]
#[derive(Clone, Copy, Debug, Args)]
pub struct CrdArgs {
    /// The API group to print the definition for.
    #[arg(long, value_enum, default_value_t)]
    pub group: Group,
}

/// The arguments of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Files (YAML, several documents allowed, or JSON) or folders of them; watched for changes.
    #[arg(long, env = "WEIR_POLICIES", value_name = "PATH", num_args = 1.., value_delimiter = ',')]
    #[cfg_attr(
        feature = "kubernetes",
        arg(required_unless_present = "kubernetes", conflicts_with = "kubernetes")
    )]
    #[cfg_attr(not(feature = "kubernetes"), arg(required = true))]
    pub policies: Vec<PathBuf>,
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// The address to serve gRPC on.
    #[arg(long, env = "WEIR_GRPC_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    pub grpc_listen: SocketAddr,
    /// The certificate chain to serve gRPC with, as PEM. The file is read again when it changes.
    #[arg(long, env = "WEIR_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of the certificate, as PEM.
    #[arg(long, env = "WEIR_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The certificate authorities that callers' certificates must come from, as PEM. Without it, anybody may call.
    #[arg(long, env = "WEIR_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// The filter's module. It is served as /weir.wasm and /weir-DIGEST.wasm, and its digest as /weir.wasm.sha256.
    #[arg(long, env = "WEIR_WASM", value_name = "FILE")]
    pub wasm: Option<PathBuf>,
    /// Modules of other versions, or folders of them. They are served as /weir-DIGEST.wasm, for proxies whose configuration
    /// still names the module from before an upgrade.
    #[arg(long, env = "WEIR_WASM_PREVIOUS", value_name = "PATH", num_args = 1.., value_delimiter = ',')]
    pub wasm_previous: Vec<PathBuf>,
    /// The address to serve HTTP on: health, metrics, and the API. On any address but loopback, /api/* requires the admin
    /// token.
    #[arg(long, env = "WEIR_HTTP_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub http_listen: SocketAddr,
    /// A file with the token that callers of /api/* must send as `Authorization: Bearer TOKEN`. It is read for every
    /// call. Without it, /api/* is available on a loopback address only.
    #[arg(long, env = "WEIR_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Where to keep counters: a SQLite file of this adapter (sqlite:PATH), `memory` (a restart forgets all counters), or a
    /// Redis that several adapters share: redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], redis+cluster://HOST:PORT,HOST:PORT or
    /// redis+sentinel://HOST:PORT,HOST:PORT/MASTER[/DATABASE]; rediss for TLS.
    #[arg(
        long,
        env = "WEIR_STORAGE",
        hide_env_values = true,
        value_name = "STORAGE",
        default_value = Storage::DEFAULT,
        value_parser = Storage::parse
    )]
    pub storage: Result<Storage, StorageError>,
    #[command(flatten)]
    pub storage_access: StorageAccessArgs,
    /// How much memory counters (one per limit, unit, window and user) may take, such as 256Mi. By default a third of the
    /// container's or machine's memory; in Redis half of its maxmemory. Half of it is divided evenly among the limits. A
    /// limit without room for another counter counts its further users together, in one overflow counter.
    #[arg(long, env = "WEIR_COUNTER_MEMORY", value_name = "BYTES", value_parser = budget::parse)]
    pub counter_memory: Option<u64>,
    /// The same limit, as a number of counters.
    #[arg(long, env = "WEIR_MAX_COUNTERS", value_name = "NUMBER", conflicts_with = "counter_memory")]
    pub max_counters: Option<usize>,
    /// Where to send a CloudEvent for each counter that reaches a threshold of `warnAt`: an http:// or https:// URL. The call
    /// contains counter values.
    #[arg(long, env = "WEIR_WEBHOOK", hide_env_values = true, value_name = "URL", value_parser = webhook)]
    pub webhook: Option<Result<WebhookUrl, WebhookUrlError>>,
    /// How long a worker of a proxy may be without a connection before it counts as gone and its holds end. If its side has
    /// closed the connection, as when the proxy dies, it counts as gone after 6s, or after this time if that is shorter.
    #[arg(long, env = "WEIR_WORKER_GRACE", value_name = "DURATION", default_value = "35s", value_parser = grace)]
    pub worker_grace: Duration,
    /// The largest part of what is left in a counter that one lease may hold, in percent. From a lease, a proxy admits requests
    /// to a busy counter without asking the adapter. 0 turns leases off.
    #[arg(long, env = "WEIR_LEASE_PERCENT", value_name = "PERCENT", default_value_t = LeaseTerms::default().percent, value_parser = clap::value_parser!(u64).range(..=MAX_LEASE_PERCENT))]
    pub lease_percent: u64,
    #[command(flatten)]
    pub usage: UsageStoreArgs,
    #[command(flatten)]
    pub spans: SpanArgs,
}

/// Which policies of a cluster to serve, and under which controller name.
#[cfg(feature = "kubernetes")]
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// Take policies, Gateways and routes from a Kubernetes cluster: the one that the adapter runs in, or the one that
    /// KUBECONFIG names.
    #[arg(long, env = "WEIR_KUBERNETES")]
    pub kubernetes: bool,
    /// Ignore policies of kuadrant.io, for clusters in which Kuadrant itself runs.
    #[arg(long, env = "WEIR_IGNORE_KUADRANT", requires = "kubernetes")]
    pub ignore_kuadrant: bool,
    /// The controller name to write statuses under: a domain, a slash and a path. Each install in a cluster needs its
    /// own.
    #[arg(long, env = "WEIR_CONTROLLER_NAME", value_name = "NAME", default_value = DEFAULT_CONTROLLER,
        requires = "kubernetes", value_parser = controller_name)]
    pub controller_name: String,
}

impl ServeArgs {
    /// The requested room for counters.
    pub fn capacity(&self) -> Option<Capacity> {
        let counters = self.max_counters.map(Capacity::from);
        counters.or(self.counter_memory.map(Capacity::Bytes))
    }
}

/// Accepts names of controllers as Gateway API does, but only if they are short enough to be part of a field
/// manager's name.
#[cfg(feature = "kubernetes")]
fn controller_name(text: &str) -> Result<String, String> {
    let is_path = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "/-._~".contains(c))
    };
    let is_domain = |part: &str| {
        let plain = part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c));
        plain && part.contains('.') && !part.starts_with(['-', '.']) && !part.ends_with(['-', '.'])
    };
    let is_name = text.split_once('/').is_some_and(|(domain, path)| is_domain(domain) && is_path(path));
    let is_good = is_name && text.len() <= MAX_CONTROLLER_NAME;
    is_good.then(|| text.to_owned()).ok_or_else(|| {
        format!("must be a domain, a slash and a path, such as {DEFAULT_CONTROLLER}, of at most {MAX_CONTROLLER_NAME} characters")
    })
}

#[cfg(feature = "kubernetes")]
const MAX_CONTROLLER_NAME: usize = 60;

/// The minimum is long enough for a worker to find another adapter.
fn grace(text: &str) -> Result<Duration, String> {
    let grace = policy::duration::parse(text).filter(|grace| *grace >= SHORTEST_GRACE);
    grace.ok_or_else(|| "must be a duration of at least 1s, such as 35s".to_owned())
}

/// Two workers could otherwise take turns in keeping the whole room from everybody else.
const MAX_LEASE_PERCENT: u64 = 25;

const SHORTEST_GRACE: Duration = Duration::from_secs(1);

/// The arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Files or folders of policies.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The format of the output.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// The arguments of `status`.
#[cfg(feature = "kubernetes")]
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// A file with the cluster and the credentials to use. Without it, KUBECONFIG and `~/.kube/config` apply, and then the
    /// cluster that the command runs in.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The format of the output.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// How the output is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The arguments of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Files or folders of policies.
    #[arg(long, env = "WEIR_POLICIES", value_name = "PATH", num_args = 1.., required_unless_present = "watch",
        value_delimiter = ',')]
    pub policies: Vec<PathBuf>,
    /// A file with the raw request: request line, headers, empty line, body.
    #[arg(long, value_name = "FILE", required_unless_present = "watch")]
    pub request: Option<PathBuf>,
    /// A file with the raw response: status line, headers, empty line, body.
    #[arg(long, value_name = "FILE")]
    pub response: Option<PathBuf>,
    /// A file with the identity: the JSON object that the authentication filter passes on. It becomes `auth.identity`.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// The name of the request's route in Envoy, for policies that target an HTTPRoute.
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Explain for a filter that reads request bodies (`requestBody.access: Buffer`). This is implied by policies that use
    /// facts of the body.
    #[arg(long)]
    pub reads_bodies: bool,
    /// Wait for the next request that a running adapter is asked about, and show which limits applied and how they stood.
    #[arg(long, conflicts_with_all = ["request", "response", "identity", "route", "reads_bodies"])]
    pub watch: bool,
    /// With --watch: the HTTP address of the adapter.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub server: String,
    /// With --watch: a file with the admin token of the adapter.
    #[arg(long, value_name = "FILE", requires = "watch")]
    pub token_file: Option<PathBuf>,
    /// With --watch: wait for a request that a limit of this policy applies to.
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "watch")]
    pub policy: Option<String>,
    /// With --watch: wait for a request that a limit of this name applies to.
    #[arg(long, value_name = "NAME", requires = "watch")]
    pub limit: Option<String>,
    /// The format of the output.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// The arguments of `counters`.
#[derive(Clone, Debug, Args)]
pub struct CountersArgs {
    #[command(subcommand)]
    pub action: CountersAction,
}

#[derive(Clone, Debug, Subcommand)]
pub enum CountersAction {
    /// List counters: what is used, held, granted and remaining in each.
    List(ListArgs),
    /// Reset counters. Their windows start anew; running requests keep their holds.
    Reset(ResetArgs),
    /// Raise the maximum of one counter until its window ends.
    Grant(GrantArgs),
}

/// Where the adapter is.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// The HTTP address of the adapter.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub server: String,
    /// A file with the admin token of the adapter. It is required to change counters.
    #[arg(long, env = "WEIR_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Which counters to list.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Only counters of this policy.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub policy: Option<String>,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// The format of the output.
    #[arg(long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Which counters to reset.
#[derive(Clone, Debug, Args)]
pub struct ResetArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// The policy.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub policy: String,
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Selects counters. An omitted option matches all.
#[derive(Clone, Debug, Args)]
pub struct FilterArgs {
    /// Only counters of this limit.
    #[arg(long, value_name = "NAME")]
    pub limit: Option<String>,
    /// Only counters of this unit.
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<String>,
    /// Only counters of this window, such as 1h, or of this period, such as Month.
    #[arg(long, value_name = "WINDOW")]
    pub window: Option<String>,
    /// Only counters with this value, such as auth.identity.userid=alice. Can be given more than once.
    #[arg(long, value_name = "NAME=VALUE", value_parser = counter)]
    pub counter: Vec<(String, String)>,
}

/// Which counter to grant how much.
#[derive(Clone, Debug, Args)]
pub struct GrantArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// The policy.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub policy: String,
    /// The limit.
    #[arg(long, value_name = "NAME")]
    pub limit: String,
    /// The unit.
    #[arg(long, value_name = "UNIT")]
    pub unit: String,
    /// The window, such as 1h, or the period, such as Month. It is required if the limit has several rates in this unit.
    #[arg(long, value_name = "WINDOW")]
    pub window: Option<String>,
    /// The value of a counter of the limit, such as auth.identity.userid=alice. Give all of them.
    #[arg(long, value_name = "NAME=VALUE", value_parser = counter)]
    pub counter: Vec<(String, String)>,
    /// How much to add to the maximum, in the unit; micro-USD for usd.
    #[arg(long, value_name = "NUMBER")]
    pub amount: u64,
    /// Identifies the grant: the same id again changes nothing. By default it is random.
    #[arg(long, value_name = "TEXT")]
    pub id: Option<String>,
}

/// The value is everything after the first `=`.
fn counter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "must be NAME=VALUE".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

/// clap's errors repeat a value that its parser rejects, so this parser accepts every value.
fn webhook(text: &str) -> Result<Result<WebhookUrl, WebhookUrlError>, Infallible> {
    Ok(text.parse())
}

impl Cli {
    /// Like [`Parser::parse`], but errors never repeat a value that may contain a password.
    pub fn read() -> Self {
        match Self::try_parse().and_then(Self::checked) {
            Ok(cli) => cli,
            Err(error) if error.use_stderr() => {
                eprint!("{}", cleared(&error.to_string()));
                std::process::exit(error.exit_code())
            }
            Err(help) => help.exit(),
        }
    }

    fn checked(self) -> Result<Self, clap::Error> {
        let Command::Serve(serve) = &self.command else { return Ok(self) };
        let invalid =
            |message: String| Err(clap::Error::raw(ErrorKind::ValueValidation, format!("{message}\n")));
        match &serve.storage {
            Ok(storage) => {
                if let Err(error) = serve.storage_access.check(storage) {
                    return invalid(error);
                }
            }
            Err(error) => {
                return invalid(format!(
                    "invalid value for '--storage <STORAGE>' (or WEIR_STORAGE): {error}"
                ));
            }
        }
        if let Err(error) = serve.usage.access() {
            return invalid(format!("invalid value for '--usage <STORE>' (or WEIR_USAGE): {error}"));
        }
        if let Some(Err(error)) = &serve.webhook {
            return invalid(format!("invalid value for '--webhook <URL>' (or WEIR_WEBHOOK): {error}"));
        }
        Ok(self)
    }
}

/// Removes words of the command line and values of `WEIR_` variables that may contain a password. A password
/// in the wrong place may appear in an error, for example as the name of a missing file.
pub fn cleared(message: &str) -> String {
    let words = std::env::args_os().skip(1);
    let ours = |(name, value): (OsString, OsString)| {
        name.to_str().is_some_and(|name| name.starts_with("WEIR_")).then_some(value)
    };
    let values = std::env::vars_os().filter_map(ours);
    let words: Vec<String> = words.chain(values).filter_map(|word| word.into_string().ok()).collect();
    // An error may also quote the value of `--flag=VALUE` or one element of a list. The longest texts are
    // removed first.
    let parts = words.iter().flat_map(|word| {
        let value = word.split_once('=').map_or("", |(_, value)| value);
        [word.as_str(), value].into_iter().chain(word.split(','))
    });
    without(message, parts.filter(|part| may_be_secret(part))).into_owned()
}

/// Returns whether the word is a URL, or looks like an attempt at one.
fn may_be_secret(word: &str) -> bool {
    word.contains("://") || word.contains('@') || word.starts_with("redis")
}
