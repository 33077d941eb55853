//! `make demo POLICY=FILE`: a gateway for trying out policies. It starts a scripted LLM, the adapter, which
//! watches these policies, and Envoy with the filter. Each part uses the port that the documentation names.

use crate::artefacts;
use crate::client::Request;
use crate::envoy::{Config, Envoy};
use crate::upstream::Upstream;
use crate::wait;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};

/// The Envoy configuration. It authenticates clients by JWT and reads request bodies.
const CONFIG: &str = "examples/two-limits/envoy.yaml";

/// The running parts. Envoy is dropped first, so that the parts that it needs outlive it.
pub struct Playground {
    envoy: Envoy,
    adapter: Child,
    http: SocketAddr,
    _upstream: Upstream,
}

/// Returns the address of a part, from this environment variable or with this port.
fn address(variable: &str, port: u16) -> SocketAddr {
    let given = std::env::var(variable).ok().and_then(|address| address.parse().ok());
    given.unwrap_or_else(|| ([127, 0, 0, 1], port).into())
}

impl Playground {
    /// Starts everything and waits until Envoy enforces limits. The adapter itself reports errors in the
    /// policies.
    pub fn start(policies: &Path) -> Self {
        let (grpc, http) = (address("WEIR_GRPC_LISTEN", 8081), address("WEIR_HTTP_LISTEN", 8080));
        let llm = address("WEIR_LLM_LISTEN", 8000);
        let upstream = Upstream::listen(&llm.to_string())
            .unwrap_or_else(|error| panic!("the LLM simulator cannot listen on {llm}: {error}"));
        let mut command = Command::new(artefacts::adapter());
        command.arg("serve").arg("--policies").arg(policies).arg("--wasm").arg(artefacts::wasm());
        command.args(["--grpc-listen", &grpc.to_string(), "--http-listen", &http.to_string()]);
        let adapter = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut config = Config::read(CONFIG);
        config.listen(address("WEIR_DEMO_LISTEN", 10000).port(), address("WEIR_DEMO_ADMIN", 9901).port());
        config.cluster("llm", llm);
        config.cluster("limitador-adapter", grpc);
        let mut playground = Self { envoy: config.start(1), adapter, http, _upstream: upstream };
        playground.becomes_ready();
        playground
    }

    fn becomes_ready(&mut self) {
        wait::until("the adapter and its first plan", || {
            let ended = self.adapter.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "the adapter has ended");
            Request::get("/readyz").try_send(self.http).ok().filter(|answer| answer.status == 200)?;
            (self.envoy.plans() >= 2).then_some(())
        });
    }

    /// Prints the address of each part.
    pub fn introduce(&self, policies: &Path) {
        let port = |address: SocketAddr| format!("http://localhost:{}", address.port());
        println!("\nThe gateway is ready. Changes of {} take effect within a second.\n", policies.display());
        println!(
            "  gateway  {}  Envoy with Weir's filter, in front of a simulated LLM",
            port(self.envoy.address())
        );
        println!("  adapter  {}  /api/counters, /api/policies, /metrics", port(self.http));
        println!("           Counters are in data/counters.db, and survive a restart");
        println!("  Envoy    {}  /stats", port(self.envoy.admin()));
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        drop(self.adapter.kill());
        drop(self.adapter.wait());
    }
}
