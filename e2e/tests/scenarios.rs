//! Plays every story in `e2e/scenarios` through a real Envoy. The adapter's tests play the same stories
//! natively.
//!
//! Stories with the same configuration share an Envoy, one after another, because starting one takes seconds.
//! Before each story, the previous one is settled and the adapter is restarted.

use e2e::scenario::envoy::ThroughEnvoy;
use e2e::scenario::{Story, run};
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Idle Envoys that have finished a story, by the number of body bytes that they read.
#[derive(Clone, Default)]
struct Idle(Arc<Mutex<HashMap<Option<usize>, Vec<ThroughEnvoy>>>>);

/// The number of concurrent stories.
const THREADS: usize = 4;

fn main() {
    let mut arguments = Arguments::from_args();
    // After an adapter restart, a filter waits a second before it reconnects, and uses no CPU in that time.
    arguments.test_threads.get_or_insert(THREADS);
    let idle = Idle::default();
    let trial = |(name, path): (String, std::path::PathBuf)| {
        let story = Story::read(&path);
        // A story that cannot be read is reported instead of skipped.
        let is_played = story.as_ref().map_or(true, |story| story.natively.is_none());
        let idle = idle.clone();
        is_played.then(|| Trial::test(name, move || idle.play(&story?)))
    };
    let trials = Story::all().into_iter().filter_map(trial).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // `exit` does not drop values, so the processes would keep running.
    idle.take_all();
    conclusion.exit();
}

impl Idle {
    fn play(&self, story: &Story) -> Result<(), Failed> {
        let mut player = self.take(story).unwrap_or_else(|| ThroughEnvoy::start(story));
        run(story, &mut player).inspect_err(|_| player.show_logs())?;
        if story.shares_envoy() {
            self.lock().entry(story.reads_bodies).or_default().push(player);
        }
        Ok(())
    }

    fn take(&self, story: &Story) -> Option<ThroughEnvoy> {
        let idle = || self.lock().get_mut(&story.reads_bodies)?.pop();
        let mut player = story.shares_envoy().then(idle)??;
        player.renew();
        Some(player)
    }

    fn take_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Option<usize>, Vec<ThroughEnvoy>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
