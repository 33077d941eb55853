//! Runs unmodified LLM clients through a real Envoy. Checks the responses that they receive, the number of
//! requests that they make, and their charges. `make test-clients` installs the clients.

mod agents;
mod gateway;
mod sdks;

use libtest_mimic::{Arguments, Trial};
use std::path::PathBuf;

/// Returns the folder where `make test-clients` has installed these clients.
fn installed(what: &str) -> PathBuf {
    let folder = std::env::var_os(format!("WEIR_CLIENTS_{what}")).map(PathBuf::from);
    folder.filter(|folder| folder.exists()).expect("run `make test-clients`, which installs the clients")
}

fn main() {
    let sdks = sdks::SDKS.iter().map(|sdk| Trial::test(sdk.title(), || sdk.plays_its_cases()));
    let trials = sdks.chain(agents::trials()).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
