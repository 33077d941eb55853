//! Every story of `e2e/scenarios`, played through a real Envoy. The adapter plays the same ones natively.

use e2e::scenario::envoy::ThroughEnvoy;
use e2e::scenario::{Story, run};
use libtest_mimic::{Arguments, Trial};

fn main() {
    let trial = |(name, path): (String, std::path::PathBuf)| {
        Trial::test(name, move || {
            let story = Story::read(&path)?;
            let mut player = ThroughEnvoy::start(&story);
            run(&story, &mut player).map_err(|wrong| {
                player.show_logs();
                wrong.into()
            })
        })
    };
    let trials = Story::all().into_iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
