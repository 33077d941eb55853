//! Every story of `e2e/scenarios`, played through a real Envoy. The adapter plays the same ones natively.

use e2e::scenario::envoy::ThroughEnvoy;
use e2e::scenario::{Story, run};
use libtest_mimic::{Arguments, Trial};

fn main() {
    let trial = |(name, path): (String, std::path::PathBuf)| {
        let story = Story::read(&path);
        // One that cannot be read is told, not left out.
        let is_played = story.as_ref().map_or(true, |story| story.natively.is_none());
        let trial = Trial::test(name, move || {
            let story = story?;
            let mut player = ThroughEnvoy::start(&story);
            run(&story, &mut player).map_err(|wrong| {
                player.show_logs();
                wrong.into()
            })
        });
        is_played.then_some(trial)
    };
    let trials = Story::all().into_iter().filter_map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
